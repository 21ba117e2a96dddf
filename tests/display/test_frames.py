"""What a display composes: for every size, and for every kind of snapshot."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from antflow import (
    CounterStats,
    DashboardSnapshot,
    ErrorSummary,
    FailedItem,
    LoopHealth,
    LoopStall,
    PipelineStats,
)
from antflow._core.estimates import Eta
from antflow._core.snapshot import RunState
from antflow._monitor.outlook import Outlook
from antflow._monitor.view import Viewer
from antflow.display import BaseDashboard, create
from antflow.display.canvas import Canvas
from antflow.display.failure_lines import error_table
from antflow.display.layout import Wish, share
from antflow.display.tables import GAUGE_CELLS, chips_lines, stage_lines
from tests.display.conftest import LEVELS, make_snapshot

SIZES = [(80, 24), (120, 40), (60, 15), (40, 10), (20, 5), (10, 3), (200, 60), (3, 2), (1, 1)]


class Untold:
    """An item id that has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def lines_of(
    display: BaseDashboard | str,
    snapshot: DashboardSnapshot,
    columns: int = 80,
    rows: int = 24,
    last: bool = False,
) -> list[str]:
    """A frame as text, of a snapshot that has the advice that a run would give it."""
    snapshot.advice = Outlook().see(snapshot)["advice"]()
    display = create(display) if isinstance(display, str) else display
    console = Console(file=StringIO(), width=columns, height=rows, force_terminal=True)
    frame = display._last_frame(snapshot) if last else display.render(snapshot)
    lines = console.render_lines(frame, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("workers", [1, 40, 1000])
@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_frame_fits(level: str, workers: int, columns: int, rows: int) -> None:
    """No frame is wider or taller than the terminal, the last one neither."""
    stages = ("Fetch", "Parse", "Enrich", "Save") if workers > 1 else ("Only",)
    for snapshot in (
        make_snapshot(workers, stages),
        make_snapshot(workers, stages, total=None, failed=0),
        make_snapshot(workers, tuple(f"Stage number {n}" for n in range(30))),
    ):
        for last in (False, True):
            lines = lines_of(level, snapshot, columns, rows, last)
            assert 1 <= len(lines) <= rows
            assert max(map(cell_len, lines)) <= columns


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40), (60, 15), (40, 10), (22, 5)])
def test_frame_ends_with_the_counts(level: str, columns: int, rows: int) -> None:
    """However small it is, the last line says how many are ok and how many failed."""
    assert lines_of(level, make_snapshot(), columns, rows)[-1].endswith("21,446 ok, 256 failed")


@pytest.mark.parametrize("level", LEVELS)
def test_frame_when_the_snapshot_is_empty(level: str) -> None:
    """No stages, no workers, no items: a frame all the same."""
    stats = PipelineStats(0, 0, 0, {})
    empty = DashboardSnapshot({}, {}, stats, ErrorSummary(0, {}, {}, []), 0.0)
    assert lines_of(level, empty)[-1].endswith("0 ok, 0 failed")
    assert "%" not in "".join(lines_of(level, empty))


@pytest.mark.parametrize("level", LEVELS)
def test_frame_when_the_total_is_unknown(level: str) -> None:
    """There is a count and a rate, and no percent."""
    text = "\n".join(lines_of(level, make_snapshot(total=None)))
    assert "21,702 done" in text
    assert "174/s" in text
    assert "%" not in text


def test_progress_is_one_line() -> None:
    """Bar, percent, done of total, rate, ok and failed."""
    (line,) = lines_of("progress", make_snapshot(), 120)
    assert line.startswith("━" * 11)
    for part in (" 43% ", " 21,702/50,000 ", " 174/s ", " 21,446 ok, 256 failed"):
        assert part in f"{line} "


