"""The worker loop: take, start, try, hand over.

The loop follows the way of an item. Everything rare is a call: into `FailedTries` when a task has
failed, into `Endings` when an item skips the stage or a callback listens. There is no
`asyncio.Task`, no timer and no future per item: a task that does not suspend costs no turn of the
event loop.

A worker has an item from the moment it takes it until it has called one of the recorder's methods
that end a visit and put the item where it goes next. Whatever is raised in between, the item is
settled.

One `asyncio.Task` serves thousands of items, and no item may affect another. So nothing an item
leaves behind reaches the next: not its value, not a request to cancel the task, and not its context
variables (if it has set any, the loop ends and the worker goes on in a new task).
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass

from antflow._core.cancellation import requests_of
from antflow._core.durations import SHORTEST_RUN, SHORTEST_WAIT
from antflow._core.envelope import DEFAULT_PRIORITY, Envelope
from antflow._core.ledger import WorkerBook
from antflow._core.stage import Stage
from antflow._engine.attempt import Attempt
from antflow._engine.endings import Endings
from antflow._engine.expansion import ENDS_HERE
from antflow._engine.failure import FailedTries
from antflow._engine.handover import Handover
from antflow._engine.workers import Workers


@dataclass(eq=False)
class WorkerLoop:
    """The loop of one stage's workers.

    Args:
        stage: The stage.
        workers: Its workers.
        attempt: How items are tried.
        handover: The way out of the stage.
        failed_tries: Handles items after a failed try.
        endings: The rarer endings of a visit.
    """

    stage: Stage
    workers: Workers
    attempt: Attempt
    handover: Handover
    failed_tries: FailedTries
    endings: Endings

    async def work(self, worker: WorkerBook) -> bool:
        """Work until the stage's channel is closed or the worker is retired.

        Cancellation: the item in hand is settled as cancelled.

        Returns:
            Whether the worker must go on in another `asyncio.Task`, because this one's context has
            changed.
        """
        workers, attempt, handover, endings = (
            self.workers,
            self.attempt,
            self.handover,
            self.endings,
        )
        run, crew, recorder = handover.run, handover.crew, handover.recorder
        settle, next_channel = handover.settlement.settle, handover.next_channel
        turns, ledger, book, next_book = (
            run.turns,
            run.ledger,
            recorder.book,
            recorder.book.following,
        )
        channel, now = workers.channel, run.timers.now
        queue, senders = channel.queue, channel.senders
        skip_if, on_success = self.stage.skip_if, self.stage.on_success
        isolates, context = self.stage.isolate_context, copy_context()
        cancel_requests = worker.cancel_requests
        plain: type | None = None  # the type of the last answer, if it was an ordinary one
        time = now()
        while worker.index < workers.active:
            value = None  # it may be large, and the next item may be long in coming
            if cancel_requests():
                await crew.absorb_cancel(worker)
            if isolates:
                # If nothing was bound, this compares one pointer.
                try:
                    if context != (context := copy_context()):
                        return True
                except Exception:  # values that cannot be compared, like arrays of numpy
                    return True
            if time >= turns.ends and turns.must_give_way(time):
                time = await workers.give_way()
                continue  # meanwhile it may have to leave, or this turn is over as well
            # `Channel.take`, inlined.
            envelope: Envelope | None = queue.popleft() if queue else channel.take()
            if senders and channel.bell is None:
                channel.ring()
            if envelope is None:
                plain = None
                envelope = await workers.receive(worker)
                if envelope is None:
                    return False
                time = now()
            if skip_if is not None and not envelope.attempts:
                passes = await endings.passes_by(envelope, worker)
                time = now()
                if passes:
                    continue
            # From here on `Recorder.started`, inlined.
            if (waited := time - envelope.not_before) >= SHORTEST_WAIT:
                book.queue_waits.add(waited)
            worker.item = envelope
            worker.since = time
            worker.held_up = 0.0
            if envelope.attempts:  # tried before
                book.retrying -= 1
                envelope.attempts = max(envelope.attempts, 0) + 1
            else:
                envelope.attempts = 1
            if (tell := recorder.on_started) is not None:
                try:
                    wait = tell(envelope, worker, time)
                    if wait is not None:
                        await wait
                except BaseException:
                    handover.give_up(envelope, worker)
                    raise
            try:
                if (direct := attempt.direct) is not None:
                    value = await direct(envelope.value)
                else:
                    value = await attempt.run(envelope, worker)
            except BaseException as error:  # why: it ends the run, in order; see `interrupt`
                if not await self.failed_tries.after(error, envelope, worker):
                    return False
                time = now()
            else:
                if (kind := type(value)) is not plain:
                    if not issubclass(kind, ENDS_HERE):
                        plain = kind
                    elif await endings.ends_here(envelope, worker, value):
                        time = now()
                        continue
                time = now()
                # From here on `Recorder.completed`, inlined.
                if worker.limited_calls:
                    worker.forget_calls(time)
                began = worker.since
                seconds = time - began
                if seconds >= SHORTEST_RUN:
                    book.run_times.add(seconds - worker.held_up)
                    if not worker.busy:
                        book.first_tries.add(worker.index, began, seconds - worker.held_up)
                worker.item = None
                worker.completed += 1
                worker.busy += seconds
                worker.since = time
                if next_book is None:
                    ledger.in_flight -= 1
                else:
                    next_book.entered += 1
                    envelope.not_before = time
                if recorder.on_ended is not None or on_success is not None:
                    wait = endings.through(envelope, worker, value, began, time)
                elif next_channel is None:  # from here on `Handover.put_on`
                    envelope.value = value
                    wait = settle(envelope, None)
                else:
                    envelope.value = value
                    envelope.position += 1
                    envelope.attempts = 0
                    wait = None
                    if next_channel.is_special or envelope.priority != DEFAULT_PRIORITY:
                        if next_channel.put(envelope, envelope.priority):
                            wait = next_channel.room()
                    else:  # `Channel.put`, inlined
                        next_channel.queue.append(envelope)
                        if next_channel.may_wake and next_channel.bell is None:
                            next_channel.ring()
                        if len(next_channel.queue) > next_channel.most:
                            wait = next_channel.room()
                if wait is not None:
                    worker.wait_begins("blocked", time)
                    try:
                        if requests_of(crew.running(worker)):
                            await crew.absorb_cancel_before(worker)
                        await wait  # in any case: it may put the item
                    finally:
                        time = now()
                        worker.wait_ends(time)
        return False
