"""Lines on their way out, when they are slower than the run or it is cancelled."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow.cli import output as output_module
from antflow.cli.job import Job
from antflow.cli.output import JsonLines, end_all
from antflow.cli.output_file import write_fully
from antflow.cli.refusals import RunFailed
from antflow.cli.run_command import stream
from antflow.cli.threads import in_daemon_thread
from tests.cli.running import command, environment


class SlowFile:
    """Writes nothing before it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.text = ""

    def write(self, data: bytes) -> None:
        self.began.set()
        self.go.wait(60)
        self.text += data.decode()


async def seen(event: threading.Event) -> None:
    """Wait for what a thread does."""
    while not event.is_set():
        await asyncio.sleep(0)


def test_lines_are_written_in_order() -> None:
    """However many wait, each is written once, and in the order they came."""
    file = SlowFile()
    file.go.set()

    async def main() -> None:
        lines = JsonLines(file.write, "file")
        for number in range(5000):
            await lines.put(f"{number}\n")
        await lines.end()

    asyncio.run(main())
    assert file.text.split() == [str(number) for number in range(5000)]


def test_lines_that_wait_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has more lines than can be written has to wait."""
    monkeypatch.setattr(output_module, "MOST_WAITING", 10)
    file = SlowFile()

    async def main() -> int:
        lines, count = JsonLines(file.write, "file"), 0

        async def put() -> None:
            nonlocal count
            for _ in range(100):
                await lines.put("x\n")
                count += 1

        putting = asyncio.create_task(put())
        await seen(file.began)
        for _ in range(200):
            await asyncio.sleep(0)
        waited = count
        file.go.set()
        await putting
        await lines.end()
        return waited

    assert asyncio.run(main()) <= 20
    assert file.text.count("x") == 100


def test_lines_when_the_writer_was_cancelled() -> None:
    """A writer that was cancelled loses nothing: neither what its thread has nor what waits."""
    file = SlowFile()

    async def main() -> None:
        lines = JsonLines(file.write, "file")
        await lines.put("1\n")
        await seen(file.began)
        await lines.put("2\n")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        asyncio.get_running_loop().call_later(0.02, file.go.set)
        await lines.end()

    asyncio.run(main())
    assert file.text == "1\n2\n"


def test_lines_that_a_reader_does_not_take() -> None:
    """While they are being written nothing has failed, and they count as unwritten."""
    go = threading.Event()

    def write(data: bytes) -> None:
        go.wait(10)

    async def main() -> None:
        lines = JsonLines(write, "file")
        await lines.put("a\n", 1)
        try:
            assert lines.failure == "file: no time was left"
            assert lines.unwritten == [1]
        finally:
            go.set()
            await lines.end()
        assert lines.unwritten == []

    asyncio.run(main())


def test_thread_that_outlives_its_event_loop() -> None:
    """A call that was given up ends without a word when it is over, whatever came of it."""
    began, go = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def call() -> None:
        threads.append(threading.current_thread())
        began.set()
        go.wait(60)

    async def main() -> None:
        calling = asyncio.ensure_future(in_daemon_thread(call))
        await seen(began)
        calling.cancel()

    asyncio.run(main())
    go.set()
    threads[0].join(60)
    assert not threads[0].is_alive()


def test_lines_that_cannot_be_written() -> None:
    """One file that fails is told by its name, after the others were written."""
    good = SlowFile()

    def fail(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        outputs = [JsonLines(fail, "bad"), JsonLines(good.write, "good")]
        for each in outputs:
            await each.put("1\n")
        asyncio.get_running_loop().call_later(0.02, good.go.set)
        await end_all(outputs)

    with pytest.raises(RunFailed, match="bad: No space left on device"):
        asyncio.run(main())
    assert good.text == "1\n"


def test_lines_that_are_written_before_the_disk_is_full() -> None:
    """Only what is not whole in the file counts as unwritten, and what comes later."""
    disk = io.BytesIO()

    def write(data: bytes) -> None:
        disk.write(data[: 10 - disk.tell()])
        if disk.tell() == 10:
            error: Any = OSError(28, "No space left on device")
            error.characters_written = 10
            raise error

    async def main() -> None:
        lines = JsonLines(write, "file")
        for subject in range(4):
            lines.add(f"{subject}{subject}{subject}\n", subject)
        with pytest.raises(RunFailed):
            await lines.end()
        lines.add("later\n", "later")
        with pytest.raises(RunFailed):
            await lines.put("last\n", "last")
        assert lines.unwritten == [2, 3, "later", "last"]
        assert lines.failure == "file: No space left on device"

    asyncio.run(main())
    assert disk.getvalue() == b"000\n111\n22"


@pytest.mark.parametrize("limit", [0, 1, 4096, 10_000])
def test_file_that_takes_only_a_part(limit: int) -> None:
    """Of data that does not fit, the error says how much was written."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with tempfile.TemporaryFile() as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError, match="too large") as caught:
                write_fully(file.fileno(), b"x" * 10_001)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        error: Any = caught.value
        assert error.characters_written == os.fstat(file.fileno()).st_size == limit


def test_results_of_a_cancelled_run_are_written() -> None:
    """A run that is cancelled ends when what has come out of it is written."""
    file = SlowFile()

    class Items:
        async def items(self) -> AsyncIterator[int]:
            for number in range(3):
                yield number
            await asyncio.Event().wait()

    async def keep(number: int) -> int:
        return number

    async def main() -> None:
        pipeline = Pipeline([Stage("Keep", 1, [keep])])
        items: Any = Items()
        job = Job(pipeline, items, {}, JsonLines(file.write, "file"), None)
        running = asyncio.create_task(stream(job))
        await seen(file.began)
        while pipeline.get_stats().items_processed < 3:
            await asyncio.sleep(0)
        running.cancel()
        asyncio.get_running_loop().call_later(0.05, file.go.set)
        await asyncio.wait([running])
        assert running.cancelled()
        assert file.text.startswith('{"id": 0, "value": 0}\n')

    asyncio.run(main())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("way", ["full", "gone", "closed"])
@pytest.mark.parametrize("dashboard", ["none", "log", "auto"])
def test_standard_error_that_takes_nothing_fails_no_item(
    folder: Path, way: str, dashboard: str
) -> None:
    """Tasks that print, warnings and the summary: dropped, with the results and the exit code 0."""
    (folder / "mine.py").write_text(
        "import sys\nfrom app import *\n"
        "async def shout(x):\n"
        "    print(x * 9000, flush=True); print(x, file=sys.stderr); return (y for y in x)\n"
        "pipeline = one('Shout', shout)\n"
    )
    (folder / "items").write_text("1\n" * 20)
    options = ("--items", "items", "--out", "out", "--dashboard", dashboard)
    run = command("run", "mine:pipeline", *options)
    if way == "closed":
        run = ["sh", "-c", 'exec "$@" 2>&-', "sh", *run]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full, open(writer, "w") as gone:
        stderr = full if way == "full" else gone
        done = subprocess.run(run, env=environment(), stdout=subprocess.PIPE, stderr=stderr)
    assert done.returncode == 0
    assert len((folder / "out").read_text().splitlines()) == 20