@pytest.mark.parametrize(
    ("settled", "failed", "full"), [(99_999, 0, False), (99_999, 1, False), (100_000, 1, True)]
)
def test_bar_neither_hides_a_failure_nor_what_is_left(
    settled: int, failed: int, full: bool
) -> None:
    """One item of a hundred thousand that has failed, or is not done yet, has a cell of its own."""
    stats = PipelineStats(settled - failed, failed, 100_000 - settled, {}, items_accepted=100_000)
    summary = ErrorSummary(failed, {}, {}, [])
    snapshot = DashboardSnapshot({}, {}, stats, summary, 0.0, total_items=100_000)
    (line,) = lines_of("progress", snapshot)
    assert (line.count("┅"), "─" not in line) == (failed, full)


def test_compact_shows_every_stage_on_three_or_four_lines() -> None:
    """A bar, the stages, the errors if there are any, the counts."""
    lines = lines_of("compact", make_snapshot())
    assert len(lines) == 4
    assert all(f"{name} " in lines[1] for name in ("Fetch", "Parse", "Enrich", "Save"))
    assert "TimeoutError 171" in lines[2]
    assert len(lines_of("compact", make_snapshot(failed=0))) == 3
    chips = lines_of("compact", make_snapshot(), 40)[1:3]
    assert [line.count("/10 ") for line in chips] == [2, 2]
    assert "… 2 more" in lines_of("compact", make_snapshot(), 21)[2]


def test_table_says_all_about_a_stage() -> None:
    """Queue and its room, busy and all workers, counts, how long tries take, how many a second."""
    lines = lines_of("detailed", make_snapshot(), 200)
    heading = next(n for n, line in enumerate(lines) if line.startswith(" stage "))
    assert lines[heading].split() == [
        *("stage", "queue", "running", "waiting", "in", "inside"),
        *("done", "failed", "retried", "skipped"),
        *("p50", "p95", "rate", "busy", "p99", "wait", "p95", "starved", "blocked"),
    ]
    assert lines[heading + 1].split()[4:] == [
        *("0", "22,032", "62"),
        *("21,702", "256", "1,893", "12"),
        *("8.29s", "25.4s", "176/s", "━━━━━───", "62%", "41.1s", "2.13s", "10%", "28%"),
    ]
    assert [line.split()[0] for line in lines[heading + 1 : heading + 5]] == [
        *("Fetch", "Parse", "Enrich", "Save")
    ]


def test_queue_of_the_first_stage_may_be_full() -> None:
    """It is full whenever the source is faster: only that of a later stage is worth a colour."""
    snapshot = make_snapshot(stages=("First", "Second"))
    for stats in snapshot.pipeline_stats.stage_stats.values():
        stats.pending_items = stats.capacity or 0
    stages = Viewer().see(snapshot).stages
    canvas = Canvas(160, 24)
    _, first, second = stage_lines(canvas, stages, 9)
    assert "red" not in {str(span.style) for span in first.spans if first.plain[span.start] == "█"}
    assert "red" in {str(span.style) for span in second.spans if second.plain[span.start] == "█"}
    (chips,) = chips_lines(canvas, stages, 1)
    levels = [str(span.style) for span in chips.spans if "█" in chips.plain[span.start : span.end]]
    assert levels == ["green", "red"]


def test_dropped_items_have_a_place() -> None:
    """In the table, in the words about a stage, and in the counts; where there are any."""
    snapshot = make_snapshot(stages=("Only",), elapsed=0.0)
    assert all("dropped" not in line for level in LEVELS for line in lines_of(level, snapshot, 160))
    snapshot.pipeline_stats.stage_stats["Only"].dropped_items = 317
    snapshot.pipeline_stats.items_dropped = 317
    heading, row = lines_of("detailed", snapshot, 160)[1:3]
    end = heading.index("dropped") + len("dropped")
    assert row[:end].split()[-1] == "317"
    assert "317 dropped" in lines_of("compact", snapshot, 160)[1]
    for level in LEVELS:
        assert "317 dropped" in lines_of(level, snapshot, 160)[-1]


def test_batches_are_told_of_stages_that_have_some() -> None:
    """How many there were, and how many items they had on average."""
    snapshot = make_snapshot(stages=("Rows",))
    assert "batches" not in lines_of("detailed", snapshot, 200)[1]
    stats = snapshot.pipeline_stats.stage_stats["Rows"]
    stats.batches, stats.batched_items = 40, 900
    heading, row = lines_of("detailed", snapshot, 200)[1:3]
    assert row[: heading.index("batches") + len("batches")].split()[-1] == "40×22.5"


