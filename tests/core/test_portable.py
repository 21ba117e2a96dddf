"""Results, events and snapshots can be pickled and copied, whatever is inside."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from antflow import (
    Drop,
    FailedItem,
    Pipeline,
    PipelineResult,
    RunResults,
    Stage,
    StandInError,
    StatusTracker,
    WorkerState,
)
from antflow.testing import run_virtual
from tests.odd import ERRORS

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

FRESH = """
import pickle, sys, traceback
results = pickle.load(sys.stdin.buffer)
print(repr(results), [type(each.error).__name__ for each in results.failed])
try:
    results.raise_for_failures()
except ExceptionGroup as group:
    traceback.print_exception(group, file=sys.stdout)
"""


def with_a_lock() -> Exception:
    """An exception that cannot be pickled as it is."""
    error = ValueError("locked")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    return error


class Local(Exception):
    """A class that only this file knows."""


def local_error() -> Exception:
    """An exception of a class that cannot be found again."""

    class Inner(Exception):
        pass

    return Inner("inner")


class Changed(Exception):
    """Unpickles to something else."""

    def __reduce__(self) -> Any:
        return dict, ()


class Other(Exception):
    """Unpickles to an exception of another class, with the same text."""

    def __reduce__(self) -> Any:
        return ValueError, self.args


class Last:
    """Ends the program when it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, ()


