"""Small drawings without text: they take any width, and the page's style colours them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log

from antflow._core.durations import Durations, middle_of

COLOURS = 8
"""Colours of stages; further stages begin again."""

BARS = 48

LOWEST = 1e-4
"""Seconds."""


class Scale:
    """The logarithmic scale that several histograms share.

    Attributes:
        low: Where it begins, in seconds.
        high: Where it ends.
    """

    def __init__(self, histograms: Sequence[Durations]) -> None:
        lows: list[float] = []
        highs: list[float] = []
        for durations in histograms:
            found = [index for index, number in enumerate(durations.buckets) if number]
            if sum(durations.buckets) < durations.count:
                lows.append(durations.shortest)
                highs.append(durations.shortest * 2)
            if found:
                lows.append(middle_of(durations.shortest, found[0]) / 1.05)
                highs.append(middle_of(durations.shortest, found[-1]) * 1.05)
        self.low: float = min(lows, default=LOWEST)
        self.high: float = max(highs, default=1.0)

    def bar_of(self, seconds: float) -> int:
        """The bar of a duration."""
        place = log(max(seconds, self.low) / self.low) / log(self.high / self.low)
        return min(int(place * BARS), BARS - 1)


def histogram(durations: Durations, scale: Scale, colour: int) -> str:
    """Bars of the durations, the highest of which has the whole height."""
    bars = [0] * BARS
    bars[0] += max(durations.count - sum(durations.buckets), 0)
    for index, number in enumerate(durations.buckets):
        bars[scale.bar_of(middle_of(durations.shortest, index))] += number
    most = max(bars) or 1
    drawn = "".join(
        f'<rect x="{index * 5}" y="{40 - height}" width="4" height="{height}"/>'
        for index, number in enumerate(bars)
        if number and (height := round(max(40 * number / most, 1), 1))
    )
    return (
        f'<svg class="histogram c{colour % COLOURS}" viewBox="0 0 {BARS * 5} 40" '
        f'preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
    )


def shares(parts: Iterable[tuple[str, float]], whole: float) -> str:
    """One bar, divided."""
    drawn, x = "", 0.0
    for name, part in parts:
        if whole > 0 and (width := 200 * part / whole) > 0:
            drawn += f'<rect class="s-{name}" x="{x:.2f}" width="{width:.2f}" height="14"/>'
            x += width
    return (
        '<svg class="shares" viewBox="0 0 200 14" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect class="s-rest" width="200" height="14"/>{drawn}</svg>'
    )
