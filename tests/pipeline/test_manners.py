"""A library is a guest: it says nothing unasked, sets up nothing, and costs little to import."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest

from antflow import Pipeline, Stage, StatusTracker
from antflow.testing import FailTimes
from tests.support import raising, run_program, same, virtual

pytestmark = pytest.mark.fault

LINES, FIRST = inspect.getsourcelines(raising)
LINE = FIRST + next(n for n, line in enumerate(LINES) if "raise error" in line)
"""Where `raising` raises."""


def test_stderr_when_everything_goes_wrong() -> None:
    """Where all of it is followed, failures print nothing but that the display has failed."""
    done = run_program(
        """
        import asyncio
        from antflow import Pipeline, Stage, StatusTracker

        async def fail(*_):
            raise ValueError("secret payload")

        class Display:
            on_start = on_update = on_finish = fail

        def source():
            yield {"id": "a"}
            yield {"id": "a"}
            raise KeyError("source")

        async def main():
            tracker = StatusTracker(fail, fail, fail, fail, fail)
            stage = Stage("Work", 2, [fail], task_attempts=2, task_wait_seconds=0, on_failure=fail)
            pipeline = Pipeline([stage], status_tracker=tracker)
            try:
                await pipeline.run(source(), custom_dashboard=Display())
            except KeyError:
                print(len(pipeline.results.failed), "failed")

        asyncio.run(main())
        """
    )
    assert (done.returncode, done.stdout) == (0, "2 failed\n")
    [line] = done.stderr.splitlines()
    assert line.startswith("the display failed in on_start; the run goes on without it: ValueError")


def test_failed_items_are_one_log_line_each() -> None:
    """With logging at level INFO, each failed item is one line, whatever is in its text."""
    done = run_program(
        r"""
        import asyncio, logging
        from antflow import Pipeline, Stage

        logging.basicConfig(format="%(levelname)s %(name)s", level=logging.INFO)

        async def fail(value):
            raise ValueError("two\nlines \x1b[2J")

        stage = Stage("Work", 1, [fail], task_attempts=1)
        asyncio.run(Pipeline([stage]).run([{"id": "a\nb"}, 2]))
        """
    )
    assert done.stderr.splitlines() == ["INFO antflow", "INFO antflow", "WARNING antflow"]


def test_log_records_are_one_printable_line(caplog: pytest.LogCaptureFixture) -> None:
    """A log record is one printable line, whatever is in the id and in the error."""
    items = [{"id": "id\n\x1b[31m", "value": 1}]
    error = ValueError("fake\nWARNING antflow: all is well\x1b]0;title\x07")
    stage = Stage("Work", 1, [raising(error)], task_attempts=1)
    caplog.set_level(logging.INFO)
    virtual(lambda: Pipeline([stage]).run(items))
    assert len(caplog.records) == 2
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_log_record_of_a_failed_item(caplog: pytest.LogCaptureFixture) -> None:
    """It says what failed where, with what, after how many tries and why; no text floods it."""
    caplog.set_level(logging.INFO)
    for error, tries in ((ValueError("a bad page"), 1), (ValueError("page " * 9999), 2)):
        stage = Stage("Work", 1, [raising(error)], task_attempts=tries, task_wait_seconds=0)
        pipeline = Pipeline([stage])
        virtual(lambda pipeline=pipeline: pipeline.run(["x"], on_failures="ignore"))  # type: ignore[misc]
    short, long = (record.getMessage() for record in caplog.records)
    place = f"at {inspect.getsourcefile(raising)}:{LINE} in work".replace(f"{Path.cwd()}/", "")
    where = f"item 0 (input 'x') failed in stage Work {place} after"
    assert short == f"{where} 1 attempt: ValueError: a bad page"
    assert long.startswith(f"{where} 2 attempts: ValueError: page page")
    assert long.endswith("…")
    assert len(long) < 1200


def test_logger_has_no_handler() -> None:
    """Importing adds no handler, no level and no filter; records go to whoever listens."""
    done = run_program(
        """
        import logging
        import antflow, antflow.testing
        logger = logging.getLogger("antflow")
        print([type(handler).__name__ for handler in logger.handlers])
        print(logger.level, logger.propagate, logger.disabled, logger.filters)
        print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)
        print([name for name in logging.root.manager.loggerDict if name.startswith("antflow.")])
        """
    )
    assert done.stdout.splitlines() == ["[]", "0 True False []", "[] True", "[]"]


def test_import_changes_nothing() -> None:
    """Importing starts no thread and leaves signals, hooks, the event loop policy and warnings."""
    done = run_program(
        """
        import asyncio, atexit, signal, sys, threading, warnings
        def state():
            handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
            return [
                handlers,
                sys.excepthook,
                sys.unraisablehook,
                sys.displayhook,
                threading.excepthook,
                threading.enumerate(),
                list(warnings.filters),
                atexit._ncallbacks(),
                asyncio.events._event_loop_policy,
                sys.getswitchinterval(),
                sys.getrecursionlimit(),
            ]
        import concurrent.futures.thread, logging
        before = state()
        import antflow
        print(state() == before)
        """
    )
    assert done.stdout == "True\n", done.stderr


def test_import_is_light() -> None:
    """Importing loads neither what draws nor what parses a command line nor any extra."""
    done = run_program(
        """
        import sys
        import antflow
        extras = {"asyncpg", "opentelemetry", "uvloop"}
        costly = extras | {"rich", "click", "sqlite3", "multiprocessing"}
        print(sorted(costly & set(sys.modules)))
        """
    )
    assert done.stdout == "[]\n"


def test_warnings_are_not_printed_unasked() -> None:
    """Without logging, nothing but that items failed is printed: no callback, no duplicate id."""
    done = run_program(
        """
        import asyncio
        from antflow import Pipeline, Stage

        def broken(*_):
            raise RuntimeError("callback")

        async def main():
            stage = Stage("Work", 1, [str], on_success=broken)
            results = await Pipeline([stage]).run([{"id": 1}, {"id": 1}])
            print(len(results))

        asyncio.run(main())
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_run_without_a_display_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A run without a display writes to neither stdout nor stderr."""
    tracker = StatusTracker()
    stage = Stage("Work", 1, [FailTimes(1), same, raising(ValueError("no"), 2)], "per_stage")
    virtual(lambda: Pipeline([stage], status_tracker=tracker).run([1, 2, 3]))
    assert capsys.readouterr() == ("", "")


def test_log_records_of_a_run_that_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    """A run in which nothing fails logs nothing."""
    caplog.set_level(logging.DEBUG)
    virtual(lambda: Pipeline([Stage("Work", 1, [FailTimes(1)], "per_stage")]).run([1, 2, 3]))
    assert [record for record in caplog.records if record.name.startswith("antflow")] == []
