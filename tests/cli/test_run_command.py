"""`antflow run`: what goes in, what comes out where, and with which exit code."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from antflow import Pipeline, Stage
from antflow._core.tracebacks import named
from antflow._monitor import advice
from antflow.cli.letters import LETTER_KEYS
from antflow.cli.refusals import Refusal, reason_with_place
from antflow.cli.run_command import with_workers
from antflow.sinks import sink as sink_module
from antflow.sinks.sqlite import APPLICATION_ID
from tests.cli.running import antflow, command, environment, errors_of, objects_of, start
from tests.postgres_server import PostgresServer


@pytest.fixture
def items(folder: Path) -> Path:
    """Twenty lines: two of them fail in the first stage, two in the second."""
    path = folder / "items.txt"
    path.write_text("".join(f"{number}\n" for number in range(1, 21)))
    return path


@pytest.fixture
def asked_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds a run back may be asked of one that is over in a moment."""
    monkeypatch.setattr(advice, "EARLIEST_ANSWER", 0.1)


def module(folder: Path, source: str, name: str = "mine") -> str:
    """Write a module that may use ``one(name, *tasks)``; returns its target."""
    (folder / f"{name}.py").write_text(f"from app import *\n{source}", "utf-8")
    return f"{name}:pipeline"


QUIET = ("--dashboard", "none")
SLOW = """
import asyncio

async def crawl(text):
    await asyncio.sleep({})
    return text

pipeline = one("Slow", crawl)
"""
GOOD = {number for number in range(1, 21) if number % 10 not in (5, 7)}


def test_report_is_written_beside_the_results(items: Path) -> None:
    """``--report`` writes a report whose counts are those of the results."""
    result = antflow("run", "app:pipeline", "--items", items, "--report", "report.md", *QUIET)
    assert result.exit_code == 1
    assert len(objects_of(result.stdout)) == 16
    report = Path("report.md").read_text("utf-8")
    assert "Of 20 items, 16 completed, 4 failed in " in report


# -- results and dead letters -----------------------------------------------------------------


def test_results_go_to_standard_output(items: Path) -> None:
    """Standard output has the results alone; prints, display and summary are on standard error."""
    result = antflow("run", "app:pipeline", "--items", items)
    assert (result.exit_code, errors_of(result)) == (1, [])
    found = objects_of(result.stdout)
    assert {item["id"] for item in found} == GOOD
    assert all(item == {"id": item["id"], "value": str(item["id"])} for item in found)
    lines = result.stderr.splitlines()
    assert "fetching 3" in lines
    assert "16 ok, 4 failed" in lines
    assert any(line.startswith("16 ok, 4 failed in ") for line in lines)
    assert any(line.startswith("failed: 2 × LookupError at app.py:") for line in lines)
    assert any(line.startswith("failed: 2 × ConnectionError at app.py:") for line in lines)
    assert "--failed FILE keeps the failed items" in lines
    assert "failed in: Fetch 2, Store 2" in lines


@pytest.mark.parametrize("dashboard", ["none", "progress", "auto", "log"])
def test_bottleneck_is_named_once(
    dashboard: str, folder: Path, items: Path, asked_early: None
) -> None:
    """At the end a sentence says what held the run back: of the summary, or of the display."""
    target = module(folder, SLOW.format(0.02))
    result = antflow("run", target, "--items", items, "--dashboard", dashboard)
    assert result.exit_code == 0
    (told,) = [line for line in result.stderr.splitlines() if "Bottleneck" in line]
    assert "Bottleneck: Slow. Its 2 workers were busy " in told


def test_results_go_to_a_file(items: Path) -> None:
    """With --out standard output stays empty."""
    out = items.with_name("out.jsonl")
    result = antflow("run", "app:pipeline", "--items", items, "--out", out, *QUIET)
    assert (result.exit_code, result.stdout) == (1, "")
    assert {item["id"] for item in objects_of(out.read_text())} == GOOD


def test_results_and_dead_letters_where_a_dash_says(items: Path) -> None:
    """``-`` is standard output, for the results or for the dead letters, and no file."""
    result = antflow("run", "app:pipeline", "--items", items, "--out", "-", *QUIET)
    assert {item["id"] for item in objects_of(result.stdout)} == GOOD
    result = antflow(
        *("run", "app:pipeline", "--items", items, "--out", "out.jsonl", "--failed", "-", *QUIET)
    )
    assert {letter["id"] for letter in objects_of(result.stdout)} == {5, 7, 15, 17}
    assert {item["id"] for item in objects_of(Path("out.jsonl").read_text())} == GOOD
    assert not Path("-").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such descriptors")
