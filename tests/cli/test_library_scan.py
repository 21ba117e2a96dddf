"""The demo, against the same files counted another way."""

from __future__ import annotations

import ast
import gc
import os
import re
import signal
import sqlite3
import sysconfig
import threading
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from antflow import DashboardProtocol, DashboardSnapshot, ErrorSummary, PipelineResult
from antflow.cli.demo import library_scan as demo
from antflow.cli.demo.library_scan import (
    DATABASE_NAME,
    LOG_NAME,
    OWN_FILES,
    Database,
    ScanResult,
    run_demo,
)

LIBRARY = Path(sysconfig.get_path("stdlib"))
BROKEN = {
    "missing_colon.py.txt": "expected ':'",
    "null_byte.py.txt": "null byte",
    "unterminated_string.py.txt": "unterminated string",
    "wrong_encoding.py.txt": "can't decode byte 0xf6",
    "wrong_indentation.py.txt": "expected an indented block",
}


def listed_by_walking(root: Path) -> list[str]:
    """Every ``.py`` file below a folder that is not in a site-packages, from ``os.walk``."""
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages")]
        names += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    return [Path(name).relative_to(root).as_posix() for name in names]


def parsed(path: Path) -> ast.AST | SyntaxError | ValueError:
    """The tree of a file, or what is wrong with it."""
    try:
        return compile(path.read_bytes(), path.name, "exec", ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError) as error:  # null bytes are a ValueError before 3.11.4
        return error


