"""The report as Markdown: for the log of a CI job, or a comment on a pull request.

Text from outside stands in code spans, where it can be neither markup, link nor mention; sentences
that hold names have all their punctuation escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from antflow._core.text import clean, counted, cut
from antflow.sinks.report import words
from antflow.sinks.report.figures import Report

MOST_KINDS = 20
MOST_SLOWEST = 10
MOST_IDS = 20
LONGEST_CELL = 160

MARKUP = re.compile(r"([\\`*_\[\]<>#~|&]|^[-+=]|(?<=^\d)[.)]|(?<=:)/(?=/)|(?<=www)\.)")
"""Punctuation that means something: everywhere, at the beginning of a line, or in an address."""


def markdown(report: Report) -> str:
    """The report as Markdown."""
    when = words.moment(report.started)
    lines = [
        f"## {_plain(report.pipeline)}: {words.headline(report)}",
        "",
        *(f"{_plain(sentence)}\n" for sentence in words.verdict(report)),
        f"Began {when}, took {words.duration(report.duration)}, run {_code(report.run)}.",
        "",
        *_stages(report),
        *_latency(report),
        *_errors(report),
        *_slowest(report),
        *_configuration(report),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _stages(report: Report) -> list[str]:
    rows = [
        [
            _code(stage.name),
            f"{stage.workers:,}",
            f"{stage.done:,}",
            *(f"{stage.counts.get(kind, 0):,}" for kind in ("failed", "retrying", "dropped")),
            words.duration(stage.seconds.get("busy", 0.0)),
            words.duration(stage.repeated_seconds) if stage.retries else "–",
            words.holds_of(stage) if stage.holds else "–",
        ]
        for stage in report.stages
    ]
    head = [
        *("stage", "workers", "done", "failed", "retries", "dropped"),
        *("at work", "in repeated tries", "held"),
    ]
    return _table("Stages", head, rows)


def _latency(report: Report) -> list[str]:
    rows = [
        [
            _code(stage.name),
            f"{stage.tries.count:,}",
            *(words.quantile(stage.tries.quantile(share)) for share in words.QUANTILES.values()),
        ]
        for stage in report.stages
    ]
    return _table("Latency", ["stage", "tries", *words.QUANTILES], rows)


def _errors(report: Report) -> list[str]:
    if not report.errors:
        return []
    rows: list[list[str]] = []
    for error in report.errors[:MOST_KINDS]:
        message, item = next(iter(error.samples.items()), ("", ""))
        where = _code(error.place) if error.place else ""
        counts = [f"{error.failed:,}", f"{error.repeated:,}"]
        rows.append(
            [_code(error.type), _code(error.stage), where, *counts, _code(item), _code(message)]
        )
    head = ["error", "stage", "line", "failed", "repeated", "for example", "message"]
    lines = _table("Errors", head, rows)
    if (more := len(report.errors) - MOST_KINDS) > 0:
        lines += [f"and {counted(more, 'more kind')}", ""]
    if report.failed_ids:
        failed, shown = report.counts["failed"], report.failed_ids[:MOST_IDS]
        text = ", ".join(map(_code, shown))
        rest = f", and {failed - len(shown):,} more" if failed > len(shown) else ""
        lines += [f"Failed items: {text}{rest}", ""]
    return lines


def _slowest(report: Report) -> list[str]:
    rows = [
        [
            _code(each.item),
            words.duration(each.seconds),
            words.duration(each.worked),
            f"{each.tries:,}",
            _code(each.stage) if each.stage else "",
            words.ENDINGS.get(each.ending, each.ending),
        ]
        for each in report.slowest[:MOST_SLOWEST]
    ]
    head = ["item", "in all", "in hand", "tries", "longest in", "ended"]
    return _table("Slowest items", head, rows)


def _configuration(report: Report) -> list[str]:
    rows = [[_code(name), _code(value)] for name, value in report.facts.items()]
    for stage in report.stages:
        options = " ".join(_code(f"{name}={value}") for name, value in stage.options.items())
        rows.append([_code(stage.name), options or "defaults"])
    return _table("Configuration", ["what", "value"], rows)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"### {title}",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _plain(text: str) -> str:
    """Text that is only that: no markup, link or mention."""
    return MARKUP.sub(r"\\\1", clean(text)).replace("@", "\N{FULLWIDTH COMMERCIAL AT}")


def _code(text: str) -> str:
    """A code span; a ``|`` would end the cell even in there."""
    text = cut(clean(text), LONGEST_CELL).replace("|", "¦")
    if not text.strip():
        return ""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"
