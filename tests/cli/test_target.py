"""Which pipeline a target is, and everything that is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from antflow.cli.refusals import Refusal
from antflow.cli.target import find_pipeline
from tests.cli.running import antflow, errors_of

ODD_APP = """
import functools
import sys
from antflow import Pipeline, Stage
called = []
def one(**options): return Pipeline([Stage("A", 1, [print])], **options)
def named() -> Pipeline: return one(name="named")
def text() -> "antflow.Pipeline": return one(name="text")
def typed() -> Pipeline[str, int]: return one(name="typed")
def typed_text() -> "antflow.Pipeline[str | None, list[int]]": return one(name="typed text")
def maybe() -> "Pipeline | None": called.append("maybe")
def needs(number): called.append("needs")
def plain(): called.append("plain")
@functools.wraps(plain)
def wrapped(number): called.append("wrapped")
def number() -> int: called.append("number"); return 5
def five(): return 5
def broken(): return one(workers=5)
def leaves(): sys.exit(5)
async def waits(): called.append("waits")
def yields(): yield one()
class Holder:
    inner = one(name="inner")
    class Deep:
        pipe = one(name="deep")
    @property
    def secret(self): called.append("property"); return one()
    @staticmethod
    def static(): called.append("static"); return one()
    def __call__(self): called.append("object"); return one()
