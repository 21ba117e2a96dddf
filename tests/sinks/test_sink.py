"""The buffer, the thread and the counts that all sinks share."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antflow import ItemStep, Pipeline, RunEnd, RunFacts, Stage, StatusTracker
from antflow.journal import Journal
from antflow.sinks import EventLog, EventRecord, JsonlSink, Sink, SinkCounts
from antflow.testing import run_virtual


class Kept(Sink):
    """Keeps what it is told to write."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.records: list[EventRecord] = []
        self.batches: list[int] = []
        self.runs: list[tuple[str, str]] = []
        self.calls: list[str] = []
        self.lost: list[int] = []

    def open(self) -> None:
        self.calls.append("open")

    def write_opened(self, facts: RunFacts) -> None:
        self.runs.append(("opened", facts.run_id))

    def write(self, records: list[EventRecord]) -> None:
        self.records += records
        self.batches.append(len(records))

    def write_closed(self, end: RunEnd, lost: int) -> None:
        self.runs.append(("closed", end.run_id))
        self.lost.append(lost)

    def close(self) -> None:
        self.calls.append("close")


class Held(Kept):
    """Writes nothing until it is let go."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.go = threading.Event()

    def write(self, records: list[EventRecord]) -> None:
        assert self.go.wait(10)
        super().write(records)


class Failing(Kept):
    """Fails this many times at each thing it does."""

    def __init__(self, times: int, **options: Any) -> None:
        super().__init__(**options)
        self.left = times

    def write(self, records: list[EventRecord]) -> None:
        if self.left:
            self.left -= 1
            raise OSError(28, "No space left on device")
        super().write(records)


def halve(number: int) -> float:
    if number == 3:
        raise ValueError("three")
    return number / 2


def a_pipeline(sink: Sink) -> Pipeline[Any, Any]:
    stages = [Stage("Halve", 2, [halve], task_attempts=1), Stage("Keep", 1, [lambda x: x])]
    return Pipeline(stages, observers=[sink])


async def run(sink: Sink, items: int = 5) -> None:
    await a_pipeline(sink).run(range(items), on_failures="ignore")


def test_writes_every_step_in_order() -> None:
    """Every step of every item is a record; those of one item are in order."""
    sink = Kept()
    asyncio.run(run(sink))
    kinds = [record.kind for record in sink.records if record.item == "2"]
    assert kinds == ["admitted", "started", "completed", "started", "completed"]
    assert [record.kind for record in sink.records if record.item == "3"][-1] == "failed"
    assert [record.seq for record in sink.records] == list(range(len(sink.records)))
    assert sink.counts == SinkCounts(len(sink.records), len(sink.records), 0, 0, None)


def test_record_of_a_failure_says_where() -> None:
    """A failed step's record has the error's type, message and line."""
    sink = Kept(kinds=["failed"])
    asyncio.run(run(sink))
    (record,) = sink.records
    assert (record.error_type, record.error) == ("ValueError", "three")
    assert record.place is not None
    assert "test_sink.py" in record.place
    assert record.place.endswith(" in halve")


def test_runs_open_and_close_around_their_events() -> None:
    """A run's beginning is written before its events and its end after them."""
    sink = Kept()
    asyncio.run(run(sink))
    asyncio.run(run(sink))
    assert [what for what, _ in sink.runs] == ["opened", "closed", "opened", "closed"]
    assert sink.calls == ["open", "close"] * 2


def test_two_runs_at_once_share_a_sink() -> None:
    """A sink that hears two runs at once writes all of both, and closes after the last."""
    sink = Kept()

    async def both() -> None:
        await asyncio.gather(run(sink, 50), run(sink, 80))

    asyncio.run(both())
    counts = {run_id: 0 for _, run_id in sink.runs}
    for record in sink.records:
        if record.kind == "admitted":
            counts[record.run] += 1
    assert sorted(counts.values()) == [50, 80]
    assert sink.calls == ["open", "close"]