def test_results_when_standard_output_is_closed(folder: Path) -> None:
    """Without standard output --out is needed, and enough."""
    (folder / "items").write_text("1\n")
    run = ["sh", "-c", 'exec "$@" >&-', "sh", *command("run", "app:pipeline", "--items", "items")]
    done = subprocess.run([*run, *QUIET], env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "Error: standard output is closed; --out FILE takes the results\n"
    quiet = subprocess.run([*run, *QUIET, "--out", "out"], env=environment())
    assert quiet.returncode == 0
    assert objects_of((folder / "out").read_text()) == [{"id": 1, "value": "1"}]


def test_standard_output_after_the_command(folder: Path) -> None:
    """A program that calls the command has its standard output back afterwards."""
    code = (
        "import os, sys\nfrom antflow.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: os.write(1, b'afterwards')\n"
    )
    (folder / "items").write_text("1\n")
    args = ("run", "app:pipeline", "--items", "items", "--out", "out", *QUIET)
    run = [sys.executable, "-c", code, *args]
    done = subprocess.run(run, env=environment(), capture_output=True, text=True)
    assert done.stdout == "afterwards"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(("name", "code"), [("mine", 0), ("nowhere", 2)])
def test_exit_code_when_standard_error_has_no_room(folder: Path, name: str, code: int) -> None:
    """What cannot be said changes neither the results nor the exit code."""
    module(folder, "async def keep(x): return x\npipeline = one('Keep', keep)\n")
    (folder / "items").write_text("1\n")
    with open("/dev/full", "w") as full:
        process = start(folder, "run", f"{name}:pipeline", "--items", "items", *QUIET, stderr=full)
        output, _ = process.communicate()
    assert process.returncode == code
    assert len(objects_of(output)) == (1 if code == 0 else 0)


def test_exit_code_is_0_when_nothing_failed(items: Path) -> None:
    """All well is 0, an empty input too."""
    items.write_text("1\n2\n")
    assert antflow("run", "app:pipeline", "--items", items, *QUIET).exit_code == 0
    items.write_text("")
    result = antflow("run", "app:pipeline", "--items", items, *QUIET)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("0 ok, 0 failed in ")


def test_dead_letters_go_on_where_they_failed(items: Path) -> None:
    """Fed back, dead letters begin with the stage they failed in, with their ids and inputs."""
    failed = items.with_name("failed.jsonl")
    result = antflow("run", "app:pipeline", "--items", items, "--failed", failed, *QUIET)
    assert "--failed FILE" not in result.stderr
    letters = objects_of(failed.read_text())
    assert {(letter["id"], letter["stage"]) for letter in letters} == {
        (5, "Store"),
        (7, "Fetch"),
        (15, "Store"),
        (17, "Fetch"),
    }
    target = module(
        items.parent,
        "async def fetch(text): print('fetch', text); return {'page': text}\n"
        "async def store(page):\n"
        "    if page['page'] == '15': raise KeyError('again')\n"
        "    return page['page']\n"
        "pipeline = Pipeline([Stage(n, 1, [f], task_attempts=1)"
        " for n, f in [('Fetch', fetch), ('Store', store)]])\n",
    )
    again = items.with_name("again.jsonl")
    result = antflow("run", target, "--items", failed, "--failed", again, *QUIET)
    assert result.exit_code == 1
    assert {item["id"]: item["value"] for item in objects_of(result.stdout)} == {
        5: "5",
        7: "7",
        17: "17",
    }
    assert sorted(line for line in result.stderr.splitlines() if line.startswith("fetch ")) == [
        "fetch 17",
        "fetch 7",
    ]
    (letter,) = objects_of(again.read_text())
    assert letter == next(old for old in letters if old["id"] == 15) | {
        "error_type": "KeyError",
        "error": "'again'",
    }


def test_failed_items_that_json_cannot_hold_begin_again(items: Path) -> None:
    """What entered the failing stage is not JSON: fed back, the item begins with what was read."""
    target = module(
        items.parent,
        "async def encode(text): print('encode', text); return text['value']['x'].encode()\n"
        "async def send(data):\n"
        "    if not __import__('os').path.exists('up'): raise ConnectionError\n"
        "    return len(data)\n"
        "pipeline = Pipeline([Stage(n, 1, [f], task_attempts=1)"
        " for n, f in [('Encode', encode), ('Send', send)]])\n",
    )
    items = items.with_name("in.jsonl")
    items.write_text('{"id": "a", "value": {"x": "ä"}, "lang": "de"}\n')
    failed = items.with_name("failed.jsonl")
    antflow("run", target, "--items", items, "--failed", failed, *QUIET)
    (letter,) = objects_of(failed.read_text())
    assert letter["restart"] is True
    assert letter["value"] == {"type": "bytes", "base64": "w6Q="}
    assert letter["input"] == {"id": "a", "value": {"x": "ä"}, "lang": "de"}
    items.with_name("up").touch()
    result = antflow("run", target, "--items", failed, *QUIET)
    assert objects_of(result.stdout) == [{"id": "a", "value": 2}]
    assert "encode {'id': 'a', 'value': {'x': 'ä'}, 'lang': 'de'}" in result.stderr


def test_failed_items_of_a_stage_that_is_gone(items: Path) -> None:
    """A dead letter of another pipeline is a bad line, which says which stages there are."""
    failed = items.with_name("failed.jsonl")
    antflow("run", "app:pipeline", "--items", items, "--failed", failed, *QUIET)
    failed.write_text(failed.read_text().replace('"Store"', '"Stored"'))
    result = antflow("run", "app:pipeline", "--items", failed, *QUIET)
    assert result.exit_code == 2
    (error,) = errors_of(result)
    assert (
        ":1: stage 'Stored' not found; the stages are 'Fetch', 'Store'; did you mean 'Store'"
        in error
    )
    again = items.with_name("again.jsonl")
    options = ("--on-bad-line", "dead-letter", "--failed", again, *QUIET)
    result = antflow("run", "app:pipeline", "--items", failed, *options)
    assert "2 lines of the input could not be read" in result.stderr
    kept = {line for line in failed.read_text().splitlines() if '"Stored"' in line}
    assert kept <= set(again.read_text().splitlines())


BACK = """
import os
class Kept:
    def __init__(self, text): self.text = text
def read(x): return Kept(x) if "odd" in str(x) else {"was": x}
def send(x):
    if not os.path.exists("up"): raise ConnectionError("down")
    return x.text if isinstance(x, Kept) else x["was"]
parts = [("Read", read), ("Send", send)]
pipeline = Pipeline([Stage(name, 2, [task], task_attempts=1) for name, task in parts])
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("in.txt", "a\n\nödd \u2028 odd\n", {1: "a", 3: "ödd \u2028 odd"}),
        (
            "in.jsonl",
            '{"id": "a", "value": [1.5], "lang": "de"}\n{"id": 7, "odd": null}\n5\n'
            '{"no": "id"}\n"\\ud800"\n',
            {
                "a": {"id": "a", "value": [1.5], "lang": "de"},
                7: {"id": 7, "odd": None},
                3: 5,
                4: {"no": "id"},
                5: "\ud800",
            },
        ),
        (
            "in.csv",
            'id,name\nx,"two\nlines"\ny,odd\n',
            {"x": {"id": "x", "name": "two\nlines"}, "y": {"id": "y", "name": "odd"}},
        ),
    ],
)
def test_failed_items_of_every_kind_come_back(
    folder: Path, name: str, text: str, expected: dict[object, object]
) -> None:
    """Ids, values and metadata of each format survive a failure, however often it comes."""
    target = module(folder, BACK)
    (folder / name).write_text(text, "utf-8")
    files = [name, "failed1.jsonl", "failed2.jsonl"]
    for items, failed in pairwise(files):
        assert antflow("run", target, "--items", items, "--failed", failed, *QUIET).exit_code == 1
    first, second = (sorted((folder / failed).read_text().splitlines()) for failed in files[1:])
    assert first == second
    (folder / "up").touch()
    result = antflow("run", target, "--items", files[-1], *QUIET)
    assert result.exit_code == 0
    assert {item["id"]: item["value"] for item in objects_of(result.stdout)} == expected


CHANGED = """
def change(x):
    x.pop("secret", None); x["new"] = {1}
    raise ConnectionError
def hand_on(x): return x
pipeline = Pipeline([Stage(f.__name__, 1, [f], task_attempts=1) for f in STAGES])
"""


@pytest.mark.parametrize("stages", ["[change]", "[hand_on, change]"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.jsonl", '{"id": "a", "secret": [1.0]}\n'),
        ("in.json", '[{"id": "a", "secret": [1.0]}]'),
        ("in.csv", "id,secret\na,1\n"),
    ],
)
def test_failed_items_are_kept_as_they_were_read(
    folder: Path, stages: str, name: str, text: str
) -> None:
    """A task that changes the value it is given does not change its dead letter."""
    target = module(folder, CHANGED.replace("STAGES", stages))
    (folder / name).write_text(text)
    files = [name, "failed1.jsonl", "failed2.jsonl"]
    for items, failed in pairwise(files):
        antflow("run", target, "--items", items, "--failed", failed, *QUIET)
    (first,), (second,) = (objects_of((folder / failed).read_text()) for failed in files[1:])
    read = {"id": "a", "secret": "1" if name == "in.csv" else [1.0]}
    assert first["input"] == read
    assert first["restart"] or first["value"] == read
    assert second == first


SPLIT = """
import os
class Part:
    def __init__(self, text): self.text = text
def split(x): return [Part(x + letter) for letter in "abc"]
def send(part):
    if part.text[-1] != "a" and not os.path.exists("up"): raise ConnectionError
    return part.text
pipeline = Pipeline([
    Stage("Split", 1, [split], expand=True), Stage("Send", 1, [send], task_attempts=1)])
"""


@pytest.mark.parametrize("name", ["1.jsonl", "1.json"])
def test_item_starts_over_once_for_all_that_was_made_from_it(folder: Path, name: str) -> None:
    """However many of them failed, and however often: with its own id, and so do theirs."""
    target = module(folder, SPLIT)
    (folder / "0.txt").write_text("x\ny\n")
    for items, failed in pairwise(["0.txt", "1.jsonl", "2.jsonl"]):
        antflow("run", target, "--items", items, "--failed", failed, *QUIET)
        assert len(objects_of((folder / failed).read_text())) == 4
    (folder / "1.json").write_text(json.dumps(objects_of((folder / "1.jsonl").read_text())))
    (folder / "up").touch()
    result = antflow("run", target, "--items", name, *QUIET)
    assert {each["id"]: each["value"] for each in objects_of(result.stdout)} == {
        f"{number + 1}/{part}": text + letter
        for number, text in enumerate("xy")
        for part, letter in enumerate("abc")
    }
    assert "6 ok" in result.stderr


CHAPTERS = """
import os
def chapters(book): return [f"{book['name']}-{number}" for number in range(2)]
def pages(chapter):
    if not os.path.exists("first"): raise ConnectionError
    return [chapter + ".1", chapter + ".2"]
def odd(page): return {page}
def send(odd):
    (page,) = odd
    if not os.path.exists("second"): raise ConnectionError
    return page
def one(name, *tasks, **options): return Stage(name, 1, tasks, task_attempts=1, **options)
pipeline = Pipeline([
    one("Name", lambda x: x if isinstance(x, dict) else {"name": x}),
    one("Chapters", chapters, expand=True), one("Pages", pages, expand=True), one("Odd", odd),
    one("Send", send)])
"""


@pytest.mark.parametrize(
    ("text", "name", "true_ids"),
    [
        ("\nx\ny\n", "0.txt", {"x": 2, "y": 3}),
        ('{"id": "b1", "name": "x"}\n{"id": 7, "name": "y"}\n', "0.jsonl", {"x": "b1", "y": 7}),
        ("name\nx\ny\n", "0.csv", {"x": 2, "y": 3}),
    ],
)
def test_items_made_from_others_keep_their_ids_in_every_round(
    folder: Path, text: str, name: str, true_ids: dict[str, object]
) -> None:
    """One that went on, and has to start over later, does so under the id in the first file."""
    target = module(folder, CHAPTERS)
    (folder / name).write_text(text)
    rounds = [
        # Chapters fail, and go on as they are; then their pages fail, which are not JSON.
        (name, "1.jsonl", {f"{true_ids[book]}/{n}" for book in "xy" for n in range(2)}),
        ("1.jsonl", "2.jsonl", set(map(str, true_ids.values()))),
        ("2.jsonl", "3.jsonl", set(map(str, true_ids.values()))),
    ]
    for items, failed, ids in rounds:
        antflow("run", target, "--items", items, "--failed", failed, *QUIET)
        letters = objects_of((folder / failed).read_text())
        assert {str(letter["id"]) for letter in letters} == ids
        (folder / "first").touch()
    (folder / "second").touch()
    for items in ("2.jsonl", "3.jsonl"):
        result = antflow("run", target, "--items", items, *QUIET)
        assert {each["id"]: each["value"] for each in objects_of(result.stdout)} == {
            f"{true_ids[book]}/{chapter}/{page}": f"{book}-{chapter}.{page + 1}"
            for book in "xy"
            for chapter in range(2)
            for page in range(2)
        }


PAGES = """
import os
def pages(book):
    yield from (f"{book} {number}" for number in range(2))
    if not os.path.exists("up"): raise ConnectionError
    yield from (f"{book} {number}" for number in range(2, 4))
pipeline = one("Split", pages, expand=True)
"""


def test_item_that_failed_while_it_became_others_makes_only_the_rest(folder: Path) -> None:
    """Those that were made went on before: fed back, however often, it does not make them again."""
    target = module(folder, PAGES)
    (folder / "0.txt").write_text("x\n")
    for items, failed in pairwise(["0.txt", "1.jsonl", "2.jsonl"]):
        result = antflow("run", target, "--items", items, "--failed", failed, *QUIET)
        assert [each["value"] for each in objects_of(result.stdout)] == (
            ["x 0", "x 1"] if items == "0.txt" else []
        )
    (folder / "up").touch()
    result = antflow("run", target, "--items", "2.jsonl", *QUIET)
    assert objects_of(result.stdout) == [
        {"id": "1/2", "value": "x 2"},
        {"id": "1/3", "value": "x 3"},
    ]


PAID = """
import os
from antflow import current_item
def pay(x):
    with open("paid", "a") as log: print(x, current_item().idempotency_key, file=log)
    if not os.path.exists(current_item().stage): raise ConnectionError("no answer")
    return x
def odd(x): return [{x}] if "b" in x else [x, x.upper()]
def check(x): return pay(next(iter(x)))
pipeline = Pipeline([
    Stage("Pay", 1, [pay], task_attempts=1), Stage("Split", 1, [odd], expand=True),
    Stage("Check", 1, [check], task_attempts=1)])
"""


def test_failed_items_repeat_their_idempotency_keys(folder: Path) -> None:
    """Fed back, dead letters send the keys that they sent before; other runs send others."""
    target = module(folder, PAID)
    (folder / "a.txt").write_text("a\nb\n")
    antflow("run", target, "--items", "a.txt", *QUIET)
    others = (folder / "paid").read_text().split()[1::2]
    (folder / "paid").unlink()
    for number, is_up in enumerate(["down", "Pay", "Check"]):
        (folder / is_up).touch()
        items = f"{number}.jsonl" if number else "a.txt"
        antflow("run", target, "--items", items, "--failed", f"{number + 1}.jsonl", *QUIET)
    sent = [line.split() for line in (folder / "paid").read_text().splitlines()]
    # The set that enters Check is not JSON: b begins with Pay again.
    assert sorted(order for order, _ in sent) == [*"AA", *"aaaa", *"bbbbb"]
    assert len({key for _, key in sent}) == 5
    assert not {key for _, key in sent} & set(others)


STRICT = """
from pathlib import Path
from antflow import Pipeline, Stage

def work(x):
    if Path("down").exists():
        raise OSError
    return x

pipeline = Pipeline([Stage("Work", 1, [work], task_attempts=1)], duplicates="skip")
"""


@pytest.mark.fault
def test_number_of_a_line_is_no_duplicate_of_an_id(folder: Path) -> None:
    """``duplicates="skip"`` leaves out lines that repeat an id, and none that has no id at all."""
    target = module(folder, STRICT)
    lines = [{"id": 2}, {"n": 1}, {"n": 2}, {"id": 2}, {"id": 3}, {"id": 4}]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "in.jsonl").write_text(text)
    antflow("run", target, "--items", "in.jsonl", "--out", "out.jsonl", *QUIET)
    kept = [lines[n] for n in (0, 1, 2, 4, 5)]
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [result["value"] for result in results] == kept
    assert [result["id"] for result in results] == [2, "2#2", 3, "3#2", 4]

    # Dead letters of two runs have the same numbers, and their own ids count.
    (folder / "down").touch()
    for name in ("1.jsonl", "2.jsonl"):
        antflow("run", target, "--items", "in.jsonl", "--failed", name, *QUIET)
    (folder / "down").unlink()
    letters = "".join((folder / name).read_text() for name in ("1.jsonl", "2.jsonl"))
    (folder / "both.jsonl").write_text(letters)
    antflow("run", target, "--items", "both.jsonl", "--out", "again.jsonl", *QUIET)
    results = [json.loads(line) for line in (folder / "again.jsonl").read_text().splitlines()]
    values = [result["value"] for result in results]
    assert [values.count(line) for line in lines] == [1, 2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("accepted", value) for value in ["3F:1", "f:", "f:1.", ":1", "f", 5]),
        *(("made", value) for value in [-1, 1.0, True, "1", None]),
    ],
)
def test_dead_letter_that_was_damaged(folder: Path, key: str, value: object) -> None:
    """Where it is not known what was done or sent, the item does not do it again."""
    letter = dict.fromkeys(LETTER_KEYS) | {"stage": "Fetch", key: value}
    (folder / "in.jsonl").write_text(json.dumps(letter))
    result = antflow("run", "app:pipeline", "--items", "in.jsonl", *QUIET)
    (error,) = errors_of(result)
    assert f'"{key}": {value!r}: must be' in error


def test_results_that_json_has_no_form_for(items: Path) -> None:
    """Such a result is a line like the others, and its type is told once."""
    target = module(
        items.parent,
        "def make(x): return [(y for y in x)] if int(x) < 19 else {int(x), b'x'}\n"
        "pipeline = one('Make', make)\n",
    )
    process = start(items.parent, "run", target, "--items", items, *QUIET)
    output, errors = process.communicate()
    assert (process.returncode, len(objects_of(output))) == (0, 20)
    told = [line for line in errors.splitlines() if "cannot be written as JSON" in line]
    assert told == ["a result of type generator cannot be written as JSON; part of it is lost"]


# -- options ----------------------------------------------------------------------------------


def test_options_limit_and_workers(folder: Path, items: Path, asked_early: None) -> None:
    """--limit takes the first items; --workers is said per stage."""
    options = ("--limit", "3", "--workers", "Slow=1", *QUIET)
    result = antflow("run", module(folder, SLOW.format(0.05)), "--items", items, *options)
    assert [item["id"] for item in objects_of(result.stdout)] == [1, 2, 3]
    assert "Slow. Its worker was busy" in result.stderr


def test_option_workers_reaches_the_run() -> None:
    """The pipeline that is run has that many workers, and the room that goes with them."""
    pipeline = with_workers(Pipeline([Stage("A", 1, [print]), Stage("B", 1, [print])]), (("B", 7),))
    assert {name: len(names) for name, names in pipeline.get_worker_names().items()} == {
        "A": 1,
        "B": 7,
    }
    assert pipeline.get_dashboard_snapshot().pipeline_stats.stage_stats["B"].capacity == 70
    with pytest.raises(Refusal, match="stage='Bee' not found; the stages are 'A', 'B'"):
        with_workers(pipeline, (("Bee", 7),))
    with pytest.raises(Refusal, match="--workers B=1000000: Stage 'B': workers=1000000"):
        with_workers(pipeline, (("B", 1_000_000),))


@pytest.mark.parametrize(("limit", "settled"), [("2", 20), ("10%", 20)])
def test_option_max_failures_ends_the_run(items: Path, limit: str, settled: int) -> None:
    """At so many failures no more is taken in: exit code 3, and what was taken in is there."""
    items.write_text("".join(f"{number}7\n" for number in range(1000)))
    result = antflow(*("run", "app:pipeline", "--items", items, "--max-failures", limit, *QUIET))
    assert result.exit_code == 3
    (error,) = errors_of(result)
    assert "max_failures" in error or "failed" in error
    assert "1000 failed" not in result.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--stop-on", "LookupError"], r"stopped by LookupError \(stop_on\): 1 of \d+ items? "),
        (["--stop-on", "app.Gone,LookupError"], r"stopped by LookupError \(stop_on\): 1 of "),
        (["--stop-on", "OSError", "--stop-on", "LookupError"], "stopped by LookupError"),
        (["--max-failures", "5/6"], r"5 of the last \d items failed \(.*count=5, of_last=6\)\): 5"),
        (["--max-failures", "50%/10"], r"\d+ of the last 10 items .*\(share=0.5, of_last=10\)\): "),
        (["--max-failures", "0.3"], r"\d+ of 2\d items failed \(max_failures=0\.3\): \d+ × "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_run_that_is_hopeless_is_stopped(items: Path, options: list[str], reason: str) -> None:
    """An error by its name, or failures among the last items: exit code 3, and how to go on."""
    items.write_text("".join(f"{number}\n" for number in [*range(31, 43), *range(7, 9999, 10)]))
    result = antflow("run", "app:pipeline", "--items", items, *options, *QUIET)
    (error,) = errors_of(result)
    assert result.exit_code == 3
    assert re.match(f"Error: {reason}", error), error
    assert "LookupError at app.py:10 in fetch" in error
    assert error.endswith(
        "; with --failed FILE, failed and cancelled items are kept, to go on with later"
    )
    assert len(objects_of(result.stdout)) < 20


def test_name_of_an_error_that_is_not_loaded_is_told(
    items: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be misspelt; the run goes on, since the class may be loaded by a task."""
    options = ("--stop-on", "LookupErorr,LookupError", *QUIET)
    items.write_text("1\n")
    result = antflow("run", "app:pipeline", "--items", items, *options)
    assert result.exit_code == 0
    assert caplog.messages == [
        "--stop-on LookupErorr: no exception class of this name is loaded; did you mean "
        "'LookupError'?"
    ]


def test_run_can_go_on_after_too_many_failures(items: Path) -> None:
    """The error says how; ``--failed`` has failed and cancelled items; those did not run."""
    items.write_text("".join(f"{number}7\n" for number in range(100)))
    arguments = ("run", "app:pipeline", "--items", items, "--max-failures", "2", *QUIET)
    result = antflow(*arguments)
    assert result.exit_code == 3
    assert errors_of(result) == [
        "Error: 2 of 2 items failed (max_failures=2): 2 × LookupError at app.py:10 in fetch, e.g. "
        "input '07' in stage Fetch after 1 attempt: no page 07; with --failed FILE, failed and "
        "cancelled items are kept, to go on with later"
    ]
    assert "--failed FILE keeps the failed and cancelled items\n" in result.stderr
    assert re.search(
        r"--skip \d+ goes on with it, without the \d+ cancelled items$", result.stderr, re.M
    )
    assert re.search(
        r"^failed: \d × LookupError at app\.py:\d+ in fetch, "
        r"e\.g\. input \S.* in stage Fetch after 1 attempt: no page 07$",
        result.stderr,
        re.M,
    )
    result = antflow(*arguments, "--failed", items.with_name("failed.jsonl"))
    (error,) = errors_of(result)
    assert error.endswith(
        "; failed and cancelled items are in the --failed file, to go on with --items"
    )
    letters = objects_of(items.with_name("failed.jsonl").read_text())
    last = max(letter["id"] for letter in letters)
    assert f"{items} was taken in only up to line {last}; the rest is not done" in result.stderr
    assert f"--skip {last} goes on with it\n" in result.stderr
    assert len(letters) > 6
    assert result.stderr.count("fetching") <= 6


@pytest.mark.parametrize("name", ["items.txt", "items.json", "items.csv", "-"])
@pytest.mark.parametrize("limit", [(), ("--limit", 8)])
def test_run_that_ends_with_the_last_line_has_no_rest(
    folder: Path, name: str, limit: tuple[object, ...]
) -> None:
    """Where a run was stopped after the whole input was taken in, no rest is told."""
    stop = (
        "import asyncio\nfrom antflow import Pipeline, Stage\n"
        "async def keep(x):\n    await asyncio.sleep(0.1)\n    raise SystemExit(5)\n"
    )
    stage = "Stage('Keep', 2, [keep], queue_capacity=5)"  # eight items are all it takes
    target = module(folder, f"{stop}pipeline = Pipeline([{stage}])\n")
    cells = [str(number) for number in range(1, 9)]
    text = json.dumps(cells) if name.endswith("json") else "\n".join(cells)
    text = f"head\n{text}" if name.endswith("csv") else text
    if name != "-":
        (folder / name).write_text(text)
    result = antflow("run", target, "--items", name, *limit, *QUIET, stdin=text)
    assert (result.exit_code, "SystemExit" in errors_of(result)[0]) == (3, True)
    assert "rest is not done" not in result.stderr


def test_run_can_go_on_after_too_many_failures_and_bad_lines(items: Path) -> None:
    """Bad lines among the dead letters do not end a run that goes on as the error says."""
    items = items.with_name("in.jsonl")
    items.write_text('{"a": }\n' + "".join(f'"{number}7"\n' for number in range(100)))
    run = ("run", "app:pipeline", *QUIET, "--max-failures", "2")
    failed, again = items.with_name("failed.jsonl"), items.with_name("again.jsonl")
    (error,) = errors_of(antflow(*run, "--items", items, "--failed", failed))
    assert error.endswith(" to go on with --items and another --failed, as it has bad lines too")
    result = antflow(*run, "--items", failed, "--failed", again)
    assert "2 of 2 items failed" in errors_of(result)[0]


@pytest.mark.parametrize("name", ["items.txt", "items.json", "items.csv"])
def test_rest_of_an_input_that_was_not_taken_in_is_told(folder: Path, name: str) -> None:
    """By the last line that was taken in; of an input that was read to its end, nothing is said."""
    stop = "def keep(x):\n    if '8' in str(x): raise SystemExit(5)\n"
    target = module(folder, f"{stop}pipeline = one('Keep', keep, queue_capacity=1)\n")
    cells = [str(number) for number in range(100)]
    text = json.dumps(cells) if name.endswith("json") else "\n".join(cells)
    (folder / name).write_text(text)
    result = antflow("run", target, "--items", name, "--failed", "failed.jsonl", *QUIET)
    last = max(letter["id"] for letter in objects_of((folder / "failed.jsonl").read_text()))
    what = "element" if name.endswith("json") else "line"
    first = last - name.endswith("csv")  # which has a header
    rest = f"{name} was taken in only up to {what} {last}; the rest is not done; --skip {first} "
    assert rest in result.stderr
    result = antflow("run", target, "--items", name, "--skip", "3", "--limit", 3, *QUIET)
    assert [each["value"] for each in objects_of(result.stdout)] == [None] * 3
    assert "left out by --skip: 3 items\n" in result.stderr
    result = antflow("run", target, "--items", name, "--skip", "1000", *QUIET)
    assert result.exit_code == 0
    assert f"left out by --skip: {99 if name.endswith('csv') else 100} items\n" in result.stderr
    result = antflow("run", target, "--items", name, "--limit", "3", *QUIET)
    assert result.exit_code == 0
    assert "taken in" not in result.stderr


@pytest.mark.parametrize("name", ["failed.txt", "failed", "-"])
def test_dead_letters_are_not_taken_for_text(items: Path, name: str) -> None:
    """Fed back from a file whose name does not say what it has, unless that is asked for."""
    items.write_text("7\n17\n")
    run = ("run", "app:pipeline", *QUIET)
    result = antflow(*run, "--items", items, "--failed", "failed.txt", "--max-failures", 1)
    assert errors_of(result)[0].endswith("to go on with --items and --format jsonl")
    letters = items.with_name("failed.txt").read_text()
    items.with_name("failed").write_text(letters)
    result = antflow(*run, "--items", name, stdin=letters)
    where = "<stdin>" if name == "-" else name
    assert result.exit_code == 2
    assert errors_of(result) == [
        f"Error: {where}:1:1: a dead letter: --format jsonl reads it, --format lines takes it for "
        "text"
    ]
    result = antflow(*run, "--items", name, "--failed", "kept.jsonl", stdin=letters)
    assert items.with_name("kept.jsonl").read_text() == letters
    result = antflow(*run, "--items", name, "--format", "lines", stdin=letters)
    assert objects_of(result.stdout)[0]["value"] == letters.splitlines()[0]


@pytest.mark.parametrize("name", ["auto", "log", "progress", "compact", "detailed", "full"])
def test_option_dashboard(items: Path, name: str) -> None:
    """Without a terminal each of them writes plain lines to standard error."""
    result = antflow("run", "app:pipeline", "--items", items, "--dashboard", name)
    assert "16 ok, 4 failed" in result.stderr.splitlines()
    assert not {"\x1b", "\r"} & set(result.output)
    assert len(objects_of(result.stdout)) == 16


@pytest.mark.parametrize(
    ("value", "options", "lines"),
    [
        ("off", (), False),
        ("off", ("--dashboard", "auto"), False),
        ("off", ("--dashboard", "log"), True),
        ("log", (), True),
        ("bar", (), True),
        ("full", ("--dashboard", "none"), False),
    ],
)
def test_environment_chooses_the_dashboard(
    items: Path, value: str, options: tuple[str, ...], lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ANTFLOW_DISPLAY`` is the default of --dashboard, and overrides no other."""
    monkeypatch.setenv("ANTFLOW_DISPLAY", value)
    result = antflow("run", "app:pipeline", "--items", items, *options)
    assert (": 0 done, " in result.stderr) == lines
    assert "16 ok, 4 failed" in result.stderr


def test_environment_names_no_dashboard(
    items: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong name is told, with those there are, and the run goes on."""
    monkeypatch.setenv("ANTFLOW_DISPLAY", "fancy")
    result = antflow("run", "app:pipeline", "--items", items)
    (told,) = [text for text in caplog.messages if "ANTFLOW_DISPLAY" in text]
    assert told.startswith("ANTFLOW_DISPLAY='fancy' is ignored: it must be one of none, off, ")
    assert "16 ok, 4 failed" in result.stderr


def test_bad_line_deep_in_a_file_goes_to_the_dead_letters(folder: Path) -> None:
    """With --failed, one line that is not text costs no other; without it, its number is told."""
    target = module(folder, "async def keep(x): return x\npipeline = one('Keep', keep)\n")
    (folder / "in.txt").write_bytes(b"1\n" * 2999 + b"Stra\xdfe\n" + b"1\n" * 2000)
    run = ("run", target, "--items", "in.txt", "--out", "out.jsonl", *QUIET)
    result = antflow(*run, "--failed", "failed.jsonl")
    assert result.exit_code == 1
    assert len(objects_of((folder / "out.jsonl").read_text())) == 4999
    (letter,) = objects_of((folder / "failed.jsonl").read_text())
    assert (letter["id"], letter["value"]) == (3000, "Stra\udcdfe")
    result = antflow(*run, "--force")
    assert result.exit_code == 2
    assert "in.txt:3000:5: not UTF-8 text" in errors_of(result)[0]
    assert len(objects_of((folder / "out.jsonl").read_text())) == 2999
    result = antflow(*run, "--force", "--encoding", "latin-1")
    assert result.exit_code == 0
    assert "Straße" in (folder / "out.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("in.tsv", "id\tname, first\na\tb,c;d;e", ()),
        ("in.csv", "id;name, first\na;b,c", ()),
        ("in.txt", "id:name, first\na:b,c", ("--format", "csv", "--delimiter", ":")),
        ("in.csv", "id\tname, first, last\na\tb,c,d", ("--delimiter", "tab")),
    ],
)
def test_rows_with_other_delimiters(
    folder: Path, name: str, text: str, options: tuple[str, ...]
) -> None:
    """The suffix .tsv, the header or --delimiter says what stands between the columns."""
    target = module(folder, "async def keep(x): return x\npipeline = one('Keep', keep)\n")
    (folder / name).write_text(text)
    (found,) = objects_of(antflow("run", target, "--items", name, *options, *QUIET).stdout)
    assert found["id"] == "a"
    assert len(found["value"]) == 2


def test_items_from_standard_input(folder: Path) -> None:
    """``-`` reads standard input, in the format that is said."""
    result = antflow(
        *("run", "app:pipeline", "--items", "-", "--format", "csv", *QUIET),
        stdin="value,id\n1,a\n2,b\n",
    )
    assert objects_of(result.stdout) == [
        {"id": "a", "value": {"value": "1", "id": "a"}},
        {"id": "b", "value": {"value": "2", "id": "b"}},
    ]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--items", "nothing.txt"], "--items 'nothing.txt': No such file or directory"),
        (["--items", "."], "--items '.': is a folder"),
        (["--out", "no/out"], "--out 'no/out': No such file or directory"),
        (["--failed", "."], "--failed '.': Is a directory"),
        (["--out", "./items.txt"], "--out './items.txt': is the file that --items reads"),
        (["--failed", "items.txt"], "--failed 'items.txt': is the file that --items reads"),
        (["--out", "x", "--failed", "./x"], "--failed './x': is the file of --out"),
        (["--report", "./items.txt"], "--report './items.txt': is the file that --items reads"),
        (["--out", "x", "--report", "./x"], "--report './x': is the file of --out"),
        (["--report", "no/r.html"], "--report 'no/r.html': There is no such folder"),
        (["--report", "."], "--report '.': Is a directory"),
        (["--report", "-"], "--report '-': must be the name of a file"),
        (["--report", ""], "--report '': must be the name of a file"),
        (["--failed", "-"], "--failed '-': standard output has the results; --out FILE takes"),
        (["--items", ""], "--items '': No such file or directory"),
        (
            ["--workers", "Store=3", "--workers", "Store=3"],
            "--workers Store=3: stage 'Store' is given 2 times",
        ),
        (["--workers", "Nope=3"], "--workers Nope=3: stage='Nope' not found; the stages are"),
        (["--on-bad-line", "dead-letter"], "--on-bad-line dead-letter: needs --failed FILE"),
    ],
)
def test_files_that_cannot_be_used(items: Path, wrong: list[str], reason: str) -> None:
    """What cannot be read or written is one line and exit code 2; the input stays what it was."""
    before = items.read_text()
    result = antflow("run", "app:pipeline", "--items", "items.txt", *wrong)
    (error,) = errors_of(result)
    assert result.exit_code == 2
    assert error.startswith(f"Error: {reason}")
    assert result.output.count("\n") == 1
    assert items.read_text() == before


