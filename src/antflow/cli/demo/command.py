"""`antflow demo`: the library at work on files that every computer with Python has."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from antflow.cli.parameters import Count
from antflow.cli.refusals import INTERRUPTED
from antflow.cli.run_command import DASHBOARDS, chosen, display_named

MOST_WORKERS = 100


@click.command("demo", short_help="Show a pipeline at work, on files that you have.")
@click.option(
    "--dashboard",
    type=click.Choice(DASHBOARDS),
    default="auto",
    show_default=True,
    help="How to show the run; auto is what ANTFLOW_DISPLAY says, else full. Without a terminal, "
    "all of them write plain lines.",
)
@click.option(
    "--workers",
    type=Count(1, MOST_WORKERS),
    metavar="N",
    help=f"Workers of each stage, 1 to {MOST_WORKERS:,}.  [default: 8 read, 4 parse, 1 stores]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for the database and the log, created if missing; files of an earlier demo there "
    "are replaced.  [default: a new temporary folder, which is kept]",
)
@click.option(
    "--limit",
    type=Count(),
    metavar="N",
    help="Take only the first N files of the standard library. The package's own are always added.",
)
def command(dashboard: str, workers: int | None, out: Path | None, limit: int | None) -> None:
    """Read, parse and store every file of Python's standard library.

    It reads all .py files of the Python that runs it (including Python's tests, if installed) and a
    few broken files that come with antflow, which fail as expected. The definitions in the files go
    into an SQLite database, the failures into a log next to it, and a summary to standard output.
    """
    import sqlite3

    from antflow.cli.demo.library_scan import run_demo

    folder = ready_folder(out)
    try:
        display = display_named(chosen(dashboard, otherwise="full"))
        outcome = run_demo(folder, display, workers, limit)
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"{click.format_filename(folder)}: {error}") from None
    say(outcome.summary)
    if outcome.is_interrupted:
        sys.exit(INTERRUPTED)
    if outcome.not_stored:
        files = "1 file" if outcome.not_stored == 1 else f"{outcome.not_stored:,} files"
        raise click.ClickException(f"{files} could not be stored; see the log")


def ready_folder(out: Path | None) -> Path:
    """The folder to write to, created if missing and checked to be writable."""
    try:
        if out is None:
            return Path(tempfile.mkdtemp(prefix="antflow-demo-"))
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        where = "the temporary folder" if out is None else repr(click.format_filename(out))
        reason = f"cannot write to {where}: {error.strerror}"
        raise click.BadParameter(reason, param_hint="'--out'") from None
    return out


def say(text: str) -> None:
    """Print, whatever characters a path may have and the terminal may lack."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))
