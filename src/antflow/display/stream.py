"""Writing to a stream without errors, and to a terminal without waiting for it.

A pipe may be closed at the other end, a terminal may hang up, standard output may be closed or
absent, or have an encoding without bars: the display then falls silent, and the run goes on.

A terminal can be halted: by Ctrl-S, by a connection that hangs, by a window that does not read. A
write to it then waits, and if the event loop makes that write, the run waits too. So a thread
writes to terminals. The caller waits for it only a moment: long enough that text is normally on
the screen when `SafeStream.write` returns, and short enough that a run does not notice. Text the
terminal does not take stays in a queue, in order, and none of it is dropped: callers leave out
frames while `SafeStream.is_halted`, and wait (`SafeStream.finish`) when it `is_full` and when they
have written their last words. Such a wait ends when the terminal has taken nothing for `PATIENCE`
seconds; the thread writes the rest if the terminal goes on before the program ends.

The thread writes to the file descriptor. Through the stream it would hold the stream's buffer
while it waits, and a print would wait for that, deaf to signals. Pipes and the console of Windows
are written to directly, as a print does. So are objects that stand in front of a terminal, unless
what is written is not for them: a frame, see ``past_wrappers``.
"""

from __future__ import annotations

import atexit
import errno
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Event
from typing import Any, NamedTuple, TextIO, TypeGuard

from antflow.display.canvas import known_encoding
from antflow.display.environment import is_terminal

PATIENCE = 3.0
"""Seconds without progress after which a terminal is no longer waited for."""

MOMENT = 0.05
"""Seconds that a write waits for the terminal; one that needs longer is slow or halted."""

MOST_WAITING = 10_000
"""Texts in the queue above which it is full: the next print waits for the terminal."""

PIECE_BYTES = 4096
"""Bytes written at once. After each piece it shows that a slow terminal is not halted."""


class SafeStream:
    """A text stream that raises nothing. `open_stream` makes it.

    Args:
        stream: Where to write, ``None`` for nowhere.

    Attributes:
        has_own_descriptor: Whether it writes to a descriptor of its own, wherever those of the
            program lead.
        pieces_written: How much a terminal has taken so far.
    """

    has_own_descriptor = False

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.pieces_written = 0
        self.encoding: str = known_encoding(getattr(stream, "encoding", None) or "utf-8")

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._stream is None or getattr(self._stream, "closed", False)

    @property
    def is_halted(self) -> bool:
        """Whether a terminal has not yet taken earlier text."""
        return False

    @property
    def is_full(self) -> bool:
        """Whether too much is waiting for a terminal."""
        return False

    def fileno(self) -> int:
        """The descriptor.

        Raises:
            Exception: There is none.
        """
        if self._stream is None:
            raise OSError("it is closed")
        return self._stream.fileno()

    def write(self, text: str) -> bool:
        """Write and flush; characters the encoding lacks become ``?``.

        Returns:
            Whether all of it was written, or is in the queue.
        """
        stream = self._stream
        if stream is None or self.is_lost:
            return False
        try:
            stream.write(text if text.isascii() else self._encode(text).decode(self.encoding))
            stream.flush()
        except BlockingIOError:
            return False  # it takes no more just now; the next frame is drawn whole
        except Exception as error:
            self._stream = None
            if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
                _discard_pending(stream)
            return False
        return True

    def finish(self) -> None:
        """Wait until all is written, or a terminal takes nothing. Hold no lock others need."""

    def close(self) -> None:
        """Write no more; text a terminal has not taken is still written if it goes on."""
        self._stream = None

    def forget(self) -> None:
        """In a child process after a fork: the terminal and the queue are the parent's."""

    def _encode(self, text: str) -> bytes:
        return text.encode(self.encoding, "replace")


class _Text(NamedTuple):
    data: bytes
    is_out: Event


