"""Made-up records of a small experiment, and its report as a parser that is not ours reads it."""

from __future__ import annotations

from html.parser import HTMLParser

from carryover.bench.backbones.archs import ARCHS
from carryover.bench.records import reading
from carryover.bench.records.selection import Selection

HOSTILE = "<img src=x onerror=alert(1)> </svg><script>$x_1$ {body} \"'|`&amp;"
VOID = {"meta", "link", "br", "img", "input", "hr"}
DEPTH = {"zs-clip": "none", "coop": "shallow", "contcoop": "shallow", "clip-adapter": "deep"}
NAMES = {"zs-clip": "ZS-CLIP", "coop": "CoOp", "contcoop": "ContCoOp", "clip-adapter": "CLIP-Adapter"}
SPLIT = {"train_sha256": "ab" * 32, "val_sha256": "cd" * 32, "test_sha256": "ef" * 32, "classes": 5, "support": 80}


def record(dataset, method, seed, base, new, status="done", name=None, **others):
    backbones = {"base": "tiny-a", "new": "tiny-b"}
    scores = {"base": base, "new": new}
    targets = {
        t: {"backbone": b, "fingerprint": t * 10, "correct": scores[t], "count": 100, "accuracy": scores[t]}
        for t, b in backbones.items()
    }
    return {
        "key": f"{dataset}{method}{seed}", "status": status, "error": None if status == "done" else "it <broke>",
        "run": {"arch": "micro", "dataset": dataset, "method": method, "seed": seed, "shots": 16,
                "precision": "fp32", "protocol": "micro", "views": 4, "limit": None, "config": {"epochs": 50}},
        "names": {"dataset": dataset, "method": name or NAMES.get(method, method)},
        "depth": DEPTH.get(method, "shallow"), "order": {"dataset": 0, "method": [*DEPTH, method].index(method)},
        "marks": [], "split": SPLIT,
        "targets": targets if status == "done" else {}, "curve": [],
        "seconds": {"features": 1.0, "fit": float(seed), "evaluate": {"base": 0.5, "new": 0.25}},
        "peak_memory_bytes": seed * 2**20, "trainable_parameters": 1536, "plugin_bytes": 6500,
        "versions": {"python": "3.11.7", "torch": "9.9.9"}, "device": "cpu (2 threads)", "git_commit": "0123abc",
        "started": f"2026-01-0{seed}T00:00:00Z", **others,
    }  # fmt: skip


def world(new, base=None, seeds=(1, 2, 3), datasets=("a", "b")):
    base = base or dict.fromkeys(new, 70.0)
    return [record(d, m, s, base[m], new[m]) for d in datasets for m in new for s in seeds]


AS_PAPER = {"zs-clip": 60.0, "coop": 65.0, "contcoop": 68.0, "clip-adapter": 40.0}


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def chosen(records, notes=()):
    return Selection(ARCHS["micro"], tuple(reading.select(records)), notes=tuple(notes))
