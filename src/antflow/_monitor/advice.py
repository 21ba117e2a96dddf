"""Why is it slow? What holds a run back, and what would help, in one plain sentence.

Every second of every worker is one `Activity`. All other stages wait for one whose workers have no
second to spare: those before it for room, those after it for items. If there is no such stage, the
cause is outside: the source, the consumer of the results, or something that keeps the event loop
busy for all.

A number is given only where the figures of the run bear it out; where they contradict each other,
the sentence says what was seen and promises nothing.

The rule looks at what a span of a run added to its sums (`Moment`): the last seconds while it goes
on, all of it at its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from antflow._core.levers import Advice
from antflow._core.snapshot import LoopHealth, RunState, StageStats
from antflow._core.stage import DEFAULT_CAPACITY_PER_WORKER, Stage
from antflow._core.text import clean, clock, counted, safe_repr
from antflow._monitor.changes import Outcome
from antflow._monitor.flow import entered_items, items_inside
from antflow._monitor.gain import LONGER, gain, held_up_by_each_other, highest_rates
from antflow._monitor.measured import RateLimit
from antflow._monitor.moment import Marks, Moment, Spent
from antflow._monitor.probes import Probed
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
"""Share of the time from which a blocked event loop comes before everything else."""

LOOP_BUSY = 0.85
"""Share of the time at work from which the event loop has none to spare."""

HALF_FULL = 0.5
FULL = 0.9
HELD_BY_LIMIT = 0.15
HELD_AT_TIMES = 0.01
"""Share of their time from which a limit may be all that more workers would meet."""

HELD_BY_RETRIES = 0.3
BLOCKED_BY_QUEUE = 0.2

NEAR = 1.25
"""Times its rate that a stage's limit may let through and still be the one that holds it."""

AS_ONE = 0.01
"""How far from 1 the cost of a try may be and count as 1."""

PERIODS = {1.0: "/s", 60.0: "/min", 3600.0: "/h", 86400.0: "/day"}

IN_VAIN = 0.3
"""Share of the work in failed tries from which that is what to change."""

EARLIEST_ANSWER = 1.0
"""Seconds: a shorter run needs no explanation."""

LEAST_GAIN = 0.05

LONG_UNDER_WAY = 2.0
MANY_TIMES = 4.0
"""An item is slow that has been under way for this many seconds, and times the usual."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The item that has been in a worker's hands longest.

    Attributes:
        stage: Name of the stage.
        item_id: Its id.
        seconds: Since when.
    """

    stage: str
    item_id: object
    seconds: float


@dataclass(frozen=True, slots=True)
class Case:
    """What the rule looks at.

    Attributes:
        stages: The stages, as they are at the end of the span.
        whole: The sums since the run began: what a stage can do changes less than what it does.
        span: What the span added to them.
        state: The run's state. Over a whole run ("finished") the marks are lower, because it has a
            beginning and an end in which not all can be at work.
        loop: The health of the event loop.
        options: The stages as they were described.
        outcomes: Name of a stage → what came of the last change of its workers.
        longest: The item that has been under way longest.
        probed: Name of a stage → what one worker more brought, where that still counts.
        trying: Name of the stage that has one more at present; "" = none.
        rates: The limits of each stage that have a rate.
    """

    stages: Sequence[StageStats]
    whole: Moment
    span: Moment
    state: RunState = "running"
    loop: LoopHealth = field(default_factory=LoopHealth)
    options: Sequence[Stage] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict[str, Outcome])
    longest: UnderWay | None = None
    probed: Mapping[str, Probed] = field(default_factory=dict[str, Probed])
    trying: str = ""
    rates: Sequence[Sequence[RateLimit]] = ()

    @property
    def is_over(self) -> bool:
        """Whether the span is the whole run."""
        return self.state == "finished"

    @property
    def would_lift(self) -> str:
        """The words for what did not happen, or has not yet."""
        return "would have lifted" if self.is_over else "would lift"

    @property
    def processor(self) -> Processor:
        """The processor time of the span."""
        return Processor.of(self.span, self.loop.gil_share)

    def marks(self, index: int) -> Marks:
        """The marks of a stage in the span."""
        return self.span.marks[index] if self.span.marks else Marks()


NOTHING = Advice()


