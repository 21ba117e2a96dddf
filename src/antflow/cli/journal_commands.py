"""`antflow journal`: inspects, repairs, copies and prunes journals."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import click

from antflow._core.errors import JournalError, NotRestorable
from antflow._core.text import brief_repr, clean, counted, safe_repr
from antflow.cli.letters import json_text, letter_line, result_line
from antflow.cli.parameters import Command, complete_file
from antflow.cli.refusals import SOME_FAILED, refuse

if TYPE_CHECKING:
    from antflow.journal.copies import Copied
    from antflow.journal.pruning import Unit
    from antflow.journal.reader import JournalReader, JournalRun

MOST_RUNS = 5
MOST_ITEMS = 10
"""Damaged rows that are named."""

AGE = re.compile(r"([0-9]{1,9}) ?(run|day)s?")


@click.group("journal", short_help="Inspect, repair, copy or prune a journal.")
def command() -> None:
    """Inspect, repair, copy or prune a journal."""


def reads(command: Command) -> Command:
    """Add the argument and the option of those that read."""
    source = click.argument("source", shell_complete=complete_file)
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return source(as_json(command))


@command.command("info", short_help="Say what is in it.")
@reads
def info(source: str, as_json: bool) -> None:
    """Say what is in a journal: items, outcomes and runs. A run may be writing it."""
    with opened(source) as journal:
        found, runs = journal.info, journal.runs()
    if as_json:
        click.echo(json.dumps(asdict(found) | {"runs": [asdict(run) for run in runs]}))
        return
    for line in str(found).splitlines():
        click.echo(clean(line))
    if len(runs) > MOST_RUNS:
        click.echo(f"the last {MOST_RUNS} of {len(runs):,} runs:")
    for run in runs[-MOST_RUNS:]:
        click.echo(clean(told(run)))


@command.command("results", short_help="Print the results of its items.")
@reads
def results(source: str, as_json: bool) -> None:
    """Print the results of the items that were completed; with --json as antflow run does."""
    with opened(source) as journal:
        for result in journal.results():
            if as_json:
                click.echo(result_line(result), nl=False)
            else:
                click.echo(clean(f"{safe_repr(result.id)}: {brief_repr(result.value)}"))


@command.command("failed", short_help="Print the items that failed.")
@reads
def failed(source: str, as_json: bool) -> None:
    """Print the items that failed, and why; with --json as dead letters."""
    with opened(source) as journal:
        for result in journal.failed():
            if as_json:
                click.echo(letter_line(result, keeps_id=True), nl=False)
            else:
                click.echo(clean(str(result)))


@command.command("repair", short_help="Copy what is sound to a new file.")
@click.option("--to", "target", required=True, metavar="FILE", help="The new file.")
@reads
def repair(source: str, target: str, as_json: bool) -> None:
    """Copy all sound rows of a journal to a new file, and say what is missing.

    The journal itself is only read. Items whose rows are missing are run again by a run with the
    new file. The exit code is 1 if something is missing.
    """
    copied = copy(source, target, repairs=True)
    if as_json:
        click.echo(json.dumps(asdict(copied)))
    else:
        click.echo(rows_text(copied, target))
        for table, items in copied.damaged.items():
            known = sorted({item for item in items if item >= 0})
            names = ", ".join(map(str, known[:MOST_ITEMS]))
            more = f" and {len(known) - MOST_ITEMS:,} more" if len(known) > MOST_ITEMS else ""
            of = f": of items {names}{more}" if known else ""
            unread = "; part of the table cannot be read" if len(known) < len({*items}) else ""
            click.echo(f"missing in {table}: {counted(len(items), 'row')}{of}{unread}")
        if copied.forgotten:
            click.echo(
                f"run again, with what was made from them: {counted(copied.forgotten, 'item')}"
            )
    sys.exit(0 if copied.is_whole else SOME_FAILED)


@command.command("copy", short_help="Copy it to another file.")
@reads
@click.argument("target", shell_complete=complete_file)
def copy_command(source: str, target: str, as_json: bool) -> None:
    """Copy a journal to another file: a run with that goes on where this one is now."""
    copied = copy(source, target, repairs=False)
    click.echo(json.dumps(asdict(copied)) if as_json else rows_text(copied, target))


@command.command("prune", short_help="Remove what is old.")
@click.option(
    "--keep",
    required=True,
    metavar="'N runs'|'N days'",
    help="What belongs to items that ended in the last N runs or days stays.",
)
@click.option(
    "--items",
    "with_items",
    is_flag=True,
    help="Remove old items as well, with their outcomes: they are run again if they come again.",
)
@click.option("--yes", is_flag=True, help="Remove it. Otherwise, only say what would be removed.")
@reads
def prune_command(source: str, keep: str, with_items: bool, yes: bool, as_json: bool) -> None:
    """Remove from a journal what a later run hardly needs, and give the space back.

    That is, for items that have ended: results of all stages but the last, failed tries, and
    checkpoints. Outcomes stay, so nothing is run again; if the version of a stage changes later,
    these items start at the first stage. Failed items can resume where they failed.
    """
    from antflow.journal.pruning import prune

    if (found := AGE.fullmatch(keep.strip())) is None:
        refuse(f"--keep {keep!r}: must be like '5 runs' or '30 days'")
    with opened(source):  # else it would be made
        pass
    unit = cast("Unit", f"{found[2]}s")
    pruned = told_as_refusal(
        lambda: prune(source, int(found[1]), unit, items=with_items, tries=not yes)
    )
    if as_json:
        click.echo(json.dumps(asdict(pruned) | {"done": yes}))
        return
    click.echo(f"{'removed' if yes else 'would be removed'}: {pruned}")
    if not yes:
        click.echo("--yes removes it")


def copy(source: str, target: str, repairs: bool) -> Copied:
    """Copy a journal."""
    from antflow.journal.copies import copy_journal

    copied: Copied = told_as_refusal(lambda: copy_journal(source, target, repairs=repairs))
    return copied


def told_as_refusal(action: Callable[[], Any]) -> Any:
    """Do something with a journal; refuse if it cannot be done."""
    try:
        return action()
    except (JournalError, ValueError, ImportError) as error:
        refuse(str(error), error)


@contextmanager
def opened(source: str) -> Iterator[JournalReader]:
    """A journal that is read.

    Raises:
        Refusal: It cannot be, or not to its end.
    """
    from antflow.journal.journal import Journal

    try:
        with Journal.open(source) as journal:
            yield journal
    except (JournalError, NotRestorable, ValueError, ImportError) as error:
        refuse(str(error), error)


def told(run: JournalRun) -> str:
    """``2026-11-28 22:00 finished: 40 completed, 2 failed (run 3f…, pid 77 on host)``."""
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    how = run.how or "under way, or killed"
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in run.outcomes.items())
    where = f"run {run.run_id}, pid {run.pid} on {run.host}"
    return f"{at} {how}: {counts or 'no outcomes'} ({where})"


def rows_text(copied: Copied, target: str) -> str:
    """``copied to new.db: 12 items, 30 results``."""
    from antflow.journal.databases import journal_name

    counts = ", ".join(f"{copied.rows[table]:,} {table}" for table in ("items", "outcomes"))
    return clean(f"copied to {json_text(journal_name(target))}: {counts}")
