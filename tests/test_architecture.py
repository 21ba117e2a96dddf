"""The shape of the source: which layer imports which, and what no file may do.

Everything is read from the syntax trees (`tests.source_tree`). Each check is a function of a source
folder that returns what is wrong as text. Below them stand the tests that the source is clean, and
that each check finds a planted fault.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.source_tree import (
    dotted_name,
    file_knots,
    folder_knots,
    parse,
    read_classes,
    read_imports,
    source_files,
)

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "antflow"

# A layer is a folder; "" is the modules directly under antflow, the assembler and the public names.
# A layer may import itself and what its row names, nothing else of antflow. A folder within another
# is a layer of its own: neither may import the other unless its row says so.
LAYERS: dict[str, set[str]] = {
    "": {
        *("cli", "executor", "display", "sinks", "sinks/report", "journal", "runners", "testing"),
        *("_monitor", "_engine", "_engine/limits", "_engine/children", "_core"),
    },
    "cli": {"", "cli/demo", "display", "sinks", "sinks/report", "journal", "_monitor", "_core"},
    "cli/demo": {"", "cli"},
    "executor": {"sinks", "_engine", "_core"},
    "journal": {"_postgres", "_core"},
    "runners": {"_engine/remote", "_core"},
    "sinks": {"sinks/report", "_postgres", "_core"},
    "sinks/report": {"sinks", "_core"},
    "testing": {"_monitor", "_core"},
    "display": {"display/terminal", "_monitor", "_core"},
    "display/terminal": {"display", "_core"},
    "_monitor": {"sinks", "_core"},
    "_engine": {"_engine/limits", "_engine/children", "_engine/loop_health", "_core"},
    "_engine/limits": {"_engine", "_core"},
    "_engine/children": {"_core"},
    "_engine/loop_health": {"_engine", "_core"},
    "_postgres": {"_core"},
    "_engine/remote": {"_engine", "_core"},
    "_core": set(),
}

# Groups of files, and of folders, that import each other inside functions or for types. To be
# untied: an entry that is no longer exactly such a group is taken away, and nothing is added.
KNOWN_KNOTS: list[frozenset[str]] = [
    frozenset({"builder.py", "pipeline.py"}),
]

# Names of files that stand in several folders, with the reason. All others say one thing.
SAME_NAME: dict[str, str] = {
    "log": 'the library\'s log records; the display with the public name "log"',
    "observers": "the public module, and what it re-exports from `_core`",
    "tracker": "the public module, and what it re-exports from `_monitor`",
}

MOST_METHODS = 25
"""The limit for a class; properties count."""

# Larger classes, and the limit of each. To be taken apart: nothing is added.
LARGE_CLASSES: dict[str, int] = {}

# Packages inside a layer that other files enter by the package itself, never by a module of it.
WITH_A_DOOR = {"display.terminal"}

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
    "asyncpg": ["_postgres/server.py"],
    "click": ["cli/*"],
    "cloudpickle": ["runners/dask_runner.py"],  # which `distributed` brings
    "distributed": ["runners/dask_runner.py"],
    "msgspec": ["journal/msgspec_codec.py"],
    # The user says what to import; and each sink is loaded with its first use.
    "a name computed at run time": ["cli/target.py", "runners/__init__.py", "sinks/__init__.py"],
    "prometheus_client": ["sinks/prometheus.py"],
    "ray": ["runners/ray_runner.py"],
    "rich": ["display/*"],
    "opentelemetry": ["sinks/opentelemetry.py"],
    "typing_extensions": ["_core/type_variables.py"],
    "uvloop": ["loops.py"],
}
OPTIONAL = {
    "asyncpg",
    "distributed",
    "msgspec",
    "opentelemetry",
    "prometheus_client",
    "ray",
    "uvloop",
}

# Names that are not used anywhere, with the reason.
BANNED: dict[str, str] = {
    "asyncio.to_thread": "takes a thread of the loop's default executor, which is the user's",
    "datetime.datetime.now": "the wall clock jumps; durations come from a monotonic clock",
    "asyncio.wait_for": "a Task per call, and in 3.11 it can lose a result: asyncio.timeout",
    "logging.getLogger": "Python prints its warnings where nothing is set up: `_core/log.py`",
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

# The places that read the wall clock: a run does once, and counts its timestamps from there; a
# service may say as a date how long to wait; and a display says when it started, before it has seen
# a snapshot; and rows are pruned by their age. Those that log, and the one that unpickles.
ALLOWED: dict[str, list[str]] = {
    # The others are for messages: since when a journal is in use.
    "datetime.datetime.now": [
        *("_core/hold_times.py", "journal/writer_lock.py", "journal/postgres_lock.py")
    ],
    "time.time": ["_engine/run.py", "display/base.py", "journal/pruning.py"],
    # The logger itself, all loggers there are, and the command, which prints warnings.
    "logging.getLogger": [
        "_core/log.py",
        "cli/run_command.py",
        "display/terminal/stream_capture.py",
        "sinks/log_records.py",  # the logger that the user names
    ],
    # Of bytes within those that are being unpickled anyway; and of those of a file that is the
    # user's, who has asked for it.
    "pickle.loads": [
        "_core/error_copies.py",
        "journal/pickle_codec.py",
        "runners/dask_runner.py",  # between a run and the user's own cluster, which pickles too
        "runners/ray_runner.py",
    ],
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
        "_core/places.py",
        "_core/portable.py",
    ),
    *("_core/error_copies.py", "_engine/attempt.py", "_engine/batches.py", "_engine/calls.py"),
    *("_engine/endings.py", "_engine/expansion.py", "_engine/identity.py", "_engine/recorder.py"),
    *("_engine/run.py", "_engine/runners.py", "_engine/failure.py", "_engine/worker.py"),
    *("_monitor/callbacks.py", "_monitor/history.py", "_monitor/tracker.py", "_monitor/poller.py"),
    "_core/cancellation.py",
    *("_engine/crew.py", "_engine/listeners.py", "_monitor/public_steps.py"),
    *("journal/codec.py", "journal/item_keys.py", "journal/json_codec.py"),
}


# -- the checks -------------------------------------------------------------------------------


def unplaced_folders(root: Path) -> list[str]:
    """Folders that no row of LAYERS knows."""
    folders = {path.parent.as_posix() for path in source_files(root)} - {"."}
    return [f"{name}/: say in LAYERS where it belongs" for name in sorted(folders - LAYERS.keys())]


def misplaced_imports(root: Path) -> list[str]:
    """Imports that the tables above do not allow."""
    wrong = []
    for path, line, target, _ in read_imports(root):
        layer = layer_of(root, path.parts)
        first, *inner = target.split(".")
        if first == root.name:
            imported = layer_of(root, inner)
            allowed = imported == layer or imported in LAYERS.get(layer, set())
        elif first in sys.stdlib_module_names:
            kept_out = first in NOT_IN_LAYER.get(layer, set())
            allowed = not kept_out or path.as_posix() in EVEN_SO.get(first, [])
        else:
            allowed = any(fnmatch(path.as_posix(), glob) for glob in THIRD_PARTY.get(first, []))
        if not allowed:
            wrong.append(f"{path.as_posix()}:{line} imports {target}")
    return wrong


def layer_of(root: Path, parts: Sequence[str]) -> str:
    """The innermost folder along a path that has a row in LAYERS; the outermost, if none has."""
    paths = ["/".join(parts[: index + 1]) for index in range(len(parts))]
    folders = [path for path in paths if (root / path).is_dir()]
    return next((path for path in reversed(folders) if path in LAYERS), "".join(folders[:1]))


def side_entrances(root: Path) -> list[str]:
    """Imports of a module inside a package that has a door, from outside."""
    return [
        f"{path.as_posix()}:{line} imports {target}"
        for path, line, target, _ in read_imports(root)
        for package in WITH_A_DOOR
        if target.startswith(f"{root.name}.{package}.")
        and not ".".join(path.parts).startswith(f"{package}.")
    ]


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


def import_cycles(root: Path, known: Collection[frozenset[str]] = ()) -> list[str]:
    """Groups of files, and of folders, that import each other; and known ones that are gone.

    Imports inside functions and under ``TYPE_CHECKING`` count, so each file can be read with
    nothing but those below it. A cycle that is closed without them is refused even if it is known.
    """
    cycles = {*file_knots(root), *folder_knots(root)}
    new = {*cycles.difference(known), *file_knots(root, deferred=False)}
    gone = set(known) - cycles
    return [
        *(f"{', '.join(sorted(knot))}: import each other" for knot in sorted(new, key=sorted)),
        *(
            f"{', '.join(sorted(knot))}: no longer a cycle: take it from KNOWN_KNOTS"
            for knot in sorted(gone, key=sorted)
        ),
    ]


def names_used_twice(root: Path, known: Collection[str] = ()) -> list[str]:
    """Files of one name in several folders, and known names that only one file has."""
    places: dict[str, list[str]] = {}
    for path in source_files(root):
        if not path.stem.startswith("__"):
            places.setdefault(path.stem, []).append(path.as_posix())
    twice = {stem for stem, paths in places.items() if len(paths) > 1}
    return [
        *(f"one name, two things: {', '.join(places[stem])}" for stem in sorted(twice - {*known})),
        *(f"{stem}: take it from SAME_NAME" for stem in sorted({*known} - twice)),
    ]


def large_classes(root: Path, known: Mapping[str, int] | None = None) -> list[str]:
    """Classes with too many methods, and known ones that no longer have too many."""
    known = {} if known is None else known
    large = {
        found.name: len(found.methods)
        for found in read_classes(root)
        if len(found.methods) > MOST_METHODS
    }
    return [
        *(
            f"{name} has {methods} methods, and may have {known.get(name, MOST_METHODS)}"
            for name, methods in large.items()
            if methods > known.get(name, MOST_METHODS)
        ),
        *(f"{name}: take it from LARGE_CLASSES" for name in known if name not in large),
    ]


def misnamed_paths(root: Path, page: str) -> list[str]:
    """Folders missing from the table of layers on a page, and paths in tables that do not exist.

    Args:
        root: The package. Paths are relative to it, or to the folder two above it.
        page: The text of the page, in Markdown.
    """
    rows = re.findall(r"^\|(.*)\|$", page, re.MULTILINE)
    paths = {path for row in rows for path in re.findall(r"`([\w/]+(?:/|\.py))`", row)}
    layers = {
        name
        for table in re.findall(r"^\| layer \|.*\n((?:\|.*\n)*)", page, re.MULTILINE)
        for name in re.findall(r"^\| `(.*?)`", table, re.MULTILINE)
    }
    folders = {path.parent.as_posix() for path in source_files(root)} - {"."}
    bases = (root, root.parents[1])
    missing = {path for path in paths if not any((base / path).exists() for base in bases)}
    missing |= layers - folders
    return [
        *(f"{name}: does not exist" for name in sorted(missing)),
        *(f"{name}: is not in the table" for name in sorted(folders - layers)),
    ]


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


def names_of_tests_used_twice(folder: Path) -> list[str]:
    """Names that several tests have."""
    places: dict[str, list[str]] = {}
    for path in source_files(folder):
        for node in parse(folder, path).body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if (
                    name.startswith("test_")
                ):
                    places.setdefault(name, []).append(path.as_posix())
    return [f"{name}: {', '.join(found)}" for name, found in places.items() if len(found) > 1]


# -- the source is clean ----------------------------------------------------------------------


def test_source_is_read_at_all() -> None:
    """The checks below look at the real source, not at an empty folder."""
    assert Path("_core/__init__.py") in source_files(SOURCE)


def test_folders_have_a_place_in_the_table() -> None:
    """Every folder has a row in the table of layers."""
    assert unplaced_folders(SOURCE) == []


def test_rows_have_a_folder() -> None:
    """No row of the table is of a folder that does not exist."""
    assert [name for name in LAYERS if not (SOURCE / name).is_dir()] == []


def test_page_has_the_folders() -> None:
    """The table of layers in docs/inside.md has each folder, and no table a path that is wrong."""
    page = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    assert misnamed_paths(SOURCE, page) == []


def test_imports_point_down() -> None:
    """No layer imports what its row does not name, and no package outside its files."""
    assert misplaced_imports(SOURCE) == []


def test_packages_with_a_door_are_entered_by_it() -> None:
    """What a package keeps inside can change without a look at the rest."""
    assert side_entrances(SOURCE) == []


def test_optional_packages_are_imported_by_one_file_each() -> None:
    """One optional dependency, one file."""
    assert scattered_extras(SOURCE) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Any module can be imported first, and understood without those above it."""
    assert import_cycles(SOURCE, KNOWN_KNOTS) == []


