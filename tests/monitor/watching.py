"""What the tests of the watch share: a dashboard that keeps the views of a run."""

from __future__ import annotations

from typing import Any

from antflow import DashboardSnapshot, Pipeline, Stage
from antflow._monitor.view import StageView, View, Viewer


class Watching:
    """A dashboard that keeps every view."""

    def __init__(self) -> None:
        self.viewer = Viewer()
        self.views: list[View] = []

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        self.views.append(self.viewer.see(snapshot))

    def at(self, elapsed: float) -> View:
        """The first view at or after so many seconds of the run."""
        return next(view for view in self.views if view.progress.elapsed >= elapsed - 1e-6)

    @property
    def last(self) -> View:
        """The view at the end."""
        return self.views[-1]


def shares_of(stage: StageView) -> list[float]:
    """Where its workers' time went lately, as parts of 1."""
    lately = stage.recent
    waits = [lately.limited, lately.blocked, lately.retrying, lately.starved, lately.stalled]
    return [lately.busy, *waits]


async def watch(stages: list[Stage], items: Any, interval: float = 0.5, **options: Any) -> Watching:
    """Run a pipeline and keep the views."""
    watching = Watching()
    pipeline = Pipeline(stages)
    await pipeline.run(
        items, custom_dashboard=watching, dashboard_update_interval=interval, **options
    )
    return watching
