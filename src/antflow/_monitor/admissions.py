"""The items that one run has taken in: their ids, and when and at which stage they entered.

Items that are taken in together share an entry. Like sequence numbers, ids are mostly running
numbers; then the ids are not kept, only the difference between the two.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from math import nan
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.foreign import id_of, key_of

ItemKey = int | tuple[int, tuple[int, ...]]
"""An item's sequence number, with its branch if it was made from another item."""

NAMED = 0xFFFF_FFFF
"""In place of a number of names: if these items have ids, they are names."""


class Admissions:
    """The items of one run by id, and when each of them was taken in."""

    def __init__(self) -> None:
        # Columns of the entries, sorted by sequence number. An entry ends where the next begins.
        self._first = array("I")
        self._at = array("d")
        self._stage = array("H")
        self._names_before = array("I")
        self._end = 0
        self._offset: int | None = None
        self._named: dict[Hashable, ItemKey] = {}

    def add(self, envelopes: Sequence[Envelope], now: float) -> None:
        """Note items with consecutive sequence numbers that are taken in at the same stage."""
        offset, named = self._offset, self._named
        for envelope in envelopes:
            item_id = envelope.id
            if (
                type(item_id) is not int
                or item_id - envelope.sequence_id != offset
                or (named and item_id in named)
            ):
                self._add_one_by_one(envelopes, now)
                return
        self._enter(envelopes, now, len(named))

    def name(self, item_id: Any, item: ItemKey) -> None:
        """Note the id of an item."""
        self._named[key_of(item_id)] = item

    def find(self, item_id: Any) -> ItemKey | None:
        """The latest item with this id; ``None`` for an unknown id."""
        key = key_of(item_id)
        item = self._named.get(key)
        if item is not None or self._offset is None:
            return item
        # Equal objects have the same hash, and an integer is its own hash: 3.0 finds the item 3.
        number = item_id if type(item_id) is int else hash(key)
        sequence_id = number - self._offset
        if key != number or not 0 <= sequence_id < self._end:
            return None
        return None if self._names_before[self._entry(sequence_id)] == NAMED else sequence_id

    def of(self, sequence_id: int) -> tuple[float, int]:
        """When an item was taken in, and at which stage."""
        entry = self._entry(sequence_id)
        return self._at[entry], self._stage[entry]

    def items(self) -> Iterator[tuple[Any, ItemKey]]:
        """Ids and items, in the order in which they were taken in."""
        named = [(id_of(key), item) for key, item in tuple(self._named.items())]
        told = 0
        bounds = pairwise([*self._first, self._end])
        for (first, end), before in zip(bounds, self._names_before, strict=False):
            if before == NAMED:
                continue
            yield from named[told:before]
            told = max(told, before)
            assert self._offset is not None
            for sequence_id in range(first, end):
                if (number := sequence_id + self._offset) not in self._named:
                    yield number, sequence_id
        yield from named[told:]

    # Inside

    def _entry(self, sequence_id: int) -> int:
        return bisect_right(self._first, sequence_id) - 1

    def _add_one_by_one(self, envelopes: Sequence[Envelope], now: float) -> None:
        groups: list[tuple[int, list[Envelope]]] = []
        for envelope in envelopes:
            names_before = len(self._named)
            if self._has_name(envelope):
                names_before = NAMED
                self.name(envelope.id, envelope.sequence_id)
            if groups and groups[-1][0] == names_before:
                groups[-1][1].append(envelope)
            else:
                groups.append((names_before, [envelope]))
        for names_before, together in groups:
            self._enter(together, now, names_before)

    def _has_name(self, envelope: Envelope) -> bool:
        """Whether an item's id has to be kept."""
        item_id = envelope.id
        if type(item_id) is not int or item_id in self._named:
            return True
        if self._offset is None:
            self._offset = item_id - envelope.sequence_id
        return bool(item_id - envelope.sequence_id != self._offset)

    def _enter(self, envelopes: Sequence[Envelope], now: float, names_before: int) -> None:
        first = envelopes[0].sequence_id
        if first != self._end:
            self._enter_elsewhere(envelopes, now, names_before)
            return
        self._end = first + len(envelopes)
        self._at.append(now)
        self._stage.append(envelopes[0].position)
        self._names_before.append(names_before)
        self._first.append(first)

    def _enter_elsewhere(
        self, envelopes: Sequence[Envelope], now: float, names_before: int
    ) -> None:
        """Enter items that come late, or before others with lower numbers."""
        first = envelopes[0].sequence_id
        end = first + len(envelopes)
        place = bisect_left(self._first, first)
        if first > self._end:
            self._insert(place, self._end, nan, 0, NAMED)
            place += 1
        else:
            if self._begins(place, first):
                for column in (self._first, self._at, self._stage, self._names_before):
                    del column[place]
            if end < self._end and not self._begins(place, end):
                self._insert(place, end, nan, 0, NAMED)
        self._end = max(self._end, end)
        self._insert(place, first, now, envelopes[0].position, names_before)

    def _begins(self, place: int, first: int) -> bool:
        """Whether an entry at this place begins with this item."""
        return place < len(self._first) and self._first[place] == first

    def _insert(self, place: int, first: int, at: float, stage: int, names_before: int) -> None:
        self._at.insert(place, at)
        self._stage.insert(place, stage)
        self._names_before.insert(place, names_before)
        self._first.insert(place, first)
