"""An item from a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antflow._core.items import Returned
from antflow._core.result import ORDINARY, Fate


class Item(Returned):
    """An item as `Pipeline.run` takes it: ``id``, ``value``, and metadata.

    Args:
        fields: Its keys.
        again: Reads its value anew, and that in the file of the first run: see `as_read`.
        number: The number of its line, or its place in an array of JSON.
        stage: The stage to begin with.
        fate: The run and the place at which it was first accepted, and how many items were made
            from it in the stage it begins with.
        own_id: The id that it has in the file of the first run; ``None`` if it has none there.
        origin: The id of the item in that file from which it was made; ``None`` = it is that item.

    Attributes:
        origin: The id of the item in that file from which it was made, or its own.
    """

    def __init__(
        self,
        fields: dict[str, Any],
        again: Callable[[], tuple[Any, Any]],
        number: int,
        stage: str,
        fate: Fate = ORDINARY,
        own_id: Any = None,
        origin: Any = None,
    ) -> None:
        super().__init__(fields, fate, own_id)
        self.origin: Any = fields["id"] if origin is None else origin
        self._again = again
        self.number = number
        self.stage = stage

    def as_read(self) -> tuple[Any, Any]:
        """Its value, and that in the file of the first run, whatever tasks did to the value."""
        return self._again()

    @property
    def content(self) -> Any:
        """The item as the file of the first run had it."""
        return self.as_read()[1]

    def __repr__(self) -> str:
        return repr(self.as_read()[1])  # failures are told with what was in the file
