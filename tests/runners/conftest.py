"""One cluster for all tests of a session: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runners.clusters import start_dask, start_ray


@pytest.fixture(scope="session")
def dask() -> Iterator[str]:
    """The address of a Dask cluster with two worker processes, ``"dask://…"``."""
    pytest.importorskip("distributed", reason="needs the package distributed")
    with start_dask() as address:
        yield address


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a Ray cluster with two processors, to which this process is connected."""
    pytest.importorskip("ray", reason="needs the package ray")
    with start_ray() as address:
        yield address


@pytest.fixture(params=["dask", pytest.param("ray", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest) -> str:
    """The address of a cluster with two worker processes, of each kind."""
    name = "dask" if request.param == "dask" else "ray_cluster"
    address: str = request.getfixturevalue(name)
    return address


@pytest.fixture(params=["thread", "process", "dask", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> str:
    """A value of `Stage.executor`: all of them must keep the contract."""
    name: str = request.param
    if name in ("dask", "ray"):
        name = request.getfixturevalue("dask" if name == "dask" else "ray_cluster")
    return name
