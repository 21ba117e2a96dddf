"""From ``module:attribute`` to a pipeline.

Importing a module runs it: the target is trusted, like any program that is started by name. But
nothing else is run by looking it up. The text is not an expression, only names; each is looked up
without calling anything (`inspect.getattr_static`: no property, no ``__getattr__``); and what is
found is called only if it is a plain function that needs no argument and does not promise anything
but a `Pipeline`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from antflow import Pipeline
from antflow._core.misspellings import did_you_mean
from antflow._core.text import clean
from antflow.cli.refusals import Refusal, reason_of, reason_with_place, refuse

TARGET = re.compile(r"(.+\.py|[^\W\d][\w.]*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
PIPELINE = re.compile(r"[\w.]*Pipeline(\[.*\])?")
"""A `Pipeline` as an annotation that is text: in quotes, or with postponed evaluation."""

FORM = "must be module:attribute or file.py:attribute; --app-dir names the folder to look in"

_MISSING = object()


def find_pipeline(target: str, app_dir: str) -> Pipeline:
    """The pipeline that a target names.

    Args:
        target: ``module:attribute`` or ``file.py:attribute``; the attribute may be dotted. It is a
            `Pipeline`, or a function without parameters that returns one.
        app_dir: The folder to look the module up in. It becomes the first of ``sys.path``, after
            the folder of a file that is somewhere else.

    Raises:
        Refusal: It does not exist, it is something else, or the module raised.
    """
    match = TARGET.fullmatch(target)
    if match is None:
        refuse(f"TARGET {target!r}: {FORM}")
    module_name, path = match.groups()
    names = path.split(".")
    for name in [*re.split(r"[./\\]", module_name), *names]:
        if name.startswith("__"):
            refuse(f"TARGET {target!r}: names that begin with two underscores are not looked up")
    found: Any = _import(target, module_name, Path(app_dir))
    for name in names:
        found = _attribute(target, found, name)
    return found if isinstance(found, Pipeline) else _call(target, found)


def _import(target: str, name: str, folder: Path) -> ModuleType:
    if not folder.is_dir():
        refuse(f"--app-dir {str(folder)!r}: is not a folder")
    folder = folder.resolve()
    file = folder / name if name.endswith(".py") else None
    places = [folder]
    if file is not None:
        name = file.name.removesuffix(".py")
        if "." in name:
            refuse(f"TARGET {target!r}: the name of a file cannot contain a dot")
        if not file.is_file():
            refuse(f"TARGET {target!r}: there is no file {str(file)!r}")
        places.append(file.parent.resolve())
    for place in places:
        if sys.path[:1] != [str(place)]:
            sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    module = _import_module(target, name, places)
    if file is not None and not _is_from(module, file):
        refuse(f"TARGET {target!r}: Python has its own module {name!r}; rename the file")
    return module


def _import_module(target: str, name: str, places: list[Path]) -> ModuleType:
    cause: BaseException
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            refuse(f"TARGET {target!r}: there is no module {name!r} in {str(places[0])!r}", error)
        cause = error
    except (Exception, SystemExit) as error:
        cause = error
    place = _place_of(cause, places) or f"TARGET {target!r}"
    raise Refusal(f"{place}: {_told(cause)}") from cause


def _told(error: BaseException) -> str:
    """The error as text; for a syntax error without the place, which is shown already."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg}"
    return reason_of(error)


def _place_of(error: BaseException, places: list[Path]) -> str:
    """``file:line`` (``:column`` of a syntax error), the last place in the user's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename, places)}:{error.lineno or 1}:{error.offset or 1}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if any(Path(frame.filename).is_relative_to(place) for place in places):
            return f"{_shown(frame.filename, places)}:{frame.lineno or 1}"
    return ""


def _shown(file: str, places: list[Path]) -> str:
    path = Path(file)
    return str(path.relative_to(places[0]) if path.is_relative_to(places[0]) else path)


def _is_from(module: ModuleType, file: Path) -> bool:
    origin = getattr(module, "__file__", None)
    return origin is not None and Path(origin).resolve() == file.resolve()


def _attribute(target: str, owner: Any, name: str) -> Any:
    found = inspect.getattr_static(owner, name, _MISSING)
    if found is _MISSING:
        whose = f"module {owner.__name__!r}" if isinstance(owner, ModuleType) else _kind(owner)
        known = vars(owner) if isinstance(owner, (ModuleType, type)) else ()
        refuse(f"TARGET {target!r}: {whose} has no {name!r}{did_you_mean(name, known)}")
    return found


def _call(target: str, function: Any) -> Pipeline:
    """Call a function for its pipeline, if it may be called."""
    fault = _fault_of(function)
    if fault:
        refuse(f"TARGET {target!r}: {fault}")
    try:
        found = function()
    except (Exception, SystemExit) as error:
        reason = reason_with_place(error)
        refuse(f"TARGET {target!r}: {function.__name__}() raised {reason}", error)
    if not isinstance(found, Pipeline):
        refuse(f"TARGET {target!r}: {function.__name__}() returned {_kind(found)}, not a Pipeline")
    return found


def _fault_of(function: Any) -> str:
    """Why something must not be called; ``""`` if it may be."""
    if not inspect.isfunction(function):
        return f"is {_kind(function)}; must be a Pipeline, or a function that returns one"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is an async function; a plain one must return the Pipeline"
    signature = inspect.signature(function, follow_wrapped=False)
    try:
        signature.bind()
    except TypeError:
        return f"needs arguments: {function.__name__}{clean(str(signature))}"
    promised = signature.return_annotation
    if promised is signature.empty or _is_pipeline(promised):
        return ""
    return f"is a function that returns {clean(inspect.formatannotation(promised))}, not a Pipeline"


def _is_pipeline(annotation: Any) -> bool:
    """Whether it is a `Pipeline`, a subclass, or one with types, as ``Pipeline[str, int]``."""
    if isinstance(annotation, str):
        return PIPELINE.fullmatch(annotation.strip("'\" ")) is not None
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, Pipeline)


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"something of type {type(value).__name__}"
