"""What is seen of the line that blocks an event loop, and how certain that is."""

from __future__ import annotations

import sysconfig
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow._core.ledger import WorkerBook
from antflow._core.places import Place
from antflow._engine.loop_health.whereabouts import Sight, agreed
from tests.engine.blocking import (
    BLOCK,
    Run,
    last_stall,
    snapshot_of,
)
from tests.support import run_program


@pytest.mark.process
def test_line_of_an_installed_program_is_its_task(run: Run, tmp_path: Path) -> None:
    """Where all code is installed, the line is that of the function that was given to a stage."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed.py").write_text(
        "import subprocess, sys\n\n\nasync def task(seconds):\n"
        "    inner(seconds)\n\n\ndef inner(seconds):\n"
        "    subprocess.run([sys.executable, '-c', f'import time; time.sleep({seconds})'])\n",
        "utf-8",
    )
    module = _module(folder / "installed.py")
    stall = last_stall(run(snapshot_of(Pipeline([Stage("A", 1, [module.task])]), [BLOCK])).loop)
    assert stall.location == "installed.py:5 in task"
    assert stall.line == "inner(seconds)"


@pytest.mark.real_time
def test_line_inside_the_standard_library_is_that_of_its_caller(run: Run) -> None:
    """The innermost line of the user's own is told, not what it called in a library."""

    async def task(item: int) -> None:
        calls_a_library()

    def calls_a_library() -> None:
        threading.Event().wait(BLOCK)

    stall = last_stall(run(snapshot_of(Pipeline([Stage("A", 1, [task])]), [1])).loop)
    assert sysconfig.get_path("stdlib") not in stall.location
    assert stall.location.endswith(" in calls_a_library")
    assert stall.line == "threading.Event().wait(BLOCK)"


def _module(path: Path) -> ModuleType:
    spec = spec_from_file_location("installed", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ONE, SAME, TWO = Place("a.py", 1, "f"), Place("a.py", 2, "f"), Place("a.py", 9, "g")
STAGE, OTHER_STAGE, ITEM = object(), object(), object()
WORKERS = WorkerBook(0, 0, {}), WorkerBook(0, 1, {})


def a_sight(place: Place | None, task: int = 0, number: int = 0, item: Any = ITEM) -> Any:
    if not task:
        return Sight(place)
    stage: Any = STAGE
    return Sight(place, task, stage, WORKERS[number], item)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (None, a_sight(ONE), None),
        (a_sight(ONE), None, None),
        (a_sight(ONE, 7), a_sight(TWO, 7), a_sight(TWO, 7)),
        (a_sight(ONE, 7), a_sight(None, 7), a_sight(None, 7)),
        (a_sight(ONE), a_sight(SAME), Sight(SAME)),
        (a_sight(ONE), a_sight(TWO), None),
        (a_sight(ONE, 7), a_sight(TWO, 8, 1), None),
        (a_sight(ONE, 7), a_sight(TWO, 7, item=object()), None),
        (a_sight(ONE), a_sight(SAME, 7), Sight(SAME)),
    ],
)
def test_two_glances_agree_on_what_is_certain(
    first: Sight | None, second: Sight | None, expected: Sight | None
) -> None:
    """What only one of the glances saw is not told."""
    assert agreed(first, second) == expected


def test_two_glances_agree_on_the_stage_where_workers_differ() -> None:
    """Two workers of one stage in one function: stage and function remain."""
    stage: Any = STAGE
    both = agreed(a_sight(ONE, 7, 0), a_sight(SAME, 8, 1, object()))
    assert both == Sight(SAME, stage=stage)


def test_glances_while_garbage_is_collected_and_threads_come_and_go() -> None:
    """Looking at a thread's stack never stops the process, whatever a collection lets in."""
    done = run_program(
        """
        import asyncio, gc, threading, time
        from antflow._engine.loop_health.whereabouts import Footing, glance

        class Garbage:
            def __init__(self):
                self.itself = self

            def __del__(self):
                time.sleep(0.0001)

        def start_threads():
            while not is_over:
                thread = threading.Thread(target=list)
                thread.start()
                thread.join()

        def look():
            while not is_over:
                Garbage()
                glance(loop, Footing(main), lambda task: None)

        def work(depth):
            Garbage()
            return work(depth - 1) if depth else time.sleep(0)

        is_over = False
        loop, main = asyncio.new_event_loop(), threading.get_ident()
        gc.set_threshold(5)
        for target in (start_threads, start_threads, look):
            threading.Thread(target=target, daemon=True).start()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            work(5)
        is_over = True
        assert gc.isenabled()
        print("done")
        """
    )
    assert done.stdout == "done\n", done.stderr
