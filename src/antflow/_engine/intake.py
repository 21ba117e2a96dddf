"""From raw items to envelopes in the first channel: identity, admission, backpressure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.errors import PipelineError
from antflow._core.ports import Source, Wait
from antflow._core.text import clean, safe_repr, safe_str
from antflow._engine.recorder import discard

if TYPE_CHECKING:
    from antflow._engine.run import Run

logger = logging.getLogger("antflow")

LARGEST_BATCH = 1000
"""Most items taken in at a time for an unbounded channel."""


class Intake:
    """Takes items in for one run.

    The intake *has ended* when its source is exhausted or the run was joined: then only the run's
    own tasks and callbacks can still feed it. It *is closed* when nobody can.

    Args:
        run: The run.
        next_id: Gives running integer ids to items that bring none.
    """

    def __init__(self, run: Run, next_id: Callable[[], int]) -> None:
        self._run = run
        self._next_id = next_id
        self._seq = 0
        self._given: set[Any] = set()
        self._first_number: int | None = None
        self._last_number = -1
        self._warned = False
        self.source: Source | None = None
        self._is_pulling = False
        self._announced: dict[int, Sequence[Envelope]] = {}
        self._is_sealed = False
        self.has_ended = False
        self.is_closed = False

    # Pulling, for run() and stream()

    @property
    def is_hungry(self) -> bool:
        """Whether a worker of the first stage that has nothing to do should `pull`."""
        return self.source is not None and not self._is_pulling and not self.is_closed

    async def pull(self) -> None:
        """Fill the first channel from the source, and close the intake when that has ended."""
        assert self.source is not None
        try:
            raws = self.source.take(self.batch_size(0))
        except Exception as error:
            self._run.stop_intake(error)
            return
        if not raws:
            self._run.close_intake()
            return
        self._is_pulling = True
        try:
            if (wait := self.admit(self.envelopes(raws), 0)) is not None:
                await wait
        except PipelineError:
            return  # the store failed, or the run has ended meanwhile; it is all noted
        finally:
            self._is_pulling = False
        # Others have a turn: an endless source and tasks that never wait must not starve them.
        await self._run.breathe()

    # Admission, for all

    def batch_size(self, stage: int) -> int:
        """How many items to take in at a time."""
        if self._run.stages[stage].recorder.tells_starts:
            return 1  # each item enters as soon as its own event was delivered
        channel = self._run.stages[stage].channel
        return (
            LARGEST_BATCH if channel.capacity is None else max(channel.capacity - len(channel), 1)
        )

    def envelopes(
        self, raws: Iterable[Any], stage: int = 0, priority: int = DEFAULT_PRIORITY
    ) -> list[Envelope]:
        """Give items their identity.

        A dict with an ``"id"`` brings its own; its value is its ``"value"`` or the whole dict, and
        its other keys are its metadata. All others get a running number, which counts every item.
        """
        envelopes: list[Envelope] = []
        given, next_id, seq = self._given, self._next_id, self._seq
        for raw in raws:
            number = next_id()
            if isinstance(raw, dict) and raw.get("id") is not None:
                item_id, metadata = self._own_id(raw["id"]), dict(raw)
                del metadata["id"]
                value = metadata.pop("value", raw)
            else:
                item_id, value, metadata = number, raw, {}
                if given and number in given:
                    item_id = self._apart(number)
                if self._first_number is None:
                    self._first_number = number
                self._last_number = number
            envelopes.append(Envelope(seq, item_id, value, metadata, raw, priority, stage))
            seq += 1
        self._seq = seq
        return envelopes

    def admit(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Record items and put them into their stage's channel.

        Returns:
            ``None`` if they are in, else what must be awaited until they are.
        """
        if self._run.store is not None:
            return self._admit_slowly(envelopes, stage)
        wait = self._record(envelopes, stage)
        return None if wait is None else self._put_after(wait, envelopes, stage)

    def release(self, item_id: Any) -> None:
        """An item left the run: its id may come again."""
        self._given.discard(item_id)

    def seal(self) -> list[Envelope]:
        """Let nothing enter any more, not even what waits to be admitted; for the end of a run.

        Returns:
            The items that were recorded and not put yet, for the run to settle.
        """
        self._is_sealed = True
        envelopes = [envelope for batch in self._announced.values() for envelope in batch]
        self._announced.clear()
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

    def _put(self, envelopes: Sequence[Envelope], stage: int) -> None:
        channel = self._run.stages[stage].channel
        for envelope in envelopes:
            channel.put(envelope, envelope.priority)

    # Identity

    def _own_id(self, given: Any) -> Any:
        try:
            is_taken = self._is_taken(given)
        except Exception:
            given = safe_str(given)  # what cannot be hashed or compared goes by its text
            is_taken = given in self._given
        item_id = self._apart(given) if is_taken else given
        self._given.add(item_id)
        return item_id

    def _is_taken(self, item_id: Any) -> bool:
        if item_id in self._given:
            return True
        if self._first_number is None:
            return False
        # A number in this range may have gone to an item that brought its own id, to another run of
        # the pipeline, or have left: then a rename is needless, and does no harm.
        try:  # 3, 3.0 and Decimal(3) are one key
            return bool(
                self._first_number <= item_id <= self._last_number and int(item_id) == item_id
            )
        except Exception:
            return False

    def _apart(self, item_id: Any) -> str:
        if not self._warned:
            self._warned = True
            logger.warning(
                "item id %s came twice in one run; the later one is renamed (more may follow)",
                clean(safe_repr(item_id)),
            )
        number = 2
        while (renamed := f"{safe_str(item_id)}#{number}") in self._given:
            number += 1
        self._given.add(renamed)
        return renamed
