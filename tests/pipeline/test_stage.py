"""`Stage`: its options, their order and defaults, and what they do."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import MISSING, Field, dataclass, fields
from functools import partial, wraps
from typing import Any

import pytest

import antflow
from antflow import Pipeline, Retry, Stage, StageValidationError, StatusTracker
from antflow._core.stage_checks import check_call, is_ordinary
from antflow.testing import Calls, FailTimes, Gate, Scripted, run_virtual
from tests.support import REQUIRED, defaults, double, now, odd_only, positional, same, slow, values

pytestmark = pytest.mark.contract

OLD_OPTIONS: dict[str, Any] = {
    "name": REQUIRED,
    "workers": REQUIRED,
    "tasks": REQUIRED,
    "retry": "per_task",
    "task_attempts": 3,
    "task_wait_seconds": 1.0,
    "stage_attempts": 3,
    "unpack_args": False,
    "task_concurrency_limits": {},
    "on_success": None,
    "on_failure": None,
    "on_skip": None,
    "skip_if": None,
    "queue_capacity": None,
    "pull": False,
    "call_concurrency": None,
    "call_rate": None,
    "call_rate_period": 60.0,
}

NEW_OPTIONS: dict[str, Any] = {
    "stage_wait_seconds": 0.0,
    "limits": (),
    "timeout": None,
    "retry_on": Exception,
    "give_up_on": (),
    "wait": None,
    "executor": "auto",
    "batch": None,
    "batch_wait": None,
    "expand": False,
    "resources": {},
    "resource_scope": "run",
    "max_failures": None,
    "stop_on": (),
    "version": "",
    "isolate_context": True,
}


def run(items: Any, *stages: Stage, tracker: StatusTracker | None = None) -> Any:
    """The results of a pipeline of these stages, in virtual time."""
    return run_virtual(lambda: Pipeline([*stages], status_tracker=tracker).run(items))


def test_options_keep_their_order() -> None:
    """The options of 0.10.0 can be given by their places, in the old order, and no others."""
    assert positional(Stage) == list(OLD_OPTIONS)


@pytest.mark.parametrize("name", [n for n, default in OLD_OPTIONS.items() if default != REQUIRED])
def test_options_keep_their_defaults(name: str) -> None:
    """Each option of 0.10.0 has the default it had."""
    assert getattr(Stage("A", 1, [same]), name) == OLD_OPTIONS[name]


@pytest.mark.parametrize("name", ["name", "workers", "tasks"])
def test_name_workers_and_tasks_are_required(name: str) -> None:
    """A stage cannot be made without name, workers and tasks."""
    assert inspect.signature(Stage).parameters[name].default is REQUIRED


def test_stage_works_positionally() -> None:
    """``Stage("Fetch", 10, [fetch])`` is enough."""
    stage = Stage("Fetch", 10, [same])
    assert (stage.name, stage.workers, list(stage.tasks)) == ("Fetch", 10, [same])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Stage("A", 0, [same]),
        lambda: Stage("A", 1, []),
        lambda: Stage("A", 1, [same], retry="never"),
        lambda: Stage("A", 1, [same], task_attempts=0),
    ],
    ids=["workers", "tasks", "retry", "attempts"],
)
def test_stage_never_raises_and_validate_does(make: Callable[[], Stage]) -> None:
    """Making a wrong stage raises nothing; ``validate()`` and ``Pipeline`` both refuse it."""
    stage = make()
    with pytest.raises(StageValidationError):
        stage.validate()
    with pytest.raises(StageValidationError):
        Pipeline([stage])


def test_validate_accepts_a_good_stage() -> None:
    """``validate()`` is public and silent when all is well."""
    Stage("A", 1, [same], "per_stage", 2, 0.5, 2).validate()


@pytest.mark.parametrize("option", fields(Stage), ids=lambda option: option.name)
def test_default_of_each_option_is_allowed(option: Field[Any]) -> None:
    """The default of an option is not checked in each stage, so its check is asked here."""
    if option.default is not MISSING:
        option.metadata["check"](ValueError, option.name, option.default)


def test_default_of_a_subclass_is_checked() -> None:
    """A subclass may have another default, which is checked like any other value."""

    @dataclass(frozen=True)
    class Idle(Stage[Any, Any]):
        max_holds: int = -1

    with pytest.raises(StageValidationError, match="max_holds=-1"):
        Pipeline([Idle("A", 1, [same])])


def _with_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    function.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
    return function


ORDINARY: list[Callable[..., Any]] = [
    lambda value: value,
    lambda value, more=1: value,
    lambda value=1: value,
    lambda value, /: value,
]
PECULIAR: list[Callable[..., Any]] = [
    lambda: 1,
    lambda one, two: one,
    lambda *, value: value,
    lambda *, value=1: value,
    lambda value, *, more: value,
    lambda value: (yield value),
    _with_signature(lambda value: value),
    wraps(lambda: 1)(lambda value: value),
]


@pytest.mark.parametrize("task", ORDINARY, ids=["one", "more", "default", "by position"])
def test_ordinary_task_is_taken(task: Callable[..., Any]) -> None:
    """A function of one value, others optional, fits a stage; its code alone tells so."""
    assert is_ordinary(task)
    check_call(ValueError, "task", task, {})
    Pipeline([Stage("A", 1, [task])])


@pytest.mark.parametrize(
    "task",
    PECULIAR,
    ids=["none", "two", "keyword", "optional", "more", "generator", "signature", "wrapper"],
)
def test_task_that_is_not_ordinary_is_refused(task: Callable[..., Any]) -> None:
    """A function that may not be called with one value, or makes several, gets a closer look."""
    assert not is_ordinary(task)
    with pytest.raises(StageValidationError):
        Pipeline([Stage("A", 1, [task])])


@pytest.mark.parametrize("name", ["Fe[/tch]", "a/b", "x" * 100, "naïve – 名"])
def test_stage_names_are_free_text(name: str) -> None:
    """Markup, slashes and any script are allowed in a name of up to 100 characters."""
    pipeline = Pipeline([Stage(name, 1, [same])])
    assert pipeline.get_worker_names() == {name: [f"{name}-W0"]}


class Adder:
    """An object with an async ``__call__``."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    async def __call__(self, value: int) -> int:
        return value + self.amount


