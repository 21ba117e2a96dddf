"""Displays: they show a run while it runs.

``progress=True`` and ``dashboard="…"`` of `Pipeline.run` use these; pass your own object as
``custom_dashboard``.
"""

from antflow._core.checks import check_choice
from antflow.display.base import BaseDashboard
from antflow.display.compact import CompactDashboard
from antflow.display.detailed import DetailedDashboard
from antflow.display.full import FullDashboard
from antflow.display.log import LogDisplay
from antflow.display.progress_bar import ProgressDisplay

__all__ = [
    "BaseDashboard",
    "CompactDashboard",
    "DetailedDashboard",
    "FullDashboard",
    "LogDisplay",
    "ProgressDisplay",
    "create",
]

_DISPLAYS: dict[str, type[BaseDashboard]] = {
    "progress": ProgressDisplay,
    "auto": CompactDashboard,
    "compact": CompactDashboard,
    "detailed": DetailedDashboard,
    "full": FullDashboard,
    "log": LogDisplay,
}


def create(name: str) -> BaseDashboard:
    """Make a built-in display.

    Args:
        name: "progress", "compact", "detailed", "full", "log", or "auto": compact on a terminal
            and in a notebook, else plain lines.

    Raises:
        ValueError: There is no such display.
    """
    check_choice(ValueError, "name", name, tuple(_DISPLAYS))
    return _DISPLAYS[name]()
