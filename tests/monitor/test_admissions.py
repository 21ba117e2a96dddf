"""Ids, and when their items were taken in: as a dict would have it, in less memory."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from antflow._core.envelope import Envelope
from antflow._monitor.admissions import Admissions

# Ids by sequence number: running numbers from 3 on, and names between them.
NAMES = st.sampled_from(["a", "b", "7", -1, 3, 5, 8, 2.5, ("t",)])
IDS = st.lists(st.none() | NAMES, max_size=12)


def envelope(sequence_id: int, item_id: Any, stage: int = 0) -> Envelope:
    return Envelope(sequence_id, item_id, None, {}, None, position=stage)


@example([None] * 4 + [8, None], set(), random.Random())
@given(IDS, st.sets(st.integers(0, 12)), st.randoms(use_true_random=False))
def test_admissions_are_those_of_a_dict(ids: list[Any], cuts: set[int], dice: Any) -> None:
    """In whatever batches, and however late some of them come, each id finds its latest item."""
    items = [envelope(n, n + 3 if own is None else own) for n, own in enumerate(ids)]
    ends = sorted({cut for cut in cuts if cut < len(items)} | {len(items)})
    batches = [items[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    dice.shuffle(batches)
    admissions = Admissions()
    latest: dict[Any, int] = {}
    taken_in: dict[int, tuple[float, int]] = {}
    for now, batch in enumerate(batches):
        stage = dice.randrange(3)
        for each in batch:
            each.position = stage
            latest[each.id] = each.sequence_id
            taken_in[each.sequence_id] = now, stage
        if batch:
            admissions.add(batch, now)
        assert sorted(admissions.items(), key=str) == sorted(latest.items(), key=str)
        assert {item_id: admissions.find(item_id) for item_id in latest} == latest
        assert {number: admissions.of(number) for number in taken_in} == taken_in
        assert all(admissions.find(n) is None for n in range(-3, 30) if n not in latest)


def test_items_are_in_the_order_they_were_taken_in() -> None:
    """Running numbers and names, those of items made from others too: first come, first told."""
    admissions = Admissions()
    admissions.add([envelope(n, 5 + n) for n in range(3)], 0.0)
    admissions.name("5/0", (0, (0,)))
    admissions.add([envelope(3, 8), envelope(4, "a"), envelope(5, 10)], 1.0)
    admissions.name("8/0", (3, (0,)))
    admissions.add([envelope(6, 11)], 2.0)
    told = [item_id for item_id, _ in admissions.items()]
    assert told == [5, 6, 7, "5/0", 8, "a", 10, "8/0", 11]


def test_numbers_that_are_equal_find_the_item() -> None:
    """An id is found by anything that equals it, as in a dict."""
    admissions = Admissions()
    admissions.add([envelope(n, n) for n in range(4)], 0.0)
    for equal in (3, 3.0, Decimal(3)):
        assert admissions.find(equal) == 3
    assert admissions.find(True) == 1
    for other in (2.5, "3", None, float("nan"), Decimal("NaN"), 4, -1):
        assert admissions.find(other) is None
