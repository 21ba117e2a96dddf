"""Numbers and sentences of a report."""

from __future__ import annotations

import time
from collections import Counter

from antflow._core.failures import Told, kinds_text
from antflow._core.snapshot import at_text
from antflow._core.text import clean, counted, cut
from antflow.sinks.report.figures import ErrorKind, Report, StageFigures

LONGEST_REASON = 300

OUTCOMES = {
    "completed": "completed",
    "failed": "failed",
    "dropped": "dropped",
    "expanded": "became others",
    "cancelled": "cancelled",
    "in flight": "in flight",
}
"""The counts that add up to those of all items, and how a reader knows them."""

ENDINGS = {"expanded": "became others", "emitted": "completed", "skipped": "completed"}
"""Kinds of last events that have another name."""

SECONDS = {
    "busy": "at work",
    "limited": "waiting for a limit",
    "blocked": "waiting for room",
    "retrying": "waiting for retries",
    "stalled": "event loop blocked",
    "starved": "nothing to do",
}
"""Where a worker's seconds went."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}

CERTAIN_SHARE = 0.85
"""Of the time, from which on a stage's workers were busy enough to say that they limit the run."""

LONG_RETRIES = 0.005
"""Share of the busy time of a stage from which on the cost of its retries is worth a sentence."""


def duration(seconds: float | None) -> str:
    """``<0.1 ms``, ``182 ms``, ``4.31 s``, ``3 min 12 s``, ``2 h 5 min``; "–" for ``None``."""
    if seconds is None:
        return "–"
    if seconds < 0.0001:
        return "<0.1 ms" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1_000)} ms"
    if seconds < 99.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def quantile(seconds: float | None) -> str:
    """`duration` of a quantile, of which the shortest are not told apart."""
    return "<0.1 ms" if seconds == 0 else duration(seconds)


def rate(per_second: float) -> str:
    """``1,240/s``, ``3.4/s``, ``4.75/min``."""
    for number, unit in ((per_second, "s"), (per_second * 60, "min")):
        if number >= 100:
            return f"{number:,.0f}/{unit}"
        if number >= 0.5 or not number:
            return f"{number:.3g}/{unit}"
    return f"{per_second * 3600:.3g}/h"


def percent(share: float) -> str:
    """``0.4%``, ``12%``."""
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def moment(timestamp: float) -> str:
    """``2026-01-31 12:00:05 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(timestamp))


def headline(report: Report) -> str:
    """How the run ended, in a few words."""
    return {
        "finished": "finished",
        "stopped": "stopped early",
        "cancelled": "cancelled",
        "failed": "failed",
    }.get(report.how, "without an end")


def verdict(report: Report) -> list[str]:
    """What is to be said about the run, in sentences."""
    sentences = [_outcome(report), _bottleneck(report), _failures(report)]
    sentences += [_retries(stage) for stage in report.stages]
    sentences += [_holds(stage) for stage in report.stages]
    if report.lost:
        sentences.append(
            f"{counted(report.lost, 'event')} did not reach this report: "
            "only the totals are exact, all else is about the others."
        )
    return [clean(sentence) for sentence in sentences if sentence]


def holds_of(stage: StageFigures) -> str:
    """``3 times``, and for how long if that is known."""
    held = "" if stage.held_seconds is None else f", {duration(stage.held_seconds)} in all"
    return f"{counted(stage.holds, 'time')}{held}"


def each_worker(workers: int) -> str:
    """``each of 8 workers``."""
    return "the worker" if workers == 1 else f"each of {workers:,} workers"


def workers_of(stage: StageFigures) -> str:
    """``its 8 workers were``."""
    return "its worker was" if stage.workers == 1 else f"its {stage.workers:,} workers were"


def _outcome(report: Report) -> str:
    counts, took = report.counts, duration(report.duration)
    total = counts["accepted"] + counts["children"]
    if not total:
        text = f"No items came; the run took {took}"
    elif counts["completed"] == total:
        text = f"All {counted(total, 'item')} came through in {took}, {rate(report.per_second)}"
    else:
        parts = [f"{counts[name]:,} {word}" for name, word in OUTCOMES.items() if counts[name]]
        text = f"Of {counted(total, 'item')}, {', '.join(parts)} in {took}"
        if counts["completed"]:
            text += f", {rate(report.per_second)}"
    ending = {
        "stopped": " The run was stopped before its end.",
        "cancelled": " The run was cancelled.",
        "failed": f" The run failed: {cut(report.error, LONGEST_REASON)}.",
        "unfinished": " The run has no end here: its program ended first, or it goes on.",
    }
    return f"{text}.{ending.get(report.how, '')}"


def _bottleneck(report: Report) -> str:
    if report.advice:
        return report.advice[:1].upper() + report.advice[1:].removesuffix(".") + "."
    if report.has_all_times or report.duration <= 0:
        return ""  # it is known, and nothing stands out
    shares = {
        stage.name: (stage.seconds["busy"] / (stage.workers * report.duration), stage)
        for stage in report.stages
        if stage.workers
    }
    if not shares:
        return ""
    share, stage = max(shares.values(), key=lambda pair: pair[0])
    if share >= CERTAIN_SHARE:
        text = f"limits the run: {workers_of(stage)} busy for {percent(share)} of the time"
        return f"{stage.name} {text}."
    return (
        f"No stage's workers were busy all the time; those of {stage.name} were most, "
        f"for {percent(share)}."
    )


def _failures(report: Report) -> str:
    if not (failed := report.counts["failed"]):
        return ""
    kinds: Counter[str] = Counter()
    for error in report.errors:
        kinds[error_text(error)] += error.failed
    told = kinds_text([Told(n, f"{n:,} × {text}") for text, n in kinds.most_common() if n])
    return f"{counted(failed, 'item')} failed{': ' if told else ''}{told}."


def error_text(error: ErrorKind) -> str:
    """``KeyError at app.py:3 in f``."""
    return f"{error.type}{at_text(error.place) or f' in stage {error.stage}'}"


def tries(number: int) -> str:
    """``1 try``, ``1,200 tries``."""
    return f"{number:,} {'try' if number == 1 else 'tries'}"


def _retries(stage: StageFigures) -> str:
    if not stage.retries:
        return ""
    busy = stage.seconds.get("busy", 0.0)
    if stage.between_seconds + stage.repeated_seconds < LONG_RETRIES * busy:
        return ""
    share = stage.repeated_seconds / busy if busy else 0.0
    return (
        f"{stage.name} repeated {tries(stage.retries)}, which "
        f"took {duration(stage.repeated_seconds)} ({percent(share)} of its work), and items "
        f"waited {duration(stage.between_seconds)} between tries, all together."
    )


def _holds(stage: StageFigures) -> str:
    if not stage.holds:
        return ""
    return f"A service asked {stage.name} for patience {holds_of(stage)}."


def _three_digits(number: float) -> str:
    if number >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
