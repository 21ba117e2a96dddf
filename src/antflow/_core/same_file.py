"""Two names for one file: what is written under one destroys what is written under the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any

Path = str | os.PathLike[str]


def shared_file(paths: Iterable[tuple[str, Path]]) -> tuple[str, str] | None:
    """The first of several uses whose file an earlier one has, too, and that one.

    Args:
        paths: The name of each use, and its file.
    """
    seen: list[tuple[str, Path]] = []
    for name, path in paths:
        for earlier, its_path in seen:
            if is_same_file(path, its_path):
                return name, earlier
        seen.append((name, path))
    return None


def is_same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, even if it is not there yet."""
    found = status_of(path), status_of(other)
    if found == (None, None):
        return os.path.realpath(path) == os.path.realpath(other)
    return are_one(*found)


def are_one(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """Whether two statuses are of one file. Terminals, pipes and devices may be shared."""
    if one is None or other is None or not stat.S_ISREG(one.st_mode):
        return False
    return os.path.samestat(one, other)


def status_of(place: Any) -> os.stat_result | None:
    """The status of a path, or of an open stream; ``None`` if there is nothing."""
    try:
        return os.stat(place if isinstance(place, (str, os.PathLike)) else place.fileno())
    except (OSError, ValueError, AttributeError):
        return None
