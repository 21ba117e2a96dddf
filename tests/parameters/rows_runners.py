"""The options of the clusters that a stage's tasks can run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from antflow.runners import DaskRunner

from .values import NO_TIMEOUTS, NO_WORDS, Hostile, Row


def a_dask_runner(**options: Any) -> None:
    DaskRunner(**{"cluster": "dask://host:8786"} | options)


USES: dict[str, Callable[..., Any]] = {"DaskRunner": a_dask_runner}

ROWS: dict[str, Row] = {
    "DaskRunner.cluster": Row(
        (TypeError, ValueError),
        "must be an address|must be a distributed.Client",
        [None, 5, True, "", "host", "dask://", "http://host", ["x"], Hostile()],
        ["dask://host:8786", "tcp://10.0.0.7:8786", "tls://host:1"],
    ),
    "DaskRunner.node_timeout": Row(
        ValueError, "number of seconds above 0", NO_TIMEOUTS, [None, 0.5, 60]
    ),
    "DaskRunner.redelivery": Row(
        ValueError, "must be one of 'repeat', 'fail'", NO_WORDS, ["repeat", "fail"]
    ),
}