async def add(amount: int, value: int) -> int:
    """A task with one argument too many, for `functools.partial`."""
    return value + amount


@pytest.mark.parametrize("task", [Adder(3), partial(add, 3), Adder(3).__call__])
def test_tasks_of_every_async_kind(task: Any) -> None:
    """A task is an ``async def``, a partial of one, a method or an object with ``__call__``."""
    assert values(run([1, 2], Stage("A", 1, [task]))) == [4, 5]


def test_tasks_run_one_after_the_other() -> None:
    """Each task of a stage gets what the one before returned."""
    assert values(run([1], Stage("A", 1, [double, Adder(1), double]))) == [6]


def test_stages_run_one_after_the_other() -> None:
    """The value of one stage enters the next."""
    assert values(run([1], Stage("A", 1, [Adder(1)]), Stage("B", 1, [double]))) == [4]


def test_workers_bound_what_runs_at_once() -> None:
    """``workers`` items are worked on at the same time, and no more."""
    calls = Calls(seconds=1)
    run(range(10), Stage("A", 3, [calls]))
    assert calls.most_at_once == 3


def test_per_task_tries_the_failed_task_again() -> None:
    """Under "per_task" the task that failed is tried again, and not the ones before it."""
    before, flaky = Calls(), FailTimes(2)
    results = run(["x"], Stage("A", 1, [before, flaky], task_wait_seconds=0))
    assert (values(results), len(before.made), flaky.tries["'x'"]) == (["x"], 1, 3)


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_task_attempts_are_total_tries(attempts: int) -> None:
    """``task_attempts`` counts the first try too."""
    flaky = FailTimes(100)
    run([1], Stage("A", 1, [flaky], task_attempts=attempts, task_wait_seconds=0))
    assert flaky.tries["1"] == attempts


