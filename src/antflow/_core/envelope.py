"""An item on its way: plain data, no futures, no loop."""

from __future__ import annotations

from math import inf
from typing import Any

from antflow._core.result import ORDINARY, Fate, PipelineResult

DEFAULT_PRIORITY = 100

NEVER_HELD: tuple[int, int] = (-1, 0)
"""`Envelope.holds` of an item that was never held back."""

UNTRIED = -1
"""`Envelope.attempts` of an item that waits for its next try, none having counted so far."""

_blank = object.__new__


class Envelope:
    """One item and what the engine must know to take it further.

    It could be written to a file or sent to another machine at any hand-over between stages. Its
    result has less: most of an item's fields are for its way, and results may be kept for long.

    Attributes:
        sequence_id: Place in the run's intake, from 0.
        id: The item's id, unique in the run.
        value: The value the current stage was given.
        input: The item as it was fed.
        attempts: Tries begun of what is being tried (a task or the stage); 0 while it only waits;
            `UNTRIED` when it was held back on its first and waits for that to be repeated.
        priority: Lower goes first.
        position: Index of the stage it is in or waits for.
        task: Index of the task to try next; above 0 only when a later task of the stage is retried.
        carry: The value that task is given.
        error: Why it could not be read; such an item fails as it is taken in.
        not_before: From when on a worker might have it (loop time): when it was announced to its
            stage, or when its next try is due.
        branch: ``()`` for an item that was fed; the third one made from it is ``(2,)``, the first
            one made from that ``(2, 0)``. They share their ``sequence_id``.
        fate: What its result has to say of how it ended.
        children: How many items were made from it in this stage.
        holds: ``(stage index, how often it was held back there)``, see `RetryAfter`.
        decision: How to go on after its last failure, until that is done.
        deadline: When it must be through, if the run has an ``item_timeout``; in the loop's time
            less the time sources held it.
    """

    __slots__ = (
        "_metadata",
        "attempts",
        "branch",
        "carry",
        "children",
        "deadline",
        "decision",
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
        self.sequence_id = sequence_id
        self.id = id
        self.value = value
        self._metadata = metadata
        self.error: Exception | None = None
        self.attempts = 0
        self.input = input
        self.priority = priority
        self.position = position
        self.branch = branch
        self.task = 0
        self.carry: Any = None
        self.not_before: float = 0.0
        self.fate = Fate(branch=branch) if branch else ORDINARY
        self.children = 0
        self.holds: tuple[int, int] = NEVER_HELD
        self.decision: Any = None
        self.deadline = inf

    @property
    def metadata(self) -> dict[str, Any]:
        """The item's own metadata; made when it is first read if it brings none."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """The item's name in its run: ``(sequence number, branch)``."""
        return self.sequence_id, self.branch

    def result(self, stage: str, error: Exception | None) -> PipelineResult[Any]:
        """The item's result, when it leaves the run in the stage of this name."""
        result: Any = _blank(PipelineResult)  # half the cost of a call
        result.id = self.id
        result.value = self.value
        result.sequence_id = self.sequence_id
        result.error = error
        result.stage = stage
        result.attempts = self.attempts
        result.input = self.input
        if self._metadata is not None:
            result.metadata = self._metadata
        result.fate = self.fate
        if self.children:
            result.fate = self.fate._replace(children=self.children)
        made: PipelineResult[Any] = result
        return made

    def __repr__(self) -> str:
        # Short, and without the value: a debugger shows it for every item in a channel.
        return f"<Envelope {self.sequence_id} at stage {self.position}, attempts={self.attempts}>"
