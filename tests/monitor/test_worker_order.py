"""What each worker does, and how many of them share a cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow import (
    DashboardSnapshot,
    Durations,
    ErrorSummary,
    PipelineStats,
    StageStats,
    WorkerState,
)
from antflow._core.durations import SHORTEST_RUN, DurationCounter
from antflow._monitor.worker_order import (
    DOINGS,
    Doing,
    WorkerStrip,
    longest_running,
    what_it_does,
    worker_strips,
)

NOW = 1000.0


def worker(since: float | None = NOW - 1, **known: object) -> WorkerState:
    status = "idle" if since is None else "busy"
    return WorkerState("Fetch-W0", "Fetch", status, 1, "fetch", since, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (worker(None), "idle"),
        (worker(), "busy"),
        (worker(attempt=2), "retrying"),
        (worker(NOW - 100), "slow"),
        (worker(NOW - 100, attempt=2), "slow"),
        (worker(waits_for="limited"), "limited"),
        (worker(NOW - 100, waits_for="limited"), "limited"),
        (worker(None, waits_for="blocked"), "blocked"),
        (worker(None, waits_for="retrying"), "blocked"),
        (worker(None, waits_for="thread"), "busy"),
        (worker(NOW - 100, waits_for="thread"), "slow"),
    ],
)
def test_what_a_worker_does(state: WorkerState, expected: Doing) -> None:
    """What it waits for says more than how long it has been at it."""
    assert what_it_does(state, NOW - 30) == expected


def test_slow_is_longer_than_most_and_longer_than_a_second() -> None:
    """Three times the 95th percentile; where tries take no time, a second."""
    counter = DurationCounter(SHORTEST_RUN)
    counter.add(0.01)
    quick = StageStats("Fetch", 0, 0, 1, 0, run_times=counter.read(1))
    states = [worker(NOW - 0.9), worker(NOW - 1.1)]
    snapshot = DashboardSnapshot(
        {str(number): state for number, state in enumerate(states)},
        {},
        PipelineStats(0, 0, 0, {}, {"Fetch": quick}),
        ErrorSummary(0, {}, {}, []),
        NOW,
    )
    (strip,) = worker_strips(snapshot)
    assert strip.doing == ("busy", "slow")
    quick.run_times = Durations()
    (strip,) = worker_strips(snapshot)
    assert strip.doing == ("busy", "busy")


@given(
    st.lists(st.sampled_from(DOINGS), min_size=1, max_size=200),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.booleans(),
)
def test_strip_loses_no_worker(doing: list[Doing], per_cell: int, by_state: bool) -> None:
    """However many workers share a cell, those that do not idle add up."""
    cells = WorkerStrip("Fetch", tuple(doing), 0).cells(per_cell, by_state)
    assert len(cells) == -(-len(doing) // per_cell)
    assert sum(cell.at_work for cell in cells) == len(doing) - doing.count("idle")
    assert sum(cell.workers for cell in cells) == len(doing)
    if per_cell == 1:
        assert sorted(cell.doing for cell in cells) == sorted(doing)
    if by_state:
        ranks = [DOINGS.index(cell.doing) for cell in cells]
        assert ranks == sorted(ranks)


def test_longest_running_first() -> None:
    """Busy workers by the time they began; idle ones are left out."""
    workers = [
        WorkerState("A-W0", "A", "busy", processing_since=3.0),
        WorkerState("A-W1", "A", "idle"),
        WorkerState("A-W2", "A", "busy", processing_since=1.0),
        WorkerState("A-W3", "A", "busy"),
    ]
    assert [each.worker_name for each in longest_running(workers, 2)] == ["A-W2", "A-W0"]
