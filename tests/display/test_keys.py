"""Keys that are typed while a display is up."""

from __future__ import annotations

import os
import re
import signal
import termios
import time
from collections.abc import Iterator

import pytest

from antflow.display.terminal.keys import keys_in
from tests.pty_screen import PtyScreen

PROGRAM = """
import asyncio, getpass, logging, os, signal, subprocess, sys, termios, threading, time
logging.basicConfig(level=logging.INFO, format="%(message)s")
from antflow import Pipeline, Stage
{more}
async def fetch(number):
    await asyncio.sleep(0.02)
    if number % 10 == 3:
        raise LookupError("no page")
    return number

async def enrich(number):
    await asyncio.sleep(0.1)
    {task}
    return number

async def main():
    stages = [
        Stage("Fetch", 5, [fetch], task_attempts=1, queue_capacity=50),
        Stage("Enrich", 5, [enrich], task_attempts=1, queue_capacity=50),
    ]
    pipeline = Pipeline(stages)
    results = await pipeline.run(
        range({items}), {options}, keys=True, dashboard_update_interval=0.05
    )
    print("over:", results, "stopped" if len(results) < 1000 else "")

{run}
"""


def program(
    task: str = "pass",
    items: int = 100_000,
    more: str = "",
    options: str = "dashboard='detailed'",
    run: str = "asyncio.run(main())",
) -> str:
    return PROGRAM.format(task=task, items=items, more=more, options=options, run=run)


def begin(screen: PtyScreen, script: str) -> None:
    screen.spawn(script)
    screen.wait_until(lambda: "? help" in screen.text, "which keys there are")


def echoes(screen: PtyScreen) -> bool:
    return bool(screen.settings[3] & termios.ECHO)


@pytest.fixture
def wide() -> Iterator[PtyScreen]:
    screen = PtyScreen(120, 40)
    yield screen
    screen.close()


@pytest.mark.parametrize("level", ["compact", "detailed", "full"])
def test_keys_change_a_run(level: str, wide: PtyScreen) -> None:
    """Each key does what it says, says so, and the run goes on; at the end all are told."""
    found = wide.settings
    begin(wide, program(options=f"dashboard={level!r}"))
    assert not echoes(wide)
    wide.type(b"2")
    wide.wait_until(lambda: "Enrich chosen: 5 workers" in wide.text)
    assert "»Enrich" in wide.text
    wide.type(b"+")
    wide.wait_until(lambda: "Enrich: 6 workers" in wide.text)
    wide.wait_until(lambda: "/6" in wide.text)
    wide.type(b"\x1b[A")
    wide.wait_until(lambda: "Fetch chosen: 5 workers" in wide.text)
    assert "»Fetch" in wide.text
    wide.type(b"-")
    wide.wait_until(lambda: "Fetch: 4 workers" in wide.text)
    wide.wait_until(lambda: "/4" in wide.text)
    wide.type(b"p")
    wide.wait_until(lambda: "paused" in wide.text)
    wide.type(b"p")
    wide.wait_until(lambda: "resumed" in wide.text)
    wide.type(b"e")
    wide.wait_until(lambda: "─ errors" in wide.text and "running  done" not in wide.text)
    wide.type(b"e?")
    wide.wait_until(lambda: "? close help" in wide.text and "─ errors" not in wide.rows[1])
    wide.type(b"?")
    wide.wait_until(lambda: "? help" in wide.text)
    wide.type(b"q")
    wide.wait_until(lambda: "cancel the run? q again" in wide.text)
    wide.type(b"x")
    wide.wait_until(lambda: "not cancelled" in wide.text)
    wide.type(b"q")
    wide.wait_until(lambda: "cancel the run? q again" in wide.text)
    wide.type(b"q")
    assert wide.wait() == 0
    told = " ".join(wide.paper.split())
    said = r"keys: 0:\d\d \+ Enrich: 6 workers; 0:\d\d - Fetch: 4 workers; 0:\d\d p paused; "
    assert re.search(said + r"0:\d\d p resumed; 0:\d\d q cancelled", told)
    assert "cancelled>" in told
    assert "»" not in wide.text
    assert wide.settings == found