@pytest.mark.parametrize(
    "wrong",
    [
        ["--dashboard", "nice"],
        ["--format", "xml"],
        ["--delimiter", "ab"],
        ["--delimiter", '"'],
        ["--delimiter", ";"],
        ["--encoding", "utf-9"],
        ["--limit", "1e3"],
        ["--workers", "Fetch=+5"],
        ["--max-failures", "101%"],
        ["--max-failures", "0%"],
        ["--max-failures", "20/10"],
        ["--stop-on", "no name"],
        ["--on-bad-line", "skip"],
        ["--what"],
    ],
)
def test_run_refuses_options_that_are_wrong(items: Path, wrong: list[str]) -> None:
    """A bad option is refused with a line that names it, before the module is imported."""
    result = antflow("run", "nowhere:p", "--items", items, *wrong)
    (error,) = errors_of(result)
    assert result.exit_code == 2
    assert wrong[0] in error


# -- what goes wrong --------------------------------------------------------------------------


def test_bad_line_ends_the_intake(items: Path) -> None:
    """Those before it are processed; then one line says where it is, and the exit code is 2."""
    items = items.with_name("in.jsonl")
    items.write_text('1\n2\n{"a": }\n4\n')
    result = antflow("run", "app:pipeline", "--items", items, *QUIET)
    assert result.exit_code == 2
    assert errors_of(result) == [f"Error: {items}:3:7: not JSON: Expecting value"]
    assert {item["id"] for item in objects_of(result.stdout)} == {1, 2}


