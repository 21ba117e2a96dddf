"""One measurement, in a process that does nothing else.

`python -m benchmarks.child WORKLOAD PROGRAM ITEMS LOOP FILE` writes what it measured to FILE, as
JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.workloads import WORKLOADS


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """A function that makes event loops of this kind."""
    if name == "uvloop":
        make: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
        return make
    return asyncio.new_event_loop


def main(workload: str, program: str, items: str, loop: str, file: str) -> None:
    """Measure, and write the result to the file."""
    measure = WORKLOADS[workload].programs[program].measure
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        sample = runner.run(measure(int(items)))
    Path(file).write_text(json.dumps(asdict(sample)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
