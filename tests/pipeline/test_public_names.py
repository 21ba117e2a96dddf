"""The public names: each importable, each with one documented home, and none of them costly."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The public modules. Each name of `antflow` is in the __all__ of exactly one of them, and each of
# them has its place in docs/reference.
HOMES = [
    "antflow.builder",
    "antflow.context",
    "antflow.display",
    "antflow.display.base",
    "antflow.exceptions",
    "antflow.executor",
    "antflow.loops",
    "antflow.observers",
    "antflow.pipeline",
    "antflow.sources",
    "antflow.telemetry",
    "antflow.testing",
    "antflow.tracker",
    "antflow.types",
]

# About the package itself, at home in the package.
AT_HOME_IN_PACKAGE = {"__version__"}

# What an import must not load although Python brings it. Of other packages it loads none: neither
# the ones for drawing and for the command line, nor any extra.
COSTLY = {"difflib", "email", "hashlib", "multiprocessing", "pickle", "sqlite3"}

# What of the library waits until it is used, by the statement that must not load it.
WAITS = {
    "import antflow": {*HOMES, "asyncio"},
    "from antflow import Pipeline, Stage": {
        *("antflow.builder", "antflow.context", "antflow.display", "antflow.executor"),
        *("antflow.loops", "antflow.observers", "antflow.sources", "antflow.testing"),
        "antflow._engine.children",
    },
    "from antflow import AsyncExecutor": {
        *("antflow.builder", "antflow.context", "antflow.display", "antflow.pipeline"),
        *("antflow.tracker", "antflow._engine.engine", "antflow._engine.run", "antflow._monitor"),
    },
}


def homeless_names(package: str, homes: list[str]) -> list[str]:
    """Names in the package's ``__all__`` that cannot be imported, or have not exactly one home."""
    top = importlib.import_module(package)
    modules, wrong = [], []
    for home in homes:
        if importlib.util.find_spec(home) is None:
            wrong.append(f"{home} does not exist")
        else:
            modules.append(importlib.import_module(home))
    wrong += [
        f"{module.__name__} has no __all__" for module in modules if "__all__" not in vars(module)
    ]
    for name in sorted(set(top.__all__) - AT_HOME_IN_PACKAGE):
        found = [module for module in modules if name in getattr(module, "__all__", ())]
        if not hasattr(top, name):
            wrong.append(f"{name} is in {package}.__all__ and cannot be imported from there")
        elif len(found) != 1:
            places = ", ".join(module.__name__ for module in found) or "none"
            wrong.append(f"{name} needs one home, has: {places}")
        elif getattr(found[0], name, None) is not getattr(top, name):
            wrong.append(f"{name} is another object in {found[0].__name__}")
    return wrong


def undocumented_homes(docs: Path, homes: list[str]) -> list[str]:
    """Public modules that are not on exactly one page of a folder of Markdown files."""
    lines = [line for page in docs.glob("*.md") for line in page.read_text("utf-8").splitlines()]
    return [home for home in homes if lines.count(f"::: {home}") != 1]


