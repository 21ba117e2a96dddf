"""One try: the tasks of a stage, called one after the other on one item, within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import CoroutineType
from typing import Any

from antflow._core.cancellation import requests_of
from antflow._core.envelope import Envelope
from antflow._core.errors import Drop, TaskFailedError
from antflow._core.events import TaskEventType
from antflow._core.foreign import is_a
from antflow._core.items import is_like_a_list
from antflow._core.ledger import WorkerBook
from antflow._core.stage import Stage, task_name
from antflow._core.text import counted, safe_repr
from antflow._core.waits import Wait, discard
from antflow._engine.calls import Call
from antflow._engine.crew import Crew
from antflow._engine.expansion import ENDS_HERE, NO_VALUE, forgotten_await, is_drop
from antflow._engine.failure import Judge
from antflow._engine.limits.permits import Permit
from antflow._engine.limits.stage_limits import StageLimits
from antflow._engine.recorder import Recorder
from antflow._engine.run import Run
from antflow._engine.time_limit import TimeLimit
from antflow._engine.user_errors import group_failure

Trying = Callable[[Envelope, WorkerBook], Awaitable[Any]]
"""A way to try an item."""

Answer = Any
"""The outcome of one item of a batch: a value, `Drop`, or an exception."""


class Attempt:
    """Tries the items of one stage.

    Args:
        stage: The stage.
        run: The run.
        recorder: The stage's recorder.
        crew: The stage's workers.
        limits: The stage's limits.
        judge: Decides what follows a failed try.
        calls: How to call each of the stage's tasks.

    Attributes:
        direct: The task itself, if a try is nothing more than calling it; else ``None``.
        run: Runs the tasks on an item, starting at the one where the last try failed, and returns
            an awaitable for the last task's value. It raises what a task raised, and `Drop` if one
            of several tasks returned that. A failed try notes in the envelope where the next one
            begins: under "per_task" at the failed task, with the value it was given; under
            "per_stage" at the first task.
        names: The names of the tasks.
        batches: How often a batch was tried.
        batched_items: How many items those batches had.
    """

    run: Trying

    def __init__(
        self,
        stage: Stage,
        run: Run,
        recorder: Recorder,
        crew: Crew,
        limits: StageLimits,
        judge: Judge,
        calls: Sequence[Call],
    ) -> None:
        self._run = run
        self._now = run.timers.now
        self._recorder = recorder
        self._crew = crew
        self._abandoned = crew.abandoned
        self._limits = limits
        self._judge = judge
        self._calls = calls
        self._starts_over = judge.starts_over
        self.names: list[str] = [task_name(task) for task in stage.tasks]
        self.batches: int = 0
        self.batched_items: int = 0
        self._in_time: TimeLimit | None = None
        if run.item_timeout is not None:
            late = f"not through after {run.item_timeout:,g} s (item_timeout)"
            self._in_time = TimeLimit(run.timers, late)
        self.direct: Call | None = None
        limits.on_first_hold = self.rewire
        self.rewire()

    def rewire(self) -> None:
        """Find out again what a try consists of, and what must be done around it."""
        is_one_call = len(self._calls) == 1
        is_told = bool(self._recorder.on_tasks)
        is_limited = self._limits.admission is not None
        self._tasks: Trying = self._try
        if is_one_call:
            self._tasks = self._only_call_told if is_told else self._only_call
        self._limited_tasks: Trying = self._within_limits if is_limited else self._tasks
        self.run = self._limited_tasks if self._in_time is None else self._until_deadline
        is_direct = is_one_call and not (is_told or is_limited or self._in_time is not None)
        self.direct = self._calls[0] if is_direct else None

    def _until_deadline(self, envelope: Envelope, worker: WorkerBook) -> Awaitable[Any]:
        return self._call_until([envelope], self._limited_tasks, envelope, worker)

    def _call_until(
        self, envelopes: Sequence[Envelope], function: Callable[..., Awaitable[Any]], *args: Any
    ) -> Awaitable[Any]:
        assert self._in_time is not None
        try:
            return self._in_time.call_until(min(e.deadline for e in envelopes), function, *args)
        except TimeoutError:
            _uncount(envelopes)
            raise

    async def run_batch(
        self, envelopes: Sequence[Envelope], worker: WorkerBook, answers: dict[Envelope, Answer]
    ) -> None:
        """Run the tasks on a batch of items that all continue at the same task.

        Args:
            envelopes: The batch.
            worker: The worker that tries it.
            answers: Takes what became of each item.

        Raises:
            Exception: What a task raised. It applies to all items that have no answer yet.
        """
        if worker.limited_calls:  # from an earlier try of the same items
            worker.forget_calls(self._now())
        values = [item.carry if item.task else item.value for item in envelopes]
        begin = partial(self._batch_within_limits, envelopes, values, worker, answers)
        try:
            if self._in_time is None:
                await begin()
            else:
                await self._call_until(envelopes, begin)
        except Exception:
            raise
        except BaseException as error:  # why: most of these are of these items alone
            raise self._crew.failure_of(error, worker)  # noqa: B904 - it has its cause

    # Inside

    async def _within_limits(self, envelope: Envelope, worker: WorkerBook) -> Any:
        admission = self._limits.admission
        assert admission is not None
        value = envelope.carry if envelope.task else envelope.value
        permit = admission.permit(value)
        if self._run.pause_is_over is not None or not permit.enter():
            await self._wait_to_begin([envelope], permit, worker)
        try:
            return await self._tasks(envelope, worker)
        finally:
            permit.release(self._abandoned.get(worker.index))

    async def _batch_within_limits(
        self,
        envelopes: Sequence[Envelope],
        values: list[Any],
        worker: WorkerBook,
        answers: dict[Envelope, Answer],
    ) -> None:
        admission = self._limits.admission
        permit = None if admission is None else admission.permit(values)
        await self._wait_to_begin(envelopes, permit, worker)
        try:
            await self._try_batch(envelopes, values, worker, answers)
        finally:
            if permit is not None:
                permit.release(self._abandoned.get(worker.index))

    async def _wait_to_begin(
        self, envelopes: Sequence[Envelope], permit: Permit | None, worker: WorkerBook
    ) -> None:
        """Wait until the run is not paused, then for room in the limits."""
        try:
            await self._permission(permit, worker)
        except asyncio.CancelledError:  # the time of an item is over, or the run is stopped
            _uncount(envelopes)
            raise

    async def _permission(self, permit: Permit | None, worker: WorkerBook) -> None:
        wait_to_begin = self._crew.wait_to_begin
        while True:
            while (pause := self._run.pause_is_over) is not None:
                await wait_to_begin(worker, pause.wait())
            if permit is None:
                return
            if not permit.enter():
                await wait_to_begin(worker, permit.wait())
            if self._run.pause_is_over is None:
                return
            permit.withdraw()

    def _only_call(self, envelope: Envelope, worker: WorkerBook) -> Awaitable[Any]:
        return self._calls[0](envelope.value)

    def _only_call_told(self, envelope: Envelope, worker: WorkerBook) -> Awaitable[Any]:
        return self._told(self._calls[0], envelope.value, envelope, worker)

    async def _try(self, envelope: Envelope, worker: WorkerBook) -> Any:
        value = envelope.carry if envelope.task else envelope.value
        for index in range(envelope.task, len(self._calls)):
            if index != envelope.task:
                if not self._starts_over:
                    _begin_task(envelope, index, value)
                if requests_of(self._crew.running(worker)):  # left by the task before
                    await self._crew.absorb_cancel(worker)
            worker.task = self.names[index]
            call = self._calls[index]
            if self._recorder.on_tasks:
                value = await self._told(call, value, envelope, worker)
            else:
                value = await call(value)
            if issubclass(type(value), ENDS_HERE) and is_drop(value):
                raise Drop
        envelope.task = 0
        envelope.carry = None
        worker.task = self.names[0]
        return value

    async def _try_batch(
        self,
        envelopes: Sequence[Envelope],
        values: list[Any],
        worker: WorkerBook,
        answers: dict[Envelope, Answer],
    ) -> None:
        first = envelopes[0].task
        inside = list(envelopes)
        self.batches += 1
        self.batched_items += len(inside)
        for index in range(first, len(self._calls)):
            if index != first:
                if not self._starts_over:
                    for envelope, value in zip(inside, values, strict=True):
                        _begin_task(envelope, index, value)
                await self._crew.absorb_cancel(worker)
            worker.task = self.names[index]
            worker.given = inside
            call = partial(_checked, self._calls[index], self.names[index])
            values = await self._told_batch(call, values, inside, worker)
            if any(issubclass(type(value), NO_VALUE) for value in values):
                answers |= {
                    envelope: value
                    for envelope, value in zip(inside, values, strict=True)
                    if is_a(value, Exception) or is_drop(value)
                }
                values = [v for e, v in zip(inside, values, strict=True) if e not in answers]
                inside = [envelope for envelope in inside if envelope not in answers]
                if not inside:
                    break
        for envelope, value in zip(inside, values, strict=True):
            envelope.task = 0
            envelope.carry = None
            answers[envelope] = value
        worker.task = self.names[0]

    async def _told(self, call: Call, value: Any, envelope: Envelope, worker: WorkerBook) -> Any:
        now = self._now
        began = now()
        if (tell := self._recorder.on_tasks.get("start")) is not None:
            if (wait := tell(envelope, worker, began, None, None)) is not None:
                await wait
            began = now()
        try:
            try:
                value = await call(value)
            except Exception:
                raise
            except BaseException as error:  # why: most of these are of this item alone
                raise self._crew.failure_of(error, worker)  # noqa: B904 - it has its cause
        except Exception as error:
            await self._tell_end([envelope], worker, began, [error])
            raise
        if (tell := self._recorder.on_tasks.get("complete")) is not None:
            ended = now()
            if (wait := tell(envelope, worker, ended, ended - began, None)) is not None:
                await self._hear_out(worker, wait)
        return value

    async def _told_batch(
        self, call: Call, values: list[Any], envelopes: Sequence[Envelope], worker: WorkerBook
    ) -> Any:
        if not self._recorder.on_tasks:
            return await call(values)
        for envelope in envelopes:
            if (wait := self._tell("start", envelope, worker, self._now())) is not None:
                await wait
        began = self._now()
        try:
            try:
                answers: list[Answer] = await call(values)
            except Exception:
                raise
            except BaseException as error:  # why: most of these are of this item alone
                raise self._crew.failure_of(error, worker)  # noqa: B904 - it has its cause
        except Exception as error:
            await self._tell_end(envelopes, worker, began, [error] * len(envelopes), True)
            raise
        failures = [answer if is_a(answer, Exception) else None for answer in answers]
        await self._tell_end(envelopes, worker, began, failures)
        return answers

    async def _tell_end(
        self,
        envelopes: Sequence[Envelope],
        worker: WorkerBook,
        began: float,
        failures: Sequence[Exception | None],
        whole_batch: bool = False,
    ) -> None:
        # Decide for all items before telling of any: a hold begins with the decision.
        kinds: list[TaskEventType] = [
            self._kind_of_end(envelope, worker, failure, whole_batch and len(envelopes) > 1)
            for envelope, failure in zip(envelopes, failures, strict=True)
        ]
        for envelope, failure, kind in zip(envelopes, failures, kinds, strict=True):
            told = None if kind == "complete" else failure
            now = self._now()
            wait = self._tell(kind, envelope, worker, now, now - began, told)
            if wait is not None:
                await self._hear_out(worker, wait)

    async def _hear_out(self, worker: WorkerBook, wait: Awaitable[None]) -> None:
        """Wait for the listeners of a task's end, until the run cancels the worker.

        That is noticed before anything else begins. Raised here it would make an item whose last
        task is done count as cancelled.
        """
        if self._crew.is_called_off(worker):
            discard(wait)
            return
        try:
            await wait
        except asyncio.CancelledError:
            if not self._crew.is_called_off(worker):
                raise

    def _kind_of_end(
        self, envelope: Envelope, worker: WorkerBook, failure: Exception | None, whole_batch: bool
    ) -> TaskEventType:
        """How to report a task's end. After a whole batch has failed, each item is tried alone."""
        if failure is None:
            return "complete"
        decision = self._judge.decide(envelope, failure, worker.task or "")
        if decision.action == "drop":
            return "complete"
        return "retry" if decision.comes_again or whole_batch else "fail"

    def _tell(
        self,
        kind: TaskEventType,
        envelope: Envelope,
        worker: WorkerBook,
        now: float,
        duration: float | None = None,
        error: Exception | None = None,
    ) -> Wait:
        tell = self._recorder.on_tasks.get(kind)
        return None if tell is None else tell(envelope, worker, now, duration, error)


