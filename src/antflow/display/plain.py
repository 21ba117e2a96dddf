"""Lines now and then, for what is no terminal: a file, a pipe, the log of a build server.

No escape sequence and no carriage return is ever written.
"""

from __future__ import annotations

from typing import TextIO

from antflow._core.snapshot import ErrorSummary
from antflow._core.text import clean, safe_str
from antflow._monitor.view import Progress, error_rows
from antflow.display.bars import STATE_WORDS, clock, rate_text
from antflow.display.canvas import LONGEST_TEXT
from antflow.display.stream import SafeStream

LONGEST_SILENCE = 30.0
"""Seconds after which there is a line in any case: build servers end what says nothing."""

STEPS = 20
"""Lines over the whole run where the total is known: one per 5 %."""

MOST_ERROR_LINES = 5


class PlainLog:
    """Writes a line at the start, at every 5 % or after 30 s, and some at the end.

    Args:
        stream: Where to write.
        name: The pipeline's name.
    """

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self._out = SafeStream(stream)
        self._name = clean(name)
        self._step = -1
        self._last = 0.0
        self._state = ""

    def update(self, progress: Progress) -> None:
        """Write a line if it is time for one."""
        step = int((progress.ratio or 0.0) * STEPS + 1e-9)
        if step > self._step or progress.elapsed - self._last >= LONGEST_SILENCE:
            self._step = max(step, self._step)
            self._last = progress.elapsed
            self._write(f"{self._name}: {progress_text(progress)}")

    def finish(self, summary: ErrorSummary, last_line: str) -> None:
        """Write what failed, by type, and the last line."""
        errors = error_rows(summary)
        for error in errors[:MOST_ERROR_LINES]:
            text = f"{self._name}: {error.count} x {error.error_type}"
            if error.newest is not None:
                newest = error.newest
                message = clean(newest.error[:LONGEST_TEXT])
                item_id = clean(safe_str(newest.item_id)[:LONGEST_TEXT])
                text += f" (stage {newest.stage}, item {item_id}: {message})"
            self._write(text)
        if len(errors) > MOST_ERROR_LINES:
            self._write(f"{self._name}: {len(errors) - MOST_ERROR_LINES} more types of errors")
        self._write(last_line)

    def _write(self, text: str) -> None:
        self._out.write(f"{clean(text)}\n")


def progress_text(progress: Progress) -> str:
    """``40% 40/100, 12.3/s, 0:12, 38 ok, 2 failed``."""
    if progress.percent is None:
        done = f"{progress.settled} done"
    else:
        done = f"{progress.percent}% {progress.settled}/{progress.total}"
    rate = f"{rate_text(progress.per_second)}/s"
    text = f"{done}, {rate}, {clock(progress.elapsed)}, {progress.counts}"
    word = STATE_WORDS.get(progress.state, "running")
    return text if word in ("running", "finished") else f"{text}, {word}"