@pytest.mark.skipif(sys.platform == "win32", reason="no such names")
def test_bad_line_of_a_file_with_a_hostile_name(items: Path) -> None:
    """What a name makes a terminal do is not done."""
    items = items.with_name("a\x1b[2Jb\n.jsonl")
    items.write_text("{")
    result = antflow("run", "app:pipeline", "--items", items, *QUIET)
    (error,) = errors_of(result)
    assert error.endswith(
        "ab ⏎ .jsonl:1:2: not JSON: Expecting property name enclosed in double quotes"
    )
    assert "\x1b" not in result.output


def test_bad_line_becomes_a_dead_letter(items: Path) -> None:
    """With --on-bad-line dead-letter the run goes on; fed back, the line is bad again."""
    items = items.with_name("in.jsonl")
    items.write_text('1\n{"a": }\n3\n')
    failed, again = items.with_name("failed.jsonl"), items.with_name("again.jsonl")
    options = ("--on-bad-line", "dead-letter", "--failed")
    result = antflow("run", "app:pipeline", "--items", items, *options, failed, *QUIET)
    assert (result.exit_code, errors_of(result)) == (1, [])
    assert {item["id"] for item in objects_of(result.stdout)} == {1, 3}
    fault = f"{items}:2:7: not JSON: Expecting value"
    assert f"1 line of the input could not be read, e.g. {fault}" in result.stderr.splitlines()
    (letter,) = objects_of(failed.read_text())
    assert (letter["id"], letter["input"], letter["stage"]) == (2, '{"a": }', None)
    result = antflow("run", "app:pipeline", "--items", failed, *options, again, *QUIET)
    assert (result.exit_code, result.stdout) == (1, "")
    assert again.read_text() == failed.read_text()
    result = antflow("run", "app:pipeline", "--items", failed, *QUIET)
    (error,) = errors_of(result)
    assert error.startswith(
        f"Error: {failed}:1:1: a line that could not be read before: {items}:2:7: not JSON"
    )