def test_drops_the_oldest_when_full(caplog: pytest.LogCaptureFixture) -> None:
    """A full buffer loses its oldest events: they are counted, logged, and the numbers show it."""
    sink = Held(buffer=10, batch=5, every=0.001)

    async def hold_up() -> None:
        running = asyncio.create_task(run(sink, 200))
        while sink.counts.dropped < 100:
            await asyncio.sleep(0.001)
        sink.go.set()
        await running

    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(hold_up())
    counts = sink.counts
    assert counts.emitted == counts.delivered + counts.dropped
    assert counts.delivered == len(sink.records)
    assert counts.dropped >= 100
    assert sink.records[-1].seq == counts.emitted - 1
    assert [what for what, _ in sink.runs] == ["opened", "closed"]
    assert f"Held lost {counts.dropped:,} events: its buffer of 10 was full" in caplog.text


def test_a_run_counts_the_events_that_it_lost_itself() -> None:
    """What one run has lost is not said of the next one of the same sink."""
    sink = Held(buffer=10, batch=10)

    async def main() -> None:
        running = asyncio.create_task(run(sink, 50))
        while not sink.counts.dropped:
            await asyncio.sleep(0)
        sink.go.set()
        await running
        lost = sink.counts.dropped
        sink._most = 1_000
        await run(sink)
        assert sink.lost == [lost, 0]

    asyncio.run(main())


def test_blocks_when_full() -> None:
    """With ``when_full="block"`` the loop waits for room, and nothing is lost."""
    sink = Held(buffer=10, batch=5, every=0.001, when_full="block")
    threading.Timer(0.1, sink.go.set).start()
    asyncio.run(run(sink, 500))
    assert sink.counts.dropped == 0
    assert len(sink.records) == sink.counts.emitted


def test_flush_waits_until_all_is_written() -> None:
    """After `flush`, everything that was heard is written, in the middle of a run and later."""
    sink = Kept(every=60)
    counts: list[SinkCounts] = []

    async def look(number: int) -> int:
        await asyncio.sleep(0)
        sink.flush()
        counts.append(sink.counts)
        return number

    sink.flush()
    pipeline = Pipeline([Stage("Look", 1, [look])], observers=[sink])
    asyncio.run(pipeline.run(range(5)))
    assert len(counts) == 5
    assert all(each.waiting == 0 < each.delivered == each.emitted for each in counts)
    sink.flush()


@pytest.mark.real_time
def test_flush_while_writing_waits_for_nothing() -> None:
    """What `write` calls may flush the sink, in whose thread it is."""

    class Flushes(Kept):
        def write(self, records: list[EventRecord]) -> None:
            self.flush()
            super().write(records)

    sink = Flushes()
    asyncio.run(asyncio.wait_for(run(sink), 5))
    assert len(sink.records) == sink.counts.emitted


def test_flush_of_a_sink_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for no event that is lost."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())
    sink = Failing(1_000, every=60)

    async def flush(number: int) -> None:
        sink.flush()

    asyncio.run(Pipeline([Stage("A", 1, [flush])], observers=[sink]).run(range(5)))
    assert sink.counts.dropped == sink.counts.emitted


def test_waiting_events_cost_the_garbage_collector_nothing() -> None:
    """The collector forgets the events that wait: it would look at thousands of them each time."""
    sink = Held()
    tracked: list[bool] = []

    async def look(number: int) -> int:
        gc.collect()
        tracked.extend(map(gc.is_tracked, sink._buffer))
        return number

    async def main() -> None:
        pipeline = Pipeline([Stage("Look", 1, [look])], observers=[sink])
        running = asyncio.create_task(pipeline.run(range(3)))
        while len(tracked) < 10:
            await asyncio.sleep(0)
        sink.go.set()
        await running

    asyncio.run(main())
    assert tracked.count(True) <= 3  # notices


