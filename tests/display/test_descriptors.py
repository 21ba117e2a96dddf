"""Whoever writes to the terminal while a display is up: its lines stand above, whole, and once."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pytest

from antflow.display import create
from antflow.display.terminal import descriptors, relay
from tests.display.conftest import (
    NO_ERRORS,
    MakeTerminal,
    make_snapshot,
    use_up_pseudo_terminals,
)
from tests.display.test_screen import Lines, assert_nothing_is_left, begin, finish, letters, update
from tests.pty_screen import PATIENCE, PtyScreen

PROGRAM = """
import asyncio, ctypes, os, subprocess, sys, time
held = sys.stderr, sys.stdout
from antflow import Pipeline, Stage

library = ctypes.CDLL(None)
holding = ctypes.PyDLL(None)  # it keeps the global lock while it writes

def by_old_stream(number):
    print("line", number, file=held[number % 2])

def by_descriptor(number):
    os.write(1 + number % 2, b"line %d\\n" % number)

def by_c(number):
    library.printf(b"line %d\\n", number)
    library.fflush(None)

def by_c_that_prints_much(number):
    holding.puts(b"line %d\\n" % number + (b"x" * 78 + b"\\n") * 1000)
    holding.fflush(None)

def by_child(number):
    subprocess.run([sys.executable, "-c", f"import sys; print('line', {number}, file=sys.stderr)"])

def by_shell(number):
    os.system(f"echo line {number}")

def by_fork(number):
    child = os.fork()
    if not child:
        print("line", number, flush=True)
        os._exit(0)
    os.waitpid(child, 0)

async def run(task, level, items=6, **options):
    options |= dict(progress=True) if level == "progress" else dict(dashboard=level)
    await Pipeline([Stage("Work", 1, [task])]).run(
        range(items), dashboard_update_interval=0.02, **options
    )
"""

WAYS = re.findall(r"def (by_\w+)", PROGRAM)


def lines_of(screen: PtyScreen) -> list[str]:
    return [line for line in screen.paper.splitlines() if line.startswith("line ")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("level", ["compact", "full"])
def test_lines_of_all_that_can_write(way: str, level: str, screen: PtyScreen) -> None:
    """An old stream, a descriptor, C code, a child: each line once and in order, one last frame."""
    wrapper = f"""
import warnings; warnings.simplefilter("ignore")  # for a fork beside threads
async def work(number):
    {way}(number)
    await asyncio.sleep(0.01)
asyncio.run(run(work, {level!r}))
print("terminal", os.isatty(1), os.isatty(2), os.get_terminal_size(2), sys.stderr is held[0])
"""
    screen.spawn(PROGRAM + wrapper)
    assert screen.wait() == 0, screen.paper
    assert lines_of(screen) == [f"line {number}" for number in range(6)]
    assert screen.paper.count("6/6") == 1
    last = screen.paper.splitlines()[-2:]
    assert last == [
        "6 ok, 0 failed",
        "terminal True True os.terminal_size(columns=80, lines=24) True",
    ]
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate


WRAPPERS = """
class Delegating:
    def __init__(self, stream):
        self._stream = stream
    def write(self, text):
        return self._stream.write(text)
    def __getattr__(self, name):
        return getattr(self._stream, name)

class Tee:
    def __init__(self, stream):
        self._stream = stream
    def write(self, text):
        with open({copy!r}, "a") as copy:
            copy.write(text)
        return self._stream.write(text)
    def flush(self):
        pass
    def isatty(self):
        return True
    def fileno(self):
        return self._stream.fileno()

sys.stdout, sys.stderr = {kind}(sys.stdout), {kind}(sys.stderr)
"""


@pytest.mark.parametrize("kind", ["Delegating", "Tee"])
@pytest.mark.parametrize("level", ["compact", "full"])
def test_objects_in_front_of_the_standard_streams(
    kind: str, level: str, screen: PtyScreen, tmp_path: Path
) -> None:
    """Lines written past them come out as well, and a tee copies what is printed but no frame."""
    copy = tmp_path / "copy.txt"
    script = f"""
async def work(number):
    print("line", 2 * number, file=held[number % 2])
    print("line", 2 * number + 1, file=(sys.stderr, sys.stdout)[number % 2])
    if number == 5:
        print("unfinished", end="")
    await asyncio.sleep(0.01)
