"""Lines that are printed while "full" is up: all of them come out, whatever ends the program."""

from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path

import pytest

from antflow.display import create
from antflow.display.terminal import kept_lines
from antflow.display.terminal.kept_lines import KeptLines
from antflow.display.terminal.screen import _screens
from tests.display.conftest import NO_ERRORS, MakeTerminal, make_snapshot
from tests.pty_screen import PtyScreen

MANY = 12_000


def numbers(text: str) -> list[int]:
    """The numbers of the lines that were printed."""
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("line ")]


def test_all_prints_under_full_are_kept(terminal: MakeTerminal) -> None:
    """However many there are, they come out in order, and above the last frame."""
    screen = terminal()
    display = create("full")
    display.on_start(None, 1)
    display.on_update(make_snapshot())
    for number in range(MANY):
        print("line", number)  # noqa: T201
    print("no end", end="")  # noqa: T201
    assert numbers(screen.paper) == []
    display.on_finish([], NO_ERRORS)
    lines = screen.paper.splitlines()
    assert numbers(screen.paper) == list(range(MANY))
    assert lines[MANY] == "no end"
    assert lines[MANY + 1].startswith("━")


@pytest.mark.pty
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_prints_under_full_outlive_the_program(ending: int, screen: PtyScreen) -> None:
    """After ``kill -9`` too: the relay prints them, when the terminal is back."""
    screen.spawn(
        f"""
import asyncio, os
from antflow import Pipeline, Stage

async def talk(number):
    print("line", number, flush=True)
    if number == {MANY - 1}:
        await asyncio.sleep(0.5)
        os.kill(os.getpid(), {int(ending)})
        await asyncio.sleep(60)
    return number

pipeline = Pipeline([Stage("Talk", 1, [talk])])
asyncio.run(pipeline.run(range({MANY}), dashboard="full", dashboard_update_interval=0.1))
"""
    )
    assert screen.wait() == -ending
    screen.wait_until(lambda: f"line {MANY - 1}\n" in screen.paper + "\n", "the last line")
    assert numbers(screen.paper) == list(range(MANY))
    assert not screen.is_alternate
    assert not screen.is_cursor_hidden


def test_file_of_kept_lines_is_private_and_leaves_nothing(
    terminal: MakeTerminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no name, no other user could open it, and it is empty when all has been printed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    terminal()
    display = create("full")
    display.on_start(None, 1)
    display.on_update(make_snapshot())
    print("line 1")  # noqa: T201
    (screen,) = _screens.values()
    screen._capture.catch_up()
    descriptor = os.dup(screen._capture.kept.descriptor)
    found = os.fstat(descriptor)
    assert list(tmp_path.iterdir()) == []
    assert found.st_nlink == 0
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == len("line 1\r\n")
    display.on_finish([], NO_ERRORS)
    assert os.fstat(descriptor).st_size == 0
    os.close(descriptor)


def test_kept_lines_when_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept in memory, after those of the file; it says how many were lost."""
    kept = KeptLines("utf-8", opens_at_once=True)
    kept.add(["one", "zwö"])
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data[: 12 - offset], offset)

    monkeypatch.setattr(os, "pwrite", full)
    kept.add([f"late {number}" for number in range(kept_lines.MOST_IN_MEMORY)])
    kept.add(["later", "last"])
    first, rest = kept.take()
    assert first == "one\r\nzwö\r\n"
    lines = rest.splitlines()
    assert lines[0] == "(2 lines were not kept: there was no room on the disk)"
    assert lines[1] == "late 2"
    assert lines[-2:] == ["later", "last"]
    kept.add(["a"])
    assert list(kept.take()) == ["a\r\n"]
    assert list(kept.take()) == []
    kept.close()


def test_kept_lines_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log larger than the memory is printed a piece at a time, in whole lines."""
    monkeypatch.setattr(kept_lines, "PIECE_BYTES", 10)
    kept = KeptLines("utf-8", opens_at_once=True)
    kept.add(["äöü", "12345678901234567890", "", "x"])
    pieces = list(kept.take())
    assert "".join(pieces) == "äöü\r\n12345678901234567890\r\n\r\nx\r\n"
    assert all(piece.endswith("\n") or not piece for piece in pieces)
    assert len(pieces) > 2
    kept.close()


def test_kept_lines_without_a_place_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept in memory."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    kept = KeptLines("utf-8", opens_at_once=True)
    assert kept.descriptor < 0
    kept.add(["one", "two"])
    assert list(kept.take()) == ["one\r\ntwo\r\n"]
    kept.close()
