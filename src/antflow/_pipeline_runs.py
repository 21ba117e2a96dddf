"""The runs of one pipeline, and which one a caller means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic

from antflow._core.checks import check_callback, refusal
from antflow._core.estimates import WhatIf
from antflow._core.foreign import asked, type_name
from antflow._core.items import Items, Key, check_items, check_key
from antflow._core.observers import RunEnd
from antflow._core.result import run_text
from antflow._core.stage import Stage
from antflow._core.stage_checks import checked_workers, is_async
from antflow._core.text import clean, safe_repr
from antflow._core.type_variables import Out
from antflow._core.waits import discard
from antflow._engine.identity import Duplicates
from antflow._engine.run import NoRun, Run, current_run, what_if
from antflow._engine.run_handle import RunHandle
from antflow._monitor.callbacks import CallbackGuard
from antflow._pipeline_options import JournalFile, check_journal
from antflow._pipeline_plan import plan_of
from antflow.journal.journal import Journal, RetryFailed
from antflow.journal.plan import Plan


class Owner:
    """Tells whose run it is. Pipelines that differ only in their workers share one."""


class PipelineRuns:
    """The runs that a pipeline knows.

    Args:
        owner: Another pipeline's owner, for one that takes its place inside the other's runs.

    Attributes:
        owner: Compared by its runs.
        guard: Calls the callbacks of its stages and the observers.
        latest: The one that began last.
        on_end: Called with how each run ended.
        times_items: Whether runs that begin from now on count how long items take.
    """

    def __init__(self, owner: Owner | None = None) -> None:
        self.owner: Owner = Owner() if owner is None else owner
        self.guard: CallbackGuard = CallbackGuard()
        self.latest: RunHandle[Any] | None = None
        self.on_end: list[Callable[[RunEnd], Any]] = []
        self.times_items: bool = False

    def teller_of(self, run: Run) -> Callable[[], None]:
        """What tells how a run has ended. It does not keep the runs alive: a run has it."""
        return partial(_tell_end, self.on_end, self.guard, run)

    def here(self) -> RunHandle[Any] | None:
        """The run of this pipeline that the calling code is part of."""
        if (run := current_run.get()) is not None:
            for each in (run, *run.outer_runs()):
                if each.belongs_to(self.owner) and each.handle is not None:
                    handle: RunHandle[Any] = each.handle()
                    return handle
        return None

    def under_way(self, started: RunHandle[Any] | None) -> RunHandle[Any] | None:
        """The run that `feed`, `join` and `shutdown` are about.

        The one the caller is part of; else the one begun with `start`; else the latest. Code that
        has outlived its run sees only runs that were begun from it.

        Args:
            started: The run begun with `start`.
        """
        here = self.here()
        if here is not None and here._run.is_under_way:
            return here
        for handle in (started, self.latest):
            if handle is not None and handle._run.is_under_way and _may_see(here, handle):
                return handle
        return here or started

    def asked_about(self) -> RunHandle[Any] | None:
        """The run that queries are about: the one the caller is part of, else the latest."""
        here = self.here()
        if self.latest is not None and _may_see(here, self.latest):
            return self.latest
        return here or self.latest

    def reading(self, stages: Sequence[Stage]) -> Run | NoRun:
        """The run that answers queries; before the first, one in which nothing has happened."""
        handle = self.asked_about()
        return NoRun(stages) if handle is None else handle._run


class HasRuns(Generic[Out]):
    """A pipeline, asked about its runs."""

    _runs: PipelineRuns
    _stages: Sequence[Stage]
    _journal: Journal | None
    _duplicates: Duplicates

    def on_run_end(self, callback: Callable[[RunEnd], Any]) -> None:
        """Have a function called when a run is over, from now on; nothing is called per item.

        Args:
            callback: Called as ``callback(end)``, in the event loop of the run. It must be a plain
                function and quick; what it raises is logged.

        Raises:
            TypeError: ``callback`` is not a plain function of one argument.
        """
        if not callable(callback) or is_async(callback):
            raise refusal(TypeError, "callback", callback, "must be a plain function")
        check_callback(TypeError, "callback", callback, "end")
        self._runs.on_end.append(callback)

    def time_items(self) -> None:
        """Count how long items take from intake to outcome, in runs that begin from now on.

        `PipelineStats.item_times` has the durations. It costs about 0.2 µs per item. A
        `PipelineCollector` calls it.
        """
        self._runs.times_items = True

    @property
    def current_run(self) -> RunHandle[Out] | None:
        """The run that the queries answer for; ``None`` before the first.

        In a display's ``on_start(pipeline, total)`` it is the run that the display shows, so a
        display can control it: ``pipeline.current_run.set_workers("Fetch", 20)``. Inside a run (a
        task, a callback, a display) it is that run, else the latest.
        """
        return self._runs.asked_about()

    async def plan(
        self,
        items: Items,
        journal: JournalFile | None = None,
        *,
        key: Key | None = None,
        retry_failed: RetryFailed | None = None,
    ) -> Plan:
        """Find out what a run of these items with a journal would do, and how long it would take.

        ```python
        print(await pipeline.plan(items, journal="run.db"))
        ```

        Nothing is run, and nothing is written; a journal that does not exist yet knows no item. The
        journal may be in use.

        Args:
            items: As for `Pipeline.run`. They are read to the end.
            journal: The journal; by default, that of the pipeline.
            key: As for `Pipeline.run`.
            retry_failed: Which failed items would be run again; by default, what the journal says.

        Raises:
            ValueError: There is no journal, or ``key`` is not what it must be.
            TypeError: Another argument is not what it must be.
            DuplicateItemError: Two items have one id, with ``duplicates="error"``.
            JournalError: The journal cannot be read.
        """
        check_items(items)
        check_key(ValueError, "key", key)
        used = check_journal(ValueError, "journal", journal) or self._journal
        if used is None:
            raise refusal(ValueError, "journal", journal, "must be a journal, or the path of one")
        if retry_failed is not None:
            used = used.retrying(retry_failed)
        return await plan_of(self._stages, used, items, key, self._duplicates)

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long the run would take in all if it went on with other numbers of workers.

        ```python
        wider = pipeline.what_if({"Enrich": 10})
        ```

        After a run it says how long that would have taken; so does `RunResults.what_if`.

        Args:
            workers: Stage name → number of workers; others stay as they are.

        Returns:
            A range; ``None`` where there is no ``eta`` either.

        Raises:
            ValueError: There is no such stage, or a number is not allowed.
            TypeError: ``workers`` is not a dict.
        """
        wanted = checked_workers(workers, [stage.name for stage in self._stages])
        return what_if(self._runs.reading(self._stages), wanted)