class Bomb(Exception):
    """Raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Exit(Exception):
    """Ends the program when it is unpickled."""

    def __reduce__(self) -> Any:
        return sys.exit, ("not here",)


KINDS: dict[str, Callable[[], BaseException]] = {
    **ERRORS,
    "attributes that cannot be pickled": with_a_lock,
    "local class": local_error,
    "becomes something else": lambda: Changed("changed"),
    "becomes another exception": lambda: Other("other"),
    "ends the program when its argument is loaded": lambda: ValueError(Last()),
    "raises when it is loaded": lambda: Bomb("bomb"),
    "ends the program when it is loaded": lambda: Exit("exit"),
}


def results_with(*errors: BaseException) -> RunResults[Any]:
    """The results of a run in which one item succeeded, and one failed with each of these."""

    async def task(value: Any) -> Any:
        if type(value) is int:
            return value
        raise value[0]

    stage = Stage("A", 1, [task], task_attempts=1)
    items = [1, *[{"id": n, "value": (error,)} for n, error in enumerate(errors)]]
    results = run_virtual(Pipeline([stage]).run(items))
    for result in results.failed:
        result.value = result.input = None
    return results


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", KINDS)
def test_results_are_pickled_whatever_errors_they_have(name: str, protocol: int) -> None:
    """Each error comes back as itself or as a stand-in, with its text and where it was raised."""
    results = results_with(KINDS[name]())
    again = pickle.loads(pickle.dumps(results, protocol))
    assert (repr(again), len(again), len(again.outcomes)) == (repr(results), 1, 2)
    error, was = again.failed[0].error, results.failed[0].error
    assert again.failed[0].outcome == "failed"
    assert isinstance(error, (type(was), StandInError)) or type(error).__name__ == "OddError"
    assert "Traceback" in str(error.__cause__)
    twice = pickle.loads(pickle.dumps(again, protocol)).failed[0].error
    assert (str(twice), str(twice.__cause__)) == (str(error), str(error.__cause__))


@pytest.mark.parametrize("where", ["itself", "member", "cause", "context"])
def test_groups_that_share_their_errors_are_pickled_at_once(where: str) -> None:
    """However deep, and wherever they are: their tracebacks are not printed once for each path."""
    group: Exception = ValueError("at the bottom")
    for _ in range(60):
        group = ExceptionGroup("again", [group, group])
    error = group
    if where == "member":
        error = ExceptionGroup("outer", [KeyError("k"), group])
    elif where != "itself":
        error = KeyError("k")
        setattr(error, f"__{where}__", group)
    again = pickle.loads(pickle.dumps(results_with(error))).failed[0].error
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert f"{type(error).__name__}: {error}" in str(again.__cause__)


@pytest.mark.parametrize("where", ["itself", "cause"])
def test_large_group_keeps_its_traceback(where: str) -> None:
    """A group of thousands of errors is described with its first ones, as Python prints it."""
    group = ExceptionGroup("large", [ValueError(f"number {number}") for number in range(3000)])
    error: Exception = group
    if where == "cause":
        error = KeyError("k")
        error.__cause__ = error.__context__ = group
    again = pickle.loads(pickle.dumps(results_with(error))).failed[0].error
    assert "number 14" in str(again.__cause__)


@pytest.mark.parametrize("name", KINDS)
def test_group_of_failures_can_be_pickled(name: str) -> None:
    """So can what `raise_for_failures` raises, and the parts that ``except*`` makes of it."""
    with pytest.raises(ExceptionGroup) as caught:
        results_with(KINDS[name](), ValueError("plain")).raise_for_failures()
    plain = caught.value.subgroup(lambda error: type(error) is ValueError)
    for group in [caught.value, plain]:
        assert group is not None
        again = pickle.loads(pickle.dumps(group))
        assert again.message == group.message
        assert len(again.exceptions) == len(group.exceptions)


def test_notes_of_a_group_stay_in_a_pickle() -> None:
    """What was added to the error of `raise_for_failures` is there again."""
    with pytest.raises(ExceptionGroup) as raised:
        results_with(ValueError("plain"), with_a_lock()).raise_for_failures()
    raised.value.add_note("in the nightly run")
    again = pickle.loads(pickle.dumps(raised.value))
    assert again.__notes__ == ["in the nightly run"]
    assert [str(error) for error in again.exceptions] == ["plain", "locked"]


@pytest.mark.parametrize("name", KINDS)
def test_repr_of_results_whatever_errors_they_have(name: str) -> None:
    """What cannot be shown costs its own field; all else is as dataclasses have it."""
    results = results_with(KINDS[name](), ValueError("plain"))
    odd, plain = results.failed
    assert repr(odd).startswith("PipelineResult(id='0#2', value=None, sequence_id=1, metadata={}, ")
    assert repr(plain) in repr(results.outcomes)
    assert repr(plain) == (
        "PipelineResult(id=1, value=None, sequence_id=2, metadata={}, error=ValueError('plain'), "
        "stage='A', attempts=1, input=None)"
    )
    plain.value = plain
    assert "value=..., sequence_id=2" in repr(plain)


@pytest.mark.parametrize("name", KINDS)
def test_tracker_is_pickled_and_copied_whatever_errors_it_keeps(name: str) -> None:
    """So can its history, of one item as of another."""

    async def task(value: Any) -> Any:
        raise KINDS[name]()

    tracker = StatusTracker()
    stage = Stage("A", 1, [task], task_attempts=1)
    run_virtual(Pipeline([stage], status_tracker=tracker).run([{"id": ("a", 1)}]))
    event = tracker.get_status(("a", 1))
    assert event is not None
    for again in [pickle.loads(pickle.dumps(tracker)), copy.deepcopy(tracker)]:
        found = again.get_status(("a", 1))
        assert (found.status, found.metadata["error"]) == ("failed", event.metadata["error"])
    assert found.metadata["exception"] is event.metadata["exception"]


def test_pickled_tracker_finds_an_item_in_another_interpreter() -> None:
    """Also one whose id has another hash there."""

    async def task(value: Any) -> Any:
        return value

    tracker = StatusTracker()
    run_virtual(Pipeline([Stage("A", 1, [task])], status_tracker=tracker).run([{"id": ("a", "b")}]))
    program = "import pickle, sys; tracker = pickle.load(sys.stdin.buffer); "
    program += "print(tracker.get_status(('a', 'b')).status)"
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(tracker), capture_output=True, cwd="/"
    )
    assert done.stdout.decode().strip() == "completed", done.stderr.decode()


def test_stand_in_says_what_the_error_was() -> None:
    """It has the name, the text and the traceback of the original, and is a `StandInError`."""
    error = pickle.loads(pickle.dumps(results_with(local_error()))).failed[0].error
    assert isinstance(error, StandInError)
    assert type(error).__name__ == "Inner"
    assert str(error) == "inner"
    assert error.type_name == f"{__name__}.local_error.<locals>.Inner"
    assert "raise value[0]" in error.traceback_text
    assert "cannot be pickled" in error.__notes__[0]
    alone = pickle.loads(pickle.dumps(error))
    assert (type(alone).__name__, str(alone)) == ("Inner", "inner")
    assert (alone.type_name, alone.traceback_text) == (error.type_name, error.traceback_text)


def test_pickled_results_load_in_another_interpreter() -> None:
    """Even where the classes of the errors are not known, and failures still say where."""
    results = results_with(Local("known here"), local_error(), KeyError("k"))
    data = pickle.dumps(results)
    done = subprocess.run([sys.executable, "-c", FRESH], input=data, capture_output=True, cwd="/")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "1 ok, 3 failed> ['Local', 'Inner', 'KeyError']" in text
    assert "3 of 4 items failed" in text
    assert "raise value[0]" in text
    assert "known here" in text


def test_children_keep_their_place_in_a_pickle() -> None:
    """Items that were made from others stay apart from those that were fed."""

    async def twice(value: int) -> list[int]:
        return [value, -value]

    results = run_virtual(Pipeline([Stage("A", 1, [twice], expand=True)]).run([1, 2]))
    for again in [pickle.loads(pickle.dumps(results)), copy.deepcopy(results), copy.copy(results)]:
        assert again.values() == [1, -1, 2, -2]
        assert [outcome.outcome for outcome in again.outcomes] == ["expanded"] * 2
        assert again == results
        assert again[0] in again._children


REPLACES = [dataclasses.replace]
if sys.version_info >= (3, 13):
    REPLACES.append(copy.replace)

replaces = pytest.mark.parametrize("replace", REPLACES, ids=lambda each: each.__module__)


@replaces
def test_result_with_other_values_has_the_same_outcome(replace: Any) -> None:
    """Dropped stays dropped, expanded stays expanded, and a child keeps its place."""

    async def halved(value: int) -> Any:
        return [value / 2, value / 2] if value else Drop

    results = run_virtual(Pipeline([Stage("A", 1, [halved], expand=True)]).run([0, 4, 8]))
    others = [replace(outcome, value="other") for outcome in [*results.outcomes, *results]]
    assert [other.value for other in others] == ["other"] * 7
    assert [other.outcome for other in others] == [
        outcome.outcome for outcome in [*results.outcomes, *results]
    ]
    again = RunResults(reversed(others), results.summary, results.stats)
    assert [other.outcome for other in again.outcomes] == ["dropped", "expanded", "expanded"]
    assert [other.sequence_id for other in again] == [1, 1, 2, 2]
    for other in others:
        for copied in [copy.copy(other), copy.deepcopy(other), pickle.loads(pickle.dumps(other))]:
            assert replace(copied, value=1).outcome == other.outcome
    failed = replace(results[0], error=ValueError("no good"))
    assert (failed.outcome, replace(failed, error=None).outcome) == ("failed", "completed")


@replaces
def test_failed_item_is_tried_again_with_another_value(replace: Any) -> None:
    """Made from the result, it knows its children: those are not made again."""

    async def begin(value: int) -> Any:
        yield value
        if value < 2:
            raise LookupError("no more")
        yield value

    pipeline = Pipeline(
        [Stage("A", 1, [begin], task_attempts=1, expand=True), Stage("B", 1, [str])]
    )
    results = run_virtual(pipeline.run([1]))
    (failed,) = results.failed
    again = run_virtual(pipeline.run([], retry_failed=[replace(failed, value=2)]))
    assert [result.id for result in results] == ["0/0"]
    assert [result.id for result in again] == ["0/1"]


def test_fate_is_no_field_of_a_result() -> None:
    """It is neither shown nor compared, and `dataclasses.asdict` leaves it out."""
    result = PipelineResult[Any](1, 2, 3)
    names = ["id", "value", "sequence_id", "metadata", "error", "stage", "attempts", "input"]
    assert [field.name for field in dataclasses.fields(result)] == names
    assert [*dataclasses.asdict(result)] == names
    assert "fate" not in repr(result)
    assert not hasattr(result, "__dict__")


@pytest.mark.parametrize("field", ["id", "value", "metadata", "input"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_value_that_cannot_be_pickled_is_an_error_that_names_its_item(
    field: str, protocol: int
) -> None:
    """Nothing is replaced: the error says which item it is, what of it, and of which type."""
    lock: Any = {"key": threading.Lock()} if field == "metadata" else threading.Lock()
    result = PipelineResult[Any]("item 7", 1, 0)
    setattr(result, field, lock)
    expected = rf"its {field}, of type \w+, cannot be pickled"
    with pytest.raises(pickle.PicklingError, match=expected) as caught:
        pickle.dumps([result], protocol)
    if field != "id":
        assert "item 'item 7'" in str(caught.value)


def test_copies_have_the_same_errors() -> None:
    """An error is never copied, and a deep copy has its own values."""
    result = PipelineResult[Any](1, [2], 0, {"note": [3]}, with_a_lock(), "A", 2, [2])
    for again in [copy.copy(result), copy.deepcopy(result)]:
        assert again == result
        assert again.error is result.error
    deep = copy.deepcopy(result)
    assert deep.value is not result.value
    assert deep.metadata["note"] is not result.metadata["note"]
    assert copy.copy(result).value is result.value


def test_deep_copy_keeps_a_value_that_cannot_be_copied() -> None:
    """It is the very object, and everything else is copied."""
    lock = threading.Lock()
    result = PipelineResult[Any](1, lock, 0, {"note": [3]})
    deep = copy.deepcopy([result, result])
    assert deep[0] is deep[1]
    assert deep[0] is not result
    assert deep[0].value is lock
    assert deep[0].metadata["note"] is not result.metadata["note"]


def test_deep_copy_shares_a_value_that_cannot_be_copied_wherever_it_occurs() -> None:
    """All of it: not the part that had been copied before it turned out that it cannot be."""
    page = {"text": ["a"], "lock": threading.Lock(), "links": 3}
    other = {"text": page["text"]}
    results = [
        PipelineResult[Any](0, page, 0, {"page": page}, input=page),
        PipelineResult[Any](1, page, 1),
        PipelineResult[Any](2, other, 2, input=other),
    ]
    deep = copy.deepcopy(results)
    assert [deep[0].value, deep[0].input, deep[1].value] == [page] * 3
    assert deep[0].metadata == {"page": page}
    assert deep[2].value == other
    assert deep[2].value is deep[2].input
    assert deep[2].value["text"] is not page["text"]


@pytest.mark.parametrize("name", KINDS)
def test_events_and_summaries_are_pickled_and_copied(name: str) -> None:
    """So are the events of a tracker, the error summary and the last snapshot."""
    task_events: list[Any] = []
    tracker = StatusTracker(on_task_fail=task_events.append)

    async def task(value: int) -> int:
        raise KINDS[name]()

    pipeline = Pipeline([Stage("A", 1, [task], task_attempts=1)], status_tracker=tracker)
    run_virtual(pipeline.run([1]))
    (failed,) = tracker.get_by_status("failed")
    for event in [failed, task_events[0]]:
        again = pickle.loads(pickle.dumps(event))
        assert (type(again), again.item_id, again.stage) == (type(event), 0, "A")
        assert "Traceback" in str(
            (again.error if event is not failed else again.metadata["exception"]).__cause__
        )
        for same in [copy.copy(event), copy.deepcopy(event)]:
            kept = same.error if event is not failed else same.metadata["exception"]
            was = event.error if event is not failed else event.metadata["exception"]
            is_same = kept is was
            assert is_same
    stats, summary = pipeline.get_stats(), pipeline.get_error_summary()
    for value in [stats, summary, pipeline.get_dashboard_snapshot()]:
        pickled = [pickle.loads(pickle.dumps(value, protocol)) for protocol in PROTOCOLS]
        for again in [*pickled, copy.copy(value), copy.deepcopy(value)]:
            assert (type(again), again, repr(again)) == (type(value), value, repr(value))


@pytest.mark.parametrize(
    "value",
    [FailedItem(threading.Lock(), "", "", "A", 1, 0.0), WorkerState("A-W0", "A", "busy", open)],
    ids=["FailedItem", "WorkerState"],
)
def test_ids_are_pickled_or_named(value: Any) -> None:
    """Whatever names an item says so when the id cannot be pickled."""
    if isinstance(value, FailedItem):
        with pytest.raises(pickle.PicklingError, match="FailedItem of item <unlocked"):
            pickle.dumps(value)
        assert copy.deepcopy(value).item_id is value.item_id
    else:
        assert pickle.loads(pickle.dumps(value)) == value
