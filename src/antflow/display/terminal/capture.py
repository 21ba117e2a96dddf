"""Captures what is printed on a terminal while a display is up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

from antflow.display.terminal import questions
from antflow.display.terminal.kept_lines import KeptLines

Action = Callable[[], object]
Write = Callable[[str], object]


class Passing:
    """Passes keys on to a program that reads them from what stands for the terminal.

    Here nothing stands for it.
    """

    @property
    def is_wanted(self) -> bool:
        """Whether a program reads keys from there."""
        return False

    def begin(self) -> None:
        """Pass on what is typed on the terminal."""

    def end(self) -> None:
        """Pass nothing on, and restore the settings of the terminal."""


class Capture(ABC):
    """Takes text on its way to a terminal, and hands it on in whole lines.

    Attributes:
        kept: Where lines can wait for the first screen of the terminal.
        passing: Passes keys on to programs whose text is captured.
    """

    passing: Passing = Passing()
    kept: KeptLines

    @abstractmethod
    def start(self) -> None:
        """Begin; or capture what is not captured yet."""

    @abstractmethod
    def end_lines(self) -> None:
        """Hand on all that was written, even text that has no newline yet."""

    @abstractmethod
    def stop(self, then: Action) -> None:
        """Put everything back, unless other code has replaced it in the meantime.

        Args:
            then: Called when all has been handed on. If the terminal takes nothing now, that is
                later, in another thread.
        """

    @abstractmethod
    def hand_over(self, write: Write, then: Action) -> None:
        """Put everything back, and leave the terminal to a `Live`, with its text so far.

        Args:
            write: Writes that to the terminal.
            then: As in `stop`.
        """

    @abstractmethod
    def forget(self) -> None:
        """In a child process after a fork: hand on nothing; the terminal is the parent's."""

    @abstractmethod
    def take_rest(self) -> str:
        """Take the unfinished line that is held back, unchanged."""

    def catch_up(self) -> None:  # noqa: B027 - text is handed on when it is written
        """Wait until all that was written has been handed on."""

    def stands_for(self, device: Hashable) -> bool:
        """Whether a device stands for the terminal."""
        return False

    def fit(self) -> None:  # noqa: B027
        """Tell programs of a new size of the terminal."""

    def prepare(self, last_words: str) -> None:  # noqa: B027
        """Say what gives the terminal back if this program ends without a word."""

    def keyboard_set(self, restore: list[object] | None) -> None:  # noqa: B027
        """The settings of the keyboard are changed by this program; called before and after that.

        Args:
            restore: What restores them if the program ends without a word; ``None`` = nothing to
                restore.
        """

    def is_keyboard_read(self, text: str = "") -> bool:
        """Whether something reads from the terminal.

        Args:
            text: Text that has come just now. Whether the last line is unfinished is part of the
                answer.
        """
        return questions.are_open()
