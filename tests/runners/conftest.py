"""One cluster for all tests of a session: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runners.clusters import start_dask


@pytest.fixture(scope="session")
def dask() -> Iterator[str]:
    """The address of a Dask cluster with two worker processes, ``"dask://…"``."""
    pytest.importorskip("distributed", reason="needs the package distributed")
    with start_dask() as address:
        yield address


@pytest.fixture(params=["thread", "process", "dask"])
def executor(request: pytest.FixtureRequest) -> str:
    """A value of `Stage.executor`: all of them must keep the contract."""
    name: str = request.param
    if name == "dask":
        name = request.getfixturevalue("dask")
    return name
