"""Zero-shot as known answer: silence where numbers agree, a warning first of all where they do not, nothing for micro.

What open_clip's prompts must give is taken from open_clip's own `build_zero_shot_classifier` and image tower.
"""

import csv
import json
import re

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from markdown_it import MarkdownIt
from PIL import Image
from report_pages import HOSTILE, Page, record
from standins import all_wnids, write_imagenet
from tiny_caltech import write_caltech

from carryover.bench.analyses import known_zero_shot
from carryover.bench.backbones import archs, loading
from carryover.bench.cli import main
from carryover.bench.engine import known_prompts, schedule
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.plan.settings import default_settings
from carryover.bench.records import printed, reading
from carryover.bench.records.selection import Selection
from carryover.bench.report import report
from carryover.methods import Registered
from carryover.methods.base import Classes

# Printed in the paper: Table 2, row of zero-shot CLIP.
TABLE_2 = {"imagenet": (68.80, 74.77), "caltech101": (93.31, 97.16), "oxford_pets": (89.04, 92.23)}
# Printed in open_clip's docs/openclip_results.csv for ViT-B-16 openai and EVA02-B-16 merged2b_s8b_b131k, ImageNet 1k.
OPEN_CLIP_IMAGENET = {"base": 68.34, "new": 74.72}
TABLE_START = {"md": "| Method", "html": "<table"}


def zero_shot(dataset, base, new, seed=1, limit=None, **others):
    found = record(dataset, "zs-clip", seed, base, new, **others)
    found["run"].update(arch="vit-b16", protocol="published", limit=limit)
    found["names"]["dataset"] = others.get("shown", dataset.upper())
    for role in ("base", "new"):
        if found["targets"]:
            found["targets"][role]["backbone"] = f"{role}-tower"
    found["identity"] = {"backbones": {"base": "b" * 64, "new": "n" * 64}, "pictures": ["s", "v", f"test of {dataset}"]}
    return found


def as_printed(off=None, **others):
    """Records with the paper's numbers; ``off`` (dataset, role) -> points added."""
    off = off or {}
    return [
        zero_shot(d, base + off.get((d, "base"), 0), new + off.get((d, "new"), 0), **others)
        for d, (base, new) in TABLE_2.items()
    ]


def coop(dataset="caltech101"):
    found = zero_shot(dataset, 95.0, 96.0)
    found["run"]["method"], found["names"]["method"], found["key"] = "coop", "CoOp", f"{dataset}coop"
    return found


def write(records, folder, arch="vit-b16"):
    """(report.md as rendered, report.html), each as (source, text of the page)."""
    settings = default_settings(archs.ARCHS[arch], Registered())
    chosen = Selection(archs.ARCHS[arch], tuple(reading.select(records)), settings=settings)
    answers = known_zero_shot.compare(chosen.main, folder, arch)
    markdown, page = report.write_report(chosen, folder, answers)
    rendered = MarkdownIt("commonmark").enable("table").render(markdown.read_text())
    return (markdown.read_text(), rendered), (page.read_text(), page.read_text())


def store_answer(folder, dataset, role, accuracy, **changes):
    stored = {
        "dataset": dataset, "name": "ImageNet", "role": role, "backbone": f"{role}-tower", "accuracy": accuracy,
        "identity": {"backbone": role[0] * 64, "precision": "fp32", "pictures": f"test of {dataset}", **changes},
    }  # fmt: skip
    path = folder / "known" / f"{dataset}-{role}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored))


def test_numbers_as_printed_give_one_quiet_line_and_no_warning(tmp_path):
    (markdown, rendered), (page, _) = write(as_printed({("oxford_pets", "new"): 0.21}), tmp_path)
    line = (
        "Zero-shot agrees with the paper's Table 2 within 0.5 points on all 3 datasets "
        "(largest difference 0.21 on OXFORD_PETS, new)."
    )
    for text in ("".join(Page(rendered).text), "".join(Page(page).text)):
        assert text.count(line) == 1 and "Warning" not in text
    assert 'class="warning"' not in page and "<blockquote>" not in rendered


@pytest.mark.parametrize("points", [0.6, -0.6])
def test_a_number_that_is_off_is_named_before_the_summary_and_the_first_table(tmp_path, points):
    records = [*as_printed({("caltech101", "new"): points}), coop()]
    for (source, shown), kind in zip(write(records, tmp_path), ("md", "html"), strict=True):
        text = "".join(Page(shown).text)
        start = text.index("Warning: zero-shot differs from published numbers by more than 0.5 points in 1 of 6")
        for needed in ("New backbone on CALTECH101 (new-tower)", f"{97.16 + points:.2f} % here", "97.16 % in the paper",
                       f"difference {points:+.2f}", "Likely causes", "split", "templates", "weights"):  # fmt: skip
            assert start < text.index(needed, start) < text.index("There is no verdict"), needed
        assert source.index("Warning: ") < source.index(TABLE_START[kind])
        assert "agrees" not in text and text.count("Warning: ") == 1
    quiet = source[source.index('<aside class="warning"') : source.index("</aside>")]
    assert "<strong>Warning" in quiet, "said in words, not by a colour alone"
    assert "OXFORD_PETS" not in quiet and "Base backbone" not in quiet


