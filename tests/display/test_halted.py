"""A terminal that takes nothing: Ctrl-S, a connection that hangs, a window that nobody reads."""

# ruff: noqa: T201 - what is printed is what is tested
from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

import pytest
from rich.live import Live

from antflow import ErrorSummary
from antflow.display import create, outlet, screen
from antflow.display.screen import _screens
from antflow.display.stream import SafeStream
from tests.display.conftest import MakeTerminal, make_snapshot
from tests.display.test_screen import (
    Lines,
    Whole,
    assert_nothing_is_left,
    begin,
    finish,
    letters,
    update,
)
from tests.pty_screen import PATIENCE, PtyScreen

LEVELS = ["progress", "compact", "detailed", "full"]
WAYS = ["Ctrl-S", "unread"]
ROOT = Path(__file__).parents[2]
NO_ERRORS = ErrorSummary(0, {}, {}, [])

# What goes through is said in a file, and a file says how much may go through.
PROGRAM = """
import asyncio, sys
from pathlib import Path
from antflow import Pipeline, Stage
from antflow.display import stream
from antflow.display.outlet import Outlet

folder = Path({folder!r})
seen = (folder / "seen").open("w", buffering=1)

async def work(number):
    while number >= int((folder / "limit").read_text() or 0):
        await asyncio.sleep(0.005)
    if number % 10 == 0 and {prints}:
        print("printed", number)
    seen.write(f"{{number}}\\n")

def wait(outlet, seconds, wait=Outlet.wait):
    seen.write("waits\\n")
    wait(outlet, min(seconds, 0.05))

Outlet.wait = wait
stream.LONGEST_WAIT = 0.01
options = dict(progress=True) if {level!r} == "progress" else dict(dashboard={level!r})
pipeline = Pipeline([Stage("Work", 1, [work])])
asyncio.run(pipeline.run(range(300), dashboard_update_interval=0.01, **options))
seen.write("over\\n")
seen.close()
"""


class Watched:
    """A program on a terminal, and what it says in a file."""

    def __init__(self, screen: PtyScreen, folder: Path) -> None:
        self.screen = screen
        self._folder = folder

    def start(
        self, level: str, *, limit: int = 50, prints: bool = True, **environment: str
    ) -> None:
        """Start it with 300 items, and wait until so many are through, and drawn."""
        (self._folder / "seen").unlink(missing_ok=True)
        self._limit(limit)
        script = PROGRAM.format(folder=str(self._folder), level=level, prints=prints)
        self.screen.spawn(script, **environment)
        self.wait_for_items(limit)
        if prints:
            self.screen.wait_until(lambda: f" {limit}/300 " in self.screen.text)

    def let(self, limit: int) -> None:
        """Wait until so many items are through."""
        self._limit(limit)
        self.wait_for_items(limit)

    def wait_for_items(self, number: int) -> None:
        until(lambda: len(self.seen) >= number, f"{number} items")

    def wait_for_end(self) -> None:
        """Wait until it waits with its end, and goes on doing so."""
        until(lambda: self.seen.count("waits") >= 6, "the end")

    @property
    def seen(self) -> list[str]:
        file = self._folder / "seen"
        return file.read_text().splitlines() if file.exists() else []

    def _limit(self, limit: int) -> None:
        new = self._folder / "new"
        new.write_text(str(limit))
        new.replace(self._folder / "limit")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    screen = PtyScreen(80, 24)
    yield Watched(screen, tmp_path)
    screen.close()


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that can be seen while the terminal cannot."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never seen: {what}"
        time.sleep(0.01)


def printed(screen: PtyScreen, word: str = "printed") -> list[int]:
    """The numbers that were printed after a word, from the top to the bottom."""
    lines = screen.paper.splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ")]