def test_tasks_are_tried_three_times_by_default() -> None:
    """Without options there are three tries, a second apart."""
    calls = Calls(FailTimes(2))
    assert values(run([7], Stage("A", 1, [calls]))) == [7]
    starts = [call.start - calls.made[0].start for call in calls.made]
    assert starts == [0.0, 1.0, 2.0]


def test_task_wait_seconds_is_the_pause() -> None:
    """``task_wait_seconds`` pass between two tries of a task."""
    calls = Calls(FailTimes(1))
    run([7], Stage("A", 1, [calls], task_wait_seconds=2.5))
    assert calls.made[1].start - calls.made[0].start == 2.5


def test_per_stage_starts_over_from_the_first_task() -> None:
    """Under "per_stage" the stage is tried again from its first task, with what entered it."""
    before = Calls(double)
    stage = Stage("A", 1, [before, Scripted(ValueError("once"))], retry="per_stage")
    run([5, 6, 7], stage)
    assert [call.value for call in before.made].count(5) == 2


@pytest.mark.parametrize(
    ("value", "expected"), [({"a": 1, "b": 2}, 12), ([3, 4], 34), ((5, 6), 56), (7, 79)]
)
def test_unpack_args_by_the_kind_of_value(value: Any, expected: int) -> None:
    """With ``unpack_args`` a dict becomes keywords, a list or tuple arguments, others stay."""

    async def join(a: int, b: int = 9) -> int:
        return 10 * a + b

    assert values(run([value], Stage("A", 1, [join], unpack_args=True))) == [expected]


def test_unpack_args_before_every_task() -> None:
    """Each task of the stage has what came from the one before unpacked."""

    async def swap(a: Any, b: Any) -> tuple[Any, Any]:
        return b, a

    stage = Stage("A", 1, [swap, swap, swap], unpack_args=True)
    assert values(run([(1, 2)], stage)) == [(2, 1)]


def test_task_concurrency_limits_by_task_name() -> None:
    """``task_concurrency_limits`` bounds the simultaneous calls of the task of that name."""
    calls = Calls(seconds=1)

    async def fetch(value: int) -> Any:
        return await calls(value)

    run(range(8), Stage("A", 5, [fetch], task_concurrency_limits={"fetch": 2}))
    assert calls.most_at_once == 2


def test_on_success_hears_id_value_and_payload() -> None:
    """``on_success`` is called with the id, the new value, and a dict with id and metadata."""
    heard: list[tuple[Any, Any, dict[str, Any]]] = []
    stage = Stage("A", 1, [double], on_success=lambda *heard_of: heard.append(heard_of))
    run([{"id": "a", "value": 4, "language": "en"}], stage)
    ((item_id, value, payload),) = heard
    assert (item_id, value, payload["id"]) == ("a", 8, "a")
    assert payload["language"] == "en"


def test_on_failure_hears_id_error_and_payload() -> None:
    """``on_failure`` is called once, after the last try, with the id and the exception."""
    heard: list[Any] = []

    async def note(item_id: Any, error: Exception, payload: dict[str, Any]) -> None:
        heard.append((item_id, str(error), payload["id"]))

    stage = Stage("A", 1, [odd_only], on_failure=note, task_attempts=2, task_wait_seconds=0)
    run([1, 2], stage)
    assert heard == [(1, "2 is even", 1)]


def test_on_skip_hears_id_value_and_payload() -> None:
    """``on_skip`` is called for an item that passes by, with the id and its value."""
    heard: list[Any] = []

    def note(item_id: Any, value: Any, payload: dict[str, Any]) -> None:
        heard.append((item_id, value, payload["id"]))

    run([1, 2], Stage("A", 1, [double], skip_if=lambda value: value == 2, on_skip=note))
    assert heard == [(1, 2, 1)]


@pytest.mark.parametrize("hook", ["on_success", "on_failure", "on_skip"])
def test_callbacks_change_no_outcome(hook: str) -> None:
    """What ``on_success``, ``on_failure`` or ``on_skip`` raises changes nothing."""

    async def fail(*_: Any) -> None:
        raise RuntimeError("the callback is broken")

    options: dict[str, Any] = {hook: fail, "skip_if": lambda value: value == 4}
    stage = Stage("A", 1, [odd_only], task_attempts=1, **options)
    assert values(run([1, 2, 3, 4], stage)) == [1, 3, 4]


