"""Why is it slow? The bottleneck of a run, in one plain sentence.

Every second of every worker is one `Activity`. All other stages wait for one whose workers have no
second to spare: those before it for room, those after it for items. If there is no such stage, the
cause is outside: the source, the consumer of the results, or something that blocks the event loop
for all.

The rule looks at what a span of a run added to its sums (`Moment`): the last seconds while it goes
on, all of it at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, prod

from antflow._core.levers import Advice
from antflow._core.snapshot import LoopStall, RunState, StageStats
from antflow._core.stage import DEFAULT_CAPACITY_PER_WORKER
from antflow._core.text import counted
from antflow._monitor.flow import entered_items, going_on
from antflow._monitor.moment import Moment, Spent
from antflow._monitor.processor import Processor

OCCUPIED = 0.85
"""Busy share of its workers' time from which a stage has none to spare."""

AS_OCCUPIED = 0.05
"""A difference too small to count."""

NEARLY_OCCUPIED = 0.7
"""`OCCUPIED` for a stage with a long queue: at the beginning its workers had to wait, too."""

MOSTLY = 0.5
"""`OCCUPIED` over a whole run, which has a beginning and an end; also a high share of waiting."""

LOOP_BLOCKED = 0.2
"""Share of the time from which the event loop comes before everything else."""

HALF_FULL = 0.5
FULL = 0.9
HELD_BY_LIMIT = 0.15
HELD_AT_TIMES = 0.01
"""Share of their time from which a limit may be all that more workers would meet."""

HELD_BY_RETRIES = 0.3
EARLIEST_ANSWER = 1.0
"""Seconds: a shorter run needs no explanation."""

MOST_GAIN = 2.0
"""The advice never goes beyond doubling the workers of a stage."""

LEAST_GAIN = 0.05


NOTHING = Advice()


def advise(
    stages: Sequence[StageStats],
    whole: Moment,
    span: Moment,
    state: RunState = "running",
    last_stall: LoopStall | None = None,
) -> Advice:
    """Find what held a run back in a span of time.

    Args:
        stages: The stages, as they are at the end of the span.
        whole: The sums since the run began: what a stage can do changes less than what it does.
        span: What the span added to them.
        state: The run's state. Over a whole run ("finished") the marks are lower, because it has a
            beginning and an end in which not all can be at work.
        last_stall: What blocked the event loop last.
    """
    if not stages or span.elapsed <= 0 or whole.elapsed < EARLIEST_ANSWER or state == "paused":
        return NOTHING
    shares = [spent.shares() for spent in span.spent]
    if (blocked := span.blocked / span.elapsed) >= LOOP_BLOCKED:
        return _loop(min(blocked, 1.0), last_stall)
    is_over = state == "finished"
    mark = MOSTLY if is_over else OCCUPIED
    highest = max(each.occupied for each in shares)
    if highest < OCCUPIED:
        if (processor := Processor.of(span)).is_used_up:
            return _processor(stages, processor)
        if (waits := _waits_outside(stages, shares, span)) is not None:
            return waits
    if highest < mark:
        return NOTHING
    # An equally occupied one before it only fills a queue that still has room.
    chosen = max(
        index
        for index, (stage, each) in enumerate(zip(stages, shares, strict=True))
        if each.occupied >= highest - AS_OCCUPIED
        or (each.occupied >= NEARLY_OCCUPIED and _is_piling_up(stage, index))
    )
    stage = stages[chosen]
    if state == "draining" and not stage.pending_items and stage.in_progress_items < stage.workers:
        return NOTHING  # the last items are on their way
    return _occupied(stages, chosen, whole, span, is_over)


# Causes


def _loop(share: float, stall: LoopStall | None) -> Advice:
    by = ""
    if stall is not None and stall.location:
        where = f"at {stall.location}" + (f": {stall.line}" if stall.line else "")
        by = f", last by stage {stall.stage} {where}" if stall.stage else f", last {where}"
    return Advice(
        "loop",
        (stall and stall.stage) or None,
        share,
        f"Bottleneck: the event loop. Something blocked it at least {share:.0%} of the time{by}. "
        "An async call, or a plain function, which runs in a thread, would let the others go on.",
        "blocks the loop",
    )


