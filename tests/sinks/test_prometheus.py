"""Metrics of runs, as Prometheus's own parsers read them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import threading
import time
from collections.abc import Iterable
from shutil import which
from typing import Any
from weakref import ref

import pytest

from antflow import Drop, Limit, Pipeline, PipelineStats, RetryAfter, RunEnd, Stage
from antflow._core.durations import Durations
from antflow._core.snapshot import DashboardSnapshot, ErrorSummary, StageStats
from antflow.sinks import CallbackSink, PipelineCollector, Sink
from antflow.testing import run_virtual
from tests.support import lasting, odd_only, same

pytest.importorskip("prometheus_client", reason="needs the extra `prometheus`")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from antflow.sinks.prometheus import BOUNDS, FAMILIES, MOST_ERROR_TYPES, exposition

LABELS = {"pipeline", "stage", "outcome", "error_type", "state", "sink", "version", "le"}
OUTCOMES = ("completed", "failed", "dropped", "expanded", "cancelled")
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Once:
    """Collects once, and has the same for everyone who asks."""

    def __init__(self, collector: PipelineCollector) -> None:
        metrics = collector.collect()
        self.collect = lambda: metrics


def scraped(collector: PipelineCollector) -> Values:
    """Sample → value, which both forms of the text agree on."""
    registry = CollectorRegistry()
    registry.register(Once(collector))
    values: Values = {}
    for family in parse_text(generate_latest(registry).decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in values, f"{key} is there twice"
            values[key] = sample.value
    strict = parse_openmetrics(openmetrics.generate_latest(registry).decode())
    names = {sample.name for family in strict for sample in family.samples}
    assert names == {name for name, _ in values}
    return values


def value(values: Values, name: str, **labels: str) -> float:
    """The value of the one sample with these labels and others, or the sum of several."""
    wanted = set(labels.items())
    found = [each for (key, has), each in values.items() if key == name and wanted <= has]
    assert found, f"no {name} {labels}"
    return sum(found)


def counters(values: Values) -> Values:
    """Only what may never go back."""
    ends = ("_total", "_bucket", "_count", "_sum")
    return {key: each for key, each in values.items() if key[0].endswith(ends)}


def assert_not_back(before: Values, after: Values) -> None:
    """No counter is smaller than before, or gone."""
    back = {key: (was, after.get(key)) for key, was in before.items() if after.get(key, -1) < was}
    assert back == {}


async def various(number: int) -> Any:
    """A task with every outcome."""
    if number % 7 == 0:
        raise LookupError(number)
    if number % 7 == 1:
        return Drop("odd")
    return number


def tens(number: int) -> list[int]:
    return [number * 10, number * 10 + 1]


def various_stages() -> list[Stage]:
    return [
        Stage("Look", 3, [various], task_attempts=2, skip_if=lambda number: number % 7 == 2),
        Stage("Open", 2, [tens], expand=True),
        Stage("Say", 2, [same]),
    ]


def check(values: Values, runs: Iterable[PipelineStats], name: str = "pipeline") -> None:
    """The counters are the sums of the final counts of all runs."""
    of = {"pipeline": name}
    totals: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    for stats in runs:
        totals["completed"] += stats.items_processed
        totals["failed"] += stats.items_failed
        totals["dropped"] += stats.items_dropped
        totals["expanded"] += stats.items_expanded
        totals["cancelled"] += stats.items_cancelled
    for outcome, total in totals.items():
        assert value(values, "antflow_pipeline_items_total", outcome=outcome, **of) == total
    accepted = sum(stats.items_accepted for stats in runs)
    assert value(values, "antflow_pipeline_input_items_total", **of) == accepted
    for stage in {name for stats in runs for name in stats.stage_stats}:
        each = [stats.stage_stats[stage] for stats in runs]
        for metric, number in {
            "items_total": sum(one.left_items for one in each),
            "attempts_total": sum(one.run_times.count for one in each),
            "errors_total": sum(one.failed_items for one in each),
            "retries_total": sum(one.retried_items for one in each),
            "duration_seconds_count": sum(one.run_times.count for one in each),
        }.items():
            assert value(values, f"antflow_stage_{metric}", stage=stage, **of) == number, metric
        busy = sum(one.busy_seconds for one in each)
        assert value(values, "antflow_stage_busy_seconds_total", stage=stage, **of) == (
            pytest.approx(busy)
        )


# -- counters ---------------------------------------------------------------------------------


def test_metrics_before_the_first_run() -> None:
    """All counters are there from the beginning, at 0; what is not known is left out."""
    collector = PipelineCollector(Pipeline(various_stages()))
    values = scraped(collector)
    assert set(counters(values).values()) == {0.0}
    assert value(values, "antflow_pipeline_running") == 0
    assert value(values, "antflow_stage_workers", state="idle", stage="Look") == 3
    assert {key for _, labels in values for key, _ in labels} <= LABELS
    absent = {"antflow_pipeline_eta_seconds", "antflow_pipeline_expected_items"}
    absent |= {"antflow_pipeline_last_success_timestamp_seconds"}
    assert absent.isdisjoint(name for name, _ in values)
    assert {each.name for each in collector.describe()} == FAMILIES.keys()


def test_counters_agree_with_the_results() -> None:
    """After a run, each counter is the number that the results have, for every outcome."""
    pipeline = Pipeline(various_stages(), name="shop")
    collector = PipelineCollector(pipeline)
    run_virtual(pipeline.run(range(100), on_failures="ignore"))
    stats = pipeline.get_stats()
    assert 0 not in (stats.items_failed, stats.items_dropped, stats.items_expanded)
    values = scraped(collector)
    check(values, [stats], "shop")
    look = stats.stage_stats["Look"]
    assert value(values, "antflow_stage_items_total", outcome="skipped") == look.skipped_items > 0
    assert value(values, "antflow_stage_errors_total", error_type="LookupError") == 15
    assert value(values, "antflow_stage_retries_total", error_type="LookupError") == 15
    assert value(values, "antflow_pipeline_in_flight_items") == 0


@pytest.mark.parametrize("is_asked", [False, True], ids=["at the end", "after each run"])
def test_counters_over_several_runs(is_asked: bool) -> None:
    """Counters go on from run to run, whether or not somebody asks in between."""
    pipeline = Pipeline(various_stages())
    collector = PipelineCollector(pipeline)
    runs, before = [], scraped(collector)
    for count in (20, 5, 0, 40):
        run_virtual(pipeline.run(range(count), on_failures="ignore"))
        runs.append(pipeline.get_stats())
        if is_asked:
            assert_not_back(counters(before), counters(before := scraped(collector)))
            check(before, runs)
    check(scraped(collector), runs)


def test_collector_that_comes_later() -> None:
    """A collector that is made during or after a run counts that run once, and all later ones."""
    pipeline = Pipeline([Stage("Say", 1, [same])])

    async def main() -> tuple[PipelineCollector, list[PipelineStats]]:
        await pipeline.run([1, 2, 3])
        runs = [pipeline.get_stats()]
        collector = PipelineCollector(pipeline)
        check(scraped(collector), runs)
        await pipeline.run([1, 2])
        check(scraped(collector), [*runs, pipeline.get_stats()])
        async with pipeline.open() as run:
            await run.feed([1])
            later = PipelineCollector(pipeline)
            assert value(scraped(later), "antflow_pipeline_input_items_total") == 1
        check(scraped(later), [pipeline.get_stats()])
        return later, [pipeline.get_stats()]

    later, runs = run_virtual(main)
    run_virtual(pipeline.run([1]))
    check(scraped(later), [*runs, pipeline.get_stats()])


def test_counters_of_two_runs_at_once() -> None:
    """Two runs of one pipeline at the same time add up when they are over."""
    pipeline = Pipeline([Stage("Say", 1, [lasting(1)])])
    collector = PipelineCollector(pipeline)
    ends: list[RunEnd] = []
    pipeline.on_run_end(ends.append)

    async def main() -> None:
        both = asyncio.gather(pipeline.run(range(4)), pipeline.run(range(9)))
        before = scraped(collector)
        while not both.done():
            await asyncio.sleep(0.7)
            assert_not_back(counters(before), counters(before := scraped(collector)))

    run_virtual(main)
    check(scraped(collector), [end.stats for end in ends])
    assert value(scraped(collector), "antflow_pipeline_items_total", outcome="completed") == 13


class Measured:
    """A pipeline whose snapshots are made up."""

    name = "made up"

    def __init__(self, *stages: StageStats) -> None:
        self.stages = list(stages)
        self.asked = 0
        self.state: Any = "running"
        self.run_id = "1"

    def get_dashboard_snapshot(self) -> DashboardSnapshot:
        self.asked += 1
        of = {stage.stage_name: stage for stage in self.stages}
        return DashboardSnapshot(
            worker_states={},
            worker_metrics={},
            pipeline_stats=PipelineStats(0, 0, 0, {}, of),
            error_summary=ErrorSummary(0, {}, {}, []),
            timestamp=0.0,
            run_id=self.run_id,
            state=self.state,
        )

    def on_run_end(self, callback: Any) -> None:
        self.end = callback

    def time_items(self) -> None:
        pass


def a_stage(**figures: Any) -> StageStats:
    counts = {"pending_items": 0, "in_progress_items": 0, "completed_items": 0, "failed_items": 0}
    given: dict[str, Any] = {"stage_name": "Say", **counts, **figures}
    return StageStats(**given)


def test_counter_whose_reading_goes_back() -> None:
    """Seconds that looked busy may turn out to be others: the counter stands meanwhile."""
    pipeline = Measured(a_stage())
    collector = PipelineCollector(pipeline)
    shown = []
    for seconds in (1.0, 3.0, 2.5, 3.5):
        pipeline.stages = [a_stage(busy_seconds=seconds)]
        shown.append(value(scraped(collector), "antflow_stage_busy_seconds_total"))
    assert shown == [1.0, 3.0, 3.0, 3.5]


def test_scrape_takes_one_snapshot() -> None:
    """One scrape asks for one snapshot, and registering for none."""
    pipeline = Measured(a_stage())
    collector = PipelineCollector(pipeline)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector)
    assert pipeline.asked == 0
    generate_latest(registry)
    assert pipeline.asked == 1


def test_run_has_no_listener_for_metrics() -> None:
    """A collector hears of no item: the run is as if there were none."""
    pipeline = Pipeline([Stage("Say", 1, [same])])
    PipelineCollector(pipeline)

    async def main() -> None:
        async with pipeline.open() as run:
            recorder = run._engine.stages[0].recorder
            assert (recorder.on_started, recorder.on_completed, recorder.on_ended) == (None,) * 3

    run_virtual(main)


@pytest.mark.parametrize("is_scraped", [False, True])
def test_run_that_is_dropped_with_its_collector(is_scraped: bool) -> None:
    """A collector that is dropped keeps no pipeline and no run alive."""

    async def main() -> bool:
        pipeline = Pipeline([Stage("Say", 1, [same])])
        collector = PipelineCollector(pipeline)
        await pipeline.start()
        if is_scraped:
            scraped(collector)
        dropped = ref(pipeline)
        del pipeline, collector
        gc.collect()
        await asyncio.sleep(1)
        gc.collect()
        return dropped() is None

    assert run_virtual(main)


# -- gauges -----------------------------------------------------------------------------------


def test_gauges_during_a_run() -> None:
    """Gauges say how the run stands: items, queue, what workers do, their limit."""
    stages = [
        Stage("Ask", 4, [lasting(10)], queue_capacity=5, limits=[Limit(concurrency=3)]),
        Stage("Say", 2, [same], queue_capacity=0),
    ]
    pipeline = Pipeline(stages)
    collector = PipelineCollector(pipeline)

    async def main() -> Values:
        async with pipeline.open(total=20) as run:
            await run.feed(range(8))
            await asyncio.sleep(5)
            return scraped(collector)

    values = run_virtual(main)
    assert value(values, "antflow_pipeline_running") == 1
    assert value(values, "antflow_pipeline_expected_items") == 20
    assert value(values, "antflow_pipeline_in_flight_items") == 8
    assert value(values, "antflow_stage_queue_items", stage="Ask") == 4
    assert value(values, "antflow_stage_queue_capacity_items", stage="Ask") == 5
    assert value(values, "antflow_stage_queue_capacity_items") == 5  # the other has no bound
    states = {
        state: value(values, "antflow_stage_workers", stage="Ask", state=state)
        for state in ("busy", "idle", "limited", "blocked", "retrying")
    }
    assert states == {"busy": 3, "idle": 0, "limited": 1, "blocked": 0, "retrying": 0}
    assert value(values, "antflow_stage_workers", stage="Say", state="idle") == 2
    assert value(values, "antflow_stage_workers_limit", stage="Ask") == 3
    assert value(values, "antflow_stage_workers_limit", stage="Say") == 2


def test_eta_of_a_run() -> None:
    """The time that a run still takes is there once it can be known, and gone at its end."""
    pipeline = Pipeline([Stage("Say", 2, [lasting(1)])])
    collector = PipelineCollector(pipeline)
    etas: list[float] = []

    class Display:
        def on_update(self, snapshot: DashboardSnapshot) -> None:
            if 40 < snapshot.elapsed < 49:
                etas.append(value(scraped(collector), "antflow_pipeline_eta_seconds"))

    run_virtual(pipeline.run(range(100), custom_dashboard=Display()))
    assert etas
    assert all(0 <= eta <= 15 for eta in etas)
    assert "antflow_pipeline_eta_seconds" not in {name for name, _ in scraped(collector)}


def test_last_success() -> None:
    """The time of the last run that settled every item; one that fails later does not change it."""
    pipeline = Pipeline([Stage("Say", 1, [odd_only], task_attempts=1)])
    collector = PipelineCollector(pipeline)
    ends: list[RunEnd] = []
    pipeline.on_run_end(ends.append)

    def source() -> Iterable[int]:
        yield 1
        raise OSError("gone")

    name = "antflow_pipeline_last_success_timestamp_seconds"
    with pytest.raises(OSError, match="gone"):
        run_virtual(pipeline.run(source()))
    assert name not in {name for name, _ in scraped(collector)}
    run_virtual(pipeline.run(range(4), on_failures="ignore"))
    assert value(scraped(collector), name) == ends[1].timestamp
    with pytest.raises(OSError, match="gone"):
        run_virtual(pipeline.run(source()))
    assert value(scraped(collector), name) == ends[1].timestamp


# -- histograms -------------------------------------------------------------------------------


def test_histogram_of_durations() -> None:
    """Durations are in the bucket of their time; number exact, sum and bounds within 4 %."""
    times = [0.002, 0.02, 0.02, 0.09, 0.11, 0.2, 2, 40, 400]

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    pipeline = Pipeline([Stage("Say", 1, [work])])
    collector = PipelineCollector(pipeline)
    run_virtual(pipeline.run(times))
    values = scraped(collector)
    name = "antflow_stage_duration_seconds"
    for bound in BOUNDS:
        expected = sum(seconds <= bound for seconds in times)
        assert value(values, f"{name}_bucket", le=str(float(bound))) == expected, bound
    assert value(values, f"{name}_bucket", le="+Inf") == len(times)
    assert value(values, f"{name}_sum") == pytest.approx(sum(times), rel=0.04)
    waits = "antflow_stage_queue_wait_seconds"
    assert value(values, f"{waits}_count") == len(times)


def test_histogram_of_items() -> None:
    """An item's time is from its intake, or from when it was made, to its outcome."""

    async def work(number: int) -> int:
        await asyncio.sleep(2)
        return (await various(number)) or number

    async def open_up(number: int) -> list[int]:
        await asyncio.sleep(1.2)
        return tens(number)

    async def rest(number: int) -> None:
        await asyncio.sleep(number * 1.1)

    pipeline = Pipeline(
        [
            Stage("Work", 2, [work], task_attempts=1),
            Stage("Open", 1, [open_up], expand=True),
            Stage("Rest", 9, [rest], skip_if=lambda number: number % 2),
        ]
    )
    collector = PipelineCollector(pipeline)
    run_virtual(pipeline.run([0, 1, 2, 3], on_failures="ignore"))
    values, name = scraped(collector), "antflow_item_duration_seconds"
    # Failed and dropped after 2 s. Two waited for these, worked for 2 s, and were opened one after
    # the other. Of the children, the odd ones skip the last stage.
    times = [2, 2, 5.2, 6.4, 0, 0, 22, 33]
    for bound in BOUNDS:
        expected = sum(seconds <= bound for seconds in times)
        assert value(values, f"{name}_bucket", le=str(float(bound))) == expected, bound
    assert value(values, f"{name}_count") == 8 == value(values, "antflow_pipeline_items_total")
    assert value(values, f"{name}_sum") == pytest.approx(sum(times), rel=0.04)


