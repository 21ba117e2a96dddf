"""Worker-seconds: whatever a blocked event loop takes out of them, they add up to the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from antflow._core.envelope import Envelope
from antflow._core.ledger import ACTIVITIES, WAITS, Activity, Ledger, StageBook, Waiting
from antflow._core.readings import Reading, StageGauge
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import StageStats
from antflow._core.tally import Tally
from antflow._core.worker_time import book_stall, standing

FACTS = RunFacts("run", ("Work",), 0.0, 0.0)
Steps = list[tuple[int, int, int]]


@dataclass
class Stage:
    """A stage of one worker or more, driven by hand; with a loop that is blocked, or without."""

    is_blocked_at_times: bool
    ledger: Ledger = field(default_factory=lambda: Ledger(1))
    gauge: StageGauge = field(default_factory=lambda: StageGauge(2, None))
    now: float = 0.0
    seen: dict[Activity, int] | None = None

    @property
    def book(self) -> StageBook:
        return self.ledger.stages[0]

    def step(self, action: int, number: int, seconds: int) -> None:
        """Time passes, and then one thing happens."""
        self.pass_time(seconds)
        worker = self.book.worker(number)
        if action == 0:
            worker.wait_ends(self.now)
            if worker.item is None and number < self.gauge.workers:
                self.book.admitted(1)
                self.book.started(worker, Envelope(0, 0, 0, None, 0), self.now, again=False)
            elif worker.item is not None:
                self.book.completed_by(worker, worker.item, self.now)
        elif action == 1:
            if worker.item is not None or number < self.gauge.workers:
                worker.wait_begins(WAITS[seconds % len(WAITS)], self.now)
        elif action == 2:
            worker.wait_ends(self.now)
        elif action == 3:
            self.gauge.workers = number + 1
        elif action == 6:
            if worker.item is not None:
                worker.call_waits(seconds, self.now)
        elif action == 7:
            worker.call_goes_on(seconds, self.now)
        elif action == 4:
            self.seen = standing(self.book, self.gauge.workers)
        elif self.is_blocked_at_times:
            workers = self.seen or standing(self.book, self.gauge.workers)
            book_stall(self.book, self.gauge, self.now, seconds, workers)

    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.gauge.worker_seconds += self.gauge.workers * seconds

    def read(self) -> StageStats:
        reading = Reading(self.ledger, [Tally(self.book)], FACTS, [self.gauge], self.now)
        return reading.stats().stage_stats["Work"]


def _parts(stats: StageStats) -> list[float]:
    return [
        stats.busy_seconds,
        stats.limited_seconds,
        stats.blocked_seconds,
        stats.retry_waiting_seconds,
        stats.starved_seconds,
        stats.stalled_seconds,
    ]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 9)), max_size=60))
@example(
    [(5, 0, 3), (0, 0, 0), (0, 1, 0), (3, 0, 0), (2, 0, 2)]
)  # two at work, one of them retired
def test_stalls_change_no_sum(steps: Steps) -> None:
    """Whatever happens, and however late a stall was looked at, all seconds add up as without."""
    blocked, free = Stage(is_blocked_at_times=True), Stage(is_blocked_at_times=False)
    for step in steps:
        blocked.step(*step)
        free.step(*step)
        parts, others = _parts(blocked.read()), _parts(free.read())
        assert sum(parts) == sum(others)
        assert min(parts) >= 0
        assert all(one <= other for one, other in zip(parts[:-1], others[:-1], strict=True))


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3, 6, 7]), st.integers(0, 3), st.integers(0, 9)),
        max_size=60,
    )
)
def test_all_parts_add_up_to_the_workers_seconds(steps: Steps) -> None:
    """Where no worker retires, the parts are the workers' seconds."""
    stage = Stage(is_blocked_at_times=True)
    for action, number, seconds in steps:
        if action == 3 and number + 1 < stage.gauge.workers:
            continue
        stage.step(action, number, seconds)
        stage.pass_time(seconds)
        workers = standing(stage.book, stage.gauge.workers)
        book_stall(stage.book, stage.gauge, stage.now, seconds, workers)
        assert sum(_parts(stage.read())) == stage.gauge.worker_seconds


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 6, 7]), st.integers(0, 1), st.integers(0, 3)),
        max_size=40,
    )
)
def test_worker_waits_for_its_own_reason_and_else_for_the_limit_of_its_calls(steps: Steps) -> None:
    """Whatever begins and ends in which order, its own wait comes first, then those of calls."""
    stage = Stage(is_blocked_at_times=False)
    for step in steps:
        stage.step(*step)
        for worker in stage.book.workers.values():
            calls: Waiting | None = "limited" if worker.limited_calls else None
            assert worker.waits_for == (worker.own_wait or calls)


