"""Reduces a printed line to what a terminal would show.

A program may print progress bars that go back to the start of the line, switch screens, set the
title, ask the terminal something. Above a display there is room for text only: its colours stay,
but nothing that moves the cursor or talks to the terminal.
"""

from __future__ import annotations

import re

from rich.cells import cell_len

from antflow._core.text import ESCAPE_SEQUENCES

PLAIN = "\x1b[0m"

MOST_STYLES = 16
"""Style sequences that are kept for one character: a line may set one after another for ever."""

TAB_STOP = 8

_SEQUENCES = re.compile(f"({ESCAPE_SEQUENCES})", re.VERBOSE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")  # with "?" or ">" it is not a style, but a mode of xterm
_RESET = re.compile(r"\x1b\[0*m")
_ERASURE = re.compile(r"\x1b\[([012]?)K")


def shown(line: str) -> str:
    """The text of a line, with its colours, when all of it has been written.

    Args:
        line: The line without its newline.
    """
    if not _CONTROL.search(line):
        return line
    line = line.rstrip("\r")
    if "\r" in line or "\b" in line or _ERASURE.search(line):
        return _written_over(line)
    pieces = _SEQUENCES.split(line)  # text and sequences in turn
    pieces[0::2] = [_CONTROL.sub("", text) for text in pieces[0::2]]
    pieces[1::2] = [found if _STYLE.fullmatch(found) else "" for found in pieces[1::2]]
    return "".join(pieces)


def _written_over(line: str) -> str:
    cells = _Cells()
    for index, piece in enumerate(_SEQUENCES.split(line)):
        if index % 2 == 0:
            for character in piece:
                cells.put(character)
        elif _STYLE.fullmatch(piece):
            cells.set_style(piece)
        elif erasure := _ERASURE.fullmatch(piece):
            cells.erase(erasure[1])
    return cells.text()


class _Cells:
    """One line of a terminal. Behind a wide character stands a cell without one."""

    def __init__(self) -> None:
        self._cells: list[tuple[tuple[str, ...], str]] = []
        self._column = 0
        self._style: tuple[str, ...] = ()

    def put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(self._column - 1, 0)
        elif character == "\t":
            self._column += TAB_STOP - self._column % TAB_STOP
        elif not _CONTROL.match(character):
            self._write(character, cell_len(character))

    def set_style(self, sequence: str) -> None:
        reset = _RESET.fullmatch(sequence)
        self._style = () if reset else (*self._style, sequence)[-MOST_STYLES:]

    def erase(self, how: str) -> None:
        if how != "1":
            del self._cells[0 if how == "2" else self._column :]
        else:
            erased = min(self._column + 1, len(self._cells))
            self._cells[:erased] = [((), " ")] * erased

    def text(self) -> str:
        pieces: list[str] = []
        current: tuple[str, ...] = ()
        for style, character in [*self._cells, (self._style, "")]:
            if style != current:
                pieces += [PLAIN, *style]
                current = style
            pieces.append(character)
        return "".join(pieces)

    def _write(self, character: str, width: int) -> None:
        cells, column = self._cells, self._column
        cells += [((), " ")] * (column - len(cells))
        if not width:  # it belongs to the character before it
            if column:
                owner = column - 1 if cells[column - 1][1] else column - 2
                style, before = cells[owner]
                cells[owner] = (style, before + character)
            return
        end = column + width
        if column < len(cells) and not cells[column][1]:
            cells[column - 1] = ((), " ")  # half of a wide character is none
        if end < len(cells) and not cells[end][1]:
            cells[end] = ((), " ")
        cells[column:end] = [(self._style, character), *[(self._style, "")] * (width - 1)]
        self._column = end