def in_thread(function: Callable[..., object], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def outlet_of_screen() -> outlet.Outlet:
    (only,) = _screens.values()
    found = only._out._outlet
    assert found is not None
    return found


def at_the_end(do: Callable[[], object]) -> None:
    """Do something when the last display has gone, and waits for the terminal."""
    until(lambda: not any(each._panes for each in tuple(_screens.values())), "the end")
    do()


def bytes_left() -> int:
    found = outlet_of_screen()
    return found.taken_in - found.given_out


# -- the run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("level", LEVELS)
def test_run_goes_on(level: str, how: str, watched: Watched) -> None:
    """Items go on; then the frame is there again, and what was printed, each line once."""
    watched.start(level)
    watched.screen.halt(how)
    watched.let(200)
    watched.screen.go_on()
    watched.screen.wait_until(lambda: " 200/300 " in watched.screen.text, "a frame of now")
    if level != "full":
        assert printed(watched.screen) == list(range(0, 200, 10))
    assert watched.screen.text.count("/300 ") == 1
    watched.let(300)
    assert watched.screen.wait() == 0
    assert printed(watched.screen) == list(range(0, 300, 10))
    assert watched.screen.paper.splitlines()[-1].endswith("300 ok, 0 failed")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("level", LEVELS)
def test_end_waits(level: str, how: str, watched: Watched) -> None:
    """The run comes to its end, and the program stays until the last frame is on the screen."""
    watched.start(level)
    watched.screen.halt(how)
    watched.let(300)
    watched.wait_for_end()
    assert watched.screen.is_running
    assert "over" not in watched.seen
    watched.screen.go_on()
    assert watched.screen.wait() == 0
    assert watched.seen[-1] == "over"
    assert printed(watched.screen) == list(range(0, 300, 10))
    assert watched.screen.paper.count("300/300") == 1
    assert watched.screen.paper.splitlines()[-1].endswith("300 ok, 0 failed")
    assert not watched.screen.is_alternate
    assert watched.screen.raw.endswith(b"\x1b[0m\x1b[?25h")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(("level", "term"), [("log", "xterm"), ("compact", "dumb")])
def test_plain_lines(level: str, term: str, how: str, watched: Watched) -> None:
    """Where lines are all that is written they wait as well, and the last ones come out."""
    watched.start(level, prints=False, TERM=term)
    watched.screen.halt(how)
    watched.let(300)
    watched.wait_for_end()
    assert watched.screen.is_running
    watched.screen.go_on()
    assert watched.screen.wait() == 0
    lines = watched.screen.paper.splitlines()
    percents = [line.split("%")[0] for line in lines if "%" in line]
    assert percents[0] == "pipeline: 0"
    assert percents[-1] == "pipeline: 100"
    assert lines[-1] == "300 ok, 0 failed"


# -- the ways out -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("limit", [200, 300])
@pytest.mark.parametrize("level", ["progress", "full"])
def test_signal_that_ends_the_program(level: str, limit: int, how: str, watched: Watched) -> None:
    """While it runs, and while it waits with its end: the program ends, and its code is right."""
    for name in ("SIGTERM", "SIGHUP"):
        watched.start(level)
        watched.screen.halt(how)
        watched.let(limit)
        if limit == 300:
            watched.wait_for_end()
        watched.screen.signal(getattr(signal, name))
        assert watched.screen.wait_for_code() == -getattr(signal, name)
        watched.screen.go_on()


def test_signal_while_the_terminal_is_slow() -> None:
    """Whatever a program has printed when it ends is there once, whole and in order."""
    script = (
        f"import sys, time; sys.path.append({str(ROOT)!r})\n"
        "from tests.display.test_screen import Lines, begin\n"
        "begin(Lines('a', 2))\n"
        "number = 0\n"
        "while True:\n"
        "    print('line', number)\n"
        "    number += 1\n"
        "    if not number % 100: time.sleep(0.01)\n"  # no more than the terminal here can draw
    )
    for lines in range(1, 6):
        screen = PtyScreen(40, 10)
        screen.spawn(script)
        screen.wait_until(lambda: len(screen.raw) > lines * 7919, "lines")  # noqa: B023
        screen.signal(signal.SIGTERM)
        assert screen.wait() == -signal.SIGTERM
        assert not screen.is_cursor_hidden
        numbers = printed(screen, "line")
        assert numbers == list(range(len(numbers)))
        screen.close()


def test_signal_handler_in_the_middle_of_a_write() -> None:
    """Wherever it comes, what is left and what was written are all there is, and no byte twice."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    pipe = outlet.Outlet(write)
    sums: list[int] = []

    def look(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_opcodes = True
        written = fcntl.ioctl(read, termios.FIONREAD, bytes(4))
        sums.append(int.from_bytes(written, sys.byteorder) + len(pipe._rest))
        return look

    tracing = sys.gettrace()
    for number in range(2):
        sys.settrace(look)
        pipe.write(b"x" * 40_000)  # a pipe takes 65536
        sys.settrace(tracing)
        assert set(sums) == {number * 40_000, (number + 1) * 40_000}
        sums.clear()
    assert pipe.is_halted
    assert os.read(read, 100_000) + pipe.close() == b"x" * 80_000
    os.close(read)


def test_signal_on_a_slow_terminal_with_much_left(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one deadline for all that is left, also where the terminal takes it bit by bit."""
    monkeypatch.setattr("antflow.display.stream.LONGEST_END", 0.3)
    screen = terminal(40, 10)
    stream = SafeStream(screen.stream)
    found = stream._outlet
    assert found is not None
    screen.halt("unread")
    stream.write("." * 400_000)
    before = found.given_out
    screen.read_slowly()
    stream.write_at_once("the end")
    assert before < found.given_out < found.taken_in
    stream.forget()


@pytest.mark.parametrize(("size", "is_taken"), [(1000, True), (100_000, False)])
def test_signal_where_the_terminal_could_not_be_opened(
    size: int, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is written, piece by piece; what is not taken in time stays behind."""
    monkeypatch.setattr("antflow.display.stream.LONGEST_WAIT", PATIENCE if is_taken else 0.1)
    read, write = os.pipe()
    with open(read, "rb") as other_end:
        with open(write, "w") as stream:
            SafeStream(stream).write_at_once("x" * size)
        assert (len(other_end.read()) == size) == is_taken  # a pipe takes 65536


@contextmanager
def interrupted(screen: PtyScreen, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ctrl-C comes when it waits for the terminal, and it does not wait any longer."""
    wait = outlet.Outlet.wait

    def interrupt(self: outlet.Outlet, seconds: float) -> None:
        sys.stdout.write("no newline")
        main = threading.main_thread().ident
        assert main is not None
        in_thread(signal.pthread_kill, main, signal.SIGINT)
        monkeypatch.setattr(outlet.Outlet, "wait", wait)
        self.wait(PATIENCE)

    monkeypatch.setattr(outlet.Outlet, "wait", interrupt)
    rescue = threading.Timer(PATIENCE, screen.go_on)
    rescue.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    assert rescue.is_alive(), "it waited for the terminal"
    rescue.cancel()


@pytest.mark.parametrize("most", [screen.MOST_BYTES_WAITING, 0])
@pytest.mark.parametrize("kind", [Lines, Whole])
def test_ctrl_c_at_the_end(
    kind: type[Lines], most: int, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does not want to wait gets out, everything is released, what is left is dropped."""
    window = terminal(40, 10)
    display = kind("a", 2)
    begin(display)
    window.halt("unread")
    print("printed 1\nnor this", end="")
    monkeypatch.setattr(screen, "MOST_BYTES_WAITING", most)  # with 0 it waits with that line
    with interrupted(window, monkeypatch):
        finish(display)
    assert sys.stdout is sys.stderr is window.stream
    assert _screens == {}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    window.go_on()
    assert printed(window) == []
    assert "nor this" not in window.paper
    assert "no newline" not in window.paper


def test_ctrl_c_before_a_live(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anybody have to wait who has the terminal left to a `Live`."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    print("printed 1")
    with Live("theirs", auto_refresh=False):
        with interrupted(screen, monkeypatch):
            update(display)
        assert _screens == {}
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        screen.go_on()
    assert printed(screen) == []
    assert "theirs" in screen.paper


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_ctrl_c_that_restarts_the_terminal(
    kind: type[Lines], terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that takes something after a Ctrl-C, as after a typed one, is given it all."""
    screen = terminal(40, 10)
    display = kind("a", 2)
    begin(display)
    screen.halt("Ctrl-S")
    print("printed 1")
    wait = outlet.Outlet.wait

    def interrupted(self: outlet.Outlet, seconds: float) -> None:
        monkeypatch.setattr(outlet.Outlet, "wait", wait)
        screen.go_on()
        raise KeyboardInterrupt

    monkeypatch.setattr(outlet.Outlet, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finish(display)
    assert printed(screen) == [1]
    assert screen.paper.count("a0") == 1
    assert_nothing_is_left(screen)


def test_window_is_closed(terminal: MakeTerminal) -> None:
    """Nobody waits for a terminal that is gone."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    for number in range(100):
        print("printed", number)
    in_thread(at_the_end, screen.hang_up)
    finish(display)
    assert _screens == {}


def test_stop_and_continue(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stop has to say waits like all else: all of it is there in its order."""
    monkeypatch.setattr("antflow.display.stream.LONGEST_WAIT", 0.01)
    screen = terminal(40, 10)
    display = Whole("a", 2)
    begin(display)
    screen.halt("unread")
    (drawn,) = _screens.values()
    for _ in range(2):
        drawn.pause()
        drawn.resume()
    screen.go_on()
    display.letter = "b"
    until(lambda: outlet_of_screen().flush(), "all of it")
    update(display)
    assert letters(screen) == "bb"
    assert screen.is_alternate
    assert screen.raw.count(b"?1049h") == screen.raw.count(b"?1049l") + 1 == 3
    finish(display)
    assert_nothing_is_left(screen)


def test_stop_while_the_end_waits(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that goes on after its last frame does not hide the cursor again."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    monkeypatch.setattr("antflow.display.stream.LONGEST_WAIT", 0.01)

    (drawn,) = _screens.values()

    def stop_and_continue() -> None:
        drawn.pause()
        drawn.resume()
        screen.go_on()

    thread = in_thread(at_the_end, stop_and_continue)
    finish(display)
    thread.join(PATIENCE)
    assert not screen.is_cursor_hidden
    assert screen.paper.count("a0") == 1


# -- what is printed --------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("is_blocking", [True, False])
def test_prints_and_logs_wait_their_turn(
    is_blocking: bool, how: str, terminal: MakeTerminal
) -> None:
    """Each once and in order; also where somebody has made the terminal non-blocking."""
    screen = terminal(40, 10)
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    display = Lines("a", 2)
    begin(display)
    os.set_blocking(screen.stream.fileno(), is_blocking)
    try:
        screen.halt(how)
        thread = in_thread(say, range(100), display)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        waiting = bytes_left()
        assert 0 < waiting < 100 * 50  # only the lines, and not the area for each of them
        screen.go_on()
        until(lambda: outlet_of_screen().flush(), "all of it")
        assert letters(screen)[-1] == "p"
        update(display)
        assert letters(screen)[-3:] == "paa"
        finish(display)
    finally:
        logging.getLogger().removeHandler(handler)
        os.set_blocking(screen.stream.fileno(), True)
    assert printed(screen) == list(range(100))
    assert screen.paper.count("a0") == 1
    assert_nothing_is_left(screen)


def say(numbers: range, display: Lines) -> None:
    for number in numbers:
        if number % 2:
            logging.getLogger().error("printed %d", number)
        else:
            print("printed", number)
        update(display)


def test_print_waits_when_too_much_is_left(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever prints on and on waits, nobody else does; nothing of it is lost."""
    monkeypatch.setattr(screen, "MOST_BYTES_WAITING", 20_000)
    window = terminal(40, 10)
    one, two = Lines("a", 2), Lines("b", 1)
    begin(one, two)
    window.halt("unread")
    thread = in_thread(lambda: sys.stdout.writelines(f"printed {n}\n" for n in range(3000)))
    until(lambda: bytes_left() > 20_000, "more than may be left")
    for _ in range(50):
        update(one, two)
    assert bytes_left() < 20_100
    assert thread.is_alive()
    window.go_on()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    finish(one, two)
    assert printed(window) == list(range(3000))
    assert_nothing_is_left(window)


def test_end_beside_a_thread_that_prints(terminal: MakeTerminal) -> None:
    """The end waits for its own last frame, and not until there is silence."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    out = sys.stdout
    stop = threading.Event()
    counts: list[int] = []

    def talk() -> None:
        while not stop.is_set():
            print("printed", len(counts), file=out, flush=True)
            counts.append(1)

    screen.halt("unread")
    thread = in_thread(talk)
    until(lambda: len(counts) > 100, "lines")
    in_thread(at_the_end, screen.go_on)
    finish(display)
    assert thread.is_alive()
    stop.set()
    thread.join(PATIENCE)
    screen.stream.flush()
    assert printed(screen) == list(range(len(counts)))
    assert screen.paper.count("a0") == 1


def test_line_without_an_end(terminal: MakeTerminal) -> None:
    """What somebody wrote to the terminal behind our back comes before the next frame."""
    screen = terminal(40, 10)
    display = Lines("a", 1)
    display.on_start(None, 1)
    screen.stream.write("half a line")
    display.on_update(make_snapshot())
    assert screen.raw.index(b"half a line") < screen.raw.index(b"a0")
    finish(display)


def test_line_without_an_end_on_a_halted_terminal(terminal: MakeTerminal) -> None:
    """Nobody waits for it, and it comes when the terminal goes on."""
    screen = terminal(40, 10)
    display = Lines("a", 1)
    begin(display)
    screen.halt("Ctrl-S")
    screen.stream.write("half a line")
    thread = in_thread(update, display)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    screen.go_on()
    finish(display)
    screen.stream.flush()
    assert b"half a line" in screen.raw


# -- several on one terminal ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_one_of_two_leaves(kind: type[Lines], terminal: MakeTerminal) -> None:
    """While the other remains nobody waits, neither for a display that ends nor for a new one."""
    screen = terminal(40, 12)
    one, two, three = Lines("a", 2), kind("b", 2), Lines("c", 1)
    begin(one, two)
    screen.halt("unread")

    def change() -> None:
        print("printed 1")
        finish(one)
        begin(three)
        print("printed 2")
        update(two, three)

    thread = in_thread(change)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    screen.go_on()
    until(lambda: outlet_of_screen().flush(), "all of it")
    update(three, two)
    assert letters(screen)[-3:] == "bbc"
    finish(two)
    finish(three)
    shown = [line.split(" ", 1)[0] for line in screen.paper.splitlines()]
    assert shown[:6] == ["printed", "a0", "a1", "21446", "printed", "b0"]
    assert shown.count("a0") == shown.count("b0") == shown.count("c0") == 1
    assert_nothing_is_left(screen)


@pytest.mark.parametrize("last", ["the first", "the second"])
@pytest.mark.parametrize("kind", [Lines, Whole])
def test_one_begins_while_the_last_one_leaves(
    kind: type[Lines], last: str, terminal: MakeTerminal
) -> None:
    """It does not wait, it joins the screen, and whoever is the last of both gives it back."""
    screen = terminal(40, 12)
    one, two = kind("a", 2), Lines("b", 1)
    begin(one)
    screen.halt("unread")
    first = in_thread(finish, one)
    until(lambda: not next(iter(_screens.values()))._panes, "the end of the first")
    second = in_thread(begin, two)
    second.join(PATIENCE)
    assert not second.is_alive()
    assert len(_screens) == 1
    print("printed 1")
    if last == "the first":
        second = in_thread(finish, two)
        until(lambda: not next(iter(_screens.values()))._panes, "the end of the second")
        screen.go_on()
        second.join(PATIENCE)
        assert not second.is_alive()
    else:
        screen.go_on()
    first.join(PATIENCE)
    assert not first.is_alive()
    if last == "the second":
        assert len(_screens) == 1
        assert sys.stdout is not screen.stream
        update(two)
        assert letters(screen)[-1] == "b"
        finish(two)
    shown = [line.split(" ", 1)[0] for line in screen.paper.splitlines()]
    assert shown == ["a0", "a1", "21446", "printed", "b0", "21446"]
    assert not screen.is_cursor_hidden
    assert sys.stdout is sys.stderr is screen.stream
    assert _screens == {}
    begin(one)
    finish(one)  # in this thread: signal handlers cannot be put back in another
    assert_nothing_is_left(screen)


def test_live_of_somebody_else(terminal: MakeTerminal) -> None:
    """The terminal is handed over when it has taken all that was there before."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    print("printed 1")
    in_thread(at_the_end, screen.go_on)
    with Live("theirs", auto_refresh=False):
        update(display)
    finish(display)
    shown = [line.split(" ", 1)[0] for line in screen.paper.splitlines()]
    assert shown[:3] == ["printed", "a0", "a1"]
    assert "theirs" in shown[3:]
    assert not screen.is_cursor_hidden


def test_child_process_after_a_fork(terminal: MakeTerminal) -> None:
    """What is left is the parent's, and so is the terminal that was opened once more."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    print("printed 1")
    assert bytes_left() > 0
    descriptor = outlet_of_screen()._descriptor
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    screen.go_on()
    finish(display)
    assert printed(screen) == [1]
    assert_nothing_is_left(screen)


# -- the terminal, opened once more -----------------------------------------------------------


@pytest.mark.parametrize("level", [*LEVELS, "log"])
def test_descriptors(level: str, terminal: MakeTerminal) -> None:
    """The one of the user stays blocking, and ours is closed with the display."""
    screen = terminal()
    before = os.listdir("/dev/fd")
    display = create(level)
    for _ in range(2):  # begun again without an end
        display.on_start(None, 1)
        display.on_update(make_snapshot())
        assert len(os.listdir("/dev/fd")) == len(before) + 1
        assert os.get_blocking(screen.stream.fileno())
    display.on_finish([], NO_ERRORS)
    assert os.listdir("/dev/fd") == before


def test_terminal_that_cannot_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot say whether a write would wait, there is a moment between two."""
    read, write = os.pipe()
    os.close(read)
    assert outlet.takes_something(write, PATIENCE)  # it would fail
    os.close(write)
    moments: list[float] = []
    monkeypatch.setattr(time, "sleep", moments.append)
    assert outlet.takes_something(write, PATIENCE)
    assert moments == [outlet.MOMENT]


@pytest.mark.parametrize("level", [*LEVELS, "log"])
@pytest.mark.parametrize("error", [OSError(19, "no name"), PermissionError(13, "not yours")])
def test_terminal_that_cannot_be_opened(
    level: str, error: OSError, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drawn on all the same, through the stream that is there."""
    screen = terminal()

    def refuse(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(os, "ttyname" if error.errno == 19 else "open", refuse)
    display = create(level)
    display.on_start(None, 50_000)
    display.on_update(make_snapshot())
    if level != "log":
        print("printed 1")
        assert printed(screen) == ([1] if level != "full" else [])
    display.on_finish([], NO_ERRORS)
    monkeypatch.undo()
    assert screen.paper.splitlines()[-1].endswith("21446 ok, 256 failed")


def test_stream_that_does_more(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that keeps a copy of all that is written is given all of it."""
    screen = terminal()

    class Copying:
        def __init__(self, stream: TextIO) -> None:
            self.stream = stream
            self.copy = ""

        def write(self, text: str) -> int:
            self.copy += text
            return self.stream.write(text)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    copying = Copying(screen.stream)
    monkeypatch.setattr(sys, "stdout", cast(TextIO, copying))
    display = Lines("a", 2)
    begin(display)
    print("printed 1")
    finish(display)
    assert printed(screen) == [1]
    assert "printed 1" in copying.copy
    assert screen.raw.decode() == copying.copy.replace("\n", "\r\n")