def advise(case: Case) -> Advice:
    """Find what held a run back in a span of time."""
    stages, span = case.stages, case.span
    is_young = span.elapsed <= 0 or case.whole.elapsed < EARLIEST_ANSWER
    if not stages or is_young or case.state == "paused":
        return NOTHING
    shares = [spent.shares() for spent in span.spent]
    for advice in (_loop(case), _threads(case), _last_item(case), _short_queue(case, shares)):
        if advice is not None:
            return advice
    mark = MOSTLY if case.is_over else OCCUPIED
    highest = max(each.occupied for each in shares)
    if highest < OCCUPIED:
        if case.processor.is_used_up:
            return _processor(case)
        if (waits := _waits_outside(case, shares)) is not None:
            return waits if _loop_share(span) < LOOP_BUSY else _turns(span)
    if highest < mark:
        return NOTHING
    # An equally occupied one before it only fills a queue that still has room.
    chosen = max(
        index
        for index, (stage, each) in enumerate(zip(stages, shares, strict=True))
        if each.occupied >= highest - AS_OCCUPIED
        or (each.occupied >= NEARLY_OCCUPIED and _is_piling_up(stage, index))
    )
    to_come = sum(map(items_inside, stages[: chosen + 1]))
    if case.state == "draining" and to_come <= stages[chosen].workers:
        return NOTHING  # each of the last items has a worker
    return _occupied(case, chosen)


# Outside the stages


def _loop(case: Case) -> Advice | None:
    """The event loop, if something blocks it or keeps it busy."""
    span, stall, hot = case.span, case.loop.last_stall, case.loop.hot_spot
    if (blocked := min(span.blocked / span.elapsed, 1.0)) >= LOOP_BLOCKED:
        stage, by = None, ""
        if stall is not None and stall.location:
            stage = stall.stage or None
            who = f" by stage {stall.stage}" if stage else ""
            by = f", last{who}{_at(stall.location, stall.line)}"
        begin = f"Something blocked it at least {blocked:.0%} of the time{by}."
        return _about_the_loop(case, stage, blocked, begin, "blocks the loop")
    busy = _loop_share(span)
    if busy < LOOP_BUSY or hot is None:
        return None
    who = f" by stage {hot.stage}" if hot.stage else ""
    mostly = f"mostly kept{who}{_at(hot.location, hot.line)}"
    begin = f"It was at work {busy:.0%} of the time, {mostly}."
    return _about_the_loop(case, hot.stage or None, busy, begin, "keeps the loop busy")


def _about_the_loop(case: Case, stage: str | None, share: float, begin: str, hint: str) -> Advice:
    if case.processor.own >= LOOP_BUSY:
        helps = 'A plain function with executor="process" would let the others go on.'
    else:
        helps = "An async call, or a plain function, which runs in a thread, would let the others "
        helps += "go on."
    return Advice("loop", stage, share, f"Bottleneck: the event loop. {begin} {helps}", hint)


def _loop_share(span: Moment) -> float:
    """For how much of the time the event loop was at work."""
    return min(span.worked / span.elapsed, 1.0)


def _turns(span: Moment) -> Advice:
    """The event loop, if its many short steps leave no time: then all waits are waits for it."""
    busy = _loop_share(span)
    sentence = (
        f"Bottleneck: the event loop. It was at work {busy:.0%} of the time in many short steps, "
        "and the workers waited for their turn."
    )
    return Advice("loop", None, busy, sentence)


def _at(location: str, line: str) -> str:
    return f" at {location}" + (f": {line}" if line else "")


def _threads(case: Case) -> Advice | None:
    """Threads of one stage that compute, if this process or the machine has no more time."""
    processor, span = case.processor, case.span
    computed = [case.marks(index).computed / span.elapsed for index in range(len(case.stages))]
    most = max(computed)
    if not processor.is_used_up or most < MOSTLY * processor.own:
        return None
    index = computed.index(most)
    name, workers = case.stages[index].stage_name, case.stages[index].workers
    threads = "thread" if workers == 1 else "threads"
    begin = f"Bottleneck: {name}. Its {threads} computed on {most:.1f} cores"
    if processor.is_all_used_up:
        sentence = f"{begin}; this machine has hardly more."
        return Advice("processor", name, processor.share, sentence, "no processor left")
    rates = highest_rates(case.stages, index, case.whole, span)
    rates[index] = inf
    now = span.done[index] / span.elapsed
    most_gain = processor.left_on_machine - 1
    others = min(rates) / now - 1 if now else inf
    if others < LEAST_GAIN:  # or so it seems: they had to wait for the lock, too
        reach = (0.0, most_gain)
    else:  # what goes to another process and comes back costs something
        most_gain = min(most_gain, others)
        reach = (most_gain / 2, most_gain)
    with_workers = "" if workers > 1 else f" and {max(round(1 + most_gain), 2)} workers"
    sentence = (
        f"{begin} and had to share Python's lock with all others; "
        f'executor="process"{with_workers} {case.would_lift} the rate by {_about(reach)}.'
    )
    return Advice("processes", name, processor.share, sentence, "needs processes", None, reach)


