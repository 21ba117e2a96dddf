"""Lines of code, and which of them are the user's own.

An error, like a block of the event loop, is best reported at a line of the user's own code, even if
it happened deep inside a library which that line called.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, NamedTuple

from antflow._core.foreign import (
    attribute,
    cause_of,
    context_of,
    is_a,
    traceback_of,
)
from antflow._core.groups import leaves

LIBRARY = os.path.dirname(os.__file__) + os.sep
OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
LONGEST_LINE = 120

GENERATED = (
    *("<attrs generated", "<decorator-gen", "<makefun-gen", "<lambdifygenerated"),
    "<@beartype(",
)
"""How packages name code that they generate: the methods of a class, or the wrapper of a function.

Other names in brackets are the user's: ``<stdin>``, a cell of a notebook.
"""

TEXT = "<string>"
"""A program of ``python -c``, or generated code: the methods of a dataclass."""

TASK = "<task>"
"""Stands for the file of a task if an error passed no line of the user's own: see `named`."""

COMPREHENSIONS = tuple(
    f".<locals>.<{kind}>" for kind in ("genexpr", "listcomp", "setcomp", "dictcomp")
)

CYTHON = (".pyx", ".pxi", ".pxd")

MOST_LINKS = 20
"""How many causes of an error are searched for a line of the user's own."""

Origin = Literal["own", "text", "installed", "library"]

USERS: tuple[Origin, ...] = ("own", "text")
"""The user's own code, the surest first."""


class Place(NamedTuple):
    """A line of code.

    Attributes:
        filename: The file, as Python has it.
        number: The line's number, from 1.
        function: Name of the function, with its class if it has one.
    """

    filename: str
    number: int
    function: str

    @property
    def location(self) -> str:
        """``"app.py:41 in parse"``; the file relative to the current folder if it is in there.

        For a package: ``"pydantic/main.py:41 in validate"``, since its ``main.py`` is not the
        user's. For a cell of a notebook: ``"In[3]:41 in parse"``. If only the task is known: ``"in
        json.loads"``.
        """
        if self.filename == TASK:
            return f"in {self.function}"
        file = _cell(self.filename) or _short(self.filename)
        return f"{file}:{self.number} in {self.function}"

    @property
    def line(self) -> str:
        """The line of source; "" if it cannot be read."""
        try:
            return linecache.getline(self.filename, self.number).strip()[:LONGEST_LINE]
        except Exception:
            return ""

    @property
    def is_ours(self) -> bool:
        """Whether it is in the private part of this library."""
        return _is_private(self.filename)

    def is_in_function_of(self, other: Place) -> bool:
        """Whether both are in the same function."""
        return self.filename == other.filename and self.function == other.function


@lru_cache(maxsize=10_000)
def origin_of(filename: str) -> Origin:
    """Whose code a file has.

    "library" is Python's own, the inside of this library, and what packages generate; "installed"
    is every other package, and the parts of this library that have tasks of their own; "text" may
    be the user's.
    """
    if _is_private(filename) or is_pythons(filename) or filename.startswith(GENERATED):
        return "library"
    if filename == TEXT:
        return "text"
    if filename.startswith(OURS) or any(part in filename for part in INSTALLED):
        return "installed"
    return "installed" if _is_built(filename) else "own"


def is_pythons(filename: str) -> bool:
    """Whether a file belongs to Python's standard library."""
    if filename.startswith("<frozen "):
        return True
    return filename.startswith(LIBRARY) and not any(part in filename for part in INSTALLED)


def telling(filenames: Sequence[str]) -> int:
    """The index of the frame to report.

    The innermost of the user's own code, rather of a file than of a text. If everything is
    installed, the user's program too: the outermost one that is installed, which is the function
    given to the engine. Else the innermost.

    Args:
        filenames: The file of each frame, the innermost first; at least one.
    """
    origins = [origin_of(filename) for filename in filenames]
    for origin in USERS:
        if origin in origins:
            return origins.index(origin)
    if "installed" in origins:
        return len(origins) - 1 - origins[::-1].index("installed")
    return 0


def function_name(qualified: str) -> str:
    """A function's name, with its class if it has one, without the functions around it.

    A comprehension is a part of the function that it stands in.
    """
    while qualified.endswith(COMPREHENSIONS):
        qualified = qualified.rpartition(".<locals>.")[0]
    return qualified.rpartition("<locals>.")[2]


def place_of(error: BaseException) -> Place | None:
    """The line of the user's own code that an error comes from; ``None`` if no line is known.

    For a group, that of the first error in it. If an error passed no line of the user's own, like a
    timeout, that of the error it was caused by or came up in.
    """
    place = _own_place(error) if not is_a(error, BaseExceptionGroup) else None
    if place is not None and origin_of(place.filename) in USERS:
        return place
    for each in _related(error):
        other = _own_place(each)
        if other is not None and origin_of(other.filename) in USERS:
            return other
        place = place or other
    return place


def location_of(error: BaseException) -> str:
    """``"app.py:41 in parse"``: see `place_of`; "" if no line is known."""
    place = place_of(error)
    return "" if place is None else place.location


def own_location_of(error: BaseException) -> str:
    """`location_of`, or "" if that line is not the user's own."""
    place = place_of(error)
    return "" if place is None or origin_of(place.filename) not in USERS else place.location


def _own_place(error: BaseException) -> Place | None:
    traceback = traceback_of(error)
    if traceback is None:  # it may have been copied: from a child process, or out of a pickle
        known = attribute(cause_of(error), "place")
        return known if type(known) is Place else None
    frames: list[TracebackType] = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    frames.reverse()
    told = frames[telling([each.tb_frame.f_code.co_filename for each in frames])]
    code = told.tb_frame.f_code
    place = Place(code.co_filename, told.tb_lineno, function_name(code.co_qualname))
    return None if place.is_ours else place  # raised here, about something that returned


def _related(error: BaseException) -> list[BaseException]:
    """The errors in a group, then the group, then what led to each of these."""
    found = [*leaves(error)[:MOST_LINKS], error] if is_a(error, BaseExceptionGroup) else [error]
    for each in found:
        for link in (cause_of(each), context_of(each)):
            if link is not None and not any(link is known for known in found):
                found.append(link)
        if len(found) > MOST_LINKS:
            break
    return found


def _is_private(filename: str) -> bool:
    return filename.startswith(OURS + "_")


def _is_built(filename: str) -> bool:
    """Whether it is code of a package that is not where its name says.

    That is what compiled modules are: Cython and mypyc keep the paths that the files had where the
    package was built, like ``src/lxml/parser.pxi``.
    """
    is_relative = filename.endswith(".py") and not os.path.isabs(filename)
    return (is_relative or filename.endswith(CYTHON)) and not os.path.isfile(filename)


def _short(filename: str) -> str:
    for folder in INSTALLED:
        if folder in filename:
            return filename.rpartition(folder)[2]
    try:
        here = os.getcwd() + os.sep
    except OSError:  # the folder is gone
        here = os.sep
    if len(here) > 1 and filename.startswith(here):
        return filename[len(here) :]
    return os.path.basename(filename) or filename


def _cell(filename: str) -> str:
    """``"In[3]"`` if it stands for a cell of IPython, as its own tracebacks say; otherwise "".

    The file of a cell is made up, of a number that appears nowhere else. Nothing is imported:
    where IPython runs this code, it is loaded already.
    """
    ipython: Any = sys.modules.get("IPython")
    if ipython is None:
        return ""
    try:
        _, name = ipython.get_ipython().compile.format_code_name(filename)
    except Exception:  # why: there is no shell, it is not a cell, or IPython is old
        return ""
    return str(name)