@pytest.mark.parametrize("points, within", [(0.5, True), (-0.5, True), (0.504, True), (0.506, False), (-0.51, False)])
def test_half_a_point_is_no_warning_and_what_counts_is_the_number_as_printed(tmp_path, points, within):
    for dataset in TABLE_2:
        found = known_zero_shot.compare(as_printed({(dataset, "base"): points}), tmp_path, "vit-b16")
        assert [answer.within for answer in found].count(False) == (not within), dataset


def test_half_a_point_is_half_a_point_in_binary_too():
    assert 32.02 - 31.52 > 0.5, "which is why the difference is rounded"
    assert known_zero_shot.Answer("dtd", "DTD", "base", "tower", "source", 32.02, 31.52).within


def test_a_later_trial_does_not_hide_the_full_run(tmp_path):
    trial = zero_shot("dtd", 1.0, 1.0, limit=2, started="2027-01-01T00:00:00Z")
    found = known_zero_shot.compare([zero_shot("dtd", 44.09, 50.0), trial], tmp_path, "vit-b16")
    assert [answer.ours for answer in found] == [44.09, 50.0]


def test_seeds_and_average_count_once_and_other_sets_not_at_all(tmp_path):
    records = [zero_shot("dtd", 44.09 + s - 2, 50.0, seed=s) for s in (1, 2, 3)] + [zero_shot("folder:mine", 1, 1)]
    found = known_zero_shot.compare(records, tmp_path, "vit-b16")
    assert [(a.dataset, a.role) for a in found] == [("dtd", "base"), ("dtd", "new")]
    assert found[0].ours == 44.09
    assert known_zero_shot.remark([], [zero_shot("folder:mine", 1, 1)], "vit-b16") == ""


def test_without_a_zero_shot_run_the_report_says_that_nothing_was_compared(tmp_path):
    (markdown, _), (page, _) = write([coop()], tmp_path)
    assert "was not compared" in markdown and "no ZS-CLIP run is done" in page
    failed = zero_shot("dtd", 0, 0, status="failed")
    assert known_zero_shot.compare([failed], tmp_path, "vit-b16") == []


def test_micro_has_no_known_answer_and_nothing_is_said(tmp_path):
    store_answer(tmp_path, "imagenet", "base", 1.0)
    (markdown, _), (page, _) = write(as_printed({("dtd", "base"): 9}), tmp_path, "micro")
    assert known_zero_shot.write_known([], tmp_path, "micro") is None and not (tmp_path / "tables").exists()
    for text in (markdown, page):
        assert not re.search(r"known answer|agrees with the paper's Table|not compared with published|Warning", text)


def test_a_trial_is_not_compared_and_that_is_said_once(tmp_path):
    store_answer(tmp_path, "imagenet", "base", 1.0)
    (markdown, _), (page, _) = write(as_printed({("caltech101", "base"): 5}, limit=2), tmp_path)
    for text in (markdown, page):
        assert text.count("not compared with published numbers") == 1 and "Warning" not in text
        assert "not compared" in text


def test_open_clips_numbers_are_compared_with_the_stored_answer_of_its_prompts(tmp_path):
    store_answer(tmp_path, "imagenet", "base", OPEN_CLIP_IMAGENET["base"] + 0.3)
    store_answer(tmp_path, "imagenet", "new", OPEN_CLIP_IMAGENET["new"])
    found = known_zero_shot.compare(as_printed(), tmp_path, "vit-b16")
    assert [(a.dataset, a.role, a.published, a.within) for a in found if a.source == printed.OPEN_CLIP] == [
        ("imagenet", "base", 68.34, True), ("imagenet", "new", 74.72, True),
    ]  # fmt: skip
    line = known_zero_shot.remark(found, as_printed(), "vit-b16")
    assert "on all 3 datasets" in line and "open_clip's results (its 80 prompts) within 0.5 points on the one" in line
    store_answer(tmp_path, "imagenet", "base", OPEN_CLIP_IMAGENET["base"] - 4)
    head, lines, _ = known_zero_shot.warning(known_zero_shot.compare(as_printed(), tmp_path, "vit-b16"))
    assert len(lines) == 1 and "64.34 % here, 68.34 % in open_clip" in lines[0]


