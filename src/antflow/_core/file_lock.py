"""Locks on files, so that programs that write to the same one do not lose each other's lines.

A lock belongs to the open file, and ends with the program that has it. Where `lock` finds none
(Windows, some network file systems), every file can be had; `lock_or_fail` knows those of Windows,
and insists on one.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Any

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # anything else
    msvcrt = None

LOCKED_BYTE = 2**30
"""The byte that is locked on Windows: far behind what is in the file, since none can read it."""


def lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take an open file, alone or shared with others that share it; does not wait.

    Returns:
        Whether it was to be had. A pipe or a device always is.
    """
    if fcntl is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has none
        pass
    return True


def lock_or_fail(descriptor: int) -> bool:
    """Take an open file alone; does not wait.

    Returns:
        Whether it was to be had.

    Raises:
        OSError: There are no locks here.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):  # as flock and Windows say it
        return False
    return True


def unlock(descriptor: int) -> None:
    """Give a file back, even if a forked process that is still alive shares the descriptor."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
