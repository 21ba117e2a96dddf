"""Assembles a run from its parts, and starts it.

The parts stand in one order, and each refers only to those before it::

    Run            state and queries
    Supervisor     stops the run and brings it to its end
    Identity       ids
    FailureLimits  stop the run when too many items fail
    Settlement     where items leave the run
    Entrance       how items enter
    Intake         where items come from
    StageRun …     one for each stage
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

from antflow._core.books import Books
from antflow._core.cancellation import has_called_off_caller
from antflow._core.counters import counters_here
from antflow._core.durations import ItemTimes
from antflow._core.envelope import DEFAULT_PRIORITY
from antflow._core.error_kinds import ErrorKinds
from antflow._core.failure_limit import FailureLimit
from antflow._core.items import Key
from antflow._core.limit import current_permit
from antflow._core.ports import Guard, Listener, Memory, Store
from antflow._core.stage import Stage
from antflow._core.waits import discard
from antflow._core.workers_change import WorkersChange
from antflow._engine.current import current_seat, outer_seats
from antflow._engine.failure_limits import FailureLimits
from antflow._engine.identity import Duplicates, Identity
from antflow._engine.intake import Entrance, Intake
from antflow._engine.known_inputs import KnownInputs
from antflow._engine.listeners import Listeners
from antflow._engine.loop_health.loop_watch import LoopWatch
from antflow._engine.recorder import Recorder
from antflow._engine.reorder import Deliver, Reorder
from antflow._engine.resources import RunResources
from antflow._engine.run import Run, current_run
from antflow._engine.settlement import Settlement
from antflow._engine.source import SourceWatch
from antflow._engine.stage_run import StageRun
from antflow._engine.supervisor import Supervisor
from antflow._engine.waiting import in_order, outlast_task


class Display(Protocol):
    """Shows a run while it is driven."""

    async def begin(self) -> None:
        """Wait until the display has begun."""
        ...

    async def poll(self) -> None:
        """Show the run until `end`."""
        ...

    def end(self, *, at_once: bool) -> None:
        """The run is over."""
        ...


class Engine:
    """One run of a pipeline, under way.

    Args:
        stages: The stages, validated.
        deliver: Where results go.
        guard: Calls stage callbacks.
        store: Keeps transitions, or ``None``.
        memory: A store that knows items of earlier runs, in place of ``store``.
        listeners: Hear of them, in this order.
        max_failures: Failed items at which the run is stopped; ``None`` = no limit.
        stop_on: Errors at which it is stopped, in whatever stage.
        total: How many items there will be, if known.
        length: Returns the number of items, where `total` is not given.
        keeps_results: Whether all results, and so all ids and failures, are kept.
        reads_results: Whether results are read, by whatever takes them.
        duplicates: What to do with an item whose id is taken.
        timeout: Seconds after which the run is cancelled, with `TimeoutError`.
        item_timeout: Seconds from an item's intake after which it fails, with `TimeoutError`.
        key: What gives an item's id.
        probe: Whether one worker more may be tried at times.
        window: Items that may be taken in beyond the first unsettled one, for results in order;
            ``None`` = results as they are ready.
        owner: Whose run it is; only compared, and not kept.
        blocked_loop_after: Seconds after which the event loop counts as blocked, or ``None``.
        name: The pipeline's name.
        times_items: Whether to count how long items take.
        books: The books of an earlier run that this one continues, or ``None``.

    Attributes:
        run: Its state, and the answers to questions about it.
        supervisor: Stops and ends it.
        settlement: Lets them out.
        intake: Takes items in.
        stages: Its stages.
        may_probe: As given.
        before_control: Called before something is done to the run: a probe ends then.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        deliver: Deliver,
        guard: Guard,
        store: Store | None = None,
        memory: Memory | None = None,
        listeners: Sequence[Listener] = (),
        max_failures: FailureLimit | None = None,
        stop_on: ErrorKinds | None = None,
        total: int | None = None,
        length: Callable[[], int] | None = None,
        keeps_results: bool = True,
        reads_results: bool = True,
        duplicates: Duplicates = "number",
        timeout: float | None = None,
        item_timeout: float | None = None,
        key: Key | None = None,
        probe: bool = False,
        window: int | None = None,
        owner: object = None,
        blocked_loop_after: float | None = None,
        name: str = "pipeline",
        times_items: bool = False,
        books: Books | None = None,
    ) -> None:
        self._showing: asyncio.Task[None] | None = None
        store = memory or store
        self.may_probe = probe
        self.before_control: Callable[[], None] = lambda: None
        self.run: Run = Run(
            stages,
            total=total,
            length=length,
            keeps_results=keeps_results,
            item_timeout=item_timeout,
            owner=owner,
            name=name,
            books=books,
        )
        run = self.run
        run.memory = memory
        run.ledger.item_times = ItemTimes() if times_items else None
        self.supervisor: Supervisor = Supervisor(run)
        first = 0 if books is None else books.next_sequence_id
        id_of = None if memory is None else memory.id_of
        identity = Identity(run, duplicates, first, key, id_of)
        reorder = None if window is None else Reorder(deliver, window)
        self.settlement: Settlement = Settlement(run, self.supervisor, identity, deliver, reorder)
        failure_limits = FailureLimits(
            run, self.supervisor, stages, max_failures, () if stop_on is None else stop_on
        )
        self._listeners = Listeners(
            run.facts,
            guard,
            self.supervisor.stop_intake if memory is None else self._end_unkept,
            self.supervisor.fail,
            count(1 if books is None else books.next_number),
            store,
            listeners,
            memory=memory,
        )
        entrance = Entrance(run, self.supervisor, self.settlement, self._listeners, store, memory)
        known: KnownInputs | None = None
        if memory is not None and not reads_results and reorder is None:
            known = KnownInputs(run, self.supervisor, identity, memory)
        sources = SourceWatch(run.timers, tells=blocked_loop_after is not None)
        self.intake: Intake = Intake(
            run, self.supervisor, self.settlement, identity, entrance, known, sources
        )
        resources = RunResources(self.supervisor.tasks.create_side, self.supervisor.clean_ups)
        outer = outer_seats()
        self.stages: list[StageRun] = []
        try:
            for index, stage in enumerate(stages):
                recorder = Recorder(index, run.ledger, run.failures, run.facts, self._listeners)
                self.stages.append(
                    StageRun(
                        stage,
                        index,
                        run,
                        self.supervisor,
                        self.settlement,
                        identity,
                        self.intake,
                        recorder,
                        failure_limits,
                        resources,
                        guard,
                        outer,
                    )
                )
            for before, following in zip(self.stages, self.stages[1:], strict=False):
                before.goes_on_in(following)
            run.stages = entrance.stages = self.stages
            if reorder is not None:
                reorder.on_room = self.stages[0].channel.ring
            self._begin(stages, timeout)
            if books is not None:
                identity.take_over(books.waiting)
                entrance.take_over(books.waiting)
        except BaseException:  # for example, a limit is in use elsewhere: leave no other taken
            for made in self.stages:
                made.release_limits()
            raise
        if blocked_loop_after is not None and not run.timers.has_own_time:
            watch = LoopWatch(run, self.stages, sources, blocked_loop_after)
            run.loop_watch = watch
            self.supervisor.on_over.insert(0, watch.end)

    def _begin(self, stages: Sequence[Stage], timeout: float | None) -> None:
        supervisor, context = self.supervisor, self.supervisor.tasks.context
        context.run(current_run.set, self.run)
        context.run(current_seat.set, None)
        context.run(counters_here.set, None)
        context.run(has_called_off_caller.set, supervisor.has_called_off_caller)
        context.run(current_permit.set, None)  # one that is held around this run is not its own
        # Timers and tasks that were begun inside the run may keep it for as long as they live, but
        # not its items and results.
        supervisor.on_over += [self.settlement.close, self.intake.forget]
        # A context variable that a listener sets, like the current span, is set in all of the run.
        context.run(self._listeners.opened, stages, self.run.ledger, self._rewire)
        if (memory := self.run.memory) is not None:
            memory.on_broken = self._end_unkept
            supervisor.on_cancel.append(memory.give_up)
        self._rewire()
        try:
            supervisor.begin(self.stages, self.intake, self.settlement, self._listeners, timeout)
        except BaseException as error:  # the user's task factory raised
            self.run.error = error
            discard(self._listeners.closed(self.run.how_it_ended))
            raise

    async def drive(
        self, items: AsyncIterable[Any] | Iterable[Any], display: Display | None = None
    ) -> None:
        """Feed the run from ``items`` and show it, until the run and its display are over.

        Cancellation: cancels the run, and still waits until both are over.

        Raises:
            BaseException: What ended the run, if not the end of its input.
        """
        try:
            if display is not None:
                self._begin_to_show(display)
                await display.begin()
            if (memory := self.run.memory) is not None and (wait := memory.opening()) is not None:
                await wait
            if not self.run.is_closed:  # it may have been called off meanwhile
                self.intake.take_all(items)
            await self.supervisor.wait()
        except BaseException:
            if not self.run.is_left_behind:
                self.supervisor.cancel()
                await self.supervisor.wait_until_over()
            raise
        finally:
            if display is not None and not self.run.is_left_behind:
                display.end(at_once=self.run.is_cancelling)
                await self.until_shown()

    async def show(self, display: Display) -> None:
        """Show a run that is fed by hand, from now until it is over; see `until_shown`."""
        self._begin_to_show(display)
        self.supervisor.on_over.append(lambda: display.end(at_once=self.run.is_cancelling))
        await display.begin()

    async def until_shown(self) -> None:
        """Wait until the display has shown the end, if there is one."""
        showing = self._showing
        if showing is not None and not self.run.is_left_behind:
            await outlast_task(showing, partial(self._call_off, showing))

    async def feed(
        self,
        items: AsyncIterable[Any] | Iterable[Any],
        stage: int = 0,
        priority: int = DEFAULT_PRIORITY,
        key: Key | None = None,
    ) -> None:
        """Take in items by hand: see `Intake.feed`. Then the run's memory has them."""
        if isinstance(items, AsyncIterable):
            await self.intake.feed_async(items, stage, priority, key)
        else:
            await self.intake.feed(items, stage, priority, key)
        if (memory := self.run.memory) is not None and (wait := memory.all_kept()) is not None:
            await wait
            memory.all_kept()  # raises if they could not be kept

    def drain(self) -> None:
        """Take in nothing more, not even from the run's own tasks, and let the rest finish."""
        self.before_control()
        self.run.is_closed = True
        self.intake.close()

    # How many work

    def pause(self) -> None:
        """Start nothing new: workers finish what they have begun, and leave. May be called twice.

        An item in hand that waits for a limit, or for the end of a hold, keeps waiting.
        """
        if not (self.run.is_paused or self.run.is_stopping or self.run.is_over):
            self.before_control()
            self.run.pause_is_over = asyncio.Event()
            for stage in self.stages:
                stage.workers.activate(0)

    def resume(self) -> None:
        """Go on after `pause`. May be called twice."""
        if self.run.pause_is_over is not None and not self.run.is_over:
            self.run.pause_is_over.set()
            self.run.pause_is_over = None
            for stage in self.stages:
                stage.workers.activate(stage.workers.count)

    def set_workers(self, stage: int, count: int) -> None:
        """Set a stage's number of workers; those that leave finish their item first."""
        self.before_control()
        self._change_workers(stage, count, is_probe=False)

    def try_workers(self, stage: int, count: int) -> None:
        """`set_workers` for a probe, and for going back from it."""
        self._change_workers(stage, count, is_probe=True)

    def _change_workers(self, stage: int, count: int, *, is_probe: bool) -> None:
        workers = self.stages[stage].workers
        if not self.run.is_over and count != workers.count:
            run, facts = self.run, self.run.facts
            elapsed = run.timers.now() - facts.started_mono
            name = facts.stage_names[stage]
            change = WorkersChange(elapsed, name, workers.count, count, is_probe)
            run.workers_changes.note(change)
            if is_probe and count > workers.count:
                run.ledger.stages[stage].first_tries.left_out = workers.count
            workers.set_count(count)
            if self.settlement.reorder is not None:
                self.settlement.reorder.look_again()

    def _begin_to_show(self, display: Display) -> None:
        polling = in_order(display.poll, self.supervisor.fail)
        self._showing = self.supervisor.tasks.create_side(polling, "display")

    def _call_off(self, display: asyncio.Task[None]) -> None:
        if self.supervisor.requests.is_new():
            self.supervisor.tasks.call_off(display)

    def _end_unkept(self, error: Exception) -> None:
        """Nothing can be kept any more: begin no more tries, which would have to be repeated."""
        self.supervisor.stop_intake(error)
        self.supervisor.shut_down("stopped by its journal")

    def _rewire(self) -> None:
        self._listeners.rewire()
        for stage in self.stages:
            stage.rewire()
