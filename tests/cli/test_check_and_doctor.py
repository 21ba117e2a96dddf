"""`antflow check` and `antflow doctor`."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from antflow import __version__
from antflow.cli import doctor
from tests.cli.running import antflow, command, environment, errors_of

if TYPE_CHECKING:
    from tests.pty_screen import PtyScreen

DESCRIBED = """
from antflow import Limit, Pipeline, Retry, Stage

def fetch(url): return url
async def parse(page): return page
def is_old(page): return False

pipeline = Pipeline([
    Stage("Fetch", 10, [fetch, parse], limits=[Limit(rate=5)], timeout=30.0),
    Stage("Store", 1, [parse], retry="per_stage", stage_attempts=1, queue_capacity=0,
          skip_if=is_old, retry_on=(OSError, KeyError)),
], name="pages\\x1b[2J")
"""

TOLD = [
    *("antflow", "python", "needs", "extras", "stdout", "stderr", "environment"),
    *("runs", "auto", "event loop"),
]


@pytest.fixture(scope="module", autouse=True)
def _platform_is_known() -> None:
    """Python asks ``uname`` for it, in a process, and only once: here, whichever test is first."""
    platform.uname().processor  # noqa: B018


def test_check_describes(folder: Path) -> None:
    """Each stage with its workers, room, tasks, tries, and the options that are unusual."""
    (folder / "described.py").write_text(DESCRIBED)
    result = antflow("check", "described:pipeline")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        r"pipeline 'pages\x1b[2J': 2 stages, 11 workers",
        "1. Fetch: 10 workers, 100 items may wait",
        "   tasks: fetch, parse",
        "   retries: 3 tries, 1 s between, for each task",
        "   limits: Limit(concurrency=None, rate=5, period=60.0, cost=1)",
        "   timeout: 30.0",
        "2. Store: 1 worker, any number of items may wait",
        "   tasks: parse",
        "   retries: 1 try, for the whole stage",
        "   skip_if: is_old",
        "   queue_capacity: 0",
        "   retry_on: OSError, KeyError",
    ]


def test_check_refuses(folder: Path) -> None:
    """A pipeline that cannot be built is one line and exit code 2."""
    (folder / "broken.py").write_text(
        "from antflow import Pipeline, Stage\n\npipeline = Pipeline([Stage('A', 0, [print])])\n"
    )
    result = antflow("check", "broken:pipeline")
    (error,) = errors_of(result)
    assert result.exit_code == 2
    assert error.startswith("Error: broken.py:3: StageValidationError: Stage 'A': workers=0")


def rows_of(output: str) -> dict[str, str]:
    return {line[:12].rstrip(): line[13:] for line in output.splitlines()}


def test_doctor_tells() -> None:
    """Versions, extras, both streams, the variables and the loop, a line each."""
    result = antflow("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = rows_of(result.output)
    assert list(rows) == TOLD
    assert rows["antflow"].startswith(f"{__version__} (")
    assert f"click {metadata.version('click')}" in rows["needs"]
    assert "no terminal" in rows["stdout"]
    assert rows["event loop"].endswith("EventLoop")


@pytest.mark.parametrize(
    ("name", "value", "runs", "why"),
    [
        ("HOME", "x", "neither in a notebook nor on a build server", "is not a terminal"),
        ("CI", "true", "on a build server, as CI=true says", "is not a terminal"),
        ("JPY_PARENT_PID", "1", "started by the kernel of a notebook", "is not a terminal"),
    ],
)
def test_doctor_tells_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, runs: str, why: str
) -> None:
    """Whether it is a notebook or a build server, and what "auto" would draw."""
    for known in ("CI", "JPY_PARENT_PID"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, value)
    rows = rows_of(antflow("doctor").output)
    assert rows["runs"].startswith(runs)
    assert rows["auto"] == f"plain lines, because stderr {why}"


def test_doctor_and_check_for_programs(folder: Path) -> None:
    """With --json each is one object."""
    assert list(json.loads(antflow("doctor", "--json").output)) == TOLD
    (folder / "described.py").write_text(DESCRIBED)
    told = json.loads(antflow("check", "described:pipeline", "--json").stdout)
    assert told["name"] == "pages\x1b[2J"
    assert told["stages"][1] == {
        "name": "Store",
        "workers": 1,
        "capacity": None,
        "tasks": ["parse"],
        "attempts": 1,
        "retries": "per_stage",
        "options": {"skip_if": "is_old", "queue_capacity": "0", "retry_on": "OSError, KeyError"},
    }


def test_doctor_tells_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extra that is missing is named with what it needs; the tools' extras are left out."""

    class Metadata:
        def get_all(self, _: str) -> list[str]:
            return ["fast", "dev", "odd"]

    needed = [
        "click>=8",
        'no-such-loop>=1; extra == "fast"',
        "click ; os_name == 'x' and extra == 'odd'",
    ]
    monkeypatch.setattr("importlib.metadata.metadata", lambda _: Metadata())
    monkeypatch.setattr("importlib.metadata.requires", lambda _: needed)
    rows = rows_of(antflow("doctor").output)
    click = f"click {metadata.version('click')}"
    assert rows["needs"] == click
    assert rows["extras"] == f"fast (no-such-loop not installed), odd ({click})"


