"""The identity of items: from raw items to envelopes whose ids are unique in the run.

An item brings its own id or gets a running number. Ids are compared with those given before; where
results are not kept, with those in flight only, so a run may go on for ever.

All ids of a run are different, so an id that is taken is changed to a name like it. An item is a
duplicate of another only if both brought their ids: an id that the run made, be it a running number
or the name of a child, says nothing about what the item is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from math import inf
from typing import Any, Literal

from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.foreign import asked, id_of, is_a, is_hashable, key_of
from antflow._core.items import Key, Returned, field_reader
from antflow._core.log import warn
from antflow._core.result import PipelineResult, branch_of, fate_of, first_accepted
from antflow._core.run_errors import DuplicateItemError
from antflow._core.text import clean, safe_repr, safe_str
from antflow._core.tracebacks import trimmed
from antflow._engine.run import Run
from antflow._engine.user_errors import failure_of

Duplicates = Literal["number", "error", "skip"]

MOST_ROWS = 1000
"""How many runs of consecutive numbers are remembered where no results are kept: the latest."""

MOST_NAMES = 1000
"""How many duplicate ids, beyond those in flight, always have their next name remembered."""

NO_NUMBER = -2
"""No running number, nor the one before the first."""

NUMBER = re.compile("[0-9]{1,18}")

_REFUSED = object()
_NO_KEY = object()


class Identity:
    """Gives the items of one run their identity.

    Args:
        run: The run.
        duplicates: What to do with an item whose id is taken: rename, refuse, or leave it out.
        first: Sequence number of the first item.
        key: What gives an item's id, where it was not fed with a key of its own.
        id_of: What gives the id of an item that brings none; ``None`` = a running number.

    Attributes:
        key: The same.
        count: Sequence number of the next item.
        refused: Why the item after the last of `envelopes` was refused.
        left_out: The id of the item that was left out last, with ``duplicates="skip"``.
    """

    def __init__(
        self,
        run: Run,
        duplicates: Duplicates = "number",
        first: int = 0,
        key: Key | None = None,
        id_of: Callable[[Any], Any] | None = None,
    ) -> None:
        self.key: Key | None = key
        self._id_of = id_of
        self._run = run
        self._next_id = count(first).__next__
        self._duplicates = duplicates
        self.count: int = first
        self.refused: DuplicateItemError | None = None
        self.left_out: Any = None
        self._given: set[Any] = set()
        # Those that items brought, where it matters who chose an id; where all are renamed, all.
        self._brought: set[Any] = self._given if duplicates == "number" else set()
        self._brought_as: dict[Any, Any] = {}
        self._made: list[str] = []
        self._reserved: set[Any] = set()
        self._numbers: list[tuple[int, int]] = []
        self._next_names: dict[Any, int] = {}
        self._has_warned = False

    def envelopes(
        self,
        raws: Iterable[Any],
        stage: int = 0,
        priority: int = DEFAULT_PRIORITY,
        key: Key | None = None,
    ) -> list[Envelope]:
        """Give items their identity.

        A key gives the id, and the item is the value. Without a key, a dict with an ``"id"`` brings
        its own; its value is its ``"value"`` or the whole dict, and its other keys are its
        metadata. All others, and those whose id is ``None``, get a running number that no item has
        yet; every item counts. An item that raises when it is read gets one too, with what it
        raised as its ``error``.
        """
        envelopes: list[Envelope] = []
        given, brought, reserved = self._given, self._brought, self._reserved
        next_id, seq = self._next_id, self.count
        forgets = self._forgets_numbers
        key = self.key if key is None else key
        read = field_reader(key) if isinstance(key, str) else key
        id_of, made_id = self._id_of, None
        first = last = NO_NUMBER  # of the numbers in a row that became ids
        for raw in raws:
            number = next_id()
            value, metadata, own_id, error = raw, None, None, None
            if read is not None:
                own_id, error = _asked(read, raw)
            elif issubclass(type(raw), dict):
                value, metadata, own_id, error = _read(raw)
            if id_of is not None:
                made_id = None
                if own_id is None and error is None:
                    made_id, error = _asked(id_of, raw)
            if own_id is not None or made_id is not None:
                if last != NO_NUMBER:
                    self._note_numbers(first, last)
                    first = last = NO_NUMBER
                if own_id is None:
                    item_id = self._made_id(made_id, is_expected=True)
                else:
                    item_id = self._own_id(own_id, raw)
                if item_id is _REFUSED:
                    if self.refused is not None:
                        break
                    continue
            else:
                while (
                    (given and number in given)
                    or (brought and number in brought)
                    or (reserved and number in reserved)
                ):
                    number = next_id()
                item_id = seq if number == seq else number  # one object for both
                if forgets:
                    given.add(number)
                if number != last + 1:
                    self._note_numbers(first, last)
                    first = number
                last = number
            envelope = Envelope(seq, item_id, value, metadata, raw, priority, stage)
            if error is not None:
                envelope.error = error
            elif metadata is not None and issubclass(type(raw), Returned):
                envelope.fate = raw.fate
                envelope.children = raw.fate.children  # as in `again`
            envelopes.append(envelope)
            seq += 1
        self._note_numbers(first, last)
        self.count = seq
        self._set_deadlines(envelopes)
        return envelopes

    def again(self, result: PipelineResult[Any], stages: Sequence[str]) -> Envelope:
        """An envelope for an item of an earlier run, bound for the stage it ended in."""
        envelope = Envelope(
            self.count,
            self._earlier_id(result),
            result.value,
            dict(result.metadata),
            result.input,
            position=stages.index(result.stage),
        )
        envelope.fate = first_accepted(result)
        if (children := fate_of(result).children) > 0:
            envelope.children = children  # these were made from it already, and are not made again
        self.count += 1
        self._set_deadlines([envelope])
        return envelope

    def ask(self, was_given: Callable[[Any], bool]) -> None:
        """From now on, ask a function too whether an id was given already."""
        renames = self._brought is self._given
        self._given = _AskedIds(self._given, was_given)
        self._brought = self._given if renames else _AskedIds(self._brought, was_given)

    def are_free(self, ids: Sequence[str | int]) -> bool:
        """Whether these ids are all different, and none is known here to have been given."""
        are_different = len(set(ids)) == len(ids)
        if not (are_different and self._given.isdisjoint(ids) and self._brought.isdisjoint(ids)):
            return False
        return not (self._numbers or self._made)

    def pass_over(self, number: int) -> None:
        """Leave out items: they need no envelopes, and have no number that is an id."""
        if number:
            self.count += number
            self._next_id = count(self._next_id() + number).__next__

    def reserve(self, ids: Iterable[Any]) -> None:
        """Give no running number that is one of these ids, or begins one, as 7 begins "7/0"."""
        for each in ids:
            self._reserved.add(key_of(self._hashable(each)))
            number = safe_str(each).partition("/")[0]
            if NUMBER.fullmatch(number):
                self._reserved.add(int(number))

    def take_over(self, envelopes: Sequence[Envelope]) -> None:
        """Note items whose identity comes from a run that continues in this one."""
        self._set_deadlines(envelopes)
        self._given.update(key_of(envelope.id) for envelope in envelopes)

    def child_id(self, parent: str, number: int) -> str:
        """The id of an item made from another.

        Args:
            parent: The other's id, as text.
            number: The item's number among those made from it.
        """
        # As `_made_id`: text can be hashed, and is equal to no running number.
        item_id = f"{parent}/{number}"
        if not (self._given or self._brought) and self._run.keeps_results:
            # All ids so far are running numbers, or were made from them: they are all different.
            self._made.append(item_id)
            return item_id
        if item_id in self._given or item_id in self._brought:
            return self._apart(item_id)
        self._given.add(item_id)
        return item_id

    def release(self, item_id: Any) -> None:
        """An item left the run: its id may be used again.

        Not where a memory knows the items: a later one would be taken for this one.
        """
        if self._id_of is not None:
            return
        if not (self._given or self._brought):
            return
        key = key_of(item_id)
        if key in self._given:
            self._given.discard(key)
            key = self._brought_as.pop(key, _NO_KEY) if self._brought_as else _NO_KEY
        self._brought.discard(key)

    # Inside

    def _note_made(self) -> None:
        """Note the ids made from running numbers: an item brings an id that may equal one."""
        self._given.update(self._made)
        self._made.clear()

    def _own_id(self, given: Any, raw: Any) -> Any:
        """The id of an item that comes with one, or `_REFUSED`."""
        if self._made:
            self._note_made()
        renames = self._brought is self._given
        if (
            type(given) is str
            and given not in self._given
            and given not in self._brought
            and (renames or not is_a(raw, Returned))
        ):
            self._brought.add(given)  # most ids: equal to no running number
            return given
        item_id = own_id = self._hashable(given)
        if not renames:
            if is_a(raw, Returned):
                if raw.own_id is None:
                    return self._made_id(item_id)
                own_id = self._hashable(raw.own_id)
            if key_of(own_id) in self._brought:
                if self._duplicates == "error":
                    self.refused = duplicate_error(own_id)
                else:
                    self.left_out = own_id
                    self._run.skipped += 1
                return _REFUSED
        return self._brought_id(item_id, own_id)

    def _earlier_id(self, result: PipelineResult[Any]) -> Any:
        """The id of an item that goes on from an earlier run: never refused."""
        if self._made:
            self._note_made()
        item_id = self._hashable(result.id)
        own_id = self._id_in_input(result) if self._duplicates != "number" else item_id
        return self._made_id(item_id) if own_id is None else self._brought_id(item_id, own_id)

    def _id_in_input(self, result: PipelineResult[Any]) -> Any:
        """The id that an item brought to an earlier run, or ``None``, as far as can be told."""
        if branch_of(result):
            return None
        raw, key = result.input, self.key
        if key is not None:
            own_id, _ = _asked(field_reader(key) if isinstance(key, str) else key, raw)
        else:
            own_id = _read(raw)[2] if is_a(raw, dict) else None
        if own_id is None and type(result.id) is not int:  # with another key than this run's
            own_id = result.id
        return None if own_id is None else self._hashable(own_id)

    def _made_id(self, wanted: Any, *, is_expected: bool = False) -> Any:
        """``wanted``, or a name like it if that is taken, for an item that brought no id."""
        if self._is_taken(wanted):
            return self._apart(wanted, is_expected=is_expected)
        self._given.add(key_of(wanted))
        return wanted

    def _brought_id(self, wanted: Any, own_id: Any) -> Any:
        """``wanted``, or a name like it if that is taken, for an item that brought ``own_id``."""
        if self._brought is self._given:
            return self._made_id(wanted)
        key = key_of(own_id)
        if key == key_of(wanted) and not self._is_taken(wanted):
            self._brought.add(key)
            return wanted
        item_id = self._made_id(wanted)
        if key not in self._brought:  # else it is that of another item, which goes on too
            self._brought.add(key)
            self._brought_as[key_of(item_id)] = key
        return item_id

    def _hashable(self, given: Any) -> Any:
        """An id that can be a key: an unhashable one goes by its text."""
        return given if is_hashable(given) else safe_str(given)

    def _is_taken(self, item_id: Any) -> bool:
        key = key_of(item_id)
        if key in self._given or key in self._brought:
            return True
        return bool(self._numbers) and asked(self._is_number, item_id, instead=False)

    def _is_number(self, item_id: Any) -> bool:
        """Whether a running number that became an id is equal to this id: 3.0 and Decimal(3) to 3.

        Raises:
            Exception: It cannot be compared.
        """
        number = hash(item_id)  # equal objects share a hash, and a running number is its own
        index = bisect_right(self._numbers, (number, inf)) - 1
        return index >= 0 and number <= self._numbers[index][1] and bool(item_id == number)

    def _note_numbers(self, first: int, last: int) -> None:
        """Remember which running numbers became ids: mostly one unbroken sequence."""
        if last == NO_NUMBER or self._forgets_numbers:
            return
        if self._numbers and self._numbers[-1][1] + 1 == first:
            first, _ = self._numbers.pop()
        self._numbers.append((first, last))
        if not self._run.keeps_results and len(self._numbers) > MOST_ROWS:
            del self._numbers[0]

    @property
    def forgets_ids(self) -> bool:
        """Whether ids are compared with those in flight only.

        Not with a store that knows items by their ids: the second of two equal items must not be
        taken for the first, which has left.
        """
        return not self._run.keeps_results and self._id_of is None

    @property
    def _forgets_numbers(self) -> bool:
        """Whether running numbers are ids like others, forgotten when their item leaves.

        Not where duplicate ids are renamed: then a sequence of numbers costs next to nothing, and a
        run's items all have different ids, for a tracker too.
        """
        return not self._run.keeps_results and self._duplicates != "number"

    def _set_deadlines(self, envelopes: Sequence[Envelope]) -> None:
        if self._run.item_timeout is not None:
            deadline = self._run.timers.unheld() + self._run.item_timeout
            for envelope in envelopes:
                envelope.deadline = deadline

    def _apart(self, item_id: Any, *, is_expected: bool = False) -> str:
        key, given, brought = key_of(item_id), self._given, self._brought
        if not (self._has_warned or is_expected):
            self._has_warned = True
            warn(
                "item id %s %s; the later one is renamed (more may follow)",
                clean(safe_repr(item_id)),
                "appears twice in one run" if key in brought else "is also an id made by the run",
            )
        number = self._next_names.get(key, 2)
        while (renamed := f"{safe_str(item_id)}#{number}") in given or renamed in brought:
            number += 1
        self._next_names[key] = number + 1
        if not self._run.keeps_results and len(self._next_names) > self._most_names():
            # The names of an id that has left may start over.
            names = self._next_names.items()
            self._next_names = {
                name: number for name, number in names if name in given or name in brought
            }
        self._given.add(renamed)
        return renamed

    def _most_names(self) -> int:
        in_flight = len(self._given) + len(self._brought)
        return MOST_NAMES + 2 * in_flight  # so that looking through them is rare


class _AskedIds(set[Any]):
    """Ids that were given: those in the set, and those of which a function says so.

    Args:
        ids: Those in the set.
        was_given: The function of an id.
    """

    def __init__(self, ids: Iterable[Any], was_given: Callable[[Any], bool]) -> None:
        super().__init__(ids)
        self._was_given = was_given

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or self._was_given(id_of(key))

    def __bool__(self) -> bool:
        return True


def duplicate_error(item_id: Any, but: str = "") -> DuplicateItemError:
    """The error for an item whose id is that of another.

    Args:
        item_id: The id.
        but: More about it, to be put at the end.
    """
    return DuplicateItemError(f"item id {clean(safe_repr(item_id))} appears twice in one run{but}")


def _asked(read: Callable[[Any], Any], raw: Any) -> tuple[Any, Exception | None]:
    """An item's id as a function of the user gives it, and the error if that raised."""
    try:
        return read(raw), None
    except BaseException as error:  # why: as in `_read`
        return None, trimmed(failure_of(error, "intake"))


def _read(raw: dict[Any, Any]) -> tuple[Any, dict[Any, Any] | None, Any, Exception | None]:
    """The value, metadata and id of a dict that was fed, and the error if reading it raised.

    Its methods, and those of its keys, may be the user's own.
    """
    try:
        if "id" not in raw:
            return raw, None, None, None
        if type(raw) is dict and len(raw) == 2 and "value" in raw:  # most of those with an id
            return raw["value"], None, raw["id"], None
        metadata = dict(raw)
        own_id = metadata.pop("id")
        return metadata.pop("value", raw), metadata, own_id, None
    except BaseException as error:  # why: a `CancelledError`, too, is its own where nothing awaits
        return raw, None, None, trimmed(failure_of(error, "intake"))
