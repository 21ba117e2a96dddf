"""`antflow demo`: what it prints, what it leaves behind, and how it ends."""

from __future__ import annotations

import ast
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from antflow import Pipeline
from antflow.cli.demo import library_scan as demo
from antflow.cli.demo.library_scan import DATABASE_NAME, LIBRARY, LOG_NAME, OWN_FILES
from tests.cli.running import antflow, command, environment, errors_of

if TYPE_CHECKING:
    from tests.pty_screen import PtyScreen

OWN = len(list(OWN_FILES.iterdir()))
BROKEN = OWN - 1
FIRST_LINE = re.compile(r"([\d,]+) files? processed, (\d+) failed")
ROWS = ["files", "definitions", "failures", "tried again", "time", "database", "log"]


def numbers_of(output: str) -> tuple[int, int]:
    """The two numbers of the summary's first line."""
    (match,) = filter(None, map(FIRST_LINE.fullmatch, output.splitlines()))
    return int(match[1].replace(",", "")), int(match[2])


def rows_after_first_line(output: str) -> dict[str, str]:
    """The named lines of the summary, which are the last ones."""
    lines = output.splitlines()
    (first,) = (number for number, line in enumerate(lines) if FIRST_LINE.fullmatch(line))
    return {line[:12].rstrip(): line[13:] for line in lines[first + 1 :]}


def count_definitions(folder: Path) -> int:
    """How many rows the database has."""
    connection = sqlite3.connect(folder / DATABASE_NAME)
    try:
        (count,) = connection.execute("SELECT count(*) FROM definitions").fetchone()
    finally:
        connection.close()
    assert isinstance(count, int)
    return count


library_files = cache(demo.library_files)


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(demo, "library_files", library_files)


# -- the demo ---------------------------------------------------------------------------------


def test_demo_reads_the_whole_library(tmp_path: Path) -> None:
    """`python -m antflow demo` accounts for every file, and fails on the broken ones alone."""
    done = subprocess.run(
        command("demo", "--dashboard", "none", "--out", tmp_path),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    processed, failed = numbers_of(done.stdout)
    assert FIRST_LINE.fullmatch(done.stdout.splitlines()[0])
    assert processed + failed == len(demo.library_files()) + OWN
    log = (tmp_path / LOG_NAME).read_text("utf-8")
    names = re.findall(r"failed, attempt 1: (\S+): (\w+): ", log)
    assert len(names) == failed
    for name, error in names:
        path = OWN_FILES.parent / name if name.startswith("demo_files/") else LIBRARY / name
        with pytest.raises((SyntaxError, ValueError)) as caught:
            ast.parse(path.read_bytes())
        assert type(caught.value).__name__ == error
    shown = rows_after_first_line(done.stdout)["failures"]
    assert sum(int(count) for count in re.findall(r"Error (\d+)", shown)) == failed


def test_demo_prints_a_summary(tmp_path: Path) -> None:
    """The two numbers come first, then what was found, and where it is."""
    result = antflow("demo", "--dashboard", "none", "--limit", 12, "--out", tmp_path)
    assert result.exit_code == 0
    assert numbers_of(result.output.splitlines()[0]) == (12 + 1, BROKEN)
    rows = rows_after_first_line(result.output)
    assert list(rows) == ROWS
    assert rows["files"].startswith(
        f"12 of the {len(demo.library_files()):,} in the standard library"
    )
    assert rows["definitions"].startswith(f"{count_definitions(tmp_path):,} (")
    assert rows["tried again"] == "1 (Read 1)"
    assert rows["database"] == str(tmp_path / DATABASE_NAME)
    assert rows["log"] == str(tmp_path / LOG_NAME)


@pytest.mark.parametrize("name", ["auto", "log", "progress", "compact", "detailed", "full"])
def test_demo_with_each_dashboard(tmp_path: Path, name: str) -> None:
    """Without a terminal each dashboard writes plain lines, and the summary comes after them."""
    result = antflow("demo", "--dashboard", name, "--limit", 3, "--out", tmp_path)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\r" not in result.output
    assert f"{3 + 1} ok, {BROKEN} failed" in result.output.splitlines()
    assert numbers_of(result.output) == (3 + 1, BROKEN)
    assert list(rows_after_first_line(result.output)) == ROWS


def test_demo_takes_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--workers is the number for every stage; without it each stage has its own."""
    seen: list[list[int]] = []

    class Spy(Pipeline):
        def __init__(self, stages: Any, **options: Any) -> None:
            seen.append([stage.workers for stage in stages])
            super().__init__(stages, **options)

    monkeypatch.setattr(demo, "Pipeline", Spy)
    options = ("--dashboard", "none", "--limit", 0, "--out", tmp_path)
    assert antflow("demo", *options).exit_code == 0
    assert antflow("demo", "--workers", 3, *options).exit_code == 0
    assert seen == [[8, 4, 1], [3, 3, 3]]


def test_demo_makes_a_folder_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --out the files are in a temporary folder that is named and stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = antflow("demo", "--dashboard", "none", "--limit", 1)
    assert result.exit_code == 0
    (folder,) = tmp_path.iterdir()
    assert rows_after_first_line(result.output)["database"] == str(folder / DATABASE_NAME)
    assert sorted(path.name for path in folder.iterdir()) == [LOG_NAME, DATABASE_NAME]
    assert count_definitions(folder) > 0


def test_out_is_created(tmp_path: Path) -> None:
    """--out may name a folder that is not there, below others that are not."""
    folder = tmp_path / "a" / "b"
    assert antflow("demo", "--limit", 0, "--out", folder).exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [LOG_NAME, DATABASE_NAME]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no such names here")
def test_out_may_have_a_name_that_is_not_text(tmp_path: Path) -> None:
    """A folder whose name no terminal can show is used, and shown as well as can be."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    result = antflow("demo", "--dashboard", "none", "--limit", 0, "--out", folder)
    assert result.exit_code == 0
    assert count_definitions(folder) > 0
    assert rows_after_first_line(result.output)["database"].endswith(f"caf\\udce9/{DATABASE_NAME}")


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        "--dashboard nice",
        "--workers 0",
        "--workers 101",
        "--workers many",
        "--workers 1.5",
        "--limit -1",
        "--limit ten",
        "--fast",
        "--out",
        "more",
    ],
)
def test_demo_refuses_options_that_are_wrong(wrong: str, tmp_path: Path) -> None:
    """A bad option is refused with one line that names it, before anything is done."""
    result = antflow("demo", "--out", tmp_path / "out", *wrong.split())
    (error,) = errors_of(result)
    assert result.exit_code == 2
    assert wrong.split()[0] in error
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_a_file(tmp_path: Path) -> None:
    """--out refuses a file, and a place below one; the file stays what it was."""
    file = tmp_path / "file"
    file.write_text("mine")
    for out, reason in ((file, "is a file"), (file / "below", "Not a directory")):
        result = antflow("demo", "--limit", 0, "--out", out)
        (error,) = errors_of(result)
        assert result.exit_code == 2
        assert "--out" in error
        assert str(out) in error
        assert reason in error
    assert file.read_text() == "mine"


