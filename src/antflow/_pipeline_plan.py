"""The plan of a run: its steps, by what its journal knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

from antflow._core.items import Items, Key
from antflow._core.stage import Stage
from antflow._engine.identity import Duplicates, Identity
from antflow.journal.journal import Journal
from antflow.journal.plan import Plan

AT_A_TIME = 500
"""Items that are looked up together."""


async def plan_of(
    stages: Sequence[Stage], journal: Journal, items: Items, key: Key | None, duplicates: Duplicates
) -> Plan:
    """Plan a run. Nothing is run, and nothing is written.

    Args:
        stages: The stages.
        journal: The journal.
        items: The items.
        key: As for `Pipeline.run`.
        duplicates: As for `Pipeline`.
    """
    from antflow.journal.planner import Planner  # SQLite only where a journal is used

    # What a run says to those who give its items their ids.
    run: Any = SimpleNamespace(keeps_results=True, item_timeout=None, skipped=0)
    async with _waiting_for(journal) as asks:
        planner: Planner = await asks(Planner, journal, stages)
        try:
            identity = Identity(run, duplicates, key=key, id_of=planner.id_of)
            async for some in _parts(items):
                await asks(planner.look, identity.envelopes(some))
                if identity.refused is not None:
                    raise identity.refused
            return cast(Plan, await asks(planner.plan))
        finally:
            await asks(planner.close)


@asynccontextmanager
async def _waiting_for(journal: Journal) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """How the journal is asked: a server in a thread, so that the event loop does not wait."""
    if not journal.is_remote:

        async def at_once(function: Callable[..., Any], *args: Any) -> Any:
            return function(*args)

        yield at_once
        return
    thread = ThreadPoolExecutor(1, "antflow-plan")
    try:
        yield partial(asyncio.get_running_loop().run_in_executor, thread)
    finally:
        thread.shutdown(wait=False)


async def _parts(items: Items) -> AsyncIterator[list[Any]]:
    """Items, some at a time; others may run in between."""
    if isinstance(items, AsyncIterable):
        some: list[Any] = []
        async for each in items:
            some.append(each)
            if len(some) == AT_A_TIME:
                yield some
                some = []
        if some:
            yield some
        return
    rest = iter(items)
    while some := list(islice(rest, AT_A_TIME)):
        yield some
        await asyncio.sleep(0)
