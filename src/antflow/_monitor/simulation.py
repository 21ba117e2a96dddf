"""How a run goes on from here: a simulation of flows through its stages.

It does not follow items but expected numbers of them, in steps of time. In each step a stage takes
from its queue as many as its workers and limits let in, and what it takes is spread over the steps
in which it will be done, by the measured times. So it costs the same for a hundred items and a
million, it is the same each time, and it knows of the last items: when the expected number of
items left is ``m``, none is left with a probability of about ``exp(-m)`` (Poisson).

Steps are as long as a part of the whole takes. A try shorter than a step ends in the step in which
it began, and its worker takes another one: of the starts ``x`` in a step the part ``p`` ends in it,
so that with ``room`` for that many at its end, ``x = room / (1 - p)``. If a run is not over after
`STEPS`, two steps become one, and it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, inf, log
from typing import NamedTuple

from antflow._monitor.service_times import Points, ServiceTimes

STEPS = 64
MOST_STEPS = 4 * STEPS
MOST_STAGE_STEPS = 600
"""Steps of one simulation, times the number of stages: with many stages, steps are longer."""

NOTHING_LEFT = 0.02
"""Expected items."""


class LimitModel(NamedTuple):
    """A limit.

    Attributes:
        per_second: The cost that flows in; infinite without a rate.
        size: The most that the bucket holds.
        slots: The most tries at once.
    """

    per_second: float
    size: float
    slots: float


class StageModel(NamedTuple):
    """A stage, as it was measured.

    Attributes:
        name: Its name.
        workers: How many workers it has.
        batch: How many items they take together.
        times: How long tries take them.
        again: The part of its tries that are followed by another.
        delays: How long those wait.
        skipped: The part of its items that pass by.
        on: How many items enter the next stage for one that leaves this one.
        limits: The limits of its tries, as indexes, each with what a try costs.
        doubt: By what part its time, and then by what part its number of items, may be wrong.
    """

    name: str
    workers: int
    batch: float
    times: ServiceTimes
    again: float
    delays: Points
    skipped: float
    on: float
    limits: tuple[tuple[int, float], ...]
    doubt: tuple[float, float]


class RunModel(NamedTuple):
    """A run, as it was measured; all it takes to simulate it.

    Attributes:
        stages: Its stages.
        limits: The limits of all stages.
        source: Items that the source gives per second; infinite: it does not hold the run back.
        source_doubt: By what part that may be wrong.
    """

    stages: tuple[StageModel, ...]
    limits: tuple[LimitModel, ...]
    source: float
    source_doubt: float


class StageState(NamedTuple):
    """A stage at one moment.

    Attributes:
        waiting: Items in its queue.
        under_way: Seconds until tries end, and how many of them.
        due: Seconds until items are to be tried again, and how many of them.
    """

    waiting: float = 0.0
    under_way: Points = ()
    due: Points = ()


class RunState(NamedTuple):
    """A run at one moment.

    Attributes:
        coming: Items that are still to be taken in.
        stages: Its stages.
        levels: How much each limit holds.
        held: Seconds for which each limit lets nothing start.
    """

    coming: float
    stages: tuple[StageState, ...]
    levels: tuple[float, ...]
    held: tuple[float, ...]


class Course(NamedTuple):
    """How a simulated run goes.

    Attributes:
        ends: Seconds until it is over, with a probability of 5, 50 and 95 %.
        begun: Seconds until the last item has begun its last try, those that wait for a retry
            apart.
    """

    ends: tuple[float, float, float]
    begun: float


class _Flow:
    """A stage while it is simulated. All lists have an entry for each step from now on."""

    __slots__ = (
        "again",
        "done",
        "due",
        "longer",
        "model",
        "same_step",
        "spread",
        "spread_delays",
        "under_way",
        "waiting",
    )

    def __init__(self, model: StageModel, state: StageState, longer: float, steps: int) -> None:
        self.model = model
        self.longer = longer
        self.waiting = state.waiting
        self.under_way = sum(count for _, count in state.under_way)
        self.again = 0.0
        self.done = [0.0] * steps
        self.due = [0.0] * steps

    def begin(self, state: StageState, step: float) -> None:
        """Put what is under way where it will be."""
        self.refine(step)
        for points, target in ((state.under_way, self.done), (state.due, self.due)):
            for offset, share in _in_steps(points, step, len(target)):
                target[offset] += share
        self.again = sum(self.due)

    def refine(self, step: float) -> None:
        """Spread the times over steps of this length."""
        steps = len(self.done)
        model = self.model
        spread = _in_steps(model.times.points, step / self.longer, steps)
        self.same_step = sum(share for offset, share in spread if not offset)
        self.spread = [(offset, share) for offset, share in spread if offset]
        if 1 - self.same_step < 1e-9:
            self.same_step, self.spread = 1 - 1e-9, []
        delays = model.delays or ((0.0, 1.0),)
        self.spread_delays = _in_steps(delays, step, steps) if model.again else []

    def coarsen(self, now: int) -> None:
        """Two steps become one, and the first is now."""
        for each in (self.done, self.due):
            rest = each[now:]
            pairs = [sum(rest[index : index + 2]) for index in range(0, len(rest), 2)]
            each[:] = pairs + [0.0] * (len(each) - len(pairs))


def _in_steps(points: Points, step: float, steps: int) -> list[tuple[int, float]]:
    """Points in time as steps, between two of which they are shared."""
    shares: dict[int, float] = {}
    last = steps - 1
    for seconds, share in points:
        place = seconds / step
        offset = int(place)
        if offset >= last:
            shares[last] = shares.get(last, 0.0) + share
            continue
        part = (place - offset) * share
        shares[offset] = shares.get(offset, 0.0) + share - part
        shares[offset + 1] = shares.get(offset + 1, 0.0) + part
    return sorted(shares.items())


def simulate(model: RunModel, state: RunState, doubt: float = 0.0) -> Course:
    """How a run goes on.

    Args:
        model: The run.
        state: Where it is.
        doubt: By what part of its doubts each stage is slower (1) or faster (-1) than measured.
    """
    factors = [
        exp(doubt * (each.doubt[0] ** 2 + each.doubt[1] ** 2) ** 0.5) for each in model.stages
    ]
    costs = [exp(doubt * each.doubt[1]) for each in model.stages]
    source = model.source * exp(-doubt * model.source_doubt)
    steps = max(min(STEPS, MOST_STAGE_STEPS // len(model.stages) // 4), 12)
    size = 6 * steps
    longest, load = rough_end(model, state)
    step = max(longest / steps, 1e-6)
    if (whole := load.times.mean * factors[model.stages.index(load)]) > step:
        # If the tries of the slowest stage end between two steps, its numbers blur with each.
        step = whole / ceil(whole / step)
    flows = [
        _Flow(each, at, longer, size)
        for each, at, longer in zip(model.stages, state.stages, factors, strict=True)
    ]
    for flow, at in zip(flows, state.stages, strict=True):
        flow.begin(at, step)
    levels, coming = list(state.levels), state.coming
    now, time, begun = 0, 0.0, 0.0
    curve: list[tuple[float, float]] = [(0.0, _left(coming, flows))]
    for _ in range(4 * steps):
        if now == 2 * steps:
            for flow in flows:
                flow.coarsen(now)
                flow.refine(2 * step)
            now, step = 0, 2 * step
        levels = [
            level + limit.per_second * step if limit.per_second < inf else inf
            for level, limit in zip(levels, model.limits, strict=True)
        ]
        came = min(coming, source * step)
        coming -= came
        for number, flow in enumerate(flows):
            stage = flow.model
            due = flow.due[now]
            flow.again -= due
            came += flow.waiting + due
            passing = came * stage.skipped if stage.skipped else 0.0
            waiting = came - passing
            done = flow.done[now]
            flow.under_way -= done
            starts = (stage.workers * stage.batch - flow.under_way) / (1 - flow.same_step)
            for index, cost in stage.limits:
                starts = min(
                    starts,
                    _let_in(
                        model.limits[index].slots,
                        index,
                        levels[index] / (cost * costs[number]) if cost else inf,
                        flows,
                        flow,
                        state.held[index] - time,
                        step,
                    ),
                )
            starts = min(max(starts, 0.0), waiting)
            if starts > 0:
                for index, cost in stage.limits:
                    levels[index] -= starts * cost * costs[number]
                ended = starts * flow.same_step
                done += ended
                flow.under_way += starts - ended
                target = flow.done
                for offset, share in flow.spread:
                    target[min(now + offset, size - 1)] += starts * share
            flow.waiting = waiting - starts
            if done > 0 and stage.again:
                again = done * stage.again
                done -= again
                flow.again += again
                for offset, share in flow.spread_delays:
                    flow.due[min(now + max(offset, 1), size - 1)] += again * share
            came = (done + passing) * stage.on
        levels = [
            min(level, limit.size) for level, limit in zip(levels, model.limits, strict=True)
        ]
        now += 1
        time += step
        left = _left(coming, flows)
        curve.append((time, left))
        if coming + sum(flow.waiting for flow in flows) > 0.5:
            begun = time
        if left < NOTHING_LEFT:
            break
    return Course((_when(curve, 0.05), _when(curve, 0.5), _when(curve, 0.95)), begun)


def _let_in(
    slots: float,
    index: int,
    by_rate: float,
    flows: Sequence[_Flow],
    flow: _Flow,
    held: float,
    step: float,
) -> float:
    """How many tries a limit lets in during a step."""
    if held > 0:
        by_rate = min(by_rate, 1e12) * max(1 - held / step, 0.0)
    if slots == inf:
        return by_rate
    users = [each for each in flows if any(index == number for number, _ in each.model.limits)]
    room = slots - sum(each.under_way for each in users)
    return min(by_rate, room * flow.model.batch / (1 - flow.same_step))


def _left(coming: float, flows: Sequence[_Flow]) -> float:
    return coming + sum(flow.waiting + flow.under_way + flow.again for flow in flows)


def _when(curve: Sequence[tuple[float, float]], probability: float) -> float:
    """When a run is over, with this probability."""
    mark = -log(probability)
    before, more = curve[0]
    for time, left in curve:
        if left <= mark:
            if more <= left or time == before:
                return time
            # Few items go one by one, many evenly.
            low, high = max(left, 1e-6), max(more, 1e-6)
            part = log(high / mark) / log(high / low) if more < 10 else (more - mark) / (more - left)
            return before + (time - before) * min(max(part, 0.0), 1.0)
        before, more = time, left
    return curve[-1][0]


def rough_end(model: RunModel, state: RunState) -> tuple[float, StageModel]:
    """About how long it takes: as long as its slowest part alone; and its slowest stage."""
    items = state.coming
    longest = items / model.source if model.source else 0.0
    latency = most = 0.0
    slowest = model.stages[0]
    for stage, at in zip(model.stages, state.stages, strict=True):
        under_way = sum(count for _, count in at.under_way)
        waiting = at.waiting + sum(count for _, count in at.due)
        tries = (items + waiting) * (1 - stage.skipped) / max(1 - stage.again, 0.05)
        at_once = max(stage.workers * stage.batch, 1)
        for index, cost in stage.limits:
            limit = model.limits[index]
            at_once = min(at_once, limit.slots * stage.batch)
            lacking = tries * cost - state.levels[index]
            if limit.per_second < inf and lacking > 0:
                longest = max(longest, lacking / limit.per_second + state.held[index])
        alone = (tries + under_way / 2) * stage.times.mean / at_once
        if alone > most:
            most, slowest = alone, stage
        longest = max(longest, alone)
        if tries or under_way:
            latency += stage.times.mean
        rest = sum(seconds * count for seconds, count in at.under_way) / (under_way or 1)
        latest = max((seconds for seconds, _ in at.due), default=0.0)
        longest = max(longest, rest, latest)
        items = (items + waiting + under_way) * stage.on
    return longest + latency, slowest