def test_workers_that_wait_stand_apart() -> None:
    """Each reason with its number, beside those that run."""
    snapshot = make_snapshot(stages=("Only",))
    stats = snapshot.pipeline_stats.stage_stats["Only"]
    stats.running_workers, stats.workers = 3, 9
    stats.blocked_workers, stats.limited_workers, stats.retrying_workers = 1, 2, 3
    row = lines_of("detailed", snapshot, 200)[2]
    assert "3/9  1 room 2 limit 3 retry" in row


@pytest.mark.parametrize("level", ["detailed", "full"])
def test_counters_have_a_line(level: str) -> None:
    """Total, rate and the amount in the whole run; at the end without the latter."""
    snapshot = make_snapshot()
    assert not [line for line in lines_of(level, snapshot, 120, 50) if "counted" in line]
    snapshot.pipeline_stats.counters = {"tokens": CounterStats(1_234_567, 3400.0, 5_600_000.0)}
    told = "counted: tokens 1.23M (3,400/s, ~5.6M in all)"
    assert told in lines_of(level, snapshot, 120, 50)
    snapshot.state = "finished"
    assert "counted: tokens 1.23M (3,400/s)" in lines_of(level, snapshot, 120, 50, last=True)


def test_queue_that_is_fuller_than_full_fills_its_gauge() -> None:
    """Retries and what tasks feed may go beyond the capacity; the columns stay where they are."""
    snapshot = make_snapshot(stages=("Only",))
    stats = snapshot.pipeline_stats.stage_stats["Only"]
    stats.pending_items = 3 * (stats.capacity or 0)
    (row,) = [line for line in lines_of("full", snapshot, 160) if line.strip().startswith("Only")][
        :1
    ]
    assert row.count("█") == GAUGE_CELLS


@pytest.mark.parametrize("level", ["detailed", "full"])
def test_room_in_queues_is_told_until_the_run_is_over(level: str) -> None:
    """Afterwards nothing waits for it."""
    room = f"/{make_snapshot(stages=('Only',)).pipeline_stats.stage_stats['Only'].capacity}"
    states: dict[RunState, bool] = {"running": True, "finished": False}
    for state, is_told in states.items():
        snapshot = make_snapshot(stages=("Only",), state=state)
        (row,) = [line for line in lines_of(level, snapshot, 160) if "Only  " in line][:1]
        assert (room in row) == is_told


@pytest.mark.parametrize("level", ["detailed", "full"])
def test_table_keeps_names_readable(level: str) -> None:
    """At 80 columns a long name is whole, and numbers give way to it in a narrow terminal."""
    name = "Download the attachments"
    snapshot = make_snapshot(stages=(name, "Save"))
    for columns in (80, 60, 40):
        assert any(line.startswith(f" {name} ") for line in lines_of(level, snapshot, columns))
    narrow = lines_of(level, snapshot, 40)
    assert "done" in "".join(narrow)
    assert "retried" not in "".join(narrow)


def test_table_counts_the_stages_it_leaves_out() -> None:
    """Stages that do not fit are not forgotten."""
    snapshot = make_snapshot(stages=tuple(f"S{n}" for n in range(30)))
    lines = lines_of("detailed", snapshot, 80, 10)
    assert " S0 " in lines[2]
    assert "… 25 more stages" in lines


def test_table_never_leaves_the_bottleneck_out() -> None:
    """The stage that holds the run back is among those shown, and marked."""
    snapshot = make_snapshot(stages=tuple(f"S{n}" for n in range(30)))
    snapshot.pipeline_stats.stage_stats["S29"].busy_seconds = 10_000
    lines = lines_of("detailed", snapshot, 80, 10)
    assert lines[4].startswith("▶S29 ")
    assert any(line.startswith("▶ Bottleneck: S29. ") for line in lines)