def test_waiting_events_keep_no_value() -> None:
    """A value is JSON when its event waits, and may be forgotten itself."""

    class Large:
        def __repr__(self) -> str:
            return "<large>"

    sink = Held(values=True)
    made: list[weakref.ref[Large]] = []

    def make(number: int) -> Large:
        large = Large()
        made.append(weakref.ref(large))
        return large

    async def main() -> None:
        stages = [Stage("Make", 1, [make]), Stage("Forget", 1, [lambda large: None])]
        running = asyncio.create_task(Pipeline(stages, observers=[sink]).run(range(3)))
        while sink.counts.emitted < 15:
            await asyncio.sleep(0.001)
        gc.collect()
        assert [large() for large in made] == [None] * 3
        sink.go.set()
        await running

    asyncio.run(main())
    assert [record.value for record in sink.records].count('"<large>"') == 3


def test_every_batch_wakes_the_thread() -> None:
    """As soon as a batch is full it is written, each time, however long ``every`` is."""
    sink = Kept(batch=4, every=60)

    async def wait(number: int) -> int:
        until = sink.counts.emitted - 4
        while len(sink.records) < until:
            await asyncio.sleep(0.001)
        return number

    pipeline = Pipeline([Stage("Wait", 1, [wait])], observers=[sink])
    asyncio.run(asyncio.wait_for(pipeline.run(range(20)), 20))
    assert sink.counts.delivered == 60


def test_batches_are_bounded() -> None:
    """No batch is larger than ``batch``."""
    sink = Kept(batch=7)
    asyncio.run(run(sink, 100))
    assert max(sink.batches) <= 7
    assert sum(sink.batches) == len(sink.records)


def test_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    """A batch that could not be written is written once more, and once only."""
    sink = Failing(2)
    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(run(sink))
    assert [record.seq for record in sink.records] == list(range(sink.counts.emitted))
    assert not caplog.records


