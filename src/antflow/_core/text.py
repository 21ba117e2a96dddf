"""Text from outside made safe: for messages, logs, terminals.

Items, ids, stage names and error texts are not trusted. They may carry escape sequences that drive
a terminal, newlines that forge log lines, or a ``__str__`` that raises.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from antflow._core.foreign import asked, attribute, is_a, is_plain, notes_of, type_name
from antflow._core.groups import leaves

ESCAPE_SEQUENCES = r"""
      \x1b \[ [0-?]* [ -/]* [@-~]                # CSI … final byte
    | \x1b [\]PX^_] [^\x07\x1b\n]* (?: \x07 | \x1b\\ )   # OSC, DCS, SOS, PM, APC … BEL or ST
    | \x1b [ -/]* [0-~]                          # two-character sequences
    """
"""ECMA-48 §5.3-5.6: what a terminal takes as a command rather than as text.

Their one-character forms (C1) are not matched: in wrongly decoded text those are letters, and the
text after them must stay. An unterminated sequence swallows nothing either. Control characters are
removed in any case.
"""


COLLECTIONS: tuple[tuple[type, str, str, str], ...] = (
    (dict, "{}", "{", "}"),
    (list, "[]", "[", "]"),
    (tuple, "()", "(", ")"),
    (set, "set()", "{", "}"),
    (frozenset, "frozenset()", "frozenset({", "})"),
)
"""Each class, an empty one, and what is around the parts of another."""


def safe_str(value: object) -> str:
    """``str(value)`` as a plain string, or a placeholder where that raises."""
    text = asked(str, value, instead=None)
    if text is None:
        return f"<{type_name(value)}: str() failed>"
    return str.__str__(text)  # str() may answer with a subclass that has its own ideas


def safe_repr(value: object, limit: int = 80) -> str:
    """``repr(value)`` cut at ``limit`` characters, or a placeholder where that raises.

    It is one line: that of a data frame or an array of several lines is joined.
    """
    text = asked(repr, value, instead=None)
    if text is None:
        text = f"<{type_name(value)}: repr() failed>"
    text = str.__str__(text)
    if "\n" in text or "\r" in text:
        text = " ".join(text.split())
    return cut(text, limit)


def brief_repr(value: Any, limit: int = 80, *, asks: bool = True) -> str:
    """`safe_repr` at a bounded cost: of texts and collections, only what is shown is read.

    Args:
        value: The value.
        limit: The most characters.
        asks: Whether objects of other classes are asked for their ``repr()``: that is the user's
            code, and may take long. Otherwise they are shown by their class: ``<Order>``.
    """
    kind = type(value)
    if kind is str or kind is bytes:
        return cut(repr(value[:limit]), limit)
    for collection, empty, opening, closing in COLLECTIONS:
        if kind is collection:
            shown = asked(_brief_parts, value, limit, asks, instead="…")
            return cut(f"{opening}{shown}{closing}" if shown else empty, limit)
    if is_a(value, BaseExceptionGroup):  # its repr() has all errors in it, each as often as it is
        return cut(f"<{type_name(value)}>", limit)
    if asks or is_plain(value):
        return safe_repr(value, limit)
    return cut(f"<{type_name(value)}>", limit)


def _brief_parts(collection: Any, limit: int, asks: bool) -> str:
    """As many parts of a collection as are shown."""
    is_dict = type(collection) is dict
    text = ""
    for part in collection.items() if is_dict else collection:
        if (left := limit - len(text)) <= 0:
            break
        texts = [brief_repr(each, left, asks=asks) for each in (part if is_dict else (part,))]
        text += f"{', ' if text else ''}{': '.join(texts)}"
    return f"{text}," if type(collection) is tuple and len(collection) == 1 else text


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and ``…`` where it has more than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean(value: object) -> str:
    """One printable line of text that can drive no terminal and forge no log line.

    Escape sequences are removed whole, newlines become `` ⏎ ``, tabs a space, and every other
    control, bidirectional, zero-width or unencodable character becomes ``·``.
    """
    text = value if type(value) is str else safe_str(value)
    if text.isprintable():  # the usual case, at C speed; bidi and zero-width are not printable
        return text
    text = re.sub(ESCAPE_SEQUENCES, "", text, flags=re.VERBOSE)
    text = text.replace("\r\n", "\n").replace("\n", " ⏎ ").replace("\t", " ")
    return "".join(c if c.isprintable() or c == "\u3000" else _stand_in(c) for c in text)


def _stand_in(character: str) -> str:
    return " " if unicodedata.category(character) == "Zs" else "·"


def counted(number: int, noun: str) -> str:
    """``1 worker``, ``1,200 workers``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def tally(counts: Mapping[str, int], most: int) -> str:
    """``TimeoutError 7, ValueError 3, 2 more``: the ``most`` largest counts by name."""
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    shown = [f"{clean(name)} {count:,}" for name, count in ranked[:most]]
    more = [f"{len(ranked) - most:,} more"] if len(ranked) > most else []
    return ", ".join(shown + more)


def error_text(error: BaseException) -> str:
    """The error's text; for an exception group, also the first error in it; and our notes on it."""
    text = safe_str(error)
    if is_a(error, BaseExceptionGroup) and (inside := leaves(error)):
        first = safe_str(inside[0])
        text += f": {type_name(inside[0])}{': ' if first else ''}{first}"
    return "; ".join(part for part in (text, *notes_of(error)) if part)


def error_type_name(error: BaseException) -> str:
    """The name an error is counted under.

    The class name; for an exception group also the names of what is in it, as
    ``ExceptionGroup[KeyError, ValueError]``; for a `TaskFailedError` the name of what was raised.
    """
    original = original_of(error)
    if original is not error:
        return type_name(original)
    name = type_name(error)
    if is_a(error, BaseExceptionGroup):
        names = sorted({type_name(leaf) for leaf in leaves(error)})
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        return f"{name}[{shown}]"
    return name


def original_of(error: BaseException) -> BaseException:
    """The error that a `TaskFailedError` is counted as; any other error itself."""
    original = attribute(error, "original_exception")
    if is_a(original, BaseException) and attribute(error, "stands_for_original", True) is True:
        return original
    return error


def clock(seconds: float) -> str:
    """``0:05``, ``12:30``, ``1:02:03``."""
    minutes, second = divmod(int(max(seconds, 0.0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def is_encodable(text: str) -> bool:
    """Whether a text has no lone surrogates, as names of files that are not UTF-8 have them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
