"""Examples: the directory that the document sends its readers to.

What each of them prints is tested elsewhere.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.document

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
SOURCES = [path.read_text("utf-8") for path in EXAMPLES]


@pytest.mark.parametrize(
    "words",
    [
        ["progress", ".run("],
        ['"compact"', '"detailed"', '"full"'],
        ["def on_start", "def on_update", "def on_finish", "custom_dashboard="],
        ["StatusTracker(on_status_change="],
        ["sqlite3", "StatusTracker("],
        ["dashboard=", "StatusTracker("],
    ],
    ids=["progress bar", "built-in", "custom", "tracker", "external system", "both"],
)
def test_examples_have_one_of_each_kind(words: list[str]) -> None:
    """For each way of watching a pipeline there is an example that uses it."""
    assert any(all(word in source for word in words) for source in SOURCES)


@pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in EXAMPLES])
def test_example_is_complete(source: str) -> None:
    """An example is a whole program: it imports the library, leaves nothing open, and starts."""
    tree = ast.parse(source)
    assert "[...]" not in source
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "antflow"
        for alias in node.names
    }
    assert "Pipeline" in imported
    assert 'if __name__ == "__main__":' in source