def definitions_by_walking(path: Path, file: str) -> list[tuple[str, str, str, int]]:
    """The rows a file should have in the database."""
    kinds = {"ClassDef": "class", "FunctionDef": "function", "AsyncFunctionDef": "async function"}
    tree = parsed(path)
    if not isinstance(tree, ast.AST):
        return []
    return [
        (file, kinds[type(node).__name__], node.name, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def stored_definitions(folder: Path) -> list[tuple[str, str, str, int]]:
    """The rows of the database, in no order."""
    connection = sqlite3.connect(folder / DATABASE_NAME)
    try:
        return connection.execute("SELECT file, kind, name, line FROM definitions").fetchall()
    finally:
        connection.close()


def rows_of(summary: str) -> dict[str, str]:
    """The named lines of a summary."""
    return {line[:12].rstrip(): line[13:] for line in summary.splitlines()[1:]}


def numbers_of(summary: str) -> tuple[int, int]:
    """How many were processed and how many failed, from the first line."""
    match = re.fullmatch(r"([\d,]+) files? processed, (\d+) failed", summary.splitlines()[0])
    assert match, summary
    return int(match[1].replace(",", "")), int(match[2])


def log_lines(folder: Path, what: str) -> list[str]:
    """The lines of the log with these words."""
    return [line for line in (folder / LOG_NAME).read_text("utf-8").splitlines() if what in line]


class BaseWitness(DashboardProtocol):
    """A display that shows nothing."""

    def on_update(self, snapshot: DashboardSnapshot) -> None: ...
    def on_finish(self, results: list[PipelineResult[Any]], summary: ErrorSummary) -> None: ...


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the demo takes for the standard library."""
    root = tmp_path / "library"
    root.mkdir()
    monkeypatch.setattr(demo, "LIBRARY", root)
    monkeypatch.setattr(demo, "library_files", library_files.__wrapped__)
    return root


library_files = cache(demo.library_files)


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(demo, "library_files", library_files)


# -- the input --------------------------------------------------------------------------------


def test_input_is_the_whole_standard_library() -> None:
    """No file of the running Python's library is left out, and none is there twice."""
    found = [path.relative_to(LIBRARY).as_posix() for path in demo.library_files()]
    assert sorted(found) == sorted(listed_by_walking(LIBRARY))
    assert {"os.py", "json/decoder.py"} <= set(found)


def test_input_when_others_installed_something(library: Path) -> None:
    """Installed packages, folders and other kinds of file are no part of it, at any depth."""
    for name in ("b.py", "a/c.py", "site-packages/x.py", "a/dist-packages/x.py", "d.txt"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text("")
    (library / "folder.py").mkdir()
    found = [path.relative_to(library).as_posix() for path in demo.library_files()]
    assert found == ["a/c.py", "b.py"]


def test_own_files_are_broken_in_different_ways() -> None:
    """Python refuses each of the package's own files for the reason it is named after, but one."""
    errors = {path.name: parsed(path) for path in OWN_FILES.iterdir()}
    assert isinstance(errors.pop("busy.py.txt"), ast.Module)
    assert errors.keys() == BROKEN.keys()
    assert [name for name, reason in BROKEN.items() if reason not in str(errors[name])] == []


# -- the run ----------------------------------------------------------------------------------


def test_database_has_every_definition(tmp_path: Path) -> None:
    """What is stored is what walking over the same trees finds, name by name."""
    outcome = run_demo(tmp_path, limit=40)
    files = [(path, path.relative_to(LIBRARY).as_posix()) for path in demo.library_files()[:40]]
    files += [(path, f"demo_files/{path.name}") for path in OWN_FILES.iterdir()]
    expected = [row for path, file in files for row in definitions_by_walking(path, file)]
    assert sorted(stored_definitions(tmp_path)) == sorted(expected)
    kinds = Counter(kind for _, kind, _, _ in expected)
    shown = ", ".join(f"{kind} {kinds[kind]:,}" for kind in sorted(kinds))
    assert rows_of(outcome.summary)["definitions"] == f"{len(expected):,} ({shown})"


def test_definitions_are_found_wherever_they_are(library: Path, tmp_path: Path) -> None:
    """Nested ones, methods, and those in any kind of block are found."""
    nested = """
class A:
    if True:
        async def b(): pass
    def c():
        with x:
            try: pass
            except E:
                class D: pass
            finally:
                for _ in y:
                    def e(): return lambda: 0
match z:
    case 1:
        def f(): pass
"""
    (library / "nested.py").write_text(nested)
    run_demo(tmp_path)
    rows = [row for row in stored_definitions(tmp_path) if row[0] == "nested.py"]
    assert sorted(rows) == sorted(definitions_by_walking(library / "nested.py", "nested.py"))
    assert {name for _, _, name, _ in rows} == set("AbcDef")


def test_failures_are_counted_by_type_and_logged(tmp_path: Path) -> None:
    """Each broken file is one failure of its type, tried once, with its reason in the log."""
    outcome = run_demo(tmp_path, limit=0)
    types = Counter(type(parsed(OWN_FILES / name)).__name__ for name in BROKEN)
    assert numbers_of(outcome.summary) == (1, len(BROKEN))
    shown = re.findall(r"(\w+Error) (\d+)", rows_of(outcome.summary)["failures"])
    assert {name: int(count) for name, count in shown} == types
    failed = log_lines(tmp_path, "Parse failed, attempt 1: ")
    assert len(failed) == len(BROKEN)
    for name, reason in BROKEN.items():
        assert [reason in line for line in failed if f"demo_files/{name}: " in line] == [True]


def test_one_file_needs_a_second_attempt(tmp_path: Path) -> None:
    """The busy file is tried twice, and then it is processed like any other."""
    outcome = run_demo(tmp_path, limit=20)
    assert rows_of(outcome.summary)["tried again"] == "1 (Read 1)"
    (line,) = log_lines(tmp_path, "to be tried again")
    assert "Read to be tried again, attempt 1: demo_files/busy.py.txt: BlockingIOError" in line
    busy = [row for row in stored_definitions(tmp_path) if row[0] == "demo_files/busy.py.txt"]
    assert [name for _, _, name, _ in busy] == ["Patience", "__init__", "ask"]


def test_numbers_are_the_same_again(tmp_path: Path) -> None:
    """Another run into the same folder, with other workers, replaces the first and is equal."""

    def run(workers: int | None) -> tuple[str, dict[str, str], list[Any]]:
        summary = run_demo(tmp_path, workers=workers, limit=20).summary
        rows = rows_of(summary)
        del rows["time"]
        return summary.splitlines()[0], rows, sorted(stored_definitions(tmp_path))

    assert run(None) == run(13) == run(1)
    assert len(log_lines(tmp_path, "failed")) == len(BROKEN)


def test_parsing_when_the_collector_lets_other_threads_run(tmp_path: Path) -> None:
    """Threads that parse do not disturb each other, in Pythons whose parser would allow it."""

    def let_others_run(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    gc.callbacks.append(let_others_run)
    try:
        outcome = run_demo(tmp_path, workers=13, limit=30)
    finally:
        gc.callbacks.remove(let_others_run)
    assert numbers_of(outcome.summary) == (31, len(BROKEN))


def test_old_code_is_not_a_failure(library: Path, tmp_path: Path) -> None:
    """A file that makes the parser warn is processed, although warnings are errors here."""
    (library / "old.py").write_text(r"x = '\d'; y = 1 is 1; z = 1or 0")
    assert numbers_of(run_demo(tmp_path).summary) == (2, len(BROKEN))


def test_a_file_that_is_gone_is_a_failure(library: Path, tmp_path: Path) -> None:
    """A file that cannot be read is not skipped: it fails after its third attempt."""
    gone = library / "gone.py"
    try:
        gone.symlink_to(library / "nowhere")
    except OSError:
        pytest.skip("no symbolic links here")
    outcome = run_demo(tmp_path)
    assert numbers_of(outcome.summary) == (1, len(BROKEN) + 1)
    assert "FileNotFoundError 1" in rows_of(outcome.summary)["failures"]
    assert [re.findall(r"attempt \d", line) for line in log_lines(tmp_path, "gone.py: ")] == [
        ["attempt 1"],
        ["attempt 2"],
        ["attempt 3"],
    ]


def test_log_has_one_line_per_attempt(library: Path, tmp_path: Path) -> None:
    """A name with a newline in it forges no line of the log."""
    try:
        (library / "a\nb.py").write_text("(")
    except OSError:
        pytest.skip("no such names here")
    run_demo(tmp_path)
    assert len(log_lines(tmp_path, "")) == 1 + len(BROKEN) + 1
    assert len(log_lines(tmp_path, "a b.py: SyntaxError")) == 1


def test_files_that_cannot_be_stored_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that fills up is not taken for an expected failure."""

    def refuse(self: Database, definitions: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    assert run_demo(tmp_path, limit=2).not_stored == 0
    monkeypatch.setattr(Database, "store", refuse)
    outcome = run_demo(tmp_path, limit=2)
    assert outcome.not_stored == 3
    assert numbers_of(outcome.summary) == (0, len(BROKEN) + 3)
    assert rows_of(outcome.summary)["definitions"] == "0"


def test_interrupted_run_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the numbers add up, and everything processed is in the database."""
    store = Database.store
    stored = 0

    def interrupt(self: Database, definitions: list[demo.Definition]) -> int:
        nonlocal stored
        count = store(self, definitions)
        stored += 1
        if stored == 20:
            signal.raise_signal(signal.SIGINT)
        return count

    monkeypatch.setattr(Database, "store", interrupt)
    try:
        outcome: ScanResult = run_demo(tmp_path, limit=200)
    except KeyboardInterrupt:
        pytest.fail("the interruption came out of the demo")
    assert outcome.is_interrupted
    processed, failed = numbers_of(outcome.summary)
    match = re.fullmatch(
        r"interrupted: (\d+) of 206 files were not finished", outcome.summary.splitlines()[1]
    )
    assert match
    assert processed + failed + int(match[1]) == 206
    assert int(match[1]) > 0
    assert len(stored_definitions(tmp_path)) > 0
    assert rows_of(outcome.summary)["definitions"].startswith(
        f"{len(stored_definitions(tmp_path)):,} "
    )


def test_interrupted_while_a_thread_waits_to_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Definitions that come when the run is over are counted or refused, but not kept uncounted."""
    store = Database.store
    close = Database.close
    has_begun, is_closing, has_stored = (threading.Event() for _ in range(3))

    def interrupt(self: Database, definitions: list[demo.Definition]) -> int:
        if has_begun.is_set():
            return store(self, definitions)
        has_begun.set()
        signal.raise_signal(signal.SIGINT)
        is_closing.wait(60)
        try:
            return store(self, [demo.Definition("late.py", "class", "Late", 1)])
        finally:
            has_stored.set()

    def close_late(self: Database) -> None:
        is_closing.set()
        has_stored.wait(60)
        close(self)

    monkeypatch.setattr(Database, "store", interrupt)
    monkeypatch.setattr(Database, "close", close_late)
    outcome = run_demo(tmp_path, limit=20)
    assert outcome.is_interrupted
    assert ("late.py", "class", "Late", 1) in stored_definitions(tmp_path)
    assert (
        rows_of(outcome.summary)["definitions"]
        == f"{len(stored_definitions(tmp_path)):,} (class 1)"
    )
