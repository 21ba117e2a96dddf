"""The types are as promised: two checkers read `tests/typing`, where nothing is ever run."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from antflow import Pipeline, Stage
from antflow._pipeline_options import PipelineOptions

ROOT = Path(__file__).parents[1]
FILES = sorted(path.as_posix() for path in (ROOT / "tests" / "typing").glob("use_*.py"))


def tool(name: str) -> str:
    """Where a checker of this environment is; without it, the test is skipped."""
    found = shutil.which(
        name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def typed_dicts_of(path: str) -> dict[str, dict[str, str]]:
    """The fields of the classes of a file that type checkers alone read: class → name → type."""
    tree = ast.parse((ROOT / "src" / "antflow" / path).read_text("utf-8"))
    return {
        node.name: {
            ast.unparse(field.target): ast.unparse(field.annotation)
            for field in node.body
            if isinstance(field, ast.AnnAssign)
        }
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def test_mypy_agrees() -> None:
    """Mypy finds every type that the files promise, and every error that they expect."""
    done = subprocess.run([tool("mypy"), *FILES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_agrees() -> None:
    """Pyright finds every type that the files promise, and every error that they expect."""
    command = [tool("pyright"), "--warnings", "--pythonpath", sys.executable, *FILES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors" in done.stdout


def test_options_of_stages_are_all_known_to_the_checkers() -> None:
    """The checkers know every option of `Stage` by keyword, with the type that its field has."""
    kinds = typed_dicts_of("_core/stage.py")
    known = kinds["KeywordOptions"] | kinds["Options"] | kinds["StageOptions"]
    fields = {field.name: str(field.type) for field in dataclasses.fields(Stage)}
    special = {"name", "workers", "tasks", "unpack_args", "skip_if", "batch", "expand"}
    of_resources = {
        "resources": "of.ResourceFactories"
    }  # a name for the type that the field spells out
    assert known == {n: t for n, t in fields.items() if n not in special} | of_resources
    by_keyword = {field.name for field in dataclasses.fields(Stage) if field.kw_only}
    assert kinds["KeywordOptions"].keys() | kinds["OtherOptions"].keys() == by_keyword


def test_options_of_pipelines_are_all_known_to_the_checkers() -> None:
    """The options of `Pipeline` that the checkers know by keyword are those it has."""
    options = set(inspect.signature(Pipeline).parameters) - {"stages"}
    assert set(PipelineOptions.__annotations__) == options
