"""``dashboard="log"``: plain lines, wherever they go."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text

from antflow._core.snapshot import DashboardSnapshot
from antflow._core.text import clean
from antflow.display.base import BaseDashboard
from antflow.display.plain import progress_text


class LogDisplay(BaseDashboard):
    """Plain lines now and then: at the start, at every 5 % or 30 seconds, at the end.

    It writes no escape sequences, not even to a terminal. Every other display does this where there
    is not a terminal.
    """

    _draws: ClassVar[bool] = False

    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The line for a snapshot, as a rich renderable."""
        return Text(clean(f"{self._name}: {progress_text(self._see(snapshot))}"))