def test_d_finishes_what_is_in_the_pipeline(screen: PtyScreen) -> None:
    """Nothing more is taken in, nothing is cancelled, and a paused run is resumed for it."""
    begin(screen, program())
    screen.type(b"p")
    screen.wait_until(lambda: "paused" in screen.text)
    screen.type(b"d")
    assert screen.wait() == 0
    assert "stopped" in screen.paper
    assert "cancelled>" not in screen.paper
    assert echoes(screen)


def test_plus_without_a_choice_is_for_the_bottleneck(screen: PtyScreen) -> None:
    """The stage that the advice names gets the worker."""
    begin(screen, program())
    screen.wait_until(lambda: "▶Enrich" in screen.text, "the bottleneck")
    screen.type(b"+")
    screen.wait_until(lambda: "Enrich: 6 workers" in screen.text)


def test_other_text_changes_nothing_and_is_not_shown(screen: PtyScreen) -> None:
    """Letters that are not keys, other sequences, and pasted text are ignored."""
    begin(screen, program())
    for text in (b"xyz", b"\x1b[15~", b"\x1b[200~", b"qq+d" * 10, "日本".encode()):
        screen.type(text)

    def answers() -> bool:
        screen.type(b"2")  # the first may belong to what was pasted
        return "Enrich chosen: 5 workers" in screen.text

    screen.wait_until(answers)
    assert "xyz" not in screen.paper
    assert "日本" not in screen.paper
    screen.signal(signal.SIGINT)
    screen.wait()


WAYS_OUT = {
    "end": ("pass", 0),
    "Ctrl-C": ("pass", -signal.SIGINT),
    "SIGTERM": ("pass", -signal.SIGTERM),
    "SIGHUP": ("pass", -signal.SIGHUP),
    "SIGKILL": ("pass", -signal.SIGKILL),
    "crash": ("number < 40 or os.abort()", -signal.SIGABRT),
    "exit": ("if number > 40: sys.exit(7)", 7),
    "killed child": (
        "if number == 20: os.kill(subprocess.Popen(['sleep', '60']).pid, 9)",
        -signal.SIGINT,
    ),
}

GIVEN_BACK = """
asyncio.run(main())
if not termios.tcgetattr(0)[3] & termios.ECHO:
    sys.exit("the terminal echoes nothing")
for thread in threading.enumerate():
    if thread.name == "antflow-keys":
        thread.join(5)
        if thread.is_alive():
            sys.exit("keys are still read")
"""


@pytest.mark.parametrize("way", WAYS_OUT)
def test_every_way_out_restores_the_terminal(way: str, screen: PtyScreen) -> None:
    """The settings are those from before, however the program ends."""
    found = screen.settings
    task, code = WAYS_OUT[way]
    items = 100 if way == "end" else 100_000
    begin(screen, program(task, items, run=GIVEN_BACK))
    assert not echoes(screen)
    screen.wait_until(lambda: re.search(r"\b[1-9]\d* ok", screen.text) is not None)
    if code == -signal.SIGINT and way != "Ctrl-C":
        screen.wait_until(lambda: re.search(r"\b[3-9]\d ok", screen.text) is not None)
        screen.signal(signal.SIGINT)
    elif way == "Ctrl-C":
        screen.signal(signal.SIGINT)
    elif way.startswith("SIG"):
        screen.signal(getattr(signal, way))
    assert screen.wait() == code
    screen.wait_until(lambda: screen.settings == found, "the settings from before")


