"""Signals that end or stop the program: the terminal is given back, and the exit code is right."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from antflow.display import create
from antflow.display.terminal import composition
from antflow.display.terminal.screen import _screens
from tests.display.conftest import LEVELS, NO_ERRORS, MakeTerminal, make_snapshot
from tests.pty_screen import PATIENCE, PtyScreen, clean_environment

ENDS = ["SIGTERM", "SIGHUP", "SIGQUIT"]

PROGRAM = """
import asyncio, os, sys, threading
from antflow import Pipeline, Stage

async def work(number):
    print("printed", number)
    await asyncio.sleep({seconds})

def run():
    options = dict(progress=True) if {level!r} == "progress" else dict(dashboard={level!r})
    if {loop!r} == "uvloop":
        import uvloop
        factory = uvloop.new_event_loop
    else:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(Pipeline([Stage("Work", 5, [work])]).run(
            range({items}), dashboard_update_interval=0.01, **options
        ))
"""


def program(level: str, loop: str = "asyncio", seconds: float = 3600, items: int = 5) -> str:
    source = PROGRAM.format(level=level, loop=loop, seconds=seconds, items=items)
    return source + "run()\n"


SHELL = """
import fcntl, os, signal, subprocess, sys, termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen([sys.executable, "-W", "error", "-c", {script!r}], process_group=0)
os.tcsetpgrp(0, job.pid)
while True:
    status = os.waitpid(job.pid, os.WUNTRACED)[1]
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    print("[stopped]", flush=True)
    while (command := sys.stdin.readline().strip()) != "fg":
        if command == "bg":
            os.killpg(job.pid, signal.SIGCONT)
            print("[behind]", flush=True)
    os.tcsetpgrp(0, job.pid)
    os.killpg(job.pid, signal.SIGCONT)
print("[ended]", os.waitstatus_to_exitcode(status), flush=True)
"""
"""A shell with job control, as far as it is needed here."""


def wait_for_frame(screen: PtyScreen, level: str) -> None:
    shown = "printed 4" if level == "progress" else " 5/5"
    screen.wait_until(lambda: shown in screen.text and " 0%" in screen.text, "workers at work")


def wait_for_bytes(screen: PtyScreen, count: int) -> None:
    enough = len(screen.raw) + count
    screen.wait_until(lambda: len(screen.raw) > enough, "more frames")


def wait_for_shell(screen: PtyScreen, stops: int) -> None:
    screen.wait_until(lambda: screen.paper.count("[stopped]") == stops, "the shell")


def printed(screen: PtyScreen) -> list[str]:
    return [line for line in screen.paper.splitlines() if line.startswith("printed")]


PRINTED = [f"printed {number}" for number in range(5)]


# -- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_signal_that_ends_the_program(level: str, name: str, loop: str, screen: PtyScreen) -> None:
    """The cursor, the first screen, what was printed, the settings are there; so is the code."""
    before = screen.settings
    number = getattr(signal, name)
    screen.spawn(program(level, loop))
    wait_for_frame(screen, level)
    assert screen.is_cursor_hidden
    assert screen.is_alternate == (level == "full")
    screen.signal(number)
    assert screen.wait() == -number
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    assert screen.raw.endswith(b"\x1b[0m\x1b[?25h")
    assert printed(screen) == PRINTED
    if level != "full":
        assert "0/5" in screen.paper
        assert screen._main.cursor.x == 0
        assert screen.rows[screen._main.cursor.y] == ""
        assert screen.rows[screen._main.cursor.y - 1] != ""
    assert screen.settings == before


@pytest.mark.parametrize("level", LEVELS)
def test_interrupt_that_python_does_not_handle(level: str, screen: PtyScreen) -> None:
    """A program that has set SIGINT to its default ends at once, and the terminal is restored."""
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n" + program(level)
    screen.spawn(script)
    wait_for_frame(screen, level)
    screen.signal(signal.SIGINT)
    assert screen.wait() == -signal.SIGINT
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    assert printed(screen) == PRINTED


def test_signal_in_the_middle_of_frames() -> None:
    """Wherever a signal meets a program that does nothing but draw, the terminal is restored."""
    script = (
        "from antflow.display import create\n"
        "from tests.display.conftest import make_snapshot\n"
        "display = create('full')\n"
        "display.on_start(None, 1)\n"
        "for seed in range(10**9):\n"
        "    display.on_update(make_snapshot(seed=seed % 7))\n"
        "    print('line', seed)\n"
    )
    source = f"import sys; sys.path.append({os.getcwd()!r})\n{script}"
    for frames in range(1, 6):
        screen = PtyScreen(80, 24)
        screen.spawn(source)
        wait_for_bytes(screen, frames * 7919)
        screen.signal(signal.SIGTERM)
        assert screen.wait() == -signal.SIGTERM
        assert not screen.is_cursor_hidden
        assert not screen.is_alternate
        numbers = [int(line[5:]) for line in screen.paper.splitlines() if line.startswith("line ")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        screen.close()


def test_signal_while_the_terminal_takes_nothing() -> None:
    """A program that hangs in a write, because the terminal was halted, ends all the same."""
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program("compact", items=10**6, seconds=0)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=clean_environment(),
        start_new_session=True,
    ) as process:
        waiting = threading.Event()
        for _ in range(int(PATIENCE / 0.05)):
            if not select.select([], [slave], [], 0)[1]:
                break
            waiting.wait(0.05)
        assert not select.select([], [slave], [], 0)[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    os.close(master)
    os.close(slave)


def test_two_displays_when_the_program_ends(screen: PtyScreen) -> None:
    """One screen, one end."""
    script = PROGRAM.format(level="full", loop="", seconds=3600, items=5) + (
        "async def main():\n"
        "    pipelines = [Pipeline([Stage(name, 5, [work])]) for name in ('One', 'Two')]\n"
        "    await asyncio.gather(*(\n"
        "        pipeline.run(range(5), dashboard=level, dashboard_update_interval=0.01)\n"
        "        for pipeline, level in zip(pipelines, ('compact', 'full'))\n"
        "    ))\n"
        "asyncio.run(main())\n"
    )
    screen.spawn(script)
    screen.wait_until(lambda: screen.text.count(" 5/5") >= 2, "both")
    screen.signal(signal.SIGTERM)
    assert screen.wait() == -signal.SIGTERM
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    assert sorted(printed(screen)) == sorted(PRINTED * 2)


TWO_SCREENS = """
import os, signal
from antflow.display.terminal import stop_signals

