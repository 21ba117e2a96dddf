"""The life of a display: where it draws, when, and how it ends.

A display only renders snapshots (`BaseDashboard.render`). This module decides, when a run begins,
whether that is drawn on a terminal, or a few plain lines are written because there is none.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from time import monotonic
from typing import Any, ClassVar, Protocol

from rich.console import RenderableType

from antflow._core.brief import Brief
from antflow._core.log import info
from antflow._core.ports import DashboardProtocol
from antflow._core.result import PipelineResult, outcomes_text
from antflow._core.snapshot import DashboardSnapshot, ErrorSummary, LoopStall, PipelineStats
from antflow._monitor.block_poller import ShowsBlocks
from antflow._monitor.view import UNNAMED, View, Viewer
from antflow.display.bars import blocked_line
from antflow.display.canvas import Frame
from antflow.display.controls import Controls, KeyPress, WithKeys
from antflow.display.environment import display_stream
from antflow.display.notebook import NotebookCell, kernel_display
from antflow.display.plain import PlainLog
from antflow.display.rich_live import stream_above
from antflow.display.terminal import open_pane

__all__ = ["BaseDashboard"]


class Place(Protocol):
    """Where a display draws: its part of a terminal, or an output of a notebook's cell."""

    @property
    def why_no_keys(self) -> str:
        """Why no keys can be read there; "" if they can."""
        ...

    @property
    def hears_keys(self) -> bool:
        """Whether keys that are typed now are for it."""
        ...

    def hold(self) -> bool:
        """Whether it can still be drawn on."""
        ...

    def draw(self, renderable: RenderableType) -> None:
        """Show the next frame."""

    def note(self, row: int, renderable: RenderableType | None) -> None:
        """Show a line instead of a row of the frame, until the next one; ``None`` = no longer.

        Called in another thread.
        """

    def printed(self, count: int) -> list[str]:
        """The newest lines that tasks printed, if they were captured."""
        ...

    def close(self, last: RenderableType | None = None, last_line: str = "") -> None:
        """Leave a last frame, and a line below it."""