def test_histogram_of_items_over_several_runs() -> None:
    """It counts the items of every run that begins when there is a collector."""
    pipeline = Pipeline(various_stages())
    run_virtual(pipeline.run(range(50), on_failures="ignore"))
    assert pipeline.get_stats().item_times is None
    collector, name = PipelineCollector(pipeline), "antflow_item_duration_seconds_count"
    assert value(scraped(collector), name) == 0
    numbers = []
    for items in (range(70), range(30)):
        run_virtual(pipeline.run(items, on_failures="ignore"))
        stats = pipeline.get_stats()
        assert stats.item_times is not None
        numbers.append(stats.item_times.count)
        assert numbers[-1] == stats.items_accepted + stats.items_children
    assert value(scraped(collector), name) == sum(numbers)


def test_histogram_of_short_durations() -> None:
    """What is too short to be told apart is in the first bucket, and its time is left out."""
    pipeline = Measured(a_stage(run_times=Durations(1_000)))
    values = scraped(PipelineCollector(pipeline))
    assert value(values, "antflow_stage_duration_seconds_bucket", le="0.001") == 1_000
    assert value(values, "antflow_stage_duration_seconds_sum") == 0


def test_histogram_that_is_read_in_the_middle_of_a_step() -> None:
    """A duration that is in a bucket before it is in the total does not break the order."""
    pipeline = Measured(a_stage(run_times=Durations(2, buckets=(0, 0, 3))))
    values = scraped(PipelineCollector(pipeline))
    assert value(values, "antflow_stage_duration_seconds_bucket", le="+Inf") == 3
    assert value(values, "antflow_stage_duration_seconds_count") == 3


