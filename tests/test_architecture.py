"""The shape of the source: which layer imports which, and what no file may do.

Everything is read from the syntax trees, so nothing hides: imports inside functions, under
``TYPE_CHECKING`` and through ``import_module("...")`` count as well. Each check is a function of a
source folder that returns what is wrong as text. Below them stand the tests that the source is
clean, and that each check finds a planted fault.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "antflow"

# A layer is a folder; "" is the modules directly under antflow, the assembler and the public names.
# A layer may import itself and what its row names, nothing else of antflow.
LAYERS: dict[str, set[str]] = {
    "": {
        "cli",
        "executor",
        "display",
        "testing",
        "_monitor",
        "_engine",
        "_core",
    },
    "cli": {"", "display", "_monitor", "_core"},
    "executor": {"", "_engine", "_core"},
    "testing": {"_monitor", "_core"},
    "display": {"_monitor", "_core"},
    "_monitor": {"_core"},
    "_engine": {"_core"},
    "_core": set(),
}

# The standard library is free to all, except where a layer must not know of such things.
NOT_IN_LAYER: dict[str, set[str]] = {
    "_core": {"asyncio", "multiprocessing", "socket", "sqlite3", "subprocess", "time"},
}

# Whose cancellation it is, the engine and the watch must say alike, and neither imports the other.
EVEN_SO: dict[str, list[str]] = {
    "asyncio": ["_core/cancellation.py"],
}

# Other packages: the files that may import them. What is optional may be imported by one file only.
THIRD_PARTY: dict[str, list[str]] = {
    "click": ["cli/*"],
    "a name computed at run time": ["cli/target.py"],  # the user says what to import
    "rich": ["display/*"],
    "opentelemetry": ["telemetry.py"],
    "typing_extensions": ["_core/type_variables.py"],
    "uvloop": ["loops.py"],
}
OPTIONAL = {"opentelemetry", "uvloop"}

# Names that are not used anywhere, with the reason.
BANNED: dict[str, str] = {
    "asyncio.to_thread": "takes a thread of the loop's default executor, which is the user's",
    "datetime.datetime.now": "the wall clock jumps; durations come from a monotonic clock",
    "asyncio.wait_for": "a Task per call, and in 3.11 it can lose a result: asyncio.timeout",
    "eval": "runs text as code",
    "exec": "runs text as code",
    "os.popen": "runs text as a command",
    "os.system": "runs text as a command",
    "pickle.Unpickler": "loading runs whatever the bytes say",
    "pickle.load": "loading runs whatever the bytes say",
    "pickle.loads": "loading runs whatever the bytes say",
    "time.time": "the wall clock jumps; durations come from a monotonic clock",
    "time.time_ns": "the wall clock jumps; durations come from a monotonic clock",
}

# The places that read the wall clock: a run does once, and counts its timestamps from there; and a
# service may say as a date how long to wait. And the one that unpickles.
ALLOWED: dict[str, list[str]] = {
    "datetime.datetime.now": ["_core/hold_times.py"],
    "time.time": ["_engine/run.py"],
    # Of bytes within those that are being unpickled anyway.
    "pickle.loads": ["_core/error_copies.py"],
}


# Questions that run code of the object that is asked, and where objects of the user's come by.
# `_core/foreign.py` has the same questions without that.
ASKS_THE_OBJECT = {
    "inspect.isawaitable": "is_awaitable",
    "inspect.iscoroutine": "is_a",
}
FOREIGN_NAMES = {
    *(
        "answer",
        "answers",
        "cause",
        "error",
        "exception",
        "failure",
        "fault",
        "item_id",
        "original",
    ),
    *("raw", "result", "returned", "value", "values"),
}
MEETS_FOREIGN = {
    *(
        "_core/result.py",
        "_core/retry.py",
        "_core/text.py",
        "_core/failures.py",
        "_core/portable.py",
    ),
    *("_core/error_copies.py", "_engine/attempt.py", "_engine/batches.py", "_engine/calls.py"),
    *("_engine/endings.py", "_engine/expansion.py", "_engine/intake.py", "_engine/recorder.py"),
    *("_engine/run.py", "_engine/runners.py", "_engine/verdicts.py", "_engine/worker.py"),
    *("_monitor/callbacks.py", "_monitor/history.py", "_monitor/tracker.py", "_monitor/poller.py"),
    "_core/cancellation.py",
}


# -- reading ----------------------------------------------------------------------------------


def source_files(root: Path) -> list[Path]:
    """Every Python file under a package folder, as paths relative to it."""
    return sorted(path.relative_to(root) for path in root.rglob("*.py"))


def parse(root: Path, path: Path) -> ast.Module:
    """The syntax tree of one file."""
    text = (root / path).read_text(encoding="utf-8")
    try:
        return ast.parse(text, str(path))
    except SystemError:  # CPython before 3.11.8 and 3.12.2 miscounts its recursion now and then
        return ast.parse(text, str(path))


class Import(NamedTuple):
    """One arrow: a file imports a module. A deferred one is not run when the file is imported."""

    path: Path
    line: int
    target: str
    deferred: bool


class ImportReader(ast.NodeVisitor):
    """Collects the imports of one file, with relative ones resolved."""

    def __init__(self, root: Path, path: Path) -> None:
        self.root, self.path = root, path
        self.package = [root.name, *path.parent.parts]
        self.deferred = False
        self.found: list[Import] = []

    def add(self, node: ast.stmt | ast.expr, target: str) -> None:
        self.found.append(Import(self.path, node.lineno, target, self.deferred))

    def absolute(self, name: str, level: int) -> str:
        """The full name of ``name``, imported with so many leading dots."""
        base = self.package[: len(self.package) - level + 1] if level else []
        return ".".join([*base, *filter(None, [name])])

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self.absolute(node.module or "", node.level)
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            self.add(node, inner if is_module(self.root, inner) else module)

    def visit_Call(self, node: ast.Call) -> None:
        name = dotted_name(node.func).rpartition(".")[2]
        if name in {"import_module", "__import__"} and node.args:
            match node.args[0]:
                case ast.Constant(value=str(text)):
                    bare = text.lstrip(".")
                    self.add(node, self.absolute(bare, len(text) - len(bare)))
                case _ if self.path.parent != Path():
                    self.add(node, "a name computed at run time")
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.visit_deferred(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_deferred(node)

    def visit_If(self, node: ast.If) -> None:
        if dotted_name(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            self.visit_deferred(node)
        else:
            self.generic_visit(node)

    def visit_deferred(self, node: ast.AST) -> None:
        before, self.deferred = self.deferred, True
        self.generic_visit(node)
        self.deferred = before


def read_imports(root: Path) -> Iterator[Import]:
    """Every import of every file, file by file."""
    for path in source_files(root):
        reader = ImportReader(root, path)
        reader.visit(parse(root, path))
        yield from reader.found


def is_module(root: Path, dotted: str) -> bool:
    """Whether a dotted name is a file or folder of the package at ``root``."""
    first, *rest = dotted.split(".")
    place = root.joinpath(*rest)
    return first == root.name and (place.is_dir() or place.with_suffix(".py").is_file())


def dotted_name(node: ast.expr) -> str:
    """``a.b.c`` for a chain of attributes, "" for any other expression."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr) if inner := dotted_name(value):
            return f"{inner}.{attr}"
    return ""


