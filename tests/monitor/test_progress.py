"""How far a run is, read from snapshots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antflow import DashboardSnapshot, ErrorSummary, PipelineStats
from antflow._core.snapshot import RunState
from antflow._monitor.progress import Progress, RecentRate, progress


def snapshot_of(
    total: int | None,
    accepted: int,
    ok: int = 0,
    failed: int = 0,
    expanded: int = 0,
    in_flight: int = 0,
    elapsed: float = 1.0,
    state: RunState = "running",
) -> DashboardSnapshot:
    stats = PipelineStats(
        ok, failed, in_flight, {}, items_accepted=accepted, items_expanded=expanded
    )
    return DashboardSnapshot(
        {},
        {},
        stats,
        ErrorSummary(failed, {}, {}, []),
        0.0,
        "",
        total,
        state,
        elapsed,
    )


def test_progress_when_items_fail_early() -> None:
    """A failure in the first stage counts as settled, so the end is 100 %."""
    shown = progress(snapshot_of(100, 100, ok=90, failed=10, state="finished"))
    assert (shown.settled, shown.total, shown.percent) == (100, 100, 100)
    assert shown.counts == "90 ok, 10 failed"


def test_progress_when_almost_done() -> None:
    """100 % means everything, so percents are rounded down; and 29 of 100 are 29 %."""
    assert progress(snapshot_of(1000, 1000, ok=999, in_flight=1)).percent == 99
    assert progress(snapshot_of(100, 29, ok=29)).percent == 29


def test_progress_when_the_total_is_unknown() -> None:
    """There is no ratio to show, until somebody else knows the total."""
    snapshot = snapshot_of(None, 10, ok=10)
    assert progress(snapshot).percent is None
    assert progress(snapshot, total=20).percent == 50


def test_progress_when_more_came_than_announced() -> None:
    """What was fed over and above the total, and what came of an expanded item, counts."""
    assert progress(snapshot_of(10, 30, ok=15, in_flight=15)).percent == 50
    shown = progress(snapshot_of(10, 5, ok=4, expanded=1, in_flight=10))
    assert (shown.settled, shown.total) == (5, 20)


def test_progress_when_there_is_nothing_to_do() -> None:
    """No items: 0 % at first, 100 % at the end, no division by zero."""
    assert progress(snapshot_of(0, 0)).percent == 0
    assert progress(snapshot_of(0, 0, state="finished")).percent == 100


def test_counts_when_not_all_was_done() -> None:
    """Dropped, expanded and cancelled items are named where there are some."""
    snapshot = snapshot_of(10, 10, ok=1, failed=2)
    assert progress(snapshot).counts == "1 ok, 2 failed"
    snapshot.pipeline_stats = PipelineStats(
        1, 2, 0, {}, items_dropped=3, items_expanded=4, items_cancelled=5
    )
    assert progress(snapshot).counts == "1 ok, 2 failed, 3 dropped, 4 expanded, 5 cancelled"


@given(
    st.integers(0, 50),
    st.lists(st.tuples(*[st.integers(0, 9)] * 4, st.floats(0, 2)), max_size=30),
)
def test_ratio_goes_up_only(total: int, steps: list[tuple[int, int, int, int, float]]) -> None:
    """Whatever happens, the ratio stays within 0 and 1 and never goes back."""
    accepted = ok = failed = expanded = in_flight = 0
    elapsed = 0.0
    last: Progress | None = None
    for fed, done, broken, children, seconds in steps:
        accepted += fed
        in_flight += fed
        done, broken = min(done, in_flight), min(broken, max(in_flight - done, 0))
        ok, failed, in_flight = ok + done, failed + broken, in_flight - done - broken
        if children and in_flight:
            expanded, in_flight = expanded + 1, in_flight - 1 + children
        elapsed += seconds
        snapshot = snapshot_of(total, accepted, ok, failed, expanded, in_flight, elapsed)
        shown = progress(snapshot, earlier=last)
        assert shown.ratio is not None
        assert (last.ratio if last and last.ratio else 0.0) <= shown.ratio <= 1.0
        assert 0 <= shown.per_second < float("inf")
        last = shown


def test_rate_follows_and_ends_as_a_mean() -> None:
    """The rate shown is near the rate there is, also after it changed; the last one is the mean."""
    rate, done = RecentRate(), 0
    for second in range(1, 41):
        done += 10 if second <= 20 else 100
        last = progress(snapshot_of(None, done, ok=done, elapsed=second), rate=rate)
        if second == 20:
            assert last.per_second == 10
        if second in (25, 40):  # five seconds after the change there is nothing left of before
            assert last.per_second == 100
    end = snapshot_of(None, done, ok=done, elapsed=40.0, state="finished")
    assert progress(end, rate=rate).per_second == done / 40


def test_rate_remembers_little() -> None:
    """However often it is asked, and however long the run, what is remembered stays small."""
    rate = RecentRate()
    for step in range(20_000):
        rate.see(step, snapshot_of(None, step, elapsed=step / 1000))
    assert len(rate._counts) <= 60


def test_cancelled_items_are_not_done() -> None:
    """What a cancellation stopped is no progress: neither in the count, nor in the rate."""
    stats = PipelineStats(100, 0, 0, {}, items_accepted=180, items_cancelled=80)
    snapshot = snapshot_of(400, 180, elapsed=10.0, state="finished")
    snapshot.pipeline_stats = stats
    shown = progress(snapshot)
    assert (shown.settled, shown.total, shown.percent, shown.per_second) == (100, 400, 25, 10)
