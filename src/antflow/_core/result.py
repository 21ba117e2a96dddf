"""The results: one per item, and the list a run returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from itertools import groupby
from operator import attrgetter
from signal import Signals
from typing import Any, ClassVar, Generic, Literal, NamedTuple

from antflow._core.brief import Brief
from antflow._core.error_copies import Parcel, packed, unpacked
from antflow._core.errors import AntFlowError, ItemCancelled
from antflow._core.estimates import PastRun, WhatIf
from antflow._core.failures import failed_item, failures_text
from antflow._core.foreign import is_a
from antflow._core.places import location_of
from antflow._core.portable import Portable, public_names
from antflow._core.snapshot import ErrorSummary, PipelineStats, RunState
from antflow._core.stage_checks import checked_workers
from antflow._core.text import error_text, error_type_name, safe_str
from antflow._core.type_variables import T

Outcome = Literal["completed", "failed", "dropped", "expanded", "cancelled"]
"""All the ways an item can end."""


class Fate(NamedTuple):
    """More about how an item ended.

    Attributes:
        ending: How it ended, if it did not fail: "completed", "dropped" or "expanded".
        children: How many items were made from it in its last stage.
        scope: The run that first accepted it; "" = this one.
        place: Sequence number and branch that it had there; ``None`` = the same as here.
    """

    ending: Outcome = "completed"
    children: int = 0
    scope: str = ""
    place: tuple[int, ...] | None = None


ORDINARY = Fate()
"""The fate of most items: completed."""


class Fated:
    """Slots that are not fields.

    Attributes:
        fate: More about how the item ended.
        branch: Which of the items made from its input it is, see `Envelope`.
    """

    __slots__ = ("branch", "fate")

    branch: tuple[int, ...]
    fate: Fate


@dataclass(slots=True, repr=False)
class PipelineResult(Fated, Portable, Generic[T]):
    """The outcome of one item.

    Attributes:
        id: The item's id.
        value: What the last stage returned; for a failed or cancelled item, the value that entered
            the stage it ended in.
        sequence_id: The item's place in the input, from 0 in each run.
        metadata: The other keys of an item that was fed as a dict with an ``"id"``.
        error: ``None``, or why it failed (`ItemCancelled`: why it was not finished).
        stage: Name of the stage it ended in.
        attempts: How often its last task in that stage was tried (under "per_stage": the stage).
        input: The item as it was fed.

    ``str()`` of a failed one says in one line what failed where, and with what.

    It can be pickled, whatever the error. If its id, value, metadata or input cannot be pickled,
    pickling raises a `pickle.PicklingError` that names the item. What one raises when it is
    unpickled comes out of `pickle.loads` as it is. A deep copy shares the error, and every value
    that cannot be copied, with the original. `dataclasses.asdict` copies each value without that
    care, and raises if the error or a value cannot be copied.

    `dataclasses.replace` makes one like it with other fields, for example to retry a failed item
    with another value. It is dropped or expanded if the original was, and keeps its place among the
    children of an item.
    """

    FOREIGN: ClassVar[tuple[str, ...]] = ("id", "value", "metadata", "input")
    ERRORS: ClassVar[tuple[str, ...]] = ("error",)
    MORE: ClassVar[tuple[str, ...]] = ("branch", "fate")

    id: Any
    value: T
    sequence_id: int
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    error: Exception | None = None
    stage: str = ""
    attempts: int = 0
    input: Any = None
    # Not fields: but `dataclasses.replace` passes them on.
    fate: InitVar[Fate] = field(default=ORDINARY, kw_only=True)
    branch: InitVar[tuple[int, ...]] = field(default=(), kw_only=True)

    def __post_init__(self, fate: Fate, branch: tuple[int, ...]) -> None:
        object.__setattr__(self, "fate", fate)  # for type checkers there is no such attribute
        object.__setattr__(self, "branch", branch)

    @property
    def is_success(self) -> bool:
        """Whether it neither failed nor was cancelled."""
        return self.error is None

    @property
    def outcome(self) -> Outcome:
        """How the item ended."""
        if self.error is None:
            return fate_of(self).ending
        return "cancelled" if is_a(self.error, ItemCancelled) else "failed"

    @property
    def location(self) -> str:
        """The line of your own code that its error comes from: ``"app.py:12 in parse"``.

        The innermost one that is neither in a package nor in the standard library. If there is
        none, it is the task: ``"in json.loads"``. "" if there is no error, or no task was called.
        """
        return "" if self.error is None else location_of(self.error)

    def __str__(self) -> str:
        if self.error is None or self.outcome != "failed":
            return repr(self)
        return str(failed_item(self.id, self.error, self.stage, self.attempts, self.input))


def _made_when_read(slot: Any) -> property:
    """A property for a slot that may be unset: reading it then makes a dict.

    Few items bring metadata. A dict for each of the others would double the number of objects that
    the garbage collector looks at, and the time that this takes in a run that keeps its results.
    """

    def read(result: PipelineResult[Any]) -> dict[str, Any]:
        try:
            metadata: dict[str, Any] = slot.__get__(result)
        except AttributeError:
            metadata = {}
            slot.__set__(result, metadata)
        return metadata

    return property(read, slot.__set__)


for _name in PipelineResult.MORE:
    delattr(PipelineResult, _name)  # the default of the argument: it hides the slot
setattr(PipelineResult, "metadata", _made_when_read(vars(PipelineResult)["metadata"]))  # noqa: B010


class ItemsFailed(ExceptionGroup[Exception]):
    """The errors of all items that failed. It can be pickled, whatever errors it holds.

    Attributes:
        results: The results of the run; not pickled.
    """

    results: RunResults[Any] | None = None

    def derive(self, excs: Sequence[Any], /) -> Any:
        """A group of some of the errors; ``except*`` calls this."""
        part = ItemsFailed(self.message, excs)
        part.results = self.results
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        notes: list[Any] = getattr(self, "__notes__", [])
        state = {"__notes__": [safe_str(note) for note in notes]} if notes else None
        return _failed_again, (self.message, [packed(error) for error in self.exceptions]), state


def _failed_again(message: str, parcels: Sequence[Parcel]) -> ItemsFailed:
    errors: list[Any] = [unpacked(parcel) for parcel in parcels]
    return ItemsFailed(message, errors)


class RunResults(Brief, list[PipelineResult[T]], Generic[T]):
    """The successful results of a run in input order, and everything else about it.

    It is a plain list of `PipelineResult`; slices of it are plain lists.

    Attributes:
        failed: The results of items that failed for good, in input order.
        cancelled: The results of items that were not finished, in input order: what to pass to
            ``retry_failed``.
        outcomes: One result per accepted item, however it ended, aligned with the input. Items made
            from others (``expand=True``) are not among them.
        summary: A summary of the failures.
        stats: The run's final counts.
        run_id: The run.
        stopped_by: The signal that made the run stop taking in items (``graceful_signals``).

    With ``collect_results=False`` the lists are empty; ``summary`` and ``stats`` are exact. After
    `Pipeline.stream`, which keeps nothing that it yields, the lists have the rest: cancelled items
    and, if the loop was left early, results that were finished but not yielded.
    """

    def __init__(
        self,
        outcomes: Iterable[PipelineResult[T]],
        summary: ErrorSummary,
        stats: PipelineStats,
        run_id: str = "",
        stopped_by: Signals | None = None,
        past: PastRun | None = None,
    ) -> None:
        everything = sorted(outcomes, key=attrgetter("sequence_id"))
        self._children: list[PipelineResult[T]] = []
        self.failed: list[PipelineResult[Any]] = []
        self.cancelled: list[PipelineResult[Any]] = []
        self.outcomes: list[PipelineResult[T]] = everything
        # Look at the counts first: most runs have nothing to separate.
        if stats.items_children:
            families = groupby(everything, key=attrgetter("sequence_id"))
            everything, self.outcomes = [], []
            for _, members in families:  # an item, and its children in the order they were made
                family = sorted(members, key=branch_of)
                everything += family
                if not branch_of(family[0]):
                    self.outcomes.append(family.pop(0))
                self._children += family
        if stats.items_processed != stats.items_accepted or stats.items_children:
            by_outcome = defaultdict[Outcome, list[PipelineResult[Any]]](list)
            for outcome in everything:
                by_outcome[outcome.outcome].append(outcome)
            self.failed = by_outcome["failed"]
            self.cancelled = by_outcome["cancelled"]
            everything = by_outcome["completed"]
        super().__init__(everything)
        self.summary = summary
        self.stats = stats
        self.run_id = run_id
        self.stopped_by = stopped_by
        self._past = past

    def values(self) -> list[T]:
        """The values of the successful results, in input order."""
        return [result.value for result in self]

    @property
    def resumed(self) -> int:
        """How many outcomes come from the journal: those items were not run again."""
        return self.stats.items_resumed

    @property
    def changed(self) -> int:
        """How many items that the journal knew were run again: their input or a stage changed."""
        return self.stats.items_changed

    @property
    def omitted(self) -> int:
        """How many results are not in the journal: too large, not serialisable, or redacted.

        Those of earlier runs have an `antflow.journal.Omitted` as their value.
        """
        return self.stats.items_omitted

    def to_records(self) -> list[dict[str, Any]]:
        """All results as dicts, for pandas, polars, DuckDB and their like: a row for each item.

        ```python
        frame = pandas.DataFrame(results.to_records())
        ```

        Returns:
            In input order, items made from others after the one they were made from. The keys are
            ``id``, ``outcome`` ("completed", "failed", "dropped", "expanded" or "cancelled"),
            ``value`` (``None`` unless it was completed), ``stage`` (the one it ended in),
            ``attempts``, ``error_type``, ``error`` (its message), ``location`` ("app.py:12 in
            parse"; these three are ``None`` if there is no error) and ``sequence_id``.
        """
        rows = [*self.outcomes, *self._children]
        if self._children:
            rows.sort(key=lambda result: (result.sequence_id, branch_of(result)))
        return [_record_of(result) for result in rows]

    @property
    def counters(self) -> dict[str, int | float]:
        """Name → how much the tasks of all stages have counted (`antflow.count`)."""
        return {name: each.total for name, each in self.stats.counters.items()}

    def raise_for_failures(self) -> None:
        """Raise the errors of all failed items together.

        Raises:
            ExceptionGroup: If an item failed; one exception per item kept in `failed`. It has the
                results as ``error.results``, and can be pickled (without them).
        """
        if (error := failure_of(self)) is not None:
            raise error

    def what_if(self, workers: Mapping[str, int]) -> WhatIf | None:
        """How long the run would have taken with other numbers of workers.

        Args:
            workers: Stage name → number of workers; others stay as they were at the end.

        Returns:
            A range; ``None`` if the run was not over, or did too little to say.

        Raises:
            ValueError: There is no such stage, or a number is not allowed.
            TypeError: ``workers`` is not a dict.
        """
        wanted = checked_workers(workers, list(self.stats.stage_stats))
        return None if self._past is None else self._past.what_if(wanted)

    def __dir__(self) -> list[str]:
        return public_names(self)

    def _repr_html_(self) -> str:  # a notebook calls it
        from antflow._core.result_table import results_table  # only where there is a notebook

        return results_table(repr(self)[1:-1], self, self.failed)

    def _said(self) -> str:
        return f": {outcomes_text(self.stats)}"


def _record_of(result: PipelineResult[Any]) -> dict[str, Any]:
    error, outcome = result.error, result.outcome
    return {
        "id": result.id,
        "outcome": outcome,
        "value": result.value if outcome == "completed" else None,
        "stage": result.stage,
        "attempts": result.attempts,
        "error_type": None if error is None else error_type_name(error),
        "error": None if error is None else error_text(error),
        "location": None if error is None else result.location or None,
        "sequence_id": result.sequence_id,
    }


def outcomes_text(stats: PipelineStats) -> str:
    """``9 ok, 1 failed, 2 cancelled``: the outcomes so far, without most zeros."""
    counts = [("ok", stats.items_processed), ("failed", stats.items_failed)]
    rarer = {
        "dropped": stats.items_dropped,
        "expanded": stats.items_expanded,
        "cancelled": stats.items_cancelled,
    }
    counts += [(name, count) for name, count in rarer.items() if count]
    return ", ".join(f"{count:,} {name}" for name, count in counts)


def run_text(state: RunState, stats: PipelineStats) -> str:
    """``running, 3 in flight, 9 ok, 1 failed``: a run in a few words."""
    in_flight = f"{stats.items_in_flight:,} in flight, " if stats.items_in_flight else ""
    return f"{state}, {in_flight}{outcomes_text(stats)}"


def first_accepted(result: PipelineResult[Any]) -> Fate:
    """The fate of an item that goes on in a later run: the run and place it was accepted at."""
    fate = fate_of(result)
    if not fate.scope or fate.place is not None:
        return Fate(scope=fate.scope, place=fate.place)
    return Fate(scope=fate.scope, place=(result.sequence_id, *branch_of(result)))


def fate_of(result: PipelineResult[Any]) -> Fate:
    """The fate of an item, from its result."""
    fate: Fate = getattr(result, "fate", ORDINARY)
    return fate


def branch_of(result: PipelineResult[Any]) -> tuple[int, ...]:
    """Which of the items made from its input an item is, from its result; ``()``: the input."""
    branch: tuple[int, ...] = getattr(result, "branch", ())
    return branch


def failure_of(results: RunResults[Any]) -> ItemsFailed | None:
    """The error that `RunResults.raise_for_failures` raises; ``None`` if no item failed."""
    errors = [result.error for result in results.failed if result.error is not None]
    stats = results.stats
    if not (errors or stats.items_failed):
        return None
    message = failures_text(results.summary, stats.items_accepted + stats.items_children)
    # Failures may have been counted and not collected.
    failure = ItemsFailed(message, errors or [AntFlowError(str(results.summary))])
    failure.results = results
    return failure
