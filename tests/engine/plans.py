"""One stage of a random program: what it does to each value, and what must become of it.

A value is a path: ``(3,)`` is the fourth item of the input, ``(3, 1)`` the second one made from it.
Everything a stage does to it is a pure function of the path and of the number of the try.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from antflow import (
    Drop,
    Limit,
    RetryAfter,
    Stage,
    concurrency_limit,
    current_batch,
    rate_limit,
)

Path = tuple[int, ...]
Fates = dict[Path, str]
"""Value → its outcome."""

FOR_EVER = 10_000.0
"""Seconds that a task sleeps when it is to run into its timeout."""


class Poisoned(Exception):
    """A value made a whole batch fail."""


class Plan:
    """What one stage of a program does.

    Args:
        number: The stage's index.
        choose: Where to draw from.
        shared: A limit that several stages of the program may have.

    Attributes:
        stage: The stage that does it.
        failures: How many tries of its last task fail, for the values that fail at all.
        attempts: Tries allowed.
        most_inside: The most attempts that ran at the same time.
        answered: Value → how often its last task has answered for it.
    """

    def __init__(self, number: int, choose: random.Random, shared: Limit) -> None:
        self.number = number
        self.durations = [choose.choice([0, 0.01, 0.1]) for _ in range(choose.randint(1, 2))]
        self.failures = choose.choice([0, 0, 1, 2, 3])
        self.per_stage = choose.random() < 0.5
        self.attempts = choose.randint(1, 3)
        self.skips = choose.random() < 0.2
        self.drops = choose.random() < 0.3
        self.holds = choose.random() < 0.2
        self.hangs = choose.random() < 0.2
        self.kind = choose.choice(["plain", "plain", "batch", "generator", "list"])
        self.has_poison = choose.random() < 0.5
        self.limit = choose.choice([None, None, shared, Limit(concurrency=2), Limit(50, 5, 0.05)])
        self.calls = choose.choice([None, None, "each task", "concurrency", "rate"])
        self.tries: Counter[tuple[int, Path]] = Counter()
        self.held: set[Path] = set()
        self.answered: Counter[Path] = Counter()
        self.inside = self.most_inside = 0
        self.stage = self._make(choose)

    def _make(self, choose: random.Random) -> Stage:
        wait = choose.choice([0, 0.05])
        is_batch = self.kind == "batch"
        make = self._batch_task if is_batch else self._task
        tasks = [make(index) for index in range(len(self.durations))]
        if self.kind == "generator":
            tasks[-1] = self._generate
        return Stage(
            f"S{self.number}",
            choose.randint(1, 3),
            tasks,
            retry="per_stage" if self.per_stage else "per_task",
            task_attempts=self.attempts,
            stage_attempts=self.attempts,
            task_wait_seconds=wait,
            stage_wait_seconds=wait if self.per_stage else 0.0,
            queue_capacity=choose.choice([None, 0, 1, 2]),
            skip_if=(lambda path: weight(path) % 5 == 4) if self.skips else None,
            pull=self.number > 0 and not self.per_stage and choose.random() < 0.2,
            limits=[] if self.limit is None else [self.limit],
            timeout=1.0 if self.hangs else choose.choice([None, 5.0]),
            batch=choose.randint(1, 4) if is_batch else None,
            batch_wait=choose.choice([None, 0.03]) if is_batch else None,
            expand=self.kind in ("generator", "list"),
            isolate_context=choose.random() < 0.1,
            task_concurrency_limits={"task": 1} if self._limits_a_task(tasks) else {},
            call_concurrency=2 if self.calls == "concurrency" else None,
            call_rate=5 if self.calls == "rate" else None,
            call_rate_period=0.1,
        )

    def _limits_a_task(self, tasks: list[Any]) -> bool:
        return self.calls == "each task" and tasks[0].__name__ == "task"

    # The tasks

    def _task(self, index: int) -> Any:
        async def task(path: Path) -> Any:
            with self._attempt():
                self._hold([path], index)
                self.tries[index, path] += 1
                await self._work(self.durations[index])
                if self._fails(path, index, self.tries[index, path]):
                    await self._fail(path)
                return self._answer(path, index)

        return task

    def _batch_task(self, index: int) -> Any:
        async def task(paths: list[Path]) -> list[Any]:
            with self._attempt():
                self._hold(paths, index)
                attempts = [item.attempt for item in current_batch()]
                await self._work(self.durations[index])
                if index == self._last and any(map(self.is_poison, paths)):
                    raise Poisoned
                answers: list[Any] = []
                for path, attempt in zip(paths, attempts, strict=True):
                    fails = self._fails(path, index, attempt)
                    if fails and self.hangs:
                        await asyncio.sleep(FOR_EVER)
                    answers.append(ValueError(path) if fails else self._answer(path, index))
                return answers

        return task

    async def _generate(self, path: Path) -> AsyncIterator[Any]:
        with self._attempt():
            self._hold([path], self._last)
            self.tries[self._last, path] += 1
            fails = self._fails(path, self._last, self.tries[self._last, path])
            if self._is_dropped(path) and not fails:
                raise Drop
            for number, child in enumerate(self._children(path)):
                if fails and number:
                    break
                await self._work(self.durations[-1])
                self.inside -= 1  # who waits for room gives back its place in the limits
                try:
                    yield child
                finally:
                    self.inside += 1
            if fails:
                await self._fail(path)
            self.answered[path] += 1

    async def _work(self, seconds: float) -> None:
        """Take so long, or, where its calls are limited, make two of them at once."""
        if self.calls not in ("concurrency", "rate"):
            await asyncio.sleep(seconds)
            return
        gate = concurrency_limit if self.calls == "concurrency" else rate_limit

        async def call() -> None:
            async with gate():
                await asyncio.sleep(seconds)

        await asyncio.gather(call(), call())

    def _answer(self, path: Path, index: int) -> Any:
        if index != self._last:
            return path
        self.answered[path] += 1
        if self._is_dropped(path):
            return Drop
        return self._children(path) if self.kind == "list" else path

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            yield
        finally:
            self.inside -= 1

    def _hold(self, paths: list[Path], index: int) -> None:
        for path in paths:
            if self.holds and index == 0 and weight(path) % 4 == 1 and path not in self.held:
                self.held.add(path)
                raise RetryAfter(0.03)

    async def _fail(self, path: Path) -> None:
        if self.hangs:
            await asyncio.sleep(FOR_EVER)
        raise ValueError(path)

    # What must become of a value

    def fates(self, path: Path, following: list[Plan]) -> Fates:
        """The outcomes of a value that enters this stage, and of all that is made from it."""
        if self.skips and weight(path) % 5 == 4:
            return self._goes_on(path, following)
        if self._fails_for_good(path):
            first = self._children(path)[:1] if self.kind == "generator" else []
            return {path: "failed"} | self._all(first, following)
        if self._is_dropped(path):
            return {path: "dropped"}
        if self.kind in ("generator", "list"):
            return {path: "expanded"} | self._all(self._children(path), following)
        return self._goes_on(path, following)

    def is_poison(self, path: Path) -> bool:
        """Whether every batch with this value fails."""
        return self.kind == "batch" and self.has_poison and weight(path) % 7 == 5

    def _all(self, values: list[Any], following: list[Plan]) -> Fates:
        fates: Fates = {}
        for value in values:
            if value is not Drop:
                fates |= self._goes_on(value, following)
        return fates

    def _goes_on(self, path: Path, following: list[Plan]) -> Fates:
        return following[0].fates(path, following[1:]) if following else {path: "completed"}

    @property
    def _last(self) -> int:
        return len(self.durations) - 1

    def _fails(self, path: Path, index: int, attempt: int) -> bool:
        """Whether this try fails: the first ones of every third value, in its last task.

        A batch that fails on its only try is tried item by item, which is a try more; it changes
        nothing for those that fail for good.
        """
        fails = attempt <= self.failures or self.failures >= self.attempts
        return weight(path) % 3 == 0 and index == self._last and fails

    def _fails_for_good(self, path: Path) -> bool:
        return self.is_poison(path) or (weight(path) % 3 == 0 and self.failures >= self.attempts)

    def _is_dropped(self, path: Path) -> bool:
        return self.drops and weight(path) % 6 == 2

    def _children(self, path: Path) -> list[Any]:
        children: list[Any] = [(*path, number) for number in range(weight(path) % 4)]
        if self.drops and len(children) == 3:
            children[1] = Drop
        return children


def weight(path: Path) -> int:
    """A number that decides what becomes of a value."""
    return sum((index + 1) * part + index for index, part in enumerate(path))
