"""Two names for one file are noticed, whatever the names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from antflow._core.same_file import is_same_file, shared_file


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("other", ["a.html", "./a.html", "folder/../a.html", "link.html"])
def test_names_of_one_file(
    other: str, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through links and folders, and even before the file is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.html").symlink_to("a.html")
    if is_there:
        (tmp_path / "a.html").touch()
    assert is_same_file("a.html", other)
    assert is_same_file(Path(other), tmp_path / "a.html")
    assert not is_same_file("a.html", "b.html")


def test_hard_links_are_one_file(tmp_path: Path) -> None:
    """They have nothing in common but the file."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    os.link(one, other)
    assert is_same_file(one, other)


def test_devices_may_be_shared() -> None:
    """What is written there destroys nothing."""
    assert not is_same_file(os.devnull, os.devnull)


def test_names_both_uses() -> None:
    """The later one and the first that has its file; none where all have their own."""
    paths = [("a", "/x/1"), ("b", "/x/2"), ("c", "/x/./1"), ("d", "/x/2")]
    assert shared_file(paths) == ("c", "a")
    assert shared_file(paths[:2]) is None
