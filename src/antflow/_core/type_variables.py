"""Type variables of the public classes: what a stage or pipeline takes, and what it makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    # A default lets a bare `Stage` stand in an annotation. Python itself has them from 3.13 on.
    import typing_extensions
    from typing_extensions import TypeIs as TypeIs

    T = typing_extensions.TypeVar("T", default=Any)
    # `In` is covariant so that a list of different stages is one of Stage[object, object].
    In = typing_extensions.TypeVar("In", covariant=True, default=Any)
    Taken = typing_extensions.TypeVar("Taken", contravariant=True, default=Any)
    Out = typing_extensions.TypeVar("Out", covariant=True, default=Any)

    # For functions. Bound to Any: a lambda's argument may be used in every way.
    A = typing_extensions.TypeVar("A", bound=Any, default=Any)
    B = typing_extensions.TypeVar("B", bound=Any, default=Any)
else:
    T = TypeVar("T")
    In = TypeVar("In", covariant=True)
    Taken = TypeVar("Taken", contravariant=True)
    Out = TypeVar("Out", covariant=True)
