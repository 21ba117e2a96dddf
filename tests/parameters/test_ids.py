"""Ids, texts and errors of any kind: kept as they are, and drawn as one harmless line."""

from __future__ import annotations

from typing import Any

import pytest

from antflow import (
    Pipeline,
    Stage,
    StatusTracker,
    set_task_status,
)
from antflow.display import BaseDashboard, create
from antflow.testing import Gate, run_virtual

from .rows_stage import a_stage
from .values import NAN, Hostile

LONG_ID = "x" * 10_000_000
IDS: dict[str, Any] = {
    "long": LONG_ID,
    "escape": "\x1b]0;title\x07\x1b[2J\x9b31m",
    "nul": "a\0b",
    "surrogate": "\ud800",
    "bidi": "\u202eevil\u2066",
    "newline": "a\nb\r\n\tc",
    "empty": "",
    "markup": "[red]x[/tch]",
    "nan": NAN,
    "bytes": b"\xff",
    "tuple": (1, ("a", None)),
}


@pytest.mark.parametrize("item_id", IDS.values(), ids=IDS)
def test_id_of_any_kind(item_id: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An id is kept as it is, found again, and its failure told."""
    tracker = StatusTracker()

    async def fail(value: Any) -> Any:
        raise ValueError(f"no {item_id!r}"[:200])

    async def main() -> Any:
        pipeline = Pipeline([a_stage(tasks=[fail], task_attempts=1)], status_tracker=tracker)
        return await pipeline.run([{"id": item_id, "value": 5}], dashboard="log")

    results = run_virtual(main)
    (failed,) = results.failed
    assert failed.id is item_id
    assert len(capsys.readouterr().out) < 2000
    (event,) = tracker.get_by_status("failed")
    assert event.item_id is item_id
    status = tracker.get_status(item_id)
    assert status is not None
    assert status.status == "failed"
    assert [item.item_id for item in results.summary.failed_items] == [item_id]


@pytest.mark.parametrize("level", ["compact", "detailed", "full"])
@pytest.mark.parametrize("item_id", IDS.values(), ids=IDS)
def test_id_of_any_kind_is_drawn(level: str, item_id: Any) -> None:
    """What a display draws of an id is printable, and no longer than the line."""
    from rich.console import Console

    gate = Gate()
    frames: list[str] = []

    class Drawn(BaseDashboard):
        inner = create(level)

        def on_start(self, pipeline: Any, total_items: int) -> None:
            pass

        def on_update(self, snapshot: Any) -> None:
            console = Console(width=80, height=40, color_system=None, force_terminal=False)
            with console.capture() as capture:
                console.print(self.inner.render(snapshot))
            frames.append(capture.get())
            if gate.waiting:
                gate.open()

        def on_finish(self, results: Any, summary: Any) -> None:
            pass

        def render(self, snapshot: Any) -> str:
            return ""

    async def main() -> Any:
        pipeline = Pipeline([a_stage(tasks=[gate])])
        return await pipeline.run([{"id": item_id, "value": 5}], custom_dashboard=Drawn())

    assert run_virtual(main).values() == [5]
    lines = [line for frame in frames for line in frame.splitlines()]
    assert lines
    assert [line for line in lines if not line.isprintable() or len(line) > 80] == []


def test_id_of_none_is_replaced_by_a_number() -> None:
    """An ``"id"`` of ``None`` is none: the item gets a number, and none is lost."""
    items = [{"id": None, "value": 1}, {"id": 0, "value": 2}, 3]
    results = run_virtual(Pipeline([a_stage()]).run(items))
    assert len({result.id for result in results}) == 3
    assert None not in [result.id for result in results]


TEXTS = ["", "\x1b[2J", 5, None, b"x", Hostile(), "x" * 1_000_000]


@pytest.mark.parametrize("text", TEXTS, ids=map(str, range(len(TEXTS))))
def test_status_text_of_any_kind(text: Any) -> None:
    """What a task says it does may be anything; a worker shows it as a text."""

    async def main() -> None:
        async def task(value: Any) -> Any:
            assert set_task_status(text)
            (state,) = pipeline.get_worker_states().values()
            return state.task_status

        pipeline = Pipeline([a_stage(tasks=[task])])
        (result,) = await pipeline.run([1])
        assert type(result.value) is str

    run_virtual(main)


def test_tracker_asked_for_ids_it_does_not_know() -> None:
    """A tracker knows nothing of an id, or a run, it has not seen; also while one goes on."""
    tracker = StatusTracker()
    seen: list[Any] = []

    async def task(value: int) -> int:
        seen.append((tracker.get_status("x"), tracker.get_history("x"), tracker.get_stats("x")))
        counts = tracker.get_stats()
        assert sum(counts.values()) == 3
        assert len(tracker.get_tracked_ids()) == 3
        assert tracker.get_status(value) is not None
        return value

    pipeline = Pipeline([Stage("Work", 1, [task])], status_tracker=tracker)
    assert run_virtual(pipeline.run(range(3))).values() == [0, 1, 2]
    nothing = dict.fromkeys(tracker.get_stats(), 0)
    assert seen == [(None, [], nothing)] * 3


HUGE_ERROR = "postgres://user:secret@host/ \x1b[2J\x1b]0;x\x07" + "x" * 10_000_000


@pytest.mark.parametrize("level", ["compact", "detailed", "full", "log"])
def test_error_of_ten_megabytes(level: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A huge error text with commands for a terminal costs a display one line, and drives none."""

    async def fail(value: Any) -> Any:
        raise ValueError(HUGE_ERROR)

    async def main() -> Any:
        pipeline = Pipeline([a_stage(tasks=[fail], task_attempts=1)])
        return await pipeline.run([1], dashboard=level)

    results = run_virtual(main)
    assert str(results.failed[0].error) == HUGE_ERROR
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert len(printed) < 2000
