"""What ``--backbone`` takes: one name, any backbone; and what the names of two backbones tell of each other."""

from __future__ import annotations

from pathlib import Path

from carryover.bench.backbones.arch_files import find_arch
from carryover.bench.backbones.archs import ARCHS, Tower
from carryover.bench.backbones.loading import MICRO, resolve
from carryover.bench.errors import UserError, unknown

HOSTED = ("hf-hub:", "local-dir:")
FORMS = "ROLE of --arch, ARCH:ROLE, micro-NAME, MODEL/TAG, MODEL=FILE, hf-hub:ORG/NAME, local-dir:PATH"


def tower_of(
    given: str, arch: str = "micro", base_weights: str = "", new_weights: str = "", cache_dir: str | None = None
) -> Tower:
    """The tower that a ``--backbone`` names, with activation, W and D, before any weights are read.

    ROLE of ``arch`` ("base", "new", a further update's or a control's name); ARCH:ROLE, ARCH a name or FILE.toml;
    micro-NAME; an open_clip MODEL/TAG; MODEL=FILE, a local checkpoint; hf-hub:ORG/NAME; local-dir:PATH.
    Raises UserError for a name that is none of these, naming the nearest.
    """
    return resolve(named(given.strip(), arch, base_weights, new_weights), cache_dir)


def named(given: str, arch: str, base_weights: str, new_weights: str) -> Tower:
    owner, colon, role = given.rpartition(":")
    if given.startswith(HOSTED):
        return hosted(given)
    if colon and (owner.lower() in ARCHS or owner.endswith(".toml")):
        return of_role(role, owner, base_weights, new_weights)
    if "=" in given:
        model, _, file = given.partition("=")
        if not Path(file).is_file():
            raise UserError(
                f"--backbone {given}: no file at '{file}'; expected MODEL=FILE with a .safetensors or .pt checkpoint"
            )
        return own(model, weights=file)
    if "/" in given:
        model, _, tag = given.partition("/")
        return own(model, pretrained=tag)
    if given in micro():
        return own(given)
    return of_role(given, arch, base_weights, new_weights)


def hosted(given: str) -> Tower:
    """A hub id, or a folder as open_clip saves a model."""
    if given.startswith("local-dir:"):
        place = Path(given.removeprefix("local-dir:")).expanduser()
        if not (place / "open_clip_config.json").is_file():
            raise UserError(
                f"--backbone {given}: '{place}' holds no open_clip_config.json; expected a saved open_clip model"
            )
        given = f"local-dir:{place}"
    return own(given)


def own(model: str, pretrained: str = "", weights: str = "") -> Tower:
    """A backbone by itself: activation, widths and picture transform are the model's own."""
    return Tower(model, pretrained, weights=weights, clip_transform=False, layers=0)


def of_role(role: str, arch: str, base_weights: str, new_weights: str) -> Tower:
    found = find_arch(arch, base_weights, new_weights)
    towers = {**found.towers, **found.controls}
    if role not in towers:
        known = [*(f"{role}" for role in towers), *micro(), "ARCH:ROLE", "MODEL/TAG", "MODEL=FILE", *HOSTED]
        raise unknown(f"--backbone (for --arch {arch})", role, known)
    return towers[role]


def differ(one: str, other: str) -> bool | None:
    """Whether two backbones are different ones, by their labels; None where a name cannot tell: that of a local file or
    folder, of a hub id, whose weights may be published under a tag too, and of what is not known here."""
    names = [published(label) for label in (one, other)]
    return None if None in names else names[0] != names[1]


def published(label: str) -> str | None:
    """The label as open_clip writes it, where it is an embedded model's or one of open_clip's tags; the archs
    name no others."""
    import open_clip

    if label in micro():
        return label
    model, slash, tag = label.partition("/")
    tag = tag.lower().replace("-", "_")
    known = {found.lower().replace("-", "_") for found in open_clip.list_pretrained_tags_by_model(model)}
    return f"{model}/{tag}" if slash and tag in known else None


def micro() -> list[str]:
    """The embedded models."""
    return sorted(path.stem for path in MICRO.glob("micro-*.safetensors"))
