"""The worker loop: take, start, try, hand over.

The loop reads like the way of an item. What is rare (a task failed, an item passes by, somebody
listens) is a call into the `Endings`. There is no `asyncio.Task`, no timer and no future per
item: a task that does not suspend costs no turn of the event loop.

An item that was taken is in the worker's hands, until one of the recorder's methods that end a
visit was called and the item was put on. Between the two, whatever is raised here, the item is
settled.

One `asyncio.Task` serves thousands of items, and none of them may notice another. So nothing that
an item left behind reaches the next: not what it bound in context variables (then the loop ends,
and the worker goes on in a new task), not a request to cancel the task, not its value.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING

from antflow._core.ledger import WorkerBook
from antflow._core.waits import discard
from antflow._engine.attempt import group_failure
from antflow._engine.expansion import ENDS_HERE

if TYPE_CHECKING:
    from antflow._engine.stage_run import StageRun


async def work(stage: StageRun, worker: WorkerBook) -> bool:
    """Work for a stage until its channel is closed or the worker is retired.

    Cancellation: the item in hand is settled as cancelled.

    Returns:
        Whether the worker is to go on in another `asyncio.Task`, because the context of this one is
        no longer what it was.
    """
    run, recorder, take, now = stage.run, stage.recorder, stage.take, stage.run.timers.now
    skip_if, on_success = stage.description.skip_if, stage.description.on_success
    attempt, next_channel, endings = stage.attempt, stage.next_channel, stage.endings
    isolates, context = stage.description.isolate_context, copy_context()
    cancel_requests = stage.running(worker).cancelling
    time = now()
    while worker.index < stage.active_count:
        value = None  # the one before may be large, and the next item slow
        if cancel_requests():
            await stage.absorb_cancel(worker)
        if isolates:
            # Where nothing was bound, the two are compared by one pointer.
            try:
                if context != (context := copy_context()):
                    return True
            except Exception:  # values that cannot be compared, like arrays of numpy
                return True
        envelope = take()
        if envelope is None:
            envelope = await stage.receive(worker)
            if envelope is None:
                return False
            time = now()
        if skip_if is not None and not envelope.attempts:
            passes = await endings.passes_by(envelope, worker)
            time = now()
            if passes:
                continue
        try:
            if (wait := recorder.started(envelope, worker, time)) is not None:
                await wait
        except BaseException:
            endings.give_up(envelope, worker)
            raise
        try:
            if (direct := stage.direct) is not None:
                value = await direct(envelope.value)
            else:
                value = await attempt(envelope, worker)
        except Exception as error:
            await endings.tried_in_vain(envelope, worker, error)
        except asyncio.CancelledError as error:
            await endings.tried_in_vain(
                envelope, worker, endings.own_failure(error, envelope, worker)
            )
        except BaseException as error:  # why: it ends the run, in order; see `interrupt`
            if (grouped := group_failure(error, worker.task or "")) is None:
                endings.interrupt(error, envelope, worker)
                return False
            await endings.tried_in_vain(envelope, worker, grouped)
        else:
            may_end = issubclass(type(value), ENDS_HERE)
            if may_end and await endings.ends_here(envelope, worker, value):
                time = now()
                continue
            time = now()
            try:
                wait = recorder.completed(envelope, worker, value, time)
            except BaseException:  # a callback raised KeyboardInterrupt or its like
                discard(endings.put_on(envelope, value))
                raise
            if wait is not None or on_success is not None:
                wait = endings.move_on(envelope, worker, value, wait)
            elif next_channel is None:  # from here on `Endings.put_on`, written out
                envelope.value = value
                wait = run.settle(envelope, None)
            else:
                envelope.value = value
                envelope.position += 1
                envelope.attempts = 0
                if next_channel.put(envelope, envelope.priority):
                    wait = next_channel.room()
            if wait is not None:
                worker.wait_begins("room", time)
                try:
                    await wait
                finally:
                    time = now()
                    worker.wait_ends(time)
            if time < run.turn_ends:
                continue
        time = await stage.give_way(worker)
    return False
