"""What only a stage on a cluster does: what is refused before the run, packs, other schemes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from antflow import Pipeline, RecentStageStats, Stage, StageValidationError, StatusTracker
from antflow._monitor.view import StageView
from antflow.display.plain import stages_text
from antflow.runners import DaskRunner, RunnerKind, schemes
from tests.runners import remote_tasks as tasks
from tests.runners.test_contract import run

pytest.importorskip("distributed", reason="needs the package distributed")

ADDRESS = "dask://127.0.0.1:1"


def holding(value: Any) -> Callable[[int], int]:
    """A task that holds a value."""

    def task(number: int) -> int:
        return number if value else 0

    return task


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (holding(threading.Lock()), "cannot be sent to a worker process: cannot pickle"),
        (holding(asyncio.Lock()), "holds an asyncio.Lock, which connects tasks of one event loop"),
        (partial(lambda queue, value: value, asyncio.Queue()), "holds an asyncio.Queue"),
        (asyncio.Event().is_set, "holds an asyncio.Event|cannot be called"),
    ],
)
def test_tasks_that_cannot_be_sent_are_refused(task: Any, reason: str) -> None:
    """A task that no other process can call is refused with its stage, before anything runs."""
    with pytest.raises(StageValidationError, match=f"Stage 'Far': .*({reason})"):
        Pipeline([Stage("Far", 1, [task], executor=ADDRESS)])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pull": True}, "pull is not possible there"),
        ({"call_rate": 5.0}, "call_rate is not possible there"),
        ({"call_concurrency": 5}, "call_concurrency is not possible there"),
        ({"resources": {"session": tasks.no_session}}, "resource_scope='worker'"),
    ],
)
def test_options_that_need_the_home_are_refused(options: dict[str, Any], reason: str) -> None:
    """An option that cannot be kept in another process is refused with its stage."""
    task = tasks.with_session if "resources" in options else tasks.double
    with pytest.raises(StageValidationError, match=f"Stage 'Far': .*{reason}"):
        Pipeline(
            [Stage("A", 1, [tasks.double]), Stage("Far", 1, [task], executor=ADDRESS, **options)]
        )


def test_generators_that_would_run_at_home_are_refused() -> None:
    """A generator runs where it is iterated, so a stage with one is refused."""
    with pytest.raises(StageValidationError, match="must return a list, not yield"):
        Pipeline([Stage("Far", 1, [tasks.each_of], executor=ADDRESS, expand=True)])


def test_schemes_that_are_not_known_are_refused() -> None:
    """An address with an unknown scheme is refused, and the known ones are named."""
    with pytest.raises(StageValidationError, match=r"unknown scheme; known are dask://.*'dask'"):
        Pipeline([Stage("Far", 1, [tasks.double], executor="dusk://host:1")])
    with pytest.raises(StageValidationError, match="must be an address like"):
        Pipeline([Stage("Far", 1, [tasks.double], executor="dask://")])


class Nearby:
    """A runner of another package, which calls tasks right here."""

    takes_async = False
    shares_memory = True
    enters_resources = False
    nodes = 0
    ready = None
    child_cpu_seconds = 0.0
    thread_cpu_seconds = 0.0

    def __init__(self, address: str) -> None:
        self.address = address

    def check(self, stage: Stage[Any, Any]) -> None:
        if stage.batch:
            raise StageValidationError(f"Stage {stage.name!r}: no batches at {self.address}")

    def runner(self, home: Any) -> Any:
        return self

    async def call(self, worker: Any, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        return task(*args, **kwargs)

    async def leave(self, worker: Any) -> None: ...

    async def close(self) -> None: ...


def test_schemes_of_other_packages_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of the group "antflow.runners" brings a scheme of its own."""
    point = EntryPoint("nearby", f"{__name__}:Nearby", schemes.GROUP)
    monkeypatch.setattr(schemes, "entry_points", lambda group: [point])
    assert run([1, 2], tasks.double, executor="nearby://here").values() == [2, 4]
    with pytest.raises(StageValidationError, match="no batches at nearby://here"):
        run([1, 2], tasks.double, executor="nearby://here", batch=2)


