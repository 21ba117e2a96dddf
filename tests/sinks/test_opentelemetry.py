"""Spans and metrics of runs, as the real SDK of OpenTelemetry records them."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

import antflow
from antflow import (
    Drop,
    Limit,
    Pipeline,
    PipelineStats,
    RetryAfter,
    Stage,
    StatusEvent,
    StatusTracker,
    TaskEvent,
)
from antflow._core.envelope import Envelope
from antflow._core.ledger import Ledger
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow.sinks.opentelemetry import follow_run, task_span
from antflow.telemetry import configure_telemetry, telemetry_enabled
from antflow.testing import (
    FailTimes,
    Gate,
    Scripted,
    cancel_at_every_step,
    record_events,
    run_virtual,
)
from tests.support import double, odd_only, values

pytest.importorskip("opentelemetry.sdk", reason="needs the extra `otel` and the SDK")


from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult

SOURCE = Path(antflow.__file__).parents[1]


class Told:
    """Providers that keep in memory what they are told."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.user = self.tracers.get_tracer("user")

    def configure(self, **options: Any) -> None:
        providers = {"tracer_provider": self.tracers, "meter_provider": self.meters}
        configure_telemetry(**(providers | options))

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """The spans whose names begin so, in the order they began."""
        found = [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def parent_of(self, span: ReadableSpan) -> str | None:
        if span.parent is None:
            return None
        (parent,) = [other for other in self.spans() if key(other) == span.parent.span_id]
        return parent.name

    def outline(self) -> list[str]:
        """The spans as an indented list: the name's end, the item, how it ended."""
        children: dict[int | None, list[ReadableSpan]] = {}
        for span in self.spans():
            parent = None if span.parent is None else span.parent.span_id
            children.setdefault(parent, []).append(span)
        lines: list[str] = []

        def draw(parent: int | None, indent: str) -> None:
            for span in sorted(children.get(parent, []), key=lambda s: str(item_of(s) or "")):
                a = span.attributes or {}
                parts = [span.name.removeprefix("antflow."), a.get("antflow.item.id")]
                parts += [a.get("antflow.stage.outcome"), a.get("antflow.task.attempt")]
                parts += ["ERROR"] if span.status.status_code is trace.StatusCode.ERROR else []
                lines.append(indent + " ".join(str(p) for p in parts if p is not None))
                draw(key(span), indent + "  ")

        draw(None, "")
        return lines

    def totals(self) -> dict[str, float]:
        """Counter or histogram, with the stage where there is one → sum, or number of values."""
        totals: Counter[str] = Counter()
        for metric in self.metrics():
            for point in metric.data.data_points:
                place = point.attributes.get("antflow.stage.name")
                name = metric.name.removeprefix("antflow.") + (f" {place}" if place else "")
                totals[name] += point.count if hasattr(point, "count") else point.value
        return dict(totals)

    def metrics(self) -> list[Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return []
        scopes = [scope for part in data.resource_metrics for scope in part.scope_metrics]
        return [metric for scope in scopes for metric in scope.metrics]


def key(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


def item_of(span: ReadableSpan) -> Any:
    return (span.attributes or {}).get("antflow.item.id")


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    yield
    configure_telemetry()


@pytest.fixture
def told() -> Told:
    told = Told()
    told.configure()
    return told


async def fetch(value: Any) -> Any:
    """Return the item, after a second."""
    await asyncio.sleep(1)
    return value


async def refuse(value: Any) -> Any:
    """Fail for item 1."""
    if value == 1:
        raise LookupError("no such page")
    return value


def run(stages: list[Stage], items: Any, **options: Any) -> Any:
    """Run a pipeline in virtual time."""
    return run_virtual(lambda: Pipeline(stages, **options).run(items))


# -- what is told -----------------------------------------------------------------------------


def test_spans_are_a_tree_of_run_visits_and_tries(told: Told) -> None:
    """Every visit is a child of the run and every try one of its visit; the counters agree."""
    save = FailTimes(1)
    save.__name__ = "save"  # type: ignore[attr-defined]
    results = run(
        [
            Stage("A", 2, [fetch, refuse], task_attempts=2, task_wait_seconds=1),
            Stage("B", 1, [save], retry="per_stage", stage_attempts=2),
        ],
        range(2),
        name="news",
    )
    assert told.outline() == [
        "pipeline.run ERROR",
        "  stage.A 0 completed",
        "    task.fetch 1",
        "    task.refuse 1",
        "  stage.B 0 retrying",
        "    task.save 1 ERROR",
        "  stage.B 0 completed",
        "    task.save 2",
        "  stage.A 1 retrying",
        "    task.fetch 1",
        "    task.refuse 1 ERROR",
        "  stage.A 1 failed ERROR",
        "    task.refuse 2 ERROR",
    ]
    assert told.totals() == {
        "pipeline.items.processed": results.stats.items_processed,
        "pipeline.items.failed A": results.stats.items_failed,
        "pipeline.items.retried A": results.stats.stage_stats["A"].retried_items,
        "pipeline.items.retried B": results.stats.stage_stats["B"].retried_items,
        "task.duration A": 5,
        "task.duration B": 2,
    }
    assert results.stats.items_processed == results.stats.items_failed == 1
    assert (told.one("antflow.pipeline.run").attributes or {})["antflow.pipeline.total_items"] == 2


def test_attributes_when_a_run_is_over(told: Told) -> None:
    """Names, numbers and texts are where the documentation says they are."""
    run([Stage("A", 1, [fetch])], [{"id": "x\ud800\n" + 300 * "y", "value": 0}], name="news")
    of_run = dict(told.one("antflow.pipeline.run").attributes or {})
    assert len(str(of_run.pop("antflow.run.id"))) == 16
    assert of_run == {
        "antflow.pipeline.name": "news",
        "antflow.pipeline.stages": 1,
        "antflow.pipeline.total_items": 1,
        "antflow.pipeline.items.completed": 1,
        "antflow.pipeline.items.failed": 0,
        "antflow.pipeline.items.dropped": 0,
        "antflow.pipeline.items.expanded": 0,
        "antflow.pipeline.items.cancelled": 0,
    }
    assert told.one("antflow.stage.A").attributes == {
        "antflow.stage.name": "A",
        "antflow.stage.worker": "A-W0",
        "antflow.stage.outcome": "completed",
        "antflow.item.id": "x· ⏎ " + 197 * "y",
    }
    assert told.one("antflow.task.fetch").attributes == {
        "antflow.stage.name": "A",
        "antflow.task.name": "fetch",
        "antflow.task.attempt": 1,
    }


def test_duration_is_in_seconds_of_the_task(told: Told) -> None:
    """Each call is measured once, without the waiting."""
    run([Stage("A", 1, [fetch])], range(3))
    (metric,) = [each for each in told.metrics() if each.name == "antflow.task.duration"]
    (point,) = metric.data.data_points
    assert (metric.unit, point.count, point.sum) == ("s", 3, pytest.approx(3.0))


def test_labels_are_names_and_never_ids(told: Told) -> None:
    """The labels of a metric are the pipeline, the stage and the task: there are few of each."""
    run([Stage("A", 1, [refuse], task_attempts=2)], range(3), name="news")
    news = {"antflow.pipeline.name": "news"}
    at_stage = news | {"antflow.stage.name": "A"}
    assert {
        metric.name.removeprefix("antflow."): [dict(p.attributes) for p in metric.data.data_points]
        for metric in told.metrics()
    } == {
        "pipeline.items.processed": [news],
        "pipeline.items.failed": [at_stage],
        "pipeline.items.retried": [at_stage],
        "task.duration": [at_stage | {"antflow.task.name": "refuse"}],
    }


def test_errors_are_recorded_on_the_try_and_on_what_failed_for_good(told: Told) -> None:
    """The exception is an event of both spans, and the text of their status."""
    run([Stage("A", 1, [refuse], task_attempts=1)], [1])
    for name in ("antflow.task.refuse", "antflow.stage.A"):
        span = told.one(name)
        assert span.status.description == "LookupError: no such page"
        (event,) = span.events
        assert (event.attributes or {})["exception.type"] == "LookupError"
        assert "in refuse" in str((event.attributes or {})["exception.stacktrace"])
    assert told.one("antflow.pipeline.run").status.description == "failed: 1, cancelled: 0"


def test_try_that_is_followed_by_another_is_not_an_error_of_its_visit(told: Told) -> None:
    """The task's span has failed; the visit has not, and of the item's one is the last."""
    run([Stage("A", 1, [FailTimes(1)], "per_stage", stage_attempts=2)], [0])
    tasks, visits = told.spans("antflow.task"), told.spans("antflow.stage")
    assert [span.status.is_ok for span in tasks] == [False, True]
    assert [span.status.is_ok for span in visits] == [True, True]


def test_items_are_counted_when_they_come_out_once(told: Told) -> None:
    """However many stages there are."""
    run([Stage(name, 2, [fetch]) for name in "ABC"], range(5))
    assert told.totals()["pipeline.items.processed"] == 5


def test_errors_when_they_have_no_text(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that cannot even be printed is recorded by its name."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("mute")

    async def fail(_: Any) -> None:
        raise Mute

    run([Stage("A", 1, [fail], task_attempts=1)], [1])
    assert told.one("antflow.task.fail").status.description == "Mute: <Mute: str() failed>"
    assert not [each for each in caplog.messages if each.startswith("telemetry")]


def test_items_that_end_early_or_become_others(told: Told) -> None:
    """Dropped, skipped and expanded items are told as that; what came out is counted."""

    async def odd(value: int) -> Any:
        return value if value % 2 else Drop

    results = run(
        [
            Stage("A", 1, [odd]),
            Stage("B", 1, [lambda value: [value] * value], expand=True),
            Stage("C", 1, [fetch], skip_if=lambda value: value == 3),
        ],
        [1, 2, 3],
    )
    outcomes = Counter(
        (span.name, (span.attributes or {})["antflow.stage.outcome"])
        for span in told.spans("antflow.stage")
    )
    assert outcomes == {
        ("antflow.stage.A", "completed"): 2,
        ("antflow.stage.A", "dropped"): 1,
        ("antflow.stage.B", "expanded"): 2,
        ("antflow.stage.C", "completed"): 1,
    }
    assert told.totals()["pipeline.items.processed"] == results.stats.items_processed == 4


def test_batch_is_one_call_for_several_items(told: Told) -> None:
    """Each item has its spans; the call is measured once, and what it traces is under the first."""

    async def save(values: list[Any]) -> list[Any]:
        with told.user.start_as_current_span("user"):
            return [ValueError("bad") if value == 2 else value for value in values]

    run([Stage("A", 1, [save], batch=3, task_attempts=1)], range(3))
    assert told.outline() == [
        "pipeline.run ERROR",
        "  stage.A 0 completed",
        "    task.save 1",
        "      user",
        "  stage.A 1 completed",
        "    task.save 1",
        "  stage.A 2 failed ERROR",
        "    task.save 1 ERROR",
    ]
    first, *others = told.spans("antflow.task")
    assert [link.context.span_id for span in others for link in span.links] == [key(first)] * 2
    assert told.totals()["task.duration A"] == 1


@pytest.mark.parametrize("limits", [[], [Limit(concurrency=1)]], ids=["free", "limited"])
def test_held_back_try_is_told_as_one_that_comes_again(told: Told, limits: list[Limit]) -> None:
    """With limits and without, ``RetryAfter`` ends a visit, and the next has the same attempt."""
    run([Stage("A", 1, [Scripted(RetryAfter(1))], limits=limits)], [0])
    assert told.outline() == [
        "pipeline.run",
        "  stage.A 0 retrying",
        "    task.Scripted 1 ERROR",
        "  stage.A 0 completed",
        "    task.Scripted 1",
    ]
    assert told.totals()["pipeline.items.retried A"] == 1


def test_tracker_and_telemetry_hear_the_same(told: Told) -> None:
    """With a tracker, both are told of every try."""
    tracker = record_events()
    run([Stage("A", 2, [fetch, refuse], task_wait_seconds=0)], range(3), status_tracker=tracker)
    tries = [e for e in tracker.events if isinstance(e, TaskEvent) and e.event_type != "start"]
    assert len(told.spans("antflow.task")) == len(tries) == 8


def test_callback_of_a_tracker_beside_telemetry(told: Told) -> None:
    """A worker waits for an async callback as ever, although telemetry never has it wait."""
    heard: list[str] = []

    async def on_status_change(event: StatusEvent) -> None:
        await asyncio.sleep(1)
        heard.append(event.status)

    run([Stage("A", 1, [fetch])], [0], status_tracker=StatusTracker(on_status_change))
    assert heard == ["queued", "in_progress", "completed"]
    assert told.spans("antflow.stage")


# -- whose child is whose ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"executor": "inline"}, {"isolate_context": True}], ids=str
)
@pytest.mark.parametrize("is_async", [True, False])
def test_span_of_the_user_inside_a_task(
    told: Told, is_async: bool, options: dict[str, Any]
) -> None:
    """What a task traces, in a coroutine or in a thread, is a child of its span."""

    def plain(value: Any) -> Any:
        with told.user.start_as_current_span("user"):
            return value

    async def coroutine(value: Any) -> Any:
        await asyncio.sleep(1)
        return plain(value)

    run([Stage("A", 2, [coroutine if is_async else plain], **options)], range(3))
    assert [told.parent_of(span) for span in told.spans("user")] == [
        f"antflow.task.{'coroutine' if is_async else 'plain'}"
    ] * 3
    assert len({span.parent.span_id for span in told.spans("user") if span.parent}) == 3


def test_span_of_the_user_between_tasks(told: Told) -> None:
    """What is called besides tasks sees the span of the visit or the run, and none that is over."""

    def note(name: str) -> Callable[..., Any]:
        return lambda *_: told.user.start_span(name).end()

    def source() -> Iterator[int]:
        for number in range(3):
            note("source")()
            yield number

    limit = Limit(rate=1000, cost=lambda _: note("cost")() or 1)
    stage = Stage("A", 1, [fetch], limits=[limit], skip_if=note("skip_if"), on_success=note("done"))
    run([stage], source())
    parents = Counter((s.name, told.parent_of(s)) for s in told.spans() if "." not in s.name)
    assert parents == {
        ("skip_if", "antflow.pipeline.run"): 3,
        ("cost", "antflow.stage.A"): 3,
        ("done", "antflow.pipeline.run"): 3,
        ("source", "antflow.pipeline.run"): 3,
    }


def test_run_is_a_child_of_where_it_was_called(told: Told) -> None:
    """The caller's span is the parent, and is the current one again; so is an outer task's."""
    inner = Pipeline([Stage("Inner", 1, [fetch])], name="inner")

    async def nest(value: Any) -> Any:
        return (await inner.run([value])).values()

    async def main() -> None:
        with told.user.start_as_current_span("request") as request:
            await Pipeline([Stage("Outer", 1, [nest])]).run([0])
            assert trace.get_current_span() is request
        assert trace.get_current_span() is trace.INVALID_SPAN

    run_virtual(main)
    outer, of_inner = told.spans("antflow.pipeline.run")
    assert told.parent_of(outer) == "request"
    assert told.parent_of(of_inner) == "antflow.task.nest"
    assert len({trace_of(span) for span in told.spans()}) == 1


def test_runs_at_the_same_time_do_not_mix(told: Told) -> None:
    """Each of two runs of one pipeline has the spans of its own items, and only those."""
    pipeline = Pipeline([Stage("A", 2, [fetch]), Stage("B", 2, [fetch])])

    async def main() -> None:
        await asyncio.gather(
            *(pipeline.run([{"id": f"{run}{n}"} for n in range(4)]) for run in "ab")
        )

    run_virtual(main, seed=1)
    items: dict[int, list[str]] = {}
    for span in told.spans("antflow.stage"):
        items.setdefault(trace_of(span), []).append(str(item_of(span)))
    expected = [sorted(2 * [f"{run}{n}" for n in range(4)]) for run in "ab"]
    assert sorted(sorted(found) for found in items.values()) == expected
    assert sum("antflow.task" in span.name for span in told.spans()) == 16


# -- opt-in: fewer spans, other traces --------------------------------------------------------


def test_sample_ratio_chooses_items(told: Told) -> None:
    """The share of items has all its spans, the others have none, and metrics count all."""

    async def trace_it(value: Any) -> Any:
        told.user.start_span("user").end()
        return value

    told.configure(sample_ratio=0.1)
    run([Stage("A", 3, [fetch]), Stage("B", 3, [trace_it])], range(100))
    by_stage = [{item_of(span) for span in told.spans(f"antflow.stage.{s}")} for s in "AB"]
    assert by_stage[0] == by_stage[1]
    assert 8 <= len(by_stage[0]) <= 12, "spread evenly over the items"
    assert Counter(told.parent_of(span) for span in told.spans("user")) == {
        "antflow.task.trace_it": len(by_stage[0])
    }
    assert told.totals()["task.duration B"] == 100


def test_sample_ratio_when_it_is_zero(told: Told) -> None:
    """No item has spans, nor has what its tasks trace; what is called between them is the run's."""

    async def split(value: int) -> Any:
        for number in range(3):
            told.user.start_span("in a task").end()
            yield number

    def note(*_: Any) -> None:
        told.user.start_span("between").end()

    told.configure(sample_ratio=0)
    run([Stage("A", 1, [split], expand=True), Stage("B", 1, [fetch], on_success=note)], range(2))
    assert Counter(span.name for span in told.spans()) == {"antflow.pipeline.run": 1, "between": 6}


def test_linked_items_have_traces_of_their_own(told: Told) -> None:
    """Each item is the root of a trace of all its visits, and links to the run."""
    told.configure(spans="linked")
    run([Stage("A", 2, [fetch]), Stage("B", 2, [refuse], task_attempts=2)], range(2))
    assert told.outline() == [
        "pipeline.run ERROR",
        "pipeline.item 0",
        "  stage.A 0 completed",
        "    task.fetch 1",
        "  stage.B 0 completed",
        "    task.refuse 1",
        "pipeline.item 1 ERROR",
        "  stage.A 1 completed",
        "    task.fetch 1",
        "  stage.B 1 retrying",
        "    task.refuse 1 ERROR",
        "  stage.B 1 failed ERROR",
        "    task.refuse 2 ERROR",
    ]
    links = [link for span in told.spans("antflow.pipeline.item") for link in span.links]
    assert {link.context.span_id for link in links} == {key(told.one("antflow.pipeline.run"))}
    assert len({trace_of(span) for span in told.spans()}) == 3


def test_run_that_is_not_sampled_has_no_spans() -> None:
    """Where the sampler left the run out, so is all that its tasks trace; metrics are not."""
    asked: list[str] = []

    class Never(ParentBased):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            asked.append(kwargs.get("name") or args[2])
            return super().should_sample(*args, **kwargs)

    told = Told(Never(ALWAYS_OFF))
    told.configure()
    contexts: list[trace.SpanContext] = []

    async def look(value: Any) -> Any:
        contexts.append(trace.get_current_span().get_span_context())
        return value

    run([Stage("A", 2, [look])], range(3))
    assert told.spans() == []
    assert told.totals()["task.duration A"] == 3
    assert [(c.is_valid, c.trace_flags.sampled) for c in contexts] == [(True, False)] * 3
    assert asked == ["antflow.pipeline.run"]


# -- nothing is told --------------------------------------------------------------------------


def test_telemetry_does_not_listen_when_nothing_records(told: Told) -> None:
    """Switched off, or with providers that record nothing, a run has no observer of this kind."""
    assert follow_run("p") is not None
    told.configure(enabled=False)
    assert follow_run("p") is None
    assert not telemetry_enabled()
    run([Stage("A", 1, [fetch])], [0])
    assert told.spans() == []
    configure_telemetry()
    assert telemetry_enabled()
    assert follow_run("p") is None  # the global providers are stand-ins
    none = {
        "tracer_provider": trace.NoOpTracerProvider(),
        "meter_provider": metrics.NoOpMeterProvider(),
    }
    told.configure(**none)
    assert follow_run("p") is None


PROGRAM = """
import asyncio, sys
from antflow import Pipeline, Stage
from antflow._core.envelope import Envelope
from antflow._core.ledger import Ledger
from antflow._core.run_facts import RunFacts
from antflow.sinks.opentelemetry import task_span
from antflow.telemetry import configure_telemetry, telemetry_enabled

async def fetch(value):
    with task_span(0, 1):
        return value

async def main():
    return (await Pipeline([Stage("A", 1, [fetch])]).run(range(3))).values()

print(asyncio.run(main()), telemetry_enabled(), "opentelemetry.trace" in sys.modules)
"""


GLOBAL = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""


@pytest.mark.parametrize(
    ("before", "after", "printed"),
    [
        ("", "", "[0, 1, 2] True False"),
        ("import sys; sys.modules['opentelemetry'] = None", "", "[0, 1, 2] False False"),
        (
            "import sys; sys.modules['opentelemetry'] = None",
            "configure_telemetry(); asyncio.run(main())",
            "[0, 1, 2] False False",
        ),
        (GLOBAL, "print(len(exporter.get_finished_spans()))", "[0, 1, 2] True True\n10"),
    ],
    ids=["nobody imported it", "not installed", "not installed, configured", "global provider"],
)
def test_program_on_its_own(before: str, after: str, printed: str) -> None:
    """OpenTelemetry is not imported before others do, nor needed; the global provider is used."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + PROGRAM + after],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (printed, "")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"enabled": 1}, TypeError, "enabled=1: must be True or False"),
        ({"spans": "roots"}, ValueError, "'children', 'linked'"),
        ({"sample_ratio": 1.5}, ValueError, "sample_ratio=1.5"),
        ({"sample_ratio": float("nan")}, ValueError, "sample_ratio=nan"),
        ({"sample_ratio": True}, ValueError, "sample_ratio=True"),
        ({"tracer_provider": 1}, TypeError, r"tracer_provider=1.*get_tracer\(\)"),
        ({"meter_provider": 1}, TypeError, r"meter_provider=1.*get_meter\(\)"),
    ],
)
def test_configure_when_an_option_is_wrong(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A wrong option is refused with its name, its value and what is allowed."""
    with pytest.raises(error, match=message):
        configure_telemetry(**options)


# -- nothing it does changes an outcome -------------------------------------------------------


class RaisesLater(SpanProcessor):
    """Raises in one of its methods, from the fourth call on."""

    def __init__(self, method: str, error: BaseException | None = None) -> None:
        self.calls = 0
        self.error = OSError("disk full") if error is None else error
        setattr(self, method, self.fail)

    def fail(self, *_: object, **__: object) -> None:
        self.calls += 1
        if self.calls > 3:
            raise self.error


class RaisingExporter(SpanExporter):
    def export(self, spans: object) -> Any:
        raise OSError("disk full")


ERRORS = {
    "an error": OSError("disk full"),
    "CancelledError": asyncio.CancelledError(),
    "a group": BaseExceptionGroup("", [asyncio.CancelledError()]),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("method", ["on_start", "on_end"])
def test_processor_when_it_raises(
    told: Told, method: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It changes no outcome, is logged once, and what can be told is told."""
    processor = RaisesLater(method, error)
    told.tracers.add_span_processor(processor)
    stages = [Stage("A", 2, [fetch, refuse], task_wait_seconds=0), Stage("B", 1, [fetch])]
    results = run(stages, range(20))
    assert (len(results), len(results.failed)) == (19, 1)
    assert [each for each in caplog.messages if each.startswith("telemetry")] == [
        "telemetry failed; it is still called, and further failures are only counted"
    ]
    assert told.totals()["pipeline.items.processed"] == 19


def test_processor_when_it_raises_at_once(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """A run whose own span cannot be begun goes on untold."""
    processor = RaisesLater("on_start")
    processor.calls = 100
    told.tracers.add_span_processor(processor)
    assert run([Stage("A", 1, [fetch])], [0]).values() == [0]
    assert len([r for r in caplog.records if "telemetry" in r.message]) == 1
    assert told.spans() == []


def test_exporter_when_it_raises(told: Told) -> None:
    """What the SDK catches itself changes nothing either."""
    told.tracers.add_span_processor(SimpleSpanProcessor(RaisingExporter()))
    assert run([Stage("A", 1, [fetch])], [0]).values() == [0]
    assert len(told.spans()) == 3


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_provider_when_it_raises(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that gives no tracer is logged, and the run is not told of."""

    class Broken:
        def get_tracer(self, *_: object) -> None:
            raise error

    configure_telemetry(tracer_provider=Broken())  # type: ignore[arg-type]
    assert run([Stage("A", 1, [fetch])], [0]).values() == [0]
    assert caplog.messages == ["telemetry: OpenTelemetry cannot be used; nothing more is recorded"]


def test_cancelled_run_leaves_no_span_open(caplog: pytest.LogCaptureFixture) -> None:
    """Wherever a run is cancelled, every span that was begun is ended, quietly."""
    started: Counter[int] = Counter()

    class Books(SpanProcessor):
        def on_start(self, span: Any, parent_context: object = None) -> None:
            started[span.context.span_id] += 1

        def on_end(self, span: ReadableSpan) -> None:
            started[key(span)] -= 1

    told = Told()
    told.tracers.add_span_processor(Books())
    told.configure(spans="linked")

    async def main() -> None:
        gate = Gate()
        asyncio.get_running_loop().call_later(2, gate.open)
        stages = [Stage("A", 2, [fetch, gate]), Stage("B", 1, [refuse], task_wait_seconds=1)]
        await Pipeline([*stages, Stage("C", 1, [list], batch=2, batch_wait=1)]).run(range(3))

    def check(_: int) -> None:
        assert set(started.values()) <= {0}
        assert "detach" not in caplog.text

    assert cancel_at_every_step(main, check) > 20
    outcomes = {(span.attributes or {}).get("antflow.stage.outcome") for span in told.spans()}
    assert {"cancelled", "completed", "retrying"} <= outcomes
    texts = [str(span.status.description) for span in told.spans("antflow.task")]
    assert any(text.startswith("ItemCancelled: ") for text in texts)


def test_crashed_run_leaves_no_span_open(told: Told) -> None:
    """What was never said to have ended ends with the run."""
    listener = follow_run("p")
    assert listener is not None
    ledger = Ledger(1)
    envelope, worker = Envelope(0, 0, "value", {}, "value"), ledger.stages[0].worker(0)
    context = copy_context()
    context.run(listener.opened, RunFacts("f0", ("A",), 0.0, 0.0), ledger, lambda: None)
    worker.task = "fetch"
    context.run(listener.started, envelope, worker, 0.0)
    context.run(listener.tasks["start"], envelope, worker, 0.0, None, None)
    listener.closed(RunEnd("f0", "failed", None, PipelineStats(0, 0, 0, {}), 0.0, 0.0))
    assert told.outline() == ["pipeline.run", "  stage.A 0", "    task.fetch 0"]


# -- the executor -----------------------------------------------------------------------------


def test_task_span_is_current_inside(told: Told) -> None:
    """A call's span has both ids, is the parent of what the call traces, and is left again."""
    with told.user.start_as_current_span("request") as request:
        with task_span("W1", 7):
            told.user.start_span("user").end()
        assert trace.get_current_span() is request
    span = told.one("antflow.executor.task")
    assert span.attributes == {"antflow.executor.worker_id": "W1", "antflow.executor.task_id": 7}
    assert told.parent_of(span) == "request"
    assert told.parent_of(told.one("user")) == "antflow.executor.task"
    assert span.status.is_unset


def test_task_span_when_the_call_raises(told: Told) -> None:
    """The error is recorded and comes out."""
    with pytest.raises(LookupError, match="no such page"), task_span(0, 1):
        raise LookupError("no such page")
    assert told.one("antflow.executor.task").status.description == "LookupError: no such page"


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("method", ["on_start", "on_end"])
def test_task_span_when_the_processor_raises(
    told: Told, method: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It changes no outcome, is logged once, and no more calls are told."""
    told.tracers.add_span_processor(RaisesLater(method, error))
    for _ in range(9):
        with pytest.raises(LookupError), task_span(0, 1):
            raise LookupError
    assert caplog.messages == [
        "telemetry: the span of an executor's call failed; nothing more is recorded"
    ]
    assert len(told.spans()) <= 4
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_task_span_when_nothing_records(told: Told) -> None:
    """Switched off, or without a provider, there is no span."""
    told.configure(enabled=False)
    with task_span(0, 1):
        pass
    configure_telemetry()
    with task_span(0, 1):
        assert trace.get_current_span() is trace.INVALID_SPAN
    assert told.spans() == []


# -- as in 0.10.0 ----------------------------------------------------------------------------------


@pytest.mark.contract
def test_configure_telemetry_by_keyword() -> None:
    """``configure_telemetry(enabled=True)``: on by default, given by keyword."""
    assert inspect.signature(configure_telemetry).parameters["enabled"].default is True
    configure_telemetry(enabled=True)


@pytest.mark.contract
def test_telemetry_can_be_switched_off() -> None:
    """After ``configure_telemetry(enabled=False)``, ``telemetry_enabled()`` is false."""
    configure_telemetry(enabled=False)
    assert antflow.telemetry_enabled() is False


@pytest.mark.contract
def test_telemetry_enabled_is_a_bool() -> None:
    """``telemetry_enabled()`` answers with a bool, whether anything is installed or not."""
    assert isinstance(antflow.telemetry_enabled(), bool)


@pytest.mark.contract
@pytest.mark.parametrize("enabled", [True, False])
def test_runs_are_the_same_with_and_without(enabled: bool) -> None:
    """Telemetry changes no result."""
    configure_telemetry(enabled=enabled)
    pipeline = Pipeline([Stage("A", 2, [double]), Stage("B", 1, [double])])
    assert values(run_virtual(lambda: pipeline.run([1, 2]))) == [4, 8]


# -- new since 0.10.0 ------------------------------------------------------------------------------


class ToldOfOneRun:
    """What OpenTelemetry was told of one run."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._tracers = TracerProvider()
        self._tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider([self._reader])
        self.configure()

    def configure(self, **options: Any) -> None:
        """Have everything told from now on, with these options."""
        configure_telemetry(tracer_provider=self._tracers, meter_provider=self._meters, **options)

    @property
    def spans(self) -> list[Any]:
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    @property
    def metrics(self) -> dict[str, list[Any]]:
        data: Any = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def told_of(items: Any, *stages: Stage) -> ToldOfOneRun:
    """Run items through stages and say what OpenTelemetry was told."""
    told = ToldOfOneRun()
    run_virtual(lambda: Pipeline([*stages]).run(items))
    return told


@pytest.mark.contract
def test_spans_are_nested() -> None:
    """Spans are ``antflow.pipeline.run`` > ``antflow.stage.X`` > ``antflow.task.Y``."""
    told = told_of([1], Stage("Fetch", 1, [double]))
    (run,) = told.named("antflow.pipeline.run")
    (stage,) = told.named("antflow.stage.Fetch")
    (task,) = told.named("antflow.task.double")
    assert run.parent is None
    assert stage.parent.span_id == run.context.span_id
    assert task.parent.span_id == stage.context.span_id


@pytest.mark.contract
def test_every_item_and_every_try_has_its_span() -> None:
    """There is a span for each item in each stage, and one for each try of a task."""
    stages = [Stage("A", 1, [FailTimes(1)], task_wait_seconds=0), Stage("B", 1, [double])]
    told = told_of([7, 8], *stages)
    assert len(told.named("antflow.stage.B")) == 2
    tries = told.named("antflow.task.FailTimes")
    assert sorted(span.attributes["antflow.task.attempt"] for span in tries) == [1, 1, 2, 2]


@pytest.mark.contract
@pytest.mark.parametrize(
    ("span", "attributes"),
    [
        ("antflow.pipeline.run", {"antflow.pipeline.total_items", "antflow.pipeline.stages"}),
        ("antflow.stage.A", {"antflow.stage.name"}),
        ("antflow.task.double", {"antflow.task.name", "antflow.task.attempt"}),
    ],
)
def test_spans_have_their_attributes(span: str, attributes: set[str]) -> None:
    """Spans carry total and stages, the stage's name, the task's name and attempt."""
    (found,) = told_of([1], Stage("A", 1, [double])).named(span)
    assert attributes <= set(found.attributes)


@pytest.mark.contract
def test_counters_and_histogram() -> None:
    """Items processed, failed and retried are counted, and tasks timed."""
    stages = [
        Stage("A", 1, [FailTimes(1)], task_wait_seconds=0),
        Stage("B", 1, [odd_only], task_attempts=1),
    ]
    metrics = told_of([1, 2, 3], *stages).metrics
    counts = {
        name: sum(point.value for point in metrics[f"antflow.pipeline.items.{name}"])
        for name in ("processed", "failed", "retried")
    }
    assert (counts["failed"], counts["retried"]) == (1, 3)
    assert counts["processed"] >= 2
    assert sum(point.count for point in metrics["antflow.task.duration"]) == 9


@pytest.mark.contract
def test_executor_calls_have_spans() -> None:
    """A call of an executor is a span ``antflow.executor.task`` with worker and task id."""
    from antflow.executor import AsyncExecutor

    told = ToldOfOneRun()

    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            await executor.map(double, [1, 2])

    run_virtual(main)
    spans = told.named("antflow.executor.task")
    assert len(spans) == 2
    assert {"antflow.executor.worker_id", "antflow.executor.task_id"} <= set(spans[0].attributes)


@pytest.mark.contract
def test_linked_traces_are_opt_in() -> None:
    """With ``spans="linked"`` each item has a trace of its own, linked to the run's span."""
    told = ToldOfOneRun()
    told.configure(spans="linked")
    run_virtual(lambda: Pipeline([Stage("A", 1, [double])]).run([1, 2]))
    (run,) = told.named("antflow.pipeline.run")
    stages = told.named("antflow.stage.A")
    traces = {span.context.trace_id for span in stages}
    assert len(traces) == 2
    assert run.context.trace_id not in traces


@pytest.mark.contract
def test_sampling_is_opt_in() -> None:
    """With ``sample_ratio=0`` no item has spans; the metrics count them all the same."""
    told = ToldOfOneRun()
    told.configure(sample_ratio=0.0)
    run_virtual(lambda: Pipeline([Stage("A", 1, [double])]).run([1, 2]))
    assert told.named("antflow.stage.A") == []
    assert sum(point.count for point in told.metrics["antflow.task.duration"]) == 2
