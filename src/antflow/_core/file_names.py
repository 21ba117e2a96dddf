"""Open files and the names by which they were opened, which other programs may change."""

from __future__ import annotations

import os
import stat


def is_at(path: str | os.PathLike[str], descriptor: int) -> bool:
    """Whether an open file is still the one of this name. All but ordinary files always are."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return True
    try:
        return os.path.samestat(status, os.stat(path))
    except FileNotFoundError:
        return False


def is_gone(path: str | os.PathLike[str], descriptor: int) -> bool:
    """Whether an open file has no name any more, so that what is in it is lost.

    One that was only renamed is there.
    """
    return os.fstat(descriptor).st_nlink == 0 and not is_at(path, descriptor)
