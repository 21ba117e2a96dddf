"""Errors of the journal: one family, and each can leave its process."""

from __future__ import annotations

import copy
import pickle

import pytest

import antflow
from antflow import JournalError, NotRoundTrippable, NotSerialisable

NAMES = [
    name
    for name in antflow.__all__
    if isinstance(kind := getattr(antflow, name), type) and issubclass(kind, JournalError)
]


@pytest.mark.parametrize("name", NAMES)
def test_journal_error_is_copied_and_pickled(name: str) -> None:
    """Its text is the same afterwards, and so are its attributes."""
    error: JournalError = getattr(antflow, name)("no", *["['a']", "result"] * ("Not" in name))
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize("name", NAMES)
def test_journal_error_is_made_without_calling_its_class(name: str) -> None:
    """As tblib does, which Dask installs for all exceptions."""
    kind: type[JournalError] = getattr(antflow, name)
    assert type(kind.__new__(kind, "no")) is kind


def test_every_journal_error_has_been_looked_at() -> None:
    """The list above is not empty by mistake."""
    assert len(NAMES) == 12


@pytest.mark.parametrize("kind", [NotSerialisable, NotRoundTrippable])
def test_text_of_an_error_about_a_value(kind: type[NotSerialisable]) -> None:
    """Which value, where in it, and what is wrong."""
    error = kind("a str subclass", "['rows'][3]", "result of stage 'Parse'")
    assert str(error) == "result of stage 'Parse' at ['rows'][3]: a str subclass"
    assert str(kind("a str subclass")) == "value: a str subclass"
    deep = str(kind("a str subclass", "['first']" + "[0]" * 999 + ".last"))
    assert deep.startswith("value at ['first'][0]")
    assert deep.endswith("[0].last: a str subclass")
    assert len(deep) < 250
