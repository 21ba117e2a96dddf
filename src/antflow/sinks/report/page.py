"""The report as one HTML page.

It is complete in itself: no link leads out of it, and its policy lets nothing in. All that comes
from a run passes through `_text` (in the markup) or `_data` (for the script), and stays text.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

from antflow._core.durations import Durations
from antflow._core.text import clean, counted, cut
from antflow.sinks.report import words
from antflow.sinks.report.charts import COLOURS, Scale, histogram, shares
from antflow.sinks.report.figures import ErrorKind, Report, StageFigures

LONGEST_ID = 80
MOST_KINDS = 50
"""Kinds of errors that have a row."""

Row = Sequence[str]
"""Cells of a table, as markup."""


def page(report: Report) -> str:
    """The page."""
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = _text(f"{report.pipeline}: {words.headline(report)}")
    sections = [
        _head(report),
        _verdict(report),
        _timeline(report),
        _throughput(report),
        _latency(report),
        _time(report),
        _errors(report),
        _retries(report),
        _slowest(report),
        _configuration(report),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"{''.join(sections)}"
        f'<script type="application/json" id="data">{_data(_for_script(report))}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


# -- what is safe -----------------------------------------------------------------------------


def _text(value: object, most: int | None = None) -> str:
    """Text from outside, as markup."""
    text = clean(value)
    return escape(text if most is None else cut(text, most))


def _data(value: Any) -> str:
    """A value as JSON that ends no element, comment or line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _file(name: str) -> str:
    return files("antflow.sinks.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


# -- parts ------------------------------------------------------------------------------------


def _section(name: str, content: str, note: str = "") -> str:
    about = f' <span class="note">{note}</span>' if note else ""
    anchor = name.lower().replace(" ", "-")
    return f'<section id="{anchor}"><h2>{name}{about}</h2>\n{content}</section>\n'


def _table(head: Row, rows: Iterable[Row], texts: int = 1) -> str:
    """A table whose first ``texts`` columns are text, and the others numbers."""

    def cells(row: Row, element: str) -> str:
        starts = [f"<{element}>"] * texts + [f'<{element} class="n">'] * (len(row) - texts)
        return "".join(
            f"{start}{cell}</{element}>" for start, cell in zip(starts, row, strict=True)
        )

    heads = f"<thead><tr>{cells(head, 'th')}</tr></thead>\n" if head else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>\n" for row in rows)
    return f'<div class="wide"><table>{heads}<tbody>{body}</tbody></table></div>\n'


def _stage(report: Report, index: int) -> str:
    name = _text(report.stages[index].name)
    return f'<span class="key c{index % COLOURS}"></span>{name}'


def _head(report: Report) -> str:
    when = words.moment(report.started)
    about = f"{when} · {words.duration(report.duration)} · {counted(len(report.stages), 'stage')}"
    badge = f'<span class="badge {report.how}">{words.headline(report)}</span>'
    return f"<header><h1>{_text(report.pipeline)} {badge}</h1><p>{about}</p></header>\n<main>\n"


def _verdict(report: Report) -> str:
    sentences = "".join(f"<p>{_text(each)}</p>\n" for each in words.verdict(report))
    counts = report.counts
    tiles = [("items", counts["accepted"] + counts["children"], "total")]
    tiles += [
        (word, counts[name], name)
        for name, word in words.OUTCOMES.items()
        if counts[name] or name in ("completed", "failed")
    ]
    retried = sum(stage.retries for stage in report.stages)
    tiles.append(("retries", retried, "retries"))
    shown = "".join(
        f'<div class="tile {name.replace(" ", "-")}"><dd data-count="{name}">{count:,}</dd>'
        f"<dt>{word}</dt></div>"
        for word, count, name in tiles
    )
    rate = f'<div class="tile"><dd>{words.rate(report.per_second)}</dd><dt>throughput</dt></div>'
    return _section("Verdict", f"{sentences}<dl>{shown}{rate}</dl>\n")


def _timeline(report: Report) -> str:
    drawn = report.timeline
    kept, seen = len(drawn["spans"]["at"]), drawn["seen"]
    rows, workers = len(drawn["rows"]), sum(stage.workers for stage in report.stages)
    note = f"when {words.each_worker(workers)} had an item"
    if rows < workers:
        note += f"; {rows} rows"
    if kept < seen:
        note += f"; zoomed in, a sample of {kept:,} of {seen:,} tries"
    buttons = "".join(
        f'<button type="button" data-zoom="{name}" aria-label="{label}">{text}</button>'
        for name, label, text in (
            ("in", "Zoom in", "+"),
            ("out", "Zoom out", "−"),
            ("left", "Earlier", "←"),
            ("right", "Later", "→"),
            ("all", "Show the whole run", "whole run"),
        )
    )
    found = set(drawn["spans"]["how"])
    keys = "".join(
        f'<span><span class="key {name}"></span>{text}</span>'
        for how, name, text in (
            (1, "bad", "failed"),
            (2, "again", "to be tried again"),
            (3, "off", "cancelled"),
        )
        if how in found
    )
    content = (
        f'<div class="bar"><div class="zoom">{buttons}</div><div class="legend">{keys}</div></div>'
        '<canvas id="rows" tabindex="0" role="img" aria-label="Work of each worker over time">'
        "</canvas>"
        '<p class="hint" id="hint" aria-live="polite">Zoom with the buttons, or drag over a part; '
        "a double-click shows the whole run. Point at a try to see its item.</p>\n"
        "<noscript><p>The drawings need JavaScript; the tables do not.</p></noscript>"
    )
    return _section("Timeline", content, note)


def _throughput(report: Report) -> str:
    keys = "".join(f"<span>{_stage(report, index)}</span>" for index in range(len(report.stages)))
    keys += '<span><span class="key bad"></span>failed</span>'
    content = (
        f'<div class="legend">{keys}</div>'
        '<canvas id="rates" role="img" aria-label="Items per second over time"></canvas>'
        '<p class="hint" id="at">Items per second that came through each stage.</p>'
    )
    return _section("Throughput", content, "items per second")


def _latency(report: Report) -> str:
    scale = Scale([stage.tries for stage in report.stages])
    rows = [
        [
            _stage(report, index),
            f"{stage.tries.count:,}",
            *(words.quantile(stage.tries.quantile(share)) for share in words.QUANTILES.values()),
            histogram(stage.tries, scale, index),
        ]
        for index, stage in enumerate(report.stages)
    ]
    ends = f"{words.duration(scale.low)} … {words.duration(scale.high)}, logarithmic"
    content = _table(["stage", "tries", *words.QUANTILES, f"from {ends}"], rows)
    waits = [
        [
            _stage(report, index),
            f"{stage.waits.count:,}",
            *(_wait(stage.waits, share) for share in words.QUANTILES.values()),
        ]
        for index, stage in enumerate(report.stages)
    ]
    content += "<h3>Time in the queue before a stage</h3>\n"
    content += _table(["stage", "items", *words.QUANTILES], waits)
    note = "how long a try took"
    if not report.has_all_times:
        note += ", waits for limits included"
    return _section("Latency", content, note)


def _wait(waits: Durations, share: float) -> str:
    seconds = waits.quantile(share)
    return "<1 ms" if seconds == 0 else words.duration(seconds)


def _time(report: Report) -> str:
    kinds = [
        kind
        for kind in words.SECONDS
        if any(stage.seconds.get(kind, 0.0) > 0 for stage in report.stages) or kind == "busy"
    ]
    rows: list[Row] = []
    for index, stage in enumerate(report.stages):
        whole = sum(stage.seconds.values())
        if not report.has_all_times:
            whole = max(stage.workers * report.duration, whole)
        parts = [(kind, stage.seconds.get(kind, 0.0)) for kind in kinds]
        cells = [words.percent(seconds / whole) if whole else "–" for _, seconds in parts]
        bar = shares(parts, whole)
        rows.append([_stage(report, index), bar, words.duration(whole), *cells])
    heads = [words.SECONDS[kind] for kind in kinds]
    keys = "".join(
        f'<span><span class="key s-{kind}"></span>{head}</span>'
        for kind, head in zip(kinds, heads, strict=True)
    )
    table = f'<div class="legend">{keys}</div>\n'
    table += _table(["stage", "", "workers' time", *heads], rows, texts=2)
    note = "of all workers together"
    if not report.has_all_times:
        note += "; a log does not say what they waited for"
    return _section("Where the time went", table, note)


def _errors(report: Report) -> str:
    if not report.errors:
        return _section("Errors", "<p>None.</p>\n")
    content = "".join(_error(report, each) for each in report.errors[:MOST_KINDS])
    if (more := len(report.errors) - MOST_KINDS) > 0:
        content += f'<p class="hint">and {counted(more, "more kind")}</p>\n'
    failed, kept = report.counts["failed"], len(report.failed_ids)
    if kept:
        those = "" if kept >= failed else f" (the first {kept:,} of {failed:,})"
        label = f"Download the ids of the failed items{those}"
        content += f'<p><button type="button" id="download">{label}</button></p>\n'
    return _section("Errors", content, "by type, stage and line of code")


def _error(report: Report, error: ErrorKind) -> str:
    stage = [stage.name for stage in report.stages].index(error.stage)
    counts = [f"{error.failed:,} failed"] if error.failed else []
    if error.repeated:
        counts.append(f"{words.tries(error.repeated)} repeated")
    place = f" <code>{_text(error.place)}</code>" if error.place else ""
    samples = "".join(
        f'<p class="sample"><code>{_text(item, LONGEST_ID)}</code> {_text(message)}</p>\n'
        for message, item in error.samples.items()
    )
    if error.input:
        samples += f'<p class="sample">input <code>{_text(error.input)}</code></p>\n'
    return (
        f"<article><p><strong>{_text(error.type)}</strong>{place} "
        f'<span class="in">{_stage(report, stage)}</span> '
        f'<span class="note">{", ".join(counts)}</span></p>\n{samples}</article>\n'
    )


def _retries(report: Report) -> str:
    rows = [
        [
            _stage(report, index),
            f"{stage.retries:,}",
            words.duration(stage.repeated_seconds),
            words.duration(stage.between_seconds),
            words.holds_of(stage) if stage.holds else "–",
        ]
        for index, stage in enumerate(report.stages)
        if stage.retries or stage.holds
    ]
    if not rows:
        return _section("Retries and holds", "<p>None.</p>\n")
    head = [
        "stage",
        "repeated tries",
        "time in them",
        "waiting between tries",
        "held by a service",
    ]
    return _section("Retries and holds", _table(head, rows))


def _slowest(report: Report) -> str:
    rows = [
        [
            f"<code>{_text(each.item, LONGEST_ID)}</code>",
            f'{_text(each.stage)} <span class="note">{words.duration(each.longest)}</span>',
            words.ENDINGS.get(each.ending, each.ending),
            words.duration(each.seconds),
            words.duration(each.worked),
            words.duration(max(each.seconds - each.worked, 0.0)),
            f"{each.tries:,}",
        ]
        for each in report.slowest
    ]
    if not rows:
        return _section("Slowest items", "<p>None.</p>\n")
    head = ["item", "longest in", "ended", "in all", "in hand", "waiting", "tries"]
    return _section("Slowest items", _table(head, rows, texts=3), "from intake to end")


def _configuration(report: Report) -> str:
    rows = [[_stage(report, index), _options(stage)] for index, stage in enumerate(report.stages)]
    facts = [[_text(name), f"<code>{_text(value)}</code>"] for name, value in report.facts.items()]
    content = _table(["stage", "options"], rows, texts=2)
    content += f"<h3>This run</h3>\n{_table([], facts, texts=2)}"
    return _section("Configuration", content) + "</main>\n"


def _options(stage: StageFigures) -> str:
    options = {"workers": f"{stage.workers:,}"} | stage.options
    return " ".join(f"<code>{_text(f'{name}={value}')}</code>" for name, value in options.items())


def _for_script(report: Report) -> dict[str, Any]:
    drawn = report.timeline
    return {
        "pipeline": clean(report.pipeline),
        "run": clean(report.run),
        "stages": [clean(stage.name) for stage in report.stages],
        "colours": COLOURS,
        "seconds": report.duration,
        "rates": {"width": report.width, "counts": report.rates},
        "timeline": drawn,
        "failed": report.failed_ids,
    }