class BaseDashboard(Brief, DashboardProtocol, ShowsBlocks):
    """A display for the terminal. Subclass it, and render snapshots in `render`.

    It redraws in `on_update` and when a key was pressed. While something blocks the event loop, a
    line that says so takes the place of its first row. What tasks print meanwhile appears above it.
    Displays that draw at the same time stand one below the other, each with its share of the rows.
    In a notebook it is one output of the cell, redrawn at most twice a second. Elsewhere it draws
    on standard error, or on standard output if only that is a terminal. If neither is one (a file,
    a pipe, a build server), and while another `rich.live.Live` is drawn there, plain lines are
    written to standard error instead, at every 5 % or 30 seconds. Nothing that happens to the
    terminal reaches the run. The last line says how many items are ok and how many
    failed: ``90 ok, 10 failed``.

    Example:
        ```python
        from rich.text import Text


        class Counter(BaseDashboard):
            def render(self, snapshot):
                return Text(f"{snapshot.pipeline_stats.items_processed} of {self.total}")


        await pipeline.run(items, custom_dashboard=Counter())
        ```

    Args:
        refresh_rate: Not used: ``dashboard_update_interval`` of `Pipeline.run` says how often a
            display is redrawn.

    Attributes:
        total: How many items there will be; 0 while that is not known.
        start_time: When the run began, in Unix seconds; ``None`` before.
    """

    total: int = 0
    start_time: float | None = None

    _draws: ClassVar[bool] = True
    _fills_screen: ClassVar[bool] = False
    _logs_stages: ClassVar[bool] = False

    # Class attributes, so that a subclass need not call __init__.
    _expected: int = 0
    _name: str = UNNAMED
    _viewer: Viewer | None = None
    _view: View | None = None
    _place: Place | None = None
    _log: PlainLog | None = None
    _bar_row: int = 0  # in which row of the frame the bar and the clock are
    _updated: float = 0.0
    _controls: Controls | None = None

    def __init__(self, refresh_rate: float = 4.0) -> None:
        self.refresh_rate = refresh_rate

    def _said(self) -> str:
        return "" if self.start_time is None else f" of {self._name!r}"

    @abstractmethod
    def render(self, snapshot: DashboardSnapshot) -> RenderableType:
        """Render a snapshot as any rich renderable. One that is too large is cut off."""

    def on_start(self, pipeline: Any, total_items: int) -> None:
        """Begin to show a run.

        Args:
            pipeline: The pipeline.
            total_items: How many items there will be; 0 when that is not known.
        """
        self._close()
        self.total = total_items or self._expected
        self.start_time = time.time()  # the first snapshot says it exactly
        self._viewer = self._view = None
        self._name = getattr(pipeline, "name", self._name)
        stream = display_stream()
        press = self._keys_of(pipeline)
        if self._draws and (display := kernel_display(stream)) is not None:
            self._place = NotebookCell(display)
        elif self._draws:
            self._place = open_pane(stream, fills_screen=self._fills_screen, press=press)
        if self._place is None:
            self._log = PlainLog(stream_above(stream), self._name, self._logs_stages)
        why = "the display is not on a terminal" if self._place is None else self._place.why_no_keys
        if why and press is not None:
            info("keys=True: no keys are read: %s", why)

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        """Show a snapshot."""
        self._updated = monotonic()
        shown = self._see(snapshot)
        self._give_way()
        if self._log is not None:
            self._log.update(shown)
        elif self._place is not None:
            try:
                self._place.draw(self._picture(snapshot))
            except BaseException:
                self._close()  # at once: the run may go on for hours
                raise

    def on_finish(self, results: list[PipelineResult[Any]], summary: ErrorSummary) -> None:
        """Leave the last frame, and the terminal as it was found. Does nothing the second time."""
        counts = self._counts(results, summary)
        self._give_way()
        self._log_keys()
        log, self._log = self._log, None
        if log is not None:
            log.finish(self._view, summary, counts)
        place, self._place = self._place, None
        if place is not None:
            last = None
            try:
                if self._view is not None:
                    last = self._last_frame(self._view.snapshot)
            finally:
                place.close(last, counts)

    def _show_block(self, stall: LoopStall | None) -> None:
        # In another thread, while the event loop is blocked. So nothing is rendered that a subclass
        # has written: the frame that is up stays, but for one row.
        log, place, view = self._log, self._place, self._view
        if log is not None and stall is not None:
            log.tell_block(stall)
        elif place is not None and view is not None:
            line = None
            if stall is not None:
                elapsed = view.progress.elapsed + monotonic() - self._updated
                line = Frame(lambda canvas: [blocked_line(canvas, view.progress, stall, elapsed)])
            place.note(self._bar_row, line)

    def _last_frame(self, snapshot: DashboardSnapshot) -> RenderableType:
        return self.render(snapshot)

    def _see(self, snapshot: DashboardSnapshot) -> View:
        """The view of a snapshot, as far as this display has seen the run."""
        if self._viewer is None:
            self._viewer = Viewer(self.total or None, self._name)
            self.start_time = snapshot.timestamp - snapshot.elapsed
        if self._controls is not None:
            is_over = snapshot.state == "finished"
            self._viewer.chosen = "" if is_over else self._controls.chosen
        self._view = self._viewer.see(snapshot)
        return self._view

    @property
    def key_presses(self) -> list[KeyPress]:
        """The keys that changed the run, with ``keys=True``: when, which, and what each did."""
        return [] if self._controls is None else list(self._controls.presses)

    def _keys_of(self, pipeline: Any) -> Callable[[str], object] | None:
        """Where keys go, in any thread, if the run was begun with ``keys=True``."""
        self._controls = None
        run: Any = getattr(pipeline, "current_run", None)
        if not getattr(run, "takes_keys", False):
            return None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # called by hand: there is no run to control
            return None
        self._controls = controls = Controls(run, time.monotonic)
        context = copy_context()

        def press(key: str) -> None:
            with suppress(RuntimeError):  # the event loop was closed meanwhile
                loop.call_soon_threadsafe(self._pressed, controls, key, context=context)

        return press

    def _pressed(self, controls: Controls, key: str) -> None:
        if self._controls is controls and self._place is not None and controls.press(key):
            with suppress(Exception):  # the next update raises it, too, and is looked after
                self._place.draw(self._picture(controls.snapshot()))

    def _picture(self, snapshot: DashboardSnapshot) -> RenderableType:
        """The frame; with the lines about keys, if there are any."""
        frame, controls = self.render(snapshot), self._controls
        if controls is None or self._place is None or not self._place.hears_keys:
            return frame
        return WithKeys(frame, self._see(snapshot), controls)

    def _log_keys(self) -> None:
        if self._controls is not None:
            self._controls.log()

    def _printed(self, most: int) -> list[str]:
        """The last lines that tasks have printed meanwhile, as plain text, the newest last.

        Args:
            most: How many; there are never more than 200, and none if nothing is captured, because
                there is no terminal.
        """
        return self._place.printed(most) if self._place is not None else []

    def _counts(self, results: list[PipelineResult[Any]], summary: ErrorSummary) -> str:
        stats = getattr(results, "stats", None)
        if not isinstance(stats, PipelineStats):
            if self._view is None:
                return f"{len(results):,} ok, {summary.total_failed:,} failed"
            stats = self._view.snapshot.pipeline_stats
        return outcomes_text(stats)

    def _give_way(self) -> None:
        """Go on with plain lines if something else has begun to draw on the terminal."""
        if self._place is not None and not self._place.hold():
            self._place = None
            self._log = PlainLog(stream_above(display_stream()), self._name, self._logs_stages)

    def _close(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()
        place, self._place = self._place, None
        if place is not None:
            place.close()
