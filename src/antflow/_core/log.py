"""The library's logger, and safe functions that write to it.

Handlers, filters and the errors in a record belong to the user. If they raise, that record is lost
and nothing else happens.
"""

from __future__ import annotations

import logging
from functools import partial

from antflow._core.foreign import asked, traceback_of

_logger = logging.getLogger("antflow")


def warn(message: str, *args: object, error: BaseException | None = None) -> None:
    """Log a warning.

    Args:
        message: The message, with ``%s`` for each of ``args``.
        args: Texts, already safe.
        error: The error whose traceback is logged with it.
    """
    _log(logging.WARNING, message, args, error)


def debug(message: str, *args: object, error: BaseException | None = None) -> None:
    """Log at level DEBUG; see `warn`."""
    _log(logging.DEBUG, message, args, error)


def _log(level: int, message: str, args: tuple[object, ...], error: BaseException | None) -> None:
    exc_info = None if error is None else (type(error), error, traceback_of(error))
    record = partial(_logger.log, level, message, *args, exc_info=exc_info, stacklevel=4)
    asked(record, instead=None)
