"""The source of stages: that it has changed is told, and changes nothing."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, RunResults, Stage
from antflow.journal import Journal
from antflow.journal.copies import copy_journal
from antflow.journal.pruning import prune
from antflow.journal.stage_code import code_hash

ONE = """
import functools

def wrapping(function):
    @functools.wraps(function)
    async def wrapper(value):
        return await function(value)
    return wrapper

async def ask(value, more=0):
    return value + {number}

@wrapping
async def wrapped(value):
    return value + {number}

@functools.cache
def cached(value):
    return value + {number}

class Asker:
    async def ask(self, value):
        return value + {number}

async def fails(value):
    raise ValueError({number})

partly = functools.partial(ask, more=1)
method = Asker().ask
"""

TOLD = "the code of stage 'Ask' has changed since the last run with this journal"


@pytest.fixture
def load(tmp_path: Path) -> Callable[[int], Any]:
    def load(number: int) -> Any:
        path = tmp_path / f"code_{number}.py"
        path.write_text(ONE.format(number=number))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def run(path: Path, task: Any, **options: Any) -> RunResults[Any]:
    stages = [Stage("Ask", 1, [task], task_attempts=1, **options)]
    pipeline = Pipeline[int, Any](stages)
    return asyncio.run(pipeline.run([1, 2], journal=path, on_failures="ignore"))


@pytest.mark.parametrize("name", ["ask", "wrapped", "cached", "partly", "method"])
def test_changed_code_is_told_and_its_results_are_used(
    name: str, load: Callable[[int], Any], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each change; also by the plan and by what is in the journal."""
    first, second = (getattr(load(number), name) for number in (10, 20))
    run(path, first)
    run(path, first)
    assert TOLD not in caplog.text
    plan = asyncio.run(Pipeline[Any, Any]([Stage("Ask", 1, [second])]).plan([1], path))
    assert plan.changed_code == ("Ask",)
    assert "the code of Ask has changed since, and its results are used" in str(plan)
    results = run(path, second)
    assert (results.values(), results.resumed) == ([11, 12], 2)
    assert caplog.text.count(TOLD) == 1
    run(path, second)
    assert caplog.text.count(TOLD) == 1
    copied = path.with_name("copy.db")
    copy_journal(str(path), str(copied))
    prune(str(copied), 1, "runs")
    for each in (path, copied):
        with Journal.open(each) as reader:
            assert reader.info.code_forms == {"Ask": 2}
            assert "the code of Ask had 2 forms" in str(reader.info)
    run(copied, first)
    assert caplog.text.count(TOLD) == 2


def test_code_is_not_told_where_nothing_of_it_is_used(
    load: Callable[[int], Any], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version is another stage; and of items that failed no results are used."""
    run(path, load(10).ask, version=1)
    assert run(path, load(20).ask, version=2).values() == [21, 22]
    other = path.with_name("other.db")
    run(other, load(10).fails)
    run(other, load(20).fails)
    assert "has changed" not in caplog.text


def test_code_that_cannot_be_read_is_none(load: Callable[[int], Any]) -> None:
    """A lambda, an object that is called, a function of C, and what was typed in."""

    class Called:
        async def __call__(self, value: Any) -> Any:
            return value

    typed: dict[str, Any] = {}
    exec("def task(value): return value", typed)
    ask = load(10).ask
    hopeless: list[Any] = [lambda value: value, Called(), len, typed["task"]]
    for task in hopeless:
        assert code_hash(Stage("Ask", 1, [task])) is None
        assert code_hash(Stage("Ask", 1, [ask, functools.partial(task)])) is None
    assert code_hash(Stage("Ask", 1, [ask])) != code_hash(Stage("Ask", 1, [ask, ask]))


def test_a_journal_without_the_table_goes_on(load: Callable[[int], Any], path: Path) -> None:
    """As earlier versions have written it."""
    run(path, load(10).ask)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE code")
    with Journal.open(path) as reader:
        assert reader.info.code_forms == {}
    copied = path.with_name("copy.db")
    copy_journal(str(path), str(copied))
    for each in (path, copied):
        plan = asyncio.run(Pipeline[Any, Any]([Stage("Ask", 1, [load(20).ask])]).plan([1], each))
        assert plan.changed_code == ()
        assert run(each, load(20).ask).values() == [11, 12]
