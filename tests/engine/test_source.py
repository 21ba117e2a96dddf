"""Items from the user's iterable, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

from antflow._engine.source import LONGEST_PULL, IterableSource


def test_slow_generator_is_asked_for_a_few_items_only() -> None:
    """One pull does not hold the event loop longer than it may; the next goes on from there."""
    time = 0.0

    def slow() -> Iterator[int]:
        nonlocal time
        for number in range(100):
            time += LONGEST_PULL * 0.3
            yield number

    source = IterableSource(slow(), lambda: time)
    assert source.take(1000) == [0, 1, 2, 3]
    assert source.take(2) == [4, 5]
    assert source.take(1000) == [6, 7, 8, 9]


def test_list_is_taken_without_looking_at_the_clock() -> None:
    """What is there already costs no time: as many as were asked for."""

    def no_time() -> float:
        return float(next(times))

    times = iter(range(10))
    source = IterableSource(range(1000), no_time)
    assert len(source.take(900)) == 900
    assert len(source.take(900)) == 100
    assert source.take(900) == []


def test_end_is_the_end() -> None:
    """An iterator that would go on after its end, such as a file that grows, is not asked again."""
    lines = StringIO("first\n")
    source = IterableSource(lines, lambda: 0.0)
    assert source.take(10) == ["first\n"]
    lines.write("second\n")
    lines.seek(len("first\n"))
    assert source.take(10) == []
