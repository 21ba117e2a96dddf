"""Captures prints, warnings and log records where descriptors cannot be captured.

That is on Windows, and where the stream that is drawn on is a stand-in. Standard output and
standard error are replaced by a `CapturedStream` each, and log handlers that hold the old ones are
given the new ones; whole lines go to the screen. Afterwards all is as before. A captured stream
that is still used then writes to the stream it stood for, or to the capture that has begun there
since.

If the user starts a `rich.live.Live` meanwhile, it writes to a captured stream too, with cursor
movements. They are held back unchanged until the display steps aside (`hand_over`), and
then reach the terminal whole.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any, TextIO, cast

from antflow.display.canvas import known_encoding
from antflow.display.environment import is_terminal
from antflow.display.terminal.capture import Action, Capture, Write
from antflow.display.terminal.device import device_of
from antflow.display.terminal.kept_lines import KeptLines
from antflow.display.terminal.printed_lines import Lines


class CapturedStream:
    """Stands for a stream, and hands text to ``emit`` in whole lines.

    Args:
        stream: The stream it stands for; answers all other questions.
        emit: Called with text that ends in a newline.
    """

    def __init__(self, stream: TextIO, emit: Write) -> None:
        self._stream = stream
        self._emit: Write | None = emit
        self._lines = Lines()
        self._lock = RLock()

    @property
    def is_active(self) -> bool:
        """Whether it captures, rather than passing on."""
        return self._emit is not None

    @property
    def origin(self) -> TextIO:
        """The stream it stands for."""
        return self._stream

    def write(self, text: str) -> int:
        """Take some text. Lines are handed on when they are complete."""
        if self._emit is None:
            return _target(self._stream).write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            emit = self._emit
            lines = text if emit is None else self._lines.add(text)
        if emit is None:
            _target(self._stream).write(text)  # it was released just now
        elif lines:
            emit(lines)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Take several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: only an unfinished line is held back, which has no place to go yet."""
        if self._emit is None:
            _target(self._stream).flush()

    def end_line(self, *, is_last: bool = False) -> None:
        """Hand on the rest as a line; after the last one, pass everything on."""
        with self._lock:
            emit = self._emit
            rest = self._lines.take_rest()
            if is_last:
                self._emit = None
        if emit is not None and rest:
            emit(rest + "\n")

    def take_rest(self) -> str:
        """Take the unfinished line."""
        with self._lock:
            return self._lines.take_rest()

    def hand_over(self, write: Write) -> None:
        """Write the rest unchanged, and pass everything on from now on."""
        with self._lock:  # nothing may be written in between
            self._emit = None
            write(self._lines.take_rest())

    def forget(self) -> None:
        """In a child process after a fork: pass everything on; the rest is the parent's."""
        self._lock = RLock()
        self._emit = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class StreamCapture(Capture):
    """Captures standard output, standard error, and the log handlers that write to them.

    Args:
        stream: The terminal. Streams that lead elsewhere are left alone.
        emit: Called with text that ends in a newline, from any thread.
    """

    def __init__(self, stream: TextIO, emit: Write) -> None:
        self._device = device_of(stream)
        self._emit = emit
        encoding = known_encoding(getattr(stream, "encoding", None) or "utf-8")
        self.kept: KeptLines = KeptLines(encoding, opens_at_once=False)
        self._replaced: list[tuple[str, TextIO, CapturedStream]] = []
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO, CapturedStream]] = []

    def start(self) -> None:
        """Begin; or capture streams that are not captured yet."""
        for name in ("stdout", "stderr"):
            stream: TextIO | None = getattr(sys, name)
            if stream is None or is_captured(stream) or not is_terminal(stream):
                continue
            stream = origin_of(stream)
            if device_of(stream) != self._device:
                continue
            captured = CapturedStream(stream, self._emit)
            setattr(sys, name, cast(TextIO, captured))
            self._replaced.append((name, stream, captured))
            _capturing[id(stream)] = captured
            for handler in _stream_handlers():
                if origin_of(handler.stream) is stream:
                    handler.setStream(cast(TextIO, captured))
                    self._handlers.append((handler, stream, captured))

    def end_lines(self) -> None:
        """Hand on text that has no newline yet."""
        for _, _, captured in self._replaced:
            captured.end_line()

    def stop(self, then: Action) -> None:
        """Put everything back."""
        self._put_back(lambda captured: captured.end_line(is_last=True))
        then()
        self.kept.close()

    def hand_over(self, write: Write, then: Action) -> None:
        """Put everything back, and leave the terminal to a `Live`."""
        self._put_back(lambda captured: captured.hand_over(write))
        then()
        self.kept.close()

    def forget(self) -> None:
        """Put nothing back and write nothing: this is a child process, after a fork."""
        for _, stream, captured in self._replaced:
            _capturing.pop(id(stream), None)
            captured.forget()
        self.kept.close()

    def take_rest(self) -> str:
        """Take the unfinished lines of all streams."""
        return "".join(captured.take_rest() for _, _, captured in self._replaced)

    def _put_back(self, release: Callable[[CapturedStream], None]) -> None:
        for handler, stream, captured in self._handlers:
            if handler.stream is captured:
                handler.setStream(stream)
        for name, stream, captured in reversed(self._replaced):
            if getattr(sys, name) is captured:
                setattr(sys, name, stream)
            if _capturing.get(id(stream)) is captured:
                del _capturing[id(stream)]
            release(captured)
        self._handlers.clear()
        self._replaced.clear()


_capturing: dict[int, CapturedStream] = {}
"""The captured stream that stands for a stream now, by the identity of the stream."""


def _target(stream: TextIO) -> TextIO | CapturedStream:
    """Where to write text meant for a stream."""
    return _capturing.get(id(stream), stream)


def origin_of(stream: TextIO) -> TextIO:
    """The stream behind a captured one; any other is its own origin."""
    while isinstance(stream, CapturedStream):
        stream = stream.origin
    return stream


def is_captured(stream: object) -> bool:
    """Whether a display captures a stream."""
    return isinstance(stream, CapturedStream) and stream.is_active


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *list(logging.root.manager.loggerDict.values())]
    return [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in list(logger.handlers)
        if isinstance(handler, logging.StreamHandler)
    ]
