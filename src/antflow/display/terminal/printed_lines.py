"""Reduces a printed line to what can stand above a display.

A program may print progress bars that go back to the start of the line, switch screens, set the
title, ask the terminal something. Above a display there is room for text only: its colours stay,
but nothing that moves the cursor or talks to the terminal.
"""

from __future__ import annotations

import re

from antflow._core.text import ESCAPE_SEQUENCES

PLAIN = "\x1b[0m"

_SEQUENCES = re.compile(f"({ESCAPE_SEQUENCES})", re.VERBOSE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")  # with "?" or ">" it is not a style, but a mode of xterm


def shown(line: str) -> str:
    """The text of a line, with its colours; of a bar drawn over and over, its last state.

    Args:
        line: The line without its newline.
    """
    if not _CONTROL.search(line):
        return line
    line = line.rstrip("\r").rpartition("\r")[2]
    pieces = _SEQUENCES.split(line)  # text and sequences in turn
    pieces[0::2] = [_CONTROL.sub("", text) for text in pieces[0::2]]
    pieces[1::2] = [found if _STYLE.fullmatch(found) else "" for found in pieces[1::2]]
    return "".join(pieces)
