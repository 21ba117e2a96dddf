"""Printed lines: their text and their colours, and nothing that drives a terminal."""

from __future__ import annotations

import re

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antflow.display.terminal.printed_lines import shown
from tests.display.test_text import NASTY, strange_text

SEQUENCE = re.compile(r"\x1b\[[0-9;:]*m")

PIECES = st.sampled_from(
    ["\r", "\b", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[31m", "\x1b[1;4m", "\x1b[0m", "\x1b[m", "\t"]
)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("plain, tab\there", "plain, tab\there"),
        ("\x1b[1;38:5:9mred\x1b[0m", "\x1b[1;38:5:9mred\x1b[0m"),
        ("\x1b[2J\x1b[3;1Hhome\x1b[?1049h\x1b[?25l\x1b[1A\x1b7\x1b8", "home"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("\x1bP1$r\x1b\\dcs\x1b[6n\x1b[c\x1b[>4;2m\x1b[?4m", "dcs"),
        ("bell\x07 shift\x0e\x0f feed\x0b\x0c\x84\x85\x9b up", "bell shift feed up"),
        ("dos\r", "dos"),
        (" 10%\r 50%\r100%", "100%"),
        ("100 of 100\rdone", "doneof 100"),
        ("long bar ####\r\x1b[Kdone", "done"),
        ("12345\b\b\bx", "12x45"),
        ("日本\rx", "x 本"),
        ("x日本\rabc", "abc本"),
        ("日\u0301\rx", "x "),
        ("no end \x1b", "no end "),
        ("no end \x1b[", "no end "),
    ],
)
def test_line(line: str, text: str) -> None:
    """What a terminal shows at the end of the line is what is left of it."""
    assert shown(line) == text


@given(strange_text | st.lists(st.sampled_from([*NASTY, "\r", "\b", "x"])).map("".join))
def test_line_drives_no_terminal(line: str) -> None:
    """Whatever is printed: beside text, only styles and tabs are left."""
    rest = SEQUENCE.sub("", shown(line))
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", rest)


# Only narrow characters: the emulator keeps half of a wide one that was written over.
@given(st.lists(PIECES | st.text("ab cd", min_size=1, max_size=4), max_size=12))
@example(["a", "\x1b[1K"])
def test_line_on_a_terminal(pieces: list[str]) -> None:
    """A terminal shows the same for the line and for what is left of it, in the same colours."""

    def on_a_terminal(text: str) -> list[tuple[object, ...]]:
        screen = pyte.Screen(200, 1)
        pyte.Stream(screen).feed(text)
        cells = [screen.buffer[0][column] for column in range(200)]
        # Erasing with a style set leaves blanks of that style, which nobody sees.
        return [
            (cell.data, cell.fg, cell.bold, cell.underscore) if cell.data.strip() else ()
            for cell in cells
        ]

    line = "".join(pieces)
    assert on_a_terminal(shown(line)) == on_a_terminal(line)
