"""Names of files: those that users give, and those of open files, which may change."""

from __future__ import annotations

import os
import stat

from antflow._core.checks import refusal


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


def check_home(name: str, path: str | os.PathLike[str]) -> None:
    """Refuse a path that means a home folder to a shell.

    As with `open` and `sqlite3`, a path is taken as it is, so this one would be a folder named
    ``~`` in the current one.

    Args:
        name: The parameter.
        path: Its value.

    Raises:
        ValueError: It begins with ``~`` or ``~user``.
    """
    text = os.fspath(path)
    if text[:1] in ("~", b"~") and os.path.expanduser(text) != text:
        allowed = "begins with ~, which only a shell replaces; Path(…).expanduser() does so, too"
        raise refusal(ValueError, name, path, allowed)