class Screen:
    is_interrupted = False

    def __init__(self, name):
        self.name = name

    def end(self):
        os.write(1, self.name)
        raise RuntimeError("it is gone")

for name in (b"first ", b"second"):
    stop_signals.watch(Screen(name))
signal.raise_signal(signal.SIGTERM)
"""


def test_two_screens_when_the_program_ends() -> None:
    """Each is given back, whatever happens to the others, and the program ends by the signal."""
    program = [sys.executable, "-c", TWO_SCREENS]
    done = subprocess.run(program, env=clean_environment(), capture_output=True, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == (b"first second", -signal.SIGTERM)


# -- a stop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_ctrl_z_and_fg(level: str, loop: str, screen: PtyScreen) -> None:
    """The terminal is given back while the program is stopped, and drawn anew when it goes on."""
    screen.spawn(SHELL.format(script=program(level, loop)))
    wait_for_frame(screen, level)
    settings = screen.settings
    for stops in range(1, 3):
        screen.type(b"\x1a")
        wait_for_shell(screen, stops)
        assert not screen.is_cursor_hidden
        assert not screen.is_alternate
        assert screen.settings == settings
        begin = len(screen.raw)
        screen.type(b"fg\n")
        screen.wait_until(lambda: b"0/5" in screen.raw[begin:], "a frame")  # noqa: B023
        assert screen.is_cursor_hidden
        assert screen.is_alternate == (level == "full")
        frame = screen.text.split("fg\n")[-1]
        assert frame.count("%  0/5 ") == 1
    screen.type(b"\x03")
    screen.wait_until(lambda: "[ended] -2" in screen.paper, "the end")
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    assert printed(screen) == PRINTED
    stopped = screen.paper.splitlines()
    assert all(line == "[stopped]" for line in stopped if "[stopped]" in line)


@pytest.mark.parametrize("level", ["compact", "full"])
def test_ctrl_z_and_bg(level: str, screen: PtyScreen) -> None:
    """Sent behind, it draws nothing over what is done in front; then it is there again."""
    screen.spawn(SHELL.format(script=program(level, seconds=0.05, items=10**6)))
    wait_for_frame(screen, level)
    screen.type(b"\x1a")
    wait_for_shell(screen, 1)
    screen.type(b"bg\n")
    screen.wait_until(lambda: "[behind]" in screen.paper, "the shell")
    begin = len(screen.raw)
    if level == "compact":
        screen.wait_until(lambda: b"printed" in screen.raw[begin:], "what it prints")
    assert b"?25l" not in screen.raw[begin:]
    assert b"?1049h" not in screen.raw[begin:]
    assert b"Work" not in screen.raw[begin:]
    screen.type(b"fg\n")
    screen.wait_until(lambda: b"Work" in screen.raw[begin:], "a frame")
    assert screen.is_cursor_hidden
    screen.type(b"\x03")
    screen.wait_until(lambda: "[ended] -2" in screen.paper, "the end")
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate


@pytest.mark.parametrize("level", ["compact", "full"])
def test_bg_of_a_display_in_another_thread(level: str, screen: PtyScreen) -> None:
    """No handler sees the stop; in the background it draws nothing, and in front it does again."""
    script = program(level, seconds=0.05, items=10**6).removesuffix("run()\n")
    script += "threading.Thread(target=run, daemon=True).start()\nthreading.Event().wait()\n"
    screen.spawn(SHELL.format(script=script))
    wait_for_frame(screen, level)
    screen.type(b"\x1a")
    screen.wait_until(lambda: "[stopped]" in screen.text, "the shell")  # perhaps over the frame
    screen.type(b"bg\n")
    screen.wait_until(lambda: not (screen.is_cursor_hidden or screen.is_alternate), "the cursor")
    begin = len(screen.raw)
    if level == "compact":
        screen.wait_until(lambda: b"printed" in screen.raw[begin:], "what it prints")
    else:
        time.sleep(0.2)  # for several frames that are not drawn
    assert b"Work" not in screen.raw[begin:]
    assert not screen.is_alternate
    screen.type(b"fg\n")
    screen.wait_until(lambda: b"Work" in screen.raw[begin:], "a frame")
    assert screen.is_cursor_hidden
    screen.type(b"\x03")
    screen.wait_until(lambda: "[ended]" in screen.paper, "the end")
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate


@pytest.mark.parametrize("level", ["compact", "full"])
def test_ctrl_z_during_a_question(level: str, screen: PtyScreen) -> None:
    """When the program goes on, the question is still open: nothing is drawn before the answer."""
    script = f"""
