"""What the books of a run say about its stages, as a model that can be simulated.

The memory of a run has a few marks: the counts at moments of the last minute or so. What a stage
takes for a try is the mean over the longest time in which it has not changed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf, sqrt
from typing import NamedTuple

from antflow._core.inside import LimitLevel, StageInside
from antflow._core.snapshot import RunState as Phase
from antflow._core.snapshot import StageStats
from antflow._monitor.flow import (
    done_items,
    ended_tries,
    entered_items,
    items_inside,
)
from antflow._monitor.service_times import (
    NO_TIME,
    Points,
    ServiceTimes,
    condensed,
    service_times,
)
from antflow._monitor.simulation import (
    LimitModel,
    RunModel,
    RunState,
    StageModel,
    StageState,
)

BETWEEN_MARKS = 5.0
MARKS = 13
"""Together they cover a minute, or longer if tries take long."""

FEWEST_TRIES = 20
"""From how many tries on a mean of the last seconds counts."""

CHANGED = 3.0
SMALL_CHANGE = 0.02
"""A mean has changed if it differs by this many standard errors, and by this part of it."""

WORTH_CALLING_SLOW = 0.1
"""Share of their time that the first stage's workers have nothing to do, because of the source."""

PRIOR_TRIES = 4
PRIOR_VARIATION = 0.25
"""What is taken for granted about the spread of times before there are many."""

IN_DOUBT = 1.645
"""Standard deviations, to either side, that hold 90 %."""

PRIOR_MARKS = 3
"""The same for the intervals at which a source gives its items."""

HALF = 0.5

AGE_GROUPS = 12
FEWEST_AGE_GROUPS = 3
"""Of the tries under way in all stages, and in each of many: then steps are longer, too."""

ANOTHER_DELAY = 0.1
"""The part by which the delay before a try differs, on average, from the one before it."""


class Mark(NamedTuple):
    """The figures of a run at one moment.

    Attributes:
        elapsed: Seconds since the run began.
        accepted: Items taken in.
        stages: The stages.
        occupied: Seconds that the workers of each stage were occupied with tries that are over.
        at_work: The same, with tries that are under way.
    """

    elapsed: float
    accepted: int
    stages: tuple[StageStats, ...]
    occupied: tuple[float, ...]
    at_work: tuple[float, ...]


class Note(NamedTuple):
    """All that an estimate is made from.

    Attributes:
        phase: The state of the run.
        total: How many items there will be, if known.
        now: The figures at this moment.
        inside: The inside of the stages.
        marks: Earlier figures, oldest first.
        since: When the run began, or was last resumed.
    """

    phase: Phase
    total: int | None
    now: Mark
    inside: Sequence[StageInside]
    marks: tuple[Mark, ...]
    since: Mark | None


