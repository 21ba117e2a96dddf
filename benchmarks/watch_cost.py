"""What does it cost to watch the event loop? Processor time of a run that only waits.

    python benchmarks/watch_cost.py [--seconds 5] [--rounds 5] [--loop asyncio|uvloop]

A run waits with the watch on, then one with it off, in turns; the figure is the difference between
the medians of the process's own processor time per second, as a share of one core. Exit code 1 if
it is above the target.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from statistics import median

from antflow import Pipeline, Stage

TARGET = 0.002
"""Share of one core."""
WORKERS = 100


async def share_of_a_core(seconds: float, blocked_loop_after: float | None) -> float:
    """Processor time per second of a run whose workers all wait for so long."""

    async def wait(item: int) -> int:
        await ended.wait()
        return item

    ended = asyncio.Event()
    pipeline = Pipeline([Stage("Wait", WORKERS, [wait])], blocked_loop_after=blocked_loop_after)
    async with pipeline.open() as run:
        await run.feed(range(WORKERS))
        await asyncio.sleep(0.2)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        share = (time.process_time() - cpu) / (time.perf_counter() - began)
        ended.set()
    return share


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes event loops of this kind."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def main() -> int:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="The cost of watching the event loop.")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    options = parser.parse_args()

    shares: dict[bool, list[float]] = {True: [], False: []}
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        for _ in range(options.rounds):
            for is_watched, found in shares.items():
                after = 0.25 if is_watched else None
                found.append(runner.run(share_of_a_core(options.seconds, after)))
    watched, alone = median(shares[True]), median(shares[False])
    cost = watched - alone
    print(f"watched {watched:.4%}, not watched {alone:.4%}: {cost:.4%} of a core ({options.loop})")
    verdict = "ok" if cost <= TARGET else "MISSED"
    print(f"target at most {TARGET:.1%}: {verdict}")
    return 0 if cost <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
