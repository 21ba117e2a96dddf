"""`antflow run`: a pipeline, a file of items, results as they come."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from itertools import chain
from typing import Any, NoReturn

import click

from antflow import Failures, Pipeline, PipelineResult, TooManyFailures
from antflow._core.error_kinds import loaded_names
from antflow._core.errors import (
    JournalCorruptError,
    JournalError,
    JournalInUseError,
    JournalOpenError,
    JournalVersionError,
)
from antflow._core.misspellings import did_you_mean
from antflow._core.same_file import status_of
from antflow._core.text import clean, counted
from antflow._monitor.display_choice import automatic_display
from antflow.cli.cluster_options import placed, takes_places
from antflow.cli.event_files import sinks_for, takes_sinks
from antflow.cli.item_lines import FORMATS, Format, ItemSource, format_of
from antflow.cli.job import Job, disk_failure, how_to_go_on, outputs_of, tell, unwritten_lines
from antflow.cli.journal_options import Keeping, RunCommand, keeping_for, takes_journal
from antflow.cli.letters import (
    bad_line,
    check_letters,
    check_results,
    letter_line,
    unwritten_line,
)
from antflow.cli.lines import BadLine, InputFile, nothing_on_stdin
from antflow.cli.metrics import Metrics, takes_metrics
from antflow.cli.output import PATIENCE, PROGRAM, JsonLines, end_all, kept_for_results
from antflow.cli.output_file import (
    NAMES_OF_STDOUT,
    STDOUT,
    NamedFiles,
    Old,
    OutputFile,
    kept_open,
)
from antflow.cli.parameters import (
    Count,
    Delimiter,
    ErrorNames,
    FailureLimit,
    StageWorkers,
    complete_file,
    takes_target,
)
from antflow.cli.refusals import (
    INTERRUPTED,
    RUN_FAILED,
    SOME_FAILED,
    OneLine,
    Refusal,
    RunFailed,
    reason_with_place,
    refuse,
    traced,
)
from antflow.cli.result_rows import ResultRows, rows_for
from antflow.cli.shard import Shard, takes_shard, warn_of_other_shards
from antflow.cli.target import find_pipeline
from antflow.cli.threads import Terminated, ThreadsLeftBehind, end_at_next_signal, terminable

logger: logging.Logger = logging.getLogger("antflow")

DASHBOARDS = ("auto", "none", "log", "progress", "compact", "detailed", "full")
DRAINING_SECONDS = 3600.0
"""How long items in flight may take after the first Ctrl-C; a second one cancels them at once."""

MOST_OF_A_KIND = 10
"""Warnings of one kind that are shown."""

CANNOT_BE_USED = (JournalOpenError, JournalInUseError, JournalVersionError, JournalCorruptError)
"""Errors of a journal that is another file, in use, or damaged."""


@click.command("run", cls=RunCommand, short_help="Run a pipeline on the lines of a file.")
@click.option(
    "--items",
    required=True,
    metavar="FILE|-",
    help="File with the items; - is standard input.",
    shell_complete=complete_file,
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Format of the items.  [default: by the suffix .jsonl, .ndjson, .json, .csv or .tsv, "
    "else lines]",
)
@click.option(
    "--delimiter",
    type=Delimiter(),
    metavar="CHAR",
    help="What stands between the columns of CSV; tab is a tab.  [default: by the header]",
)
@click.option(
    "--encoding", default="utf-8", metavar="NAME", show_default=True, help="Encoding of the items."
)
@click.option(
    "--on-bad-line",
    type=click.Choice(["error", "dead-letter"]),
    help="Whether a bad line ends the intake (error) or goes to --failed (dead-letter).  "
    "[default: dead-letter if there is --failed]",
)
@click.option(
    "--out",
    metavar="FILE|-",
    help="File for the results, as JSON lines; as CSV with the suffix .csv or .tsv.  "
    "[default: -, standard output]",
    shell_complete=complete_file,
)
@click.option(
    "--failed",
    metavar="FILE|-",
    help="File for failed and cancelled items, which --items can read back.",
    shell_complete=complete_file,
)
@takes_sinks
@click.option("--append", is_flag=True, help="Add to the files of --out and --failed.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace the files of --out and --failed, when the run has ended. Without one of the two, "
    "files that are not empty are refused.",
)
@click.option(
    "--dashboard",
    type=click.Choice(DASHBOARDS),
    default="auto",
    show_default=True,
    help="How to show the run, on standard error; auto is what ANTFLOW_DISPLAY says, else compact. "
    "Without a terminal all of them write plain lines.",
)
@click.option(
    "--keys/--no-keys",
    default=None,
    help="Read keys while the run is shown on a terminal: ? lists them.  [default: unless the "
    "items are from standard input]",
)
@click.option(
    "--workers",
    type=StageWorkers(),
    multiple=True,
    metavar="STAGE=N",
    help="Number of workers of a stage. May be given once for each stage.",
)
@click.option("--skip", type=Count(), default=0, metavar="N", help="Leave out the first N items.")
@click.option(
    "--limit", type=Count(), metavar="N", help="Take only the first N items, after those of --skip."
)
@click.option(
    "--total",
    type=Count(),
    metavar="N",
    help="How many items there will be, for the bar.  [default: what a file has, or --limit]",
)
@click.option(
    "--max-failures",
    type=FailureLimit(),
    metavar="N|N%[/LAST]",
    help="Stop when this many items, or this share of them, have failed: of all, or of the last "
    "ones, as in 20%/200.",
)
@click.option(
    "--stop-on",
    type=ErrorNames(),
    multiple=True,
    metavar="ERROR[,ERROR]",
    help="Stop at the first item that fails with such an error, without trying it again: the name "
    "of its class, also with the module.",
)
@takes_shard
@takes_journal
@takes_metrics
@takes_places
@takes_target
def command(
    target: str,
    app_dir: str,
    debug: bool,
    items: str,
    form: Format | None,
    delimiter: str | None,
    encoding: str,
    on_bad_line: str | None,
    out: str | None,
    failed: str | None,
    append: bool,
    force: bool,
    dashboard: str,
    keys: bool | None,
    workers: tuple[tuple[str, int], ...],
    skip: int,
    limit: int | None,
    total: int | None,
    max_failures: float | Failures | None,
    stop_on: tuple[tuple[str, ...], ...],
    shard: Shard,
    **told: Any,  # the options of `takes_sinks`, `takes_metrics`, `takes_journal` …
) -> None:
    """Run a pipeline on the lines of a file.

    TARGET is module:attribute or file.py:attribute: a Pipeline, or a function that needs no
    arguments and returns one. Importing the module runs it.

    Results are JSON lines, written as they come: {"id": …, "value": …}. Everything else, including
    the output of the tasks, goes to standard error.

    The first Ctrl-C stops the intake and waits for the items in flight; the second cancels them.

    \b
    Exit codes:
      0         all items succeeded
      1         some items failed, bad lines were put aside, or a file of
                --events, --trace or --report could not be written
      2         bad arguments, target, files or lines
      3         the run failed, or was stopped by --max-failures or --stop-on
      130, 143  ended by Ctrl-C or a key, by SIGTERM
    """  # noqa: D301 - the backspace tells click to keep the lines
    to_the_end = click.get_current_context().obj == PROGRAM
    stdout = status_of(sys.stdout)
    has_stdout = sys.stdout is not None
    with ExitStack() as stack:
        stack.enter_context(traced(debug))
        # From here on: modules print, too.
        results = stack.enter_context(kept_for_results(to_the_end))
        out = STDOUT if out is None or out in NAMES_OF_STDOUT else out
        failed = STDOUT if failed in NAMES_OF_STDOUT else failed
        old = old_content(force, append)
        if on_bad_line == "dead-letter" and failed is None:
            refuse("--on-bad-line dead-letter: needs --failed FILE")
        if STDOUT in (out, failed) and not has_stdout:
            refuse("standard output is closed; --out FILE takes the results")
        if failed == out == STDOUT:
            refuse("--failed '-': standard output has the results; --out FILE takes them elsewhere")
        is_guess = form is None
        form, delimiter = format_to_read(items, form, delimiter)
        file = InputFile(items, encoding)
        stack.callback(file.close)
        if file.is_stdin:
            if keys:
                refuse("--keys: standard input has the items")
            stack.enter_context(nothing_on_stdin(to_the_end))
        named = NamedFiles(file, stdout)
        named.add("--out", out)
        if failed is not None:
            named.add("--failed", failed)
        observers = sinks_for(told, named)
        keeping = keeping_for(told, named)
        key = told["key"] or "id"
        if key != "id" and form == "lines":
            refuse(f"--key {key!r}: lines have no fields; --format jsonl and csv have")
        rows = rows_for(out)
        files = [] if told["plan"] else files_for(out, rows, failed, old, keeping)
        metrics = Metrics(told, named)
        stack.callback(metrics.close)
        pipeline = find_pipeline(target, app_dir)
        if keeping is not None:
            keeping.take_over(pipeline._journal)
        stack.enter_context(warnings_shown(debug))
        kinds = tuple(chain.from_iterable(stop_on))
        tell_unknown_errors(kinds)
        if keys and dashboard == "none":
            refuse("--keys: --dashboard none shows nothing that listens")
        dashboard = chosen(dashboard)
        pipeline = placed(with_workers(pipeline, workers), told)
        id_of = None if keeping is None else keeping.id_of
        source = ItemSource(
            file, form, pipeline, limit, delimiter, is_guess, skip, key, id_of, shard
        )
        try:
            source.check_header()
        except BadLine as error:
            refuse(str(error), error)
        if keeping is not None and not shard.is_whole and not keeping.is_new:
            with keeping.reader() as journal:
                warn_of_other_shards(shard, journal)
        if keeping is not None and told["plan"]:
            asyncio.run(write_plan(pipeline, source, keeping, results))
            return
        source.counts = total is None and dashboard != "none"
        stack.enter_context(metrics.of(pipeline))
        outputs = {STDOUT: results}
        for each in files:
            stack.enter_context(kept_open(each))
            outputs[each.path] = JsonLines(each.write, each.path, take_back=each.take_back)
        options = {
            "total": limit if total is None else total,
            "max_failures": max_failures,
            "stop_on": kinds,
            "dashboard": display_named(dashboard),
            "keys": dashboard != "none" and (can_read_keys(file) if keys is None else keys),
            "graceful_signals": DRAINING_SECONDS,
            "observers": observers,
        }
        if keeping is not None:
            options["journal"] = keeping.journal
        letters = None if failed is None else outputs[failed]
        job = Job(pipeline, source, options, outputs[out], letters, says_why(dashboard))
        job.files = files
        if rows is not None:
            job.line = rows.line
        if keeping is not None:
            keep(job, keeping)
        source.on_first_item = lambda: open_all(files, outputs)
        if failed is not None and on_bad_line != "error":
            source.on_bad_line = lambda bad: put_aside(job, bad)
        code = run_job(job)
    sys.exit(code)


def format_to_read(
    items: str, form: Format | None, delimiter: str | None
) -> tuple[Format, str | None]:
    """The format of the items, and what stands between the columns, as far as that is known.

    Raises:
        Refusal: There are no columns.
    """
    form = form or format_of(items)
    if delimiter is None and items.lower().removesuffix(".gz").endswith((".tsv", ".tab")):
        delimiter = "\t"
    elif delimiter is not None and form != "csv":
        refuse(f"--delimiter {delimiter!r}: only --format csv has one")
    return form, delimiter


def files_for(
    out: str, rows: ResultRows | None, failed: str | None, old: Old, keeping: Keeping | None
) -> list[OutputFile]:
    """The files of ``--out`` and ``--failed``.

    Raises:
        Refusal: One cannot be written, or may not be.
    """
    files: list[OutputFile] = []
    if out != STDOUT and keeping is not None:
        files.append(keeping.results_file(out, old, rows))
    elif out != STDOUT:
        goes_on_in = check_results if rows is None else rows.go_on_in
        files.append(OutputFile(out, "--out", old, goes_on_in, has_header=rows is not None))
    if failed is not None and rows_for(failed) is not None:
        refuse(f"--failed {failed!r}: has JSON lines; name it .jsonl")
    if failed not in (None, STDOUT) and keeping is not None:
        files.append(keeping.letters_file(failed, old))
    elif failed not in (None, STDOUT):
        files.append(OutputFile(failed, "--failed", old, check_letters))
    return files


async def write_plan(
    pipeline: Pipeline, source: ItemSource, keeping: Keeping, results: JsonLines
) -> None:
    """Say what a run would do.

    Raises:
        Refusal: The journal, or a line, cannot be read.
    """
    bad: list[BadLine] = []

    async def put_aside(line: BadLine) -> None:
        bad.append(line)

    source.on_bad_line = put_aside
    source.feeds = False
    try:
        plan = await pipeline.plan(source.items(), keeping.journal)
    except (BadLine, JournalError) as error:
        refuse(str(error), error)
    await results.put(f"{plan}\n")
    if bad:
        lines = counted(len(bad), "line")
        await results.put(f"{lines} of the input cannot be read, e.g. {clean(str(bad[0]))}\n")
    await results.end()


def keep(job: Job, keeping: Keeping) -> None:
    """Have the files of a run complete, by its journal."""
    from antflow.cli.kept_file import KeptFile  # most runs have no journal

    job.keeping = keeping
    job.items.has_journal = True
    kept = {each.option: each for each in job.files if isinstance(each, KeptFile)}
    job.kept, job.kept_letters = kept.get("--out"), kept.get("--failed")
    if job.kept is not None:
        job.line = job.kept.line


def tell_unknown_errors(kinds: tuple[str, ...]) -> None:
    """Warn of names that may be misspelt: no exception class has them, or its module comes late."""
    known = loaded_names() if kinds else ()
    for kind in kinds:
        if kind not in known:
            meant = did_you_mean(kind, sorted(known))
            logger.warning("--stop-on %s: no exception class of this name is loaded%s", kind, meant)


def with_workers(pipeline: Pipeline, workers: tuple[tuple[str, int], ...]) -> Pipeline:
    """The pipeline with these numbers of workers.

    Raises:
        Refusal: There is no such stage, it is given twice, or the number is not allowed.
    """
    given = Counter(name for name, _ in workers)
    for name, count in workers:
        if given[name] > 1:
            refuse(f"--workers {name}={count}: stage {name!r} is given {given[name]} times")
        try:
            pipeline = pipeline.with_workers({name: count})
        except ValueError as error:
            refuse(f"--workers {name}={count}: {error}", error)
    return pipeline


def old_content(force: bool, append: bool) -> Old:
    """What happens to the old content of files.

    Raises:
        Refusal: Both were asked for.
    """
    if force and append:
        refuse("--force replaces files, --append adds to them: choose one")
    return "replace" if force else "append" if append else "refuse"


async def open_all(files: list[OutputFile], outputs: dict[str, JsonLines]) -> None:
    """Open the files, now that there is an item.

    Raises:
        Refusal: One cannot be opened.
    """
    for file in files:
        try:
            await outputs[file.path].open()
        except OSError as error:
            refuse(f"{file.option} {file.path!r}: {error.strerror}", error)


def says_why(dashboard: str) -> bool:
    """Whether a display says at the end what held the run back: a progress bar does not."""
    if dashboard != "progress":
        return dashboard != "none"
    # Here and not above: drawing is imported only when something is drawn.
    from antflow.display.environment import can_draw_on, display_stream

    return not can_draw_on(display_stream())


def chosen(dashboard: str, otherwise: str = "auto") -> str:
    """The dashboard to show: where ``auto`` leaves that open, what the environment says."""
    name = automatic_display() if dashboard == "auto" else dashboard
    return otherwise if name == "auto" else name


def can_read_keys(items: InputFile) -> bool:
    """Whether the run is shown on a terminal, and what is typed there is not an item."""
    # Here and not above: drawing is imported only when something is drawn.
    from antflow.display.environment import can_draw_on, display_stream, is_terminal

    return not items.is_stdin and is_terminal(sys.stdin) and can_draw_on(display_stream())


def display_named(name: str) -> Any:
    """A display; ``None`` for "none"."""
    if name == "none":
        return None
    # Here and not above: drawing is imported only when something is drawn.
    from antflow.display import create

    return create(name)


def run_job(job: Job) -> int:
    """Run, and report the outcome.

    Returns:
        The exit code.

    Raises:
        Refusal: A line of the input is not an item, or a file cannot be opened.
        RunFailed: The run failed, or a file could not be written.
        BrokenPipeError: The results have no reader any more.
    """
    try:
        asyncio.run(stream(job))
    except (KeyboardInterrupt, SystemExit) as error:
        tell(job)
        stopped_by = job.pipeline.results.stopped_by
        if isinstance(error, Terminated):
            stopped_by = signal.SIGTERM
        if stopped_by is None and isinstance(error, SystemExit):
            raise RunFailed(f"the run failed: {reason_with_place(error)}") from error
        if failure := disk_failure(job):
            raise RunFailed(failure) from error
        code = INTERRUPTED if stopped_by is None else 128 + stopped_by
        end_at_next_signal(code)
        return code
    except RunFailed:  # a file could not be written
        tell(job)
        raise
    except BrokenPipeError:  # silent, but for what belongs elsewhere and is not there either
        for output in outputs_of(job):
            if output.name != STDOUT and output.unwritten:
                tell(job)
                raise RunFailed(output.failure) from None
        raise
    except Refusal:
        if unwritten_lines(job):
            tell(job)
        raise
    except BadLine as error:
        tell(job)
        if failure := disk_failure(job):
            raise RunFailed(f"{failure}; {error}") from error
        raise Refusal(str(error)) from error
    except CANNOT_BE_USED as error:
        raise Refusal(f"--journal: {error}") from error
    except TooManyFailures as error:
        tell(job)
        told = f"{error.reason}: {error.failures}; {how_to_go_on(job)}"
        if failure := disk_failure(job):
            told = f"{failure}; {told}"
        raise RunFailed(told) from error
    except Exception as error:
        tell(job)
        raise RunFailed(f"the run failed: {reason_with_place(error)}") from error
    tell(job)
    stopped_by = job.pipeline.results.stopped_by
    if stopped_by is not None:
        return 128 + stopped_by
    if was_ended_by_key(job):
        return INTERRUPTED
    if any(sink.counts.error is not None for sink in job.options["observers"]):
        return SOME_FAILED
    return SOME_FAILED if job.bad_lines or job.pipeline.get_stats().items_failed else 0


def was_ended_by_key(job: Job) -> bool:
    """Whether a key made the run take in nothing more, or cancelled it."""
    presses = getattr(job.options["dashboard"], "key_presses", ())
    return any(press.key in ("d", "q") for press in presses)


async def stream(job: Job) -> None:
    """Run the pipeline and write what comes out, until both are done."""
    asyncio.get_running_loop().set_default_executor(ThreadsLeftBehind())
    outputs = outputs_of(job)
    process = os.getpid()
    job.pipeline.on_run_end(lambda _: hold_up_no_more(outputs))
    try:
        try:
            async with aclosing(job.pipeline.stream(job.items.items(), **job.options)) as results:
                async for result in results:
                    if result.is_success:
                        if line := line_of(job, result):
                            await job.results.put(line, result)
                    elif job.failed is not None and (line := letter_of(job, result)):
                        await job.failed.put(line, result)
        finally:
            if os.getpid() != process:
                end_child()
            put_rest(job)
        async with terminable():
            await end_all(outputs)
        if job.kept_letters is not None and job.items.was_read_whole:
            job.kept_letters.all_was_read()
    except BaseException:
        with suppress(Exception):
            await end_all(outputs, PATIENCE)
        keep_unwritten(job)
        with suppress(Exception):
            await end_all(outputs[1:], PATIENCE)
        raise


def hold_up_no_more(outputs: list[JsonLines]) -> None:
    """Keep what comes out from now on: the run is over, so it is little."""
    for output in outputs:
        output.hold_up_no_more()


def end_child() -> NoReturn:
    """End a process that a task has forked: the files, and what is told, are its parent's."""
    with suppress(OSError):
        os.write(2, b"Error: a process that a task forked must end with os._exit()\n")
    os._exit(RUN_FAILED)


