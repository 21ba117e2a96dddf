"""Writes the measurements into docs/performance.md, between its marks, and draws its chart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chart import Panel, draw
from benchmarks.report import aims
from benchmarks.runner import Outcome
from benchmarks.systems import ROOT

PAGE = ROOT / "docs" / "performance.md"
CHART = PAGE.with_suffix(".svg")
CHARTED = ("W1", "W2", "W7", "W8")
NOT_CHARTED = ("bare loop", "ours, 10 k")
"""The first would make all other bars too short; the second is not a system."""


Measured = tuple[Mapping[str, Any], Sequence[Outcome]]
"""Where something was measured, and what."""


def write_page(
    outcomes: Sequence[Outcome], about: Mapping[str, Any], elsewhere: Sequence[Measured] = ()
) -> None:
    """Fill in the page, and draw the chart if its workloads were measured.

    Args:
        outcomes: What was measured.
        about: Where.
        elsewhere: The same on other Pythons and event loops, for a table that compares them.
    """
    text = PAGE.read_text(encoding="utf-8")
    text = filled(text, "machine", [described(outcomes, about)])
    text = filled(text, "figures", figures(outcomes))
    if elsewhere:
        text = filled(text, "elsewhere", compared([(about, outcomes), *elsewhere]))
    PAGE.write_text(text, encoding="utf-8")
    panels = [panel(each) for each in outcomes if each.workload.name in CHARTED]
    if panels:
        CHART.write_text(draw(panels), encoding="utf-8")


def write(page: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Fill in other lines between the marks of a page: mark → lines."""
    text = page.read_text(encoding="utf-8")
    for mark, lines in parts.items():
        text = filled(text, mark, lines)
    page.write_text(text, encoding="utf-8")


def filled(text: str, mark: str, lines: Sequence[str] | Iterator[str]) -> str:
    """The text of a page, with new lines between ``<!-- mark -->`` and ``<!-- end -->``."""
    begin, end = f"<!-- {mark} -->\n", "<!-- end -->"
    body = "\n".join(["", *lines, "", ""])
    place = re.compile(f"{begin}.*?{end}", re.DOTALL)
    text, count = place.subn(lambda _: begin + body + end, text)
    if count != 1:
        raise ValueError(f"the page must have one <!-- {mark} --> with an <!-- end -->")
    return text


def described(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> str:
    """Where and when the figures were measured."""
    counts = sorted({len(outcome.rounds) for outcome in outcomes})
    rounds = " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
    where = "{date}: {machine}; {python}, {loop}".format_map(about)
    return f"{where}; medians of {rounds} rounds."


def figures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A table of all figures."""
    yield "| workload | figure | median | best round | target |"
    yield "|---|---|---|---|---|"
    for outcome in outcomes:
        for position, (figure, value) in enumerate(outcome.figures):
            name = f"{outcome.workload.name}: {outcome.workload.title}" if not position else ""
            aim = aims(figure).replace("|", "\\|")
            best = number(figure.best(outcome.rounds))
            yield f"| {name} | {figure.name} | {number(value)} | {best} | {aim} |"


def compared(measured: Sequence[Measured]) -> Iterator[str]:
    """A table with a column for each place: the figures that have a target everywhere."""
    places = [f"{about['python']}, {about['loop']}" for about, _ in measured]
    yield f"| workload | figure | {' | '.join(places)} |"
    yield "|---|---|" + "---|" * len(places)
    columns = [
        {
            (outcome.workload.name, figure.name): value
            for outcome in outcomes
            for figure, value in outcome.figures
            if figure.reach is not None
        }
        for _, outcomes in measured
    ]
    for row in columns[0]:
        if all(row in column for column in columns):
            values = " | ".join(number(column[row]) for column in columns)
            yield f"| {row[0]} | {row[1]} | {values} |"


def number(value: float) -> str:
    """A number with three digits, or with all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def panel(outcome: Outcome) -> Panel:
    """The bars of one workload: items per second of processor time."""
    rates = {
        name: 1e6 / median(samples[name].cpu_us for samples in outcome.rounds)
        for name in outcome.ran
        if name not in NOT_CHARTED
    }
    title = outcome.workload.title.replace("`", "")
    return Panel(f"{outcome.workload.name}: {title}", rates)
