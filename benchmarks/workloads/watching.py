"""The tracker: W5, and its callbacks: W5cb."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from benchmarks import ours
from benchmarks.sample import Sample, Stopwatch, check, check_values
from benchmarks.tasks import STAGES, WORKERS, Task, no_op
from benchmarks.workload import Figure, Measure, Program, Round, Workload, extra, times_faster

if TYPE_CHECKING:
    from antflow import StatusTracker

WARM_UP = 300
EVENTS = 3 * STAGES
"""Events of one item: queued, in progress and completed, for each stage."""


def tracked(is_on: bool) -> Measure:
    """Measure a run with or without a tracker."""

    async def measure(items: int) -> Sample:
        from antflow import StatusTracker

        tasks = [no_op] * STAGES
        await ours.pipeline(tasks, WORKERS, StatusTracker()).run(range(WARM_UP))
        tracker = StatusTracker() if is_on else None
        with Stopwatch() as watch:
            results = await ours.pipeline(tasks, WORKERS, tracker).run(range(items))
        check_values([each.value for each in results], items)
        if tracker is not None:
            _check_history(tracker, [each.id for each in results])
        return watch.sample(items)

    return measure


async def bytes_per_event(items: int) -> Sample:
    """Measure the memory of a tracker when nothing else is left of the run."""
    from antflow import StatusTracker

    await ours.pipeline([no_op] * STAGES, WORKERS, StatusTracker()).run(range(WARM_UP))
    tracker: StatusTracker | None = StatusTracker()
    tracemalloc.start()
    with Stopwatch() as watch:
        await ours.pipeline([no_op] * STAGES, WORKERS, tracker).run(range(items))
    gc.collect()
    with_it = tracemalloc.get_traced_memory()[0]
    assert tracker is not None
    ids = tracker.get_tracked_ids()
    _check_history(tracker, ids)
    # Answering a query by id takes a dict of ids.
    index = dict(zip(ids, range(items), strict=True))
    index_bytes = sys.getsizeof(index) + 2 * sum(map(sys.getsizeof, ids))
    tracker = None
    del ids, index
    gc.collect()
    kept = with_it - tracemalloc.get_traced_memory()[0]
    return watch.sample(
        items,
        bytes_per_event=kept / items / EVENTS,
        without_ids=(kept - index_bytes) / items / EVENTS,
    )


def _check_history(tracker: StatusTracker, ids: list[Any]) -> None:
    check("items in the history", len(tracker.get_tracked_ids()), len(ids))
    for item_id in (ids[0], ids[len(ids) // 2], ids[-1]):
        check("events of an item", len(tracker.get_history(item_id)), EVENTS)


# -- callbacks --------------------------------------------------------------------------------

TASK_CALLBACKS = ("on_task_start", "on_task_complete", "on_task_retry", "on_task_fail")
CALLBACKS = ("on_status_change", *TASK_CALLBACKS)


class SomeFail:
    """The first task fails once on every tenth item, the last for good on every hundredth."""

    def __init__(self) -> None:
        self.failed: set[int] = set()

    def tasks(self) -> list[Task]:
        """One for each stage."""
        return [self._first, *[no_op] * (STAGES - 2), self._last]

    async def _first(self, value: int) -> int:
        if value % 10 == 3 and value not in self.failed:
            self.failed.add(value)
            raise ConnectionError("the first time")
        return value

    async def _last(self, value: int) -> int:
        if value % 100 == 7:
            raise ConnectionError("each time")
        return value


def expected_calls(items: int) -> dict[str, int]:
    """How often each callback must be called; ``items`` is a multiple of 100."""
    once, always = items // 10, items // 100
    return {
        "on_status_change": EVENTS * items,
        "on_task_start": STAGES * items + once + 2 * always,
        "on_task_complete": STAGES * items - always,
        "on_task_retry": once + 2 * always,
        "on_task_fail": always,
    }


def called_back(kind: Literal["none", "async", "plain"]) -> Measure:
    """Measure a run with a tracker and five callbacks that count their calls."""

    async def measure(items: int) -> Sample:
        items = max(items // 100, 1) * 100
        await _run(kind, WARM_UP)
        watch, calls = await _run(kind, items)
        if kind != "none":
            check("calls", dict(calls), expected_calls(items))
        return watch.sample(items, calls=sum(calls.values()) / items)

    return measure


async def _run(kind: str, items: int) -> tuple[Stopwatch, Counter[str]]:
    from antflow import StatusTracker

    calls: Counter[str] = Counter()
    callbacks: dict[str, Any] = {}
    if kind != "none":
        callbacks = {name: counting(kind, name, calls) for name in CALLBACKS}
    some_fail = SomeFail()
    pipeline = ours.pipeline(some_fail.tasks(), WORKERS, StatusTracker(**callbacks))
    with Stopwatch() as watch:
        results = await pipeline.run(range(items))
    good = [number for number in range(items) if number % 100 != 7]
    check("values", sorted(each.value for each in results), good)
    return watch, calls


def counting(kind: str, name: str, calls: Counter[str]) -> Callable[[Any], Any]:
    """A callback that counts its calls."""

    async def asynchronous(event: Any) -> None:
        calls[name] += 1

    def plain(event: Any) -> None:
        calls[name] += 1

    return asynchronous if kind == "async" else plain


def ns_per_call(kind: str) -> Callable[[Round], float]:
    """Nanoseconds that each call adds to a run whose tracker has no callbacks."""

    def of(samples: Round) -> float:
        more = samples[kind].cpu_us - samples["no callbacks"].cpu_us
        return more / samples[kind].more["calls"] * 1000

    return of


WORKLOADS = [
    Workload(
        "W5",
        "a tracker that keeps the history",
        60_000,
        10_000,
        {
            "off": Program(tracked(False)),
            "on": Program(tracked(True)),
            "published, on": Program(tracked(True), "published", 0.05),
            "memory": Program(bytes_per_event, share=0.5),
        },
        [
            Figure("speed with it over speed without", times_faster("on", "off"), 0.6, 0.7),
            Figure("bytes per event", extra("memory", "bytes_per_event"), better="low"),
            Figure("the same without ids", extra("memory", "without_ids"), 13, 11, "low"),
            Figure("times the published", times_faster("on", "published, on"), 60),
        ],
    ),
    Workload(
        "W5cb",
        "all five callbacks of a tracker",
        20_000,
        5_000,
        {
            "no callbacks": Program(called_back("none")),
            "async": Program(called_back("async")),
            "plain": Program(called_back("plain")),
            "published, async": Program(called_back("async"), "published", 0.05),
        },
        [
            Figure("ns per call of an async one", ns_per_call("async"), 900, 600, "low"),
            Figure("ns per call of a plain one", ns_per_call("plain"), 900, 600, "low"),
            Figure("times the published", times_faster("async", "published, async"), 20, 40),
        ],
    ),
]