@pytest.mark.parametrize(("columns", "rows", "workers"), [(80, 24, 40), (120, 40, 1000)])
def test_full_shows_every_worker(columns: int, rows: int, workers: int) -> None:
    """A glyph for each worker, and every section."""
    snapshot = make_snapshot(workers)
    text = "\n".join(lines_of("full", snapshot, columns, rows))
    strips = text.split("─ workers ")[1].split("─ errors ")[0].split("\n", 1)[1]
    assert strips.count("■") + strips.count("·") == workers
    busy = sum(state.status == "busy" for state in snapshot.worker_states.values())
    assert strips.count("■") == busy
    assert f"in progress {busy} " in text
    assert "171  TimeoutError" in text
    assert "● running" in text


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 15)])
def test_full_sums_workers_up_where_rows_are_few(columns: int, rows: int) -> None:
    """With 1000 workers and few rows, a cell stands for several, and the legend says how many."""
    text = "\n".join(lines_of("full", make_snapshot(1000), columns, rows))
    assert " to a sign  █ " in text
    assert "/1000" in text or text.count("/250 ") >= 4
    assert "more busy" in text or rows < 24


def test_full_lists_what_takes_longest() -> None:
    """The item that has been in progress longest is first, with worker, task and time."""
    snapshot = make_snapshot()
    lines = lines_of("full", snapshot)
    first = lines[next(n for n, line in enumerate(lines) if "in progress" in line) + 1]
    oldest = min(
        (state for state in snapshot.worker_states.values() if state.processing_since),
        key=lambda state: state.processing_since or 0.0,
    )
    assert first.split() == [oldest.worker_name, "0:29", "fetch_page", oldest.current_item_id]


def test_full_says_what_a_worker_does() -> None:
    """What a task says of itself stands instead of its name; that a limit holds it, before both."""
    snapshot = make_snapshot()
    first, second, third = [w for w in snapshot.worker_states.values() if w.status == "busy"][:3]
    first.processing_since, first.task_status = 10.0, "page 3 of 9"
    second.processing_since, second.task_status, second.waits_for = 20.0, "page 4", "limited"
    third.processing_since = 30.0
    lines = lines_of("full", snapshot, 120, 60)
    heading = next(number for number, line in enumerate(lines) if "in progress" in line)
    shown = zip((first, second, third), lines[heading + 1 :], strict=False)
    for (worker, line), does in zip(
        shown, ("page 3 of 9", "waits for a limit", "fetch_page"), strict=True
    ):
        assert line.startswith(worker.worker_name)
        assert f"  {does}  " in line


def test_full_lists_no_more_items_than_asked() -> None:
    """``max_items_shown`` is kept; 0 means none."""
    from antflow.display import FullDashboard

    for most in (0, 3):
        lines = lines_of(FullDashboard(max_items_shown=most), make_snapshot(), 80, 60)
        assert sum("fetch_page" in line for line in lines) == most
    with pytest.raises(ValueError, match="max_items_shown=-1"):
        FullDashboard(max_items_shown=-1)


def test_full_leaves_a_detailed_frame_with_the_errors() -> None:
    """What stays after the run: the table, the errors by type, the counts."""
    text = "\n".join(lines_of("full", make_snapshot(), last=True))
    assert "stage " in text
    assert "171  TimeoutError     Enrich" in text
    assert "workers 40" not in text


def test_worker_signs_and_their_numbers() -> None:
    """Each worker has the sign of what it does, and the heading counts them."""
    snapshot = make_snapshot(8, ("Only",))
    states = list(snapshot.worker_states.values())
    for state, (since, waits_for, attempt) in zip(
        states,
        [
            (999.0, None, 1),
            (100.0, None, 1),
            (999.0, None, 2),
            (999.0, "limited", 1),
            (None, "blocked", 0),
            (None, None, 0),
            (999.0, None, 1),
            (None, "retrying", 0),
        ],
        strict=True,
    ):
        state.status = "idle" if since is None else "busy"
        state.processing_since, state.attempt = since, attempt
        state.waits_for = waits_for  # type: ignore[assignment]
    lines = lines_of("full", snapshot, 100, 40)
    heading = next(n for n, line in enumerate(lines) if line.startswith("─ workers 8"))
    legend = "■ 2 busy  ▲ 1 slow  ↻ 1 retrying  ◆ 1 limited  □ 2 blocked  · 1 idle"
    assert legend in lines[heading]
    assert lines[heading + 1].split() == ["Only", "■▲↻◆□·■□", "4/8"]


