"""The lines about the rate over time."""

from __future__ import annotations

from itertools import accumulate
from math import ceil

from rich.text import Text

from antflow._core.text import clock
from antflow._monitor.view import View
from antflow.display.canvas import Canvas
from antflow.display.numbers import rate_text

FEWEST = 2
"""Rates: with one there is nothing to compare."""

ITEMS_EACH = 4
WIDEST = 20
"""Rates in one mean, at most: a curve must be able to change."""


def throughput_lines(canvas: Canvas, view: View, rows: int) -> list[Text]:
    """A heading, then the rate as a curve on ``rows - 1`` rows."""
    rates = _shown(view, canvas.width)
    if rows < 2 or not rates:
        return []
    span = clock(len(rates) * view.rates_span)
    title = [("throughput ", "bold"), (f"items/s  last {span}  {_figures(view, rates)}", "dim")]
    return [canvas.rule(title), *_curve(canvas, rates, rows - 1)]


def throughput_line(canvas: Canvas, view: View) -> Text | None:
    """The curve and the figures on one line; ``None`` where there is no curve yet."""
    figures = f"  items/s  {_figures(view, _shown(view, len(view.rates)))}"
    rates = _shown(view, canvas.width - len(figures))
    if not rates:
        return None
    (line,) = _curve(canvas, rates, 1)
    return line.append(figures, "dim")


def _shown(view: View, width: int) -> list[float]:
    """The last ``width`` rates, each a mean over enough items to be more than chance."""
    if len(view.rates) < FEWEST or width <= 0:
        return []
    sums = list(accumulate(view.rates, initial=0.0))
    items = sums[-1] * view.rates_span / len(view.rates)  # in each of them, on average
    wide = min(max(ceil(ITEMS_EACH / items), 1) if items else 1, WIDEST)
    begin = max(len(view.rates) - width, 0)
    ends = range(begin + 1, len(view.rates) + 1)
    return [(sums[end] - sums[max(end - wide, 0)]) / min(wide, end) for end in ends]


def _figures(view: View, rates: list[float]) -> str:
    mean = view.progress.settled / view.progress.elapsed if view.progress.elapsed else 0.0
    now = "" if view.is_over else f"now {rate_text(view.progress.per_second)}  "
    return f"{now}mean {rate_text(mean)}  most {rate_text(max(rates, default=0.0))}"


def _curve(canvas: Canvas, rates: list[float], rows: int) -> list[Text]:
    """Columns of blocks, as many levels high as the glyphs have for each row."""
    levels = canvas.glyphs.levels
    steps = len(levels) - 1
    most = max(rates) or 1.0
    # Anything above zero is visible: a rate of one in a thousand is not a standstill.
    heights = [max(round(rate / most * rows * steps), 1 if rate > 0 else 0) for rate in rates]
    lines: list[Text] = []
    for row in reversed(range(rows)):
        cells = [levels[min(max(height - row * steps, 0), steps)] for height in heights]
        lines.append(canvas.line([("".join(cells), "cyan")]))
    return lines
