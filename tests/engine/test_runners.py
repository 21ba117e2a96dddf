"""The port of a runner: it is given the worker, the task and what the task is called with."""

from __future__ import annotations

from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow._core.ledger import WorkerBook
from antflow._core.runner_port import Runner
from antflow._engine import stage_run
from antflow.testing import run_virtual


class FarAway:
    """A runner that notes for whom it calls what."""

    shares_memory = True
    enters_resources = False
    nodes = 0
    ready = None
    child_cpu_seconds = 0.0
    thread_cpu_seconds = 0.0

    def __init__(self, *, takes_async: bool) -> None:
        self.takes_async = takes_async
        self.calls: list[tuple[int, int, str, Any]] = []
        self.left: list[int] = []
        self.is_closed = False

    async def call(self, worker: WorkerBook, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((worker.stage, worker.index, task.__name__, args))
        answer = task(*args, **kwargs)
        return await answer if task is async_task else answer

    async def leave(self, worker: WorkerBook) -> None:
        self.left.append(worker.index)

    async def close(self) -> None:
        self.is_closed = True


def plain_task(value: int) -> int:
    return value + 1


async def async_task(value: int) -> int:
    return value * 2


def run_with(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(stage_run, "runner_for", lambda *_: runner)
    return run_virtual(Pipeline([Stage("A", 1, [plain_task, async_task])]).run([1])).values()


def test_runner_is_told_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain function is called for a worker, and the runner hears when the worker leaves."""
    runner = FarAway(takes_async=False)
    assert run_with(runner, monkeypatch) == [4]
    assert runner.calls == [(0, 0, "plain_task", (1,))]
    assert runner.left == [0]
    assert runner.is_closed


def test_runner_that_takes_async_tasks_is_given_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a runner wants ``async`` tasks as well, they do not run without it."""
    runner = FarAway(takes_async=True)
    assert run_with(runner, monkeypatch) == [4]
    assert [name for _, _, name, _ in runner.calls] == ["plain_task", "async_task"]