@pytest.mark.parametrize("change", [{"backbone": "x" * 64}, {"precision": "bf16"}, {"pictures": "others"}])
def test_a_stored_answer_of_other_weights_precision_or_pictures_is_passed_over(tmp_path, change):
    store_answer(tmp_path, "imagenet", "base", 1.0, **change)
    assert all(a.source != printed.OPEN_CLIP for a in known_zero_shot.compare(as_printed(), tmp_path, "vit-b16"))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"identity": 1}', '{"identity": {}, "accuracy": "x"}'])
def test_a_damaged_stored_answer_is_passed_over(tmp_path, text):
    store_answer(tmp_path, "imagenet", "base", 1.0)
    (tmp_path / "known" / "imagenet-base.json").write_text(text)
    assert len(known_zero_shot.compare(as_printed(), tmp_path, "vit-b16")) == 6


def test_a_hostile_name_stays_text_in_the_warning(tmp_path):
    records = [zero_shot("dtd", 1, 1, shown=HOSTILE)]
    for role in ("base", "new"):
        records[0]["targets"][role]["backbone"] = HOSTILE
    for _, shown in write(records, tmp_path):
        page = Page(shown)
        assert page.tags.count("script") <= 1  # the page's own
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert "".join(page.text).count(HOSTILE) >= 4
        assert page.tags.count("img") <= 1  # the figure's own


def test_the_csv_has_a_row_a_comparison(tmp_path):
    answers = known_zero_shot.compare(as_printed({("caltech101", "base"): -0.75}), tmp_path, "vit-b16")
    with known_zero_shot.write_known(answers, tmp_path, "vit-b16").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["dataset", "backbone", "model", "source", "ours", "published", "difference", "within"]
    assert len(rows) == 6 and [r["dataset"] for r in rows if r["within"] == "no"] == ["caltech101"]
    (off,) = [r for r in rows if r["within"] == "no"]
    assert [off[k] for k in ("backbone", "model", "ours", "published", "difference")] == [
        "base", "base-tower", "92.56", "93.31", "-0.75",
    ]  # fmt: skip
    assert known_zero_shot.write_known([], tmp_path, "vit-b16").read_text().count("\n") == 1


def test_the_published_file_holds_each_arch_s_towers_and_compares_imagenet_alone():
    table = pd.read_csv(printed.PUBLISHED, index_col="dataset")
    for name in ("vit-b16", "vit-l14"):
        compared = printed.published_for(name)
        assert {d for d, _ in compared} == {
            "imagenet", "imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r",
        } and len(compared) == 10  # fmt: skip
        for role, tower in archs.ARCHS[name].towers.items():
            assert compared["imagenet", role] == table.loc["imagenet", tower.label]
    assert printed.published_for("vit-b16")["imagenet", "base"] == OPEN_CLIP_IMAGENET["base"]
    assert printed.published_for("vit-b16")["imagenet", "new"] == OPEN_CLIP_IMAGENET["new"]
    assert printed.published_for("micro") == {}
    assert ((table.loc[:, "ViT-B-16-quickgelu/openai":] > 1) & (table.loc[:, "ViT-B-16-quickgelu/openai":] < 100)).all(
        axis=None
    ), "percent, not fractions"


# ---- open_clip's own prompts -----------------------------------------------------------------------------------------


@pytest.fixture
def imagenet_a(tmp_path):
    """A data root with 12 classes of ImageNet-A, 4 pictures of coarse noise each."""
    rng = np.random.default_rng(0)
    for wnid in all_wnids()[::80][:12]:
        for n in range(4):
            path = tmp_path / "data" / "imagenet-adversarial" / "imagenet-a" / wnid / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def session_of(tiny, root, folder):
    arch = archs.ARCHS["vit-b16"]
    session = Session(Options(arch, "cpu", str(folder / "out"), str(folder / "cache"), data_root=str(root)))
    session._backbones.update(base=tiny.base, new=tiny.new)
    return session


