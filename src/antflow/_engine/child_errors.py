"""Exceptions that go from a child process to its parent.

Many classes of exceptions do not survive `pickle`: it calls the class again with ``error.args``,
and the constructor asks for other arguments than those it passed on, or makes another text of them.
So an exception travels in two forms: the parts that pickle would build it from, and its words. The
parent builds it from the parts, with and without calling its class, takes what says the same as the
words do, and makes a stand-in from the words where nothing does.

Of a group each error travels so by itself too: one that cannot be sent takes no other down.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from antflow._core.groups import leaves
from antflow._core.text import safe_str


class Failure(NamedTuple):
    """An exception in words.

    Attributes:
        module: Where its class is from.
        name: Its class's qualified name.
        text: Its ``str()``.
        traceback: As it would be printed.
        message: What a group was given as its message.
        inside: What `in_parts` and `in_words` make of each error in a group, however deep it is.
    """

    module: str
    name: str
    text: str
    traceback: str
    message: str = ""
    inside: tuple[tuple[bytes, Failure], ...] = ()


class ChildTraceback(Exception):
    """The traceback of an exception in a child process, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class StandIn(Exception):
    """Base of what stands for an exception that cannot be sent: same name, same text."""


def in_words(error: BaseException) -> Failure:
    """Describe an exception, whatever its methods do."""
    kind = type(error)
    try:
        trace = error.__traceback__
        # Without the line of our own that made the call.
        text = "".join(traceback.format_exception(kind, error, trace and trace.tb_next))
    except Exception:
        text = f"{kind.__qualname__}, whose traceback cannot be formatted\n"
    failure = Failure(str(kind.__module__), kind.__qualname__, safe_str(error), text)
    if isinstance(error, BaseExceptionGroup):
        inside = tuple([(in_parts(leaf), in_words(leaf)) for leaf in leaves(error)])
        failure = failure._replace(message=str(error.message), inside=inside)
    return failure


def in_parts(error: BaseException) -> bytes:
    """What `copied` needs, pickled: as much of the exception as can be sent.

    All of it, or it without its attributes, or its class with its text, or ``None``.
    """
    forms: list[Any] = [(type(error), (safe_str(error),))]
    try:
        whole = error.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        forms = [whole[:3], whole[:2], *forms]
    except Exception:  # noqa: S110 - the class and the text may do
        pass
    for parts in forms:
        try:
            return pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)
        except Exception:  # noqa: S112 - the next one has less in it
            continue
    return pickle.dumps(None)


def copied(parts: Any, failure: Failure) -> BaseException:
    """An exception like the one in the child, or one that stands for it.

    Args:
        parts: What `in_parts` sent; ``None`` if it could not be loaded.
        failure: The same exception in words.

    Returns:
        The exception; its cause is a `ChildTraceback`.
    """
    built = [_built(make, parts, failure) for make in (_constructed, _bare)]
    copies = [copy for copy in built if copy is not None]
    alike = [copy for copy in copies if safe_str(copy) == failure.text]
    error = (alike or copies or [_grouped(failure) if failure.inside else _stand_in(failure)])[0]
    # Past the setters of its class: that of a frozen dataclass lets nothing be set.
    BaseException.__setattr__(error, "__cause__", ChildTraceback(failure.traceback))
    return error


def _built(make: Callable[..., Any], parts: Any, failure: Failure) -> BaseException | None:
    try:
        error = make(*parts[:2])
    except BaseException:  # why: code of the object's own, which may raise anything
        return None
    try:
        error.__setstate__(parts[2])
    except BaseException:  # noqa: S110 # why: the same; what it was made of has to do
        pass
    is_it = isinstance(error, BaseException) and type(error).__qualname__ == failure.name
    return error if is_it else None


def _constructed(kind: Callable[..., Any], arguments: Any) -> Any:
    return kind(*arguments)


def _bare(kind: Any, arguments: Any) -> Any:
    return kind.__new__(kind, *arguments)


def _grouped(failure: Failure) -> BaseException:
    errors = [copied(_loaded(parts), words) for parts, words in failure.inside]
    return BaseExceptionGroup(failure.message, errors)


def _loaded(parts: bytes) -> Any:
    try:
        return pickle.loads(parts)  # noqa: S301 - it came with the rest of the child's answer
    except BaseException:  # why: code of the object's own; its words have to do
        return None


def _stand_in(failure: Failure) -> BaseException:
    name = failure.name.rpartition(".")[2]
    names = {"__module__": failure.module, "__qualname__": failure.name}
    error: StandIn = type(name, (StandIn,), names)(failure.text)
    error.add_note(f"it stands for a {failure.module}.{failure.name}, which cannot be pickled")
    return error
