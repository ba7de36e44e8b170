"""Which ported runs there are: each method of the suite through each port that carries it."""

from __future__ import annotations

from collections.abc import Sequence

from carryover.bench.backbones.archs import Arch
from carryover.bench.plan.port_specs import carriers
from carryover.bench.plan.run_labels import ZERO_SHOT
from carryover.bench.plan.suites import Variant

PLAIN_KINDS = ("support", "other", "texts")  # of the first command's report, each with all its anchors
COUNTS = {"support": (16, 64), "other": (16, 64, 256), "foreign": (64, 256, 1024)}  # beside all there are
COUNTED = ("procrustes", "linear")  # the ports whose accuracy is drawn against the number of anchors
PLAIN = "procrustes"  # the port of chains, and of a refresh
REFRESH_STEPS = (5, 10, 20, 40)  # as `chains` has them for what is carried unported


def beside(arch: Arch, methods: Sequence[str], shots: int) -> list[Variant]:
    """What ported plug-ins are compared with: zero-shot, and each method as the main suite has it."""
    return [Variant((), method) for method in dict.fromkeys((ZERO_SHOT, *methods))] if methods else []


def closed_rows(arch: Arch, methods: Sequence[str], shots: int) -> list[Variant]:
    """The ports that are formulas, with few-shot pictures, other pictures of the dataset, and texts."""
    found = beside(arch, methods, shots)
    for method in methods:
        for port in carriers(method):
            if port.closed_form:
                found += [ported(method, port.id, kind) for kind in PLAIN_KINDS if kind in port.anchors]
    return found


def further_rows(arch: Arch, methods: Sequence[str], shots: int) -> list[Variant]:
    """The same with pictures of other datasets, and with fewer anchors; two updates in turn; a refresh of what was
    ported; and retraining beside them."""
    found = closed_rows(arch, methods, shots)
    updates = [role for role in arch.towers if role != "base"]
    for method in methods:
        found += [Variant(("retrained", role), method, path=(role,)) for role in updates]
        ports = {port.id: port for port in carriers(method) if port.closed_form}
        found += [ported(method, id, "foreign") for id, port in ports.items() if "foreign" in port.anchors]
        for id in (id for id in COUNTED if id in ports):
            for kind, counts in COUNTS.items():
                found += [ported(method, id, kind, count) for count in counts]
        if PLAIN in ports and len(updates) > 1:
            found.append(ported(method, PLAIN, "other", via=("new",)))
        if PLAIN in ports and ports[PLAIN].trains_on(method):
            found += [ported(method, PLAIN, "other", steps=steps) for steps in REFRESH_STEPS]
    return found


def taught_rows(arch: Arch, methods: Sequence[str], shots: int) -> list[Variant]:
    """The ports that are trained, or look into the towers, with few-shot and with other pictures."""
    found = beside(arch, methods, shots)
    for method in methods:
        for port in carriers(method):
            if not port.closed_form:
                found += [ported(method, port.id, kind) for kind in PLAIN_KINDS if kind in port.anchors]
    return found


def ported(method: str, port: str, kind: str, count: int = 0, via: tuple[str, ...] = (), steps: int = 0) -> Variant:
    """Its label: port, anchors, their number, what it goes through, steps of the refresh after it."""
    label = (port, kind, str(count or "all"), " ".join(via), str(steps or ""))
    path = ("base", "new") if steps else ("base",)
    return Variant(label, method, path=path, refresh=steps, port=port, anchors=kind, count=count, via=via)
