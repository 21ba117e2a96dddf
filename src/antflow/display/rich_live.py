"""Detects a user's own `rich.live.Live` (a progress bar, a status)."""

from __future__ import annotations

import sys
from typing import TextIO, cast

import rich
from rich.console import Console
from rich.file_proxy import FileProxy


def is_live_up() -> bool:
    """Whether a `Live` is drawing on standard output, or on the console of the whole program."""
    proxies = isinstance(sys.stdout, FileProxy) or isinstance(sys.stderr, FileProxy)
    return proxies or _live_console() is not None


def stream_above(stream: TextIO | None) -> TextIO | None:
    """A standard stream, wrapped so that text appears above a `Live`."""
    console = _live_console()
    if console is None or stream is None or isinstance(stream, FileProxy):
        return stream
    return cast(TextIO, FileProxy(console, stream))


def _live_console() -> Console | None:
    """The program's console if a `Live` is on it.

    One that does not redirect standard output is known only to its console, which has no public way
    to ask. The console is not made by asking: its colors would be settled too early.
    """
    console: Console | None = getattr(rich, "_console", None)
    live = getattr(console, "_live_stack", None) or getattr(console, "_live", None)
    return console if live else None
