"""The ways through the source: the files that an item, an event and a snapshot pass, as measured.

`follow` makes a real run, in virtual time, and has `sys.setprofile` tell of each call. A file is on
a way if one of its functions runs (is called, or goes on after an ``await``) while the way is
watched. Functions of every kind count, properties and ``__init__`` too. What is not in a file of
the package does not: generated code, like the ``__init__`` of a dataclass, and code written in C.
Left out are ``testing/``, which is the event loop here, and everything before and after the way:
imports, the making of the pipeline, of the run and of its workers, and the end of the run. For
that, the run has four items, of which the second is followed: the first one brings the workers
into being, and the last two keep the source from its end.

| way | begins | ends |
|---|---|---|
| item | it is drawn from the source, by the functions on the stack | its worker has settled it |
| failed item | likewise; the first try of its first task fails | likewise |
| event | its first task returns | a tracker's callback is called |
| snapshot | a display has had an update | the display is given the next |
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Literal, get_args

import antflow
from antflow import DashboardSnapshot, Pipeline, Stage, StatusEvent, StatusTracker
from antflow.testing import run_virtual

Way = Literal["item", "failed item", "event", "snapshot"]
WAYS: tuple[Way, ...] = get_args(Way)

PACKAGE = Path(antflow.__file__).parent


def follow(way: Way) -> list[str]:
    """The files of a way, relative to the package, in the order in which they are first entered."""
    return list(dict.fromkeys(_travelled(way).entered))


def stays() -> list[str]:
    """The files that have a failed item in hand, one after the other, until it is tried again.

    The item is in the hands of the innermost running function that has it in a variable, so it goes
    on with a call and comes back when that returns.
    """
    holders = _travelled("failed item").holders
    return [now for now, before in zip(holders, [None, *holders], strict=False) if now != before]


class Item:
    """An item; nothing else is equal to it."""


class Journey:
    """One run, of which one way is watched.

    Attributes:
        entered: The file of each function that ran, in order.
        holders: The file that had the failed item in hand, at each call and each return.
        item: The item that is followed.
        tries: How often it was tried.
    """

    def __init__(self, way: Way) -> None:
        self.entered: list[str] = []
        self.holders: list[str] = []
        self._way = way
        self.item = Item()
        self._behind = (Item(), Item())
        self.tries = 0
        self._display_task: asyncio.Task[object] | None = None

    async def run(self) -> None:
        """Send the items through two stages of one worker each."""
        stages = [
            Stage("First", 1, [self.first], task_attempts=2, task_wait_seconds=1.0),
            Stage("Second", 1, [self.second]),
        ]
        tracker = StatusTracker(on_status_change=self.told) if self._way == "event" else None
        display = self if self._way == "snapshot" else None
        pipeline = Pipeline(stages, status_tracker=tracker)
        await pipeline.run(self.source(), custom_dashboard=display)

    def source(self) -> Iterator[Item]:
        """The four items. The way of the second begins where it is drawn."""
        yield Item()
        if self._way in ("item", "failed item"):
            self._enter(inspect.unwrap(Pipeline.run).__code__)
            for frame in reversed(list(_stack(inspect.currentframe()))):
                self._enter(frame.f_code)
            self.watch()
        yield self.item
        yield from self._behind

    async def first(self, item: Item) -> Item:
        """The first task. While it runs, the item before comes to the second stage's worker."""
        if item in self._behind:
            await asyncio.sleep(3.0)
        if item is not self.item:
            return item
        self.tries += 1
        if self.tries == 1 and self._way != "snapshot":
            self.unwatch()
            await asyncio.sleep(1.0)
            self.watch()
            if self._way == "failed item":
                raise ValueError("the first try fails")
        return item

    async def second(self, item: Item) -> Item:
        """The second task; what its worker does until it waits again still belongs to the way."""
        if item is self.item and self._way in ("item", "failed item"):
            asyncio.get_running_loop().call_soon(self.unwatch)
        return item

    def told(self, event: StatusEvent) -> None:
        """The tracker's callback."""
        self.unwatch()

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        """A display is given a snapshot: the way to the second one is watched."""
        self.unwatch()
        if self._display_task is None:
            self._display_task = asyncio.current_task()
            self.watch()

    def watch(self) -> None:
        """Note what runs from now on."""
        sys.setprofile(self._profile)

    def unwatch(self) -> None:
        """Note nothing more."""
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and self._display_task in (None, _running_task()):
            self._enter(frame.f_code)
        if event in ("call", "return") and self._way == "failed item" and self.tries == 1:
            self._hold(frame if event == "call" else frame.f_back)

    def _enter(self, code: CodeType) -> None:
        if (file := _file_of(code)) is not None:
            self.entered.append(file)

    def _hold(self, innermost: FrameType | None) -> None:
        for frame in _stack(innermost):
            file = _file_of(frame.f_code)
            if file is not None and any(map(self._is_item, [*frame.f_locals.values()])):
                self.holders.append(file)
                return

    def _is_item(self, thing: object) -> bool:
        """Whether it is the item, as such, as the value of an envelope, or among others."""
        if isinstance(thing, list | tuple):
            return any(map(self._is_item, thing))
        return thing is self.item or getattr(thing, "value", None) is self.item


def _travelled(way: Way) -> Journey:
    journey = Journey(way)
    try:
        run_virtual(journey.run)
    finally:
        journey.unwatch()
    assert journey.entered, f"nothing was seen of the way: {way}"
    return journey


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of one step of the event loop, the innermost first."""
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("asyncio."):
        yield frame
        frame = frame.f_back


def _file_of(code: CodeType) -> str | None:
    """The file of some code, relative to the package; ``None``: it is not of it."""
    path = Path(code.co_filename)
    if not path.is_relative_to(PACKAGE) or path.is_relative_to(PACKAGE / "testing"):
        return None
    return path.relative_to(PACKAGE).as_posix()


def _running_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # between two runs of the event loop
        return None
