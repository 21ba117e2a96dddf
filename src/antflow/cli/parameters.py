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

from antflow._core.error_kinds import check_stop_on
from antflow._core.failure_limit import Failures

Command = TypeVar("Command", bound=Callable[..., Any])

DIGITS = re.compile(r"[0-9]{1,15}")
RATIO = re.compile(r"0\.[0-9]{1,8}")
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
    """``N``, ``N%`` or ``0.N``, with ``/LAST`` for a window, as `Pipeline.run` takes it."""

    name = "failure limit"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | Failures:
        """The limit that a text stands for."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        most, slash, last = value.partition("/")
        limit = _count_or_share(most)
        if limit is None or (slash and not DIGITS.fullmatch(last)):
            allowed = "a number of 1 or more like 5, or a share like 2.5% or 0.025"
            allowed += "; of the last items only: 50/200 or 20%/200"
            self.fail(f"{value!r}: must be {allowed}", param, ctx)
        if not slash:
            return limit
        try:
            if isinstance(limit, int):
                return Failures(count=limit, of_last=int(last))
            return Failures(share=limit, of_last=int(last))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def _count_or_share(text: str) -> int | float | None:
    if DIGITS.fullmatch(text):
        return int(text) or None
    if percent := PERCENT.fullmatch(text):
        share = float(percent[1]) / 100
    elif RATIO.fullmatch(text):
        share = float(text)
    else:
        return None
    return share if 0 < share <= 1 else None


class ErrorNames(ParamType):
    """Names of exception classes, with commas between them, as a tuple."""

    name = "errors"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        names = tuple(name.strip() for name in value.split(","))
        try:
            check_stop_on(ValueError, "NAME", names)
        except ValueError:
            allowed = "must be names of exception classes, like AuthError or shop.errors.AuthError"
            self.fail(f"{value!r}: {allowed}", param, ctx)
        return names


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
