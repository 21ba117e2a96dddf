"""By how much the rate of a run would rise with more workers in one stage, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import ceil, inf, prod
from typing import NamedTuple

from antflow._core.first_tries import FirstTries
from antflow._core.snapshot import StageStats
from antflow._monitor.flow import going_on
from antflow._monitor.moment import Moment

MOST_GAIN = 2.0
"""The advice never goes beyond doubling the workers of a stage."""

FEWEST_DONE = 10
"""Items of a stage in a span from which its rate can be told from that span alone."""

FEWEST_FIRST = 3
"""Workers whose first tries say whether the tries of a stage hold each other up."""

LONGER = 1.5
"""How many times as long a try must take with all workers at work as with a few to count."""

FASTER = 2.0
"""How many times the pace of all workers that of the first tries must be to count as faster."""

SURE = 2.5
"""Standard errors by which two means must differ to be different."""

SAME = 1.5
"""The factor by which tries may take longer or shorter than at first, and count as the same."""


class Gain(NamedTuple):
    """What more workers would bring.

    Attributes:
        more: How many more.
        least: By what part the rate would rise, at least: 0 where it was not seen that tries of
            this stage do not hold each other up.
        most: The same, at most.
        limited_by: What limits it then: a stage's name, or "the processor", "its limit".
    """

    more: int
    least: float
    most: float
    limited_by: str


def gain(
    stages: Sequence[StageStats], index: int, whole: Moment, span: Moment, processor_left: float
) -> Gain:
    """What more workers in one stage would bring.

    By the utilisation law (Denning and Buzen, 1978) a stage's workers are occupied in proportion to
    its rate; so the rate can rise until the next busiest stage has no time left either. That
    supposes that its tries take no longer when there are more of them at a time.
    """
    workers = max(stages[index].workers, 1)
    rates = highest_rates(stages, index, whole, span)
    most, second = min(MOST_GAIN, max(processor_left, 1.0)), "the processor"
    if (concurrency := stages[index].concurrency) is not None and concurrency < most * workers:
        most, second = concurrency / workers, "its limit"
    for number, rate in enumerate(rates):
        if number != index and rate < most * rates[index] < inf:
            most, second = max(rate / rates[index], 1.0), stages[number].stage_name
    more = max(ceil(workers * (most - 1) - 1e-9), 1)
    rise = min(most, (workers + more) / workers) - 1
    return Gain(more, rise if _is_seen_to_hold(stages[index], index, span) else 0.0, rise, second)


def highest_rates(
    stages: Sequence[StageStats],
    index: int,
    whole: Moment,
    span: Moment,
    freed: Collection[int] = (),
) -> list[float]:
    """The highest rate of each stage using all of its time, in items of stage ``index``.

    Per second, and with the workers it has now: they may have been more or fewer before. Of stages
    that are `freed`, it is the rate without their limits.
    """
    rates: list[float] = []
    for number, stage in enumerate(stages):
        first, last = sorted((number, index))
        one_becomes = prod(map(going_on, stages[first:last], stages[first + 1 : last + 1]))
        if number > index:
            one_becomes = 1 / one_becomes if one_becomes else inf
        # What a stage can do may have changed, so the last seconds count if they are enough.
        seen = span if span.done[number] >= FEWEST_DONE else whole
        spent = seen.spent[number]
        if seen.done[number] and (occupied := spent.busy if number in freed else spent.occupied):
            rates.append(seen.done[number] / occupied * stage.workers * one_becomes)
        else:
            rates.append(inf)
    return rates


def held_up_by_each_other(stage: StageStats, index: int, span: Moment) -> float:
    """How many times as long its tries take now as those of its first workers did.

    1.0 unless the first tries of the later workers took longer, too: else something has changed
    since then. And unless the first ones were over at a pace that a narrow place would not have let
    through: then they were shorter by themselves.
    """
    first = stage.first_tries
    now = mean_try(index, span)
    if first.workers < FEWEST_FIRST or not first.early or now is None or not _rises(first):
        return 1.0
    if first.pace * now > FASTER * stage.workers:
        return 1.0
    return max(now / first.early, 1.0)


def _rises(first: FirstTries) -> bool:
    return first.late >= LONGER * first.early and first.late - first.early > SURE * first.spread


def _is_seen_to_hold(stage: StageStats, index: int, span: Moment) -> bool:
    """Whether its tries were seen to take as long with all workers at work as with a few."""
    first = stage.first_tries
    now = mean_try(index, span)
    if first.workers < FEWEST_FIRST or now is None:
        return False
    mean = (first.early + first.late) / 2
    return mean / SAME <= now <= mean * SAME


def mean_try(index: int, span: Moment) -> float | None:
    """The mean time of a try in a span, in seconds; ``None`` if there were none."""
    tries = span.marks[index].tries if span.marks else 0
    return span.spent[index].busy / tries if tries else None
