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

from collections.abc import Iterable, Sequence
from math import ceil, exp, hypot, inf, log
from typing import NamedTuple

from antflow._monitor.service_times import Points, ServiceTimes, left_of_outlier

STEPS = 64
FEWEST_STEPS = 12
MOST_STAGE_STEPS = 400
"""Steps of one simulation, times the number of stages: with many stages, or many tries of their
items, steps are longer."""

FEW = 10.0

LEFT_UNKNOWN = 0.22
"""The part of its age that is left of a try of which nothing else is known; at most all of it."""

MOST_TRIES = 8
"""More tries of an item are not told apart."""

LONGER = 6
"""Of how many times as many steps a simulation may have that takes longer than was thought. Each
time that two become one, it gets twice as far."""

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
        again: The part of its tries that fail and may be followed by another.
        most_tries: How many tries an item has.
        delays: How long those wait, after the first try, the second and so on.
        most_retrying: How many may wait for that before nothing new is begun.
        capacity: How many items may wait for a worker.
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
    most_tries: int
    delays: tuple[Points, ...]
    most_retrying: float
    capacity: float
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
        outliers: For how long tries have gone on that take far longer than any before, and how many
            of them.
        unknown: For how long tries have gone on that take as long as any before, where they are
            many: the same.
        due: Seconds until items are to be tried again, how many of them, and how often they were.
    """

    waiting: float = 0.0
    under_way: Points = ()
    outliers: Points = ()
    unknown: Points = ()
    due: tuple[tuple[float, float, int], ...] = ()


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
        begun: Seconds until no item waits for its first try any more.
        steps: How many steps the simulation took.
    """

    ends: tuple[float, float, float]
    begun: float
    steps: int


class _Flow:
    """A stage while it is simulated.

    Tries are told apart by how many came before them (`_Flow.tries`), because the last one of them
    is not followed by another. Lists of steps have an entry for each step from now on.
    """

    def __init__(self, model: StageModel, state: StageState, doubt: float, steps: int) -> None:
        self.model = model
        self._longer = slower(model, doubt)
        self._more_tries = exp(doubt * model.doubt[1])
        last = model.most_tries if model.again else 1
        self.tries = range(min(last, MOST_TRIES))
        self._again = [model.again for _ in self.tries]
        if last <= MOST_TRIES:
            self._again[-1] = 0.0
        self.waiting = [0.0 for _ in self.tries]
        self.waiting[0] = state.waiting * (1 - model.skipped)
        self._passing = state.waiting * model.skipped
        self.under_way = 0.0
        self.retrying = 0.0
        self._done = [[0.0] * steps for _ in self.tries]
        self._due = [[0.0] * steps for _ in self.tries]

    def begin(self, state: StageState, step: float, doubt: float) -> None:
        """Put what is under way where it will be."""
        self.refine(step)
        under_way = list(state.under_way)
        for age, count in state.outliers:
            left = left_of_outlier(age, doubt)
            under_way += [(seconds, share * count) for seconds, share in left]
        for age, count in state.unknown:
            under_way.append((age * LEFT_UNKNOWN ** (1 - doubt), count))
        for offset, count in in_steps(under_way, step, len(self._done[0])):
            self._done[0][offset] += count
            self.under_way += count
        for seconds, count, tries in state.due:
            target = self._due[min(tries, self.tries[-1])]
            for offset, share in in_steps(((seconds, count),), step, len(target)):
                target[offset] += share
            self.retrying += count

    def refine(self, step: float) -> None:
        """Spread the times over steps of this length."""
        steps = len(self._done[0])
        spread = in_steps(self.model.times.points, step / self._longer, steps)
        self.same_step = min(sum(share for offset, share in spread if not offset), 1 - 1e-9)
        self._spread = [(offset, share) for offset, share in spread if offset]
        self._delays = [in_steps(points, step, steps) for points in self.model.delays]

    def coarsen(self, now: int) -> None:
        """Two steps become one, and the first is now."""
        for each in self._done + self._due:
            rest = each[now:]
            pairs = [sum(rest[index : index + 2]) for index in range(0, len(rest), 2)]
            each[:] = pairs + [0.0] * (len(each) - len(pairs))

    def take_in(self, now: int, came: float) -> float:
        """Take in what comes in a step; return what passes by."""
        passing = came * self.model.skipped
        self.waiting[0] += came - passing
        passing, self._passing = passing + self._passing, 0.0
        if self.retrying > 0:
            for tries in self.tries:
                due = self._due[tries][now]
                self.waiting[tries] += due
                self.retrying -= due
        self.under_way -= sum([done[now] for done in self._done])
        return passing

    def room_at(self, now: int) -> float:
        """How many tries its workers could begin in a step."""
        under_way = self.under_way - sum([done[now] for done in self._done])
        room = self.model.workers * self.model.batch - under_way
        return max(room / (1 - self.same_step), 0.0)

    def go_on(self, now: int, most: float, room: float) -> tuple[float, float]:
        """Begin and end what a step allows.

        Args:
            now: The step.
            most: How many tries may begin.
            room: How many of them may be first tries.

        Returns:
            How many began, and how many items left the stage.
        """
        began = left = 0.0
        last = len(self._done[0]) - 1
        for tries in reversed(self.tries):  # those that waited for another try come first
            starts = min(self.waiting[tries], most)
            if not tries:
                starts = min(starts, room)
            if self._again[0]:  # a full heap holds up those that are due, too
                starts = min(starts, self._room_for_retries())
            done = self._done[tries][now]
            if starts > 0:
                most -= starts
                began += starts
                self.waiting[tries] -= starts
                ended = starts * self.same_step
                done += ended
                self.under_way += starts - ended
                target = self._done[tries]
                for offset, share in self._spread:
                    target[min(now + offset, last)] += starts * share
            if done <= 0:
                continue
            again = done * self._again[tries]
            left += done - again
            if again > 0:
                self.retrying += again
                due = self._due[min(tries + 1, self.tries[-1])]
                for offset, share in self._delays[min(tries, len(self._delays) - 1)]:
                    due[min(now + max(offset, 1), last)] += again * share
        return began, left

    def _room_for_retries(self) -> float:
        """How many first tries may begin before too many items wait for another."""
        room = max(self.model.most_retrying - self.retrying, 0.0)
        return room / (self._again[0] * self._more_tries)

    @property
    def left(self) -> float:
        """Expected items in the stage."""
        return sum(self.waiting) + self.under_way + self.retrying


