"""What others write while a display is up: prints, warnings, log records.

Standard output and standard error are replaced by a `CapturedStream` each, and log handlers that
hold the old ones are given the new ones; whole lines go to whoever draws. Afterwards all is as it
was. A captured stream that somebody has kept then writes to the stream it stood for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any, TextIO, cast

LONGEST_LINE = 65536
"""Characters of an unfinished line that are held back; then it is taken for a line."""


class CapturedStream:
    """Stands for a stream, and hands what is written to ``emit`` in whole lines.

    Args:
        stream: The stream it stands for; answers all other questions.
        emit: Called with text that ends in a newline.
    """

    def __init__(self, stream: TextIO, emit: Callable[[str], None]) -> None:
        self._stream = stream
        self._emit: Callable[[str], None] | None = emit
        self._pending: list[str] = []
        self._pending_length = 0
        self._lock = RLock()

    @property
    def is_active(self) -> bool:
        """Whether it captures, rather than passing on."""
        return self._emit is not None

    def write(self, text: str) -> int:
        """Take some text. Lines are handed on when they are complete."""
        emit = self._emit
        if emit is None:
            return self._stream.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            lines, newline, rest = text.rpartition("\n")
            if newline:
                lines = "".join([*self._pending, lines, newline])
                self._pending.clear()
                self._pending_length = 0
            if rest:
                self._pending.append(rest)
                self._pending_length += len(rest)
            if self._pending_length > LONGEST_LINE:
                lines += self._take_pending()
        if lines:
            emit(lines)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Take several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back but an unfinished line, which has no place to go yet."""
        if self._emit is None:
            self._stream.flush()

    def release(self) -> None:
        """Hand on what is left, and pass everything on from now on."""
        with self._lock:
            emit, self._emit = self._emit, None
            rest = self._take_pending() if self._pending else ""
        if emit is not None and rest:
            emit(rest)

    def _take_pending(self) -> str:
        text = "".join(self._pending) + "\n"
        self._pending.clear()
        self._pending_length = 0
        return text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Capture:
    """Captures standard output, standard error, and the log handlers that write to them.

    Args:
        emit: Called with text that ends in a newline, from any thread.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._replaced: list[tuple[str, TextIO, CapturedStream]] = []
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO, CapturedStream]] = []

    def start(self) -> None:
        """Begin. A stream that does not lead to a terminal is left alone."""
        for name in ("stdout", "stderr"):
            stream: TextIO | None = getattr(sys, name)
            if stream is None or is_captured(stream) or not is_terminal(stream):
                continue
            captured = CapturedStream(stream, self._emit)
            setattr(sys, name, cast(TextIO, captured))
            self._replaced.append((name, stream, captured))
            for handler in _stream_handlers():
                if handler.stream is stream:
                    handler.setStream(cast(TextIO, captured))
                    self._handlers.append((handler, stream, captured))

    def stop(self) -> None:
        """Put everything back. What somebody else has replaced in the meantime stays."""
        for handler, stream, captured in self._handlers:
            if handler.stream is captured:
                handler.setStream(stream)
        for name, stream, captured in reversed(self._replaced):
            if getattr(sys, name) is captured:
                setattr(sys, name, stream)
            captured.release()
        self._handlers.clear()
        self._replaced.clear()


def is_captured(stream: object) -> bool:
    """Whether somebody captures what is written to a stream."""
    return isinstance(stream, CapturedStream) and stream.is_active


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream leads to a terminal, as far as it can tell."""
    try:
        return stream is not None and stream.isatty()
    except Exception:
        return False  # closed, or a stand-in that is no stream at all


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *list(logging.root.manager.loggerDict.values())]
    return [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in list(logger.handlers)
        if isinstance(handler, logging.StreamHandler)
    ]
