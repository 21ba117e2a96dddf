"""A paid job is killed at 60 %; the same command again pays for nothing twice.

python examples/resume_after_kill.py

The service, at the end of this file, counts its calls and sometimes says "too fast". The job asks
it in two stages that share a limit, and keeps a journal. It runs in a process of its own, which is
killed with SIGKILL: as by the system when memory runs out. A number behind the command is that of
the items; there are 3000 without one.
"""

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from antflow import Limit, Pipeline, RetryAfter, Stage

WORKERS = 20

requests = Limit(concurrency=30)


async def call(port: int, line: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\n".encode())
    answer = (await reader.readline()).decode().strip()
    writer.close()
    if answer == "too fast":
        raise RetryAfter(0.02)
    return answer


async def job(port: int, journal: str, items: int) -> None:
    async def ask(number: int) -> str:
        return await call(port, f"ask {number}")

    async def rate(answer: str) -> str:
        return await call(port, f"rate {answer}")

    stages = [Stage(task.__name__, WORKERS, [task], limits=[requests]) for task in (ask, rate)]
    results = await Pipeline(stages).run(range(items), journal=journal)
    print(f"{results}, {results.resumed:,} resumed", flush=True)


class Service:
    """Answers a line with a line. ``calls`` has how often each was answered."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode().strip()
        self.asked += 1
        if self.asked % 500 == 0:
            writer.write(b"too fast\n")
        elif line:
            self.calls[line] = self.calls.get(line, 0) + 1
            writer.write(f"{line.split()[-1]}\n".encode())
        writer.close()


async def main(items: int) -> None:
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1")
    port = str(server.sockets[0].getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        command = (sys.executable, __file__, str(items), port, str(Path(folder, "run.db")))
        killed = await asyncio.create_subprocess_exec(*command)
        while len(service.calls) < 0.6 * 2 * items:
            await asyncio.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
        print(f"killed after {sum(service.calls.values()):,} paid calls")
        await (await asyncio.create_subprocess_exec(*command)).wait()
    server.close()
    paid = sum(service.calls.values())
    twice = paid - len(service.calls)
    print(f"{len(service.calls):,} calls were needed; {twice} of them were paid for twice")
    assert len(service.calls) == 2 * items
    assert twice <= 2 * WORKERS


if __name__ == "__main__":
    items, *told = sys.argv[1:] or ["3000"]
    asyncio.run(job(int(told[0]), told[1], int(items)) if told else main(int(items)))
