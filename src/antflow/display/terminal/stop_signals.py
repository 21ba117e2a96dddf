"""The terminal is given back when a signal ends or stops the program.

While anything is drawn, the signals that would end or stop the program without a word (SIGTERM,
SIGHUP, SIGQUIT, Ctrl-Z) are handled here: the terminal is given back, and then the signal does what
it always does, so that the exit code is right. A new size of the window (SIGWINCH) is passed on.
Only the default handler is replaced: another one, for example that of `graceful_signals`, stays.
Python lets only the main thread set handlers; a screen that is opened in another thread does
without, until a display in the main thread joins it.

A handler runs between any two steps of the main thread, even in the middle of a frame. Then the
signal waits until the frame is drawn, see `catch_up`; if it comes again, it does not wait.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Protocol


class Restorable(Protocol):
    """A terminal that is drawn on."""

    @property
    def is_interrupted(self) -> bool:
        """Whether a handler that runs now stands in the middle of its drawing."""
        ...

    def end(self) -> None:
        """Give the terminal back for good; nothing more will run."""

    def pause(self) -> None:
        """Give the terminal back for a while."""

    def resume(self) -> None:
        """Draw again; also called when nothing was paused."""

    def fit(self) -> None:
        """The window has another size."""


_watched: list[Restorable] = []
_due: list[int] = []
_has_stopped = False


def watch(screen: Restorable) -> None:
    """Look after a screen from now on."""
    _watched.append(screen)
    set_handlers()


def set_handlers() -> None:
    """Handle the signals from now on, in the main thread: the screen may be that of another."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in _HANDLERS.items():
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, handler)


def unwatch(screen: Restorable) -> None:
    """Stop looking after a screen; after the last one the handlers are as before."""
    _watched.remove(screen)
    if not _watched:
        _restore_handlers()


def forget() -> None:
    """In a child process after a fork: the terminal is the parent's."""
    _watched.clear()
    _restore_handlers()


def catch_up() -> None:
    """Called after each frame: a signal that came in the middle of it does its work now."""
    if _due and threading.current_thread() is threading.main_thread():
        signal.raise_signal(_due.pop(0))


def _restore_handlers() -> None:
    # In another thread they stay, and with nothing to look after they do what the default does.
    if threading.current_thread() is threading.main_thread():
        for number, handler in _HANDLERS.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL)


def _has_to_wait(number: int) -> bool:
    if number in _due or not any(screen.is_interrupted for screen in _watched):
        return False
    _due.append(number)
    return True


def _on_end(number: int, _: FrameType | None) -> None:
    if _has_to_wait(number):
        return
    for screen in tuple(_watched):
        with suppress(Exception):  # whatever happens here, the program ends
            screen.end()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _on_stop(number: int, _: FrameType | None) -> None:
    global _has_stopped
    if _has_to_wait(number):
        return
    for screen in tuple(_watched):
        screen.pause()
    _has_stopped = True
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)  # the program stands here until it is continued
    _on_continue(number, None)


def _on_continue(_: int, __: FrameType | None) -> None:
    global _has_stopped
    if _has_stopped:  # at once: as soon as anything is drawn, the next stop may come
        _has_stopped = False
        signal.signal(signal.SIGTSTP, _on_stop)
    for screen in tuple(_watched):
        screen.resume()


def _on_resize(_: int, __: FrameType | None) -> None:
    for screen in tuple(_watched):
        screen.fit()


_HANDLERS = {
    getattr(signal, name): handler
    for name, handler in (
        ("SIGINT", _on_end),  # Python's own handler is another than the default
        ("SIGTERM", _on_end),
        ("SIGHUP", _on_end),
        ("SIGQUIT", _on_end),
        ("SIGTSTP", _on_stop),
        ("SIGCONT", _on_continue),
        ("SIGWINCH", _on_resize),
    )
    if hasattr(signal, name)
}
