"""Events as records of Python's logging."""

from __future__ import annotations

import logging
from typing import Unpack

from antflow._core.checks import refusal
from antflow._core.snapshot import at_text
from antflow._core.text import clean
from antflow.sinks.records import EventRecord
from antflow.sinks.sink import Sink, SinkOptions

LEVELS = {"failed": logging.ERROR, "retrying": logging.WARNING, "cancelled": logging.WARNING}
"""Kinds that are logged at a level of their own."""


class LoggingSink(Sink):
    """Logs each event: ``observers=[LoggingSink(kinds=["failed", "retrying"])]``.

    "failed" is logged at level ERROR, "retrying" and "cancelled" at WARNING, the others at
    ``level``. A record's attribute ``antflow`` has the event's fields as a dict (see
    `EventRecord.to_dict`), for formatters that write JSON.

    Args:
        logger: The logger, or its name.
        level: Level of the other kinds.
        options: See `SinkOptions`.

    Raises:
        TypeError: ``logger`` is not a logger, or an option is of the wrong type.
        ValueError: An option is not allowed.
    """

    def __init__(
        self,
        logger: str | logging.Logger = "antflow.events",
        *,
        level: int = logging.INFO,
        **options: Unpack[SinkOptions],
    ) -> None:
        super().__init__(**options)
        if isinstance(logger, str):
            logger = logging.getLogger(logger)
        if not isinstance(logger, logging.Logger):
            raise refusal(TypeError, "logger", logger, "must be a logger or its name")
        if not isinstance(level, int) or isinstance(level, bool):
            raise refusal(TypeError, "level", level, "must be a level, like logging.INFO")
        self._logger = logger
        self._level = level

    @property
    def target(self) -> str:
        """The logger, for messages."""
        return f"logger {self._logger.name!r}"

    def write(self, records: list[EventRecord]) -> None:
        """Log a batch."""
        for record in records:
            level = LEVELS.get(record.kind, self._level)
            if self._logger.isEnabledFor(level):
                self._logger.log(level, "%s", _text(record), extra={"antflow": record.to_dict()})


def _text(record: EventRecord) -> str:
    text = f"item {clean(record.item)} {record.kind} in {clean(record.stage)}"
    if record.attempt > 1:
        text += f", try {record.attempt:,}"
    if record.error_type is not None:
        text += f": {record.error_type}: {clean(record.error)}"
    return text + at_text(record.place or "")
