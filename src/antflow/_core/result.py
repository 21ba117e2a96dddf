"""What came out: one result per item, and the list a run returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, TypeVar

from antflow._core.errors import AntFlowError, ItemCancelled
from antflow._core.snapshot import ErrorSummary, PipelineStats

T = TypeVar("T")


class Route:
    """What an item carries on its way and does not need once it has arrived; see `Envelope`."""

    __slots__ = ("carry", "lease", "not_before", "parent", "position", "priority", "task")


@dataclass(slots=True)
class PipelineResult(Route, Generic[T]):
    """The outcome of one item.

    Attributes:
        id: The item's id.
        value: What the last stage returned; for a failed or cancelled item what entered the stage
            it ended in.
        sequence_id: The item's place in the input, from 0 in each run.
        metadata: The other keys of an item that was fed as a dict with an ``"id"``.
        error: ``None``, or why it failed (`ItemCancelled`: why it was not finished).
        stage: Name of the stage it ended in.
        attempts: Tries that its last task there (under "per_stage": the stage) was given.
        input: The item as it was fed.
    """

    id: Any
    value: T
    sequence_id: int
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    error: Exception | None = None
    stage: str = ""
    attempts: int = 0
    input: Any = None

    @property
    def is_success(self) -> bool:
        """Whether the item came through."""
        return self.error is None


class RunResults(list[PipelineResult[T]], Generic[T]):
    """The successful results of a run in input order, and everything else about it.

    It is a plain list of `PipelineResult`; slices of it are plain lists.

    Attributes:
        failed: The results of items that failed for good, in input order.
        outcomes: One result per accepted item in input order, whatever became of it (but not for
            items that were dropped).
        summary: Failures summed up.
        stats: The run's final counts.
        run_id: The run.

    With ``collect_results=False`` the lists are empty; ``summary`` and ``stats`` are exact.
    """

    def __init__(
        self,
        outcomes: Iterable[PipelineResult[T]],
        summary: ErrorSummary,
        stats: PipelineStats,
        run_id: str = "",
    ) -> None:
        self.outcomes = sorted(outcomes, key=attrgetter("sequence_id"))
        unfinished = [outcome for outcome in self.outcomes if outcome.error is not None]
        super().__init__(
            [outcome for outcome in self.outcomes if outcome.error is None]
            if unfinished
            else self.outcomes
        )
        self.failed: list[PipelineResult[Any]] = [
            outcome for outcome in unfinished if not isinstance(outcome.error, ItemCancelled)
        ]
        self.summary = summary
        self.stats = stats
        self.run_id = run_id

    def values(self) -> list[T]:
        """The values of the successful results, in input order."""
        return [result.value for result in self]

    def raise_for_failures(self) -> None:
        """Raise the errors of all failed items together.

        Raises:
            ExceptionGroup: If an item failed; one exception per item kept in `failed`.
        """
        errors = [result.error for result in self.failed if result.error is not None]
        if self.stats.items_failed and not errors:  # failures were counted, not collected
            raise ExceptionGroup(
                f"{self.stats.items_failed} items failed", [AntFlowError(str(self.summary))]
            )
        if errors:
            raise ExceptionGroup(f"{len(errors)} items failed", errors)

    def __repr__(self) -> str:
        ok, failed, cancelled = (
            f"{count:,}".replace(",", " ")
            for count in (
                self.stats.items_processed,
                self.stats.items_failed,
                self.stats.items_cancelled,
            )
        )
        more = f", {cancelled} cancelled" if self.stats.items_cancelled else ""
        return f"<RunResults: {ok} ok, {failed} failed{more}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.outcomes, self.summary, self.stats, self.run_id)
