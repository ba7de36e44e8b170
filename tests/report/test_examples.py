"""Example pictures: chosen by a rule that a plain count repeats, thumbnails true to their pictures and bare of what
else the file holds, and a report that shows those which fit the stored predictions."""

import base64
import io
import json
import re
from dataclasses import replace

import answered
import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from report_pages import HOSTILE, Page

from carryover.bench.analyses.examples import chosen
from carryover.bench.cli.examples import keep
from carryover.bench.errors import UserError
from carryover.bench.records import example_files
from carryover.bench.report import report
from carryover.datasets.images import split_of_files

CHANCES = {
    "zs-clip": {"base": 0.6, "new": 0.6},
    "coop": {"base": 0.7, "new": 0.6},
    "linear-probe": {"base": 0.8, "new": 0.3},
}
NAMES = ("lynx", "red <b>fox</b>", HOSTILE, "owl", "moth")
SHA256 = "ab" * 32


def world(images=40, **others):
    identity = {"pictures": ["train", "val", SHA256]}
    return answered.world(CHANCES, images=images, seeds=(2, 3), identity=identity, **others)


@pytest.fixture
def selection():
    return answered.selection_of(*world())


def photo(index, size=(300, 200)):
    """Smooth colours, so that ways to shrink it agree."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    waves = [np.sin(3 * x + index), np.cos(4 * y - index), np.sin(2 * x * y + 2 * index)]
    return Image.fromarray(np.stack([127 + 120 * wave for wave in waves], -1).astype(np.uint8))


@pytest.fixture
def tests(tmp_path):
    """Test pictures on disk, as ``keep`` is handed them, with what their files tell besides."""
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif.get_ifd(0x8825)[1] = "N"
    files = [f"pictures/{i}.jpg" for i in range(40)]
    for i, name in enumerate(files):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo(i).save(tmp_path / name, quality=98, exif=exif, comment=b"taken at home")
    split = split_of_files(tmp_path, files, [0] * 40, dataset="a")
    return lambda id: (split, NAMES, SHA256)


# ---- which pictures --------------------------------------------------------------------------------------------------


def by_hand(stored, dataset):
    """The rule, picture by picture: of the first seed, most methods that break; then where zero-shot is still right."""
    answers = {method: stored[f"{dataset}-{method}-2"] for method in CHANCES}
    truth = answers["coop"]["base"].label.tolist()
    picked = []
    for condition in ("all", "zero-shot right"):
        best, most = None, 0
        for place, label in enumerate(truth):
            if condition != "all" and answers["zs-clip"]["new"].predicted[place] != label:
                continue
            if any(truth[other] == label for other in picked):
                continue
            count = 0
            for found in answers.values():
                count += found["base"].predicted[place] == label != found["new"].predicted[place]
            if count > most:
                best, most = place, count
        if best is not None:
            picked.append(best)
    return picked


@pytest.mark.parametrize("rng", range(5))
def test_the_examples_are_those_that_a_plain_count_over_the_predictions_finds(rng):
    records, stored = world(rng=rng)
    found = chosen(answered.selection_of(records, stored))
    for dataset in ("a", "b"):
        own = [one for one in found if one.dataset == dataset]
        assert [one.picture for one in own] == by_hand(stored, dataset) and len(own) == 2
        for one in own:
            assert (one.seed, one.test) == (2, SHA256)
            for method, (before, after) in one.answers.items():
                outcome = stored[f"{dataset}-{method}-2"]
                assert before == outcome["base"].predicted[one.picture]
                assert after == outcome["new"].predicted[one.picture]
                assert one.label == outcome["base"].label[one.picture]


def test_there_are_none_where_nothing_breaks_or_no_predictions_are_there():
    records, stored = world()
    same = {key: {"base": found["base"], "new": found["base"]} for key, found in stored.items()}
    assert chosen(answered.selection_of(records, same)) == []
    assert chosen(answered.selection_of(records, {})) == []
    assert chosen(answered.selection_of([{**one, "identity": {}} for one in records], stored)) == []
    assert chosen(answered.selection_of([], {})) == []


# ---- thumbnails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, expected", [((300, 200), (128, 85)), ((64, 64), (64, 64)), ((90, 720), (16, 128))])
def test_a_thumbnail_shows_the_picture_at_most_128_pixels_wide_and_high(size, expected):
    picture = photo(1, size)
    made = Image.open(io.BytesIO(example_files.thumbnail(picture)))
    assert made.format == "JPEG" and made.size == expected
    want = np.asarray(picture.resize(expected, Image.Resampling.BOX), float)
    assert np.abs(np.asarray(made, float) - want).mean() < 3
    assert picture.size == size, "the picture itself is as it was"


def test_kept_files_are_thumbnails_of_the_chosen_pictures_and_tell_nothing_else(selection, tests, tmp_path):
    kept = keep(selection, tmp_path / "micro", tests)
    assert [one.of for one in kept] == chosen(selection)
    for one in kept:
        file = tmp_path / "micro" / "examples" / one.file
        with Image.open(file) as made, Image.open(tmp_path / one.key) as picture:
            assert picture.getexif() and picture.info["comment"]
            assert not made.getexif() and "comment" not in made.info and b"taken at home" not in file.read_bytes()
            own = picture.copy()
            own.thumbnail((128, 128))
            assert np.abs(np.asarray(made, float) - np.asarray(own, float)).mean() < 2
        assert one.key == f"pictures/{one.of.picture}.jpg"
    content = json.loads((tmp_path / "micro" / "examples" / "examples.json").read_text())
    for listed, one in zip(content["examples"], kept, strict=True):
        assert listed["true"] == {"class": one.of.label, "name": NAMES[one.of.label]}
        told = {each["method"]: (each["before"]["name"], each["after"]["name"]) for each in listed["answers"]}
        assert told == {method: tuple(NAMES[n] for n in pair) for method, pair in one.of.answers.items()}
    assert example_files.load(tmp_path / "micro") == kept and not list(example_files.differences(tmp_path / "micro"))


def test_what_is_stored_is_kept_and_what_is_of_no_example_any_more_is_taken_away(selection, tests, tmp_path):
    kept = keep(selection, tmp_path, tests)
    later = replace(selection, examples=example_files.load(tmp_path))

    def gone(id):
        raise UserError(f"{id} is no longer on disk")

    assert keep(later, tmp_path, gone) == kept, "nothing is read again"
    others = answered.selection_of(*world(rng=3), examples=later.examples)
    assert keep(others, tmp_path, gone) == () and not (tmp_path / "examples").exists()


def test_pictures_that_changed_or_cannot_be_read_are_left_out(selection, tests, tmp_path, capsys):
    split, names, _ = tests("a")
    assert keep(selection, tmp_path / "out", lambda id: (split, names, "other pictures")) == ()
    first, *rest = chosen(selection)
    (tmp_path / f"pictures/{first.picture}.jpg").write_bytes(b"no picture")
    found = [one.of for one in keep(selection, tmp_path / "out", tests)]
    assert found == [one for one in rest if one.picture != first.picture]
    assert "left out example picture: a: image" in capsys.readouterr().out.replace("\n", " ")


# ---- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(selection, tests, tmp_path):
    return replace(selection, examples=keep(selection, tmp_path, tests))


def test_the_page_holds_the_very_files_and_the_markdown_links_them(shown, tmp_path):
    markdown, page = report.texts(shown)
    found = [base64.b64decode(text) for text in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)]
    assert found == [(tmp_path / "examples" / one.file).read_bytes() for one in shown.examples] and len(found) == 4
    read = Page(page)
    assert read.tags.count("img") == 4 and "<b>fox" not in page and "".join(read.text).count(HOSTILE)
    policy = re.search(r'Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy and [p for p in policy.split("; ") if "img" in p] == ["img-src data:"]
    rendered = Page(MarkdownIt("commonmark").enable("table").render(markdown))
    links = {value for name, value in rendered.attributes if name == "href" and value.startswith("examples/")}
    assert len(links) == 5 and all((tmp_path / link).is_file() for link in links)


def test_each_card_says_what_was_predicted_before_and_after(shown):
    markdown, _ = report.texts(shown)
    lines = [line for line in markdown.splitlines() if "(examples/" in line and line.startswith("- ")]
    for line, one in zip(lines, shown.examples, strict=True):
        for method, (before, after) in one.of.answers.items():
            was, now = (predicted == one.of.label for predicted in (before, after))
            said = [part for part in re.split(r"; (?=After|Still|Right)", line)[1:] if method.upper() in part]
            start = {(True, False): "After:", (True, True): "Still right:", (False, True): "Right only now:"}.get(
                (was, now)
            )
            assert [part.startswith(start) for part in said] == [True] if start else not said, line


def test_examples_of_other_predictions_are_left_out_and_counted(shown):
    spoilt = replace(shown.examples[0], of=replace(shown.examples[0].of, picture=39))
    markdown, page = report.texts(replace(shown, examples=(spoilt, *shown.examples[1:])))
    assert page.count("data:image/jpeg") == 3 and "1 picture left out" in markdown
    assert "## Examples" not in report.texts(replace(shown, examples=()))[0]


def test_a_browser_shows_every_picture_within_the_page_and_asks_nobody(tab, shown, tmp_path):
    tab.said.clear()
    (tmp_path / "page.html").write_text(report.texts(shown)[1])
    for width in (390, 1280):
        tab.size(width, 900)
        tab.open((tmp_path / "page.html").as_uri())
        tab.run("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert tab.run("[...document.images].map(one => one.complete && one.naturalWidth)") == [128] * 4
        assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.said == [] and {url.split(":")[0] for url in tab.asked} == {"file", "data"}


def test_a_list_made_by_hand_leads_to_no_other_file(shown, tmp_path):
    path = tmp_path / "examples" / "examples.json"
    content = json.loads(path.read_text())
    for name in ("../report.html", "/etc/passwd", 7, None):
        content["examples"][0]["file"] = name
        path.write_text(json.dumps(example_files.sealed({"examples": content["examples"]})))
        assert example_files.load(tmp_path) == () and list(example_files.differences(tmp_path))
