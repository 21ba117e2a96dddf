"""Several displays on one terminal."""

# ruff: noqa: T201 - what is printed is what is tested
from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import threading
from io import StringIO
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from antflow import DashboardSnapshot, Pipeline, Stage
from antflow._pipeline_options import DashboardName
from antflow.display import BaseDashboard, create
from antflow.display.layout import fair_shares
from antflow.display.stream import _Terminal
from antflow.display.terminal.screen import _screens
from tests.display.conftest import (
    LEVELS,
    NO_ERRORS,
    MakeTerminal,
    make_snapshot,
    settle,
    use_up_pseudo_terminals,
)
from tests.pty_screen import PATIENCE, PtyScreen

UPDATE = re.compile(rb"\x1b\[\?2026([hl])")


class Lines(BaseDashboard):
    """Draws so many lines of one letter, or as many as it may."""

    def __init__(self, letter: str, rows: int = 999) -> None:
        self.letter = letter
        self.rows = rows
        self.error: Exception | None = None

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        if self.error is not None:
            raise self.error
        return self

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number in range(min(self.rows, options.max_height)):
            yield Text(f"{self.letter}{number} ".ljust(options.max_width, "."))


class Whole(Lines):
    """The same on the whole screen."""

    _fills_screen: ClassVar[bool] = True


def begin(*displays: BaseDashboard) -> None:
    for display in displays:
        display.on_start(None, 50_000)
        display.on_update(make_snapshot())


def update(*displays: BaseDashboard) -> None:
    for display in displays:
        display.on_update(make_snapshot())


def finish(*displays: BaseDashboard) -> None:
    for display in displays:
        display.on_finish([], NO_ERRORS)


def letters(screen: PtyScreen) -> str:
    """The first letter of each row that is not empty."""
    return "".join(row[0] for row in screen.rows if row)


def assert_nothing_is_left(screen: PtyScreen) -> None:
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    assert screen.raw.endswith(b"\x1b[0m\x1b[?25h")
    assert sys.stdout is sys.stderr is screen.stream
    assert os.path.samestat(os.fstat(screen.stream.fileno()), os.fstat(screen._slave))
    assert _screens == {}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# -- sharing ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 60), max_size=9), st.integers(0, 60))
def test_shares_are_fair(wishes: list[int], room: int) -> None:
    """All that is there is given, nobody gets too much, and who goes short has as much as any."""
    given = fair_shares(wishes, room)
    assert sum(given) == min(sum(wishes), room)
    for wish, share in zip(wishes, given, strict=True):
        assert 0 <= share <= wish
        if share < wish:
            assert max(given) <= share + 1
    short = [share for wish, share in zip(wishes, given, strict=True) if share < wish]
    assert short == sorted(short, reverse=True)


