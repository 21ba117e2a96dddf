"""Which display is shown where the program leaves that open."""

from __future__ import annotations

import os

from antflow._core.log import alert
from antflow._core.text import safe_repr

VARIABLE = "ANTFLOW_DISPLAY"
CHOICES: dict[str, str] = {
    "none": "none",
    "off": "none",
    "bar": "progress",
    "compact": "compact",
    "detailed": "detailed",
    "full": "full",
    "log": "log",
    "auto": "auto",
}
"""Allowed values of the variable, and the display that each stands for."""


def automatic_display() -> str:
    """The display that "auto" stands for: "none", or a name that `display.create` knows.

    It is "auto" again, unless the environment variable `ANTFLOW_DISPLAY` names another. A name that
    it does not know only causes a warning: a display should not stop a run.
    """
    text = os.environ.get(VARIABLE, "").strip()
    choice = CHOICES.get(text.lower() or "auto")
    if choice is None:
        known = ", ".join(CHOICES)
        alert("%s=%s is ignored: it must be one of %s", VARIABLE, safe_repr(text), known)
        return "auto"
    return choice
