"""One report about several runs that shared their items: shards of one job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from operator import attrgetter

from antflow._core.version import __version__
from antflow.sinks.event_log import EventLog, RunRecord
from antflow.sinks.records import EventRecord
from antflow.sinks.report.figures import Report, RunFigures
from antflow.sinks.report.report_sink import COUNTS, error_of, unfinished

WORST_FIRST = ("failed", "cancelled", "stopped", "finished")


def report_of_shards(parts: Sequence[tuple[EventLog, RunRecord]]) -> Report:
    """The report about several runs as if they were one, from the first start to the last end.

    Args:
        parts: The runs, each with its log.

    Raises:
        ValueError: They are not of the same pipeline.
    """
    runs = [run for _, run in parts]
    first = runs[0]
    for run in runs:
        if (run.pipeline, run.stages) != (first.pipeline, first.stages):
            raise ValueError(
                f"run {run.run!r} is of the pipeline {run.pipeline!r} with the stages "
                f"{', '.join(run.stages)}, and run {first.run!r} of {first.pipeline!r} with "
                f"{', '.join(first.stages)}"
            )
    names = ", ".join(run.run for run in runs)
    started = min(run.started for run in runs)
    figures = RunFigures(names, first.pipeline, first.stages, started)
    events = [_apart(log, run, place, len(parts)) for place, (log, run) in enumerate(parts)]
    for record in merge(*events, key=attrgetter("timestamp")):
        figures.told(record)
    ended = [run.ended for run in runs if run.ended is not None and run.how is not None]
    if len(ended) < len(runs):
        report = unfinished(figures)
    else:
        counts = {name: sum(getattr(run, name) or 0 for run in runs) for name in COUNTS}
        worst = min((run.how or "finished" for run in runs), key=WORST_FIRST.index)
        error = next(filter(None, map(error_of, runs)), "")
        report = figures.report(max(ended) - started, worst, counts | {"in flight": 0}, error)
    report.lost = sum(run.dropped_events or 0 for run in runs)
    report.facts = {
        "runs": names,
        "made by": f"antflow {__version__}, from {len(runs)} logs of events",
    }
    return report


def _apart(log: EventLog, run: RunRecord, place: int, of: int) -> Iterator[EventRecord]:
    """The events of one run, with items and workers that are not those of the others."""
    for record in log.events(run=run.run):
        worker = record.worker
        if worker is not None:
            stage, mark, number = worker.rpartition("-W")
            worker = f"{stage}{mark}{int(number) * of + place}"
        yield record._replace(sequence_id=record.sequence_id * of + place, worker=worker)