# -- the checks -------------------------------------------------------------------------------


def unplaced_folders(root: Path) -> list[str]:
    """Folders that no row of LAYERS knows."""
    folders = {path.parts[0] for path in source_files(root) if len(path.parts) > 1}
    return [f"{name}/: say in LAYERS where it belongs" for name in sorted(folders - LAYERS.keys())]


def misplaced_imports(root: Path) -> list[str]:
    """Imports that the tables above do not allow."""
    wrong = []
    for path, line, target, _ in read_imports(root):
        layer = path.parts[0] if len(path.parts) > 1 else ""
        first, *inner = target.split(".")
        if first == root.name:
            folder = inner[0] if inner and (root / inner[0]).is_dir() else ""
            allowed = folder == layer or folder in LAYERS.get(layer, set())
        elif first in sys.stdlib_module_names:
            kept_out = first in NOT_IN_LAYER.get(layer, set())
            allowed = not kept_out or path.as_posix() in EVEN_SO.get(first, [])
        else:
            allowed = any(fnmatch(path.as_posix(), glob) for glob in THIRD_PARTY.get(first, []))
        if not allowed:
            wrong.append(f"{path.as_posix()}:{line} imports {target}")
    return wrong


def scattered_extras(root: Path) -> list[str]:
    """Optional packages that more than one file imports."""
    importers: dict[str, set[str]] = {}
    for path, _, target, _ in read_imports(root):
        importers.setdefault(target.split(".")[0], set()).add(path.as_posix())
    return [
        f"{name} is imported by {', '.join(sorted(importers[name]))}"
        for name in sorted(OPTIONAL & importers.keys())
        if len(importers[name]) > 1
    ]


