"""The values of `Stage.executor` that are neither a word nor an executor."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class RunnerKind(Protocol):
    """Where a stage's tasks are called, in each run: on a cluster, for example.

    A package can bring its own: an entry point of the group ``antflow.runners`` names, for a scheme
    like ``"dask"``, a function of the text ``"dask://…"`` that returns one.
    """

    def check(self, stage: Any) -> None:
        """Refuse a stage whose tasks cannot be called there.

        Args:
            stage: The `Stage`.

        Raises:
            StageValidationError: Naming the stage, the task and the reason.
        """
        ...

    def runner(self, home: Any) -> Any:
        """The runner for one run of a stage, made in the run's event loop.

        It connects with the first call: nothing can be awaited here.

        Args:
            home: The stage in this run, an `antflow._core.runner_port.StageHome`.

        Returns:
            An `antflow._core.runner_port.Runner`.
        """
        ...
