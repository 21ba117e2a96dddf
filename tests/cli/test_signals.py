"""Ctrl-C and SIGTERM: the first drains, the second cancels, and the terminal is as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.running import antflow, objects_of, start

if TYPE_CHECKING:
    from tests.pty_screen import PtyScreen

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals")

# Each task says that it has begun, and ends when there is a file "go".
WAITING = """
import asyncio, sys
from pathlib import Path
from antflow import Pipeline, Stage

async def wait(text):
    print("begun", text, flush=True)
    Path("begun").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return text

pipeline = Pipeline([Stage("Wait", 2, [wait], task_attempts=1)])
"""
QUIET = ("--dashboard", "none")
HASTY = "import antflow.cli.run_command; antflow.cli.run_command.PATIENCE = 0.2\n"
"""Gives the last lines less time."""


@pytest.fixture
def waiting(folder: Path) -> Path:
    """A folder with a pipeline that waits."""
    (folder / "waiting.py").write_text(WAITING)
    return folder


def begin(folder: Path, *options: object) -> subprocess.Popen[str]:
    """Start a run on three items of an input that stays open, and wait until two are in hand."""
    process = start(folder, "run", "waiting:pipeline", "--items", "-", *QUIET, *options)
    assert process.stdin is not None
    process.stdin.write("a\nb\nc\n")
    process.stdin.flush()
    wait_for(process, "begun b")
    return process


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read standard error up to a line with this text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"never said: {text}")


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end, and not for ever; the input stays open all the time."""
    watch = threading.Timer(60, process.kill)
    watch.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
        process.wait()
    finally:
        watch.cancel()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    return output, errors


def code_after_two_signals(process: subprocess.Popen[str]) -> int:
    """Press Ctrl-C twice, and read nothing of what the process still writes to standard output."""
    with process:
        process.send_signal(signal.SIGINT)
        wait_for(process, "no more items")
        process.send_signal(signal.SIGINT)
        watch = threading.Timer(60, process.kill)
        watch.start()
        code = process.wait()
        watch.cancel()
    return code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_drains(waiting: Path, number: signal.Signals, code: int) -> None:
    """What was taken in is finished and written, although standard input stays open."""
    process = begin(waiting)
    process.send_signal(number)
    wait_for(process, f"{number.name}: no more items are taken in")
    (waiting / "go").touch()
    output, errors = finish(process)
    assert process.returncode == code
    assert sorted(item["value"] for item in objects_of(output)) == ["a", "b", "c"]
    assert errors.splitlines()[1].startswith("3 ok, 0 failed in ")
    assert "Traceback" not in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("stdin", [True, False])
def test_signal_before_the_first_item(
    waiting: Path, number: signal.Signals, code: int, stdin: bool
) -> None:
    """It says that nothing was taken in, as it says how far it got after the first item."""
    os.mkfifo(waiting / "items.txt")
    items = "-" if stdin else "items.txt"
    process = start(waiting, "run", "waiting:pipeline", "--items", items, "--dashboard", "log")
    writer = None if stdin else (waiting / "items.txt").open("w")
    wait_for(process, "0 ok, 0 failed")
    process.send_signal(number)
    output, errors = finish(process)
    if writer is not None:
        writer.close()
    assert (process.returncode, output) == (code, "")
    told = "nothing of <stdin> was taken in"
    if not stdin:
        told = "nothing of items.txt was taken in; the same command does all of it"
    assert errors.splitlines()[-1] == told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_second_signal_cancels(waiting: Path, number: signal.Signals, code: int) -> None:
    """What is in flight is cancelled and counted; there is no traceback."""
    process = begin(waiting)
    process.send_signal(number)
    wait_for(process, f"{number.name}: no more items are taken in")
    process.send_signal(number)
    output, errors = finish(process)
    assert (process.returncode, output) == (code, "")
    assert errors.startswith("0 ok, 0 failed, 3 cancelled in ")
    assert "Traceback" not in errors


