"""The lines about what tasks have counted."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from antflow._core.counters import CounterStats
from antflow._monitor.view import View
from antflow.display.canvas import Canvas
from antflow.display.numbers import amount_text


def counter_lines(canvas: Canvas, view: View, rows: int) -> list[Text]:
    """What the tasks of all stages have counted, on up to ``rows`` lines."""
    counters = view.snapshot.pipeline_stats.counters
    if not counters:
        return []
    return canvas.wrapped(counters_text(counters, view.is_over), rows)


def counters_text(counters: Mapping[str, CounterStats], is_over: bool = False) -> str:
    """``counted: tokens 12,345 (1,234/s, ~56,000 in all), hits 12 (…)``."""
    texts: list[str] = []
    for name, each in counters.items():
        details = f"{amount_text(each.per_second)}/s"
        if each.projected is not None and not is_over:
            details += f", ~{amount_text(each.projected, digits=3)} in all"
        texts.append(f"{name} {amount_text(each.total)} ({details})")
    return f"counted: {', '.join(texts)}"
