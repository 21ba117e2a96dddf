"""A terminal that takes nothing: Ctrl-S, a connection that hangs, a window that does not read."""

# ruff: noqa: T201 - what is printed is what is tested
from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import UnsupportedOperation
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
from rich.live import Live

from antflow.display import create, stream
from antflow.display.terminal import descriptors
from antflow.display.terminal.screen import _screens
from tests.display.conftest import (
    LEVELS,
    NO_ERRORS,
    MakeTerminal,
    make_snapshot,
    settle,
    use_up_pseudo_terminals,
)
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

WAYS = ["Ctrl-S", "unread"]
ROOT = Path(__file__).parents[2]

# A file says how many items may go through, and the program says in another how far it is.
PROGRAM = """
import asyncio
from pathlib import Path
from antflow import Pipeline, Stage
from antflow.display import stream

folder = Path({folder!r})
seen = (folder / "seen").open("w", buffering=1)

async def work(number):
    while number >= int((folder / "limit").read_text() or 0):
        await asyncio.sleep(0.005)
    if number % 10 == 0 and {prints}:
        print("printed", number)
    seen.write(f"{{number}}\\n")

def finish(writer, finish=stream._Terminal.finish, patience=iter({patience})):
    seen.write("waits\\n")
    stream.PATIENCE = next(patience, stream.PATIENCE)
    finish(writer)

stream._Terminal.finish = finish
options = dict(progress=True) if {level!r} == "progress" else dict(dashboard={level!r})
pipeline = Pipeline([Stage("Work", 1, [work])])
asyncio.run(pipeline.run(range(300), dashboard_update_interval=0.01, **options))
seen.write("over\\n")
"""


class Watched:
    """A program on a terminal, and what it says in a file."""

    def __init__(self, screen: PtyScreen, folder: Path) -> None:
        self.screen = screen
        self._folder = folder

    def start(self, level: str, *patience: float, prints: bool = True, **options: Any) -> None:
        """Start it with 300 items, and wait until 50 are through, and drawn.

        Args:
            level: The display.
            patience: Seconds that its waits last at most, one after the other.
            prints: Whether its tasks print.
            options: Of `PtyScreen.spawn`.
        """
        (self._folder / "seen").unlink(missing_ok=True)
        self.let(0)
        program = PROGRAM.format(
            folder=str(self._folder),
            level=level,
            prints=prints,
            patience=patience or (PATIENCE,),
        )
        self.screen.spawn(program, **options)
        self.let(50)
        if prints:
            self.screen.wait_until(lambda: " 50/300 " in self.screen.text)

    def let(self, limit: int) -> None:
        """Wait until this many items are through."""
        new = self._folder / "new"
        new.write_text(str(limit))
        new.replace(self._folder / "limit")
        until(lambda: len(self.seen) >= limit, f"{limit} items")

    def let_it_end(self) -> None:
        """Wait until it waits with its end."""
        self.let(300)
        until(lambda: "waits" in self.seen, "the end")

    @property
    def seen(self) -> list[str]:
        file = self._folder / "seen"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def moment() -> float:
    """Short again: the terminal is halted, and a write does not wait for it."""
    return 0.05


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


def until_all_is_out() -> None:
    (screen,) = _screens.values()
    until(lambda: not screen._out.is_halted, "all of it")


def printed(screen: PtyScreen, word: str = "printed") -> list[int]:
    """The numbers that were printed after a word, from the top to the bottom."""
    lines = screen.paper.splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ")]


def first_words(screen: PtyScreen) -> list[str]:
    return [line.split(" ", 1)[0] for line in screen.paper.splitlines()]


# -- a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("level", LEVELS)
def test_run_goes_on(level: str, how: str, watched: Watched) -> None:
    """Items go on; then the frame is there again, and what was printed, each line once."""
    watched.start(level)
    watched.screen.halt(how)
    watched.let(200)
    watched.screen.go_on()
    watched.screen.wait_until(lambda: " 200/300 " in watched.screen.text, "a frame of now")
    assert watched.screen.text.count("/300 ") == 1
    if level != "full":
        there = list(range(0, 200, 10))
        watched.screen.wait_until(lambda: printed(watched.screen) == there, "what was printed")
    watched.let(300)
    assert watched.screen.wait() == 0
    assert printed(watched.screen) == list(range(0, 300, 10))
    assert watched.screen.paper.splitlines()[-1].endswith("300 ok, 0 failed")


