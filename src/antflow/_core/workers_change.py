"""A change of the number of workers of a stage during a run."""

from __future__ import annotations

from dataclasses import dataclass

from antflow._core.portable import Portable

MOST_CHANGES = 100
"""The latest changes of a run that its snapshots have."""


@dataclass(frozen=True, slots=True)
class WorkersChange(Portable):
    """A stage was given another number of workers during a run.

    Attributes:
        elapsed: When, in seconds since the run began.
        stage: Name of the stage.
        before: How many workers it had.
        workers: How many it has had since.
        is_probe: Whether the run itself did it, to try one worker more (``probe=True``), or to go
            back; else it was `RunHandle.set_workers`, or a key.
    """

    elapsed: float
    stage: str
    before: int
    workers: int
    is_probe: bool = False


class WorkersChanges:
    """The latest changes of one run.

    Attributes:
        latest: They, oldest first.
    """

    def __init__(self) -> None:
        self.latest: tuple[WorkersChange, ...] = ()

    def note(self, change: WorkersChange) -> None:
        """Note a change."""
        self.latest = (*self.latest, change)[-MOST_CHANGES:]
