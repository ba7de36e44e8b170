"""How lines name a run beside its dataset, method and seed, and what of a run its record leaves unsaid."""

from __future__ import annotations

from collections.abc import Mapping

ZERO_SHOT = "zs-clip"  # the method that every gain is measured from
WHOLE_SCHEDULE = -1  # `Run.refresh`: as many steps as the method trains from nothing
# Of `Run`, later than the first records: left out where a run has just this, so that keys of such runs stay.
UNSAID: dict[str, object] = {
    "path": ["base"], "refresh": 0, "carried_shots": 0, "port": "", "anchors": "", "count": 0, "via": [],
}  # fmt: skip


def setting(run: Mapping, name: str):
    """One of `UNSAID`, of a run as its record holds it."""
    return run.get(name, UNSAID[name])


def is_plain(run: Mapping) -> bool:
    """Whether a run, as its record holds it, is trained once, on the base, and carried as it is."""
    return all(setting(run, name) == value for name, value in UNSAID.items())


def told(run: Mapping) -> str:
    """What sets a run, as its record holds it, apart from the plain one of its dataset, test set, method and seed;
    empty for that."""
    if is_plain(run):
        return ""
    refresh, carried = setting(run, "refresh"), setting(run, "carried_shots")
    steps = {0: "", WHOLE_SCHEDULE: ", whole schedule"}.get(refresh, f", {refresh} steps")
    shots = f", {run.get('shots')} shots after {carried}" if carried else ""
    trained = f"trained on {', then '.join(map(str, setting(run, 'path')))}{steps}{shots}"
    return f" ({', '.join([*ported(run), trained])})"


def ported(run: Mapping) -> list[str]:
    """Which port carried it, through what, and what the port saw; nothing where none did."""
    if not setting(run, "port"):
        return []
    via = "".join(f" by way of {role}" for role in setting(run, "via"))
    return [f"{setting(run, 'port')}{via}, {setting(run, 'count') or 'all'} {setting(run, 'anchors')} anchors"]
