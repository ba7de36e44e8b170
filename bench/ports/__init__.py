"""Ports: ways to carry a plug-in from one backbone to another, one file each.

A user's port is a file in a folder for ``--plugin-dir``, as a method is:

    from carryover.bench.ports import Port, register

    @register("mine")
    class Mine(Port):
        name, needs, anchors = "Mine", {"images", "old_model"}, ("support", "other")

        def fit(self, plugin, old, new, classes, anchors):
            return Mapped(...)
"""

from carryover.bench.ports.anchors import Anchors as Anchors
from carryover.bench.ports.base import PORTS as PORTS
from carryover.bench.ports.base import Port as Port
from carryover.bench.ports.base import Ported as Ported
from carryover.bench.ports.base import register as register
from carryover.bench.ports.catalogue import discover as discover
