"""Figures of the source, its size and its tangles: ``python -m tests.figures``.

They describe the package that is imported, and the tests beside it. For another tree:
``PYTHONPATH=<tree>/src python -m tests.figures``. All are read from the source, except the ways,
which are measured (see `tests.ways`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests import ways
from tests.source_tree import (
    code_lines,
    file_knots,
    folder_knots,
    is_overload,
    read_classes,
    read_functions,
    source_files,
)

MANY_METHODS = 15
"""Classes with more are listed."""

LARGEST = 10
"""How many of the largest files are listed."""


def figures(root: Path, tests: Path) -> Iterator[tuple[str, object, list[str]]]:
    """Yield the name of each figure, its value, and the cases behind it."""
    lines = {path: code_lines(root, path) for path in source_files(root)}
    yield "code lines of src", sum(map(len, lines.values())), []
    largest = sorted(lines, key=lambda path: -len(lines[path]))[:LARGEST]
    yield "files", len(lines), [f"{len(lines[path]):5} {path.as_posix()}" for path in largest]

    for what, tied in ("files", file_knots(root)), ("folders", folder_knots(root)):
        each = [f"{len(knot):5} {', '.join(sorted(knot))}" for knot in tied]
        yield f"import cycles of {what}", len(tied), each

    large = sorted(
        (len(found.methods), len(found.attributes), found.path.as_posix(), found.name)
        for found in read_classes(root)
        if len(found.methods) > MANY_METHODS
    )
    each = [f"{methods:5} {name} ({its}, {path})" for methods, its, path, name in reversed(large)]
    yield f"classes with more than {MANY_METHODS} methods (attributes)", len(large), each

    for way in ways.WAYS:
        files = ways.follow(way)
        yield f"files on the way: {way}", len(files), [" → ".join(files)]
    stays = ways.stays()
    yield "returns to a file already left", len(stays) - len(set(stays)), [" → ".join(stays)]

    functions = [*read_functions(root)]
    yield "overloads", sum(is_overload(function) for _, function in functions), []
    lengths = sorted(
        len(lines[path].intersection(range(function.lineno, (function.end_lineno or 0) + 1)))
        for path, function in functions
        if not is_overload(function)
    )
    yield "code lines of a function, 90th percentile", lengths[len(lengths) * 9 // 10], []
    yield "lines of tests / lines of src", round(all_lines(tests) / all_lines(root), 2), []


def all_lines(folder: Path) -> int:
    """The lines of all Python files below a folder, blank ones too."""
    return sum(
        (folder / path).read_text(encoding="utf-8").count("\n") for path in source_files(folder)
    )


def main() -> None:
    """Print all figures."""
    root = ways.PACKAGE
    for what, how_much, each in figures(root, root.parents[1] / "tests"):
        print(f"{how_much!s:>8}  {what}")
        for line in each:
            print(f"{'':10}{line}")


if __name__ == "__main__":
    main()
