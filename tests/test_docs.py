"""The documentation is run: every Python block of README.md and docs/, in order, page by page.

The blocks of a page share one namespace, an empty folder and a virtual clock. They may ``await``,
or call ``asyncio.run``.
A block marked ``output`` right after one says what that one prints, where ``...`` stands for
anything. Tests that a block defines are run. A block under a comment ``<!-- not run: why -->`` is
only compiled.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import io
import re
import runpy
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import antflow
from antflow.testing import VirtualLoop, run_virtual

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

KINDS = {"", "diff", "mermaid", "output", "python", "sh"}
"""What may stand after an opening fence. Another spelling would be a block that nobody runs."""

FENCE = re.compile(
    r"^(?P<not_run><!-- not run: \S.*-->\n+)?```(?P<kind>.*)\n(?P<text>(?:(?!```).*\n)*)```$"
    r"(?:\n+```output\n(?P<output>(?:(?!```).*\n)*)```$)?",
    re.MULTILINE,
)

TIME_OF_DAY = re.compile(r"^\d\d:\d\d:\d\d(?= )", re.MULTILINE)
"""Of a line that a display writes; the clock on the wall differs each time."""


class Block(NamedTuple):
    """A fenced block: the line its text begins in, and what it should print if it says so."""

    line: int
    kind: str
    text: str
    runs: bool
    output: str | None


def blocks_of(markdown: str) -> list[Block]:
    """All fenced blocks of a page, in order; an ``output`` block belongs to the one before."""
    return [
        Block(
            markdown.count("\n", 0, found.start("text")) + 1,
            found["kind"],
            found["text"],
            found["kind"] == "python" and not found["not_run"],
            found["output"],
        )
        for found in FENCE.finditer(markdown)
    ]


def run_page(markdown: str, name: str) -> None:
    """Run the Python blocks of a page; what one of them raises comes out, with the page's line."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "run", run_virtual)
        for block in blocks_of(markdown):
            if block.kind == "python":
                run_block(block, name, namespace, runner)
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        assert loop.reported == [], f"{name}: reported to the event loop"


def run_block(block: Block, name: str, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
    """Run one block, or only compile it, and compare what it prints."""
    source = "\n" * (block.line - 1) + block.text
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, name, "exec", flags, dont_inherit=True)
    if not block.runs:
        return
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(eval(code, namespace))
        else:
            exec(code, namespace)
            for test in [name for name in namespace if name.startswith("test_")]:
                namespace.pop(test)()
    if block.output is not None:
        expected, found = (
            TIME_OF_DAY.sub("now", text) for text in (block.output, printed.getvalue())
        )
        same = doctest.OutputChecker().check_output(expected, found, doctest.ELLIPSIS)
        assert same, f"{name}:{block.line} prints\n{printed.getvalue()}"


def fence_faults(markdown: str) -> list[str]:
    """Fences that would escape `blocks_of`, or that it does not know."""
    blocks = blocks_of(markdown)
    faults = [
        f"{block.line}: unknown kind {block.kind!r}" for block in blocks if block.kind not in KINDS
    ]
    faults += [f"{block.line}: output of nothing" for block in blocks if block.kind == "output"]
    fences = len(re.findall(r"^ *(?:```|~~~)", markdown, re.MULTILINE))
    expected = 2 * (len(blocks) + sum(block.output is not None for block in blocks))
    if fences != expected:
        faults.append(f"{fences} fences, of which {expected} were understood")
    return faults


def reference_faults(folder: Path) -> list[str]:
    """Public names of the modules documented with ``::: module`` that index.md does not list.

    Its links that lead to no such name count as well.
    """
    homes = {
        home: page.name
        for page in folder.glob("*.md")
        for home in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    }
    names = {
        (name, f"{page}#{home}.{name}")
        for home, page in homes.items()
        for name in importlib.import_module(home).__all__
    }
    index = (folder / "index.md").read_text("utf-8")
    linked = set(re.findall(r"\[`(\w+)`\]\((\w+\.md#[\w.]+)\)", index))
    missing = {name for name, _ in names} - {name for name, _ in linked}
    return sorted(missing) + sorted(f"{name}: {target}" for name, target in linked - names)


