"""An object of an odd class costs the item it came with, and never the run or the others."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import fields
from functools import partial
from typing import Any, NoReturn

import pytest

from antflow import (
    AsyncExecutor,
    Limit,
    Pipeline,
    PipelineError,
    PipelineResult,
    Stage,
    StageValidationError,
    StatusTracker,
    in_thread,
)
from antflow._core.foreign import is_awaitable
from antflow.testing import run_virtual
from tests.odd import ERRORS, REFUSED, VALUES, Refused, cancel, odd_class, refuse
from tests.support import raising, same, virtual

pytestmark = pytest.mark.fault


PLAIN = [1, 2, 3, 4, 5]
"""Those that must come through whatever happens to the others."""


RETURNS, SKIPS, COSTS, WAITS, HOLDS = 100, 101, 102, 103, 104
"""Items for which something is odd: a task's answer, or that of a function among the options."""


MODES = ["run", "stream", "tracker", "batch", "expand", "per_stage", "log"]


class Program:
    """A pipeline in one of the `MODES`, through which odd items and plain ones go.

    Args:
        mode: How it runs.
        items: The odd items.
        act: Called by whatever is to be odd.
        calls_back: Whether callbacks are odd, too.
    """

    def __init__(
        self,
        mode: str,
        items: list[Any],
        act: Callable[[], Any] = int,
        *,
        calls_back: bool = False,
    ) -> None:
        self.mode = mode
        self.items = [*PLAIN[:2], *items, *PLAIN[2:]]
        self.act = act
        options: dict[str, Any] = {
            "task_attempts": 2,
            "wait": self.wait,
            "hold_on": {KeyError: lambda _: self.act()},
            "max_holds": 2,
            "skip_if": lambda value: self.act() if _is_there(SKIPS, value) else False,
            "limits": [
                Limit(9, rate=1e6, cost=lambda value: self.act() if _is_there(COSTS, value) else 0)
            ],
        }
        callback = (lambda *_: self.act()) if calls_back else None
        tasks: list[Any] = [self.task]
        if mode == "batch":
            options |= {"batch": 3, "batch_wait": 0.01}
            tasks = [self.batch_task]
        elif mode == "expand":
            options["expand"] = True
            tasks = [self.expanding_task]
        elif mode == "per_stage":
            options |= {"retry": "per_stage", "task_attempts": 3, "stage_attempts": 2}
            options |= dict.fromkeys(["on_success", "on_failure", "on_skip"], callback)
        elif mode == "run":
            del options["limits"], options["skip_if"]
        self.tracker: StatusTracker | None = None
        if mode == "tracker":
            self.tracker = StatusTracker(*[callback or print] * 5)
        elif mode != "run":
            self.tracker = StatusTracker()
        first = Stage("First", 2, tasks, **options)
        last = Stage("Last", 2, [self.pass_on])
        self.pipeline = Pipeline([first, last], status_tracker=self.tracker)
        self.outcomes: list[PipelineResult[Any]] = []

    async def task(self, value: Any) -> Any:
        """The first stage's task."""
        if _is_there(RETURNS, value):
            return self.act()
        if _is_there(WAITS, value):
            raise Refused
        if _is_there(HOLDS, value):
            raise KeyError
        return value

    async def batch_task(self, values: list[Any]) -> list[Any]:
        """The same for a batch."""
        return [await self.task(value) for value in values]

    async def expanding_task(self, value: Any) -> Any:
        """The same, where it makes items."""
        answer = await self.task(value)
        return answer if _is_there(RETURNS, value) else [answer]

    async def pass_on(self, value: Any) -> Any:
        """The last stage's task."""
        return value

    def wait(self, attempt: Any) -> Any:
        """Seconds until the next try."""
        return self.act() if isinstance(attempt.outcome.error, Refused) else 0.01

    def run(self) -> None:
        """Run it, and check everything that must hold."""
        if escaped := self.escaped():
            pytest.fail(escaped, pytrace=False)
        self.check()

    def escaped(self) -> str:
        """Run it; what came out that should not have, as text: pytest cannot look at it."""
        try:
            run_virtual(self.main)
        except BaseException as error:  # why: some errors are no Exception
            frames = BaseException.__dict__["__traceback__"].__get__(error)
            return "".join(traceback.format_tb(frames)) or "without a traceback"
        return ""

    async def main(self) -> None:
        """One run."""
        if self.mode == "stream":
            async with aclosing(self.pipeline.stream(self.items)) as stream:
                self.outcomes = [result async for result in stream]
        else:
            dashboard: Any = "log" if self.mode == "log" else None
            results = await self.pipeline.run(self.items, dashboard=dashboard)
            self.outcomes = [*results, *results.failed]
            assert len(results.outcomes) == len(self.items)

    def check(self) -> None:
        """The books balance, the plain items came through, everything can be asked."""
        stats = self.pipeline.get_stats()
        out = stats.items_processed + stats.items_failed + stats.items_dropped
        assert stats.items_accepted + stats.items_children == out + stats.items_expanded
        assert stats.items_accepted == len(self.items)
        assert (stats.items_in_flight, stats.items_cancelled) == (0, 0)
        values = [outcome.value for outcome in self.outcomes if outcome.error is None]
        assert sorted(value for value in values if type(value) is int and value in PLAIN) == PLAIN
        summary = str(self.pipeline.get_error_summary())
        assert ("No errors" in summary) == (not stats.items_failed)
        if self.tracker is not None:
            self.check_tracker(self.tracker, stats.items_accepted + stats.items_children)

    def check_tracker(self, tracker: StatusTracker, count: int) -> None:
        """It has the whole history of each item."""
        ids = tracker.get_tracked_ids()
        assert len(ids) == count
        assert sum(tracker.get_stats().values()) == count
        settled = [*tracker.get_by_status("completed"), *tracker.get_by_status("failed")]
        assert len(settled) + len(tracker.get_by_status("skipped")) == count
        for item_id in ids:
            history = tracker.get_history(item_id)
            if (
                type(item_id) is int or type(item_id) is str
            ):  # an id whose hash changes is not found again
                assert history[0].status in ("queued", "completed")
        assert len(tracker.get_failed_items()) == self.pipeline.get_stats().items_failed