def _processor(stages: Sequence[StageStats], processor: Processor) -> Advice:
    who = processor.who_computed
    start = f"Bottleneck: the processor. {who[0].upper()}{who[1:]}, and the workers waited"
    if processor.is_all_used_up:
        sentence = f"{start} for their turn; this machine has hardly more."
    elif all(map(_has_processes, stages)):
        sentence = f"{start} for their turn."
    else:
        helps = 'Plain functions with executor="process" would take work off it.'
        sentence = f"{start} for their turn. {helps}"
    return Advice("processor", None, processor.share, sentence)


def _has_processes(stage: StageStats) -> bool:
    """Whether its tasks run in child processes: no process starts without computing."""
    return stage.child_cpu_seconds > 0


def _waits_outside(
    stages: Sequence[StageStats], shares: Sequence[Spent], span: Moment
) -> Advice | None:
    """The source, the consumer of the results, or callbacks, if one of them is the cause."""
    last = len(stages) - 1
    for index in reversed(range(len(stages))):
        blocked, name = shares[index].blocked, stages[index].stage_name
        if blocked < MOSTLY:
            continue
        if index == last:
            return Advice(
                "consumer",
                name,
                blocked,
                f"Bottleneck: what comes after the last stage. The workers of {name} waited "
                f"{blocked:.0%} of the time for the consumer of the results, a callback or "
                "the store.",
                "waits for the consumer",
            )
        if shares[index + 1].starved >= MOSTLY:
            return Advice(
                "callbacks",
                name,
                blocked,
                f"Bottleneck: callbacks. The workers of {name} waited {blocked:.0%} of the time "
                "for one, or for the store.",
                "waits for callbacks",
            )
    first = stages[0]
    starved = _starved_by_source(span)
    # Fewer than two items per worker leave most workers idle, whatever the source.
    if starved < MOSTLY or entered_items(first) < 2 * first.workers:
        return None
    return Advice(
        "source",
        first.stage_name,
        starved,
        f"Bottleneck: the source. The workers of {first.stage_name} had nothing to do "
        f"{starved:.0%} of the time: items come more slowly than they could be taken.",
        "waits for the source",
    )


def _starved_by_source(span: Moment) -> float:
    """The part of the time for which items could come that the first stage had none."""
    first = span.spent[0]
    each_second = sum(first) / span.elapsed  # of its workers, in all
    without_source = each_second * (span.elapsed - span.intake)
    possible = each_second * span.intake
    share = max(first.starved - without_source, 0.0) / possible if possible else 0.0
    return min(share, 1.0)  # it may be rounded up


def _occupied(
    stages: Sequence[StageStats], index: int, whole: Moment, span: Moment, is_over: bool
) -> Advice:
    """The workers of a stage have no time left: why, and what would help."""
    stage, own = stages[index], span.spent[index].shares()
    name = stage.stage_name
    start = f"Bottleneck: {name}."
    if own.limited >= HELD_BY_LIMIT:
        sentence = (
            f"{start} Its limit held its workers {own.limited:.0%} of the time; a higher one would "
            "lift the rate, more workers would not."
        )
        return Advice("limit", name, own.limited, sentence, "held by its limit")
    if own.retrying >= HELD_BY_RETRIES:
        sentence = (
            f"{start} Too many of its items waited for their next try, so that its workers took "
            f"nothing new {own.retrying:.0%} of the time."
        )
        return Advice("retries", name, own.retrying, sentence, "waits for retries")
    start = f"{start} {_how_busy(stage, own, is_over)}{_queue(stage, index, is_over)}"
    processor = Processor.of(span)
    if processor.is_used_up:
        why = f"{processor.who_computed} meanwhile, so more workers would help little"
        helps, advice = "", "no processor left"
        if processor.is_all_used_up:
            helps = " on this machine"
        elif not _has_processes(stage):
            helps = '; CPU-bound tasks would be better off with executor="process"'
            advice = "needs processes"
        return Advice("processor", name, own.busy, f"{start}; {why}{helps}.", advice)
    if is_over and own.occupied < OCCUPIED:
        most = ", more than those of any other stage" if len(stages) > 1 else ""
        return Advice("workers", name, own.busy, f"{start}{most}.", "bottleneck")
    more, gain, other = _gain(stages, index, whole, processor.left)
    reason = _what_is_near(stage, own, span, is_over)
    if not reason and gain < LEAST_GAIN:
        reason = f"{other} is hardly less busy, so more workers alone would help little"
    if reason:
        return Advice("workers", name, own.busy, f"{start}; {reason}.", "bottleneck")
    noun = "worker" if more == 1 else "workers"
    lift = "would have lifted" if is_over else "would lift"
    sentence = f"{start}; {more} more {noun} {lift} the rate by about {gain:.0%}."
    return Advice("workers", name, own.busy, sentence, f"+{more} {noun}: +{gain:.0%}")