asyncio.run(run(work, {level!r}))
"""
    screen.spawn(PROGRAM + WRAPPERS.format(copy=str(copy), kind=kind) + script)
    assert screen.wait() == 0, screen.paper
    assert lines_of(screen) == [f"line {number}" for number in range(12)]
    assert screen.paper.count("6/6") == 1
    assert screen.paper.index("unfinished") < screen.paper.index("6/6")
    assert not screen.is_cursor_hidden
    if kind == "Tee":
        lines = [f"line {number}" for number in range(1, 12, 2)]
        assert copy.read_text() == "\n".join([*lines, "unfinished"])


@pytest.mark.parametrize("level", ["compact", "full"])
def test_tee_where_descriptors_cannot_be_captured(
    level: str, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still given what is printed on it."""
    screen = terminal()
    use_up_pseudo_terminals(monkeypatch)
    tee = Tee(screen.stream)
    monkeypatch.setattr(sys, "stderr", tee)
    display = create(level)
    display.on_start(None, 1)
    display.on_update(make_snapshot())
    sys.stderr.write("printed\n")
    display.on_update(make_snapshot(seed=2))
    display.on_finish([], NO_ERRORS)
    assert "printed" in "".join(tee.copied)
    assert "printed" in screen.paper
    assert sys.stderr is tee


class Tee:
    """Copies what is written to a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.copied: list[str] = []

    def write(self, text: str) -> int:
        self.copied.append(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def test_terminal_is_true_to_programs(screen: PtyScreen, tmp_path: Path) -> None:
    """A child sees a terminal of the same size and settings, even when the window is dragged."""
    file = tmp_path / "seen"
    ask = (
        "import os, sys, termios; print(*os.get_terminal_size(1), termios.tcgetattr(1)[:4],"
        f" file=open({str(file)!r}, 'a'))"
    )
    script = f"""
async def work(number):
    while os.get_terminal_size(1).columns != (80, 60)[number]:
        await asyncio.sleep(0.005)
    subprocess.run([sys.executable, "-c", {ask!r}])
asyncio.run(run(work, "compact", items=2))
"""
    settings = screen.settings[:4]
    screen.spawn(PROGRAM + script)
    screen.wait_until(file.exists, "the first answer")
    screen.resize(60, 20)
    assert screen.wait() == 0
    assert file.read_text().splitlines() == [f"80 24 {settings}", f"60 20 {settings}"]


@pytest.mark.parametrize("redirected", ["stdout", "stderr"])
def test_redirected_stream_is_left_alone(
    redirected: str, screen: PtyScreen, tmp_path: Path
) -> None:
    """A file gets all that is written to it, and nothing of the display."""
    number = 1 if redirected == "stdout" else 2
    script = f"""
file = os.open({str(tmp_path / "file")!r}, os.O_CREAT | os.O_WRONLY)
os.dup2(file, {number})
async def work(number):
    os.write({number}, b"to the file\\n")
    os.write({3 - number}, b"line %d\\n" % number)
    print("by print", file=sys.{redirected})
asyncio.run(run(work, "compact"))
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == 0
    assert (tmp_path / "file").read_text() == "to the file\nby print\n" * 6
    assert lines_of(screen) == [f"line {number}" for number in range(6)]
    assert screen.paper.splitlines()[-1] == "6 ok, 0 failed"


@pytest.mark.parametrize("program_goes_on", [True, False])
def test_child_that_outlives_the_display(program_goes_on: bool, screen: PtyScreen) -> None:
    """It goes on printing, whether the program goes on or not: no signal and no error ends it."""
    script = f"""
child = '''
import sys, time
for number in range(40):
    print("line", number, flush=True)
    time.sleep(0.02)
print("line over")
'''
async def work(number):
    if number == 0:
        subprocess.Popen([sys.executable, "-c", child]).returncode = 0
    await asyncio.sleep(0.02)
asyncio.run(run(work, "compact"))
print("after")
if {program_goes_on}:
    sys.stdin.readline()
"""
    screen.spawn(PROGRAM + script)
    screen.wait_until(lambda: "line over" in screen.paper, "the end of the child")
    if program_goes_on:
        screen.type(b"\n")
    assert screen.wait() == 0
    assert lines_of(screen) == [*(f"line {number}" for number in range(40)), "line over"]
    assert "after" in screen.paper
    assert not screen.is_cursor_hidden


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
@pytest.mark.parametrize("relay_is_killed", [False, True])
def test_program_that_takes_in_orphans(relay_is_killed: bool, screen: PtyScreen) -> None:
    """The first process of a container is left no zombies by its displays."""
    script = f"""
async def work(number):
    if {relay_is_killed} and number == 1:
        with open("/proc/self/task/%d/children" % os.getpid()) as children:
            os.kill(int(children.read()), 9)
    await asyncio.sleep(0.05)

library.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
for _ in range(3):
    asyncio.run(run(work, "compact"))
deadline = time.monotonic() + {PATIENCE / 2}
try:
    while time.monotonic() < deadline:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        time.sleep(0.01)
    print("line some are left")
except ChildProcessError:
    print("line none is left")
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == 0
    assert lines_of(screen) == ["line none is left"]


def test_fork_while_a_display_begins(screen: PtyScreen) -> None:
    """A child that is forked at any moment, and stays, does not hold up what is printed."""
    script = """
