"""Traces and metrics of runs through OpenTelemetry, if it is installed and set up.

Every observed run gets a listener, which turns the engine's steps into spans::

    antflow.pipeline.run           the run; its parent is the caller's current span
    └─ antflow.stage.Fetch         one visit of one item to one stage
       └─ antflow.task.download    one try of one task; current while the task runs

and into four instruments. It owns its spans and nothing else, and it has no power: faults here are
logged once and never reach the run.

The span of a task is found by the item and not by the worker, which may have a batch of items. The
current span is set in the context of the worker, which no one else uses. It is never reset with
a token, which works only in the context it was made in: leaving a span restores the one around it,
and only if the span left is still the current one.

Nothing is imported, started or attached before a recording provider has been set up: until then a
run pays two look-ups. `follow_run` decides that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from antflow._core.cancellation import is_failure
from antflow._core.checks import check_flag, refusal
from antflow._core.envelope import Envelope
from antflow._core.events import TaskEventType
from antflow._core.foreign import number
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.log import warn
from antflow._core.observers import RunEnd
from antflow._core.ports import Listener, TellTask
from antflow._core.run_facts import RunFacts
from antflow._core.step import Step
from antflow._core.text import clean, error_type_name, safe_str
from antflow._core.transition import MOVES_ON, Kind
from antflow._core.version import __version__

if TYPE_CHECKING:
    from opentelemetry import context, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Link, Span, Tracer, TracerProvider

SpanForm = Literal["children", "linked"]
"""How the spans of items relate to the span of their run."""

SPAN_FORMS: tuple[SpanForm, ...] = get_args(SpanForm)

LONGEST_TEXT = 200
"""Characters of an item's id, or of an error's text in a status."""

GOLDEN = 0x9E3779B97F4A7C15
"""2⁶⁴ / φ: the multiples of it, modulo 2⁶⁴, are spread evenly (Knuth, TAOCP 3, §6.4)."""


# Settings


@dataclass(frozen=True, slots=True)
class _Settings:
    enabled: bool = True
    spans: SpanForm = "children"
    sample_ratio: float = 1.0
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    executor_is_told: bool = True


_settings = _Settings()


def configure_telemetry(
    enabled: bool = True,
    *,
    spans: SpanForm = "children",
    sample_ratio: float = 1.0,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Choose what runs and executor calls begun from now on report to OpenTelemetry.

    Without a call everything is reported to the global providers, once the program has set them,
    and nothing before. Each call replaces all options.

    Args:
        enabled: ``False``: report nothing.
        spans: "children": the spans of all items are in the trace of the run. "linked": each item
            has its own trace, whose root ``antflow.pipeline.item`` links to the run's span; for
            runs too large for one trace.
        sample_ratio: Share of the items that get spans, 0.0 to 1.0. Spans made by the tasks of the
            others are left out too, by OpenTelemetry's default sampler. Metrics count every item.
        tracer_provider: Where spans go; ``None`` = the global provider. A ``NoOpTracerProvider``
            leaves spans out.
        meter_provider: Where metrics go; ``None`` = the global provider. A ``NoOpMeterProvider``
            leaves them out.

    Raises:
        TypeError: ``enabled`` is not a bool, or a provider is not one.
        ValueError: ``spans`` or ``sample_ratio`` are not allowed.
    """
    global _settings
    check_flag(TypeError, "enabled", enabled)
    if not isinstance(spans, str) or spans not in SPAN_FORMS:
        allowed = f"must be one of {', '.join(map(repr, SPAN_FORMS))}"
        raise refusal(ValueError, "spans", spans, allowed)
    ratio = number(sample_ratio)
    if ratio is None or not 0 <= ratio <= 1:
        raise refusal(ValueError, "sample_ratio", sample_ratio, "must be a number from 0.0 to 1.0")
    for name, provider, method in (
        ("tracer_provider", tracer_provider, "get_tracer"),
        ("meter_provider", meter_provider, "get_meter"),
    ):
        if provider is not None and not callable(getattr(provider, method, None)):
            raise refusal(TypeError, name, provider, f"must have a method {method}(), or be None")
    _settings = _Settings(enabled, spans, ratio, tracer_provider, meter_provider)


