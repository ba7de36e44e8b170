"""What `doctor` says of the backbones: where their weights come from, what was assumed, how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence

import huggingface_hub
import torch
import torch.nn.functional as F

from carryover.bench.backbones import archs, loading, weight_sources
from carryover.bench.backbones.sizes import loaded_sizes
from carryover.bench.engine.options import Options
from carryover.bench.engine.session import Session
from carryover.bench.errors import UserError
from carryover.bench.plan.runs import Run
from carryover.bench.preflight.findings import Page, amount, check_space
from carryover.methods.asks import fits
from carryover.methods.base import METHODS

NEAR_ZERO = 0.1  # a cosine between matrices of W x D entries below this: nothing of the old joint space is left


def show_backbone(page: Page, session: Session, role: str, tower: archs.Tower) -> loading.Backbone | None:
    what = f"{role} backbone"
    with page.guard(what):
        source = weight_sources.find(tower, session.options.hub_cache)
        if source.problem:
            raise UserError(f"{tower.label}: {source.problem}")
        if source.text == weight_sources.DOWNLOAD and source.size:
            folder = session.options.hub_cache or huggingface_hub.constants.HF_HUB_CACHE
            check_space(page, f"disk for the {role} weights", source.size, folder)
        found = session.backbone(role)
        page.ok(
            what,
            f"{found.label}, {source.text} ({amount(source.size)}); {tower.activation}, W {found.width}, "
            f"D {found.dim}, logit scale {found.scale.item():.2f}, "
            f"fast text path {'yes' if found.text.fast else 'no'}, fingerprint {found.fingerprint[:12]}",
        )
        transform = ", ".join(f"{name} {value}" for name, value in transform_of(found).items())
        page.ok(f"{role} transform", transform)
        if tower.weights and not tower.is_micro:
            if not loading.declared_activation(tower):
                page.note(
                    f"{role} activation",
                    f"the file does not say which it was trained with; {tower.activation} is assumed from the model's "
                    "name; the other would cost accuracy without an error: compare zero-shot with published numbers",
                )
            if not tower.pretrained:
                page.note(
                    f"{role} transform",
                    "open_clip's default, for the file does not say its own; name the tag too, to take the tag's",
                )
        return found


def show_control(page: Page, options: Options, name: str, tower: archs.Tower) -> None:
    """A backbone that the drift suite alone compares with; the run goes on without it."""
    source = weight_sources.find(tower, options.hub_cache)
    if source.problem:
        page.note(f"control '{name}'", f"{tower.label}: {source.problem}; the drift suite would leave it out")
    else:
        page.ok(f"control '{name}'", f"{tower.label}, {source.text} ({amount(source.size)}), for the drift suite alone")


def show_pair(
    page: Page, base: loading.Backbone | None, new: loading.Backbone | None, runs: Sequence[Run], prefix: str
) -> None:
    """The base beside one update, and what of the plan can be plugged into it; ``prefix`` names a further one."""
    if not base or not new:
        page.note(f"{prefix}pair", "not compared, for a backbone could not be loaded")
        return
    if (base.width, base.dim) == (new.width, new.dim):
        page.ok(f"{prefix}widths", f"W {base.width} and D {base.dim} in both")
        show_projections(page, base, new, prefix)
    else:
        page.note(f"{prefix}widths", f"W {base.width} and D {base.dim}; {new.label} has {new.width} and {new.dim}")
    show_plugins(page, base, new, runs, prefix)
    a, b = transform_of(base), transform_of(new)
    if a == b:
        page.ok(f"{prefix}transforms", "alike")
    else:
        differing = ", ".join(f"{name} {a[name]} and {b[name]}" for name in a if a[name] != b[name])
        page.note(f"{prefix}transforms", f"differ: {differing}; each backbone gets its own")


def show_projections(page: Page, base: loading.Backbone, new: loading.Backbone, prefix: str) -> None:
    """How much of the joint space was kept, between towers of the same widths."""
    try:
        whole, rows = projection_cosines(loading.projection(base), loading.projection(new))
    except UserError as error:  # a text tower of Hugging Face's may end in more than one matrix
        page.note(f"{prefix}text_projection", f"not compared: {error}")
        return
    text = f"cosine of the two matrices {whole:.3f}, mean over rows {rows:.3f}"
    if abs(whole) < NEAR_ZERO:
        page.note(
            f"{prefix}text_projection",
            f"{text}: the joint space was re-initialised; output-space plug-ins are expected not to carry over",
        )
    else:
        page.ok(f"{prefix}text_projection", f"{text}: the joint space was kept, in part or whole")


def show_plugins(page: Page, base: loading.Backbone, new: loading.Backbone, runs: Sequence[Run], prefix: str) -> None:
    """Which of the plan's plug-ins do not fit the update as they are."""
    own, there = loaded_sizes(base), loaded_sizes(new)
    reasons: dict[str, list[str]] = {}
    configs = {run.method: run.config for run in runs if run.path == ("base",) and not run.port}
    for method, config in configs.items():
        if reason := fits(METHODS[method], config, own, there):
            reasons.setdefault(reason.partition(" (")[0].partition(";")[0], []).append(method)
    if configs and not reasons:
        page.ok(f"{prefix}plug-ins", f"all {len(configs)} methods of the plan fit as they are")
    elif reasons:
        told = "; ".join(f"{', '.join(methods)}: {reason}" for reason, methods in reasons.items())
        page.note(
            f"{prefix}plug-ins",
            f"{told}. They are measured on the base, and may go to {new.label} through a port (docs/ports.md)",
        )


def transform_of(backbone: loading.Backbone) -> dict:
    """What a picture goes through, by name; open_clip writes a square's side as one number or two."""
    t = backbone.preprocess_config
    size = tuple(t.size) if isinstance(t.size, (tuple, list)) else (t.size, t.size)
    mean, std = (tuple(round(value, 4) for value in values) for values in (t.mean, t.std))
    return {"resize": t.resize_mode, "size": size, "interpolation": t.interpolation, "mean": mean, "std": std}


def projection_cosines(base: torch.Tensor, new: torch.Tensor) -> tuple[float, float]:
    """Cosine of two (W, D) matrices as vectors, and the mean of their rows' cosines."""
    base, new = base.double().cpu(), new.double().cpu()
    rows = F.cosine_similarity(base, new, dim=1).mean().item()
    return F.cosine_similarity(base.flatten(), new.flatten(), dim=0).item(), rows
