"""Metrics for Prometheus, through `prometheus_client` (``antflow[prometheus]``).

A collector has runs time their items, and does nothing else until it is asked. Each scrape takes
one snapshot of each pipeline, in the thread of the scrape: it waits for no lock that the event loop
holds while it works, so it gets an answer even while something blocks the loop.

A snapshot is of one run, and counters may never go back. So a collector adds up the counters of the
runs that are over, of which each pipeline tells once, at its end. For runs that are under way it
has what it saw last.

The durations of a snapshot are in finer buckets than Prometheus is given. Each goes, as a whole,
to the bound above its middle: so a bound is met within 4 %, as are the sums.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add, mul
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from weakref import ref

from prometheus_client import generate_latest, pushadd_to_gateway, write_to_textfile
from prometheus_client.exposition import basic_auth_handler, default_handler
from prometheus_client.metrics_core import Metric

from antflow._core.brief import Brief
from antflow._core.checks import refusal
from antflow._core.durations import SHORTEST_WAIT, Durations, middle_of
from antflow._core.foreign import attribute
from antflow._core.observers import RunEnd
from antflow._core.ports import Measured
from antflow._core.snapshot import DashboardSnapshot, PipelineStats, StageStats
from antflow._core.text import clean, cut
from antflow._core.version import __version__
from antflow.sinks.run_records import outcome_counts

MOST_ERROR_TYPES = 32
"""Types of errors of a pipeline that have a label of their own; the others share `OTHER_TYPES`."""

OTHER_TYPES = "_other"
LONGEST_NAME = 100

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Seconds: the upper bounds of the buckets."""

RUNS_REMEMBERED = 1_000
"""Ended runs that are told from the one a snapshot may still be of."""

FAMILIES: Mapping[str, tuple[str, str]] = {
    "antflow_build_info": ("gauge", "Version of antflow"),
    "antflow_pipeline_running": ("gauge", "Whether a run is under way"),
    "antflow_pipeline_items": ("counter", "Items that left the pipeline, by how they did"),
    "antflow_pipeline_input_items": ("counter", "Items taken in"),
    "antflow_pipeline_in_flight_items": ("gauge", "Items taken in that have not left"),
    "antflow_pipeline_expected_items": ("gauge", "Items the run will have, if that is known"),
    "antflow_pipeline_eta_seconds": ("gauge", "Time the run still takes, if that is known"),
    "antflow_pipeline_last_success_timestamp_seconds": (
        "gauge",
        "When a run last ended with every item settled",
    ),
    "antflow_item_duration_seconds": ("histogram", "How long items took, from intake to outcome"),
    "antflow_stage_items": ("counter", "Items that left the stage, by how they did"),
    "antflow_stage_attempts": ("counter", "Tries that are over, failed ones included"),
    "antflow_stage_retries": ("counter", "Failed tries that another one follows, by error"),
    "antflow_stage_errors": ("counter", "Items that failed for good, by error"),
    "antflow_stage_busy_seconds": ("counter", "Time workers worked on items"),
    "antflow_stage_blocked_seconds": ("counter", "Time workers waited for room downstream"),
    "antflow_stage_starved_seconds": ("counter", "Time workers had nothing to do"),
    "antflow_stage_limited_seconds": ("counter", "Time workers waited for a limit"),
    "antflow_stage_queue_items": ("gauge", "Items waiting in the queue of the stage"),
    "antflow_stage_queue_capacity_items": ("gauge", "Room in that queue, if it is bounded"),
    "antflow_stage_workers": ("gauge", "Workers of the stage, by what they do"),
    "antflow_stage_workers_limit": ("gauge", "Workers that may be busy at once"),
    "antflow_stage_duration_seconds": ("histogram", "How long tries took"),
    "antflow_stage_queue_wait_seconds": ("histogram", "How long items waited for a worker"),
    "antflow_event_loop_lag_seconds": ("gauge", "How late the event loop is"),
    "antflow_sink_events": ("counter", "Events a sink has delivered"),
    "antflow_sink_dropped_events": ("counter", "Events a sink has lost"),
    "antflow_sink_errors": ("counter", "Failed attempts of a sink to write"),
}
"""Family → its type and its help, in the order in which they are shown."""

