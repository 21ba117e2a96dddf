"""The command line of the suite."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import guard
from benchmarks.page import write_page
from benchmarks.report import from_json, machine, table, to_json
from benchmarks.runner import Failed, Outcome, Runner
from benchmarks.systems import Systems, default_venvs
from benchmarks.workload import Workload, beside_other_clone
from benchmarks.workloads import WORKLOADS

ROUNDS, QUICK_ROUNDS = 7, 3


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="How fast antflow is, and how light, beside other ways to do the same.",
        epilog="Exit code 1: a target was missed, or one of our programs did not do its work.",
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--only", metavar="W1,W7", type=_names, help="these workloads")
    what.add_argument("--systems", metavar="ours,pool", type=_names, help="these systems")
    what.add_argument("--list", action="store_true", help="list the workloads, and measure none")
    what.add_argument("--quick", action="store_true", help="fewer items and rounds")
    what.add_argument("--rounds", type=int, help=f"how often ({ROUNDS}; {QUICK_ROUNDS} if quick)")
    how = parser.add_argument_group("where to run it")
    how.add_argument("--python", default=sys.executable, metavar="PATH", help="the interpreter")
    how.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    how.add_argument("--install", action="store_true", help="install the other systems")
    how.add_argument(
        "--venvs",
        type=Path,
        default=default_venvs(),
        metavar="DIR",
        help="where the other systems are installed (%(default)s)",
    )
    how.add_argument(
        "--against", type=Path, metavar="CLONE", help="compare with the antflow of another clone"
    )
    to = parser.add_argument_group("what to do with it")
    to.add_argument("--json", type=Path, metavar="FILE", help="write all samples to a file")
    to.add_argument(
        "--from",
        dest="files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="read samples from such files, and measure none",
    )
    to.add_argument("--page", action="store_true", help="write them into docs/performance.md")
    to.add_argument(
        "--elsewhere",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="with --page: samples of other Pythons or event loops, a file for each",
    )
    ci = parser.add_argument_group("for CI")
    ci.add_argument("--guard", action="store_true", help="hold a few ratios against guard.toml")
    ci.add_argument("--store", action="store_true", help="with --guard: write guard.toml instead")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; see the description in `parser`."""
    options = parser().parse_args(arguments)
    if options.list:
        for each in WORKLOADS.values():
            print(f"{each.name:8} {each.title}")
        return 0
    if options.files:
        about, outcomes = read(options.files)
        for outcome in outcomes:
            print(*table(outcome), sep="\n")
    else:
        workloads = chosen(options)
        systems = Systems(
            options.python,
            options.venvs,
            installs=options.install,
            other_clone=options.against,
        )
        runner = Runner(systems, options.loop, quick=options.quick)
        if options.guard:
            return guarded(runner, systems.version, stores=options.store)
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        about = {
            "machine": machine(),
            "python": systems.version,
            "loop": options.loop,
            "rounds": rounds,
            "quick": options.quick,
            "date": time.strftime("%Y-%m-%d"),
        }
        outcomes = measured(runner, workloads, options.systems, about)
    if options.json:
        text = json.dumps(to_json(outcomes, about), indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.page:
        write_page(outcomes, about, [read([file]) for file in options.elsewhere])
    return int(not all(outcome.is_good for outcome in outcomes))


def chosen(options: argparse.Namespace) -> list[Workload]:
    """The workloads that were asked for."""
    unknown = set(options.only or ()) - WORKLOADS.keys()
    if unknown:
        raise SystemExit(f"--only: there is no {', '.join(sorted(unknown))}; see --list")
    workloads = [WORKLOADS[name] for name in options.only or WORKLOADS]
    return list(map(beside_other_clone, workloads)) if options.against else workloads


def measured(
    runner: Runner,
    workloads: Sequence[Workload],
    systems: Sequence[str] | None,
    about: dict[str, Any],
) -> list[Outcome]:
    """Measure and print one workload after the other."""
    print("{machine}; {python}, {loop}; medians of {rounds} rounds\n".format_map(about), flush=True)
    outcomes: list[Outcome] = []
    for workload in workloads:
        names = [
            name
            for name, program in workload.programs.items()
            if systems is None or program.system in systems
        ]
        outcomes.append(runner.measure(workload, about["rounds"], names))
        print(*table(outcomes[-1]), sep="\n", flush=True)
    return outcomes


def read(files: Sequence[Path]) -> tuple[dict[str, Any], list[Outcome]]:
    """Read what earlier runs wrote; if two files have a workload, the later file counts."""
    contents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    found = {
        outcome.workload.name: outcome
        for content in contents
        for outcome in from_json(content, WORKLOADS)
    }
    return contents[-1]["about"], [found[name] for name in WORKLOADS if name in found]


def guarded(runner: Runner, version: str, *, stores: bool) -> int:
    """Compare the ratios with the stored ones, or store them."""
    short = version.split()[-1].rpartition(".")[0]
    try:
        if stores:
            for line in guard.store(runner, short):
                print(line, flush=True)
            return 0
        results: list[bool] = []
        for line, is_good in guard.guard(runner, short):
            print(line, flush=True)
            results.append(is_good)
    except Failed as error:
        print(error)
        return 1
    return int(not all(results))


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())
