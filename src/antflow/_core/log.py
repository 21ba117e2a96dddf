"""The library's logger, and safe functions that write to it.

Handlers, filters and the errors in a record belong to the user. If they raise, that record is lost
and nothing else happens.

The logger has no handler of its own. Python would print warnings without any handler to standard
error; the library's are not made then, except for three: that items failed, that a display did, and
that the environment names a display that does not exist (`alert`).
"""

from __future__ import annotations

import logging
from functools import partial

from antflow._core.foreign import asked, traceback_of

_logger = logging.getLogger("antflow")


def warn(message: str, *args: object, error: BaseException | None = None) -> None:
    """Log a warning, if the program has set up logging.

    Args:
        message: The message, with ``%s`` for each of ``args``.
        args: Texts, already safe.
        error: The error whose traceback is logged with it.
    """
    if asked(_logger.hasHandlers, instead=True):
        _log(logging.WARNING, message, args, error)


def alert(message: str, *args: object, error: BaseException | None = None) -> None:
    """Log a warning that is printed to standard error if the program has not set up logging.

    The traceback of ``error`` is logged with it, but not printed.
    """
    is_logged = error is not None and asked(_logger.hasHandlers, instead=True)
    _log(logging.WARNING, message, args, error if is_logged else None)


def hears_info() -> bool:
    """Whether `info` does anything."""
    return asked(_logger.isEnabledFor, logging.INFO, instead=False)


def info(message: str, *args: object) -> None:
    """Log at level INFO; see `warn`."""
    _log(logging.INFO, message, args, None)


def debug(message: str, *args: object, error: BaseException | None = None) -> None:
    """Log at level DEBUG; see `warn`."""
    _log(logging.DEBUG, message, args, error)


def _log(level: int, message: str, args: tuple[object, ...], error: BaseException | None) -> None:
    exc_info = None if error is None else (type(error), error, traceback_of(error))
    record = partial(_logger.log, level, message, *args, exc_info=exc_info, stacklevel=4)
    asked(record, instead=None)