def test_skip_if_lets_the_item_pass_unchanged() -> None:
    """An item for which ``skip_if`` is truthy passes this stage as it is, status "skipped"."""
    tracker = StatusTracker()
    stages = [Stage("A", 1, [double], skip_if=lambda value: value > 5), Stage("B", 1, [double])]
    assert values(run([1, 9], *stages, tracker=tracker)) == [4, 18]
    statuses = [event.status for event in tracker.get_history(1) if event.stage == "A"]
    assert statuses == ["queued", "skipped"]


async def waiting_before(**options: Any) -> int:
    """Items that wait before a second stage of two workers that never get on."""
    gate = Gate()
    pipeline = Pipeline([Stage("A", 1, [same]), Stage("B", 2, [gate], **options)])
    async with pipeline:
        await pipeline.start()
        await pipeline.feed(range(8))
        feeding = asyncio.create_task(pipeline.feed(range(60)))
        await asyncio.sleep(5)
        waiting = pipeline.get_stats().queue_sizes["B"]
        gate.open()
        await feeding
        await pipeline.join()
        return waiting


@pytest.mark.parametrize(
    ("options", "waiting"),
    [({}, 20), ({"queue_capacity": 3}, 3), ({"queue_capacity": 0}, 66), ({"pull": True}, 0)],
    ids=["default", "bounded", "unbounded", "pull"],
)
def test_queue_capacity_bounds_what_waits(options: dict[str, Any], waiting: int) -> None:
    """10 per worker wait before a stage, or ``queue_capacity``, any number (0), none (``pull``)."""
    assert run_virtual(lambda: waiting_before(**options)) == waiting


# New since 0.10.0


@pytest.mark.parametrize("name", NEW_OPTIONS)
def test_new_options_have_defaults_and_come_by_keyword(name: str) -> None:
    """Each new option has its default, and is given by keyword only."""
    assert getattr(Stage("A", 1, [same]), name) == NEW_OPTIONS[name]
    assert inspect.signature(Stage).parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_no_option_is_unknown() -> None:
    """The options are those of 0.10.0, the new ones, and two about holding items."""
    assert set(defaults(Stage)) - set(OLD_OPTIONS) - set(NEW_OPTIONS) == {"hold_on", "max_holds"}


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "a\x1bb", None, 5])
def test_stage_names_that_are_refused(name: Any) -> None:
    """A name is a text of 1 to 100 characters without control characters."""
    with pytest.raises(StageValidationError):
        Stage(name, 1, [same]).validate()


def test_negative_queue_capacity_is_refused() -> None:
    """``queue_capacity`` is not negative."""
    with pytest.raises(StageValidationError, match="queue_capacity"):
        Pipeline([Stage("A", 1, [same], queue_capacity=-1)])


@pytest.mark.parametrize("option", ["task_concurrency_limits", "call_concurrency"])
def test_limits_of_nothing_are_refused(option: str) -> None:
    """A limit of no call at all, which would wait for ever, is refused."""
    value: Any = {"same": 0} if option == "task_concurrency_limits" else 0
    with pytest.raises(StageValidationError, match=option):
        Pipeline([Stage("A", 1, [same], **{option: value})])


