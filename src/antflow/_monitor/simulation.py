"""How a run goes on from here: a simulation of flows through its stages.

It does not follow items but expected numbers of them, in steps of time. In each step a stage takes
from its queue as many as its workers and limits let in, and what it takes is spread over the steps
in which it will be done, by the measured times. So it costs the same for a hundred items and a
million, it is the same each time, and it knows of the last items: when ``m`` of the ``n`` that had
begun last are left, by expectation, all have ended with a probability of ``(1 - m / n) ** n``.

Steps are as long as a part of the whole takes. A try shorter than a step ends in the step in which
it began, and its worker takes another one: of the starts ``x`` in a step the part ``p`` ends in it,
so that with ``room`` for that many at its end, ``x = room / (1 - p)``. In the same way, a retry
after a delay shorter than a step begins in the step in which the try failed. If a run is not over
after twice as many steps as were thought, two steps become one, and it goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil, exp, hypot, inf, log, pow
from operator import add, mul, sub
from typing import Literal, NamedTuple

from antflow._monitor.service_times import Points, ServiceTimes, left_of_outlier

STEPS = 64
FEWEST_STEPS = 24
MOST_STAGE_STEPS = 1200
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

    Lists of steps have an entry for each step from now on.
    """

    def __init__(self, model: StageModel, state: StageState, doubt: float, steps: int) -> None:
        self.model = model
        self.gates: list[tuple[_Gate, float]] = []
        self.places = model.workers * model.batch
        self._longer = slower(model, doubt)
        self._points = model.times.in_doubt(doubt)
        self._steps = steps
        again = tried_again(model, doubt)
        last = model.most_tries if again else 1
        self._retries = _Retries(model, again, last, steps) if last > 1 else None
        self.waiting = state.waiting * (1 - model.skipped)
        self._passing = state.waiting * model.skipped
        self.under_way = 0.0
        self.done = [0.0] * 2 * steps  # no end is further away than `steps`

    def begin(self, state: StageState, step: float, doubt: float) -> None:
        """Put what is under way where it will be."""
        self.refine(step)
        under_way = list(state.under_way)
        for age, count in state.outliers:
            left = left_of_outlier(age, doubt)
            under_way += [(seconds, share * count) for seconds, share in left]
        for offset, count in in_steps(under_way, step, self._steps):
            self.done[offset] += count
            self.under_way += count
        if self._retries is not None:
            self._retries.put(state, step, self.under_way)

    def refine(self, step: float) -> None:
        """Spread the times over steps of this length."""
        spread = in_steps(self._points, step / self._longer, self._steps)
        same_step = sum(share for offset, share in spread if not offset)
        self.later = max(1 - same_step, 1e-9)
        self._spread = [(offset, share) for offset, share in spread if offset]
        if self._retries is not None:
            self._retries.refine(step, self.later)

    def coarsen(self, now: int) -> None:
        """Two steps become one, and the first is now."""
        rest = [*self.done[now:], 0.0]
        halved = list(map(add, rest[:-1:2], rest[1::2]))
        self.done = halved + [0.0] * (len(self.done) - len(halved))
        if self._retries is not None:
            self._retries.coarsen(now)

    def take_in(self, now: int, came: float) -> float:
        """Take in what comes in a step; return what passes by."""
        passing = came * self.model.skipped
        self.waiting += came - passing
        passing, self._passing = passing + self._passing, 0.0
        if self._retries is not None:
            self._retries.take_in(now, self.done[now])
        self.under_way -= self.done[now]
        return passing

    def most_at(self, under_way: float) -> float:
        """How many tries its workers and limits let begin in a step with this many under way."""
        room = self.places - under_way
        for gate, _ in self.gates:
            room = min(room, gate.room)
        most = room / self.later
        for gate, cost in self.gates:
            most = min(most, gate.most(self, cost))
        return max(most, 0.0)

    def go_on(self, now: int, room: float) -> tuple[float, float]:
        """Begin and end what a step allows.

        Args:
            now: The step.
            room: How many first tries may begin for want of room in the next stage.

        Returns:
            How many tries began, and how many of their items have left the stage.
        """
        most = self.most_at(self.under_way)
        retries, began = self._retries, 0.0
        if retries is None:
            first = began = min(self.waiting, most, room)
        else:  # they come first, and a full heap holds them up, too
            most = min(most, retries.room)
            began = retries.begin(most)
            first = min(self.waiting, (most - began) / retries.by_first, room)
            began += first * retries.by_first
        ended = self.done[now]
        if began:
            self.waiting -= first
            self.under_way += began * self.later
            ended += began * (1 - self.later)
            done = self.done
            for offset, share in self._spread:
                done[now + offset] += began * share
        if retries is not None:
            ended -= retries.go_on(now, first)
        return began, ended

    @property
    def in_queue(self) -> float:
        """Expected items that wait for a worker."""
        return self.waiting + (0.0 if self._retries is None else self._retries.waiting)

    @property
    def left(self) -> float:
        """Expected items in the stage."""
        left = self.waiting + self.under_way
        if self._retries is not None:
            left += self._retries.waiting + self._retries.count
        return left


