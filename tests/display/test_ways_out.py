"""Programs of their own: how they end, and what they leave behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.display.conftest import LEVELS
from tests.pty_screen import PATIENCE, PtyScreen, clean_environment

PROGRAM = """
import asyncio, sys
from antflow import Pipeline, Stage

async def work(number):
    await asyncio.sleep({seconds})
    if number == {waits_at}:
        await asyncio.to_thread(sys.stdin.readline)
    if number % 10 == 0:
        raise ValueError(f"\\xe9t\\xe9 {{number}} \\u65e5")
    return number

def run(level):
    stages = [Stage(name, 5, [work], task_attempts=1) for name in ("Gr\\xf6\\xdfe", "Save")]
    options = dict(progress=True) if level == "progress" else dict(dashboard=level)
    return asyncio.run(
        Pipeline(stages).run(range(100), dashboard_update_interval=0.01, **options)
    )

for level in {levels!r}:
    print(len(run(level)), "results")
"""


def program(*levels: str, seconds: float = 0.0, waits_at: int = -1) -> str:
    return PROGRAM.format(levels=levels, seconds=seconds, waits_at=waits_at)


@pytest.mark.parametrize("level", LEVELS)
def test_ctrl_c_restores_the_terminal_at_once(level: str, screen: PtyScreen) -> None:
    """With tasks that take an hour: out at once, the terminal as it was, the counts left behind."""
    screen.spawn(program(level, seconds=3600))
    shown = "0%" if level == "progress" else " 5/5"
    screen.wait_until(lambda: shown in screen.text, "the workers at work")
    assert screen.is_cursor_hidden
    assert screen.is_alternate == (level == "full")
    screen.signal(signal.SIGINT)
    assert screen.wait() == -signal.SIGINT
    assert not screen.is_cursor_hidden
    assert not screen.is_alternate
    frame, traceback = screen.paper.split("Traceback", 1)
    assert re.search(r"0 ok, 0 failed(, \d+ cancelled)?$", frame.splitlines()[-1])
    assert "KeyboardInterrupt" in traceback


def test_end_of_the_program_without_an_end_of_the_run(screen: PtyScreen) -> None:
    """A display that was begun and never finished: the terminal is restored when Python ends."""
    screen.spawn(
        "from antflow.display import create\n"
        "from antflow import Pipeline, Stage\n"
        "pipeline = Pipeline([Stage('S', 1, [print])])\n"
        "display = create('full')\n"
        "display.on_start(pipeline, 10)\n"
        "display.on_update(pipeline.get_dashboard_snapshot())\n"
        "print('printed meanwhile')\n"
        "raise SystemExit(7)\n"
    )
    assert screen.wait() == 7
    assert b"\x1b[?1049h" in screen.raw
    assert not screen.is_alternate
    assert not screen.is_cursor_hidden
    assert screen.paper == "printed meanwhile"


CLOSED = """
import asyncio, fcntl, signal, sys, termios, threading, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if {is_ignored}:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
told = []
threading.excepthook = sys.unraisablehook = told.append
from antflow import Pipeline, Stage

async def work(number):
    print("line", number)
    if number >= 10:
        before = time.process_time()
        await asyncio.sleep(2)
        if (used := time.process_time() - before) > 1:
            told.append(used)
    return number

async def main():
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    pipeline = Pipeline([Stage("Work", 2, [work], task_attempts=1)])
    return await pipeline.run(range(12), {options}, dashboard_update_interval=0.02)

results = asyncio.run(main())
with open({file!r}, "w") as file:
    print(len(results), told, file=file)