def _is_there(number: int, value: Any) -> bool:
    """Whether a value is that number, or a batch with it."""
    given = value if type(value) is list else [value]
    return any(type(each) is int and each == number for each in given)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except BaseException:  # why: some raise CancelledError
        return False
    return True


@pytest.fixture(autouse=True, scope="module")
def no_odd_classes_left() -> Iterator[None]:
    """A class that cannot be compared breaks ``isinstance`` for others as long as it exists."""
    yield
    gc.collect()


async def work(value: Any) -> Any:
    return value


def odd_function(**methods: Any) -> Callable[[], Any]:
    kind: Callable[[], Any] = odd_class("P", __call__=lambda self, value: value, **methods)
    return kind


def unbound(self: Any, name: str) -> NoReturn:
    """As the proxies of web frameworks do outside a request."""
    raise RuntimeError("working outside of request context")


ARGUMENTS: dict[str, Callable[[], Any]] = VALUES | {
    "function without attributes": odd_function(__getattr__=unbound),
    "function whose attributes raise CancelledError": odd_function(__getattr__=cancel),
    "function without any attributes": odd_function(__getattribute__=unbound),
    "function without a class": odd_function(__class__=REFUSED),
    "function without a signature": odd_function(__signature__=REFUSED),
    "function without a name": odd_function(__name__=REFUSED),
    "empty sequence": odd_class("Q", Sequence, __getitem__=refuse, __len__=refuse),
    "sequence": odd_class("Q", Sequence, __getitem__=refuse, __len__=lambda self: 1),
    "mapping": odd_class("R", Mapping, __getitem__=refuse, __len__=refuse, __iter__=refuse),
    "dict": odd_class("R", dict, items=refuse, values=refuse, __iter__=refuse),
}


