"""Reading the source: its files, their syntax trees, imports, knots and classes.

Everything is read from the syntax trees, so nothing hides: imports inside functions, under
``TYPE_CHECKING`` and through ``import_module("...")`` count as well.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


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


# -- knots ------------------------------------------------------------------------------------


def file_knots(root: Path, *, deferred: bool = True) -> list[frozenset[str]]:
    """Files that import each other, perhaps by way of others.

    Args:
        root: The package.
        deferred: Whether imports count that are not run when their file is imported.
    """
    return knots(file_arrows(root, deferred))


def folder_knots(root: Path) -> list[frozenset[str]]:
    """The same for folders. A file directly under the package stands for itself.

    A folder may use the one that it is in: the two are one part of the source, and the cycles among
    their files are found as such.
    """
    arrows: dict[str, set[str]] = {}
    for file, imported in file_arrows(root).items():
        here = folder_or_file(file)
        others = {
            other
            for other in map(folder_or_file, imported)
            if not f"{here}/".startswith(f"{other}/")
        }
        arrows.setdefault(here, set()).update(others)
    return [knot for knot in knots(arrows) if any((root / name).is_dir() for name in knot)]


def file_arrows(root: Path, deferred: bool = True) -> dict[str, set[str]]:
    """Which files of the package each of its files imports."""
    arrows: dict[str, set[str]] = {path.as_posix(): set() for path in source_files(root)}
    for found in read_imports(root):
        if is_module(root, found.target) and (deferred or not found.deferred):
            arrows[found.path.as_posix()].add(file_of_module(root, found.target))
    return arrows


def file_of_module(root: Path, dotted: str) -> str:
    """The file of a module or package, relative to the root."""
    place = root.joinpath(*dotted.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return file.relative_to(root).as_posix()


def folder_or_file(file: str) -> str:
    """The folder that a file is in; the file itself if it is in none."""
    return file.rpartition("/")[0] or file


def knots(arrows: Mapping[str, set[str]]) -> list[frozenset[str]]:
    """The groups in which each node can be reached from each: strongly connected components."""
    reached = {node: reachable(arrows, node) for node in arrows}
    groups = {
        frozenset(other for other in reached[node] if node in reached.get(other, ()))
        for node in arrows
        if node in reached[node]
    }
    return sorted(groups, key=sorted)


def reachable(arrows: Mapping[str, set[str]], start: str) -> set[str]:
    """The nodes that can be reached from one along one arrow or more."""
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        new = arrows.get(ahead.pop(), set()) - reached
        reached |= new
        ahead += new
    return reached


# -- classes and functions --------------------------------------------------------------------


class ClassFigures(NamedTuple):
    """How large a class is.

    Attributes:
        path: Its file.
        name: Its name.
        methods: The names of its methods and properties; an overloaded one counts once.
        attributes: The names that its methods set on their first argument.
    """

    path: Path
    name: str
    methods: frozenset[str]
    attributes: frozenset[str]


Function = ast.FunctionDef | ast.AsyncFunctionDef


def read_classes(root: Path) -> Iterator[ClassFigures]:
    """Every class, nested ones too."""
    for path in source_files(root):
        for node in ast.walk(parse(root, path)):
            if isinstance(node, ast.ClassDef):
                functions = [inner for inner in node.body if isinstance(inner, Function)]
                yield ClassFigures(
                    path,
                    node.name,
                    frozenset(function.name for function in functions),
                    frozenset(name for function in functions for name in names_set(function)),
                )


def names_set(method: Function) -> Iterator[str]:
    """The attributes that a method sets on its first argument."""
    arguments = [*method.args.posonlyargs, *method.args.args]
    if not arguments:
        return
    for node in ast.walk(method):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name, ctx=ast.Store()) if (
                owner == arguments[0].arg
            ):
                yield name


def read_functions(root: Path) -> Iterator[tuple[Path, Function]]:
    """Every function and method, nested ones too."""
    for path in source_files(root):
        for node in ast.walk(parse(root, path)):
            if isinstance(node, Function):
                yield path, node


def is_overload(function: Function) -> bool:
    """Whether it is one of the overloads of a function, without code."""
    return any(
        dotted_name(decorator).rpartition(".")[2] == "overload"
        for decorator in function.decorator_list
    )


# -- lines ------------------------------------------------------------------------------------


NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    tokenize.ENDMARKER,
}


def code_lines(root: Path, path: Path) -> set[int]:
    """The numbers of the lines with code: not blank, not a comment, not of a docstring.

    Docstrings are all strings that stand alone as a statement, such as those below attributes.
    """
    text = (root / path).read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(parse(root, path)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), end_lineno=int(end)):
                lines.difference_update(range(node.lineno, end + 1))
    return lines
