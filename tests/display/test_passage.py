"""Programs of tasks that read keys while a display is up, as pagers and editors do."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.display.test_descriptors import PROGRAM, on_its_terminal
from tests.display.test_keys import SHELL
from tests.pty_screen import PtyScreen

# Reads keys from its standard error, like `more` and ``vim -``.
FROM_ERROR = """
import os, sys, termios, tty
found = termios.tcgetattr(2)
tty.setcbreak(2)
os.write(2, b"\\033[?1049h\\033[H\\033[Jpaging")
while (key := os.read(2, 1)) != b"q":
    os.write(2, b" <%b>" % key)
os.write(2, b"\\033[?1049l")
termios.tcsetattr(2, termios.TCSADRAIN, found)
"""

# Sets its standard output, and reads its standard input.
WITH_CURSES = """
import curses, time
def main(window):
    window.addstr(0, 0, "paging")
    window.refresh()
    time.sleep(0.05)  # it does not read yet
    while (key := window.getkey()) != "q":
        window.addstr(f" <{key}>")
curses.wrapper(main)
"""


def program(task: str, level: str = "compact", options: str = "") -> str:
    script = f"""
async def work(number):
    await asyncio.sleep(0.05)
    if number == 2:
        print("before", flush=True)
        {task}
        print("after", flush=True)