def _processor(case: Case) -> Advice:
    processor = case.processor
    who = processor.who_computed
    start = f"Bottleneck: the processor. {who[0].upper()}{who[1:]}, and the workers waited"
    if processor.is_all_used_up:
        sentence = f"{start} for their turn; this machine has hardly more."
    elif all(map(_has_processes, case.stages)):
        sentence = f"{start} for their turn."
    else:
        helps = 'Plain functions with executor="process" would take work off it.'
        sentence = f"{start} for their turn. {helps}"
    return Advice("processor", None, processor.share, sentence)


def _has_processes(stage: StageStats) -> bool:
    """Whether its tasks run in child processes: no process starts without computing."""
    return stage.child_cpu_seconds > 0


def _last_item(case: Case) -> Advice | None:
    """The last items of a run, if they take unusually long."""
    longest = case.longest
    if case.state != "draining" or longest is None:
        return None
    left = sum(map(items_inside, case.stages))
    stage = next(each for each in case.stages if each.stage_name == longest.stage)
    usual = stage.run_times.p50  # `None`: none has come through yet
    is_slow = usual is not None and longest.seconds >= max(LONG_UNDER_WAY, MANY_TIMES * usual)
    if not is_slow or left > max(stage.workers, 1):
        return None
    item = f"item {clean(safe_repr(longest.item_id))} in {longest.stage}, {clock(longest.seconds)}"
    if left == 1:
        sentence = f"Waiting for {item}."
    else:
        sentence = f"Waiting for the last {left:,} items, longest for {item}."
    return Advice("item", longest.stage, 1.0, sentence, "waits for an item")


def _waits_outside(case: Case, shares: Sequence[Spent]) -> Advice | None:
    """The source, the consumer of the results, or callbacks, if one of them is the cause."""
    stages = case.stages
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
    starved = _starved_by_source(case.span)
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


# A stage


def _short_queue(case: Case, shares: Sequence[Spent]) -> Advice | None:
    """Batches that cannot fill up, because the queue before them is shorter."""
    for index, (stage, options) in enumerate(zip(case.stages, case.options, strict=False)):
        batch, room, name = options.batch, stage.capacity, stage.stage_name
        if batch is None or room is None or not index:
            continue
        before = case.stages[index - 1].workers  # each may wait with one more
        if room + before >= batch:
            continue
        if (blocked := shares[index - 1].blocked) >= BLOCKED_BY_QUEUE:
            sentence = (
                f"Bottleneck: the queue of {name}. It has room for {counted(room, 'item')}, and "
                f"batches are of up to {batch:,}: queue_capacity={2 * batch} would fill them."
            )
            return Advice("queue", name, blocked, sentence, "queue too short", 2 * batch)
    return None


def _occupied(case: Case, index: int) -> Advice:
    """The workers of a stage have no time left: why, and what would help."""
    stage, own = case.stages[index], case.span.spent[index].shares()
    name, marks = stage.stage_name, case.marks(index)
    start = f"Bottleneck: {name}."
    held = min(marks.held / case.span.elapsed, 1.0)
    if held >= max(HELD_BY_LIMIT, MOSTLY * own.limited):
        sentence = (
            f"{start} The service it calls let no try begin {held:.0%} of the time (RetryAfter, "
            f"{counted(marks.holds, 'time')}): neither more workers nor a higher limit would lift "
            "the rate."
        )
        return Advice("service", name, held, sentence, "held by its service")
    if own.limited >= HELD_BY_LIMIT:
        return _limited(case, index, own.limited)
    if own.retrying >= HELD_BY_RETRIES:
        sentence = (
            f"{start} Too many of its items waited for their next try, so that its workers took "
            f"nothing new {own.retrying:.0%} of the time."
        )
        return Advice("retries", name, own.retrying, sentence, "waits for retries")
    start = f"{start} {_how_busy(stage, own, case.is_over)}{_queue(stage, index, case.is_over)}"
    processor = case.processor
    if processor.is_used_up:
        why = f"{processor.who_computed} meanwhile, so more workers would help little"
        helps, hint = "", "no processor left"
        if processor.is_all_used_up:
            helps = " on this machine"
        elif not _has_processes(stage):
            helps = '; CPU-bound tasks would be better off with executor="process"'
            hint = "needs processes"
        return Advice("processor", name, own.busy, f"{start}; {why}{helps}.", hint)
    if case.is_over and own.occupied < OCCUPIED:
        most = ", more than those of any other stage" if len(case.stages) > 1 else ""
        return Advice("workers", name, own.busy, f"{start}{most}.", "bottleneck")
    for advice in (_in_vain(case, index, start), _shared(case, index, start)):
        if advice is not None:
            return advice
    return _more_workers(case, index, start)


