"""The first transaction of a run: its row, those of its stages, and the tables of a new file."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from antflow._core.errors import JournalCorruptError, JournalError
from antflow._core.run_facts import RunFacts
from antflow._core.stage import Stage
from antflow._core.version import __version__
from antflow.journal import schema
from antflow.journal.connections import Connection
from antflow.journal.file import told_as
from antflow.journal.stage_code import changed_stages, keep_code


@dataclass(frozen=True, slots=True)
class Begun:
    """A run as a journal has it.

    Attributes:
        journal: The id of the journal.
        run: The number of the run.
        stages: The numbers of its stages, in their order.
        next_item: The number of the next new item.
        changed: Names of stages that have other source than before, and results from earlier runs.
    """

    journal: str
    run: int
    stages: Sequence[int]
    next_item: int
    changed: Sequence[str]


def begin_run(
    connection: Connection, codec: str, facts: RunFacts, stages: Sequence[Stage]
) -> Begun:
    """Begin a run in a journal; in a new one, make the tables.

    Args:
        connection: The journal. It is closed if this fails.
        codec: How its values are kept.
        facts: What is known of the run.
        stages: The stages of its pipeline.

    Raises:
        JournalError: Its values are kept in another way, or it cannot be used.
    """
    try:
        with told_as(connection.path):
            connection.execute("BEGIN IMMEDIATE")
            begun = _begun(connection, codec, facts, stages)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return begun


def _begun(connection: Connection, codec: str, facts: RunFacts, stages: Sequence[Stage]) -> Begun:
    if connection.is_new():
        connection.make_tables()
        values = (os.urandom(8).hex(), codec, facts.started_wall)
        connection.execute(schema.NEW_JOURNAL, schema.sealed(values))
    about = connection.execute("SELECT * FROM journal").fetchone()
    if about is None or not schema.is_sound(about):
        told = "the row of the table journal is damaged or missing"
        raise JournalCorruptError(f"journal {connection.path!r}: {told}")
    journal, kept_as, *_ = about
    if kept_as != codec:
        told = f"its values are kept as {kept_as}; use codec={kept_as!r}"
        raise JournalError(f"journal {connection.path!r}: {told}")
    numbers: list[int] = []
    recipes = schema.recipes_of((stage.name, stage.version) for stage in stages)
    for position, (recipe, name, version) in enumerate(recipes):
        found = connection.execute(schema.STAGE_NUMBER, (recipe,)).fetchone()
        if found is None:
            found = (_next(connection, "SELECT max(stage) FROM stages"),)
            connection.execute(schema.STAGE, (*found, recipe, position, name, version))
        numbers += found
    run = (facts.run_id, facts.pipeline, socket.gethostname(), os.getpid(), __version__)
    number = _next(connection, "SELECT max(run) FROM runs")
    connection.execute(schema.BEGIN_RUN, (number, *run, facts.started_wall))
    changed = changed_stages(connection, numbers, stages)
    keep_code(connection, number, numbers, stages)
    next_item = _next(connection, "SELECT max(item) FROM items")
    return Begun(journal, number, numbers, next_item, changed)


def _next(connection: Connection, query: str) -> int:
    (most,) = connection.execute(query).fetchone()
    return int(most or 0) + 1
