"""While the event loop is blocked a display says so, and its clock goes on."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import StringIO
from typing import Any

import pytest
from rich.cells import cell_len
from rich.live import Live
from rich.text import Text

from antflow import DashboardSnapshot, LoopStall, Pipeline, Stage
from antflow._monitor.view import Viewer
from antflow.display import BaseDashboard, create
from antflow.display.bars import blocked_line
from antflow.display.canvas import Canvas
from tests.display.conftest import LEVELS, NO_ERRORS, MakeTerminal, make_snapshot, untimed
from tests.display.test_text import NASTY
from tests.pty_screen import PtyScreen

SAYS = "event loop blocked for 0:07 by stage fetch at app.py:5 in f: time.sleep(20)"


def block(seconds: float = 7.2, **changes: Any) -> LoopStall:
    known = {"stage": "fetch", "location": "app.py:5 in f", "line": "time.sleep(20)"}
    return LoopStall(seconds, 0.0, **known | changes)


class Clock:
    """A monotonic clock that is set."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("antflow.display.base.monotonic", clock.monotonic)
    return clock


def begin(display: BaseDashboard) -> None:
    display.on_start(None, 50_000)
    display.on_update(make_snapshot())


# -- the line ---------------------------------------------------------------------------------


def line(width: int, stall: LoopStall, total: int | None = 50_000) -> str:
    progress = Viewer().see(make_snapshot(total=total)).progress
    return blocked_line(Canvas(width, 1), progress, stall, 132.0).plain


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (120, f"▲ {SAYS}  43%  21,702/50,000  2:12"),
        (90, f"▲ {SAYS}  2:12"),
        (60, "▲ event loop blocked for 0:07 by stage fetch at app.p…  2:12"),
        (40, "▲ event loop blocked for 0:07 by …  2:12"),
        (34, "▲ event loop blocked for 0:07 by …"),
        (5, "▲ ev…"),
        (1, "▲"),
    ],
)
def test_line_says_the_most_important_first(width: int, said: str) -> None:
    """How long, what, where; then the time that the run has taken, and how far it is."""
    assert line(width, block()) == said


def test_line_leaves_out_folders_rather_than_the_place() -> None:
    """A file in another folder stands with its name alone if there is no room for its path."""
    stall = block(location="/home/ann/projects/nightly/app.py:5 in f", line="get(url)")
    assert "at app.py:5 in f: get(url)  2:12" in line(80, stall)
    assert "at /home/ann/projects/nightly/app.py:5 in f: get(url)  43%" in line(140, stall)


def test_line_says_what_is_known() -> None:
    """Where nothing could be seen of what blocks the loop, its time alone is told."""
    unknown = LoopStall(61.0, 0.0)
    assert line(80, unknown, None) == "▲ event loop blocked for 1:01  21,702 done  2:12"


@pytest.mark.parametrize("text", NASTY)
def test_hostile_text_in_the_line(text: str) -> None:
    """A name or a line of source is text, however odd, and never too wide."""
    for width in (20, 80, 200):
        said = line(width, block(stage=text, location=text, line=text))
        assert said.replace("\u3000", " ").isprintable()
        assert cell_len(said) <= width


# -- on a terminal ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_one_row_says_that_the_loop_is_blocked(
    level: str, size: tuple[int, int], terminal: MakeTerminal, clock: Clock
) -> None:
    """The row of the bar does, its clock goes on, and the next frame is as ever."""
    screen = terminal(*size)
    display = create(level)
    begin(display)
    before = screen.rows
    row = 1 if level == "full" else 0
    assert "43%" in before[row]
    assert "2:05" in before[row]
    for seconds in (1, 2, 7):
        clock.now = 1000.0 + seconds
        display._show_block(block(seconds))
        noted = screen.rows
        assert f"event loop blocked for 0:0{seconds} by stage fetch at app.py:5" in noted[row]
        assert noted[row].endswith(f"2:{5 + seconds:02d}")
        assert noted[:row] + noted[row + 1 :] == before[:row] + before[row + 1 :]
    display.on_update(make_snapshot())
    after = screen.rows
    assert after[row] == before[row]
    assert "blocked for" not in screen.text
    display._show_block(block())
    display._show_block(None)
    assert screen.rows == after
    display._show_block(block())
    display.on_finish([], NO_ERRORS)
    display._show_block(block())
    assert "blocked" not in screen.paper


