"""Base and new are never mixed up, and a seed reaches what is drawn by it: told from open_clip alone."""

import torch
from splits_in_memory import split
from tiny_towers import NAMES, TEMPLATES
from toys import execute, pictures, toy_run

from carryover.bench.features.transforms import View


@torch.no_grad()
def zero_shot(backbone):
    """Predicted classes of the toy test set, by this backbone's own model: open_clip's encoders and nothing of ours."""
    model, part = backbone.model, pictures("test")
    pixels = torch.stack([backbone.preprocess(image) for image in part.read(range(len(part)))])
    tokens = backbone.text.tokenizer([TEMPLATES[0].format(name) for name in NAMES])
    images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    return (images @ texts.T).argmax(-1).tolist()


def test_each_role_is_evaluated_with_its_own_pictures_texts_and_name(session_on, tiny):
    session, run = session_on("roles"), toy_run("zs-clip")
    record = execute(session, run, session.keys.of(run))
    stored = session.store.read_predictions(record["key"])
    expected = {role: zero_shot(getattr(tiny, role)) for role in ("base", "new")}
    assert expected["base"] != expected["new"], "else nothing would be told apart"
    for role in ("base", "new"):
        assert stored[role][0].tolist() == expected[role]
        assert record["targets"][role]["backbone"].startswith(f"tiny-{role}")


def test_another_seed_gives_other_views_and_the_same_seed_the_same():
    part = split()
    (image,) = part.read([0])

    def made(seed, number=0):
        return View((16, 16), (0.1, 0.5), seed, number)(image, "p0").tobytes()

    assert made(1) == made(1)
    assert len({made(seed) for seed in range(1, 5)}) == 4 and made(1, 1) != made(1, 0)
