"""Failures summed up while they happen."""

from __future__ import annotations

from typing import Any

from antflow._core.snapshot import ErrorSummary, FailedItem
from antflow._core.text import error_type_name, safe_str


class FailureBook:
    """Exact counts by type and stage, and the failed items: all of them, or the last ``keep``."""

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        # A list, because a slice of it is one step: a summary may be asked for in another thread.
        self._items: list[FailedItem] = []
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
        if self._keep is not None and len(self._items) > 2 * self._keep:
            del self._items[: -self._keep]
        self._by_type[item.error_type] = self._by_type.get(item.error_type, 0) + 1
        self._by_stage[stage] = self._by_stage.get(stage, 0) + 1
        self._total += 1
        return item

    def summary(self, most: int | None = None) -> ErrorSummary:
        """A copy of the counts, with all kept items or the last ``most`` of them."""
        keep = most if self._keep is None else min(most or self._keep, self._keep)
        items = self._items[:] if keep is None else self._items[-keep:]
        return ErrorSummary(self._total, dict(self._by_type), dict(self._by_stage), items)