def _limited(case: Case, index: int, share: float) -> Advice:
    """A limit holds the workers of a stage."""
    stages, span = case.stages, case.span
    stage = stages[index]
    sharing = _sharing_a_limit(case, index)
    which = "Its limit"
    if sharing and len(case.options[index].limits) == 1:
        others = " and ".join([stages[number].stage_name for number in sharing])
        which = f"The limit that it shares with {others}"
    begin = f"Bottleneck: {stage.stage_name}. {which} held its workers {share:.0%} of the time"
    rates = highest_rates(stages, index, case.whole, span, (index, *sharing))
    now = span.done[index] / span.elapsed
    tightest, other = _tightest(case, index, now)
    ceiling = min(*rates, other)
    if not now or ceiling == inf:
        sentence = f"{begin}; a higher one {case.would_lift} the rate, more workers would not."
        return Advice("limit", stage.stage_name, share, sentence, "held by its limit")
    rise = ceiling / now - 1
    if ceiling == other:
        then = "its other limit is"
    elif (nearest := rates.index(ceiling)) == index:
        then = "its workers are"
    else:
        then = f"{stages[nearest].stage_name} is"
    if rise < LEAST_GAIN:
        sentence = f"{begin}, but a higher one would help little: {then} as busy."
        return Advice("limit", stage.stage_name, share, sentence, "held by its limit")
    if tightest is None or abs(tightest.a_try - 1) < AS_ONE:
        change = ceiling
        sentence = (
            f"{begin}; a higher one {case.would_lift} the rate, more workers would not. "
            f"At {_three_digits(ceiling)}/s {then} the bottleneck."
        )
    else:
        change = ceiling * tightest.an_item * tightest.period
        per = PERIODS.get(tightest.period, f" per {tightest.period:,.3g} s")
        sentence = (
            f"{begin}; a rate of {_three_digits(change)}{per} instead of {tightest.rate:,.10g}{per}"
            f" {case.would_lift} it to {_three_digits(ceiling)} items/s, then {then} the "
            "bottleneck. More workers would not."
        )
    hint = "held by its limit"
    return Advice("limit", stage.stage_name, share, sentence, hint, change, (0.0, rise))


def _sharing_a_limit(case: Case, index: int) -> list[int]:
    """The other stages that have a limit of a stage: a higher one frees them, too."""
    if not case.options:
        return []
    own = set(map(id, case.options[index].limits))
    return [
        number
        for number, options in enumerate(case.options)
        if number != index and not own.isdisjoint(map(id, options.limits))
    ]


def _tightest(case: Case, index: int, now: float) -> tuple[RateLimit | None, float]:
    """The limit that holds a stage, if it is one of a rate; and what others would let through.

    Args:
        case: The case.
        index: The stage.
        now: Its rate.
    """
    stage = case.stages[index]
    limits = sorted(case.rates[index] if case.rates else (), key=lambda limit: limit.items)
    if not limits or limits[0].items > now * NEAR:
        return None, inf
    others = [limit.items for limit in limits[1:]]
    busy = case.span.spent[index].busy
    if stage.concurrency is not None and busy:
        others.append(case.span.done[index] / busy * stage.concurrency)
    return limits[0], min(others, default=inf)


def _three_digits(number: float) -> str:
    """A number as people write it: ``1,230``, ``0.123``."""
    if not number or number >= 1000:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:.3g}"