def test_plain_functions_are_tasks() -> None:
    """A plain function is a task too, and so is a lambda or a method of a builtin."""
    assert values(run([" a ", " b "], Stage("A", 2, [str.strip, lambda text: text * 2]))) == [
        "aa",
        "bb",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stage_attempts": 5}, "with retry='per_task': its number of tries is task_attempts"),
        (
            {"task_attempts": 5, "retry": "per_stage"},
            "with retry='per_stage': its number of tries is stage_attempts",
        ),
        (
            {"task_wait_seconds": 5, "retry": "per_stage"},
            "with retry='per_stage': its pause is stage_wait_seconds, or wait",
        ),
        ({"call_rate_period": 5}, "without call_rate"),
        ({"queue_capacity": 5, "pull": True}, "with pull=True: nothing waits before the stage"),
        ({"resource_scope": "worker"}, "without resources"),
        ({"executor": "thread"}, "where every task is async: those run on the event loop"),
    ],
)
def test_option_without_effect_is_told(
    options: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, when the pipeline is made, names the option and the one that counts."""
    name, value = next(iter(options.items()))
    Pipeline([Stage("A", 1, [double]), Stage("B", 1, [double], **options)])
    assert caplog.messages == [f"stage B: {name}={value!r} has no effect {told}"]


@pytest.mark.parametrize(
    "options",
    [
        {"task_attempts": 5, "stage_attempts": 4},
        {"task_attempts": 5, "stage_attempts": 4, "retry": "per_stage"},
        {"task_wait_seconds": 5, "wait": 2, "retry": "per_stage"},
        {"retry": Retry(attempts=5)},
    ],
)
def test_options_of_both_kinds_of_retries_are_no_mistake(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A program that chooses ``retry`` when it runs sets both."""
    Pipeline([Stage("A", 1, [double], **options)])
    assert caplog.messages == []


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 5])
def test_stage_attempts_are_total_tries(attempts: int, count: int) -> None:
    """``stage_attempts`` counts the first try too, for every item, the last one included."""
    flaky = FailTimes(100)
    stage = Stage("A", 2, [flaky], retry="per_stage", stage_attempts=attempts)
    results = run(range(count), stage)
    assert [flaky.tries[str(item)] for item in range(count)] == [attempts] * count
    assert len(results.failed) == count


@pytest.mark.parametrize(("options", "pause"), [({}, 0.0), ({"stage_wait_seconds": 4.0}, 4.0)])
def test_per_stage_waits_stage_wait_seconds(options: dict[str, Any], pause: float) -> None:
    """Under "per_stage" there is no pause between tries, unless ``stage_wait_seconds`` says one."""
    calls = Calls(FailTimes(1))
    run([7], Stage("A", 1, [calls], retry="per_stage", **options))
    assert calls.made[1].start - calls.made[0].start == pause


def test_retry_value_says_all() -> None:
    """``retry`` may be a ``Retry(attempts, wait, on, give_up, timeout)``."""
    retry = antflow.Retry(attempts=4, wait=0.5, on=ValueError, give_up=(), timeout=9)
    calls = Calls(FailTimes(3))
    assert values(run([7], Stage("A", 1, [calls], retry=retry))) == [7]
    assert [call.start - calls.made[0].start for call in calls.made] == [0.0, 0.5, 1.0, 1.5]


def test_stage_wait_seconds_without_per_stage_is_refused() -> None:
    """It would have no effect: the message names the options that have one."""
    with pytest.raises(StageValidationError, match=r"without retry='per_stage'; see task_wait"):
        Pipeline([Stage("A", 1, [str], stage_wait_seconds=2.0)])
    Pipeline([Stage("A", 1, [str], "per_stage", 5, 2.0, 5, stage_wait_seconds=2.0)])
    Pipeline([Stage("A", 1, [str], "per_task", 5, 2.0, 5)])  # as programs of 0.10.0 may have it


@pytest.mark.parametrize("wait", [3, lambda attempt: 3.0])
@pytest.mark.parametrize(
    ("retry", "pause"), [("per_task", "task_wait_seconds"), ("per_stage", "stage_wait_seconds")]
)
def test_wait_overrides_both_pauses(wait: Any, retry: str, pause: str) -> None:
    """``wait``, a number or a function of the attempt, stands for the two waits."""
    calls = Calls(FailTimes(1))
    options: dict[str, Any] = {pause: 7.0}
    stage = Stage("A", 1, [calls], retry, wait=wait, **options)
    run([7], stage)
    assert calls.made[1].start - calls.made[0].start == 3.0