class Memory:
    """Remembers the marks of one run."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=MARKS)
        self._since: Mark | None = None
        self._was_paused = False

    def note(
        self,
        phase: Phase,
        total: int | None,
        elapsed: float,
        accepted: int,
        stages: tuple[StageStats, ...],
        inside: Sequence[StageInside],
    ) -> Note:
        """Take in the figures of this moment; return what an estimate needs of them."""
        now = mark_of(elapsed, accepted, stages, inside)
        if phase == "paused":
            self._was_paused = True
        elif self._was_paused:
            self._was_paused = False
            self._marks.clear()
            self._since = now
        note = Note(phase, total, now, inside, tuple(self._marks), self._since)
        longest = max((stage.run_times.p50 or 0.0 for stage in stages), default=0.0)
        if not self._marks or elapsed - self._marks[-1].elapsed >= max(BETWEEN_MARKS, longest / 2):
            self._marks.append(now)
        return note


def mark_of(
    elapsed: float,
    accepted: int,
    stages: tuple[StageStats, ...],
    inside: Sequence[StageInside],
) -> Mark:
    """The figures of a moment."""
    last = len(stages) - 1
    at_work = [
        _at_work(stage, each, is_last=number == last)
        for number, (stage, each) in enumerate(zip(stages, inside, strict=True))
    ]
    occupied = [
        max(seconds - sum(each.ages), 0.0) for seconds, each in zip(at_work, inside, strict=True)
    ]
    return Mark(elapsed, accepted, stages, tuple(occupied), tuple(at_work))


def _at_work(stage: StageStats, inside: StageInside, is_last: bool) -> float:
    """Seconds of workers that tries took: what else they could not do meanwhile."""
    seconds = stage.busy_seconds + stage.stalled_seconds
    if is_last:  # the consumer is a part of its work
        seconds += stage.blocked_seconds
    if not inside.limits:  # those that are known are simulated
        seconds += stage.limited_seconds
    return seconds


def model_of(
    note: Note,
    workers: Mapping[str, int] | None = None,
    source: tuple[float, float] | None = None,
) -> RunModel | None:
    """The run as it was measured; ``None`` if a stage with work to do has not done anything yet.

    Args:
        note: Its figures.
        workers: Stage name → how many workers it is to have instead.
        source: Items that the source gives per second, and by what part that may be wrong; if
            ``None``, as in the figures.
    """
    keys: dict[int, int] = {}
    limits: list[LimitModel] = []
    models: list[StageModel] = []
    coming = _coming(note)
    to_come = coming * 1.0
    names = [stage.stage_name for stage in note.now.stages]
    used = _used_by(note)
    doubt = 0.0  # of the number of items that come to a stage, squared
    for number, (stage, inside) in enumerate(zip(note.now.stages, note.inside, strict=True)):
        came = to_come
        to_come += items_inside(stage)
        times = _times(note, number)
        ended, done = ended_tries(stage), done_items(stage)
        if times is None:
            if to_come > 0.5 and ended + stage.skipped_items == 0:
                return None
            times = NO_TIME
        for limit in inside.limits:
            if limit.key not in keys:
                keys[limit.key] = len(limits)
                limits.append(LimitModel(limit.per_second, limit.size, limit.slots))
        again = _again(stage, ended, inside.attempts)
        following = note.now.stages[number + 1] if number + 1 < len(names) else None
        fails, most_tries = _fails(again, inside.attempts)
        left_to_do = max(to_come, 1.0)
        on = 1.0 if following is None else _on(entered_items(following), done, inside.blocked)
        few = 1 / max(ended, 1) + 1 / left_to_do
        variation = (times.variation * times.known + PRIOR_TRIES * PRIOR_VARIATION) / (
            times.known + PRIOR_TRIES
        )
        doubt *= (came / left_to_do) ** 2
        # Of items that have begun, the simulation knows what chance may do; of the others the mean.
        begun = stage.in_progress_items + stage.retrying_items
        chance = max(left_to_do - begun, 0.0) / left_to_do**2
        by_retries = again * (1 / max(done, 1) + chance)
        models.append(
            StageModel(
                name=names[number],
                workers=max((workers or {}).get(names[number], stage.workers), 1),
                batch=_batch(stage, inside, note.now.occupied[number]),
                times=times,
                again=fails,
                most_tries=most_tries,
                delays=_delays(inside.delays),
                most_retrying=inside.most_retrying,
                capacity=inf if stage.capacity is None or not number else stage.capacity,
                skipped=stage.skipped_items / done if done else 0.0,
                on=on,
                limits=tuple(
                    (keys[limit.key], _cost(limit, note, used[limit.key], inside.batch))
                    for limit in inside.limits
                ),
                doubt=(
                    IN_DOUBT * sqrt(variation * (1 / max(times.known, 1) + chance)),
                    IN_DOUBT * sqrt(by_retries),
                    IN_DOUBT * sqrt(doubt),
                ),
            )
        )
        spread = on * (1 - on) if on < 1 else on - 1  # of how many come from one
        doubt = doubt + (spread / on**2 if on else 0.0) * few
        to_come *= on
    source = _source(note, coming) if source is None else source
    return RunModel(tuple(models), tuple(limits), *source)


def state_of(note: Note, model: RunModel) -> RunState:
    """Where the run is."""
    levels: dict[int, LimitLevel] = {}
    states: list[StageState] = []
    groups = max(AGE_GROUPS // len(model.stages), FEWEST_AGE_GROUPS)
    for stage, inside, each in zip(note.now.stages, note.inside, model.stages, strict=True):
        levels.update((limit.key, limit) for limit in inside.limits)
        at_work = stage.in_progress_items - stage.limited_items - inside.blocked
        ages, latest = sorted(inside.ages), each.times.latest
        usual = bisect_right(ages, latest)
        ages, outliers = ages[:usual], ages[usual:]
        states.append(
            StageState(
                stage.pending_items + stage.blocked_items + stage.limited_items,
                (
                    *_under_way(ages, each, at_work - len(outliers), groups),
                    (0.0, inside.blocked * (HALF if each.on > 1 else 1.0)),
                ),
                tuple((age, share * len(outliers)) for age, share in condensed(outliers)),
                _due(inside, stage.retrying_items),
            )
        )
    return RunState(
        _coming(note),
        tuple(states),
        tuple(limit.level for limit in levels.values()),
        tuple(limit.held for limit in levels.values()),
    )


def _on(entered: int, done: int, blocked: int) -> float:
    """How many items enter the next stage for one that is done with this one."""
    if entered > done and blocked:  # those that become others have made half of them, on average
        return entered / (done + HALF * blocked)
    return entered / done if done else 1.0


def _under_way(ages: Sequence[float], stage: StageModel, count: int, most_groups: int) -> Points:
    """When tries will end: of those that have gone on for about the same time, together.

    Args:
        ages: For how long each has gone on, in order.
        stage: Their stage.
        count: How many there are.
        most_groups: Into how many they are divided, besides the oldest.
    """
    if not ages or count <= 0:
        return ()
    groups = condensed(ages, most_groups)
    if len(ages) > most_groups + 3:  # the longest alone: they may be why the run is not over
        rest, oldest = ages[:-3], ages[-3:]
        part = len(rest) / len(ages)
        groups = tuple((age, share * part) for age, share in condensed(rest, most_groups))
        groups += tuple((age, 1 / len(ages)) for age in oldest)
    return tuple(
        [
            (seconds, share * weight * count)
            for age, share in groups
            for seconds, weight in stage.times.left(max(age, 0.0))
        ]
    )


def _due(inside: StageInside, count: int) -> tuple[tuple[float, float, int], ...]:
    each = count / max(len(inside.dues), 1)
    return tuple((max(due - inside.now, 0.0), each, tries) for due, tries in inside.dues)


def _again(stage: StageStats, ended: int, attempts: int) -> float:
    """The part of the tries that are followed by another.

    Items that wait for another try now will have tries that are not: the last ones.
    """
    if not ended:
        return 0.0
    part = stage.retried_items / ended
    last = part ** max(attempts - 2, 0)
    return stage.retried_items / (ended + last * stage.retrying_items)


def _delays(delays: Mapping[int, Sequence[float]]) -> tuple[Points, ...]:
    """How long items wait after each try; as after the one before where that is not known."""
    points: list[Points] = []
    known: Points = ((0.0, 1.0),)
    mean = 0.0
    for tries in range(1, max([1, *delays]) + 1):  # those that were held have fewer
        if latest := delays.get(tries):
            before, mean = mean, sum(latest) / len(latest)
            if not points or abs(mean - before) > ANOTHER_DELAY * mean:
                known = condensed(latest)
        points.append(known)
    return tuple(points)


def _fails(again: float, attempts: int) -> tuple[float, float]:
    """The part of the tries that fail, and how many tries an item has.

    Args:
        again: The part of the tries that were followed by another.
        attempts: How many tries an item has; those that are held do not count.

    The last try of an item is followed by none. So of the tries a part ``p`` of which fail, ``p (1
    - p ** (n - 1)) / (1 - p ** n)`` are followed by another.
    """
    if again >= 0.98 * (attempts - 1) / attempts:  # only some that were held explain that
        return min(again, 0.98), inf
    low, high = again, 0.999
    for _ in range(12):
        middle = (low + high) / 2
        if middle * (1 - middle ** (attempts - 1)) / (1 - middle**attempts) < again:
            low = middle
        else:
            high = middle
    return low, attempts


def _coming(note: Note) -> int:
    if note.phase == "draining" or note.total is None:
        return 0
    return max(note.total - note.now.accepted, 0)


def _times(note: Note, number: int) -> ServiceTimes | None:
    """How long the tries of a stage take, over the longest time in which that has not changed.

    Span after span, backwards from now, is compared with all that came after it.
    """
    stage = note.now.stages[number]
    ended, occupied = ended_tries(stage), note.now.occupied[number]
    if not ended:
        return None
    batch = _batch(stage, note.inside[number], occupied)
    since: Mark | None = None
    counted, seconds = 0, 0.0
    spread = service_times(stage.run_times)
    variation = spread.variation if spread is not None else 0.0

    def spent(mark: Mark) -> float:
        # Those under way are the longer ones. If times are exponential, their time counts in full
        # (Epstein and Sobel, 1953); if all take the same, not at all.
        over, at_work = mark.occupied[number], mark.at_work[number]
        return over + min(variation, 1.0) * max(at_work - over, 0.0)

    for mark in (*reversed(note.marks), None):
        before = 0 if mark is None else ended_tries(mark.stages[number])
        began = 0.0 if mark is None else spent(mark)
        more, took = ended - before - counted, spent(note.now) - began - seconds
        if more < min(FEWEST_TRIES, ended) and mark is not None:
            continue
        if counted >= FEWEST_TRIES and more > 0:
            lately = seconds / counted
            error = CHANGED * sqrt(variation * (1 / counted + 1 / more)) + SMALL_CHANGE
            if abs(took / more - lately) > error * lately:
                break
        counted, seconds, since = counted + more, seconds + took, mark
    earlier = None if since is None else since.stages[number].run_times
    if since is None:
        mean, ages = occupied / ended, note.inside[number].ages
    else:  # the same number of long ones was under way at its begin as there is now
        mean, ages = seconds / counted, []
    return service_times(stage.run_times, earlier, mean * batch, ages)


def _batch(stage: StageStats, inside: StageInside, occupied: float) -> float:
    """How many items a worker takes together, on average: as many as there are, if they wait."""
    if inside.batch == 1 or not occupied:
        return inside.batch
    # A batch is counted once for each of its items, and its time once.
    times = service_times(stage.run_times)
    batch = times.mean * ended_tries(stage) / occupied if times is not None else inside.batch
    if batch > 0.94 * inside.batch:
        return inside.batch
    return max(batch, 1.0)


def _used_by(note: Note) -> dict[int, int]:
    """Key of a limit → how many tries have begun under it."""
    used: dict[int, int] = {}
    for stage, inside in zip(note.now.stages, note.inside, strict=True):
        begun = ended_tries(stage) + stage.in_progress_items - stage.limited_items
        for limit in inside.limits:
            used[limit.key] = used.get(limit.key, 0) + begun
    return used


def _cost(limit: LimitLevel, note: Note, used: int, batch: int) -> float:
    """What an item costs."""
    if limit.per_second == inf:
        return 0.0
    if limit.cost is not None:
        return limit.cost / batch
    return limit.charged / used if used else 1.0


class RateLimit(NamedTuple):
    """A limit of a rate, and what its stage asks of it.

    Attributes:
        rate: The most cost in a period.
        period: Seconds.
        a_try: What an item costs at each try.
        an_item: What it costs in all, with what other stages ask of the limit meanwhile.
    """

    rate: float
    period: float
    a_try: float
    an_item: float

    @property
    def items(self) -> float:
        """How many items a second it lets through."""
        return self.rate / self.period / self.an_item


def rate_limits(note: Note) -> tuple[tuple[RateLimit, ...], ...]:
    """The limits of each stage that have a rate, where it is known what items cost."""
    used = _used_by(note)
    asked: dict[int, float] = {}
    costs: list[list[tuple[LimitLevel, float]]] = []
    for stage, inside in zip(note.now.stages, note.inside, strict=True):
        timed = [limit for limit in inside.limits if limit.per_second < inf]
        costs.append([(each, _cost(each, note, used[each.key], inside.batch)) for each in timed])
        for limit, cost in costs[-1]:
            asked[limit.key] = asked.get(limit.key, 0.0) + cost * ended_tries(stage)
    return tuple(
        tuple(
            RateLimit(limit.size, limit.size / limit.per_second, cost, asked[limit.key] / done)
            for limit, cost in each
            if asked[limit.key] and done
        )
        for each, done in zip(costs, map(done_items, note.now.stages), strict=True)
    )


def _source(note: Note, coming: int) -> tuple[float, float]:
    """How many items a second the source gives, if it is slow, and how much that is in doubt."""
    now, marks = note.now, note.marks
    if not coming or not _is_slow(note):
        return inf, 0.0
    begin = note.since
    accepted = now.accepted - (begin.accepted if begin else 0)
    elapsed = now.elapsed - (begin.elapsed if begin else 0.0)
    if accepted <= 0 or elapsed <= 0:
        return inf, 0.0
    rate, spread = accepted / elapsed, _dispersion(marks)
    if len(marks) > 2:
        lately, seconds = now.accepted - marks[0].accepted, now.elapsed - marks[0].elapsed
        if abs(lately - rate * seconds) > CHANGED * sqrt(spread * rate * seconds) + 1:
            rate, accepted = lately / seconds, lately
    return rate, IN_DOUBT * sqrt(spread * (1 / max(accepted, 1) + 1 / coming))


def source_of(elapsed: float, intake: float, accepted: int, first: StageStats) -> float:
    """Items that the source of a run that is over gave per second; infinite if it was not slow."""
    starved = first.starved_seconds - (elapsed - intake) * first.workers
    if intake <= 0 or not accepted or starved < WORTH_CALLING_SLOW * intake * first.workers:
        return inf
    return accepted / intake


def _is_slow(note: Note) -> bool:
    """Whether the workers of the first stage have waited for the source lately."""
    now, first = note.now, note.now.stages[0]
    begin = next(
        (mark for mark in reversed(note.marks) if now.elapsed - mark.elapsed >= 10), note.since
    )
    elapsed, starved = now.elapsed, first.starved_seconds
    if begin is not None:
        elapsed -= begin.elapsed
        starved -= begin.stages[0].starved_seconds
    return starved > WORTH_CALLING_SLOW * elapsed * first.workers


def _dispersion(marks: Sequence[Mark]) -> float:
    """How unevenly a source gives its items: variance by mean, 1 where they come at random."""
    counts = [
        (after.accepted - before.accepted, after.elapsed - before.elapsed)
        for before, after in pairwise(marks)
    ]
    rate = sum(count for count, _ in counts) / (sum(seconds for _, seconds in counts) or 1)
    if not rate:
        return 1.0
    squares = sum((count - rate * seconds) ** 2 / (rate * seconds) for count, seconds in counts)
    return (squares + PRIOR_MARKS) / (len(counts) + PRIOR_MARKS)
