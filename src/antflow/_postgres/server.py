"""A PostgreSQL server, for code that has no event loop.

Only this file needs asyncpg. Sinks, logs and journals use a database from threads without an event
loop; so a `Server` has a loop of its own, which runs while it is asked something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from antflow._core.addresses import check_address, without_password
from antflow._core.forked import leave_to_parent

Answer = TypeVar("Answer")
Connection = Any
"""One of asyncpg's, which has no types."""

LONGEST_WAIT = 5.0
"""Seconds to wait for the server: to connect, and for a batch to be written."""


class Server:
    """A PostgreSQL database, for a thread that has no event loop.

    It is connected when it is first asked, and anew after each failure: it is not known what the
    old connection was in the middle of. Its ``repr`` is its address, without the password.

    Args:
        name: Name of the argument, for errors.
        dsn: Its address.
        longest: The most seconds that an action may take; ``None`` = no limit.
        begins: What is done first with each new connection.
        settings: Settings of the server for its connections.
    """

    def __init__(
        self,
        name: str,
        dsn: str,
        longest: float | None,
        begins: Callable[[Connection], Awaitable[None]] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        check_address(name, dsn)
        self._shown = without_password(dsn)
        try:
            from asyncpg import connect
        except ImportError as error:
            text = "PostgreSQL needs asyncpg: pip install 'antflow[postgres]'"
            raise ImportError(text, name="asyncpg") from error
        self._connect = partial(connect, dsn, server_settings=settings)
        self._begins = begins
        self._longest = longest
        self._runner: asyncio.Runner | None = None
        self._connection: Connection = None

    def __repr__(self) -> str:
        return repr(self._shown)

    @property
    def is_connected(self) -> bool:
        """Whether the last action left a connection."""
        return self._connection is not None

    def do(self, action: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        """Do something with a connection."""
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        return self._runner.run(self._done(action))

    def interrupt(self) -> None:
        """Make `do`, which is waiting in another thread, fail."""
        runner, connection = self._runner, self._connection
        if runner is not None and connection is not None:
            runner.get_loop().call_soon_threadsafe(connection.terminate)

    def close(self) -> None:
        """Close the connection; `do` makes another one."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self._left())

    def leave(self) -> None:
        """In a child process after a fork: the connection, and its loop, are the parent's."""
        leave_to_parent((self._runner, self._connection))
        self._runner = self._connection = None

    async def _done(self, action: Callable[[Connection], Awaitable[Answer]]) -> Answer:
        if self._connection is None:
            try:
                async with asyncio.timeout(LONGEST_WAIT):
                    self._connection = await self._connect()
            except TimeoutError:
                raise TimeoutError(_late(LONGEST_WAIT)) from None
            if self._begins is not None:
                await self._limited(self._begins, self._connection)
        return await self._limited(action, self._connection)

    async def _limited(
        self, action: Callable[[Connection], Awaitable[Answer]], connection: Connection
    ) -> Answer:
        loop, timer = asyncio.get_running_loop(), None
        if self._longest is not None:
            # Not `asyncio.timeout`: a transaction that is cancelled waits for the server again.
            timer = loop.call_later(self._longest, connection.terminate)
        try:
            return await action(connection)
        except BaseException:
            is_late = timer is not None and loop.time() >= timer.when()
            await self._drop()
            if is_late:
                raise TimeoutError(_late(self._longest)) from None
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def _left(self) -> None:
        """Say goodbye to the server, if it listens."""
        try:
            if self._connection is not None:
                await self._connection.close(timeout=LONGEST_WAIT)
        finally:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
            await asyncio.sleep(0)  # its socket is closed in the next turn


def _late(seconds: float | None) -> str:
    return f"the server did not answer within {seconds:g} s"
