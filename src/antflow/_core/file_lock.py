"""Locks on files, so that programs that write to the same one do not lose each other's lines.

A lock belongs to the open file, and ends with the program that has it. Where there are no locks
(Windows, some network file systems), every file can be had.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


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


def unlock(descriptor: int) -> None:
    """Give a file back, even if a forked process that is still alive shares the descriptor."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
