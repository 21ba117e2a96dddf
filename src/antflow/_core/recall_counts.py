"""How many items of a run were known from earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from antflow._core.text import error_type_name


@dataclass(slots=True)
class RecallCounts:
    """How many items of a run the store knew.

    The books of the run have those that go on, and none of those that had ended.

    Attributes:
        ended: How an item had ended → how many; those made from others too.
        inputs: How many of those that had ended were fed, and not made from others.
        changed: How many are run again because their input, or a stage, has changed.
        failed: Type of an error → how many items had failed with it, and stay so.
        omitted: How many results are not in the journal, of this run and of earlier ones.
    """

    ended: dict[str, int] = field(default_factory=dict[str, int])
    inputs: int = 0
    changed: int = 0
    failed: dict[str, int] = field(default_factory=dict[str, int])
    omitted: int = 0

    def of(self, outcome: str) -> int:
        """How many had ended so."""
        return self.ended.get(outcome, 0)

    @property
    def all_ended(self) -> int:
        """How many had ended."""
        return sum(self.ended.values())

    def add(
        self, outcome: str, is_input: bool, error: Exception | None = None, count: int = 1
    ) -> None:
        """Count items that had ended so."""
        self.ended[outcome] = self.of(outcome) + count
        self.inputs += count if is_input else 0
        if error is not None:
            kind = error_type_name(error)
            self.failed[kind] = self.failed.get(kind, 0) + count
