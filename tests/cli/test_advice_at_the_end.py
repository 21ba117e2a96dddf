"""The last lines of a run that did not do everything: following them loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import antflow, errors_of, objects_of

APP = """
from pathlib import Path

from antflow import Pipeline, Stage

async def ask(n):
    if not Path("fixed").exists():
        raise ConnectionError("no route")
    return n

pipeline = Pipeline([Stage("Ask", 4, [ask], task_attempts=1)])
"""


@pytest.fixture
def app(folder: Path) -> Path:
    (folder / "asks.py").write_text(APP)
    (folder / "n.txt").write_text("".join(f"{n}\n" for n in range(0, 600, 2)))
    return folder


@pytest.mark.parametrize("stop", [("--stop-on", "ConnectionError"), ("--max-failures", "3")])
def test_with_a_journal_the_same_command_goes_on(app: Path, stop: tuple[str, str]) -> None:
    """It says so, and not that items are to be skipped or read from a file that lacks them."""
    told = (
        *("run", "asks.py:pipeline", "--items", "n.txt", "--dashboard", "none", *stop),
        *("--journal", "run.db", "--out", "out.jsonl", "--failed", "failed.jsonl"),
    )
    result = antflow(*told)
    assert result.exit_code == 3
    assert errors_of(result)[0].endswith("; the same command goes on, and tries these again")
    assert "; the same command goes on with the rest\n" in result.stderr
    assert "--skip" not in result.stderr
    (app / "fixed").touch()
    assert antflow(*told).exit_code == 0
    values = [line["value"] for line in objects_of((app / "out.jsonl").read_text())]
    assert sorted(map(int, values)) == [*range(0, 600, 2)]


@pytest.mark.parametrize("ending", ["stop-on", "max-failures", "bad line"])
def test_a_full_disk_is_told_however_the_run_ends(app: Path, ending: str) -> None:
    """With the reason, exit code 3, and how many items the advice to go on would leave out."""
    more: tuple[str, ...]
    if ending == "bad line":
        (app / "n.jsonl").write_text('{"n": 1}\n{"n": 2}\noops\n{"n": 4}\n')
        (app / "fixed").touch()
        more = ("--items", "n.jsonl", "--out", "/dev/full")
    else:
        stop = ("--stop-on", "ConnectionError") if ending == "stop-on" else ("--max-failures", "3")
        more = ("--items", "n.txt", "--failed", "/dev/full", *stop)
    result = antflow("run", "asks.py:pipeline", "--dashboard", "none", *more)
    assert result.exit_code == 3
    (error,) = errors_of(result)
    assert error.startswith("Error: /dev/full: No space left on device; ")
    assert "items that could not be written\n" in result.stderr
    assert "to go on with --items" not in result.stderr
