"""`antflow demo`: all of Python's standard library, read, parsed and stored while you watch.

::

    files ──▶ Read ──▶ Parse ──▶ Store ──▶ summary
             threads   threads   SQLite

The input is real: every ``.py`` file under the standard library's folder, including its tests if
they are installed, without third-party packages (``site-packages``). A few of those tests are
broken on purpose, and so are some files of this package (``demo_files/``): each becomes a failure,
and none stops the rest. One more file needs a second attempt; see `read`.
"""

from __future__ import annotations

import ast
import asyncio
import errno
import platform
import sqlite3
import sysconfig
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from antflow import (
    DashboardProtocol,
    Pipeline,
    Stage,
    StatusTracker,
    TaskEvent,
    current_item,
)

LIBRARY = Path(sysconfig.get_path("stdlib"))
INSTALLED_BY_OTHERS = frozenset({"site-packages", "dist-packages"})
OWN_FILES = Path(__file__).with_name("demo_files")
BUSY_FILE = OWN_FILES / "busy.py.txt"

DATABASE_NAME = "antflow-demo.sqlite"
LOG_NAME = "antflow-demo.log"

PARSER = threading.Lock()
"""Before 3.11.8 and 3.12.2, Python's parser may fail if two threads use it (gh-106905)."""

RETRY_SECONDS = 0.2
"""How long a file that could not be read waits for its next attempt."""

KINDS: dict[type[ast.AST], str] = {
    ast.ClassDef: "class",
    ast.FunctionDef: "function",
    ast.AsyncFunctionDef: "async function",
}


class Definition(NamedTuple):
    """One definition in a file; a row of the database."""

    file: str
    kind: str
    name: str
    line: int


class ScanResult(NamedTuple):
    """How a scan ended.

    Attributes:
        summary: A text for people; its first line has the two numbers.
        is_interrupted: Whether Ctrl-C was pressed.
        not_stored: How many files could not be stored, through no fault of theirs.
    """

    summary: str
    is_interrupted: bool
    not_stored: int


# -- the items --------------------------------------------------------------------------------


def library_files() -> list[Path]:
    """Every ``.py`` file of the running Python's standard library, in order."""
    return sorted(
        path
        for path in LIBRARY.rglob("*.py")
        if INSTALLED_BY_OTHERS.isdisjoint(path.relative_to(LIBRARY).parts) and not path.is_dir()
    )


def as_items(paths: Iterable[Path], root: Path) -> list[dict[str, Any]]:
    """Paths as items with their own ids, which dashboards and logs show."""
    return [{"id": path.relative_to(root).as_posix(), "value": path} for path in paths]


# -- the tasks --------------------------------------------------------------------------------


def read(path: Path) -> bytes:
    """Read one file. A plain function: it runs in a thread.

    One thing is staged, so that a second attempt can be seen on a working disk: ``busy.py.txt``, a
    file of this package, is reported as busy when it is first read, as a file on a network drive
    might be.
    """
    if path == BUSY_FILE and current_item().attempt == 1:
        raise BlockingIOError(errno.EAGAIN, "busy, try again (staged by the demo)", path.name)
    return path.read_bytes()


def parse(source: bytes) -> list[Definition]:
    """List what a file defines, at any depth. Also a plain function.

    This is CPU-bound work, and Python does it for one file at a time however many threads ask. The
    threads are there for the event loop, which gets its turn in between: to feed, retry and draw.

    Raises:
        SyntaxError: It is not Python. Trying again would not help, so the stage tries once.
        ValueError: It has null bytes, before Python 3.11.4.
    """
    file = str(current_item().id)
    with PARSER:
        nodes: list[ast.AST] = [ast.parse(source, file)]
    for node in nodes:  # it grows meanwhile; nothing is defined inside an expression
        nodes += (n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.expr))
    return [
        Definition(file, KINDS[type(node)], node.name, node.lineno)
        for node in nodes
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]


