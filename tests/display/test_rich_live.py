"""A `rich.live.Live` of the user's own on the same terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.display.conftest import LEVELS
from tests.pty_screen import PtyScreen

PROGRAM = """
import asyncio, sys
import rich
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.text import Text
from antflow import Pipeline, Stage

def live(**options):
    return Live(Text("TOP\\nBOTTOM"), **options)

async def work(number):
    await asyncio.sleep(0.001)
    print("printed", number)
    return number

async def quiet(number):
    await asyncio.sleep(0.001)

async def run(task=work, items=20, level={level!r}):
    options = dict(progress=True) if level == "progress" else dict(dashboard=level)
    await Pipeline([Stage("Work", 1, [task])], name="mine").run(
        range(items), dashboard_update_interval=0.01, **options
    )

"""

OURS = re.compile(rb"\x1b\[\?(1049|2026)")


@pytest.fixture
def screen() -> Iterator[PtyScreen]:
    screen = PtyScreen(80, 60)
    yield screen
    screen.close()


def run(screen: PtyScreen, level: str, script: str) -> list[str]:
    screen.spawn(PROGRAM.format(level=level) + script)
    assert screen.wait() == 0, screen.paper
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    return screen.paper.splitlines()


def counted(lines: list[str], start: str) -> int:
    return sum(line.startswith(start) for line in lines)


PRINTED = [f"printed {number}" for number in range(20)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "options",
    [
        "",
        "console=Console()",
        "console=Console(stderr=True)",
        "redirect_stdout=False, redirect_stderr=False",
    ],
)
def test_live_that_is_up_already(level: str, options: str, screen: PtyScreen) -> None:
    """The display writes plain lines, which stand above the user's own; no escape sequences."""
    script = f"with live({options}):\n    asyncio.run(run())\n"
    if options.startswith("redirect"):
        script = script.replace(
            "run())", "run(quiet))"
        )  # what a task prints is the user's to place
    lines = run(screen, level, script)
    assert not OURS.search(screen.raw)
    assert lines[-2:] == ["TOP", "BOTTOM"]
    assert (counted(lines, "TOP"), counted(lines, "BOTTOM")) == (1, 1)
    assert " mine: 0% 0/20" in lines[0]
    assert "20 ok, 0 failed" in lines
    if not options.startswith("redirect"):
        assert [line for line in lines if line.startswith("printed")] == PRINTED


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("options", ["", "console=Console()", "console=Console(stderr=True)"])
def test_live_that_begins_meanwhile(level: str, options: str, screen: PtyScreen) -> None:
    """The display steps aside and leaves its frame; each line is there once, and the user's own."""
    script = f"""
async def main():
    begun = asyncio.Event()
    async def task(number):
        if number == 5:
            await asyncio.sleep(0.1)  # there is a frame, with what was printed up to now
            begun.set()
            await asyncio.sleep(0.1)
        return await work(number)
    running = asyncio.ensure_future(run(task))
    await begun.wait()
    with live({options}):
        print("logged", file=sys.stderr)
        await running
    print("after")

asyncio.run(main())
"""
    lines = run(screen, level, script)
    assert lines[-3:] == ["TOP", "BOTTOM", "after"]
    assert (counted(lines, "TOP"), counted(lines, "BOTTOM")) == (1, 1)
    assert [line for line in lines if line.startswith("printed")] == PRINTED
    assert lines.count("logged") == 1
    frames = counted(lines, "mine  ─") + counted(lines, "mine  ━") + counted(lines, "● running")
    assert frames == (level != "full")  # a frame of the second screen stays there
    assert sum(line.endswith("20 ok, 0 failed") for line in lines) >= 1
    given_back = screen.raw.index(b"TOP")
    assert not OURS.search(screen.raw[given_back:])


def test_live_on_the_second_screen_that_begins_meanwhile(screen: PtyScreen) -> None:
    """One that fills the screen gets it, whole."""
    script = """
async def main():
    begun, over = asyncio.Event(), asyncio.Event()
    async def task(number):
        if number == 5:
            begun.set()
            await over.wait()  # what is printed there would go with the second screen
        return await work(number)
    running = asyncio.ensure_future(run(task))
    await begun.wait()
    with live(screen=True):
        await asyncio.sleep(0.1)
        rich.get_console().file.flush()
        await asyncio.to_thread(sys.stdin.readline)
    over.set()
    await running

asyncio.run(main())
"""
    screen.spawn(PROGRAM.format(level="compact") + script)
    screen.wait_until(lambda: screen.is_alternate and "BOTTOM" in screen.text, "the Live")
    assert screen.text.splitlines()[:2] == ["TOP", "BOTTOM"]
    assert "Work" not in screen.text
    screen.type(b"\n")
    assert screen.wait() == 0
    assert not screen.is_alternate
    assert not screen.is_cursor_hidden
    lines = screen.paper.splitlines()
    assert counted(lines, "printed") == 20
    assert lines[-1] == "20 ok, 0 failed"


def test_live_with_two_displays(screen: PtyScreen) -> None:
    """All of them step aside, and each ends with its own counts."""
    script = """
async def main():
    begun = asyncio.Event()
    async def task(number):
        if number == 5:
            begun.set()
            await asyncio.sleep(0.2)
        return number
    both = asyncio.gather(run(task, 20, "compact"), run(task, 30, "full"))
    await begun.wait()
    with Progress() as progress:
        number = progress.add_task("theirs", total=10)
        for _ in range(10):
            progress.advance(number)
            await asyncio.sleep(0.01)
        await both

asyncio.run(main())
"""
    lines = run(screen, "", script)
    assert counted(lines, "theirs") == 1
    assert lines[-1].startswith("theirs")
    assert "100%" in lines[-1]
    assert lines.count("20 ok, 0 failed") == lines.count("30 ok, 0 failed") == 1


def test_live_that_is_over_before_the_next_update(screen: PtyScreen) -> None:
    """What it drew last is a line among others, and the display goes on."""
    script = """
async def main():
    begun = asyncio.Event()
    async def task(number):
        if number == 5:
            with rich.get_console().status("theirs"):
                print("meanwhile")
            print("after")
        return await work(number)
    await run(task)

asyncio.run(main())
"""
    lines = run(screen, "compact", script)
    assert [line for line in lines if line.startswith("printed")] == PRINTED
    assert lines.count("meanwhile") == lines.count("after") == 1
    assert sum("100%" in line for line in lines) == 1
    assert lines[-1] == "20 ok, 0 failed"


def test_console_of_the_program_is_not_made(screen: PtyScreen) -> None:
    """Asking whether somebody draws on it does not settle its colours."""
    lines = run(screen, "compact", "asyncio.run(run())\nprint(rich._console)\n")
    assert lines[-1] == "None"


def test_live_that_begins_before_the_end(screen: PtyScreen) -> None:
    """Nothing of the display is drawn into it, not at the very end either."""
    script = """
from antflow import ErrorSummary
from antflow.display import create
pipeline = Pipeline([Stage("Work", 1, [work])])
display = create("compact")
display.on_start(pipeline, 20)
display.on_update(pipeline.get_dashboard_snapshot())
with live():
    display.on_finish([], ErrorSummary(0, {}, {}, []))
"""
    lines = run(screen, "", script)
    assert lines[-3:] == ["0 ok, 0 failed", "TOP", "BOTTOM"]
    assert counted(lines, "TOP") == 1
    assert lines.count("0 ok, 0 failed") == 2  # of the frame, and the last line
