"""One call of `antflow run`: its parts, and what it reports at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from antflow import Pipeline, PipelineResult
from antflow._core.text import clean, counted
from antflow.cli.item_lines import ItemSource, format_of
from antflow.cli.journal_options import Keeping
from antflow.cli.letters import json_text, result_line
from antflow.cli.lines import BadLine
from antflow.cli.output import JsonLines
from antflow.cli.output_file import OutputFile
from antflow.cli.summary import summary_lines

if TYPE_CHECKING:
    from antflow.cli.kept_file import KeptFile

MOST_IDS = 100
"""How many ids of unwritten results are named."""


@dataclass(slots=True)
class Job:
    """The parts that one call of the command works with.

    Attributes:
        pipeline: The pipeline to run.
        items: The items to run it on.
        options: For `Pipeline.stream`.
        results: Where results go.
        failed: Where dead letters go; ``None`` = nowhere.
        has_display: Whether a display says at the end what held the run back.
        bad_lines: How many lines were put aside as dead letters.
        keeps_unwritten: Whether results that could not be written are among the dead letters.
        first_bad_line: Where the first of the bad lines is, and what is wrong with it.
        lost: Types of results that could only be written in part.
        line: Makes the line of a result.
        files: The files of ``--out`` and ``--failed``.
        keeping: The journal, if there is one.
        kept: The file of the results, if it is completed from the journal.
        kept_letters: The same for the dead letters.
    """

    pipeline: Pipeline
    items: ItemSource
    options: dict[str, Any]
    results: JsonLines
    failed: JsonLines | None
    has_display: bool = False
    bad_lines: int = 0
    keeps_unwritten: bool = False
    first_bad_line: str = ""
    lost: set[str] = field(default_factory=set)
    line: Callable[[PipelineResult[Any], set[str]], str] = result_line
    files: Sequence[OutputFile] = ()
    keeping: Keeping | None = None
    kept: KeptFile | None = None
    kept_letters: KeptFile | None = None


def outputs_of(job: Job) -> list[JsonLines]:
    """Where results go, and dead letters."""
    return [job.results] if job.failed is None else [job.results, job.failed]


def tell(job: Job) -> None:
    """Print the summary to standard error, if there is anything to tell."""
    results = job.pipeline.results
    if results.run_id and (results.stats.items_accepted or not results.stats.items_in_flight):
        snapshot = job.pipeline.get_dashboard_snapshot()
        lines = summary_lines(
            snapshot, job.bad_lines, job.failed is not None, job.has_display, job.first_bad_line
        )
        if skipped := job.items.skipped:
            lines.append(f"left out by --skip: {counted(skipped, 'item')}")
        if (rest := job.items.rest) is not None:
            lines.append(f"{rest}{without_lost(job)}")
        if job.keeping is not None:
            lines += job.keeping.stayed(results.run_id)
            lines += stranger_lines(job)
        lines += old_lines(job)
        lines += unwritten_lines(job)
        with suppress(OSError):  # no space left, or no reader
            for line in lines:
                click.echo(line, err=True)


def without_lost(job: Job) -> str:
    """Which items the advice to go on with the rest leaves out, if any."""
    if job.keeping is not None:
        return ""  # they go on with the same command
    if lost := len(unwritten_of(job)):
        return f", without the {counted(lost, 'item')} that could not be written"
    lost = 0 if job.failed is not None else job.pipeline.results.stats.items_cancelled
    return f", without the {counted(lost, 'cancelled item')}" if lost else ""


def unwritten_of(job: Job) -> list[PipelineResult[Any] | BadLine]:
    """The results, failed and cancelled items that are in no file."""
    if job.keeps_unwritten:  # results are among the dead letters, too
        return unwritten_letters(job)
    return [*unwritten_results(job), *unwritten_letters(job)]


def unwritten_results(job: Job) -> list[PipelineResult[Any] | BadLine]:
    """The results that are not where results go."""
    return [each for each in job.results.unwritten if is_result(each)]


def unwritten_letters(job: Job) -> list[PipelineResult[Any] | BadLine]:
    """Whatever is not where dead letters go."""
    return [] if job.failed is None else job.failed.unwritten


def disk_failure(job: Job) -> str:
    """Why a file took no more, if one did not take all. A reader that is gone does not count."""
    broken = [output.broken for output in outputs_of(job) if output.unwritten]
    return next(filter(None, broken), "")


def old_lines(job: Job) -> list[str]:
    """Which files still have what ``--force`` was to replace, if any."""
    kept = [f"{file.option} {file.path!r}" for file in job.files if file.keeps_old]
    if not kept:
        return []
    have = "still has" if len(kept) == 1 else "still have"
    line = f"no item was taken in; {' and '.join(kept)} {have} the lines of an earlier run"
    return [clean(line)]


def stranger_lines(job: Job) -> list[str]:
    """Which files have lines of items that the journal does not know, if any."""
    return [
        f"{clean(kept.option)} {clean(repr(kept.path))} has {counted(kept.strangers, 'line')} of "
        "items that the journal does not know"
        for kept in (job.kept, job.kept_letters)
        if kept is not None and kept.strangers
    ]


def unwritten_lines(job: Job) -> list[str]:
    """Which results and dead letters are not in their files."""
    lines: list[str] = []
    results, letters = unwritten_results(job), unwritten_letters(job)
    if job.keeps_unwritten:
        lost = set(map(id, letters))
        if kept := [result for result in results if id(result) not in lost]:
            count = counted(len(kept), "result")
            lines.append(f"not written, or only in part: {count}, now in the --failed file")
        results = [result for result in results if id(result) in lost]
    if results:
        count = counted(len(results), "result")
        lines.append(f"not written, or only in part: {count}: {ids_of(results)}")
    if letters := [each for each in letters if not is_result(each)]:
        count = counted(len(letters), "item")
        lines.append(f"not written to the --failed file: {count}: {ids_of(letters)}")
    return lines


def is_result(subject: PipelineResult[Any] | BadLine) -> bool:
    """Whether a line is about an item that succeeded."""
    return isinstance(subject, PipelineResult) and subject.is_success


def ids_of(subjects: Sequence[PipelineResult[Any] | BadLine]) -> str:
    """``1, 2, "a", line 7, and 5 more``."""
    names = [
        f"line {each.number}" if isinstance(each, BadLine) else json_text(each.id)
        for each in subjects[:MOST_IDS]
    ]
    if len(subjects) > MOST_IDS:
        names.append(f"and {len(subjects) - MOST_IDS:,} more")
    return ", ".join(names)


def how_to_go_on(job: Job) -> str:
    """How to go on after too many failures."""
    if job.keeping is not None:
        return "the same command goes on, and tries these again"
    if job.failed is None:
        return "with --failed FILE, failed and cancelled items are kept, to go on with later"
    if job.failed.unwritten:
        return "failed and cancelled items are only partly in the --failed file: see above"
    form = "" if format_of(job.failed.name) == "jsonl" else " and --format jsonl"
    text = f"failed and cancelled items are in the --failed file, to go on with --items{form}"
    # They are bad lines there too, and the first one would end the intake.
    return f"{text} and another --failed, as it has bad lines too" if job.bad_lines else text