def throughput_of(display: BaseDashboard, rows: int) -> list[str]:
    """What stands under the heading of the throughput, when the rate has doubled."""
    for second in range(1, 41):
        settled = 100 * second if second <= 20 else 2000 + 200 * (second - 20)
        snapshot = make_snapshot(settled=settled, failed=0, elapsed=float(second))
        lines = lines_of(display, snapshot, 120, rows)
    heading = next(n for n, line in enumerate(lines) if line.startswith("─ throughput"))
    assert "items/s  last 0:30  now 200  mean 150  most 200 ─" in lines[heading]
    end = next(n for n, line in enumerate(lines) if line.startswith("─ workers"))
    return lines[heading + 1 : end]


def test_throughput_over_time() -> None:
    """The curve is half as high where the rate was half as high: in one row, or in four."""
    assert throughput_of(create("full"), 14) == ["▄" * 40 + "█" * 80]
    assert throughput_of(create("full"), 40) == [" " * 40 + "█" * 80] * 2 + ["█" * 120] * 2


def test_slow_is_not_drawn_as_a_standstill() -> None:
    """A rate far below the highest has a sign of its own, and none at all has not."""
    display, settled = create("detailed"), 0
    for second in range(1, 16):
        settled += 100_000 if second <= 5 else second > 10
        lines = lines_of(display, make_snapshot(settled=settled, failed=0, elapsed=second), 120)
    (curve,) = [line for line in lines if "items/s" in line]
    assert curve.strip().startswith("█" * 20 + " ")
    assert " ▁" in curve


def test_detailed_has_the_curve_on_one_line() -> None:
    """The rate over time, and its figures, take one line."""
    display = create("detailed")
    for second in range(1, 11):
        lines = lines_of(display, make_snapshot(settled=10 * second, failed=0, elapsed=second))
    (curve,) = [line for line in lines if "items/s" in line]
    assert curve.endswith("█  items/s  now 10.0  mean 10.0  most 10.0")


@pytest.mark.parametrize("level", LEVELS)
def test_bar_says_how_long_it_will_take(level: str) -> None:
    """Beside the rate, as a range, when there is something to go by; not when all is over."""
    display = create(level)
    for second in range(1, 21):
        snapshot = make_snapshot(settled=10 * second, total=1000, failed=0, elapsed=second)
        snapshot.eta = Eta(90.0, 100.0, "1 item since 0:02")
        text = "".join(lines_of(display, snapshot, 120, 30))
        assert ("10.0/s" in text, "ETA 1:30–1:40" in text) == (True, second >= 3)
        assert ("(1 item since 0:02)" in text) == (second >= 3)
    snapshot = make_snapshot(settled=1000, total=1000, failed=0, elapsed=21, state="finished")
    assert "ETA" not in "".join(lines_of(display, snapshot, 120, 30))


def test_bottleneck_is_told_and_marked() -> None:
    """The stage, its chip and the sentence; the sentence is broken between words."""
    snapshot = make_snapshot()
    stats = snapshot.pipeline_stats.stage_stats["Enrich"]
    stats.busy_seconds, stats.blocked_seconds, stats.starved_seconds = 1000.0, 0.0, 0.0
    stats.pending_items = 100
    for level in ("detailed", "full"):
        lines = lines_of(level, snapshot)
        assert sum(line.startswith("▶Enrich ") for line in lines) == 1
        sentence = lines.index(next(line for line in lines if line.startswith("▶ Bottleneck")))
        assert lines[sentence].endswith("10 of 10 workers busy, its queue is full; 7 more workers")
        assert lines[sentence + 1] == "would lift the rate by up to 61%."
    assert "│ ▶Enrich 6/10 +100 █ │" in lines_of("compact", snapshot)[1]