def test_goes_off_after_the_last_try(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink that keeps failing is off, says so once, and costs no item."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.001, 0.001))
    sink = Failing(1_000)
    with caplog.at_level(logging.WARNING, "antflow"):
        results = asyncio.run(a_pipeline(sink).run(range(5), on_failures="ignore"))
    assert len(results) == 4
    counts = sink.counts
    assert counts == SinkCounts(counts.emitted, 0, counts.emitted, 0, counts.error, 3)
    assert counts.failures == 3
    assert counts.error == "OSError: [Errno 28] No space left on device"
    assert sink.calls == ["open", "close"]
    off, lost = [record.getMessage() for record in caplog.records]
    assert off.startswith("Failing is off, after 3 attempts at writing to its target: OSError")
    assert lost == f"Failing lost {counts.emitted} events: it is off"


def test_goes_off_at_once_after_an_error_that_no_try_cures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A sink of one's own says which errors these are."""

    class Hopeless(Failing):
        def gives_up_on(self, error: Exception) -> bool:
            return isinstance(error, OSError)

    sink = Hopeless(1)
    with caplog.at_level(logging.WARNING, "antflow"):
        asyncio.run(run(sink))
    assert sink.records == []
    assert "Hopeless is off, after 1 attempt at writing to its target: OSError" in caplog.text


def test_is_on_again_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that went off in one run tries again in the next."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())
    sink = Failing(1)
    asyncio.run(run(sink))
    assert sink.counts.error is not None
    asyncio.run(run(sink))
    assert sink.counts.error is None
    assert sink.records


def test_writes_all_of_a_cancelled_run() -> None:
    """What a cancelled run did is written before its caller goes on."""
    sink = Kept(every=0.001)

    async def cancelled() -> None:
        stages = [Stage("Wait", 2, [lambda x: x, asyncio.sleep])]
        running = asyncio.create_task(Pipeline(stages, observers=[sink]).run([60.0, 70.0]))
        while len(sink.records) < 2:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(cancelled())
    assert [record.kind for record in sink.records if record.sequence_id == 0][-1] == "cancelled"
    assert sink.runs[-1][0] == "closed"


def test_leaves_no_thread() -> None:
    """After the last run there is no thread left."""
    threads: list[threading.Thread] = []

    class Own(Kept):
        def open(self) -> None:
            threads.append(threading.current_thread())

    asyncio.run(run(Own()))
    assert [each.is_alive() for each in threads] == [False]


@pytest.mark.parametrize("when_full", ["drop_oldest", "block"])
def test_a_write_that_exits_costs_no_item(
    when_full: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``sys.exit()`` in a sink's thread is a failure like any other, and no event is forgotten."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())

    class Exits(Kept):
        def write(self, records: list[EventRecord]) -> None:
            sys.exit(3)

    sink = Exits(buffer=1_000 if when_full == "drop_oldest" else 5, when_full=when_full)
    asyncio.run(run(sink))
    asyncio.run(run(sink))
    assert sink.counts.error == "SystemExit: 3"
    assert sink.counts.dropped == sink.counts.emitted > 0
    assert caplog.text.count("Exits is off, after 1 attempt") == 2


@pytest.mark.real_time
def test_a_place_that_hangs_does_not_hold_up_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run waits for a sink for a bounded time, and `asyncio.run` for nothing more."""
    monkeypatch.setattr("antflow._monitor.public_steps.LONGEST_CLOSE", 0.1)
    sink = Held()
    began = time.monotonic()
    asyncio.run(run(sink))
    waited = time.monotonic() - began
    sink.go.set()
    assert waited < 5
    thread = sink._thread
    if thread is not None:
        thread.join(10)
    assert sink.counts.delivered == sink.counts.emitted


def test_a_run_does_not_wait_for_one_that_begins_at_its_end() -> None:
    """A run is over when its own events are written, whoever goes on using the sink."""
    sink = Held(batch=1_000)
    goes_on = asyncio.Event()

    async def hold(item: int) -> int:
        await goes_on.wait()
        return item

    async def main() -> None:
        first = asyncio.create_task(run(sink))
        while sink._open_runs or not sink.counts.emitted:
            await asyncio.sleep(0.001)
        holds = Pipeline([Stage("Hold", 1, [hold])], observers=[sink])
        second = asyncio.create_task(holds.run([1]))
        while not sink._open_runs:
            await asyncio.sleep(0.001)
        sink.go.set()
        await asyncio.wait([first], timeout=5)
        assert first.done()
        goes_on.set()
        await second

    asyncio.run(main())
    assert sink.counts.delivered == sink.counts.emitted
    assert sink.calls == ["open", "close"]


def test_a_place_is_opened_again_only_when_it_is_closed() -> None:
    """A run that begins while the place is being closed loses nothing, and neither does its end."""
    closing, go = threading.Event(), threading.Event()

    class ClosesSlowly(Kept):
        def close(self) -> None:
            closing.set()
            assert go.wait(10)
            super().close()

    sink = ClosesSlowly(every=0.01)

    async def main() -> None:
        first = asyncio.create_task(run(sink))
        while not closing.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.create_task(run(sink))
        while not sink._open_runs:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        go.set()
        await asyncio.gather(first, second)

    asyncio.run(main())
    assert sink.calls == ["open", "close"] * 2
    assert len(sink.records) == sink.counts.emitted
    assert sink._thread is None


def test_works_in_virtual_time() -> None:
    """A loop with virtual time waits for the sink's thread."""
    sink = Kept()
    run_virtual(lambda: run(sink, 30))
    assert sink.counts.delivered == sink.counts.emitted > 30


@pytest.mark.real_time
def test_an_event_waits_no_longer_than_every() -> None:
    """A few events are written within ``every`` seconds, while the run goes on."""
    sink = Kept(every=0.05)

    async def slow() -> None:
        running = asyncio.create_task(
            Pipeline([Stage("Wait", 1, [asyncio.sleep])], observers=[sink]).run([2.0])
        )
        began = time.monotonic()
        while len(sink.records) < 2 and time.monotonic() < began + 1.5:
            await asyncio.sleep(0.01)
        assert len(sink.records) == 2
        await running

    asyncio.run(slow())


def test_values_are_recorded_only_if_asked_for() -> None:
    """Without ``values`` no value is recorded; with it they are JSON, as they were at that time."""
    plain, full = Kept(), Kept(values=True)

    def change(rows: list[int]) -> list[int]:
        rows.append(1)
        return rows

    stages = [Stage("A", 1, [change]), Stage("B", 1, [change])]
    asyncio.run(Pipeline(stages, observers=[plain, full]).run([[0]]))
    assert {record.value for record in plain.records} == {None}
    values = [record.to_dict().get("value") for record in full.records]
    assert values == [[0], None, [0, 1], None, [0, 1, 1]]


def test_an_id_without_a_text_costs_no_event() -> None:
    """An int of thousands of digits has no text in Python; a placeholder is recorded."""
    sink = Kept()
    pipeline = Pipeline([Stage("A", 1, [str])], observers=[sink])
    asyncio.run(pipeline.run([{"id": 10**5_000, "value": 1}]))
    assert {record.item for record in sink.records} == {"<int: str() failed>"}


def test_redact_changes_what_is_recorded() -> None:
    """``redact`` sees ids, messages and values; what it returns is recorded instead."""

    def hide(field: str, value: Any) -> Any:
        return f"hidden {field}"

    sink = Kept(values=True, redact=hide)
    asyncio.run(run(sink))
    assert {record.item for record in sink.records} == {"hidden item"}
    assert {record.error for record in sink.records} == {None, "hidden error"}
    assert {record.value for record in sink.records} == {None, '"hidden value"'}


def test_a_redact_that_raises_shows_nothing() -> None:
    """If ``redact`` raises, nothing of the text is recorded."""

    def fail(field: str, value: Any) -> Any:
        raise RuntimeError

    sink = Kept(values=True, redact=fail)
    asyncio.run(run(sink))
    assert {record.item for record in sink.records} == {"<redacted>"}
    assert {record.value for record in sink.records} == {None, '"<redacted>"'}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {1}}, '{"a": "{1}"}'),
        (float("nan"), '"nan"'),
        (object, "\"<class 'object'>\""),
        ("x" * 200_000, '"' + repr("x" * 2_000)[:999] + '…"'),
    ],
)
def test_any_value_can_be_recorded(value: Any, text: str) -> None:
    """What JSON does not know, or what is too long, is recorded as its ``repr``."""
    sink = Kept(values=True, kinds=["completed"])
    asyncio.run(Pipeline([Stage("A", 1, [lambda _: value])], observers=[sink]).run([0]))
    assert sink.records[0].value == text


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"buffer": 0}, ValueError, "buffer=0: must be a whole number >= 1"),
        ({"batch": 1.5}, ValueError, "batch=1.5"),
        ({"every": 0}, ValueError, "every=0"),
        ({"when_full": "drop"}, ValueError, "when_full='drop': must be one of 'drop_oldest', 'bl"),
        ({"kinds": "failed"}, TypeError, "kinds='failed': must be a list of kinds"),
        ({"kinds": ["fail"]}, ValueError, "kinds='fail'"),
        ({"values": 1}, TypeError, "values=1"),
        ({"redact": 3}, TypeError, "redact=3"),
        ({"redact": lambda value: value}, TypeError, "must be a function that can be called as f("),
        ({"buffer_size": 3}, TypeError, "unexpected keyword argument 'buffer_size'"),
    ],
)
def test_refuses_wrong_options(options: Any, error: type[Exception], text: str) -> None:
    """A wrong option is refused where it is given."""
    with pytest.raises(error) as caught:
        Kept(**options)
    assert text in str(caught.value)


