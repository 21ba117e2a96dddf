"""One item that is fed by hand, and its result: see `RunHandle.submit`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any

from antflow._core.envelope import Envelope
from antflow._core.items import Key
from antflow._core.result import PipelineResult
from antflow._engine.engine import Engine
from antflow._engine.run import current_run


def begin_submission(
    engine: Engine, item: Any, stage: int, priority: int, key: Key | None
) -> asyncio.Task[PipelineResult[Any]]:
    """Begin to take an item in; the task's result is the item's.

    The run does not finish before the task is done, so an item that waits for room is still taken
    in when the run is being joined.

    Raises:
        PipelineError: The run takes no more items.
    """
    engine.intake.check_open()
    context = copy_context()
    context.run(current_run.set, engine.run)  # only code inside the run may feed it by then
    hold = ExitStack()
    hold.enter_context(engine.settlement.delivery())
    submitting = _submit(engine, item, stage, priority, key)
    try:
        task = asyncio.get_running_loop().create_task(submitting, context=context)
    except BaseException:  # the user's task factory raised
        submitting.close()
        hold.close()
        raise
    task.add_done_callback(lambda _: hold.close())
    return task


async def _submit(
    engine: Engine, item: Any, stage: int, priority: int, key: Key | None
) -> PipelineResult[Any]:
    results: list[asyncio.Future[PipelineResult[Any]]] = []

    def on_entering(envelopes: Sequence[Envelope]) -> None:
        results.extend(map(engine.settlement.result_of, envelopes))

    await engine.intake.feed((item,), stage, priority, key, on_entering)
    return await results[0]