holder = Holder()
def __getattr__(name): called.append(name); return one()
"""


@pytest.fixture
def odd(folder: Path) -> Path:
    """A folder with a module full of things that are pipelines, or nearly."""
    (folder / "odd.py").write_text(ODD_APP, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("app:pipeline", "pages"),
        ("app.py:pipeline", "pages"),
        ("./app.py:pipeline", "pages"),
        ("in a/b-c/mine.py:pipeline", "mine"),
        ("in a/b-c/my-app.py:pipeline", "mine"),
        ("ödd:näme", "ö"),
        ("app:build", "pages"),
        ("odd:named", "named"),
        ("odd:text", "text"),
        ("odd:typed", "typed"),
        ("odd:typed_text", "typed text"),
        ("odd:Holder.inner", "inner"),
        ("odd:Holder.Deep.pipe", "deep"),
    ],
)
def test_target_that_is_a_pipeline(odd: Path, target: str, name: str) -> None:
    """A pipeline, one inside a class, and what a function without needed arguments returns."""
    inner = odd / "in a" / "b-c"
    inner.mkdir(parents=True)
    mine = "from beside import name\nimport app\npipeline = app.one('A', print)\n"
    (inner / "mine.py").write_text(f"{mine}pipeline.name = name\n")
    (inner / "my-app.py").write_text(f"{mine}pipeline.name = name\n")
    (inner / "beside.py").write_text("name = 'mine'\n")
    (odd / "ödd.py").write_text("import app\nnäme = app.one('A', print, )\nnäme.name = 'ö'\n")
    assert find_pipeline(target, str(odd)).name == name


@pytest.mark.parametrize(
    "target",
    [
        "app",
        "app:",
        ":pipeline",
        "",
        "../app:pipeline",
        "/tmp/app:pipeline",
        "my-app:pipeline",
        ".py:pipeline",
        "app:pipeline()",
        "app:pipeline ",
        "app:pipeline\n",
        "app:a..b",
        "app:a.",
        "app:1",
        "1app:a",
        "app:[]",
        "app:pipeline:x",
    ],
)
def test_target_that_is_not_a_name_is_refused(folder: Path, target: str) -> None:
    """What has not the form is refused before anything is imported."""
    with pytest.raises(Refusal, match=r"must be module:attribute or file\.py:attribute"):
        find_pipeline(target, str(folder))
    assert "app" not in sys.modules


@pytest.mark.parametrize("target", ["app:__import__", "app:a.__class__", "__main__:x", "app:__a"])
def test_target_that_is_private_to_python(folder: Path, target: str) -> None:
    """Names that begin with two underscores are not even looked up."""
    with pytest.raises(Refusal, match="two underscores"):
        find_pipeline(target, str(folder))
    assert "app" not in sys.modules


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("os:system", "something of type builtin_function_or_method"),
        ("odd:Pipeline", "the class Pipeline"),
        ("odd:sys", "something of type module"),
        ("odd:holder", "something of type Holder"),
        ("odd:holder.secret", "something of type property"),
        ("odd:Holder.static", "something of type staticmethod"),
        ("odd:needs", r"needs arguments: needs\(number\)"),
        ("odd:wrapped", r"needs arguments: plain\(number\)"),
        ("odd:number", "returns int, not a Pipeline"),
        ("odd:maybe", "returns 'Pipeline | None', not a Pipeline"),
        ("odd:waits", "is an async function"),
        ("odd:anything", "module 'odd' has no 'anything'"),
        ("odd:Holder.iner", "the class Holder has no 'iner'; did you mean 'inner'"),
        ("app:pipelin", "module 'app' has no 'pipelin'; did you mean 'pipeline'"),
    ],
)
def test_target_that_is_not_called(odd: Path, target: str, reason: str) -> None:
    """What is no pipeline and no function for one is refused, and nothing of it has run."""
    with pytest.raises(Refusal, match=reason):
        find_pipeline(target, str(odd))
    assert "odd" not in sys.modules or sys.modules["odd"].called == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("odd:five", r"five\(\) returned something of type int"),
        ("odd:yields", r"yields\(\) returned something of type generator"),
        ("odd:broken", r"broken\(\) raised TypeError at odd\.py:\d+ in one: Pipeline\(w"),
        ("odd:leaves", r"leaves\(\) raised SystemExit at odd\.py:\d+ in leaves: 5"),
    ],
)
def test_target_whose_function_gives_no_pipeline(odd: Path, target: str, reason: str) -> None:
    """A function that returns something else, or raises, is refused by what it did, and where."""
    with pytest.raises(Refusal, match=reason):
        find_pipeline(target, str(odd))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1\nx.y\n", "wrong.py:2: AttributeError: 'int' object has no attribute 'y'"),
        ("import sys\nsys.exit('no')\n", "wrong.py:2: SystemExit: no"),
        ("x = (\n", "wrong.py:1:5: SyntaxError: '(' was never closed\n"),
        ("x = '\0'\n", ""),
        ("import not_there\n", "wrong.py:1: ModuleNotFoundError: No module named 'not_there'"),
        ("raise KeyError('\\x1b[2J')\n", "wrong.py:1: KeyError: '"),
    ],
)
def test_target_whose_module_raises(folder: Path, source: str, line: str) -> None:
    """A module that cannot be imported is one line with file and line, and exit code 2."""
    (folder / "wrong.py").write_text(source, "utf-8")
    (folder / "items").write_text("1\n")
    for args in (["check", "wrong:p"], ["run", "wrong:p", "--items", "items"]):
        result = antflow(*args)
        (error,) = errors_of(result)
        assert result.exit_code == 2
        assert f"{error}\n".startswith(f"Error: {line}")
        assert "wrong" in error
        assert result.output.count("\n") == 1
        assert "\x1b" not in result.output


def test_target_with_debug_shows_the_traceback(folder: Path) -> None:
    """--debug shows where it came from, above the one line."""
    (folder / "wrong.py").write_text("def f():\n    return 1 / 0\nf()\n", "utf-8")
    result = antflow("check", "wrong:p", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert 'wrong.py", line 2, in f' in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: wrong.py:2: ZeroDivisionError")


def test_target_in_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--app-dir says where to look; modules next to the target are found from there."""
    inner = folder / "inner"
    inner.mkdir()
    (inner / "beside.py").write_text("from app import pipeline\n")
    (inner / "app.py").write_text((folder / "app.py").read_text())
    (folder / "app.py").unlink()
    result = antflow("check", "beside:pipeline", "--app-dir", inner)
    assert (result.exit_code, errors_of(result)) == (0, [])
    for wrong in ("nowhere", "app.py"):
        result = antflow("check", "beside:pipeline", "--app-dir", wrong)
        assert result.exit_code == 2
        assert errors_of(result) == [f"Error: --app-dir '{wrong}': is not a folder"]


def test_target_that_is_not_there(folder: Path) -> None:
    """A missing module and a missing file are named, and the folder that was looked in."""
    assert errors_of(antflow("check", "nowhere:p")) == [
        f"Error: TARGET 'nowhere:p': there is no module 'nowhere' in '{folder}'"
    ]
    assert errors_of(antflow("check", "nowhere.py:p")) == [
        f"Error: TARGET 'nowhere.py:p': there is no file '{folder / 'nowhere.py'}'"
    ]


def test_target_file_that_python_shadows(folder: Path) -> None:
    """A file with the name of a module that is loaded already is not taken for that module."""
    (folder / "json.py").write_text("pipeline = 5\n")
    (error,) = errors_of(antflow("check", "json.py:pipeline"))
    assert error.endswith("Python has its own module 'json'; rename the file")
