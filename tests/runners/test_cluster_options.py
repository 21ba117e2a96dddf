"""`antflow run --on STAGE=URL`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from antflow.cli import main

pytest.importorskip("distributed", reason="needs the package distributed")

APP = """
from antflow import Pipeline, Stage
from tests.runners.remote_tasks import double, where

pipeline = Pipeline([Stage("Where", 2, [where]), Stage("Double", 2, [double])])
"""


def run(folder: Path, *options: str) -> tuple[int, list[int], str]:
    """The exit code, the values and what was told."""
    name = f"on_{re.sub(r'[^a-z0-9]', '_', folder.name)}"  # another module for each test
    (folder / f"{name}.py").write_text(APP, "utf-8")
    (folder / "items").write_text("1\n2\n3\n", "utf-8")
    target = ("run", f"{name}.py:pipeline", "--app-dir", str(folder), "--dashboard", "none")
    done = CliRunner().invoke(main, [*target, "--items", str(folder / "items"), *options])
    values = [json.loads(line)["value"] for line in done.stdout.splitlines()]
    return done.exit_code, values, done.stderr


@pytest.mark.real_time
def test_option_on_runs_a_stage_on_a_cluster(dask: str, tmp_path: Path) -> None:
    """With --on, the tasks of that stage run on the cluster, and those of others do not."""
    code, values, told = run(tmp_path, "--on", f"Where={dask}")
    assert (code, len(values)) == (0, 3), told
    assert 2 * os.getpid() not in values


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--on", "Wheer=dask://h:1"], "stage='Wheer' not found; .*did you mean 'Where'"),
        (["--on", "Where=dusk://h:1"], r"unknown scheme; known are dask://"),
        (["--on", "Where"], "must be STAGE=dask://host:port"),
        (["--on", "Where=dask://a:1", "--on", "Where=dask://b:1"], "'Where' is given 2 times"),
    ],
)
def test_option_on_is_refused(tmp_path: Path, options: list[str], told: str) -> None:
    """A stage that is not there or given twice, and a scheme that is not known, end with code 2."""
    code, values, said = run(tmp_path, *options)
    assert (code, values) == (2, [])
    assert re.search(told, said)