def test_runners_are_named_by_their_address() -> None:
    """A runner says where its cluster is, and a run's facts have that as the stage's option."""
    assert repr(DaskRunner("tcp://10.0.0.7:8786")) == "DaskRunner('dask://10.0.0.7:8786')"
    assert isinstance(DaskRunner(ADDRESS), RunnerKind)


@pytest.mark.real_time
def test_async_tasks_share_a_worker_process(dask: str) -> None:
    """Many calls of an async task are under way in one worker process at the same time."""
    results = run(range(60), tasks.most_at_once, executor=dask, workers=60)
    assert max(results.values()) >= 30


@pytest.mark.real_time
def test_slow_calls_do_not_hold_back_the_answers_of_others(dask: str) -> None:
    """Answers come home singly: a fast call is done while slow ones of its pack still run."""
    ended: dict[float, float] = {}
    items = [1.5, 1.5, 1.5, 1.5, *[0.01] * 20]
    stage = Stage(
        "Work",
        len(items),
        [tasks.sleep],
        executor=dask,
        on_success=lambda item, value, payload: ended.setdefault(value, time.monotonic()),
    )
    asyncio.run(Pipeline([stage]).run(items))
    assert ended[1.5] - ended[0.01] > 0.7


@pytest.mark.real_time
def test_orders_travel_in_packs(dask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short calls need far fewer packs than there are calls."""
    from antflow._engine.remote.nodes import Nodes

    made: list[Nodes] = []
    begin = Nodes.__init__

    def noted(self: Nodes, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Nodes, "__init__", noted)
    run(range(2000), tasks.double, executor=dask, workers=64)
    [nodes] = made
    assert nodes.orders >= 2000
    assert nodes.packs < 500


@pytest.mark.real_time
def test_arguments_that_cannot_be_sent_fail_their_item(dask: str) -> None:
    """An argument that cannot be pickled fails its own item, and says whose it is."""
    results = run([threading.Lock(), 1], tasks.where, executor=dask)
    [failure] = results.failed
    assert "the arguments of task where cannot be sent to a worker process" in str(failure.error)
    assert results.values() != [os.getpid()]


@pytest.mark.real_time
def test_functions_of_the_program_itself_are_sent_whole(dask: str) -> None:
    """Inner functions, and those that workers cannot import, travel with their code."""
    factor = 3
    assert run([1, 2], lambda value: value * factor, executor=dask).values() == [3, 6]


@pytest.mark.real_time
def test_workers_are_named_by_their_node(dask: str) -> None:
    """Snapshots and events say on which machine a worker works; a stage, on how many nodes."""
    events: set[str | None] = set()
    tracker = StatusTracker(on_status_change=lambda event: events.add(event.worker))
    pipeline = Pipeline(
        [Stage("Work", 4, [tasks.sleep_async], executor=dask)], status_tracker=tracker
    )
    results = asyncio.run(pipeline.run([0.2] * 24))
    names = {f"Work@127.0.0.1-W{index}" for index in range(4)}
    assert set(pipeline.get_worker_states()) == names == set(pipeline.get_worker_names()["Work"])
    assert names <= events
    stats = results.stats.stage_stats["Work"]
    assert stats.nodes == 2
    assert "Work 0/4 running on 2 nodes, " in stages_text(
        [StageView(stats, 0.0, RecentStageStats("Work"), False, "", True)]
    )


@pytest.mark.real_time
def test_time_before_there_is_a_worker_process_does_not_count(dask: str) -> None:
    """A stage's timeout begins when a worker process has the call, however long that takes."""
    runner = DaskRunner(dask)
    begin = runner.runner

    def later(home: Any) -> Any:
        made = begin(home)
        connect = made._cluster.connect

        async def slowly() -> None:
            await asyncio.sleep(1.0)
            await connect()

        made._cluster.connect = slowly  # type: ignore[method-assign]
        return made

    runner.runner = later  # type: ignore[method-assign]
    assert run([1], tasks.double, executor=runner, timeout=0.5).values() == [2]