def telemetry_enabled() -> bool:
    """Whether telemetry is switched on and OpenTelemetry (``antflow[otel]``) is installed.

    It is on by default. Whether anything is recorded is up to the providers.
    """
    return _settings.enabled and _is_installed()


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.trace") is not None
    except (ImportError, ValueError):
        return False


# For the pipeline and the executor


def follow_run(pipeline_name: str) -> Listener | None:
    """A listener that reports one run to OpenTelemetry; ``None`` if nothing would record it.

    Its `opened` sets the current span, so it must be called in the context that the run is going to
    have. Never raises.
    """
    settings = _settings
    if not settings.enabled:
        return None
    try:
        tracer, meters = _tracer(settings), _meters(settings)
    except BaseException as error:  # why: see `_complain`
        _complain("OpenTelemetry cannot be used", error)
        return None
    if tracer is None and meters is None:
        return None
    run = None if tracer is None else _Trace(tracer, settings, pipeline_name)
    return _Follower(run, meters, pipeline_name)


def task_span(worker_id: int | str, task_id: int | str) -> AbstractContextManager[None]:
    """A span ``antflow.executor.task`` around one call of an `AsyncExecutor`; mostly nothing.

    It is current inside, ends with an error status if the body raises, and changes no outcome.
    """
    tracer = _executor_tracer()
    if tracer is None:
        return nullcontext()
    attributes = {
        "antflow.executor.worker_id": worker_id,
        "antflow.executor.task_id": task_id,
    }
    return _ExecutorSpan(tracer, attributes)


def tells_of_executors() -> bool:
    """Whether a `task_span` records something."""
    return _executor_tracer() is not None


def _executor_tracer() -> Tracer | None:
    settings = _settings
    if not (settings.enabled and settings.executor_is_told):
        return None
    try:
        return _tracer(settings)
    except BaseException as error:  # why: see `_complain`
        _stop_telling_of_executors(error)
        return None


def _tracer(settings: _Settings) -> Tracer | None:
    """The tracer, if there is one that records something."""
    provider = settings.tracer_provider
    if provider is None and _may_be_set("opentelemetry.trace", "OTEL_PYTHON_TRACER_PROVIDER"):
        from opentelemetry.trace import get_tracer_provider

        provider = get_tracer_provider()
    return _tracer_of(provider) if _records(provider) else None


def _meters(settings: _Settings) -> _Meters | None:
    """The instruments, if something reads them."""
    provider = settings.meter_provider
    if provider is None and _may_be_set("opentelemetry.metrics", "OTEL_PYTHON_METER_PROVIDER"):
        from opentelemetry.metrics import get_meter_provider

        provider = get_meter_provider()
    return _meters_of(provider) if _records(provider) else None


def _may_be_set(module: str, variable: str) -> bool:
    """Whether a global provider can have been set: if not, the import is not needed."""
    return module in sys.modules or (variable in os.environ and _is_installed())


def _records(provider: object) -> bool:
    """Whether a provider is a real one: those in the API package itself are stand-ins."""
    home = type(provider).__module__
    return provider is not None and not home.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics")
    )


@lru_cache(maxsize=1)
def _tracer_of(provider: Any) -> Tracer:
    global context, trace
    from opentelemetry import context, trace

    return cast("Tracer", provider.get_tracer("antflow", __version__))


@lru_cache(maxsize=1)
def _meters_of(provider: Any) -> _Meters:
    return _Meters(provider)


def _complain(what: str, error: BaseException) -> None:
    """Log the error of a call of OpenTelemetry, a ``CancelledError`` and groups included.

    Raises:
        BaseException: An error that ends the program.
    """
    if not is_failure(error):
        raise error
    warn("telemetry: %s; nothing more is recorded", what, error=error)


def _stop_telling_of_executors(error: BaseException) -> None:
    global _settings
    _settings = replace(_settings, executor_is_told=False)
    _complain("the span of an executor's call failed", error)


