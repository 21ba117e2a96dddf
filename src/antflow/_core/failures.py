"""Failures summed up while they happen, and told in one line."""

from __future__ import annotations

from typing import Any

from antflow._core.places import Place, location_of, place_of
from antflow._core.snapshot import ErrorSummary, FailedItem, FailureGroup
from antflow._core.text import brief_repr, counted, error_text, error_type_name, tally

MOST_GROUPS = 100
"""Groups, by line of code, that a run distinguishes; other failures are grouped without a line."""

MOST_TOLD = 3
"""Groups that are named in one line."""


class FailureBook:
    """Exact counts by type, stage and line, and the failed items: all, or the last ``keep``."""

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        # A list, because a slice of it is one step: a summary may be asked for in another thread.
        self._items: list[FailedItem] = []
        self._by_type: dict[str, int] = {}
        self._by_stage: dict[str, int] = {}
        self._groups: dict[tuple[str, str, Place | None], FailureGroup] = {}
        self._total = 0

    def add(
        self,
        item_id: Any,
        error: BaseException,
        stage: str,
        attempts: int,
        timestamp: float,
        value: Any,
    ) -> FailedItem:
        """Enter one failure, of the item that was fed as ``value``."""
        kind, place = error_type_name(error), place_of(error)
        key = (kind, stage, place)
        group = self._groups.get(key)
        if group is None and len(self._groups) >= MOST_GROUPS:
            key, place = (kind, stage, None), None
            group = self._groups.get(key)
        item = FailedItem(item_id, error_text(error), kind, stage, attempts, timestamp)
        # What takes long is done once for each group: to make its location a text, and to ask the
        # user's objects for theirs.
        item.input = brief_repr(value, asks=group is None)
        if group is None:
            item.location = "" if place is None else place.location
            self._groups[key] = FailureGroup(1, item)
        else:
            item.location = group.location
            group.count += 1
        self._items.append(item)
        if self._keep is not None and len(self._items) > 2 * self._keep:
            del self._items[: -self._keep]
        self._by_type[kind] = self._by_type.get(kind, 0) + 1
        self._by_stage[stage] = self._by_stage.get(stage, 0) + 1
        self._total += 1
        return item

    def summary(self, most: int | None = None) -> ErrorSummary:
        """A copy of the counts, with all kept items or the last ``most`` of them."""
        keep = most if self._keep is None else min(most or self._keep, self._keep)
        items = self._items[:] if keep is None else self._items[-keep:]
        groups = [FailureGroup(group.count, group.first) for group in list(self._groups.values())]
        groups.sort(key=lambda group: -group.count)
        by_type, by_stage = dict(self._by_type), dict(self._by_stage)
        return ErrorSummary(self._total, by_type, by_stage, items, groups[:most])

    def told(self, total: int) -> str:
        """`failures_text` of what was entered so far."""
        return failures_text(self.summary(MOST_GROUPS), total)


def failed_item(
    item_id: Any, error: BaseException, stage: str, attempts: int, value: Any
) -> FailedItem:
    """One failure, at no particular time, of the item that was fed as ``value``."""
    kind, location = error_type_name(error), location_of(error)
    text, given = error_text(error), brief_repr(value)
    return FailedItem(item_id, text, kind, stage, attempts, 0.0, location, given)


def failures_text(summary: ErrorSummary, total: int) -> str:
    """``3 of 9 items failed: 3 × KeyError at app.py:3 in f, e.g. input 'x' …``.

    Args:
        summary: The failures.
        total: How many items there were.
    """
    text = f"{summary.total_failed:,} of {counted(total, 'item')} failed"
    if not summary.groups:
        types = tally(summary.errors_by_type, MOST_TOLD)
        return f"{text}: {types}" if types else text
    told = [str(group) for group in summary.groups[:MOST_TOLD]]
    told[0] += f", e.g. {summary.groups[0].example}"
    if (more := len(summary.groups) - MOST_TOLD) > 0:
        told.append(f"{counted(more, 'more kind')}")
    return f"{text}: {'; '.join(told)}"