@pytest.mark.parametrize("level", ["compact", "full"])
def test_end_waits(level: str, watched: Watched) -> None:
    """A terminal that goes on in time gets the last frame and all that was printed."""
    watched.start(level)
    watched.screen.halt("Ctrl-S")
    watched.let_it_end()
    assert "over" not in watched.seen
    watched.screen.go_on()
    assert watched.screen.wait() == 0
    assert "over" in watched.seen
    assert printed(watched.screen) == list(range(0, 300, 10))
    assert watched.screen.paper.count("300/300") == 1
    assert watched.screen.paper.splitlines()[-1].endswith("300 ok, 0 failed")
    assert not watched.screen.is_alternate
    assert watched.screen.raw.endswith(b"\x1b[0m\x1b[?25h")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("level", ["compact", "full", "log"])
def test_end_does_not_hang(level: str, how: str, watched: Watched) -> None:
    """On a terminal that does not go on the run returns, and the program ends."""
    watched.start(level, 0.1, prints=level != "log")
    watched.screen.halt(how)
    watched.let(300)
    assert watched.screen.wait_for_code() == 0
    assert "over" in watched.seen


@pytest.mark.parametrize(("level", "term"), [("log", "xterm"), ("compact", "dumb")])
def test_plain_lines(level: str, term: str, watched: Watched) -> None:
    """Where only lines are written they wait as well, and the last ones come out."""
    watched.start(level, prints=False, TERM=term)
    watched.screen.halt("unread")
    watched.let_it_end()
    watched.screen.go_on()
    assert watched.screen.wait() == 0
    lines = watched.screen.paper.splitlines()
    percents = [line.split("%")[0] for line in lines if "%" in line]
    assert percents[0].endswith(" pipeline: 0")
    assert percents[-1].endswith(" pipeline: 100")
    assert lines[-1] == "300 ok, 0 failed"


# -- signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "is_at_the_end"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, False)],
)
@pytest.mark.parametrize("level", ["progress", "full"])
def test_signal_while_halted_ends_the_program(
    level: str, number: int, is_at_the_end: bool, watched: Watched
) -> None:
    """While it runs, and while it waits with its end: the program ends, and its code is right."""
    patience = [PATIENCE, 0.1] if is_at_the_end else [0.1]
    watched.start(level, *patience, stderr=subprocess.DEVNULL)  # for Python's own last words
    watched.screen.halt("unread")
    if is_at_the_end:
        watched.let_it_end()
    watched.screen.signal(number)
    assert watched.screen.wait_for_code() == -number


def test_typed_ctrl_c(watched: Watched) -> None:
    """It makes a terminal go on that Ctrl-S has halted, so the terminal is given back."""
    watched.start("full")
    watched.screen.halt("Ctrl-S")
    watched.let(200)
    watched.screen.type(b"\x03")  # the program is not in the foreground of this terminal
    watched.screen.signal(signal.SIGINT)
    assert watched.screen.wait() == -signal.SIGINT
    assert not watched.screen.is_alternate
    assert not watched.screen.is_cursor_hidden
    assert printed(watched.screen) == list(range(0, 200, 10))


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


