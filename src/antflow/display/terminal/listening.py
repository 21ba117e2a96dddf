"""Which pane or program keys go to, and when they are read: see `keys` and `passage`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from antflow.display.terminal import questions
from antflow.display.terminal.capture import Capture

if TYPE_CHECKING:
    from antflow.display.terminal.keys import Keys


class Listener(Protocol):
    """A pane, as far as keys are concerned."""

    press: Callable[[str], object] | None


class Listening:
    """The keyboard of a screen, while one of its panes wants keys.

    Args:
        panes: The panes of the screen, in order.
        capture: Told when the settings of the keyboard are changed.
    """

    def __init__(self, panes: Sequence[Listener], capture: Capture) -> None:
        self._panes = panes
        self._capture = capture
        self._keys: Keys | None = None

    @property
    def is_keyboard_taken(self) -> bool:
        """Whether another program reads what is typed."""
        return self._keys is not None and self._keys.is_taken

    @property
    def is_keyboard_restored(self) -> bool:
        """Whether a shell has restored the settings, though keys are read."""
        return self._keys is not None and self._keys.are_restored

    @property
    def has_keyboard(self) -> bool:
        """Whether keys can be read, now or when the program is in the foreground."""
        return self._keys is not None

    def go_to(self, pane: Listener) -> bool:
        """Whether keys that are typed now are for a pane."""
        return self._keys is not None and self._keys.are_heard and self._first() is pane

    def begin(self) -> None:
        """Open the keyboard if a pane wants keys and it can be read."""
        if self._keys is None and self._first() is not None and os.name == "posix":
            # Here and not above: Windows has no such terminals, and few displays have keys.
            import termios

            from antflow.display.terminal.keys import Keys

            with suppress(OSError, ValueError, RuntimeError, AttributeError, termios.error):
                self._keys = Keys(self._press, self._capture.keyboard_set)

    def look(self) -> None:
        """Read keys for the panes from now on, if the keyboard is ours."""
        self._capture.passing.end()
        if self._keys is not None:
            self._keys.look()

    def pass_on(self) -> None:
        """Read keys for a program from now on, if it reads them from the pseudo terminal."""
        if self._capture.passing.is_wanted and not questions.are_open():
            if self._keys is not None:
                self._keys.rest()
            self._capture.passing.begin()

    def rest(self) -> None:
        """Give the keyboard back until the next `look`."""
        self._capture.passing.end()
        if self._keys is not None:
            self._keys.rest()

    def renew(self) -> None:
        """The program goes on after a stop."""
        if self._keys is not None:
            self._keys.renew()

    def end(self, *, unless_wanted: bool = False) -> None:
        """Give the keyboard back for good.

        Args:
            unless_wanted: Not if a pane still wants keys, or a program does.
        """
        if not unless_wanted or not self._capture.passing.is_wanted:
            self._capture.passing.end()
        if unless_wanted and self._first() is not None:
            return
        keys, self._keys = self._keys, None
        if keys is not None:
            keys.end()

    def forget(self) -> None:
        """In a child process after a fork: the keyboard is the parent's."""
        keys, self._keys = self._keys, None
        if keys is not None:
            keys.forget()

    def _first(self) -> Listener | None:
        return next((pane for pane in tuple(self._panes) if pane.press is not None), None)

    def _press(self, key: str) -> None:
        """Hand a key on. In the thread that reads them."""
        pane = self._first()
        if pane is not None and pane.press is not None:
            pane.press(key)
