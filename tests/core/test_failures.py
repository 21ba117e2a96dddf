"""Failures summed up: exact counts, and no more items than asked for."""

from __future__ import annotations

import weakref

from antflow._core.failures import FailureBook


class Name:
    """An id that can be watched."""


def test_counts_stay_exact_where_the_last_items_alone_are_kept() -> None:
    """Of a thousand failures the newest ten are there, and memory for few more."""
    book, seen = FailureBook(keep=10), []
    for number in range(1000):
        name = Name()
        seen.append(weakref.ref(name))
        book.add(name, ValueError(str(number)), "AB"[number % 2], 1, 0.0, number)
        del name
    summary = book.summary()
    assert (summary.total_failed, summary.errors_by_type) == (1000, {"ValueError": 1000})
    assert summary.errors_by_stage == {"A": 500, "B": 500}
    assert [item.error for item in summary.failed_items] == [str(n) for n in range(990, 1000)]
    del summary
    assert len([each for each in seen if each() is not None]) <= 2 * 10


def test_no_items_are_kept_where_none_are_wanted() -> None:
    """With ``keep=0`` there are counts and groups, and no failed items."""
    book = FailureBook(keep=0)
    for number in range(3):
        book.add(number, ValueError(str(number)), "A", 1, 0.0, number)
    for summary in (book.summary(), book.summary(5)):
        assert (summary.total_failed, summary.failed_items) == (3, [])
        assert [group.count for group in summary.groups] == [3]
