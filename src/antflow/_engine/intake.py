"""Takes items in: pulled from an iterable, pushed by a feeder, or fed by hand.

The workers of the first stage pull from a source, a few items at a time. If something must be
awaited between two items, a separate task takes them instead: the *feeder*. All of them use the
same `Identity` and the same `Entrance`: an item is recorded, then listeners are told, then it is
put into a stage's channel. An item that was recorded is always put, even if the code that waits in
between is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextvars import Context, Token, copy_context
from math import inf
from typing import Any, Protocol

from antflow._core.cancellation import (
    absorb_requests,
    awaited_failure,
    cancel_requests,
    is_called_off,
)
from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.errors import PipelineError, WouldDeadlockError
from antflow._core.items import Key
from antflow._core.ports import Memory, Store
from antflow._core.recalled import Known
from antflow._core.result import PipelineResult
from antflow._core.waits import Wait, discard
from antflow._engine.channel import Channel
from antflow._engine.contexts import apart, in_context
from antflow._engine.current import current_seat
from antflow._engine.identity import Identity, duplicate_error
from antflow._engine.known_inputs import KnownInputs
from antflow._engine.limits.permits import slots_given_back
from antflow._engine.listeners import Listeners
from antflow._engine.recorder import Recorder
from antflow._engine.run import Run, current_run, stopped_by
from antflow._engine.settlement import Settlement
from antflow._engine.source import (
    AsyncSource,
    IterableSource,
    SourceWatch,
    clean_up,
    source_failure,
    tell_clean_up_failed,
)
from antflow._engine.supervisor import Supervisor
from antflow._engine.waiting import in_order

LARGEST_BATCH = 1000
"""The most items taken in at a time if the channel is unbounded."""

SLOWEST_CLOSE = 5.0
"""Seconds that a source's clean-up may take when intake stops."""

EXTRA_LANE = 10_000
"""How many items beyond its capacity a stage takes from tasks of its own and of later stages."""


class Entered(Protocol):
    """A stage as seen by items that enter it from outside."""

    @property
    def channel(self) -> Channel[Envelope]:
        """Where its items wait."""
        ...

    @property
    def recorder(self) -> Recorder:
        """Its recorder."""
        ...

    def fail_unread(self, envelope: Envelope) -> Coroutine[Any, Any, None]:
        """Settle an item that could not be read as failed; its ``error`` says why."""
        ...


