"""An item on its way through a run: plain data, no futures, no loop."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from antflow._core.result import ORDINARY, Fate, PipelineResult

DEFAULT_PRIORITY = 100

NEVER_HELD: tuple[int, int] = (-1, 0)
"""`Envelope.holds` of an item that was never held back."""

UNTRIED = -1
"""`Envelope.attempts` of an item that waits for a try, if none has counted so far."""

FIRST_LEVEL: Sequence[tuple[int, ...]] = [(number,) for number in range(100)]
"""Branches. Results keep them, and most items have few children, so those share these."""

_blank = object.__new__


class Envelope:
    """One item, and what the engine must know to process it further.

    It could be written to a file or sent to another machine whenever it moves between stages. A
    result has fewer fields: most of those here are only needed on the way, and results may be kept
    for a long time.

    Attributes:
        sequence_id: Its place in the run's intake, from 0.
        id: The item's id, unique in the run.
        value: The value that the current stage was given.
        input: The item as it was fed.
        attempts: How many tries have begun of what is being tried (a task, or the stage); 0 while
            it only waits; `UNTRIED` if it was held back on its first try, and waits to repeat that.
        priority: Lower numbers go first.
        position: Index of the stage that it is in or waits for.
        task: Index of the task to try next; above 0 only when a later task of the stage is retried.
        carry: The value that this task is given.
        error: Why it could not be read. Such an item fails when it is taken in.
        not_before: The earliest time at which a worker could take it (loop time): when it was
            announced to its stage, or when its next try is due.
        entered: When it was taken in, or made from another (loop time).
        branch: ``()`` for an item that was fed. The third item made from it has ``(2,)``, the first
            one made from that ``(2, 0)``. All share its ``sequence_id``.
        fate: What its result says about how it ended.
        children: How many items were made from it in this stage.
        holds: ``(stage index, how often it was held back there)``, see `RetryAfter`.
        decision: What follows its last failed try, until that is done.
        checkpoint: ``(stage index, value)``: what a task made durable there; ``None``: nothing.
        deadline: When it must have ended, if the run has an ``item_timeout``; in loop time, minus
            the time for which sources held the loop.
    """

    __slots__ = (
        "_metadata",
        "attempts",
        "branch",
        "carry",
        "checkpoint",
        "children",
        "deadline",
        "decision",
        "entered",
        "error",
        "fate",
        "holds",
        "id",
        "input",
        "not_before",
        "position",
        "priority",
        "sequence_id",
        "task",
        "value",
    )

    def __init__(
        self,
        sequence_id: int,
        id: Any,
        value: Any,
        metadata: dict[str, Any] | None,
        input: Any,
        priority: int = DEFAULT_PRIORITY,
        position: int = 0,
        branch: tuple[int, ...] = (),
    ) -> None:
        self.sequence_id: int = sequence_id
        self.id: Any = id
        self.value: Any = value
        self._metadata: dict[str, Any] | None = metadata
        self.error: Exception | None = None
        self.attempts: int = 0
        self.input: Any = input
        self.priority: int = priority
        self.position: int = position
        self.branch: tuple[int, ...] = branch
        self.task: int = 0
        self.carry: Any = None
        self.checkpoint: tuple[int, Any] | None = None
        self.not_before: float = 0.0
        self.entered: float = 0.0
        self.fate: Fate = ORDINARY
        self.children: int = 0
        self.holds: tuple[int, int] = NEVER_HELD
        self.decision: Any = None
        self.deadline: float = inf

    def child(self, number: int, id: Any, value: Any) -> Envelope:
        """The item with this number of those made from it, from 0, in the stage that it is in."""
        metadata = self._metadata
        is_first_level = not self.branch and number < len(FIRST_LEVEL)
        child = Envelope(
            self.sequence_id,
            id,
            value,
            metadata.copy() if metadata else None,
            self.input,
            self.priority,
            self.position,
            FIRST_LEVEL[number] if is_first_level else (*self.branch, number),
        )
        child.deadline = self.deadline
        if (place := self.fate.place) is not None:
            child.fate = Fate(scope=self.fate.scope, place=(*place, number))
        return child

    def go_back(self, position: int, value: Any) -> None:
        """Be again as it was when it was fed, with this value to this stage."""
        self.position, self.value = position, value
        self.attempts = self.children = 0
        self.checkpoint = None
        self.fate = ORDINARY

    @property
    def metadata(self) -> dict[str, Any]:
        """The item's own metadata; if it brought none, a dict is made at the first access."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    @property
    def has_metadata(self) -> bool:
        """Whether there is a dict of metadata: without one, none needs to be made."""
        return self._metadata is not None

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """The key of the item in its run: ``(sequence number, branch)``."""
        return self.sequence_id, self.branch

    def result(self, stage: str, error: Exception | None, ordinary: Fate) -> PipelineResult[Any]:
        """The item's result, as it leaves the run in the stage of this name.

        Args:
            stage: The stage.
            error: Why it failed, or ``None``.
            ordinary: The fate of most items of the run; it names the run.
        """
        result: Any = _blank(PipelineResult)  # half the cost of calling the class
        result.id = self.id
        result.value = self.value
        result.sequence_id = self.sequence_id
        result.error = error
        result.stage = stage
        result.attempts = self.attempts
        result.input = self.input
        if self._metadata is not None:
            result.metadata = self._metadata
        is_ordinary = self.fate is ORDINARY and not self.children
        result.fate = ordinary if is_ordinary else self._fate_of_result(ordinary)
        result.branch = self.branch
        made: PipelineResult[Any] = result
        return made

    def _fate_of_result(self, ordinary: Fate) -> Fate:
        fate = self.fate._replace(children=self.children) if self.children else self.fate
        return fate if fate.scope else fate._replace(scope=ordinary.scope)

    def __repr__(self) -> str:
        # Short, and without the value: a debugger shows it for every item in a channel.
        return f"<Envelope {self.sequence_id} at stage {self.position}, attempts={self.attempts}>"
