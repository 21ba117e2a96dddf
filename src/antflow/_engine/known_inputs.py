"""Counts the items that ended in an earlier run, if only their number is needed.

Without ``collect_results``, nothing in a run reads the result of such an item: it is one more in
the counts. So a run that finds a million items in its journal makes no envelopes for them, and
keeps no ids. Which ids were given is known to the memory then, and `Identity` asks it.

Items that were taken from a source together all go the usual way if one of their ids is neither a
str nor an int, was given before, or cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.errors import PipelineError
from antflow._core.foreign import asked
from antflow._core.items import Key, field_reader
from antflow._core.ports import Memory
from antflow._engine.identity import Identity
from antflow._engine.run import Run
from antflow._engine.supervisor import Supervisor

FEWEST = 4
"""For fewer items, it does not pay."""


class KnownInputs:
    """Makes the envelopes of one run, but for items that are only counted.

    Args:
        run: The run.
        supervisor: Told if the memory cannot be read.
        identity: Gives items their ids.
        memory: Knows items of earlier runs.
    """

    def __init__(
        self, run: Run, supervisor: Supervisor, identity: Identity, memory: Memory
    ) -> None:
        self._recalled = run.ledger.recalled
        self._supervisor = supervisor
        self._identity = identity
        self._memory = memory
        self._has_counted = False

    def envelopes(
        self,
        raws: Sequence[Any],
        stage: int = 0,
        priority: int = DEFAULT_PRIORITY,
        key: Key | None = None,
    ) -> list[Envelope]:
        """Count the items that had ended, and make envelopes for the others.

        See `Identity.envelopes`.

        Raises:
            PipelineError: The memory cannot be read; the run ends with that.
        """
        identity = self._identity
        if len(raws) < FEWEST or not self._memory.knows_items:
            return identity.envelopes(raws, stage, priority, key)
        key = identity.key if key is None else key
        answers = None if key is None else _Answers(key)
        ids = _brought_ids(raws) if answers is None else answers.to(raws)
        again = None if answers is None else answers.again
        others = self._others(ids, raws, stage)
        if others is None:
            return identity.envelopes(raws, stage, priority, again)
        envelopes: list[Envelope] = []
        end = 0
        for begin, count in others:
            identity.pass_over(begin - end)
            if answers is not None:
                answers.next = begin
            end = begin + count
            envelopes += identity.envelopes(raws[begin:end], stage, priority, again)
        identity.pass_over(len(raws) - end)
        return envelopes

    def _others(
        self, ids: Sequence[Any], raws: Sequence[Any], stage: int
    ) -> Sequence[tuple[int, int]] | None:
        """Count the items that had ended.

        Returns:
            Where the others are: ``(index of the first, how many)``. ``None`` = nothing was
            counted.
        """
        plain = _plain_ids(ids, raws, self._memory.id_of)
        if len(plain) < len(raws) or not self._identity.are_free(plain):
            return None
        try:
            counted = self._memory.count_settled(plain, raws, stage)
        except Exception as error:
            self._supervisor.stop_intake(error)
            raise PipelineError("the store could not be read") from error
        if counted is None:
            return None
        if not self._has_counted:
            self._has_counted = True
            self._identity.ask(self._was_counted)
        for outcome, count in counted.ended.items():
            self._recalled.add(outcome, is_input=True, count=count)
        return counted.others

    def _was_counted(self, item_id: Any) -> bool:
        try:
            return self._memory.was_counted(item_id)
        except Exception as error:
            self._supervisor.stop_intake(error)
            return False


class _Answers:
    """The answers of a user's function about items: it is asked once for each.

    Args:
        key: The function, or the name of a field.

    Attributes:
        next: Index of the item that is asked for again next.
    """

    def __init__(self, key: Key) -> None:
        self._read: Callable[[Any], Any] = field_reader(key) if isinstance(key, str) else key
        self._ids: list[Any] = []
        self._error: BaseException | None = None
        self.next: int = 0

    def to(self, raws: Sequence[Any]) -> Sequence[Any]:
        """The ids of the items, or of those before the first that raises."""
        try:
            self._ids.extend(map(self._read, raws))
        except BaseException as error:  # why: `again` raises it
            self._error = error
        return self._ids

    def again(self, raw: Any) -> Any:
        """The id of the next item."""
        index = self.next
        self.next += 1
        if index < len(self._ids):
            return self._ids[index]
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._read(raw)


def _brought_ids(raws: Sequence[Any]) -> list[Any]:
    """The ids that items bring; ``None`` for one that brings none."""
    return [_id_in(raw) if issubclass(type(raw), dict) else None for raw in raws]


def _id_in(raw: Any) -> Any:
    """The id in a dict. Of one of the user's own class it is not asked here."""
    return asked(dict.get, raw, "id", instead=_NOT_PLAIN) if type(raw) is dict else _NOT_PLAIN


def _plain_ids(
    ids: Sequence[Any], raws: Sequence[Any], id_of: Callable[[Any], Any]
) -> Sequence[str | int]:
    """The ids of items, or of those before the first whose id is neither a str nor an int."""
    if len(ids) == len(raws) and all(type(each) is str or type(each) is int for each in ids):
        return ids
    plain: list[str | int] = []
    for given, raw in zip(ids, raws, strict=False):
        kind = type(given)
        if kind is str or kind is int:
            plain.append(given)
        elif given is None and (made := asked(id_of, raw, instead=None)) is not None:
            plain.append(made)
        else:
            break
    return plain


_NOT_PLAIN = object()
