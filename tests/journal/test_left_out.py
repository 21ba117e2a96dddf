"""Values that are not kept in a journal: too large, not serialisable, or redacted."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, RunResults, Stage, current_item
from antflow.exceptions import JournalError, NotSerialisable
from antflow.journal import Journal, Omitted
from antflow.journal.cells import cell_of, value_of
from antflow.journal.json_codec import JsonCodec
from tests.journal.crashing import rows_of

SECRET = "s3cr3t-0815"
LARGE = 100
"""Bytes that a result may have in these tests."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def run(path: Path, stages: list[Stage], items: Any, retry: Any = (), **options: Any) -> Any:
    async def main() -> RunResults[Any]:
        journal = Journal(path, **options)
        return await Pipeline[Any, Any](stages).run(
            items, journal=journal, retry_failed=retry, on_failures="ignore"
        )

    return asyncio.run(main())


class Noted:
    """Stages that note their calls, and fail where they are told to."""

    def __init__(self, **answers: Callable[[Any], Any]) -> None:
        self.answers = answers
        self.broken: set[str] = set()
        self.made: list[tuple[str, Any]] = []

    def stages(self, *expanding: str) -> list[Stage]:
        return [
            Stage(name, 1, [self._task(name)], task_attempts=1, expand=name in expanding)
            for name in self.answers
        ]

    def new(self) -> list[tuple[str, Any]]:
        made, self.made = self.made, []
        return made

    def _task(self, name: str) -> Callable[[Any], Any]:
        async def task(value: Any) -> Any:
            self.made.append((name, value))
            if name in self.broken:
                raise ValueError(f"{name} failed with {value}")
            return self.answers[name](value)

        return task