# Metrics


class _Meters:
    """The instruments. Made once: they are the same for all runs."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("antflow", __version__)
        counter = meter.create_counter
        prefix = "antflow.pipeline.items."
        self.processed = counter(f"{prefix}processed", "{item}", "Items that came out at the end")
        self.failed = counter(f"{prefix}failed", "{item}", "Items that failed for good")
        self.retried = counter(f"{prefix}retried", "{try}", "Tries that were followed by another")
        self.duration = meter.create_histogram(
            "antflow.task.duration", "s", "How long one call of a task took"
        )


# Spans


class _Scope:
    """A span, and the context in which it is the current one."""

    __slots__ = ("context", "inner", "span")

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        around: Context | None,
        attributes: dict[str, Any],
        links: Sequence[Link] = (),
    ) -> None:
        self.span: Span = tracer.start_span(name, around, attributes=attributes, links=links)
        self.context = trace.set_span_in_context(self.span, around)
        self.inner: _Scope | None = None

    def end(self, error: BaseException | None = None) -> None:
        """End the span, and those still open inside."""
        if self.inner is not None:
            self.inner.end(error)
        if error is not None:
            _mark(self.span, error)
        self.span.end()


class _Trace:
    """The spans of one run.

    Args:
        tracer: Makes them.
        settings: How.
        pipeline_name: Whose run it is.
    """

    def __init__(self, tracer: Tracer, settings: _Settings, pipeline_name: str) -> None:
        self._tracer = tracer
        self._is_linked = settings.spans == "linked"
        self._threshold = int(settings.sample_ratio * 2**64)
        self._pipeline_name = pipeline_name
        self._visits: dict[Any, _Scope] = {}
        self._items: dict[Any, _Scope] = {}

    def open(self, facts: RunFacts) -> bool:
        """Begin the span of the run and make it the current one.

        Returns:
            Whether there will be any other spans.
        """
        self._facts = facts
        self._offset = int(facts.run_id, 16)
        attributes = {
            "antflow.pipeline.name": clean(self._pipeline_name),
            "antflow.pipeline.stages": len(facts.stage_names),
            "antflow.run.id": facts.run_id,
        }
        self._run = _Scope(self._tracer, "antflow.pipeline.run", None, attributes)
        self._unsampled = _unsampled(self._run)
        context.attach(self._run.context)
        # A trace that is not sampled has no further spans; one trace per item is another matter.
        return self._run.span.is_recording() or self._is_linked

    def started(self, envelope: Envelope, worker: WorkerBook) -> None:
        """Begin a visit."""
        if not self._is_sampled(envelope):
            context.attach(self._unsampled)
            return
        stage = self._facts.stage_names[worker.stage]
        attributes = {
            "antflow.stage.name": stage,
            "antflow.stage.worker": self._facts.worker_name(worker.stage, worker.index),
            "antflow.item.id": _text(envelope.id),
        }
        around = self._item_of(envelope).context if self._is_linked else self._run.context
        visit = _Scope(self._tracer, f"antflow.stage.{stage}", around, attributes)
        self._visits[_key(envelope)] = visit
        context.attach(visit.context)

    def task_started(self, envelope: Envelope, stage: str, name: str, first: Envelope) -> None:
        """Begin a task; ``first`` is the first item that this call of the task is for."""
        visit = self._visits.get(_key(envelope))
        if visit is None:
            return
        attributes = {
            "antflow.stage.name": stage,
            "antflow.task.name": name,
            "antflow.task.attempt": envelope.attempts,
        }
        # One call for a batch: it is traced under the first item, the others link there.
        of_first = None if first is envelope else self._visits.get(_key(first))
        links = () if of_first is None or of_first.inner is None else (_link(of_first.inner),)
        visit.inner = _Scope(self._tracer, f"antflow.task.{name}", visit.context, attributes, links)
        if not links:
            context.attach(visit.inner.context)

    def task_ended(self, envelope: Envelope, error: Exception | None) -> None:
        """End the task that an item is in."""
        visit = self._visits.get(_key(envelope))
        if visit is not None and visit.inner is not None:
            task, visit.inner = visit.inner, None
            _leave(task.context, visit.context)
            task.end(error)

    def ended(self, kind: Kind, envelope: Envelope, error: Exception | None) -> None:
        """End a visit, if this was one."""
        if kind is Kind.EMITTED:
            return
        visit = self._visits.pop(_key(envelope), None)
        final_error = None if kind is Kind.RETRYING else error
        if visit is None:
            _leave(self._unsampled, self._run.context)
        else:
            _leave(visit.context, self._run.context)
            visit.span.set_attribute("antflow.stage.outcome", kind.name.lower())
            visit.end(final_error)
        is_last = envelope.position == len(self._facts.stage_names) - 1
        if self._items and kind is not Kind.RETRYING and (is_last or kind not in MOVES_ON):
            item = self._items.pop(_key(envelope), None)
            if item is not None:
                item.end(final_error)

    def close(self, ledger: Ledger) -> None:
        """End the span of the run, and those a crash left open."""
        for scope in (*self._visits.values(), *self._items.values()):
            scope.end()
        self._visits.clear()
        self._items.clear()
        span = self._run.span
        span.set_attribute("antflow.pipeline.total_items", ledger.accepted)
        for outcome in ("completed", "failed", "dropped", "expanded", "cancelled"):
            span.set_attribute(f"antflow.pipeline.items.{outcome}", getattr(ledger, outcome))
        if ledger.failed or ledger.cancelled:
            _set_error(span, f"failed: {ledger.failed}, cancelled: {ledger.cancelled}")
        span.end()

    def _is_sampled(self, envelope: Envelope) -> bool:
        # By number and not by chance: an item is sampled in all stages or in none, as are those
        # made from it, and in any sequence of items the share is met to within one or two.
        place = self._offset + envelope.sequence_id * GOLDEN
        return place % 2**64 < self._threshold

    def _item_of(self, envelope: Envelope) -> _Scope:
        key = _key(envelope)
        item = self._items.get(key)
        if item is None:
            root = trace.set_span_in_context(trace.INVALID_SPAN, self._run.context)
            attributes = {"antflow.item.id": _text(envelope.id)}
            links = (_link(self._run),)
            item = _Scope(self._tracer, "antflow.pipeline.item", root, attributes, links)
            self._items[key] = item
        return item


class _ExecutorSpan:
    """The span of one call. It must be entered and left in one context."""

    def __init__(self, tracer: Tracer, attributes: dict[str, Any]) -> None:
        self._tracer = tracer
        self._attributes = attributes
        self._scope: _Scope | None = None

    def __enter__(self) -> None:
        try:
            self._around = context.get_current()
            self._scope = _Scope(
                self._tracer, "antflow.executor.task", self._around, self._attributes
            )
            context.attach(self._scope.context)
        except BaseException as error:  # why: see `_complain`
            _stop_telling_of_executors(error)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._scope is None:
            return
        try:
            _leave(self._scope.context, self._around)
            self._scope.end(error)
        except BaseException as fault:  # why: see `_complain`
            _stop_telling_of_executors(fault)


def _key(envelope: Envelope) -> Any:
    return envelope.sequence_id, envelope.branch


def _text(value: object) -> str:
    return clean(safe_str(value)[:LONGEST_TEXT])


def _leave(left: Context, around: Context) -> None:
    """Make ``around`` the current context, if ``left`` is still it."""
    if context.get_current() is left:
        context.attach(around)


def _unsampled(scope: _Scope) -> Context:
    """A context in which samplers see that this part of the trace is left out."""
    run = scope.span.get_span_context()
    flags = trace.TraceFlags(run.trace_flags & ~trace.TraceFlags.SAMPLED)
    left_out = trace.SpanContext(run.trace_id, run.span_id, False, flags, run.trace_state)
    return trace.set_span_in_context(trace.NonRecordingSpan(left_out), scope.context)


def _link(scope: _Scope) -> Link:
    return trace.Link(scope.span.get_span_context())


def _mark(span: Span, error: BaseException) -> None:
    try:
        span.record_exception(error)
    except Exception:  # it has no readable text
        name = error_type_name(error)
        span.add_event("exception", {"exception.type": name, "exception.message": _text(error)})
    _set_error(span, f"{error_type_name(error)}: {_text(error)}")


def _set_error(span: Span, description: str) -> None:
    span.set_status(trace.Status(trace.StatusCode.ERROR, description))


# The listener


class _Follower:
    """Follows one run for OpenTelemetry.

    Args:
        run: Its spans, or ``None``.
        meters: The instruments, or ``None``.
        pipeline_name: Whose run it is.
    """

    name = "telemetry"
    may_hold = False

    def __init__(self, run: _Trace | None, meters: _Meters | None, pipeline_name: str) -> None:
        self._trace = run
        self._visits: _Trace | None = None
        self._meters = meters
        self._pipeline = {"antflow.pipeline.name": clean(pipeline_name)}
        self._first_of_call: dict[WorkerBook, Envelope] = {}
        self.hears_starts = False
        self.tasks: dict[TaskEventType, TellTask] = {}

    def opened(self, facts: RunFacts, ledger: Ledger, rewire: Callable[[], None]) -> None:
        self._facts = facts
        self._ledger = ledger
        if self._trace is not None and self._trace.open(facts):
            self._visits = self._trace
        self.hears_starts = self._visits is not None
        if self.hears_starts or self._meters is not None:
            self.tasks = {
                "start": self._task_started,
                "complete": self._task_ended,
                "retry": self._task_ended,
                "fail": self._task_ended,
            }

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> None:
        pass

    def entering(self, envelope: Envelope) -> None:
        pass

    def started(self, envelope: Envelope, worker: WorkerBook, now: float) -> None:
        if self._visits is not None:
            self._visits.started(envelope, worker)

    def completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> None:
        self._end(Kind.COMPLETED, envelope, worker, None)

    def ended(self, step: Step) -> None:
        self._end(step.kind, step.envelope, step.worker, step.error)

    def _end(
        self,
        kind: Kind,
        envelope: Envelope,
        worker: WorkerBook | None,
        error: Exception | None,
    ) -> None:
        if worker is not None and self._first_of_call.get(worker) is envelope:
            del self._first_of_call[worker]  # a worker that was cancelled in a task
        if self._meters is not None:
            self._count(self._meters, kind, envelope.position)
        if self._visits is not None:
            self._visits.ended(kind, envelope, error)

    def _task_started(
        self,
        envelope: Envelope,
        worker: WorkerBook,
        now: float,
        duration: float | None,
        error: Exception | None,
    ) -> None:
        first = self._first_of_call.setdefault(worker, envelope)
        if self._visits is not None:
            stage = self._facts.stage_names[worker.stage]
            self._visits.task_started(envelope, stage, worker.task or "", first)

    def _task_ended(
        self,
        envelope: Envelope,
        worker: WorkerBook,
        now: float,
        duration: float | None,
        error: Exception | None,
    ) -> None:
        if self._first_of_call.get(worker) is envelope:
            del self._first_of_call[worker]
            if self._meters is not None and duration is not None:
                # While its span is current: the measurement then points to it (an exemplar).
                stage = self._facts.stage_names[worker.stage]
                labels = {"antflow.stage.name": stage, "antflow.task.name": worker.task or ""}
                self._meters.duration.record(duration, self._pipeline | labels)
        if self._visits is not None:
            self._visits.task_ended(envelope, error)

    def closed(self, end: RunEnd) -> None:
        self._first_of_call.clear()
        if self._trace is not None:
            self._trace.close(self._ledger)

    def _count(self, meters: _Meters, kind: Kind, position: int) -> None:
        names = self._facts.stage_names
        if kind in MOVES_ON:
            if position == len(names) - 1:
                meters.processed.add(1, self._pipeline)
        elif kind is Kind.FAILED or kind is Kind.RETRYING:
            counter = meters.failed if kind is Kind.FAILED else meters.retried
            counter.add(1, self._pipeline | {"antflow.stage.name": names[position]})