@pytest.mark.parametrize("debug", [False, True])
def test_run_that_fails(items: Path, debug: bool) -> None:
    """What breaks the run itself is exit code 3 and one line; --debug shows the traceback."""
    target = module(
        items.parent,
        "class Store:\n"
        "    def admit(self, items): raise OSError(28, 'No space left on device')\n"
        "    def record(self, transition): pass\n"
        "    def opened(self, facts, stages): pass\n"
        "    def closed(self, how): pass\n"
        "pipeline = Pipeline([Stage('A', 1, [fetch])], store=Store())\n",
    )
    options = ["--debug"] if debug else []
    result = antflow("run", target, "--items", items, *QUIET, *options)
    assert result.exit_code == 3
    place = "mine.py:3 in Store.admit"
    reason = f"Error: the run failed: OSError at {place}: [Errno 28] No space left on device"
    assert result.stderr.splitlines()[-1] == reason
    assert ("Traceback" in result.stderr) is debug


def test_run_that_exits(items: Path) -> None:
    """A callback that ends the program ends the run with exit code 3, whatever it asked for."""
    target = module(
        items.parent,
        "import sys\ndef leave(*_): sys.exit(0)\n"
        "pipeline = Pipeline([Stage('A', 1, [fetch], on_success=leave)])\n",
    )
    result = antflow("run", target, "--items", items, *QUIET)
    assert result.exit_code == 3
    assert errors_of(result) == ["Error: the run failed: SystemExit at mine.py:3 in leave: 0"]


