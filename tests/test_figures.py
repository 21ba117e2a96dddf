"""The figures count what they say."""

from __future__ import annotations

from pathlib import Path

from tests.figures import figures
from tests.source_tree import code_lines, read_classes

SOURCE = '''"""A docstring
of two lines."""

import typing  # a comment after code is on a line of code

A = """not a
docstring"""
"""What stands below an attribute is one."""

# a comment


class B:
    """A docstring."""

    C = 1

    @typing.overload
    def f(self, x: int) -> int: ...
    @typing.overload
    def f(self, x: str) -> str: ...
    def f(self, x):
        self.a, self.b = x
        for self.a in x:
            with x as self.c:
                x.d = self.d

    @property
    def p(self): return 1

    @p.setter
    def p(self, value): self.e: int = value
'''


def plant(tmp_path: Path) -> Path:
    """Makes a package of one file."""
    root = tmp_path / "antflow"
    root.mkdir()
    (root / "a.py").write_text(SOURCE, encoding="utf-8")
    return root


def test_code_lines(tmp_path: Path) -> None:
    """Blank lines, comments and docstrings are no code; other strings and the rest are."""
    code = [4, 6, 7, 13, 16, *range(18, 27), *(28, 29), *(31, 32)]
    assert code_lines(plant(tmp_path), Path("a.py")) == set(code)


def test_members_of_a_class(tmp_path: Path) -> None:
    """Overloads and setters count once, and attributes where the object's own are set."""
    (found,) = read_classes(plant(tmp_path))
    assert found.name == "B"
    assert found.methods == {"f", "p"}
    assert found.attributes == {"a", "b", "c", "e"}


def test_figures_are_all_there(tmp_path: Path) -> None:
    """Each figure has a value, of a source that has next to nothing too."""
    root = plant(tmp_path)
    found = {what: how_much for what, how_much, _ in figures(root, root)}
    assert found["code lines of src"] == 18
    assert found["files"] == 1
    assert found["import cycles of files"] == 0
    assert found["overloads"] == 2
    assert found["lines of tests / lines of src"] == 1.0
    assert found["code lines of a function, 90th percentile"] == 5