def test_panes_stand_in_the_order_of_their_beginning(terminal: MakeTerminal) -> None:
    """Whoever draws first: the first to begin is on top; each stays when it ends."""
    screen = terminal(40, 24)
    one, two, three = Lines("a", 2), Lines("b", 3), Lines("c", 1)
    for display in (one, two, three):
        display.on_start(None, 1)
    update(three)
    assert letters(screen) == "c"
    update(two, one)
    assert letters(screen) == "aabbbc"
    assert screen.is_cursor_hidden
    print("printed")
    finish(two)
    assert letters(screen) == "pbbb2aac"
    print("and then")
    update(one, three)
    assert letters(screen) == "pbbb2aaac"
    finish(one)
    finish(three)
    text = screen.paper.splitlines()
    assert [line.split(" ", 1)[0] for line in text] == [
        *["printed", "b0", "b1", "b2", "21,446", "and"],
        *["a0", "a1", "21,446", "c0", "21,446"],
    ]
    assert_nothing_is_left(screen)


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_rows_are_shared_out(kind: type[Lines], terminal: MakeTerminal) -> None:
    """Two that want all of it get half each; what a small one leaves, the others may have."""
    screen = terminal(40, 13)
    one, two, three = kind("a"), kind("b"), kind("c", 2)
    begin(one)
    assert letters(screen) == "a" * 13
    begin(two)
    assert letters(screen) == "a" * 7 + "b" * 6
    begin(three)
    update(one, two)
    assert letters(screen) == "a" * 6 + "b" * 5 + "cc"
    assert max(cell_len(row) for row in screen.rows) == 40
    finish(one)
    update(three, two)
    assert letters(screen)[-13:] == "b" * 11 + "cc"
    finish(two, three)
    assert_nothing_is_left(screen)


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_window_is_dragged_with_two_displays(kind: type[Lines], terminal: MakeTerminal) -> None:
    """The next frame of either fits, and the older frame of the other is cut off."""
    screen = terminal(100, 30)
    one, two = kind("a", 20 if kind is Whole else 3), kind("b", 6)
    begin(one, two)
    for columns, rows in [(60, 15), (20, 5), (120, 40), (1, 1), (3, 2), (80, 24)]:
        screen.resize(columns, rows)
        update(one)
        seen = [row for row in screen.rows if row]
        assert (
            max(map(cell_len, seen)) <= columns or kind is Lines
        )  # what has scrolled is as it was
        update(two)
        update(one)
        shares = fair_shares([one.rows, 6], rows)
        assert letters(screen)[-sum(shares) :] == "a" * shares[0] + "b" * shares[1]
        ends = {row[-1] for row in screen.text.splitlines()[-sum(shares) :]}
        assert columns < 20 or ends == {"."}
    finish(one, two)
    assert_nothing_is_left(screen)


def test_more_displays_than_rows(terminal: MakeTerminal) -> None:
    """The first ones are seen, and all of them leave their last frame."""
    screen = terminal(40, 3)
    displays = [Lines(letter, 2) for letter in "abcde"]
    begin(*displays)
    update(*displays)
    assert letters(screen) == "abc"
    finish(*displays)
    assert [line[:2] for line in screen.paper.splitlines() if line[0] in "abcde"] == [
        f"{letter}{number}" for letter in "abcde" for number in (0, 1)
    ]
    assert_nothing_is_left(screen)


# -- the whole screen and the last lines of it ------------------------------------------------


def test_one_that_fills_the_screen_joins(terminal: MakeTerminal) -> None:
    """The area changes over to the alternate screen, and back when that one has ended."""
    screen = terminal(40, 10)
    print("before")
    small, large = Lines("a", 2), Whole("b")
    begin(small)
    print("live")
    assert not screen.is_alternate
    begin(large)
    assert screen.is_alternate
    assert letters(screen) == "aabbbbbbbb"
    print("kept")
    assert letters(screen) == "aabbbbbbbb"
    finish(large)
    assert not screen.is_alternate
    assert screen.is_cursor_hidden
    shown = [line.split(" ", 1)[0] for line in screen.paper.splitlines()]
    assert shown == ["before", "live", "kept", *[f"b{n}" for n in range(10)], "21,446", "a0", "a1"]
    update(small)
    print("live again")
    assert letters(screen)[-3:] == "laa"
    finish(small)
    assert screen.paper.count("a0") == 1
    assert_nothing_is_left(screen)


def test_one_that_fills_the_screen_is_joined(terminal: MakeTerminal) -> None:
    """What ends under it is kept, in order with what was printed, until the screen is left."""
    screen = terminal(40, 10)
    large, small = Whole("b", 4), Lines("a", 2)
    begin(large, small)
    assert letters(screen) == "bbbbaa"
    print("\x1b[31mfirst, in red")
    finish(small)
    assert letters(screen) == "bbbb"
    print("second")
    assert screen.is_alternate
    update(large)
    assert screen.paper == ""
    finish(large)
    text = [line.split(" ", 1)[0] for line in screen.paper.splitlines()]
    assert text[:7] == ["first,", "a0", "a1", "21,446", "second", "b0", "b1"]
    assert_nothing_is_left(screen)