STAGE_OPTIONS = [field.name for field in fields(Stage) if field.name != "tasks"]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_odd_options_of_a_stage_are_refused(name: str) -> None:
    """A pipeline is made, or a StageValidationError raised: nothing else comes out."""
    make = ARGUMENTS[name]
    plain: dict[str, Any] = {"name": "A", "workers": 1, "tasks": [work]}
    odd: list[dict[str, Any]] = [{option: make()} for option in STAGE_OPTIONS]
    odd += [{"tasks": make()}, {"tasks": [make()]}, {"tasks": [work, make()]}]
    odd += [{"tasks": [make()], "unpack_args": True}, {"tasks": [make()], "expand": True}]
    odd += [{"tasks": [make()], "executor": "process"}, {"resources": {"a": make()}}]
    odd += [{"limits": [make()]}, {"hold_on": {ValueError: make()}}, {"retry_on": (make(),)}]
    for options in odd:
        with suppress(StageValidationError):
            Pipeline([Stage(**plain | options)])


@pytest.mark.parametrize("name", ["function without attributes", "function without a class"])
def test_odd_task_is_refused_by_name(name: str) -> None:
    """The error names the stage and the task, and is caused by what the task raised."""
    stage = Stage("Fetch", 1, [work, ARGUMENTS[name]()])
    with pytest.raises(StageValidationError, match=r"^Stage 'Fetch': tasks\[1\]=") as info:
        Pipeline([stage])
    assert "cannot be examined" in str(info.value)
    assert isinstance(info.value.__cause__, (RuntimeError, Refused))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_odd_arguments_are_refused(name: str) -> None:
    """Whatever is handed to the library, a TypeError or ValueError says that it will not do."""
    make = ARGUMENTS[name]
    pipeline = Pipeline([Stage("A", 1, [work])])
    calls: list[Callable[[], Any]] = [
        lambda: Pipeline(make()),
        lambda: Pipeline([make()]),
        lambda: pipeline.stream(make()),
        lambda: in_thread(make()),
        lambda: Limit(rate=1, cost=make()),
    ]
    for option in ("collect_results", "status_tracker", "name", "duplicates", "store"):
        calls.append(partial(Pipeline, [Stage("A", 1, [work])], **{option: make()}))
    for option in ("custom_dashboard", "dashboard", "progress"):
        calls.append(partial(pipeline.stream, [1], **{option: make()}))
    for call in calls:
        with suppress(TypeError, ValueError, PipelineError):
            call()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VALUES)
def test_odd_values_cost_their_own_item(name: str, mode: str) -> None:
    """Fed as items, values, ids, metadata or keys of those, they let the other items through."""
    make = VALUES[name]
    items: list[Any] = [
        make(),
        {"id": "value", "value": make()},
        {"id": "metadata", "value": 7, "note": make()},
        {"id": make(), "value": 8},
        {"id": make(), "value": 9},
    ]
    if _is_hashable(odd := make()):
        items.append({"id": "key", "value": 10, odd: 1})
    Program(mode, items).run()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VALUES)
def test_odd_answers_cost_their_own_item(name: str, mode: str) -> None:
    """So it is with what tasks, callbacks and functions among the options return."""
    items = [RETURNS, SKIPS, COSTS, WAITS, HOLDS]
    Program(mode, items, VALUES[name], calls_back=True).run()


def answer(name: str) -> Any:
    """One of the values, for a plain function: what can be awaited would be."""
    odd = VALUES[name]()
    if is_awaitable(odd):
        pytest.skip("it is awaited")
    return odd


@pytest.mark.parametrize("executor", ["thread", "inline", "pool"])
@pytest.mark.parametrize("name", VALUES)
def test_odd_answers_are_the_same_wherever_a_function_runs(name: str, executor: Any) -> None:
    """What a plain function returns becomes what it becomes where an async one returns it."""
    odd = answer(name)

    async def task(value: int) -> Any:
        return odd

    def plain(value: int) -> Any:
        return odd

    async def outcome(task: Any, executor: Any) -> Any:
        stage = Stage("A", 1, [task], task_attempts=1, executor=executor)
        [result] = (await Pipeline([stage]).run([1])).outcomes
        return result.outcome, result.value is odd, type(result.error)

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            place = pool if executor == "pool" else executor
            assert await outcome(plain, place) == await outcome(task, "thread")

    run_virtual(main)


