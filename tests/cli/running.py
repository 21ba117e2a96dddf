"""Running the `antflow` command, in this process and in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from antflow.cli import main

SOURCE = Path(__file__).parents[2] / "src"

APP = """
from antflow import Pipeline, Stage

class Odd:
    def __repr__(self): return "<odd>"

async def fetch(text):
    print("fetching", text)
    if str(text).endswith("7"):
        raise LookupError(f"no page {text}")
    return {"page": text}

async def store(page):
    if str(page["page"]).endswith("5"):
        raise ConnectionError("the database is away")
    return page["page"]

def one(name, *tasks, **options):
    return Pipeline([Stage(name, 2, tasks, task_attempts=1, **options)], name=name)

pipeline = Pipeline(
    [Stage("Fetch", 4, [fetch], task_attempts=1), Stage("Store", 2, [store], task_attempts=1)],
    name="pages",
)

def build(workers=2):
    return pipeline
"""


def antflow(*args: object, stdin: str | bytes | None = None) -> Result:
    """Run the command in this process, without a terminal."""
    return CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)


def command(*args: object) -> list[str]:
    """The command in a process of its own."""
    return [sys.executable, "-m", "antflow", *map(str, args)]


def environment(**more: str) -> dict[str, str]:
    """Where a new Python finds the package; it keeps back what it prints, as it usually does."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    paths = [str(SOURCE), inherited.get("PYTHONPATH", "")]
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | more


def start(folder: Path, *args: object, **streams: Any) -> subprocess.Popen[str]:
    """Start the command in a folder; all three streams are pipes unless told otherwise."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        command(*args), cwd=folder, env=environment(), text=True, **(pipes | streams)
    )


def errors_of(result: Result) -> list[str]:
    """What it complains about; that it is no traceback is checked here."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


def objects_of(text: str) -> list[dict[str, Any]]:
    """The JSON lines of a text."""
    return [json.loads(line) for line in text.splitlines()]
