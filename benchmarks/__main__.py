"""The command line of the suite."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.report import as_json, machine, table
from benchmarks.runner import Outcome, Runner
from benchmarks.systems import Systems, default_venvs
from benchmarks.workloads import WORKLOADS

ROUNDS, QUICK_ROUNDS = 7, 3


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="How fast antflow is, and how light, beside other ways to do the same.",
        epilog="Exit code 1: a target was missed, or an answer was wrong.",
    )
    parser.add_argument("--only", metavar="W1,W7", help="only these workloads")
    parser.add_argument("--quick", action="store_true", help="fewer items and rounds")
    parser.add_argument("--rounds", type=int, help=f"how often, {ROUNDS} unless quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--install", action="store_true", help="install the other systems")
    parser.add_argument("--venvs", type=Path, default=default_venvs(), metavar="DIR")
    parser.add_argument("--systems", metavar="ours,pool", help="only programs of these systems")
    parser.add_argument("--python", default=sys.executable, metavar="PATH")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--list", action="store_true", help="list the workloads")
    return parser


def main() -> int:
    """Measure and print; see the description."""
    options = parser().parse_args()
    if options.list:
        for each in WORKLOADS.values():
            print(f"{each.name:8} {each.title}")
        return 0
    names = options.only.split(",") if options.only else list(WORKLOADS)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    systems = Systems(options.python, options.venvs, installs=options.install)
    runner = Runner(systems, options.loop, quick=options.quick)
    print(f"{machine()}; {systems.version}, {options.loop}; medians of {rounds} rounds\n")
    outcomes: list[Outcome] = []
    for name in names:
        workload = WORKLOADS[name]
        only = None
        if options.systems:
            wanted = options.systems.split(",")
            only = [each for each, program in workload.programs.items() if program.system in wanted]
        outcomes.append(runner.measure(workload, rounds, only))
        print(*table(outcomes[-1]), sep="\n", flush=True)
    if options.json:
        about = {
            "machine": machine(),
            "python": systems.version,
            "loop": options.loop,
            "rounds": rounds,
            "quick": options.quick,
            "date": time.strftime("%Y-%m-%d"),
        }
        text = json.dumps(as_json(outcomes, about), indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(any(each.failed or each.missed for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
