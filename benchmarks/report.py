"""The table that is printed, and the JSON that is written."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.runner import Outcome
from benchmarks.sample import Sample
from benchmarks.systems import SYSTEMS


def machine() -> str:
    """This machine, in a line."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}"


def table(outcome: Outcome) -> Iterator[str]:
    """The lines for one workload: its programs, then its figures."""
    workload = outcome.workload
    yield f"{workload.name}: {workload.title}"
    ran = [name for name in workload.programs if any(name in each for each in outcome.rounds)]
    if ran:
        yield f"  {'':28}{'items':>10}{'CPU µs/item':>13}{'min':>9}{'wall µs/item':>14}"
    for name in ran:
        samples = [samples[name] for samples in outcome.rounds]
        cpu = [each.cpu_us for each in samples]
        wall = median(each.wall_us for each in samples)
        items = samples[0].items
        yield f"  {name:28}{items:10,}{median(cpu):13.3f}{min(cpu):9.3f}{wall:14.3f}"
    for name, reason in outcome.skipped.items():
        yield f"  {name}: skipped: {reason}"
    for figure in workload.figures:
        value = figure.value(outcome.rounds)
        if value is None:
            continue
        targets = ""
        if figure.reach is not None:
            sign = "≥" if figure.better == "high" else "≤"
            stretch = "" if figure.stretch is None else f" | {figure.stretch:g}"
            targets = f"{sign} {figure.reach:g}{stretch}"
        yield f"  {figure.name:44}{value:12.3f}  {targets:16}{figure.verdict(value)}".rstrip()
    yield ""


def as_json(outcomes: Sequence[Outcome], about: dict[str, Any]) -> dict[str, Any]:
    """All that was measured, for files."""
    return {
        "about": about,
        "systems": {each.name: each.requirement for each in SYSTEMS.values() if each.requirement},
        "workloads": {outcome.workload.name: _outcome(outcome) for outcome in outcomes},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    workload = outcome.workload
    names = [name for name in workload.programs if any(name in each for each in outcome.rounds)]
    return {
        "title": workload.title,
        "programs": {
            name: [_sample(samples[name]) for samples in outcome.rounds] for name in names
        },
        "skipped": outcome.skipped,
        "figures": {
            figure.name: {
                "value": value,
                "reach": figure.reach,
                "stretch": figure.stretch,
                "better": figure.better,
                "verdict": figure.verdict(value),
            }
            for figure in workload.figures
            if (value := figure.value(outcome.rounds)) is not None
        },
    }


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "items": sample.items,
        "cpu_us": round(sample.cpu_us, 4),
        "wall_us": round(sample.wall_us, 4),
        **sample.more,
    }
