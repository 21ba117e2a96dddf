"""The options of `antflow run` about a journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from antflow._core.addresses import SCHEMES
from antflow._core.errors import JournalError
from antflow._core.failures import stay_failed
from antflow._core.text import clean
from antflow.cli.output_file import NAMES_OF_STDOUT, NamedFiles, Old
from antflow.cli.parameters import Command, ErrorNames, complete_file
from antflow.cli.refusals import refuse

if TYPE_CHECKING:
    from antflow.cli.kept_file import KeptFile
    from antflow.cli.result_rows import ResultRows
    from antflow.journal.codec import Codec
    from antflow.journal.journal import Journal
    from antflow.journal.reader import JournalReader

ALL = "*"
"""The value of ``--retry-failed`` without one."""


class RunCommand(click.Command):
    """A command whose ``--retry-failed`` takes a value only behind ``=``.

    To click, a word behind an option that may have a value is its value: the target.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        end = args.index("--") if "--" in args else len(args)
        told = [f"{each}={ALL}" if each == "--retry-failed" else each for each in args[:end]]
        return super().parse_args(ctx, [*told, *args[end:]])


class RetriedErrors(ErrorNames):
    """Names of exception classes with commas between them, or all."""

    name = "retried errors"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names; ``("*",)``: all."""
        return (ALL,) if value == ALL else super().convert(value, param, ctx)


def takes_journal(command: Command) -> Command:
    """Add the options."""
    journal = click.option(
        "--journal",
        metavar="FILE",
        help="File, or address of a PostgreSQL database (postgresql://…), in which the run keeps "
        "what it has done. Repeat the command to resume where the last run ended, for whatever "
        "reason, and to complete the files of --out and --failed.",
        shell_complete=complete_file,
    )
    key = click.option(
        "--key",
        metavar="FIELD",
        help="With --journal: the field that identifies an item.  [default: its id, else its "
        "content]",
    )
    retried = click.option(
        "--retry-failed",
        type=RetriedErrors(),
        multiple=True,
        metavar="[=ERROR[,ERROR]]",
        help="With --journal: run items that failed in an earlier run again, from the stage that "
        "failed: all, or only those with an error named after =.",
    )
    plan = click.option(
        "--plan",
        is_flag=True,
        help="With --journal: say what the run would do and how long it would take, and exit.",
    )
    return journal(key(retried(plan(command))))


class Keeping:
    """The journal of a run of the command.

    Args:
        path: Its file, or the address of its database.
        retried: Which failed items are run again.
        is_new: Whether nothing is in it yet.
    """

    def __init__(self, path: str, retried: tuple[str, ...], is_new: bool) -> None:
        from antflow.journal.journal import Journal

        self.journal: Journal = Journal(
            path, retry_failed=True if ALL in retried else retried or False
        )
        self.is_new: bool = is_new
        self._codec: Codec | None = None

    def take_over(self, own: Journal | None) -> None:
        """Keep it as the pipeline's own journal says, if that has one: without its secrets."""
        if own is not None:
            retried = self.journal.retry_failed or own.retry_failed
            self.journal = own.moved_to(self.journal).retrying(retried)

    def reader(self) -> JournalReader:
        """Open it to read it."""
        return self.journal.reader()

    def id_of(self, content: Any) -> str:
        """The id of an item that brings none."""
        from antflow.journal.codec_choice import codec_of
        from antflow.journal.item_keys import content_key

        if self._codec is None:
            journal = self.journal
            self._codec = codec_of(journal.codec, journal.path, journal.trusted)
        return content_key(content, self._codec)

    def results_file(self, path: str, old: Old, rows: ResultRows | None) -> KeptFile:
        """The file of the items that were completed."""
        from antflow.cli.journal_lines import ResultLines, RowLines
        from antflow.cli.kept_file import KeptFile

        form = ResultLines() if rows is None else RowLines(rows)
        return KeptFile(path, "--out", old, form, "completed", self.reader, self.is_new)

    def letters_file(self, path: str, old: Old) -> KeptFile:
        """The file of the items that failed."""
        from antflow.cli.journal_lines import LetterLines
        from antflow.cli.kept_file import KeptFile

        return KeptFile(path, "--failed", old, LetterLines(), "failed", self.reader, self.is_new)

    def stayed(self, run_id: str) -> list[str]:
        """How many items had failed before a run and stay failed, by type, if any."""
        try:
            with self.reader() as journal:
                summary = journal.error_summary(before=run_id)
        except JournalError as error:
            return [clean(str(error))]
        if not summary.total_failed:
            return []
        return [stay_failed(summary.errors_by_type, "--retry-failed")]


def keeping_for(told: Mapping[str, Any], named: NamedFiles) -> Keeping | None:
    """The journal that was asked for.

    Args:
        told: The values of the options, by name.
        named: The files of other options; this one is added.

    Raises:
        Refusal: It is no journal, or options need one.
    """
    path: str | None = told["journal"]
    retried = tuple(name for names in told["retry_failed"] for name in names)
    if path is None:
        for option, value in (
            ("--key", told["key"]),
            ("--retry-failed", retried),
            ("--plan", told["plan"]),
        ):
            if value:
                refuse(f"{option}: needs --journal FILE")
        return None
    if path in ("", *NAMES_OF_STDOUT):
        refuse(f"--journal {path!r}: must be the name of a file")
    if not path.startswith(SCHEMES):
        named.add("--journal", path)
    try:
        return Keeping(path, retried, _is_new(path))
    except (JournalError, ValueError, ImportError) as error:
        refuse(f"--journal: {error}", error)


def _is_new(path: str) -> bool:
    from antflow.journal.databases import is_there
    from antflow.journal.journal import Journal

    if not is_there(path):
        return True
    with Journal.open(path) as journal:
        return not journal.info.items
