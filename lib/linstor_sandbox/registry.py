"""Objects by name: LINSTOR's names compare without regard to case and keep the case they were given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Optional, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by case-insensitive name; iteration is in the order of the upper-cased names."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._sorted: Optional[list[T]] = None

    def get(self, name: str) -> Optional[T]:
        """The object, or None."""
        return self._items.get(name.upper())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.upper() in self._items

    def __getitem__(self, name: str) -> T:
        return self._items[name.upper()]

    def __setitem__(self, name: str, item: T) -> None:
        self._items[name.upper()] = item
        self._sorted = None

    def pop(self, name: str) -> Optional[T]:
        """Take the object out, if it is there."""
        self._sorted = None
        return self._items.pop(name.upper(), None)

    def values(self) -> list[T]:
        """All objects in the order of their names."""
        if self._sorted is None:
            self._sorted = [self._items[key] for key in sorted(self._items)]
        return list(self._sorted)

    def __iter__(self) -> Iterator[T]:
        return iter(self.values())

    def __len__(self) -> int:
        return len(self._items)