# -- labels -----------------------------------------------------------------------------------


def test_error_types_are_capped() -> None:
    """The first 32 types of errors have their own label and keep it; the others share one."""
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(1_000)]

    async def fail(number: int) -> None:
        raise kinds[number]

    pipeline = Pipeline([Stage("Say", 1, [fail], task_attempts=1)])
    collector = PipelineCollector(pipeline)
    run_virtual(pipeline.run(range(30), on_failures="ignore"))
    before = scraped(collector)
    run_virtual(pipeline.run(range(20, 1_000), on_failures="ignore"))
    values = scraped(collector)
    assert_not_back(counters(before), counters(values))
    name = "antflow_stage_errors_total"
    labels = [dict(of)["error_type"] for key, of in values if key == name]
    own = [f"Error{number}" for number in range(MOST_ERROR_TYPES)]
    assert sorted(labels) == sorted([*own, "_other"])
    assert value(values, name, error_type="Error25") == 2
    assert value(values, name, error_type="_other") == 1_000 - MOST_ERROR_TYPES
    assert value(values, name) == 1_010


def test_hostile_names() -> None:
    """Names of any kind are labels that the parsers read; ids of items and messages are none."""
    nasty = 'a"b\\c\nd\x1b[2J\ud800\u202e}#{' + "x" * 1_000
    stage = 'a"b\\c\u202e}#{=,'
    kind = type("Bad\nType", (Exception,), {})

    async def fail(item: Any) -> None:
        raise kind("secret message")

    pipeline = Pipeline([Stage(stage, 1, [fail], task_attempts=1)], name=nasty)
    collector = PipelineCollector(pipeline)
    run_virtual(pipeline.run([{"id": "secret id", "value": 1}], on_failures="ignore"))
    values = scraped(collector)
    assert value(values, "antflow_stage_errors_total") == 1
    text = exposition(collector).decode()
    assert "secret" not in text
    assert "\x1b" not in text
    assert all(len(each) <= 101 for _, labels in values for _, each in labels)


