"""Facts about a run that are fixed from its beginning."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts about one run that are fixed from its beginning.

    Attributes:
        run_id: Unique name of the run.
        stage_names: In pipeline order.
        started_mono: The monotonic clock's reading when the run began, in seconds.
        started_wall: The wall clock's reading at the same moment, in Unix seconds.
        pipeline: The pipeline's name.
        per_task_stages: Names of the stages in which only the failed task is tried again: an item
            stays "in_progress" there until it has completed or failed.
        stage_options: Of each stage, the name of an option → its value as text, for those that do
            not have their default.
    """

    run_id: str
    stage_names: tuple[str, ...]
    started_mono: float
    started_wall: float
    pipeline: str = "pipeline"
    per_task_stages: tuple[str, ...] = ()
    stage_options: tuple[dict[str, str], ...] = field(default=(), repr=False, compare=False)

    def timestamp(self, mono: float, /) -> float:
        """The Unix time of a monotonic reading. One anchor per run, so order is preserved."""
        return self.started_wall + (mono - self.started_mono)

    def worker_name(self, stage: int, index: int, node: str = "", /) -> str:
        """``"Fetch-W0"``; with the machine where it works, ``"Fetch@10.0.0.7-W0"``."""
        at = f"@{node}" if node else ""
        return f"{self.stage_names[stage]}{at}-W{index}"