def test_frame_that_is_kept_is_not_coloured(terminal: MakeTerminal) -> None:
    """A printed line that leaves its colour open colours no frame, neither below nor kept."""
    for kinds in ((Lines, Lines), (Whole, Lines), (Whole, Whole)):
        screen = terminal(40, 10)
        one, two = kinds[0]("a", 1), kinds[1]("b", 1)
        begin(one, two)
        print("\x1b[31mred")
        update(one, two)
        finish(two)
        finish(one)
        assert "red" in screen.paper
        colours = {
            line[0].data: line[0].fg
            for line in screen._main.buffer.values()
            if line[0].data.strip()
        }
        assert colours.pop("r") == "red"
        assert set(colours) >= {"a", "b"}
        assert set(colours.values()) == {"default"}


# -- runs at once -----------------------------------------------------------------------------


Levels = tuple[DashboardName, DashboardName]


@pytest.mark.parametrize("levels", [("compact", "full"), ("full", "detailed"), ("full", "full")])
def test_two_runs_at_once(levels: Levels, terminal: MakeTerminal) -> None:
    """Both are seen while they run; each leaves its last frame; what is printed is there once."""
    screen = terminal(100, 40)
    seen: list[bool] = []

    async def talk(number: int) -> int:
        print("item", number)
        await asyncio.sleep(0.001)
        seen.append("One" in screen.text and "Two" in screen.text)
        return number

    async def main() -> None:
        one = Pipeline([Stage("One", 1, [talk])])
        two = Pipeline([Stage("Two", 1, [talk])])
        await asyncio.gather(
            one.run(range(100, 150), dashboard=levels[0], dashboard_update_interval=0.01),
            two.run(range(200, 250), dashboard=levels[1], dashboard_update_interval=0.01),
        )

    asyncio.run(main())
    assert any(seen)
    assert_nothing_is_left(screen)
    numbers = [int(line[5:]) for line in screen.paper.splitlines() if line.startswith("item ")]
    for first in (100, 200):
        own = [number for number in numbers if first <= number < first + 50]
        assert own == list(range(first, first + 50))
    assert screen.paper.splitlines().count("50 ok, 0 failed") == 2
    assert sum(line.startswith("━━") for line in screen.paper.splitlines()) == 2