def line_of(job: Job, result: PipelineResult[Any]) -> str:
    """The line of a result; warns once for each type that could only be written in part."""
    lost: set[str] = set()
    line = job.line(result, lost)
    for name in sorted(lost - job.lost):
        logger.warning(
            "a result of type %s cannot be written as JSON; part of it is lost", clean(name)
        )
    job.lost |= lost
    return line


def letter_of(job: Job, result: PipelineResult[Any]) -> str:
    """The line of an item that failed or was cancelled; "" if it needs none.

    With a journal, items that were cancelled go on in the next run.
    """
    if job.keeping is None:
        return letter_line(result)
    if result.outcome == "cancelled":
        return ""
    return letter_line(result) if job.kept_letters is None else job.kept_letters.line(result)


def put_rest(job: Job) -> None:
    """Write results the stream did not yield: cancelled items, and those just completed."""
    rest = job.pipeline.results
    if job.failed is not None:
        for result in [*rest.failed, *rest.cancelled]:
            if line := letter_of(job, result):
                job.failed.add(line, result)
    for result in rest:
        if line := line_of(job, result):
            job.results.add(line, result)


def keep_unwritten(job: Job) -> None:
    """Make dead letters of results that could not be written: what was done is not lost."""
    if job.keeping is None and job.failed is not None and job.failed is not job.results:
        job.keeps_unwritten = True
        for result in job.results.unwritten:
            job.failed.add(unwritten_line(result, job.results.failure), result)


async def put_aside(job: Job, bad: BadLine) -> None:
    """Make a dead letter of a line that is not an item, unless it is one already."""
    assert job.failed is not None
    job.bad_lines += 1
    job.first_bad_line = job.first_bad_line or str(bad)
    line = f"{bad.text}\n" if bad.is_letter else bad_line(bad, bad.text, bad.number)
    if job.kept_letters is not None:
        line = job.kept_letters.bad_line(line, bad.number)
    if line:
        await job.failed.put(line, bad)


@contextmanager
def warnings_shown(debug: bool) -> Iterator[None]:
    """Show failed items and the library's warnings, unless the user's own code has set up logging.

    Of each kind, the first few are shown, with tracebacks only if that is wanted.
    """
    if logging.root.handlers:
        yield
        return
    seen: Counter[str] = Counter()

    def is_one_of_few(record: logging.LogRecord) -> bool:
        seen[record.msg] += 1
        if seen[record.msg] == MOST_OF_A_KIND:
            record.msg += " (more like this are not shown)"
        return seen[record.msg] <= MOST_OF_A_KIND

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(is_one_of_few)
    if not debug:
        handler.setFormatter(OneLine())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(level or logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
