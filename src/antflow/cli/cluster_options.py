"""The option of `antflow run` that says where the tasks of a stage run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from antflow import Pipeline
from antflow.cli.parameters import Command, ParamType
from antflow.cli.refusals import refuse
from antflow.pipeline import with_options


class StagePlace(ParamType):
    """``Stage=dask://host:8786``: a stage and where its tasks run, as a pair."""

    name = "stage place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The pair. The last ``=`` before the address divides it."""
        if isinstance(value, tuple):
            return value
        before, colon, after = value.partition("://")
        stage, equals, scheme = before.rpartition("=")
        if not (colon and equals and stage):
            self.fail(f"{value!r}: must be STAGE=dask://host:port", param, ctx)
        return stage, f"{scheme}://{after}"


def takes_places(command: Command) -> Command:
    """Add the option."""
    return click.option(
        "--on",
        type=StagePlace(),
        multiple=True,
        metavar="STAGE=URL",
        help="Run the tasks of a stage on a cluster: dask://host:8786 or ray://head:10001. May be "
        "given once for each stage.",
    )(command)


def placed(pipeline: Pipeline, given: Mapping[str, Any]) -> Pipeline:
    """The pipeline with the stages on the clusters that were asked for.

    Args:
        pipeline: The pipeline.
        given: The values of the options, by name.

    Raises:
        Refusal: There is no such stage, it is given twice, or its tasks cannot run there.
    """
    places: tuple[tuple[str, str], ...] = given["on"]
    times = Counter(name for name, _ in places)
    for name, address in places:
        if times[name] > 1:
            refuse(f"--on {name}={address}: stage {name!r} is given {times[name]} times")
        try:
            pipeline = with_options(pipeline, {name: {"executor": address}})
        except ValueError as error:
            refuse(f"--on {name}={address}: {error}", error)
    return pipeline
