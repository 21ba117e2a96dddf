"""``ANTFLOW_DISPLAY`` chooses a display where the program leaves that open."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any

import pytest

from antflow import Pipeline, Stage
from antflow._monitor.display_choice import automatic_display
from antflow._pipeline_options import choose_display
from antflow.display import (
    BaseDashboard,
    CompactDashboard,
    DetailedDashboard,
    FullDashboard,
    LogDisplay,
    ProgressDisplay,
)
from antflow.testing import run_virtual

CHOSEN: dict[str, type[BaseDashboard] | None] = {
    "none": None,
    "off": None,
    "bar": ProgressDisplay,
    "compact": CompactDashboard,
    "detailed": DetailedDashboard,
    "full": FullDashboard,
    "log": LogDisplay,
    "auto": CompactDashboard,
    "": CompactDashboard,
    " Full ": FullDashboard,
}


def chosen(dashboard: Any = None, *, progress: bool = False) -> type | None:
    """The class of the display of a run."""
    display = choose_display(progress, dashboard, None, 0.5)
    return None if display is None else type(display)


@pytest.mark.parametrize("value", CHOSEN)
def test_variable_says_what_auto_is(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its values stands for a display, or for none; an empty one for nothing."""
    monkeypatch.setenv("ANTFLOW_DISPLAY", value)
    assert chosen("auto") is CHOSEN[value]


class Shown(str, Enum):  # noqa: UP042 - StrEnum has another str()
    """Settings often have their words as an enum, whose ``str()`` is the member's name."""

    FULL = "full"
    AUTO = "auto"


def test_name_may_be_a_member_of_an_enum(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as the string that it is."""
    monkeypatch.setenv("ANTFLOW_DISPLAY", "compact")
    assert chosen(Shown.FULL) is FullDashboard
    assert chosen(Shown.AUTO) is CompactDashboard


@pytest.mark.parametrize("value", ["off", "full"])
def test_variable_overrides_no_choice_in_code(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program asks for by name is shown; what it does not ask for is not."""
    monkeypatch.setenv("ANTFLOW_DISPLAY", value)
    assert chosen("compact") is CompactDashboard
    assert chosen("log") is LogDisplay
    assert chosen(progress=True) is ProgressDisplay
    assert chosen() is None
    own = LogDisplay()
    assert choose_display(False, own, None, 0.5) is own


def test_variable_that_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the values, and the run is as without it."""
    monkeypatch.setenv("ANTFLOW_DISPLAY", "ful\x1b[2J")
    stages = [Stage("Work", 1, [str])]
    with caplog.at_level(logging.WARNING, "antflow"):
        results = run_virtual(lambda: Pipeline(stages).run(range(3), dashboard="auto"))
    assert results.values() == ["0", "1", "2"]
    (message,) = caplog.messages
    assert message == (
        "ANTFLOW_DISPLAY='ful\\x1b[2J' is ignored: it must be one of "
        "none, off, bar, compact, detailed, full, log, auto"
    )


def test_variable_that_is_wrong_is_printed_without_logging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that has not set up logging says it on standard error."""
    monkeypatch.setenv("ANTFLOW_DISPLAY", "ful")
    monkeypatch.setattr(logging.root, "handlers", [])
    assert automatic_display() == "auto"
    assert "ANTFLOW_DISPLAY='ful' is ignored" in capsys.readouterr().err
