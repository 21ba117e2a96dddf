"""Batches of events to a function of the user's."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Unpack

from antflow._core.checks import check_callback, check_timeout, refusal
from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.waits import discard
from antflow.sinks.records import EventRecord
from antflow.sinks.sink import Sink, SinkOptions

TakesBatch = Callable[[list[EventRecord]], Awaitable[None] | None]


class CallbackSink(Sink):
    """Calls a function with batches of events: for a webhook, a queue, an experiment tracker.

    ```python
    async def post(events):
        await client.post(url, json=[event.to_dict() for event in events])


    pipeline = Pipeline(stages, observers=[CallbackSink(post, kinds=["failed"])])
    ```

    An async function is called on the event loop of the run that began last, of those under way, a
    plain one in the sink's thread. If it raises, it is called with the same batch again, up to five
    times in all: ``(event.run, event.seq)`` tells events that come twice.

    Args:
        function: Called as ``function(events)`` with a list of `EventRecord`.
        timeout: Seconds for one call of an async function; ``None`` = no limit.
        options: See `SinkOptions`. An async function cannot have ``when_full="block"``: it runs on
            the event loop that would be blocked.

    Raises:
        TypeError: ``function`` cannot be called with a list, or an option is of the wrong type.
        ValueError: An option is not allowed.
    """

    def __init__(
        self, function: TakesBatch, *, timeout: float | None = 10.0, **options: Unpack[SinkOptions]
    ) -> None:
        super().__init__(**options)
        if not callable(function):
            raise refusal(TypeError, "function", function, "must be a function")
        check_callback(TypeError, "function", function, "events")
        check_timeout(ValueError, "timeout", timeout)
        if self._blocks and inspect.iscoroutinefunction(function):
            raise refusal(
                ValueError,
                "when_full",
                "block",
                "an async function runs on the event loop that would be blocked",
            )
        self._function = function
        self._timeout = timeout

    def begin_anew(self) -> None:
        """See `Sink.begin_anew`."""
        super().begin_anew()
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}  # of the runs that are open

    @property
    def target(self) -> str:
        """The function, for messages."""
        return str(getattr(self._function, "__qualname__", "the function"))

    def opened(self, run: RunFacts) -> None:
        """A run begins."""
        running = {key: loop for key, loop in self._loops.items() if loop.is_running()}
        self._loops = running | {run.run_id: asyncio.get_running_loop()}
        super().opened(run)

    def write_closed(self, end: RunEnd, lost: int) -> None:
        """Call nothing on the event loop of a run that is over."""
        self._loops.pop(end.run_id, None)

    def write(self, records: list[EventRecord]) -> None:
        """Call the function with a batch."""
        answer = self._function(records)
        if answer is not None and inspect.isawaitable(answer):
            call = _awaited(answer, self._timeout)
            loop = next(filter(_is_running, reversed(list(self._loops.values()))), None)
            if loop is None:
                discard(call)
                discard(answer)
                raise RuntimeError("the event loop of the run has ended")
            asyncio.run_coroutine_threadsafe(call, loop).result()


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    return loop.is_running()


async def _awaited(answer: Awaitable[None], timeout: float | None) -> None:
    async with asyncio.timeout(timeout):
        await answer