def _in_vain(case: Case, index: int, start: str) -> Advice | None:
    """Much of a stage's work goes into tries that fail."""
    busy, failed = case.span.spent[index].busy, case.marks(index).failed
    share = min(failed / busy, 0.99) if busy else 0.0
    if share < IN_VAIN:
        return None
    rise = share / (1 - share)
    sentence = (
        f"{start}; {share:.0%} of this went into tries that failed, so fewer errors "
        f"{case.would_lift} the rate by up to {rise:.0%}."
    )
    name = case.stages[index].stage_name
    return Advice("errors", name, share, sentence, "tries fail", None, (0.0, rise))


def _shared(case: Case, index: int, start: str) -> Advice | None:
    """The tries of a stage wait for something that they share."""
    stage, name = case.stages[index], case.stages[index].stage_name
    share = case.span.spent[index].shares().busy
    if (probed := case.probed.get(name)) is not None:
        if not probed.is_in_vain:
            return None  # whatever the first tries took
        sentence = (
            f"{start}; {probed.sentence}: something behind them is the limit, such as a pool, a "
            "lock or a server."
        )
        return Advice("shared", name, share, sentence, "more did not help")
    if name == case.trying:
        return None
    outcome = case.outcomes.get(name)
    if outcome is not None and outcome.workers == stage.workers and outcome.is_in_vain:
        sentence = f"{start}; {outcome.sentence}: something that they share is the limit."
        return Advice("shared", name, share, sentence, "more did not help")
    times = held_up_by_each_other(stage, index, case.span)
    if times >= LONGER and stage.workers > 1:
        sentence = (
            f"{start}; with all of them at work a try takes {times:.1f} times as long as it did "
            "at first. They share something that lets only a few in at once, such as a pool, a "
            "lock or a server, so more workers would not help."
        )
        return Advice("shared", name, share, sentence, "share a narrow place")
    return None


def _more_workers(case: Case, index: int, start: str) -> Advice:
    """More workers would lift the rate, if the source and the other stages allow it."""
    stage, own = case.stages[index], case.span.spent[index].shares()
    name = stage.stage_name
    found = gain(case.stages, index, case.whole, case.span, case.processor.left)
    reason = _what_is_near(stage, own, case)
    if not reason and found.most < LEAST_GAIN:
        reason = f"{found.limited_by} is hardly less busy, so more workers alone would help little"
    if reason:
        return Advice("workers", name, own.busy, f"{start}; {reason}.", "bottleneck")
    if name == case.trying:
        sentence = f"{start}; trying 1 more worker for a few seconds."
        return Advice("workers", name, own.busy, sentence, "tries 1 more", None, (0.0, found.most))
    noun = "worker" if found.more == 1 else "workers"
    reach = (found.least, found.most)
    outcome = case.outcomes.get(name)
    said = f"{start}; "
    if outcome is not None and outcome.workers == stage.workers:
        said = f"{start}; {outcome.sentence}. "
    if (probed := case.probed.get(name)) is not None:
        said = f"{start}; {probed.sentence}. "
        most = probed.part[1] * found.most  # if each brings as much, and at least what one did
        reach = (min(probed.least, most), most)
    sentence = f"{said}{found.more:,} more {noun} {case.would_lift} the rate by {_about(reach)}."
    up_to = "" if reach[0] else "up to "
    hint = f"+{found.more:,} {noun}: {up_to}+{reach[1]:.0%}"
    return Advice("workers", name, own.busy, sentence, hint, found.more, reach)


def _about(reach: tuple[float, float]) -> str:
    least, most = reach
    if not least:
        return f"up to {most:.0%}"
    if f"{least:.0%}" == f"{most:.0%}":
        return f"about {most:.0%}"
    return f"{least * 100:.0f}-{most:.0%}"


def _what_is_near(stage: StageStats, own: Spent, case: Case) -> str:
    """Why more workers alone may gain nothing, whatever other stages could do; "" = no reason."""
    if min(own.starved, _starved_by_source(case.span)) >= AS_OCCUPIED:
        came = "came" if case.is_over else "come"
        return f"items {came} hardly any faster, so more workers alone would help little"
    if own.limited >= HELD_AT_TIMES:
        limit = f"its limit held them {own.limited:.0%} of the time"
    elif stage.concurrency is not None and stage.concurrency <= stage.workers:
        limit = f"its limit lets {stage.concurrency:,} in at once"
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
