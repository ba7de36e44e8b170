"""One small typed registry: a decorator fills it, a lookup that fails names the nearest entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from carryover.bench.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to classes (or any value), in the order of registration."""

    def __init__(self, kind: str, base: type | None = None):
        self.kind, self.base = kind, base
        self.entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator. Raises UserError for a second entry of one name or a class that is not a ``base``."""

        def add(entry: T) -> T:
            if self.base is not None and not (isinstance(entry, type) and issubclass(entry, self.base)):
                raise UserError(f"{self.kind} '{name}' must be a class derived from {self.base.__name__}")
            if name in self.entries:
                where = getattr(self.entries[name], "__module__", "?")
                raise UserError(f"{self.kind} '{name}' is registered twice (first in {where}): rename one of them")
            self.entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self.entries:
            raise unknown(self.kind, name, self.entries)
        return self.entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)
