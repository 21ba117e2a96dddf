"""Files of JSON lines, written as the items come, and standard output kept clean for them."""

from __future__ import annotations

import asyncio
import io
import os
import select
import sys
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from itertools import accumulate
from typing import Any

from antflow.cli.output_file import STDOUT, write_fully
from antflow.cli.refusals import RunFailed
from antflow.cli.threads import in_daemon_thread

MOST_WAITING = 1000
"""Lines that wait to be written before the run has to wait for them."""

AT_ONCE = 4096
"""Bytes of several lines that are written at a time (``PIPE_BUF`` on Linux): a pipe takes all of
them or none, so that it is known which lines a reader who is stuck can still read."""

PATIENCE = 2.0
"""Seconds for the last lines when the run was cancelled."""

PROGRAM = "antflow"
"""`click.Context.obj` where the process is the program, which is over when the command is."""

Write = Callable[[bytes], None]


class JsonLines:
    """Writes lines in the order they come, in a thread: a full pipe blocks nothing else.

    Waiting lines are taken and written under one lock, so none is lost or late if a cancelled
    writer leaves its thread behind. Those that cannot be written are kept, with their subjects.

    Args:
        write: Writes all of some bytes; may block.
        name: Its path.
        in_thread: Whether a thread writes; else the event loop does, and may be held up.
        take_back: Takes that many bytes off again, the beginning of a line that cannot be written
            whole.

    Attributes:
        name: Its path.
    """

    def __init__(
        self,
        write: Write,
        name: str,
        in_thread: bool = True,
        take_back: Callable[[int], None] | None = None,
    ) -> None:
        self._write = write
        self._take_back = take_back
        self.name: str = name
        self._in_thread = in_thread
        self._waiting: deque[tuple[str, Any]] = deque()
        self._writing: list[tuple[str, Any]] = []
        self._writer: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._is_last = asyncio.Event()

    async def open(self) -> None:
        """Open what is written to, if that is still to be done. Writes no line.

        Raises:
            OSError: It cannot be opened.
        """
        if self._in_thread:
            await in_daemon_thread(self._write_nothing)

    @property
    def unwritten(self) -> list[Any]:
        """The subjects of lines that are not written, or only in part."""
        return [subject for _, subject in [*self._writing, *self._waiting]]

    @property
    def failure(self) -> str:
        """What could not be written, and why; if nothing has failed, there was no time."""
        try:
            self._check()
        except BrokenPipeError as error:
            return f"standard output: {error.strerror}"
        except RunFailed as error:
            return str(error)
        return f"{self._title}: no time was left"

    @property
    def broken(self) -> str:
        """Why it takes no more; "": it does, or its reader is gone."""
        try:
            self._check()
        except BrokenPipeError:
            return ""
        except RunFailed as error:
            return str(error)
        return ""

    def add(self, line: str, subject: Any = None) -> None:
        """Write a line soon, however many wait. If earlier ones cannot be written, it is kept."""
        self._waiting.append((line, subject))
        with suppress(BrokenPipeError, RunFailed):
            self._begin()

    async def put(self, line: str, subject: Any = None) -> None:
        """Write a line soon. Waits while too many wait already, and more may come.

        Args:
            line: The line.
            subject: What it is about.

        Raises:
            BrokenPipeError: Standard output has no reader any more.
            RunFailed: An earlier line could not be written.
        """
        self._waiting.append((line, subject))
        self._begin()
        if len(self._waiting) >= MOST_WAITING and self._writer is not None:
            await self._room(self._writer)
            self._check()

    def hold_up_no_more(self) -> None:
        """Keep further lines however many wait, as only few can come. A `put` that waits returns.

        Where the run is over, waiting for a reader who is stuck would hide the signal that ended
        it. `end` waits all the same.
        """
        self._is_last.set()

    async def end(self) -> None:
        """Wait until everything is written.

        Raises:
            BrokenPipeError: As in `put`.
            RunFailed: As in `put`.
        """
        if self._writer is not None:
            await asyncio.wait([self._writer])
            # It may have been cancelled, with its thread still under way, or yet to begin.
            self._begin()
            await asyncio.wait([self._writer])
        self._check()

    async def _room(self, writer: asyncio.Task[None]) -> None:
        """Wait until the lines are written, or only few more can come."""
        if self._is_last.is_set():
            return
        last = asyncio.ensure_future(self._is_last.wait())
        try:
            await asyncio.wait([writer, last], return_when=asyncio.FIRST_COMPLETED)
        finally:
            last.cancel()

    def _begin(self) -> None:
        if self._writer is None or self._writer.done():
            self._check()
            self._writer = asyncio.ensure_future(self._write_all())

    def _check(self) -> None:
        if self._writer is None or not self._writer.done() or self._writer.cancelled():
            return
        error = self._writer.exception()
        if error is None:
            return
        if isinstance(error, BrokenPipeError) and self.name == STDOUT:
            raise BrokenPipeError(error.errno, error.strerror) from None
        reason = getattr(error, "strerror", None) or str(error)
        raise RunFailed(f"{self._title}: {reason}") from error

    @property
    def _title(self) -> str:
        return "standard output" if self.name == STDOUT else self.name

    async def _write_all(self) -> None:
        while True:
            if self._in_thread:
                await in_daemon_thread(self._write_waiting)
            else:
                self._write_waiting()
            if not self._waiting:
                return

    def _write_nothing(self) -> None:
        with self._lock:
            self._write(b"")

    def _write_waiting(self) -> None:
        with self._lock:  # so that the lines are written in their order
            while self._waiting:
                self._write_some()

    def _write_some(self) -> None:
        lines, data = self._writing, [line.encode() for line, _ in self._writing]
        size = sum(map(len, data))
        while self._waiting:
            next_one = self._waiting[0][0].encode()
            if size and size + len(next_one) > AT_ONCE:
                break
            lines.append(self._waiting.popleft())
            data.append(next_one)
            size += len(next_one)
        try:
            self._write(b"".join(data))
        except OSError as error:
            written = getattr(error, "characters_written", 0)
            ends = list(accumulate(map(len, data), initial=0))
            whole = bisect_right(ends, written) - 1
            del lines[:whole]
            if self._take_back is not None and written > ends[whole]:
                self._take_back(written - ends[whole])
            raise
        lines.clear()


