"""What is said when a run is over."""

from __future__ import annotations

from antflow import RunResults, StageStats
from antflow._core.text import clean
from antflow._monitor.progress import counts_text

MOST_ERROR_TYPES = 5


def summary_lines(
    results: RunResults[object], elapsed: float, bad_lines: int = 0, failed_are_kept: bool = False
) -> list[str]:
    """What came of a run, in a few lines for people.

    Args:
        results: The run's results; only the counts and the error summary are used.
        elapsed: Seconds it took.
        bad_lines: Lines of the input that were no items, and were put aside.
        failed_are_kept: Whether the failed items are in a file.
    """
    stats = results.stats
    counts = counts_text(
        stats.items_processed, stats.items_failed, stats.items_dropped, stats.items_cancelled
    )
    lines = [f"{counts} in {elapsed:.1f} s"]
    if bad_lines:
        noun = "line" if bad_lines == 1 else "lines"
        lines.append(f"{bad_lines} {noun} of the input could not be read")
    types = sorted(results.summary.errors_by_type.items(), key=lambda pair: -pair[1])
    if types:
        shown = [f"{clean(name)} {count}" for name, count in types[:MOST_ERROR_TYPES]]
        more = [f"{len(types) - MOST_ERROR_TYPES} more"] if len(types) > MOST_ERROR_TYPES else []
        hint = "" if failed_are_kept else " (--failed FILE keeps the failed items)"
        lines.append(f"failed: {', '.join(shown + more)}{hint}")
    bottleneck = bottleneck_of(list(stats.stage_stats.values()))
    return [*lines, bottleneck] if bottleneck else lines


def bottleneck_of(stages: list[StageStats]) -> str:
    """A sentence that names the stage whose workers had the least time left; "" = none had work."""
    busiest = max(stages, key=_busy_share, default=None)
    if busiest is None or not _busy_share(busiest):
        return ""
    name, share = clean(busiest.stage_name), f"{_busy_share(busiest):.0%}"
    workers = "worker was" if busiest.workers == 1 else f"{busiest.workers} workers were"
    return f"bottleneck: stage {name}, whose {workers} busy {share} of the time"


def _busy_share(stage: StageStats) -> float:
    whole = (
        stage.busy_seconds
        + stage.limited_seconds
        + stage.blocked_seconds
        + stage.retry_waiting_seconds
        + stage.starved_seconds
    )
    return stage.busy_seconds / whole if whole else 0.0
