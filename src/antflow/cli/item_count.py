"""How many items a file has, for the bar: counted beside the run, which need not wait for it."""

from __future__ import annotations

from collections.abc import Callable

from antflow.cli.lines import BadLine, InputFile

VISIBLE = range(0x21, 0x7F)
"""Bytes that are not space in any text."""


def count_lines(file: InputFile, goes_on: Callable[[], bool]) -> int | None:
    """How many lines of a file are not blank; ``None`` if that was not wanted to the end.

    Args:
        file: The file, at its beginning.
        goes_on: Whether the number is still wanted.

    Raises:
        BadLine: The file cannot be read to its end.
    """
    count, pending = 0, b""
    for chunk in file.chunks():
        if not goes_on():
            return None
        *lines, pending = (pending + chunk).split(b"\n")
        count += sum(map(_is_filled, lines))
    return count + _is_filled(pending)


def _is_filled(line: bytes) -> bool:
    text = line.lstrip()
    if not text or text[0] in VISIBLE:
        return bool(text)
    return bool(text.decode(errors="replace").strip("\ufeff").strip())


def count_again(
    file: InputFile,
    count: Callable[[InputFile, Callable[[], bool]], int | None],
    goes_on: Callable[[], bool],
) -> int | None:
    """Count the items of a file that is being read; ``None`` if the number cannot be relied on.

    Args:
        file: The file. Nothing is read from it, so a pipe is not counted.
        count: Counts the items of the same file, opened again.
        goes_on: As in `count_lines`.
    """
    try:
        again = file.again()
        if again is None:
            return None
        try:
            before = again.state()
            # It may grow faster than it is read.
            number = count(again, lambda: goes_on() and again.state() == before)
            return number if again.state() == before else None
        finally:
            again.close()
    except (OSError, BadLine):  # the reader says so, when it comes to it
        return None