class Database:
    """The table of definitions: one connection, used by one thread at a time.

    It is one transaction from opening to closing, because one for each file would take long on some
    disks. Stored definitions are kept, even if the run is interrupted.

    Attributes:
        definitions: Kind → how many definitions of it are stored; known when it is closed.
    """

    def __init__(self, path: Path) -> None:
        self.definitions: dict[str, int] = {}
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DROP TABLE IF EXISTS definitions")
            self._connection.execute("CREATE TABLE definitions (file, kind, name, line)")
        except sqlite3.Error:
            self._connection.close()
            raise

    def store(self, definitions: list[Definition]) -> int:
        """Add the definitions of one file; returns how many. Runs in a thread."""
        with self._lock:
            self._connection.executemany("INSERT INTO definitions VALUES (?, ?, ?, ?)", definitions)
        return len(definitions)

    def close(self) -> None:
        """Count, commit and close, in one step.

        After Ctrl-C a thread may still be storing: it is waited for and counted. Storing after this
        is refused.
        """
        query = "SELECT kind, count(*) FROM definitions GROUP BY kind ORDER BY kind"
        with self._lock:
            try:
                self.definitions = dict(self._connection.execute(query).fetchall())
                self._connection.commit()
            finally:
                self._connection.close()


def log_failure(log: TextIO, event: TaskEvent) -> None:
    """Write down an attempt that failed, for good or not: the tracker calls this at once.

    The worker waits for it. That is fine for a line in a file, and would be wrong for anything
    slow.
    """
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.timestamp))
    what = "failed" if event.event_type == "fail" else "to be tried again"
    why = " ".join(f"{event.item_id}: {type(event.error).__name__}: {event.error}".split())
    log.write(f"{when} {event.stage} {what}, attempt {event.attempt}: {why}\n")


# -- the run ----------------------------------------------------------------------------------


def run_demo(
    folder: Path,
    dashboard: DashboardProtocol | None = None,
    workers: int | None = None,
    limit: int | None = None,
) -> ScanResult:
    """Run the demo.

    Args:
        folder: Where the database and the log go; those of an earlier demo there are replaced.
        dashboard: As `Pipeline.run` takes it.
        workers: Workers of every stage; ``None``: 8 read, 4 parse, 1 stores.
        limit: Take only this many of the library's files, and all of the package's own; ``None``:
            all of both.

    Raises:
        OSError: The log cannot be written.
        sqlite3.Error: The database cannot be written.
    """
    own, library = sorted(OWN_FILES.glob("*.py.txt")), library_files()
    items = as_items(own, OWN_FILES.parent) + as_items(library[:limit], LIBRARY)
    with (
        closing(Database(folder / DATABASE_NAME)) as database,
        open(folder / LOG_NAME, "w", 1, "utf-8", "backslashreplace") as log,
        warnings.catch_warnings(),
    ):
        # Old code makes the parser warn: do not print that, nor fail under -W error.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)

        stages = [
            Stage("Read", workers or 8, [read], task_attempts=3, task_wait_seconds=RETRY_SECONDS),
            Stage("Parse", workers or 4, [parse], task_attempts=1),
            Stage("Store", workers or 1, [database.store], task_attempts=1),
        ]
        note = partial(log_failure, log)
        tracker = StatusTracker(on_task_retry=note, on_task_fail=note)
        pipeline = Pipeline(stages, status_tracker=tracker, name="demo")
        began, is_interrupted = time.monotonic(), False
        try:
            asyncio.run(pipeline.run(items, dashboard=dashboard, on_failures="ignore"))
        except KeyboardInterrupt:
            is_interrupted = True  # the run is over nevertheless, and its books are closed
        duration = time.monotonic() - began

    results = pipeline.results
    stats = results.stats.stage_stats
    ok, failed = len(results), len(results.failed)
    left = f"interrupted: {len(items) - ok - failed:,} of {len(items):,} files were not finished\n"
    rows = {
        "files": f"{len(items) - len(own):,} of the {len(library):,} in the standard library of "
        f"Python {platform.python_version()} ({LIBRARY}), and {len(own):,} of the package's own",
        "definitions": listed(database.definitions),
        "failures": listed(Counter(type(result.error).__name__ for result in results.failed)),
        "tried again": listed({name: stage.retried_items for name, stage in stats.items()}),
        "time": f"{duration:.1f} s",
        "database": folder / DATABASE_NAME,
        "log": folder / LOG_NAME,
    }
    first = f"{ok:,} {'file' if ok == 1 else 'files'} processed, {failed:,} failed\n"
    summary = (
        first
        + (left if is_interrupted else "")
        + "\n".join(f"{name:12} {row}" for name, row in rows.items())
    )
    return ScanResult(summary, is_interrupted, not_stored=stats["Store"].failed_items)


def listed(counts: dict[str, int]) -> str:
    """The sum, and the counts that are not zero: ``"9 (SyntaxError 8, ValueError 1)"``."""
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f"{sum(counts.values()):,} ({shown})" if shown else "0"
