"""`RunHandle.submit`: one item, and a future with its result."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from antflow import (
    Drop,
    DuplicateItemError,
    ItemCancelled,
    Pipeline,
    PipelineError,
    RunHandle,
    Stage,
)
from antflow.testing import Gate, cancel_at_every_step, run_virtual
from tests.support import assert_balanced, same


async def double(number: Any) -> Any:
    """A task that fails with an odd text, and drops ``None``."""
    await asyncio.sleep(0.1)
    if number is None:
        return Drop
    return number * 2 if number != "bad" else 1 / 0


def doubling(workers: int = 5, **options: Any) -> Pipeline:
    stage = Stage("Double", workers, [double], task_attempts=1)
    return Pipeline([stage, Stage("Keep", 1, [str])], **options)


@pytest.mark.parametrize("collects", [True, False])
def test_each_caller_gets_its_own_result(collects: bool) -> None:
    """Many requests share one long-lived run, and each waits for its own item."""

    async def main() -> None:
        async with doubling(collect_results=collects).open() as run:
            await run.feed(range(100, 105))
            own = await asyncio.gather(*(run.submit(n) for n in range(20)))
            assert [result.value for result in own] == [str(2 * n) for n in range(20)]
            assert [result.input for result in own] == list(range(20))
            late = await run.submit({"id": "a", "value": 5, "user": "me"})
            assert (late.id, late.value, late.metadata) == ("a", "10", {"user": "me"})
        assert len(run.results) == 26 * collects
        assert_balanced(run.stats())

    run_virtual(main())


def test_items_that_do_not_succeed_have_results_too() -> None:
    """Failed, dropped and unreadable items end in a result, not in an exception."""

    class Unreadable(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            raise LookupError

    async def main() -> None:
        async with doubling().open() as run:
            failed, dropped, unread = await asyncio.gather(
                *map(run.submit, ("bad", None, Unreadable()))
            )
            assert isinstance(failed.error, ZeroDivisionError)
            assert (failed.outcome, failed.stage) == ("failed", "Double")
            assert dropped.outcome == "dropped"
            assert isinstance(unread.error, LookupError)

    run_virtual(main())


def test_item_that_expands_has_its_own_result() -> None:
    """The future is that of the item itself, not of those made from it."""

    async def main() -> None:
        stages = [Stage("Split", 1, [range], expand=True), Stage("Keep", 1, [str])]
        async with Pipeline(stages).open() as run:
            results = await asyncio.gather(run.submit(3), run.submit(0))
            assert [(result.id, result.outcome) for result in results] == [
                (0, "expanded"),
                (1, "expanded"),
            ]
        assert run.results.values() == ["0", "1", "2"]

    run_virtual(main())


@pytest.mark.parametrize("duplicates", ["number", "error", "skip"])
def test_id_that_is_taken(duplicates: Any) -> None:
    """A renamed item has its result under the new id; others raise, and the run goes on."""

    async def main() -> None:
        async with doubling(duplicates=duplicates).open() as run:
            first, second = (run.submit({"id": "a", "value": n}) for n in (1, 2))
            if duplicates == "number":
                assert ((await second).id, (await second).value) == ("a#2", "4")
            else:
                with pytest.raises(DuplicateItemError, match="item id 'a' appears twice"):
                    await second
            assert (await first).value == "2"
            assert (await run.submit(7)).value == "14"

    run_virtual(main())


@pytest.mark.parametrize("key", ["sku", lambda row: row.sku])
@pytest.mark.parametrize("duplicates", ["error", "skip"])
def test_id_that_is_taken_is_named_whatever_gives_it(duplicates: Any, key: Any) -> None:
    """The error for a duplicate names the id, and the item need not be a dict."""

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [same])], duplicates=duplicates)
        async with pipeline.open(key=key) as run:
            await run.submit(SimpleNamespace(sku="a"))
            with pytest.raises(DuplicateItemError, match="item id 'a' appears twice"):
                await run.submit(SimpleNamespace(sku="a"))

    run_virtual(main)


def test_waiter_that_is_cancelled_leaves_its_item_alone() -> None:
    """A request that gives up does not take its item back, unless that still waits for room."""
    gate = Gate()

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [gate], queue_capacity=1)])
        async with pipeline.open() as run:
            futures = [run.submit(n) for n in range(10)]
            await asyncio.sleep(1)
            assert run.stats().items_accepted < 5
            for future in (futures[0], futures[9]):
                future.cancel()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(futures[1], 1)
            gate.open()
        assert run.results.values() == list(range(9))
        assert_balanced(run.stats())
        assert [future.cancelled() for future in futures] == [True, True, *[False] * 7, True]

    run_virtual(main())


def test_full_queue_takes_in_no_more_than_it_holds() -> None:
    """However many callers there are, what does not fit waits outside; later all of it runs."""
    gate = Gate()

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 2, [gate], queue_capacity=3)])
        async with pipeline.open() as run:
            futures = [run.submit(n) for n in range(100)]
            await asyncio.sleep(1)
            assert run.stats().items_accepted == 2 + 3 + 1
            gate.open()
            await run.join()  # and what waits for room is still let in
            assert all(future.done() for future in futures)
            assert [(await future).value for future in futures] == list(range(100))
            with pytest.raises(PipelineError, match="takes no more items"):
                run.submit(5)

    run_virtual(main())


@pytest.mark.parametrize("way", ["shutdown", "cancel"])
def test_run_that_is_stopped(way: str) -> None:
    """What was accepted ends with a result that says `ItemCancelled`; what was not raises."""
    gate = Gate()

    async def main() -> None:
        pipeline = Pipeline([Stage("Work", 1, [gate], queue_capacity=1)])
        async with pipeline.open() as run:
            futures = [run.submit(n) for n in range(6)]
            await asyncio.sleep(1)
            accepted = run.stats().items_accepted
            if way == "cancel":
                run.cancel()
            else:
                stopping = asyncio.create_task(run.shutdown())
                await asyncio.sleep(1)
                gate.open()
                await stopping
        ends = await asyncio.gather(*futures, return_exceptions=True)
        outcomes = [getattr(end, "outcome", type(end)) for end in ends]
        first = "completed" if way == "shutdown" else "cancelled"
        waiting = ["cancelled"] * (accepted - 1)
        assert outcomes == [first, *waiting, *[PipelineError] * (6 - accepted)]
        assert isinstance(getattr(ends[1], "error", None), ItemCancelled)
        assert_balanced(run.stats())

    run_virtual(main())


def test_task_may_submit_to_a_later_stage() -> None:
    """A task of the run can wait for an item that it sends on."""

    async def main() -> None:
        async def ask(number: int) -> Any:
            return (await handle.submit(number, "Keep", 1)).value

        stages = [Stage("Ask", 2, [ask]), Stage("Keep", 1, [str])]
        async with Pipeline(stages).open() as handle:
            assert (await handle.submit(4)).value == "4"
        assert handle.stats().items_accepted == 2

    run_virtual(main())


def test_submit_from_another_thread() -> None:
    """The run belongs to its event loop."""

    async def main() -> None:
        async with doubling().open() as run:
            with pytest.raises(PipelineError, match=r"^submit\(\) was called from another thread"):
                await asyncio.to_thread(run.submit, 1)

    asyncio.run(main())


def test_submitting_cancelled_at_every_step_loses_nothing() -> None:
    """Wherever the caller is cancelled, the run ends and its counts add up."""
    runs: list[RunHandle[Any]] = []

    async def main() -> None:
        async with doubling(1).open() as run:
            runs.append(run)
            await asyncio.gather(*(run.submit(n) for n in range(3)))

    def check(_: int) -> None:
        if runs:
            assert_balanced(runs[-1].stats())
            assert not runs[-1].stats().items_in_flight

    assert cancel_at_every_step(main, check) > 10
