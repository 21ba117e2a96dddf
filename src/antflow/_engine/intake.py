"""From raw items to envelopes in the first channel: identity, admission, backpressure."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.errors import DuplicateItemError, PipelineError
from antflow._core.foreign import asked, is_hashable, key_of
from antflow._core.log import warn
from antflow._core.result import PipelineResult
from antflow._core.text import clean, safe_repr, safe_str
from antflow._core.waits import Wait, discard
from antflow._engine.attempt import failure_of
from antflow._engine.source import IterableSource
from antflow._engine.tracebacks import trimmed

if TYPE_CHECKING:
    from antflow._engine.run import Run

Duplicates = Literal["number", "error", "skip"]

LARGEST_BATCH = 1000
"""Most items taken in at a time for an unbounded channel."""

MOST_ROWS = 1000
"""Rows of running numbers that are remembered where no results are kept: the last ones."""

MOST_NAMES = 1000
"""Ids that came twice, beyond those in flight, whose next names are remembered in any case."""

_REFUSED = object()


class Intake:
    """Takes items in for one run.

    The intake *has ended* when its source is exhausted or the run was joined: then only the run's
    own tasks and callbacks can still feed it. It *is closed* when nobody can.

    Args:
        run: The run.
        next_id: Gives running integer ids to items that bring none.
        duplicates: What becomes of an item whose id is taken: renamed, refused, or left out.
        first: Sequence number of the first item.

    Attributes:
        skipped: Items left out because their id was taken.
        refused: Why the item after the last of `envelopes` was refused.
        ended_mono: When it ended (loop time); ``None`` while it has not.
    """

    def __init__(
        self,
        run: Run,
        next_id: Callable[[], int],
        duplicates: Duplicates = "number",
        first: int = 0,
    ) -> None:
        self._run = run
        self._next_id = next_id
        self._duplicates = duplicates
        self._seq = first
        self._given: set[Any] = set()
        self._numbers: list[tuple[int, int]] = []
        self._next_names: dict[Any, int] = {}
        self._warned = False
        self.skipped: int = 0
        self.refused: DuplicateItemError | None = None
        self.source: IterableSource | None = None
        self._is_pulling = False
        self._announced: dict[int, Sequence[Envelope]] = {}
        self._unread: deque[Envelope] = deque()
        self._failing: asyncio.Task[None] | None = None
        self._is_sealed = False
        self.ended_mono: float | None = None
        self.is_closed = False

    @property
    def has_ended(self) -> bool:
        """Whether no more comes from the source, or by hand."""
        return self.ended_mono is not None

    def end(self) -> None:
        """No more comes from the source, or by hand. May be called twice."""
        if self.ended_mono is None:
            self.ended_mono = self._run.timers.now()

    # Pulling, for run() and stream()

    @property
    def is_hungry(self) -> bool:
        """Whether a worker of the first stage that has nothing to do should `pull`."""
        return (
            self.source is not None
            and not self._is_pulling
            and not self.is_closed
            and self.window_room() > 0
        )

    def window_room(self) -> float:
        """How many more items the order of the results allows; unbounded where it is free."""
        reorder = self._run.reorder
        return inf if reorder is None else max(reorder.room(self._seq), 0)

    async def pull(self) -> None:
        """Fill the first channel from the source, and close the intake when that has ended."""
        assert self.source is not None
        try:
            raws = self._run.take_from(self.source, self.batch_size(0))
        except Exception as error:
            self._run.stop_intake(error)
            return
        except BaseException as error:  # why: it ends the run, in order; see `Endings.interrupt`
            self._run.fail(error)
            return
        if not raws:
            self._run.close_intake()
            return
        self._is_pulling = True
        try:
            envelopes = self.envelopes(raws)
            refused, self.refused = self.refused, None
            if envelopes and (wait := self.admit(envelopes, 0)) is not None:
                await wait
            if refused is not None:
                self._run.stop_intake(refused)
        except PipelineError:
            return  # the store failed, or the run has ended meanwhile; it is all noted
        finally:
            self._is_pulling = False
        # Others have a turn: an endless source and tasks that never wait must not starve them.
        await self._run.breathe()

    # Admission, for all

    def batch_size(self, stage: int) -> int:
        """How many items to take in at a time."""
        if self._run.stages[stage].recorder.may_hold:
            return 1  # each item enters as soon as its own event was delivered
        channel = self._run.stages[stage].channel
        size = LARGEST_BATCH
        if channel.capacity is not None:
            size = max(channel.capacity - len(channel), 1)
        return int(min(size, max(self.window_room(), 1)))

    def envelopes(
        self, raws: Iterable[Any], stage: int = 0, priority: int = DEFAULT_PRIORITY
    ) -> list[Envelope]:
        """Give items their identity.

        A dict with an ``"id"`` brings its own; its value is its ``"value"`` or the whole dict, and
        its other keys are its metadata. All others, and those whose id is ``None``, get a running
        number, which counts every item. A dict that raises when it is read gets one too, and what
        it raised as its ``error``.
        """
        envelopes: list[Envelope] = []
        given, next_id, seq = self._given, self._next_id, self._seq
        forgets = self._forgets_numbers
        streak: tuple[int, int] | None = None  # numbers in a row that became ids
        for raw in raws:
            number = next_id()
            value, own_id, error = raw, None, None
            metadata: dict[Any, Any] = {}
            if issubclass(type(raw), dict):
                value, metadata, own_id, error = _read(raw)
            if own_id is not None:
                self._note_numbers(streak)
                streak = None
                item_id = self._own_id(own_id)
                if item_id is _REFUSED:
                    if self.refused is not None:
                        break
                    continue
            else:
                item_id = number
                if given and number in given:
                    item_id = self._apart(number)
                elif forgets:
                    given.add(number)
                if streak is None:
                    streak = (number, number)
                elif number == streak[1] + 1:
                    streak = (streak[0], number)
                else:  # another run of the pipeline took some
                    self._note_numbers(streak)
                    streak = (number, number)
            envelope = Envelope(seq, item_id, value, metadata, raw, priority, stage)
            if error is not None:
                envelope.error = error
            envelopes.append(envelope)
            seq += 1
        self._note_numbers(streak)
        self._seq = seq
        self._set_deadlines(envelopes)
        return envelopes

    def again(self, result: PipelineResult[Any], stages: Sequence[str]) -> Envelope:
        """An envelope for an item of an earlier run, for the stage it ended in."""
        envelope = Envelope(
            self._seq,
            self.free_id(result.id),
            result.value,
            dict(result.metadata),
            result.input,
            position=stages.index(result.stage),
        )
        if (children := getattr(result, "children", 0)) > 0:
            envelope.children = children  # so many were made of it, and are not made again
        self._seq += 1
        self._set_deadlines([envelope])
        return envelope

    def take_over(self, envelopes: Sequence[Envelope]) -> None:
        """Let items that the books have go on; listeners are told, and not waited for."""
        self._set_deadlines(envelopes)
        for envelope in envelopes:
            self._given.add(key_of(envelope.id))
            envelope.not_before = now = self._run.timers.now()
            discard(self._run.listeners.taken_over(envelope, now))
            self._run.stages[envelope.position].channel.put(envelope, envelope.priority)

    def free_id(self, wanted: Any) -> Any:
        """``wanted``, or a name like it if that is taken."""
        item_id = self._hashable(wanted)
        if self._is_taken(item_id):
            return self._apart(item_id)
        self._given.add(key_of(item_id))
        return item_id

    def admit(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Record items and put them into their stage's channel.

        Returns:
            ``None`` if they are in, else what must be awaited until they are.
        """
        if self._run.store is not None:
            return self._admit_slowly(envelopes, stage)
        wait = self._record(envelopes, stage)
        if wait is None:
            return self._until_unread_have_failed() if self._unread else None
        return self._put_after(wait, envelopes, stage)

    def release(self, item_id: Any) -> None:
        """An item left the run: its id may come again."""
        self._given.discard(key_of(item_id))

    def seal(self) -> list[Envelope]:
        """Let nothing enter any more, not even what waits to be admitted; for the end of a run.

        Returns:
            The items that were recorded and not put yet, for the run to settle.
        """
        self._is_sealed = True
        envelopes = [envelope for batch in self._announced.values() for envelope in batch]
        envelopes += self._unread
        self._announced.clear()
        self._unread.clear()
        return envelopes

    async def _admit_slowly(self, envelopes: Sequence[Envelope], stage: int) -> None:
        run = self._run
        assert run.store is not None
        try:
            if (wait := run.store.admit(envelopes)) is not None:
                await wait
        except asyncio.CancelledError:
            # They left the source, and perhaps are in the store: they must have an outcome.
            if not self._is_sealed and (wait := self._record(envelopes, stage)) is not None:
                discard(wait)
                self._put(envelopes, stage)
            raise
        except Exception as error:
            run.stop_intake(error)
            raise PipelineError("the store could not keep the items") from error
        if self._is_sealed:
            raise PipelineError("the run ended before the items were admitted")
        if (wait := self._record(envelopes, stage)) is not None:
            await self._put_after(wait, envelopes, stage)
        await self._until_unread_have_failed()

    def _record(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Record items and, if nobody has to be waited for, put them."""
        try:
            wait = self._run.stages[stage].recorder.admitted(envelopes, self._run.timers.now())
        except BaseException:  # a callback raised KeyboardInterrupt or its like
            self._put(envelopes, stage)
            raise
        if wait is None:
            self._put(envelopes, stage)
        return wait

    async def _put_after(self, wait: Wait, envelopes: Sequence[Envelope], stage: int) -> None:
        key = envelopes[0].sequence_id
        self._announced[key] = envelopes
        try:
            with self._run.delivery():
                if wait is not None:
                    await wait
        finally:  # also when cancelled meanwhile: they were recorded, so they must be put
            if self._announced.pop(key, None) is not None:
                self._put(envelopes, stage)
        await self._until_unread_have_failed()

    def _put(self, envelopes: Sequence[Envelope], stage: int) -> None:
        channel = self._run.stages[stage].channel
        for envelope in envelopes:
            if envelope.error is None:
                channel.put(envelope, envelope.priority)
            else:
                self._unread.append(envelope)
        if self._unread and (self._failing is None or self._failing.done()):
            # In a task of its own: the feeder may be gone before all of them are told.
            self._failing = self._run.spawn(self._fail_unread(), "unread items")

    async def _fail_unread(self) -> None:
        while self._unread:
            envelope = self._unread.popleft()
            await self._run.stages[envelope.position].endings.fail_unread(envelope)

    async def _until_unread_have_failed(self) -> None:
        failing = self._failing
        if failing is not None and failing is not asyncio.current_task():
            await asyncio.wait([failing])

    # Identity

    def _own_id(self, given: Any) -> Any:
        item_id = self._hashable(given)
        if self._duplicates != "number" and self._is_taken(item_id):
            if self._duplicates == "error":
                text = clean(safe_repr(item_id))
                self.refused = DuplicateItemError(f"item id {text} came twice in one run")
            else:
                self.skipped += 1
            return _REFUSED
        return self.free_id(item_id)

    def _hashable(self, given: Any) -> Any:
        """An id that can be a key: what cannot be hashed goes by its text."""
        return given if is_hashable(given) else safe_str(given)

    def _is_taken(self, item_id: Any) -> bool:
        if key_of(item_id) in self._given:
            return True
        return bool(self._numbers) and asked(self._is_number, item_id, instead=False)

    def _is_number(self, item_id: Any) -> bool:
        """Whether a running number that became an id is equal to this id: 3.0 and Decimal(3) to 3.

        Raises:
            Exception: It cannot be compared.
        """
        number = hash(item_id)  # what is equal has one hash, and a running number is its own
        index = bisect_right(self._numbers, (number, inf)) - 1
        return index >= 0 and number <= self._numbers[index][1] and bool(item_id == number)

    def _note_numbers(self, streak: tuple[int, int] | None) -> None:
        """Remember which running numbers became ids: most often one unbroken row."""
        if streak is None or self._forgets_numbers:
            return
        if self._numbers and self._numbers[-1][1] + 1 == streak[0]:
            streak = (self._numbers.pop()[0], streak[1])
        self._numbers.append(streak)
        if not self._run.keeps_results and len(self._numbers) > MOST_ROWS:
            del self._numbers[0]

    @property
    def _forgets_numbers(self) -> bool:
        """Whether running numbers are ids like others, forgotten when their item leaves.

        Not where an id that comes twice is renamed: then a row of numbers costs next to nothing,
        and two items of a run have different ids, for a tracker too.
        """
        return not self._run.keeps_results and self._duplicates != "number"

    def _set_deadlines(self, envelopes: Sequence[Envelope]) -> None:
        if self._run.item_timeout is not None:
            deadline = self._run.timers.unheld() + self._run.item_timeout
            for envelope in envelopes:
                envelope.deadline = deadline

    def _apart(self, item_id: Any) -> str:
        if not self._warned:
            self._warned = True
            warn(
                "item id %s came twice in one run; the later one is renamed (more may follow)",
                clean(safe_repr(item_id)),
            )
        key = key_of(item_id)
        number = self._next_names.get(key, 2)
        while (renamed := f"{safe_str(item_id)}#{number}") in self._given:
            number += 1
        self._next_names[key] = number + 1
        if not self._run.keeps_results and len(self._next_names) > self._most_names():
            # The names of an id that has left may start over.
            names = self._next_names.items()
            self._next_names = {name: number for name, number in names if name in self._given}
        self._given.add(renamed)
        return renamed

    def _most_names(self) -> int:
        return MOST_NAMES + 2 * len(self._given)  # so that looking through them is rare


def _read(raw: dict[Any, Any]) -> tuple[Any, dict[Any, Any], Any, Exception | None]:
    """The value, metadata and id of a dict that was fed, and the error if reading it raised.

    Its methods, and those of its keys, may be the user's own.
    """
    try:
        if "id" not in raw:
            return raw, {}, None, None
        metadata = dict(raw)
        own_id = metadata.pop("id")
        return metadata.pop("value", raw), metadata, own_id, None
    except Exception as error:
        return raw, {}, None, trimmed(error)
    except (asyncio.CancelledError, BaseExceptionGroup) as error:
        # Its own: a call that never awaits cannot be cancelled.
        return raw, {}, None, trimmed(failure_of(error, "intake"))
