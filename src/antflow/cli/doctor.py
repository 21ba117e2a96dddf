"""`antflow doctor`: what is installed, and what the terminal can do. It never fails."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from antflow import __version__
from antflow._core.text import clean
from antflow._monitor.display_choice import VARIABLE, automatic_display

EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
REQUIRED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FOR_DEVELOPERS = {"all", "dev", "docs", "test"}
TERMINAL_VARIABLES = (
    *("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "CI", "COLUMNS", "LINES", VARIABLE),
)


@click.command("doctor", short_help="Show versions, terminal and displays, for a bug report.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show versions, extras, what the terminal can do, which display it gets, and the event loop.

    The output is for bug reports. It shows nothing secret: only those environment variables that
    concern the terminal.
    """
    answers = {name: answer(ask) for name, ask in QUESTIONS}
    if as_json:
        click.echo(json.dumps(answers, indent=2))
        return
    for name, text in answers.items():
        click.echo(f"{name:12} {text}")


def answer(ask: Callable[[], str]) -> str:
    """The answer to a question, or why there is none."""
    try:
        return clean(ask())
    except Exception as error:
        return clean(f"not known ({type(error).__name__}: {error})")


def antflow_version() -> str:
    """The version of antflow, and its location."""
    return f"{__version__} ({Path(__file__).parents[1]})"


def python_version() -> str:
    """The version of Python, and its platform."""
    name = platform.python_implementation()
    return f"{name} {platform.python_version()} ({sys.executable}), {platform.platform()}"


def required() -> str:
    """The packages that antflow always needs."""
    return ", ".join(versions(None))


def extras() -> str:
    """Each extra with its packages, installed or not."""
    names = metadata.metadata("antflow").get_all("Provides-Extra") or []
    described = [
        f"{name} ({', '.join(versions(name))})" for name in names if name not in FOR_DEVELOPERS
    ]
    return ", ".join(described) or "none"


def versions(extra: str | None) -> list[str]:
    """``name version`` of each requirement of an extra; ``None`` = of those without one."""
    found = []
    for requirement in metadata.requires("antflow") or []:
        package, needed_by = REQUIRED.match(requirement), EXTRA.search(requirement)
        if package and extra == (needed_by[1] if needed_by else None):
            found.append(f"{package[0]} {version_of(package[0])}")
    return found


def version_of(package: str) -> str:
    """The installed version of a package, or that there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def stream(name: str) -> str:
    """A standard stream: where it leads, its size, colors and characters."""
    file: Any = getattr(sys, name)
    if file is None or file.closed:
        return "closed"
    encoding = file.encoding or "no encoding"
    if not file.isatty():
        return f"no terminal, {encoding}"
    # Here and not above: drawing is imported only when it is asked about.
    from antflow.display.environment import colors_of

    columns, rows = os.get_terminal_size(file.fileno())
    return f"terminal of {columns} x {rows}, colors: {colors_of(file)}, {encoding}{bars(file)}"


def bars(file: Any) -> str:
    """Which characters bars can be drawn with."""
    from antflow.display.canvas import UNICODE, glyphs_for, known_encoding

    glyphs = glyphs_for(known_encoding(file.encoding or "ascii"))
    return ", Unicode bars" if glyphs is UNICODE else ", ASCII bars"


def surroundings() -> str:
    """Whether this is a notebook, a build server, or neither."""
    from antflow.display.environment import display_stream, is_build_server
    from antflow.display.notebook import kernel_display

    if kernel_display(display_stream()) is not None:
        return "in the kernel of a notebook"
    if "JPY_PARENT_PID" in os.environ:
        return "started by the kernel of a notebook; in its cells other displays may be drawn"
    if is_build_server():
        return f"on a build server, as CI={os.environ['CI']} says"
    return "neither in a notebook nor on a build server"


def automatic() -> str:
    """The display that ``dashboard="auto"`` would be here, and why."""
    # Here and not above: drawing is imported only when it is asked about.
    from antflow.display.environment import display_stream

    if automatic_display() == "none":
        return f"none, because {said()}"
    return drawn_on("stderr" if display_stream() is sys.stderr else "stdout")


def drawn_on(name: str) -> str:
    """The display on one of the streams, and why."""
    # Here and not above: drawing is imported only when it is asked about.
    from antflow.display import create
    from antflow.display.environment import can_draw_on

    file: Any = getattr(sys, name)
    if can_draw_on(file):
        choice = automatic_display()
        why = f"{name} is a terminal" if choice == "auto" else said()
        return f"{type(create(choice)).__name__}, because {why}"
    return f"plain lines, because {why_not_drawn(name, file)}"


def said() -> str:
    """How the environment chooses a display."""
    return f"{VARIABLE}={os.environ[VARIABLE]} is set"


def why_not_drawn(name: str, file: Any) -> str:
    """The reason why a display cannot be drawn on a stream."""
    from antflow.display.environment import is_build_server

    if file is None or file.closed or not file.isatty():
        return f"{name} is not a terminal"
    if is_build_server():
        return f"CI={os.environ['CI']} is set"
    term = os.environ.get("TERM")
    return "TERM is not set" if not term else f"TERM={term}"


def environment() -> str:
    """The variables that change how things are drawn."""
    given = [f"{name}={os.environ[name]}" for name in TERMINAL_VARIABLES if name in os.environ]
    return " ".join(given) or "nothing set"


def event_loop() -> str:
    """The event loop that a run would get."""
    loop = asyncio.new_event_loop()
    try:
        kind = type(loop)
        return f"{kind.__module__}.{kind.__qualname__}"
    finally:
        loop.close()


QUESTIONS: list[tuple[str, Callable[[], str]]] = [
    ("antflow", antflow_version),
    ("python", python_version),
    ("needs", required),
    ("extras", extras),
    ("stdout", lambda: stream("stdout")),
    ("stderr", lambda: stream("stderr")),
    ("environment", environment),
    ("runs", surroundings),
    ("auto", automatic),
    ("event loop", event_loop),
]
