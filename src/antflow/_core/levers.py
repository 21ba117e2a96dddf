"""What the figures of a run say about its future: what would make it faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from antflow._core.portable import Portable

Lever = Literal[
    "workers",
    "processes",
    "processor",
    "queue",
    "limit",
    "service",
    "source",
    "consumer",
    "callbacks",
    "retries",
    "errors",
    "item",
    "shared",
    "loop",
    "none",
]
"""What holds a run back, and so what to change.

The workers of a stage · code that computes, and would do so better in processes · the processor ·
the room before a stage · a limit · a service that asks for patience (`RetryAfter`) · the source of
the items · the consumer of the results · callbacks at the end of a stage's visits · too many items
that wait for their next try · tries that fail · one slow item · something that all tries of a
stage share, like a pool or a lock · something that keeps the event loop busy · nothing that stands
out.
"""


@dataclass(frozen=True, slots=True)
class Advice(Portable):
    """What holds a run back, and what would help. ``str()`` is the sentence.

    Attributes:
        lever: What holds it back, and so what to change.
        stage: Name of the stage it is about, or shows at; ``None`` if it is about none.
        share: The share of the time, 0 to 1, for which it was seen.
        sentence: All of this for people; "" if there is nothing to say. It contains names that come
            from outside.
        hint: The same in two or three words, for a table; "" for none.
        change: How many workers more, how much room in the queue, or up to which rate a higher
            limit helps: in items per second or, if a try does not cost 1, in cost per period, as
            its ``rate`` is. ``None`` if there is no such number.
        gain: By what part the rate would rise, at least and at most: ``(0.4, 0.6)``; ``None`` if
            that is not known.
    """

    lever: Lever = "none"
    stage: str | None = None
    share: float = 0.0
    sentence: str = ""
    hint: str = ""
    change: float | None = None
    gain: tuple[float, float] | None = None

    @property
    def is_its_own(self) -> bool:
        """Whether the stage itself holds the run back, and not its neighbours."""
        return self.lever not in ("source", "consumer")

    def __str__(self) -> str:
        return self.sentence
