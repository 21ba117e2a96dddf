"""Random programs for the engine, and the oracle that judges a run of one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest

from antflow import Limit, Pipeline, PipelineResult, RunHandle, StatusEvent, StatusTracker
from antflow._core.events import STATUSES
from antflow._core.ledger import Ledger
from antflow._core.transition import Kind, State, next_state
from antflow.testing import MemoryStore
from tests.engine.plans import Fates, Path, Plan
from tests.support import fold

MOST_STAGES = 3
COUNTS = ("accepted", "children", "completed", "failed", "dropped", "expanded", "cancelled")


@dataclass
class Program:
    """A pipeline with known behaviour, made from a seed.

    Every value has a fate that is a pure function of it, so what must come out is known without
    running anything.

    Attributes:
        seed: What it is made from.
        most_items: The most items of the input.
        journal: The journal of its runs, if they keep one.
    """

    seed: int
    most_items: int = 15
    journal: Any = None
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        choose = self.random
        self.items = min(choose.choice([0, 1, 2, 7, 15]), self.most_items)
        self.source = choose.choice(["list", "generator", "async generator"])
        self.listens = choose.choice(["nobody", "history", "sync callback", "async callback"])
        self.keeps = choose.choice([True, False]) and self.journal is None
        self.way = choose.choice(["run", "open", "meddled with", "stream", "ordered stream"])
        self.is_streamed = "stream" in self.way
        self.brings_ids = not self.is_streamed and choose.random() < 0.3
        self.item_timeout = choose.choice([None, None, 9000.0])
        self.buffer_size = choose.choice([None, 0, 1])
        self.meddling = [(choose.random() * 0.3, choose.randrange(4)) for _ in range(4)]
        self.events: list[StatusEvent] = []
        self.came_out: list[PipelineResult[Any]] = []
        self.store = MemoryStore(slow=choose.random() < 0.3)
        shared = Limit(concurrency=1)
        stage_count = choose.randint(1, MOST_STAGES)
        self.plans = [Plan(number, choose, shared) for number in range(stage_count)]
        self.tracker = self._tracker()
        self.pipeline = Pipeline(
            [plan.stage for plan in self.plans],
            status_tracker=self.tracker,
            store=self.store if self.keeps else None,
            journal=self.journal,
            duplicates=choose.choice(["number", "skip"]) if self.brings_ids else "number",
        )

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

    # Running

    async def drive(self) -> None:
        """Run it from beginning to end, in the way it was drawn."""
        if self.way == "run":
            await self.pipeline.run(self.input(), item_timeout=self.item_timeout)
        elif self.is_streamed:
            results = self.pipeline.stream(
                self.input(),
                ordered=self.way == "ordered stream",
                buffer_size=self.buffer_size,
                item_timeout=self.item_timeout,
            )
            async with aclosing(results):
                async for result in results:
                    self.came_out.append(result)
        else:
            opened = self.pipeline.open(item_timeout=self.item_timeout)
            async with opened as run, asyncio.TaskGroup() as group:
                if self.way == "meddled with":
                    group.create_task(self._meddle(run))
                await self.feed(run)

    async def feed(self, run: RunHandle) -> None:
        """Feed all items, some of them with another priority."""
        items = self.input()
        if isinstance(items, list):
            for index, item in enumerate(items):
                await run.feed([item], priority=(100, 100, 1, 200)[index % 4])
            return
        try:
            await run.feed(items)
        finally:
            if hasattr(items, "aclose"):
                await items.aclose()

    async def _meddle(self, run: RunHandle) -> None:
        for delay, action in self.meddling:
            await asyncio.sleep(delay)
            if action:
                run.set_workers(f"S{action % len(self.plans)}", action)
            else:
                run.pause()
                await asyncio.sleep(delay)
                run.resume()

    def input(self) -> Any:
        """The items, in one of the forms a pipeline takes."""
        if self.source == "list":
            return list(self._generate())
        if self.source == "generator":
            return self._generate()
        return self._generate_async()

    def _generate(self) -> Iterator[Any]:
        for number in range(self.items):
            path = (number,)
            yield {"id": self._name_of(number), "value": path} if self.brings_ids else path

    async def _generate_async(self) -> AsyncIterator[Any]:
        for item in self._generate():
            await asyncio.sleep(0.005)
            yield item

    def _name_of(self, number: int) -> str:
        """The id an item brings: every fourth one has that of the one before."""
        return f"item {number - (number % 4 == 3)}"

    # Judging

    def fates(self) -> Fates:
        """What must become of every value in an undisturbed run."""
        skips = self.brings_ids and self.pipeline._duplicates == "skip"
        fates: Fates = {}
        for number in range(self.items):
            if not (skips and number % 4 == 3):
                fates |= self.plans[0].fates((number,), self.plans[1:])
        return fates

    def judge(self, *, undisturbed: bool) -> None:
        """Check everything that must hold after a run, disturbed or not."""
        handle = self.pipeline._runs.latest
        if handle is None:
            return  # it was cancelled before it began
        run = handle._run
        assert run.is_over
        assert run.ledger.discrepancy() is None
        assert run.ledger.in_flight == 0
        assert not [worker for worker in run.ledger.workers() if worker.waits_for is not None]
        for plan in self.plans:
            assert plan.inside == 0
            if plan.limit is not None:
                assert plan.most_inside <= (plan.limit.concurrency or 0)
                assert plan.limit.statistics().in_use == 0
                assert plan.limit.statistics().waiting == 0
        if not self.is_streamed:
            outcomes = self.pipeline.results.outcomes
            assert len(outcomes) == run.ledger.fed, "an outcome for every accepted item"
            assert len({outcome.sequence_id for outcome in outcomes}) == len(outcomes), "once each"
        if undisturbed:
            self._judge_results(run.ledger)
            self._judge_seconds(handle)
        if self.keeps:
            self._judge_transitions(run.ledger)
        if self.tracker is not None:
            self._judge_history(undisturbed)

    def _judge_results(self, ledger: Ledger) -> None:
        fates = self.fates()
        counted = Counter(fates.values())
        for name in ("completed", "failed", "dropped", "expanded", "cancelled"):
            assert getattr(ledger, name) + ledger.recalled.of(name) == counted[name], name
        if self.is_streamed:
            visible = {
                path: fate for path, fate in fates.items() if fate in ("completed", "failed")
            }
            assert _fates_of(self.came_out) == visible
            if self.way == "ordered stream":
                paths = [result.value for result in self.came_out]
                # An item that failed comes after those that it had made.
                assert paths == sorted(paths, key=lambda path: (*path, inf))
            return
        results = self.pipeline.results
        everything = results.outcomes + results._children
        assert _fates_of(everything) == fates
        assert len(everything) == len(fates), "once each"
        if self.source == "list":
            assert [outcome.value for outcome in results.outcomes] == sorted(
                path for path in fates if len(path) == 1
            )
        assert results.values() == sorted(path for path in fates if fates[path] == "completed")

    def _judge_seconds(self, handle: RunHandle) -> None:
        if self.way == "meddled with":
            return  # who is to leave works on for a while
        elapsed = handle.snapshot().elapsed
        for stage in handle.stats().stage_stats.values():
            parts = (
                stage.busy_seconds,
                stage.limited_seconds,
                stage.blocked_seconds,
                stage.retry_waiting_seconds,
                stage.starved_seconds,
            )
            assert min(parts) >= 0
            assert sum(parts) == pytest.approx(stage.workers * elapsed), parts

    def _judge_transitions(self, ledger: Ledger) -> None:
        last = len(self.plans) - 1
        states: dict[Any, tuple[State, int]] = {}
        for transition in self.store.transitions:
            key = (transition.seq, transition.branch)
            state, stage = states.get(key, (State.NEW, transition.stage))
            following = next_state(state, transition.kind, last_stage=transition.stage == last)
            assert following is not None, f"{transition.kind.name} in {state.name}"
            moved = transition.kind in (Kind.COMPLETED, Kind.SKIPPED, Kind.EMITTED)
            assert transition.stage == stage
            states[key] = (following, stage + moved)
        assert all(state is State.SETTLED for state, _ in states.values())
        folded = fold(self.store.transitions, len(self.plans))
        for name in (*COUNTS, "in_flight"):
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
        for status in STATUSES:
            assert len(self.tracker.get_by_status(status)) == stats[status]


def _fates_of(results: list[PipelineResult[Any]]) -> dict[Path, str]:
    return {result.value: result.outcome for result in results}
