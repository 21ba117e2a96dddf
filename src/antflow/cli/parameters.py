"""The values of options, with one grammar for numbers: the digits 0 to 9.

No sign, no underscore, no exponent, no digits of other scripts: `int` would take all of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])

DIGITS = re.compile(r"[0-9]{1,15}")
PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")


if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic since click 8.2


class Count(ParamType):
    """A whole number.

    Args:
        minimum: The smallest allowed.
        maximum: The largest allowed; ``None`` = any of up to 15 digits.
    """

    name = "count"

    def __init__(self, minimum: int = 0, maximum: int | None = None) -> None:
        self.minimum = minimum
        self.maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that a text stands for."""
        if isinstance(value, int):
            return value
        most = inf if self.maximum is None else self.maximum
        if not DIGITS.fullmatch(value) or not self.minimum <= int(value) <= most:
            self.fail(f"{value!r}: must be {self.allowed}", param, ctx)
        return int(value)

    @property
    def allowed(self) -> str:
        """The allowed numbers, in words."""
        if self.maximum is None:
            return f"a whole number of {self.minimum} or more, in plain digits"
        return f"a whole number from {self.minimum} to {self.maximum}, in plain digits"


class Delimiter(ParamType):
    """One character that may stand between columns; ``tab`` is a tab."""

    name = "delimiter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The character."""
        if value in ("tab", "\\t"):
            return "\t"
        if len(value) != 1 or value in '"\r\n\0 ':
            self.fail(f"{value!r}: must be one character, or tab", param, ctx)
        return str(value)


class StageWorkers(ParamType):
    """``Stage=N``: a stage and its workers, as a pair."""

    name = "stage workers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """The pair. The last ``=`` divides it, so that a name may have one."""
        if isinstance(value, tuple):
            return value
        stage, equals, number = value.rpartition("=")
        if not equals or not stage:
            self.fail(f"{value!r}: must be STAGE=N", param, ctx)
        # Whether that many are allowed is for the stage to say.
        return stage, Count(1).convert(number, param, ctx)


class FailureLimit(ParamType):
    """``N`` or ``N%``: an int, or a ratio between 0.0 and 1.0, as `Pipeline.run` takes it."""

    name = "failure limit"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float:
        """The limit that a text stands for."""
        if isinstance(value, (int, float)):
            return value
        percent = PERCENT.fullmatch(value)
        if percent and 0 < float(percent[1]) <= 100:
            return float(percent[1]) / 100
        if not DIGITS.fullmatch(value) or not int(value):
            allowed = "a whole number of 1 or more, or a percentage like 2.5%"
            self.fail(f"{value!r}: must be {allowed}", param, ctx)
        return int(value)


def takes_target(command: Command) -> Command:
    """Add the argument and the options that choose the pipeline."""
    target = click.argument("target", shell_complete=complete_file)
    folder = click.option(
        "--app-dir",
        default=".",
        metavar="DIR",
        show_default=True,
        help="Folder in which to look up the module.",
        shell_complete=complete_folder,
    )
    debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    return target(folder(debug(command)))


def complete_file(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows its files."""
    return [CompletionItem(begun, type="file")]


def complete_folder(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows its folders."""
    return [CompletionItem(begun, type="dir")]
