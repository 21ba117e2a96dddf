"""Kinds of errors by class and by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antflow import StandInError, TaskFailedError
from antflow._core.error_copies import packed, unpacked
from antflow._core.error_kinds import ErrorKinds, error_set, loaded_names
from antflow._core.text import safe_repr


class AuthError(Exception):
    """One of a program's own."""


class RevokedError(AuthError):
    """A derived one."""


def stand_in() -> BaseException:
    class LocalError(Exception):
        """Cannot be unpickled anywhere else."""

    error = unpacked(packed(LocalError("no")))
    assert isinstance(error, StandInError)
    return error


class Panic(BaseException):
    """As libraries in Rust raise it."""


def in_set(error: BaseException, *kinds: ErrorKinds) -> BaseException | None:
    """The part of the error that is of these kinds."""
    errors = error_set(*kinds)
    assert errors is not None
    return errors.found_in(error)


def odd() -> Exception:
    """An error whose class answers nothing."""

    class Hostile(type):
        def __getattribute__(cls, name: str) -> Any:
            raise RuntimeError(name)

        def __subclasscheck__(cls, _: Any) -> bool:
            raise RuntimeError("subclass")

    class Odd(Exception, metaclass=Hostile):
        pass

    return Odd()


@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        (AuthError, AuthError()),
        (AuthError, RevokedError()),
        ((KeyError, AuthError), RevokedError()),
        ("AuthError", RevokedError()),
        (f"{__name__}.AuthError", RevokedError()),
        ("builtins.LookupError", KeyError("x")),
        ("Exception", KeyError("x")),
        ("LocalError", stand_in()),
        (f"{__name__}.stand_in.<locals>.LocalError", stand_in()),
        ("StandInError", stand_in()),
        ("Panic", TaskFailedError("ask", Panic())),
        ("CancelledError", TaskFailedError("ask", asyncio.CancelledError())),
        ("TaskFailedError", TaskFailedError("ask", Panic())),
        (TaskFailedError, TaskFailedError("ask", Panic())),
        (ExceptionGroup, ExceptionGroup("x", [KeyError()])),
        ("ExceptionGroup", ExceptionGroup("x", [KeyError()])),
    ],
    ids=lambda value: safe_repr(value, 60),
)
def test_error_is_of_a_kind(kinds: Any, error: BaseException) -> None:
    """By its class or its name, of a base class or of what it stands for, even deep in a group."""
    assert in_set(error, (), kinds) is error
    group = BaseExceptionGroup("deep", [ValueError(), BaseExceptionGroup("er", [error])])
    assert in_set(group, kinds, ()) in (error, group, group.exceptions[1])


@pytest.mark.parametrize(
    "kinds", [KeyError, "Key", "LookupErr", "AuthErrors", f"{__name__}x.AuthError", "Error"]
)
def test_error_is_not_of_a_kind(kinds: Any) -> None:
    """A name must be all of the class's."""
    group = ExceptionGroup("some", [AuthError(), ValueError()])
    assert in_set(group, kinds) is None


def test_class_that_answers_nothing_is_known_all_the_same() -> None:
    """Its names are read without asking it."""
    error = odd()
    assert in_set(error, "Odd") is error
    assert in_set(error, type(error)) is error
    assert in_set(error, "AuthError", KeyError) is None
    assert "Odd" in loaded_names()


def test_no_kinds_are_no_set() -> None:
    """So that a run without them pays nothing for a failure."""
    assert error_set((), ()) is None


def test_names_that_are_loaded() -> None:
    """Of builtins and of a program's own, alone and with the module; others are not there."""
    names = loaded_names()
    assert {"KeyError", "AuthError", f"{__name__}.RevokedError", "Panic"} <= names
    assert "AuthErrro" not in names