def modules_loaded_by(statement: str, path: Path) -> set[str]:
    """The modules a statement loads in a new Python that finds packages at ``path`` too."""
    report = "print('\\n'.join(set(sys.modules) - before))"
    code = f"import sys; before = set(sys.modules); {statement}; {report}"
    # Nothing of this process but what a new Python needs to start: a tool that measures coverage
    # would load sqlite3 first, and hide it.
    keep = {name: os.environ[name] for name in ["PATH", "SYSTEMROOT"] if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=keep | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def costly_packages(loaded: set[str], package: str) -> set[str]:
    """The packages among these modules that importing ``package`` should not have loaded."""
    packages = {name.partition(".")[0] for name in loaded} - {package}
    return packages - sys.stdlib_module_names | packages & COSTLY


# -- the library ------------------------------------------------------------------------------


def test_public_names_have_one_home() -> None:
    """Every name of ``antflow`` is found in one public module, as the same object."""
    assert homeless_names("antflow", HOMES) == []


def test_public_names_are_listed_once() -> None:
    """``__all__`` holds every name once."""
    antflow = importlib.import_module("antflow")
    assert len(antflow.__all__) == len(set(antflow.__all__))


def test_public_modules_are_documented_once() -> None:
    """Each public module has its place in the reference, and only one."""
    assert undocumented_homes(ROOT / "docs" / "reference", HOMES) == []


@pytest.mark.parametrize("statement", WAITS)
def test_import_loads_nothing_costly(statement: str) -> None:
    """An import draws nothing, parses no command line, starts no process and opens no database.

    What it does not need it does not load: neither of the library nor of Python.
    """
    loaded = modules_loaded_by(statement, ROOT / "src")
    assert "antflow" in loaded
    assert costly_packages(loaded, "antflow") == set()
    assert WAITS[statement] & loaded == set()


@pytest.mark.parametrize("home", [home for home in HOMES if home.count(".") == 1])
def test_public_modules_can_be_used_without_the_others(home: str) -> None:
    """Each public module and its names are found from ``antflow``, whichever is used first."""
    name = home.partition(".")[2]
    own = f"[n for n in antflow.{name}.__all__ if n in antflow.__all__]"
    if home in ("antflow.display", "antflow.testing"):  # of these nothing is found at the top
        modules_loaded_by(f"import {home}", ROOT / "src")
    else:
        modules_loaded_by(
            f"import antflow; assert {own}; [getattr(antflow, n) for n in {own}]", ROOT / "src"
        )


def test_names_that_do_not_exist_are_not_found() -> None:
    """A misspelt name is an error, as of any module, and ``dir`` has the right ones."""
    antflow = importlib.import_module("antflow")
    with pytest.raises(AttributeError, match="module 'antflow' has no attribute 'Pipelin'"):
        _ = antflow.Pipelin
    with pytest.raises(ImportError, match="Stag"):
        exec("from antflow import Stag")
    assert {*antflow.__all__, "__name__"} <= {*dir(antflow)}


# -- the checks can fail ----------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path for a package named ``planted``, forgotten afterwards."""
    (tmp_path / "planted").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "planted"
    for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("package", "one", "two", "expected"),
    [
        ("x = 1", "__all__ = ['x']\nfrom planted import x", "__all__ = []", None),
        ("", "__all__ = ['x']", "__all__ = []", "cannot be imported"),
        ("x = 1", "__all__ = []\nx = 1", "__all__ = []", "x needs one home, has: none"),
        ("x = 1", "__all__ = ['x']\nx = 1", "__all__ = ['x']", "has: planted.one, planted.two"),
        ("x = []", "__all__ = ['x']\nx = []", "__all__ = []", "another object in planted.one"),
        ("x = 1", "__all__ = ['x']\nx = 1", "", "planted.two has no __all__"),
        ("x = 1", "__all__ = ['x']\nx = 1", None, "planted.two does not exist"),
    ],
)
def test_homes_when_a_name_is_misplaced(
    planted: Path, package: str, one: str, two: str | None, expected: str | None
) -> None:
    """Names that are missing, homeless, doubled or different are found; a good one is not."""
    (planted / "__init__.py").write_text(f"__all__ = ['x']\n{package}\n")
    (planted / "one.py").write_text(one)
    if two is not None:
        (planted / "two.py").write_text(two)
    wrong = homeless_names("planted", ["planted.one", "planted.two"])
    assert [expected in line for line in wrong if expected] == ([True] if expected else [])
    assert bool(wrong) == bool(expected)


@pytest.mark.parametrize(
    ("page", "missing"), [("::: a.b\n", []), ("", ["a.b"]), ("::: a.b.c", ["a.b"])]
)
def test_reference_when_a_home_is_missing(tmp_path: Path, page: str, missing: list[str]) -> None:
    """A module without its page is found; one with a longer name does not stand for it."""
    (tmp_path / "page.md").write_text(page)
    assert undocumented_homes(tmp_path, ["a.b"]) == missing


def test_import_when_something_costly_is_loaded(planted: Path) -> None:
    """A costly import is found, however deep it hides."""
    (planted / "__init__.py").write_text("import json\nfrom planted import deep")
    (planted / "deep.py").write_text("import sqlite3, click")
    loaded = modules_loaded_by("import planted", planted.parent)
    assert costly_packages(loaded, "planted") == {"sqlite3", "click"}
