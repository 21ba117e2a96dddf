"""The parts of lines: glyphs, safe text, cells.

Text from outside (item ids, stage names, error texts) passes through `Canvas.text` and is then only
ever appended to a `rich.text.Text`: no markup is parsed, no escape sequence is left, and its width
in cells is one that terminals agree on.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from antflow._core.text import clean, safe_str

Pieces = list[tuple[str, str]]
"""Parts of a line: text and style of each."""

LONGEST_TEXT = 500
"""Characters of a text from outside that are read; no line shows more."""


class Glyphs(NamedTuple):
    """The drawing characters, each one cell wide except the ellipsis."""

    done: str
    failed: str
    left: str
    doings: str
    shades: str
    levels: str
    rule: str
    separator: str
    dot: str
    marker: str
    chosen: str
    warning: str
    dash: str
    ellipsis: str
    times: str


# A glyph for each of `DOINGS` of `_monitor/worker_order.py`; shades and levels rise to all.
UNICODE = Glyphs(
    *("━", "┅", "─", "■▲↻◆□·", "·░▒▓█", " ▁▂▃▄▅▆▇█"), *("─", "│", "●", "▶", "»", "▲", "–", "…", "×")
)
ASCII = Glyphs(
    *("=", "x", "-", "#^r%o.", ".:+*#", " .:-=+*%#"),
    *("-", "|", "*", ">", "@", "!", "-", "...", "x"),
)


def joined(groups: Iterable[Pieces], gap: str, style: str = "") -> Pieces:
    """All pieces of several groups, with a gap between two groups."""
    pieces: Pieces = []
    for group in groups:
        if pieces:
            pieces.append((gap, style))
        pieces += group
    return pieces


@lru_cache
def glyphs_for(encoding: str) -> Glyphs:
    """The glyphs that can be written in an encoding."""
    try:
        "".join(UNICODE).encode(encoding)
    except UnicodeEncodeError:
        return ASCII
    return UNICODE


@lru_cache
def known_encoding(name: str) -> str:
    """``name``, or ASCII where Python does not know it."""
    try:
        codecs.lookup(name)
    except LookupError:
        return "ascii"
    return name


@dataclass(frozen=True, slots=True)
class Canvas:
    """Room to draw in.

    Attributes:
        width: Cells in a row.
        height: Rows.
        encoding: The encoding in which drawings must be writable.
    """

    width: int
    height: int
    encoding: str = "utf-8"

    @property
    def glyphs(self) -> Glyphs:
        """The characters to draw with."""
        return glyphs_for(self.encoding)

    def text(self, value: object) -> str:
        """Text from outside, made safe for one line of a terminal."""
        text = value if type(value) is str else safe_str(value)
        text = clean(text[:LONGEST_TEXT])
        if not text.isascii():
            text = "".join(map(_settled, text))
            text = text.encode(self.encoding, "replace").decode(self.encoding)
        return text

    def crop(self, text: str, width: int) -> str:
        """``text``, with an ellipsis at its end if it is wider than ``width`` cells."""
        if cell_len(text) <= width:
            return text
        ellipsis = self.glyphs.ellipsis if width > len(self.glyphs.ellipsis) else ""
        return _cut(text, max(width - len(ellipsis), 0)) + ellipsis

    def crop_start(self, text: str, width: int) -> str:
        """``text``, with an ellipsis at its start if it is wider than ``width`` cells."""
        if cell_len(text) <= width:
            return text
        ellipsis = self.glyphs.ellipsis if width > len(self.glyphs.ellipsis) else ""
        return ellipsis + _cut(text[::-1], max(width - len(ellipsis), 0))[::-1]

    def pad(self, text: str, width: int) -> str:
        """``text`` cropped or filled up with spaces to exactly ``width`` cells."""
        text = self.crop(text, width)
        return text + " " * (width - cell_len(text))

    def line(self, pieces: Iterable[tuple[str, str]], gap: str = "") -> Text:
        """One line from ``(text, style)`` pieces, cropped to the width."""
        line = Text(end="")
        left = self.width
        for text, style in pieces:
            if line:
                text = gap + text
            if (cells := cell_len(text)) > left:
                line.append(self.crop(text, left), style)
                break
            line.append(text, style)
            left -= cells
        return line

    def wrapped(self, text: str, rows: int) -> list[Text]:
        """Text from outside on up to ``rows`` lines, broken between words if possible."""
        lines: list[Text] = []
        rest = self.text(text)
        while rest and len(lines) < rows:
            head = _cut(rest, self.width)
            if len(lines) + 1 == rows or len(head) == len(rest):
                head, rest = self.crop(rest, self.width), ""
            else:
                cut = head.rfind(" ") if rest[len(head)] != " " else len(head)
                head = head[:cut] if cut > 0 else head
                rest = rest[len(head) :].lstrip(" ")
            lines.append(self.line([(head, "")]))
        return lines

    def rule(self, title: Sequence[tuple[str, str]]) -> Text:
        """A heading with a line to the right of it."""
        glyph = self.glyphs.rule
        line = self.line([(f"{glyph} ", "dim"), *title, (" ", "")])
        return line.append(glyph * (self.width - line.cell_len), "dim")


def _cut(text: str, width: int) -> str:
    """As many characters as fit into ``width`` cells."""
    if text.isascii():
        return text[:width]
    for index, character in enumerate(text):
        width -= cell_len(character)
        if width < 0:
            return text[:index]
    return text


@lru_cache(4096)
def _settled(character: str) -> str:
    """A character whose width is beyond doubt, or a stand-in.

    Terminals disagree on characters that change their neighbour (variation selectors, skin tones,
    flags), on spacing marks and jamo, and on changes in newer editions of Unicode; a line wider
    than expected would tear the display.
    """
    code = ord(character)
    category = unicodedata.category(character)
    if 0xFE00 <= code <= 0xFE0F or 0x1F3FB <= code <= 0x1F3FF or 0xE0100 <= code <= 0xE01EF:
        return ""
    width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
    if category in ("Mn", "Me"):
        width = 0
    joins = category == "Mc" or 0x1160 <= code <= 0x11FF or 0xD7B0 <= code <= 0xD7FB
    flag = 0x1F1E6 <= code <= 0x1F1FF
    filler = code in (0x115F, 0x3164, 0xFFA0)
    if joins or flag or filler or cell_len(character) != width:
        return "·"
    return character


class Frame:
    """A picture composed once its largest size is known. Any rich console prints it.

    Args:
        compose: Makes the lines for a canvas.
    """

    def __init__(self, compose: Callable[[Canvas], list[Text]]) -> None:
        self._compose = compose

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        encoding = known_encoding(options.encoding)
        canvas = Canvas(options.max_width, options.max_height, encoding)
        for line in self._compose(canvas)[: canvas.height]:
            line.truncate(canvas.width, overflow="crop")
            yield from line.render(console, end="\n")
