"""Facts that a task may ask about its item, also in another process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol


class ItemFacts(NamedTuple):
    """An item on one try.

    Attributes:
        id: Its id.
        attempt: Number of the try, from 1.
        stage: Name of the stage.
        run_id: The run.
        place: What its idempotency key is made of: plain values.
        checkpointed: The value that was kept last for it in this stage, or ``None``.
    """

    id: Any
    attempt: int
    stage: str
    run_id: str
    place: tuple[Any, ...]
    checkpointed: Any = None

    @property
    def key(self) -> str:
        """The idempotency key, of 32 hexadecimal digits."""
        import json
        from hashlib import blake2b  # only where a task asks for its item

        text = json.dumps(self.place, sort_keys=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()


class Checkpoints(Protocol):
    """The values that the tasks of a stage keep for later tries of an item."""

    def last(self) -> Any:
        """The value that was kept last, or ``None``."""
        ...

    def keep(self, value: Any) -> Awaitable[None]:
        """Keep a value; see `CurrentItem.checkpoint`."""
        ...


class FarSeat(NamedTuple):
    """Where a task runs in another process than its run.

    Attributes:
        items: The items in hand, each with its checkpoints.
        say: Tells the run what the task does.
        said: When it last did, by the monotonic clock; a list with one number.
        is_batch: Whether it works on a batch.
    """

    items: Sequence[tuple[ItemFacts, Checkpoints]]
    say: Callable[[str], None]
    said: list[float]
    is_batch: bool


far_seat: ContextVar[FarSeat | None] = ContextVar("antflow_far_seat", default=None)
"""The seat this code runs in, if it runs in another process than its run."""
