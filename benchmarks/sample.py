"""One measurement, as a program takes it of itself."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurement of one process.

    Attributes:
        items: How many items it worked on.
        cpu: Processor time in seconds, of all threads.
        wall: Wall-clock time in seconds.
        more: Other figures of the workload, by name.
    """

    items: int
    cpu: float
    wall: float
    more: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def cpu_us(self) -> float:
        """Processor time per item, in microseconds."""
        return self.cpu / self.items * 1e6

    @property
    def wall_us(self) -> float:
        """Wall-clock time per item, in microseconds."""
        return self.wall / self.items * 1e6


class Stopwatch:
    """Measures the block inside ``with``, after a garbage collection."""

    def __enter__(self) -> Self:
        gc.collect()
        self.cpu, self.wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cpu = time.process_time() - self.cpu
        self.wall = time.perf_counter() - self.wall

    def sample(self, items: int, **more: float) -> Sample:
        """The measurement; call it after the block."""
        return Sample(items, self.cpu, self.wall, more)


class WrongAnswer(Exception):
    """A program did not do the work it was measured for."""


def check(what: str, found: object, expected: object) -> None:
    """Reject a measurement with wrong answers."""
    if found != expected:
        raise WrongAnswer(f"{what}: {str(found)[:80]}, not {str(expected)[:80]}")


def check_values(values: Iterable[int], items: int) -> None:
    """Reject results unless they are the numbers below ``items``, each once, in any order."""
    found = sorted(values)
    check("number of results", len(found), items)
    check("values of the results", found, list(range(items)))


def resident_mb() -> float:
    """The memory of this process in MB; NaN if the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return float("nan")
    return pages * 4096 / 1e6
