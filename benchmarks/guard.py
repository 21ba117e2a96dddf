"""The guard: compares a few ratios with those in `guard.toml` for this version of Python.

A ratio of two programs that take turns is the same on a fast and on a slow machine.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import Failed, Runner
from benchmarks.workloads import WORKLOADS

FILE = Path(__file__).parent / "guard.toml"
HEADER = """\
# Ratios that `python -m benchmarks --guard` measures, by version of Python: none may fall more than
# a quarter below. `python -m benchmarks --guard --store` writes them.
"""
TOLERANCE = 0.75
ROUNDS = 5
TRIES = 3


@dataclass(frozen=True, slots=True)
class Guarded:
    """A figure that must not get worse.

    Attributes:
        workload: Name of its workload.
        figure: Its name there; higher is better.
        programs: The programs that it compares.
        items: How many items each of them gets.
    """

    workload: str
    figure: str
    programs: tuple[str, str]
    items: int

    def measure(self, runner: Runner) -> float:
        """The median of a few rounds.

        Raises:
            Failed: A program did not do its work.
        """
        workload = WORKLOADS[self.workload]
        outcome = runner.measure(workload, ROUNDS, self.programs, self.items)
        for name, reason in outcome.skipped.items():
            raise Failed(f"{self.workload}, {name}: {reason}")
        return {figure.name: value for figure, value in outcome.figures}[self.figure]


GUARDED = (
    Guarded("W1", "times the pool by hand", ("ours", "pool"), 30_000),
    Guarded("W7", "times the pool by hand", ("ours", "pool"), 60_000),
    Guarded("W5", "speed with it over speed without", ("on", "off"), 30_000),
    Guarded("W6", "times one by hand", ("12 workers", "12 workers by hand"), 10_000),
    Guarded("W6t", "speed with it over speed without", ("counted", "not counted"), 30_000),
    Guarded("W9", "times a TaskGroup with a semaphore", ("ours", "semaphore"), 20_000),
    Guarded("W11", "speed with one over speed without", ("one", "none"), 20_000),
    Guarded("W11", "speed with two over speed without", ("two", "none"), 20_000),
    Guarded("W14", "speed with one over speed without", ("strict", "none"), 10_000),
    Guarded("W14", "speed of resuming over speed without", ("resumed", "none"), 50_000),
    Guarded(
        "W14",
        "speed of resuming shuffled over speed without",
        ("resumed, shuffled", "none"),
        20_000,
    ),
)


def stored() -> dict[str, dict[str, float]]:
    """Version of Python → name → ratio."""
    return tomllib.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def store(runner: Runner, version: str) -> Iterator[str]:
    """Measure, and write the ratios for a version of Python to the file."""
    ratios = stored()
    ratios[version] = {}
    for each in GUARDED:
        ratios[version][name(each)] = ratio = each.measure(runner)
        yield f"{name(each):44}{ratio:8.3f}"
    FILE.write_text(as_toml(ratios), encoding="utf-8")


def guard(runner: Runner, version: str) -> Iterator[tuple[str, bool]]:
    """A line for each guarded figure, and whether it was good enough in one of three tries."""
    floors = stored().get(version)
    if floors is None:
        yield f"{FILE.name} has no ratios for Python {version}; `--guard --store` adds them", False
        return
    for each in GUARDED:
        floor = floors[name(each)] * TOLERANCE
        found: list[float] = []
        while len(found) < TRIES and max(found, default=0.0) < floor:
            found.append(each.measure(runner))
        is_good = found[-1] >= floor
        values = ", ".join(f"{value:.3f}" for value in found)
        word = "ok" if is_good else "WORSE"
        yield f"{name(each):44}{values}  (at least {floor:.3f})  {word}", is_good


def name(guarded: Guarded) -> str:
    """The name of a figure, in the file."""
    return f"{guarded.workload}, {guarded.figure}"


def as_toml(ratios: Mapping[str, Mapping[str, float]]) -> str:
    """The text of the file."""
    text = HEADER
    for version in sorted(ratios):
        text += f'\n["{version}"]\n'
        text += "".join(f'"{name}" = {ratio:.3f}\n' for name, ratio in ratios[version].items())
    return text