def test_display_that_fails_gives_the_keyboard_back(screen: PtyScreen) -> None:
    """When its render raises, the keys end with it, and the run goes on."""
    found = screen.settings
    more = (
        "from antflow.display import BaseDashboard\n"
        "told = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: told.append(1))\n"
        "class Bad(BaseDashboard):\n"
        "    def render(self, snapshot):\n"
        "        if told: raise ValueError('broken')\n"
        "        return 'fine'\n"
    )
    task = "while number == 40 and len(told) < 2: await asyncio.sleep(0.02)"
    screen.spawn(program(task, 50, more, options="custom_dashboard=Bad()"))
    screen.wait_until(lambda: not echoes(screen), "keys")
    screen.signal(signal.SIGUSR1)
    screen.wait_until(lambda: screen.settings == found, "the keyboard back")
    assert screen.is_running
    screen.signal(signal.SIGUSR1)
    assert screen.wait() == 0
    assert "over:" in screen.paper


def test_display_without_keys_that_is_left(screen: PtyScreen) -> None:
    """When the only display with keys is over, those that go on leave the keyboard alone."""
    found = screen.settings
    run = (
        "async def both():\n"
        "    other = Pipeline([Stage('Other', 1, [fetch], task_attempts=1)])\n"
        "    going = asyncio.create_task(other.run(range(100_000), dashboard='compact'))\n"
        "    await main()\n"
        "    await going\n"
        "asyncio.run(both())"
    )
    begin(screen, program(items=40, run=run))
    assert not echoes(screen)
    screen.wait_until(lambda: "over:" in screen.paper)
    screen.wait_until(lambda: screen.settings == found, "the settings from before")
    assert screen.is_running
    screen.wait_until(lambda: re.search(r"\b[1-9]\d* ok", screen.text) is not None)
    screen.signal(signal.SIGINT)
    assert screen.wait() == -signal.SIGINT


def test_input_and_getpass_own_the_keyboard(screen: PtyScreen) -> None:
    """An answer is not taken for keys: the display goes, the answer is echoed, a password not."""
    task = (
        "if number == 20:\n"
        "        a = await asyncio.to_thread(input, 'sure? ')\n"
        "        b = await asyncio.to_thread(getpass.getpass, 'secret? ')\n"
        "        print('answers', a, b)"
    )
    begin(screen, program(task))
    screen.wait_until(lambda: "sure? " in screen.text)
    assert echoes(screen)
    screen.type(b"qqd\n")
    screen.wait_until(lambda: "secret? " in screen.text)
    assert re.search(r"qqd$", screen.paper, re.M)
    screen.wait_until(lambda: not echoes(screen), "getpass")
    screen.type(b"ppqq\n")
    screen.wait_until(lambda: "answers qqd ppqq" in screen.paper)
    screen.wait_until(lambda: "? help" in screen.text and not echoes(screen), "keys again")
    screen.type(b"2")
    screen.wait_until(lambda: "Enrich chosen" in screen.text)
    screen.signal(signal.SIGINT)
    screen.wait()
    assert echoes(screen)


def test_breakpoint_owns_the_keyboard(screen: PtyScreen) -> None:
    """Commands of a debugger are not taken for keys; afterwards keys work again."""
    begin(screen, program("if number == 20: breakpoint()"))
    screen.wait_until(lambda: "(Pdb)" in screen.text)
    screen.type(b"p number\n")
    screen.wait_until(lambda: re.search(r"^20$", screen.paper, re.M) is not None)
    screen.type(b"c\n")
    screen.wait_until(lambda: "? help" in screen.text and not echoes(screen), "keys again")
    screen.type(b"2")
    screen.wait_until(lambda: "Enrich chosen" in screen.text)