def test_open_clips_prompts_give_what_open_clips_own_classifier_gives(tiny, imagenet_a, tmp_path):
    session = session_of(tiny, imagenet_a, tmp_path)
    assert known_prompts.measure(session, ["imagenet_a"]) == [], "nothing is encoded for this"
    data = session.data("imagenet_a")
    for role in ("base", "new"):
        session.features(role).features(data.test, data.classnames)
    session.inputs.forget()
    written = known_prompts.measure(session, ["imagenet_a", "dtd"])
    assert [path.name for path in written] == ["imagenet_a-base.json", "imagenet_a-new.json"]

    pictures = data.test.read(range(len(data.test)))
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    seen = set()
    for role, backbone in (("base", tiny.base), ("new", tiny.new)):
        classifier = open_clip.build_zero_shot_classifier(
            backbone.model, tokenizer, data.classnames, open_clip.OPENAI_IMAGENET_TEMPLATES, device="cpu"
        )
        mine = backbone.zero_shot(Classes("imagenet", data.classnames, known_prompts.templates()))
        torch.testing.assert_close(mine, classifier.T, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            images = F.normalize(backbone.model.encode_image(torch.stack([backbone.preprocess(p) for p in pictures])))
        expected = (images @ classifier).argmax(-1)
        stored = json.loads((tmp_path / "out" / "vit-b16" / "known" / f"imagenet_a-{role}.json").read_text())
        assert stored["correct"] == int((expected == torch.from_numpy(np.array(data.test.labels))).sum())
        assert (stored["count"], stored["prompts"]) == (48, 80)
        features = session.features(role).stored(data.test, data.classnames)
        assert known_prompts.classify(backbone, features, data.classnames).tolist() == expected.tolist()
        seen |= set(expected.tolist())
    assert len(seen) > 1
    assert known_prompts.measure(session, ["imagenet_a"]) == [], "stored already"


def test_other_weights_or_pictures_are_measured_again(tiny, imagenet_a, tmp_path):
    session = session_of(tiny, imagenet_a, tmp_path)
    data = session.data("imagenet_a")
    session.features("base").features(data.test, data.classnames)
    (path,) = known_prompts.measure(session, ["imagenet_a"])
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "identity": {**stored["identity"], "backbone": "other"}}))
    assert known_prompts.measure(session, ["imagenet_a"]) == [path]
    assert json.loads(path.read_text()) == stored


# ---- through the command line ----------------------------------------------------------------------------------------


@pytest.fixture
def towers(tiny, monkeypatch):
    """The published architectures' names over tiny towers."""
    monkeypatch.setattr(loading, "load", lambda tower, *a, **k: tiny.base if "ViT" in tower.model else tiny.new)
    monkeypatch.setattr(schedule, "workers_of", lambda options, jobs=0: 1)


def run(capsys, root, out, *more):
    capsys.readouterr()
    base = ["--arch", "vit-b16", "--methods", "zs-clip", "--seeds", 1, "--views", 1, "--shots", 1, "--device", "cpu"]
    assert main.main([*map(str, [*more, *base, "--data-root", root, "--out", out])]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_run_says_it_on_the_console_and_report_makes_it_again_from_stored_files_alone(towers, tmp_path, capsys):
    root, out = tmp_path / "data", tmp_path / "out"
    write_caltech(root)
    write_imagenet(root, all_wnids()[:6], train=3, val=2)
    said = run(capsys, root, out, "--datasets", "imagenet", "caltech101")
    assert "Warning: zero-shot differs from published numbers" in said and "93.31 % in the paper's Table 2" in said
    folder = out / "vit-b16"
    assert sorted(path.name for path in (folder / "known").iterdir()) == ["imagenet-base.json", "imagenet-new.json"]
    files = [folder / name for name in ("report.md", "report.html", "tables/known.csv")]
    first = [path.read_text() for path in files]
    assert "68.34 % in open_clip" in first[1] and "imagenet,base," in first[2]
    for path in files:
        path.unlink()
    for made in (root, out / "cache"):
        made.rename(made.with_suffix(".away"))
    assert main.main(["report", "--arch", "vit-b16", "--shots", "1", "--views", "1", "--out", str(out)]) == 0
    assert [path.read_text() for path in files] == first
    assert "Warning: zero-shot differs" in capsys.readouterr().out


def test_check_finds_a_number_changed_in_the_known_answers_table(towers, tmp_path, capsys):
    root, out = tmp_path / "data", tmp_path / "out"
    write_caltech(root)
    run(capsys, root, out, "--datasets", "caltech101")
    again = ["check", "--arch", "vit-b16", "--shots", "1", "--views", "1", "--out", str(out)]
    assert main.main(again) == 0
    path = out / "vit-b16" / "tables" / "known.csv"
    header, first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, first.replace(",93.31,", ",50.0,"), *rest]))
    assert ",50.0," in path.read_text()
    capsys.readouterr()
    assert main.main(again) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "known.csv: line 2" in said and "1 differences" in said
    path.unlink()
    assert main.main(again) == 1 and "known.csv: not there" in " ".join(capsys.readouterr().out.split())


def test_a_trial_measures_nothing_and_warns_of_nothing(towers, tmp_path, capsys):
    root, out = tmp_path / "data", tmp_path / "out"
    write_imagenet(root, all_wnids()[:4], train=3, val=2)
    said = run(capsys, root, out, "--datasets", "imagenet", "--limit", 1)
    assert "Warning" not in said and not (out / "vit-b16" / "known").exists()
    assert (out / "vit-b16" / "tables" / "known.csv").read_text().count("\n") == 1
    assert "this is a trial" in (out / "vit-b16" / "report.md").read_text()