SAMPLES: Mapping[str, Sequence[tuple[str, dict[str, str]]]] = {
    "counter": [("_total", {})],
    "gauge": [("", {})],
    "histogram": [
        *(("_bucket", {"le": str(float(bound))}) for bound in BOUNDS),
        ("_bucket", {"le": "+Inf"}),
        ("_count", {}),
        ("_sum", {}),
    ],
}
"""Type of a family → what is added to its name, and to its labels, for each number."""

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]
"""A family and labels."""

Numbers = Sequence[float]
"""A number, or those of a histogram, in the order of `SAMPLES`."""


class Values(dict[Key, Numbers]):
    """Values. Those that have the same key are added up."""

    def add(self, family: str, labels: Labels, *numbers: float) -> None:
        """Add to a value."""
        self.add_to((family, labels), numbers)

    def add_to(self, key: Key, numbers: Numbers) -> None:
        """The same, by its key."""
        known = self.get(key)
        self[key] = numbers if known is None else list(map(add, known, numbers))


class PipelineCollector(Brief):
    """The metrics of pipelines, for a registry of `prometheus_client`.

    ```python
    REGISTRY.register(PipelineCollector(pipeline))
    ```

    A registry takes one collector: give it all pipelines, or `add` those that come later. They are
    told apart by their names, in the label ``pipeline``. Counters are totals of all runs that
    begin, or are under way, from now on, and the latest run before; the times of items are those of
    runs that begin from now on (`Pipeline.time_items`). Gauges are of the latest run.

    Args:
        pipelines: The pipelines.

    Raises:
        TypeError: One is not a `Pipeline`.
        ValueError: Two have the same name.
    """

    def __init__(self, *pipelines: Measured) -> None:
        self._readers: dict[str, _Reader] = {}
        for pipeline in pipelines:
            self.add(pipeline)

    def _said(self) -> str:
        return f": {', '.join(map(repr, tuple(self._readers))) or 'no pipelines'}"

    def add(self, pipeline: Measured) -> None:
        """Collect the metrics of another pipeline, too.

        Raises:
            TypeError: It is not a `Pipeline`.
            ValueError: One of the same name is here already.
        """
        for method in ("get_dashboard_snapshot", "on_run_end", "time_items"):
            if not callable(attribute(pipeline, method)):
                raise refusal(TypeError, "pipeline", pipeline, "must be a Pipeline")
        name = _label(pipeline.name)
        if name in self._readers:
            allowed = "the collector has a pipeline of this name: give it another with name="
            raise refusal(ValueError, "pipeline", pipeline.name, allowed)
        self._readers[name] = _Reader(name, pipeline)

    def describe(self) -> list[Metric]:
        """The metrics without values, which a registry asks for."""
        return [Metric(name, text, kind) for name, (kind, text) in FAMILIES.items()]

    def collect(self) -> list[Metric]:
        """The metrics, from one snapshot of each pipeline."""
        values = Values({("antflow_build_info", (("version", __version__),)): (1.0,)})
        for reader in tuple(self._readers.values()):
            reader.read(values)
        metrics = {each.name: each for each in self.describe()}
        for (family, labels), numbers in values.items():
            metric, all_labels = metrics[family], dict(labels)
            for (suffix, more), number in zip(SAMPLES[metric.type], numbers, strict=True):
                metric.add_sample(family + suffix, all_labels | more, float(number))
        return list(metrics.values())


