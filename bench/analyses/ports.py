"""Ported plug-ins: what a map between two backbones makes of a plug-in that was trained on the old one."""

from __future__ import annotations

from carryover.bench.analyses.base import Analysis, register
from carryover.bench.analyses.parts.port_rows import closed_rows, further_rows, taught_rows
from carryover.bench.plan.suites import Suite

ON = {"paper": ("dtd", "ucf101", "eurosat"), "micro": ("micro_textures", "micro_actions", "micro_stars")}
FEW = {"paper": ("dtd",), "micro": ("micro_textures",)}  # each fit is a training


@register("maps")
class Maps(Analysis):
    title, place = "Ported by a map between the backbones", 42
    names = ()
    suite = Suite(closed_rows, ON, kind="further", needs="learns")


@register("ports")
class Ports(Analysis):
    title, place = "Reuse, port, or retrain", 41
    suite = Suite(further_rows, ON, kind="further", needs="learns")


@register("taught")
class Taught(Analysis):
    title, place = "Ported by teaching", 43
    suite = Suite(taught_rows, FEW, kind="further", needs="learns")
