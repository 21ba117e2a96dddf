"""How a task is called: where it runs, with what arguments, for how long, how many at once.

A `Call` takes the value and returns an awaitable of the next one. What a stage's options ask for is
wrapped around the task, from the inside out: where it runs, its arguments, what an expanding stage
does with the answer, the time limit, the number of simultaneous calls. An
``async`` task without options is its own `Call`: nothing is wrapped around it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from antflow._core.foreign import is_a
from antflow._core.ledger import WorkerBook
from antflow._core.runner_port import Runner
from antflow._core.stage import Stage, TaskFunc, attempt_timeout, task_name
from antflow._core.stage_checks import is_async, is_generator
from antflow._engine.clock import LoopTimers
from antflow._engine.crew import Crew
from antflow._engine.current import seat_here
from antflow._engine.expansion import Expansion
from antflow._engine.limits.permits import Admission, held_by_limit
from antflow._engine.limits.stage_limits import StageLimits
from antflow._engine.resources import StageResources
from antflow._engine.time_limit import TimeLimit

Call = Callable[[Any], Awaitable[Any]]
"""A task as the engine calls it: the value in, an awaitable of the next one out."""


def calls_of(
    stage: Stage,
    crew: Crew,
    runner: Runner,
    resources: StageResources,
    limits: StageLimits,
    expansion: Expansion,
    timers: LoopTimers,
) -> list[Call]:
    """One call for each task of a stage."""
    seconds = attempt_timeout(stage)

    def call_of(task: TaskFunc, *, expands: bool) -> Call:
        in_time = None
        if (
            seconds is not None
        ):  # of a thread or a process, the message alone says which task it was
            text = f"task {task_name(task)} not done after {seconds:,g} s (timeout)"
            in_time = TimeLimit(timers, text, seconds)
        call: Callable[..., Awaitable[Any]] = task
        in_runner = runner.takes_async or not is_async(task)
        if in_runner and not (expands and is_generator(task)):
            call = partial(_in_runner, runner.call, task)
        elif is_generator(task):
            call = partial(_generator, task)
        if stage.resources:
            call = partial(_with_resources, resources, call, stage.unpack_args)
        elif stage.unpack_args:
            call = partial(_unpacked, call)
        if expands:
            call = partial(expansion.expand, call, in_time)
        elif in_time is not None:
            call = partial(in_time.call, call)
        if in_time is not None and in_runner and runner.ready is not None:
            call = partial(_once_ready, runner.ready, call)
        limits_of_tasks = stage.task_concurrency_limits
        if limits_of_tasks and (most := limits_of_tasks.get(task_name(task))) is not None:
            call = partial(_a_few_at_once, crew, call, limits.gate(most))
        return call

    last = len(stage.tasks) - 1
    return [
        call_of(task, expands=stage.expand and index == last)
        for index, task in enumerate(stage.tasks)
    ]


def _in_runner(
    call: Callable[..., Awaitable[Any]], task: TaskFunc, /, *args: Any, **kwargs: Any
) -> Awaitable[Any]:
    return call(seat_here().worker, task, *args, **kwargs)


async def _once_ready(ready: Callable[[WorkerBook], Awaitable[Any]], call: Call, value: Any) -> Any:
    await ready(seat_here().worker)
    return await call(value)


async def _generator(task: TaskFunc, /, *args: Any, **kwargs: Any) -> Any:
    return task(*args, **kwargs)  # nothing of it runs yet


def _unpacked(
    call: Callable[..., Awaitable[Any]], value: Any, /, **resources: Any
) -> Awaitable[Any]:
    if is_a(value, dict):
        return call(**value, **resources)
    if is_a(value, (list, tuple)):
        return call(*value, **resources)
    return call(value, **resources)


async def _with_resources(
    resources: StageResources, call: Callable[..., Awaitable[Any]], unpacks: bool, value: Any
) -> Any:
    values = await resources.get(seat_here().worker)
    if unpacks:
        return await _unpacked(call, value, **values)
    return await call(value, **values)


async def _a_few_at_once(crew: Crew, call: Call, gate: Admission, value: Any) -> Any:
    permit = gate.permit(value)
    if not permit.enter():
        await held_by_limit(permit)
    try:
        return await call(value)
    finally:
        permit.release(crew.abandoned.get(seat_here().worker.index))
