"""One try: the tasks of a stage, called one after the other on one item, within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from antflow._core.envelope import Envelope
from antflow._core.errors import Drop, TaskFailedError
from antflow._core.events import TaskEventType
from antflow._core.foreign import is_a, message_of, set_cause
from antflow._core.groups import is_all_drops, leaves
from antflow._core.ledger import WorkerBook
from antflow._core.limit import Limit
from antflow._core.stage import retry_policy, task_name
from antflow._core.text import safe_repr
from antflow._core.waits import Wait
from antflow._engine.calls import Call, calls_of
from antflow._engine.contexts import around
from antflow._engine.expansion import is_drop
from antflow._engine.limits.permits import Admission, Permit
from antflow._engine.time_limit import time_limit

if TYPE_CHECKING:
    from antflow._engine.stage_run import StageRun

Answer = Any
"""What became of one item of a batch: a value, `Drop`, or an exception."""


class Attempt:
    """How the items of one stage are tried.

    Args:
        stage: The stage.
    """

    def __init__(self, stage: StageRun) -> None:
        options = stage.description
        self._stage = stage
        self._run = stage.run
        self._recorder = stage.recorder
        self._now = stage.run.timers.now
        self._policy = retry_policy(options)
        self._admission: Admission | None = None
        if options.limits:
            self._admission = Admission(options.limits, self._now)
        self.names = [task_name(task) for task in options.tasks]
        self._calls = calls_of(stage)

    @property
    def _is_guarded(self) -> bool:
        """Whether there is anything to pass, or to keep to, around a try."""
        return self._admission is not None or self._run.item_timeout is not None

    @property
    def direct(self) -> Call | None:
        """The task itself, where trying is nothing but calling it; else ``None``."""
        if len(self._calls) == 1 and not self._is_guarded and not self._recorder.tells_tasks:
            return self._calls[0]
        return None

    def hold(self, seconds: float) -> None:
        """Let no try begin for this many seconds, here and in all stages that share the limits.

        A stage without limits gets one with its first hold: it costs nothing and does nothing but
        hold.
        """
        if self._admission is None:
            self._admission = Admission([Limit(rate=1, cost=lambda _: 0)], self._now)
        self._admission.hold(seconds)

    def close(self) -> None:
        """No more tries: the limits may be used by another event loop."""
        if self._admission is not None:
            self._admission.close()

    async def run(self, envelope: Envelope, worker: WorkerBook) -> Any:
        """Run the tasks on an item, from where it is to go on.

        What a failed try leaves in the envelope is where the next one begins: under "per_task" the
        failed task with what it was given, under "per_stage" the first task.

        Returns:
            The last task's value.

        Raises:
            Exception: What a task raised; `Drop` if one returned that.
        """
        if not self._is_guarded:
            return await self._try(envelope, worker)
        value = envelope.carry if envelope.task else envelope.value
        async with self._guard(value, worker, [envelope]):
            return await self._try(envelope, worker)

    async def run_batch(
        self, envelopes: Sequence[Envelope], worker: WorkerBook, answers: dict[Envelope, Answer]
    ) -> None:
        """Run the tasks on a batch, whose items are all to go on at the same task.

        Args:
            envelopes: The batch.
            worker: Who tries it.
            answers: Where to note what became of each item.

        Raises:
            Exception: What a task raised; it happened to all items that have no answer yet.
        """
        values = [item.carry if item.task else item.value for item in envelopes]
        async with self._guard(values, worker, envelopes):
            await self._try_batch(envelopes, values, worker, answers)

    # Inside

    @around
    async def _guard(
        self, value: Any, worker: WorkerBook, envelopes: Sequence[Envelope]
    ) -> AsyncGenerator[None, None]:
        """Within the limits, before the first of the items' deadlines, and not in a pause."""
        if worker.limited_calls:  # of a try before, of the same items
            worker.forget_calls(self._now())
        async with time_limit(*self._time_left(envelopes)):
            permit = await self._permit(value, worker)
            if permit is None:
                yield
                return
            try:
                yield
            finally:
                permit.release(self._stage.abandoned.get(worker.index))

    async def _permit(self, value: Any, worker: WorkerBook) -> Permit | None:
        """Wait for room in the limits, if there are any, and for the end of a pause."""
        while True:
            while self._run.is_paused:
                await self._stage.wait_to_begin(worker, self._run.until_resumed())
            if self._admission is None:
                return None
            permit = self._admission.permit(value)
            if (wait := permit.acquire()) is not None:
                await self._stage.wait_to_begin(worker, wait)
            if not self._run.is_paused:
                return permit
            permit.withdraw()

    def _time_left(self, envelopes: Sequence[Envelope]) -> tuple[float | None, str]:
        seconds = self._run.item_timeout
        if seconds is None:
            return None, ""
        left = min(envelope.deadline for envelope in envelopes) - self._run.timers.unheld()
        return left, f"not through after {seconds:g} s (item_timeout)"

    async def _try(self, envelope: Envelope, worker: WorkerBook) -> Any:
        value = envelope.carry if envelope.task else envelope.value
        for index in range(envelope.task, len(self._calls)):
            if index != envelope.task and not self._policy.whole_stage:
                _begin_task(envelope, index, value)
            worker.task = self.names[index]
            if self._recorder.tells_tasks:
                value = await self._told(self._calls[index], value, [envelope], worker)
            else:
                value = await self._calls[index](value)
            if is_drop(value):
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
        for index in range(first, len(self._calls)):
            if index != first and not self._policy.whole_stage:
                for envelope, value in zip(inside, values, strict=True):
                    _begin_task(envelope, index, value)
            worker.task = self.names[index]
            worker.given = inside
            call = partial(_checked, self._calls[index], self.names[index])
            values = await self._told(call, values, inside, worker)
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

    async def _told(
        self, call: Call, value: Any, envelopes: Sequence[Envelope], worker: WorkerBook
    ) -> Any:
        if not self._recorder.tells_tasks:
            return await call(value)
        began = self._now()
        for envelope in envelopes:
            if (wait := self._tell("start", envelope, worker, began)) is not None:
                await wait
        began = self._now()
        try:
            try:
                value = await call(value)
            except (asyncio.CancelledError, BaseExceptionGroup) as error:
                raise self._stage.failure_of(error, worker)  # noqa: B904 - it has its cause
        except Exception as error:
            await self._tell_end(envelopes, worker, began, error)
            raise
        await self._tell_end(envelopes, worker, began, None, value)
        return value

    async def _tell_end(
        self,
        envelopes: Sequence[Envelope],
        worker: WorkerBook,
        began: float,
        error: Exception | None = None,
        answers: Any = None,
    ) -> None:
        failures = [error] * len(envelopes)
        if answers is not None and self._stage.description.batch is not None:
            failures = [answer if is_a(answer, Exception) else None for answer in answers]
        # Decide for all items before telling of any: a hold begins with the decision.
        kinds: list[TaskEventType] = [
            self._kind_of_end(envelope, worker, failure, len(envelopes) > 1 and error is not None)
            for envelope, failure in zip(envelopes, failures, strict=True)
        ]
        for envelope, failure, kind in zip(envelopes, failures, kinds, strict=True):
            told = None if kind == "complete" else failure
            if (wait := self._tell(kind, envelope, worker, began, told)) is not None:
                await wait

    def _kind_of_end(
        self, envelope: Envelope, worker: WorkerBook, failure: Exception | None, whole_batch: bool
    ) -> TaskEventType:
        """How a task's end is told; after that of a whole batch, another try comes, alone if so."""
        if failure is None or is_all_drops(failure):
            return "complete"
        comes_again = self._stage.endings.will_try_again(envelope, failure, worker.task or "")
        return "retry" if comes_again or whole_batch else "fail"

    def _tell(
        self,
        kind: TaskEventType,
        envelope: Envelope,
        worker: WorkerBook,
        began: float,
        error: Exception | None = None,
    ) -> Wait:
        now = self._now()
        duration = None if kind == "start" else now - began
        try:
            return self._recorder.task(kind, envelope, worker, now, duration, error)
        except Exception as fault:
            self._run.crash(fault)  # it is not the task that failed
            return None