def test_files_have_names_of_their_own() -> None:
    """A file is found by its name."""
    assert names_used_twice(SOURCE, SAME_NAME) == []


def test_classes_are_not_too_large() -> None:
    """A class can be read in one go."""
    assert large_classes(SOURCE, LARGE_CLASSES) == []


def test_rules_are_kept() -> None:
    """Nothing banned is used, nothing is swallowed without a reason."""
    assert broken_rules(SOURCE) == []


def test_tests_say_what_they_promise() -> None:
    """Every test has a docstring."""
    assert unpromised_tests(Path(__file__).parent) == []


def test_each_test_has_a_name_of_its_own() -> None:
    """No two tests have one name, so that a name leads to one promise."""
    assert names_of_tests_used_twice(Path(__file__).parent) == []


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


def test_doors_when_a_file_goes_round_one(tmp_path: Path) -> None:
    """An import of a module inside is found outside, and allowed inside."""
    files = {
        "display__terminal____init__": "from antflow.display.terminal.screen import open_pane",
        "display__terminal__screen": "from antflow.display.terminal import device",
        "display__terminal__device": "",
        "display__base": "from antflow.display.terminal import open_pane",
        "display__plain": "from antflow.display.terminal import screen",
    }
    root = plant(tmp_path, **files)
    assert side_entrances(root) == ["display/plain.py:1 imports antflow.display.terminal.screen"]


