"""The library as a user with type annotations writes it. Never run: read by mypy and pyright."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Unpack, assert_type

from prometheus_client import CollectorRegistry

from antflow import (
    Drop,
    Failures,
    Limit,
    Pipeline,
    PipelineResult,
    RunOptions,
    RunResults,
    Stage,
    in_thread,
)
from antflow.sinks import PipelineCollector


async def fetch(url: str) -> bytes:
    raise NotImplementedError


def parse(page: bytes) -> int:
    raise NotImplementedError


async def clean(text: str) -> str:
    raise NotImplementedError


async def even(number: int) -> int | type[Drop]:
    raise NotImplementedError


def positive(number: int) -> int | type[Drop]:
    raise NotImplementedError


async def links(page: bytes) -> AsyncIterator[str]:
    yield ""


async def sizes(pages: list[bytes]) -> list[int | Exception]:
    raise NotImplementedError


def plain_sizes(pages: list[bytes]) -> list[int]:
    raise NotImplementedError


async def ask(page: bytes, *, client: object) -> float:
    raise NotImplementedError


def untyped(value):  # type: ignore[no-untyped-def]
    raise NotImplementedError


# Stages

assert_type(Stage("A", 1, [fetch]), Stage[str, bytes])
assert_type(Stage("A", 1, [parse], task_attempts=5), Stage[bytes, int])
assert_type(Stage("A", 1, [even], stop_on=OSError, max_failures=3), Stage[int, int])
assert_type(Stage("A", 1, [positive]), Stage[int, int])
assert_type(Stage("A", 1, [positive, positive]), Stage[int, int])
assert_type(Stage("A", 1, (positive, str)), Stage[int, str])
assert_type(Stage("A", 1, [ask], resources={"client": object}), Stage[bytes, float])
assert_type(Stage("A", 1, [links], expand=True), Stage[bytes, str])
assert_type(Stage("A", 1, [sizes], batch=10), Stage[bytes, int])
assert_type(Stage("A", 1, (fetch, parse)), Stage[str, int])
assert_type(Stage("A", 1, (fetch, ask)), Stage[str, float])
assert_type(Stage("A", 1, (fetch, parse, even)), Stage[str, int])
assert_type(Stage("A", 1, [plain_sizes], batch=10), Stage[bytes, int])
assert_type(Stage("A", 1, [fetch, parse]), Stage[Any, Any])
assert_type(Stage("A", 1, [untyped]), Stage[Any, Any])
Stage("A", 1, [fetch], worker=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

stage = Stage("A", 1, [fetch])
stage.workers = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
assert_type(replace(stage, workers=5), Stage[str, bytes])
assert_type(stage.timeout, float | None)
limit = Limit(rate=5)
limit.rate = 6  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def pass_on(pipeline: Pipeline[str, int], **options: Unpack[RunOptions]) -> RunResults[int]:
    """Functions of the user's own may take the options of a run and pass them on."""
    return await pipeline.run(["a"], **options)


# Pipelines

assert_type(Pipeline([Stage("A", 1, [fetch])]), Pipeline[str, bytes])
assert_type(Pipeline((Stage("A", 1, [fetch]), Stage("B", 1, [parse]))), Pipeline[str, int])
assert_type(Pipeline([Stage("A", 1, [fetch]), Stage("B", 1, [parse])]), Pipeline[Any, Any])
assert_type(Pipeline([Stage("A", 1, [clean]), Stage("B", 1, [untyped])]), Pipeline[Any, Any])
stages = [Stage("A", 1, [clean]), Stage("B", 1, [fetch])]
assert_type(Pipeline(stages), Pipeline[Any, Any])
stages.append(Stage("C", 1, [parse]))


def bare(pipeline: Pipeline, stage: Stage, result: PipelineResult) -> RunResults:
    """A bare name in an annotation is one of anything."""
    assert_type(pipeline, Pipeline[Any, Any])
    assert_type(stage, Stage[Any, Any])
    assert_type(result, PipelineResult[Any])
    return pipeline.results


# The fluent form

builder = Pipeline.create().add("Fetch", fetch, workers=3).add("Parse", parse).add("Even", even)
assert_type(builder.build(), Pipeline[str, int])
page = Pipeline.create().add("Fetch", fetch, attempts=3)
assert_type(page.add("Links", links, expand=True).build(), Pipeline[str, str])
assert_type(page.add("Sizes", sizes, batch=5).build(), Pipeline[str, int])
assert_type(page.add("Parse", parse, skip_if=bool).build(), Pipeline[str, bytes | int])
assert_type(page.add("Ask", ask, resources={"client": object}).build(), Pipeline[str, float])
assert_type(page.add("Both", parse, even).build(), Pipeline[str, int])
assert_type(page.add("Three", parse, even, even).build(), Pipeline[str, Any])
assert_type(page.add("Sizes", plain_sizes, batch=5).build(), Pipeline[str, int])
assert_type(Pipeline.create().add("Any", lambda value: value.name).build(), Pipeline[Any, Any])
assert_type(page.add("Text", lambda page: page.decode()).build(), Pipeline[str, str])
page.add("Fetch", fetch)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
page.add("Sizes", sizes)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
page.add("Fetch", fetch, parse)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
page.add("Parse", parse, worker=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def runs() -> None:
    """What comes out has the type that the last task gives."""
    pipeline = builder.build()
    results = await pipeline.run(["a", {"id": 7, "value": "b"}])
    assert_type(results, RunResults[int])
    assert_type(results[0].value, int)
    assert_type(results.values(), list[int])
    assert_type(pipeline.results, RunResults[int])
    async for result in pipeline.stream(["a"]):
        assert_type(result.value, int)
    async with pipeline.open() as run:
        assert_type(run.results, RunResults[int])
    async with pipeline as same:
        assert_type(same, Pipeline[str, int])
    await pipeline.run(["a"], timeout=5, total=None)
    await pipeline.run(["a"], timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipeline.stream(["a"], time_out=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await pipeline.run(["a"], stop_on=(OSError, "AuthError"), max_failures=Failures(share=0.5))
    await pipeline.run(["a"], stop_on=OSError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await Pipeline.quick(["a"], fetch, stop_on="AuthError"), RunResults[bytes])
    await builder.run(["a"], item_timeout=5, worker=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(pipeline.with_workers(Fetch=3), Pipeline[str, int])
    await pipeline.run([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    assert_type(await builder.run(["a"]), RunResults[int])
    assert_type(await Pipeline.quick(["a"], fetch), RunResults[bytes])
    assert_type(await Pipeline.quick([b"a"], parse, retries=1), RunResults[int])
    assert_type(await Pipeline.quick(["a"], [fetch, parse]), RunResults[Any])


# Sources


def lines() -> Iterator[str]:
    raise NotImplementedError


assert_type(in_thread(lines), AsyncIterable[str])
assert_type(in_thread(lines()), AsyncIterable[str])
assert_type(in_thread([1, 2]), AsyncIterable[int])


async def read() -> None:
    pipeline = Pipeline([Stage("A", 1, [fetch])])
    assert_type(await pipeline.run(in_thread(lines)), RunResults[bytes])
    await pipeline.run(in_thread([1, 2]))  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    in_thread(clean)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Metrics

collector = PipelineCollector(Pipeline([Stage("A", 1, [fetch])]))
collector.add(Pipeline([Stage("A", 1, [fetch]), Stage("B", 1, [parse])], name="other"))
CollectorRegistry().register(collector)
