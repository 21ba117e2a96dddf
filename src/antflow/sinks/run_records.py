"""The beginning and the end of a run, as plain values."""

from __future__ import annotations

import json
from typing import Any

from antflow._core.observers import RunEnd
from antflow._core.run_facts import RunFacts
from antflow._core.snapshot import PipelineStats
from antflow._core.text import cut, error_text, error_type_name
from antflow.sinks.records import LONGEST_ERROR, VERSION, encodable


def opened_record(facts: RunFacts) -> dict[str, Any]:
    """The record of a run that began."""
    return {
        "v": VERSION,
        "run": facts.run_id,
        "kind": "run_opened",
        "timestamp": facts.started_wall,
        "pipeline": encodable(facts.pipeline),
        "stages": list(facts.stage_names),
        "per_task_stages": list(facts.per_task_stages),
    }


def closed_record(end: RunEnd, lost: int) -> dict[str, Any]:
    """The record of a run that is over."""
    record: dict[str, Any] = {
        "v": VERSION,
        "run": end.run_id,
        "kind": "run_closed",
        "timestamp": end.timestamp,
        "duration": round(end.duration, 6),
        "how": end.how,
        **item_counts(end.stats),
        "dropped_events": lost,
    }
    if end.error is not None:
        record["error_type"] = encodable(error_type_name(end.error))
        record["error"] = encodable(cut(error_text(end.error), LONGEST_ERROR))
    return record


def item_counts(stats: PipelineStats) -> dict[str, int]:
    """How many items there were, and what became of them, as the columns of a run name it."""
    return {
        "accepted": stats.items_accepted,
        "children": stats.items_children,
        **outcome_counts(stats),
    }


def outcome_counts(stats: PipelineStats) -> dict[str, int]:
    """Outcome → how many items had it."""
    return {
        "completed": stats.items_processed,
        "failed": stats.items_failed,
        "dropped": stats.items_dropped,
        "expanded": stats.items_expanded,
        "cancelled": stats.items_cancelled,
    }


def json_line(record: dict[str, Any]) -> str:
    """A record as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"