def import_cycles(root: Path) -> list[str]:
    """The first circle of modules that import each other while they are being imported."""
    graph: dict[str, set[str]] = {}
    for path, _, target, deferred in read_imports(root):
        if not deferred and is_module(root, target):
            parts = [root.name, *path.with_suffix("").parts]
            importer = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            graph.setdefault(importer, set()).add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def broken_rules(root: Path) -> list[str]:
    """Uses of what is banned, and handlers that swallow what must pass."""
    wrong = []
    for path in source_files(root):
        tree = parse(root, path)
        lines = (root / path).read_text(encoding="utf-8").splitlines()
        meaning = imported_names(tree)
        for node in ast.walk(tree):
            if fault := fault_of(node, meaning, path, lines):
                line = getattr(node, "lineno", 0)
                wrong.append(f"{path.as_posix()}:{line} {fault}")
    return wrong


def imported_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for, so that an alias hides nothing."""
    meaning: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            meaning |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            meaning |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names
            }
    return meaning


def fault_of(node: ast.AST, meaning: dict[str, str], path: Path, lines: list[str]) -> str:
    """What is wrong with one node, "" if nothing is."""

    def full_name(expression: ast.expr) -> str:
        first, dot, rest = dotted_name(expression).partition(".")
        return meaning.get(first, first) + dot + rest

    def explained(line: int) -> bool:
        return "# why:" in lines[line - 1]

    match node:
        case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), *_]) if (
            name in FOREIGN_NAMES and path.as_posix() in MEETS_FOREIGN
        ):
            return f"isinstance({name}, ...) believes __class__: is_a of _core/foreign.py"
        case ast.Name() | ast.Attribute() if (name := full_name(node)) in ASKS_THE_OBJECT and (
            path.as_posix() in MEETS_FOREIGN
        ):
            return f"uses {name}: {ASKS_THE_OBJECT[name]} of _core/foreign.py"
        case ast.Name() | ast.Attribute() if (name := full_name(node)) in BANNED:
            if not any(fnmatch(path.as_posix(), glob) for glob in ALLOWED.get(name, [])):
                return f"uses {name}: {BANNED[name]}"
        case ast.ExceptHandler(type=caught) if catches_everything(caught):
            if not (raises(node.body) or explained(node.lineno)):
                return "catches everything: raise, or say why on that line (# why: ...)"
        case ast.Call(func=function, args=args) if full_name(function) == "contextlib.suppress":
            if any(map(catches_everything, args)) and not explained(node.lineno):
                return "suppresses everything: say why on that line (# why: ...)"
        case ast.keyword(arg="shell", value=value):
            if not (isinstance(value, ast.Constant) and value.value is False):
                return "runs a command through the shell (shell=)"
    return ""


def catches_everything(caught: ast.expr | None) -> bool:
    """Whether what stands after ``except`` is nothing, or BaseException among others."""
    if isinstance(caught, ast.Tuple):
        return any(map(catches_everything, caught.elts))
    return caught is None or dotted_name(caught).rpartition(".")[2] == "BaseException"


def raises(body: list[ast.stmt]) -> bool:
    """Whether these statements raise themselves, not only a function defined among them."""
    inner: list[ast.AST] = [*body]
    while inner:
        node = inner.pop()
        if isinstance(node, ast.Raise):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner.extend(ast.iter_child_nodes(node))
    return False


def unpromised_tests(folder: Path) -> list[str]:
    """Tests without the sentence that says what they promise."""
    return [
        f"{path.as_posix()}:{node.lineno} {node.name} has no docstring"
        for path in source_files(folder)
        for node in ast.walk(parse(folder, path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]


# -- the source is clean ----------------------------------------------------------------------


def test_source_is_read_at_all() -> None:
    """The checks below look at the real source, not at an empty folder."""
    assert Path("_core/__init__.py") in source_files(SOURCE)


def test_folders_have_a_place_in_the_table() -> None:
    """Every folder is a layer somebody thought about."""
    assert unplaced_folders(SOURCE) == []


def test_imports_point_down() -> None:
    """No layer imports what its row does not name, and no package outside its files."""
    assert misplaced_imports(SOURCE) == []


def test_optional_packages_are_imported_by_one_file_each() -> None:
    """One optional dependency, one file."""
    assert scattered_extras(SOURCE) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Any module can be imported first."""
    assert import_cycles(SOURCE) == []


