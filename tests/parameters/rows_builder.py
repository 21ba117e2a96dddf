"""The options of the short forms: a builder, and ``Pipeline.quick``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from antflow import Pipeline, StageValidationError

from .rows_pipeline import ITEMS, LIMITS, PROGRESS, RUN_ROWS, begin
from .rows_pipeline import ROWS as OF_PIPELINE
from .rows_stage import COUNT, STAGE_ROWS, more_numbers, numbers, work
from .values import NO_COUNTS, NO_WORDS, Hostile, Row, but


def use_add(**options: Any) -> None:
    options = {"name": "Work", "tasks": work} | options
    add: Any = Pipeline.create().add
    add(options.pop("name"), options.pop("tasks"), **options).build()


def use_with_tracker(**options: Any) -> None:
    Pipeline.create().with_tracker(**options)


def use_collect_results(**options: Any) -> None:
    Pipeline.create().collect_results(**options)


async def use_run(**options: Any) -> None:
    builder = Pipeline.create().add("Work", work)
    await begin(builder.build(), builder.run, options)


async def use_quick(**options: Any) -> None:
    async def quick(**options: Any) -> None:
        await Pipeline.quick(**dict[str, Any](tasks=work) | options)

    await begin(Pipeline.create().add("Work", work).build(), quick, options)


def of_stage(name: str) -> Row:
    return Row(StageValidationError, *STAGE_ROWS[name])


TRIES = Row(StageValidationError, COUNT, NO_COUNTS, [1, 10**6])
TRIES_OR_NONE = Row(StageValidationError, COUNT, but(NO_COUNTS, None), [None, 1])
NO_TASKS: list[Any] = [None, 5, "x", b"x", True, {}, Hostile(), numbers, more_numbers, lambda: 1]
TASKS = Row(
    StageValidationError,
    "must be a function|is a generator|cannot be called",
    NO_TASKS,
    [work, print],
)

ROWS: dict[str, Row] = {
    "PipelineBuilder.add.name": of_stage("name"),
    "PipelineBuilder.add.workers": of_stage("workers"),
    "PipelineBuilder.add.tasks": TASKS,
    "PipelineBuilder.add.retries": TRIES,
    "PipelineBuilder.add.attempts": TRIES_OR_NONE,
    "PipelineBuilder.add.retry_policy": Row(
        StageValidationError,
        "must be one of 'per_task', 'per_stage'",
        [*NO_WORDS, "per_item"],
        ["per_task", "per_stage"],
        "retry",
    ),
    "PipelineBuilder.collect_results.enabled": replace(
        OF_PIPELINE["Pipeline.collect_results"], shown_as="collect_results"
    ),
    "PipelineBuilder.with_tracker.tracker": OF_PIPELINE["Pipeline.status_tracker"],
    "Pipeline.quick.items": ITEMS,
    "Pipeline.quick.tasks": TASKS,
    "Pipeline.quick.workers": of_stage("workers"),
    "Pipeline.quick.retries": TRIES,
    "Pipeline.quick.attempts": TRIES_OR_NONE,
    "Pipeline.quick.progress": PROGRESS,
    "Pipeline.quick.dashboard": RUN_ROWS["dashboard"],
}
for name, row in LIMITS.items():
    ROWS[f"Pipeline.quick.{name}"] = row
for name, row in RUN_ROWS.items():
    ROWS[f"PipelineBuilder.run.{name}"] = row

USES: dict[str, Callable[..., Any]] = {
    "Pipeline.quick": use_quick,
    "PipelineBuilder.add": use_add,
    "PipelineBuilder.collect_results": use_collect_results,
    "PipelineBuilder.run": use_run,
    "PipelineBuilder.with_tracker": use_with_tracker,
}