@pytest.mark.parametrize("how", ["def wait(x): time.sleep(60)", "asyncio.to_thread"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_third_signal_ends_calls_in_threads(
    waiting: Path, how: str, number: signal.Signals, code: int
) -> None:
    """A call in a thread cannot be cancelled: all is told, and a third signal ends the program."""
    if how == "asyncio.to_thread":
        how = "async def wait(x): await asyncio.to_thread(time.sleep, 60)"
    (waiting / "threads.py").write_text(
        "import asyncio, time\nfrom antflow import Pipeline, Stage\n"
        f"{how}\n"
        "async def begin(x): print('begun', x, flush=True); return x\n"
        "pipeline = Pipeline([Stage('Begin', 1, [begin]), Stage('Wait', 2, [wait])])\n"
    )
    process = start(waiting, "run", "threads:pipeline", "--items", "-", *QUIET)
    assert process.stdin is not None
    process.stdin.write("a\nb\n")
    process.stdin.flush()
    wait_for(process, "begun b")
    process.send_signal(number)
    wait_for(process, "no more items")
    process.send_signal(number)
    wait_for(process, "2 cancelled in ")
    wait_for(process, "one more signal ends the program")
    process.send_signal(number)
    output, errors = finish(process)
    assert (process.returncode, output, errors) == (code, "", "")


def test_second_signal_keeps_what_has_come_out(waiting: Path) -> None:
    """Results that were there when the run was cancelled are written."""
    target = (waiting / "waiting.py").read_text().replace("while not", "while text != 'a' and not")
    (waiting / "waiting.py").write_text(target)
    process = begin(waiting, "--out", "out.jsonl")
    wait_for(process, "begun c")
    process.send_signal(signal.SIGINT)
    wait_for(process, "no more items")
    process.send_signal(signal.SIGINT)
    _, errors = finish(process)
    assert process.returncode == 130
    assert objects_of((waiting / "out.jsonl").read_text()) == [{"id": 1, "value": "a"}]
    assert errors.startswith("1 ok, 0 failed, 2 cancelled in ")


def test_second_signal_leaves_what_was_cancelled_to_another_run(waiting: Path) -> None:
    """What was taken in and not finished is in the file of the failed, and can be fed back."""
    process = begin(waiting, "--failed", "failed.jsonl")
    process.send_signal(signal.SIGINT)
    wait_for(process, "no more items")
    process.send_signal(signal.SIGINT)
    finish(process)
    letters = objects_of((waiting / "failed.jsonl").read_text())
    assert [(each["id"], each["value"], each["stage"]) for each in letters] == [
        (1, "a", "Wait"),
        (2, "b", "Wait"),
        (3, "c", "Wait"),
    ]
    assert {each["error_type"] for each in letters} == {"ItemCancelled"}
    (waiting / "go").touch()
    again = start(waiting, "run", "waiting:pipeline", "--items", "failed.jsonl", *QUIET)
    output, _ = finish(again)
    assert again.returncode == 0
    assert sorted(item["value"] for item in objects_of(output)) == ["a", "b", "c"]


def test_second_signal_when_the_pipe_is_not_emptied(waiting: Path) -> None:
    """A reader that has fallen asleep does not keep the command from ending."""
    source = (
        f"{HASTY}async def grow(x): return x * 1000\n"
        "from antflow import Pipeline, Stage\n"
        "pipeline = Pipeline([Stage('Grow', 1, [grow])])\n"
    )
    (waiting / "growing.py").write_text(source)
    (waiting / "many.txt").write_text("0123456789\n" * 10_000)
    process = start(waiting, "run", "growing:pipeline", "--items", "many.txt", *QUIET)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["id"] == 1
    assert code_after_two_signals(process) == 130


LONG = "async def grow(x): return x * 100\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_second_signal_when_so_much_waits_that_the_run_does(
    waiting: Path, number: signal.Signals, code: int
) -> None:
    """A run that a stuck reader holds up is over at once, and says which results were not read."""
    source = (
        f"{HASTY}{LONG}from antflow import Pipeline, Stage\n"
        "pipeline = Pipeline([Stage('Grow', 1, [grow])])\n"
    )
    (waiting / "growing.py").write_text(source)
    (waiting / "many.txt").write_text("0123456789\n" * 10_000)
    options = ("--items", "many.txt", "--failed", "failed.jsonl", "--dashboard", "log")
    process = start(waiting, "run", "growing:pipeline", *options)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["id"] == 1
    time.sleep(1)  # by then it is held up
    process.send_signal(number)
    wait_for(process, f"{number.name}: no more items are taken in")
    process.send_signal(number)
    process.wait(30)
    output, errors = finish(process)
    assert process.returncode == code
    letters = objects_of((waiting / "failed.jsonl").read_text())
    written = output.count("\n") + 1
    unwritten = [each for each in letters if each["error_type"] == "NotWritten"]
    assert len(unwritten) >= 900
    assert f"not written, or only in part: {len(unwritten):,} results, now in the" in errors
    assert f"\n{written + len(unwritten):,} ok, 0 failed" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_when_only_a_stuck_reader_is_waited_for(
    waiting: Path, number: signal.Signals, code: int
) -> None:
    """When the run is over, one signal ends the waiting, and what was not read is told."""
    source = (
        f"{HASTY}{LONG}from antflow import Pipeline, Stage\n"
        "pipeline = Pipeline([Stage('Grow', 1, [grow])])\n"
    )
    (waiting / "growing.py").write_text(source)
    (waiting / "many.txt").write_text("0123456789\n" * 1_030)
    options = ("--items", "many.txt", "--dashboard", "log")
    process = start(waiting, "run", "growing:pipeline", *options)
    wait_for(process, "1,030 ok")
    time.sleep(0.5)  # the reader of the results is read out, and their writer waits
    process.send_signal(number)
    process.wait(30)
    output, errors = finish(process)
    assert process.returncode == code
    unwritten = 1_030 - output.count("\n")
    assert f"not written, or only in part: {unwritten:,} results: " in errors
    assert "Traceback" not in errors


def test_second_signal_when_cancelled_items_are_not_taken(waiting: Path) -> None:
    """More dead letters than a pipe holds do not keep the command from ending, nor the results."""
    with (waiting / "waiting.py").open("a") as file:
        file.write(
            f"{HASTY}async def enter(text):\n"
            "    if text[0] == '0': print('all are in', flush=True)\n"
            "    return text\n"
            "pipeline = Pipeline([Stage('Enter', 1, [enter]),"
            " Stage('Wait', 2, [wait], queue_capacity=9000)])\n"
        )
    texts = [f"{number} {'x' * 1000}\n" for number in reversed(range(6000))]
    (waiting / "many.txt").write_text("".join(texts))
    options = ("--items", "many.txt", "--failed", "-", "--out", "out.jsonl", *QUIET)
    process = start(waiting, "run", "waiting:pipeline", *options)
    wait_for(process, "all are in")
    assert code_after_two_signals(process) == 130


# -- on a terminal ----------------------------------------------------------------------------


@pytest.fixture
def screen() -> Iterator[PtyScreen]:
    """A terminal."""
    pytest.importorskip("termios")
    from tests.pty_screen import PtyScreen

    screen = PtyScreen(columns=100, rows=30)
    yield screen
    screen.close()


def run_on(screen: PtyScreen, *args: object) -> Any:
    """Start the command in a terminal; returns the terminal's settings before that."""
    import termios

    settings = termios.tcgetattr(screen.stream.fileno())
    screen.spawn(f"from antflow.cli import main; main({list(map(str, args))!r})")
    return settings


@pytest.mark.parametrize("dashboard", ["auto", "progress", "detailed", "full"])
def test_terminal_after_ctrl_c(waiting: Path, screen: PtyScreen, dashboard: str) -> None:
    """Two signals in the middle of a dashboard leave the cursor, the screen and the settings."""
    import termios

    (waiting / "many.txt").write_text("1\n" * 100)
    args = ("run", "waiting:pipeline", "--items", "many.txt", "--dashboard", dashboard)
    settings = run_on(screen, *args, "--out", "out.jsonl")
    screen.wait_until(lambda: (waiting / "begun").exists(), "that it began")
    assert b"\x1b[?25l" in screen.raw
    screen.signal(signal.SIGINT)
    screen.signal(signal.SIGTERM)  # two of a kind might be taken for one
    assert screen.wait() in (130, 143)  # whichever was heard first
    assert (b"\x1b[?1049h" in screen.raw) is (dashboard == "full")
    assert not screen.is_alternate
    assert not screen.is_cursor_hidden
    assert termios.tcgetattr(screen.stream.fileno()) == settings
    assert "Traceback" not in screen.paper
    assert "cancelled in " in screen.paper


def test_keys_end_a_run_of_the_command(waiting: Path, screen: PtyScreen) -> None:
    """They are on, what was pressed is told at the end, and the exit code is 130."""
    import termios

    (waiting / "many.txt").write_text("1\n" * 100)
    args = ("run", "waiting:pipeline", "--items", "many.txt", "--out", "out.jsonl")
    settings = run_on(screen, *args)
    screen.wait_until(lambda: "? help" in screen.text)
    screen.type(b"1+qq")
    assert screen.wait() == 130
    told = " ".join(screen.paper.split())
    assert "+ Wait: 3 workers" in told
    assert "q cancelled" in told
    assert termios.tcgetattr(screen.stream.fileno()) == settings


def test_no_keys(waiting: Path, screen: PtyScreen) -> None:
    """``--no-keys`` leaves the keyboard alone."""
    import termios

    (waiting / "many.txt").write_text("1\n" * 100)
    args = ("run", "waiting:pipeline", "--items", "many.txt", "--out", "out.jsonl", "--no-keys")
    settings = run_on(screen, *args)
    screen.wait_until(lambda: (waiting / "begun").exists(), "that it began")
    screen.wait_until(lambda: "2/2" in screen.text)
    assert termios.tcgetattr(screen.stream.fileno()) == settings
    assert b"? help" not in screen.raw
    screen.signal(signal.SIGINT)
    screen.signal(signal.SIGTERM)
    screen.wait()


def test_keys_with_items_on_standard_input(waiting: Path) -> None:
    """They are refused: standard input is not a keyboard then."""
    result = antflow("run", "waiting:pipeline", "--items", "-", "--keys")
    assert result.exit_code == 2
    assert "--keys: standard input has the items" in result.output


def test_keys_option_without_a_display(waiting: Path) -> None:
    """They are refused if they were asked for; by default there are none then."""
    (waiting / "none.txt").write_text("")
    args = ("run", "waiting:pipeline", "--items", "none.txt", "--dashboard", "none")
    result = antflow(*args, "--keys")
    assert result.exit_code == 2
    assert "--keys: --dashboard none shows nothing that listens" in result.output
    assert antflow(*args).exit_code == 0


def test_results_on_the_terminal_of_the_dashboard(folder: Path, screen: PtyScreen) -> None:
    """Results and a dashboard on one terminal: each result is a line of its own that stays."""
    (folder / "items").write_text("1\n2\n3\n")
    run_on(screen, "run", "app:pipeline", "--items", "items", "--dashboard", "compact")
    assert screen.wait() == 0
    lines = screen.paper.splitlines()
    for number in (1, 2, 3):
        assert lines.count(json.dumps({"id": number, "value": str(number)})) == 1
        assert f"fetching {number}" in lines
    assert any(line.startswith("3 ok, 0 failed in ") for line in lines)


def test_dashboard_is_drawn_on_standard_error(folder: Path, screen: PtyScreen) -> None:
    """With results in a pipe the dashboard is still on the terminal, and not in the pipe."""
    (folder / "items").write_text("1\n2\n3\n")
    code = (
        "import os, subprocess, sys\n"
        "args = [sys.executable, '-m', 'antflow', 'run', 'app:pipeline', '--items', 'items']\n"
        "done = subprocess.run(args, stdout=open('out', 'wb'))\n"
        "sys.exit(done.returncode)\n"
    )
    screen.spawn(f"import os; os.chdir({str(folder)!r})\n{code}")
    assert screen.wait() == 0
    assert b"\x1b[?25l" in screen.raw
    assert not screen.is_cursor_hidden
    assert {item["id"] for item in objects_of((folder / "out").read_text())} == {1, 2, 3}


@pytest.mark.parametrize("more", [{}, {"CI": "1"}, {"TERM": "dumb"}])
def test_bottleneck_is_named_once_on_a_terminal(
    folder: Path, screen: PtyScreen, more: dict[str, str]
) -> None:
    """A progress bar does not say it, its plain lines do: then the summary need not."""
    (folder / "items").write_text("".join(f"{number}\n" for number in range(12)))
    (folder / "slow.py").write_text(
        "import asyncio\n"
        "from antflow import Pipeline, Stage\n"
        "from antflow._monitor import advice\n\n"
        "advice.EARLIEST_ANSWER = 0.1\n\n"
        "async def crawl(text):\n"
        "    await asyncio.sleep(0.04)\n\n"
        "pipeline = Pipeline([Stage('Slow', 2, [crawl])])\n"
    )
    args = ["run", "slow:pipeline", "--items", "items", "--out", "out", "--dashboard", "progress"]
    code = f"import os; os.chdir({str(folder)!r})\nfrom antflow.cli import main; main({args})"
    screen.spawn(code, **more)
    assert screen.wait() == 0
    assert screen.paper.count("Bottleneck: Slow. ") == 1


@pytest.mark.parametrize("dashboard", ["compact", "full"])
def test_results_and_dashboard_on_two_terminals(
    waiting: Path, screen: PtyScreen, dashboard: str
) -> None:
    """Results go where standard output leads, also where another terminal has the dashboard."""
    from tests.pty_screen import PtyScreen

    (waiting / "go").touch()
    (waiting / "items.txt").write_text("a\nb\nc\n")
    args = ["run", "waiting:pipeline", "--items", "items.txt", "--dashboard", dashboard]
    other = PtyScreen(columns=100, rows=30)
    try:
        script = f"from antflow.cli import main; main({args!r})"
        screen.spawn(script, stderr=other.stream)
        assert screen.wait() == 0
        other.wait_until(lambda: "3 ok, 0 failed in " in other.paper, "the summary")
        assert sorted(item["value"] for item in objects_of(screen.paper)) == ["a", "b", "c"]
        assert b"\x1b" not in screen.raw
        assert "value" not in other.paper
    finally:
        other.close()