import asyncio
from antflow import Pipeline, Stage

async def work(number):
    print("got", await asyncio.to_thread(input, "Name? "))

pipeline = Pipeline([Stage("Work", 1, [work])])
asyncio.run(pipeline.run(range(1), dashboard={level!r}, dashboard_update_interval=0.01))
"""
    screen.spawn(SHELL.format(script=script))
    screen.wait_until(lambda: screen.text.endswith("Name?"), "the question")
    begin = len(screen.raw)
    screen.type(b"\x1a")
    wait_for_shell(screen, 1)
    screen.type(b"fg\n")
    time.sleep(0.2)  # for several frames that are not drawn
    screen.type(b"Ann\n")
    screen.wait_until(lambda: "[ended] 0" in screen.paper, "the end")
    assert "got Ann" in screen.paper.splitlines()
    meanwhile = screen.raw[begin : screen.raw.index(b"Ann", begin)]
    assert b"Work" not in meanwhile
    assert b"?1049h" not in meanwhile


def test_stops_in_the_middle_of_frames(screen: PtyScreen) -> None:
    """Stopped and continued again and again while it draws: the screen is whole at the end."""
    script = (
        f"import select, sys; sys.path.append({os.getcwd()!r})\n"
        "from tests.display.test_screen import Whole, begin, update\n"
        "display = Whole('a')\n"
        "begin(display)\n"
        "while not select.select([0], [], [], 0)[0]:\n"
        "    display.letter = 'b' if display.letter == 'a' else 'a'\n"
        "    update(display)\n"
        "sys.stdin.readline()\n"
        "display.letter = 'c'\n"
        "for _ in range(25):\n"  # the newline that was typed has moved the screen
        "    update(display)\n"
        "sys.stdin.readline()\n"
    )
    screen.spawn(SHELL.format(script=script))
    screen.wait_until(lambda: screen.is_alternate, "the frame")
    for stops in range(1, 11):
        wait_for_bytes(screen, 1009)
        screen.type(b"\x1a")
        wait_for_shell(screen, stops)
        assert not screen.is_alternate
        assert not screen.is_cursor_hidden
        screen.type(b"fg\n")
        screen.wait_until(lambda: screen.is_alternate, "the frame again")
    screen.type(b"\n")
    expected = [f"c{number} ".ljust(80, ".") for number in range(24)]
    screen.wait_until(lambda: screen.rows == expected, "the last frame")
    screen.type(b"\n")
    screen.wait_until(lambda: "[ended] 0" in screen.paper, "the end")


@pytest.mark.parametrize("kind", ["Lines", "Whole"])
def test_stop_in_the_middle_of_a_frame(kind: str, screen: PtyScreen) -> None:
    """It waits until the frame is whole; so the one after the stop is whole as well."""
    script = (
        f"import signal, sys; sys.path.append({os.getcwd()!r})\n"
        "from tests.display.test_screen import Lines, Whole, begin, update\n"
        "class Halting:\n"
        "    stream, halts = sys.stderr, False\n"
        "    def fileno(self):\n"
        "        raise OSError('frames come here, not to the descriptor')\n"
        "    def write(self, text):\n"
        "        if self.halts:\n"
        "            self.halts = False\n"
        "            self.stream.write(text[:200])\n"
        "            self.stream.flush()\n"
        "            signal.raise_signal(signal.SIGTSTP)\n"
        "            text = text[200:]\n"
        "        self.stream.write(text)\n"
        "    def __getattr__(self, name):\n"
        "        return getattr(self.stream, name)\n"
        "sys.stderr = stream = Halting()\n"
        f"display = {kind}('a', 8)\n"
        "begin(display)\n"
        "stream.halts = True\n"
        "display.letter = 'b'\n"
        "update(display)\n"
        "sys.stdin.read(2)\n"
    )
    screen.spawn(SHELL.format(script=script))
    wait_for_shell(screen, 1)
    screen.type(b"fg\n")
    frame = [f"b{number} ".ljust(80, ".") for number in range(8)]
    screen.wait_until(
        lambda: screen.is_cursor_hidden and screen.text.splitlines()[-8:] == frame,
        "the frame again, whole",
    )
    screen.wait_until(
        lambda: screen._screen.cursor.y == len(screen.text.splitlines()) - 1,
        "the cursor in its last line",
    )


# -- handlers ---------------------------------------------------------------------------------


def handlers() -> dict[str, Any]:
    names = ["SIGINT", *ENDS, "SIGTSTP", "SIGCONT"]
    return {name: signal.getsignal(getattr(signal, name)) for name in names}


def test_handlers_while_something_is_drawn(terminal: MakeTerminal) -> None:
    """They are set with the first display, gone with the last, and SIGINT is Python's own."""
    terminal()
    before = handlers()
    one, two = create("compact"), create("full")
    one.on_start(None, 1)
    during = handlers()
    assert {name for name in during if during[name] != before[name]} == set(before) - {"SIGINT"}
    two.on_start(None, 1)
    one.on_finish([], NO_ERRORS)
    assert handlers() == during
    two.on_finish([], NO_ERRORS)
    assert handlers() == before