def test_two_pipelines_in_one_registry() -> None:
    """Two pipelines are told apart by their names, and each family is there once."""
    one, other = (Pipeline([Stage("Say", 1, [same])], name=name) for name in ("one", "other"))
    collector = PipelineCollector(one)
    collector.add(other)
    run_virtual(one.run([1, 2]))
    run_virtual(other.run([1]))
    values = scraped(collector)
    check(values, [one.get_stats()], "one")
    check(values, [other.get_stats()], "other")
    with pytest.raises(ValueError, match="'one': the collector has a pipeline of this name"):
        collector.add(Pipeline([Stage("Say", 1, [same])], name="one"))


def test_second_collector_in_a_registry() -> None:
    """A registry refuses a second collector at once, and not with an unreadable scrape."""
    registry = CollectorRegistry()
    registry.register(PipelineCollector(Pipeline([Stage("Say", 1, [same])], name="one")))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PipelineCollector(Pipeline([Stage("Say", 1, [same])], name="two")))


# -- sinks ------------------------------------------------------------------------------------


class Full(Sink):
    """Never takes anything."""

    def write(self, records: Any) -> None:
        raise OSError(28, "No space left on device")


def test_sinks_of_a_pipeline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each sink has its delivered and lost events and its errors; two of a kind have a number."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.001, 0.001))
    sinks = [CallbackSink(lambda events: None), Full(), CallbackSink(lambda events: None)]
    pipeline = Pipeline([Stage("Say", 1, [same])], observers=[*sinks, Told()])
    collector = PipelineCollector(pipeline)
    for _ in range(2):
        asyncio.run(pipeline.run(range(5)))
    values = scraped(collector)
    for sink in ("CallbackSink", "CallbackSink 2"):
        assert value(values, "antflow_sink_events_total", sink=sink) == 30
        assert value(values, "antflow_sink_dropped_events_total", sink=sink) == 0
        assert value(values, "antflow_sink_errors_total", sink=sink) == 0
    assert value(values, "antflow_sink_events_total", sink="Full") == 0
    assert value(values, "antflow_sink_dropped_events_total", sink="Full") == 30
    assert value(values, "antflow_sink_errors_total", sink="Full") == 6
    assert len([name for name, _ in values if name == "antflow_sink_events_total"]) == 3


