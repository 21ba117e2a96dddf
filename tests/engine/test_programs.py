"""Random programs in random schedules, undisturbed and disturbed, judged by one oracle."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from antflow import PipelineError
from antflow.testing import cancel_at_every_step, run_virtual
from tests.engine.programs import Program

LONGEST = 5000.0
"""Virtual seconds that no program takes, and less than a task sleeps that nobody stops."""


@pytest.mark.parametrize("block", range(10))
def test_programs_give_every_item_its_outcome(block: int) -> None:
    """Undisturbed, in any schedule: the outcomes that were known before, balanced books."""
    for seed in range(block * 30, block * 30 + 30):
        program = Program(seed)
        run_virtual(program.drive, seed=seed, max_time=LONGEST)
        program.judge(undisturbed=True)


@pytest.mark.parametrize("block", range(10))
def test_programs_shut_down_at_any_time_lose_nothing(block: int) -> None:
    """Shut down in the middle: every accepted item has an outcome, and nothing is left behind."""
    for seed in range(block * 30, block * 30 + 30):
        program = Program(seed)

        async def main(program: Program = program) -> None:
            async with program.pipeline.open() as run:

                async def stop() -> None:
                    await asyncio.sleep(program.random.random() * 0.3)
                    await run.shutdown()

                stopping = asyncio.create_task(stop())
                with suppress(PipelineError):  # it was shut down before it had taken all in
                    await program.feed(run)
                await stopping

        run_virtual(main, seed=seed, max_time=LONGEST)
        program.judge(undisturbed=False)


@pytest.mark.parametrize("seed", range(8))
def test_programs_cancelled_at_every_step_lose_nothing(seed: int) -> None:
    """Cancelled before any step of the event loop: no task left, no item without outcome."""
    _cancel_everywhere(seed, most_items=3)


def _cancel_everywhere(seed: int, most_items: int) -> None:
    programs: list[Program] = []

    async def main() -> None:
        program = Program(seed, most_items)
        programs.append(program)
        await program.drive()

    def check(step: int) -> None:
        for program in programs:
            program.judge(undisturbed=False)
        programs.clear()

    assert cancel_at_every_step(main, check, seed=seed) > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(8, 20), *range(1000, 1060)])
def test_many_programs_cancelled_at_every_step_lose_nothing(seed: int) -> None:
    """The same over many more programs."""
    _cancel_everywhere(seed, most_items=15)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(100, 200))
def test_many_programs_give_every_item_its_outcome(block: int) -> None:
    """The same over many more programs, undisturbed and shut down."""
    test_programs_give_every_item_its_outcome(block)
    test_programs_shut_down_at_any_time_lose_nothing(block)