"""


@pytest.mark.parametrize("is_ignored", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_closed_window_under_a_display(
    level: str, is_ignored: bool, screen: PtyScreen, tmp_path: Path
) -> None:
    """It ends the program, as without a display; under ``nohup`` the run goes on in peace."""
    file = tmp_path / "results"
    options = "progress=True" if level == "progress" else f"dashboard={level!r}"
    options += ", keys=True"
    screen.spawn(CLOSED.format(is_ignored=is_ignored, options=options, file=str(file)))
    screen.wait_until(lambda: "10/12" in screen.text, "the last two items")
    screen.hang_up()
    code = screen.wait_for_code()
    if is_ignored:
        assert code == 0
        assert file.read_text() == "12 []\n"
    else:
        assert code == -signal.SIGHUP
        assert not file.exists()


def run_piped(script: str, read: int | None, **environment: str | None) -> tuple[int, bytes, bytes]:
    """Run a program with its standard error in a pipe that is closed after so many bytes.

    Then its standard input ends.

    Returns:
        Its exit code, its standard output, and what was read.
    """
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(**environment),
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        head = os.read(process.stderr.fileno(), read) if read is not None else b""
        if read is None:
            head = process.stderr.read()
        process.stderr.close()
        assert process.stdin is not None
        process.stdin.close()
        output = process.stdout.read()
        code = process.wait(PATIENCE)
    return code, output, head


@pytest.mark.parametrize("level", [*LEVELS, "log"])
def test_closed_pipe(level: str) -> None:
    """``2>&1 >results | head -1``: all results, exit code 0, not a word about it."""
    code, output, head = run_piped(program(level, waits_at=5), 19)
    assert head.endswith(b" pipeline: ")
    assert output == b"90 results\n"
    assert code == 0


def test_closed_pipe_before_anything_is_written() -> None:
    """The reader is gone from the start, and the stream is still the program's own afterwards."""
    read, write = os.pipe()
    os.close(read)
    script = program(*LEVELS) + "import os, stat\nassert stat.S_ISFIFO(os.fstat(2).st_mode)\n"
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            stdout=subprocess.PIPE,
            stderr=pipe,
            env=clean_environment(),
            timeout=PATIENCE,
            check=False,
        )
    assert done.stdout == b"90 results\n" * 4
    assert done.returncode == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=str,
)
def test_locale_that_has_no_bars(environment: dict[str, str], screen: PtyScreen) -> None:
    """Into a pipe and on a terminal: all results, and nothing that cannot be written."""
    code, output, progress = run_piped(program(*LEVELS, "log"), None, **environment)
    assert (code, output) == (0, b"90 results\n" * 5)
    assert progress.splitlines()[-1] == b"90 ok, 10 failed"
    screen.spawn(program(*LEVELS), **environment)
    assert screen.wait() == 0
    assert screen.paper.count("90 ok, 10 failed") == 4
    assert screen.paper.count("90 results") == 4
    assert "====" in screen.paper


def test_encoding_without_single_bytes(screen: PtyScreen) -> None:
    """On a terminal to which Python writes UTF-16, what tasks print comes out."""
    script = (
        "import asyncio\n"
        "from antflow import Pipeline, Stage\n"
        "async def say(item):\n"
        "    print('item', item)\n"
        "    await asyncio.sleep(0.01)\n"
        "p = Pipeline([Stage('S', 2, [say])])\n"
        "asyncio.run(p.run(range(10), dashboard='compact'))\n"
    )
    screen.spawn(script, PYTHONIOENCODING="utf-16")
    assert screen.wait() == 0
    text = screen.raw.replace(b"\0", b"").replace(b"\xff\xfe", b"").decode("latin-1")
    assert [f"item {number}" in text for number in range(10)] == [True] * 10
    assert "10 ok" in text
    assert "Exception in thread" not in text


def test_closed_standard_error() -> None:
    """``2>&-``: there is no standard error at all."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -W error -c "$1" 2>&-', sys.executable, program(*LEVELS)],
        stdout=subprocess.PIPE,
        env=clean_environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == b"90 results\n" * 4
    assert done.returncode == 0


def test_drawing_is_imported_only_for_a_display() -> None:
    """A run without a display does not load the drawing library, one with a display does."""
    script = (
        "import asyncio, sys, antflow.pipeline\n"
        "from antflow import Pipeline, Stage\n"
        "p = Pipeline([Stage('S', 1, [asyncio.sleep])])\n"
        "asyncio.run(p.run([0]))\n"
        "assert 'rich' not in sys.modules\n"
        "asyncio.run(p.run([0], dashboard='compact'))\n"
        "assert 'rich' in sys.modules\n"
    )
    code, _, progress = run_piped(script, None)
    assert (code, progress.splitlines()[-1]) == (0, b"1 ok, 0 failed")
