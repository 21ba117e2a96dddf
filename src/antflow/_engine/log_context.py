"""The item in hand, for log records that tasks make."""

from __future__ import annotations

import logging
from typing import Any

from antflow._core.item_facts import far_seat
from antflow._core.text import clean, cut, safe_str
from antflow._engine.current import current_seat

LONGEST_ITEM = 200
"""Characters of an item's id in a log record."""

NOWHERE = "-"
"""Stands in records made outside a task."""


def log_context() -> dict[str, Any]:
    """The run, stage, item and try of the calling task, for logs that take fields.

    Works in plain functions in their threads too, and on the workers of a cluster, but not in child
    processes.

    Returns:
        ``{"run": "1f3…", "stage": "Fetch", "item": 42, "attempt": 1}``, where "item" is an item's
        id; in a task that works on a batch, a list of ids. ``{}`` outside a task.
    """
    seat = current_seat.get()
    if seat is None and (far := far_seat.get()) is not None:
        facts = [each for each, _ in far.items]
        return {
            "run": facts[0].run_id,
            "stage": facts[0].stage,
            "item": [each.id for each in facts] if far.is_batch else facts[0].id,
            "attempt": facts[0].attempt,
        }
    if seat is None or (first := seat.worker.item) is None:
        return {}
    ids = [envelope.id for envelope in seat.worker.given or [first]]
    return {
        "run": seat.run.facts.run_id,
        "stage": seat.stage.name,
        "item": ids if seat.stage.batch else ids[0],
        "attempt": first.attempts,
    }


class LogContextFilter(logging.Filter):
    """Adds run, stage, item and try to each log record that a task makes.

    They are its attributes ``antflow_run``, ``antflow_stage``, ``antflow_item`` and
    ``antflow_attempt``, all text, and ``"-"`` in other records. See `log_context`.

    ```python
    handler = logging.StreamHandler()
    handler.addFilter(LogContextFilter())
    handler.setFormatter(logging.Formatter("%(antflow_stage)s %(antflow_item)s: %(message)s"))
    ```

    Add it to handlers. As a filter of a logger it would not see the records of that logger's
    children.
    """

    def __init__(self) -> None:
        super().__init__()

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes; keep every record."""
        context = log_context()
        if isinstance(items := context.get("item"), list):
            context["item"] = ", ".join(map(safe_str, items))
        for name in ("run", "stage", "item", "attempt"):
            text = safe_str(context.get(name, NOWHERE))
            setattr(record, f"antflow_{name}", clean(cut(text, LONGEST_ITEM)))
        return True
