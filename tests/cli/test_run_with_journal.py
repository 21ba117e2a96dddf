"""`antflow run --journal`: the same command again goes on, and completes its files."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from antflow.journal import Journal
from tests.cli.running import antflow, command, environment, errors_of, objects_of

SLOW = """
import asyncio
import os

from antflow import Pipeline, Stage

log = os.open("paid.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def ask(n):
    await asyncio.sleep(0.002)
    os.write(log, f"{n}\\n".encode())
    if int(n) % 50 == 7:
        raise ValueError(f"no {n}")
    return {"text": f'"{n}",\\r\\n', "n": n}

pipeline = Pipeline([Stage("Ask", 4, [ask], task_attempts=1)])
"""


def lines_of(path: Path) -> list[str]:
    """The whole lines of a file, if there is one."""
    if not path.exists():
        return []
    text = path.read_bytes().decode()
    return text.splitlines(keepends=True) if text.endswith("\n") else text.split("\n")[:-1]


def ids_in(path: Path) -> list[Any]:
    """The ids of all whole lines, as text: each must be JSON."""
    return [str(json.loads(line)["id"]) for line in lines_of(path)]


def ids_of(reader: Any) -> list[str]:
    return [str(result.id) for result in reader]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_files_are_complete_after_any_number_of_kills(folder: Path, suffix: str) -> None:
    """One line per item, never two, while the command is killed at random, and at the end."""
    (folder / "slow.py").write_text(SLOW, "utf-8")
    items = folder / "items.txt"
    items.write_text("".join(f"{n}\n" for n in range(1500)))
    out, failed = folder / f"out.{suffix}", folder / "failed.jsonl"
    journal = folder / "run.db"
    told = command(
        *("run", "slow.py:pipeline", "--items", items, "--out", out, "--failed", failed),
        *("--journal", journal, "--dashboard", "none"),
    )
    dice, kills = random.Random(suffix), 0
    log = folder / "paid.log"

    def paid() -> int:
        return log.read_bytes().count(b"\n") if log.exists() else 0

    for _ in range(12):
        process = subprocess.Popen(
            told, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        # Now and then as it starts, mostly some way on.
        goal = paid() + dice.choice([0, 5, 40, 80, 110])
        while process.poll() is None and paid() < goal:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.02 if goal else 0.4))
        process.kill()
        process.communicate()
        kills += process.returncode == -9
        letters = ids_in(failed)
        assert len(letters) == len(set(letters))
        if not journal.exists() or suffix == "csv":
            continue
        results = ids_in(out)
        assert len(results) == len(set(results))
        if results or letters:
            with Journal.open(journal) as reader:
                assert set(results) <= set(ids_of(reader.results()))
                assert set(letters) <= set(ids_of(reader.failed()))
    assert kills == 12
    done = subprocess.run(told, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "30 items stay failed" in done.stderr or "30 failed" in done.stderr
    expected = {str(n) for n in range(1500) if n % 50 != 7}
    if suffix == "csv":
        with open(out, newline="") as file:
            rows = [*csv.DictReader(file)]
        assert Counter(row["n"] for row in rows) == Counter(expected)
        assert {row["text"] for row in rows} == {f'"{n}",\r\n' for n in expected}
    else:
        lines = objects_of(out.read_text())
        assert Counter(line["value"]["n"] for line in lines) == Counter(expected)
    letters = objects_of(failed.read_text())
    assert sorted(int(letter["input"]) for letter in letters) == [*range(7, 1500, 50)]
    with Journal.open(journal) as reader:
        assert set(ids_in(failed)) == set(ids_of(reader.failed()))
        assert reader.info.in_flight == 0
    all_paid = Counter(log.read_text().split())
    assert len(all_paid) == 1500
    assert all_paid.total() <= 1500 + 4 * kills


def run(*args: object, items: object = "items.jsonl", target: str = "app:pipeline") -> Any:
    """The command with a journal and both files."""
    files = ("--out", "out.jsonl", "--failed", "failed.jsonl", "--journal", "run.db")
    return antflow("run", target, "--items", items, *files, *args)


def of(path: str) -> dict[Any, Any]:
    """Id → value or error of each line; no id has two."""
    lines = objects_of(Path(path).read_text())
    found = {line["id"]: line.get("error", line["value"]) for line in lines}
    assert len(found) == len(lines)
    return found


def items(folder: Path, *texts: str) -> None:
    lines = [json.dumps({"id": text, "text": text}) for text in texts]
    (folder / "items.jsonl").write_text("".join(f"{line}\n" for line in lines))


SWITCH = """
import os
import pathlib
from antflow import Pipeline, Stage

async def ask(item):
    with open("calls", "a") as file:
        print(item["id"], file=file)
    if os.path.exists("broken") and item["id"] in pathlib.Path("broken").read_text().split():
        raise LookupError("no " + item["id"])
    return item["text"].upper()

pipeline = Pipeline([Stage("Ask", 2, [ask], task_attempts=1)], name="switch")
newer = Pipeline([Stage("Ask", 2, [ask], task_attempts=1, version=2)], name="switch")
"""


@pytest.fixture
def switch(folder: Path) -> Path:
    """A pipeline in which those items fail that the file ``broken`` names."""
    (folder / "switch.py").write_text(SWITCH, "utf-8")
    items(folder, "a", "b", "c")
    return folder


def calls(folder: Path) -> list[str]:
    """The items that were run since the last time."""
    path = folder / "calls"
    made = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(made)


def test_failed_items_stay_failed_until_they_are_retried(switch: Path) -> None:
    """They are told loudly and the exit code is 1; once they succeed their line moves to --out."""
    (switch / "broken").write_text("b c")
    assert run(target="switch:pipeline").exit_code == 1
    assert calls(switch) == ["a", "b", "c"]
    again = run(target="switch:pipeline")
    assert (again.exit_code, calls(switch)) == (1, [])
    loud = "2 items stay failed from earlier runs: 2 × LookupError; --retry-failed runs them again"
    assert loud in again.stderr.splitlines()
    assert "3 of them in earlier runs" in again.stderr
    assert (of("out.jsonl"), of("failed.jsonl")) == ({"a": "A"}, {"b": "no b", "c": "no c"})
    (switch / "broken").write_text("c")
    assert run("--retry-failed=KeyError", target="switch:pipeline").exit_code == 1
    assert calls(switch) == []
    retried = run("--retry-failed=KeyError,LookupError", target="switch:pipeline")
    assert (retried.exit_code, calls(switch)) == (1, ["b", "c"])
    assert "stay" not in retried.stderr
    assert (of("out.jsonl"), of("failed.jsonl")) == ({"a": "A", "b": "B"}, {"c": "no c"})
    (switch / "broken").unlink()
    # Without "=", what follows is not its value.
    done = antflow(
        *("run", "--journal", "run.db", "--items", "items.jsonl", "--out", "out.jsonl"),
        *("--failed", "failed.jsonl", "--retry-failed", "switch:pipeline"),
    )
    assert (done.exit_code, calls(switch)) == (0, ["c"])
    assert (of("out.jsonl"), of("failed.jsonl")) == ({"a": "A", "b": "B", "c": "C"}, {})


def test_files_are_checked_against_the_journal(switch: Path) -> None:
    """A torn line is cut off, missing lines are added, and wrong or doubled ones are taken out."""
    (switch / "broken").write_text("b")
    run(target="switch:pipeline")
    calls(switch)
    out, failed = switch / "out.jsonl", switch / "failed.jsonl"
    right = (of("out.jsonl"), of("failed.jsonl"))
    line_a, line_c = sorted(lines_of(out))
    letter = failed.read_text()
    stale = '{"id": "b", "value": "B"}\n'
    for results, letters in (
        ("", ""),
        (line_a[:-1], letter[:9]),
        (line_a + line_a + stale + line_c[:7], letter * 2 + letter.replace('"b"', '"a"', 1)),
        (line_c + '{"id": "a", "value": "old"}\n', letter.replace("no b", "old")),
    ):
        out.write_text(results)
        failed.write_text(letters)
        assert run(target="switch:pipeline").exit_code == 1
        assert (of("out.jsonl"), of("failed.jsonl")) == right
    out.unlink()
    failed.unlink()
    items(switch, "a")  # also those of items that are not fed again
    run(target="switch:pipeline")
    assert (of("out.jsonl"), of("failed.jsonl")) == right
    assert calls(switch) == []
    assert not [*switch.glob("*.part")]


def test_lines_of_items_that_the_journal_does_not_know_stay(switch: Path) -> None:
    """A file of something else is refused; single lines are kept, and told."""
    out = switch / "out.jsonl"
    out.write_text('{"id": "x", "value": 1}\n{"id": "y", "value": 1}\n')
    before = out.read_text()
    refused = run(target="switch:pipeline")
    assert "is not empty; --append adds to it" in errors_of(refused)[0]
    assert (refused.exit_code, out.read_text()) == (2, before)
    assert run("--append", target="switch:pipeline").exit_code == 0
    assert of("out.jsonl") == {"x": 1, "y": 1, "a": "A", "b": "B", "c": "C"}
    again = run(target="switch:pipeline")
    told = "--out 'out.jsonl' has 2 lines of items that the journal does not know"
    assert told in again.stderr.splitlines()
    out.write_text(before)
    refused = run(target="switch:pipeline")
    assert "has none of the journal's lines" in errors_of(refused)[0]
    assert (refused.exit_code, out.read_text()) == (2, before)
    assert run("--force", target="switch:pipeline").exit_code == 0
    assert of("out.jsonl") == {"a": "A", "b": "B", "c": "C"}
    out.write_text("something\n")
    refused = run(target="switch:pipeline")
    assert "has other lines than results" in errors_of(refused)[0]
    assert (refused.exit_code, out.read_text()) == (2, "something\n")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_changed_item_has_its_new_line_only(switch: Path, name: str) -> None:
    """What is run again, because its input or its stage has another version, replaces its line."""
    told = ("run", "--items", "items.jsonl", "--out", name, "--journal", "run.db")
    antflow(*told, "switch:pipeline")
    lines = [{"id": "a", "text": "new"}, {"id": "b", "text": "b"}, {"id": "c", "text": "c"}]
    (switch / "items.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    calls(switch)
    changed = antflow(*told, "switch:pipeline")
    assert calls(switch) == ["a"]
    assert "run again, as the input or a stage has changed: 1 item" in changed.stderr
    text = (switch / name).read_text()
    assert text.count("NEW") == text.count("B") == 1
    assert "A" not in text
    assert len(text.splitlines()) == 3 + name.endswith("csv")
    (switch / "broken").write_text("b")
    antflow(*told, "switch:newer")
    assert calls(switch) == ["a", "b", "c"]
    assert "B" not in (switch / name).read_text()


def test_a_torn_csv_file_is_mended(switch: Path) -> None:
    """Whatever a killed program left of it, in the header or in quotes, it is complete again."""
    told = ("run", "--items", "items.jsonl", "--out", "out.csv", "--journal", "run.db")
    (switch / "items.jsonl").write_text(
        '{"id": "a", "text": "x\\r\\ny\\""}\n{"id": "b", "text": "z"}\n'
    )
    antflow(*told, "switch:pipeline")
    out = switch / "out.csv"
    whole = out.read_bytes()
    for size in range(len(whole)):
        out.write_bytes(whole[:size])
        assert antflow(*told, "switch:pipeline").exit_code == 0
        with open(out, newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["id", "value", "rest"]
        assert sorted(rows) == [["a", 'X\r\nY"', ""], ["b", "Z", ""]]
    calls(switch)


def test_items_without_an_id_are_known_by_their_content(switch: Path) -> None:
    """Lines may be moved, and new ones may come before them: only those are run."""
    (switch / "items.txt").write_text("x1\nx2\nx2\n")
    assert run(items="items.txt").exit_code == 0
    first = of("out.jsonl")
    assert sorted(first.values()) == ["x1", "x2", "x2"]
    (switch / "items.txt").write_text("x3\nx2\nx2\nx1\n")
    again = run(items="items.txt")
    assert "4 ok, 0 failed" in again.stderr
    assert "; 3 of them in earlier runs" in again.stderr
    assert sorted(of("out.jsonl").values()) == ["x1", "x2", "x2", "x3"]
    assert first.items() <= of("out.jsonl").items()


def test_a_field_can_be_the_key(switch: Path) -> None:
    """--key names the field by which items are known; a line without it is a bad one."""
    (switch / "items.csv").write_text("url,id\nu1,1\nu2,1\n")
    assert run("--key", "url", items="items.csv").exit_code == 0
    assert of("out.jsonl").keys() == {"u1", "u2"}
    (switch / "items.jsonl").write_text('{"url": "u9"}\n{"id": "u2"}\n')
    bad = run("--key", "url", target="app:pipeline")
    assert bad.exit_code == 1
    assert "has no field 'url', which --key asks for" in bad.stderr
    refused = run("--key", "link", items="items.csv")
    assert "no column is named 'link'" in errors_of(refused)[0]
    (switch / "items.txt").write_text("x\n")
    refused = run("--key", "url", items="items.txt")
    assert "--key 'url': lines have no fields" in errors_of(refused)[0]


def test_bad_lines_are_put_aside_once(switch: Path) -> None:
    """A bad line has one dead letter however often the command runs, and none when it is mended."""
    (switch / "items.jsonl").write_text('{"id": "a", "text": "a"}\n{oops\n')
    for _ in range(2):
        assert run(target="switch:pipeline").exit_code == 1
        assert len(objects_of((switch / "failed.jsonl").read_text())) == 1
    items(switch, "a", "b")
    assert run(target="switch:pipeline").exit_code == 0
    assert (of("failed.jsonl"), of("out.jsonl")) == ({}, {"a": "A", "b": "B"})


def test_a_file_that_is_not_a_journal_is_refused(switch: Path) -> None:
    """Nothing is written to it, and nothing is run."""
    (switch / "run.db").write_text("text, and much of it " * 99)
    refused = run(target="switch:pipeline")
    assert (refused.exit_code, calls(switch)) == (2, [])
    assert "not an SQLite database" in errors_of(refused)[0]
    for option, value in (("--key", "id"), ("--retry-failed=KeyError", "")):
        told = [option, value] if value else [option]
        refused = antflow("run", "switch:pipeline", "--items", "items.jsonl", *told)
        assert "needs --journal FILE" in errors_of(refused)[0]
    refused = run("--retry-failed=not a name", target="switch:pipeline")
    assert "must be names of exception classes" in errors_of(refused)[0]
    refused = antflow(
        "run", "switch:pipeline", "--items", "items.jsonl", "--journal", "items.jsonl"
    )
    assert "is the file that --items reads" in errors_of(refused)[0]


def test_a_journal_in_use_is_refused(switch: Path) -> None:
    """A second run on one journal says who has it; the files stay as they are."""
    from antflow.journal.file import open_for_writing

    run(target="switch:pipeline")
    before = (switch / "out.jsonl").read_text()
    connection = open_for_writing(switch / "run.db")
    try:
        refused = run(target="switch:pipeline")
    finally:
        connection.close()
    assert refused.exit_code == 2
    assert "is open in" in errors_of(refused)[0]
    assert (switch / "out.jsonl").read_text() == before


def test_a_plan_is_printed_and_nothing_is_done(switch: Path) -> None:
    """--plan says what the run would do, on standard output; no file is made or changed."""
    told = ("--items", "items.jsonl", "--journal", "run.db", "--out", "out.jsonl", "--plan")
    new = antflow("run", "switch:pipeline", *told)
    assert new.stdout.splitlines()[0] == "3 items: 0 settled, 3 to run"
    assert (new.exit_code, calls(switch)) == (0, [])
    assert not (switch / "run.db").exists()
    assert not (switch / "out.jsonl").exists()
    (switch / "broken").write_text("b")
    run(target="switch:pipeline")
    calls(switch)
    files = {path: path.read_bytes() for path in switch.glob("*.jsonl")}
    with open(switch / "items.jsonl", "a") as file:
        file.write('{"id": "d", "text": "d"}\n{oops\n')
    files[switch / "items.jsonl"] = (switch / "items.jsonl").read_bytes()
    plan = antflow("run", "switch:pipeline", *told, "--retry-failed")
    head, *rest, last, bad = plan.stdout.splitlines()
    assert head == "4 items: 2 settled (2 completed), 2 to run"
    assert rest == ["  1 new", "  1 again: failed: LookupError"]
    assert last.endswith("by the durations in the journal")
    assert bad.startswith("1 line of the input cannot be read, e.g. items.jsonl:5")
    assert files == {path: path.read_bytes() for path in switch.glob("*.jsonl")}
    assert calls(switch) == []
    refused = antflow("run", "switch:pipeline", "--items", "items.jsonl", "--plan")
    assert "--plan: needs --journal FILE" in errors_of(refused)[0]


def test_two_items_may_change_places(switch: Path) -> None:
    """One that was completed fails in a new version, and the other way round: as many as before."""
    (switch / "broken").write_text("b")
    run(target="switch:pipeline")
    (switch / "broken").write_text("c")
    run(target="switch:newer")
    assert (of("out.jsonl"), of("failed.jsonl")) == ({"a": "A", "b": "B"}, {"c": "no c"})


LARGE = """
import os
from antflow import Pipeline, Stage

async def ask(n):
    return {"n": n, "text": "x" * (2_000_000 if n.startswith("2") else 5)}

pipeline = Pipeline([Stage("Ask", 1, [ask])])
"""


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_line_stays_whose_value_is_not_in_the_journal(folder: Path, suffix: str) -> None:
    """Where it is missing, a note stands in its place; `antflow journal` shows that, too."""
    (folder / "large.py").write_text(LARGE, "utf-8")
    items = folder / "items.txt"
    items.write_text("1\n2\n3\n")
    out = folder / f"out.{suffix}"
    told = ("run", "large.py:pipeline", "--items", items, "--out", out, "--journal=run.db")
    first = antflow(*told)
    assert (first.exit_code, first.stdout) == (0, "")
    assert "not in the journal: 1 result" in first.stderr
    whole = out.read_bytes()
    assert len(whole) > 2_000_000
    assert antflow(*told).exit_code == 0
    assert out.read_bytes() == whole
    items.write_text("1\n2\n3\n21\n")
    assert antflow(*told).exit_code == 0
    assert out.read_bytes().startswith(whole)
    assert len(out.read_bytes()) > 4_000_000
    out.write_bytes(b"".join(line for line in whole.splitlines(True) if len(line) < 1_000))
    assert antflow(*told).exit_code == 0
    text = out.read_text()
    assert (text.count("too large"), text.count("Omitted")) == (2, 2)
    assert len(text.splitlines()) == 4 + (suffix == "csv")
    assert antflow(*told).exit_code == 0
    assert out.read_text() == text
    shown = antflow("journal", "results", "run.db")
    assert shown.stdout.count("<not in the journal: too large, 2,000,0") == 2
    lines = objects_of(antflow("journal", "results", "run.db", "--json").stdout)
    assert [line["value"].get("why") for line in lines] == [None, "too large", None, "too large"]
    assert lines[1]["value"]["type"] == "Omitted"


SECRETIVE = """
from antflow import Pipeline, Stage
from antflow.journal import Journal

def redact(value, what, stage):
    if isinstance(value, dict):
        return value | {"token": "***"}
    return value.replace("s3cr3t", "***") if isinstance(value, str) else value

class Backwards:
    name = "backwards"
    def encode(self, value): return repr(value)[::-1].encode()
    def decode(self, data): return eval(data.decode()[::-1])

async def ask(item):
    return {"n": item["n"], "token": item["token"]}

options = {"redact": redact, "codec": Backwards(), "max_result": 100}
pipeline = Pipeline([Stage("Ask", 1, [ask])], journal=Journal("own.db", **options))
"""


def test_the_options_of_the_pipelines_own_journal_hold(folder: Path) -> None:
    """Only the file is another: no secret reaches it, and its codec keeps and reads it."""
    (folder / "secretive.py").write_text(SECRETIVE, "utf-8")
    (folder / "items.jsonl").write_text(
        "".join(json.dumps({"n": n, "token": "s3cr3t"}) + "\n" for n in range(3))
    )
    told = ["run", "secretive.py:pipeline", "--items", "items.jsonl", "--out", "out.jsonl"]
    told += ["--journal=run.db", "--dashboard=none"]
    assert antflow(*told).exit_code == 0
    out = (folder / "out.jsonl").read_text()
    assert out.count("s3cr3t") == 3
    data = (folder / "run.db").read_bytes()
    assert (b"s3cr3t" in data, b"t3rc3s" in data, b"nekot" in data) == (False, False, True)
    again = antflow(*told)
    assert (again.exit_code, "3 of them in earlier runs" in again.stderr) == (0, True)
    assert (folder / "out.jsonl").read_text() == out
    assert not (folder / "own.db").exists()
