"""A workload: programs that do the same work in different ways, and figures that compare them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from benchmarks.sample import Sample

Measure = Callable[[int], Coroutine[None, None, Sample]]
"""Does the work for this many items, checks the answers, and returns the measurement."""

Round = Mapping[str, Sample]
"""Name of a program → what it measured in this round."""


@dataclass(frozen=True, slots=True)
class Program:
    """One way to do the work of a workload.

    Attributes:
        measure: Does the work.
        system: Name of the system it needs, see `benchmarks.systems`.
        share: The share of the workload's items that it gets; slow programs get fewer. Above 1: the
            number of its items, quick or not.
        needs_terminal: Whether its standard output is a terminal.
        twin_of: Name of the program that this one is a copy of, for another clone.
    """

    measure: Measure
    system: str = "ours"
    share: float = 1.0
    needs_terminal: bool = False
    twin_of: str = ""

    def items(self, items: int) -> int:
        """How many of the workload's items it gets."""
        return max(1, int(items * self.share)) if self.share <= 1 else int(self.share)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a workload is about, computed for each round; the median counts.

    Attributes:
        name: What it is.
        of: Computes it for one round. A `KeyError` means that a program is missing.
        reach: What it should be at least, or at most; ``None``: no target.
        stretch: A target for some day.
        better: Whether high or low is better.
    """

    name: str
    of: Callable[[Round], float]
    reach: float | None = None
    stretch: float | None = None
    better: Literal["high", "low"] = "high"

    def values(self, rounds: Sequence[Round]) -> list[float]:
        """The number of each round; none if a program is missing."""
        try:
            return [self.of(each) for each in rounds]
        except KeyError:
            return []

    def value(self, rounds: Sequence[Round]) -> float | None:
        """The median over the rounds; ``None`` if a program is missing."""
        values = self.values(rounds)
        return median(values) if values else None

    def best(self, rounds: Sequence[Round]) -> float:
        """The best of the rounds. On a busy machine it is closer to what an idle one achieves."""
        return (max if self.better == "high" else min)(self.values(rounds))

    def verdict(self, value: float) -> str:
        """How a value compares with the targets."""
        if self.reach is None:
            return ""
        if self._meets(value, self.stretch):
            return "stretch"
        return "reached" if self._meets(value, self.reach) else "MISSED"

    def _meets(self, value: float, target: float | None) -> bool:
        if target is None:
            return False
        return value >= target if self.better == "high" else value <= target


@dataclass(frozen=True, slots=True)
class Workload:
    """Programs that do the same work, and figures that compare them.

    Attributes:
        name: ``"W1"``.
        title: The work, in one line.
        items: How many items.
        quick: How many items with ``--quick``.
        programs: Name of the program → the program. They take turns in this order.
        figures: What is computed from their samples.
    """

    name: str
    title: str
    items: int
    quick: int
    programs: Mapping[str, Program]
    figures: Sequence[Figure]


OTHER_CLONE = "other clone"


def beside_other_clone(workload: Workload) -> Workload:
    """A workload that compares our programs with those of another clone."""
    programs: dict[str, Program] = {}
    figures: list[Figure] = []
    for name, program in workload.programs.items():
        if program.system == "ours":
            twin = f"{name}, other clone"
            programs[name] = program
            programs[twin] = replace(program, system=OTHER_CLONE, twin_of=name)
            figures.append(Figure(f"{name}: times the other clone", times_faster(name, twin)))
    return replace(workload, programs=programs, figures=figures)


def times_faster(ours: str, other: str) -> Callable[[Round], float]:
    """How many times as much processor time per item ``other`` takes as ``ours``."""
    return lambda samples: samples[other].cpu_us / samples[ours].cpu_us


def extra(program: str, name: str) -> Callable[[Round], float]:
    """A figure that a program computed itself."""
    return lambda samples: samples[program].more[name]


def cpu_us(program: str) -> Callable[[Round], float]:
    """Microseconds of processor time per item."""
    return lambda samples: samples[program].cpu_us


def percent_more(program: str, than: str) -> Callable[[Round], float]:
    """How much more a program takes than another, in percent."""
    return lambda samples: 100 * (samples[program].cpu_us / samples[than].cpu_us - 1)


def more_us(program: str, than: str, times: float = 1.0) -> Callable[[Round], float]:
    """How many more microseconds per item a program takes than another, divided by ``times``."""
    return lambda samples: (samples[program].cpu_us - samples[than].cpu_us) / times
