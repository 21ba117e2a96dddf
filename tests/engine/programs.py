"""Random programs for the engine, and the oracle that judges a run of one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from antflow import Pipeline, PipelineResult, Stage, StatusEvent, StatusTracker
from antflow._core.ledger import fold
from antflow._core.transition import Kind, State, next_state
from antflow.testing import MemoryStore


@dataclass
class Program:
    """A pipeline with known behaviour, made from a seed.

    Every item has a fate that is a pure function of its number, so what must come out is known
    without running anything.
    """

    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        choose = self.random
        self.stage_count = choose.randint(1, 3)
        self.items = choose.choice([0, 1, 2, 7, 15])
        self.source = choose.choice(["list", "generator", "async generator"])
        self.listens = choose.choice(["nobody", "history", "sync callback", "async callback"])
        self.keeps = choose.choice([True, False])
        self.events: list[StatusEvent] = []
        self.tries: Counter[tuple[int, int, int]] = Counter()
        self.store = MemoryStore(slow=choose.random() < 0.3)
        self.plans = [self._plan(n) for n in range(self.stage_count)]
        self.tracker = self._tracker()
        self.pipeline = Pipeline(
            [plan.stage for plan in self.plans],
            status_tracker=self.tracker,
            store=self.store if self.keeps else None,
        )

    def _plan(self, number: int) -> Plan:
        choose = self.random
        plan = Plan(
            number=number,
            durations=[choose.choice([0, 0.01, 0.1]) for _ in range(choose.randint(1, 2))],
            failures=choose.choice([0, 0, 1, 2, 3]),
            per_stage=choose.random() < 0.5,
            attempts=choose.randint(1, 3),
            skips=choose.random() < 0.2,
        )
        wait = choose.choice([0, 0.05])
        plan.stage = Stage(
            f"S{number}",
            choose.randint(1, 3),
            [self._task(plan, index) for index in range(len(plan.durations))],
            retry="per_stage" if plan.per_stage else "per_task",
            task_attempts=plan.attempts,
            stage_attempts=plan.attempts,
            task_wait_seconds=wait,
            stage_wait_seconds=wait,
            queue_capacity=choose.choice([None, 0, 1, 2]),
            skip_if=(lambda value: value % 5 == 4) if plan.skips else None,
        )
        return plan

    def _task(self, plan: Plan, index: int) -> Any:
        async def task(value: int) -> int:
            self.tries[plan.number, index, value] += 1
            await asyncio.sleep(plan.durations[index])
            if plan.fails(value, index) and self.tries[plan.number, index, value] <= plan.failures:
                raise ValueError(value)
            return value

        return task

    def _tracker(self) -> StatusTracker | None:
        if self.listens == "nobody":
            return None
        tracker = StatusTracker()
        if self.listens == "sync callback":
            tracker.on_status_change = self.events.append
        elif self.listens == "async callback":

            async def note(event: StatusEvent) -> None:
                self.events.append(event)
                await asyncio.sleep(0.001)

            tracker.on_status_change = note
        return tracker

    def input(self) -> Any:
        """The items, in one of the forms a pipeline takes."""
        if self.source == "list":
            return list(range(self.items))
        if self.source == "generator":
            return self._generate()
        return self._generate_async()

    def _generate(self) -> Iterator[int]:
        yield from range(self.items)

    async def _generate_async(self) -> AsyncIterator[int]:
        for item in range(self.items):
            await asyncio.sleep(0.005)
            yield item

    def expected_to_fail(self) -> set[int]:
        """The items that must fail in an undisturbed run."""
        return {
            item
            for item in range(self.items)
            if any(plan.fails_for_good(item) for plan in self.plans)
        }

    def judge(self, *, undisturbed: bool) -> None:
        """Check everything that must hold after a run, disturbed or not."""
        handle = self.pipeline._latest
        if handle is None:
            return  # it was cancelled before it began
        run = handle._run
        assert run.is_over
        assert run.ledger.discrepancy() is None
        assert run.ledger.in_flight == 0
        outcomes = self.pipeline.results.outcomes
        assert len(outcomes) == run.ledger.accepted, "an outcome for every accepted item"
        assert len({outcome.sequence_id for outcome in outcomes}) == len(outcomes), "once each"
        if undisturbed:
            self._judge_results(outcomes)
        if self.keeps:
            self._judge_transitions(run.ledger)
        if self.tracker is not None:
            self._judge_history(undisturbed)

    def _judge_results(self, outcomes: list[PipelineResult[Any]]) -> None:
        assert [outcome.id for outcome in outcomes] == list(range(self.items))
        failed = {outcome.id for outcome in outcomes if outcome.error is not None}
        assert failed == self.expected_to_fail()

    def _judge_transitions(self, ledger: Any) -> None:
        states: dict[int, tuple[State, int]] = defaultdict(lambda: (State.NEW, 0))
        for transition in self.store.transitions:
            state, stage = states[transition.seq]
            last = transition.stage == self.stage_count - 1
            following = next_state(state, transition.kind, last_stage=last)
            assert following is not None, f"{transition.kind.name} in {state.name}"
            moved = transition.kind in (Kind.COMPLETED, Kind.SKIPPED)
            assert transition.stage == stage
            states[transition.seq] = (following, stage + moved)
        assert all(state is State.SETTLED for state, _ in states.values())
        folded = fold(self.store.transitions, self.stage_count)
        for name in ("accepted", "completed", "failed", "cancelled", "in_flight"):
            assert getattr(folded, name) == getattr(ledger, name), name

    def _judge_history(self, undisturbed: bool) -> None:
        assert self.tracker is not None
        delivered: dict[Any, list[StatusEvent]] = defaultdict(list)
        for event in self.events:
            delivered[event.item_id].append(event)
        counted: Counter[str] = Counter()
        for item_id in self.tracker.get_tracked_ids():
            history = self.tracker.get_history(item_id)
            assert history
            times = [event.timestamp for event in history]
            assert times == sorted(times)
            counted[history[-1].status] += 1
            if self.listens == "sync callback" or (self.listens != "history" and undisturbed):
                assert history == delivered[item_id]
            assert history[-1] == self.tracker.get_status(item_id)
        stats = self.tracker.get_stats()
        assert {status: count for status, count in stats.items() if count} == counted
        for status in stats:
            assert len(self.tracker.get_by_status(status)) == stats[status]  # type: ignore[arg-type]


@dataclass
class Plan:
    """What one stage of a program does.

    Attributes:
        number: The stage's index.
        durations: Seconds each task takes.
        failures: How many tries of each task fail, for the items that fail at all.
        per_stage: What is tried again.
        attempts: Tries allowed.
        skips: Whether every fifth item passes by.
    """

    number: int
    durations: list[float]
    failures: int
    per_stage: bool
    attempts: int
    skips: bool
    stage: Stage = field(init=False)

    def fails(self, item: int, task: int) -> bool:
        """Whether this task's first tries of this item fail: every third item, its last task."""
        return item % 3 == 0 and task == len(self.durations) - 1

    def fails_for_good(self, item: int) -> bool:
        """Whether the item cannot get through this stage."""
        if self.skips and item % 5 == 4:
            return False
        return item % 3 == 0 and self.failures >= self.attempts
