"""The journals of the tests: what holds for a file holds for a database too."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.process)])
def new_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """Each call says where a new journal is to be: a path, or the address of an empty schema."""
    if request.param == "file":
        numbers = count()
        return lambda: tmp_path / f"run{next(numbers) or ''}.db"
    server = request.getfixturevalue("postgres")
    return lambda: server.schema()


@pytest.fixture
def journal(new_journal: Callable[[], Any]) -> Any:
    """Where a new journal is to be."""
    return new_journal()
