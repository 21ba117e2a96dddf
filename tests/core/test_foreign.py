"""Objects of the user's, looked at so that they break nothing."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

import pytest

from antflow._core.foreign import asked, id_of, is_a, key_of, note, notes_of, number
from tests.odd import ERRORS, Frozen


class Raising:
    """Raises what it is given when it is called."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self) -> NoReturn:
        raise self.error


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError(), BaseException()])
def test_question_that_fails_has_the_other_answer(error: BaseException) -> None:
    """A `CancelledError` too: what is asked never waits, so none can have been sent to it."""
    assert asked(Raising(error), instead="unknown") == "unknown"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_end_of_the_program_passes_a_question(error: BaseException) -> None:
    """Ctrl-C at the moment something is asked ends the program as at any other."""
    with pytest.raises(type(error)):
        asked(Raising(error), instead="unknown")


def test_end_of_the_program_passes_a_metaclass() -> None:
    """The same in ``issubclass``, which asks the metaclass of what is looked for."""

    class Meta(type):
        def __subclasscheck__(cls, other: object) -> bool:
            raise KeyboardInterrupt

    kind: Any = Meta("Kind", (), {})
    with pytest.raises(KeyboardInterrupt):
        is_a(1, kind)


def test_id_that_is_not_equal_to_itself_is_found_again() -> None:
    """NaN as an id is one id, wherever it is looked up; another NaN is another id."""
    for item_id, other in [(float("nan"), float("nan")), (Strange(), Strange())]:
        found = {key_of(item_id): "it"}
        assert found.get(key_of(item_id)) == "it"
        assert found.get(key_of(other)) is None
        assert id_of(key_of(item_id)) is item_id


class Strange:
    """Not equal to itself, and of one hash with all its kind."""

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("kind", ERRORS)
def test_note_on_any_error(kind: str) -> None:
    """It is added once, whatever the class does to its attributes, and other notes stay."""
    error = ERRORS[kind]()
    has_place = type(asked(getattr, error, "__notes__", None, instead=0)) in (list, type(None))
    note(error, "advice")
    note(error, "advice")
    assert notes_of(error) == (["advice"] if has_place else [])
    note(error, "more")
    assert notes_of(error) == (["advice", "more"] if has_place else [])


def test_note_beside_those_of_the_user() -> None:
    """Notes of the user's own stay, and are not told as the library's."""
    error = Frozen()
    BaseException.__setattr__(error, "__notes__", ["mine"])
    note(error, "advice")
    assert error.__notes__ == ["mine", "advice"]
    assert notes_of(error) == ["advice"]
    odd = ValueError()
    odd.__notes__ = ("mine",)  # type: ignore[assignment]
    note(odd, "advice")
    assert odd.__notes__ == ("mine",)  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(("value", "read"), [(1, 1), (0.5, 0.5), (True, None), ("1", None)])
def test_numbers_are_numbers_and_nothing_else(value: object, read: float | None) -> None:
    """``True`` is not a number, although Python counts with it."""
    assert number(value) == read


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Decimal("1.5"), 1.5),
        (Decimal(2), 2.0),
        (Fraction(1, 2), 0.5),
        (Decimal("sNaN"), None),
        (1 + 0j, None),
        ("1.5", None),
    ],
)
def test_number_of_a_decimal_is_its_float(value: Any, plain: float | None) -> None:
    """A `Decimal` is taken where any number will do; a complex number and a text are not."""
    assert number(value) == plain
