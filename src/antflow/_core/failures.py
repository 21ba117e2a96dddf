"""Failures summed up while they happen, and told in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from antflow._core.places import Place, location_of, place_of
from antflow._core.snapshot import ErrorSummary, FailedItem, FailureGroup, at_text
from antflow._core.text import brief_repr, clean, counted, error_text, error_type_name

MOST_GROUPS = 100
"""Groups, by line of code, that a run distinguishes; other failures are grouped without a line."""

MOST_TOLD = 3
MOST_STAYED = 5
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
            del self._items[: len(self._items) - self._keep]
        self._by_type[kind] = self._by_type.get(kind, 0) + 1
        self._by_stage[stage] = self._by_stage.get(stage, 0) + 1
        self._total += 1
        return item

    @property
    def last(self) -> FailedItem:
        """The failure that was entered last."""
        return self._items[-1]

    def summary(self, most: int | None = None) -> ErrorSummary:
        """A copy of the counts, with all kept items or the last ``most`` of them."""
        keep = most if self._keep is None else min(most or self._keep, self._keep)
        items = [] if keep == 0 else self._items[:] if keep is None else self._items[-keep:]
        groups = [FailureGroup(group.count, group.first) for group in list(self._groups.values())]
        groups.sort(key=lambda group: -group.count)
        by_type, by_stage = dict(self._by_type), dict(self._by_stage)
        return ErrorSummary(self._total, by_type, by_stage, items, groups[:most])

    def told(self, total: int) -> str:
        """`failures_text` of what was entered so far."""
        return failures_text(self.summary(MOST_GROUPS), total)

    def kinds_told(self, stage: str | None = None) -> str:
        """`kinds_text` of what was entered so far, in all stages or one."""
        groups = self.summary(MOST_GROUPS).groups
        return kinds_text([_told(each) for each in groups if stage in (None, each.stage)])


def merged(summaries: Iterable[ErrorSummary]) -> ErrorSummary:
    """One summary of several runs."""
    by_type: Counter[str] = Counter()
    by_stage: Counter[str] = Counter()
    items: list[FailedItem] = []
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    for summary in summaries:
        by_type.update(summary.errors_by_type)
        by_stage.update(summary.errors_by_stage)
        items += summary.failed_items
        for group in summary.groups:
            known = groups.setdefault(kind_of(group.first), FailureGroup(0, group.first))
            known.count += group.count
    ordered = sorted(groups.values(), key=lambda group: -group.count)
    return ErrorSummary(by_type.total(), dict(by_type), dict(by_stage), items, ordered)


def kind_of(item: FailedItem) -> tuple[str, str, str]:
    """What failures have in common that are told together: type, stage and line of code."""
    return item.error_type, item.stage, item.location


def failed_item(
    item_id: Any, error: BaseException, stage: str, attempts: int, value: Any
) -> FailedItem:
    """One failure, at no particular time, of the item that was fed as ``value``."""
    kind, location = error_type_name(error), location_of(error)
    text, given = error_text(error), brief_repr(value)
    return FailedItem(item_id, text, kind, stage, attempts, 0.0, location, given)


def told_alone(item: FailedItem) -> str:
    """``KeyError at app.py:3 in f, input 'x' in stage Parse after 3 attempts: 'id'``."""
    return f"{item.error_type}{at_text(item.location)}, {FailureGroup(1, item).example}"


def failures_text(summary: ErrorSummary, total: int) -> str:
    """``3 of 9 items failed: 3 × KeyError at app.py:3 in f, e.g. input 'x' …``.

    Args:
        summary: The failures.
        total: How many items there were.
    """
    text = f"{summary.total_failed:,} of {counted(total, 'item')} failed"
    kinds = kinds_text(_kinds(summary))
    return f"{text}: {kinds}" if kinds else text


def failure_lines(summary: ErrorSummary, most: int) -> list[str]:
    """A line for each kind of failure, the most frequent first, with an example.

    Args:
        summary: The failures.
        most: How many of them; one more line counts the others.
    """
    kinds = _kinds(summary)
    lines = [f"{kind.text}, e.g. {kind.example}" if kind.example else kind.text for kind in kinds]
    more = len(kinds) - most
    return [*lines[:most], counted(more, "more kind")] if more > 0 else lines


def stay_failed(counts: Mapping[str, int], how: str) -> str:
    """``2 items stay failed from earlier runs: 2 × OSError; … runs them again``.

    Args:
        counts: Type of an error → how many items had failed with it.
        how: What runs them again.
    """
    total = sum(counts.values())
    stay = "item stays" if total == 1 else "items stay"
    ranked = Counter(counts).most_common()
    told = [f"{count:,} × {clean(kind)}" for kind, count in ranked[:MOST_STAYED]]
    kinds = ", ".join([*told, "…"] if len(ranked) > MOST_STAYED else told)
    return f"{total:,} {stay} failed from earlier runs: {kinds}; {how} runs them again"


class Told(NamedTuple):
    """Failures of one type from one line; or of one type, if no more is known.

    Attributes:
        number: How many.
        text: ``3 × KeyError at app.py:3 in f``.
        example: The first of them, or "".
    """

    number: int
    text: str
    example: str = ""


def kinds_text(kinds: Sequence[Told]) -> str:
    """``3 × KeyError at app.py:3 in f, e.g. input 'x' …; 2 × ValueError …``, in one line."""
    told = [kind.text for kind in kinds[:MOST_TOLD]]
    if kinds and kinds[0].example:
        told[0] += f", e.g. {kinds[0].example}"
    if (more := len(kinds) - MOST_TOLD) > 0:
        told.append(counted(more, "more kind"))
    return "; ".join(told)


def kinds_of(items: Iterable[FailedItem]) -> str:
    """`kinds_text` of these failures, the most frequent first."""
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    for item in items:
        groups.setdefault(kind_of(item), FailureGroup(0, item)).count += 1
    return kinds_text([_told(each) for each in sorted(groups.values(), key=lambda it: -it.count)])


def _told(group: FailureGroup) -> Told:
    return Told(group.count, str(group), group.example)


def _kinds(summary: ErrorSummary) -> list[Told]:
    kinds = [_told(group) for group in summary.groups]
    left = ungrouped(summary)
    kinds += [Told(count, f"{count:,} × {clean(kind)}") for kind, count in left.items()]
    return sorted(kinds, key=lambda kind: -kind.number)


def ungrouped(summary: ErrorSummary) -> dict[str, int]:
    """Failures by type that are in no group: all of those in a summary that was made by hand."""
    left = dict(summary.errors_by_type)
    for group in summary.groups:
        left[group.error_type] = left.get(group.error_type, 0) - group.count
    return {kind: count for kind, count in left.items() if count > 0}
