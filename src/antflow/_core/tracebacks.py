"""Tracebacks for errors that are kept: they keep nothing else alive.

Results and trackers keep the error of a failed item long after its run is over. Its traceback is
made of frames, and a frame keeps alive its local variables (pages, connections) and, once it has
finished, the frame that called it; in Python 3.12 and later that is true of coroutines too. One
kept error would keep the whole run.

So a kept traceback is made of *outlines*: frames of generators that never run. They have the file,
function, line and columns of the real frames, so they print the same, but they have no variables
and no caller.

The library's own frames on the way to the user's code, and asyncio's, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FrameType, FunctionType, GeneratorType, TracebackType
from typing import Any, TypeVar

from antflow._core.errors import AntFlowError
from antflow._core.foreign import (
    attribute,
    cause_of,
    context_of,
    is_a,
    members_of,
    traceback_of,
    with_traceback,
)
from antflow._core.places import TASK, origin_of, place_of

E = TypeVar("E", bound=BaseException)

PASSED_THROUGH = (
    *("antflow._core.cancellation.", "antflow._core.value_or_error."),
    *("antflow._engine.", "antflow._monitor.", "antflow.executor."),
    *("asyncio.", "contextlib.", "contextvars.", "concurrent."),
)
"""Modules and packages whose frames come before or between the user's; they are left out."""

MOST_OUTLINES = 1000
"""The most functions whose outlines are cached: making one costs more than using it."""

_outlines: dict[int, tuple[CodeType, CodeType]] = {}


def trimmed(error: E) -> E:
    """Replace the tracebacks of an error, and of all errors that led to it, with outlines."""
    todo: list[Any] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if not is_a(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        with_traceback(each, outlined(traceback_of(each)))
        todo += [led for led in (cause_of(each), context_of(each)) if led is not None]
        if is_a(each, AntFlowError):
            todo.append(attribute(each, "original_exception"))
        if is_a(each, BaseExceptionGroup):
            todo += members_of(each)
    return error


def named(error: E, task: str) -> E:
    """Name the task in an error's traceback, if that leads through no code that says which it was.

    Code in C has no frames, and those of the standard library may be of any task. As Cython does
    for its functions, this puts a frame in front.
    """
    place = place_of(error)
    if place is None or origin_of(place.filename) == "library":
        outline = _OUTLINE.replace(
            co_filename=TASK, co_name=task, co_qualname=task, co_firstlineno=1
        )
        with_traceback(error, TracebackType(traceback_of(error), _frame_of(outline, {}), 0, 1))
    return error


def outlined(traceback: TracebackType | None) -> TracebackType | None:
    """An outline of a traceback, without the library's frames.

    If an error is raised again after it was kept, its traceback ends with its earlier outline. That
    outline stays, unless it includes the place where the error was raised this time: an object
    raised for a thousand items must not grow by a frame each time.
    """
    fresh: list[TracebackType] = []
    while traceback is not None and not _is_outline(traceback.tb_frame):
        if not _is_passed_through(traceback.tb_frame):
            fresh.append(traceback)
        traceback = traceback.tb_next
    if fresh and _passes(traceback, fresh[0]):
        traceback = None
    for each in reversed(fresh):
        outline = _outline_of(each.tb_frame)
        traceback = TracebackType(traceback, outline, each.tb_lasti, each.tb_lineno)
    return traceback


def _is_passed_through(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    if type(module) is not str:
        return False
    return f"{module}.".startswith(PASSED_THROUGH)


def _passes(traceback: TracebackType | None, place: TracebackType) -> bool:
    while traceback is not None:
        if _place(traceback) == _place(place):
            return True
        traceback = traceback.tb_next
    return False


def _place(traceback: TracebackType) -> tuple[str, str, int]:
    code = traceback.tb_frame.f_code
    return code.co_filename, code.co_qualname, traceback.tb_lineno


def _outline() -> Iterator[None]:
    yield


_OUTLINE = _outline.__code__.replace(co_names=("an outline of a frame",))
_NOTHING = _OUTLINE.co_code[-2:]
"""The last instruction. It is never reached, and pads an outline to the length it needs."""


def _is_outline(frame: FrameType) -> bool:
    return frame.f_code.co_names == _OUTLINE.co_names


def _outline_of(frame: FrameType) -> FrameType:
    code = frame.f_code
    kept, outline = _outlines.get(id(code), (None, _OUTLINE))
    if kept is not code:
        if len(_outlines) >= MOST_OUTLINES:
            _outlines.clear()
        # Positions are looked up by instruction offset, so the code must keep the original length.
        missing = len(code.co_code) - len(_OUTLINE.co_code)
        outline = _OUTLINE.replace(
            co_filename=code.co_filename,
            co_name=code.co_name,
            co_qualname=code.co_qualname,
            co_firstlineno=code.co_firstlineno,
            co_linetable=code.co_linetable,
            co_code=_OUTLINE.co_code + _NOTHING * (missing // len(_NOTHING)),
        )
        _outlines[id(code)] = code, outline
    return _frame_of(outline, frame.f_globals)


def _frame_of(outline: CodeType, variables: dict[str, Any]) -> FrameType:
    generator: GeneratorType[None, None, None] = FunctionType(outline, variables)()
    assert generator.gi_frame is not None  # only a finished generator has none
    return generator.gi_frame
