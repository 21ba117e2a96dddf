"""Every face of a run says of a failure what failed, where, and with what."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from antflow import Limit, Pipeline, RunResults, Stage, StatusTracker, TooManyFailures
from antflow.display import create
from antflow.testing import FailTimes, run_virtual
from tests.cli.running import antflow
from tests.pipeline.failing_tasks import (
    KINDS,
    Kind,
    parse_checked,
    parse_in_package,
    parse_of_attrs,
    unsendable,
)
from tests.support import raising, run_program

LONGEST_LINE = 1_400
"""Characters: of what the user's objects say of themselves, there is never more."""


def run(kind: Kind, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a program: with child processes, in real time."""
    return asyncio.run(main()) if kind.options.get("executor") else run_virtual(main)


def results_of(kind: Kind, **options: Any) -> RunResults[Any]:
    """What a run has returned."""
    results: RunResults[Any] = run(kind, lambda: kind.pipeline().run(kind.items, **options))
    return results


def as_a_warning(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """The line at the end of a run that nothing follows."""
    results_of(kind)
    (record,) = [each for each in logged.records if each.levelname == "WARNING"]
    return record.getMessage()


def as_records(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """A record of each failed item."""
    results_of(kind, on_failures="ignore")
    assert [each.levelname for each in logged.records] == ["INFO"] * len(kind.items)
    return logged.records[0].getMessage()


def as_an_error(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """The group that is raised."""
    with pytest.raises(ExceptionGroup) as caught:
        results_of(kind, on_failures="raise")
    assert len(caught.value.results.failed) == len(kind.items)  # type: ignore[attr-defined]
    return str(caught.value)


def as_too_many(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """The error of a run with a limit."""
    with pytest.raises(TooManyFailures) as caught:
        results_of(kind, max_failures=1)
    assert not [each for each in logged.records if each.levelname == "WARNING"]
    return str(caught.value)


def as_a_result(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """A failed result."""
    result = results_of(kind).failed[0]
    assert result.location.endswith(kind.location)
    return str(result)


def as_a_summary(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """The summary of the results."""
    summary = results_of(kind).summary
    (group,) = summary.groups
    assert (group.count, group.error_type) == (len(kind.items), kind.error)
    assert group.location.endswith(kind.location)
    return str(summary)


def as_a_tracker_has_it(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """The summary of a tracker over two runs."""
    tracker = StatusTracker(on_status_change=lambda _: None)
    pipeline = kind.pipeline(status_tracker=tracker)
    for _ in range(2):
        run(kind, lambda: pipeline.run(kind.items))
    assert not [each for each in logged.records if each.levelname == "WARNING"]
    (group,) = tracker.get_error_summary().groups
    assert group.count == 2 * len(kind.items)
    return str(tracker.get_failed_items()[0])


def as_plain_lines(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """The lines of a display that has no terminal."""
    file = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        run(kind, lambda: kind.pipeline().run(kind.items, dashboard="log"))
    assert not [each for each in logged.records if each.levelname == "WARNING"]
    return file.getvalue()


def as_a_table_in_a_notebook(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """The rows of a table."""
    rows = results_of(kind)._repr_html_().replace("</tr>", "\n")
    return unescape(re.sub("<.*?>", " ", rows))


def as_the_command_says(kind: Kind, logged: pytest.LogCaptureFixture) -> str:
    """Standard error of the command."""
    if kind.items != (1, 2, 3):
        pytest.skip("the command has no such input")
    name = next(name for name in KINDS if KINDS[name] is kind)
    file = Path(f"{Path.cwd().name}.py")  # a module is imported once
    file.write_text(
        f"from tests.pipeline.failing_tasks import KINDS\npipeline = KINDS[{name!r}].pipeline()\n"
    )
    result = antflow("run", f"{file}:pipeline", "--items", "-", stdin="1\n2\n3\n")
    assert result.exit_code == 1
    return result.stderr


SAYING = [
    *(as_a_warning, as_records, as_an_error, as_too_many, as_a_result, as_a_summary),
    *(as_a_tracker_has_it, as_plain_lines, as_a_table_in_a_notebook, as_the_command_says),
]


def on_each(faces: dict[str, Any], all_children_on: str) -> list[Any]:
    """A parameter set for each face and kind.

    The children take long to start, and what comes back from them is told like any other failure.
    So one kind of them is daily on all faces, and the others on one.
    """
    return [
        pytest.param(
            value,
            kind,
            id=f"{face}-{name}",
            marks=[pytest.mark.slow]
            if kind.options.get("executor") and name != "child process" and face != all_children_on
            else [],
        )
        for face, value in faces.items()
        for name, kind in KINDS.items()
    ]


@pytest.mark.fault
@pytest.mark.real_time
@pytest.mark.parametrize(
    ("face", "kind"), on_each({face.__name__: face for face in SAYING}, "as_a_result")
)
def test_failures_are_told_with_place_and_input(
    face: Callable[[Kind, pytest.LogCaptureFixture], str],
    kind: Kind,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Type, line of the user's own, input, stage, attempts and message, on lines of some length."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    caplog.set_level(logging.INFO, "antflow")
    text = face(kind, caplog)
    assert kind.error in text
    assert (f" {kind.location}" if kind.title else f" at {kind.location}") in text
    # The command has made an item with an id of each line.
    assert re.search(rf"input (\{{'id': \d, 'value': )?{kind.given}\}}?[ )]", text)
    assert re.search(r" in stage Fetch\b.* after [12] attempts?\b", text)
    assert kind.message in text
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) < LONGEST_LINE


@pytest.mark.fault
@pytest.mark.real_time
@pytest.mark.parametrize(
    ("name", "kind"), on_each({name: name for name in ("compact", "detailed", "full")}, "full")
)
def test_displays_show_where_items_failed(name: str, kind: Kind) -> None:
    """Each display with room for errors shows their type, line and number."""

    async def main() -> Any:
        pipeline = kind.pipeline()
        await pipeline.run(kind.items, on_failures="ignore")
        return pipeline.get_dashboard_snapshot()

    snapshot = run(kind, main)
    display = create(name)
    file = StringIO()
    display.on_start(None, len(kind.items))
    console = Console(file=file, width=159, height=40, color_system=None)
    console.print(display.render(snapshot))
    display.on_finish([], snapshot.error_summary)
    text = file.getvalue()
    assert kind.error in text
    assert kind.location in text


@pytest.mark.process
@pytest.mark.parametrize("fault", ["key", "cost", "answer of a child"])
def test_no_line_of_the_library_is_told(fault: str) -> None:
    """If it refuses what the user's code returned, the message says so, and no line is named."""
    options: dict[str, Any] = {}
    run_options: dict[str, Any] = {}
    if fault == "key":
        run_options["key"] = "id"
    elif fault == "cost":
        much: Any = "much"
        options["limits"] = [Limit(rate=1, cost=lambda value: much)]
    else:
        options["executor"] = "process"
    stage = Stage("Check", 1, [unsendable], task_attempts=1, **options)
    results = asyncio.run(Pipeline([stage]).run([1], on_failures="ignore", **run_options))
    assert results.failed[0].location == ("" if fault == "key" else "in unsendable")
    assert re.search("no such field|must be a finite number|cannot be sent", str(results.failed[0]))


def test_line_of_a_package_is_told_with_the_package() -> None:
    """A package may have a ``main.py`` like the user's, so its file alone would mislead."""
    results = results_of(Kind(parse_in_package))
    assert results.failed[0].location == "tomli/main.py:1 in parse"


@pytest.mark.parametrize("task", [parse_checked, parse_of_attrs], ids=["beartype", "attrs"])
def test_task_of_generated_code_is_named(task: Any) -> None:
    """A line of a text that a package made for itself tells nothing, and can be opened nowhere."""
    assert results_of(Kind(task)).failed[0].location == "in parse"


def test_failures_from_two_lines_are_two_groups(caplog: pytest.LogCaptureFixture) -> None:
    """They are grouped by type and line, the most frequent first, with numbers to read."""

    async def check(value: int) -> None:
        if value % 3 == 0:
            raise LookupError(f"no page {value}")
        raise LookupError("the other line")

    async def main() -> None:
        stage = Stage("Check", 5, [check], task_attempts=1)
        await Pipeline([stage]).run(range(1, 3_001))

    run_virtual(main)
    (line,) = caplog.messages
    number = check.__code__.co_firstlineno
    place = re.escape("test_told_failures.py")
    assert re.fullmatch(
        rf"3,000 of 3,000 items failed: 2,000 × LookupError at \S*{place}:{number + 3} in check, "
        r"e\.g\. input 1 in stage Check after 1 attempt: the other line; "
        rf"1,000 × LookupError at \S*{place}:{number + 2} in check",
        line,
    )


def test_groups_have_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    """However many lines fail, a run distinguishes a hundred, and counts all."""
    lines = "\n".join(f"    if value == {n}: raise LookupError" for n in range(300))
    namespace: dict[str, Any] = {}
    exec(compile(f"def fail(value):\n{lines}\n", "many.py", "exec"), namespace)

    async def main() -> RunResults[Any]:
        stage = Stage("Check", 1, [namespace["fail"]], task_attempts=1)
        return await Pipeline([stage]).run(range(300))

    summary = run_virtual(main).summary
    assert sum(group.count for group in summary.groups) == 300
    assert len(summary.groups) == 101
    assert (summary.groups[0].count, summary.groups[0].location) == (200, "")
    (line,) = caplog.messages
    assert "200 × LookupError in stage Check" in line
    assert line.endswith("; 98 more kinds")


def test_input_of_a_group_is_asked_for_its_text_once() -> None:
    """A thousand failed items cost one `repr()`: it is the user's code, and may be slow."""
    asked: list[int] = []

    class Order:
        def __repr__(self) -> str:
            asked.append(1)
            return "an order"

    async def main() -> RunResults[Any]:
        stage = Stage("Check", 1, [raising(ValueError())], task_attempts=1)
        orders = [Order() for _ in range(1_000)]
        return await Pipeline([stage]).run(orders, on_failures="ignore")

    summary = run_virtual(main).summary
    assert len(asked) == 1
    assert {item.input for item in summary.failed_items} == {"an order", "<Order>"}


def test_without_logging_the_warning_is_printed_once() -> None:
    """A run in which all fails prints one line, with `open`, `start` and `run`; a stream none."""
    done = run_program(
        """
        import asyncio
        from antflow import Pipeline, Stage

        def fail(value):
            raise KeyError(value)

        pipeline = Pipeline([Stage("A", 2, [fail], task_attempts=1)])

        async def main():
            await pipeline.run(range(1_000))
            async with pipeline.open() as run:
                await run.feed([1])
            await pipeline.start()
            await pipeline.feed([2])
            await pipeline.join()
            print(len([result async for result in pipeline.stream([3])]))
            await pipeline.run([4], on_failures="ignore")
            async with pipeline.open(on_failures="ignore") as run:
                await run.feed([5])

        asyncio.run(main())
        """
    )
    assert (done.returncode, done.stdout) == (0, "1\n")
    heads = [line.partition(" at ")[0] for line in done.stderr.splitlines()]
    assert heads == [
        "1,000 of 1,000 items failed: 1,000 × KeyError",
        "1 of 1 item failed: 1 × KeyError",
        "1 of 1 item failed: 1 × KeyError",
    ]


@pytest.mark.parametrize("follower", ["nothing", "tracker", "unread tracker", "display"])
@pytest.mark.parametrize("on_failures", ["warn", "raise", "ignore"])
@pytest.mark.parametrize("way", ["run", "open", "join", "shutdown"])
def test_on_failures(
    way: str, on_failures: Any, follower: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a warning, an error and nothing, a run has what was asked for, whatever follows it."""
    hears = None if follower == "unread tracker" else lambda _: None
    tracker = StatusTracker(on_status_change=hears) if "tracker" in follower else None
    display: Any = create("log") if follower == "display" else None
    stage = Stage("A", 1, [FailTimes(1)], task_attempts=1)
    pipeline = Pipeline([stage], status_tracker=tracker)

    async def main() -> None:
        if way == "run":
            await pipeline.run([1], on_failures=on_failures, custom_dashboard=display)
            return
        async with pipeline.open(on_failures=on_failures) as handle:
            await handle.feed([1])
            if way == "join":
                await handle.join()
            elif way == "shutdown":
                await asyncio.sleep(1)
                await handle.shutdown()

    if on_failures == "raise":
        with pytest.raises(ExceptionGroup, match="1 of 1 item failed") as caught:
            run_virtual(main)
        assert len(caught.value.results.failed) == 1  # type: ignore[attr-defined]
    else:
        run_virtual(main)
    is_followed = follower == "tracker" or (way == "run" and display is not None)
    warnings = [each for each in caplog.messages if "failed" in each]
    assert len(warnings) == (on_failures == "warn" and not is_followed)


@pytest.mark.parametrize("method", ["on_start", "on_update", "on_finish"])
@pytest.mark.parametrize("on_failures", ["warn", "ignore"])
@pytest.mark.parametrize("way", ["run", "open"])
def test_display_that_failed_shows_no_failures(
    way: str, on_failures: Any, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose display has failed warns of failed items, as one without a display does."""
    display: Any = type("Display", (), {method: raising(OSError("no screen"))})()
    pipeline = Pipeline([Stage("A", 1, [FailTimes(1)], task_attempts=1)])

    async def main() -> None:
        options: Any = {"on_failures": on_failures, "custom_dashboard": display}
        if way == "run":
            await pipeline.run([1], **options)
            return
        async with pipeline.open(**options) as handle:
            await handle.feed([1])

    run_virtual(main)
    told = [text for text in caplog.messages if text.startswith("1 of 1 item failed: 1 × ")]
    assert len(told) == (on_failures == "warn")


@pytest.mark.parametrize("on_failures", ["warn", "raise"])
def test_failures_are_logged_if_another_error_is_raised(
    on_failures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the source does not hide that items failed."""

    def source() -> Any:
        yield 1
        raise OSError("the disk is gone")

    stage = Stage("A", 1, [FailTimes(1)], task_attempts=1)
    with pytest.raises(OSError, match="the disk is gone"):
        run_virtual(lambda: Pipeline([stage]).run(source(), on_failures=on_failures))
    (line,) = caplog.messages
    assert line.startswith("1 of 1 item failed: 1 × ")


@pytest.mark.parametrize("on_failures", ["warn", "raise"])
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("way", ["error", "timeout", "cancelled"])
def test_failures_do_not_hide_what_ends_the_block(
    way: str, paused: bool, on_failures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A block of ``open`` that raises, or is cancelled, does just that; the failures are logged."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [FailTimes(1)], task_attempts=1)])
        async with asyncio.timeout(1 if way == "timeout" else None):
            async with pipeline.open(on_failures=on_failures) as handle:
                await handle.feed([1, 2, 3])
                await asyncio.sleep(0.1)
                if paused:
                    handle.pause()
                    await handle.feed([4])
                if way == "error":
                    raise OSError("the disk is gone")
                if way == "cancelled":
                    current = asyncio.current_task()
                    assert current is not None
                    current.cancel()
                await asyncio.sleep(5)

    errors = {"error": OSError, "timeout": TimeoutError, "cancelled": asyncio.CancelledError}
    with pytest.raises(errors[way]):
        run_virtual(main)
    (line,) = caplog.messages
    assert " failed: " in line


@pytest.mark.parametrize("on_failures", ["warn", "raise", "ignore"])
@pytest.mark.parametrize("left", ["error", "cancelled", "caught", "joined", "join cancelled"])
def test_failures_are_told_once_if_a_task_has_ended_the_run(
    left: str, on_failures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the block of ``open`` does after a task has shut the run down: one thing says it."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [shuts_down], task_attempts=1)])
        pipelines.append(pipeline)
        async with pipeline.open(on_failures=on_failures) as handle:
            await handle.feed([1])
            await asyncio.sleep(1)
            assert handle.stats().items_failed == 1
            if left == "error":
                raise OSError("the disk is gone")
            if left == "cancelled":
                raise asyncio.CancelledError
            if left == "caught":
                with suppress(ExceptionGroup):
                    await handle.join()
                raise OSError("the disk is gone")
            if left == "join cancelled":
                current = asyncio.current_task()
                assert current is not None
                current.cancel()

    async def shuts_down(value: int) -> None:
        await pipelines[0].shutdown()
        raise LookupError("no such page")

    pipelines: list[Pipeline[Any, Any]] = []
    raised: BaseException | None = None
    try:
        run_virtual(main)
    except BaseException as error:
        raised = error
    is_raised = isinstance(raised, ExceptionGroup) or (left == "caught" and on_failures == "raise")
    told = [text for text in caplog.messages if "1 of 1 item failed" in text]
    assert len(told) + is_raised == (on_failures != "ignore")


def test_nothing_is_said_of_a_run_without_failures(caplog: pytest.LogCaptureFixture) -> None:
    """Neither if items succeed, nor if they are dropped or cancelled."""

    async def main() -> None:
        pipeline = Pipeline([Stage("A", 1, [asyncio.sleep])])
        await pipeline.run([0, 0], on_failures="raise")
        await pipeline.start()
        await pipeline.feed([5, 5])
        await pipeline.shutdown()

    run_virtual(main)
    assert caplog.messages == []