def test_doctor_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that cannot be answered is a line like the others, and drives no terminal."""

    def fail() -> str:
        raise OSError("no\x1b[2J\nway")

    monkeypatch.setattr(doctor, "QUESTIONS", [("first", fail), *doctor.QUESTIONS[:1]])
    result = antflow("doctor")
    assert result.exit_code == 0
    assert rows_of(result.output)["first"] == "not known (OSError: no ⏎ way)"
    assert "antflow" in rows_of(result.output)


@pytest.mark.skipif(sys.platform == "win32", reason="no such descriptors")
def test_doctor_without_streams(tmp_path: Path) -> None:
    """Closed standard error and input are told, too."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *command("doctor")],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert rows_of(done.stdout)["stderr"] == "closed"


@pytest.fixture
def screen() -> Iterator[PtyScreen]:
    """A terminal of which something is known."""
    pytest.importorskip("termios")
    from tests.pty_screen import PtyScreen

    screen = PtyScreen(columns=230, rows=40)
    yield screen
    screen.close()


@pytest.mark.parametrize(
    ("more", "shown", "drawn"),
    [
        (
            {"COLORTERM": "truecolor"},
            "terminal of 230 x 40, colors: truecolor, utf-8, Unicode bars",
            "CompactDashboard, because stderr is a terminal",
        ),
        (
            {"NO_COLOR": "1", "CI": "1"},
            "terminal of 230 x 40, colors: none, utf-8, Unicode bars",
            "plain lines, because CI=1 is set",
        ),
        (
            {"ANTFLOW_DISPLAY": "full"},
            "terminal of 230 x 40",
            "FullDashboard, because ANTFLOW_DISPLAY=full is set",
        ),
        (
            {"ANTFLOW_DISPLAY": "off"},
            "terminal of 230 x 40",
            "none, because ANTFLOW_DISPLAY=off is set",
        ),
        (
            {"PYTHONIOENCODING": "ascii", "CI": "0"},
            "colors: 256, ascii, ASCII bars",
            "CompactDashboard, because stderr is a terminal",
        ),
    ],
)
def test_doctor_on_a_terminal(
    screen: PtyScreen, more: dict[str, str], shown: str, drawn: str
) -> None:
    """Size, colors and characters of the terminal, what is drawn on it, and why."""
    screen.spawn("from antflow.cli import main; main(['doctor'])", **({"COLORTERM": None} | more))
    assert screen.wait() == 0
    rows = rows_of(screen.paper)
    assert shown in rows["stdout"]
    assert shown in rows["stderr"]
    assert rows["auto"].startswith(drawn)
    assert "TERM=xterm-256color" in rows["environment"]