def test_rules_are_kept() -> None:
    """Nothing banned is used, nothing is swallowed without a reason."""
    assert broken_rules(SOURCE) == []


def test_tests_say_what_they_promise() -> None:
    """Every test has a docstring."""
    assert unpromised_tests(Path(__file__).parent) == []


# -- the checks can fail ----------------------------------------------------------------------


def plant(tmp_path: Path, **files: str) -> Path:
    """Makes a package ``antflow`` with these files; ``__`` in a key stands for the slash."""
    root = tmp_path / "antflow"
    for folder in ["_core", "_engine", "_monitor", "display", "testing"]:
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").touch()
    (root / "__init__.py").touch()
    for key, text in files.items():
        path = root / f"{key.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_folders_when_one_is_unknown(tmp_path: Path) -> None:
    """A folder outside the table is found."""
    assert unplaced_folders(plant(tmp_path, web__page="")) == [
        "web/: say in LAYERS where it belongs"
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "display/bar",
            "from antflow._monitor.bus import Bus\nfrom antflow._core import errors",
        ),
        ("display/bar", "from rich.text import Text\nfrom . import base\nfrom .base import Base"),
        ("_engine/run", "import asyncio\nfrom antflow._core.events import StatusEvent"),
        ("pipeline", "from antflow._engine.run import Run\nfrom antflow.display import base"),
        ("pipeline", "import importlib\nimportlib.import_module(name)"),
        ("cli/run", "import click\nfrom antflow import pipeline\nfrom antflow._core import errors"),
        ("cli/demo/inner", "import click"),
    ],
)
def test_imports_when_they_point_down(tmp_path: Path, path: str, text: str) -> None:
    """What the table allows is let through."""
    assert misplaced_imports(plant(tmp_path, **{path: text})) == []


@pytest.mark.parametrize(
    ("path", "text", "target"),
    [
        ("_core/bad", "from antflow._engine.run import Run", "antflow._engine.run"),
        ("_core/bad", "import antflow.types", "antflow.types"),
        ("_core/bad", "from antflow import types", "antflow.types"),
        ("_core/bad", "from antflow import Pipeline", "antflow"),
        ("_core/bad", "from .. import pipeline", "antflow.pipeline"),
        ("_core/bad", "from ..display.base import Base", "antflow.display.base"),
        ("_core/inner/bad", "from ..._engine import run", "antflow._engine"),
        (
            "_core/bad",
            "if TYPE_CHECKING:\n    import antflow._monitor.bus",
            "antflow._monitor.bus",
        ),
        ("_core/bad", "def f():\n    import asyncio.locks", "asyncio.locks"),
        ("_core/bad", "from time import monotonic", "time"),
        ("_engine/bad", "from antflow._monitor import bus", "antflow._monitor"),
        ("_engine/bad", "import_module('antflow.display')", "antflow.display"),
        ("_engine/bad", "import_module('..display', __package__)", "antflow.display"),
        ("_engine/bad", "import_module(name)", "a name computed at run time"),
        ("_monitor/bad", "from antflow._engine import run", "antflow._engine"),
        ("_monitor/bad", "import rich", "rich"),
        ("display/bad", "from antflow._engine import run", "antflow._engine"),
        ("display/bad", "from antflow.testing import loop", "antflow.testing"),
        ("testing/bad", "from antflow.display import base", "antflow.display"),
        ("web/bad", "from antflow._core import events", "antflow._core"),
        ("display/bad", "import click", "click"),
        ("pipeline", "from rich.text import Text", "rich.text"),
        ("cli", "import requests", "requests"),
    ],
)
def test_imports_when_one_is_misplaced(tmp_path: Path, path: str, text: str, target: str) -> None:
    """Upward, sideways, hidden and foreign imports are found."""
    files = {"types": "", "pipeline": ""} | {path: text}
    (wrong,) = misplaced_imports(plant(tmp_path, **files))
    assert wrong.startswith(f"{path}.py:")
    assert wrong.endswith(f"imports {target}")