class _Reader:
    """Reads one pipeline, and knows the counters of its runs that are over.

    Args:
        name: The label of the pipeline.
        pipeline: The pipeline.
    """

    def __init__(self, name: str, pipeline: Measured) -> None:
        self._pipeline = pipeline
        self._labels: Labels = (("pipeline", name),)
        # All below is written under the lock, which is never held while the pipeline is asked.
        self._lock = Lock()
        self._over = Values()
        self._under_way: dict[str, Values] = {}
        self._ended: deque[str] = deque(maxlen=RUNS_REMEMBERED)
        self._shown: dict[Key, Numbers] = {}
        self._error_types: dict[str, None] = {}
        self._last_success: float | None = None
        # Weakly: a run that is under way has what it calls at its end, and a collector has the
        # pipeline, which has the run. It could not be dropped.
        this = ref(self)

        def on_run_end(end: RunEnd) -> None:
            if (reader := this()) is not None:
                reader.count_end(end)

        pipeline.on_run_end(on_run_end)
        pipeline.time_items()

    def read(self, values: Values) -> None:
        """Add the values of now."""
        snapshot = self._pipeline.get_dashboard_snapshot()
        with self._lock:
            if snapshot.run_id not in self._ended:
                counted = self._counters(snapshot.pipeline_stats)
                self._under_way[snapshot.run_id] = counted
            values.update(self._totals())
            last_success = self._last_success
        self._gauges(values, snapshot)
        if last_success is not None:
            family = "antflow_pipeline_last_success_timestamp_seconds"
            values.add(family, self._labels, last_success)
        self._sinks(values, snapshot)

    def count_end(self, end: RunEnd) -> None:
        """A run is over: its counters stay as they are."""
        with self._lock:
            self._under_way.pop(end.run_id, None)
            self._ended.append(end.run_id)
            for key, numbers in self._counters(end.stats).items():
                self._over.add_to(key, numbers)
            if end.how == "finished":
                self._last_success = end.timestamp

    def _totals(self) -> dict[Key, Numbers]:
        """The counters of all runs. None goes back, even if a reading does.

        A thread may read the books in the middle of a step; and a second that looked busy turns out
        as one in which the loop was blocked.
        """
        totals = Values(self._over)
        for run in self._under_way.values():
            for key, numbers in run.items():
                totals.add_to(key, numbers)
        for key, numbers in totals.items():
            self._shown[key] = list(map(max, self._shown.get(key, numbers), numbers))
        return self._shown

    def _counters(self, stats: PipelineStats) -> Values:
        """The counters of one run."""
        values, labels = Values(), self._labels
        for outcome, count in outcome_counts(stats).items():
            of = (*labels, ("outcome", outcome))
            values.add("antflow_pipeline_items", of, count)
        values.add("antflow_pipeline_input_items", labels, stats.items_accepted)
        item_times = stats.item_times or Durations(shortest=SHORTEST_WAIT)
        values.add("antflow_item_duration_seconds", labels, *_histogram(item_times))
        for stage in stats.stage_stats.values():
            self._count_stage(values, stage, (*labels, ("stage", _label(stage.stage_name))))
        return values

    def _count_stage(self, values: Values, stage: StageStats, labels: Labels) -> None:
        outcomes = {
            "completed": stage.completed_items,
            "failed": stage.failed_items,
            "dropped": stage.dropped_items,
            "expanded": stage.expanded_items,
            "cancelled": stage.cancelled_items,
            "skipped": stage.skipped_items,
        }
        for outcome, count in outcomes.items():
            of = (*labels, ("outcome", outcome))
            values.add("antflow_stage_items", of, count)
        numbers = {
            "attempts": stage.run_times.count,
            "busy_seconds": stage.busy_seconds,
            "blocked_seconds": stage.blocked_seconds,
            "starved_seconds": stage.starved_seconds,
            "limited_seconds": stage.limited_seconds,
        }
        for name, number in numbers.items():
            values.add(f"antflow_stage_{name}", labels, number)
        for family, kinds in (
            ("antflow_stage_retries", stage.retries_by_type),
            ("antflow_stage_errors", stage.errors_by_type),
        ):
            for kind, count in ((OTHER_TYPES, 0), *kinds.items()):
                of = (*labels, ("error_type", self._error_type(kind)))
                values.add(family, of, count)
        values.add("antflow_stage_duration_seconds", labels, *_histogram(stage.run_times))
        values.add("antflow_stage_queue_wait_seconds", labels, *_histogram(stage.queue_waits))

    def _error_type(self, name: str) -> str:
        """The label of a type of error; the first ones that come have their own."""
        name = _label(name)
        if name not in self._error_types:
            if len(self._error_types) >= MOST_ERROR_TYPES or name == OTHER_TYPES:
                return OTHER_TYPES
            self._error_types[name] = None
        return name

    def _gauges(self, values: Values, snapshot: DashboardSnapshot) -> None:
        labels, stats = self._labels, snapshot.pipeline_stats
        is_running = snapshot.state not in ("idle", "finished")
        values.add("antflow_pipeline_running", labels, float(is_running))
        values.add("antflow_pipeline_in_flight_items", labels, stats.items_in_flight)
        if snapshot.total_items is not None:
            values.add("antflow_pipeline_expected_items", labels, snapshot.total_items)
        if (eta := snapshot.eta) is not None:
            middle = (eta.shortest + eta.longest) / 2
            values.add("antflow_pipeline_eta_seconds", labels, middle)
        lag = snapshot.loop.lag if is_running else 0.0
        values.add("antflow_event_loop_lag_seconds", labels, lag)
        for stage in stats.stage_stats.values():
            of = (*labels, ("stage", _label(stage.stage_name)))
            values.add("antflow_stage_queue_items", of, stage.pending_items)
            if stage.capacity is not None:
                values.add("antflow_stage_queue_capacity_items", of, stage.capacity)
            for state, count in _standing(stage).items():
                values.add("antflow_stage_workers", (*of, ("state", state)), count)
            most = stage.workers if stage.concurrency is None else stage.concurrency
            values.add("antflow_stage_workers_limit", of, min(most, stage.workers))

    def _sinks(self, values: Values, snapshot: DashboardSnapshot) -> None:
        """The counters of sinks, which are over all runs."""
        for name, counts in snapshot.sinks.items():
            labels = (*self._labels, ("sink", _label(name)))
            values.add("antflow_sink_events", labels, counts.delivered)
            values.add("antflow_sink_dropped_events", labels, counts.dropped)
            values.add("antflow_sink_errors", labels, counts.failures)