def test_bottleneck_that_is_cut_is_marked_as_cut() -> None:
    """Where there is one row for the sentence in the end, it says that there was more."""
    snapshot = make_snapshot(state="finished")
    _, _, sentence, _, counts = lines_of("compact", snapshot, 60, 5, last=True)
    assert sentence.startswith("▶ Bottleneck: Save. ")
    assert sentence.endswith("…")
    assert counts == "21,446 ok, 256 failed"


def test_use_of_the_event_loop_stands_in_the_first_line() -> None:
    """It is a number, which stands out only if the loop has hardly any time left."""
    for seconds, expected in ((0.1, ""), (52.5, "  loop 42%"), (112.5, "  ▲ loop 90%")):
        snapshot = make_snapshot()
        snapshot.loop = LoopHealth(busy_seconds=seconds)
        for level in ("detailed", "full"):
            first = lines_of(level, snapshot, 140, 30)[0]
            assert first.endswith(expected)
            assert ("loop" in first) == bool(expected)
        assert ("loop" in lines_of("log", snapshot, 140)[0]) == (seconds > 100)
        snapshot.state = "finished"
        for level in ("detailed", "full"):
            assert not any("loop 9" in line for line in lines_of(level, snapshot, 140, last=True))


def test_blocked_loop_is_told() -> None:
    """What blocked the event loop, where and for how long: while it is news, and above the rest."""
    stall = LoopStall(0.452, 990.0, "Parse", "Parse-W3", 7, "app.py:41 in parse", "time.sleep(1)")
    snapshot = make_snapshot()
    snapshot.loop = LoopHealth(0.123, 1, 0.452, stall)
    expected = (
        "▲ event loop blocked for 452ms by Parse-W3 on item 7 at app.py:41 in parse: time.sleep(1)"
    )
    for level in ("compact", "detailed", "full"):
        assert expected in lines_of(level, snapshot, 120, 30)
    assert "event loop 123ms late" in lines_of("full", snapshot, 120, 30)[0]
    snapshot.timestamp = 1100.0
    for level in ("compact", "detailed", "full"):
        assert not any("blocked for" in line for line in lines_of(level, snapshot, 120, 30))


@pytest.mark.parametrize("item_id", [Untold(), "x" * 1_000_000])
def test_blocked_loop_is_told_whatever_the_item_is(item_id: object) -> None:
    """An id that cannot be turned into text, or is very long, does not keep the place from view."""
    snapshot = make_snapshot()
    stall = LoopStall(0.452, 990.0, "Parse", "Parse-W3", item_id, "app.py:41 in parse")
    snapshot.loop = LoopHealth(0.123, 1, 0.452, stall)
    for level in ("compact", "detailed", "full"):
        lines = " ".join(lines_of(level, snapshot, 200, 30))
        assert "event loop blocked for 452ms by Parse-W3 on item" in lines
        assert "at app.py:41 in parse" in lines


def test_errors_say_how_long_ago() -> None:
    """Type, stage, age, item and message; without the age where there is no room, or it is over."""
    snapshot = make_snapshot()
    snapshot.timestamp = 1086.0
    row = next(line for line in lines_of("full", snapshot, 80, 30) if "TimeoutError" in line)
    assert row.startswith("171  TimeoutError     Enrich  1:26 ago  item-18: read timed out")
    narrow = next(line for line in lines_of("full", snapshot, 60, 30) if "TimeoutError" in line)
    over = make_snapshot(state="finished")
    last = next(line for line in lines_of("full", over, last=True) if "TimeoutError" in line)
    assert "ago" not in narrow + last