def test_run_that_fails_in_a_builtin() -> None:
    """The task stands where there is no line of the user's own code."""
    assert (
        reason_with_place(named(ValueError("no"), "json.loads")) == "ValueError in json.loads: no"
    )
    assert reason_with_place(ValueError("no")) == "ValueError: no"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("option", ["--out", "--failed"])
def test_results_on_a_full_disk_end_the_run(items: Path, option: str) -> None:
    """Results that cannot be written end the run with exit code 3, by the file's name."""
    result = antflow("run", "app:pipeline", "--items", items, option, "/dev/full", *QUIET)
    assert result.exit_code == 3
    assert errors_of(result) == ["Error: /dev/full: No space left on device"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_standard_output_that_has_no_room(items: Path) -> None:
    """Standard output that takes no more is the same."""
    with open("/dev/full", "w") as full:
        process = start(items.parent, "run", "app:pipeline", "--items", items, *QUIET, stdout=full)
        _, errors = process.communicate()
    assert process.returncode == 3
    assert errors.splitlines()[-1] == "Error: standard output: No space left on device"


def test_warnings_are_shown_a_few_of_each_kind(
    items: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures by the thousand do not fill the terminal; a log of the user's own is left alone."""
    handlers = logging.root.handlers
    monkeypatch.setattr(logging.root, "handlers", [])
    before = list(logging.getLogger("antflow").handlers)
    items.write_text("".join(f"{number}7\n" for number in range(100)))
    result = antflow("run", "app:pipeline", "--items", items, *QUIET)
    told = [line for line in result.stderr.splitlines() if "failed in stage" in line]
    assert len(told) == 10
    assert told[-1].endswith("(more like this are not shown)")
    assert logging.getLogger("antflow").handlers == before
    monkeypatch.setattr(logging.root, "handlers", handlers)
    result = antflow("run", "app:pipeline", "--items", items, *QUIET)
    assert "failed in stage" not in result.stderr


# -- streaming --------------------------------------------------------------------------------


def test_results_come_while_items_are_still_read(folder: Path) -> None:
    """Each result is there before the next item is given: nothing waits for the end."""
    with start(folder, "run", "app:pipeline", "--items", "-", *QUIET, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2, 3):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"id": number, "value": str(number)}
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_input_is_read_no_faster_than_it_is_processed(folder: Path) -> None:
    """An endless input is read as far as there is room, and --limit ends it."""
    endless = [sys.executable, "-c", "while True: print('x' * 50)"]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as source:
        options = ("--items", "-", "--limit", "5000", "--out", "out.jsonl", *QUIET)
        target = module(folder, "async def keep(x): return 1\npipeline = one('Keep', keep)\n")
        process = start(folder, "run", target, *options, stdin=source.stdout)
        assert source.stdout is not None
        source.stdout.close()
        process.communicate()
    assert process.returncode == 0
    assert len(objects_of((folder / "out.jsonl").read_text())) == 5000


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="it is not told here")
def test_memory_does_not_grow_with_the_input(folder: Path) -> None:
    """Ten times the lines need no more memory: neither the input nor the results are kept."""
    target = module(folder, "async def keep(x): return x\npipeline = one('Keep', keep)\n")
    code = (
        "import sys\nfrom antflow.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
    )
    peaks = []
    for count in (5_000, 30_000):
        (folder / "many.txt").write_text(("x" * 1000 + "\n") * count)
        args = ("run", target, "--items", "many.txt", "--out", "out.jsonl", "--force", *QUIET)
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert (folder / "out.jsonl").read_bytes().count(b"\n") == count
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 10_000  # kilobytes, of 25 000 more


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe there always blocks")
def test_result_that_a_pipe_takes_bit_by_bit(folder: Path) -> None:
    """A line longer than a pipe that has been made non-blocking arrives whole."""
    size = 300_000  # a pipe takes 65536
    source = f"async def grow(x): return x * {size}\npipeline = one('Grow', grow)\n"
    (folder / "items").write_text("a\nb\n")
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = start(folder, "run", module(folder, source), "--items", "items", *QUIET, stdout=write)
    os.close(write)
    with open(read, encoding="utf-8") as output, process:
        values = [line["value"] for line in objects_of(output.read())]
    assert sorted(values) == ["a" * size, "b" * size]


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe there always blocks")
@pytest.mark.parametrize("begin", [b"", b"1\n2"])
def test_items_from_a_pipe_that_does_not_block(folder: Path, begin: bytes) -> None:
    """A pipe that has been made non-blocking is read to its end, however long that takes."""
    target = module(folder, "async def keep(x): return x\npipeline = one('Keep', keep)\n")
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.write(write, b"0\n" + begin)
    process = start(folder, "run", target, "--items", "-", *QUIET, stdin=read)
    os.close(read)
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["value"] == "0"  # there is no more yet
        os.write(write, b"3\n4\n")
        os.close(write)
        values = ["0", *(line["value"] for line in objects_of(process.stdout.read()))]
    assert sorted(values) == sorted((b"0\n" + begin + b"3\n4\n").decode().split())
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGPIPE")
def test_results_that_are_no_longer_read_end_the_run_quietly(folder: Path) -> None:
    """`antflow run … | head -1` ends quietly, however long the input is."""
    (folder / "many.txt").write_text("1\n" * 100_000)
    target = module(folder, "async def keep(x): return x\npipeline = one('Keep', keep)\n")
    with start(folder, "run", target, "--items", "many.txt", *QUIET) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["value"] == "1"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_child_processes_do_not_print_among_the_results(folder: Path) -> None:
    """What a program that a task starts prints goes to standard error, too."""
    target = module(
        folder,
        "import subprocess\n"
        "def shout(x): subprocess.run(['echo', 'from outside'], check=True); return x\n"
        "pipeline = one('Shout', shout)\n",
    )
    (folder / "items").write_text("1\n")
    process = start(folder, "run", target, "--items", "items", *QUIET)
    output, errors = process.communicate()
    assert objects_of(output) == [{"id": 1, "value": "1"}]
    assert "from outside" in errors.splitlines()