def test_extras_when_two_files_import_one(tmp_path: Path) -> None:
    """A second file that imports an optional package is found."""
    root = plant(tmp_path, fast="import uvloop", cli="def f():\n    import uvloop")
    assert scattered_extras(root) == ["uvloop is imported by cli.py, fast.py"]


def test_cycles_when_two_modules_import_each_other(tmp_path: Path) -> None:
    """A circle is found and named; what is deferred closes none."""
    files = {"_core/a": "from antflow._core.b import B", "_core/b": "from .a import A"}
    root = plant(tmp_path, **files)
    (circle,) = import_cycles(root)
    assert set(circle.split(" -> ")) == {"antflow._core.a", "antflow._core.b"}
    for text in ["def f():\n    from .a import A", "if TYPE_CHECKING:\n    from .a import A"]:
        (root / "_core" / "b.py").write_text(text, encoding="utf-8")
        assert import_cycles(root) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import asyncio\nasyncio.wait_for(x, 1)", "asyncio.wait_for"),
        ("import asyncio as aio\naio.wait_for(x, 1)", "asyncio.wait_for"),
        ("from asyncio import wait_for as w\nw(x, 1)", "asyncio.wait_for"),
        ("eval('1')", "eval"),
        ("run = exec", "exec"),
        ("import pickle\npickle.loads(b'')", "pickle.loads"),
        ("from pickle import load\nload(f)", "pickle.load"),
        ("import os\nos.system('ls')", "os.system"),
        ("import time\nstarted = time.time()", "time.time"),
        ("import time\ndef f(clock=time.time): ...", "time.time"),
        ("from time import time\ntime()", "time.time"),
        ("subprocess.run('ls', shell=True)", "shell"),
        ("isinstance(value, dict)", "believes __class__"),
        ("import inspect\ninspect.isawaitable(x)", "inspect.isawaitable"),
        ("from inspect import isawaitable as a\na(x)", "inspect.isawaitable"),
        ("subprocess.run('ls', shell=maybe)", "shell"),
        ("try: f()\nexcept: pass", "catches everything"),
        ("try: f()\nexcept BaseException: pass", "catches everything"),
        ("try: f()\nexcept (ValueError, BaseException) as e: keep(e)", "catches everything"),
        ("try: f()\nexcept* BaseException: pass", "catches everything"),
        ("try: f()\nexcept BaseException:\n    def g(): raise", "catches everything"),
        (
            "from contextlib import suppress\nwith suppress(BaseException): f()",
            "suppresses everything",
        ),
    ],
)
def test_rules_when_one_is_broken(tmp_path: Path, text: str, fault: str) -> None:
    """Each banned name is found behind aliases too, and each silent catch-all."""
    (wrong,) = broken_rules(plant(tmp_path, _engine__calls=text))
    assert wrong.startswith("_engine/calls.py:")
    assert fault in wrong


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("_engine/run", "import time\nwall = time.time()"),
        ("_engine/run", "import time\nnow = time.monotonic()"),
        ("_engine/run", "executor.exec('x')\nretry.wait_for(3)"),
        ("_engine/run", "subprocess.run(['ls'], shell=False)"),
        ("_engine/run", "try: f()\nexcept BaseException:\n    if g():\n        raise"),
        ("_engine/run", "try: f()\nexcept BaseException:  # why: kept for the caller\n    pass"),
        ("_engine/run", "try: f()\nexcept Exception: pass"),
        ("_engine/run", "isinstance(envelope, Envelope)\nis_a(value, dict)"),
        ("_core/checks", "isinstance(value, bool)"),
    ],
)
def test_rules_when_they_are_kept(tmp_path: Path, path: str, text: str) -> None:
    """What is allowed, in the place where it is allowed, is let through."""
    assert broken_rules(plant(tmp_path, **{path: text})) == []


def test_tests_when_one_promises_nothing(tmp_path: Path) -> None:
    """A test without a docstring is found, among others that have one or are none."""
    (tmp_path / "test_x.py").write_text(
        "def helper(): ...\ndef test_a():\n    'It holds.'\nasync def test_b(): ...\n"
    )
    assert unpromised_tests(tmp_path) == ["test_x.py:4 test_b has no docstring"]