def _label(name: object) -> str:
    return cut(clean(name), LONGEST_NAME)


def _standing(stage: StageStats) -> dict[str, int]:
    """What the workers of a stage do → how many do."""
    states = {
        "busy": stage.running_workers,
        "limited": stage.limited_workers,
        "blocked": stage.blocked_workers,
        "retrying": stage.retrying_workers,
    }
    return states | {"idle": max(stage.workers - sum(states.values()), 0)}


# Histograms


def _histogram(durations: Durations) -> Numbers:
    """How many durations there are up to each bound, their number, and their sum."""
    buckets = durations.buckets
    middles, places = _places(durations.shortest, len(buckets))
    # Another thread may have counted one that is not in the total yet.
    short = max(durations.count - sum(buckets), 0)
    up_to = list(accumulate(buckets, initial=short))
    number = up_to[-1]
    return [*(up_to[place] for place in places), number, number, sum(map(mul, buckets, middles))]


@lru_cache(maxsize=512)
def _places(shortest: float, count: int) -> tuple[Sequence[float], Sequence[int]]:
    """The middles of this many buckets, and for each bound how many of them are below it."""
    middles = [middle_of(shortest, index) for index in range(count)]
    return middles, [sum(middle <= bound for middle in middles) for bound in BOUNDS]


# For the command


TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The type of `exposition`. OpenMetrics would say the same, and takes twice as long to write."""


def exposition(collector: PipelineCollector) -> bytes:
    """The metrics as text."""
    registry: Any = collector  # it is only asked to collect
    return generate_latest(registry)


def write_file(collector: PipelineCollector, path: str) -> None:
    """Write the metrics beside a file, and put them in its place.

    Raises:
        OSError: That failed.
    """
    registry: Any = collector
    write_to_textfile(path, registry)


def push(collector: PipelineCollector, url: str, pipeline: str, timeout: float) -> None:
    """Send the metrics to a Pushgateway, in the group of the job ``antflow`` and the pipeline.

    What an earlier push has there and this one has not (when a run last succeeded) stays.

    Raises:
        OSError: That failed.
    """
    registry: Any = collector
    address, name, password = without_password(url)

    def handler(url: str, method: str, timeout: float | None, headers: Any, data: bytes) -> Any:
        if name is None:
            return default_handler(url, method, timeout, headers, data)
        return basic_auth_handler(url, method, timeout, headers, data, name, password)

    pushadd_to_gateway(
        address,
        "antflow",
        registry,
        {"pipeline": _label(pipeline)},
        timeout,
        handler,
    )


def without_password(url: str) -> tuple[str, str | None, str | None]:
    """A URL without what comes before its host, and the name and password that did."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl(), parts.username, parts.password