@pytest.mark.parametrize("name", VALUES)
def test_odd_answers_come_out_of_an_executor(name: str) -> None:
    """`AsyncExecutor` passes on what a plain function returns, whatever it is."""
    odd = answer(name)

    async def main() -> bool:
        async with AsyncExecutor() as executor:
            return await executor.submit(lambda: odd) is odd

    assert run_virtual(main)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ERRORS)
def test_odd_errors_cost_their_own_item(name: str, mode: str) -> None:
    """So it is with what they raise."""

    def fail() -> None:
        raise ERRORS[name]()

    Program(mode, [RETURNS, SKIPS, COSTS, WAITS, HOLDS], fail, calls_back=True).run()


@pytest.mark.parametrize("name", ERRORS)
def test_odd_errors_are_kept_as_they_are(name: str) -> None:
    """What a task raised is the error of its item."""
    odd: Any = ERRORS[name]()
    try:
        raise odd
    except BaseException as error:  # why: some are no Exception
        can_be_raised = error is odd
    if not (can_be_raised and issubclass(type(odd), Exception) and type(odd) is not StopIteration):
        pytest.skip("no task can fail with that itself")

    async def task(value: int) -> int:
        raise odd

    limit = Limit(1)
    stage = Stage("A", 1, [task], task_attempts=1, limits=[limit], isolate_context=True)
    results = run_virtual(Pipeline([stage]).run([1]))
    is_kept = results.failed[0].error is odd
    assert is_kept


class Hostile:
    """A value that raises whatever is asked of it; as an exception, too."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__

    def _refuse(self, *_: Any) -> Any:
        raise RuntimeError("asked")

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __len__ = __hash__ = _refuse
    __iter__ = __getitem__ = __contains__ = __call__ = _refuse


class HostileError(Hostile, Exception):
    pass


def never_mind(*_: Any) -> None:
    """A callback that does nothing."""


@pytest.mark.parametrize("how", ["run", "stream", "feed"])
def test_items_that_raise_whatever_is_asked(how: str) -> None:
    """Values are never compared, tested, measured or printed; they only pass through."""

    async def main() -> None:
        items = [Hostile() for _ in range(6)]
        tries: list[Any] = []

        async def work(value: Any) -> Any:
            tries.append(value)
            if len(tries) % 3 == 0:
                raise HostileError
            return value

        stages = [
            Stage("A", 2, [work], task_wait_seconds=0, on_success=never_mind),
            Stage("B", 2, [same], "per_stage", skip_if=lambda value: value is items[0]),
        ]
        pipeline = Pipeline(stages, status_tracker=StatusTracker(never_mind))
        if how == "run":
            values = (await pipeline.run(items)).values()
        elif how == "stream":
            values = [result.value async for result in pipeline.stream(items)]
        else:
            for number, item in enumerate(items):
                await pipeline.feed([item], priority=100 - number % 2)
            await pipeline.join()
            values = pipeline.results.values()
        assert {id(value) for value in values} == {id(item) for item in items}

    virtual(main)


def test_errors_that_raise_whatever_is_asked() -> None:
    """An exception that cannot be printed or compared fails its item and is counted."""

    async def main() -> None:
        tracker = StatusTracker(never_mind)
        stage = Stage("Work", 1, [raising(HostileError())], "per_stage")
        pipeline = Pipeline([stage], status_tracker=tracker)
        results = await pipeline.run([1, 2])
        assert results.summary.errors_by_type == {"HostileError": 2}
        assert "HostileError" in str(results.summary)
        assert "HostileError" in tracker.get_failed_items()[0].error
        assert tracker.get_history(0)[-1].metadata["error_type"] == "HostileError"

    virtual(main)


def test_names_of_tasks_that_raise_whatever_is_asked() -> None:
    """A task object that has no usable name goes by that of its class."""

    class Task:
        __name__ = 5

        def __repr__(self) -> str:
            raise RuntimeError("repr")

        async def __call__(self, value: int) -> int:
            return value

    heard: list[str] = []
    tracker = StatusTracker(on_task_start=lambda event: heard.append(event.task_name))
    virtual(lambda: Pipeline([Stage("W", 1, [Task()])], status_tracker=tracker).run([1]))
    assert heard == ["Task"]