@pytest.mark.parametrize("rows", range(2, 9))
def test_types_of_errors_that_are_not_shown_are_counted(rows: int) -> None:
    """As many lines as there is room for: a heading, the newest, and how many more there are."""
    types = {f"Error{n}": 1 for n in range(6)}
    failures = [FailedItem(n, "no", name, "A", 1, 0.0) for n, name in enumerate(types)]
    stats = PipelineStats(0, 6, 0, {})
    snapshot = DashboardSnapshot({}, {}, stats, ErrorSummary(6, types, {}, failures), 0.0)
    lines = error_table(Canvas(80, 24), Viewer().see(snapshot), rows)
    texts = [line.plain for line in lines]
    if rows == 2:
        assert len(texts) == 2
        return
    more = [int(text.split()[1]) for text in texts if "more kinds" in text]
    assert len(texts) == min(rows, 1 + 6)
    assert len(texts) - 1 - len(more) + sum(more) == 6


def test_full_has_a_log_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was printed last; a row per stage for the workers, and the errors, come first."""
    printed = [f"line {number}" for number in range(50)]
    monkeypatch.setattr(BaseDashboard, "_printed", lambda self, most: printed[-most:])
    text = "\n".join(lines_of("full", make_snapshot(), 80, 24))
    assert text.count("/10\n") == 4
    assert "171  TimeoutError" in text
    log = text.split("─ log ")[1].split("\n")[1:-1]
    assert log == printed[-len(log) :]
    assert len(log) >= 1
    tall = "\n".join(lines_of("full", make_snapshot(), 80, 60))
    assert "line 38\n" in tall
    assert "line 49\n21,446 ok" in tall


def test_full_gives_sections_up_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every row that is gone: first the items, then the log, the curve, workers, errors."""
    monkeypatch.setattr(BaseDashboard, "_printed", lambda self, most: ["printed"] * most)
    display = create("full")
    for second in range(1, 21):
        snapshot = make_snapshot(settled=1000 * second, elapsed=second)
        lines_of(display, snapshot)
    order = ["─ in progress ", "─ log ", "─ throughput ", "─ workers ", "─ errors ", " queue "]
    shown: list[list[str]] = []
    for rows in range(40, 1, -1):
        text = "\n".join(lines_of(display, snapshot, 100, rows))
        shown.append([section for section in order if section in text])
    for number, sections in enumerate(shown):
        assert sections == order[len(order) - len(sections) :], 40 - number
    assert (shown[0], shown[-1]) == (order, [])


@given(st.text("ab 日é", max_size=120), st.integers(1, 40), st.integers(1, 5))
def test_text_is_wrapped_between_words(text: str, width: int, rows: int) -> None:
    """No line is too wide, nothing is lost but spaces, and what does not fit is marked as cut."""
    lines = [line.plain for line in Canvas(width, 9).wrapped(text, rows)]
    assert len(lines) <= rows
    assert all(cell_len(line) <= width for line in lines)
    told = "".join(lines).replace(" ", "")
    if not told.endswith("…") and width > 1:
        assert told == Canvas(width, 9).text(text).replace(" ", "")


def test_frame_in_ascii() -> None:
    """Where nothing but ASCII can be written, the picture is the same in ASCII."""

    class AsciiFile(StringIO):
        encoding = "ascii"

    for level in LEVELS:
        console = Console(file=AsciiFile(), width=80, height=24, force_terminal=True)
        lines = console.render_lines(create(level).render(make_snapshot(message="été ⏎ 日本")))
        text = "\n".join("".join(segment.text for segment in line) for line in lines)
        assert text.isascii()
        assert "===" in text
        assert "43%" in text


def test_create_knows_its_names() -> None:
    """Every name makes a display, any other is refused."""
    for name in ("progress", "auto", "log", "compact", "detailed", "full"):
        assert isinstance(create(name), BaseDashboard)
    with pytest.raises(ValueError, match="name='fancy'"):
        create("fancy")


wishes = st.tuples(*[st.integers(0, 9)] * 3).map(lambda three: Wish(*sorted(three)))


@given(st.integers(-1, 60), st.lists(wishes, max_size=8))
def test_share_gives_no_more_than_there_is(rows: int, asked: list[Wish]) -> None:
    """Together never more than the rows; each nothing, or from its least to its most."""
    given = list(share(rows, {str(index): wish for index, wish in enumerate(asked)}).values())
    assert sum(given) <= max(rows, 0)
    for got, wish in zip(given, asked, strict=True):
        assert got == 0 or wish.least <= got <= wish.most
    if rows >= sum(wish.most for wish in asked):
        assert given == [wish.most if wish.least else 0 for wish in asked]


