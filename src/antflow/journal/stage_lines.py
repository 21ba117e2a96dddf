"""The stages in a journal, and which of them belong to one pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from antflow.journal.schema import recipe


class StageRow(NamedTuple):
    """A row of the table ``stages``."""

    stage: int
    recipe: str
    position: int
    name: str
    version: str


class StageLines:
    """The stages of all pipelines that a journal has seen.

    A stage belongs behind the one whose recipe is its own without its last part.

    Args:
        rows: The rows of the table.
    """

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = {row.stage: row for row in map(StageRow._make, rows)}
        self._lines: dict[int, tuple[int, ...]] = {}
        known: dict[int, list[tuple[tuple[int, ...], list[tuple[str, str]]]]] = {-1: [((), [])]}
        for row in sorted(self._rows.values(), key=lambda row: row.position):
            for before, named in known.get(row.position - 1, ()):
                line = [*named, (row.name, row.version)]
                if recipe(line) == row.recipe:
                    numbers = (*before, row.stage)
                    self._lines[row.stage] = numbers
                    known.setdefault(row.position, []).append((numbers, line))
                    break
        inner = {number for line in self._lines.values() for number in line[:-1]}
        self.last: list[int] = [number for number in self._rows if number not in inner]

    def name(self, stage: int) -> str:
        """The name of a stage."""
        return self._rows[stage].name

    def position(self, stage: int) -> int:
        """Its place in its pipeline, from 0."""
        return self._rows[stage].position

    def before(self, stage: int) -> tuple[int, ...]:
        """The numbers of the stages before it, in order."""
        return self._lines.get(stage, (stage,))[:-1]

    def names(self) -> list[str]:
        """The names of all stages, in the order in which the journal met them."""
        return [*dict.fromkeys(row.name for row in self._rows.values())]