import threading, warnings; warnings.simplefilter("ignore")
pipe = os.pipe

def slow_pipe():
    ends = pipe()
    if threading.current_thread() is not threading.main_thread():
        time.sleep(0.3)
    return ends

async def work(number):
    if number == 0 and not os.fork():
        os.close(to_child)
        os.read(from_parent, 1)
        os._exit(0)
    print("line", number)
    await asyncio.sleep(0.01)

from_parent, to_child = pipe()
os.pipe = slow_pipe
asyncio.run(run(work, "compact"))
os.close(to_child)
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == 0
    lines = [line for line in screen.paper.splitlines() if line.startswith(("line ", "6 ok"))]
    assert lines == [*(f"line {number}" for number in range(6)), "6 ok, 0 failed"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("level", ["compact", "full"])
def test_pool_that_is_kept_over_several_runs(level: str, method: str, screen: PtyScreen) -> None:
    """What its processes print appears above each display, and in between, once and in order."""
    script = f"""
import multiprocessing, threading, warnings; warnings.simplefilter("ignore")
from concurrent.futures import ProcessPoolExecutor

async def work(number):
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(pool, os.write, 1, b"line %d\\n" % number)

pool = ProcessPoolExecutor(1, multiprocessing.get_context({method!r}))
for _ in range(3):
    asyncio.run(run(work, {level!r}, items=3))
    pool.submit(os.write, 1, b"line between\\n").result()
    time.sleep(0.1)
pool.shutdown()
for thread in threading.enumerate():
    if thread.name == "antflow-prints" and {method!r} == "fork":  # spawn has a resource tracker
        thread.join()
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == 0, screen.paper
    lines = [line for line in screen.paper.splitlines() if line.startswith(("line ", "3 ok"))]
    one = [*(f"line {number}" for number in range(3)), "3 ok, 0 failed", "line between"]
    assert lines == one * 3
    assert not screen.is_cursor_hidden


@pytest.mark.parametrize("level", ["compact", "full"])
@pytest.mark.parametrize(
    ("crash", "code", "told"),
    [
        ("faulthandler._sigsegv()", -signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
        ("os.abort()", -signal.SIGABRT, "Fatal Python error: Aborted"),
        ("os._exit(3)", 3, "line 5"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "line 5"),
    ],
)
def test_crash(level: str, crash: str, code: int, told: str, screen: PtyScreen) -> None:
    """What was written last comes out, and the terminal is given back."""
    script = f"""
import faulthandler, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler.enable()
async def work(number):
    os.write(2, b"line %d\\n" % number)
    await asyncio.sleep(0.05)
    if number == 5:
        {crash}
        await asyncio.sleep(3600)
asyncio.run(run(work, {level!r}))
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == code
    screen.wait_until(lambda: told in screen.paper, told)
    screen.wait_until(lambda: not screen.is_cursor_hidden, "the cursor")
    assert not screen.is_alternate


@pytest.mark.parametrize("level", ["progress", "compact", "full"])
def test_line_that_was_begun_before(level: str, screen: PtyScreen) -> None:
    """It stays, and the display begins below."""
    script = f"""
async def work(number):
    await asyncio.sleep(0.02)
print("Working... ", end="", flush=True)
asyncio.run(run(work, {level!r}))
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == 0
    assert screen.paper.splitlines()[0] == "Working..."


def test_many_open_files(screen: PtyScreen) -> None:
    """All that is printed appears, and the program ends, however high its descriptors are."""
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1200:
        pytest.skip("so many files cannot be opened")
    script = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
async def work(number):
    await asyncio.sleep(0.02)
    print("line", number)
for _ in range(2):
    asyncio.run(run(work, "compact"))
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == 0
    assert lines_of(screen) == [f"line {number}" for number in range(6)] * 2
    assert not screen.is_cursor_hidden


def test_other_name_of_the_terminal(screen: PtyScreen) -> None:
    """With standard error in ``/dev/tty``, prints appear above the display all the same."""
    script = """
os.dup2(os.open("/dev/tty", os.O_RDWR), 2)
async def work(number):
    await asyncio.sleep(0.05)
    print("line", number)
asyncio.run(run(work, "compact"))
"""
    screen.spawn(on_its_terminal(PROGRAM + script))
    assert screen.wait() == 0
    assert lines_of(screen) == [f"line {number}" for number in range(6)]
    assert screen.paper.count("6/6") == 1


def test_results_through_a_pipe_to_the_terminal(screen: PtyScreen) -> None:
    """``| cat`` prints them below the last frame: the display does not flush the pipe."""
    script = """
cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
os.dup2(cat.stdin.fileno(), 1)
sys.stdout.reconfigure(line_buffering=False)
async def work(number):
    await asyncio.sleep(0.02)
    print("line", number)
asyncio.run(run(work, "compact"))
sys.stdout.flush()
cat.stdin.close()
os.close(1)
cat.wait()
os._exit(0)
"""
    screen.spawn(PROGRAM + script)
    assert screen.wait() == 0
    lines = screen.paper.splitlines()
    assert screen.paper.count("6/6") == 1
    assert lines[-7:] == ["6 ok, 0 failed", *(f"line {number}" for number in range(6))]


@pytest.mark.parametrize("way", ["fork", "program"])
@pytest.mark.parametrize("level", ["compact", "full"])
def test_display_in_a_child(level: str, way: str, screen: PtyScreen, tmp_path: Path) -> None:
    """It writes plain lines, which appear above the display of its parent."""
    script = """
import threading, warnings; warnings.simplefilter("ignore")

async def inner(number):
    await asyncio.sleep(0.05)

def run_inner():
    asyncio.run(run(inner, LEVEL))

async def work(number):
    if WAY == "program":
        subprocess.run([sys.executable, __file__, "inner"], env={'TERM': 'xterm'})
    elif child := os.fork():
        os.waitpid(child, 0)
    else:
        thread = threading.Thread(target=run_inner)  # here a loop is running
        thread.start()
        thread.join()
        os._exit(0)

if sys.argv[1:]:
    run_inner()
else:
    asyncio.run(run(work, LEVEL, items=1))
"""
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nsys.path[:] = {sys.path!r}\nLEVEL, WAY = {level!r}, {way!r}"
        + PROGRAM
        + script
    )
    screen.spawn(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')")
    assert screen.wait() == 0, screen.paper
    lines = screen.paper.splitlines()
    assert lines.count("6 ok, 0 failed") == 1
    assert lines.count("1 ok, 0 failed") == 1
    assert any(" pipeline: 100% 6/6" in line for line in lines), screen.paper
    assert screen.paper.count("━  100%") == 1


# -- questions --------------------------------------------------------------------------------

QUESTIONS = {
    "input": 'answer = input("Name? ")',
    "input under another name": 'answer = ask("Name? ")',
    "print, then input": 'print("Name? ", end="", flush=True); answer = input()',
    "input with readline": 'import readline; answer = input("Name? ")',
    "input in a thread": 'answer = await asyncio.to_thread(input, "Name? ")',
    "getpass": 'from getpass import getpass; answer = getpass("Name? ")',
    "a child": """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import readline; print('got', input('Name? '))")
    await child.wait(); answer = "it" """,
}


def on_its_terminal(script: str) -> str:
    """The script as the leader of a session of its own, so that it can open ``/dev/tty``."""
    return "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + script


@pytest.mark.parametrize("how", QUESTIONS)
@pytest.mark.parametrize("level", ["compact", "full"])
def test_question_during_a_display(how: str, level: str, screen: PtyScreen) -> None:
    """The question is seen at once, alone, with the cursor behind it; then the display is back."""
    script = f"""
ask = input
async def work(number):
    print("line", number)
    await asyncio.sleep(0.05)
    if number == 2:
        {QUESTIONS[how].strip()}
        print("got", answer)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(run(work, {level!r}))
"""
    script = script.replace("\n    child", "\n        child").replace(
        "\n    await c", "\n        await c"
    )
    screen.spawn(on_its_terminal(PROGRAM + script))
    screen.wait_until(lambda: screen.text.endswith("Name?"), "the question")
    row = next(n for n, text in enumerate(screen.rows) if text == "Name?")
    assert (screen._screen.cursor.y, screen._screen.cursor.x) == (row, 6)
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    assert "0%" not in screen.text
    time.sleep(0.2)  # for several frames that are not drawn
    screen.type(b"Ann")
    typed = "Name?" if how == "getpass" else "Name? Ann"
    screen.wait_until(lambda: screen.rows[row] == typed, "what is typed")
    assert "0%" not in screen.text
    screen.type(b"\n")
    screen.wait_until(lambda: "2/6" in screen.text, "the display again")
    assert screen.is_cursor_hidden
    assert screen.is_alternate == (level == "full")
    screen.type(b"\n")
    assert screen.wait() == 0
    lines = screen.paper.splitlines()
    assert sum(line.startswith(("got Ann", "got it")) for line in lines) >= 1
    assert lines.count(typed) == 1
    assert screen.paper.count("6/6") == 1
    assert lines_of(screen) == [f"line {number}" for number in range(6)]


@pytest.mark.parametrize("level", ["compact", "full"])
def test_question_that_outlasts_the_display(level: str, screen: PtyScreen) -> None:
    """A thread that asks gets its answer, though the run has ended meanwhile."""
    script = f"""
async def work(number):
    await asyncio.sleep(0.05)
    if number == 2:
        asyncio.get_running_loop().run_in_executor(None, ask)
        await asyncio.sleep(0.2)

def ask():
    print("got", input("Name? "))

async def main():
    await run(work, {level!r})
    print("the run is over")
asyncio.run(main())
"""
    screen.spawn(PROGRAM + script)
    screen.wait_until(lambda: "the run is over" in screen.text)
    screen.type(b"Ann\n")
    assert screen.wait() == 0
    assert screen.paper.splitlines()[-1] == "got Ann"


@pytest.mark.parametrize("level", ["compact", "full"])
def test_question_that_is_open_when_the_next_display_begins(level: str, screen: PtyScreen) -> None:
    """What is typed is the answer, not keys, and the display stays away until then."""
    script = f"""
asked = threading.Event()

async def work(number):
    await asyncio.sleep(0.05)
    if number == 2 and not asked.is_set():
        asyncio.get_running_loop().run_in_executor(None, ask)
        await asyncio.sleep(0.2)

def ask():
    asked.set()
    answer = input("Name? ")
    asked.clear()
    print("got", answer)

async def main():
    await run(work, "compact")
    await run(wait, {level!r}, keys=True)

async def wait(number):
    while asked.is_set():
        await asyncio.sleep(0.01)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""
    screen.spawn("import threading\n" + PROGRAM + script)
    screen.wait_until(lambda: "6 ok" in screen.text)
    time.sleep(0.3)  # for several frames that are not drawn
    assert not screen.is_alternate
    assert not screen.is_cursor_hidden
    screen.type(b"dqq")
    screen.wait_until(lambda: screen.text.endswith("dqq"), "what is typed")
    screen.type(b"\n")
    screen.wait_until(lambda: "? help" in screen.text, "the display")
    assert screen.is_alternate == (level == "full")


@pytest.mark.parametrize("level", ["compact", "full"])
def test_question_before_the_settings_tell(level: str, screen: PtyScreen) -> None:
    """A prompt is seen, though it is an unfinished line until its program turns the echo off."""
    child = 'printf "Secret? "; sleep 0.2; stty -echo; read x; stty echo; echo; echo "got $x"'
    script = f"""
async def work(number):
    await asyncio.sleep(0.05)
    if number == 2:
        await (await asyncio.create_subprocess_shell({child!r})).wait()
asyncio.run(run(work, {level!r}))
"""
    screen.spawn(PROGRAM + script)
    screen.wait_until(lambda: screen.text.endswith("Secret?"), "the question")
    assert not screen.is_cursor_hidden
    screen.type(b"Ann\n")
    assert screen.wait() == 0
    assert "got Ann" in screen.paper.splitlines()


@pytest.mark.parametrize("level", ["compact", "full"])
def test_breakpoint_during_a_display(level: str, screen: PtyScreen) -> None:
    """The debugger can be used, and the display is back when it is left."""
    script = f"""
async def work(number):
    await asyncio.sleep(0.05)
    if number == 2:
        print("look")
        breakpoint()
asyncio.run(run(work, {level!r}))
"""
    screen.spawn(PROGRAM + script)
    screen.wait_until(lambda: screen.text.endswith("(Pdb)"), "the prompt")
    assert screen.text.startswith("look\n")
    assert "work()" in screen.text
    assert not screen.is_cursor_hidden
    screen.type(b"p number * 21\n")
    screen.wait_until(lambda: screen.text.endswith("42\n(Pdb)"), "the answer")
    screen.type(b"c\n")
    assert screen.wait() == 0
    assert screen.paper.splitlines()[-1] == "6 ok, 0 failed"
    assert screen.paper.count("6/6") == 1
    assert screen.paper.count("look") == 1


# -- in this process --------------------------------------------------------------------------


def test_functions_that_ask_are_put_back(terminal: MakeTerminal) -> None:
    """`input` is Python's own before and after."""
    terminal()
    before = input
    display = create("compact")
    display.on_start(None, 1)
    assert input is not before
    display.on_finish([], NO_ERRORS)
    assert input is before


def test_second_display_begins_while_all_is_captured(terminal: MakeTerminal) -> None:
    """It shares the screen of the first, though standard error leads to the pseudo terminal."""
    screen = terminal(40, 10)
    one, two = Lines("a", 1), Lines("b", 1)
    begin(one, two)
    os.write(screen.stream.fileno(), b"printed\n")
    assert letters(screen) == "pab"
    finish(one, two)
    assert_nothing_is_left(screen)


def test_relay_whose_program_ends_little_by_little() -> None:
    """It writes what the program has not taken, and the last words, when all ends are closed."""
    master, slave = os.openpty()
    (from_program, orders), (pieces, to_program) = os.pipe(), os.pipe()
    read, terminal = os.pipe()

    def run_relay() -> None:
        with suppress(OSError):
            relay.relay(master, terminal, from_program, to_program, -1, 1000)

    work = threading.Thread(target=run_relay)
    work.start()
    os.write(orders, relay.LAST_WORDS + b"given back, " + relay.END)
    os.write(slave, b"text")
    assert os.read(pieces, 100) == b"text"
    os.close(slave)
    work.join(0.1)
    os.close(orders)
    work.join(PATIENCE)
    os.set_blocking(read, False)
    assert os.read(read, 100) == b"given back, text"
    for each in (master, from_program, pieces, to_program, read, terminal):
        os.close(each)


def test_relay_that_is_killed(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads does its work as well as it can."""
    screen = terminal(40, 10)
    pids: list[int] = []
    start = descriptors._start_relay

    def start_and_kill(*args: int) -> object:
        monkeypatch.setattr(relay, "__file__", "/nowhere")
        pids.append(1)
        return start(*args)

    monkeypatch.setattr(descriptors, "_start_relay", start_and_kill)
    display = Lines("a", 1)
    begin(display)
    print("printed")  # noqa: T201
    update(display)
    assert letters(screen) == "pa"
    finish(display)
    assert pids
    assert_nothing_is_left(screen)


@pytest.mark.parametrize("level", ["progress", "compact", "full"])
def test_editor_in_a_child(level: str, screen: PtyScreen) -> None:
    """What an editor has switched on is off again, even if the keyboard was restored before."""
    script = f"""
editor = r'''
import sys, termios, tty
found = termios.tcgetattr(0)
tty.setraw(0)
print("\\033[?1049h\\033[?2004h\\033[?1h" "editing", end="", flush=True)
sys.stdin.buffer.raw.read(1)
termios.tcsetattr(0, termios.TCSADRAIN, found)
print("\\033[?1l\\033[?2004l\\033[?1049l", end="", flush=True)
'''
async def work(number):
    if number == 1:
        subprocess.run([sys.executable, "-c", editor])
    print("line", number)
asyncio.run(run(work, {level!r}))
"""
    screen.spawn(PROGRAM + script)
    screen.wait_until(lambda: "editing" in screen.text, "the editor")
    screen.type(b"q")
    assert screen.wait() == 0
    assert lines_of(screen) == [f"line {number}" for number in range(6)]
    assert not screen.is_alternate
    for mode in (b"1", b"2004", b"1049"):
        assert screen.raw.rfind(b"\x1b[?%bl" % mode) > screen.raw.rfind(b"\x1b[?%bh" % mode)
