"""The values a user's observer is given, and the methods it may have."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from antflow._core.portable import Portable
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import DashboardSnapshot, PipelineStats

StepKind = Literal[
    "admitted",
    "started",
    "completed",
    "skipped",
    "retrying",
    "failed",
    "dropped",
    "expanded",
    "cancelled",
    "emitted",
]
"""The things that can happen to an item."""

RunEnding = Literal["finished", "stopped", "cancelled", "failed"]
"""How a run can end."""

OBSERVER_METHODS = ("opened", "happened", "closed")


@dataclass(frozen=True, slots=True, repr=False)
class ItemStep(Portable):
    """One step of one item.

    Attributes:
        run_id: The run.
        kind: What happened. "admitted": the item was taken in and waits for ``stage``; "emitted":
            it was made in ``stage`` from another item, and goes on to the next. "started" begins a
            visit to a stage, and a try. "completed" (per stage), "retrying", "failed", "dropped",
            "expanded" and "cancelled" end it; "skipped" passes the stage by.
        item_id: The item's id.
        sequence_id: The item's place in the input, from 0; items made from another have that one's.
        branch: ``()`` for an item of the input; ``(2,)`` for the third one made from it, ``(2, 0)``
            for the first one made from that.
        stage: Name of the stage.
        worker: Name of the worker that had the item, ``"Fetch-W0"``; ``None`` if none had.
        attempt: Number of the try, from 1; 0 if the item has not been tried here.
        timestamp: When, in Unix seconds.
        mono: When, in seconds of the run's monotonic clock.
        duration: Seconds the worker had the item, where a visit ended; else 0.0.
        waited: Seconds of these for which the item waited: for a limit, or for room.
        error: Why, for "retrying", "failed" and "cancelled".
        value: The stage's result ("completed"), the item's own value ("admitted", "emitted"), or
            the number of items made ("expanded"). Always ``None`` for observers without
            ``wants_values``. It is the object that the next stage works on: do not change it.
    """

    FOREIGN: ClassVar[tuple[str, ...]] = ("item_id", "value")
    ERRORS: ClassVar[tuple[str, ...]] = ("error",)

    run_id: str
    kind: StepKind
    item_id: Any
    sequence_id: int
    branch: tuple[int, ...]
    stage: str
    worker: str | None
    attempt: int
    timestamp: float
    mono: float
    duration: float
    waited: float = 0.0
    error: Exception | None = None
    value: Any = None


class UnfrozenStep(Portable):
    """An `ItemStep` while it is being made: it becomes one when it is given that class.

    A frozen dataclass sets its own fields through a function, which makes it six times as slow.
    """

    __slots__ = ItemStep.__slots__


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended.

    Attributes:
        run_id: The run.
        how: "finished": everything was settled. "stopped": it was shut down, or a signal stopped
            its intake. "cancelled": by its caller. "failed": with ``error``.
        error: The error the run raises, if it failed.
        stats: The final counts.
        timestamp: When, in Unix seconds.
        duration: How long the run took, in seconds.
        snapshot: Everything a dashboard shows at the end. What takes long to work out, like its
            ``advice``, is made when it is first read.
        to_retry: The failed items that are not to blame, because the run was stopped by
            ``stop_on`` or ``max_failures``: ``(sequence number, branch)`` → id. They are those with
            an error of ``stop_on``, and those that failed among the last items that `Failures`
            looks at, or in tries that went on after the limit was reached. ``None`` = all that have
            failed: a plain ``max_failures`` was reached.
    """

    run_id: str
    how: RunEnding
    error: BaseException | None
    stats: PipelineStats
    timestamp: float
    duration: float
    snapshot: DashboardSnapshot | None = field(default=None, repr=False, compare=False)
    to_retry: Mapping[tuple[int, tuple[int, ...]], Any] | None = field(
        default_factory=dict[tuple[int, tuple[int, ...]], Any], repr=False, compare=False
    )


class Observer(Protocol):
    """Hears of every step of a pipeline's runs: ``Pipeline(stages, observers=[observer])``.

    Subclassing it is optional: only the names of the methods count, and a missing one does nothing.
    It has no power over the run: the first exception of an observer is logged, the others are
    counted, and no item notices.

    `opened` and `happened` are called in line, on the event loop: be quick, and hand slow work to
    your own task or thread. They are plain functions. What they return is ignored; an awaitable is
    closed, and counts as a failure. `closed` may be async: the run waits for it, up to ten seconds,
    so that an observer can write out what it still holds.

    One observer may hear several runs, even at once: ``run_id`` tells them apart.

    Attributes:
        wants_values: Whether ``step.value`` is filled in.
    """

    wants_values: bool = False

    def opened(self, run: RunFacts) -> None:
        """A run begins."""
        return

    def happened(self, step: ItemStep) -> None:
        """An item took a step. Steps of one item come in order."""
        return

    def closed(self, end: RunEnd) -> Awaitable[None] | None:
        """A run is over: no more of its steps come. May be an ``async`` method."""
        return None


class _Opens(Protocol):
    def opened(self, run: RunFacts, /) -> Any: ...


class _Happens(Protocol):
    def happened(self, step: ItemStep, /) -> Any: ...


class _Closes(Protocol):
    def closed(self, end: RunEnd, /) -> Any: ...


AnyObserver = _Opens | _Happens | _Closes
"""An object with at least one method of `Observer`: what is missing does nothing."""