def _uncount(envelopes: Sequence[Envelope]) -> None:
    """Take a try back that was counted when its worker began: no task was called."""
    for envelope in envelopes:
        envelope.attempts -= 1


def _begin_task(envelope: Envelope, index: int, value: Any) -> None:
    """Begin to count the tries of this task: the one before it has succeeded."""
    envelope.task = index
    envelope.carry = value
    envelope.attempts = 1


async def _checked(call: Call, name: str, values: list[Any]) -> list[Answer]:
    """A task's answers to a batch, checked: as a list, with one for each value."""
    expected = len(values)
    returned = await call(values)
    if not is_like_a_list(returned):
        raise TypeError(
            f"task {name} returned {safe_repr(returned)} for a batch: must be a list with one "
            f"answer for each value, {expected:,} in all"
        )
    answers = [
        _answer(answer, name) if issubclass(type(answer), NO_VALUE) else answer
        for answer in returned
    ]
    if len(answers) != expected:
        few = f"{counted(len(answers), 'answer')} for {counted(expected, 'value')}"
        raise ValueError(f"task {name} returned {few}")
    return answers


def _answer(answer: Answer, name: str) -> Answer:
    if is_a(answer, CoroutineType):
        return forgotten_await(answer, name)
    if is_a(answer, BaseException) and not is_a(answer, Exception):
        return group_failure(answer, name) or TaskFailedError(name, answer)
    return answer
