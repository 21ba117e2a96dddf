"""A pseudo-terminal whose output is discarded, for programs that draw."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TextIO

ROWS, COLUMNS = 40, 120


def open_terminal() -> TextIO:
    """The end to write to. Closing it ends the reader."""
    if sys.platform == "win32":
        raise OSError("there are no pseudo-terminals on Windows")
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def drain() -> None:
        with suppress(OSError):  # the other end is closed
            while os.read(master, 1 << 16):
                pass
        os.close(master)

    threading.Thread(target=drain, daemon=True).start()
    return os.fdopen(slave, "w", encoding="utf-8", newline="")
