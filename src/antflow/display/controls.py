"""What keys do to the run that a display shows, and the lines that say so.

`Controls` reads nothing from a terminal: it is given one key after the other, in the run's event
loop, and knows the run only by the methods of its handle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from antflow._core.log import info
from antflow._core.snapshot import DashboardSnapshot
from antflow._core.text import clean, clock, counted
from antflow._monitor.view import View
from antflow.display.canvas import Canvas, Pieces, known_encoding
from antflow.display.failure_lines import error_table

SECONDS_SHOWN = 3.0
"""How long a confirmation stays."""

SECONDS_TO_ANSWER = 5.0
"""How long a question stays, and waits for its answer."""

MOST_KEPT = 1000
FEWEST_ROWS = 2
"""On fewer rows there is no line about keys."""

SAME = {"=": "+", "_": "-", "−": "-", "P": "p", "D": "d", "Q": "q", "E": "e", "h": "?", "H": "?"}
HINTS = (
    ("+ -", "workers"),
    ("p", "pause"),
    ("d", "drain"),
    ("q", "cancel"),
    ("e", "errors"),
    ("?", "help"),
)
HELP = (
    "+ - a worker more or fewer for the marked stage; arrow keys or 1-9 choose one",
    "p pause, resume  d take in no more, finish  q q cancel  e errors  ? close help",
)


class Controlled(Protocol):
    """A run, as keys control it."""

    def set_workers(self, stage: str, count: int) -> None:
        """Set the number of workers of a stage."""

    def pause(self) -> None:
        """Start nothing new."""

    def resume(self) -> None:
        """Go on."""

    def drain(self) -> None:
        """Take in nothing more."""

    def cancel(self) -> None:
        """Stop now."""

    def snapshot(self) -> DashboardSnapshot:
        """The run now."""
        ...


class KeyPress(NamedTuple):
    """A key that changed a run.

    Attributes:
        elapsed: Seconds since the run began.
        key: The key.
        effect: What it did, as the display said it.
    """

    elapsed: float
    key: str
    effect: str

    def __str__(self) -> str:
        return f"{clock(self.elapsed)} {self.key} {self.effect}"


class Controls:
    """Keys for one run.

    Args:
        run: The run.
        clock: Tells the time, in seconds.

    Attributes:
        chosen: The stage that was chosen; "" = none, the bottleneck counts.
        presses: What was done, oldest first; the newest 1,000.
        shows_errors: Whether the errors are asked for.
        shows_help: Whether the help is asked for.
    """

    def __init__(self, run: Controlled, clock: Callable[[], float]) -> None:
        self._run = run
        self._clock = clock
        self._said = ""
        self._said_at = 0.0
        self._asked_at: float | None = None
        self.chosen: str = ""
        self.presses: deque[KeyPress] = deque(maxlen=MOST_KEPT)
        self.shows_errors: bool = False
        self.shows_help: bool = False

    def press(self, key: str) -> bool:
        """Do what a key stands for.

        Returns:
            Whether there is anything new to show.
        """
        key = SAME.get(key, key)
        snapshot = self._run.snapshot()
        was_asked = self._is_asking
        self._asked_at = None
        if snapshot.state == "finished":
            return False
        if key in ("up", "down") or (key.isascii() and key.isdigit()):
            self._choose(key, snapshot)
        elif key in ("+", "-"):
            self._change_workers(key, snapshot)
        elif key == "p":
            self._pause(snapshot)
        elif key == "d":
            self._drain(snapshot)
        elif key == "q":
            self._cancel(was_asked)
        elif key == "e":
            self.shows_errors = not self.shows_errors
        elif key == "?":
            self.shows_help = not self.shows_help
            self._said = ""
        else:
            if was_asked:
                self._say("not cancelled")
            return was_asked
        return True

    def stage(self, snapshot: DashboardSnapshot) -> str:
        """The stage that + and - are for: the chosen one, else the bottleneck; "" = none."""
        return self.chosen or snapshot.advice.stage or ""

    def snapshot(self) -> DashboardSnapshot:
        """The run now."""
        return self._run.snapshot()

    def log(self) -> None:
        """Log what was done."""
        if self.presses:
            info("keys: %s", clean("; ".join(map(str, self.presses))))

    def lines(self, canvas: Canvas, snapshot: DashboardSnapshot) -> list[Text]:
        """The lines below a frame: a confirmation, a question, or which keys there are."""
        if self._is_asking or (self._said and self._clock() - self._said_at < SECONDS_SHOWN):
            return [canvas.line([(canvas.text(self._said), "bold reverse")])]
        if self.shows_help:
            return [canvas.line([(text, "dim")]) for text in HELP]
        pieces: Pieces = []
        if stage := self.stage(snapshot):
            name = canvas.crop(canvas.text(stage), max(canvas.width // 4, 1))
            pieces.append((f"{name}: {_workers(snapshot, stage)}", "bold"))
        pieces += [(f"{key} {word}", "dim") for key, word in HINTS]
        return [canvas.line(pieces, gap="  ")]

    # Inside

    @property
    def _is_asking(self) -> bool:
        return self._asked_at is not None and self._clock() - self._asked_at < SECONDS_TO_ANSWER

    def _say(self, text: str) -> None:
        self._said, self._said_at = text, self._clock()

    def _did(self, key: str, effect: str, snapshot: DashboardSnapshot) -> None:
        self._say(effect)
        self.presses.append(KeyPress(snapshot.elapsed, key, effect))

    def _choose(self, key: str, snapshot: DashboardSnapshot) -> None:
        names = list(snapshot.pipeline_stats.stage_stats)
        now = self.stage(snapshot)
        if key == "up":
            index = max(names.index(now) - 1, 0) if now in names else len(names) - 1
        elif key == "down":
            index = min(names.index(now) + 1, len(names) - 1) if now in names else 0
        else:
            index = int(key) - 1
        if key == "0":
            self.chosen = ""
            self._say("no stage chosen: + and - are for the bottleneck")
        elif index >= len(names):
            self._say(f"there is no stage {key}")
        else:
            self.chosen = names[index]
            self._say(f"{self.chosen} chosen: {_workers(snapshot, self.chosen)}")

    def _change_workers(self, key: str, snapshot: DashboardSnapshot) -> None:
        stats = snapshot.pipeline_stats.stage_stats.get(self.stage(snapshot))
        if stats is None:
            self._say("no bottleneck yet: choose a stage with the arrow keys or its number")
            return
        count = stats.workers + (1 if key == "+" else -1)
        try:
            self._run.set_workers(stats.stage_name, count)
        except ValueError:  # none, or too many
            self._say(f"{stats.stage_name}: {counted(stats.workers, 'worker')}, as before")
            return
        self._did(key, f"{stats.stage_name}: {counted(count, 'worker')}", snapshot)

    def _pause(self, snapshot: DashboardSnapshot) -> None:
        if snapshot.state == "paused":
            self._run.resume()
            self._did("p", "resumed", snapshot)
        else:
            self._run.pause()
            self._did("p", "paused", snapshot)

    def _drain(self, snapshot: DashboardSnapshot) -> None:
        self._run.resume()  # it would never end
        self._run.drain()
        left = counted(snapshot.pipeline_stats.items_in_flight, "item")
        self._did("d", f"draining: no more is taken in, {left} in flight", snapshot)

    def _cancel(self, was_asked: bool) -> None:
        if not was_asked:
            self._say("cancel the run? q again")
            self._asked_at = self._clock()
            return
        self._did("q", "cancelled", self._run.snapshot())
        self._run.cancel()


class WithKeys:
    """A frame with the lines about keys, and with the errors if they are asked for.

    Args:
        frame: The frame.
        view: What it shows.
        controls: The keys.
    """

    def __init__(self, frame: RenderableType, view: View, controls: Controls) -> None:
        self._frame = frame
        self._view = view
        self._controls = controls

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        encoding = known_encoding(options.encoding)
        canvas = Canvas(options.max_width, options.max_height, encoding)
        below: list[Text] = []
        if canvas.height >= FEWEST_ROWS:
            below = self._controls.lines(canvas, self._view.snapshot)[: canvas.height - 1]
        room = options.copy()
        room.height, room.max_height = None, canvas.height - len(below)
        rows = console.render_lines(self._frame, room, pad=False)[: room.max_height]
        over = self._errors(canvas, room.max_height - 1) if self._controls.shows_errors else []
        for row in rows[:1] if over else rows:
            yield from row
            yield Segment.line()
        for line in [*over, *below]:
            line.truncate(canvas.width, overflow="crop")
            yield from line.render(console, end="\n")

    def _errors(self, canvas: Canvas, rows: int) -> list[Text]:
        if rows < 1:
            return []
        table = error_table(canvas, self._view, rows)
        return table or [canvas.line([("no item has failed", "dim")])]


def _workers(snapshot: DashboardSnapshot, stage: str) -> str:
    stats = snapshot.pipeline_stats.stage_stats.get(stage)
    return "" if stats is None else counted(stats.workers, "worker")
