"""The terminal window of the tests by the document."""

from __future__ import annotations

import pytest

from .screen import Window


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Window:
    """A terminal window, in surroundings where displays draw on terminals."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "ANTFLOW_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Window()
