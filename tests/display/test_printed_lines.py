"""Printed lines: their text and their colours, and nothing that drives a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow.display.terminal.printed_lines import shown
from tests.display.test_text import NASTY, strange_text

SEQUENCE = re.compile(r"\x1b\[[0-9;:]*m")


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
        ("100 of 100\rdone\r", "done"),
        ("\x1b[31mlong bar ####\r\x1b[Kdone", "done"),
        ("12345\b\b\bx", "12345x"),
        ("no end \x1b", "no end "),
        ("no end \x1b[", "no end "),
    ],
)
def test_line(line: str, text: str) -> None:
    """Text and colours are left, and of a bar that is drawn over and over its last state."""
    assert shown(line) == text


@given(strange_text | st.lists(st.sampled_from([*NASTY, "\r", "\b", "x"])).map("".join))
def test_line_drives_no_terminal(line: str) -> None:
    """Whatever is printed: beside text, only styles and tabs are left."""
    rest = SEQUENCE.sub("", shown(line))
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", rest)