class Entrance:
    """The way into the stages of one run.

    Args:
        run: The run.
        supervisor: Told of faults.
        settlement: Keeps the run from ending while listeners are told.
        listeners: Told of items that continue from an earlier run.
        store: Keeps the items before they enter, or ``None``.
        memory: The same, if it knows items of earlier runs.

    Attributes:
        stages: The stages, once they are made.
        at_once: How many items to take in at a time where each may be held by listeners: one if
            they have just held one, twice as many each time they have not.
    """

    def __init__(
        self,
        run: Run,
        supervisor: Supervisor,
        settlement: Settlement,
        listeners: Listeners,
        store: Store | None,
        memory: Memory | None,
    ) -> None:
        self._run = run
        self._supervisor = supervisor
        self._settlement = settlement
        self._listeners = listeners
        self._store = store
        self._memory = memory
        self.stages: Sequence[Entered] = ()
        self.at_once: int = 1
        self._announced: dict[int, tuple[Sequence[Envelope], deque[Envelope], int]] = {}
        self._unread: deque[Envelope] = deque()
        self._failing: asyncio.Task[None] | None = None
        self._is_sealed = False

    async def admit(self, envelopes: Sequence[Envelope], stage: int) -> None:
        """Admit items to a stage.

        Raises:
            PipelineError: The store could not keep them, or the run has ended meanwhile.
            Exception: A bug in the library; the run ends with it.
        """
        if not envelopes:
            self._note_free()
            return
        outside: Token[Run | None] | None = None
        if current_run.get() is not self._run:
            outside = current_run.set(self._run)  # code called meanwhile is inside this run
        try:
            if (wait := self.begin_to_admit(envelopes, stage)) is not None:
                await wait
        except PipelineError:
            raise
        except Exception as error:
            self._supervisor.crash(error)  # the source is not what failed
            raise
        finally:
            # If the event loop was closed, this coroutine is closed in another context.
            if outside is not None and not self._run.is_left_behind:
                current_run.reset(outside)

    def begin_to_admit(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Record items and put them into their stage's channel.

        Returns:
            ``None`` if they are in; otherwise what must be awaited until they are.
        """
        if self._store is not None:
            return self._admit_slowly(self._store, envelopes, stage)
        return self._enter(envelopes, stage)

    def admit_at_once(self, envelopes: Sequence[Envelope], stage: int) -> None:
        """Admit items that have left their source, so must have an outcome. Never waits."""
        if self._is_sealed:
            return
        try:
            discard(self.stages[stage].recorder.admitted(envelopes, self._run.timers.now()))
            self._tell_unawaited(envelopes, stage)
        finally:
            self._put(envelopes, stage)

    def take_over(self, envelopes: Sequence[Envelope]) -> None:
        """Go on with the items in an earlier run's books; listeners are told but not waited for."""
        for envelope in envelopes:
            envelope.not_before = envelope.entered = now = self._run.timers.now()
            discard(self._listeners.taken_over(envelope, now))
            self.stages[envelope.position].channel.put(envelope, envelope.priority)

    def seal(self) -> list[Envelope]:
        """Admit nothing more, not even items that wait to be admitted. For the end of a run.

        Returns:
            The items that were recorded but not put yet, for the run to settle.
        """
        self._is_sealed = True
        envelopes: list[Envelope] = []
        announced = list(self._announced.values())
        self._announced.clear()
        for told, untold, stage in announced:
            self._tell_unawaited(untold, stage)
            envelopes += [*told, *untold]
        envelopes += self._unread
        self._unread.clear()
        return envelopes

    async def _admit_slowly(self, store: Store, envelopes: Sequence[Envelope], stage: int) -> None:
        known: deque[Known] = deque()
        try:
            if self._memory is not None:
                if (wait := self._memory.look_up(envelopes)) is not None:
                    await wait
                envelopes, found = self._memory.recall(envelopes, stage, self._run.ledger.recalled)
                known.extend(found)
                self._expect(known)
            if envelopes and (wait := store.admit(envelopes)) is not None:
                await wait
        except asyncio.CancelledError:
            self.admit_at_once(envelopes, stage)  # they may be in the store
            self._go_on_at_once(known)
            raise
        except Exception as error:
            self._supervisor.stop_intake(error)
            raise PipelineError("the store could not keep the items") from error
        if self._is_sealed:
            raise PipelineError("the run ended before the items were admitted")
        if envelopes and (wait := self._enter(envelopes, stage)) is not None:
            await wait
        if not envelopes:
            self._note_free()
        if known:
            with self._settlement.delivery():
                await self._go_on(known, stage)

    def _note_free(self) -> None:
        """The items that were taken in last were not held by listeners."""
        self.at_once = min(2 * self.at_once, LARGEST_BATCH)

    def _expect(self, known: Iterable[Known]) -> None:
        """Prepare ordered results for items that were made from others in an earlier run."""
        if (reorder := self._settlement.reorder) is not None:
            for each in known:
                if each.envelope.branch:
                    reorder.expect(each.envelope, each.envelope.position)

    async def _go_on(self, known: deque[Known], stage: int) -> None:
        """Let items of an earlier run enter the stages that they have reached, or leave.

        Cancellation: they do so all the same, and nothing is waited for.

        Args:
            known: The items; they are removed.
            stage: The stage that they were fed to. Room in it is waited for by what feeds it.
        """
        try:
            while known:
                if self._is_sealed:
                    raise PipelineError("the run ended before the items were admitted")
                each = known.popleft()
                position = each.envelope.position
                self._note_known(each)
                if each.outcome is not None:
                    wait = self._settlement.deliver_known(each)
                else:
                    wait = self._enter([each.envelope], position)
                if wait is not None:
                    await wait
                channel = self.stages[position].channel
                waits = position > stage and not sits_at_or_after(position, self._run)
                if waits and not channel.has_room:
                    async with slots_given_back():
                        await channel.room()
        finally:
            self._go_on_at_once(known)

    def _go_on_at_once(self, known: deque[Known]) -> None:
        while known and not self._is_sealed:
            each = known.popleft()
            self._note_known(each)
            if each.outcome is not None:
                discard(self._settlement.deliver_known(each))
            else:
                self.admit_at_once([each.envelope], each.envelope.position)

    def _note_known(self, known: Known) -> None:
        ledger, is_made = self._run.ledger, bool(known.envelope.branch)
        if known.outcome is not None:
            ledger.recalled.add(known.outcome, not is_made, known.error)
        elif is_made:
            ledger.count_as_made()

    def _enter(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Record items, tell the listeners, and put them: at once, unless something must wait."""
        recorder = self.stages[stage].recorder
        try:
            wait = recorder.admitted(envelopes, self._run.timers.now())
            if recorder.on_entering is not None:
                if wait is None:
                    return self._enter_one_by_one(envelopes, stage)
                return self._enter_slowly(wait, [], deque(envelopes), stage)
        except BaseException:  # `GeneratorExit`, or a fault: the books have them
            self._put(envelopes, stage)
            raise
        if wait is not None:
            return self._enter_slowly(wait, envelopes, deque(), stage)
        self._put(envelopes, stage)
        return self._until_unread_have_failed() if self._unread else None

    def _enter_one_by_one(self, envelopes: Sequence[Envelope], stage: int) -> Wait:
        """Put each item as soon as its own event is delivered."""
        run = self._run
        for number, envelope in enumerate(envelopes, 1):
            if (wait := self._tell(envelope, stage)) is not None:
                self.at_once = 1
                self._put(envelopes[: number - 1], stage)
                return self._enter_slowly(wait, [envelope], deque(envelopes[number:]), stage)
            if number < len(envelopes) and run.turns.is_over():
                self._put(envelopes[:number], stage)
                return self._enter_slowly(None, [], deque(envelopes[number:]), stage)
        self._note_free()
        self._put(envelopes, stage)
        return self._until_unread_have_failed() if self._unread else None

    async def _enter_slowly(
        self, wait: Wait, told: Sequence[Envelope], untold: deque[Envelope], stage: int
    ) -> None:
        """Wait for the listeners of some recorded items; tell of each of the others, and put it."""
        run = self._run
        key = (told or untold)[0].sequence_id
        self._announced[key] = told, untold, stage
        try:
            with self._settlement.delivery():
                while True:
                    if wait is not None:
                        await wait
                    elif run.turns.is_over():
                        await asyncio.sleep(0)
                    if key not in self._announced:
                        return  # the run is over
                    self._put(told, stage)
                    told = []
                    if not untold:
                        break
                    told = [untold.popleft()]
                    self._announced[key] = told, untold, stage
                    wait = self._tell(told[0], stage)
        finally:  # even if cancelled meanwhile: they were recorded, so they must be put
            if self._announced.pop(key, None) is not None:
                self._tell_unawaited(untold, stage)
                self._put([*told, *untold], stage)
        await self._until_unread_have_failed()

    def _tell(self, envelope: Envelope, stage: int) -> Wait:
        """Tell listeners that may make an item wait that it is about to be put."""
        tell = self.stages[stage].recorder.on_entering
        return None if tell is None else apart(tell, envelope)

    def _tell_unawaited(self, envelopes: Iterable[Envelope], stage: int) -> None:
        if not self._run.is_left_behind:
            for envelope in envelopes:
                discard(self._tell(envelope, stage))

    def _put(self, envelopes: Sequence[Envelope], stage: int) -> None:
        if not envelopes:
            return
        readable = [envelope for envelope in envelopes if envelope.error is None]
        self.stages[stage].channel.put_all(readable, envelopes[0].priority)
        if len(readable) < len(envelopes):
            self._unread += [envelope for envelope in envelopes if envelope.error is not None]
        if self._unread and (self._failing is None or self._failing.done()):
            # In a separate task: the feeder may be gone before all of them are reported.
            failing = in_order(self._fail_unread, self._supervisor.fail)
            self._failing = self._supervisor.spawn(failing, "unread items")

    async def _fail_unread(self) -> None:
        while self._unread:
            envelope = self._unread.popleft()
            failing = self.stages[envelope.position].fail_unread(envelope)
            await in_context(copy_context(), failing)

    async def _until_unread_have_failed(self) -> None:
        failing = self._failing
        if failing is not None and failing is not asyncio.current_task():
            await asyncio.wait([failing])


class Intake:
    """Takes items in for one run.

    Its input *has ended* when the source is exhausted or the run was joined: then only the run's
    own tasks and callbacks can still feed it. The run *is closed* when nothing can.

    Args:
        run: The run.
        supervisor: Told of faults.
        settlement: Ends the run when nothing is left.
        identity: Gives items their ids.
        entrance: Lets them in.
        known: Counts those of which nothing else is wanted; ``None``: there are none.
        sources: Measures the steps of the sources.

    Attributes:
        again: Results of an earlier run that are still to be taken in. Their items continue at the
            stage they ended in, before all others. If the run ends before, they are cancelled.
    """

    def __init__(
        self,
        run: Run,
        supervisor: Supervisor,
        settlement: Settlement,
        identity: Identity,
        entrance: Entrance,
        known: KnownInputs | None,
        sources: SourceWatch,
    ) -> None:
        self._run = run
        self._now = run.timers.now
        self._supervisor = supervisor
        self._settlement = settlement
        self._identity = identity
        self._entrance = entrance
        self._envelopes = identity.envelopes if known is None else known.envelopes
        self._sources = sources
        self._source: IterableSource | None = None
        self._is_pulling = self._has_pulled = False
        self._feeder: asyncio.Task[None] | None = None
        self.again: deque[PipelineResult[Any]] = deque()

    # Beginning

    def take_all(self, items: AsyncIterable[Any] | Iterable[Any]) -> None:
        """Use this source for the run's items."""
        source: AsyncIterable[Any] | IterableSource
        self._identity.reserve(result.id for result in self.again)
        if isinstance(items, AsyncIterable):
            source = items
        else:
            first = self._entrance.stages[0]
            # Not in the context of the worker that pulls: that one is for the worker's items.
            source = self._source_of(items, self._supervisor.tasks.context.copy())
            if not (first.recorder.on_entering is not None or self.again):
                self._source = source
                first.channel.ring()
                return
            # Listeners are told of each item before it enters. A separate task waits for that, so
            # that the queue fills up, and shows how slow the stage is, while the workers work.
        feeder = self._supervisor.tasks.create(self._feed_from(source), "feeder")
        if not feeder.done():  # an eager task may be
            self._feeder = feeder

    # Pulling, for the workers of the first stage

    @property
    def is_hungry(self) -> bool:
        """Whether an idle worker of the first stage should `pull`."""
        return (
            self._source is not None
            and not self._is_pulling
            and not self._run.is_closed
            and self._window_room() > 0
        )

    async def pull(self) -> None:
        """Fill the first channel from the source; close the intake when the source has ended."""
        assert self._source is not None
        try:
            raws = self._take_from(self._source, self._batch_size(0), 0)
        except Exception as error:
            self._supervisor.stop_intake(error)
            return
        except BaseException as error:  # why: it ends the run, in order; see `Handover.interrupt`
            self._supervisor.fail(error)
            return
        if not raws:
            self.close()
            return
        self._is_pulling = True
        try:
            envelopes = self._envelopes(raws)
            refused, self._identity.refused = self._identity.refused, None
            if envelopes and (wait := self._entrance.begin_to_admit(envelopes, 0)) is not None:
                await wait
            if refused is not None:
                self._supervisor.stop_intake(refused)
        except PipelineError:
            return  # the store failed, or the run has ended meanwhile; either is noted
        finally:
            self._is_pulling = False
        # Give others a turn: an endless source and tasks that never wait must not starve them. All
        # items of a small run come with the first pull, and then no second worker is needed.
        if self._has_pulled:
            await asyncio.sleep(0)
        self._has_pulled = True

    # Feeding

    async def feed(
        self,
        items: Iterable[Any] | IterableSource,
        stage: int = 0,
        priority: int = DEFAULT_PRIORITY,
        key: Key | None = None,
        on_entering: Callable[[Sequence[Envelope]], None] | None = None,
    ) -> None:
        """Take in items, waiting for room as often as necessary.

        A worker of this run does not wait for room in its own or an earlier stage: it might be the
        very worker that has to make that room.

        Args:
            items: The items.
            stage: Index of the stage they enter.
            priority: Theirs.
            key: What gives their ids; ``None`` = the run's key.
            on_entering: Called with the items just before they enter; for a single item. Room is
                then waited for before it enters: of many callers, each would bring one too many.

        Raises:
            PipelineError: If intake is, or meanwhile was, closed. What was accepted stays accepted.
            WouldDeadlockError: No more can be put into the worker's own or an earlier stage.
            DuplicateItemError: An id is taken, and that is not allowed; or there is an
                ``on_entering``, and the item was left out.
        """
        source = items if isinstance(items, IterableSource) else self._source_of(items)
        channel = self._entrance.stages[stage].channel
        waits = not self._sits_at_or_after(stage)
        # A worker's item may be the very one that all results wait for.
        keeps_order = self._settlement.reorder is not None and not self._sits_at_or_after(0)
        self.check_open()
        while waits and on_entering is not None and not channel.has_room:
            async with slots_given_back():
                await channel.room()
            self.check_open()
        while True:
            while keeps_order and not self._window_room():
                assert self._settlement.reorder is not None
                await self._settlement.reorder.wait()
                self.check_open()
            most = self._batch_size(stage) if waits else self._lane_room(stage)
            # One is taken even if there is no room: an empty source is not a deadlock.
            if not (raws := self._take_from(source, max(most, 1), stage, priority, key)):
                return
            if (requests := self._requests_left()) is not None:
                await requests
            self.check_open()
            if not most:
                raise self._no_lane_room(stage)
            make = self._envelopes if on_entering is None else self._identity.envelopes
            envelopes = make(raws, stage, priority, key)
            refused, self._identity.refused = self._identity.refused, None
            if on_entering is not None:
                if not envelopes and refused is None:
                    raise duplicate_error(self._identity.left_out, ": it was left out")
                on_entering(envelopes)
            await self._entrance.admit(envelopes, stage)
            if refused is not None:
                raise refused
            if waits and on_entering is None:
                if not channel.has_room:
                    async with slots_given_back():
                        await channel.room()
                if channel.is_closed:
                    self.check_open()
            if self._run.turns.is_over():
                await asyncio.sleep(0)

    async def feed_async(
        self,
        items: AsyncIterable[Any],
        stage: int = 0,
        priority: int = DEFAULT_PRIORITY,
        key: Key | None = None,
    ) -> None:
        """Take in items of an async iterable, one at a time as they come. See `feed`."""
        source = AsyncSource(items, self._sources)
        try:
            await self._feed_each(source, stage, priority, key)
        except Exception:
            raise
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            if is_called_off():
                raise
            raise source_failure(error) from error
        finally:
            # Only this code can close an iterator that it made, and it may have a thread.
            if source.iterator is not items and not self._run.is_left_behind:
                with clean_up():
                    await _close_async(source.iterator)

    # Ending

    def end(self) -> None:
        """Note that no more items come from the source or by hand. May be called twice."""
        if self._run.intake_ended is None:
            self._run.intake_ended = self._now()

    def close(self) -> None:
        """Take in only what the run's own tasks still feed; the run ends when all is settled.

        May be called twice.
        """
        self.end()
        self.close_source()
        for wake in self._settlement.wakes:
            wake()
        self._settlement.check_finished()

    def close_source(self) -> None:
        """Cancel the feeder and close the source. May be called twice."""
        if self._feeder is not None:
            feeder, self._feeder = self._feeder, None
            self._supervisor.tasks.call_off(feeder)
        source, self._source = self._source, None
        if isinstance(source, IterableSource) and not source.is_lent:
            try:
                self._sources.step(source.items, source.close)
            except BaseException as error:  # why: also a group with a CancelledError in it
                tell_clean_up_failed(error)

    def seal(self) -> list[Envelope]:
        """Admit nothing more; return the items that were recorded but not put yet.

        Items of an earlier run that had no room are taken in all the same, to be settled: its
        results may be the only place that has them.
        """
        while self.again:
            envelope = self._identity.again(self.again.popleft(), self._run.facts.stage_names)
            self._entrance.admit_at_once([envelope], envelope.position)
        return self._entrance.seal()

    def forget(self) -> None:
        """The run is over: keep none of its items."""
        self.again.clear()

    # Inside

    def _window_room(self) -> float:
        """How many more items ordered results allow to enter; unbounded without order."""
        reorder = self._settlement.reorder
        return inf if reorder is None else max(reorder.room(self._identity.count), 0)

    def _batch_size(self, stage: int) -> int:
        """How many items to take in at a time."""
        entered = self._entrance.stages[stage]
        channel = entered.channel
        size = LARGEST_BATCH if entered.recorder.on_entering is None else self._entrance.at_once
        if channel.capacity is not None:
            size = min(size, max(channel.capacity - len(channel), 1))
        return int(min(size, max(self._window_room(), 1)))

    def _lane_room(self, stage: int) -> int:
        """How many items this run's own workers may add now, without waiting for room."""
        channel = self._entrance.stages[stage].channel
        size = self._batch_size(stage)
        if channel.capacity is None:
            return size
        return min(size, max(channel.capacity + EXTRA_LANE - len(channel), 0))

    def _no_lane_room(self, stage: int) -> WouldDeadlockError:
        return WouldDeadlockError(
            f"stage {self._run.facts.stage_names[stage]!r} is full: "
            f"{len(self._entrance.stages[stage].channel):,} items wait, {EXTRA_LANE:,} of them "
            "beyond its capacity, and a task of this stage or a later one that waits for room "
            "here may be waiting for itself"
        )

    def _sits_at_or_after(self, stage: int) -> bool:
        return sits_at_or_after(stage, self._run)

    def check_open(self) -> None:
        """Refuse to take in more if the caller may not feed the run (any more).

        Raises:
            PipelineError: It may not.
        """
        run = self._run
        if run.is_closed or (run.has_all_items and not run.contains_caller):
            why = run.how_stopped if run.is_stopping else "joined, or its input has ended"
            if run.error is not None:
                why = stopped_by(run.error)
            raise PipelineError(f"this run takes no more items: it was {why}") from run.error

    def _source_of(self, items: Iterable[Any], context: Context | None = None) -> IterableSource:
        if type(items) is tuple:  # most often a single item from an async source
            return IterableSource(items, self._now, context)
        return self._sources.step(items, IterableSource, items, self._now, context)

    def _take_from(
        self,
        source: IterableSource,
        most: int,
        stage: int,
        priority: int = DEFAULT_PRIORITY,
        key: Key | None = None,
    ) -> list[Any]:
        """Take up to ``most`` items from a source, and note how long it holds the loop."""
        if source.is_plain:
            return source.take(most)
        try:
            return self._sources.step(source.items, source.take, most)
        except BaseException:
            if source.left_over:
                envelopes = self._identity.envelopes(source.left_over, stage, priority, key)
                self._entrance.admit_at_once(envelopes, stage)
            raise

    # The feeder

    async def _feed_from(self, items: AsyncIterable[Any] | IterableSource) -> None:
        self._feeder = asyncio.current_task()  # an eager one begins before it is known
        is_called_off = self._supervisor.has_called_off_caller
        failure: Exception | None = None
        try:
            await self._feed_again()
            if isinstance(items, IterableSource):
                await self._feed_plainly(items)
            else:
                source = AsyncSource(items, self._sources)
                items = source.iterator
                await self._feed_each(source)
        except Exception as error:
            if not self._run.has_all_items:
                failure = error
        except (asyncio.CancelledError, BaseExceptionGroup) as error:
            own = source_failure(error)
            if not is_called_off():
                failure = own
            elif not self._run.has_all_items:
                raise asyncio.CancelledError from error
        except BaseException as error:  # why: it ends the run, in order; see `Handover.interrupt`
            if self._run.is_left_behind:
                raise
            self._supervisor.fail(error)
        finally:
            if not is_called_off():
                await absorb_requests()
            self._feeder = None  # from here on it ends by itself
            await self._close(items)
            if not is_called_off():
                await absorb_requests()
        if failure is not None:
            self._supervisor.stop_intake(failure)
        else:
            self.close()

    async def _feed_plainly(self, source: IterableSource) -> None:
        while True:
            try:
                return await self.feed(source)
            except asyncio.CancelledError:
                # The source raises none, so a callback has left a request that came late.
                if self._supervisor.has_called_off_caller():
                    raise
                await absorb_requests()

    async def _feed_again(self) -> None:
        while self.again:
            envelope = self._identity.again(self.again.popleft(), self._run.facts.stage_names)
            await self._entrance.admit([envelope], envelope.position)
            await self._entrance.stages[envelope.position].channel.room()

    async def _feed_each(
        self,
        source: AsyncSource,
        stage: int = 0,
        priority: int = DEFAULT_PRIORITY,
        key: Key | None = None,
    ) -> None:
        while True:
            try:
                raw = await source
            except StopAsyncIteration:
                return
            if (requests := self._requests_left()) is not None:
                await requests
            try:
                await self.feed((raw,), stage, priority, key)
            except asyncio.CancelledError as error:
                if self._supervisor.has_called_off_caller() or not source.interrupt(error):
                    raise
            del raw  # it may be long until the next

    def _requests_left(self) -> Awaitable[object] | None:
        """Takes back cancel requests that a source left: they must not hit what follows."""
        feeder = self._feeder
        if feeder is not None and feeder is asyncio.current_task() and cancel_requests():
            return awaited_failure(None)
        return None

    async def _close(self, items: AsyncIterable[Any] | IterableSource) -> None:
        """Run a source's clean-up, and log what it raises."""
        try:
            if isinstance(items, IterableSource):
                if not items.is_lent:
                    self._sources.step(items.items, items.close)
            elif not self._run.is_left_behind:
                await _close_async(items)
        except BaseException as error:  # why: also a group with a CancelledError in it
            tell_clean_up_failed(error)


def sits_at_or_after(stage: int, run: Run) -> bool:
    """Whether the code that asks runs in a worker of this stage of the run, or of a later one."""
    seat = current_seat.get()
    seats = [] if seat is None else seat.with_outer()
    return next((each.index for each in seats if each.run is run), -1) >= stage


async def _close_async(items: AsyncIterable[Any]) -> None:
    if (close := getattr(items, "aclose", None)) is not None:
        async with asyncio.timeout(SLOWEST_CLOSE):
            await close()
