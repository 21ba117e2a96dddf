"""Options that do not exist: the error names the one that was most likely meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

from antflow._core.text import safe_repr

P = ParamSpec("P")
R = TypeVar("R")

SHORTEST_PART = 4
"""Letters that a part of a name must have to stand for it, as "stage" for "target_stage"."""

VERY_CLOSE = 0.9
"""How alike letters must be to count more than a name that words were added to."""

_WORKERS = ("workers", "max_workers")
_CONCURRENCY = ("workers", "max_workers", "concurrency")
_ATTEMPTS = ("attempts", "task_attempts")
_WAITS = ("task_wait_seconds", "wait")
_ERRORS = ("retry_on", "on")

SYNONYMS: dict[str, tuple[str, ...]] = {
    "abort_on": ("stop_on",),
    "backoff": ("wait",),
    "base": ("initial",),
    "batch_size": ("batch",),
    "batch_timeout": ("batch_wait",),
    "calls": ("rate",),
    "cap": ("maximum",),
    "capacity": ("queue_capacity",),
    "chunk_size": ("batch",),
    "concurrency": _WORKERS,
    "delay": _WAITS,
    "display": ("dashboard",),
    "exceptions": _ERRORS,
    "fail_fast": ("stop_on", "max_failures"),
    "func": ("tasks",),
    "function": ("tasks",),
    "give_up_on": ("give_up",),
    "max_attempts": _ATTEMPTS,
    "max_concurrency": _CONCURRENCY,
    "max_concurrent": _CONCURRENCY,
    "max_errors": ("max_failures",),
    "max_retries": _ATTEMPTS,
    "max_workers": _WORKERS,
    "maxsize": ("queue_capacity", "buffer_size"),
    "multiplier": ("factor",),
    "num_workers": _WORKERS,
    "on_error": ("on_failure", "on_failures"),
    "order": ("ordered",),
    "parallelism": _CONCURRENCY,
    "per": ("period",),
    "preserve_order": ("ordered",),
    "process": ("executor",),
    "processes": ("executor",),
    "queue_size": ("queue_capacity", "buffer_size"),
    "rate": ("limits",),
    "rate_limit": ("limits",),
    "requests": ("rate",),
    "retries": _ATTEMPTS,
    "retry_delay": _WAITS,
    "retry_exceptions": _ERRORS,
    "retry_on": ("on",),
    "retry_wait": _WAITS,
    "task_attempts": ("attempts",),
    "task_wait_seconds": ("wait",),
    "threads": ("executor",),
    "tries": _ATTEMPTS,
    "workers": ("max_workers",),
}
"""Names that options have elsewhere → what they are called here. The letters would suggest others:
"batch_wait" for "batch_size", "retry" for "retries", "call_rate" for "rate"."""


OWNERS = ("Stage", "Pipeline", "Pipeline.run", "Pipeline.stream", "Pipeline.open")
"""Calls whose options are looked for in one of the others."""

_calls: dict[str, Callable[..., Any]] = {}


def has_options(function: Callable[..., Any]) -> None:
    """Note a function whose options users may give to another one of `OWNERS`."""
    if (name := _shown(function)) in OWNERS:
        _calls[name] = function


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function: its `TypeError` for an unknown option suggests a known one.

    ``Stage(worker=3)`` then reads ``Stage(worker=3): there is no such option; did you mean
    'workers'?``. Python says something like it from 3.13 on, without the value and the known names.
    It is for functions that are called once for many items, since a call costs one frame more.
    """
    has_options(function)

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except TypeError:
            known = _names_of(function)
            for name, value in options.items():
                if name not in known:
                    refuse_unknown(function, name, value)
            raise

    return call


def refuse_unknown(function: Callable[..., Any], name: str, value: object) -> NoReturn:
    """Raise the error for an option that ``function`` does not have.

    Raises:
        TypeError: Always. It names the call, the option with its value, and a likely other one.
    """
    known = _names_of(function)
    meant = likely_meant(name, known, _shown(function)) or f"; the options are {', '.join(known)}"
    call = f"{_shown(function)}({name}={safe_repr(value)})"
    raise TypeError(f"{call}: there is no such option{meant}") from None


def likely_meant(name: str, known: Sequence[str], asked: str = "") -> str:
    """``"; Pipeline.run and Pipeline.open have it"``, or the answer of `did_you_mean`.

    Both if another call has an option of that name, and one of ``known`` differs only by an ``s``.
    ``"; Stage has 'workers'"`` if one of `OWNERS` was asked, and that is how another one calls it.
    """
    synonyms = SYNONYMS.get(name, ())
    if any(each in known for each in synonyms):
        return did_you_mean(name, known)
    owners = [call for call in OWNERS if call in _calls and name in _names_of(_calls[call])]
    listed = " and ".join(filter(None, [", ".join(owners[:-1]), *owners[-1:]]))
    if not owners:
        for call in filter(_calls.__contains__, OWNERS if asked in OWNERS else ()):
            theirs = _names_of(_calls[call])
            if meant := next((each for each in synonyms if each in theirs), None):
                return f"; {call} has {meant!r}"
        return did_you_mean(name, known)
    where = f"; {listed} {'has' if len(owners) == 1 else 'have'} it"
    return where + did_you_mean(name, [each for each in known if _is_plural(name, each)])


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """``"; did you mean 'workers'?"``, or ``""`` where no name is close."""
    if not isinstance(given, str):
        return ""
    from difflib import get_close_matches  # only when a name is wrong

    names = list(names)
    likely = [name for name in SYNONYMS.get(given, ()) if name in names]
    likely = likely or get_close_matches(given, names, 1, VERY_CLOSE)
    likely = likely or sorted((name for name in names if _is_part(name, given)), key=len)[-1:]
    likely = likely or get_close_matches(given, names, 1)
    if not likely and len(given) >= SHORTEST_PART:
        likely = [name for name in names if given in name]
    return f"; did you mean {likely[0]!r}?" if likely else ""


def _is_part(name: str, given: str) -> bool:
    """Whether a name is one to which words were added: "timeout" for "timeout_seconds"."""
    return f"_{name}_" in f"_{given}_" and len(name) >= SHORTEST_PART


def _is_plural(one: str, other: str) -> bool:
    """Whether one name is the plural of the other."""
    return one.removesuffix("s") == other.removesuffix("s")


def _shown(function: Callable[..., Any]) -> str:
    """``Stage``, ``Pipeline.run``."""
    return function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]


def _names_of(function: Callable[..., Any]) -> list[str]:
    """The options of a function: everything that can be given by name."""
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name != "self"
    ]
