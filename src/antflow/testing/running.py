"""Running a coroutine in virtual time: once, or once per step of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from antflow._core.checks import check_callback, check_choice, check_count, refusal, takes
from antflow.testing.loop import (
    THIRTY_DAYS,
    LeftoverTasks,
    Stalled,
    VirtualLoop,
    check_limits,
    check_schedule,
    pending_tasks,
)

T = TypeVar("T")
MakeMain = Callable[[], Coroutine[Any, Any, T]]


def run_virtual(
    main: Coroutine[Any, Any, T] | MakeMain[T],
    *,
    seed: int | None = None,
    on_step: Callable[[int], object] | None = None,
    max_time: float = THIRTY_DAYS,
    max_steps: int | None = None,
    thread_patience: float = 10.0,
    leftovers: Literal["error", "cancel"] = "error",
) -> T:
    """Run a coroutine in a new `VirtualLoop`, clean up as `asyncio.run` does, report every fault.

    The clean-up cancels tasks that are left, closes async generators and the default executor. It
    has the limits of the run once more; ``on_step`` is not called in it.

    Args:
        main: A coroutine, or a function without parameters that makes one.
        seed: Deals the task steps; see `VirtualLoop` for this and the next four.
        on_step: Called with the number of each step, before it.
        max_time: In virtual seconds.
        max_steps: ``None`` = any number.
        thread_patience: In real seconds.
        leftovers: What to do about tasks pending when main has ended: ``"error"`` cancels them and
            raises, ``"cancel"`` only cancels.

    Returns:
        What main returns.

    Raises:
        BaseException: What main raised, or a `KeyboardInterrupt` or `SystemExit` of any task. Other
            faults are in its notes. Only if main succeeded, or ended with `CancelledError`:
        LeftoverTasks: Tasks were pending.
        Stalled: The clean-up stalled. (In main, it comes before everything else.)
        ExceptionGroup: The reports to the loop's exception handler; if one of the two above is
            raised, this is its cause.

    Example:
        >>> async def main():
        ...     await asyncio.sleep(3600)
        ...     return asyncio.get_running_loop().time()
        >>> run_virtual(main)
        3600.0
    """
    if not isinstance(main, Coroutine):
        _check_main("main", main)
    check_schedule(seed, on_step)
    check_limits(max_time, max_steps, thread_patience)
    check_choice(ValueError, "leftovers", leftovers, ("error", "cancel"))
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("run_virtual() cannot be called while an event loop is running")
    coroutine = main if isinstance(main, Coroutine) else main()
    loop = VirtualLoop(
        seed,
        on_step=on_step,
        max_time=max_time,
        max_steps=max_steps,
        thread_patience=thread_patience,
    )
    try:
        return _complete(loop, loop.create_task(coroutine), leftovers)
    except BaseException as error:
        if seed is not None:
            error.add_note(f"in the run with seed={seed}")
        raise


def _check_main(name: str, main: object) -> None:
    if not callable(main) or not takes(main, 0):
        allowed = "must be a function without parameters that makes a coroutine"
        raise refusal(TypeError, name, main, allowed)


def _complete(loop: VirtualLoop, main: asyncio.Task[T], leftovers: str) -> T:
    gc.freeze()  # The collection in the clean-up then sees this run's objects only: 100 × faster.
    try:
        result = loop.run_until_complete(main)
    except BaseException as error:
        problem = _clean_up(loop, main, leftovers)
        if problem is not None and isinstance(error, asyncio.CancelledError):
            raise problem from problem.__cause__
        if problem is not None:
            error.add_note(f"also: {problem}")
        raise
    else:
        if problem := _clean_up(loop, main, leftovers):
            raise problem
        return result
    finally:
        gc.unfreeze()


def _clean_up(loop: VirtualLoop, main: asyncio.Task[Any], leftovers: str) -> BaseException | None:
    """Close the loop; return the faults of the run, apart from main's own exception."""
    problem: BaseException | None = None
    left = pending_tasks(loop)
    if left and main.done() and leftovers == "error":
        problem = LeftoverTasks("\n".join(["still pending when main had ended:", *left]))
    loop.on_step = None
    loop.max_time += loop.time()
    if loop.max_steps is not None:
        loop.max_steps += loop.steps
    if not main.done():
        main.cancel()
        with contextlib.suppress(BaseException):  # why: what the loop raised first is raised again
            loop.run_until_complete(main)
    try:
        with asyncio.Runner(loop_factory=lambda: loop):
            pass  # Leaving it is the clean-up.
    except Stalled as error:
        error.add_note("in the clean-up, after main had ended")
        problem = error
    gc.collect()  # Finalizers report errors that were never retrieved: make them run now.
    if not loop.reported:
        return problem
    texts = ", ".join(map(repr, loop.reported))
    group = BaseExceptionGroup(f"reported to the event loop: {texts}", loop.reported)
    if problem is None:
        return group
    problem.__cause__ = group
    return problem


def cancel_at_every_step(
    make_main: MakeMain[object],
    check: Callable[[int], object] | None = None,
    *,
    limit: int = 2000,
    stride: int = 1,
    seed: int | None = None,
) -> int:
    """Run a program once per step k, and cancel its main task just before step k is run.

    Each run has its own `VirtualLoop`. It must end, successfully or with `CancelledError`, with no
    task pending, nothing reported, and within 100,000 steps. The first run that has no step k, and
    so is not cancelled, is the last.

    Args:
        make_main: Makes the coroutine of one run. Objects that a run changes should be made in it
            as well.
        check: Called with k after each run, even the last.
        limit: The highest k to try, at least 1.
        stride: From one k to the next; the first is 1.
        seed: See `VirtualLoop`.

    Returns:
        How many runs were cancelled: with stride 1, the steps that were swept.

    Raises:
        BaseException: What a run (see `run_virtual`) or a check raised, with k in its notes.
    """
    _check_main("make_main", make_main)
    check_callback(TypeError, "check", check, "k")
    allowed = "must be a whole number >= 1"
    limit = check_count(ValueError, "limit", limit, 1, allowed)
    stride = check_count(ValueError, "stride", stride, 1, allowed)
    check_schedule(seed, None)
    cancelled = 0
    for k in range(1, limit + 1, stride):
        try:
            reached = _run_and_cancel_at(k, make_main, seed)
            if check is not None:
                check(k)
        except BaseException as error:
            error.add_note(f"in the run cancelled before step k={k}, seed={seed}")
            raise
        if not reached:
            break
        cancelled += 1
    return cancelled


def _run_and_cancel_at(k: int, make_main: MakeMain[object], seed: int | None) -> bool:
    reached = False

    def on_step(step: int) -> None:
        nonlocal reached
        if step == k:
            reached = main.cancel()

    coroutine = make_main()
    loop = VirtualLoop(seed, on_step=on_step, max_steps=100_000)
    main = loop.create_task(coroutine)
    try:
        _complete(loop, main, "error")
    except asyncio.CancelledError:
        if not reached:
            raise
    return reached