def test_password_prompt_of_another_program_owns_the_keyboard(screen: PtyScreen) -> None:
    """A child that switches the echo off, as ``ssh`` does, gets what is typed."""
    child = (
        "import os, termios, time\n"
        "tty = os.open(os.environ['TTY'], os.O_RDWR | os.O_NOCTTY)\n"
        "old = termios.tcgetattr(tty)\n"
        "new = termios.tcgetattr(tty)\n"
        "new[3] &= ~(termios.ECHO | termios.ECHONL)\n"
        "new[3] |= termios.ICANON\n"
        "termios.tcsetattr(tty, termios.TCSAFLUSH, new)\n"
        "os.write(tty, b'password: ')\n"
        "time.sleep(0.5)\n"
        "answer = os.read(tty, 100)\n"
        "termios.tcsetattr(tty, termios.TCSANOW, old)\n"
        "print('got', answer)\n"
    )
    task = (
        "if number == 20:\n"
        f"        child = [sys.executable, '-c', {child!r}]\n"
        "        env = os.environ | {'TTY': os.ttyname(0)}\n"
        "        await asyncio.to_thread(subprocess.run, child, env=env)"
    )
    begin(screen, program(task))
    screen.wait_until(lambda: "password: " in screen.paper)
    screen.type(b"dqq\n")
    screen.wait_until(lambda: "got b'dqq\\n'" in screen.paper)
    screen.type(b"2")
    screen.wait_until(lambda: "Enrich chosen" in screen.text)


def test_keys_wait_for_a_blocked_loop(screen: PtyScreen) -> None:
    """They are read meanwhile, not echoed, and do their work when the loop is free."""
    task = "if number == 20: print('blocked'); signal.sigwait([signal.SIGUSR1])"
    # Blocked from the beginning, in all threads: else it would end the program.
    more = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])"
    begin(screen, program(task, more=more))
    screen.wait_until(lambda: "blocked" in screen.paper)
    screen.type(b"2+")
    time.sleep(0.3)
    assert "Enrich" in screen.text
    assert "chosen" not in screen.text
    screen.signal(signal.SIGUSR1)
    screen.wait_until(lambda: "Enrich: 6 workers" in screen.text)
    assert "2+" not in screen.paper


def test_keys_with_uvloop(screen: PtyScreen) -> None:
    """The loop does not matter."""
    pytest.importorskip("uvloop")
    begin(screen, program(run="import uvloop; uvloop.run(main())"))
    screen.type(b"2+")
    screen.wait_until(lambda: "Enrich: 6 workers" in screen.text)
    screen.type(b"qq")
    assert screen.wait() == 0
    assert echoes(screen)


def test_standard_input_that_is_not_a_terminal_is_left_alone(screen: PtyScreen) -> None:
    """``program < file``: there are no keys, and the settings stay."""
    found = screen.settings
    script = "import os; os.dup2(os.open(os.devnull, os.O_RDONLY), 0)\n" + program(items=40)
    screen.spawn(script)
    screen.wait_until(lambda: "ok" in screen.text)
    assert screen.settings == found
    assert screen.wait() == 0
    assert b"? help" not in screen.raw
    why = "standard input is not a terminal that can be read"
    assert f"keys=True: no keys are read: {why}" in " ".join(screen.paper.split())


SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
pid = os.fork()
if not pid:
    os.setpgid(0, 0)
    {foreground}os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", {program!r}])
