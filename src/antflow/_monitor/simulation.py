"""How a run goes on from here: a simulation of flows through its stages.

It does not follow items but expected numbers of them, in steps of time. In each step a stage takes
from its queue as many as its workers and limits let in, and what it takes is spread over the steps
in which it will be done, by the measured times. So it costs the same for a hundred items and a
million, it is the same each time, and it knows of the last items: when ``m`` of the ``n`` that had
begun last are left, by expectation, all have ended with a probability of ``(1 - m / n) ** n``.

Steps are as long as a part of the whole takes. A try shorter than a step ends in the step in which
it began, and its worker takes another one: of the starts ``x`` in a step the part ``p`` ends in it,
so that with ``room`` for that many at its end, ``x = room / (1 - p)``. If a run is not over after
`STEPS`, two steps become one, and it goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, exp, hypot, inf, log, pow
from operator import add, mul, sub
from typing import Literal, NamedTuple

from antflow._monitor.service_times import Points, ServiceTimes, left_of_outlier

STEPS = 64
FEWEST_STEPS = 12
MOST_STAGE_STEPS = 600
"""Steps of one simulation, times the number of stages: with many stages, or many tries of their
items, steps are longer."""

FEW = 10.0

MOST_TRIES = 24
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
        doubt: By what part the time of a try, the tries of an item, and then its number of items
            may be wrong.
    """

    name: str
    workers: int
    batch: float
    times: ServiceTimes
    again: float
    most_tries: float
    delays: tuple[Points, ...]
    most_retrying: float
    capacity: float
    skipped: float
    on: float
    limits: tuple[tuple[int, float], ...]
    doubt: tuple[float, float, float]


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
        due: Seconds until items are to be tried again, how many of them, and how often they were.
    """

    waiting: float = 0.0
    under_way: Points = ()
    outliers: Points = ()
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

    Tries are told apart by how many came before them, because the last one of an item is not
    followed by another: lists of tries have an entry for each number. Lists of steps have an entry
    for each step from now on; ``None``: nothing.
    """

    def __init__(self, model: StageModel, state: StageState, doubt: float, steps: int) -> None:
        self.model = model
        self._longer = slower(model, doubt)
        self._points = model.times.in_doubt(doubt)
        again = tried_again(model, doubt)
        last = model.most_tries if again else 1
        tries = int(min(last, MOST_TRIES))
        self._again = [again] * tries
        self._again[-1] *= 1 - 1 / (last - tries + 1)
        self._most_retrying = model.most_retrying + again * model.workers / 2
        self.waiting = [0.0] * tries
        self.waiting[0] = state.waiting * (1 - model.skipped)
        self._passing = state.waiting * model.skipped
        self.under_way = 0.0
        self.retrying = 0.0
        self._done: list[list[float] | None] = [None] * steps
        self._due: list[list[float] | None] = [None] * steps

    def begin(self, state: StageState, step: float, doubt: float) -> None:
        """Put what is under way where it will be."""
        self.refine(step)
        under_way = list(state.under_way)
        for age, count in state.outliers:
            left = left_of_outlier(age, doubt)
            under_way += [(seconds, share * count) for seconds, share in left]
        rest = [0.0] * (len(self.waiting) - 1)
        for offset, count in in_steps(under_way, step, len(self._done)):
            self._put(self._done, offset, [count, *rest])
            self.under_way += count
        for seconds, count, tries in state.due:
            due = [0.0] * len(self.waiting)
            due[min(tries, len(rest))] = count
            for offset, share in in_steps(((seconds, 1.0),), step, len(self._due)):
                self._put(self._due, offset, [share * each for each in due])
            self.retrying += count

    def refine(self, step: float) -> None:
        """Spread the times over steps of this length."""
        steps = len(self._done)
        spread = in_steps(self._points, step / self._longer, steps)
        self.same_step = min(sum(share for offset, share in spread if not offset), 1 - 1e-9)
        self._spread = [(offset, share) for offset, share in spread if offset]
        self._delays = [
            (begin, end, in_steps(points, step, steps))
            for begin, end, points in _alike(self.model.delays, len(self.waiting))
        ]

    def coarsen(self, now: int) -> None:
        """Two steps become one, and the first is now."""
        for each in (self._done, self._due):
            rest = each[now:]
            each[:] = [None] * len(each)
            for index, counts in enumerate(rest):
                if counts is not None:
                    self._put(each, index // 2, counts)

    def take_in(self, now: int, came: float) -> float:
        """Take in what comes in a step; return what passes by."""
        passing = came * self.model.skipped
        self.waiting[0] += came - passing
        passing, self._passing = passing + self._passing, 0.0
        if (due := self._due[now]) is not None:
            self.waiting = list(map(add, self.waiting, due))
            self.retrying -= sum(due)
        if (done := self._done[now]) is not None:
            self.under_way -= sum(done)
        return passing

    def room_at(self, now: int) -> float:
        """How many tries its workers could begin in a step."""
        under_way = self.under_way - sum(self._done[now] or ())
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
        waiting = self.waiting
        began = 0.0
        done = self._done[now]
        if len(waiting) > 1:  # a full heap holds up those that are due, too
            most = min(most, self._room_for_retries())
        starts = [0.0] * len(waiting)
        if retried := sum(waiting) - waiting[0]:  # they come first
            began = min(retried, most)
            starts = [each * began / retried for each in waiting]
        starts[0] = min(waiting[0], most - began, room)
        began += starts[0]
        if began > 0:
            self.waiting = list(map(sub, waiting, starts))
            ended = [each * self.same_step for each in starts]
            done = ended if done is None else list(map(add, done, ended))
            self.under_way += began * (1 - self.same_step)
            self._spread_out(now, starts)
        if done is None:
            return began, 0.0
        again = list(map(mul, done, self._again))
        number = sum(again)
        if number > 0:
            self.retrying += number
            self._wait(now, again)
        return began, sum(done) - number

    def _spread_out(self, now: int, starts: Sequence[float]) -> None:
        """Let tries that begin now end in later steps."""
        if len(starts) > 1:
            for offset, share in self._spread:
                self._put(self._done, now + offset, [each * share for each in starts])
            return
        first, steps = starts[0], self._done  # most of the time of a simulation goes by here
        last = len(steps) - 1
        for offset, share in self._spread:
            step = min(now + offset, last)
            if (ends := steps[step]) is None:
                steps[step] = [first * share]
            else:
                ends[0] += first * share

    def _wait(self, now: int, failed: Sequence[float]) -> None:
        """Let tries that failed, by number, wait for the next ones."""
        following = [0.0, *failed[:-1]]
        following[-1] += failed[-1]  # unless it was the last one: tries that are not told apart
        for begin, end, delays in self._delays:
            waits = following
            if len(self._delays) > 1:
                waits = [0.0] * len(following)
                waits[begin:end] = following[begin:end]
            for offset, share in delays:
                self._put(self._due, now + max(offset, 1), [each * share for each in waits])

    @staticmethod
    def _put(steps: list[list[float] | None], step: int, counts: list[float]) -> None:
        """Add what is in a step to it; what comes after the last step is in that one."""
        step = min(step, len(steps) - 1)
        before = steps[step]
        steps[step] = counts if before is None else list(map(add, before, counts))

    def _room_for_retries(self) -> float:
        """How many tries may begin before too many items wait for another."""
        return max(self._most_retrying - self.retrying, 0.0) / self._again[0]

    @property
    def left(self) -> float:
        """Expected items in the stage."""
        return sum(self.waiting) + self.under_way + self.retrying


def _alike(delays: Sequence[Points], tries: int) -> list[tuple[int, int, Points]]:
    """Which tries have the same delay before them: from which number on, and up to which."""
    spans: list[tuple[int, int, Points]] = []
    for number, points in enumerate(delays[: max(tries - 1, 1)], 1):
        begin = number
        if spans and spans[-1][2] is points:
            begin = spans.pop()[0]
        spans.append((begin, number + 1, points))
    begin, _, points = spans.pop()
    return [*spans, (begin, tries, points)]


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
    weight = sum(2 + 2 * (stage.again > 0) for stage in model.stages)
    steps = max(min(STEPS, MOST_STAGE_STEPS // (2 * weight)), FEWEST_STEPS)
    rough = rough_end(model, state)
    step = _length_of_step(model, rough, doubt, steps)
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
            gates[index].users.append((flow, cost * exp(doubt * flow.model.doubt[2])))
    coming, now, time, begun = state.coming, 0, 0.0, 0.0
    last = coming + sum([flow.left for flow in flows])
    curve = [(0.0, last)]
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
        left = coming + sum([flow.left for flow in flows])
        # What a step counts happens at its start, but what comes at a rate comes all the time.
        lag = step if rough.by == "flow" else 0.0
        curve.append((time + lag, left))
        time += step
        if coming + sum([flow.waiting[0] for flow in flows]) > 0.5:
            begun, last = time, left
        if left < NOTHING_LEFT:
            break
    ends = (_when(curve, 0.05, last), _when(curve, 0.5, last), _when(curve, 0.95, last))
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
    time, tries, items = stage.doubt
    known = hypot(time, items)
    return exp(doubt * known * _part(known, tries))


def tried_again(stage: StageModel, doubt: float) -> float:
    """The part of its tries that fail and may be followed by another, in the same way."""
    time, tries, items = stage.doubt
    if not stage.again or not tries:
        return stage.again
    fewer = exp(-doubt * tries * _part(tries, hypot(time, items)))
    return min(max(1 - (1 - stage.again) * fewer, 1e-9), 0.999)


def _part(doubt: float, other: float) -> float:
    """The part of a doubt that counts beside another, so that both make up their hypotenuse."""
    return doubt / hypot(doubt, other) if doubt else 0.0


def _of_full_heap(stage: StageModel, items: float, tries: float) -> float:
    """Seconds that items wait for their next try, if only this many may do so at once."""
    if not stage.again:
        return 0.0
    delays = stage.delays[0]
    delay = sum(seconds * share for seconds, share in delays)
    return max(tries - items, 0.0) * delay / max(stage.most_retrying, 1.0)


def _of_last_retries(stage: StageModel, items: float) -> float:
    """Seconds for which the item waits that has the most tries of those that come last."""
    if not stage.again or not items:
        return 0.0
    last = min(items, stage.most_retrying + stage.workers)
    tries = min(log(last + 1) / -log(stage.again), stage.most_tries)
    return tries * max(sum(seconds * share for seconds, share in each) for each in stage.delays)


def _length_of_step(model: RunModel, rough: Rough, doubt: float, steps: int) -> float:
    step = max(rough.seconds / steps, 1e-6)
    stage = model.stages[rough.slowest]
    whole = stage.times.mean * slower(stage, doubt)
    # If the tries of the slowest stage ended between two steps, each would blur them a little.
    return whole / ceil(whole / step) if whole > step else step


def _when(curve: Sequence[tuple[float, float]], probability: float, last: float) -> float:
    """When a run is over, with this probability.

    Args:
        curve: Seconds, and how many items are left.
        probability: From 0 to 1.
        last: How many items were left when all had begun. If each of them is left with a
            probability of ``p``, all have ended with one of ``(1 - p) ** last``.
    """
    last = max(last, 1.0)
    mark = last * (1 - pow(probability, 1 / last))
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


class Rough(NamedTuple):
    """About how long it takes: as long as its slowest part alone.

    Attributes:
        seconds: How long.
        slowest: The index of the slowest stage.
        by: What takes this long: the workers of that stage; what comes at a rate, by the source, a
            limit or a full heap; or what waits.
    """

    seconds: float
    slowest: int
    by: Literal["workers", "flow", "waits"]


def rough_end(model: RunModel, state: RunState) -> Rough:
    """About how long it takes."""
    items = state.coming
    flow = items / model.source if model.source else 0.0
    work = waits = latency = 0.0
    slowest = 0
    for number, (stage, at) in enumerate(zip(model.stages, state.stages, strict=True)):
        under_way = sum(count for _, count in at.under_way)
        waiting = at.waiting + sum(count for _, count, _ in at.due)
        tries = (items + waiting) * (1 - stage.skipped) / max(1 - stage.again, 0.05)
        at_once = max(stage.workers * stage.batch, 1)
        for index, cost in stage.limits:
            limit = model.limits[index]
            at_once = min(at_once, limit.slots * stage.batch)
            lacking = tries * cost - state.levels[index]
            if limit.per_second < inf and lacking > 0:
                flow = max(flow, lacking / limit.per_second + state.held[index])
        alone = (tries + under_way / 2) * stage.times.mean / at_once
        if alone > work:
            work, slowest = alone, number
        if tries or under_way:
            latency += stage.times.mean + _of_last_retries(stage, items + waiting + under_way)
        rest = sum(seconds * count for seconds, count in at.under_way) / (under_way or 1)
        rest += max((age for age, _ in at.outliers), default=0.0)
        latest = max((seconds for seconds, _, _ in at.due), default=0.0)
        waits = max(waits, rest, latest)
        flow = max(flow, _of_full_heap(stage, items + waiting, tries))
        items = (items + waiting + under_way) * stage.on
    longest = max(work, flow, waits)
    by: Literal["workers", "flow", "waits"] = "waits"
    if longest == work:
        by = "workers"
    elif longest == flow:
        by = "flow"
    return Rough(longest + latency, slowest, by)
