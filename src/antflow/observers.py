"""Hearing of every step of a run: the methods of an observer, and what it is given."""

from antflow._core.observers import ItemStep, Observer, RunEnd, RunEnding, StepKind
from antflow._core.run_facts import RunFacts

__all__ = ["ItemStep", "Observer", "RunEnd", "RunEnding", "RunFacts", "StepKind"]
