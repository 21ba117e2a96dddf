"""The command with a journal in a database: `run --journal`, `journal …` and `errors`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from antflow.journal.databases import open_for_writing
from tests.cli.running import antflow, objects_of
from tests.postgres_server import PASSWORD, PostgresServer

pytestmark = pytest.mark.process

PROGRAM = """
from antflow import Pipeline, Stage


async def get(number):
    if int(number) == 3:
        raise LookupError("no 3")
    return int(number)


async def put(number):
    return number * 10


pipeline = Pipeline([Stage("Get", 2, [get], task_attempts=1), Stage("Put", 2, [put])])
"""


@pytest.fixture(autouse=True)
def _forget_program() -> Iterator[None]:
    """Each test has a program of its own."""
    yield
    sys.modules.pop("kept_numbers", None)


@pytest.fixture
def address(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty schema; in the working folder there is a program and its items."""
    monkeypatch.chdir(tmp_path)
    Path("kept_numbers.py").write_text(PROGRAM)
    Path("items.txt").write_text("".join(f"{number}\n" for number in range(6)))
    return postgres.schema()


def run(address: str, *options: str) -> tuple[int, str]:
    """Run the program."""
    files = ("--items", "items.txt", "--out", "out.jsonl", "--failed", "failed.jsonl")
    told = antflow("run", "kept_numbers.py:pipeline", *files, "--journal", address, *options)
    assert PASSWORD not in told.output + told.stderr
    assert "s3cr3t" not in told.output + told.stderr
    return told.exit_code, told.output + told.stderr


def test_a_run_of_the_command_goes_on_in_a_database(address: str) -> None:
    """The same command again runs nothing, and completes its files."""
    code, told = run(address, "--plan")
    assert (code, "6 new" in told) == (0, True)
    code, told = run(address)
    assert code == 1, told
    lines = sorted(Path("out.jsonl").read_text().splitlines())
    Path("out.jsonl").write_text("\n".join(lines[:2]) + "\n" + lines[2][:5])
    code, told = run(address)
    assert code == 1
    assert "1 item stays failed from earlier runs: 1 × LookupError" in told
    assert sorted(Path("out.jsonl").read_text().splitlines()) == lines
    assert len(lines) == 5
    code, told = run(address, "--plan")
    assert "6 settled (5 completed, 1 failed), 0 to run" in told


def test_the_commands_of_a_journal_read_a_database(address: str) -> None:
    """What is in it, results, failures and errors, without the password."""
    code, told = run(address)
    assert code == 1, told
    name = address.rpartition("=")[2]
    shown = f"postgresql://antflow@/postgres?search_path={name}"
    info = antflow("journal", "info", address)
    assert info.output.startswith(f"journal {shown}: 6 items in 1 run, ")
    assert json.loads(antflow("journal", "info", address, "--json").output)["path"] == shown
    results = objects_of(antflow("journal", "results", address, "--json").output)
    assert sorted(each["value"] for each in results) == [0, 10, 20, 40, 50]
    assert "no 3" in antflow("journal", "failed", address).output
    assert "LookupError: 1" in antflow("errors", address).output
    run_id = json.loads(antflow("journal", "info", address, "--json").output)["runs"][0]["run_id"]
    assert "LookupError" in antflow("errors", address, "--run", run_id, "--json").output


def test_a_journal_is_copied_and_pruned_in_a_database(
    postgres: PostgresServer, address: str
) -> None:
    """To a file, to another schema, and back; what is old goes."""
    code, said = run(address)
    assert code == 1, said
    other = postgres.schema()
    for target in ("copy.db", other):
        told = antflow("journal", "copy", address, target)
        assert "6 items, 6 outcomes" in told.output, told.stderr
        assert "s3cr3t" not in told.output
    told = antflow("journal", "copy", "copy.db", other)
    assert (told.exit_code, "there is a journal there already" in told.stderr) == (2, True)
    told = antflow("journal", "repair", other, "--to", "mended.db")
    assert told.exit_code == 0
    keep = ("--keep", "0 runs")
    assert "would be removed: 5 results" in antflow("journal", "prune", other, *keep).output
    pruned = antflow("journal", "prune", other, "--items", "--yes", *keep)
    assert "removed: 5 results of stages before the last, 1 record" in pruned.output
    assert "5 items with all that is known of them" in pruned.output
    assert "0 MB" not in antflow("journal", "info", other).output
    assert json.loads(antflow("journal", "info", other, "--json").output)["items"] == 1
    days = antflow("journal", "prune", address, "--keep", "1 day", "--yes")
    assert "removed: 0 results" in days.output
    for place in (other, "copy.db"):
        for path in ("out.jsonl", "failed.jsonl"):
            Path(path).unlink()
        code, said = run(place)
        assert code == 1, said
        assert len(Path("out.jsonl").read_text().splitlines()) == 5


def test_a_database_that_cannot_be_the_journal_of_a_command(
    postgres: PostgresServer, address: str
) -> None:
    """It is refused on one line, with exit code 2, before anything is run."""
    postgres.run("CREATE TABLE items (mine text);", address)
    wrong = {
        address: "its table 'items' belongs to something else",
        postgres.address(password="s3cr3t"): "password authentication failed",
        "postgresql://me:s3cr3t/x@host/name": "must be the address of a PostgreSQL database",
    }
    for place, told in wrong.items():
        code, output = run(place)
        assert code == 2
        assert told in output
        assert not Path("out.jsonl").exists()
        for name in ("info", "results", "failed"):
            assert told in antflow("journal", name, place).stderr
        assert told in antflow("journal", "prune", place, "--keep", "1 run").stderr


def test_a_journal_in_use_is_refused_by_the_command(address: str) -> None:
    """With the process that has it."""
    assert run(address)[0] == 1
    journal = open_for_writing(address)
    try:
        code, told = run(address)
        assert (code, "is open in this process" in told) == (2, True)
        assert (
            "is open in" in antflow("journal", "prune", address, "--keep", "1 run", "--yes").stderr
        )
    finally:
        journal.close()
