"""The advice in planted situations: right in each that a virtual clock can run."""

from __future__ import annotations

import pytest

from benchmarks.advice import Situation, find, situations

VIRTUAL = [each for each in situations() if not each.is_real]


@pytest.mark.parametrize("situation", VIRTUAL, ids=[each.name for each in VIRTUAL])
def test_advice_is_right(situation: Situation) -> None:
    """The right lever and stage are named, and what was promised comes when it is followed."""
    found = find(situation)
    assert found.verdict == "right", (found.advice.sentence, found.gain)
