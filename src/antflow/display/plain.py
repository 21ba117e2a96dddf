"""Occasional lines, for streams that are not terminals: a file, a pipe, a build server's log.

No escape sequence and no carriage return is ever written. If the stream is a terminal after all,
and halted, the lines wait for it; the run does not.
"""

from __future__ import annotations

from typing import TextIO

from antflow._core.failures import failure_lines
from antflow._core.snapshot import ErrorSummary
from antflow._core.text import clean, tally
from antflow._monitor.view import View
from antflow.display.bars import STATE_WORDS, stall_text
from antflow.display.canvas import UNICODE, glyphs_for
from antflow.display.numbers import clock, forecast_text, rate_text
from antflow.display.stream import open_stream

LONGEST_SILENCE = 30.0
"""Seconds after which there is a line in any case: build servers kill silent jobs."""

STEPS = 20
"""Lines over the whole run where the total is known: one per 5 %."""

MOST_ERROR_LINES = 5
MOST_STAGES = 10


class PlainLog:
    """Writes a line at the start, at every 5 % or after 30 s, and some at the end.

    Args:
        stream: Where to write.
        name: The pipeline's name.
    """

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self._out = open_stream(stream)
        self._name = clean(name)
        self._times = glyphs_for(self._out.encoding).times
        self._step = -1
        self._last = 0.0
        self._blocked_at = ""

    def update(self, view: View) -> None:
        """Write a line if it is time for one."""
        progress = view.progress
        step = int((progress.ratio or 0.0) * STEPS + 1e-9)
        if step > self._step or progress.elapsed - self._last >= LONGEST_SILENCE:
            self._step = max(step, self._step)
            self._last = progress.elapsed
            self._write(progress_text(view))
            stall = view.loop.last_stall
            if stall is not None and stall.location != self._blocked_at:
                self._blocked_at = stall.location
                self._write(stall_text(stall))

    def finish(self, view: View | None, summary: ErrorSummary, last_line: str) -> None:
        """Write what failed, where, what held the run back, and the last line."""
        for line in failure_lines(summary, MOST_ERROR_LINES):
            self._write(f"failed: {line.replace(UNICODE.times, self._times)}")
        if len(summary.errors_by_stage) > 1:
            self._write(f"failed by stage: {tally(summary.errors_by_stage, MOST_STAGES)}")
        if view is not None and view.bottleneck.sentence:
            self._write(view.bottleneck.sentence)
        self._out.write(f"{clean(last_line)}\n")
        self.close()

    def close(self) -> None:
        """Write no more, and wait until all is written, unless the terminal takes nothing."""
        try:
            self._out.finish()
        finally:
            self._out.close()

    def _write(self, text: str) -> None:
        self._out.write(clean(f"{self._name}: {text}") + "\n")


def progress_text(view: View) -> str:
    """``40% 40/100, 12.3/s, 0:12, ETA 0:15-0:20, 38 ok, 2 failed``."""
    progress = view.progress
    if progress.percent is None:
        done = f"{progress.settled:,} done"
    else:
        done = f"{progress.percent}% {progress.settled:,}/{progress.total:,}"
    parts = [done, f"{rate_text(progress.per_second)}/s", clock(progress.elapsed)]
    if view.forecast is not None:
        parts.append(f"ETA {forecast_text(view.forecast, dash='-')}")
    parts.append(progress.counts)
    word = STATE_WORDS.get(progress.state, "running")
    return ", ".join(parts if word in ("running", "finished") else [*parts, word])