def failure_of(error: BaseException, name: str) -> Exception:
    """The failure that a ``CancelledError`` or a group raised by ``name`` amounts to, caused by it.

    Raises:
        BaseException: A group with something in it that ends a program.
    """
    if is_a(error, asyncio.CancelledError):
        failure = TaskFailedError(name, error)
        failure.__cause__ = error
        return failure
    if (grouped := group_failure(error, name)) is None:
        raise error
    return grouped


def group_failure(error: BaseException, name: str) -> Exception | None:
    """The failure that a group raised by the task called ``name`` amounts to.

    A ``CancelledError`` in a group comes from something that the task had started, never from the
    worker's own cancellation. It counts as a `TaskFailedError`, like one that a task raises alone.

    Returns:
        The group if it is an ordinary exception, else an `ExceptionGroup` caused by it; ``None``:
        it is not a group, or has something in it that ends a program.
    """
    if is_a(error, ExceptionGroup):
        return error
    if not is_a(error, BaseExceptionGroup):
        return None
    failures = [
        TaskFailedError(name, leaf) if is_a(leaf, asyncio.CancelledError) else leaf
        for leaf in leaves(error)
    ]
    ordinary = [failure for failure in failures if is_a(failure, Exception)]
    if len(ordinary) < len(failures):
        return None
    failure = ExceptionGroup(message_of(error), ordinary)
    set_cause(failure, error)
    return failure


def _begin_task(envelope: Envelope, index: int, value: Any) -> None:
    """The task before is through: from here on its own tries count."""
    envelope.task = index
    envelope.carry = value
    envelope.attempts = 1


async def _checked(call: Call, name: str, values: list[Any]) -> list[Answer]:
    """What a task makes of a batch: a list of as many answers as it is given values."""
    expected = len(values)
    returned = await call(values)
    if is_a(returned, (str, bytes)) or not is_a(returned, Sequence):
        raise TypeError(
            f"task {name} returned {safe_repr(returned)} for a batch: must be a list with one "
            f"answer for each of the {expected} values"
        )
    answers = [_answer(answer, name) for answer in returned]
    if len(answers) != expected:
        raise ValueError(f"task {name} returned {len(answers)} answers for {expected} values")
    return answers


def _answer(answer: Answer, name: str) -> Answer:
    if is_a(answer, asyncio.CancelledError):
        return TaskFailedError(name, answer)
    if is_a(answer, BaseExceptionGroup):
        return group_failure(answer, name) or answer
    return answer
