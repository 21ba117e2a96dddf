"""Local clusters for tests: the scheduler in a program of its own, with two worker processes.

Run as a program, this file is such a cluster: it prints its address, and ends when its standard
input is closed.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def start_dask(workers: int = 2, source: Path = ROOT / "src") -> Iterator[str]:
    """A Dask cluster; its address as "dask://…".

    Args:
        workers: Its worker processes, of one thread each.
        source: The folder that they import the library from.
    """
    paths = [str(source), str(ROOT)]
    command = [sys.executable, __file__, str(workers)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Dask tells of each killed worker there
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            address = program.stdout.readline().strip()
            assert address, "the cluster did not start"
            yield address.replace("tcp://", "dask://")
        finally:
            program.stdin.close()
            try:
                program.wait(20)
            except subprocess.TimeoutExpired:
                program.kill()


@contextmanager
def start_ray(processors: int = 2) -> Iterator[str]:
    """A Ray cluster on this machine, to which this process is connected; its address."""
    import ray

    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        ray.init(
            address="local",
            num_cpus=processors,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
    try:
        yield "ray://auto"
    finally:
        ray.shutdown()


def serve(workers: int) -> None:
    """Be a cluster until standard input is closed."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        worker_dashboard_address=None,
    ) as cluster:
        if workers:
            cluster.wait_for_workers(workers)
        print(cluster.scheduler_address, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
