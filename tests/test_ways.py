"""The ways that docs/inside.md tells of are those that the code takes.

The page has a block for each way, under a comment ``<!-- way: item -->``. The files it names, with
anything between them, are compared with those that `tests.ways` sees.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.ways import PACKAGE, WAYS, Journey, Way, follow, stays

PAGE = Path(__file__).parents[1] / "docs" / "inside.md"

SECTION = re.compile(
    r"^<!-- way: (?P<way>.*) -->\n+```\n(?P<text>(?:(?!```).*\n)*)```$", re.MULTILINE
)


def ways_told(page: str) -> dict[str, list[str]]:
    """The files of each way that a page tells of, in order; each file once."""
    return {
        found["way"]: list(dict.fromkeys(re.findall(r"[\w/]+\.py\b", found["text"])))
        for found in SECTION.finditer(page)
    }


@pytest.mark.parametrize("way", WAYS)
def test_page_tells_the_way(way: Way) -> None:
    """A block in docs/inside.md names each file of the way, in the order of the first entry."""
    assert ways_told(PAGE.read_text(encoding="utf-8")).get(way) == follow(way)


def test_page_tells_of_no_other_way() -> None:
    """Each block is of a way that can be followed."""
    assert list(ways_told(PAGE.read_text(encoding="utf-8"))) == list(WAYS)


def test_ways_told_by_a_page() -> None:
    """Only marked blocks are read; of those, the paths, whatever stands between them."""
    page = (
        "a.py\n```\nb.py\n```\n<!-- way: item -->\n\n```\n_core/c.py ── d.py  does it\n"
        "  again _core/c.py\n```\n<!-- way: event -->\n```\n```\n<!-- way: snapshot -->\ne.py\n"
    )
    assert ways_told(page) == {"item": ["_core/c.py", "d.py"], "event": []}


@pytest.mark.parametrize("way", WAYS)
def test_follow_sees_files_of_the_package(way: Way) -> None:
    """A way is the same each time, of files that exist, and nothing is watched afterwards."""
    files = follow(way)
    assert files == follow(way)
    assert len(files) > 1
    assert [file for file in files if not (PACKAGE / file).is_file()] == []
    assert sys.getprofile() is None


def test_follow_a_failed_item() -> None:
    """The failed item's way passes all files of the other item's way, and further ones."""
    assert set(follow("item")) < set(follow("failed item"))


def test_journey_notes_calls_and_holders() -> None:
    """A call of the package's code is noted, and which file has the item before and after it."""
    names: dict[str, Any] = {}
    for file, text in [
        ("b.py", "def take(item): ..."),
        ("c.py", "def give(item): return take([item]), take(None)"),
        ("testing/d.py", "def step(item): return give(item)"),
    ]:
        exec(compile(text, str(PACKAGE / file), "exec"), names)
    journey = Journey("failed item")
    journey.tries = 1
    journey.watch()
    names["step"](journey.item)
    journey.unwatch()
    assert journey.entered == ["c.py", "b.py", "b.py"]
    assert journey.holders == ["c.py", "b.py", "c.py", "c.py", "c.py"]


def test_stays_of_a_failed_item() -> None:
    """The item begins and ends with the code that calls its task, and is back there in between."""
    files = stays()
    assert files[0] == files[-1]
    assert files[0] in files[1:-1]
    assert set(files) < set(follow("failed item"))
    assert all(now != before for before, now in pairwise(files))