class _Retries:
    """The retries of a stage while it is simulated.

    Tries are told apart by how many came before them, because the last one of an item is not
    followed by another: a list of tries has an entry for each number.

    With short delays an item has several tries in a step. Of those of a number that begin in it, a
    part is followed by one of the next number in the same step.

    Attributes:
        waiting: How many items wait for a worker.
        count: How many wait for their time.
        by_first: How many tries begin in a step for one first try that does.
    """

    def __init__(self, model: StageModel, again: float, last: float, steps: int) -> None:
        tries = int(min(last, MOST_TRIES))
        self._model = model
        self._steps = steps
        self._again = [again] * tries
        self._again[-1] *= 1 - 1 / (last - tries + 1)
        self._most = model.most_retrying + again * model.workers / 2
        self._nothing = [0.0] * tries
        self._waiting: list[float] = self._nothing
        self._starts: list[float] = self._nothing
        self._ended: list[float] = self._nothing
        self._under_way: list[float] = self._nothing
        self.waiting = 0.0
        self.count = 0.0
        self._due: defaultdict[int, list[tuple[float, list[float], float]]] = defaultdict(list)

    def put(self, state: StageState, step: float, under_way: float) -> None:
        """Put those that wait where they will be."""
        self._under_way = [under_way, *self._nothing[1:]]
        last = len(self._nothing) - 1
        by_tries: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
        for seconds, count, tries in state.due:
            by_tries[min(tries, last)].append((seconds, count))
            self.count += count
        for tries, points in by_tries.items():
            due = self._nothing.copy()
            due[tries] = 1.0
            for offset, count in in_steps(points, step, self._steps):
                self._due[offset].append((count, due, count))

    def refine(self, step: float, later: float) -> None:
        """Spread the delays over steps of this length, at the end of which this part goes on."""
        self._later = later
        self._soon: list[float] = []
        self._delays: list[tuple[int, int, list[tuple[int, float]]]] = []
        for begin, end, points in _alike(self._model.delays, len(self._nothing)):
            delays = in_steps(points, step, self._steps)
            rest = [(offset, share) for offset, share in delays if offset and share]
            far = sum([share for _, share in rest])
            soon = max(1 - far, 0.0) if len(rest) < len(delays) else 0.0
            rest = [(offset, share / far) for offset, share in rest]
            self._delays.append((begin, end, rest))
            self._soon += [soon] * (end - begin)
        self._soon.append(self._soon[-1])
        self._soon = list(map(mul, self._soon, self._again))
        self._far: list[float] = list(map(sub, self._again, self._soon))
        self._is_short = max(self._soon) > 0
        self._first_starts = self._followed([1.0, *self._nothing[1:]])
        self.by_first = sum(self._first_starts)

    def coarsen(self, now: int) -> None:
        """Two steps become one, and the first is now."""
        finer, self._due = self._due, defaultdict(list)
        for step, due in finer.items():
            self._due[(step - now) // 2] += due

    def take_in(self, now: int, done: float) -> None:
        """Take in those whose time has come, and end tries that began in earlier steps.

        Args:
            now: The step.
            done: How many end. They are a fair sample of those under way.
        """
        waiting, under_way = self._waiting, self._under_way
        for share, due, count in self._due.pop(now, ()):
            waiting = [before + share * each for before, each in zip(waiting, due, strict=True)]
            self.count -= count
        self._ended = self._nothing
        if done and (whole := sum(under_way)):
            part = min(done / whole, 1.0)
            self._ended = [each * part for each in under_way]
            self._under_way = list(map(sub, under_way, self._ended))
            if self._is_short:
                waiting = list(map(add, waiting, self._following(self._ended, self._soon)))
        self._waiting = waiting
        self.waiting = sum(waiting)

    @property
    def room(self) -> float:
        """How many tries may begin before too many items wait for another."""
        return max(self._most - self.count, 0.0) / max(self._far[0], 1e-9)

    def begin(self, most: float) -> float:
        """Begin as many tries as a step allows; return how many that is."""
        if not self.waiting:
            self._starts = self._nothing
            return 0.0
        self._starts = self._followed(self._waiting)
        began = sum(self._starts) if self._is_short else self.waiting
        if began <= most:
            self._waiting, self.waiting = self._nothing, 0.0
            return began
        part = most / began
        self._starts = [each * part for each in self._starts]
        self._waiting = [each * (1 - part) for each in self._waiting]
        self.waiting *= 1 - part
        return most

    def go_on(self, now: int, first: float) -> float:
        """End the step, in which this many first tries began.

        Returns:
            How many items whose tries ended in it are not done with the stage.
        """
        starts, later = self._starts, self._later
        if first and self._is_short:
            zipped = zip(starts, self._first_starts, strict=True)
            starts = [each + first * following for each, following in zipped]
        elif first:
            starts = [starts[0] + first, *starts[1:]]
        under_way = zip(self._under_way, starts, strict=True)
        self._under_way = [before + each * later for before, each in under_way]
        ended = zip(self._ended, starts, strict=True)
        same_step = 1 - later
        self._ended = [before + each * same_step for before, each in ended]
        number = sum(self._following(self._ended, self._soon)) if self._is_short else 0.0
        return number + self._put_off(now)

    def _put_off(self, now: int) -> float:
        """Let those that fail wait beyond the step; return how many that is."""
        following = self._following(self._ended, self._far)
        if not (number := sum(following)):
            return 0.0
        self.count += number
        for begin, end, delays in self._delays:
            waits, count = following, number
            if len(self._delays) > 1:
                waits = self._nothing.copy()
                waits[begin:end] = following[begin:end]
                count = sum(waits)
            for offset, share in delays:
                self._due[now + offset].append((share, waits, share * count))
        return number

    def _following(self, ended: Sequence[float], parts: Sequence[float]) -> list[float]:
        """The tries that follow these, each a part of them, by number."""
        failed: list[float] = list(map(mul, ended, parts))
        last = failed.pop()
        failed[-1] += last  # unless it was the last one: tries that are not told apart
        return [0.0, *failed]

    def _followed(self, waiting: Sequence[float]) -> list[float]:
        """The tries that begin in a step if these do, and those that follow in it."""
        starts: list[float] = []
        before, same_step = 0.0, 1 - self._later
        for each, soon in zip(waiting, self._soon, strict=True):
            starts.append(each + before)
            before = starts[-1] * soon * same_step
        starts[-1] /= 1 - self._soon[-1] * same_step
        return starts


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


def simulate(
    model: RunModel, state: RunState, doubt: float = 0.0, rough: Rough | None = None
) -> Course:
    """How a run goes on.

    Args:
        model: The run.
        state: Where it is.
        doubt: By what part of its doubts each stage is slower (1) or faster (-1) than measured.
        rough: What `rough_end` said of them, if it was asked.
    """
    rough = rough_end(model, state) if rough is None else rough
    source = model.source * exp(-doubt * model.source_doubt)
    weight = sum(2 + 2 * (stage.again > 0) for stage in model.stages)
    steps = max(min(STEPS, MOST_STAGE_STEPS // (2 * weight)), FEWEST_STEPS)
    step = _length_of_step(model, rough, doubt, steps)
    flows = [
        _Flow(each, at, doubt, LONGER * steps)
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
            flow.gates.append((gates[index], cost * exp(doubt * flow.model.doubt[2])))
            gates[index].users.append(flow)
    coming, now, time, begun = state.coming, 0, 0.0, 0.0
    last = left = coming + sum([flow.left for flow in flows])
    # What a step counts happens at its start, but what comes at a rate comes all the time.
    is_flow = rough.by == "flow"
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
        waiting, left = coming, coming
        for flow, room in zip(flows, _rooms(flows, now), strict=True):
            passing = flow.take_in(now, came)
            began, gone = flow.go_on(now, room)
            for gate, cost in flow.gates:
                gate.charge(began * cost)
            came = (gone + passing) * flow.model.on
            waiting += flow.waiting
            left += flow.left
        for gate in gates:
            gate.close()
        now += 1
        curve.append((time + step if is_flow else time, left))
        time += step
        if waiting > 0.5:
            begun, last = time, left
        if left < NOTHING_LEFT:
            break
    ends = (_when(curve, 0.05, last), _when(curve, 0.5, last), _when(curve, 0.95, last))
    return Course(ends, begun, len(curve) - 1)


def _rooms(flows: Sequence[_Flow], now: int) -> list[float]:
    """How many first tries each stage may begin in a step: for how many the next one has room.

    What the next one could begin in the step makes room, too: a step may be long.
    """
    rooms = [inf] * len(flows)
    for index in range(len(flows) - 1, 0, -1):
        flow = flows[index]
        stage = flow.model
        if stage.capacity == inf or stage.skipped == 1:  # items that pass by need no room
            continue
        begins = min(flow.most_at(flow.under_way - flow.done[now]), rooms[index])
        room = max(stage.capacity - flow.in_queue + begins, 0.0) / (1 - stage.skipped)
        rooms[index - 1] = room / max(flows[index - 1].model.on, 1e-3)
    return rooms


class _Gate:
    """A limit while it is simulated.

    Attributes:
        users: The stages under it.
    """

    def __init__(self, limit: LimitModel, level: float, held: float) -> None:
        self._limit = limit
        self._level = level
        self._held = held
        self._part_open = 1.0
        self.users: list[_Flow] = []

    def open(self, step: float) -> None:
        """A step begins."""
        if self._limit.per_second < inf:
            self._level += self._limit.per_second * step
        if self._held > 0:
            self._part_open = max(1 - self._held / step, 0.0)
            self._held -= step
        else:
            self._part_open = 1.0

    def close(self) -> None:
        """A step ends."""
        self._level = min(self._level, self._limit.size)

    @property
    def room(self) -> float:
        """How many more items may be under way."""
        if self._limit.slots == inf:
            return inf
        batch = max([flow.model.batch for flow in self.users])
        return self._limit.slots * batch - sum([flow.under_way for flow in self.users])

    def most(self, user: _Flow, cost: float) -> float:
        """How many tries of a stage, at this cost, it lets in during the step."""
        if not self._part_open:
            return 0.0
        by_rate = self._level / cost if cost and self._level < inf else inf
        if self._part_open == 1.0:
            return by_rate
        return min(by_rate, user.places / user.later * self._part_open)

    def charge(self, cost: float) -> None:
        """Tries began that cost this."""
        self._level -= cost


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


def _of_retries(stage: StageModel, items: float) -> tuple[float, float]:
    """Seconds for which an item waits for its next tries, and the last of them, which has most."""
    if not stage.again or not items:
        return 0.0, 0.0
    delay = max(sum([seconds * share for seconds, share in each]) for each in stage.delays)
    last = min(items, stage.most_retrying + stage.workers)
    tries = min(log(last + 1) / -log(stage.again), stage.most_tries)
    return delay * stage.again / (1 - stage.again), delay * tries


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
    work = waits = latency = most_retries = 0.0
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
            retries, last = _of_retries(stage, items + waiting + under_way)
            latency += stage.times.mean + retries
            most_retries = max(most_retries, last)
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
    return Rough(longest + latency + most_retries, slowest, by)
