"""A bar chart as SVG: for each workload, the items per second of each system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
LABELS = 150
BAR, GAP, TITLE, MARGIN = 15, 4, 28, 12

STYLE = """\
text { font: 12px sans-serif; fill: #333 }
.title { font-weight: bold }
.ours { fill: #b5651d } .hand { fill: #8a8f98 } .other { fill: #c4c8ce }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .ours { fill: #e0955a } .hand { fill: #9aa0a8 } .other { fill: #5d636b }
}
"""

BY_HAND = ("pool", "semaphores", "bare loop")


@dataclass(frozen=True, slots=True)
class Panel:
    """The bars of one workload.

    Attributes:
        title: The text above the bars.
        rates: Name of a system → its items per second.
    """

    title: str
    rates: Mapping[str, float]


def draw(panels: Sequence[Panel]) -> str:
    """The text of an SVG file. All bars of a panel share one scale, which begins at 0."""
    parts: list[str] = []
    top = float(MARGIN)
    for panel in panels:
        parts.append(_text(0, top + 14, panel.title, "title"))
        top += TITLE
        longest = max(panel.rates.values())
        for name, rate in panel.rates.items():
            length = max(rate / longest * (WIDTH - LABELS - 90), 1.0)
            kind = "ours" if name == "ours" else "hand" if name in BY_HAND else "other"
            parts.append(_text(LABELS - 8, top + 12, name, end=True))
            parts.append(
                f'<rect class="{kind}" x="{LABELS}" y="{top:g}" '
                f'width="{length:.1f}" height="{BAR}" rx="2"/>'
            )
            parts.append(_text(LABELS + length + 6, top + 12, f"{short(rate)} / s"))
            top += BAR + GAP
        top += MARGIN
    size = f'viewBox="0 0 {WIDTH} {top:g}" width="{WIDTH}" height="{top:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = "<title>Items per second of each system</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def short(rate: float) -> str:
    """A rate in three digits: ``"312 k"``."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g}"


def _text(x: float, y: float, text: str, style: str = "", *, end: bool = False) -> str:
    styled = f' class="{style}"' if style else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:g}" y="{y:g}"{styled}{anchor}>{escape(text)}</text>'