def test_handlers_of_others_stay(terminal: MakeTerminal) -> None:
    """What was set before is not touched; what is set meanwhile stays."""
    terminal()

    def mine(number: int, frame: object) -> None:
        """Somebody has a plan."""

    before = handlers()
    display = create("full")
    try:
        signal.signal(signal.SIGTERM, mine)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        display.on_start(None, 1)
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGQUIT, mine)
        display.on_finish([], NO_ERRORS)
        expected = {"SIGTERM": mine, "SIGHUP": signal.SIG_IGN, "SIGQUIT": mine}
        assert handlers() == before | expected
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize("level", ["compact", "full"])
def test_frame_after_a_pause_is_whole(
    level: str, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-Z and ``fg`` that no handler saw, what the shell wrote over is drawn again."""
    screen, now = terminal(), 1000.0
    monkeypatch.setattr(composition, "monotonic", lambda: now)
    display = create(level)
    display.on_start(None, 1)
    for _ in range(3):
        display.on_update(make_snapshot())
    begin = len(screen.raw)
    display.on_update(make_snapshot())
    assert b"Fetch" not in screen.raw[begin:]
    now += 2.0
    display.on_update(make_snapshot())
    assert b"Fetch" in screen.raw[begin:]
    display.on_finish([], NO_ERRORS)


def test_handlers_in_another_thread(terminal: MakeTerminal) -> None:
    """A display in another thread sets none, and draws and ends like any other."""
    screen = terminal()
    before = handlers()
    seen: list[object] = []

    def run() -> None:
        display = create("full")
        display.on_start(None, 1)
        display.on_update(make_snapshot())
        seen.append(handlers())
        display.on_finish([], NO_ERRORS)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert seen == [before]
    assert handlers() == before
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate


def test_handlers_of_a_display_that_joins_one_of_another_thread(terminal: MakeTerminal) -> None:
    """They are set as soon as a display in the main thread draws there, too."""
    terminal()
    before = handlers()
    one, two = create("compact"), create("compact")
    thread = threading.Thread(target=one.on_start, args=(None, 1))
    thread.start()
    thread.join(PATIENCE)
    assert handlers() == before
    two.on_start(None, 1)
    during = handlers()
    assert {name for name in during if during[name] != before[name]} == set(before) - {"SIGINT"}
    two.on_finish([], NO_ERRORS)
    one.on_finish([], NO_ERRORS)
    assert handlers() == before


def test_handlers_that_another_thread_leaves_behind(screen: PtyScreen) -> None:
    """Where the last display ends in another thread, a signal then does what it always does."""
    script = (
        "import os, signal, sys, threading\n"
        "from antflow import ErrorSummary\n"
        "from antflow.display import create\n"
        "display = create('compact')\n"
        "display.on_start(None, 1)\n"
        "end = lambda: display.on_finish([], ErrorSummary(0, {}, {}, []))\n"
        "thread = threading.Thread(target=end)\n"
        "thread.start(); thread.join()\n"
        "print('ended', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGCONT)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    screen.spawn(script)
    assert screen.wait() == -signal.SIGTERM
    assert screen.paper.splitlines()[-1] == "ended"
    assert screen.raw.count(b"?25h") == 1


@pytest.mark.parametrize("level", LEVELS)
def test_graceful_signals(level: str, screen: PtyScreen) -> None:
    """Whoever wants to end in good order does, under every display; the terminal is restored."""
    options = "progress=True" if level == "progress" else f"dashboard={level!r}"
    script = (
        "import asyncio, sys\n"
        "from antflow import Pipeline, Stage\n"
        "async def work(number):\n"
        "    print('printed', number)\n"
        "    await asyncio.to_thread(sys.stdin.readline)\n"
        "stage = Stage('Work', 5, [work])\n"
        "results = asyncio.run(Pipeline([stage]).run(range(10**6), graceful_signals=3600,\n"
        f"    dashboard_update_interval=0.01, {options}))\n"
        "print(results.stopped_by.name)\n"
    )
    screen.spawn(script)
    wait_for_frame(screen, level)
    screen.signal(signal.SIGTERM)
    for _ in range(200):  # more than are in flight
        screen.type(b"\n")
    assert screen.wait() == 0
    assert screen.paper.splitlines()[-1] == "SIGTERM"
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate


def test_nothing_is_left_of_a_display_in_the_registry(terminal: MakeTerminal) -> None:
    """Begun again without an end, the same display has one pane."""
    screen = terminal()
    display = create("compact")
    display.on_start(None, 1)
    display.on_update(make_snapshot())
    display.on_start(None, 1)
    display.on_update(make_snapshot())
    display.on_finish([], NO_ERRORS)
    assert _screens == {}
    assert not re.search(r"\?25l", screen.raw.decode().rpartition("?25h")[2])