def _what_is_near(stage: StageStats, own: Spent, span: Moment, is_over: bool) -> str:
    """Why more workers alone may gain nothing, whatever other stages could do; "" = no reason."""
    if min(own.starved, _starved_by_source(span)) >= AS_OCCUPIED:
        came = "came" if is_over else "come"
        return f"items {came} hardly any faster, so more workers alone would help little"
    if own.limited >= HELD_AT_TIMES:
        limit = f"its limit held them {own.limited:.0%} of the time"
    elif stage.concurrency is not None and stage.concurrency <= stage.workers:
        limit = f"its limit lets {stage.concurrency} in at once"
    else:
        return ""
    return f"{limit}, so more workers alone may help little"


def _is_piling_up(stage: StageStats, index: int) -> bool:
    """Whether its queue is half full. The first stage's says nothing: it is kept filled."""
    room = stage.capacity or stage.workers * DEFAULT_CAPACITY_PER_WORKER
    return index > 0 and stage.pending_items >= HALF_FULL * room


def _how_busy(stage: StageStats, own: Spent, is_over: bool) -> str:
    count = stage.workers
    if is_over:
        who = "Its worker was" if count == 1 else f"Its {count:,} workers were"
        return f"{who} busy {own.busy:.0%} of the time"
    busy = round(own.busy * count)
    return f"{busy:,} of {count:,} workers busy" if count != 1 else "Its only worker is busy"


def _queue(stage: StageStats, index: int, is_over: bool) -> str:
    """The queue before it, in words."""
    if is_over or not index or not stage.pending_items:
        return ""
    if stage.capacity and stage.pending_items >= FULL * stage.capacity:
        return ", its queue is full"
    waits = "waits" if stage.pending_items == 1 else "wait"
    return f", {counted(stage.pending_items, 'item')} {waits} for it"


def _gain(
    stages: Sequence[StageStats], index: int, whole: Moment, processor_left: float
) -> tuple[int, float, str]:
    """How many workers to add, by what share the rate would rise, and what limits it then.

    By the utilisation law (Denning and Buzen, 1978) a stage's workers are occupied in proportion to
    its rate; so the rate can rise until the next busiest stage has no time left either.
    """
    workers = max(stages[index].workers, 1)
    rates = _highest_rates(stages, index, whole)
    most, second = min(MOST_GAIN, max(processor_left, 1.0)), "the processor"
    if (concurrency := stages[index].concurrency) is not None and concurrency < most * workers:
        most, second = concurrency / workers, "its limit"
    for number, rate in enumerate(rates):
        if number != index and rate < most * rates[index] < inf:
            most, second = max(rate / rates[index], 1.0), stages[number].stage_name
    more = max(ceil(workers * (most - 1) - 1e-9), 1)
    return more, min(most, (workers + more) / workers) - 1, second


def _highest_rates(stages: Sequence[StageStats], index: int, whole: Moment) -> list[float]:
    """The highest rate of each stage using all of its time, in items of stage ``index``.

    Per second, and with the workers it has now: they may have been more or fewer before.
    """
    rates: list[float] = []
    for number, (left, spent) in enumerate(zip(whole.left, whole.spent, strict=True)):
        first, last = sorted((number, index))
        one_becomes = prod(map(going_on, stages[first:last], stages[first + 1 : last + 1]))
        if number > index:
            one_becomes = 1 / one_becomes if one_becomes else inf
        if left and (occupied := spent.occupied):
            rates.append(left / occupied * stages[number].workers * one_becomes)
        else:
            rates.append(inf)
    return rates
