"""The results: one per item, and the list a run returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from operator import attrgetter
from signal import Signals
from typing import Any, ClassVar, Generic, Literal, NamedTuple

from antflow._core.error_copies import Parcel, packed, unpacked
from antflow._core.errors import AntFlowError, ItemCancelled
from antflow._core.foreign import is_a
from antflow._core.portable import Portable
from antflow._core.snapshot import ErrorSummary, PipelineStats
from antflow._core.text import counted, safe_str
from antflow._core.type_variables import T

Outcome = Literal["completed", "failed", "dropped", "expanded", "cancelled"]
"""All the ways an item can end."""


class Fate(NamedTuple):
    """More about how an item ended.

    Attributes:
        ending: How it ended, if it did not fail: "completed", "dropped" or "expanded".
        children: How many items were made from it in its last stage.
        branch: Which of the items made from its input it is; see `Envelope`.
        scope: The run that first accepted it; "" = this one.
        place: Sequence number and branch that it had there; ``None`` = the same as here.
    """

    ending: Outcome = "completed"
    children: int = 0
    branch: tuple[int, ...] = ()
    scope: str = ""
    place: tuple[int, ...] | None = None


ORDINARY = Fate()
"""The fate of most items: completed."""


class Fated:
    """The slot for a fate, which is not a field."""

    __slots__ = ("fate",)

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
    MORE: ClassVar[tuple[str, ...]] = ("fate",)

    id: Any
    value: T
    sequence_id: int
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    error: Exception | None = None
    stage: str = ""
    attempts: int = 0
    input: Any = None
    # Not a field: but `dataclasses.replace` passes it on.
    fate: InitVar[Fate] = field(default=ORDINARY, kw_only=True)

    def __post_init__(self, fate: Fate) -> None:
        object.__setattr__(self, "fate", fate)  # for type checkers there is no such attribute

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


delattr(PipelineResult, "fate")  # the default of the argument: it hides the slot
setattr(PipelineResult, "metadata", _made_when_read(vars(PipelineResult)["metadata"]))  # noqa: B010


class ItemsFailed(ExceptionGroup[Exception]):
    """The errors of all items that failed. It can be pickled, whatever errors it holds."""

    def derive(self, excs: Sequence[Any], /) -> Any:
        """A group of some of the errors; ``except*`` calls this."""
        return ItemsFailed(self.message, excs)

    def __reduce__(self) -> tuple[Any, ...]:
        notes: list[Any] = getattr(self, "__notes__", [])
        state = {"__notes__": [safe_str(note) for note in notes]} if notes else None
        return _failed_again, (self.message, [packed(error) for error in self.exceptions]), state


def _failed_again(message: str, parcels: Sequence[Parcel]) -> ItemsFailed:
    errors: list[Any] = [unpacked(parcel) for parcel in parcels]
    return ItemsFailed(message, errors)


class RunResults(list[PipelineResult[T]], Generic[T]):
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
    ) -> None:
        everything = sorted(outcomes, key=attrgetter("sequence_id"))
        self._children: list[PipelineResult[T]] = []
        self.failed: list[PipelineResult[Any]] = []
        self.cancelled: list[PipelineResult[Any]] = []
        self.outcomes: list[PipelineResult[T]] = everything
        # Look at the counts first: most runs have nothing to separate.
        if stats.items_children:  # children of one item in the order in which they were made
            everything.sort(key=lambda outcome: (outcome.sequence_id, fate_of(outcome).branch))
            self.outcomes = [outcome for outcome in everything if not fate_of(outcome).branch]
            self._children = [outcome for outcome in everything if fate_of(outcome).branch]
        if stats.items_processed != stats.items_accepted or stats.items_children:
            self.failed = [outcome for outcome in everything if outcome.outcome == "failed"]
            self.cancelled = [outcome for outcome in everything if outcome.outcome == "cancelled"]
            everything = [outcome for outcome in everything if outcome.outcome == "completed"]
        super().__init__(everything)
        self.summary = summary
        self.stats = stats
        self.run_id = run_id
        self.stopped_by = stopped_by

    def values(self) -> list[T]:
        """The values of the successful results, in input order."""
        return [result.value for result in self]

    def raise_for_failures(self) -> None:
        """Raise the errors of all failed items together.

        Raises:
            ExceptionGroup: If an item failed; one exception per item kept in `failed`. The group
                can be pickled.
        """
        errors = [result.error for result in self.failed if result.error is not None]
        if self.stats.items_failed and not errors:  # failures were counted, not collected
            raise ItemsFailed(
                f"{counted(self.stats.items_failed, 'item')} failed",
                [AntFlowError(str(self.summary))],
            )
        if errors:
            raise ItemsFailed(f"{counted(len(errors), 'item')} failed", errors)

    def __repr__(self) -> str:
        stats = self.stats
        counts = [("ok", stats.items_processed), ("failed", stats.items_failed)]
        rarer = {
            "dropped": stats.items_dropped,
            "expanded": stats.items_expanded,
            "cancelled": stats.items_cancelled,
        }
        counts += [(name, count) for name, count in rarer.items() if count]
        texts = [f"{count:,} {name}" for name, count in counts]
        return f"<RunResults: {', '.join(texts)}>"


def first_accepted(result: PipelineResult[Any]) -> Fate:
    """The fate of an item that goes on in a later run: the run and place it was accepted at."""
    fate = fate_of(result)
    if not fate.scope or fate.place is not None:
        return Fate(scope=fate.scope, place=fate.place)
    return Fate(scope=fate.scope, place=(result.sequence_id, *fate.branch))


def fate_of(result: PipelineResult[Any]) -> Fate:
    """The fate of an item, from its result."""
    fate: Fate = getattr(result, "fate", ORDINARY)
    return fate
