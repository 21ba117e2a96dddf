"""The event record: one step of one item, as plain values that files and databases take.

`VERSION` rises when a field changes its meaning or goes away; new fields may come at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from antflow._core.foreign import asked
from antflow._core.observers import ItemStep, StepKind
from antflow._core.places import location_of
from antflow._core.text import cut, error_text, error_type_name, safe_repr, safe_str

VERSION = 1
"""The version of the event record."""

LONGEST_ID = 200
LONGEST_ERROR = 2_000
LONGEST_VALUE = 100_000

Redact = Callable[[str, Any], Any]
"""Given ``"item"``, ``"error"`` or ``"value"`` and the text or value, returns what to record."""


class EventRecord(NamedTuple):
    """One step of one item.

    Attributes:
        run: The run's id.
        seq: Rises with each event that a sink hears. With ``run`` it is the event's id: an event
            written twice can be told by it, and a gap is an event that was dropped.
        timestamp: When, in Unix seconds.
        kind: What happened; see `ItemStep`.
        stage: Name of the stage.
        item: The item's id, as text.
        sequence_id: The item's place in the input, from 0; items made from another have that one's.
        branch: ``""`` for an item of the input, ``"2"`` for the third one made from it, ``"2.0"``
            for the first one made from that.
        worker: Name of the worker that had the item; ``None`` if none had.
        attempt: Number of the try, from 1; 0 if the item has not been tried in this stage.
        duration: Seconds the worker had the item, where a visit ended; else 0.0.
        waited: Seconds of these for which the item waited: for a limit, or for room.
        error_type: Class name of the error, for "retrying", "failed" and "cancelled".
        error: Its message.
        place: Where it was raised: ``"app.py:41 in parse"``; ``None`` if that is not known.
        value: The value as JSON text, for sinks with ``values=True``; else ``None``.
    """

    run: str
    seq: int
    timestamp: float
    kind: StepKind
    stage: str
    item: str
    sequence_id: int
    branch: str
    worker: str | None
    attempt: int
    duration: float
    waited: float = 0.0
    error_type: str | None = None
    error: str | None = None
    place: str | None = None
    value: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Field → value, without the fields that are ``None``; ``value`` as it was."""
        record = {name: value for name, value in self._asdict().items() if value is not None}
        if self.value is not None:
            record["value"] = json.loads(self.value)
        return record


Heard = tuple[
    str,
    float,
    StepKind,
    str,
    Any,
    int,
    tuple[int, ...],
    str | None,
    int,
    float,
    float,
    Exception | None,
    str | None,
]
"""An event that waits to be written; see `heard`."""


def heard(step: ItemStep, redact: Redact | None) -> Heard:
    """A step as it waits to be written: what its record needs, the value as JSON text.

    Many events may wait, and the garbage collector would look at each step again and again. It soon
    forgets plain tuples of plain values; and the step's own memory is used for the next one.
    """
    value = step.value
    return (
        step.run_id,
        step.timestamp,
        step.kind,
        step.stage,
        step.item_id,
        step.sequence_id,
        step.branch,
        step.worker,
        step.attempt,
        step.duration,
        step.waited,
        step.error,
        None if value is None else json_of(value, redact),
    )


def record_of(seq: int, event: Heard, redact: Redact | None) -> EventRecord:
    """The record of an event.

    Args:
        seq: Its number.
        event: The event.
        redact: Changes the texts that come from the user's data.
    """
    (run, timestamp, kind, stage, item_id, sequence_id, branch) = event[:7]
    (worker, attempt, duration, waited, error, value) = event[7:]
    item = text_of_id(item_id)
    if redact is not None:
        item = cut(redacted(redact, "item", item), LONGEST_ID)
    error_type = message = place = None
    if error is not None:
        error_type = encodable(error_type_name(error))
        message = encodable(cut(error_text(error), LONGEST_ERROR))
        if redact is not None:
            message = cut(redacted(redact, "error", message), LONGEST_ERROR)
        place = encodable(location_of(error)) or None
    return EventRecord(
        run,
        seq,
        timestamp,
        kind,
        stage,
        item,
        sequence_id,
        ".".join(map(str, branch)) if branch else "",
        worker,
        attempt,
        duration,
        waited,
        error_type,
        message,
        place,
        value,
    )


def text_of_id(item_id: object) -> str:
    """An item's id as it is recorded."""
    if type(item_id) is int and item_id.bit_length() < 64:  # as most ids are
        return str(item_id)
    text = item_id if type(item_id) is str else safe_str(item_id)
    return encodable(text if len(text) <= LONGEST_ID else cut(text, LONGEST_ID))


def encodable(text: str) -> str:
    r"""A text that files and databases take: a surrogate without its pair is written out.

    The name of a file can have one: ``"\udcff"`` stands for a byte that is not UTF-8.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def redacted(redact: Redact, field: str, value: Any) -> str:
    """What the user's function makes of a text; never the text itself if it raises."""
    answer = asked(redact, field, value, instead=None)
    return "<redacted>" if answer is None else encodable(safe_str(answer))


def json_of(value: Any, redact: Redact | None) -> str:
    """A value as JSON text; what JSON does not know becomes its ``repr``.

    A value whose text is longer than 100,000 characters becomes the beginning of its ``repr``.
    """
    if redact is not None:
        value = asked(redact, "value", value, instead="<redacted>")
    text = asked(_dumped, value, instead=None)
    if text is None or len(text) > LONGEST_VALUE:
        text = json.dumps(safe_repr(value, 1_000), ensure_ascii=False)
    return encodable(text)


def _dumped(value: Any) -> str:
    return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return safe_repr(value, 1_000)
