"""The source of stages, for information: results of other code are used, with a warning.

It decides nothing: only a comment may have changed. ``Stage(version=…)`` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from textwrap import dedent
from types import FunctionType, MethodType
from typing import Any

from antflow._core.foreign import asked
from antflow._core.stage import Stage
from antflow.journal import schema
from antflow.journal.connections import Connection

KEEP = "INSERT OR REPLACE INTO code VALUES (?,?,?)"
LATEST = "SELECT hash FROM code WHERE stage = ? ORDER BY run DESC LIMIT 1"
FORMS = """
SELECT name, count(*) FROM code JOIN stages USING (stage)
GROUP BY stage, name HAVING count(*) > 1
"""
HAS_RESULTS = (
    "SELECT EXISTS (SELECT 1 FROM results WHERE stage = :stage) OR "
    "EXISTS (SELECT 1 FROM outcomes WHERE stage = :stage AND outcome <> 'failed')"
)


def changed_stages(
    connection: Connection, numbers: Sequence[int | None], stages: Sequence[Stage]
) -> list[str]:
    """Names of stages that have other source than in the last run, and results from earlier ones.

    Args:
        connection: Reads the journal.
        numbers: The numbers that the stages have in it, if they have one.
        stages: The stages.
    """
    if not connection.has_table("code"):
        return []
    changed: list[str] = []
    for number, stage in zip(numbers, stages, strict=True):
        found = connection.execute(LATEST, (number,)).fetchone()
        if found is None or (code := code_hash(stage)) is None or found == (code,):
            continue
        if connection.execute(HAS_RESULTS, {"stage": number}).fetchone() == (1,):
            changed.append(stage.name)
    return changed


def keep_code(
    connection: Connection, run: int, numbers: Sequence[int], stages: Sequence[Stage]
) -> None:
    """Keep which source the stages have in a run."""
    connection.make_table(schema.CODE)
    for number, stage in zip(numbers, stages, strict=True):
        if (code := code_hash(stage)) is not None:
            connection.execute(KEEP, (number, code, run))


def code_hash(stage: Stage) -> str | None:
    """A hash of the text of a stage's tasks; ``None`` if that of one is not to be had."""
    texts = [asked(_text_of, task, instead=None) for task in stage.tasks]
    if None in texts:
        return None
    return blake2b("\0".join(map(str, texts)).encode(), digest_size=16).hexdigest()


def _text_of(task: Any) -> str | None:
    """The text of a function; of a lambda none is to be had, as others may share its lines."""
    while isinstance(task, (partial, MethodType)):
        task = task.func if isinstance(task, partial) else task.__func__
    task = inspect.unwrap(task)
    if type(task) is not FunctionType or task.__name__ == "<lambda>":
        return None
    return dedent(inspect.getsource(task))
