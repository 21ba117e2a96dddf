"""The part that sinks share which write one file: its path, and the check of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Unpack

from antflow._core.checks import refusal
from antflow._core.file_lock import lock
from antflow._core.file_names import check_home, is_gone
from antflow.sinks.sink import Sink, SinkOptions

GONE = "it was removed meanwhile, and what was written with it"


class FileSink(Sink):
    """A sink that writes one file.

    Args:
        path: The file. Its folder must exist.
        options: See `SinkOptions`.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Unpack[SinkOptions]) -> None:
        super().__init__(**options)
        self._path: Path = writable_path(path)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def target(self) -> str:
        """The file, for messages."""
        return repr(str(self._path))

    def gives_up_on(self, error: Exception) -> bool:
        """A file that holds something else, or is gone, is no better at the next try."""
        return isinstance(error, ValueError)

    def _check_name(self, descriptor: int) -> None:
        """Refuse to go on if another program has removed the open file.

        Raises:
            ValueError: It is gone.
        """
        if is_gone(self._path, descriptor):
            raise ValueError(GONE)


def take(descriptor: int) -> None:
    """Lock a file that is written piece by piece: two writers would mix their lines.

    Raises:
        BlockingIOError: It is being written.
    """
    if not lock(descriptor):
        text = "another program, or another sink of this one, writes to it"
        raise BlockingIOError(errno.EAGAIN, text)


def writable_path(path: str | os.PathLike[str], name: str = "path") -> Path:
    """A path to a file that can be written, or an error that says why not."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise refusal(TypeError, name, path, "must be the path of a file")
    check_home(name, path)
    made = Path(path).absolute()
    if made.is_dir() or os.fspath(path)[-1:] in (os.sep, os.altsep):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not made.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "There is no such folder", str(made.parent))
    if not os.access(made if made.exists() else made.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return made
