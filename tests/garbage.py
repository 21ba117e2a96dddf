"""The garbage collector in the tests: what was there before a test is none of its business.

A collection looks at all objects that are not frozen, and the tests themselves are a great many. So
they are frozen when they have been collected, and what is left of a test when it is over.

`run_virtual` does the same for its own run, and thaws everything afterwards. Here it must not: each
later run would freeze the garbage of the ones before, which then is never collected.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

freeze, unfreeze = gc.freeze, gc.unfreeze

_patch = pytest.MonkeyPatch()


def collect_and_freeze() -> None:
    """Collect the garbage, and leave what remains out of all further collections."""
    gc.collect()
    freeze()


def keep_frozen() -> None:
    """From now on, nothing else freezes and thaws."""
    _patch.setattr(gc, "freeze", lambda: None)
    _patch.setattr(gc, "unfreeze", lambda: None)


@contextmanager
def thawed() -> Iterator[None]:
    """A block in which the collector works as it does elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "freeze", freeze)
        patch.setattr(gc, "unfreeze", unfreeze)
        unfreeze()
        yield