@pytest.mark.parametrize("level", LEVELS)
def test_blocked_loop_in_a_window_that_is_dragged(level: str, terminal: MakeTerminal) -> None:
    """The line has the new width, and no row is left behind; nor is one in a tiny window."""
    screen = terminal(100, 30)
    display = create(level)
    begin(display)
    for columns, rows in [(120, 40), (80, 24), (200, 50), (30, 4), (20, 1), (80, 24)]:
        screen.resize(columns, rows)
        display._show_block(block())
        assert screen.text.count("▲ event loop") == 1
        assert len([row for row in screen.rows if row]) <= rows
        assert max(map(cell_len, screen.rows)) <= columns
    display.on_update(make_snapshot())
    assert "blocked" not in screen.text
    display.on_finish([], NO_ERRORS)


@pytest.mark.parametrize("level", LEVELS)
def test_row_of_a_blocked_loop_is_a_synchronized_update(level: str, terminal: MakeTerminal) -> None:
    """A terminal never shows it half drawn, and nothing but that row is written."""
    screen = terminal()
    display = create(level)
    begin(display)
    display._show_block(block(1.0))
    written = len(screen.raw)
    display._show_block(block(2.0))
    text = screen.raw[written:]
    assert text.startswith(b"\x1b[?2026h")
    assert text.endswith(b"\x1b[?2026l")
    assert text.count(b"\x1b[?2026h") == 1
    assert b"0:02" in text
    assert b"ok" not in text
    written = len(screen.raw)
    display._show_block(block(2.0))
    assert len(screen.raw) == written
    display.on_finish([], NO_ERRORS)


def test_two_displays_of_which_one_is_blocked(terminal: MakeTerminal) -> None:
    """Each says what its own event loop does."""
    screen = terminal()
    one, two = create("compact"), create("detailed")
    begin(one)
    begin(two)
    before = screen.rows
    row = next(n for n, text in enumerate(before[1:], 1) if "43%" in text)
    two._show_block(block())
    assert SAYS[:40] in screen.rows[row]
    one.on_update(make_snapshot())
    assert screen.rows[:row] == before[:row]
    assert SAYS[:40] in screen.rows[row]
    one.on_finish([], NO_ERRORS)
    two.on_finish([], NO_ERRORS)


class Rendered(BaseDashboard):
    """Notes the threads in which it renders."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def render(self, snapshot: DashboardSnapshot) -> Any:
        self.threads.append(threading.get_ident())
        return Text("mine")


def test_own_display_is_not_rendered_for_a_blocked_loop(terminal: MakeTerminal) -> None:
    """The code of a subclass is not called by another thread; its frame gives way all the same."""
    screen = terminal()
    display = Rendered()
    display._show_block(block())
    display.on_start(None, 0)
    display._show_block(block())
    assert screen.text == ""
    display.on_update(make_snapshot())
    display._show_block(block())
    assert screen.text.startswith(f"▲ {SAYS[:40]}")
    assert len(display.threads) == 1
    display.on_finish([], NO_ERRORS)


def test_frame_that_came_meanwhile_stays(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on just before the line is drawn: the new frame is not touched."""
    screen = terminal()
    display = create("compact")
    begin(display)

    def late(*args: Any) -> Text:
        display.on_update(make_snapshot())
        return blocked_line(*args)

    monkeypatch.setattr("antflow.display.base.blocked_line", late)
    display._show_block(block())
    assert "blocked" not in screen.text
    display.on_finish([], NO_ERRORS)


def test_blocked_loop_beside_a_live(terminal: MakeTerminal) -> None:
    """Nothing is drawn over a `Live` that the code that blocks has begun."""
    screen = terminal()
    display = create("compact")
    begin(display)
    with Live(Text("theirs"), auto_refresh=False):
        written = len(screen.raw)
        display._show_block(block())
        assert len(screen.raw) == written
    display.on_finish([], NO_ERRORS)


