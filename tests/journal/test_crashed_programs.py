"""Random programs that crash at any commit, and are run again with the same journal."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from antflow.journal.json_codec import JsonCodec
from antflow.testing import cancel_at_every_step, run_virtual
from tests.engine.programs import Program
from tests.engine.test_programs import LONGEST
from tests.journal.crashing import Crashes, remove, rows_of, watched

FAMILIES = """
SELECT root.input, items.branch, outcomes.outcome
FROM items
LEFT JOIN outcomes USING (item)
JOIN items AS root ON root.item = coalesce(items.root, items.item)
"""


def drive(program: Program, crashes: Crashes) -> None:
    """Run a program, noting each state of its journal."""

    def answered() -> Counter[Any]:
        count: Counter[Any] = Counter()
        for plan in program.plans:
            if plan.kind == "batch" and plan.hangs:
                continue  # it answers for some of a batch, and then hangs: the answers are lost
            count += Counter({(plan.number, path): n for path, n in plan.answered.items()})
        return count

    crashes.effect = answered
    with watched(crashes):
        run_virtual(program.drive, seed=program.seed, max_time=LONGEST)


def judge_journal(program: Program, path: Path) -> None:
    """The journal has one outcome of each item, the right one, and nothing else."""
    codec = JsonCodec()
    outcomes: list[tuple[Any, Any]] = []
    for given, branch, outcome in rows_of(path, FAMILIES):
        root = codec.decode(given.encode())
        root = root["value"] if isinstance(root, dict) else root
        outcomes.append(((*root, *map(int, branch.split("/") if branch else ())), outcome))
    assert len(dict(outcomes)) == len(outcomes), "each item once"
    assert dict(outcomes) == program.fates()
    [[count]] = rows_of(path, "SELECT count(*) FROM outcomes")
    assert count == len(outcomes), "an outcome is of an item"


def most_redone(program: Program) -> int:
    """How many items the workers of a program have in hand at most."""
    return sum(plan.stage.workers * (plan.stage.batch or 1) for plan in program.plans)


def repeats(calls: Counter[Any]) -> int:
    """How many answers were given before: in an unbroken run few, as by a batch tried again."""
    return sum(count - 1 for count in calls.values())


def crash_everywhere(seed: int, most_items: int, folder: Path, stride: int = 1) -> int:
    """Run a program, and what is left of it after a crash at every commit; return how many."""
    first = Program(seed, most_items, journal=folder / "first.db")
    crashes = Crashes(folder / "first.db")
    drive(first, crashes)
    first.judge(undisturbed=True)
    if first.items:
        judge_journal(first, crashes.path)
    usual = repeats((crashes.effects or [Counter()])[-1])
    remove(crashes.path)
    path = folder / "again.db"
    for number in range(0, len(crashes.ends), stride):
        crashes.restore(number, path)
        again = Program(seed, most_items, journal=path)
        resumed = Crashes(path)
        try:
            drive(again, resumed)
            again.judge(undisturbed=True)
            judge_journal(again, path)
            calls = crashes.effects[number] + (resumed.effects or [Counter()])[-1]
            assert repeats(calls) - usual <= most_redone(again)
        except BaseException as error:
            error.add_note(f"crashed after commit {number} of {len(crashes.ends)}, seed {seed}")
            raise
    return len(crashes.ends)


@pytest.mark.parametrize("block", range(5))
def test_programs_that_crashed_after_any_commit_go_on(block: int, tmp_path: Path) -> None:
    """Broken and resumed, each item has the outcome of an unbroken run, once; little is redone."""
    for seed in range(block * 20, block * 20 + 20):
        crash_everywhere(seed, 3, tmp_path, stride=2)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(100, 160))
def test_many_programs_that_crashed_after_any_commit_go_on(block: int, tmp_path: Path) -> None:
    """The same over many more programs."""
    for seed in range(block * 20, block * 20 + 20):
        crash_everywhere(seed, 15, tmp_path)


@pytest.mark.parametrize("block", range(5))
def test_programs_that_crash_again_and_again_go_on(block: int, tmp_path: Path) -> None:
    """Each run goes on from a crash of the one before, until one ends."""
    for seed in range(block * 20, block * 20 + 20):
        choose = random.Random(seed)
        path, number = tmp_path / "run.db", 0
        remove(path)
        crashes = None
        for _ in range(4):
            if crashes is not None and crashes.ends:
                number = choose.randrange(len(crashes.ends))
                crashes.restore(number, path)
            program = Program(seed, 7, journal=path)
            crashes = Crashes(path)
            drive(program, crashes)
        program.judge(undisturbed=True)
        if program.items:
            judge_journal(program, path)


def cancel_everywhere(seed: int, most_items: int, path: Path, stride: int) -> None:
    """Cancel a program at every step; then run it again with the same journal.

    Every other program goes on from a crash when it is cancelled.
    """
    programs: list[Program] = []
    remove(path)
    crashes = Crashes(path)
    drive(Program(seed, most_items, journal=path), crashes)
    remove(path)

    async def main() -> None:
        if seed % 2 and crashes.ends:
            crashes.restore(len(crashes.ends) * 2 // 3, path)
        program = Program(seed, most_items, journal=path)
        programs.append(program)
        await program.drive()

    def check(step: int) -> None:
        for program in programs:
            program.judge(undisturbed=False)
            assert not Path(f"{path}.lock").exists(), "the journal is closed"
        programs.clear()
        again = Program(seed, most_items, journal=path)
        drive(again, Crashes(path))
        again.judge(undisturbed=True)
        if again.items:
            judge_journal(again, path)
        remove(path)

    cancel_at_every_step(main, check, seed=seed, stride=stride)


@pytest.mark.parametrize("block", range(5))
def test_programs_that_were_cancelled_at_any_step_go_on(block: int, tmp_path: Path) -> None:
    """Cancelled and run again, each item has the outcome of an undisturbed run, once."""
    for seed in range(block * 4, block * 4 + 4):
        cancel_everywhere(seed, 3, tmp_path / "run.db", stride=7)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(30))
def test_many_programs_that_were_cancelled_at_any_step_go_on(block: int, tmp_path: Path) -> None:
    """The same over many more programs."""
    for seed in range(1000 + block * 4, 1000 + block * 4 + 4):
        cancel_everywhere(seed, 7, tmp_path / "run.db", stride=1)
