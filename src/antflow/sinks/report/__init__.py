"""The report of a run: one page, or the same in Markdown.

`RunFigures` gathers what happened, event by event, from a `ReportSink` or from an `EventLog`; both
make a `Report` of it, and `page` and `markdown` write that down.
"""
