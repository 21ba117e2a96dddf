"""Options that several functions share, said once: in a `TypedDict`, with type and check.

    class RunOptions(TypedDict, total=False):
        timeout: Annotated[float | None, check_timeout]

    @shares(RunOptions)
    def run(self, items: Items, **options: Unpack[RunOptions]) -> None:
        check_options(Pipeline.run, RunOptions, options)

Type checkers read the `TypedDict`, `check_options` reads the checks, and `shares` shows each option
in the signature, where `help` and notebooks look.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_type_hints

from antflow._core.checks import Check
from antflow._core.misspellings import has_options, refuse_unknown

Function = TypeVar("Function", bound=Callable[..., Any])


def shares(kind: Any) -> Callable[[Function], Function]:
    """Decorate a function that takes ``**options`` of this kind: its signature lists them.

    The function itself stays as it is: a call costs nothing more.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if hint is bool else None,
                annotation=hint,
            )
            for name, hint in _types_of(kind).items()
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *options]
        )
        has_options(function)
        return function

    return decorate


def check_options(function: Callable[..., Any], kind: Any, given: Any) -> None:
    """Refuse the first option that does not exist or has a value that is not allowed.

    A number of another class is replaced by a plain one.

    Args:
        function: The function that was called.
        kind: The `TypedDict`. The metadata of each annotation are its checks.
        given: The options, a dict of this kind.

    Raises:
        TypeError: There is no such option.
        ValueError: A value is not allowed.
    """
    checks = _checks_of(kind)
    for name, value in given.items():
        if name not in checks:
            refuse_unknown(function, name, value)
        for check in checks[name]:
            if (plain := check(ValueError, name, value)) is not None:
                given[name] = plain


_types_of = cache(get_type_hints)


@cache
def _checks_of(kind: Any) -> dict[str, tuple[Check, ...]]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
