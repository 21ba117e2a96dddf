"""What is said in words can be read in every palette, on dark and on light."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console
from rich.segment import Segment

from antflow import DashboardSnapshot, LoopHealth, LoopStall
from antflow._monitor.outlook import Outlook
from antflow._monitor.progress import progress
from antflow.display import create
from antflow.display.bars import blocked_line
from antflow.display.canvas import Canvas
from tests.display.conftest import LEVELS, make_snapshot

Colors = dict[str, str]

NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def palette(text: str, back: str, colors: str) -> Colors:
    """The colours of a terminal: of text, of its background, and the first eight of its palette."""
    return dict(zip(("default", "back", *NAMES), (text, back, *colors.split()), strict=True))


SOLARIZED = "073642 dc322f 859900 b58900 268bd2 d33682 2aa198 eee8d5"
VGA = "000000 aa0000 00aa00 aa5500 0000aa aa00aa 00aaaa aaaaaa"
XTERM = "000000 cd0000 00cd00 cdcd00 0000ee cd00cd 00cdcd e5e5e5"
GNOME = "171421 c01c28 26a269 a2734c 12488b a347ba 2aa1b3 d0cfcc"
PALETTES = {
    "VGA": palette("aaaaaa", "000000", VGA),
    "VGA on white": palette("000000", "ffffff", VGA),
    "xterm": palette("000000", "ffffff", XTERM),
    "xterm on black": palette("ffffff", "000000", XTERM),
    "Solarized light": palette("586e75", "fdf6e3", SOLARIZED),  # emphasized: its usual text has 4.1
    "Solarized dark": palette("839496", "002b36", SOLARIZED),
    "GNOME light": palette("171421", "ffffff", GNOME),
    "GNOME dark": palette("d0cfcc", "171421", GNOME),
}
ENOUGH = 4.5
"""The contrast of text; WCAG 2.1, success criterion 1.4.3."""

_PROSE = re.compile(r"[A-Za-z]{2,}[,.:;]? (?:[\d,.]+ )?[A-Za-z]{2,}")


def contrast(one: str, other: str) -> float:
    """How much lighter one colour is than another, from 1 to 21; WCAG 2.1, contrast ratio."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def spoken(level: str, snapshot: DashboardSnapshot, columns: int) -> Iterator[tuple[str, str]]:
    """The parts of a frame that are prose, and the colour of each."""
    snapshot.advice = Outlook().see(snapshot)["advice"]()
    console = Console(file=StringIO(), width=columns, height=30, force_terminal=True)
    yield from _prose(line for line in console.render_lines(create(level).render(snapshot)))
    stall = LoopStall(7.0, 990.0, "Parse", "Parse-W3", 7, "app.py:41 in parse", "time.sleep(9)")
    line = blocked_line(Canvas(columns, 1), progress(snapshot, 100), stall, 7.0)
    yield from _prose([list(line.render(console))])


def _prose(lines: Iterator[list[Segment]] | list[list[Segment]]) -> Iterator[tuple[str, str]]:
    for line in lines:
        for text, style, _ in line:
            if _PROSE.search(text):
                color = None if style is None else style.color
                yield text, "default" if color is None else color.name


@pytest.mark.parametrize("name", PALETTES)
def test_contrast_of_plain_text_is_enough(name: str) -> None:
    """The palettes are as they are used: their own text can be read."""
    assert contrast(PALETTES[name]["default"], PALETTES[name]["back"]) >= ENOUGH
    assert contrast("000000", "ffffff") == pytest.approx(21.0)


@pytest.mark.parametrize("name", PALETTES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_sentences_can_be_read(level: str, columns: int, name: str) -> None:
    """The advice, what blocks the event loop, hints and states stand out from any background."""
    colors = PALETTES[name]
    said: list[str] = []
    for state in ("running", "paused", "stopping"):
        snapshot = make_snapshot(state=state)
        snapshot.pipeline_stats.stage_stats["Enrich"].busy_seconds = 10_000
        stall = LoopStall(0.452, 990.0, "Parse", "Parse-W3", 7, "app.py:41 in parse", "sleep(1)")
        snapshot.loop = LoopHealth(0.123, 1, 0.452, stall)
        for text, color in spoken(level, snapshot, columns):
            said.append(text)
            assert contrast(colors[color], colors["back"]) >= ENOUGH, (text, color)
    if level != "progress":
        assert any("Bottleneck" in text for text in said)
    assert any("event loop blocked" in text for text in said)
