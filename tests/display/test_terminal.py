"""Drawing on a real terminal: what is seen, what stays, what reaches it."""

# ruff: noqa: T201 - what is printed is what is tested
from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable
from io import StringIO
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from antflow import DashboardSnapshot, Pipeline, RunResults, Stage
from antflow.display import BaseDashboard, CompactDashboard, ProgressDisplay, create
from tests.display.conftest import LEVELS, NO_ERRORS, MakeTerminal, make_snapshot
from tests.display.test_text import NASTY, strange_text
from tests.pty_screen import PtyScreen

PATIENCE = 60.0

OURS = re.compile(r"\x1b(\[[0-9;]*[mABHJK]|\[\?25[hl]|\[\?1049[hl]|\[\?2026[hl])")
"""Every escape sequence a display may write: styles, cursor, erasing, and two modes."""


class Gate:
    """Lets items through one by one, so that a test sees the moment it wants to see."""

    def __init__(self, fails: bool = True) -> None:
        self.limit = 0
        self._fails = fails
        self._seen = 0

    async def __call__(self, item: Any) -> Any:
        number = self._seen
        self._seen += 1
        while number >= self.limit:
            await asyncio.sleep(0.002)
        if self._fails and number % 10 == 0:
            raise ValueError(f"number {number} is bad")
        return item


def options_for(level: str) -> dict[str, Any]:
    return {"progress": True} if level == "progress" else {"dashboard": level}


async def until(holds: Callable[[], bool], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never seen: {what}"
        await asyncio.sleep(0.005)


def run(level: str, items: Any = range(100), workers: int = 5, **options: Any) -> RunResults[Any]:
    gate = Gate()
    gate.limit = 10**9
    stages = [Stage("Fetch", workers, [gate], task_attempts=1), Stage("Save", 2, [nothing])]
    options = options_for(level) | {"dashboard_update_interval": 0.01} | options
    return asyncio.run(Pipeline(stages).run(items, **options))


async def nothing(item: Any) -> Any:
    return item


def assert_restored(screen: PtyScreen) -> None:
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    assert screen.raw.endswith(b"\x1b[0m\x1b[?25h")


# -- what is seen -----------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_screen_while_it_runs_and_afterwards(
    level: str, size: tuple[int, int], terminal: MakeTerminal
) -> None:
    """The frame is on the screen while the run goes on; afterwards the last one stays, alone."""
    screen = terminal(*size)

    async def main() -> None:
        gate = Gate()
        pipeline = Pipeline(
            [Stage("Fetch", 4, [gate], task_attempts=1), Stage("Save", 2, [nothing])]
        )
        options = options_for(level)
        running = asyncio.ensure_future(
            pipeline.run(range(100), dashboard_update_interval=0.01, **options)
        )
        await until(lambda: "  0%" in screen.text, "the first frame")
        gate.limit = 50
        await until(lambda: " 50%  50/100" in screen.text, "half of it")
        assert screen.is_alternate == (level == "full")
        assert screen.is_cursor_hidden
        assert "45 ok, 5 failed" in screen.text
        if level != "progress":
            await until(lambda: "4/4" in screen.text, "all four workers at the gate")
            assert "Fetch" in screen.text
            assert "ValueError" in screen.text
        gate.limit = 100
        await running

    asyncio.run(main())
    assert_restored(screen)
    lines = screen.paper.splitlines()
    assert lines[0].startswith("━━━")
    assert "100%  100/100" in lines[0]
    assert lines[-1].endswith("90 ok, 10 failed")
    assert screen.paper.count("100/100") == 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [(60, 15), (40, 10), (20, 5), (10, 3), (3, 2), (1, 1)])
@pytest.mark.parametrize("workers", [1, 50])
def test_screen_when_it_is_small(
    level: str, size: tuple[int, int], workers: int, terminal: MakeTerminal
) -> None:
    """Nothing wraps and nothing scrolls: what stays is one frame and the counts, no older piece."""
    screen = terminal(*size)
    assert len(run(level, workers=workers)) == 90
    assert_restored(screen)
    if size[0] >= 20:
        lines = screen.paper.splitlines()
        assert lines[-1].endswith("90 ok, 10 failed")
        assert len(lines) <= size[1] + 1
        assert screen.paper.count("90 ok, 10 failed") == 1


