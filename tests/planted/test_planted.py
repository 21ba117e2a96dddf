"""The planted faults: each can be planted, and what plants them tells caught from escaped."""

from __future__ import annotations

import ast
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.planted import PACKAGE, ROOT, Fault, Stale, all_faults
from tests.planted.__main__ import main

FAULTS = all_faults()


@cache
def read(file: str) -> tuple[str, str]:
    """The text of a file, and its program: most files have several faults."""
    text = (ROOT / PACKAGE / file).read_text("utf-8")
    return text, ast.dump(ast.parse(text))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault_can_be_planted(fault: Fault) -> None:
    """Its text stands there once, what it becomes is another program, and its nets are there."""
    text, program = read(fault.file)
    planted = ast.parse(fault.applied(text))
    assert ast.dump(planted) != program
    compile(planted, fault.file, "exec")
    assert fault.what.endswith(".")
    nets = [net for net in shlex.split(fault.nets) if net.startswith("tests")]
    assert nets
    for net in nets:
        file, _, test = net.partition("::")
        assert (ROOT / file).exists()
        assert test.partition("[")[0] in (ROOT / file).read_text("utf-8") if test else True


def test_text_that_stands_there_twice_or_not() -> None:
    """It is not clear where the fault is to be planted, and that is said."""
    fault = Fault("a", "b", "It is wrong.", "c.py", "1", "2", "tests")
    for text, count in (("", 0), ("1, 1", 2)):
        with pytest.raises(Stale, match=f"{count} times in c.py"):
            fault.applied(text)


TREE = {
    "src/antflow/__init__.py": "",
    "src/antflow/sums.py": "def add(a, b):\n    return a + b\n",
    "tests/__init__.py": "",
    "tests/test_sums.py": """
from antflow.sums import add
def test_zero(): assert add(0, 0) == 0
def test_two(): assert add(1, 1) == 2
def test_wrong(): assert add(1, 1) == 3
""",
}

TABLE = """
[{0}]
what = "It is wrong."
file = "sums.py"
before = "{1}"
after = "{2}"
nets = "tests/test_sums.py {3}"
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("before", "after", "nets", "told"),
    [
        ("a + b", "a - b", "-k 'not wrong'", "caught: tests/test_sums.py::test_two"),
        ("a + b", "a * b", "-k zero", "ESCAPED: nothing fails"),
        ("a - b", "a + b", "-k two", "ESCAPED: its text occurs 0 times in sums.py"),
        pytest.param("a + b", "a - b", "-k seven", "ESCAPED: there are no tests", marks=SLOW),
        pytest.param("a + b", "a - b", "-k wrong", "ESCAPED: these fail", marks=SLOW),
        pytest.param("a + b", "exit()", "-k two", "caught: tests/test_sums.py", marks=SLOW),
        pytest.param("def add", "def sub", "-k two", "caught: tests/test_sums.py", marks=SLOW),
        pytest.param(
            "a + b",
            "__import__('os')._exit(0)",
            "-k two",
            "caught: tests/test_sums.py::test_two ends the tests",
            marks=SLOW,
        ),
        pytest.param(
            "a + b",
            "any(iter(int, 1))",
            "-k two",
            "caught: tests/test_sums.py::test_two hangs",
            marks=SLOW,
        ),
    ],
)
def test_sweep_tells_what_catches_a_fault(
    before: str,
    after: str,
    nets: str,
    told: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By failing, hanging, ending: it is caught. Otherwise it escapes, and the exit code is 1."""
    tree = TREE | {"tests/planted/table.toml": TABLE.format("fault", before, after, nets)}
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert main(["--seconds", "10"], tmp_path) == told.startswith("ESCAPED")
    assert told in capfd.readouterr().out
    assert (tmp_path / "src/antflow/sums.py").read_text("utf-8") == TREE["src/antflow/sums.py"]