PROGRAM = """
import asyncio, os, sys
from antflow import Pipeline, Stage
from antflow.sinks import JsonlSink

async def stop(item):
    await asyncio.sleep(0.01)
    if item == 5:
        {end}
    return item

stages = [Stage("A", 1, [stop], task_attempts=1)]
asyncio.run(Pipeline(stages, observers=[JsonlSink(sys.argv[1], every={every})]).run(range(10)))
"""


def killed(path: Path, end: str, every: float = 60) -> str:
    program = PROGRAM.format(end=end, every=every)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode
    return path.read_text()


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise KeyboardInterrupt"])
def test_writes_all_of_a_program_that_ends(tmp_path: Path, end: str) -> None:
    """If the program is ended from inside a run, everything up to then is written."""
    text = killed(tmp_path / "events.jsonl", end)
    assert '"kind":"started","stage":"A","item":"5"' in text
    assert '"kind": "run_closed"' in text


DAEMON = """
import asyncio, threading, time
from antflow import Pipeline, Stage
from antflow.sinks import Sink

class Place(Sink):
    def open(self):
        print("open", flush=True)

    def write(self, records):
        pass

    def close(self):
        time.sleep(0.2)
        print("close", flush=True)

async def soon(item):
    await asyncio.sleep(0.001)
    return item

def work():
    asyncio.run(Pipeline([Stage("A", 1, [soon])], observers=[Place()]).run(range(100_000)))

threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""


@pytest.mark.process
def test_a_run_that_outlives_the_program_opens_nothing_again() -> None:
    """At exit a place is closed for good, even if a daemon thread goes on with the run."""
    done = subprocess.run(
        [sys.executable, "-c", DAEMON], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["open", "close"]


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_a_killed_program_loses_at_most_the_last_moment(tmp_path: Path) -> None:
    """``kill -9`` loses no event that is older than ``every``."""
    end = "await asyncio.sleep(0.5); os.kill(os.getpid(), 9)"
    text = killed(tmp_path / "events.jsonl", end, every=0.1)
    assert text.endswith("\n")
    assert '"kind":"started","stage":"A","item":"5"' in text


FORK = """
import asyncio, faulthandler, os, sys, threading, warnings
from antflow import Pipeline, Stage
from antflow.sinks import JsonlSink, SqliteSink, TraceSink

