"""The table that is printed, and the JSON that is written and read again."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.runner import Outcome
from benchmarks.sample import Sample
from benchmarks.systems import SYSTEMS
from benchmarks.workload import Figure, Workload, beside_other_clone


def machine() -> str:
    """A description of this machine, in one line."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}"


def table(outcome: Outcome) -> Iterator[str]:
    """The lines for one workload: its programs, then its figures."""
    yield f"{outcome.workload.name}: {outcome.workload.title}"
    if outcome.ran:
        yield f"  {'':36}{'items':>10}{'CPU µs/item':>13}{'least':>12}{'wall µs/item':>14}"
    for name in outcome.ran:
        samples = [samples[name] for samples in outcome.rounds]
        cpu = [each.cpu_us for each in samples]
        wall = median(each.wall_us for each in samples)
        items = samples[0].items
        yield f"  {name:36}{items:10,}{median(cpu):13.3f}{min(cpu):12.3f}{wall:14.3f}"
    for name, reason in outcome.skipped.items():
        yield f"  {name}: skipped: {reason}"
    if outcome.figures:
        yield f"  {'':54}{'median':>13}{'best':>12}  target"
    for figure, value in outcome.figures:
        best = figure.best(outcome.rounds)
        aim = f"{aims(figure):16}{figure.verdict(value)}"
        yield f"  {figure.name:54}{value:13.3f}{best:12.3f}  {aim}".rstrip()
    yield ""


def aims(figure: Figure) -> str:
    """The targets of a figure: ``"≥ 80 | 120"``."""
    if figure.reach is None:
        return ""
    sign = "≥" if figure.better == "high" else "≤"
    stretch = "" if figure.stretch is None else f" | {figure.stretch:,g}"
    return f"{sign} {figure.reach:,g}{stretch}"


def to_json(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> dict[str, Any]:
    """All measurements, for a JSON file."""
    return {
        "about": dict(about),
        "systems": {each.name: each.requirement for each in SYSTEMS.values() if each.requirement},
        "workloads": {
            outcome.workload.name: {
                "title": outcome.workload.title,
                "figures": {
                    figure.name: {"median": value, "best": figure.best(outcome.rounds)}
                    for figure, value in outcome.figures
                },
                "skipped": outcome.skipped,
                "rounds": [
                    {name: asdict(sample) for name, sample in samples.items()}
                    for samples in outcome.rounds
                ],
            }
            for outcome in outcomes
        },
    }


def from_json(content: Mapping[str, Any], workloads: Mapping[str, Workload]) -> list[Outcome]:
    """The outcomes in a JSON file."""
    outcomes: list[Outcome] = []
    for name, found in content["workloads"].items():
        if name in workloads:
            rounds = [
                {program: Sample(**sample) for program, sample in samples.items()}
                for samples in found["rounds"]
            ]
            workload = workloads[name]
            if any(program not in workload.programs for program in rounds[0]):
                workload = beside_other_clone(workload)
            outcomes.append(Outcome(workload, rounds, found["skipped"]))
    return outcomes