class Told:
    """An observer that is not a sink."""

    def opened(self, run: Any) -> None: ...


# -- other threads ----------------------------------------------------------------------------


@pytest.mark.real_time
def test_scrapes_in_another_thread() -> None:
    """Scrapes during runs are whole: no counter goes back, and buckets are in order."""

    async def work(number: int) -> int:
        if number % 10 == 3:
            raise RetryAfter(0.001) if number % 20 == 3 else ValueError(number)
        await asyncio.sleep(number % 3 / 1_000)
        return number

    stages = [Stage("Ask", 20, [work], task_attempts=2), Stage("Say", 5, [same])]
    pipeline = Pipeline(stages, collect_results=False)
    collector = PipelineCollector(pipeline)
    is_over, faults, seen = threading.Event(), [], []

    def scrape() -> None:
        before = counters(scraped(collector))
        while not is_over.is_set():
            try:
                after = scraped(collector)
                assert_not_back(before, before := counters(after))
                seen.append(value(after, "antflow_pipeline_input_items_total"))
            except BaseException as error:
                faults.append(error)
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    items = [number for number in range(1_500) if number % 20 != 3]
    for _ in range(3):
        asyncio.run(pipeline.run(items, on_failures="ignore"))
    is_over.set()
    thread.join()
    assert faults == []
    assert len(set(seen)) > 3
    assert value(scraped(collector), "antflow_pipeline_input_items_total") == 3 * len(items)