warnings.simplefilter("ignore")  # for a fork beside threads
sink = {sink}
pids = []

async def same(number):
    return number

inner = Pipeline([Stage("In", 1, [same])], observers=[sink])

async def work(number):
    await asyncio.sleep(0.01)
    if number == 3 and not (pid := os.fork()):
        faulthandler.dump_traceback_later(20, exit=True)
        {does}
    elif number == 3:
        pids.append(pid)
    return number

asyncio.run(Pipeline([Stage("Work", 1, [work])], observers=[sink]).run(range(9)))
for pid in pids:
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print("parent", sink.counts.delivered, sink.counts.dropped)
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked there")
@pytest.mark.parametrize("name", ["JsonlSink('log.jsonl')", "SqliteSink('log.db')"])
@pytest.mark.parametrize(
    ("does", "code"),
    [
        ("sys.exit(7)", 7),
        (
            "threading.Thread(target=asyncio.run, args=(inner.run(range(3)),)).run(); "
            "os._exit(sink.counts.emitted)",
            9,
        ),
    ],
)
def test_a_child_of_a_task_writes_nothing_of_the_run(
    name: str, does: str, code: int, tmp_path: Path
) -> None:
    """Neither at its end nor by a run of its own with the sink, which has counts of its own."""
    script = FORK.format(sink=name, does=does)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    events = 9 * 3
    assert done.stdout.splitlines()[-2:] == [f"child {code}", f"parent {events} 0"], done.stderr
    with EventLog.open(next(tmp_path.glob("log.*"))) as log:
        (run,) = [each for each in log.runs() if each.accepted == 9]
        assert run.completed == 9
        histories = [log.get_history(str(number), run=run.run) for number in range(9)]
        assert sum(map(len, histories)) == events


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked there")
def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    """A fork may come while the sink's thread has the lock, which the child does not get back."""
    script = """
import faulthandler, os, sys, threading
from antflow.sinks import Sink
sink = Sink()
sink._lock.acquire()
if not os.fork():
    faulthandler.dump_traceback_later(20, exit=True)
    os._exit(6 + sink.counts.emitted)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "6\n", done.stderr


def test_is_an_observer() -> None:
    """A sink hears exactly what an observer of the user's own hears."""
    heard: list[ItemStep] = []

    class Own:
        def happened(self, step: ItemStep) -> None:
            heard.append(step)

    sink = Kept()
    stages = [Stage("A", 1, [halve], task_attempts=2, task_wait_seconds=0)]
    asyncio.run(Pipeline(stages, observers=[sink, Own()]).run(range(5), on_failures="ignore"))
    assert [(r.kind, r.item, r.attempt, r.worker) for r in sink.records] == [
        (s.kind, str(s.item_id), s.attempt, s.worker) for s in heard
    ]


