"""The state machine of an item, as a table, and the record of one step of it.

::

      admitted            started               completed at the last stage
    ──────────▶ QUEUED ────────────▶ IN_PROGRESS ──────────▶ settled
                 │ ▲ ▲                 │  │  ▲   failed, dropped, expanded, cancelled ──▶ settled
                 │ │ └── completed ────┘  │  │
        skipped ─┘ │  (goes to the next   │  │ started
                   │       stage)         ▼  │
                   │                  RETRYING ── cancelled ──▶ settled
                   └ skipped: on to the next stage, or settled at the last one

An item in a queue may be cancelled too, and one that could not be read fails there. `LEGAL` says
what may follow what. Folding a run's records asks it (`books`), and so do the tests for every
transition that is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple


class Kind(IntEnum):
    """The kind of a transition. The numbers are written to files: never change one."""

    ADMITTED = 1
    STARTED = 2
    COMPLETED = 3
    SKIPPED = 4
    RETRYING = 5
    FAILED = 6
    DROPPED = 7
    EXPANDED = 8
    CANCELLED = 9
    EMITTED = 10


class State(IntEnum):
    """Where an item is between two transitions."""

    NEW = 0
    QUEUED = 1
    IN_PROGRESS = 2
    RETRYING = 3
    SETTLED = 4


LEGAL: dict[tuple[State, Kind], State] = {
    (State.NEW, Kind.ADMITTED): State.QUEUED,
    (State.NEW, Kind.EMITTED): State.QUEUED,
    (State.QUEUED, Kind.STARTED): State.IN_PROGRESS,
    (State.QUEUED, Kind.SKIPPED): State.QUEUED,
    (State.QUEUED, Kind.FAILED): State.SETTLED,
    (State.QUEUED, Kind.CANCELLED): State.SETTLED,
    (State.IN_PROGRESS, Kind.COMPLETED): State.QUEUED,
    (State.IN_PROGRESS, Kind.RETRYING): State.RETRYING,
    (State.IN_PROGRESS, Kind.FAILED): State.SETTLED,
    (State.IN_PROGRESS, Kind.DROPPED): State.SETTLED,
    (State.IN_PROGRESS, Kind.EXPANDED): State.SETTLED,
    (State.IN_PROGRESS, Kind.CANCELLED): State.SETTLED,
    (State.RETRYING, Kind.STARTED): State.IN_PROGRESS,
    (State.RETRYING, Kind.CANCELLED): State.SETTLED,
}
"""State and what happens → the next state. At the last stage, the kinds of `MOVES_ON` settle."""

MOVES_ON = frozenset({Kind.COMPLETED, Kind.SKIPPED, Kind.EMITTED})
"""Kinds after which the item waits for the next stage, or is settled when there is none."""


def next_state(state: State, kind: Kind, *, last_stage: bool) -> State | None:
    """The state after ``kind`` happened in ``state``; ``None`` if it cannot."""
    following = LEGAL.get((state, kind))
    if following is not None and last_stage and kind in MOVES_ON:
        return State.SETTLED
    return following


class Transition(NamedTuple):
    """One step of one item, as a store keeps it.

    Attributes:
        run: The run.
        n: Number of the transition in its run, from 1.
        seq: The item's sequence number; an item made from another has that one's.
        branch: ``()`` for an item that was fed. The third item made from it is ``(2,)``, the first
            one made from that ``(2, 0)``: ``(seq, branch)`` is an item's key in its run.
        item_id: The item's id.
        metadata: The item's own metadata.
        stage: Index of the stage; for EMITTED the one the item was made in.
        kind: What happened.
        worker: Index of the worker within its stage, -1 when none had the item.
        task: Name of the task that failed (FAILED, RETRYING), else "".
        attempt: Number of the try, from 1; 0 when the item has not been tried here.
        mono: When, in seconds of the run's monotonic clock.
        duration: Seconds the worker had the item, for kinds that end a visit; else 0.0.
        error: What was raised (FAILED, RETRYING, CANCELLED), else ``None``.
    """

    run: str
    n: int
    seq: int
    branch: tuple[int, ...]
    item_id: Any
    metadata: Mapping[str, Any]
    stage: int
    kind: Kind
    worker: int
    task: str
    attempt: int
    mono: float
    duration: float
    error: Exception | None

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """The item's name in its run: ``(sequence number, branch)``."""
        return self.seq, self.branch