def test_out_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--out refuses a folder that takes no files."""
    folder = tmp_path / "full"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write everywhere: let the folder say what it would

        def refuse(**_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    result = antflow("demo", "--limit", 0, "--out", folder)
    (error,) = errors_of(result)
    assert result.exit_code == 2
    assert f"cannot write to '{folder}': Permission denied" in error
    assert list(folder.iterdir()) == []


def test_temporary_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no room for a temporary folder, the error says so, and which option helps."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    result = antflow("demo", "--limit", 0)
    (error,) = errors_of(result)
    assert result.exit_code == 2
    assert "'--out': cannot write to the temporary folder: No such file or directory" in error


def test_database_that_is_something_else(tmp_path: Path) -> None:
    """A file of that name that is no database is left alone, and the log is not begun."""
    database = tmp_path / DATABASE_NAME
    database.write_text("a diary, and no database at all\n" * 100)
    result = antflow("demo", "--limit", 0, "--out", tmp_path)
    (error,) = errors_of(result)
    assert (result.exit_code, error) == (1, f"Error: {tmp_path}: file is not a database")
    assert database.read_text().startswith("a diary")
    assert not (tmp_path / LOG_NAME).exists()


def test_log_that_is_a_folder(tmp_path: Path) -> None:
    """A log that cannot be written is one line, too."""
    (tmp_path / LOG_NAME).mkdir()
    result = antflow("demo", "--limit", 0, "--out", tmp_path)
    (error,) = errors_of(result)
    assert result.exit_code == 1
    assert LOG_NAME in error


def test_files_that_cannot_be_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures that are not the files' own make the command fail, after the summary."""

    def refuse(*_: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(demo.Database, "store", refuse)
    result = antflow("demo", "--dashboard", "none", "--limit", 4, "--out", tmp_path)
    assert errors_of(result) == ["Error: 5 files could not be stored; see the log"]
    assert result.exit_code == 1
    assert numbers_of(result.stdout) == (0, OWN + 4)
    assert "database or disk is full" in (tmp_path / LOG_NAME).read_text()


# -- how it ends ------------------------------------------------------------------------------


def test_interrupted_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while files are still being listed ends with 130 and one word."""

    def interrupt() -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "library_files", interrupt)
    result = antflow("demo", "--out", tmp_path)
    assert errors_of(result) == []
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGPIPE")
@pytest.mark.parametrize("dashboard", ["none", "auto"])
def test_output_that_is_not_read_ends_the_demo_quietly(tmp_path: Path, dashboard: str) -> None:
    """A pipe that is closed at the other end ends the command without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command("demo", "--limit", "2", "--dashboard", dashboard, "--out", tmp_path),
            env=environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert done.stderr == "" or done.stderr.splitlines()[-1].endswith(" failed")  # of the display
    assert count_definitions(tmp_path) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no head")
def test_output_of_which_the_first_line_is_read(tmp_path: Path) -> None:
    """`antflow demo | head -1` shows one line and nothing else."""
    with subprocess.Popen(
        command("demo", "--dashboard", "none", "--limit", "2", "--out", tmp_path),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        head = subprocess.run(
            ["head", "-1"], stdin=process.stdout, capture_output=True, text=True, check=True
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert head.stdout == f"{2 + 1} files processed, {BROKEN} failed\n"
    assert process.returncode in (0, 141)  # whichever of the two was faster


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("args", [["--help"], ["demo", "--limit", "0", "--dashboard", "none"]])
def test_output_without_room_is_one_line_of_error(tmp_path: Path, args: list[str]) -> None:
    """An output that takes no more is one line of error."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*args),
            env=environment(TMPDIR=str(tmp_path)),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "Error: cannot print: No space left on device\n",
    )


@pytest.fixture
def screen() -> Iterator[PtyScreen]:
    """A terminal wide enough for every line of the summary."""
    pytest.importorskip("termios")
    from tests.pty_screen import PtyScreen

    screen = PtyScreen(columns=250, rows=40)
    yield screen
    screen.close()


def run_on(screen: PtyScreen, *args: str | Path) -> Any:
    """Start the command in a terminal; returns the terminal's settings before that."""
    import termios

    settings = termios.tcgetattr(screen.stream.fileno())
    screen.spawn(f"from antflow.cli import main; main({list(map(str, args))!r})")
    return settings


def is_as_before(screen: PtyScreen, settings: Any) -> bool:
    """Whether the display was seen, and the cursor, the first screen and the settings are back."""
    import termios

    was_seen = b"\x1b[?1049h" in screen.raw and b"\x1b[?25l" in screen.raw
    is_left = not (screen.is_alternate or screen.is_cursor_hidden)
    return was_seen and is_left and termios.tcgetattr(screen.stream.fileno()) == settings


def test_summary_is_on_the_normal_screen(screen: PtyScreen, tmp_path: Path) -> None:
    """On a terminal there is the full dashboard, and after it the summary where it stays."""
    settings = run_on(screen, "demo", "--limit", "20", "--out", tmp_path)
    assert screen.wait() == 0
    assert is_as_before(screen, settings)
    assert numbers_of(screen.paper) == (20 + 1, BROKEN)
    assert list(rows_after_first_line(screen.paper)) == ROWS


def test_interrupted_demo_says_what_was_done(screen: PtyScreen, tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves the terminal as it was, numbers that add up, and the data."""
    settings = run_on(screen, "demo", "--out", tmp_path)
    done = re.compile(r"^[1-9][\d,]* ok", re.MULTILINE)
    screen.wait_until(lambda: bool(done.search(screen.text)), "a file that is stored")
    screen.signal(signal.SIGINT)
    assert screen.wait() == 130
    assert is_as_before(screen, settings)
    assert "Traceback" not in screen.paper
    processed, failed = numbers_of(screen.paper)
    told = re.search(
        r"^interrupted: ([\d,]+) of ([\d,]+) files were not finished$", screen.paper, re.M
    )
    assert told
    left, total = (int(count.replace(",", "")) for count in told.groups())
    assert total == len(demo.library_files()) + OWN == processed + failed + left
    assert processed > 0
    assert left > 0
    rows = rows_after_first_line(screen.paper)
    assert count_definitions(tmp_path) >= int(rows["definitions"].split()[0].replace(",", "")) > 0
