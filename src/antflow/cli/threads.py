"""Calls that may wait for ever, in threads that nobody waits for when the program ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Call a plain function in a thread of its own.

    Not one of a pool, whose threads are joined when Python ends: reading from a terminal, or
    writing to a pipe that nobody empties, may never return.

    Returns:
        What it returned.

    Raises:
        Exception: What it raised.

    Cancellation:
        The call goes on, and what comes of it is forgotten.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(done: Future[T]) -> None:
        if answer.done():
            return
        if (error := done.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())

    def call() -> None:
        done: Future[T] = Future()
        try:
            done.set_result(function())
        except Exception as error:
            done.set_exception(error)
        with suppress(RuntimeError):  # the loop is closed: it was forgotten
            loop.call_soon_threadsafe(settle, done)

    threading.Thread(target=call, name="antflow cli", daemon=True).start()
    return await answer
