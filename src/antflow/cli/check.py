"""`antflow check`: validates and describes a pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import click

from antflow import Pipeline, Stage
from antflow._core.stage import capacity, retry_policy, task_name
from antflow._core.text import clean, counted, safe_repr
from antflow.cli.output import kept_for_results
from antflow.cli.parameters import takes_target
from antflow.cli.refusals import traced
from antflow.cli.target import find_pipeline

TOLD_APART = {
    *("name", "workers", "tasks", "retry", "task_attempts", "stage_attempts"),
    *("wait", "task_wait_seconds", "stage_wait_seconds"),
}
"""Options that are part of the lines about every stage."""


@click.command("check", short_help="Validate and describe a pipeline, without running it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@takes_target
def command(target: str, app_dir: str, debug: bool, as_json: bool) -> None:
    """Validate and describe a pipeline, without running it.

    TARGET is module:attribute or file.py:attribute: a Pipeline, or a function that needs no
    arguments and returns one. Importing the module runs it.
    """
    with traced(debug), kept_for_results():  # what the module prints is not the description
        pipeline = find_pipeline(target, app_dir)
    if as_json:
        click.echo(json.dumps(facts(pipeline), indent=2))
        return
    for line in description(pipeline):
        click.echo(clean(line))


def description(pipeline: Pipeline) -> Iterator[str]:
    """A pipeline in lines for people: its stages, and the options that differ from the defaults."""
    stages = pipeline.stages
    workers = sum(stage.workers for stage in stages)
    yield f"pipeline {pipeline.name!r}: {counted(len(stages), 'stage')}, " + counted(
        workers, "worker"
    )
    for number, stage in enumerate(stages, 1):
        room = capacity(stage)
        items = "any number of items" if room is None else counted(room, "item")
        yield f"{number}. {stage.name}: {counted(stage.workers, 'worker')}, {items} may wait"
        yield f"   tasks: {', '.join(map(task_name, stage.tasks))}"
        policy = retry_policy(stage)
        whole = "the whole stage" if policy.whole_stage else "each task"
        pause = task_name(policy.wait) if callable(policy.wait) else f"{policy.wait:,g} s"
        tries = "1 try" if policy.attempts == 1 else f"{policy.attempts:,} tries, {pause} between"
        yield f"   retries: {tries}, for {whole}"
        for name, value in unusual_options(stage).items():
            yield f"   {name}: {shown(value)}"


def facts(pipeline: Pipeline) -> dict[str, Any]:
    """The same for programs."""
    stages = [
        {
            "name": stage.name,
            "workers": stage.workers,
            "capacity": capacity(stage),
            "tasks": list(map(task_name, stage.tasks)),
            "attempts": retry_policy(stage).attempts,
            "retries": "per_stage" if retry_policy(stage).whole_stage else "per_task",
            "options": {name: shown(value) for name, value in unusual_options(stage).items()},
        }
        for stage in pipeline.stages
    ]
    return {"name": pipeline.name, "stages": stages}


def unusual_options(stage: Stage) -> dict[str, Any]:
    """The options with a value other than the default."""
    return {
        option.name: getattr(stage, option.name)
        for option in fields(stage)
        if option.name not in TOLD_APART and getattr(stage, option.name) != default_of(option)
    }


def default_of(option: Field[Any]) -> Any:
    """The default of an option."""
    factory: Any = option.default_factory
    return option.default if factory is MISSING else factory()


def shown(value: Any) -> str:
    """The value of an option, without addresses in memory."""
    if isinstance(value, Mapping):
        return ", ".join(f"{shown(key)} = {shown(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")):
        return str(value.__name__)
    kind: Any = type(value)
    if kind.__repr__ is object.__repr__:
        return str(kind.__name__)
    return value if isinstance(value, str) else safe_repr(value)