class _Terminal(SafeStream):
    """Writes in a thread, to a copy of the descriptor, which nothing else can close or reuse.

    A signal handler may call its methods in the middle of any of them: they take no lock that the
    handler could meet, since `SimpleQueue.put` is reentrant and each text has its own event.

    Raises:
        OSError: The terminal is gone.
        RuntimeError: No thread can be started: the program ends, or there are too many.
    """

    has_own_descriptor = True

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._queue: SimpleQueue[_Text] = SimpleQueue()
        self._newest = Event()
        self._newest.set()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="antflow-terminal", daemon=True)
        stream.flush()  # an unfinished line comes first
        self._descriptor = os.dup(stream.fileno())
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._descriptor)
            raise
        atexit.register(self.finish)

    @property
    def is_lost(self) -> bool:
        return self._has_failed or super().is_lost

    @property
    def is_halted(self) -> bool:
        return not self._newest.is_set()

    @property
    def is_full(self) -> bool:
        return self._queue.qsize() > MOST_WAITING

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> bool:
        if self.is_lost:
            return False
        was_halted = self.is_halted
        is_out = self._put(self._encode(text))
        if not was_halted:
            self._wait(is_out, MOMENT)
        return True

    def finish(self) -> None:
        is_out = self._put(b"")
        pieces = self.pieces_written
        while not self._wait(is_out, PATIENCE) and pieces != (pieces := self.pieces_written):
            pass

    def close(self) -> None:
        super().close()
        self._put(b"")

    def forget(self) -> None:
        atexit.unregister(self.finish)
        os.close(self._descriptor)

    def _put(self, data: bytes) -> Event:
        text = _Text(data, Event())
        self._newest = text.is_out
        self._queue.put(text)
        return text.is_out

    def _wait(self, is_out: Event, seconds: float) -> bool:
        """Whether a text was written in time, or will never be."""
        thread = self._thread
        if thread is threading.current_thread():  # a finalizer prints there
            return True
        return is_out.wait(seconds) or not thread.is_alive()

    def _run(self) -> None:
        while self._stream is not None or not self._queue.empty():
            data, is_out = self._queue.get()
            try:
                for piece in () if self._has_failed else _pieces(data):
                    _write_all(self._descriptor, piece)
                    self.pieces_written += 1
            except OSError:
                self._has_failed = True
            is_out.set()
        atexit.unregister(self.finish)
        os.close(self._descriptor)


def open_stream(stream: TextIO | None, *, past_wrappers: bool = False) -> SafeStream:
    """Begin to write to a stream, in a thread if it is a terminal that a thread can write to.

    Args:
        stream: The stream.
        past_wrappers: If it is an object that passes text on to a terminal and has its descriptor
            (one of ``colorama``, a "tee"), write to the descriptor, past the object.
    """
    is_wrapper = type(stream) is not io.TextIOWrapper
    if os.name == "posix" and _leads_to_terminal(stream) and (past_wrappers or not is_wrapper):
        with suppress(Exception):  # why: whatever a stand-in raises when it is flushed
            return _Terminal(stream)
    return SafeStream(stream)


def _leads_to_terminal(stream: TextIO | None) -> TypeGuard[TextIO]:
    """Whether a stream has the descriptor of a terminal; a stand-in may only say it is one."""
    try:
        return stream is not None and is_terminal(stream) and os.isatty(stream.fileno())
    except Exception:  # why: whatever a stand-in raises, or has instead of a number
        return False


def _pieces(data: bytes) -> Iterator[bytes]:
    """Whole lines as far as possible: others may write to the terminal between two pieces."""
    while len(data) > PIECE_BYTES:
        end = data.rfind(b"\n", 0, PIECE_BYTES) + 1 or PIECE_BYTES
        yield data[:end]
        data = data[end:]
    yield data


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program has made the terminal non-blocking
            time.sleep(MOMENT)


def _discard_pending(stream: Any) -> None:
    """Empty the buffer of a stream that nothing reads any more.

    Python would try to flush it when it ends, complain, and change the exit code. For that moment
    the file descriptor leads to the null device; afterwards it is again what it was.
    """
    try:
        target = stream.fileno()
        inheritable = os.get_inheritable(target)
        kept = os.dup(target)
    except (OSError, ValueError, AttributeError):
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, target)
        os.close(null)
        stream.flush()
    except (OSError, ValueError):
        pass
    finally:
        os.dup2(kept, target, inheritable)
        os.close(kept)
