"""`antflow run --shard`: several runs share the items of a file, and nothing coordinates them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow.cli.shard import Shard, ShardChoice, shard_of
from tests.cli.running import antflow, command, environment, errors_of, objects_of

IDS = st.one_of(
    st.text(), st.integers(), st.floats(allow_nan=False), st.binary(), st.lists(st.text())
)

PAYS = """
import asyncio
import os

from antflow import Pipeline, Stage

log = os.open("paid.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def ask(item):
    await asyncio.sleep(0.005)
    os.write(log, f"{item['n']}\\n".encode())
    return item["n"]

pipeline = Pipeline([Stage("Ask", 4, [ask])])
"""


@given(item_id=IDS, count=st.integers(1, 40))
def test_each_id_is_in_one_shard(item_id: Any, count: int) -> None:
    """Whatever the id is, and however many shards there are."""
    takers = [number for number in range(1, count + 1) if Shard(number, count).takes_id(item_id)]
    assert len(takers) == 1


def test_an_id_is_in_the_same_shard_in_every_process() -> None:
    """These were written down: with another rule, items would move to journals without them."""
    ids = [0, 1, -7, 2**70, "a", "7", "ü\ud800", "x" * 600, 2.5, b"a", True, None, [1]]
    places = [next(k for k in range(1, 17) if Shard(k, 16).takes_id(each)) for each in ids]
    assert places == PLACES


PLACES = [4, 11, 9, 8, 4, 2, 15, 11, 4, 11, 11, 1, 2]


def test_equal_ids_are_in_the_same_shard() -> None:
    """JSON may have written a number in another way."""
    assert all(Shard(k, 9).takes_id(5) == Shard(k, 9).takes_id(5.0) for k in range(1, 10))
    assert any(Shard(k, 9).takes_id(5) != Shard(k, 9).takes_id("5") for k in range(1, 10))


def test_shards_are_about_equally_large() -> None:
    """Consecutive numbers spread like random ones."""
    sizes = Counter(k for n in range(8_000) for k in range(1, 9) if Shard(k, 8).takes_id(n))
    assert all(850 < size < 1_150 for size in sizes.values())


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "txt"])
def test_shards_divide_the_items_of_a_file(folder: Path, form: str) -> None:
    """Each item is in one of them, also where items bring no id."""
    rows = [{"name": f"n{n}"} for n in range(60)]
    lines = [json.dumps(row) for row in rows]
    texts = {
        "jsonl": "\n".join(lines),
        "json": f"[{','.join(lines)}]",
        "csv": "\n".join(["name", *(row["name"] for row in rows)]),
        "txt": "\n".join(lines),
    }
    items = folder / f"items.{form}"
    items.write_text(texts[form] + "\n")
    (folder / "same.py").write_text("from antflow import *\np = Pipeline([Stage('A', 2, [str])])\n")
    found: list[str] = []
    for number in (1, 2, 3):
        result = antflow("run", "same.py:p", "--items", items, "--shard", f"{number}/3")
        assert result.exit_code == 0, result.output
        values = [line["value"] for line in objects_of(result.stdout)]
        assert 8 < len(values) < 33
        found += values
    assert len(found) == len(set(found)) == 60


def test_the_share_of_an_item_does_not_depend_on_its_line(folder: Path) -> None:
    """Lines that were added before it move no item to another shard."""
    (folder / "same.py").write_text("from antflow import *\np = Pipeline([Stage('A', 2, [str])])\n")
    items = folder / "items.txt"
    shares = []
    for more in ("", "new\n" * 3):
        items.write_text(more + "".join(f"line {n}\n" for n in range(20)))
        result = antflow("run", "same.py:p", "--items", items, "--shard", "2/2")
        values = {line["value"] for line in objects_of(result.stdout)}
        shares.append(values - {"new"})
    assert shares[0] == shares[1]


def test_a_bad_line_is_put_aside_by_one_shard(folder: Path) -> None:
    """All of them read it."""
    items = folder / "items.jsonl"
    items.write_text("".join(f'{{"id": {n}}}\n' if n % 5 else "oops\n" for n in range(20)))
    letters: list[Any] = []
    for number in range(1, 5):
        failed = folder / f"failed{number}.jsonl"
        shard = ("--shard", f"{number}/4", "--failed", failed)
        assert antflow("run", "app:build", "--items", items, *shard).exit_code in (0, 1)
        if failed.exists():
            letters += [each for each in objects_of(failed.read_text()) if not each["stage"]]
    assert Counter(each["id"] for each in letters) == Counter([1, 6, 11, 16])


COUNTED = """
import asyncio
from antflow import Pipeline, Stage

async def total(item):
    await asyncio.sleep(0.01)
    return pipeline.get_dashboard_snapshot().total_items

pipeline = Pipeline([Stage("Total", 2, [total])])
"""


@pytest.mark.real_time
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_shard_knows_how_many_items_it_has(folder: Path, form: str) -> None:
    """While it runs, the bar has its own share in mind, and not the lines of the file."""
    (folder / "counted.py").write_text(COUNTED)
    items = folder / f"items.{form}"
    lines = [f'{{"id": "{n}"}}' if form == "jsonl" else str(n) for n in range(400)]
    items.write_text("\n".join([*(["id"] if form == "csv" else []), *lines]) + "\n")
    own = sum(Shard(1, 4).takes_id(str(n)) for n in range(400))
    run = antflow("run", "counted.py:pipeline", "--items", items, "--shard", "1/4")
    totals = [line["value"] for line in objects_of(run.stdout)]
    assert len(totals) == own
    assert set(totals) - {None} == {own}  # it is counted beside the run


def test_skip_and_limit_count_items_of_the_shard(folder: Path) -> None:
    """So what a run says of how to go on is true of the same shard."""
    items = folder / "items.txt"
    items.write_text("".join(f"{n}\n" for n in range(0, 90, 2)))
    (folder / "same.py").write_text("from antflow import *\np = Pipeline([Stage('A', 1, [str])])\n")

    def values(*more: object) -> list[str]:
        result = antflow("run", "same.py:p", "--items", items, "--shard", "1/2", *more)
        return [line["value"] for line in objects_of(result.stdout)]

    assert [*values("--limit", 5), *values("--skip", 5)] == values()


@pytest.mark.parametrize(
    ("variables", "count", "shard"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, None, (4, 4)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "30",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "10",
                "SLURM_ARRAY_TASK_COUNT": "5",
            },
            None,
            (3, 5),
        ),
        ({"JOB_COMPLETION_INDEX": "0"}, 16, (1, 16)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, None, (2, 2)),
        ({"CLOUD_RUN_TASK_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "2"}, 2, (2, 2)),
    ],
    ids=["slurm", "slurm-steps", "kubernetes", "aws", "cloud-run"],
)
def test_the_environment_says_which_shard_this_is(
    variables: dict[str, str], count: int | None, shard: tuple[int, int]
) -> None:
    """As schedulers do that start many copies of one program."""
    assert shard_of(variables, count) == Shard(*shard)


@pytest.mark.parametrize(
    ("variables", "count", "reason"),
    [
        ({}, 4, "none of these is set"),
        ({"JOB_COMPLETION_INDEX": "2"}, None, "does not say how many there are: use auto/N"),
        ({"JOB_COMPLETION_INDEX": "4"}, 4, "JOB_COMPLETION_INDEX is 4, and there are 4 shards"),
        ({"JOB_COMPLETION_INDEX": "x"}, 4, "is 'x', which is not a number"),
        (
            {"CLOUD_RUN_TASK_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "2"},
            3,
            "CLOUD_RUN_TASK_COUNT says that there are 2",
        ),
    ],
    ids=["none", "no-count", "too-large", "no-number", "other-count"],
)
def test_an_environment_that_does_not_say_it_is_refused(
    variables: dict[str, str], count: int | None, reason: str
) -> None:
    """Before anything is read."""
    with pytest.raises(ValueError, match=reason):
        shard_of(variables, count)


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "a/4", "1/0", "1/", "/4", "auto/", "1/4/2"]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    """The message says what is."""
    with pytest.raises(click.BadParameter, match=r"must be like 3/16|shards run from 1/4 to 4/4"):
        ShardChoice().convert(text, None, None)


def test_a_journal_of_another_number_of_shards_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its items are in other shards now, whose journals do not know that they are done."""
    items = folder / "items.txt"
    items.write_text("".join(f"{n}\n" for n in range(0, 40, 2)))
    (folder / "same.py").write_text("from antflow import *\np = Pipeline([Stage('A', 1, [str])])\n")
    told = "the journal has items that are not in shard"
    run = ("run", "same.py:p", "--items", items, "--journal", folder / "run.db", "--shard")
    for shard, count in (("1/2", 0), ("1/2", 0), ("1/4", 1)):
        caplog.clear()
        result = antflow(*run, shard)
        assert (result.exit_code, errors_of(result)) == (0, [])
        assert [told in each.getMessage() for each in caplog.records] == [True] * count


@pytest.mark.real_time
def test_four_shards_of_which_one_is_killed_do_each_item_once(folder: Path) -> None:
    """The one that was killed goes on with its own journal; the others know nothing of it."""
    (folder / "pays.py").write_text(PAYS)
    items = folder / "items.jsonl"
    items.write_text("".join(f'{{"id": "{n}", "n": {n}}}\n' for n in range(400)))

    def begin(number: int) -> subprocess.Popen[str]:
        told = command(
            *("run", "pays.py:pipeline", "--items", items, "--shard", f"{number}/4"),
            *("--out", f"out{number}.jsonl", "--journal", f"run{number}.db"),
        )
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(told, cwd=folder, env=environment(), text=True, **pipes)

    runs = {number: begin(number) for number in range(1, 5)}
    out = folder / "out2.jsonl"
    while runs[2].poll() is None and not (out.exists() and out.read_bytes().count(b"\n") > 20):
        time.sleep(0.002)
    os.kill(runs[2].pid, 9)
    runs[2].communicate()
    runs[2] = begin(2)
    for run in runs.values():
        _, told = run.communicate()
        assert run.returncode == 0, told
    found = Counter(
        line["value"]
        for number in range(1, 5)
        for line in objects_of((folder / f"out{number}.jsonl").read_text())
    )
    assert found == Counter(range(400))
    paid = Counter((folder / "paid.log").read_text().split())
    assert len(paid) == 400
    assert paid.total() <= 400 + 4
