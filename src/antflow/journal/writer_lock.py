"""The lock of a journal: it has one writer, in one process.

It is a lock on a file of its own, ``run.db.lock``. A lock on the journal itself would need another
open descriptor of that file, and POSIX takes away all of a process's locks on a file, those of
SQLite too, when the process closes any descriptor of it.

The lock ends with the process that has it, however that ends, so no lock is ever stale. The file
says who has it. A process that gives the lock back removes the file; one that was killed leaves it,
and the next takes it over.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import datetime

from antflow._core.errors import JournalInUseError
from antflow._core.file_lock import lock_or_fail
from antflow._core.text import clean

_held: set[WriterLock] = set()


class WriterLock:
    """The lock of a journal, held.

    Args:
        journal: The journal, as the user calls it.
        path: Its real path.

    Raises:
        JournalInUseError: Another writer has it.
        OSError: The file of the lock cannot be made, or there are no locks here.
    """

    def __init__(self, journal: str, path: str) -> None:
        self._path = f"{path}.lock"
        self._descriptor: int | None = None
        while self._descriptor is None:
            descriptor = os.open(self._path, _FLAGS, 0o600)
            try:
                if not lock_or_fail(descriptor):
                    raise JournalInUseError(f"journal {journal!r} {_told(descriptor)}")
                if _is_at(self._path, descriptor):  # else another has just removed it
                    _tell(descriptor)
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        _held.add(self)

    def release(self) -> None:
        """Give it back. Does nothing the second time."""
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is None:
            return
        with suppress(OSError):  # Windows removes no open file
            if _is_at(self._path, descriptor):  # else it was removed, and may be another's by now
                os.remove(self._path)
        os.close(descriptor)

    def forget(self) -> None:
        """Leave it to the parent, in a forked process: it would be held as long as both live."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _tell(descriptor: int) -> None:
    """Write into the file who has the lock."""
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(holder).encode() + b"\n")


def _told(descriptor: int) -> str:
    """Who has the lock, for a message."""
    advice = "wait for it, or use another path"
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        holder = json.loads(os.read(descriptor, 1_000))
        since = datetime.fromisoformat(holder["started"])
        pid, host = int(holder["pid"]), str(holder["host"])
    except (OSError, ValueError, KeyError, TypeError):  # it is about to be written
        return f"is open in another process; {advice}"
    text = f"{since:%H:%M:%S}"
    if since.date() != datetime.now().astimezone().date():
        text = f"{since:%Y-%m-%d %H:%M:%S}"
    is_own = (pid, host) == (os.getpid(), socket.gethostname())
    process = f"this process ({pid})" if is_own else f"process {pid}"
    return f"is open in {process} on host {clean(host)} since {text}; {advice}"


def _forget_all() -> None:
    for each in list(_held):
        each.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
