"""Tests of asyncio code without waiting, without luck and without hanging.

`run_virtual` runs a coroutine as `asyncio.run` does, in a `VirtualLoop`: hours pass in
milliseconds, a seed decides the order in which ready tasks run, and a hang becomes an error that
says which task waits where. `cancel_at_every_step` runs a program once per step and cancels it
there. `FailTimes`, `Scripted`, `Gate` and `Calls` are tasks to put into a pipeline under test;
`record_events` and `MemoryStore` write down what happens in it.
"""

from antflow.testing.loop import LeftoverTasks, Stalled, VirtualLoop
from antflow.testing.recording import MemoryStore, RecordedEvents, record_events
from antflow.testing.running import cancel_at_every_step, run_virtual
from antflow.testing.tasks import Call, Calls, FailTimes, Gate, Scripted, Sleep

__all__ = [
    "Call",
    "Calls",
    "FailTimes",
    "Gate",
    "LeftoverTasks",
    "MemoryStore",
    "RecordedEvents",
    "Scripted",
    "Sleep",
    "Stalled",
    "VirtualLoop",
    "cancel_at_every_step",
    "record_events",
    "run_virtual",
]