def test_runs_in_threads_of_their_own(terminal: MakeTerminal) -> None:
    """Three event loops in three threads, printing and logging: each line once, whole, in order."""
    screen = terminal(100, 40)
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    levels = ("compact", "full", "progress")

    def run(name: str, level: str) -> None:
        async def talk(number: int) -> int:
            if number % 2:
                logging.getLogger("x").error("%s says %d", name, number)
            else:
                print(f"{name} ", end="")
                print(f"prints {number}")
            await asyncio.sleep(0)
            return number

        stage = Stage(name, 1, [talk])
        options: dict[str, Any] = (
            {"progress": True} if level == "progress" else {"dashboard": level}
        )
        asyncio.run(Pipeline([stage]).run(range(200), dashboard_update_interval=0.01, **options))

    try:
        threads = [
            threading.Thread(target=run, args=(f"Nr{number}", level))
            for number, level in enumerate(levels)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert handler.stream is screen.stream
    finally:
        logging.getLogger().removeHandler(handler)
    assert_nothing_is_left(screen)
    lines = screen.paper.splitlines()
    for number in range(3):
        says = [line for line in lines if line.startswith(f"Nr{number} says")]
        assert says == [f"Nr{number} says {n}" for n in range(1, 200, 2)]
    assert sum(re.search(r"prints \d+$", line) is not None for line in lines) == 300
    assert sum(line.endswith("200 ok, 0 failed") for line in lines) == 3
    assert sum(line.startswith("━━") for line in lines) == 3


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_display_that_raises_beside_another(kind: type[Lines], terminal: MakeTerminal) -> None:
    """It is gone from the screen, and the other goes on as if nothing had been."""
    screen = terminal(40, 10)
    good, bad = kind("a", 3), kind("b", 3)
    begin(good, bad)
    bad.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        update(bad)
    update(good, bad)
    print("printed")
    update(good)
    assert letters(screen) == ("aaa" if kind is Whole else "bbbpaaa")
    assert screen.is_cursor_hidden
    finish(bad, good)
    assert_nothing_is_left(screen)


def test_display_that_raises_at_its_end_beside_another(terminal: MakeTerminal) -> None:
    """Its last line is there all the same, and the other goes on."""
    screen = terminal(40, 10)
    good, bad = Lines("a", 3), Lines("b", 3)
    begin(good, bad)
    bad.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        finish(bad)
    assert letters(screen) == "bbb2aaa"
    finish(good)
    assert_nothing_is_left(screen)


def test_screens_of_two_terminals(terminal: MakeTerminal) -> None:
    """Each draws on its own, and what is printed goes where standard output leads."""
    first = terminal(40, 10)
    one = Lines("a", 2)
    begin(one)
    kept = sys.stdout
    second = terminal(40, 10)
    two = Lines("b", 2)
    begin(two)
    print("to the second")
    print("to the first", file=kept)
    assert (letters(first), letters(second)) == ("taa", "tbb")
    assert len(_screens) == 2
    finish(one)
    finish(two)
    assert_nothing_is_left(second)
    assert not first.is_cursor_hidden


def test_screen_that_was_given_up(terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A display that never ended, on a stream that is closed by now, is in nobody's way."""
    screen = terminal(40, 10)
    one, two = Lines("a", 2), Lines("b", 2)
    begin(one)
    screen.stream.close()
    with os.fdopen(os.dup(screen._slave), "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        begin(two)
        update(one)
        assert letters(screen).endswith("bb")
        finish(two)
        finish(one)
        assert sys.stdout is stream
    assert _screens == {}


def test_output_on_another_terminal(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed there stays there."""
    other = terminal()
    screen = terminal()
    monkeypatch.setattr(sys, "stdout", other.stream)
    display = Lines("a", 2)
    begin(display)
    print("elsewhere")
    finish(display)
    assert "elsewhere" not in screen.paper
    assert other.raw == b"elsewhere\r\n"


def test_child_of_a_fork_leaves_the_screen_alone(terminal: MakeTerminal) -> None:
    """A child that is forked meanwhile prints like any other; its end does not touch the screen."""
    screen = terminal(40, 10)
    display = Whole("a", 2)
    begin(display)
    screen.sync()
    child = os.fork()
    if child == 0:
        print("from the child", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, len(_screens))
        finish(display)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert screen.is_alternate
    assert screen.is_cursor_hidden
    finish(display)
    assert screen.paper.splitlines()[0] == "from the child True 0"
    assert_nothing_is_left(screen)


# -- what is printed --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_printed_sequences_are_text(kind: type[Lines], terminal: MakeTerminal) -> None:
    """Colours stay; what would move the cursor, switch screens or set a title is dropped."""
    screen = terminal(40, 12)
    modes = screen.modes
    display = kind("a", 2)
    begin(display)
    print("\x1b[2J\x1b[Hhome \x1b[32mgreen\x1b[0m \x1b]0;title\x07\x1b[?1049l\x1b[?25h", flush=True)
    for percent in range(0, 101, 10):
        print(f"\r{percent:3}% \x1b[K", end="", flush=True)
    print("\x1b[3A")
    update(display)
    assert screen.is_alternate == (kind is Whole)
    assert screen.is_cursor_hidden
    assert letters(screen)[-2:] == "aa"
    finish(display)
    assert screen.paper.splitlines()[:2] == ["home green", "100%"]
    assert screen._main.buffer[0][5].fg == "green"
    assert screen.title == ""
    assert screen.modes == modes
    assert_nothing_is_left(screen)


def test_bar_that_never_ends_its_line(terminal: MakeTerminal) -> None:
    """Megabytes of a bar in one line are one line, with what was there last."""
    screen = terminal()
    display = Lines("a", 1)
    begin(display)
    for number in range(20_000):
        sys.stderr.write(f"\r{number:6} of 20000 {'#' * 40}")
    sys.stderr.write("\n")
    finish(display)
    assert screen.paper.splitlines()[0].strip() == f"19999 of 20000 {'#' * 40}"
    assert len(screen.paper.splitlines()) == 3


@pytest.mark.parametrize("kind", [Lines, Whole])
def test_newest_printed_lines(kind: type[Lines], terminal: MakeTerminal) -> None:
    """A display can have the last 200 lines as plain text; also one that came later."""
    terminal()
    one, two = kind("a", 1), kind("b", 1)
    assert one._printed(5) == []
    begin(one)
    print("\x1b[31mred\x1b[0m\ttab\x07")
    print("half ", end="")
    settle()
    assert one._printed(5) == ["red tab"]
    print("line\n\nlast")
    begin(two)
    settle()
    assert two._printed(3) == ["half line", "", "last"]
    assert two._printed(0) == []
    for number in range(220):
        print("number", number, "x" * 600)
    settle()
    lines = two._printed(1000)
    assert len(lines) == 200
    assert lines[0].startswith("number 20 x")
    assert max(map(len, lines)) == 500
    finish(one, two)
    assert one._printed(5) == []


def test_newest_printed_lines_without_a_terminal(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is captured there, and nothing is known."""
    terminal()
    monkeypatch.setattr(sys, "stdout", StringIO())
    display = Lines("a", 1)
    begin(display)
    print("line")
    assert display._printed(5) == []
    finish(display)


def test_handlers_and_streams_that_outlive_a_display(terminal: MakeTerminal) -> None:
    """What was made under one display prints above the next one too."""
    screen = terminal(40, 10)
    one, two = Lines("a", 1), Lines("b", 1)
    begin(one)
    handler = logging.StreamHandler()
    kept = sys.stdout
    logging.getLogger().addHandler(handler)
    try:
        finish(one)
        begin(two)
        logging.getLogger().error("logged")
        print("printed", file=kept)
        assert letters(screen)[-3:] == "lpb"
        finish(two)
        assert handler.stream is screen.stream
    finally:
        logging.getLogger().removeHandler(handler)
    assert_nothing_is_left(screen)


def test_print_in_the_middle_of_a_frame(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer may print at any time: the frame is whole, and the line above it."""
    screen = terminal(40, 10)
    use_up_pseudo_terminals(monkeypatch)  # else it would not print to the display itself
    display = Lines("a", 2)
    begin(display)
    print("1\n2\n3\n4")
    display.rows = 5
    texts = ["from a finalizer\n"]
    draw = _Terminal.write

    def drawing(out: _Terminal, text: str) -> bool:  # the frame is made up, and not yet written
        if texts:
            sys.stdout.write(texts.pop())
        return draw(out, text)

    monkeypatch.setattr(_Terminal, "write", drawing)
    update(display)
    assert letters(screen)[-10:] == "1234faaaaa"
    finish(display)


# -- frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_frames_are_synchronized_updates(level: str, terminal: MakeTerminal) -> None:
    """A terminal that can shows a frame when it is whole; outside there is nothing to be seen."""
    screen = terminal()
    display = create(level)
    display.on_start(None, 50_000)
    for seed in range(5):
        display.on_update(make_snapshot(seed=seed))
        print("printed")
    before = screen.raw
    switches = UPDATE.findall(before)
    assert switches[:2] == [b"h", b"l"]
    assert switches == [b"h", b"l"] * (len(switches) // 2)
    outside = re.sub(rb"\x1b\[\?2026h.*?\x1b\[\?2026l", b"", before, flags=re.DOTALL)
    assert not re.search(rb"[^\x1b\[\]?0-9;A-Za-z]|%", outside)
    display.on_finish([], NO_ERRORS)
    assert UPDATE.findall(screen.raw)[-1] == b"l"