def test_extras_when_two_files_import_one(tmp_path: Path) -> None:
    """A second file that imports an optional package is found."""
    root = plant(tmp_path, fast="import uvloop", cli="def f():\n    import uvloop")
    assert scattered_extras(root) == ["uvloop is imported by cli.py, fast.py"]


@pytest.mark.parametrize(
    "back",
    [
        "from .a import A",
        "import antflow._core.a",
        "def f():\n    from .a import A",
        "if TYPE_CHECKING:\n    from .a import A",
        "import_module('antflow._core.a')",
        "from .c import C",
    ],
)
def test_cycles_when_files_import_each_other(tmp_path: Path, back: str) -> None:
    """A cycle is found however it is closed; a known one may stay if an import is deferred."""
    files = {"_core/a": "from antflow._core.b import B", "_core/b": back}
    root = plant(tmp_path, **files, _core__c="def f():\n    from .a import A")
    knot = {"_core/a.py", "_core/b.py", *(["_core/c.py"] if ".c" in back else [])}
    told = f"{', '.join(sorted(knot))}: import each other"
    assert import_cycles(root) == [told]
    is_late = back.startswith(("def", "if", "from .c"))
    assert import_cycles(root, [frozenset(knot)]) == ([] if is_late else [told])


def test_cycles_when_folders_import_each_other(tmp_path: Path) -> None:
    """Folders that import each other are found, even if no two of their files do."""
    files = {"_engine/a": "import antflow._monitor.b", "_engine/c": ""}
    root = plant(tmp_path, **files, _monitor__b="import antflow._engine.c", pipeline="")
    assert import_cycles(root) == ["_engine, _monitor: import each other"]
    assert import_cycles(root, [frozenset({"_engine", "_monitor"})]) == []


