"""Which stream displays use, whether it is a terminal to draw on, and with which colors."""

from __future__ import annotations

import os
import sys
from typing import IO, TextIO, TypeGuard

from rich.console import Console


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream leads to a terminal, as far as it can tell."""
    if type(stream).__module__.startswith("idlelib"):
        return False  # the window of IDLE says it is one, and knows no escape sequences
    try:
        return stream is not None and stream.isatty()
    except Exception:
        return False  # closed, or a stand-in that is not really a stream


def display_stream() -> TextIO | None:
    """Where displays draw: standard error, or standard output if only that is a terminal."""
    if is_terminal(sys.stdout) and not is_terminal(sys.stderr):
        return sys.stdout
    return sys.stderr


def is_build_server() -> bool:
    """Whether this is a build server, as the environment says."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def can_draw_on(stream: TextIO | None) -> TypeGuard[TextIO]:
    """Whether a stream is a terminal that can be drawn on.

    These are not: a stream that leads elsewhere, a "dumb" terminal (or on POSIX one without a
    name), and the terminal of a build server.
    """
    name = os.environ.get("TERM", "" if os.name == "posix" else "windows").lower()
    return is_terminal(stream) and name not in ("", "dumb", "unknown") and not is_build_server()


def terminal_console(stream: IO[str]) -> Console:
    """A rich console that treats a stream as a terminal."""
    return Console(file=stream, force_terminal=True, force_jupyter=False)


def colors_of(stream: TextIO) -> str:
    """The colors of a terminal, as far as it tells: "truecolor", "256", "standard" or "none"."""
    console = terminal_console(stream)
    return (not console.no_color and console.color_system) or "none"