def test_screen_when_the_window_is_dragged(terminal: MakeTerminal) -> None:
    """The next frame has the new size, on either screen."""
    for level in ("detailed", "full"):
        screen = terminal(100, 30)
        display = create(level)
        display.on_start(None, 50_000)
        for columns, rows in [(100, 30), (60, 15), (40, 10), (120, 40), (22, 5), (80, 24)]:
            screen.resize(columns, rows)
            snapshot = make_snapshot()
            display.on_update(snapshot)
            frame = [line for line in screen.rows if line]
            assert frame[-1] == "21,446 ok, 256 failed"
            assert len(frame) <= rows
            if level == "full":
                assert max(map(cell_len, frame)) <= columns
                assert frame[0].startswith("● running")
        display.on_finish([], NO_ERRORS)
        assert_restored(screen)


@pytest.mark.parametrize("level", LEVELS)
def test_screen_without_colours(
    level: str, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR: no colour is set, and done, failed and left differ by their glyphs."""
    monkeypatch.setenv("NO_COLOR", "1")
    screen = terminal()
    run(level)
    styles = re.findall(rb"\x1b\[([0-9;]*)m", screen.raw)
    assert styles
    assert {code for style in styles for code in style.split(b";")} <= {b"0", b"1", b"2"}
    assert "━┅" in screen.paper


@pytest.mark.parametrize("level", LEVELS)
def test_screen_in_ascii(level: str, terminal: MakeTerminal) -> None:
    """A terminal that can only show ASCII gets ASCII, and whatever else there is as ``?``."""
    screen = terminal(encoding="ascii")
    stages = [Stage("Größe", 2, [nothing])]
    asyncio.run(Pipeline(stages).run([{"id": "日本", "value": 1}], **options_for(level)))
    assert screen.raw.isascii()
    assert "====" in screen.paper
    assert screen.paper.splitlines()[-1].endswith("1 ok, 0 failed")


def test_unknown_total_on_a_terminal(terminal: MakeTerminal) -> None:
    """A generator has no length: a count, no bar, no percent; nor with nothing at all."""
    for level in LEVELS:
        screen = terminal()
        run(level, (n for n in range(20)))
        assert "20 done" in screen.paper
        assert "100%" not in screen.paper
        screen = terminal()
        run(level, [])
        assert "100%  0/0" in screen.paper


def test_display_in_use_again(terminal: MakeTerminal) -> None:
    """One object shows two runs, each with its own numbers."""
    display = ProgressDisplay(total=7)
    for count in (10, 20):
        screen = terminal()
        pipeline = Pipeline([Stage("S", 2, [nothing])])
        asyncio.run(pipeline.run(range(count), custom_dashboard=display))
        assert f"100%  {count}/{count}" in screen.paper
        assert display.total == count
        assert display.start_time is not None
        assert abs(display.start_time - time.time()) < 3600
    display.on_start(pipeline, 50_000)
    display.on_update(make_snapshot())
    assert " 43%  21,702/50,000" in screen.text
    display.on_finish([], NO_ERRORS)
    screen = terminal()
    asyncio.run(pipeline.run((n for n in range(7)), custom_dashboard=display))
    assert "100%  7/7" in screen.paper


# -- drawing ----------------------------------------------------------------------------------


class CountingStream(StringIO):
    """A terminal as far as one can tell, that counts."""

    writes = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


@pytest.mark.parametrize("level", LEVELS)
def test_redraws_when_it_is_updated_and_at_no_other_time(
    level: str, terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write per update, no thread, and next to nothing when nothing has changed."""
    terminal()
    stream = CountingStream()
    monkeypatch.setattr(sys, "stderr", stream)
    threads = threading.active_count()
    display = create(level)
    display.on_start(None, 50_000)
    display.on_update(make_snapshot())
    for _ in range(15):
        before, size = stream.writes, len(stream.getvalue())
        display.on_update(make_snapshot())
        assert stream.writes == before + 1
        assert len(stream.getvalue()) - size < 60
    assert threading.active_count() == threads
    display.on_finish([], NO_ERRORS)


def test_frame_that_gets_shorter(terminal: MakeTerminal) -> None:
    """Nothing of the longer one stays behind, and the last column is not eaten."""
    for level in ("live", "alternate"):
        screen = terminal(20, 10)
        kind = Own if level == "live" else OwnScreen
        display = kind(Text("\n".join("abcdefghijklmnopqrst" for _ in range(5))), Text("short"))
        print("above")
        display.on_start(None, 1)
        display.on_update(make_snapshot())
        above = ["above"] if level == "live" else []
        assert screen.text.splitlines() == [*above, *["abcdefghijklmnopqrst"] * 5]
        display.on_update(make_snapshot())
        assert screen.text.splitlines() == [*above, "short"]
        display.on_update(make_snapshot())
        assert screen.text.splitlines() == [*above, "short"]
        display.on_finish([], NO_ERRORS)


def test_frame_is_repaired(terminal: MakeTerminal) -> None:
    """What a program behind our back has written over is drawn again, soon."""
    screen = terminal()
    display = create("full")
    display.on_start(None, 50_000)
    display.on_update(make_snapshot())
    whole = screen.text
    screen.scribble(b"\x1b[3;1Hgarbage from elsewhere")
    assert "garbage" in screen.text
    for _ in range(20):
        display.on_update(make_snapshot())
    assert screen.text == whole
    display.on_finish([], NO_ERRORS)


# -- what others print ------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_prints_and_logs_are_kept_whole(level: str, terminal: MakeTerminal) -> None:
    """Prints, flushes, log records, from tasks and threads: each once, in order, whole."""
    screen = terminal(100, 30)
    handler = logging.StreamHandler()  # made before the display: it holds the terminal's stream
    logging.getLogger().addHandler(handler)
    expected: list[str] = []

    async def chatty(number: int) -> int:
        print(f"print {number} [red]")
        print(f"half {number}, ", end="", flush=True)
        print("other half")
        print(f"error {number}", file=sys.stderr)
        await asyncio.to_thread(logging.getLogger("x").error, "log %d", number)
        expected.extend(
            [
                f"print {number} [red]",
                f"half {number}, other half",
                f"error {number}",
                f"log {number}",
            ]
        )
        return number

    try:
        pipeline = Pipeline([Stage("S", 1, [chatty])])
        options = options_for(level)
        asyncio.run(pipeline.run(range(25), dashboard_update_interval=0.01, **options))
        assert handler.stream is screen.stream
    finally:
        logging.getLogger().removeHandler(handler)
    assert sys.stdout is sys.stderr is screen.stream
    lines = screen.paper.splitlines()
    assert lines[:100] == expected
    assert "25/25" in lines[100]
    assert lines[-1].endswith("25 ok, 0 failed")
    assert screen.paper.count("25/25") == 1


@pytest.mark.parametrize("level", LEVELS)
def test_log_records_of_the_library(level: str, terminal: MakeTerminal) -> None:
    """A record per failed item appears above the display, and leaves it whole."""
    screen = terminal(200, 24)
    handler = logging.StreamHandler()
    logger = logging.getLogger("antflow")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        run(level)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    lines = screen.paper.splitlines()
    assert sum(line.startswith("item ") and "failed in stage Fetch" in line for line in lines) == 10
    assert all(line.startswith("item ") for line in lines[:10])
    assert lines[10].startswith("━")


def test_output_after_the_end(terminal: MakeTerminal) -> None:
    """What still holds the captured stream writes to the terminal, below the display."""
    screen = terminal()
    display = create("compact")
    display.on_start(None, 1)
    kept = sys.stdout
    late = logging.StreamHandler()  # made while the display is up
    display.on_update(make_snapshot())
    display.on_finish([], NO_ERRORS)
    kept.write("late\n")
    late.emit(logging.makeLogRecord({"msg": "later"}))
    kept.flush()
    assert kept.isatty()
    assert kept.encoding == screen.stream.encoding
    assert screen.paper.splitlines()[-2:] == ["late", "later"]


def test_stream_that_leads_elsewhere_is_left_alone(
    terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``2>errors.txt`` goes there, while a display is up too."""
    screen = terminal()
    errors = StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    display = create("compact")
    display.on_start(None, 1)
    print("to the file", file=sys.stderr)
    display.on_finish([], NO_ERRORS)
    assert errors.getvalue() == "to the file\n"
    assert "file" not in screen.paper


# -- text from outside ------------------------------------------------------------------------


def assert_only_cells_changed(screen: PtyScreen, modes: set[int]) -> None:
    written = OURS.sub("", screen.raw.decode())
    strange = {c for c in written if not (c.isprintable() or c in "\r\n\u3000")}
    assert strange == set()
    assert screen.title == ""
    assert screen.modes == modes


@pytest.mark.parametrize("level", LEVELS)
def test_hostile_text_in_a_run(level: str, terminal: MakeTerminal) -> None:
    """Ids, values, errors and stage names that want to be more than text are text."""
    screen = terminal(120, 40)
    modes = screen.modes

    async def hostile(text: str) -> str:
        await asyncio.sleep(0.001)
        raise ValueError(f"<{text}>")

    items = [{"id": f"{text}{n}", "value": text} for n, text in enumerate(NASTY)]
    names = ["Fe[/tch]", "[red]", "日本語 👍🏽", "कि ❤️ 🇩🇪"]
    stages = [
        Stage(names[0], 2, [nothing]),
        *(Stage(name, 2, [nothing]) for name in names[1:]),
        Stage("last", 9, [hostile], task_attempts=2, task_wait_seconds=0.001),
    ]
    options = options_for(level)
    results = asyncio.run(
        Pipeline(stages, name="\x1b]0;x\x07[/x]").run(
            items, dashboard_update_interval=0.01, **options
        )
    )
    assert len(results.failed) == len(NASTY)
    assert_only_cells_changed(screen, modes)
    assert_restored(screen)
    assert screen.paper.splitlines()[-1].endswith(f"0 ok, {len(NASTY)} failed")
    if level in ("detailed", "full"):
        table = [line for line in screen.paper.splitlines() if " 0/2 " in line or " 0/9 " in line]
        assert len({cell_len(line[: line.index(" 0/")]) for line in table}) == 1
        assert any(line[1:].startswith("Fe[/tch] ") for line in table)


@pytest.mark.parametrize("level", LEVELS)
@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(st.sampled_from(NASTY) | strange_text, min_size=3, max_size=3))
@example(["\xa0\u3000", "[red]x[/red]", "\xa0\u3000"])
def test_hostile_text_in_snapshots(level: str, terminal: MakeTerminal, texts: list[str]) -> None:
    """Whatever is in a snapshot: only cells change, and the frame is whole."""
    screen = terminal(80, 24)
    modes = screen.modes
    stage, item_id, message = texts
    display = create(level)
    display.on_start(None, 50_000)
    snapshot = make_snapshot(8, (f"{stage}1", f"{stage}2"), item_id=item_id, message=message)
    display.on_update(snapshot)
    rows = screen.rows
    assert any("43%  21,702/50,000" in row for row in rows)
    if level in ("detailed", "full"):
        heading = next(row for row in rows if row.startswith(" stage "))
        column = heading.index("failed") + len("failed")
        table = [row for row in rows if " 21,702 " in row]
        assert len(table) == 2
        for row in table:
            end = row.rindex(" 256 ") + len(" 256")
            assert cell_len(row[:end]) == column
    display.on_finish([], NO_ERRORS)
    assert_only_cells_changed(screen, modes)
    screen.close()


# -- displays of one's own --------------------------------------------------------------------


class Own(BaseDashboard):
    """Shows whatever it was told to."""

    def __init__(self, *frames: RenderableType | Exception) -> None:
        self.frames = frames  # and no super().__init__()
        self.count = 0

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        frame = self.frames[min(self.count, len(self.frames) - 1)]
        self.count += 1
        if isinstance(frame, Exception):
            raise frame
        return frame


class OwnScreen(Own):
    """The same on the alternate screen."""

    _fills_screen: ClassVar[bool] = True


def run_with(display: BaseDashboard) -> RunResults[Any]:
    pipeline = Pipeline([Stage("S", 2, [nothing])])
    return asyncio.run(
        pipeline.run(range(10), custom_dashboard=display, dashboard_update_interval=0.01)
    )


def test_own_display_draws_anything_rich_can(terminal: MakeTerminal) -> None:
    """Tables, groups, markup: cut to the terminal, and followed by the counts."""
    table = Table("name", "value")
    for number in range(100):
        table.add_row(f"row {number}", "日本語 " * 30)
    for frame in (table, Group("one", Text("two")), "[bold]bold[/bold] text", Text("\n" * 50)):
        screen = terminal(40, 10)
        run_with(Own(frame))
        assert_restored(screen)
        assert screen.paper.splitlines()[-1] == "10 ok, 0 failed"
        assert len(screen.paper.splitlines()) <= 11
    screen = terminal()
    modes = screen.modes
    run_with(Own(Text("hidden \x1b]0;title\x1b\\ and \x9b2J in\u202e text")))
    assert_only_cells_changed(screen, modes)


def test_own_display_that_raises_gives_the_terminal_back(terminal: MakeTerminal) -> None:
    """The terminal is given back at once, and the run goes on to its end."""
    display = Own("fine", ValueError("broken"))
    screen = terminal()
    display.on_start(None, 10)
    display.on_update(make_snapshot())
    assert screen.is_cursor_hidden
    with pytest.raises(ValueError, match="broken"):
        display.on_update(make_snapshot())
    assert_restored(screen)
    assert sys.stdout is screen.stream
    display.on_finish([], NO_ERRORS)
    for frames in (["fine", ValueError()], [ValueError()], [Text("x"), "[/nonsense]"]):
        screen = terminal()
        assert len(run_with(Own(*frames))) == 10
        assert_restored(screen)


def test_own_display_must_render() -> None:
    """A subclass without ``render`` is refused where it is made."""

    class Nothing(BaseDashboard):
        pass

    with pytest.raises(TypeError, match="render"):
        Nothing()  # type: ignore[abstract] # pyright: ignore[reportAbstractUsage]


# -- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_finish_twice_and_without_a_start(level: str, terminal: MakeTerminal) -> None:
    """The second time, and before anything began, nothing happens."""
    screen = terminal()
    display = create(level)
    display.on_finish([], NO_ERRORS)
    assert screen.raw == b""
    display.on_start(None, 1)
    display.on_update(make_snapshot())
    display.on_finish([], NO_ERRORS)
    size = len(screen.raw)
    display.on_finish([], NO_ERRORS)
    display.on_update(make_snapshot())
    assert len(screen.raw) == size
    assert_restored(screen)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", ["timeout", "source", "exit"])
def test_terminal_is_restored(level: str, how: str, terminal: MakeTerminal) -> None:
    """A timeout around the run, a source that raises, a task that ends the program."""
    screen = terminal()

    async def slow(number: int) -> int:
        if how == "exit" and number == 3:
            raise SystemExit(3)
        await asyncio.sleep(3600 if how == "timeout" and number > 4 else 0)
        return number

    def source() -> Any:
        yield from range(10)
        if how == "source":
            raise OSError("the disk")

    async def main() -> None:
        pipeline = Pipeline([Stage("Slow", 2, [slow])])
        async with asyncio.timeout(0.3 if how == "timeout" else None):
            await pipeline.run(source(), dashboard_update_interval=0.01, **options_for(level))

    expected = {"timeout": TimeoutError, "source": OSError, "exit": SystemExit}[how]
    with pytest.raises(expected):
        asyncio.run(main())
    assert_restored(screen)
    assert sys.stdout is screen.stream
    assert "done" in screen.paper
    if how == "timeout":
        assert "5 ok, 0 failed, 5 cancelled" in screen.paper


@pytest.mark.parametrize("level", LEVELS)
def test_terminal_that_hangs_up(level: str, terminal: MakeTerminal) -> None:
    """The window is closed in the middle: the run does not notice."""
    screen = terminal()

    async def closing(number: int) -> int:
        if number == 50:
            screen.hang_up()
        await asyncio.sleep(0)
        return number

    pipeline = Pipeline([Stage("S", 2, [closing])])
    options = options_for(level)
    with warnings.catch_warnings(record=True) as caught:
        results = asyncio.run(pipeline.run(range(100), dashboard_update_interval=0.01, **options))
    assert len(results) == 100
    assert caught == []


@pytest.mark.parametrize("level", [*LEVELS, "log"])
@pytest.mark.parametrize("error", [OSError(5, "gone"), ValueError("closed"), RuntimeError()])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_stream_that_fails(
    level: str,
    error: Exception,
    is_terminal: bool,
    terminal: MakeTerminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever writing raises stays inside the display."""

    class Failing(StringIO):
        def isatty(self) -> bool:
            return is_terminal

        def write(self, text: str) -> int:
            raise error

    terminal()
    monkeypatch.setattr(sys, "stderr", Failing())
    display = create(level)
    display.on_start(None, 1)
    display.on_update(make_snapshot())
    display.on_update(make_snapshot(seed=2))
    display.on_finish([], NO_ERRORS)
    assert isinstance(sys.stderr, Failing)


def test_compact_needs_no_arguments() -> None:
    """The constructors are as they always were."""
    assert CompactDashboard(2.0).refresh_rate == 2.0
    display = ProgressDisplay(100, width=10)
    assert (display.total, display.width, display.start_time) == (100, 10, None)
    assert ProgressDisplay(None).total == ProgressDisplay(0).total == 0
