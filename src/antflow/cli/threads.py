"""Calls that may wait for ever: in threads that are not joined, or that are given up."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import click

from antflow._core.text import counted

SOON = 0.2
"""Seconds for threads that are about to end."""

T = TypeVar("T")


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Call a plain function in its own thread.

    Not one of a pool, whose threads are joined when Python ends: reading from a terminal, or
    writing to a pipe without a reader, may never return.

    Returns:
        What it returned.

    Raises:
        Exception: What it raised.

    Cancellation:
        The call goes on, and its outcome is dropped.
    """
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # so that it cannot be cancelled any more

    def call() -> None:
        try:
            done.set_result(function())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=call, name="antflow cli", daemon=True).start()
    return await asyncio.wrap_future(done)


class ThreadsLeftBehind(ThreadPoolExecutor):
    """An executor that is shut down without waiting: Python waits for its threads when it ends.

    So a slow call does not delay closing the event loop and reporting the outcome of the run.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class Terminated(SystemExit):
    """The program was asked to end by SIGTERM."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@asynccontextmanager
async def terminable() -> AsyncIterator[None]:
    """Have SIGTERM cancel what goes on inside, as `asyncio.run` has Ctrl-C do.

    Raises:
        Terminated: It came.
    """
    waiting, loop = asyncio.current_task(), asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    is_mine = threading.current_thread() is threading.main_thread()
    if waiting is None or before is not signal.SIG_DFL or not is_mine:
        yield
        return
    came: list[int] = []

    def end(number: int, _: object) -> None:
        came.append(number)
        signal.signal(number, before)  # another one does not wait
        loop.call_soon_threadsafe(waiting.cancel)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except asyncio.CancelledError:
        if came:
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def end_at_next_signal(code: int) -> None:
    """Make one more signal end the program, if threads are at work that Python will wait for.

    A call in a thread cannot be cancelled: it may be minutes until the program ends by itself.

    Args:
        code: The exit code.
    """
    deadline = time.monotonic() + SOON
    mine = threading.main_thread()
    if threading.current_thread() is not mine:
        return  # signals are not heard here
    others = [each for each in threading.enumerate() if not each.daemon and each is not mine]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    busy = sum(thread.is_alive() for thread in others)
    if not busy:
        return
    # All is written and reported: only the waiting is skipped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(code))
    calls = counted(busy, "call")
    with suppress(OSError):
        click.echo(f"waiting for {calls} in threads; one more signal ends the program", err=True)