def _may_see(here: RunHandle[Any] | None, run: RunHandle[Any]) -> bool:
    """Whether code that belongs to the run ``here`` may see another run: one begun from there."""
    return here is None or run._run.is_within(here._run)


def _tell_end(told: Sequence[Callable[[RunEnd], Any]], guard: CallbackGuard, run: Run) -> None:
    if told:
        end = run.how_it_ended()
        for callback in tuple(told):
            discard(guard.call("on_run_end", callback, end))


def pipeline_repr(self: Any) -> str:
    """``<Pipeline 'pipeline': Fetch ×20 → Parse ×5; running, 3 in flight, 9 ok, 1 failed>``."""
    return asked(_pipeline_text, self, instead=f"<{type_name(self)}>")


def stages_text(stages: Sequence[Stage]) -> str:
    """``Fetch ×20 → Parse ×5``."""
    return clean(" → ".join(f"{each.name} ×{each.workers:,}" for each in stages))


def _pipeline_text(pipeline: Any) -> str:
    stages = stages_text(pipeline._stages)
    text = f"<{type_name(pipeline)} {clean(safe_repr(pipeline.name))}: {stages}"
    handle: RunHandle[Any] | None = pipeline._runs.asked_about()
    if handle is None:
        return f"{text}>"
    return f"{text}; {run_text(handle._run.state, handle._run.stats())}>"