def in_steps(
    points: Iterable[tuple[float, float]], step: float, steps: int
) -> list[tuple[int, float]]:
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
    source = model.source * exp(-doubt * model.source_doubt)
    weight = sum(
        2 + min(stage.most_tries, MOST_TRIES) * (stage.again > 0) for stage in model.stages
    )
    steps = max(min(STEPS, MOST_STAGE_STEPS // (2 * weight)), FEWEST_STEPS)
    step = _length_of_step(model, state, doubt, steps)
    flows = [
        _Flow(each, at, doubt, 6 * steps)
        for each, at in zip(model.stages, state.stages, strict=True)
    ]
    for flow, at in zip(flows, state.stages, strict=True):
        flow.begin(at, step, doubt)
    gates = [
        _Gate(limit, level, held)
        for limit, level, held in zip(model.limits, state.levels, state.held, strict=True)
    ]
    for flow in flows:
        for index, cost in flow.model.limits:
            gates[index].users.append((flow, cost * exp(doubt * flow.model.doubt[1])))
    coming, now, time, begun = state.coming, 0, 0.0, 0.0
    curve = [(0.0, coming + sum([flow.left for flow in flows]))]
    for _ in range(LONGER * steps):
        if now == 2 * steps:
            step, now = 2 * step, 0
            for flow in flows:
                flow.coarsen(2 * steps)
                flow.refine(step)
        for gate in gates:
            gate.open(step)
        came = min(coming, source * step)
        coming -= came
        rooms = _rooms(flows, gates, now)
        for flow, queue in zip(flows, rooms, strict=True):
            passing = flow.take_in(now, came)
            room = flow.model.workers * flow.model.batch - flow.under_way
            for index, _ in flow.model.limits:
                room = min(room, gates[index].room)
            most = room / (1 - flow.same_step)
            for index, _ in flow.model.limits:
                most = min(most, gates[index].most(flow))
            began, left = flow.go_on(now, max(most, 0.0), queue)
            for index, _ in flow.model.limits:
                gates[index].charge(flow, began)
            came = (left + passing) * flow.model.on
        for gate in gates:
            gate.close(step)
        now += 1
        time += step
        left = coming + sum([flow.left for flow in flows])
        curve.append((time, left))
        if coming + sum([flow.waiting[0] for flow in flows]) > 0.5:
            begun = time
        if left < NOTHING_LEFT:
            break
    ends = (_when(curve, 0.05), _when(curve, 0.5), _when(curve, 0.95))
    return Course(ends, begun, len(curve) - 1)


def _rooms(flows: Sequence[_Flow], gates: Sequence[_Gate], now: int) -> list[float]:
    """How many first tries each stage may begin in a step: for how many the next one has room.

    What the next one could begin in the step makes room, too: a step may be long.
    """
    rooms: list[float] = []
    room = inf
    for flow in reversed(flows):
        rooms.append(room)
        stage = flow.model
        begins = min(flow.room_at(now), room)
        for index, _ in stage.limits:
            begins = min(begins, gates[index].most(flow))
        room = inf
        if stage.capacity < inf and stage.skipped < 1:  # items that pass by need no room
            room = max(stage.capacity - sum(flow.waiting) + begins, 0.0) / (1 - stage.skipped)
        if len(rooms) < len(flows):
            room /= max(flows[-len(rooms) - 1].model.on, 1e-3)
    return rooms[::-1]


class _Gate:
    """A limit while it is simulated.

    Attributes:
        users: The stages under it, each with what an item costs there.
    """

    def __init__(self, limit: LimitModel, level: float, held: float) -> None:
        self._limit = limit
        self._level = level
        self._held = held
        self._part_open = 1.0
        self.users: list[tuple[_Flow, float]] = []

    def open(self, step: float) -> None:
        """A step begins."""
        if self._limit.per_second < inf:
            self._level += self._limit.per_second * step
        if self._held > 0:
            self._part_open = max(1 - self._held / step, 0.0)
            self._held -= step
        else:
            self._part_open = 1.0

    def close(self, step: float) -> None:
        """A step ends."""
        self._level = min(self._level, self._limit.size)

    @property
    def room(self) -> float:
        """How many more items may be under way."""
        if self._limit.slots == inf:
            return inf
        batch = max(flow.model.batch for flow, _ in self.users)
        return self._limit.slots * batch - sum(flow.under_way for flow, _ in self.users)

    def most(self, user: _Flow) -> float:
        """How many tries of a stage it lets in during the step."""
        if not self._part_open:
            return 0.0
        cost = next(cost for flow, cost in self.users if flow is user)
        by_rate = self._level / cost if cost and self._level < inf else inf
        if self._part_open == 1.0:
            return by_rate
        at_once = user.model.workers * user.model.batch / (1 - user.same_step)
        return min(by_rate, at_once * self._part_open)

    def charge(self, user: _Flow, count: float) -> None:
        """This many tries of a stage began."""
        cost = next(cost for flow, cost in self.users if flow is user)
        self._level -= count * cost


def slower(stage: StageModel, doubt: float) -> float:
    """How many times longer the tries of a stage take, by a part of what is in doubt."""
    return exp(doubt * hypot(*stage.doubt))


def _of_full_heap(stage: StageModel, items: float, tries: float) -> float:
    """Seconds that items wait for their next try, if only this many may do so at once."""
    if not stage.again:
        return 0.0
    delays = stage.delays[0]
    delay = sum(seconds * share for seconds, share in delays)
    return max(tries - items, 0.0) * delay / max(stage.most_retrying, 1.0)


def _length_of_step(model: RunModel, state: RunState, doubt: float, steps: int) -> float:
    longest, slowest = rough_end(model, state)
    step = max(longest / steps, 1e-6)
    stage = model.stages[slowest]
    whole = stage.times.mean * slower(stage, doubt)
    # If the tries of the slowest stage ended between two steps, each would blur them a little.
    return whole / ceil(whole / step) if whole > step else step


def _when(curve: Sequence[tuple[float, float]], probability: float) -> float:
    """When a run is over, with this probability."""
    mark = -log(probability)
    before, more = curve[0]
    for time, left in curve:
        if left <= mark:
            if more <= left or time == before:
                return time
            part = (more - mark) / (more - left)
            if more < FEW:  # few go one by one, many evenly
                part = log(more / mark) / log(more / max(left, 1e-6))
            return before + (time - before) * min(max(part, 0.0), 1.0)
        before, more = time, left
    return curve[-1][0]


def rough_end(model: RunModel, state: RunState) -> tuple[float, int]:
    """About how long it takes: as long as its slowest part alone; and its slowest stage's index."""
    items = state.coming
    longest = items / model.source if model.source else 0.0
    latency = most = 0.0
    slowest = 0
    for number, (stage, at) in enumerate(zip(model.stages, state.stages, strict=True)):
        under_way = sum(count for _, count in (*at.under_way, *at.unknown))
        waiting = at.waiting + sum(count for _, count, _ in at.due)
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
            most, slowest = alone, number
        longest = max(longest, alone, _of_full_heap(stage, items + waiting, tries))
        if tries or under_way:
            latency += stage.times.mean
        rest = sum(seconds * count for seconds, count in at.under_way) / (under_way or 1)
        rest += max((age for age, _ in (*at.outliers, *at.unknown)), default=0.0)
        latest = max((seconds for seconds, _, _ in at.due), default=0.0)
        longest = max(longest, rest, latest)
        items = (items + waiting + under_way) * stage.on
    return longest + latency, slowest
