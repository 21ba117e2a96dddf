"""What CONTRIBUTING.md shows of the code is true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

STAGE_OPTION = """
from antflow import Pipeline, Stage, StageValidationError

def capacity(**options):
    pipeline = Pipeline.create().add("A", print, workers=4, **options).build()
    return pipeline.get_dashboard_snapshot().pipeline_stats.stage_stats["A"].capacity

assert [capacity(), capacity(capacity_per_worker=2), capacity(queue_capacity=3)] == [40, 8, 3]
for wrong in (0, -1, "2", None):
    try:
        Pipeline([Stage("A", 1, [print], capacity_per_worker=wrong)])
    except StageValidationError as error:
        assert f"Stage 'A': capacity_per_worker={wrong!r}: must be" in str(error)
    else:
        raise AssertionError(wrong)
try:
    Stage("A", 1, [print], capacity_for_worker=1)
except TypeError as error:
    assert "did you mean 'capacity_per_worker'?" in str(error)
"""

RUN_OPTION = """
import inspect
from antflow import Pipeline, Stage
from antflow.testing import run_virtual

async def task(value):
    return value

pipeline = Pipeline([Stage("A", 1, [task])])
builder = Pipeline.create().add("A", task)

async def main():
    assert (await pipeline.run([1], run_id="one")).run_id == "one"
    assert (await builder.run([1], run_id="two")).run_id == "two"
    assert len((await pipeline.run([1], run_id=None)).run_id) == 16
    async with pipeline.open(run_id="three") as run:
        assert run.run_id == "three"
    async with pipeline.stream([1], run_id="four") as results:
        assert [result.value async for result in results] == [1]
    for call in (pipeline.run, pipeline.stream, pipeline.open, builder.run):
        assert inspect.signature(call).parameters["run_id"].default is None
    for options, message in (
        ({"run_id": 5}, "run_id=5: must be a string"),
        ({"runid": "five"}, "did you mean 'run_id'?"),
    ):
        try:
            await pipeline.run([1], **options)
        except (TypeError, ValueError) as error:
            assert message in str(error)
        else:
            raise AssertionError(options)

run_virtual(main)
"""


def diffs_of(page: Path) -> list[str]:
    """The blocks of a page that are marked ``diff``."""
    return re.findall(r"^```diff\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def apply(diff: str, root: Path) -> None:
    """Apply a diff. Its hunks have no line numbers: their old text stands in the file once."""
    for part in re.split(r"^--- a/.*\n\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition("\n")
        path = root / name
        text = path.read_text("utf-8")
        for hunk in re.split(r"^@@.*\n", hunks, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            assert text.count(before) == 1, f"occurs {text.count(before)} times in {name}: {before}"
            text = text.replace(before, after)
        path.write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("number", "code"), [(0, STAGE_OPTION), (1, RUN_OPTION)], ids=["stage", "run"]
)
def test_option_that_is_added_as_shown(number: int, code: str, tmp_path: Path) -> None:
    """The diff can be applied, and then the option is known, checked, suggested and used."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    apply(diffs_of(ROOT / "CONTRIBUTING.md")[number], tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
