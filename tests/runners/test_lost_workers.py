"""Worker processes that are lost, are missing, or cannot be used."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from socket import socket

import pytest

from antflow import Pipeline, PipelineError, Stage, WorkerLostError
from antflow.runners import DaskRunner
from tests.runners import remote_tasks as tasks
from tests.runners.clusters import ROOT, start_dask
from tests.runners.test_contract import run

pytestmark = pytest.mark.real_time
pytest.importorskip("distributed", reason="needs the package distributed")


def test_killed_workers_cost_no_try(cluster: str, tmp_path: Path) -> None:
    """The call that a killed worker process had is made again, as the same try of its item."""
    results = run([str(tmp_path / "calls")], tasks.die_once, executor=cluster)
    assert results.values() == [2]
    assert results.stats.stage_stats["Work"].retried_items == 0


def test_killed_workers_lose_no_item(cluster: str, tmp_path: Path) -> None:
    """When a process with many calls is killed, each item has its answer, and each once."""
    file = tmp_path / "pids"
    task = partial(tasks.sleep_and_note, file)
    pipeline = Pipeline([Stage("Work", 100, [task], executor=cluster)])

    async def killed() -> list[int]:
        running = asyncio.create_task(pipeline.run(range(400)))
        while len(pids := tasks.noted(file)) < 50:
            await asyncio.sleep(0.01)
        os.kill(int(pids[0]), signal.SIGKILL)
        return (await running).values()

    assert asyncio.run(killed()) == list(range(400))


def test_calls_that_lose_three_workers_fail(cluster: str, tmp_path: Path) -> None:
    """After three lost processes the item fails, and says which node was lost and how it ended.

    Other items that were in the same processes are not taken down with it.
    """
    items = [str(tmp_path / "no"), *["/"] * 7]
    results = run(items, tasks.die, executor=cluster, task_attempts=3, workers=8)
    assert results.values() == ["alive"] * 7
    [failure] = results.failed
    assert isinstance(failure.error, WorkerLostError)
    assert failure.error.times == 3
    how = r"was killed by signal 9" if cluster.startswith("dask") else r"has ended: Worker unexp"
    assert re.search(rf"process \d+ on [\d.]+ \(.*\) {how}", str(failure.error))
    assert len(tasks.noted(tmp_path / "no.calls")) == 3
    assert failure.attempts == 1


def test_calls_that_must_not_be_repeated_fail_at_once(dask: str, tmp_path: Path) -> None:
    """With redelivery="fail", a call whose process is lost is made once."""
    runner = DaskRunner(dask, redelivery="fail")
    results = run([str(tmp_path / "no")], tasks.die, executor=runner, task_attempts=3)
    [failure] = results.failed
    assert isinstance(failure.error, WorkerLostError)
    assert "was lost with its process" in str(failure.error)
    assert len(tasks.noted(tmp_path / "no.calls")) == 1


def test_runs_without_a_scheduler_say_so() -> None:
    """If the cluster cannot be reached for `node_timeout`, the run ends and says what was tried."""
    with closing(socket()) as held:  # bound and not listening: a connection is refused
        held.bind(("127.0.0.1", 0))
        address = f"dask://127.0.0.1:{held.getsockname()[1]}"
        runner = DaskRunner(address, node_timeout=0.3)
        with pytest.raises(PipelineError, match=r"no worker of dask://.* for 0\.3 s"):
            run([1], tasks.double, executor=runner)


def test_runs_without_workers_say_so() -> None:
    """If the cluster has no worker for `node_timeout`, the run ends and says what it reports."""
    with start_dask(0) as address:
        runner = DaskRunner(address, node_timeout=1.0)
        with pytest.raises(PipelineError, match=r"no worker of .* \(node_timeout\).*: no workers"):
            run([1], tasks.double, executor=runner)


def test_runs_that_lose_the_scheduler_end() -> None:
    """If the whole cluster goes away, its calls are not awaited for ever."""
    with start_dask(1) as address:
        runner = DaskRunner(address, node_timeout=1.0)
        pipeline = Pipeline([Stage("Work", 4, [tasks.sleep_async], executor=runner)])

        async def lost() -> None:
            running = asyncio.create_task(pipeline.run([60.0] * 4))
            while "busy" not in {each.status for each in pipeline.get_worker_states().values()}:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            [scheduler] = _programs_of(address)
            os.kill(scheduler, signal.SIGKILL)
            with pytest.raises(PipelineError, match=r"node_timeout"):
                await running

        began = time.monotonic()
        asyncio.run(lost())
        assert time.monotonic() - began < 15


def _programs_of(address: str) -> list[int]:
    """The process that listens at this address."""
    port = int(address.rpartition(":")[2])
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    }
    return [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and inodes & _sockets_of(process)
    ]


def _sockets_of(process: Path) -> set[str]:
    try:
        targets = [os.readlink(each) for each in (process / "fd").iterdir()]
    except OSError:
        return set()
    return {each[8:-1] for each in targets if each.startswith("socket:[")}


def test_workers_of_another_version_are_refused(tmp_path: Path) -> None:
    """Workers with another version of antflow end the run before a task is called."""
    other = tmp_path / "src"
    shutil.copytree(ROOT / "src", other)
    version = other / "antflow" / "_core" / "version.py"
    version.write_text('__version__ = "0.0.1"\n')
    refused = pytest.raises(PipelineError, match=r"has Python .* and antflow 0\.0\.1, and this")
    with start_dask(1, source=other) as address, refused:
        run([str(tmp_path / "calls")], tasks.die_once, executor=address)
    assert tasks.noted(tmp_path / "calls") == []