def test_share_order() -> None:
    """Who comes first is served first, but nobody more than well before all have the least."""
    asked = {"bar": Wish(1, 1, 1), "stages": Wish(2, 5, 9), "errors": Wish(2, 3, 9)}
    later = {"log": Wish(1, 2, 3)}
    for rows, shares in (
        (0, (0, 0, 0, 0)),
        (1, (1, 0, 0, 0)),
        (5, (1, 2, 2, 0)),
        (9, (1, 5, 3, 0)),
        (10, (1, 5, 3, 1)),
        (12, (1, 6, 3, 2)),
        (14, (1, 8, 3, 2)),
    ):
        assert share(rows, asked, later) == dict(
            zip(("bar", "stages", "errors", "log"), shares, strict=True)
        )


def test_advice_is_whole_or_not_there() -> None:
    """Words that were cut short would say nothing."""
    snapshot = make_snapshot()
    for stats in snapshot.pipeline_stats.stage_stats.values():
        stats.blocked_seconds, stats.busy_seconds = 900.0, 100.0
    for columns in range(60, 160):
        text = "\n".join(lines_of("detailed", snapshot, columns))
        assert text.count("waits for") == text.count("waits for Parse\n") + text.count(
            "waits for Enrich\n"
        ) + text.count("waits for Save\n") + text.count("waits for the consumer\n")


@pytest.mark.parametrize("level", LEVELS)
def test_name_is_shown_where_there_is_one(level: str) -> None:
    """A pipeline is called by its own name, once, so that two on one screen are told apart."""
    display = create(level)
    display._name = "nightly[/red]"
    assert "".join(lines_of(display, make_snapshot(), 120, 30)).count("nightly[/red]  ") == 1
    assert ("pipeline" in "".join(lines_of(level, make_snapshot(), 120, 30))) == (level == "full")


def test_blocked_loop_is_told_once() -> None:
    """Where it holds the run back, the sentence about that says it, and no other line."""
    snapshot = make_snapshot()
    stall = LoopStall(0.4, 999.0, "Parse", "Parse-W3", 7, "app.py:41 in parse", "time.sleep(1)")
    snapshot.loop = LoopHealth(0.1, 100, 100.0, stall)
    for level in ("detailed", "full"):
        text = "\n".join(lines_of(level, snapshot, 120, 30))
        assert text.count("app.py:41 in parse") == 1
        assert "▶ Bottleneck: the event loop." in text


@pytest.mark.parametrize("level", ["progress", "compact", "detailed", "full"])
@pytest.mark.parametrize(
    ("state", "width", "said"),
    [
        ("running", 80, ""),
        ("draining", 80, ""),
        ("stopping", 80, "draining: 1,234 in flight, 0:12"),
        ("stopping", 40, "draining"),
        ("paused", 80, "paused"),
    ],
)
def test_run_that_is_being_stopped_says_so(
    level: str, state: RunState, width: int, said: str
) -> None:
    """After the first Ctrl-C every display says how much is left, and for how long by now."""
    snapshot = make_snapshot(state=state)
    snapshot.intake_seconds = snapshot.elapsed - 12
    snapshot.pipeline_stats.items_in_flight = 1_234
    text = "\n".join(lines_of(level, snapshot, width))
    assert said in text
    for word in ("draining", "paused", "in flight"):
        assert (word in text) == (word in said)


@pytest.mark.parametrize("level", ["compact", "detailed", "full"])
def test_counts_have_one_form(level: str) -> None:
    """Counts of four digits and more have commas, wherever a display has them."""
    text = "\n".join(lines_of(level, make_snapshot(workers=20_000, item_id="i"), 120, 40))
    assert re.search(r"\d,\d{3}/5,000", text)
    assert re.findall(r"(?<![\w,./-])\d{4,}", text) == []
