"""The item that a task works on, as the task can ask for it."""

from __future__ import annotations

import pickle
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antflow import Observer, Pipeline, RunResults, Stage, current_item, set_task_status
from antflow.testing import run_virtual


def test_current_item_is_the_same_in_async_tasks_and_threads() -> None:
    """Id, attempt, stage and run, in async tasks and in threads; one key for all tries."""
    seen: list[Any] = []

    async def first(value: int) -> int:
        seen.append(current_item())
        if current_item().attempt == 1:
            raise ValueError
        return value

    def second(value: int) -> int:
        seen.append((current_item(), threading.current_thread() is threading.main_thread()))
        return value

    async def main() -> str:
        stages = [Stage("A", 1, [first]), Stage("B", 1, [second])]
        return (await Pipeline(stages).run([{"id": "x", "value": 1}])).run_id

    run_id = run_virtual(main)
    one, two, (three, in_main_thread) = seen
    assert (one.id, one.attempt, one.stage, one.run_id) == ("x", 1, "A", run_id)
    assert (two.attempt, three.attempt, three.stage) == (2, 1, "B")
    assert one.idempotency_key == two.idempotency_key != three.idempotency_key
    assert not in_main_thread


def test_current_item_outside_a_task_is_an_error() -> None:
    """It says where it works."""
    with pytest.raises(RuntimeError, match="only inside a task"):
        current_item()


def test_run_inside_a_task_calls_nothing_on_behalf_of_its_item() -> None:
    """The source, display and observers of a run belong to no item of the run around it."""
    heard: dict[str, bool] = {}

    def ask(who: str) -> None:
        heard[who] = heard.get(who, False) or set_task_status(who)

    async def source() -> AsyncIterator[int]:
        ask("source")
        yield 1

    class Display:
        def on_update(self, snapshot: Any) -> None:
            ask("display")

    class Watcher(Observer):
        def opened(self, run: Any) -> None:
            ask("opened")

        def closed(self, end: Any) -> None:
            ask("closed")

    async def inner(value: int) -> int:
        return value

    async def outer(value: int) -> None:
        assert set_task_status("outer")
        pipeline = Pipeline([Stage("B", 1, [inner])], observers=[Watcher()])
        await pipeline.run(source(), custom_dashboard=Display())

    run_virtual(lambda: Pipeline([Stage("A", 1, [outer])]).run([1]))
    assert heard == dict.fromkeys(["opened", "source", "display", "closed"], False)


def test_idempotency_key_tells_42_from_its_text() -> None:
    """Items 42 and "42" of one run have different keys."""
    keys = []

    async def task(value: Any) -> None:
        keys.append(current_item().idempotency_key)

    async def main() -> None:
        await Pipeline([Stage("A", 1, [task])]).run([{"id": 42}, {"id": "42"}])

    run_virtual(main)
    assert len(set(keys)) == 2


class Shop:
    """A service that notes the idempotency keys it is sent, and is down at first."""

    def __init__(self) -> None:
        self.keys: defaultdict[str, list[str]] = defaultdict(list)
        self.is_down = True

    def pay(self, order: Any) -> Any:
        self.keys[f"{current_item().stage} {order}"].append(current_item().idempotency_key)
        if self.is_down:
            raise ConnectionError
        return order

    def split(self, order: str) -> list[str]:
        self.pay(order)
        return [f"{order}{part}" for part in "abc"]


def pipeline_of(shop: Shop, **options: Any) -> Pipeline[Any, Any]:
    return Pipeline([Stage("Pay", 2, [shop.pay], task_attempts=2, task_wait_seconds=0, **options)])


def test_idempotency_key_is_repeated_when_an_item_goes_on() -> None:
    """All tries of an item, in its run and in later ones, send one key that no other item has."""
    shop = Shop()

    async def main() -> None:
        results: RunResults[Any] = await pipeline_of(shop).run(["x", "y", "z"])
        for _ in range(2):  # a third run, too, with a copy of the results, in another order
            copies = pickle.loads(pickle.dumps(results.failed))[::-1]
            results = await pipeline_of(shop).run(["new", "new"], retry_failed=copies)
            results.failed = [each for each in results.failed if each.value != "new"]

    run_virtual(main)
    new = shop.keys.pop("Pay new")
    assert [len(keys) for keys in shop.keys.values()] == [6, 6, 6]
    assert [len(set(keys)) for keys in shop.keys.values()] == [1, 1, 1]
    assert len(set(new)) == 4
    assert len({key for keys in shop.keys.values() for key in keys} | set(new)) == 7


def test_idempotency_key_of_children_is_repeated() -> None:
    """Items made from one that goes on keep their keys, through several runs and expansions."""
    first, second, third = Shop(), Shop(), Shop()
    first.is_down = False

    async def main() -> None:
        stages = [
            Stage("Split", 1, [first.split], expand=True),
            Stage("Again", 1, [second.split], expand=True, task_attempts=1),
            Stage("Pay", 1, [third.pay], task_attempts=1),
        ]
        begun = (await Pipeline(stages).run(["x"])).failed
        second.is_down = False
        await Pipeline(stages).run(["new"], retry_failed=begun)  # and its results are lost
        results = await Pipeline(stages).run([], retry_failed=begun)
        await Pipeline(stages).run([], retry_failed=results.failed)

    run_virtual(main)
    sent = [*first.keys.items(), *second.keys.items(), *third.keys.items()]
    keys = [each for order, each in sent if "new" not in order]
    assert [len(each) for each in keys] == [1, *[3] * 12]
    assert [len(set(each)) for each in keys] == [1] * 13
    assert len({key for each in keys for key in each}) == 13


def test_idempotency_key_of_unrelated_runs_differs() -> None:
    """The same items fed once more are new items: their keys were never sent before."""
    shop = Shop()

    async def main() -> None:
        for _ in range(2):
            await pipeline_of(shop).run([{"id": "order-1", "value": "x"}])

    run_virtual(main)
    (keys,) = shop.keys.values()
    assert (len(keys), len(set(keys))) == (4, 2)


def test_idempotency_key_names_the_version_of_the_stage() -> None:
    """Another version of the code asks for something else; the order of a dict does not matter."""
    shop = Shop()
    versions: list[Any] = ["", "2", 2, {"model": "m", "t": 1}, {"t": 1, "model": "m"}]

    async def main() -> None:
        failed = (await pipeline_of(shop, version=versions[0]).run(["x"])).failed
        for version in versions[1:]:
            await pipeline_of(shop, version=version).run([], retry_failed=failed)

    run_virtual(main)
    (keys,) = shop.keys.values()
    assert len(set(keys)) == 4
    assert keys[-1] == keys[-3]
