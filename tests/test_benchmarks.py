"""The suite of benchmarks measures what it says, and refuses wrong answers."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

import antflow.sinks
from benchmarks import guard, history, sinks
from benchmarks.chart import Panel, draw
from benchmarks.page import PAGE, compared, filled
from benchmarks.runner import Outcome, Runner
from benchmarks.sample import Sample, WrongAnswer, check_values
from benchmarks.systems import ROOT, SYSTEMS, Missing, Systems
from benchmarks.tasks import FailsOnce, Sleeps, Task, no_op
from benchmarks.workload import Figure, Workload
from benchmarks.workloads import WORKLOADS, flows
from tests.postgres_server import PostgresServer

FEW = 20
FEWER = {"W6": 2, "W6f": 1, "W13": 1}
"""Workloads whose items take long."""
LARGE = ("1,000 workers", "10,000 workers", "100 k items")
"""Ends of the names of programs that differ from others in nothing but their size."""


# -- the programs -----------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_programs_of_a_workload(workload: Workload) -> None:
    """Each program of ours and by hand does its work, and each figure can be worked out."""
    samples: dict[str, Sample] = {}
    for name, program in workload.programs.items():
        if not SYSTEMS[program.system].requirement and not name.endswith(LARGE):
            measure = program.measure(FEWER.get(workload.name, FEW))
            samples[name] = asyncio.run(measure)
    names = {name for sample in samples.values() for name in sample.more}
    of_others = Sample(FEW, 1.0, 1.0, dict.fromkeys(names, 1.0))
    complete = {name: samples.get(name, of_others) for name in workload.programs}
    missing = [figure.name for figure in workload.figures if figure.value([complete]) is None]
    assert samples
    assert not missing


async def loses_one(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """A system that loses an item."""
    return list(items)[1:]


async def repeats_one(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """A system that puts one item in the place of another."""
    return [max(each, 1) for each in items]


async def skips_tasks(items: Iterable[int], tasks: Sequence[Task], workers: int) -> list[int]:
    """A system that calls no task."""
    return list(items)


def test_measurement_when_an_answer_is_wrong() -> None:
    """A system that loses, changes or passes over an item is not measured."""
    for system in (loses_one, repeats_one):
        with pytest.raises(WrongAnswer):
            asyncio.run(flows.running(system, no_op)(FEW))
    with pytest.raises(WrongAnswer, match="failed once: 0, not 2"):
        asyncio.run(flows.failing(skips_tasks, retries_by_hand=False)(FEW))


def test_fails_once() -> None:
    """Every tenth item fails, in one of the stages, and only once."""
    once = FailsOnce()

    async def failures() -> int:
        errors = 0
        for task in once.tasks():
            for number in range(60):
                try:
                    assert await task(number) == number
                except ConnectionError:
                    errors += 1
        return errors

    assert [asyncio.run(failures()) for _ in range(2)] == [6, 0]
    once.check(60)


def test_check_values() -> None:
    """Any order will do, and each number must be there once."""
    check_values([2, 0, 1], 3)
    for wrong in ([0, 1], [0, 1, 1], [0, 1, 3]):
        with pytest.raises(WrongAnswer):
            check_values(wrong, 3)


def test_makespan() -> None:
    """The ideal time: two workers, two stages, the longest wait first."""
    sleeps = Sleeps([[3.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
    # First stage: item 0 until 3, item 1 until 1, item 2 until 2. Second: item 1 from 1 to 2,
    # item 2 from 2 to 4, item 0 from 3 to 4.
    assert sleeps.makespan(workers=2) == 4.0
    assert sleeps.makespan(workers=1) == 3.0 + 1.0 + 1.0 + 2.0


@pytest.mark.process
def test_sinks_are_measured(postgres: PostgresServer) -> None:
    """Each sink has a row, and so have the other ways to hear of every event."""
    rows = sinks.table(items=FEW, rounds=1)
    names = [re.split(r"[`(]", row)[1] for row in rows[2:]]
    kinds = [name for name in antflow.sinks.__all__ if name.endswith("Sink") and name != "Sink"]
    assert sorted(set(names) - {"Observer", "StatusTracker", "configure_telemetry"}) == kinds
    assert names.count("StatusTracker") == 3
    assert {row.count("|") for row in rows} == {5}


def test_memory_of_a_tracker_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping less of each item takes less; five runs are too few to compare the rest."""
    monkeypatch.setattr(history, "STAGES", (3,))
    row = history.table(items=4_000, runs=1)[2]
    full, three, last, nothing, *_ = (float(cell.replace(",", "")) for cell in row.split("|")[2:-1])
    assert min(full, three) > last > nothing


# -- the command ------------------------------------------------------------------------------