settings = termios.tcgetattr(0)
while True:
    _, status = os.waitpid(pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    is_restored = termios.tcgetattr(0) == settings
    if not os.WIFSTOPPED(status):
        print("ended", os.waitstatus_to_exitcode(status), is_restored, flush=True)
        break
    print("stopped", is_restored, flush=True)
    if sys.stdin.readline() == "fg\\n":
        os.tcsetpgrp(0, pid)
    os.kill(-pid, signal.SIGCONT)
"""


def test_keys_after_ctrl_z_and_fg(screen: PtyScreen) -> None:
    """The shell gets the terminal as it was, and after ``fg`` keys work again."""
    begin(screen, SHELL.format(foreground="", program=program()))
    for _ in range(2):
        screen.wait_until(lambda: "? help" in screen.text and not echoes(screen), "keys")
        screen.type(b"\x1a")
        screen.wait_until(lambda: "stopped True" in screen.text)
        screen.type(b"fg\n")
        screen.wait_until(lambda: "? help" in screen.rows[-1] + screen.text)
    screen.wait_until(lambda: not echoes(screen), "keys")
    screen.type(b"2+")
    screen.wait_until(lambda: "Enrich: 6 workers" in screen.text)
    screen.type(b"d")
    screen.wait_until(lambda: "ended 0 True" in screen.text)


IN_A_THREAD = (
    "thread = threading.Thread(target=asyncio.run, args=[main()])\nthread.start()\nthread.join()"
)


@pytest.mark.parametrize("run", ["asyncio.run(main())", IN_A_THREAD], ids=["main", "thread"])
def test_keys_after_a_stop_without_a_word(screen: PtyScreen, run: str) -> None:
    """A program that was stopped by ``kill -STOP`` has its display and keys again after ``fg``."""
    script = SHELL.format(
        foreground="", program="import os\nprint('pid', os.getpid())\n" + program(run=run)
    )
    script = script.replace(
        "    is_restored =", "    termios.tcsetattr(0, 0, settings)\n    is_restored ="
    )
    begin(screen, script)
    screen.wait_until(lambda: not echoes(screen), "keys")
    pid = re.search(r"pid (\d+)", screen.paper)
    assert pid is not None
    os.kill(int(pid[1]), signal.SIGSTOP)
    screen.wait_until(lambda: "stopped True" in screen.paper)
    screen.type(b"fg\n")
    screen.wait_until(lambda: not echoes(screen), "keys")
    screen.type(b"2+")
    screen.wait_until(lambda: "Enrich: 6 workers" in screen.text)
    screen.type(b"d")
    screen.wait_until(lambda: "ended 0 True" in screen.text)


def test_job_in_the_background_reads_nothing(screen: PtyScreen) -> None:
    """With ``&`` it is not stopped, what is typed is not its, and the echo stays on."""
    script = SHELL.format(foreground="0 and ", program=program(items=60))
    found = screen.settings
    screen.spawn(script)
    screen.wait_until(lambda: " ok" in screen.text)
    assert echoes(screen)
    screen.type(b"qq")
    screen.wait_until(lambda: "ended 0 True" in screen.text)
    assert not re.search(r"^stopped", screen.paper, re.M)
    assert b"? help" not in screen.raw
    assert "cancelled>" not in screen.paper
    assert screen.settings == found


EDITING_SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
found, editing = termios.tcgetattr(0), termios.tcgetattr(0)
editing[3] &= ~(termios.ECHO | termios.ICANON)
termios.tcsetattr(0, termios.TCSANOW, editing)
pid = os.fork()
if not pid:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", {program!r}])
os.read(0, 1)
termios.tcsetattr(0, termios.TCSANOW, found)
os.tcsetpgrp(0, pid)
_, status = os.waitpid(pid, 0)
os.tcsetpgrp(0, os.getpgrp())
print("ended", os.waitstatus_to_exitcode(status), termios.tcgetattr(0) == found, flush=True)
"""
"""It reads single keys while it waits for a command, as shells do. Any key is ``fg``."""


def test_job_that_began_in_the_background_comes_to_the_front(screen: PtyScreen) -> None:
    """With ``&`` and later ``fg`` the display is there, and so are the keys."""
    screen.spawn(EDITING_SHELL.format(program=program()))
    screen.wait_until(lambda: " ok" in screen.text)
    screen.type(b"f")
    screen.wait_until(lambda: "? help" in screen.text, "keys")
    screen.type(b"2+")
    screen.wait_until(lambda: "Enrich: 6 workers" in screen.text)
    screen.type(b"d")
    screen.wait_until(lambda: "ended 0 True" in screen.text)


def test_keys_in_what_is_read() -> None:
    """Arrows have names; a sequence that is not known is left out as a whole."""
    assert keys_in(b"p+\x1b[A\x1b[B\x1bOA") == ["p", "+", "up", "down", "up"]
    assert keys_in(b"\x1b[1;5A\x1b[15~q\x1b") == ["q"]
    assert keys_in(b"x" * 17) == []
    assert keys_in(b"\xff") == []
