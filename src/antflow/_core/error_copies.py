"""Exceptions that leave their process: for the parent of a child process, or into a pickle.

Many exception classes do not survive `pickle`: it calls the class with ``error.args``, but the
constructor wants other arguments than those it passed on, or makes a different text of them. So an
exception travels in two forms: the parts that pickle would rebuild it from, and a description in
words. The receiver rebuilds it from the parts, with and without calling its class, and takes the
copy whose text matches the words. If it cannot rebuild the exception, it makes a stand-in from the
words.

Each error in a group also travels by itself, so one that cannot be sent does not affect the others.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from antflow._core.errors import AntFlowError
from antflow._core.foreign import (
    asked,
    cause_of,
    context_of,
    is_a,
    members_of,
    message_of,
    set_cause,
    traceback_of,
)
from antflow._core.groups import leaves
from antflow._core.places import Place, place_of
from antflow._core.text import safe_str

MOST_REPEATS = 1_000
"""How often the errors in a group may be repeated in it, for its traceback to have them."""

_qualified_name_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__


class Failure(NamedTuple):
    """An exception in words.

    Attributes:
        module: The module of its class.
        name: The qualified name of its class.
        text: Its ``str()``.
        traceback: Its traceback, as printed.
        message: The message of a group.
        inside: The errors in a group, however deep, each `packed`.
        place: The line of the user's own code that it comes from, if known.
    """

    module: str
    name: str
    text: str
    traceback: str
    message: str = ""
    inside: tuple[Parcel, ...] = ()
    place: Place | None = None


class OriginalTraceback(Exception):
    """The cause of a copied exception: the traceback of the original, as text.

    Args:
        text: The text.
        place: The line of the user's own code that the original comes from, if known.
    """

    def __init__(self, text: str, place: Place | None = None) -> None:
        super().__init__(text)
        self.place = place

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class StandInError(AntFlowError):
    """Stands for an exception that cannot be copied between processes, or unpickled.

    The class of the stand-in is a subclass of this one, with the name of the original's class.

    Attributes:
        type_name: The original's class, with its module: ``"shop.errors.OutOfStock"``.
        traceback_text: The original's traceback, as printed.
    """

    type_name: str = ""
    traceback_text: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        failure = Failure(kind.__module__, kind.__qualname__, str(self), self.traceback_text)
        return stand_in, (failure,)


class Parcel(NamedTuple):
    """An exception ready to be sent. Its parts are a separate pickle, so that they may fail.

    Attributes:
        parts: See `in_parts`.
        failure: The exception in words.
    """

    parts: bytes
    failure: Failure


def packed(error: BaseException) -> Parcel:
    """Make an exception ready to be pickled, whatever its class does."""
    return Parcel(in_parts(error), in_words(error))


def unpacked(parcel: Parcel) -> BaseException:
    """The exception that was `packed`, or its stand-in; see `copied`."""
    import pickle  # here and below only when an error leaves its process

    try:
        # From bytes that are being unpickled anyway.
        parts = pickle.loads(parcel.parts)  # noqa: S301
    except KeyboardInterrupt:
        raise
    except BaseException:  # why: the object's own code; even SystemExit concerns only this error
        parts = None
    return copied(parts, parcel.failure)


def in_parcels(answers: Any) -> Any:
    """A task's answers to a batch, with the exceptions among them `packed`."""
    if not is_a(answers, (list, tuple)):
        return answers
    return [packed(each) if is_a(each, BaseException) else each for each in answers]


def out_of_parcels(answers: Any) -> Any:
    """The answers that `in_parcels` was given, with copies of the exceptions."""
    if type(answers) is not list:
        return answers
    return [unpacked(each) if type(each) is Parcel else each for each in answers]


def copy_of(error: BaseException) -> BaseException:
    """A copy of an exception, or its stand-in, that keeps no frame alive; see `copied`."""
    import pickle

    parts = None
    if not is_a(error, BaseExceptionGroup):  # whose errors have frames, too
        reduced = asked(error.__reduce_ex__, pickle.HIGHEST_PROTOCOL, instead=None)
        parts = reduced[:3] if is_a(reduced, tuple) else None
    return copied(parts, in_words(error))


