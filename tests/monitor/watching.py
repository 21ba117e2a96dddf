"""What the tests of the watch share: dashboards that keep the snapshots of a run, or its views."""

from __future__ import annotations

from typing import Any

from antflow import DashboardSnapshot, Pipeline, Stage
from antflow._monitor.view import StageView, View, Viewer


class Watching:
    """A dashboard that keeps every view.

    Args:
        with_eta: Whether the views have an ETA. Each one is a simulation, which takes far longer
            than all the rest.
    """

    def __init__(self, *, with_eta: bool = True) -> None:
        self.viewer = Viewer()
        self.views: list[View] = []
        self._with_eta = with_eta

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        if not self._with_eta:
            snapshot.eta = None
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


class Keeping:
    """A dashboard that keeps every snapshot; the ETA of one is only made when a test reads it."""

    def __init__(self) -> None:
        self.snapshots: list[DashboardSnapshot] = []

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        self.snapshots.append(snapshot)

    def at(self, elapsed: float) -> DashboardSnapshot:
        """The first snapshot at or after so many seconds of the run."""
        return next(each for each in self.snapshots if each.elapsed >= elapsed - 1e-6)

    @property
    def last(self) -> DashboardSnapshot:
        """The snapshot at the end."""
        return self.snapshots[-1]


async def watch(
    stages: list[Stage], items: Any, interval: float = 0.5, *, with_eta: bool = True
) -> Watching:
    """Run a pipeline and keep the views."""
    watching = Watching(with_eta=with_eta)
    pipeline = Pipeline(stages)
    await pipeline.run(items, custom_dashboard=watching, dashboard_update_interval=interval)
    return watching


async def keep(stages: list[Stage], items: Any) -> Keeping:
    """Run a pipeline and keep the snapshots."""
    keeping = Keeping()
    await Pipeline(stages).run(items, custom_dashboard=keeping, dashboard_update_interval=0.5)
    return keeping
