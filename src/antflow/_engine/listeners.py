"""The store and the listeners of one run: one list, one guard, one way to tell them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, get_args

from antflow._core.envelope import Envelope
from antflow._core.events import TaskEventType
from antflow._core.ledger import Ledger, WorkerBook
from antflow._core.observers import RunEnd
from antflow._core.ports import Guard, Listener, Memory, Store, TellTask
from antflow._core.run_facts import RunFacts
from antflow._core.stage import Stage
from antflow._core.step import Step
from antflow._core.transition import Kind, Transition
from antflow._core.waits import Wait, both

Tell = Callable[..., Wait]
Told = list[tuple[str, Tell]]
"""The name of each listener that is told, and its method."""


class Listeners:
    """Tells the store and the listeners of a run. Shared by the recorders of all its stages.

    The store comes first: it keeps the truth. Listeners are told in the order of the list, and what
    one raises stays here: see `Guard.contain`. What ends the program ends the run in order, and
    whatever it is told about goes its way.

    Args:
        facts: The run.
        guard: Contains what listeners raise.
        on_broken_store: Called with the exception when the store cannot keep something.
        interrupt: Ends the run, in order, with what ends the program.
        numbers: Gives each transition its number.
        store: Keeps transitions, or ``None``.
        listeners: Hear of each step.
        memory: The store, if it knows items of earlier runs. It is told of completed visits in
            its own way, and not of ADMITTED and STARTED.

    Attributes:
        started: Reports that a worker began with an item. This and the next two take what the
            methods of `Listener` take, and are ``None`` while no listener wants them.
        completed: Reports that an item has completed a stage.
        ended: Reports that a visit ended in another way, or that an item was made from another.
        tasks: Report that a try of a task started or ended; only kinds that a listener wants.
        entering: Reports that an item that was taken in is about to be put; ``None`` while no
            listener may make it wait.
    """

    started: Callable[[Envelope, WorkerBook, float], Wait] | None
    completed: Callable[[Envelope, WorkerBook, Any, float, float], Wait] | None
    ended: Callable[[Step], Wait] | None
    tasks: dict[TaskEventType, TellTask]
    entering: Callable[[Envelope], Wait] | None

    def __init__(
        self,
        facts: RunFacts,
        guard: Guard,
        on_broken_store: Callable[[Exception], None],
        interrupt: Callable[[BaseException], None],
        numbers: Iterator[int],
        store: Store | None = None,
        listeners: Sequence[Listener] = (),
        *,
        memory: Memory | None = None,
    ) -> None:
        self._facts = facts
        self._guard = guard
        self._on_broken_store = on_broken_store
        self._interrupt = interrupt
        self._numbers = numbers
        self._store = store
        self._memory = memory
        self._keeps_starts = store is not None and memory is None
        self._listeners = tuple(listeners)
        self._is_closed = False
        self.rewire()

    def rewire(self) -> None:
        """Find out again what each listener wants to hear."""
        heard = self._listeners
        self._admissions: Told = [(each.name, each.admitted) for each in heard]
        self.started = self._telling(
            [(each.name, each.started) for each in heard if each.hears_starts],
            self._keep_started if self._keeps_starts else None,
        )
        self.completed = self._telling(
            [(each.name, each.completed) for each in heard],
            self._keep_completed if self._memory is None else self._memorise_completed,
        )
        self.ended = self._telling([(each.name, each.ended) for each in heard], self._keep)
        self.tasks = {}
        kinds: tuple[TaskEventType, ...] = get_args(TaskEventType)
        for kind in kinds:
            told: Told = [(each.name, each.tasks[kind]) for each in heard if kind in each.tasks]
            if (tell := self._telling(told)) is not None:
                self.tasks[kind] = tell
        self.entering = self._telling(
            [(each.name, each.entering) for each in heard if each.may_hold]
        )

    def opened(self, stages: Sequence[Stage], ledger: Ledger, rewire: Callable[[], None]) -> None:
        """The run begins. A listener that raises here hears nothing more.

        Raises:
            Exception: What the store raises.
        """
        if self._store is not None:
            self._store.opened(self._facts, stages)
        for listener in self._listeners:
            try:
                listener.opened(self._facts, ledger, rewire)
            except BaseException as error:  # why: `contain` raises what ends the program
                self._guard.contain(listener.name, error)
                self._listeners = tuple(each for each in self._listeners if each is not listener)

    def admitted(self, envelopes: Sequence[Envelope], now: float) -> Wait:
        """Items were taken in."""
        if not self._keeps_starts:
            return self._tell(self._admissions, envelopes, now)
        wait: Wait = None
        for envelope in envelopes:
            wait = both(wait, self._keep(Step(Kind.ADMITTED, envelope, None, now)))
        return both(wait, self._tell(self._admissions, envelopes, now))

    def taken_over(self, envelope: Envelope, now: float) -> Wait:
        """An item of an earlier run, which the store has, continues in this one."""
        wait = self._tell(self._admissions, [envelope], now)
        return wait if self.entering is None else both(wait, self.entering(envelope))

    def closed(self, end: Callable[[], RunEnd]) -> Wait:
        """The run is over; ``end()`` says how. Further calls do nothing."""
        if self._is_closed or (self._store is None and not self._listeners):
            return None
        self._is_closed = True
        how = end()
        wait = None if self._store is None else self._close_store(self._store, how)
        return both(wait, self._tell([(each.name, each.closed) for each in self._listeners], how))

    def _telling(self, told: Told, keep: Tell | None = None) -> Tell | None:
        """One function that tells the store and all of these; ``None`` without any."""
        if keep is not None and self._store is not None:
            if not told:
                return keep
            return lambda *what: both(keep(*what), self._tell(told, *what))
        if len(told) != 1:
            return partial(self._tell, told) if told else None
        [(name, tell)] = told

        def tell_one(*what: Any) -> Wait:
            # `_tell`, written out: a run with a tracker calls this for every visit.
            try:
                return tell(*what)
            except BaseException as error:  # why: it is contained, or ends the run in order
                self._contain(name, error)
                return None

        return tell_one

    def _tell(self, told: Told, *what: Any) -> Wait:
        wait: Wait = None
        for name, tell in told:
            try:
                wait = both(wait, tell(*what))
            except BaseException as error:  # why: it is contained, or ends the run in order
                self._contain(name, error)
        return wait

    def _contain(self, name: str, error: BaseException) -> None:
        try:
            self._guard.contain(name, error)
        except GeneratorExit:
            raise
        except BaseException as interruption:  # why: it ends the run, in order
            self._interrupt(interruption)

    def _keep_started(self, envelope: Envelope, worker: WorkerBook, now: float) -> Wait:
        return self._keep(Step(Kind.STARTED, envelope, worker, now))

    def _keep_completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> Wait:
        return self._keep(Step(Kind.COMPLETED, envelope, worker, now, began=began, value=value))

    def _memorise_completed(
        self, envelope: Envelope, worker: WorkerBook, value: Any, began: float, now: float
    ) -> Wait:
        assert self._memory is not None
        try:
            return self._memory.completed(envelope, value, began, now)
        except Exception as failure:
            self._on_broken_store(failure)
            return None

    def _keep(self, step: Step) -> Wait:
        assert self._store is not None
        kind, envelope, worker = step.kind, step.envelope, step.worker
        task = worker.task if worker is not None and kind in (Kind.FAILED, Kind.RETRYING) else None
        transition = Transition(
            run=self._facts.run_id,
            n=next(self._numbers),
            seq=envelope.sequence_id,
            branch=envelope.branch,
            item_id=envelope.id,
            metadata=envelope.metadata,
            stage=envelope.position,
            kind=kind,
            worker=-1 if worker is None else worker.index,
            task=task or "",
            attempt=max(envelope.attempts, 0),
            mono=step.now,
            duration=0.0 if step.began is None else step.now - step.began,
            error=step.error,
        )
        try:
            return self._store.record(transition, step.value)
        except Exception as failure:
            self._on_broken_store(failure)
            return None

    def _close_store(self, store: Store, how: RunEnd) -> Wait:
        try:
            return store.closed(how)
        except Exception as failure:
            self._on_broken_store(failure)
            return None
