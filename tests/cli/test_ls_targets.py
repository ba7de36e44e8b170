"""``ls archs NAME`` and ``ls targets``: every tag of open_clip once, and the documentation's table as it is printed."""

from __future__ import annotations

import re
import subprocess
import sys

import open_clip
import pytest
from checkout import ROOT
from command_line import call, mistake

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.cli import ls_targets, target_rows

TAGS = [(model, tag) for model, tag in open_clip.list_pretrained()]
DOCS = (ROOT / "docs" / "targets.md").read_text()
TABLE = DOCS[DOCS.index("<!-- targets -->") : DOCS.index("<!-- end of targets -->")]
needs_version = pytest.mark.skipif(
    f"open_clip {open_clip.__version__}:" not in TABLE, reason="the documentation's table is of another open_clip"
)


def counts(cell):
    """Model -> its tags, of a cell such as "ViT-B-32 (17), EVA02-B-16"."""
    return {name: int(count or 1) for name, count in re.findall(r"([^,() ]+)(?: \((\d+)\))?(?:, |$)", cell)}


@needs_version
def test_every_tag_is_in_one_row_of_the_documentation_or_stands_under_its_right_name():
    rows = [line.split(" | ")[0].removeprefix("| ") for line in TABLE.splitlines() if line.startswith("| ")][1:]
    found = [pair for row in rows for pair in counts(row).items()]
    assert len({model for model, _ in found}) == len(found), "a model in two rows"
    wrong = [
        (model, tag)
        for model, tag in TAGS
        if open_clip.get_pretrained_cfg(model, tag).get("quick_gelu") and (f"{model}-quickgelu", tag) in TAGS
    ]
    assert sum(count for _, count in found) + len(wrong) == len(TAGS)
    for model, count in found:
        assert count == len([1 for one, tag in TAGS if one == model and (one, tag) not in wrong]), model
    assert f"{len(TAGS)} tags, of which {len(wrong)} " in TABLE
    assert f"Of the other {len(TAGS) - len(wrong)}, 0 can be no target of any choice" in TABLE


@pytest.mark.long
@needs_version
def test_the_documentations_table_is_what_the_command_prints():
    command = [sys.executable, "run_all.py", "ls", "targets", "--arch", "vit-b16", "--markdown"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert TABLE.removeprefix("<!-- targets -->\n") == done.stdout


def test_an_archs_targets_are_told_with_what_differs(capsys):
    status, out, _ = call(capsys, "ls", "archs", "siglip-b16")
    assert status == 0 and "768 / 768" in out and "transformers" in out
    rows = {row.names.split(":")[0]: row for row in target_rows.of_arch(ARCHS["vit-b16-all"])}
    assert [*rows] == [role for role in ARCHS["vit-b16-all"].towers if role != "base"]
    assert rows["new"].plugged == "all" and not rows["new"].ported and not rows["new"].why
    siglip = rows["siglip2"]
    assert (siglip.plugged, siglip.size, siglip.text) == ("Descriptions", "768 / 768", "last, 64, own tokens*")
    assert {reason.partition(": ")[0] for reason in siglip.why.split("; ")} == {"W", "D"}
    assert rows["convnext"].why == "image blocks: 2SFS, CLIP-LoRA, CoPrompt, LayerNorm, MaPLe, PromptSRC"


def test_an_arch_file_is_told_too_and_its_widths_are_not_compared(tmp_path, capsys):
    towers = {"base": ("ViT-B-32", "laion2b_s34b_b79k"), "new": ("ViT-gopt-16-SigLIP2-256", "webli")}
    text = "".join(f'[{role}]\nmodel = "{model}"\npretrained = "{tag}"\n' for role, (model, tag) in towers.items())
    (tmp_path / "mine.toml").write_text(text)
    status, out, _ = call(capsys, "ls", "archs", tmp_path / "mine.toml")
    assert status == 0 and "plug-ins of ViT-B-32/laion2b_s34b_b79k" in out and "procrustes" in out


def test_what_no_method_can_be_trained_on_is_said(monkeypatch, capsys):
    monkeypatch.setattr(target_rows.open_clip, "list_pretrained", lambda: [("ViT-B-16-SigLIP", "webli")])
    status, out, _ = call(capsys, "ls", "targets", "--backbone", "ViT-SO400M-14-SigLIP/webli", "--markdown")
    assert status == 0 and "Not trained on this base: CoOp, ContCoOp, as " in out and "has 16." in out
    assert "| ViT-B-16-SigLIP | 768 / 768 | last, 64, own tokens\\* | Descriptions |" in out


def test_bad_names_are_one_line(capsys):
    assert call(capsys, "ls", "archs", "MICRO")[1] == call(capsys, "ls", "archs", "micro")[1] != ""
    assert "unknown arch 'vit-b61-all'" in mistake(capsys, "ls", "archs", "vit-b61-all")
    assert "takes one list at most" in mistake(capsys, "ls", "targets", "vit-b16")
    assert "Did you mean 'targets'" in mistake(capsys, "ls", "target")
    assert "--markdown" in mistake(capsys, "report", "--markdown")
    for words in (["archs", "micro-all", "--markdown"], ["archs", "micro-all", "--backbone", "micro-wider"]):
        assert f"ls: {words[2]} is not read but by 'ls targets'; leave it out" in mistake(capsys, "ls", *words)
    assert "unknown" in mistake(capsys, "ls", "targets", "--backbone", "ViT-B-61/openai")


def test_a_tag_that_no_choice_serves_is_counted():
    row = target_rows.Row("a", 3, "1 / 1", "causal, 77", "none", "", "W: CoOp", 1)
    assert not row.possible and "3 can be no target of any choice" in ls_targets.counted("b", [row])[0]