def test_prints_of_the_module_are_not_among_the_results(folder: Path) -> None:
    """A module that prints when it is imported does not disturb the results."""
    target = module(folder, "print('hello')\n")
    for args in (["run", target, "--items", "-", *QUIET], ["check", target]):
        process = start(folder, *args)
        output, errors = process.communicate("1\n")
        assert "hello" in errors.splitlines()
        assert "hello" not in output
    assert process.returncode == 0


LATE = """
import atexit, ctypes, subprocess, sys, time, threading
def thread(x):
    threading.Timer(0.5, lambda: (print("late"), subprocess.run(["echo", "late"]))).start()
def hook(x): atexit.register(print, "late")
def buffer(x): sys.__stdout__.write("late\\n")
def library(x): ctypes.CDLL(None).puts(b"late")
def task(x): HOW(x); return x
pipeline = one("Task", task)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such library")
@pytest.mark.parametrize("how", ["thread", "hook", "buffer", "library"])
def test_late_prints_are_not_among_the_results(folder: Path, how: str) -> None:
    """What is printed when the run is over goes to standard error, like all else but results."""
    target = module(folder, LATE.replace("HOW", how))
    (folder / "items").write_text("1\n")
    process = start(folder, "run", target, "--items", "items", *QUIET)
    output, errors = process.communicate()
    assert objects_of(output) == [{"id": 1, "value": "1"}]
    assert "late" in errors.splitlines()


READS_STDIN = """
import os, subprocess, sys
at_import = sys.stdin.read() if sys.argv[1:] else ""

def read(line):
    done = subprocess.run(["cat"], capture_output=True, text=True, close_fds=False)
    try: asked = input()
    except EOFError: asked = ""
    return [at_import, done.stdout, asked, sys.stdin.readline(), os.read(0, 100).decode()]

