"""How much processor time is left: for this process, and on this machine."""

from __future__ import annotations

import os
from math import inf
from typing import NamedTuple

from antflow._monitor.moment import Moment

COMPUTING = 0.75
"""Used share of the available processor time from which more workers would not help. Less than all:
the threads of a process wait for each other, and for other processes."""

ONE_CORE = 1.2
"""A process that uses up to this many cores is taken to be limited to one by Python's lock, if it
is not known whether its threads wait for that."""

GIL_HELD = 0.4
"""Share of the time for which Python's lock is held from which a process is limited to one core."""

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""The cores this process may use. A container's quota is not known."""


class Processor(NamedTuple):
    """How many cores a run used.

    Python code has one core in each process, however many threads; code that releases Python's lock
    may have them all. Each child process serves one worker, and has no limit but the machine.

    Attributes:
        own: Cores that this process used.
        children: Cores that the child processes of its stages used.
        gil_share: See `LoopHealth`; ``None`` = not known.
    """

    own: float
    children: float
    gil_share: float | None = None

    @classmethod
    def of(cls, span: Moment, gil_share: float | None = None) -> Processor:
        """In a span of time."""
        children = span.children_computed / span.elapsed
        return cls(span.computed / span.elapsed, children, gil_share)

    @property
    def left(self) -> float:
        """By what factor the rate can rise until there is no processor time left.

        What this process and its children compute rises with the rate.
        """
        return min(self._left_here, self.left_on_machine)

    @property
    def share(self) -> float:
        """How much of the available processor time is used up, 0 to 1."""
        return min(1 / self.left, 1.0)

    @property
    def is_used_up(self) -> bool:
        """Whether more workers would not help, because this process or the machine has no more."""
        return self.left <= 1 / COMPUTING

    @property
    def is_all_used_up(self) -> bool:
        """Whether the machine has no more, so that other processes would not help either."""
        return self.left_on_machine <= 1 / COMPUTING

    @property
    def who_computed(self) -> str:
        """Which processes used it up, and how much: part of a sentence."""
        if self.is_all_used_up and self.children:
            return f"this process and its children computed on {self.own + self.children:.1f} cores"
        return f"this process computed on {self.own:.1f} cores"

    @property
    def _left_here(self) -> float:
        if self.gil_share is None:
            has_one_core = 0 < self.own <= ONE_CORE
        else:
            has_one_core = self.own > 0 and self.gil_share >= GIL_HELD
        return 1 / self.own if has_one_core else inf

    @property
    def left_on_machine(self) -> float:
        """`left`, if all that computes had a process of its own."""
        cores = self.own + self.children
        return max(CORES / cores, 1.0) if cores > 0 else inf
