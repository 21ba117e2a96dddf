"""Lists and tuples of stages, for type checkers. Never imported at run time; see `task_types`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from antflow._core.stage import Stage
from antflow._core.task_types import ListOf, Takes, Unknown
from antflow._core.type_variables import A, B


class Mixed(Unknown, Sequence[Any]):
    """A checker takes text and bytes together for a sequence."""


class UnknownStage(Stage[Any, Mixed]):
    """Fits where any stage would."""


class TakesStages(Protocol):
    def append(self, object: UnknownStage, /) -> None: ...


# A variable, so that nothing but its own type is expected of the list.
UnknownStages = TypeVar("UnknownStages", bound=Takes[UnknownStage] | TakesStages)
"""A list with a stage of which nothing is known."""

SameStages = ListOf[Stage[A, B], Stage[A, B]]
"""A list in which all stages have one type."""

FirstToLast = tuple[Stage[A, Any], *tuple[Stage[Any, Any], ...], Stage[Any, B]]
"""First and last of a tuple of stages."""