# -- the pages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if any(block.kind == "python" for block in blocks_of(page.read_text("utf-8")))
    ],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the page runs, and prints what the page says."""
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text("utf-8"), str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_block_of_a_page_is_of_a_known_kind(page: Path) -> None:
    """Every fence is one that the tests understand."""
    assert fence_faults(page.read_text("utf-8")) == []


def test_reference_lists_every_name() -> None:
    """The index of the reference links every public name to its place, and nothing else."""
    index = (REFERENCE / "index.md").read_text("utf-8")
    assert reference_faults(REFERENCE) == []
    assert [name for name in antflow.__all__ if f"| [`{name}`](" not in index] == ["__version__"]


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Links and pictures of the pages outside of docs/ are files; mkdocs looks after the others."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_pictures_are_fresh() -> None:
    """Drawing the pictures again, ``python docs/pictures/make.py``, changes nothing."""
    folder = ROOT / "docs" / "pictures"
    pictures = runpy.run_path(str(folder / "make.py"))["pictures"]()
    committed = {path.name: path.read_bytes() for path in folder.glob("*.svg")}
    stale = [name for name in committed | pictures if committed.get(name) != pictures.get(name)]
    assert stale == [], "draw them again: python docs/pictures/make.py"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("docs/pictures/*.svg")), ids=lambda path: path.stem
)
def test_picture_stands_alone(path: Path) -> None:
    """A picture refers to nothing outside itself."""
    outside = path.read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    for word in ("http", "@font-face", "src:", "<script", "<image", "@import", "\x1b"):
        assert word not in outside


# -- the checks can fail ----------------------------------------------------------------------

GOOD = (
    "# A page\n\n```python\nx = 1\n```\n\n```python\nawait asyncio.sleep(3600 * x)\nprint(x)\n```\n"
)


def test_run_page_when_all_is_well() -> None:
    """Blocks share a namespace, await at the top level, and take no time for it."""
    whole = "\n```python\nasyncio.run(asyncio.sleep(3600))\n```\n"
    good = GOOD.replace("x = 1", "import asyncio; x = 1") + "\n```output\n1\n```\n"
    run_page(good + whole, "good.md")


@pytest.mark.parametrize(
    ("markdown", "error", "message"),
    [
        (GOOD, NameError, "asyncio"),
        ("```python\nprint('a b c')\n```\n\n```output\na ... d\n```\n", AssertionError, "a b c"),
        ("text\n```python\nbreak\n```\n", SyntaxError, r"line 3"),
        ("<!-- not run: wants a printer -->\n```python\nx = = 1\n```\n", SyntaxError, "syntax"),
        ("<!-- not run: -->\n```python\n1 / 0\n```\n", ZeroDivisionError, "zero"),
        ("```python\ndef test_it():\n    1 / 0\n```\n", ZeroDivisionError, "zero"),
    ],
    ids=["name", "output", "line", "not compiled", "no reason", "test"],
)
def test_run_page_when_a_block_is_wrong(
    markdown: str, error: type[Exception], message: str
) -> None:
    """A block that raises, prints something else or does not compile fails its page."""
    with pytest.raises(error, match=message):
        run_page(markdown, "bad.md")


def test_run_page_when_a_block_is_not_run() -> None:
    """A block with a reason not to be run is not."""
    run_page("<!-- not run: it needs a printer -->\n```python\n1 / 0\n```\n", "page.md")


@pytest.mark.parametrize(
    "markdown",
    [
        "```py\nx\n```\n",
        "```output\nx\n```\n",
        "  ```python\n  x\n  ```\n",
        "~~~python\nx\n~~~\n",
        "```python\nx\n",
    ],
)
def test_fence_when_it_would_escape(markdown: str) -> None:
    """Blocks that are misspelt, indented, unclosed or output of nothing are found."""
    assert fence_faults(markdown) != []


@pytest.mark.parametrize(
    ("index", "faults"),
    [
        ("[`json`](page.md)", ["JSONDecodeError", "JSONEncoder", "dump"]),
        ("[`x`](page.md#json.x)", ["x: page.md#json.x"]),
        ("[`dump`](other.md#json.dump)", ["dump: other.md#json.dump"]),
    ],
)
def test_reference_when_a_name_is_missing(tmp_path: Path, index: str, faults: list[str]) -> None:
    """A name without a link is found, and a link to another place."""
    (tmp_path / "page.md").write_text("::: json\n")
    (tmp_path / "index.md").write_text(index)
    assert set(faults) <= set(reference_faults(tmp_path))