def test_a_run_may_have_observers_of_its_own() -> None:
    """``run(observers=[…])``: they hear of that run, beside the observers of the pipeline."""
    always, once = Kept(), Kept()
    pipeline = Pipeline([Stage("A", 2, [halve])], observers=[always])

    async def main() -> None:
        await pipeline.run(range(3), observers=[once])
        await pipeline.run(range(3))

    asyncio.run(main())
    assert len(always.runs) == 4
    assert once.runs == always.runs[:2]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"report": "a.html", "trace": "./a.html"}, ("report", "trace")),
        ({"own": "a.jsonl", "trace": "a.jsonl"}, ("trace", "observers[0] of the pipeline")),
        ({"own": "a.jsonl", "observer": "a.jsonl"}, ("observers[0] of the run", "the pipeline")),
        ({"spill": "a.db", "report": "a.db"}, ("report", "spill of the tracker")),
        ({"own": "a.db", "spill": "a.db"}, ("observers[0] of the pipeline", "spill")),
        ({"journal": "a.db", "report": "./a.db"}, ("report", "journal")),
        ({"journal": Path("a.db"), "trace": "a.db"}, ("trace", "journal")),
        ({"journal": "a.db", "spill": "a.db"}, ("spill of the tracker", "journal")),
        ({"journal": "a.db", "observer": "a.db"}, ("observers[0] of the run", "journal")),
        ({"kept": "a.db", "observer": "a.db"}, ("observers[0] of the run", "journal")),
        ({"kept": "a.db", "own": "a.db"}, ("observers[0] of the pipeline", "journal")),
    ],
)
def test_a_file_that_is_given_twice_is_refused(
    given: dict[str, Any], names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is begun, and nothing is written: one would destroy what the other writes."""
    monkeypatch.chdir(tmp_path)
    options = {k: v for k, v in given.items() if k in ("trace", "report", "journal")}
    if "observer" in given:
        options["observers"] = [JsonlSink(given["observer"])]
    own = [JsonlSink(given["own"])] if "own" in given else []
    tracker = StatusTracker(spill=given["spill"]) if "spill" in given else None
    taken: list[int] = []

    def items() -> Iterator[int]:
        taken.append(0)
        yield 0

    def run() -> None:
        pipeline = Pipeline(
            [Stage("A", 1, [halve])],
            status_tracker=tracker,
            observers=own,
            journal=Journal(given["kept"]) if "kept" in given else None,
        )
        asyncio.run(pipeline.run(items(), **options))

    with pytest.raises(ValueError, match="is the file of") as caught:
        run()
    later, earlier = names
    assert str(caught.value).startswith(f"{later}: ")
    assert earlier in str(caught.value)
    assert taken == []
    assert os.listdir(tmp_path) == []


def test_a_snapshot_counts_what_sinks_have_lost() -> None:
    """``snapshot.sinks`` has the counts of each sink, by its name; other observers have none."""
    sinks = [Kept(), Kept(), Held(buffer=3, batch=2, every=0.001)]

    class Own:
        def happened(self, step: ItemStep) -> None:
            sinks[2].go.set() if step.item_id == 150 else None  # type: ignore[attr-defined]

    pipeline = Pipeline([Stage("A", 2, [halve])], observers=[*sinks, Own()])
    found = pipeline.get_dashboard_snapshot().sinks
    assert found == dict.fromkeys(["Kept", "Kept 2", "Held"], SinkCounts(0, 0, 0, 0, None))
    asyncio.run(pipeline.run(range(200), on_failures="ignore"))
    found = pipeline.get_dashboard_snapshot().sinks
    assert found == {"Kept": sinks[0].counts, "Kept 2": sinks[1].counts, "Held": sinks[2].counts}
    assert found["Held"].dropped > 100
    assert found["Kept"].dropped == 0