# -- plain lines ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["log", "compact"])
def test_plain_lines_about_a_blocked_loop(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one comes after five seconds, the others at intervals that grow to thirty."""
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    display = create(level)
    begin(display)
    for lasting in (101, 8, 4, 12):
        for second in range(1, lasting + 1):
            display._show_block(block(float(second)))
        display._show_block(None)
    told = [text for text in untimed(file.getvalue()).splitlines() if "blocked" in text]
    assert told[0] == "pipeline: event loop blocked for 0:05 by stage fetch at app.py:5 in f: " + (
        "time.sleep(20)"
    )
    times = [text.split(" blocked for ")[1].split()[0] for text in told]
    assert times == ["0:05", "0:10", "0:20", "0:40", "1:10", "1:40", "0:05", "0:05", "0:10"]


# -- real runs --------------------------------------------------------------------------------

FURTHER = re.compile(r" [5-9]\d%  \d+/100")
"""A bar in the second half of the run."""

PROGRAM = """
import asyncio, logging, signal, sys, threading, time
from antflow import Pipeline, Stage
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # in the threads as well
def talk():
    time.sleep(1)
    print("printed meanwhile")
async def fetch(number):
    if number == 50:
        threading.Thread(target=talk).start()
        signal.sigwait([signal.SIGUSR1])
    await asyncio.sleep(0.02 if number > 50 else 0.005)
    return number
def names():
    return {thread.name for thread in threading.enumerate()}
def run(**options):
    logging.getLogger("antflow").addHandler(logging.NullHandler())
    options = {"dashboard_update_interval": 0.1} | options
    pipeline = Pipeline([Stage("fetch", 1, [fetch])], **pipeline_options)
    return asyncio.run(pipeline.run(range(100), **options))
pipeline_options = {}
"""


def test_run_that_blocks_its_loop() -> None:
    """It is seen on every face, counts on, and is gone when the loop goes on."""
    with ExitStack() as stack:
        screens = {level: PtyScreen(80, 24) for level in LEVELS}  # all at once: it takes seconds
        for level, screen in screens.items():
            stack.callback(screen.close)
            option = "progress=True" if level == "progress" else f"dashboard={level!r}"
            end = "assert 'antflow-block' not in names()\nprint('good')"
            screen.spawn(f"{PROGRAM}\nrun({option})\n{end}")
        for level, screen in screens.items():
            see_a_block(level, screen)


def see_a_block(level: str, screen: PtyScreen) -> None:
    for seconds in (1, 2):
        said = b"event loop blocked for 0:0%d by stage fetch at <string>:" % seconds
        screen.wait_until(lambda said=said: said in screen.raw, f"{level}: {said!r}")  # type: ignore[misc]
    if level != "full":  # there it is kept for the first screen
        assert "printed meanwhile" in screen.text, level
    screen.signal(signal.SIGUSR1)
    screen.wait_until(lambda: FURTHER.search(screen.text) is not None, f"{level}: the next frame")
    assert "blocked for 0:0" not in screen.text, level
    assert screen.wait() == 0, level
    assert "good" in screen.paper, level
    assert "printed meanwhile" in screen.paper, level
    assert "blocked for 0:0" not in screen.paper, level


def test_run_that_is_not_watched_stays_as_it_is(screen: PtyScreen) -> None:
    """With ``blocked_loop_after=None`` nothing is seen of a block, and nothing looks for it."""
    program = f"{PROGRAM}\npipeline_options['blocked_loop_after'] = None\nrun(dashboard='compact')"
    screen.spawn(program)
    screen.wait_until(lambda: "printed meanwhile" in screen.text, "the block")
    time.sleep(0.6)  # watched, it would be seen after a second
    screen.signal(signal.SIGUSR1)
    assert screen.wait() == 0
    assert b"event loop blocked" not in screen.raw


def test_question_that_blocks_the_loop_is_not_drawn_over(screen: PtyScreen) -> None:
    """The commonest of blocks is `input`: then the question is all there is."""
    screen.spawn(
        PROGRAM.replace("signal.sigwait([signal.SIGUSR1])", "input('Name? ')")
        + "run(dashboard='full')"
    )
    screen.wait_until(lambda: screen.text.endswith("printed meanwhile"), "the block")
    time.sleep(1.0)
    assert "Name?" in screen.text
    assert "blocked" not in screen.text
    screen.type(b"\n")
    assert screen.wait() == 0


class Slow(logging.Handler):
    """A log handler that waits for a slow server."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.goes_on.wait(20)


@pytest.fixture
def slow_handler() -> Iterator[Slow]:
    handler = Slow()
    logging.getLogger().addHandler(handler)
    yield handler
    handler.goes_on.set()
    logging.getLogger().removeHandler(handler)


def test_log_handler_that_blocks_the_loop(terminal: MakeTerminal, slow_handler: Slow) -> None:
    """The watch itself then waits for the handler, but the display says what happens."""
    screen = terminal()
    seen: list[str] = []

    def look() -> None:
        wait(lambda: "blocked for 0:02" in screen.text)
        seen.append(screen.text)
        slow_handler.goes_on.set()

    async def fetch(number: int) -> int:
        logging.getLogger("mine").error("number %d", number)
        return number

    looking = threading.Thread(target=look)
    looking.start()
    stage: Stage[int, int] = Stage("fetch", 1, [fetch])
    asyncio.run(Pipeline([stage]).run([1], dashboard="compact"))
    looking.join()
    assert "by stage fetch at test_blocked.py" in seen[0]
    assert "blocked for 0" not in screen.text


def wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
