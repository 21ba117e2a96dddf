"""`antflow journal`, and `antflow errors` of a journal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.journal import Journal
from antflow.journal.file import open_for_writing
from antflow.testing import run_virtual
from tests.cli.running import antflow, errors_of, objects_of

calls: list[int] = []


async def get(number: int) -> int:
    calls.append(number)
    if number == 3:
        raise LookupError("no 3")
    return number


async def put(number: int) -> int:
    if number == 4:
        raise ValueError("no 4")
    return number * 10


def stages() -> list[Stage]:
    return [Stage("Get", 2, [get], task_attempts=1), Stage("Put", 2, [put], task_attempts=1)]


def run(path: Path, *numbers: int, stages: list[Stage] | None = None, **options: Any) -> list[int]:
    """Run these items; gives those for which the first stage was called."""
    calls.clear()
    items = [{"id": f"n{number}", "value": number} for number in numbers]
    pipeline = Pipeline[Any, Any](globals()["stages"]() if stages is None else stages)
    run_virtual(pipeline.run(items, journal=path, on_failures="ignore", **options))
    return sorted(calls)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Items 0 to 5; 3 failed in Get, 4 in Put."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.db"
    run(path, *range(6))
    return path


@contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def test_a_journal_is_described(journal: Path) -> None:
    """Items, outcomes, stages and runs, for people and for programs."""
    told = antflow("journal", "info", "run.db").stdout
    assert "journal run.db: 6 items in 1 run" in told
    assert "4 completed, 2 failed, 0 in flight" in told
    assert "finished: 4 completed, 2 failed (run " in told
    found = json.loads(antflow("journal", "info", "run.db", "--json").stdout)
    assert found["outcomes"] == {"completed": 4, "failed": 2}
    assert [each["how"] for each in found["runs"]] == ["finished"]


def test_results_and_failures_are_printed(journal: Path) -> None:
    """As antflow run writes them, or in a line each for people."""
    lines = objects_of(antflow("journal", "results", "run.db", "--json").stdout)
    assert {line["id"]: line["value"] for line in lines} == {
        f"n{number}": number * 10 for number in (0, 1, 2, 5)
    }
    assert "'n5': 50" in antflow("journal", "results", "run.db").stdout.splitlines()
    letters = objects_of(antflow("journal", "failed", "run.db", "--json").stdout)
    assert [(each["id"], each["stage"], each["value"]) for each in letters] == [
        ("n3", "Get", {"id": "n3", "value": 3}),
        ("n4", "Put", 4),
    ]
    assert "failed in stage Put" in antflow("journal", "failed", "run.db").stdout


def test_errors_are_summed_up_of_a_journal_too(journal: Path) -> None:
    """The command tells a journal from a log; all of its options work."""
    assert "By type" in antflow("errors", "run.db").stdout
    assert antflow("errors", "run.db", "--type", "ValueError", "--ids").stdout == "n4\n"
    [one] = objects_of(antflow("errors", "run.db", "--type", "LookupError", "--json").stdout)
    assert (one["item_id"], one["error"], one["stage"]) == ("n3", "no 3", "Get")
    assert "there is no such run" in errors_of(antflow("errors", "run.db", "--run", "x"))[0]
    run(journal, 3, 7, retry_failed=LookupError)
    with Journal.open(journal) as reader:
        last = reader.runs()[-1].run_id
    assert antflow("errors", "run.db", "--run", last, "--ids").stdout == "n3\n"


@pytest.mark.parametrize("name", ["info", "results", "failed"])
def test_what_is_not_a_journal_is_refused(journal: Path, name: str) -> None:
    """With one line; no file is made."""
    Path("text").write_text("no journal " * 99)
    for source in ("none.db", "text"):
        refused = antflow("journal", name, source)
        assert refused.exit_code == 2
        assert len(errors_of(refused)) == 1
    for told in (("prune", "none.db", "--keep", "1 run"), ("copy", "none.db", "b.db")):
        assert antflow("journal", *told).exit_code == 2
    assert not Path("none.db").exists()
    assert not Path("b.db").exists()


def test_a_copy_goes_on_like_the_original(journal: Path) -> None:
    """A run with the copy runs nothing again; a file that is there is not written over."""
    done = antflow("journal", "copy", "run.db", "new.db")
    assert (done.exit_code, done.stdout) == (0, 'copied to "new.db": 6 items, 6 outcomes\n')
    assert run(Path("new.db"), *range(7)) == [6]
    before = Path("new.db").read_bytes()
    refused = antflow("journal", "copy", "run.db", "new.db")
    assert "there is a file of this name already" in errors_of(refused)[0]
    assert Path("new.db").read_bytes() == before


def test_sound_rows_are_rescued(journal: Path) -> None:
    """Damaged rows are left out and named; only their items are run again, and A stays as it is."""
    with changing(journal) as connection:
        connection.execute("UPDATE outcomes SET value = '9' WHERE item = 1")
        connection.execute("UPDATE items SET input = '9' WHERE item = 6")
    before = journal.read_bytes()
    refused = antflow("journal", "copy", "run.db", "new.db")
    assert "is damaged (item" in errors_of(refused)[0]
    assert not Path("new.db").exists()
    done = antflow("journal", "repair", "run.db", "--to", "new.db")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        'copied to "new.db": 5 items, 4 outcomes',
        "missing in items: 1 row: of items 6",
        "missing in outcomes: 1 row: of items 1",
    ]
    assert journal.read_bytes() == before
    assert run(Path("new.db"), *range(6)) == [5]  # item 1 goes on in Put
    with Journal.open("new.db") as reader:
        assert reader.info.outcomes == {"completed": 4, "failed": 2}
        assert len([*reader.results()]) == 4
    assert antflow("journal", "repair", "new.db", "--to", "newer.db").exit_code == 0


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_family_that_lost_a_part_is_run_again(journal: Path, lost: int) -> None:
    """If an item that was made from another is missing, that one starts over; others do not."""

    async def split(number: int) -> list[int]:
        calls.append(number)
        return [number * 10 + each for each in range(3)]

    def parts() -> list[Stage]:
        return [Stage("Split", 1, [split], expand=True), Stage("Put", 1, [put])]

    path = Path("parts.db")
    run(path, 7, 8, stages=parts())
    with changing(path) as connection:
        connection.execute("UPDATE items SET input = '9' WHERE key = ?", (f"n7/{lost}",))
    done = antflow("journal", "repair", "parts.db", "--to", "new.db")
    assert "run again, with what was made from them: 1 item" in done.stdout
    assert run(Path("new.db"), 7, 8, stages=parts()) == [7]
    with Journal.open("new.db") as reader:
        assert sorted(each.value for each in reader.results()) == [
            n * 10 for n in (70, 71, 72, 80, 81, 82)
        ]


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_damaged_page_costs_its_rows_only(journal: Path, which: str) -> None:
    """What can be read before and behind a page that SQLite finds damaged is rescued."""
    big = Path("big.db")
    run(big, *range(10, 1500))
    with closing(sqlite3.connect(big)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'outcomes'"
        ).fetchone()
    data = bytearray(big.read_bytes())
    interior = data[(root - 1) * page : root * page]
    assert interior[0] == 5  # a page that leads to others
    place = int.from_bytes(interior[12:14], "big") if which == "first" else 8
    leaf = int.from_bytes(interior[place : place + 4], "big")
    data[(leaf - 1) * page : leaf * page] = b"\xff" * page
    big.write_bytes(data)
    done = antflow("journal", "repair", "big.db", "--to", "new.db")
    assert done.exit_code == 1
    assert "part of the table cannot be read" in done.stdout
    with Journal.open("new.db") as reader:
        info = reader.info
        assert info.items == 1490
        assert 1300 < info.outcomes["completed"] < 1490
    assert run(Path("new.db"), *range(10, 1500)) == []  # they go on in Put


def test_old_results_are_pruned_and_outcomes_stay(journal: Path) -> None:
    """It is said first; then it is removed, and nothing is run again for it."""
    run(journal, 7)
    run(journal, 8)
    told = antflow("journal", "prune", "run.db", "--keep", "1 run").stdout.splitlines()
    text = "5 results of stages before the last, 2 records of tries that failed, 0 checkpoints"
    assert told == [f"would be removed: {text}", "--yes removes it"]
    done = antflow("journal", "prune", "run.db", "--keep", "1 run", "--yes")
    assert done.stdout == f"removed: {text}\n"
    assert run(journal, *range(6), 7, 8) == []
    with changing(journal) as connection:
        left = {item for (item,) in connection.execute("SELECT item FROM results")}
    assert len(left) == 2  # that of the last run, and the one from which item 4 can go on
    assert run(journal, 4, retry_failed=True) == []
    assert antflow("journal", "prune", "run.db", "--keep", "2 days", "--yes").stdout.startswith(
        "removed: 0 results"
    )


def test_old_items_are_pruned_on_request(journal: Path) -> None:
    """With --items they are new when they come again; failed ones stay."""
    run(journal, 7)
    done = antflow("journal", "prune", "run.db", "--keep", "1 run", "--items", "--yes", "--json")
    assert json.loads(done.stdout) == {
        "results": 4,
        "attempts": 2,
        "checkpoints": 0,
        "items": 4,
        "done": True,
    }
    assert run(journal, *range(6), 7) == [0, 1, 2, 5]
    with Journal.open(journal) as reader:
        assert reader.info.outcomes == {"completed": 5, "failed": 2}


def test_prune_refuses_while_a_run_writes(journal: Path) -> None:
    """Nothing is removed under a run; a wrong age is refused."""
    connection = open_for_writing(journal)
    try:
        refused = antflow("journal", "prune", "run.db", "--keep", "1 run", "--yes")
    finally:
        connection.close()
    assert "is open in" in errors_of(refused)[0]
    for age in ("5", "runs", "-1 days", "5 weeks"):
        refused = antflow("journal", "prune", "run.db", "--keep", age)
        assert "must be like '5 runs' or '30 days'" in errors_of(refused)[0]