def test_stop_and_continue(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a stop waits like all other text: all of it is there in its order."""
    monkeypatch.setattr(stream, "PATIENCE", 0.01)
    screen = terminal(40, 10)
    display = Whole("a", 2)
    begin(display)
    screen.halt("unread")
    (drawn,) = _screens.values()
    for _ in range(2):
        drawn.pause()
        drawn.resume()
    screen.go_on()
    until_all_is_out()
    display.letter = "b"
    update(display)
    assert letters(screen) == "bb"
    assert screen.is_alternate
    assert screen.raw.count(b"?1049h") == screen.raw.count(b"?1049l") + 1 == 3
    finish(display)
    assert_nothing_is_left(screen)


def test_ctrl_c_while_the_end_waits(terminal: MakeTerminal) -> None:
    """The wait is over, everything is released, and what is left comes with the terminal."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    print("printed 1\nprinted 2", end="")
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        finish(display)
    assert sys.stdout is sys.stderr is screen.stream
    assert _screens == {}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    screen.go_on()
    until_no_thread_writes()
    assert printed(screen) == [1, 2]
    assert screen.paper.count("a0") == 1
    assert_nothing_is_left(screen)


def until_no_thread_writes() -> None:
    def writers() -> list[str]:
        names = ("antflow-terminal", "antflow-prints")
        return [each.name for each in threading.enumerate() if each.name in names]

    until(lambda: not writers(), "the end of the thread that writes")


def test_window_is_closed(terminal: MakeTerminal) -> None:
    """A terminal that is gone is not waited for."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    for number in range(100):
        print("printed", number)
    threading.Timer(0.1, screen.hang_up).start()
    finish(display)
    assert _screens == {}
    until_no_thread_writes()


# -- what is printed --------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("is_blocking", [True, False])
def test_prints_and_logs_wait_their_turn(
    is_blocking: bool, how: str, terminal: MakeTerminal
) -> None:
    """Each once and in order, even if another program has made the terminal non-blocking."""
    screen = terminal(40, 10)
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    display = Lines("a", 2)
    begin(display)
    os.set_blocking(screen.stream.fileno(), is_blocking)
    try:
        screen.halt(how)
        for number in range(100):
            if number % 2:
                logging.getLogger().error("printed %d", number)
            else:
                print("printed", number)
            update(display)
        settle()
        screen.go_on()
        until_all_is_out()
        assert letters(screen)[-1] == "p"
        assert screen.raw.count(b"a0 ") < 5  # the lines came without the area for each of them
        update(display)
        assert letters(screen)[-3:] == "paa"
        finish(display)
    finally:
        logging.getLogger().removeHandler(handler)
        os.set_blocking(screen.stream.fileno(), True)
    assert printed(screen) == list(range(100))
    assert screen.paper.count("a0") == 1
    assert_nothing_is_left(screen)


def test_print_waits_when_the_queue_is_full(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that prints on and on waits, others do not, and nothing of it is lost."""
    monkeypatch.setattr(stream, "MOST_WAITING", 2)
    monkeypatch.setattr(descriptors, "MOST_BYTES", 10_000)
    screen = terminal(40, 10)
    one, two = Lines("a", 2), Lines("b", 1)
    begin(one, two)
    screen.halt("unread")
    out = sys.stdout
    count = 0

    def talk() -> None:
        nonlocal count
        for count in range(1000):
            out.write(f"printed {count} {'x' * 300}\n")

    thread = threading.Thread(target=talk)
    thread.start()
    until(lambda: not select.select([], [out], [], 0.2)[1], "a full queue")
    for _ in range(50):
        update(one, two)
    assert count < 900
    screen.go_on()
    thread.join(PATIENCE)
    finish(one, two)
    assert printed(screen) == list(range(1000))
    assert_nothing_is_left(screen)


def test_print_in_the_thread_that_writes(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer may print anywhere, even there: it does not wait for itself."""
    screen = terminal(40, 10)
    use_up_pseudo_terminals(monkeypatch)  # else it would not print to the display itself
    display = Lines("a", 2)
    begin(display)
    monkeypatch.setattr(stream, "MOST_WAITING", -1)
    texts = ["from a finalizer\n"]
    waits: list[float] = []
    write = os.write

    def writing(descriptor: int, data: bytes) -> int:
        if texts and threading.current_thread().name == "antflow-terminal":
            began = time.monotonic()
            sys.stdout.write(texts.pop())
            waits.append(time.monotonic() - began)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", writing)
    print("printed")
    settle()
    until_all_is_out()
    assert max(waits) < stream.PATIENCE
    update(display)
    assert letters(screen) == "pfaa"
    finish(display)
    assert_nothing_is_left(screen)


# -- several on one terminal ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_one_of_two_leaves(kind: type[Lines], terminal: MakeTerminal) -> None:
    """While another remains nothing waits, neither for a display that ends nor for a new one."""
    screen = terminal(40, 12)
    one, two, three = Lines("a", 2), kind("b", 2), Lines("c", 1)
    begin(one, two)
    screen.halt("unread")
    print("printed 1")
    finish(one)
    begin(three)
    print("printed 2")
    update(two, three)
    screen.go_on()
    until_all_is_out()
    update(three, two)
    assert letters(screen)[-3:] == "bbc"
    finish(two)
    finish(three)
    shown = first_words(screen)
    assert shown[:6] == ["printed", "a0", "a1", "21,446", "printed", "b0"]
    assert shown.count("a0") == shown.count("b0") == shown.count("c0") == 1
    assert_nothing_is_left(screen)


def test_one_begins_after_the_last_one_has_given_up(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames come after all that was left, and the terminal is given back once more."""
    monkeypatch.setattr(stream, "PATIENCE", 0.1)
    screen = terminal(40, 12)
    one, two = Lines("a", 2), Lines("b", 1)
    begin(one)
    screen.halt("unread")
    print("printed 1")
    finish(one)
    begin(two)
    monkeypatch.setattr(stream, "PATIENCE", PATIENCE)
    screen.go_on()
    until_all_is_out()
    update(two)
    finish(two)
    assert first_words(screen) == ["printed", "a0", "a1", "21,446", "b0", "21,446"]
    assert_nothing_is_left(screen)
    until_no_thread_writes()


def test_live_of_the_user(terminal: MakeTerminal) -> None:
    """It gets the terminal when that has taken all that was there before."""
    screen = terminal(40, 10)
    display = Lines("a", 2)
    begin(display)
    screen.halt("unread")
    print("printed 1")
    settle()
    threading.Timer(0.2, screen.go_on).start()
    with Live("theirs", auto_refresh=False):
        update(display)
    finish(display)
    shown = first_words(screen)
    assert shown[:3] == ["printed", "a0", "a1"]
    assert "theirs" in shown[3:]
    assert not screen.is_cursor_hidden


def test_child_of_a_fork_leaves_the_rest_to_its_parent(terminal: MakeTerminal) -> None:
    """What is left is the parent's, and so are the descriptors."""
    screen = terminal(40, 10)
    before = set(os.listdir("/dev/fd"))
    display = Lines("a", 2)
    begin(display)
    settle()
    screen.halt("unread")
    print("printed 1")
    child = os.fork()
    if child == 0:
        os._exit(set(os.listdir("/dev/fd")) != before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    screen.go_on()
    finish(display)
    assert printed(screen) == [1]
    assert_nothing_is_left(screen)


# -- the descriptor and the thread ------------------------------------------------------------


@pytest.mark.parametrize("level", [*LEVELS, "log"])
def test_descriptor_and_thread(level: str, terminal: MakeTerminal) -> None:
    """There are few of them while it draws, and none afterwards; the terminal stays blocking."""
    more_threads, more_descriptors = (1, 1) if level == "log" else (2, 8)
    screen = terminal()
    before, threads = os.listdir("/dev/fd"), threading.active_count()
    display = create(level)
    for _ in range(2):  # begun again without an end
        display.on_start(None, 1)
        display.on_update(make_snapshot())
        until(lambda: threading.active_count() == threads + more_threads, "the threads")
        settle()
        assert len(os.listdir("/dev/fd")) == len(before) + more_descriptors
        assert os.get_blocking(screen.stream.fileno())
    display.on_finish([], NO_ERRORS)
    until_no_thread_writes()
    assert os.listdir("/dev/fd") == before


@pytest.mark.parametrize("level", [*LEVELS, "log"])
def test_display_when_no_thread_can_be_started(
    level: str, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal is drawn on all the same, by the thread of the display."""
    screen = terminal()
    before = os.listdir("/dev/fd")

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    display = create(level)
    display.on_start(None, 50_000)
    assert os.listdir("/dev/fd") == before
    display.on_update(make_snapshot())
    if level != "log":
        print("printed 1")
        assert printed(screen) == ([1] if level != "full" else [])
    display.on_finish([], NO_ERRORS)
    monkeypatch.undo()
    assert screen.paper.splitlines()[-1].endswith("21,446 ok, 256 failed")


def test_stand_in(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that keeps a copy and has no descriptor is given all that is written, frames as well."""
    screen = terminal()

    class Copying:
        def __init__(self, stream: TextIO) -> None:
            self.stream = stream
            self.copy = ""

        def write(self, text: str) -> int:
            self.copy += text
            return self.stream.write(text)

        def fileno(self) -> int:
            raise UnsupportedOperation("fileno")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    copying = Copying(screen.stream)
    monkeypatch.setattr(sys, "stderr", cast(TextIO, copying))
    display = Lines("a", 2)
    begin(display)
    print("printed 1", file=sys.stderr)
    finish(display)
    assert printed(screen) == [1]
    assert "printed 1" in copying.copy
    assert screen.raw.decode() == copying.copy.replace("\n", "\r\n")


@pytest.mark.real_time
@pytest.mark.parametrize("is_read", [True, False])
def test_slow_terminal(is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for as long as it takes something, however slowly, and not longer."""
    monkeypatch.setattr(stream, "PATIENCE", 0.5 if is_read else 0.1)
    monkeypatch.setattr(stream, "PIECE_BYTES", 10_000)
    read, write = os.pipe()  # it takes 65536 bytes, and then as much as is read
    os.set_blocking(write, not is_read)  # then it takes a part of a piece
    taken = 0

    def take() -> None:
        nonlocal taken
        while data := os.read(read, 4096):
            taken += len(data)
            time.sleep(0.02)

    reader = threading.Thread(target=take, daemon=True)
    with open(write, "w") as pipe:
        terminal = stream._Terminal(pipe)
    if is_read:
        reader.start()
    terminal._put(b"x" * 300_000)
    terminal.finish()
    assert (taken > 200_000) == is_read
    terminal.close()
    if not is_read:
        reader.start()
    reader.join(PATIENCE)
    assert taken == 300_000
    os.close(read)
