"""What ``import carryover`` offers for plug-ins and runs (docs/python.md); ``carryover.ports`` is the rest of it.

    plugin = carryover.load_plugin("coop-dtd.safetensors")
    backbone = carryover.load_backbone("ViT-B-16/laion2b_s34b_b88k", device="cuda")
    plugin.fits(backbone)                                # None, or the reason
    model = plugin.bind(backbone)
    model.classify("PICTURES")                           # names, probabilities
    model.logits(features)                               # (B, D) -> (B, C)
    carryover.run(methods=["coop"], datasets=["micro_stars"])  # a pandas frame

What is wrong with what was given is a ``carryover.bench.errors.UserError`` of one line. Each function leaves the
process as it was: torch's switches and threads, handlers of the log and of signals.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from carryover.bench.backbones import loading
from carryover.bench.backbones.loading import Backbone
from carryover.bench.backbones.names import tower_of
from carryover.bench.engine.options import device_budget
from carryover.bench.errors import UserError, unknown
from carryover.bench.host.outputs import PLUGIN, check_output
from carryover.bench.host.untouched import OwnDraws, draws_untouched, leaves_untouched
from carryover.bench.plugins import answers, format, given, hub, porting
from carryover.bench.plugins.answers import BoundPlugin
from carryover.methods import discover
from carryover.methods.base import Classes

if TYPE_CHECKING:
    import pandas as pd


class Plugin(format.Plugin):
    """A plug-in file, or what was imported. ``header`` says what its file does (docs/plugins.md), ``sha256`` is the
    file's; ``carryover.ports.fit`` takes it too."""

    def __repr__(self) -> str:
        return f"Plugin({self.method} of {self.backbone}, {len(self.classes.names)} classes)"

    @property
    def backbone(self) -> str:
        """The name of the backbone that it was trained on, or was ported to; ``load_backbone`` takes it where it is the
        name of a published or embedded model."""
        return porting.home_of(self)["backbone"]

    @functools.cached_property
    def classes(self) -> Classes:
        """The class names and prompts that it was trained on."""
        return porting.classes_of(self)[0]

    @leaves_untouched
    def fits(self, backbone: Backbone, classes: Classes | Sequence[str] | None = None) -> str | None:
        """None, or why it cannot be used on that backbone."""
        place, named = given.backbone(backbone), self._named(classes)
        try:
            answers.check_fits(self, place, named)
        except UserError as error:
            return "; ".join(getattr(error, "reasons", [str(error)]))
        return None

    @leaves_untouched
    def bind(self, backbone: Backbone, classes: Classes | Sequence[str] | None = None) -> BoundPlugin:
        """The plug-in on a backbone. classes: other names than its own, where it has no weights of each class's own.
        Raises UserError saying what ``fits`` says."""
        return answers.bound(self, given.backbone(backbone), self._named(classes), precision=backbone.text.precision)

    @leaves_untouched
    def save(self, path: str | Path) -> None:
        """A plug-in file, for one that was imported."""
        from carryover.bench.imports import writing
        from carryover.bench.plugins.ported import check_name

        check_name(Path(path))
        check_output(path, (), PLUGIN, "save:")
        writing.write(self, path)

    def _named(self, classes: Classes | Sequence[str] | None) -> Classes:
        if classes is None or isinstance(classes, Classes):
            return classes or self.classes
        return Classes(self.classes.dataset, given.names(classes), self.classes.templates)


def plugin_of(found: format.Plugin) -> Plugin:
    return Plugin(**{one.name: getattr(found, one.name) for one in fields(found)})


@leaves_untouched
def load_plugin(path: str | Path, plugin_dirs: Sequence[str] = ()) -> Plugin:
    """A plug-in file, or ``hf://ORG/NAME[@REV]/FILE``, whose copy in the hub's cache is its ``path``. plugin_dirs:
    folders with method files of your own."""
    discover(tuple(plugin_dirs))
    return plugin_of(format.read(hub.local_file(path).path))


@leaves_untouched
def load_backbone(
    name: str, device: str | torch.device = "cpu", precision: str = "fp32", cache_dir: str | None = None
) -> Backbone:
    """A backbone with its weights. name: what ``--backbone`` takes, e.g. "micro-update", "ViT-B-16/openai",
    "ViT-B-16=weights.safetensors", "hf-hub:ORG/NAME", "local-dir:PATH". precision: of the frozen towers, "fp32" or
    "bf16". cache_dir: where open_clip keeps what it downloads."""
    if precision not in ("fp32", "bf16"):
        raise unknown("precision", precision, ("fp32", "bf16"))
    place = given.device(device)
    with OwnDraws():
        return loading.load(tower_of(name, cache_dir=cache_dir), place, cache_dir, device_budget(place.type), precision)


@leaves_untouched
def import_plugin(
    path: str | Path,
    backbone: str = "",
    *,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    kind: str = "",
    dataset: str = "",
    **facts: Any,
) -> Plugin:
    """A plug-in that someone else's code wrote, as the command ``import`` reads it; nothing of the file is run.

    backbone   the name of the model that it was trained on, as ``load_backbone`` takes it
    classes    class names in the order of training; templates: prompts of the text classifier
    kind       the format, where the file may be of several; dataset: what it was trained on, a name
    facts      what else the file does not say; the error names what is missing
    """
    from carryover.bench import imports
    from carryover.bench.imports import writing
    from carryover.bench.imports.base import Facts
    from carryover.bench.imports.reading import read

    discover()
    imports.discover()
    told: dict[str, Any] = {**facts, **({"backbone": backbone} if backbone else {})}
    told |= {} if classes is None else {"classes": list(given.names(classes))}
    told |= {} if templates is None else {"templates": given.texts(templates, "templates")}
    file = read(hub.local_file(path).path)
    kind_of = writing.format_of(file, kind)
    if told.get("templates"):
        writing.check_templates(file, kind_of)
    found = Facts(told, tower_of, load_backbone, dataset, told.get("classes", ()) if dataset else ())
    return plugin_of(writing.imported(file, kind_of, found))


@draws_untouched
def run(
    arch: str = "micro",
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    *,
    quiet: bool = False,
    **flags: Any,
) -> pd.DataFrame:
    """The main experiment, and its main table: a row a dataset and method, accuracies in percent, the average rows
    last (results/README.md lists the columns). What is done already is not done again. Raises UserError where a run
    failed, naming the first.

    methods, datasets  ids (default: the arch's); a dataset of your own is "folder:PATH"
    quiet              shows no progress
    flags              any flag of the command ``run``, e.g. out="results", seeds=[1], plugin_dir=["mine"], jobs=2,
                       limit=20, set=["coop.epochs=2"]; True for one without a value
    """
    from carryover.bench.cli import whole_runs

    listed = {"methods": given.texts(methods, "methods"), "datasets": given.texts(datasets, "datasets")}
    return whole_runs.frame_of({"arch": arch, **listed, **flags}, quiet)
