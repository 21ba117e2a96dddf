"""Terminals that wrap the lines on the screen again when they become narrower, as tmux does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from antflow.display.environment import wraps_again
from tests.display.conftest import LEVELS, MakeTerminal
from tests.display.test_screen import Lines, begin, finish, update
from tests.pty_screen import PATIENCE, WISHES, clean_environment

PROGRAM = """
import asyncio, sys
from antflow import Pipeline, Stage

async def work(number):
    await asyncio.sleep(0.05)
    if number % 9 == 3:
        raise LookupError("no page at all " + "x" * 60)
    return number

stages = [Stage(name, 5, [work], task_attempts=1) for name in ("Fetch", "Parse", "Enrich")]
async def printing(number):
    if number < int(sys.argv[2]):
        print(f"printed {number}", flush=True)
    return number

stages.insert(0, Stage("Print", 1, [printing]))
options = {"progress": True} if sys.argv[1] == "progress" else {"dashboard": sys.argv[1]}
asyncio.run(Pipeline(stages).run(range(100_000), **options, dashboard_update_interval=0.2))
"""


class Tmux:
    """A window of tmux with a program in it."""

    def __init__(self, socket: Path, *command: str) -> None:
        self._socket = str(socket)
        self.do("-f", "/dev/null", "new-session", "-d", "-x120", "-y40", *command)
        self.do("set", "-g", "remain-on-exit", "on")

    def do(self, *words: str) -> str:
        environment = clean_environment()
        environment.pop("TMUX", None)
        words = ("tmux", "-u", "-S", self._socket, *words)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    @property
    def text(self) -> str:
        """All that it shows."""
        return self.do("capture-pane", "-p").strip()

    @property
    def paper(self) -> str:
        """All that it shows, and what has scrolled off."""
        return self.do("capture-pane", "-p", "-S", "-1000").strip()

    def wait_until(self, holds: Callable[[str], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds(self.paper):
            assert time.monotonic() < deadline, self.paper
            time.sleep(0.1)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[..., Tmux]]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    windows: list[Tmux] = []

    def start(*words: str) -> Tmux:
        socket = tmp_path / f"socket{len(windows)}"
        windows.append(Tmux(socket, sys.executable, "-c", PROGRAM, *words))
        return windows[-1]

    yield start
    for window in windows:
        window.do("kill-server")


@pytest.mark.process
@pytest.mark.parametrize(("widths", "lines"), [([70], 60), (range(119, 69, -1), 60), ([70], 3)])
def test_window_of_tmux_that_becomes_narrower(
    widths: Sequence[int], lines: int, tmux: Callable[..., Tmux]
) -> None:
    """One frame is there afterwards, nothing of those before, and each printed line.

    In a window that is not full tmux moves the upper lines out of it, for good.
    """
    windows = {level: tmux(level, str(lines)) for level in LEVELS}  # all at once: they wait long
    for window in windows.values():
        window.wait_until(lambda text: re.search(r"[1-9]\d+/100,000 .*0:(0[2-9]|[1-5])", text))
    for columns in widths:
        for window in windows.values():
            window.do("resize-window", f"-x{columns}", "-y40")
    began = time.monotonic()
    for level, window in windows.items():
        window.wait_until(lambda text: time.monotonic() > began + 1 and "0,000" in text)
        text = window.paper if lines > 40 else window.text
        assert text.count("/100,000") == 1, (level, text)
        assert max(map(len, text.splitlines())) <= 70, (level, text)
        assert len(re.findall("^▶Fetch", text, re.MULTILINE)) <= 1, (level, text)
        assert len(re.findall(r"\d ok", text)) == 1, (level, text)
        if lines > 40 and level != "full":  # that keeps them, and shows some
            assert text.splitlines()[:lines] == [f"printed {number}" for number in range(lines)]


def test_prints_while_a_window_is_dragged(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait until the window stands still, and are all there, in order, at the latest then."""
    screen = terminal(40, 10)
    monkeypatch.setenv("VTE_VERSION", "7000")
    show = partial(print, file=sys.stderr)
    display = Lines("a", 2)
    begin(display)
    show("before")
    screen.settle()
    assert "before" in screen.text
    screen.resize(41, 10)
    show("one")
    show("two")
    screen.settle()
    update(display)
    assert "one" not in screen.paper
    time.sleep(0.35)
    show("three")
    screen.settle()
    assert screen.rows[:4] == ["before", "one", "two", "three"]
    screen.resize(42, 10)
    show("last")
    finish(display)
    assert screen.paper.splitlines()[:5] == ["before", "one", "two", "three", "last"]


@pytest.mark.parametrize(
    ("environment", "wraps"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, True),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "tmux-256color"}, True),
        ({"TERM": "screen-256color", "TMUX": "/tmp/tmux-0/default,1,0"}, True),
        ({"TERM": "screen", "VTE_VERSION": "7600"}, False),
        ({"TERM": "linux", "VTE_VERSION": "7600"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_which_terminals_wrap_again(
    environment: dict[str, str], wraps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that say so; a variable that was inherited from another terminal does not count."""
    for name in ("TERM", "TMUX", "XTERM_VERSION", "INSIDE_EMACS", *WISHES):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wraps_again() is wraps
