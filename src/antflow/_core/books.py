"""The books a run begins with: empty, or folded from an earlier run's records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from antflow._core.envelope import Envelope
from antflow._core.ledger import ItemKey, Ledger
from antflow._core.transition import MOVES_ON, State, Transition, next_state


@dataclass(slots=True)
class Books:
    """The books of a run that continues where another was cut off.

    Attributes:
        run_id: The run's id.
        ledger: Its ledger, in which nothing is in a worker's hands.
        next_number: Number of its next transition.
        next_sequence_id: Sequence number of its next item.
        waiting: The items in flight, in the order of their sequence numbers. Each waits for the
            stage of its ``position``, and its ``attempts`` are the tries it has had there.
    """

    run_id: str
    ledger: Ledger
    next_number: int = 1
    next_sequence_id: int = 0
    waiting: list[Envelope] = field(default_factory=list[Envelope])


def folded(
    sessions: Iterable[Iterable[Transition]],
    stage_count: int,
    revive: Callable[[Transition, int], Envelope],
) -> Books:
    """The books of a run that was cut off, perhaps several times.

    Args:
        sessions: Its records in their order, one sequence for each time it was started: items in
            hand at the end of one wait for their stage in the next.
        stage_count: The number of its stages.
        revive: Makes an item in flight again, given the record with which it entered, and the index
            of the stage it waits for.

    Raises:
        ValueError: There are no records, or one of them cannot follow those before it.
    """
    ledger = Ledger(stage_count)
    entered: dict[ItemKey, Transition] = {}
    places: dict[ItemKey, tuple[State, int]] = {}
    last: Transition | None = None
    next_sequence_id = 0
    for session in sessions:
        ledger.let_go()
        places |= {key: (State.QUEUED, places[key][1]) for key in entered}
        for last in session:
            key, kind, stage = last.key, last.kind, last.stage
            state, place = places.get(key, (State.NEW, stage))
            following = next_state(state, kind, last_stage=stage == stage_count - 1)
            if following is None or stage != place:
                where = f"{state.name} at stage {place}"
                raise ValueError(f"transition {last.n}: {kind.name} at stage {stage}, but {where}")
            if state is State.NEW:
                entered[key] = last
                next_sequence_id = max(next_sequence_id, last.seq + 1)
            if following is State.SETTLED:
                del entered[key]
            places[key] = (following, place + (kind in MOVES_ON))
            ledger.apply(last)
    if last is None:
        raise ValueError("no transitions: the run has not begun")
    ledger.let_go()
    waiting = [revive(entered[key], places[key][1]) for key in sorted(entered)]
    for envelope in waiting:
        if envelope.attempts:
            ledger.stages[envelope.position].retrying += 1
    return Books(last.run, ledger, last.n + 1, next_sequence_id, waiting)
