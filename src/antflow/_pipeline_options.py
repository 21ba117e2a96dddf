"""The options of a pipeline and of its runs, and their checks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias, TypedDict, cast, get_args
from unicodedata import normalize

from antflow._core.checks import (
    Refuse,
    check_choice,
    check_count,
    check_flag,
    check_seconds,
    check_timeout,
    class_hint,
    examine,
    or_none,
    refusal,
)
from antflow._core.error_kinds import ErrorKinds, check_stop_on
from antflow._core.errors import PipelineError, StageValidationError
from antflow._core.executor_kind import RunnerKind
from antflow._core.failure_limit import FailureLimit, check_max_failures
from antflow._core.file_names import check_home
from antflow._core.foreign import attribute, is_a
from antflow._core.items import Key, check_key
from antflow._core.log import info, warn
from antflow._core.observers import OBSERVER_METHODS, AnyObserver
from antflow._core.ports import Store
from antflow._core.result import PipelineResult, RunResults
from antflow._core.same_file import shared_file
from antflow._core.stage import Stage, frozen_copy, idle_options
from antflow._core.stage_checks import is_async, is_generator, stage_index
from antflow._core.text import clean, safe_repr
from antflow._engine.identity import Duplicates
from antflow._monitor.block_poller import ShowsBlocks
from antflow._monitor.display_choice import automatic_display
from antflow._monitor.tracker import StatusTracker
from antflow.journal.journal import Journal, RetryFailed
from antflow.journal.omitted import Omitted

DashboardName = Literal["auto", "log", "compact", "detailed", "full"]
DASHBOARD_NAMES: tuple[str, ...] = get_args(DashboardName)

Retried: TypeAlias = RetryFailed
"""Which failed items that a journal knows are run again: none, all, or those of these errors."""

JournalFile: TypeAlias = str | os.PathLike[str] | Journal

OnFailures = Literal["warn", "raise", "ignore"]
"""What a run does at its end if items failed; see `Pipeline.run`."""

SHORTEST_INTERVAL = 0.01
DISPLAY_METHODS = ("on_start", "on_update", "on_finish")
TO_RETRY = "[*results.failed, *results.cancelled]"
"""The results of a run that can go on in another."""


class OtherOptions(TypedDict, total=False):
    """The options of `Pipeline` that are given by keyword only."""

    name: str
    duplicates: Duplicates
    store: Store | None
    journal: JournalFile | None
    blocked_loop_after: float | None
    observers: Sequence[AnyObserver]


class PipelineOptions(OtherOptions, total=False):
    """The options of `Pipeline`, by keyword."""

    collect_results: bool
    status_tracker: StatusTracker | None


_check_total = or_none(
    partial(check_count, minimum=0, allowed="must be a whole number >= 0, or None")
)


def _check_observers(_: Refuse, __: str, observers: object) -> Any:
    return None if observers is None else checked_observers(observers)


def check_journal(_: Refuse, __: str, journal: object) -> Any:
    """The journal that was given, or the one at this path."""
    if journal is None or is_a(journal, Journal):
        return journal
    if not is_a(journal, (str, os.PathLike)) or journal == "":
        raise refusal(TypeError, "journal", journal, "must be the path of a file, or a Journal")
    check_home("journal", cast(str, journal))
    return Journal(cast(str, journal))


def _check_file(_: Refuse, name: str, path: Any) -> Any:
    if path is None:
        return None
    from antflow.sinks.file_sink import writable_path  # few runs write one

    return writable_path(path, name)


class EngineOptions(TypedDict, total=False):
    """The options of a run that the engine knows; see `RunOptions`."""

    total: Annotated[int | None, _check_total]
    max_failures: Annotated[FailureLimit | None, check_max_failures]
    stop_on: Annotated[ErrorKinds | None, or_none(check_stop_on)]
    timeout: Annotated[float | None, check_timeout]
    item_timeout: Annotated[float | None, check_timeout]
    key: Annotated[Key | None, check_key]
    probe: Annotated[bool, check_flag]


class RunOptions(EngineOptions, total=False):
    """The options that `Pipeline.run`, `Pipeline.stream` and `Pipeline.open` share.

    All of them are ``None`` unless they are given; ``probe`` is false.

    Attributes:
        total: How many items there will be, for displays and snapshots. Without it they call
            ``len(items)``; if that raises, the number is unknown.
        max_failures: Stop when this many items have failed (int, 1 or more), or this share of those
            settled (float, above 0 and up to 1, from 20 settled items on), or either of them among
            the last items (`Failures`): the run takes in no more and begins no more, and ends with
            `TooManyFailures`.
        stop_on: Stop in the same way at the first item that fails with one of these errors, alone
            or in an exception group; it is not tried again. Exception classes, or their names as
            failures show them, alone or with the module: ``"AuthError"``. One or a tuple.
        timeout: Seconds for the whole run, all time included; then it is cancelled,
            with `TimeoutError`.
        item_timeout: Seconds for each item from its intake to its end; an item that is late
            fails with `TimeoutError` when a worker has it, or would begin with it. Time in
            which a source blocks the event loop does not count.
        key: What gives each item's id, for items fed to the run too: the name of a field (of a
            dict by key, else an attribute), or a function of the item. A dict then is passed on
            whole. ``None`` as id = a running number. An item without the field fails, and so does
            one for which the function raises.
        probe: Try one worker more for ten seconds where it is in doubt whether more would help, and
            go back; ``snapshot.advice`` then says what came of it. In stages with async tasks or
            threads; one at a time; never in a run that is paused, drains or ends.
        observers: Objects that hear of this run, beside those of the pipeline.
        trace: A file for what each worker did when, ``.json`` or ``.json.gz``: see `TraceSink`. One
            that is there already is replaced.
        report: A file for the report of the run, written when it is over, however it ended: an HTML
            page, or Markdown if its name ends in ``.md``. See `antflow.sinks.ReportSink`.
        journal: A file in which the run keeps what it has done. If an earlier run kept the same
            file, this one goes on where that ended: items that had an outcome are not run again,
            and the others go on after the last stage that they had completed. A path, the address
            of a PostgreSQL database (``"postgresql://user@host/name"``), or an
            `antflow.journal.Journal` with options. Items are known by their ids; without one, by
            what they are.
    """

    observers: Annotated[Sequence[AnyObserver] | None, _check_observers]
    trace: Annotated[str | os.PathLike[str] | None, _check_file]
    report: Annotated[str | os.PathLike[str] | None, _check_file]
    journal: Annotated[JournalFile | None, check_journal]


def checked_stages(stages: object) -> tuple[Stage, ...]:
    """Copies of the stages of a pipeline: later changes to their lists and dicts do not reach it.

    Raises:
        PipelineError: There are none.
        StageValidationError: An option of one is not allowed, or two have the same name.
        TypeError: They are not a list of stages.
    """
    given = examine(TypeError, "stages", _listed, stages)
    if given is None:
        raise refusal(TypeError, "stages", stages, "must be a list of Stage objects")
    if not given:
        raise refusal(PipelineError, "stages", stages, "a pipeline must have at least one stage")
    copies: list[Stage] = []
    seen: dict[str, int] = {}
    for index, stage in enumerate(given):
        if not examine(TypeError, f"stages[{index}]", isinstance, stage, Stage):
            allowed = f"must be a Stage{class_hint(stage, lambda kind: issubclass(kind, Stage))}"
            raise refusal(TypeError, f"stages[{index}]", stage, allowed)
        stage.validate()
        name = normalize("NFC", stage.name)
        if name in seen:
            raise StageValidationError(
                f"Duplicate stage name {safe_repr(stage.name)}: "
                f"stages[{seen[name]}] and stages[{index}]"
            )
        seen[name] = index
        if stage.pull and not index:
            raise StageValidationError(f"Stage {stage.name!r}: pull=True: not for the first stage")
        stage = _placed(stage)
        _check_processes(stage)
        for text in idle_options(stage):
            warn("stage %s: %s", clean(stage.name), clean(text))
        copies.append(frozen_copy(stage))
    return tuple(copies)


def _listed(stages: object) -> list[Any] | None:
    return list(stages) if isinstance(stages, Sequence) and not isinstance(stages, str) else None


def _placed(stage: Stage) -> Stage:
    """The stage with the runner that its address stands for, if it has one; checked for it."""
    kind = stage.executor
    if isinstance(kind, str) and "://" in kind:
        from antflow.runners.schemes import runner_kind  # few have a cluster

        kind = runner_kind(stage, kind)
        stage = replace(stage, executor=kind)
    if isinstance(kind, RunnerKind):
        kind.check(stage)
    return stage


def _check_processes(stage: Stage) -> None:
    """Refuse what cannot be sent to a child process."""
    if stage.executor != "process":
        return
    from antflow._engine.children.processes import check_picklable  # few have a use for pickle

    where = f"Stage {stage.name!r}: executor='process':"
    if stage.resources and stage.resource_scope != "worker":
        raise StageValidationError(f"{where} resources must have resource_scope='worker'")
    if stage.resources and any(is_async(task) for task in stage.tasks):
        text = "an async task cannot be given resources, which are in the child processes"
        raise StageValidationError(f"{where} {text}")
    plain = [task for task in stage.tasks if not is_async(task)]
    for task in plain:
        if is_generator(task):
            raise StageValidationError(f"{where} {safe_repr(task)} must return a list, not yield")
    for function in (*plain, *stage.resources.values()):
        if (reason := check_picklable(function)) is not None:
            raise StageValidationError(f"{where} {safe_repr(function)} {reason}")


def check_on_failures(on_failures: object) -> None:
    """Refuse what is not one of `OnFailures`.

    Raises:
        ValueError: It is not.
    """
    check_choice(ValueError, "on_failures", on_failures, get_args(OnFailures))


def checked_observers(observers: object) -> tuple[AnyObserver, ...]:
    """The observers of a pipeline.

    Raises:
        TypeError: They are not a list of observers.
    """
    if not isinstance(observers, (list, tuple)):
        raise refusal(TypeError, "observers", observers, "must be a list of observers")
    given: Sequence[Any] = observers
    for index, observer in enumerate(given):
        name = f"observers[{index}]"
        has = {each: attribute(observer, each) for each in OBSERVER_METHODS}
        if isinstance(observer, type) or not _observes(observer):
            allowed = f"must be an object with some of the methods {', '.join(OBSERVER_METHODS)}"
            allowed += class_hint(observer, _observes)
            raise refusal(TypeError, name, observer, allowed)
        for method in ("opened", "happened"):
            if is_async(has[method]):
                allowed = f"{method}() must be a plain function; only closed() may be async"
                raise refusal(TypeError, name, observer, allowed)
    return tuple(given)


def check_files(
    tracker: StatusTracker | None,
    observers: Sequence[AnyObserver],
    journal: Journal | None,
    options: RunOptions | None = None,
) -> None:
    """Refuse a file that is given twice: each of the two would destroy what the other writes.

    Args:
        tracker: The tracker, which may have a file for its history.
        observers: The observers of the pipeline. Sinks have the path of their file as ``path``.
        journal: The journal of the pipeline, or of the run.
        options: The options of a run, which may name more.

    Raises:
        ValueError: There is such a file.
    """
    given = {} if options is None else options
    files: list[tuple[str, Any]] = []
    if journal is not None and not journal.is_remote:
        files.append(("journal", journal.path))
    spill = None if tracker is None else tracker._spill
    if spill is not None:
        files.append(("spill of the tracker", spill.path))
    for owner, each in (("the pipeline", observers), ("the run", given.get("observers") or ())):
        for index, observer in enumerate(each):
            if is_a(path := attribute(observer, "path"), os.PathLike):
                files.append((f"observers[{index}] of {owner}", path))
    files += [(name, path) for name in ("trace", "report") if (path := given.get(name)) is not None]
    if (both := shared_file(files)) is not None:
        path = safe_repr(os.fspath(dict(files)[both[0]]))
        raise ValueError(f"{both[0]}: {path} is the file of {both[1]}, too")


def parted(
    options: RunOptions, journal: Journal | None
) -> tuple[EngineOptions, list[AnyObserver], Journal | None]:
    """The options of a run for the engine, and what the others stand for.

    Args:
        options: The options.
        journal: The pipeline's journal, for a run without one of its own.

    Returns:
        The engine's options, the observers, and the journal.
    """
    rest: dict[str, Any] = dict(options)
    observers: list[AnyObserver] = list(rest.pop("observers", None) or ())
    journal = rest.pop("journal", None) or journal
    if (trace := rest.pop("trace", None)) is not None:
        from antflow.sinks.trace import TraceSink  # few runs write one

        observers.append(TraceSink(trace))
    if (report := rest.pop("report", None)) is not None:
        from antflow.sinks.report.report_sink import ReportSink  # few runs write one

        observers.append(ReportSink(report))
    return cast(EngineOptions, rest), observers, journal


def _observes(observer: object) -> bool:
    return any(callable(attribute(observer, method)) for method in OBSERVER_METHODS)


def parted_retries(
    retry_failed: Any, stages: Sequence[Stage]
) -> tuple[list[PipelineResult[Any]], Retried]:
    """The two meanings of ``retry_failed``.

    Returns:
        Results of an earlier run, and which failed items that a journal knows are run again.
    """
    given: Any = retry_failed
    is_kinds = is_a(given, tuple) and any(is_a(each, (type, str)) for each in given)
    if is_kinds or is_a(given, (bool, type, str)):
        retried: Retried = retry_failed
        return [], retried
    return checked_results(given, stages), False


def journal_retrying(journal: Journal | None, retried: Retried) -> Journal | None:
    """The journal of a run, with the failed items that are run again.

    Raises:
        ValueError: There are such, and no journal.
    """
    if retried is False:
        return journal
    if journal is None:
        allowed = "needs a journal; without one, pass results of an earlier run"
        raise refusal(ValueError, "retry_failed", retried, allowed)
    return journal.retrying(retried)


def checked_results(results: object, stages: Sequence[Stage]) -> list[PipelineResult[Any]]:
    """The results given as ``retry_failed``, as a list.

    Raises:
        TypeError: It is not an iterable of results, or is all results of a run.
        ValueError: A result is of another pipeline's stage, or neither failed nor was cancelled.
    """
    if not isinstance(results, Iterable):
        allowed = "must be results of an earlier run, like results.failed"
        raise refusal(TypeError, "retry_failed", results, allowed)
    if isinstance(results, RunResults):  # as a list it has those that succeeded
        raise refusal(TypeError, "retry_failed", results, f"pass {TO_RETRY}")
    checked: list[PipelineResult[Any]] = []
    names = [stage.name for stage in stages]
    for index, result in enumerate(results):
        name = f"retry_failed[{index}]"
        if not isinstance(result, PipelineResult):
            raise refusal(TypeError, name, result, "must be a PipelineResult")
        stage_index(f"{name}.stage", result.stage, names)
        if result.is_success:
            raise refusal(ValueError, name, result, f"it is {result.outcome}; pass {TO_RETRY}")
        if type(result.value) is Omitted:
            told = "its value is not in the journal; with the journal, pass True instead of results"
            raise refusal(ValueError, name, result, told)
        checked.append(result)
    return checked


def choose_display(
    progress: object, dashboard: Any, custom: Any, interval: object, keys: object = False
) -> Any:
    """The display that was asked for; ``None`` for none.

    Raises:
        ValueError: There is none of that name, two kinds were asked for, the interval between its
            updates is not allowed, or ``keys`` were asked for without a display.
        TypeError: ``progress`` or ``keys`` is not a bool, or ``custom`` not a display.
    """
    check_seconds(ValueError, "dashboard_update_interval", interval, SHORTEST_INTERVAL)
    check_flag(TypeError, "progress", progress)
    check_flag(TypeError, "keys", keys)
    asked = [
        name
        for name, given in (
            ("progress", bool(progress)),
            ("dashboard", dashboard is not None),
            ("custom_dashboard", custom is not None),
        )
        if given
    ]
    if len(asked) > 1:
        raise ValueError(f"Cannot use both {' and '.join(asked)}: choose one")
    if keys and not asked:
        raise ValueError("keys=True needs a display: use dashboard='compact' or progress=True")
    if custom is not None:
        if is_a(custom, type) or not _is_display(custom):
            raise refusal(
                TypeError,
                "custom_dashboard",
                custom,
                f"must be an object with some of the methods {', '.join(DISPLAY_METHODS)}"
                + class_hint(custom, _is_display),
            )
        return _listening(custom, keys)
    if progress:
        return _create("progress")
    if dashboard is None:
        return None
    if not is_a(dashboard, (str, type)) and _is_display(dashboard):
        return _listening(dashboard, keys)
    more = f", or a display object{class_hint(dashboard, _is_display)}"
    check_choice(ValueError, "dashboard", dashboard, DASHBOARD_NAMES, more)
    name = automatic_display() if dashboard == "auto" else cast(str, dashboard)
    return None if name == "none" else _create(name)


def _create(name: str) -> Any:
    # Here and not above: drawing is imported only when something is drawn.
    from antflow.display import create

    return create(name)


def _listening(display: Any, keys: object) -> Any:
    """A display of the user's own; only a `BaseDashboard` reads keys, and tells if it does not."""
    if keys and not is_a(display, ShowsBlocks):
        info("keys=True: no keys are read: the display is not a BaseDashboard")
    return display


def _is_display(display: Any) -> bool:
    return any(callable(attribute(display, method)) for method in DISPLAY_METHODS)