asyncio.run(run(work, {level!r}{options}))
"""
    return on_its_terminal(PROGRAM + script)


@pytest.mark.parametrize("level", ["compact", "full"])
@pytest.mark.parametrize("kind", ["from standard error", "with curses"])
def test_program_that_reads_keys(kind: str, level: str, screen: PtyScreen) -> None:
    """It has the screen and each key; then the display is back, and the settings are restored."""
    found = screen.settings
    source = FROM_ERROR if kind == "from standard error" else WITH_CURSES
    task = f"subprocess.run([sys.executable, '-c', {source!r}])"
    screen.spawn(program(task, level))
    screen.wait_until(lambda: screen.text.startswith("paging"), "the program")
    screen.type(b"x")
    screen.wait_until(lambda: screen.text == "paging <x>", "a key")
    screen.type(b"+y")
    screen.wait_until(lambda: screen.text == "paging <x> <+> <y>", "others")
    screen.type(b"q")
    assert screen.wait() == 0
    assert not screen.is_alternate
    assert screen.settings == found
    lines = screen.paper.splitlines()
    assert (lines.count("before"), lines.count("after")) == (1, 1)
    assert "paging" not in screen.paper
    assert screen.paper.count("6/6") == 1


PROGRAMS = {
    "less": ("less rows", b"G", "row 100", b"q"),
    "less of a pipe": ("cat rows | less", b"G", "row 100", b"q"),
    "more": ("more rows", b" ", "row 40", b"q"),
    "vim": ("vim -u NONE rows", b"G", "row 100", b":q!\r"),
    "vim -": ("cat rows | vim -u NONE -", b"G", "row 100", b":q!\r"),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("keys", [False, True])
def test_pager_and_editor(name: str, keys: bool, screen: PtyScreen, tmp_path: Path) -> None:
    """They work as without a display, and with ``keys=True`` its keys are not for the run."""
    command, further, there, leave = PROGRAMS[name]
    if shutil.which(name.split()[0]) is None:
        pytest.skip("it is not installed")
    (tmp_path / "rows").write_text("".join(f"row {number}\n" for number in range(101)))
    found = screen.settings
    command = f"cd {tmp_path}; export TERM=vt100 LESS=; {command}"
    task = f"subprocess.run({command!r}, shell=True)"
    screen.spawn(program(task, options=f", keys={keys}"))
    screen.wait_until(lambda: "row 5" in screen.text, "the beginning")
    screen.type(further)
    screen.wait_until(lambda: there in screen.text, "what the key does")
    screen.type(leave)
    assert screen.wait() == 0
    assert not screen.is_alternate
    assert not screen.is_cursor_hidden
    assert screen.settings == found
    assert screen.paper.splitlines()[-1] == "6 ok, 0 failed"


def test_program_that_outlives_the_display(screen: PtyScreen) -> None:
    """A pager that ignores Ctrl-C still gets keys when the run and its display are over."""
    found = screen.settings
    pager = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + FROM_ERROR
    task = f"await asyncio.to_thread(subprocess.run, [sys.executable, '-c', {pager!r}])"
    screen.spawn(program(task))
    screen.wait_until(lambda: screen.text.startswith("paging"), "the program")
    screen.type(b"x")
    screen.wait_until(lambda: screen.text == "paging <x>", "a key")
    screen.type(b"\x03")
    screen.wait_until(lambda: "2 ok" in screen.paper, "the last frame")
    screen.type(b"y")
    screen.wait_until(lambda: "<y>" in screen.text, "another key")
    screen.type(b"q")
    assert screen.wait() == -signal.SIGINT
    assert not screen.is_alternate
    # Another process restores them, when the program has ended.
    screen.wait_until(lambda: screen.settings == found, "the settings from before")


def test_window_that_is_dragged_under_a_pager(screen: PtyScreen, tmp_path: Path) -> None:
    """It fills the new window."""
    (tmp_path / "rows").write_text("".join(f"row {number}\n" for number in range(101)))
    command = f"cd {tmp_path}; export TERM=vt100 LESS=; less rows"
    screen.spawn(program(f"subprocess.run({command!r}, shell=True)"))
    screen.wait_until(lambda: "row 22" in screen.text, "the first rows")
    screen.resize(80, 40)
    screen.wait_until(lambda: "row 38" in screen.text, "more rows")
    screen.type(b"q")
    assert screen.wait() == 0


@pytest.mark.parametrize("keys", [False, True])
def test_pager_that_is_killed(keys: bool, screen: PtyScreen) -> None:
    """A program that is killed restores nothing; the run goes on, and so do its keys."""
    found = screen.settings
    task = (
        f"pager = subprocess.Popen([sys.executable, '-c', {FROM_ERROR!r}])\n"
        "        await asyncio.sleep(0.5)\n"
        "        pager.kill(); pager.wait()"
    )
    screen.spawn(program(task, options=f", keys={keys}"))
    screen.wait_until(lambda: screen.text.startswith("paging"), "the program")
    assert screen.wait() == 0
    assert not screen.is_alternate
    assert screen.settings == found


def test_ctrl_z_under_a_pager(screen: PtyScreen) -> None:
    """The shell gets the terminal as it was; after ``fg`` the program gets keys again."""
    found = screen.settings
    task = f"subprocess.run([sys.executable, '-c', {FROM_ERROR!r}])"
    script = program(task).partition("TIOCSCTTY, 0)")[2]
    screen.spawn(SHELL.format(foreground="", program=script))
    screen.wait_until(lambda: screen.text.startswith("paging"), "the program")
    screen.type(b"x")
    screen.wait_until(lambda: screen.text == "paging <x>", "a key")
    screen.type(b"\x1a")
    screen.wait_until(lambda: "stopped True" in screen.text)
    screen.type(b"fg\n")
    screen.wait_until(lambda: screen.settings != found, "the keyboard taken again")
    screen.type(b"yq")
    screen.wait_until(lambda: "ended 0 True" in screen.paper)
    assert "<y>" in screen.raw.decode()
    assert "6/6" in screen.paper


@pytest.mark.parametrize("level", ["compact", "full"])
def test_display_that_ends_under_a_pager(level: str, screen: PtyScreen) -> None:
    """Its last frame is not written over the program, but when the other display is back."""
    script = f"""
async def pages(number):
    if number == 2:
        await asyncio.sleep(0.3)
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", {FROM_ERROR!r}])
    return number
async def ends(number):
    await asyncio.sleep(0.15)
async def main():
    await asyncio.gather(run(pages, "compact"), run(ends, {level!r}, items=5))
asyncio.run(main())
"""
    screen.spawn(on_its_terminal(PROGRAM + script))
    screen.wait_until(lambda: screen.text.startswith("paging"), "the program")
    time.sleep(1)
    screen.type(b"x")
    screen.wait_until(lambda: screen.text == "paging <x>", "a key")
    screen.type(b"q")
    assert screen.wait() == 0
    lines = screen.paper.splitlines()
    assert sum("5/5" in line for line in lines) == 1
    assert sum("6/6" in line for line in lines) == 1
    assert [line for line in lines if " ok, " in line] == ["5 ok, 0 failed", "6 ok, 0 failed"]