def test_cycles_when_a_folder_uses_the_one_it_is_in(tmp_path: Path) -> None:
    """A folder inside another is a part of it, and may use its files."""
    files = {"_engine/a": "import antflow._engine.inner.b", "_engine/c": ""}
    root = plant(tmp_path, **files, _engine__inner__b="import antflow._engine.c", pipeline="")
    assert import_cycles(root) == []


def test_cycles_when_there_are_none(tmp_path: Path) -> None:
    """Imports without a cycle are let through, and a known cycle that is gone is reported."""
    files = {"_core/a": "from . import b, c", "_core/b": "from .c import C", "_core/c": ""}
    root = plant(tmp_path, **files, pipeline="import antflow.types", types="import antflow._core.a")
    assert import_cycles(root) == []
    assert import_cycles(root, [frozenset({"_core/a.py", "_core/b.py"})]) == [
        "_core/a.py, _core/b.py: no longer a cycle: take it from KNOWN_KNOTS"
    ]


def test_names_when_two_files_have_one(tmp_path: Path) -> None:
    """Two files of one name are found unless it is known, and so is a known name used once."""
    root = plant(tmp_path, _core__errors="", cli__errors="", cli__main="")
    assert names_used_twice(root) == ["one name, two things: _core/errors.py, cli/errors.py"]
    assert names_used_twice(root, ["errors"]) == []
    assert names_used_twice(root, ["errors", "main"]) == ["main: take it from SAME_NAME"]


