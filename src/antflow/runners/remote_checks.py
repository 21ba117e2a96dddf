"""Whether the tasks of a stage can run on a cluster, and how they are pickled for it."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

from antflow._core.errors import StageValidationError
from antflow._core.stage import Stage
from antflow._core.stage_checks import is_generator
from antflow._core.text import clean, safe_repr, safe_str

PRIMITIVES = (
    asyncio.Lock,
    asyncio.Event,
    asyncio.Condition,
    asyncio.Semaphore,
    asyncio.Queue,
    asyncio.Future,
    asyncio.Barrier,
)
"""They connect tasks of one event loop. A copy elsewhere would connect nothing."""


def check_remote(stage: Stage, name: str, dumps: Callable[[Any], bytes]) -> None:
    """Refuse a stage whose tasks cannot be called in another process.

    Args:
        stage: The stage.
        name: The executor, for messages.
        dumps: Pickles as the cluster does.

    Raises:
        StageValidationError: Naming the stage, the task and the reason.
    """
    where = f"Stage {clean(safe_repr(stage.name))}: executor={safe_repr(name)}:"
    for option in ("pull", "call_concurrency", "call_rate"):
        if getattr(stage, option):
            what = "items must not wait for one" if option == "pull" else "it works only at home"
            raise StageValidationError(f"{where} {option} is not possible there: {what}")
    if stage.resources and stage.resource_scope != "worker":
        raise StageValidationError(f"{where} resources must have resource_scope='worker'")
    for task in stage.tasks:
        if is_generator(task):
            raise StageValidationError(f"{where} {safe_repr(task)} must return a list, not yield")
    for function in (*stage.tasks, *stage.resources.values()):
        if (held := _primitive_in(function)) is not None:
            raise StageValidationError(
                f"{where} {safe_repr(function)} holds an {held}, which connects tasks of one event "
                "loop: a copy in another process would connect nothing"
            )
        try:
            dumps(function)
        except Exception as error:
            raise StageValidationError(
                f"{where} {safe_repr(function)} cannot be sent to a worker process: "
                f"{safe_str(error)}"
            ) from error


def _primitive_in(function: Any) -> str | None:
    """An asyncio primitive that a function holds, by the name of its class."""
    held: list[Any] = [getattr(function, "__self__", None)]
    held += getattr(function, "args", ())
    keywords = getattr(function, "keywords", None)
    held += keywords.values() if isinstance(keywords, dict) else ()
    held += getattr(function, "__defaults__", None) or ()
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    for each in held:
        if isinstance(each, PRIMITIVES):
            return f"asyncio.{type(each).__name__}"
    return None


def pickled(value: Any, whole: Callable[[Any], bytes]) -> bytes:
    """Pickle a value; if it is defined in ``__main__`` or inside a function, with its code.

    Args:
        value: The value.
        whole: Pickles a value with its code.
    """
    try:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in data:
            return data
    except Exception:  # noqa: S110 # why: the other pickler can do more, or says what it cannot
        pass
    return whole(value)
