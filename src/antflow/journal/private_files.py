"""Whether only the user can write to a file, so that what is in it can be trusted."""

from __future__ import annotations

import os
import stat
from typing import Any

from antflow._core.errors import JournalOpenError

_user_id: Any = getattr(os, "geteuid", None)  # Windows has none


def refuse_unless_private(path: str | os.PathLike[str]) -> None:
    """Refuse a journal that others could have written, or could replace.

    Args:
        path: The journal. It need not exist yet; its folder must be the user's then, too.

    Raises:
        JournalOpenError: The file, one that SQLite keeps beside it, or its folder belongs to
            another user, or can be written by another.
    """
    name = os.fspath(path)
    if _user_id is None:
        told = "on this system it cannot be told who can write to it"
        raise JournalOpenError(f"journal {name!r}: pickles in it cannot be trusted: {told}")
    real = os.path.realpath(name)
    for each in (os.path.dirname(real), real, f"{real}-wal", f"{real}-shm", f"{real}-journal"):
        try:
            status = os.stat(each, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if (why := _why_not(status)) is not None:
            told = f"pickles in it cannot be trusted: {each!r} {why}"
            raise JournalOpenError(f"journal {name!r}: {told}")


def _why_not(status: os.stat_result) -> str | None:
    if status.st_uid != _user_id():
        return f"belongs to another user ({status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None
