"""Fields that are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from antflow._core.portable import Portable


class Deferred(Portable):
    """Base of dataclasses with slots, some of whose fields are made when they are first read.

    From then on they are ordinary fields. Everything that reads them makes them: comparing,
    copying and pickling, too.
    """

    __slots__ = ("_makers",)

    def _defer(self, **makers: Callable[[], Any]) -> None:
        """Empty these fields. Each will be made by its function, from what does not change."""
        for name in makers:
            delattr(self, name)
        self._makers: dict[str, Callable[[], Any]] = makers

    if not TYPE_CHECKING:  # a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:  # only called for a slot that is empty
            if name != "_makers" and name in (makers := getattr(self, "_makers", ())):
                setattr(self, name, makers[name]())
            return object.__getattribute__(self, name)
