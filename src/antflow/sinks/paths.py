"""Paths of files that sinks write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from antflow._core.checks import refusal


def writable_path(path: str | os.PathLike[str]) -> Path:
    """A path to a file that can be written, or an error that says why not."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise refusal(TypeError, "path", path, "must be the path of a file")
    made = Path(path).absolute()
    if made.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not made.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder", str(made.parent))
    if not os.access(made if made.exists() else made.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return made
