"""The options of the clusters that a stage's tasks can run on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from antflow.runners import DaskRunner, RayRunner

from .values import NO_COUNTS, NO_SECONDS, NO_TIMEOUTS, NO_WORDS, Hostile, Row, but


def a_dask_runner(**options: Any) -> None:
    DaskRunner(**{"cluster": "dask://host:8786"} | options)


def a_ray_runner(**options: Any) -> None:
    with suppress(ImportError):  # Ray is large, and may be missing: that is told last
        RayRunner(**options)


USES: dict[str, Callable[..., Any]] = {"DaskRunner": a_dask_runner, "RayRunner": a_ray_runner}

TIMEOUT = Row(ValueError, "number of seconds above 0", NO_TIMEOUTS, [None, 0.5, 60])
REDELIVERY = Row(ValueError, "must be one of 'repeat', 'fail'", NO_WORDS, ["repeat", "fail"])

ROWS: dict[str, Row] = {
    "DaskRunner.cluster": Row(
        (TypeError, ValueError),
        "must be an address|must be a distributed.Client",
        [None, 5, True, "", "host", "dask://", "http://host", ["x"], Hostile()],
        ["dask://host:8786", "tcp://10.0.0.7:8786", "tls://host:1"],
    ),
    "DaskRunner.node_timeout": TIMEOUT,
    "DaskRunner.redelivery": REDELIVERY,
    "RayRunner.address": Row(
        (TypeError, ValueError),
        "must be an address",
        [5, True, "", "host", "ray://", "http://host", ["x"], Hostile()],
        [None, "ray://head:10001", "ray://auto"],
    ),
    "RayRunner.actors": Row(
        ValueError, "whole number of worker processes >= 1", but(NO_COUNTS, None), [None, 1, 5]
    ),
    "RayRunner.cpus": Row(ValueError, "number", NO_SECONDS, [0, 0.5, 2]),
    "RayRunner.node_timeout": TIMEOUT,
    "RayRunner.redelivery": REDELIVERY,
}
