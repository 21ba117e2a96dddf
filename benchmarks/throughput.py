"""How fast is the engine? No-op tasks, 3 stages of 10 workers, against what else there is.

    python benchmarks/throughput.py [--rounds 7] [--items 60000] [--skip-published] [--stream
    1000000]

Contenders take turns, round after round, each in its own process; figures are medians, and what
counts are the ratios. The published antflow 0.10.0 gets a virtual environment of its own
(`--published PYTHON` names an interpreter that has it already). Exit code 1 if a figure misses its
target.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
TARGETS = {"published": 50.0, "queue pool": 0.8}
"""Ours must be at least so many times as fast."""
TRACKED_TARGET = 0.5
GROWTH_TARGET_MB = 5.0
PUBLISHED_ITEMS = 3000


def measure(python: str, name: str, items: int) -> float:
    """One measurement in a process of its own: what the contender printed."""
    command = [python, str(HERE / "contenders.py"), name, str(items)]
    # Each interpreter measures what is installed in it, whatever this one was told to look at.
    theirs = python != sys.executable
    environment = {k: v for k, v in os.environ.items() if not (theirs and k == "PYTHONPATH")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout)


def published_python(folder: Path) -> str:
    """An interpreter with the published antflow 0.10.0, made for this."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "antflow==0.10.0"], check=True)
    return python


def main() -> int:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description="Throughput, ours beside others.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--published", metavar="PYTHON")
    parser.add_argument("--skip-published", action="store_true")
    parser.add_argument("--stream", type=int, default=1_000_000, metavar="ITEMS")
    options = parser.parse_args()

    here = ("ours", "tracked", "queue pool", "bare loop")
    contenders: dict[str, tuple[str, int]] = dict.fromkeys(here, (sys.executable, options.items))
    with tempfile.TemporaryDirectory() as folder:
        if not options.skip_published:
            python = options.published or published_python(Path(folder))
            contenders["published"] = (python, PUBLISHED_ITEMS)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, (python, items) in contenders.items():
                rates[name].append(items / measure(python, name, items))
    grown = measure(sys.executable, "growth", options.stream) if options.stream else 0.0

    missed = False
    ours = median(rates["ours"])
    print(f"{'':12} {'items/s':>10} {'ours is':>9}   (medians of {options.rounds} rounds)")
    for name, figures in rates.items():
        ratio = ours / median(figures)
        print(f"{name:12} {median(figures):10,.0f} {ratio:8.2f}x")
        missed |= ratio < TARGETS.get(name, 0.0)
    share = median(rates["tracked"]) / ours
    print(f"with a tracker: {share:.2f} of the speed without")
    if options.stream:
        print(f"memory added by a stream of {options.stream:,} items: {grown:.1f} MB")
    missed |= share < TRACKED_TARGET or grown > GROWTH_TARGET_MB
    print("a target was missed" if missed else "all targets met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
