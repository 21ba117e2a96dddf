"""Built-in dashboards: a progress bar, and three kinds that show more and more."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.display import BaseDashboard, CompactDashboard, DetailedDashboard, FullDashboard
from antflow.testing import run_virtual

from .document import run_block
from .screen import Window

pytestmark = pytest.mark.document

BLOCK = """\
from antflow import Pipeline, Stage

async def task(x):
    await asyncio.sleep(0.1)
    return x * 2

pipeline = Pipeline(stages=[Stage(name="Process", workers=5, tasks=[task])])

# Option 1: Minimal progress bar
await pipeline.run(items, progress=True)

# Option 2: Compact dashboard
await pipeline.run(items, dashboard="compact")

# Option 3: Detailed dashboard (shows per-stage progress)
await pipeline.run(items, dashboard="detailed")

# Option 4: Full dashboard (includes error summary)
await pipeline.run(items, dashboard="full")
"""

BEGINNING, *OPTIONS = BLOCK.split("# Option ")
assert len(OPTIONS) == 4

DISPLAYS: dict[str, dict[str, Any]] = {
    "progress": {"progress": True},
    "compact": {"dashboard": "compact"},
    "detailed": {"dashboard": "detailed"},
    "full": {"dashboard": "full"},
}


async def fetch(value: int) -> int:
    await asyncio.sleep(0.7)
    if value % 10 == 3:
        raise ConnectionResetError(f"peer {value}")
    return value


async def save(value: int) -> int:
    await asyncio.sleep(0.5)
    if value % 10 == 7:
        raise PermissionError(f"disk {value}")
    return value


def failing_pipeline() -> Pipeline:
    return Pipeline(
        [Stage("Fetch", 4, [fetch], task_attempts=1), Stage("Save", 2, [save], task_attempts=1)]
    )


def test_block_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole block runs: four times the same items, each time with another display."""
    names = run_virtual(run_block(BLOCK, items=range(20)))
    assert names["pipeline"].results.values() == [2 * item for item in range(20)]
    assert capsys.readouterr().err.splitlines().count("20 ok, 0 failed") == 4


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option).partition(" ")[2][:8])
def test_option_ends_with_two_numbers(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option gives the results of a run without display, and ends with how many went well."""
    names = run_virtual(run_block(BEGINNING + "# Option " + option, items=range(20)))
    assert names["pipeline"].results.values() == [2 * item for item in range(20)]
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].endswith("20 ok, 0 failed")
    assert captured.out == ""


@pytest.mark.parametrize("options", DISPLAYS.values(), ids=DISPLAYS)
def test_display_does_not_change_the_results(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Results are the same with each display and without, and are counted in the last line."""
    plain = run_virtual(failing_pipeline().run(range(30)))
    shown = run_virtual(failing_pipeline().run(range(30), **options))
    assert [(result.id, result.value) for result in shown] == [
        (result.id, result.value) for result in plain
    ]
    assert [(result.id, repr(result.error)) for result in shown.failed] == [
        (result.id, repr(result.error)) for result in plain.failed
    ]
    assert capsys.readouterr().err.splitlines()[-1].endswith("24 ok, 6 failed")


@pytest.mark.parametrize("options", DISPLAYS.values(), ids=DISPLAYS)
def test_display_of_nothing(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A run without items is displayed like any other."""
    assert run_virtual(failing_pipeline().run([], **options)) == []
    assert capsys.readouterr().err.splitlines()[-1].endswith("0 ok, 0 failed")


@pytest.mark.parametrize("options", DISPLAYS.values(), ids=DISPLAYS)
def test_display_of_items_without_a_count(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Items from a generator can be displayed although nobody knows how many will come."""
    results = run_virtual(failing_pipeline().run((item for item in range(5)), **options))
    assert results.values() == [0, 1, 2, 4]
    assert capsys.readouterr().err.splitlines()[-1].endswith("4 ok, 1 failed")


def frames_of(window: Window, **options: Any) -> list[list[str]]:
    """What a run of thirty items, six of which fail, looked like from its start to its end."""
    window.run(failing_pipeline().run(range(30), **options))
    return [frame for frame in window.frames if frame]


def numbers_in_row(frame: list[str], name: str) -> list[int]:
    """The numbers in the first row about a stage: its name stands after a mark, or a space."""
    row = next((line for line in frame if line[1:].startswith(name)), "")
    return [int(number) for number in re.findall(r"\d+", row)]


@pytest.mark.parametrize("options", DISPLAYS.values(), ids=DISPLAYS)
def test_display_shows_the_progress_on_a_terminal(options: dict[str, Any], window: Window) -> None:
    """On a terminal, each display counts from 0 % to 100 % during the run, and never back."""
    frames = frames_of(window, **options)
    shown = [re.search(r"(\d+) ?%", "\n".join(frame)) for frame in frames]
    percents = [int(match[1]) for match in shown if match]
    assert len(percents) == len(frames)
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert len(set(percents)) > 8
    assert window.last[-1].endswith("24 ok, 6 failed")


def test_displays_show_more_and_more(window: Window) -> None:
    """The progress bar is one line; compact, detailed and full take more lines each."""
    heights = []
    for options in DISPLAYS.values():
        window.frames.clear()
        frames = frames_of(window, **options)
        heights.append(len(frames[len(frames) // 2]))
        window.write("\x1b[2J\x1b[H")
    assert heights == sorted(set(heights))
    assert heights[0] == 1
    assert heights[-1] <= 24


def test_progress_bar_grows(window: Window) -> None:
    """The minimal display is a bar that fills up, on one line that is drawn again and again."""
    frames = frames_of(window, progress=True)
    assert {len(frame) for frame in frames} == {1}
    empty = [frame[0].partition("%")[0].count("─") for frame in frames]
    assert empty == sorted(empty, reverse=True)
    assert empty[0] > 20
    assert empty[-1] == 0


@pytest.mark.parametrize("name", ["detailed", "full"])
def test_detailed_shows_the_progress_of_each_stage(name: str, window: Window) -> None:
    """The detailed dashboard, and the full one, have a row per stage with counts that move."""
    frames = frames_of(window, dashboard=name)
    for stage, completed in (("Fetch", 27), ("Save", 24)):
        rows = [numbers_in_row(frame, stage) for frame in frames]
        assert all(rows)
        assert len({tuple(row) for row in rows}) > 8
        assert completed in rows[-1]
        assert 3 in rows[-1]  # failed
        assert completed not in rows[0]


def test_full_shows_the_error_summary(window: Window) -> None:
    """The full dashboard sums up the errors by type, while the run goes on and when it is over."""
    frames = frames_of(window, dashboard="full")
    for error in ("ConnectionResetError", "PermissionError"):
        counts = []
        for frame in frames:
            (line,) = [line for line in frame if error in line] or ["0"]
            counts += [int(number) for number in re.findall(r"^\W*(\d+)\b", line)]
        assert counts == sorted(counts)
        assert set(counts) == {0, 1, 2, 3}


def test_two_displays_at_once_are_refused() -> None:
    """A run has one display; asking for two is an error before anything starts."""
    fed: list[int] = []
    pipeline = Pipeline([Stage("Work", 1, [fed.append])])
    with pytest.raises(ValueError, match="Cannot use both"):
        run_virtual(pipeline.run([1], progress=True, dashboard="compact"))
    assert fed == []


@pytest.mark.parametrize("name", ["", "Compact", "fancy", "progress"])
def test_display_of_an_unknown_name_is_refused(name: Any) -> None:
    """A name that is none of the dashboards is an error that says which there are."""
    with pytest.raises(ValueError, match="'compact', 'detailed', 'full'"):
        run_virtual(failing_pipeline().run([1], dashboard=name))


@pytest.mark.parametrize("kind", [CompactDashboard, DetailedDashboard, FullDashboard])
def test_display_may_be_an_object(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The three dashboards are classes too, and an object of them is a custom dashboard."""
    dashboard = kind()
    assert isinstance(dashboard, BaseDashboard)
    results = run_virtual(failing_pipeline().run(range(10), custom_dashboard=dashboard))
    assert len(results) == 8
    assert capsys.readouterr().err.splitlines()[-1].endswith("8 ok, 2 failed")
