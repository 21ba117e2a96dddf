"""Batches of events to a function."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.sinks import CallbackSink, EventRecord

from .test_sink import run


def test_calls_an_async_function_on_the_loop() -> None:
    """An async function is awaited on the event loop of the run."""
    heard: list[EventRecord] = []
    threads: set[int] = set()

    async def take(events: list[EventRecord]) -> None:
        await asyncio.sleep(0)
        heard.extend(events)
        threads.add(threading.get_ident())

    sink = CallbackSink(take)
    asyncio.run(run(sink))
    assert len(heard) == sink.counts.emitted
    assert threads == {threading.get_ident()}


def test_calls_a_plain_function_in_its_thread() -> None:
    """A plain function may block: it is called in the sink's thread."""
    heard: list[EventRecord] = []
    threads: set[int] = set()

    def take(events: list[EventRecord]) -> None:
        heard.extend(events)
        threads.add(threading.get_ident())

    asyncio.run(run(CallbackSink(take)))
    assert heard
    assert threading.get_ident() not in threads


def test_is_called_again_if_it_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A function that raises gets the same batch again."""
    calls: list[list[int]] = []

    async def take(events: list[EventRecord]) -> None:
        calls.append([event.seq for event in events])
        if len(calls) == 1:
            raise ConnectionError

    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(run(CallbackSink(take)))
    assert calls[0] == calls[1]
    assert not caplog.records


@pytest.mark.real_time
def test_is_called_on_a_loop_that_still_runs(caplog: pytest.LogCaptureFixture) -> None:
    """When the run that began last is over, the function is called on the loop of another."""
    loops: list[asyncio.AbstractEventLoop] = []
    events = 0

    async def take(batch: list[EventRecord]) -> None:
        nonlocal events
        loops.append(asyncio.get_running_loop())
        events += len(batch)

    sink = CallbackSink(take, every=0.01)

    async def short_run_elsewhere(item: int) -> int:
        if item == 1:
            await asyncio.to_thread(asyncio.run, run(sink))
        return item

    async def main() -> asyncio.AbstractEventLoop:
        await Pipeline([Stage("A", 1, [short_run_elsewhere])], observers=[sink]).run(range(3))
        return asyncio.get_running_loop()

    assert asyncio.run(main()) is loops[-1]
    assert events == sink.counts.emitted
    assert not caplog.records


def test_a_function_that_hangs_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that takes longer than ``timeout`` fails; the run ends."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())

    async def take(events: list[EventRecord]) -> None:
        await asyncio.Event().wait()

    sink = CallbackSink(take, timeout=0.01)
    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(run(sink))
    assert sink.counts.error == "TimeoutError"
    assert "CallbackSink is off, after 1 attempt at writing to" in caplog.text


@pytest.mark.parametrize(
    ("function", "options", "error", "text"),
    [
        (None, {}, TypeError, "function=None: must be a function"),
        (3, {}, TypeError, "function=3: must be a function"),
        (lambda: None, {}, TypeError, "can be called as f(events)"),
        (print, {"timeout": -1}, ValueError, "timeout=-1"),
    ],
)
def test_callback_sink_refuses_wrong_arguments(
    function: Any, options: Any, error: type[Exception], text: str
) -> None:
    """A function that cannot be called with a batch is refused where it is given."""
    with pytest.raises(error) as caught:
        CallbackSink(function, **options)
    assert text in str(caught.value)


def test_refuses_to_block_the_loop_that_writes() -> None:
    """An async function with ``when_full="block"`` would wait for itself."""

    async def take(events: list[EventRecord]) -> None:
        pass

    with pytest.raises(ValueError, match="runs on the event loop that would be blocked"):
        CallbackSink(take, when_full="block")
