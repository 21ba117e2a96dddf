"""Observers hear of every step of a run: their methods, and the values they are given."""

from antflow._core.observers import ItemStep, Observer, RunEnd, RunEnding, StepKind
from antflow._core.run_facts import RunFacts

__all__ = ["ItemStep", "Observer", "RunEnd", "RunEnding", "RunFacts", "StepKind"]
