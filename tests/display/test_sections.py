"""Which sections have room: the advice stays longest, and a large window is used."""

from __future__ import annotations

import pytest

from antflow import DashboardSnapshot
from antflow.display import BaseDashboard, create
from tests.display.conftest import make_snapshot
from tests.display.test_frames import lines_of

TEN = ("fetch", "parse", "enrich", "save", "index", "notify", "audit", "archive", "verify", "end")
SENTENCE = "4 of 4 workers busy, 26 items wait for it; 4 more workers would lift the rate by up to"


def held_back_by(stage: str, workers: int = 40) -> DashboardSnapshot:
    """A run of ten stages, one of which is the bottleneck."""
    snapshot = make_snapshot(workers, TEN)
    snapshot.pipeline_stats.stage_stats[stage].busy_seconds = 10_000
    return snapshot


@pytest.mark.parametrize("stage", [TEN[0], TEN[6], TEN[-1]])
@pytest.mark.parametrize("level", ["compact", "detailed", "full"])
@pytest.mark.parametrize("columns", [25, 40, 80, 120, 200])
def test_bottleneck_and_advice_are_the_last_to_go(level: str, columns: int, stage: str) -> None:
    """However low the window, the marked stage and the advice are there, if there are four rows."""
    for rows in (*range(4, 16), 20, 24, 30):
        lines = lines_of(level, held_back_by(stage), columns, rows)
        assert len(lines) <= rows
        assert f"▶{stage} " in "\n".join(lines), rows
        assert any(line.startswith("▶ Bottleneck:") for line in lines), rows


@pytest.mark.parametrize(
    ("level", "columns", "rows"),
    [("compact", 80, 24), ("detailed", 80, 24), ("full", 80, 24), ("full", 40, 10)],
)
def test_advice_is_whole(level: str, columns: int, rows: int) -> None:
    """In windows that are as small as this, no word of it is cut."""
    assert SENTENCE in " ".join(lines_of(level, held_back_by("audit"), columns, rows))


@pytest.mark.parametrize("level", ["compact", "detailed", "full"])
def test_every_stage_is_shown_in_an_ordinary_terminal(level: str) -> None:
    """Ten stages fit on 80 × 24, whatever else there is to say."""
    text = "\n".join(lines_of(level, held_back_by("audit")))
    assert all(f"{name} " in text for name in TEN)
    assert " more" not in text.replace("more workers", "")


@pytest.mark.parametrize("level", ["compact", "detailed", "full"])
def test_chosen_stage_does_not_hide_the_bottleneck(level: str) -> None:
    """Where there is room for a few stages only, both are among them, in their order."""
    display = create(level)
    snapshot = held_back_by("verify")
    lines_of(display, snapshot, 60, 11)
    assert display._viewer is not None
    display._viewer.chosen = "end"
    snapshot = held_back_by("verify")
    snapshot.timestamp += 1.0
    text = "\n".join(lines_of(display, snapshot, 40, 11))
    assert 0 < text.index("▶verify ") < text.index("»end ")


@pytest.mark.parametrize(("columns", "rows"), [(160, 24), (160, 40), (200, 60), (300, 90)])
@pytest.mark.parametrize("printed", [0, 3, 200])
@pytest.mark.parametrize("workers", [40, 1000])
def test_wide_window_has_two_columns_and_no_empty_rows(
    columns: int, rows: int, printed: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages stand left of the workers, all sections are there, and what is cut fills the rows."""
    log = [f"line {number}" for number in range(printed)]
    monkeypatch.setattr(BaseDashboard, "_printed", lambda self, most: log[-most:])
    display = create("full")
    for second in range(1, 4):
        snapshot = make_snapshot(workers, settled=100 * second, elapsed=20.0 * second)
        lines = lines_of(display, snapshot, columns, rows)
    assert lines[2].startswith(" stage ")
    assert lines[2].index("─ workers") > columns // 2
    text = "\n".join(lines)
    for section in ("throughput", "errors", "in progress"):
        assert f"─ {section} " in text
    shown = [line for line in log if f"{line} " in text or f"{line}\n" in text]
    assert shown == log[len(log) - len(shown) :]
    assert len(lines) <= rows
    assert all(lines)
    if len(shown) < printed:
        assert len(lines) == rows
        assert len(shown) > rows // 2 or rows < 60


def test_window_is_not_divided_below_160_columns() -> None:
    """In 159 columns all sections are as wide as the window."""
    assert "─ workers" not in lines_of("full", make_snapshot(), 159, 40)[2]
    assert "─ workers" in lines_of("full", make_snapshot(), 160, 40)[2]


def test_large_window_shows_more_than_a_middling_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are left when every section has enough go to the errors and the log."""
    printed = [f"{number} printed" for number in range(100)]
    monkeypatch.setattr(BaseDashboard, "_printed", lambda self, most: printed[-most:])
    lines = lines_of("full", make_snapshot(), 100, 100)
    assert len(lines) == 100
    assert sum(line.endswith(" printed") for line in lines) > 40