def test_backoff_grows_with_jitter() -> None:
    """``backoff()`` draws a pause between 0 and a limit that doubles from try to try."""
    wait = antflow.backoff(1.0)
    assert all(0 <= wait(attempt) <= 2 ** (attempt - 1) for attempt in (1, 2, 3, 4))
    assert len({wait(4) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("options", "tries"),
    [
        ({"retry_on": ValueError}, 3),
        ({"retry_on": KeyError}, 1),
        ({"give_up_on": ValueError}, 1),
        ({"give_up_on": (KeyError,)}, 3),
    ],
)
def test_retry_on_and_give_up_on_choose_errors(options: dict[str, Any], tries: int) -> None:
    """``retry_on`` says which errors are tried again and ``give_up_on`` which are not."""
    flaky = FailTimes(100)
    run([7], Stage("A", 1, [flaky], task_wait_seconds=0, **options))
    assert flaky.tries["7"] == tries


def test_timeout_ends_one_attempt() -> None:
    """``timeout`` seconds after it began, a try fails with `TimeoutError` and is tried again."""
    calls = Calls(seconds=10)
    stage = Stage("A", 1, [calls], timeout=2, task_attempts=2, task_wait_seconds=1)
    (failure,) = run([7], stage).failed
    assert isinstance(failure.error, TimeoutError)
    assert [call.start - calls.made[0].start for call in calls.made] == [0.0, 3.0]


def test_async_skip_if_is_awaited() -> None:
    """``skip_if`` may be async."""

    async def is_big(value: int) -> bool:
        return value > 5

    assert values(run([1, 9], Stage("A", 1, [double], skip_if=is_big))) == [2, 9]


def test_skip_if_that_raises_fails_the_item() -> None:
    """What ``skip_if`` raises fails the item."""
    results = run([1, 0], Stage("A", 1, [same], skip_if=lambda value: 1 / value > 5))
    assert [(failure.id, type(failure.error)) for failure in results.failed] == [
        (1, ZeroDivisionError)
    ]


def test_lambda_that_returns_an_awaitable_is_awaited() -> None:
    """A callback may be anything that returns an awaitable."""
    heard: list[Any] = []

    async def note(*arguments: Any) -> None:
        heard.append(arguments[:2])

    run([3], Stage("A", 1, [same], on_success=lambda *arguments: note(*arguments)))
    assert heard == [(0, 3)]


def test_limits_are_acquired_around_attempts() -> None:
    """A `Limit` of the stage bounds its attempts, whatever its workers."""
    calls = Calls(seconds=1)
    run(range(6), Stage("A", 5, [calls], limits=[antflow.Limit(concurrency=2)]))
    assert calls.most_at_once == 2


def test_batch_gives_the_task_a_list() -> None:
    """With ``batch`` the task gets lists and returns as many; items keep ids and results."""
    sizes: list[int] = []

    async def negate(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        return [-number for number in numbers]

    results = run(range(10), Stage("A", 1, [negate], batch=4, batch_wait=1))
    assert ([r.id for r in results], values(results)) == (list(range(10)), [-n for n in range(10)])
    assert max(sizes) == 4
    assert sum(sizes) == 10


def test_expand_makes_many_items() -> None:
    """With ``expand`` what the task's iterable gives goes on as ``parent/0``, ``parent/1``."""

    async def split(text: str) -> list[str]:
        return text.split()

    stages = [Stage("A", 1, [split], expand=True), Stage("B", 1, [double])]
    results = run([{"id": "p", "value": "a b"}, "c"], *stages)
    assert [(r.id, r.value, r.sequence_id) for r in results] == [
        ("p/0", "aa", 0),
        ("p/1", "bb", 0),
        ("1/0", "cc", 1),
    ]
    assert [outcome.outcome for outcome in results.outcomes] == ["expanded", "expanded"]


@pytest.mark.parametrize(("scope", "entered"), [("worker", 2), ("stage", 1), ("run", 1)])
def test_resources_are_entered_once_per_scope(scope: Any, entered: int) -> None:
    """A resource is entered once per worker, stage or run and passed to tasks by keyword."""
    open_now: list[str] = []
    count = 0

    @asynccontextmanager
    async def connect() -> AsyncIterator[str]:
        nonlocal count
        count += 1
        open_now.append("connection")
        yield "connection"
        open_now.pop()

    async def use(value: int, connection: str) -> str:
        await asyncio.sleep(1)
        return connection

    stage = Stage("A", 2, [use], resources={"connection": connect}, resource_scope=scope)
    assert values(run(range(6), stage)) == ["connection"] * 6
    assert (count, open_now) == (entered, [])


@pytest.mark.parametrize("scope", ["worker", "stage", "run"])
def test_resources_are_left_last_one_first(scope: Any) -> None:
    """Resources of one scope are left in the opposite of the order in which they were entered."""
    journal: list[str] = []

    def named(name: str) -> Any:
        @asynccontextmanager
        async def enter() -> AsyncIterator[str]:
            journal.append(f"+{name}")
            yield name
            journal.append(f"-{name}")

        return enter

    async def use(value: int, **given: str) -> str:
        return "".join(given)

    resources = {name: named(name) for name in "abc"}
    stage = Stage("A", 1, [use], resources=resources, resource_scope=scope)
    assert values(run([1, 2], stage)) == ["abc", "abc"]
    assert journal == ["+a", "+b", "+c", "-c", "-b", "-a"]


def test_each_item_has_context_variables_of_its_own() -> None:
    """A context variable set for one item is not seen by the next."""
    from contextvars import ContextVar

    seen: ContextVar[int] = ContextVar("seen", default=-1)

    async def look(value: int) -> int:
        before = seen.get()
        seen.set(value)
        return before

    assert values(run(range(3), Stage("A", 1, [look]))) == [-1, -1, -1]


def test_inline_executor_calls_on_the_loop() -> None:
    """``executor="inline"`` runs a plain function on the event loop itself."""
    assert values(run([0], Stage("A", 1, [lambda _: now()], executor="inline"))) == [0.0]


def test_slow_stage_does_not_lose_what_waits() -> None:
    """A slow last stage with room for one holds the first back and loses nothing."""
    stages = [Stage("A", 4, [same]), Stage("B", 1, [slow], queue_capacity=1)]
    assert values(run(range(20), *stages)) == list(range(20))


@pytest.mark.parametrize("executor", ["auto", "thread"])
def test_plain_functions_run_in_threads(executor: Any) -> None:
    """A plain function runs in a thread, so that it does not block the event loop."""

    def where(_: Any) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert values(run([1], Stage("A", 1, [where], executor=executor))) == [False]


def test_executor_may_be_the_users_own() -> None:
    """``executor`` may be any `concurrent.futures.Executor`."""

    def where(_: Any) -> str:
        return threading.current_thread().name

    with ThreadPoolExecutor(1, "mine") as pool:
        (name,) = values(run([1], Stage("A", 1, [where], executor=pool)))
    assert name.startswith("mine")


@pytest.mark.parametrize("most", [3, 0.5])
def test_max_failures_of_a_stage(most: float) -> None:
    """So many failed items of the stage, or such a share of them, stop the intake."""
    stage = Stage("A", 1, [FailTimes(9)], task_attempts=1, max_failures=most)
    with pytest.raises(antflow.TooManyFailures) as caught:
        run(itertools.count(), stage)
    assert caught.value.results is not None
    assert caught.value.results.stats.items_failed >= (3 if most == 3 else 20)


def test_max_holds_is_the_end_of_holding() -> None:
    """An item that is held more than ``max_holds`` times has failed that attempt."""
    tries = 0

    async def work(_: Any) -> None:
        nonlocal tries
        tries += 1
        raise antflow.RetryAfter(1)

    (failure,) = run([1], Stage("A", 1, [work], task_attempts=1, max_holds=4)).failed
    assert isinstance(failure.error, antflow.RetryAfter)
    assert tries == 5


def test_version_is_part_of_the_key() -> None:
    """The ``version`` of a stage's code makes for another idempotency key."""

    async def key(_: Any) -> str:
        return antflow.current_item().idempotency_key

    async def main() -> set[str]:
        return {
            result.value
            for version in ("1", "2")
            for result in await Pipeline([Stage("A", 1, [key], version=version)]).run([{"id": "x"}])
        }

    assert len(run_virtual(main)) == 2