def test_a_large_result_ends_its_item_and_is_left_out(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Later runs and readers have a note with its size in its place; nothing is run again."""
    noted = Noted(Get=lambda n: "x" * n)
    first = run(path, noted.stages(), [1, 200, 300], max_result=LARGE)
    assert (first.values()[1], first.omitted) == ("x" * 200, 2)
    assert caplog.text.count("too large (202 bytes, max_result=100)") == 1
    noted.new()
    second = run(path, noted.stages(), [1, 200, 300], max_result=LARGE)
    assert noted.new() == []
    small, large, _ = second.values()
    assert (small, second.omitted, len(second), second.resumed) == ("x", 2, 3, 3)
    assert (large.why, large.size, len(large.hash)) == ("too large", 202, 32)
    assert str(large) == "<not in the journal: too large, 202 bytes>"
    with Journal.open(path) as reader:
        assert [each.value for each in reader.results()] == second.values()
    with pytest.raises(ValueError, match="max_result"):
        Journal(path, max_result=-1)
    whole = Noted(Get=lambda n: "x" * n)
    run(path, whole.stages(), [{"id": "new", "value": 400}], max_result=None)
    again = run(path, whole.stages(), [{"id": "new", "value": 400}])
    assert (again.values(), again.omitted) == (["x" * 400], 0)


def test_the_stage_of_a_large_result_is_run_again_when_its_item_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A result in the middle that was left out is made again, and no task is given the note."""
    noted = Noted(Add=lambda n: n + 1, Get=lambda n: "x" * n, Put=len)
    noted.broken = {"Put"}
    run(path, noted.stages(), [1, 200], max_result=LARGE)
    assert "result of stage 'Get' is not kept in the journal: too large" in caplog.text
    noted.new()
    noted.broken.clear()
    kept = run(path, noted.stages(), [1, 200], max_result=LARGE)
    assert noted.new() == []
    values = {each.id: each.value for each in kept.failed}
    small, large = values.values()
    assert (small, large.why, large.size) == ("xx", "too large", 203)
    with pytest.raises(ValueError, match="its value is not in the journal"):
        run(path, noted.stages(), [], retry=kept.failed)
    with Journal.open(path) as reader:
        assert [each.value for each in reader.failed()] == list(values.values())
    results = run(path, noted.stages(), [1, 200], retry=True, max_result=LARGE)
    assert sorted(noted.new()) == [("Get", 201), ("Put", "xx"), ("Put", "x" * 201)]
    assert sorted(results.values()) == [2, 201]


def test_an_item_that_is_made_from_another_is_kept_however_large(path: Path) -> None:
    """It goes on from there; of the last stage it is a result, and left out."""
    noted = Noted(Split=lambda n: ["x" * n, "y"], Put=lambda text: text * 2)
    noted.broken = {"Put"}
    run(path, noted.stages("Split"), [200], max_result=LARGE)
    noted.broken.clear()
    noted.new()
    results = run(path, noted.stages("Split"), [200], retry=True, max_result=LARGE)
    assert noted.new() == [("Put", "x" * 200), ("Put", "y")]
    assert [type(value) for value in results.values()] == [str, str]
    results = run(path, noted.stages("Split"), [200], max_result=LARGE)
    assert [type(value) for value in results.values()] == [Omitted, str]
    other = path.with_name("other.db")
    last = Noted(Split=lambda n: ["x" * n, "y"])
    run(other, last.stages("Split"), [200], max_result=LARGE)
    results = run(other, last.stages("Split"), [200], max_result=LARGE)
    assert [type(value) for value in results.values()] == [Omitted, str]
    assert results.omitted == 1
    with closing(sqlite3.connect(other)) as connection, connection:  # killed before that
        connection.execute("DELETE FROM outcomes WHERE outcome = 'completed'")
    results = run(other, last.stages("Split"), [200], max_result=LARGE)
    assert [type(value) for value in results.values()] == [Omitted, str]
    query = "SELECT value = input FROM outcomes JOIN items USING (item) WHERE root IS NOT NULL"
    assert rows_of(other, query) == [(1,), (1,)]


def test_a_result_that_cannot_be_kept_ends_the_run_or_is_left_out(path: Path) -> None:
    """As ``on_unserialisable`` says; the value itself goes on in the run."""
    noted = Noted(Get=lambda n: object() if n == 2 else n, Put=lambda value: type(value).__name__)
    with pytest.raises(NotSerialisable, match=r"result of stage 'Get'.*object"):
        run(path, noted.stages(), [1, 2])
    options: dict[str, Any] = {"on_unserialisable": "omit"}
    noted.broken = {"Put"}
    assert len(run(path, noted.stages(), [1, 2], **options).failed) == 2
    noted.new()
    noted.broken.clear()
    results = run(path, noted.stages(), [1, 2], retry=True, **options)
    assert sorted(results.values()) == ["int", "object"]
    assert [stage for stage, _ in noted.new()].count("Get") == 1
    last = path.with_name("last.db")
    ends = Noted(Get=lambda n: object())
    run(last, ends.stages(), [1], **options)
    ends.new()
    assert run(last, ends.stages(), [1], **options).values() == [Omitted("not serialisable")]
    assert ends.new() == []


def test_a_family_of_which_an_item_cannot_be_kept_is_made_again(path: Path) -> None:
    """If such an item has to go on, the item that was fed is run from the start."""
    noted = Noted(Split=lambda n: [n, object()], Put=lambda value: type(value).__name__)
    noted.broken = {"Put"}
    options: dict[str, Any] = {"on_unserialisable": "omit"}
    run(path, noted.stages("Split"), [1], **options)
    noted.new()
    noted.broken.clear()
    plan = asyncio.run(
        Pipeline[Any, Any](noted.stages("Split")).plan([1], Journal(path), retry_failed=True)
    )
    assert plan.again == {"what was made from it was not kept": 1}
    results = run(path, noted.stages("Split"), [1], retry=True, **options)
    assert [stage for stage, _ in noted.new()] == ["Split", "Put", "Put"]
    assert results.values() == ["int", "object"]
    stats = results.stats
    assert (stats.items_accepted, stats.items_children, stats.items_in_flight) == (1, 2, 0)
    assert run(path, noted.stages("Split"), [1], **options).values() == ["int", "object"]
    assert noted.new() == []


# Redacted


def without_secrets(value: Any, what: str, stage: str) -> Any:
    """A new value whenever it is a text or a dict, whether or not there is a secret in it."""
    if isinstance(value, dict):
        return {key: without_secrets(part, what, stage) for key, part in value.items()}
    return value.replace(SECRET, "***") if isinstance(value, str) else value


def written(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


def test_no_secret_reaches_the_file_and_no_task_is_given_what_was_redacted(path: Path) -> None:
    """Inputs, results, checkpoints and errors; what has no secret in it is kept as it is."""
    seen: list[Any] = []
    given: list[tuple[str, str]] = []
    broken = {"Put"}

    def redact(value: Any, what: str, stage: str) -> Any:
        given.append((what, stage))
        return without_secrets(value, what, stage)

    async def get(item: dict[str, Any]) -> dict[str, Any]:
        current = current_item()
        seen.append(("Get", item["number"], current.checkpointed))
        await current.checkpoint(f"job of {item['token']}")
        return {"answer": item["number"], "token": item["token"]}

    async def put(answer: dict[str, Any]) -> str:
        seen.append(("Put", answer["answer"], answer["token"]))
        if "Put" in broken:
            raise ValueError(f"refused: {answer['token']}")
        return f"done with {answer['token']}"

    stages = [Stage("Get", 1, [get]), Stage("Put", 1, [put], task_attempts=2, task_wait_seconds=0)]
    items = [{"id": n, "number": n, "token": token} for n, token in ((1, SECRET), (2, "free"))]
    failed = run(path, stages, items, redact=redact).failed
    assert [str(each.error) for each in failed] == [f"refused: {SECRET}", "refused: free"]
    assert SECRET.encode() not in written(path)
    of_get = {(what, "Get") for what in ("input", "checkpoint", "result")}
    assert {*given} == {*of_get, ("error", "Put")}
    with Journal.open(path) as reader:
        one, two = reader.failed()
        assert one.value == Omitted("redacted", kept={"answer": 1, "token": "***"})
        assert (str(one.error), two.value) == ("refused: ***", {"answer": 2, "token": "free"})
        assert one.input == Omitted("redacted", kept=items[0] | {"token": "***"})
        assert two.input == items[1]
    seen.clear()
    broken.clear()
    results = run(path, stages, items, retry=True, redact=redact)
    # The redacted result is made again, without the redacted checkpoint; the other is used.
    assert sorted(seen) == [("Get", 1, None), ("Put", 1, SECRET), ("Put", 2, "free")]
    assert sorted(results.values()) == ["done with free", f"done with {SECRET}"]
    seen.clear()
    again = run(path, stages, items, redact=redact)
    assert (seen, again.omitted, again.resumed) == ([], 1, 2)
    assert again.values() == [Omitted("redacted", kept="done with ***"), "done with free"]
    assert SECRET.encode() not in written(path)


def test_the_error_that_ends_a_run_is_redacted(path: Path) -> None:
    """It may quote an item."""

    def items() -> Any:
        raise OSError(f"no more of {SECRET}")
        yield

    noted = Noted(Get=lambda n: n)
    with pytest.raises(OSError, match=SECRET):
        run(path, noted.stages(), items(), redact=without_secrets)
    assert SECRET.encode() not in written(path)
    with pytest.raises(OSError, match=SECRET):
        run(path, noted.stages(), items(), redact=lambda value, what, stage: value[stage] and value)
    assert SECRET.encode() not in written(path)
    with Journal.open(path) as reader:
        assert [each.error for each in reader.runs()] == ["no more of ***", "OSError"]


@pytest.mark.parametrize("where", ["input", "result", "checkpoint", "error"])
@pytest.mark.parametrize("stage", ["Get", "Put"])
def test_a_run_ends_when_its_values_cannot_be_redacted(where: str, stage: str, path: Path) -> None:
    """Nothing that ``redact`` has not seen is written."""

    def redact(value: Any, what: str, of: str) -> Any:
        if what == where and (of == stage or (what == "input" and of == "Get")):
            raise KeyError(f"no rule for {value}")
        return without_secrets(value, what, of)

    async def get(item: str) -> str:
        await current_item().checkpoint(item)
        if where == "error" and stage == "Get":
            raise ValueError(item)
        return item

    async def put(item: str) -> str:
        await current_item().checkpoint(item)
        if where == "error":
            raise ValueError(item)
        return item

    stages = [Stage("Get", 1, [get], task_attempts=1), Stage("Put", 1, [put], task_attempts=1)]
    with pytest.raises(JournalError, match=f"{where} of stage .*redact failed with KeyError"):
        run(path, stages, [{"id": 1, "value": SECRET}], redact=redact)
    assert SECRET.encode() not in written(path)


def test_what_redact_returns_must_be_kept_as_well(path: Path) -> None:
    """An error's text stays a text, and a value one that the codec knows."""
    noted = Noted(Get=lambda n: n)
    noted.broken = {"Get"}
    with pytest.raises(JournalError, match="redact must return a text, and returned a NoneType"):
        run(path, noted.stages(), [1], redact=lambda v, what, _: None if what == "error" else v)
    noted.broken.clear()
    with pytest.raises(JournalError, match="what redact returned for result of stage 'Get'"):
        run(path, noted.stages(), [1], redact=lambda v, what, _: v if what == "input" else object())
    wrong_ones: list[Any] = [5, lambda value: value, run_nothing]
    for wrong in wrong_ones:
        with pytest.raises(TypeError, match="redact"):
            Journal(path, redact=wrong)


async def run_nothing(value: Any, what: str, stage: str) -> Any:
    return value


def test_what_a_codec_makes_is_never_taken_for_a_note() -> None:
    """Text that begins like one is kept as bytes."""

    class Plain(JsonCodec):
        def encode(self, value: Any) -> bytes:
            return str(value).encode()

        def decode(self, data: bytes) -> Any:
            return data.decode()

    text = '{"$omitted":{"why":"too large"}}'
    cell = cell_of(Plain().encode(text))
    assert isinstance(cell, bytes)
    assert value_of(cell, Plain()) == text
    assert value_of(text, Plain()) == Omitted("too large")


def test_a_warning_says_that_results_are_not_there(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, in a run that has them from earlier ones."""
    noted = Noted(Get=lambda n: "x" * n)
    run(path, noted.stages(), [200, 300], max_result=LARGE)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run(path, noted.stages(), [200, 300], max_result=LARGE)
    assert caplog.text.count("some results are not in the journal") == 1