def in_words(error: BaseException, own_frames: int = 0) -> Failure:
    """Describe an exception, whatever its methods do.

    Args:
        error: The exception.
        own_frames: How many outermost frames to leave out: those that made the call.
    """
    kind = type(error)
    name = str.__str__(_qualified_name_of(kind))
    module = asked(_module_of, kind, instead="")
    frames = traceback_of(error)
    cause = cause_of(error)
    if frames is None and is_a(cause, OriginalTraceback):  # it was copied before
        text = safe_str(cause.args[0])
    else:
        for _ in range(own_frames):
            frames = frames and frames.tb_next
        lines = None
        if not _repeats_itself(error):
            lines = asked(traceback.format_exception, kind, error, frames, instead=None)
        if lines is None:
            head = "Traceback (most recent call last):\n" if frames else ""
            lines = [head, *traceback.format_tb(frames), f"{name}: {safe_str(error)}\n"]
        text = "".join(lines)
    failure = Failure(safe_str(module), name, safe_str(error), text, place=place_of(error))
    if is_a(error, BaseExceptionGroup):
        inside = tuple([packed(leaf) for leaf in leaves(error)])
        failure = failure._replace(message=message_of(error), inside=inside)
    return failure


def _repeats_itself(error: BaseException) -> bool:
    """Whether `traceback` would come by the same errors more than `MOST_REPEATS` times.

    It goes through a group again for each group that has it as a member. So groups that share their
    members take exponential time, and only the first few are printed.
    """
    todo, seen, repeats = [error], {id(error)}, 0
    while todo:
        part = todo.pop()
        for link in (cause_of(part), context_of(part)):
            if link is not None and id(link) not in seen:
                todo.append(link)
                seen.add(id(link))
        if is_a(part, BaseExceptionGroup):
            members = members_of(part)
            todo += members
            repeats += sum(id(each) in seen for each in members)
            if repeats > MOST_REPEATS:
                return True
            seen.update(map(id, members))
    return False


def in_parts(error: BaseException) -> bytes:
    """As much of an exception as can be pickled, for `copied`.

    That is all of it, or all but its attributes, or its class and text, or ``None``.
    """
    import pickle

    forms: list[Any] = [(type(error), (safe_str(error),))]
    whole = asked(lambda: error.__reduce_ex__(pickle.HIGHEST_PROTOCOL), instead=None)
    if is_a(whole, tuple):
        forms = [whole[:3], whole[:2], *forms]
    for parts in forms:
        body = asked(pickle.dumps, parts, pickle.HIGHEST_PROTOCOL, instead=None)
        if body is not None:
            return body
    return pickle.dumps(None)


def copied(parts: Any, failure: Failure) -> BaseException:
    """A copy of an exception, or its stand-in.

    Args:
        parts: The unpickled result of `in_parts`; ``None`` if it could not be loaded.
        failure: The same exception in words.

    Returns:
        The exception; its cause is an `OriginalTraceback`.
    """
    built = [_built(make, parts, failure) for make in (_constructed, _bare)]
    copies = [copy for copy in built if copy is not None]
    alike = [copy for copy in copies if safe_str(copy) == failure.text]
    error = (alike or copies or [_grouped(failure) if failure.inside else stand_in(failure)])[0]
    set_cause(error, OriginalTraceback(failure.traceback, failure.place))
    return error


def _grouped(failure: Failure) -> BaseException:
    errors = [unpacked(parcel) for parcel in failure.inside]
    return BaseExceptionGroup(failure.message, errors)


def stand_in(failure: Failure) -> StandInError:
    """A stand-in for an exception, with its name and text."""
    name = failure.name.rpartition(".")[2]
    names = {"__module__": failure.module, "__qualname__": failure.name}
    error: StandInError = type(name, (StandInError,), names)(failure.text)
    error.type_name = f"{failure.module}.{failure.name}"
    error.traceback_text = failure.traceback
    error.add_note(f"this stands for a {error.type_name}, which cannot be pickled")
    return error


def _built(make: Callable[..., Any], parts: Any, failure: Failure) -> BaseException | None:
    try:
        error = make(*parts[:2])
    except BaseException:  # why: the object's own code may raise anything
        return None
    try:
        error.__setstate__(parts[2])
    except BaseException:  # noqa: S110 # why: the same; do without its attributes
        pass
    is_it = is_a(error, BaseException) and _qualified_name_of(type(error)) == failure.name
    return error if is_it else None


def _constructed(kind: Callable[..., Any], arguments: Any) -> Any:
    return kind(*arguments)


def _bare(kind: Any, arguments: Any) -> Any:
    return kind.__new__(kind, *arguments)
