"""Occasional lines, for streams that are not terminals: a file, a pipe, a build server's log.

No escape sequence and no carriage return is ever written. If the stream is a terminal after all,
and halted, the lines wait for it; the run does not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TextIO

from antflow._core.failures import failure_lines
from antflow._core.journal_state import journal_trouble
from antflow._core.sink_counts import lost_text
from antflow._core.snapshot import ErrorSummary, LoopStall
from antflow._core.text import clean, clock, counted, tally
from antflow._monitor.view import StageView, View
from antflow.display.bars import LOOP_BUSY, block_text, loop_text, stall_text, state_text
from antflow.display.canvas import UNICODE, glyphs_for
from antflow.display.counter_lines import counters_text
from antflow.display.numbers import duration_text, eta_text, rate_text
from antflow.display.stream import open_stream

LONGEST_SILENCE = 30.0
"""Seconds after which there is a line in any case: build servers kill silent jobs."""

SILENCE_BLOCKED = 5.0
"""Seconds that the event loop must be blocked for a line about that. The next one comes when it has
been blocked for twice as long, and so on, but after `LONGEST_SILENCE` in any case."""

ADVICE_EVERY = 60.0
"""Seconds after which the sentence on what holds the run back is written, and written again."""

STEPS = 20
"""Lines over the whole run where the total is known: one per 5 %."""

MOST_ERROR_LINES = 5
MOST_STAGES = 10


class PlainLog:
    """Writes a line at the start, at every 5 %, after 30 s, at a stop, and some at the end.

    All but the very last begin with the time of day. Once a minute one says what holds the run
    back.

    Args:
        stream: Where to write.
        name: The pipeline's name.
        with_stages: Say how each stage is doing, too.
    """

    def __init__(self, stream: TextIO | None, name: str, with_stages: bool = False) -> None:
        self._out = open_stream(stream)
        self._with_stages = with_stages
        self._name = clean(name)
        self._times = glyphs_for(self._out.encoding).times
        self._step = -1
        self._last = 0.0
        self._advised = 0.0
        self._stops = False
        self._blocked_at = ""
        self._blocked_for = 0.0

    def update(self, view: View) -> None:
        """Write a line if it is time for one."""
        progress = view.progress
        step = int((progress.ratio or 0.0) * STEPS + 1e-9)
        stops = progress.state == "stopping"
        is_due = step > self._step or progress.elapsed - self._last >= LONGEST_SILENCE
        is_last = view.is_over and progress.total is None  # else the last 5 % say it
        if is_due or is_last or stops > self._stops:
            self._stops = stops
            self._step = max(step, self._step)
            self._last = progress.elapsed
            self._write(progress_text(view))
            if self._with_stages:
                self._write(stages_text(view.stages))
            if not view.is_over:  # else the summary says it
                self._write_counters(view)
            stall = view.loop.last_stall
            if stall is not None and stall.location != self._blocked_at:
                self._blocked_at = stall.location
                self._write(stall_text(stall))
        sentence = view.advice.sentence
        if sentence and not view.is_over and progress.elapsed - self._advised >= ADVICE_EVERY:
            self._advised = progress.elapsed
            self._write(sentence)

    def tell_block(self, stall: LoopStall) -> None:
        """Write a line about a block of the event loop that goes on, if it is time for one.

        Called in another thread than all else.
        """
        told = self._blocked_for if stall.seconds >= self._blocked_for else 0.0
        if stall.seconds >= told + min(max(told, SILENCE_BLOCKED), LONGEST_SILENCE):
            told = stall.seconds
            self._write(block_text(stall))
        self._blocked_for = told

    def finish(self, view: View | None, summary: ErrorSummary, last_line: str) -> None:
        """Write what failed, where, what held the run back, and the last line."""
        for line in failure_lines(summary, MOST_ERROR_LINES):
            self._write(f"failed: {line.replace(UNICODE.times, self._times)}")
        if len(summary.errors_by_stage) > 1:
            self._write(f"failed by stage: {tally(summary.errors_by_stage, MOST_STAGES)}")
        if view is not None and self._with_stages:
            for stage in view.stages:
                self._write(f"stage {stage_summary(stage)}")
        if view is not None:
            self._write_counters(view)
        if view is not None and view.advice.sentence:
            self._write(view.advice.sentence)
        self._out.write(f"{clean(last_line)}\n")
        self.close()

    def close(self) -> None:
        """Write no more, and wait until all is written, unless the terminal takes nothing."""
        try:
            self._out.finish()
        finally:
            self._out.close()

    def _write_counters(self, view: View) -> None:
        if counters := view.snapshot.pipeline_stats.counters:
            self._write(counters_text(counters, view.is_over))

    def _write(self, text: str) -> None:
        self._out.write(f"{time.strftime('%H:%M:%S')} {clean(f'{self._name}: {text}')}\n")


def progress_text(view: View) -> str:
    """``40% 40/100, 12.3/s, 0:12, ETA 0:15-0:20, 38 ok, 2 failed``."""
    progress = view.progress
    done = progress.count if progress.percent is None else f"{progress.percent}% {progress.count}"
    parts = [done, f"{rate_text(progress.per_second)}/s", clock(progress.elapsed)]
    if view.eta is not None:
        waits_for = f" ({view.eta.waits_for})" if view.eta.waits_for else ""
        parts.append(f"ETA {eta_text(view.eta, dash='-')}{waits_for}")
    parts.append(progress.counts)
    if view.loop_busy >= LOOP_BUSY and not view.is_over:
        parts.append(loop_text(view))
    if resumed := view.snapshot.pipeline_stats.items_resumed:
        parts.append(f"{resumed:,} resumed")
    troubles = (journal_trouble(view.snapshot.journal), lost_text(view.snapshot.sinks))
    parts += [trouble for trouble in troubles if trouble]
    word = state_text(progress)
    return ", ".join(parts if word in ("running", "finished") else [*parts, word])


def stages_text(stages: Sequence[StageView]) -> str:
    """``Fetch 3/10 running, 12 queued, 400 done, 2 failed; Parse …``, as far as there is room."""
    texts: list[str] = []
    for stage in stages[:MOST_STAGES]:
        stats = stage.stats
        where = f" on {counted(stats.nodes, 'node')}" if stats.nodes else ""
        text = f"{stats.stage_name} {stats.running_workers:,}/{stats.workers:,} running{where}, "
        counts = [("queued", stats.pending_items), *_counts(stage, "done")]
        texts.append(text + ", ".join(f"{count:,} {name}" for name, count in counts))
    if len(stages) > MOST_STAGES:
        texts.append(f"{len(stages) - MOST_STAGES:,} more stages")
    return "; ".join(texts)


def stage_summary(stage: StageView) -> str:
    """``Fetch: 400 done, 2 failed, 7 retried, p50 0.12s, p95 0.31s, 83% busy``."""
    stats = stage.stats
    parts = [f"{count:,} {name}" for name, count in _counts(stage, "done", "failed")]
    if stats.retried_items:
        parts.append(f"{stats.retried_items:,} retried")
    if stats.batches:
        parts.append(f"{stats.batches:,} batches of {stats.batched_items / stats.batches:.1f}")
    quantiles = (("p50", stats.run_times.p50), ("p95", stats.run_times.p95))
    parts += [f"{name} {duration_text(time)}" for name, time in quantiles if time is not None]
    parts.append(f"{stage.recent.busy:.0%} busy")
    return f"{stats.stage_name}: {', '.join(parts)}"


def _counts(stage: StageView, *shown: str) -> list[tuple[str, int]]:
    """How items left a stage: those counts that are not zero, or always ``shown``."""
    stats = stage.stats
    counts = [
        ("done", stats.through_items),
        ("made", stats.made_items),
        ("failed", stats.failed_items),
        ("dropped", stats.dropped_items),
        ("skipped", stats.skipped_items),
        ("cancelled", stats.cancelled_items),
    ]
    return [(name, count) for name, count in counts if count or name in shown]
