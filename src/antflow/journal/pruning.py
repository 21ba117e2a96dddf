"""Removes what a later run hardly needs from a journal."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from antflow._core.text import counted
from antflow.journal.connections import Connection
from antflow.journal.databases import open_for_writing
from antflow.journal.file import told_as
from antflow.journal.stage_lines import StageLines

Unit = Literal["runs", "days"]

OLD = {
    "runs": "run <= (SELECT max(run) FROM runs) - :keep",
    "days": "at < :keep",
}
"""Which outcomes are old: those of runs before the last ones, or that ended before a time."""

DAY = 86_400.0
"""Seconds."""

ENDED = "SELECT item FROM outcomes WHERE {old}"
DONE = f"{ENDED} AND outcome <> 'failed'"
"""Items that no run goes on with, unless a stage changes: failed ones may be tried again."""

DOOMED = {"results": DONE, "attempts": ENDED, "checkpoints": DONE}
"""Table → the items whose rows in it are removed."""

FAMILIES = (
    f"SELECT item FROM items AS top WHERE root IS NULL AND item IN ({DONE}) AND NOT EXISTS "  # noqa: S608
    "(SELECT 1 FROM items LEFT JOIN outcomes USING (item) WHERE items.root = top.item AND "
    "coalesce(outcomes.outcome = 'failed', items.stage NOT IN ({last})))"
)
"""Items that were fed, have ended, and of which no part has failed or is under way."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is removed.

    Attributes:
        results: Results of stages of items that have ended, other than the last one's.
        attempts: Tries that failed.
        checkpoints: Checkpoints of items that have ended.
        items: Items that were fed, with all that is known of them.
    """

    results: int
    attempts: int
    checkpoints: int
    items: int

    def __str__(self) -> str:
        tries = counted(self.attempts, "record")
        parts = [
            counted(self.results, "result") + " of stages before the last",
            f"{tries} of tries that failed",
            counted(self.checkpoints, "checkpoint"),
        ]
        if self.items:
            parts.append(counted(self.items, "item") + " with all that is known of them")
        return ", ".join(parts)


def prune(path: str, keep: int, unit: Unit, *, items: bool = False, tries: bool = False) -> Pruned:
    """Remove what belongs to items that ended before the last runs, or days.

    Outcomes stay, unless ``items`` says otherwise: without them, a later run would run these items
    again. Failed items keep the results from which they could resume.

    Args:
        path: The journal.
        keep: How many runs, or days.
        unit: Which of the two.
        items: Remove the items as well, with their outcomes: they are new if they come again.
        tries: Only find out what would be removed.

    Raises:
        JournalInUseError: A run writes to it.
        JournalError: It cannot be used.
    """
    with closing(open_for_writing(path)) as connection, told_as(connection.path):
        connection.execute("BEGIN IMMEDIATE")
        pruned = _pruned(connection, keep, unit, items)
        connection.execute("ROLLBACK" if tries else "COMMIT")
        if not tries:
            connection.shrink()
    return pruned


def _pruned(connection: Connection, keep: int, unit: Unit, items: bool) -> Pruned:
    values = {"keep": keep if unit == "runs" else time.time() - keep * DAY}
    lines = StageLines(connection.execute("SELECT * FROM stages"))
    last = ", ".join(map(str, lines.last))
    counts = {
        table: connection.execute(
            f"DELETE FROM {table} WHERE item IN ({which.format(old=OLD[unit])})",  # noqa: S608
            values,
        ).rowcount
        for table, which in DOOMED.items()
    }
    if not items:
        return Pruned(**counts, items=0)
    roots = connection.execute(FAMILIES.format(old=OLD[unit], last=last), values).fetchall()
    connection.execute("CREATE TEMP TABLE doomed (item BIGINT PRIMARY KEY)")
    connection.executemany("INSERT INTO doomed VALUES (?)", roots)
    family = "SELECT items.item FROM items JOIN doomed ON doomed.item IN (items.item, items.root)"
    for table in ("results", "attempts", "checkpoints", "outcomes"):
        connection.execute(f"DELETE FROM {table} WHERE item IN ({family})")  # noqa: S608
    connection.execute("DELETE FROM items WHERE root IN (SELECT item FROM doomed)")
    connection.execute("DELETE FROM items WHERE item IN (SELECT item FROM doomed)")
    return Pruned(**counts, items=len(roots))
