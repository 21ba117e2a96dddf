"""Errors of commands: one line, and an exit code."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NoReturn

import click

from antflow._core.places import own_location_of
from antflow._core.snapshot import at_text
from antflow._core.text import clean, safe_str

SOME_FAILED = 1
RUN_FAILED = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
NOBODY_READS = 141  # 128 + SIGPIPE

LONGEST_REASON = 500


class Refusal(click.ClickException):
    """The request cannot be carried out as it stands: a bad target, file or line."""

    exit_code = 2

    def format_message(self) -> str:
        """The message, on one line and without anything a terminal would obey."""
        return clean(self.message)

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it, if standard error takes it."""
        with suppress(OSError):
            super().show(file)


class RunFailed(Refusal):
    """A run began and broke."""

    exit_code = RUN_FAILED


def reason_of(error: BaseException) -> str:
    """``KeyError: 'x'``, on one line and cut where it is very long."""
    return _reason(type(error).__name__, error)


def reason_with_place(error: BaseException) -> str:
    """``KeyError at app.py:3 in f: 'x'``, if the user's own line is known, or the task."""
    return _reason(type(error).__name__ + at_text(own_location_of(error)), error)


def _reason(what: str, error: BaseException) -> str:
    text = clean(safe_str(error)[:LONGEST_REASON])
    return f"{what}: {text}" if text else what


class OneLine(logging.Formatter):
    """Log records on one line each: of an error, what it is and where, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The message; the error is added unless the message says it."""
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and clean(safe_str(error)) not in text:
            text += f": {reason_with_place(error)}"
        return text


@contextmanager
def traced(debug: bool) -> Iterator[None]:
    """Print the traceback of the error that ends a command, if wanted, before its one line."""
    try:
        yield
    except click.ClickException as error:
        if debug:
            lines = traceback.format_exception(error.__cause__ or error)
            click.echo("".join(lines), err=True, nl=False)
        raise


def refuse(message: str, cause: BaseException | None = None) -> NoReturn:
    """Raise a `Refusal`.

    Raises:
        Refusal: Always; its cause is what ``--debug`` shows.
    """
    raise Refusal(message) from cause
