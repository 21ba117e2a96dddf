"""The rows that one run writes, each with the number of its item."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.ledger import ItemKey
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.stage import Stage
from antflow._core.transition import Transition
from antflow._core.waits import Wait
from antflow.journal import schema
from antflow.journal.begin_run import Begun
from antflow.journal.cells import Cell
from antflow.journal.item_keys import item_key
from antflow.journal.kept_values import KeptValues
from antflow.journal.recall import ItemRow
from antflow.journal.writer import Writer


@dataclass(slots=True)
class Held:
    """An item in flight.

    Attributes:
        item: Its number in the journal.
        root: That of the item that was fed; ``None`` if this is it.
    """

    item: int
    root: int | None


class Completed(NamedTuple):
    """A visit after which an item goes on, as a `Transition` says it.

    Attributes:
        key: The item's name in its run.
        stage: Index of the stage.
        attempt: Number of the try, from 1; 0 if it was not tried.
        duration: Seconds of the visit.
        mono: When it ended, in seconds of the run's monotonic clock.
    """

    key: ItemKey
    stage: int
    attempt: int
    duration: float
    mono: float


Visit = Transition | Completed


class RunRows:
    """Turns what happens to items into rows, and hands these to the writer.

    Args:
        begun: The run.
        facts: What else is known of it.
        stages: The stages of its pipeline.
        values: Decides what is kept of values.
        writer: Writes the rows.

    Attributes:
        held: The items in flight.
    """

    def __init__(
        self,
        begun: Begun,
        facts: RunFacts,
        stages: Sequence[Stage],
        values: KeptValues,
        writer: Writer,
    ) -> None:
        self._run = begun.run
        self._stages = begun.stages
        self._next_item = begun.next_item
        self._facts = facts
        self._values = values
        self._writer = writer
        self._last = len(stages) - 1
        self._failed: dict[ItemKey, int] = {}
        self._retries_all = False
        self.held: dict[ItemKey, Held] = {}

    # Items

    def accept(self, envelope: Envelope) -> None:
        """An item enters that is not known yet."""
        given = self._values.given(envelope.position, envelope.input)
        self._hold(envelope, Held(self._new_item(), None), given)

    def go_on(self, key: ItemKey, row: ItemRow, *, had_ended: bool) -> None:
        """A known item goes on."""
        self.held[key] = Held(row.item, row.root)
        if had_ended:
            self._writer.put(schema.FORGET_OUTCOME, {"item": row.item})

    def begin_again(self, envelope: Envelope, row: ItemRow) -> None:
        """A known item is run from the start: forget all that was known of it."""
        given = self._values.given(envelope.position, envelope.input)
        for statement in schema.FORGET:
            self._writer.put(statement, {"item": row.item})
        self._hold(envelope, Held(row.item, None), given)

    def forget_made(self, row: ItemRow) -> None:
        """An item that was made from another is made again."""
        for statement in schema.FORGET_MADE:
            self._writer.put(statement, {"item": row.item})

    def complete(self, row: ItemRow, envelope: Envelope) -> None:
        """A known item had come out of the last stage when the program was killed."""
        value = self._values.result(envelope.position, envelope.value)
        self._put_completed(row.item, envelope.position, value)

    def made(self, made: Transition, value: Any) -> Wait:
        """An item was made from another."""
        parent = self.held.get((made.seq, made.branch[:-1]))
        if parent is None:
            return None
        root = parent.item if parent.root is None else parent.root
        held = Held(self._new_item(), root)
        data = self._values.result(made.stage, value, is_made=True)
        self._put_item(held, made.item_id, made.branch, made.stage, (data, b""))
        if made.stage == self._last:
            self._put_completed(held.item, made.stage, data)
        else:
            self.held[made.key] = held
        return self._writer.durable()

    # Steps

    def result(self, step: Visit, value: Any) -> Wait:
        """An item came out of a stage, and goes on to the next."""
        row = (
            self.held[step.key].item,
            self._stages[step.stage],
            self._values.result(step.stage, value),
            step.attempt,
            step.duration,
            self._run,
        )
        self._writer.put(schema.RESULT, row)
        return self._writer.durable()

    def attempt(self, step: Transition) -> None:
        """A try failed."""
        assert step.error is not None
        row = (
            self.held[step.key].item,
            self._stages[step.stage],
            step.attempt,
            step.task,
            step.duration,
            self._values.error(step.stage, step.error),
            self._facts.timestamp(step.mono),
            self._run,
        )
        self._writer.put(schema.ATTEMPT, row)

    def checkpoint(self, envelope: Envelope, value: Any) -> Wait:
        """A task keeps a value for later tries."""
        stage = envelope.position
        data = self._values.checkpoint(stage, value)
        row = (self.held[envelope.key].item, self._stages[stage], data, self._run)
        self._writer.put(schema.CHECKPOINT, row)
        return self._writer.durable(0)

    # Ends

    def completed(self, step: Visit, value: Any) -> Wait:
        """An item came out of the last stage."""
        return self._end(step, "completed", self._values.result(step.stage, value))

    def failed(self, step: Transition) -> Wait:
        """An item failed."""
        assert step.error is not None
        error = self._values.error(step.stage, step.error)
        item = self._failed[step.key] = self.held[step.key].item
        if self._retries_all:
            self._writer.put(schema.TO_RETRY, (item, self._run))
        return self._end(step, "failed", None, error)

    def dropped(self, step: Transition) -> Wait:
        """An item was dropped."""
        return self._end(step, "dropped", None)

    def expanded(self, step: Transition, count: int) -> Wait:
        """An item became this many others."""
        return self._end(step, "expanded", str(count))

    def retry_later(self, keys: Iterable[ItemKey] | None) -> None:
        """Failed items are run again in a later run; with ``None`` all, and those that yet fail.

        The outcome of one that has just failed comes after this, or not at all.
        """
        if keys is None:
            self._retries_all = True
            keys = [*self._failed]
        for key in keys:
            item = self._failed.get(key)
            if item is None and (held := self.held.get(key)) is not None:
                item = held.item
            if item is not None:
                self._writer.put(schema.TO_RETRY, (item, self._run))

    def end_run(self, how: RunEnd) -> None:
        """The run is over."""
        error = None if how.error is None else self._values.run_error(how.error)
        self._writer.put(schema.END_RUN, (how.timestamp, how.how, error, self._run))

    # Inside

    def _new_item(self) -> int:
        number = self._next_item
        self._next_item += 1
        return number

    def _hold(self, envelope: Envelope, held: Held, given: tuple[Cell | None, bytes]) -> None:
        self.held[envelope.key] = held
        self._put_item(held, envelope.id, (), envelope.position, given)

    def _put_item(
        self,
        held: Held,
        key: Any,
        branch: tuple[int, ...],
        stage: int,
        given: tuple[Cell | None, bytes],
    ) -> None:
        row = (
            held.item,
            item_key(key),
            held.root,
            "/".join(map(str, branch)),
            self._stages[stage],
            *given,
            self._run,
        )
        self._writer.put(schema.ITEM, row)

    def _put_completed(self, item: int, stage: int, value: Cell) -> None:
        """Write an outcome that is not the end of a visit."""
        now = self._facts.started_wall
        row = (item, "completed", self._stages[stage], value, 0, 0.0, None, now, self._run)
        self._writer.put(schema.OUTCOME, row)

    def _end(self, step: Visit, outcome: str, value: Cell | None, error: str | None = None) -> Wait:
        row = (
            self.held.pop(step.key).item,
            outcome,
            self._stages[step.stage],
            value,
            step.attempt,
            step.duration,
            error,
            self._facts.timestamp(step.mono),
            self._run,
        )
        self._writer.put(schema.OUTCOME, row)
        return self._writer.durable()
