"""The ladder: what each feature adds to W1, in nanoseconds per item and stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.sample import Sample, Stopwatch, check_values
from benchmarks.tasks import STAGES, WORKERS, no_op
from benchmarks.workload import Figure, Measure, Program, Workload, more_us

Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rung:
    """A run of W1 with something added.

    Attributes:
        stage: Makes the options of each stage.
        pipeline: Makes those of the pipeline.
        run: Options of `Pipeline.run`.
        task: The task of every stage.
        source: Makes the items.
    """

    stage: Callable[[], Options] = dict
    pipeline: Callable[[], Options] = dict
    run: Options = field(default_factory=dict[str, Any])
    task: Callable[..., Any] = no_op
    source: Callable[[int], Iterable[Any]] = range

    async def __call__(self, items: int) -> Sequence[Any]:
        """Run the items."""
        from antflow import Pipeline, Stage

        options = self.stage()
        stages = [Stage(f"S{n}", WORKERS, [self.task], **options) for n in range(STAGES)]
        pipeline: Pipeline[Any, Any] = Pipeline(stages, **self.pipeline())
        return (await pipeline.run(self.source(items), **self.run)).values()


def streamed(**options: Any) -> Callable[[int], Awaitable[Sequence[Any]]]:
    """A rung that runs as a stream."""

    async def go(items: int) -> Sequence[Any]:
        from antflow import Pipeline, Stage

        pipeline = Pipeline([Stage(f"S{n}", WORKERS, [no_op]) for n in range(STAGES)])
        return [each.value async for each in pipeline.stream(range(items), **options)]

    return go


def fed(**options: Any) -> Callable[[int], Awaitable[Sequence[Any]]]:
    """A rung that is fed by hand."""

    async def go(items: int) -> Sequence[Any]:
        from antflow import Pipeline, Stage

        pipeline = Pipeline([Stage(f"S{n}", WORKERS, [no_op]) for n in range(STAGES)])
        async with pipeline.open() as run:
            await run.feed(range(items), **options)
        return run.results.values()

    return go


def measuring(go: Callable[[int], Awaitable[Sequence[Any]]]) -> Measure:
    """Measure one rung."""

    async def measure(items: int) -> Sample:
        await go(300)
        with Stopwatch() as watch:
            values = await go(items)
        check_values((each if type(each) is int else each[0] for each in values), items)
        return watch.sample(items)

    return measure


# -- what is added ----------------------------------------------------------------------------


def _ignore(*arguments: Any) -> None:
    """A callback that does nothing."""


async def _ignore_async(*arguments: Any) -> None:
    """An async callback that does nothing."""


def _never(value: Any) -> bool:
    return False


async def _unpacked(value: int) -> tuple[int]:
    return (value,)


async def _with_client(value: int, client: object) -> int:
    return value


async def _listed(values: list[int]) -> list[int]:
    return values


@asynccontextmanager
async def _client() -> AsyncIterator[object]:
    yield object()


class _Observer:
    def happened(self, step: Any) -> None:
        """Ignore a step."""


def _tracker(**callbacks: Any) -> Options:
    from antflow import StatusTracker

    return {"status_tracker": StatusTracker(**callbacks)}


def _limits() -> Options:
    from antflow import Limit

    return {"limits": [Limit(concurrency=100_000)]}


def _singles(items: int) -> Iterable[tuple[int]]:
    return ((number,) for number in range(items))


def _with_ids(items: int) -> Iterable[dict[str, Any]]:
    return ({"id": f"item-{number}", "value": number} for number in range(items))


BARE = "nothing added"
STREAM = "as a stream"
FED = "fed by hand"

RUNGS: dict[str, tuple[Callable[[int], Awaitable[Sequence[Any]]], str]] = {
    BARE: (Rung(), ""),
    "tracker and history": (Rung(pipeline=_tracker), BARE),
    "tracker, sync callback": (
        Rung(pipeline=lambda: _tracker(on_status_change=_ignore)),
        "tracker and history",
    ),
    "tracker, async callback": (
        Rung(pipeline=lambda: _tracker(on_status_change=_ignore_async)),
        "tracker and history",
    ),
    "observer": (Rung(pipeline=lambda: {"observers": [_Observer()]}), BARE),
    "limit": (Rung(_limits), BARE),
    "timeout": (Rung(lambda: {"timeout": 60.0}), BARE),
    "item_timeout": (Rung(run={"item_timeout": 60.0}), BARE),
    "retries configured": (Rung(lambda: {"task_attempts": 5, "retry_on": (OSError,)}), BARE),
    "skip_if": (Rung(lambda: {"skip_if": _never}), BARE),
    "on_success": (Rung(lambda: {"on_success": _ignore}), BARE),
    "unpack_args": (Rung(lambda: {"unpack_args": True}, task=_unpacked, source=_singles), BARE),
    "resources": (Rung(lambda: {"resources": {"client": _client}}, task=_with_client), BARE),
    "batches of 50": (Rung(lambda: {"batch": 50}, task=_listed), BARE),
    "given ids": (Rung(source=_with_ids), BARE),
    "display": (Rung(run={"dashboard": "detailed", "dashboard_update_interval": 0.1}), BARE),
    STREAM: (streamed(), BARE),
    "ordered stream": (streamed(ordered=True), STREAM),
    FED: (fed(), BARE),
    "priority": (fed(priority=5), FED),
}
"""Name → the run, and the run that it is compared with."""

WORKLOADS = [
    Workload(
        "ladder",
        "W1 with one feature more; in ns per item and stage",
        60_000,
        10_000,
        {
            name: Program(measuring(go), needs_terminal=name == "display")
            for name, (go, _) in RUNGS.items()
        },
        [
            Figure(
                f"{name}, ns" if than == BARE else f"{name}, over {than}, ns",
                more_us(name, than, STAGES / 1000),
                better="low",
            )
            for name, (_, than) in RUNGS.items()
            if than
        ],
    )
]
