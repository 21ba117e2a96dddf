"""Failures summed up while they happen."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from antflow._core.snapshot import ErrorSummary, FailedItem
from antflow._core.text import error_type_name, safe_str


class FailureBook:
    """Exact counts by type and stage, and the failed items: all of them, or the last ``keep``."""

    def __init__(self, keep: int | None = None) -> None:
        self._items: deque[FailedItem] = deque(maxlen=keep)
        self._by_type: dict[str, int] = {}
        self._by_stage: dict[str, int] = {}
        self._total = 0

    def add(
        self, item_id: Any, error: BaseException, stage: str, attempts: int, timestamp: float
    ) -> FailedItem:
        """Enter one failure."""
        item = FailedItem(
            item_id, safe_str(error), error_type_name(error), stage, attempts, timestamp
        )
        self._items.append(item)
        self._by_type[item.error_type] = self._by_type.get(item.error_type, 0) + 1
        self._by_stage[stage] = self._by_stage.get(stage, 0) + 1
        self._total += 1
        return item

    def summary(self, most: int | None = None) -> ErrorSummary:
        """A copy of the counts, with all kept items or the last ``most`` of them."""
        return ErrorSummary(
            self._total, dict(self._by_type), dict(self._by_stage), list(self._newest(most))
        )

    def _newest(self, most: int | None) -> Sequence[FailedItem]:
        if most is None or len(self._items) <= most:
            return tuple(self._items)
        # From the right: a slice from the left would walk over every item there is.
        newest = list(islice(reversed(self._items), most))
        newest.reverse()
        return newest
