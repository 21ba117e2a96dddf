"""A small process that passes on what is printed, from a pseudo terminal to the program that draws.

`descriptors` starts this file as a script of its own, so it imports nothing of the library. A
thread could not do its work:

- C code may print a lot while it holds Python's global lock. A pseudo terminal holds some 20 kB;
  then that code waits, and a thread that should read never gets the lock.
- A program that crashes or is killed has no threads. Here what it printed last still comes out,
  with the lines that waited in a file for the first screen, and the terminal is given back.
- Children may outlive the program that started them, and go on printing.

The program takes text in pieces, and says so for each. When its end of `orders` is closed, all that
is left and all that still comes goes straight to the terminal, until nothing has the pseudo
terminal open any more.
"""

import os
import select
import sys
import time

PIECE_BYTES = 16_384
"""Fits into an empty pipe, so writing it never waits."""

PID_BYTES = 8
"""The first bytes in `pieces` are the number of this process."""

TAKEN = b"+"
LAST_WORDS = b"="
SETTINGS = b"~"
END = b"\0"
"""An order is `TAKEN`, `LAST_WORDS` with text that gives the terminal back, or `SETTINGS` with the
settings to restore, as hexadecimal digits of what `marshal` makes of them; then `END`."""


def relay(master: int, terminal: int, orders: int, pieces: int, kept: int, most_bytes: int) -> None:
    """Pass text on until the program has ended or needs it no more, and then to the terminal.

    Args:
        master: The pseudo terminal, to read from.
        terminal: The real one.
        orders: A pipe from the program.
        pieces: A pipe to the program.
        kept: A file with lines that the program has not printed yet; -1 = none.
        most_bytes: How much text may wait for the program.
    """
    waiting = bytearray()
    piece = last_words = settings = unread = b""
    is_open = True
    # A program that ends may close the pseudo terminal first, and `orders` a moment later.
    while is_open or piece or waiting or last_words or settings:
        if waiting and not piece:
            piece = bytes(waiting[:PIECE_BYTES])
            del waiting[:PIECE_BYTES]
            try:
                os.write(pieces, piece)
            except OSError:
                break
        sources = [orders, master] if is_open and len(waiting) < most_bytes else [orders]
        ready = select.select(sources, [], [])[0]
        if orders in ready:
            order = os.read(orders, PIECE_BYTES)
            if not order:
                break
            is_open = True  # perhaps again: the next display begins
            *complete, unread = (unread + order).split(END)
            for order in complete:
                if order == TAKEN:
                    piece = b""
                elif order.startswith(SETTINGS):
                    settings = order.removeprefix(SETTINGS)
                else:
                    last_words = order.removeprefix(LAST_WORDS)
        if master in ready:
            try:
                text = os.read(master, PIECE_BYTES)
            except OSError:  # nothing has the pseudo terminal open any more
                text = b""
            is_open = bool(text)
            waiting += text
    if settings:
        restore(terminal, settings)
    write_all(terminal, last_words)
    if kept >= 0:
        copy_all(kept, terminal)
    write_all(terminal, piece + waiting)
    while data := os.read(master, PIECE_BYTES):
        write_all(terminal, data)


def restore(terminal: int, settings: bytes) -> None:
    """Restore the settings, unless the shell has set its own meanwhile."""
    import marshal
    import termios

    try:
        now = termios.tcgetattr(terminal)[3] & (termios.ECHO | termios.ICANON | termios.ECHONL)
        if now == termios.ECHONL:
            found = marshal.loads(bytes.fromhex(settings.decode()))  # noqa: S302 - its own pipe
            termios.tcsetattr(terminal, termios.TCSANOW, found)
    except termios.error:
        pass


def copy_all(source: int, target: int) -> None:
    """Write what is in a file."""
    position = 0
    while data := os.pread(source, PIECE_BYTES, position):
        position += len(data)
        write_all(target, data)


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Write all of it, also to a terminal that another program has made non-blocking."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            time.sleep(0.05)


def _relay_between(from_program: int, to_program: int, kept: int, most_bytes: int) -> None:
    os.write(to_program, os.getpid().to_bytes(PID_BYTES))
    # Their numbers may be too high for `select`.
    relay(0, 1, os.dup(from_program), os.dup(to_program), kept, most_bytes)


if __name__ == "__main__":
    if os.fork():  # the program is not told when it ends
        os._exit(0)
    try:
        _relay_between(*map(int, sys.argv[1:]))
    except OSError:  # nothing has the pseudo terminal open any more, or the real one is gone
        pass
