"""The shapes of tasks, for type checkers. Never imported at run time.

``Stage[In, Out]`` says what a stage takes and what it makes of it. Checkers work that out from the
tasks. Where they cannot, it is ``Any`` and never a guess. Two tricks stand behind that:

- The type of ``[first, second]`` is a mixture, and a mixture fits almost anything. `ListOf` asks a
  list for what comes out of it *and* what may be put in, which no mixture answers with one type.
- `Unknown` is a class that nothing returns. A list that would take a task returning it, or a stage
  giving it, has an element of which nothing is known.

A tuple has a length, so first and last can be told apart.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from types import CoroutineType
from typing import Any, Concatenate, Protocol, TypeVar

from antflow._core.errors import Drop
from antflow._core.type_variables import A, B

Fed = TypeVar("Fed", contravariant=True)
Put = TypeVar("Put", contravariant=True)
Got = TypeVar("Got", covariant=True)


class Unknown:
    """Nothing returns one; a list that would take it takes everything."""


class Anything:
    """The same for a lambda, which may do anything with it."""

    def __getattr__(self, name: str) -> Any: ...

    __add__: Any
    __radd__: Any
    __sub__: Any
    __rsub__: Any
    __mul__: Any
    __rmul__: Any
    __truediv__: Any
    __floordiv__: Any
    __mod__: Any
    __pow__: Any
    __neg__: Any
    __lt__: Any
    __le__: Any
    __gt__: Any
    __ge__: Any
    __getitem__: Any
    __iter__: Any
    __contains__: Any
    __len__: Any
    __int__: Any
    __float__: Any


# Tasks may drop the item, and those with resources take them by keyword.
Dropped = type[Drop] | Drop
AsyncTask = Callable[[A], Awaitable[B | Dropped]]
PlainTask = Callable[[A], B | Dropped]
AsyncTaskWith = Callable[Concatenate[A, ...], Awaitable[B | Dropped]]
PlainTaskWith = Callable[Concatenate[A, ...], B | Dropped]
Values = Iterable[B | Dropped] | AsyncIterable[B | Dropped]
ExpandingTask = Callable[[A], Values[B] | Awaitable[Values[B]]]
Answers = Sequence[B | Dropped | Exception]
BatchTask = Callable[[list[A]], Answers[B] | Awaitable[Answers[B]]]
ResourceFactories = Mapping[str, Callable[..., Any]]

# First and last of a tuple. The types between them are ignored.
TasksEndingAsync = tuple[
    PlainTaskWith[A, Any], *tuple[Callable[..., Any], ...], AsyncTaskWith[Any, B]
]
TasksEndingPlain = tuple[
    PlainTaskWith[A, Any], *tuple[Callable[..., Any], ...], PlainTaskWith[Any, B]
]

# A list in which all tasks have one type. Checkers agree neither on the class of a coroutine, nor
# on what may be asked of a generic protocol: there is one for each.


class ListOf(Protocol[Got, Put]):
    def pop(self) -> Got: ...
    def append(self, object: Put, /) -> None: ...


class AsyncTasks(Protocol[Fed, B]):
    def pop(self) -> AsyncTaskWith[Fed, B]: ...
    def append(self, object: Callable[..., Coroutine[Any, Any, B]], /) -> None: ...


class DroppingTasks(Protocol[Fed, B]):
    def pop(self) -> Callable[Concatenate[Fed, ...], Awaitable[B | type[Drop]]]: ...
    def append(self, object: Callable[..., Coroutine[Any, Any, B | type[Drop]]], /) -> None: ...


class DroppingPlainTasks(Protocol[Fed, B]):
    def pop(self) -> Callable[Concatenate[Fed, ...], B | type[Drop]]: ...
    def append(self, object: Callable[..., B | type[Drop]], /) -> None: ...


CoroutineTasks = ListOf[AsyncTaskWith[A, B], Callable[..., CoroutineType[Any, Any, B]]]
PlainTasks = ListOf[PlainTaskWith[A, B], Callable[..., B]]

# A list with a task of which nothing is known.


class Takes(Protocol[Put]):
    def append(self, object: Put, /) -> None: ...


class TakesPlain(Protocol):
    def append(self, object: Callable[..., Unknown], /) -> None: ...


class TakesAsync(Protocol):
    def append(self, object: Callable[..., Coroutine[Any, Any, Unknown]], /) -> None: ...


UnknownTask = Callable[[Unknown], Unknown | Awaitable[Unknown]]
AnyTask = Callable[[Anything], Anything | Awaitable[Anything]]
UnknownTasks = (
    Takes[Callable[..., Unknown]]
    | Takes[Callable[..., CoroutineType[Any, Any, Unknown]]]
    | TakesPlain
    | TakesAsync
)

SkipIf = Callable[[Any], bool | Awaitable[bool]]

ItemsOf = Iterable[A | Mapping[str, Any]] | AsyncIterable[A | Mapping[str, Any]]
"""The items `Pipeline.run` takes: values, and dicts with an ``"id"``."""