@pytest.mark.process
def test_benchmarks_command(tmp_path: Path) -> None:
    """The command measures in fresh processes, leaves out what is not installed, and keeps all."""
    file = tmp_path / "samples.json"
    command = [sys.executable, "-m", "benchmarks"]
    options = ["--only", "W10", "--quick", "--rounds", "1", "--json", str(file)]
    measured = subprocess.run(
        [*command, *options, "--venvs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert "antflow==0.10.0 is not installed here" in measured.stdout, measured.stderr
    found = json.loads(file.read_text("utf-8"))["workloads"]["W10"]
    assert found["rounds"][0].keys() == {"ours", "pool"}
    assert found["figures"].keys() == {"ms", "ms of the pool"}

    again = subprocess.run(
        [*command, "--from", str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert again.stdout.strip() == measured.stdout.partition("\n\n")[2].strip()


def test_workloads_the_command_does_not_know() -> None:
    """A name that is not in the list is refused."""
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit, match="there is no W99"):
        main(["--only", "W1,W99"])


# -- what is made of the samples --------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "value", "verdict"),
    [
        ("high", 1.5, "stretch"),
        ("high", 1.0, "reached"),
        ("high", 0.99, "MISSED"),
        ("low", 0.5, "reached"),
        ("low", 1.01, "MISSED"),
    ],
)
def test_verdict(better: str, value: float, verdict: str) -> None:
    """A figure on its target has reached it."""
    stretch = 1.5 if better == "high" else 0.4
    figure = Figure("x", lambda _: 0.0, 1.0, stretch, "high" if better == "high" else "low")
    assert figure.verdict(value) == verdict


def test_figure_is_paired() -> None:
    """A ratio is worked out in each round, and the median of them counts."""
    seconds = [(1.0, 2.0), (9.0, 18.0), (3.0, 1.0)]
    rounds = [{"ours": Sample(1, a, 1.0), "pool": Sample(1, b, 1.0)} for a, b in seconds]
    figure = next(each for each in WORKLOADS["W1"].figures if each.name.endswith("pool by hand"))
    assert figure.value(rounds) == 2.0
    assert figure.value([{"ours": Sample(1, 1.0, 1.0)}]) is None


class Replays(Runner):
    """A runner that measures nothing and replays ratios."""

    def __init__(self, ratios: Iterable[float]) -> None:
        self.ratios = iter(ratios)

    def measure(
        self,
        workload: Workload,
        rounds: int,
        only: Sequence[str] | None = None,
        items: int | None = None,
    ) -> Outcome:
        assert only is not None
        slower = Sample(1, next(self.ratios), 1.0)
        return Outcome(workload, [{only[0]: Sample(1, 1.0, 1.0), only[1]: slower}])


def test_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard lets a ratio fall by a quarter, and tries three times before it fails."""
    monkeypatch.setattr(guard, "FILE", tmp_path / "guard.toml")
    monkeypatch.setattr(guard, "GUARDED", guard.GUARDED[:1])
    assert list(guard.store(Replays([2.0]), "3.11"))
    assert guard.stored() == {"3.11": {"W1, times the pool by hand": 2.0}}

    for ratios, is_good in (
        ([1.5], True),
        ([1.4, 1.4, 1.6], True),
        ([1.4, 1.4, 1.4, 9.0], False),
    ):
        assert [good for _, good in guard.guard(Replays(ratios), "3.11")] == [is_good]
    assert [good for _, good in guard.guard(Replays([2.0]), "3.99")] == [False]


def test_guarded_figures_exist() -> None:
    """Each guarded figure compares the programs that the guard runs, and higher is better."""
    for each in guard.GUARDED:
        workload = WORKLOADS[each.workload]
        figure = next(figure for figure in workload.figures if figure.name == each.figure)
        first, second = each.programs
        samples = {first: Sample(1, 1.0, 1.0), second: Sample(1, 3.0, 1.0)}
        assert figure.value([samples]) == 3.0
        assert figure.better == "high"


@pytest.mark.process
def test_systems(tmp_path: Path) -> None:
    """Ours is the clone's; another is found where it was installed, else it is missing."""
    systems = Systems(sys.executable, tmp_path, installs=False)
    assert systems.find("ours").source == ROOT / "src"
    with pytest.raises(Missing, match=r"pypeln.* is not installed here"):
        systems.find("pypeln")

    implementation, _, version = systems.version.lower().partition(" ")
    made = tmp_path / f"{implementation}-{version.rpartition('.')[0]}" / "aiometer==1.0.0"
    made.mkdir(parents=True)
    (made / "ready").touch()
    found = systems.find("aiometer")
    assert Path(found.python).is_relative_to(made)
    assert "PYTHONPATH" not in found.environment()


def test_chart() -> None:
    """A bar is as long as its rate, on the scale of its panel, and texts are escaped."""
    text = draw([Panel("a < b", {"ours": 200_000.0, "pool": 100_000.0})])
    svg = ElementTree.fromstring(text)
    bars = [float(each.attrib["width"]) for each in svg.iter() if each.tag.endswith("rect")]
    assert bars[0] == 2 * bars[1]
    texts = [each.text for each in svg.iter() if each.tag.endswith("text")]
    assert texts == ["a < b", "ours", "200 k / s", "pool", "100 k / s"]


def test_filling_the_page() -> None:
    """What stands between the marks is replaced; a page without them is an error."""
    page = "a\n<!-- machine -->\nold\n<!-- end -->\nb\n"
    new = filled(page, "machine", ["new"])
    assert new == "a\n<!-- machine -->\n\nnew\n\n<!-- end -->\nb\n"
    assert filled(new, "machine", ["new"]) == new
    assert filled(page.replace("old\n", ""), "machine", ["new"]) == new
    with pytest.raises(ValueError, match="must have one <!-- figures -->"):
        filled(page, "figures", [])
    for mark in ("machine", "figures", "elsewhere"):
        filled(PAGE.read_text("utf-8"), mark, [])


def test_table_of_other_places() -> None:
    """It has the figures with a target that were measured everywhere, a column for each place."""
    workload = WORKLOADS["W1"]

    def outcome(*programs: str) -> Outcome:
        return Outcome(workload, [{name: Sample(10, 1e-3, 1e-3) for name in programs}])

    here = {"python": "CPython 3.11.7", "loop": "asyncio"}
    there = {"python": "CPython 3.13.0", "loop": "uvloop"}
    more, fewer = outcome("ours", "pool", "published"), outcome("ours", "pool")
    assert list(compared([(here, [more]), (there, [fewer])])) == [
        "| workload | figure | CPython 3.11.7, asyncio | CPython 3.13.0, uvloop |",
        "|---|---|---|---|",
        "| W1 | times the pool by hand | 1 | 1 |",
    ]