def test_stall_is_taken_out_of_what_each_worker_was_at() -> None:
    """Each worker loses the time that it would have spent on what it was at, and no other."""
    stage = Stage(is_blocked_at_times=True, gauge=StageGauge(6, None))
    stage.step(0, 0, 0)  # at work
    stage.step(0, 1, 0)
    stage.book.worker(1).wait_begins("limited", stage.now)
    stage.book.worker(2).wait_begins("blocked", stage.now)
    stage.book.worker(3).wait_begins("retrying", stage.now)
    stage.book.worker(4).wait_begins("thread", stage.now)
    stage.pass_time(10)
    seen = standing(stage.book, 6)
    assert seen == dict.fromkeys(ACTIVITIES, 1) | {"stalled": 0}
    book_stall(stage.book, stage.gauge, stage.now, 4.0, seen)
    assert _parts(stage.read()) == [12.0, 6.0, 6.0, 6.0, 6.0, 24.0]


def test_stall_is_taken_out_of_what_was_seen_not_of_what_is_now() -> None:
    """A worker whose item was through by the time of the booking lost time at work."""
    stage = Stage(is_blocked_at_times=True, gauge=StageGauge(1, None))
    stage.step(0, 0, 0)
    seen = standing(stage.book, 1)
    stage.step(0, 0, 10)
    book_stall(stage.book, stage.gauge, stage.now, 8.0, seen)
    assert _parts(stage.read()) == [2.0, 0.0, 0.0, 0.0, 0.0, 8.0]


def test_stall_that_was_seen_too_late_takes_nothing_from_later_work() -> None:
    """What was not spent by the time of the booking is not taken out of what is spent later."""
    stage = Stage(is_blocked_at_times=True, gauge=StageGauge(1, None))
    stage.pass_time(8)
    stage.step(0, 0, 0)
    stage.pass_time(2)
    book_stall(stage.book, stage.gauge, stage.now, 10.0, standing(stage.book, 1))
    stage.pass_time(50)
    assert _parts(stage.read()) == [50.0, 0.0, 0.0, 0.0, 8.0, 2.0]


def test_work_that_goes_on_after_its_timeout_is_work() -> None:
    """A worker that waits for its thread counts as busy, and loses busy time."""
    stage = Stage(is_blocked_at_times=True, gauge=StageGauge(1, None))
    stage.book.worker(0).wait_begins("thread", 0.0)
    stage.pass_time(3)
    book_stall(stage.book, stage.gauge, stage.now, 1.0, standing(stage.book, 1))
    assert _parts(stage.read()) == [2.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_worker_with_several_waits_waits_for_one_thing_at_a_time() -> None:
    """What it waits for itself comes first, then the limit as long as any call waits for it."""
    stage = Stage(is_blocked_at_times=False, gauge=StageGauge(1, None))
    worker = stage.book.worker(0)
    stage.step(0, 0, 0)
    stage.pass_time(1)
    worker.call_waits("a", stage.now)
    stage.pass_time(2)
    worker.call_waits("b", stage.now)
    worker.wait_begins("blocked", stage.now)
    stage.pass_time(4)
    worker.call_goes_on("a", stage.now)
    stage.pass_time(8)
    assert _parts(stage.read())[:3] == [1.0, 2.0, 12.0]
    worker.wait_ends(stage.now)
    stage.pass_time(16)
    assert worker.waits_for == "limited"
    assert _parts(stage.read())[:3] == [1.0, 18.0, 12.0]
    worker.call_goes_on("b", stage.now)
    stage.pass_time(32)
    assert worker.waits_for is None
    assert _parts(stage.read()) == [33.0, 18.0, 12.0, 0.0, 0.0, 0.0]


def test_call_that_ends_does_not_end_what_the_worker_waits_for_itself() -> None:
    """A try waits for its limit, and a call left behind by an earlier one goes on meanwhile."""
    stage = Stage(is_blocked_at_times=False, gauge=StageGauge(1, None))
    worker = stage.book.worker(0)
    stage.step(0, 0, 0)
    worker.call_waits("a", stage.now)
    worker.wait_begins("limited", stage.now)
    stage.pass_time(1)
    worker.call_goes_on("a", stage.now)
    stage.pass_time(2)
    assert worker.waits_for == "limited"
    worker.wait_ends(stage.now)
    stage.pass_time(4)
    assert _parts(stage.read())[:2] == [4.0, 3.0]
