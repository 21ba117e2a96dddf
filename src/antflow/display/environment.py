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


_WRAPPING_NAMES = ("tmux", "xterm-kitty", "xterm-ghostty", "alacritty", "foot", "wezterm")
_WRAPPING_PROGRAMS = {"iTerm.app", "WezTerm", "ghostty", "vscode", "Apple_Terminal"}
_WRAPPING_VARIABLES = ("VTE_VERSION", "KONSOLE_VERSION", "WT_SESSION", "KITTY_WINDOW_ID")


def wraps_again() -> bool:
    """Whether the terminal wraps lines that are on the screen when it becomes narrower.

    There is no way to ask a terminal. One that is not known counts as one that cuts lines off, as
    xterm does: if that is wrong, pieces of a frame stay; the other mistake would erase lines.
    """
    known = os.environ.get
    name = known("TERM", "").lower()
    if name.startswith("screen"):  # tmux may call itself so
        return bool(known("TMUX"))
    if name.startswith(_WRAPPING_NAMES):
        return True
    if not name.startswith("xterm") or known("XTERM_VERSION") or known("INSIDE_EMACS"):
        return False
    return known("TERM_PROGRAM") in _WRAPPING_PROGRAMS or any(map(known, _WRAPPING_VARIABLES))


def terminal_console(stream: IO[str]) -> Console:
    """A rich console that treats a stream as a terminal."""
    return Console(file=stream, force_terminal=True, force_jupyter=False)


def colors_of(stream: TextIO) -> str:
    """The colors of a terminal, as far as it tells: "truecolor", "256", "standard" or "none"."""
    console = terminal_console(stream)
    return (not console.no_color and console.color_system) or "none"
