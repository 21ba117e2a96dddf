"""The summary printed when a run is over."""

from __future__ import annotations

from antflow import DashboardSnapshot
from antflow._core.failures import failure_lines
from antflow._core.result import outcomes_text
from antflow._core.text import clean, counted, tally

MOST_KINDS = 5
"""How many kinds of failures, and stages, are named."""


def summary_lines(
    snapshot: DashboardSnapshot,
    bad_lines: int = 0,
    failed_are_kept: bool = False,
    has_display: bool = False,
    first_bad_line: str = "",
) -> list[str]:
    """The outcome of a run, in a few lines for people.

    Args:
        snapshot: The run, when it was over.
        bad_lines: Lines of the input that were not items, and were put aside.
        failed_are_kept: Whether the failed items are in a file.
        has_display: Whether a display has just said what held the run back.
        first_bad_line: Where the first of the bad lines is, and what is wrong with it.
    """
    stats, errors = snapshot.pipeline_stats, snapshot.error_summary
    lines = [f"{outcomes_text(stats)} in {snapshot.elapsed:,.1f} s"]
    if stats.items_resumed:
        lines[0] += f"; {stats.items_resumed:,} of them in earlier runs"
    if stats.items_changed:
        changed = counted(stats.items_changed, "item")
        lines.append(f"run again, as the input or a stage has changed: {changed}")
    if stats.items_omitted:
        results = counted(stats.items_omitted, "result")
        lines.append(f"not in the journal: {results} (too large, or as its options say)")
    if bad_lines:
        example = f", e.g. {clean(first_bad_line)}" if first_bad_line else ""
        lines.append(f"{counted(bad_lines, 'line')} of the input could not be read{example}")
    if stats.counters and not has_display:
        from antflow.display.counter_lines import counters_text

        lines.append(clean(counters_text(stats.counters, is_over=True)))
    lines += [f"failed: {line}" for line in failure_lines(errors, MOST_KINDS)]
    counts = (("failed", errors.total_failed), ("cancelled", stats.items_cancelled))
    lost = [name for name, count in counts if count]
    if lost and not failed_are_kept:
        lines.append(f"--failed FILE keeps the {' and '.join(lost)} items")
    if len(errors.errors_by_stage) > 1:
        lines.append(f"failed in: {tally(errors.errors_by_stage, MOST_KINDS)}")
    sentence = "" if has_display else snapshot.advice.sentence
    return [*lines, clean(sentence)] if sentence else lines