def test_classes_when_one_is_too_large(tmp_path: Path) -> None:
    """A class with too many methods is found; a property and its setter count once."""
    methods = [f"    def m{number}(self): ..." for number in range(MOST_METHODS)]
    again = ["    @m0.setter", "    def m0(self, value): ..."]
    root = plant(tmp_path, _core__a="\n".join(["class A:", *methods, *again]))
    assert large_classes(root) == []
    assert large_classes(root, {"A": 30}) == ["A: take it from LARGE_CLASSES"]
    (root / "_core" / "a.py").write_text("\n".join(["class A:", *methods, "    async def n(s): 1"]))
    told = f"A has {MOST_METHODS + 1} methods, and may have {MOST_METHODS}"
    assert large_classes(root) == [told]
    assert large_classes(root, {"A": MOST_METHODS + 1}) == []


def test_page_when_a_path_is_wrong(tmp_path: Path) -> None:
    """Folders that a page leaves out or makes up are found, and wrong files in any table."""
    root = plant(tmp_path / "src", _core__inner__a="", pipeline="")
    folders = ["_core", "_core/inner", "_engine", "_monitor", "display", "testing"]
    page = "\n".join(
        [
            *("| layer | holds |", "|---|---|", *(f"| `{name}` | it |" for name in folders)),
            *("| modules | `_core/` |", "", "| to change | begin in |", "|---|---|"),
            "| it | `_core/inner/a.py`; `pipeline.py`, `src/antflow/display/` |",
            "",
        ]
    )
    assert misnamed_paths(root, page) == []
    wrong = page.replace("| `_core/inner` |", "| `_core/outer` |").replace("pipe", "side")
    assert misnamed_paths(root, wrong) == [
        "_core/outer: does not exist",
        "sideline.py: does not exist",
        "_core/inner: is not in the table",
    ]


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
        ("import logging\nlogging.getLogger('antflow').warning('x')", "logging.getLogger"),
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


def test_names_of_tests_when_one_is_used_twice(tmp_path: Path) -> None:
    """One name is found in two files and in one, where the first test is never run."""
    (tmp_path / "test_x.py").write_text("def test_a(): ...\ndef test_b(): ...\ndef test_b(): ...\n")
    (tmp_path / "test_y.py").write_text("async def test_a(): ...\ndef test_c(): ...\n")
    assert names_of_tests_used_twice(tmp_path) == [
        "test_a: test_x.py, test_y.py",
        "test_b: test_x.py, test_x.py",
    ]
