"""Items that a store knows from earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from antflow._core.envelope import Envelope
from antflow._core.result import Outcome


@dataclass(slots=True, eq=False)
class Known:
    """An item that a store knows, or one that was made from it.

    Attributes:
        envelope: The item, in the stage in which it ended or which it waits for. Its value is the
            one that it came out with, or that is to enter that stage.
        outcome: How it ended; ``None``: it goes on.
        error: Why it failed, if it did.
    """

    envelope: Envelope
    outcome: Outcome | None
    error: Exception | None = None


class Counted(NamedTuple):
    """Which of some items had ended in earlier runs.

    Attributes:
        ended: How they had ended → how many.
        others: Where the others are: ``(index of the first, how many)``, in order.
    """

    ended: Mapping[Outcome, int]
    others: Sequence[tuple[int, int]]