async def end_all(outputs: list[JsonLines], seconds: float | None = None) -> None:
    """Wait until several are written, for at most this many seconds.

    Raises:
        BrokenPipeError: As in `JsonLines.put`.
        RunFailed: As in `JsonLines.put`, for the first of them that could not be written.
        TimeoutError: Time ran out.
    """
    async with asyncio.timeout(seconds):
        ends = await asyncio.gather(*(each.end() for each in outputs), return_exceptions=True)
    for error in ends:
        if error is not None:
            raise error


@contextmanager
def kept_for_results(to_the_end: bool = False) -> Iterator[JsonLines]:
    """Standard output for the results alone; other prints go to standard error.

    Those of child processes too, if the file descriptors can be exchanged. What standard error
    cannot take, because the disk is full or its reader is gone, is dropped: a task does not fail
    for a line that it prints.

    Args:
        to_the_end: Whether other prints go there until the program is over. Some come late: those
            of a thread that was left behind, of an exit handler, of a C library with a buffer.
    """
    stdout: Any = sys.stdout
    errors = _lossy(sys.stderr)
    with (
        _exchanged_descriptors(to_the_end) as target,
        redirect_stderr(errors),
        redirect_stdout(errors),
    ):
        # On its terminal a dashboard may be drawn. The event loop takes it down, so the loop writes
        # the lines, too: a thread might write the last ones below it.
        is_shared = target is not None and _is_terminal_of_stderr(target)
        in_thread = target is not None and not is_shared
        yield JsonLines(partial(_write_results, stdout, target, is_shared), STDOUT, in_thread)


@contextmanager
def _exchanged_descriptors(to_the_end: bool) -> Iterator[int | None]:
    """Point descriptor 1 where 2 leads; gives the one that leads where 1 did."""
    stdout = sys.stdout
    try:
        if stdout.fileno() != 1 or sys.stderr.fileno() != 2:
            raise ValueError
        stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):  # a stand-in, or closed
        yield None
        return
    try:
        os.dup2(2, 1)
        yield kept
    finally:
        with suppress(OSError):
            stdout.flush()  # of what was printed to `sys.__stdout__`
        if not to_the_end:
            os.dup2(kept, 1)
        os.close(kept)


class _LossyFile(io.FileIO):
    """A file that drops what it cannot take; one that is only slow is waited for."""

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # another process made it non-blocking
                select.select([], [self], [])
        except OSError:
            return memoryview(data).nbytes
        return written


def _lossy(stderr: Any) -> Any:
    """A stream to the same place as a text stream of a file, and never an error for its writers."""
    try:
        stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # it is full or closed, or there is none
    try:
        file = _LossyFile(stderr.fileno(), "w", closefd=False)
    except (OSError, ValueError, AttributeError):  # a stand-in, or closed
        return stderr
    buffer = io.BufferedWriter(file)
    return io.TextIOWrapper(buffer, stderr.encoding, stderr.errors, line_buffering=True)


def _is_terminal_of_stderr(target: int) -> bool:
    """Whether a descriptor leads to the terminal that standard error leads to."""
    both = os.isatty(target) and os.isatty(2)
    return both and os.fstat(target).st_rdev == os.fstat(2).st_rdev


def _write_results(stdout: Any, target: int | None, is_shared: bool, data: bytes) -> None:
    """Above a display if one is drawn on the same terminal, else to where they belong."""
    if is_shared:
        sys.stderr.write(data.decode())
        sys.stderr.flush()
    elif target is not None:
        write_fully(target, data)
    else:
        stdout.write(data.decode())
        stdout.flush()
