"""The worker loop of a stage with ``batch=``: gather, start, try, hand over.

An item that was gathered and not begun is in no worker's book yet: it counts as waiting, and goes
back to the head of the channel when the worker is cancelled. One worker of a stage gathers at a
time, so that few items make one batch and not one for each idle worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context, copy_context
from itertools import groupby

from antflow._core.envelope import Envelope
from antflow._core.errors import Drop
from antflow._core.foreign import is_a
from antflow._core.groups import consists_of
from antflow._core.ledger import WorkerBook
from antflow._core.stage import Stage
from antflow._core.tracebacks import trimmed
from antflow._engine.attempt import Answer, Attempt
from antflow._engine.contexts import in_context
from antflow._engine.endings import Endings
from antflow._engine.expansion import NO_VALUE
from antflow._engine.failure import Judge
from antflow._engine.handover import Handover
from antflow._engine.intake import Intake
from antflow._engine.workers import Workers


class Batches:
    """The loop of a batch stage's workers.

    Args:
        stage: The stage.
        index: Its index.
        intake: The first stage's workers pull from it.
        workers: The stage's workers.
        attempt: How items are tried.
        handover: The way out of the stage.
        judge: Decides what follows a failed try.
        endings: How visits end.
    """

    def __init__(
        self,
        stage: Stage,
        index: int,
        intake: Intake,
        workers: Workers,
        attempt: Attempt,
        handover: Handover,
        judge: Judge,
        endings: Endings,
    ) -> None:
        assert stage.batch is not None
        self._isolates = stage.isolate_context
        self._index = index
        self._intake = intake
        self._workers = workers
        self._channel = workers.channel
        self._attempt = attempt
        self._handover = handover
        self._run = handover.run
        self._now = handover.now
        self._crew = handover.crew
        self._judge = judge
        self._endings = endings
        self._size = stage.batch
        self._wait = stage.batch_wait or 0.0
        self._skips = stage.skip_if is not None
        self._gathering = asyncio.Lock()
        self._put_back_items: set[Envelope] = set()

    async def work(self, worker: WorkerBook) -> bool:
        """Work for the stage until its channel is closed or the worker is retired.

        Cancellation: the items in hand are settled as cancelled, those not begun go back.

        Returns:
            As the `work` of a stage without batches.
        """
        workers = self._workers
        context = copy_context()
        while worker.index < workers.active:
            if workers.has_left_context(context):
                return True
            async with self._gathering:
                gathered = await self._gather(worker)
            if gathered is None:
                return False
            await self._try_all(gathered, worker, context)
            del gathered  # the next items may take long to come
            await workers.give_way()
        return False

    async def _try_all(
        self, gathered: list[Envelope], worker: WorkerBook, context: Context
    ) -> None:
        """Try the items gathered, and put back those the worker does not get to."""
        workers = self._workers
        try:
            for group in self._groups(gathered):
                # What one group left behind must not hit the next.
                await self._crew.absorb_cancel(worker)
                if worker.index >= workers.active or workers.has_left_context(context):
                    break
                if self._channel.is_closed:  # the run is being stopped: these items wait
                    break
                del gathered[: len(group)]
                await self._try(group, worker)
        finally:
            self._put_back(gathered)

    async def _gather(self, worker: WorkerBook) -> list[Envelope] | None:
        """Items for one batch; ``None`` when there will be no more, or the worker is to leave."""
        gathered: list[Envelope] = []
        closes_at: float | None = None
        try:
            while self._run.turns.is_over():
                await self._workers.give_way()
            while len(gathered) < self._size:
                if worker.index >= self._workers.active:
                    self._put_back(gathered)
                    return None
                envelope = self._channel.take()
                if envelope is None:
                    if not gathered:
                        envelope = await self._workers.receive(worker)
                        if envelope is None:
                            return None
                    elif not await self._more_before(closes_at or 0.0, len(gathered)):
                        break
                    else:
                        continue
                is_new = self._skips and not envelope.attempts
                if is_new and await self._passes_by(envelope, worker):
                    continue
                if closes_at is None:
                    closes_at = self._now() + self._wait
                gathered.append(envelope)
        except BaseException:
            self._put_back(gathered)
            raise
        if _was_tried(gathered):
            # Items tried together stand together; otherwise they stay in order of arrival.
            gathered.sort(key=self._group_key)
        return gathered

    def _groups(self, gathered: Sequence[Envelope]) -> list[list[Envelope]]:
        """The items to try together: those at the same task.

        An item that has failed in a batch and has one try left is tried alone, so it can take no
        other down.
        """
        if not _was_tried(gathered):
            return [list(gathered)]
        groups: list[list[Envelope]] = []
        for (alone, _), members in groupby(gathered, key=self._group_key):
            items = list(members)
            groups += [[item] for item in items] if alone else [items]
        return groups

    def _group_key(self, item: Envelope) -> tuple[bool, int]:
        return self._judge.is_last_chance(item), item.task

    async def _passes_by(self, envelope: Envelope, worker: WorkerBook) -> bool:
        """Whether ``skip_if`` took an item off the worker's hands.

        It is asked about several items before any of them is tried. So each call has its own
        context variables, and it is not asked again about an item that was put back.
        """
        if envelope in self._put_back_items:
            self._put_back_items.remove(envelope)
            return False
        asked = self._endings.passes_by(envelope, worker)
        passes = await (in_context(copy_context(), asked) if self._isolates else asked)
        if passes and self._run.turns.is_over():
            await self._workers.give_way()
        return passes

    async def _more_before(self, closes_at: float, gathered: int) -> bool:
        """Wait for more items; whether there is any point in looking again."""
        left = closes_at - self._now()
        if left <= 0 or self._channel.is_closed or not self._may_get_more(gathered):
            return False
        if self._workers.pulls:
            await self._intake.pull()
            return True
        wakes = self._handover.settlement.wakes  # each item that leaves is one less to wait for
        wakes.append(self._channel.wake_all)
        try:
            async with asyncio.timeout(left):
                await self._channel.wait()
        except TimeoutError:
            return False
        finally:
            wakes.remove(self._channel.wake_all)
        return True

    def _may_get_more(self, gathered: int) -> bool:
        """Whether more items can come besides the ``gathered`` ones, which no worker has begun."""
        if not self._run.has_all_items:
            return True
        books = self._run.ledger.stages[: self._index + 1]
        inside = sum(book.waiting + book.in_progress + book.retrying for book in books)
        return inside > gathered

    def _put_back(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in reversed(envelopes):
            if self._skips and not envelope.attempts:
                self._put_back_items.add(envelope)
            self._channel.put_first(envelope, envelope.priority)

    async def _try(self, group: list[Envelope], worker: WorkerBook) -> None:
        waiting: list[Envelope] = group[::-1]
        begun: dict[Envelope, None] = {}
        answers: dict[Envelope, Answer] = {}
        now = self._now()  # they begin together, whatever is waited for in between
        started = self._handover.recorder.started
        try:
            while waiting:
                begun[waiting[-1]] = None
                if (wait := started(waiting.pop(), worker, now)) is not None:
                    await wait
            alone = await self._try_together(group, worker, answers)
            await self._end(group, answers, begun, worker)
            for item in alone:
                if self._channel.is_closed:  # the run is being stopped: no more tries begin
                    break
                await self._try_alone(item, begun, worker)
            if self._crew.running(worker).cancelling():  # what the try left must not go on
                await self._crew.absorb_cancel(worker)
        except BaseException as error:
            self._put_back(waiting[::-1])
            if is_a(error, GeneratorExit):
                raise
            if not is_a(error, (Exception, asyncio.CancelledError)):
                # why: it ends the run, in order; see `Handover.interrupt`
                self._handover.supervisor.fail(error)
            # An earlier task may have answered for some of them before the error came.
            await self._end(group, answers, begun, worker)
            if is_a(error, (Exception, asyncio.CancelledError)):
                raise
        finally:
            worker.given = ()
            for envelope in begun:
                self._handover.give_up(envelope, worker)

    async def _try_together(
        self, group: Sequence[Envelope], worker: WorkerBook, answers: dict[Envelope, Answer]
    ) -> list[Envelope]:
        """Try a batch.

        Args:
            group: The batch.
            worker: The worker that tries it.
            answers: Takes what became of each item.

        Returns:
            Those without an answer, because the batch has failed for good: each is tried alone.
        """
        try:
            await self._attempt.run_batch(group, worker, answers)
        except Exception as error:
            trimmed(error)  # here: items tried alone may not end with it
            rest = [item for item in group if item not in answers]
            task, decide = worker.task or "", self._judge.decide
            alone: list[Envelope] = []
            ends_all = consists_of(error, Drop) or self._judge.is_hopeless(error)
            if len(rest) > 1 and not ends_all:
                alone = [item for item in rest if not decide(item, error, task).comes_again]
            answers |= dict.fromkeys(rest, error)
            for item in alone:
                del answers[item]
            return alone
        return []

    async def _try_alone(
        self, item: Envelope, begun: dict[Envelope, None], worker: WorkerBook
    ) -> None:
        """Try an item of a batch that has failed, and record how that ends."""
        item.attempts += 1  # it has been tried, with the others
        item.decision = None
        try:
            # What the last try left behind must not hit this one.
            await self._crew.absorb_cancel(worker)
            await self._crew.outlast_thread(worker)
            trying = self._try_single(item, begun, worker)
            await self._workers.in_own_task(worker, trying)
        except asyncio.CancelledError as error:
            failure = self._crew.failure_of(error, worker)
            await self._end([item], {item: failure}, begun, worker)

    async def _try_single(
        self, item: Envelope, begun: dict[Envelope, None], worker: WorkerBook
    ) -> None:
        answers: dict[Envelope, Answer] = {}
        await self._try_together([item], worker, answers)
        await self._end([item], answers, begun, worker)

    async def _end(
        self,
        items: Sequence[Envelope],
        answers: Mapping[Envelope, Answer],
        begun: dict[Envelope, None],
        worker: WorkerBook,
    ) -> None:
        """End the visits of those items that have an answer and have not ended.

        Cancellation: still ends them all, since work that is done must not count as cancelled.

        Args:
            items: The items.
            answers: What became of them.
            begun: All items in hand; those that end are removed.
            worker: The worker.
        """
        pairs = [(item, answers[item]) for item in items if item in answers and item in begun]
        if any(issubclass(type(answer), NO_VALUE) for _, answer in pairs):
            pairs = _in_order(pairs)
            self._begin_holds(pairs, worker)
        through, is_cancelled = self._endings.batch_item_through, False
        for envelope, answer in pairs:
            del begun[envelope]
            try:
                if issubclass(type(answer), NO_VALUE):
                    await self._endings.answered(envelope, worker, answer)
                elif (wait := through(envelope, worker, answer)) is not None:
                    await self._crew.see_through(worker, wait)
            except asyncio.CancelledError:
                # That item was put. If the request came from outside, it is of no more interest.
                is_cancelled = is_cancelled or self._crew.is_called_off(worker)
        if is_cancelled:
            raise asyncio.CancelledError

    def _begin_holds(self, pairs: Sequence[tuple[Envelope, Answer]], worker: WorkerBook) -> None:
        """Begin the holds that answers ask for, before anything is awaited."""
        for envelope, answer in pairs:
            if is_a(answer, Exception) and not consists_of(answer, Drop):
                self._judge.decide(envelope, answer, worker.task or "")


def _was_tried(envelopes: Sequence[Envelope]) -> bool:
    """Whether some of the items have been tried here before."""
    return any(envelope.attempts for envelope in envelopes)


def _in_order(pairs: Sequence[tuple[Envelope, Answer]]) -> list[tuple[Envelope, Answer]]:
    """Completed items in their order; then failed ones, last one first.

    Each item to be retried at once goes before those put back earlier.
    """
    failed = [pair for pair in pairs if is_a(pair[1], Exception)]
    return [pair for pair in pairs if not is_a(pair[1], Exception)] + failed[::-1]