pipeline = one("Read", read)
"""


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_items_on_standard_input_are_read_by_the_command_alone(folder: Path, name: str) -> None:
    """Whatever reads standard input, a program that a task starts or the module, finds it empty."""
    process = start(folder, "run", module(folder, READS_STDIN), "--items", name, *QUIET)
    output, _ = process.communicate("".join(f"{n} {'x' * 500}\n" for n in range(300)))
    found = objects_of(output)
    assert len(found) == 300
    assert {text for each in found for text in each["value"]} == {""}


def test_standard_input_stays_what_it_was_beside_a_file_of_items(folder: Path) -> None:
    """With ``--items FILE``, a task may ask for something on standard input."""
    (folder / "items").write_text("1\n")
    target = module(folder, "def ask(x): return input()\npipeline = one('Ask', ask)\n")
    process = start(folder, "run", target, "--items", "items", *QUIET)
    output, _ = process.communicate("the answer\n")
    assert [each["value"] for each in objects_of(output)] == ["the answer"]


def test_late_reads_find_no_items(folder: Path) -> None:
    """A thread that outlives the run finds standard input empty, too, whatever is left there."""
    target = module(
        folder,
        "import os, threading\n"
        "def late(x):\n"
        "    threading.Timer(0.5, lambda: print('late', os.read(0, 9))).start(); return x\n"
        "pipeline = one('Late', late)\n",
    )
    (folder / "items").write_text("1\n" * 100_000)
    with open(folder / "items") as items:
        args = ("run", target, "--items", "-", "--limit", "1", *QUIET)
        _, errors = start(folder, *args, stdin=items).communicate()
    assert "late b''" in errors.splitlines()


def test_standard_input_after_the_command(folder: Path) -> None:
    """A program that calls the command has its standard input back afterwards."""
    code = (
        "import sys\nfrom antflow.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sys.stdin.fileno(), __import__('os').read(0, 3), file=sys.stderr)\n"
    )
    args = ("run", "app:pipeline", "--items", "-", "--limit", "1", *QUIET)
    with open(folder / "items", "w+") as items:
        items.write("1\n" * 100_000)
        items.seek(0)
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            stdin=items,
            env=environment(),
            capture_output=True,
            text=True,
        )
    assert done.stderr.endswith("0 b'1\\n1'\n")


# -- files of events --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["events.jsonl", "events.sqlite", "events.db"])
def test_events_go_to_a_file(folder: Path, items: Path, name: str) -> None:
    """With --events, `antflow errors` sums up the run afterwards; a second run adds its own."""
    for count in (4, 8):
        assert antflow("run", "app:pipeline", "--items", items, "--events", name).exit_code == 1
        ids = antflow("errors", name, "--ids").stdout.split()
        assert len(ids) == count
    assert sorted(ids[:4], key=int) == ["5", "7", "15", "17"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"id": 1}\n', "it holds something else than events"),
        (b'{"v": 2, "run": "a"}\n', "it was written by a newer version (its format is 2)"),
        (b"CREATE TABLE events (mine TEXT)", "it is a database of something else"),
        (
            b"CREATE TABLE events (new TEXT); PRAGMA application_id = %d; PRAGMA user_version = 9"
            % APPLICATION_ID,
            "it was written by a newer version (its format is 9)",
        ),
        (b"some text", "it is not a database of events: file is not a database"),
    ],
)
def test_file_of_other_events_is_refused(
    folder: Path, items: Path, content: bytes, reason: str
) -> None:
    """Before anything is done: a run whose events are wanted does not go on without them."""
    (folder / "app.py").write_text("print('imported')")
    path = folder / ("old.jsonl" if content.startswith(b"{") else "old.sqlite")
    if content.startswith(b"CREATE"):
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(content.decode())
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    result = antflow("run", "app:pipeline", "--items", items, "--events", path.name)
    (error,) = errors_of(result)
    assert error.startswith(f"Error: --events '{path.name}': {reason}")
    assert result.exit_code == 2
    assert "imported" not in result.output
    assert path.read_bytes() == before


def test_trace_goes_to_a_file(folder: Path, items: Path) -> None:
    """With --trace, a trace file of the run is written."""
    antflow("run", "app:pipeline", "--items", items, "--trace", "trace.json")
    slices = [each for each in json.loads((folder / "trace.json").read_text()) if each["ph"] == "X"]
    assert len(slices) == 38
    assert {each["args"]["outcome"] for each in slices} == {"completed", "failed"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--events", "events.txt"], "--events 'events.txt': name it .jsonl or .sqlite"),
        (["--events", "postgresql://u:s3cret@h:x/d"], "'postgresql://…': "),
        (["--events", "no/events.jsonl"], "--events 'no/events.jsonl': There is no such folder"),
        (["--trace", "items.txt"], "--trace 'items.txt': name it .json or .json.gz"),
        (["--trace", "no/t.json"], "--trace 'no/t.json': There is no such folder"),
        (["--events", "x.jsonl", "--out", "./x.jsonl"], "--events 'x.jsonl': is the file of --out"),
        (["--events", "a.db", "--failed", "a.db"], "--events 'a.db': is the file of --failed"),
        (["--trace", "link.json"], "--trace 'link.json': is the file that --items reads"),
    ],
)
def test_files_that_cannot_take_events_are_refused(
    folder: Path, items: Path, options: list[str], reason: str
) -> None:
    """A mistake in --events or --trace ends the command before anything is written."""
    (folder / "link.json").symlink_to(items)
    before = items.read_text()
    result = antflow("run", "app:pipeline", "--items", items, *options)
    assert result.exit_code == 2
    assert reason in errors_of(result)[0]
    assert items.read_text() == before
    assert sorted(each.name for each in folder.glob("*.jsonl")) == []


@pytest.mark.process
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_file_of_a_standard_stream_is_refused_for_a_sink(
    folder: Path, items: Path, stream: str
) -> None:
    """``--report log.html >log.html`` would write a page over the results, or the errors."""
    with (folder / "log.html").open("w+") as log:
        streams = {stream: log}
        options = ("--items", items, "--report", "log.html")
        process = start(folder, "run", "app:pipeline", *options, **streams)
        told = process.communicate()[1] or (folder / "log.html").read_text()
    name = {"stdout": "output", "stderr": "error"}[stream]
    assert f"--report 'log.html': is the file that standard {name} is written to" in told
    assert process.returncode == 2


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked there")
def test_a_child_of_a_task_writes_no_results(folder: Path) -> None:
    """One that comes back instead of ending writes nothing to the files, and says what it did."""
    (folder / "forks.py").write_text(
        "import asyncio, os, sys, warnings\n"
        "from antflow import Pipeline, Stage\n"
        "warnings.simplefilter('ignore')  # for a fork beside threads\n"
        "async def fork(text):\n"
        "    if text == '3':\n"
        "        if not (child := os.fork()):\n"
        "            sys.exit(0)\n"
        "        os.waitpid(child, 0)\n"
        "    return text\n"
        "pipeline = Pipeline([Stage('Fork', 1, [fork])])\n"
    )
    (folder / "nine.txt").write_text("".join(f"{number}\n" for number in range(9)))
    options = ("--items", "nine.txt", "--out", "out.jsonl", "--failed", "failed.jsonl")
    done = subprocess.run(
        command("run", "forks:pipeline", *options, "--dashboard", "none"),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    told = done.stderr.splitlines()
    assert "Error: a process that a task forked must end with os._exit()" in told
    assert [line for line in told if " ok, " in line] == [told[-1]]
    assert told[-1].startswith("9 ok, 0 failed in ")
    assert len((folder / "out.jsonl").read_text().splitlines()) == 9
    assert (folder / "failed.jsonl").read_text() == ""


@pytest.mark.process
def test_events_go_to_a_database(folder: Path, items: Path, postgres: PostgresServer) -> None:
    """With the address of a database, --events writes its tables, and the commands read them."""
    address = postgres.schema()
    assert antflow("run", "app:pipeline", "--items", items, "--events", address).exit_code == 1
    ids = antflow("errors", address, "--ids").stdout.split()
    assert sorted(ids, key=int) == ["5", "7", "15", "17"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("option", ["--events e.jsonl", "--trace t.json", "--report r.html"])
@pytest.mark.parametrize("debug", [False, True])
def test_full_disk_under_an_event_file_is_one_line(
    folder: Path, option: str, debug: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on; the line names the file and the cause; the exit code says that it failed."""
    monkeypatch.setattr(sink_module, "RETRIES_AFTER", (0.01, 0.01))
    monkeypatch.setattr(logging.root, "handlers", [])
    name, path = option.split()
    (folder / path).symlink_to("/dev/full")
    target = module(folder, "pipeline = one('Keep', str)\n")
    (folder / "items.txt").write_text("a\nb\n")
    options = (name, path, *QUIET, *(["--debug"] if debug else []))
    result = antflow("run", target, "--items", "items.txt", *options)
    assert len(objects_of(result.stdout)) == 2
    assert result.exit_code == 1
    (told,) = (line for line in result.stderr.splitlines() if " is off, after" in line)
    assert path in told
    assert "No space left on device" in told
    assert ("Traceback" in result.stderr) is debug


def test_warning_without_a_traceback_names_the_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning about an error of the user's code says what it is and where it is from."""
    monkeypatch.setattr(logging.root, "handlers", [])
    code = (
        "class Watch:\n    def happened(self, step):\n        raise OSError('no disk')\n"
        "pipeline = Pipeline([Stage('Keep', 1, [str])], observers=[Watch()])\n"
    )
    target = module(folder, code)
    (folder / "items.txt").write_text("a\nb\n")
    result = antflow("run", target, "--items", "items.txt", *QUIET)
    assert result.exit_code == 0
    assert re.search(r"OSError at \w+\.py:\d+ in \S*happened: no disk$", result.stderr, re.M)
    assert "Traceback" not in result.stderr