@pytest.mark.real_time
def test_scrape_while_the_loop_is_blocked() -> None:
    """A scrape is answered while a task blocks the event loop, and says so."""
    is_blocked = threading.Event()

    async def block(_: int) -> None:
        is_blocked.set()
        time.sleep(1.5)  # noqa: ASYNC251 - it blocks the loop on purpose

    pipeline = Pipeline([Stage("Block", 1, [block])])
    collector = PipelineCollector(pipeline)
    lags: list[float] = []
    took: list[float] = []

    def scrape() -> None:
        is_blocked.wait(10)
        time.sleep(0.8)
        began = time.monotonic()
        lags.append(value(scraped(collector), "antflow_event_loop_lag_seconds"))
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=scrape)
    thread.start()
    asyncio.run(pipeline.run([1]))
    thread.join()
    assert took[0] < 0.5
    assert lags[0] > 0.4
    assert value(scraped(collector), "antflow_event_loop_lag_seconds") == 0


# -- Prometheus's own tool --------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.skipif(which("promtool") is None, reason="needs promtool, of Debian's `prometheus`")
def test_promtool_has_no_complaint() -> None:
    """``promtool check metrics`` reads the text, and finds nothing that is against the customs."""
    pipeline = Pipeline(various_stages())
    collector = PipelineCollector(pipeline)
    run_virtual(pipeline.run(range(100), on_failures="ignore"))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition(collector), capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
