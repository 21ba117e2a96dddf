"""One stage of one run, put together from its parts."""

from __future__ import annotations

from collections.abc import Awaitable
from weakref import ref

from antflow._core.counters import Counters
from antflow._core.envelope import Envelope
from antflow._core.inside import StageInside
from antflow._core.ledger import WorkerBook
from antflow._core.ports import Guard
from antflow._core.readings import StageGauge
from antflow._core.stage import Stage, lowest_concurrency, most_retries_waiting, retry_policy
from antflow._core.stage_checks import is_async
from antflow._core.worker_time import begun, blocked
from antflow._engine.attempt import Attempt
from antflow._engine.batches import Batches
from antflow._engine.calls import calls_of
from antflow._engine.channel import Channel
from antflow._engine.contexts import apart
from antflow._engine.crew import Crew
from antflow._engine.current import Seat
from antflow._engine.endings import Endings
from antflow._engine.expansion import Expansion
from antflow._engine.failure import FailedTries, Judge
from antflow._engine.failure_limits import FailureLimits
from antflow._engine.handover import Handover
from antflow._engine.identity import Identity
from antflow._engine.intake import Intake
from antflow._engine.limits.call_limits import CallLimits
from antflow._engine.limits.stage_limits import StageLimits
from antflow._engine.recorder import Recorder
from antflow._engine.resources import RunResources, StageResources
from antflow._engine.retry_heap import RetryHeap
from antflow._engine.run import Run
from antflow._engine.runners import Threads, runner_for
from antflow._engine.settlement import Settlement
from antflow._engine.supervisor import Supervisor
from antflow._engine.worker import WorkerLoop
from antflow._engine.workers import Workers


class StageRun:
    """The machinery of one stage.

    Args:
        stage: The stage as the user described it.
        index: Its index.
        run: The run.
        supervisor: Stops and ends the run.
        settlement: Where items leave the run.
        identity: The ids of the run's items.
        intake: Where items come from.
        recorder: The stage's recorder.
        failure_limits: Stop the run when too many items fail.
        resources: The resources of scope "run".
        guard: Calls stage callbacks.
        outer: The seats in which the run was started.

    Attributes:
        workers: Its workers.
    """

    def __init__(
        self,
        stage: Stage,
        index: int,
        run: Run,
        supervisor: Supervisor,
        settlement: Settlement,
        identity: Identity,
        intake: Intake,
        recorder: Recorder,
        failure_limits: FailureLimits,
        resources: RunResources,
        guard: Guard,
        outer: tuple[ref[Seat], ...],
    ) -> None:
        self.run = run
        self.name = stage.name
        self.index = index
        self.recorder: Recorder = recorder
        self._supervisor = supervisor
        self._batch = stage.batch or 1
        self._attempts = retry_policy(stage).attempts
        self._concurrency = lowest_concurrency(stage)
        now = run.timers.now

        # The workers
        self.crew: Crew = Crew(run.ledger.stages[index], lambda: supervisor.is_called_off, now)
        self._calls = CallLimits(stage, now)
        self._counters = Counters()
        self.workers: Workers = Workers(
            stage, index, run, supervisor, intake, self.crew, self._calls, self._counters, outer
        )
        self.channel: Channel[Envelope] = self.workers.channel

        # Where items go from here
        self._handover = Handover(
            stage.name, run, supervisor, settlement, recorder, self.crew, guard
        )
        if stage.batch is not None:
            self._handover.gathering = self.channel
        self._limits = StageLimits(stage, now)
        judge = Judge(stage, run, self._limits.hold, failure_limits.stop_on[index])
        self._retries = RetryHeap(self.channel, run.timers, most_retries_waiting(stage))
        failed_tries = FailedTries(stage, judge, self._handover, self._retries, failure_limits)
        self._endings = Endings(stage, self._handover, failed_tries)

        # How they are tried
        self._runner = runner_for(stage, run, self.crew, supervisor, self._counters)
        thread_of = None
        if isinstance(self._runner, Threads) and not all(map(is_async, stage.tasks)):
            thread_of = self._runner.in_thread_of
        create_task = supervisor.tasks.create_side
        self._resources = StageResources(
            stage, resources, create_task, thread_of, is_here=not self._runner.enters_resources
        )
        workers = self.workers
        expansion = Expansion(self._handover, identity, self._runner, lambda: workers.count)
        calls = calls_of(
            stage,
            self.crew,
            self._runner,
            self._resources,
            self._limits,
            expansion,
            run.timers,
        )
        self._attempt = Attempt(stage, run, recorder, self.crew, self._limits, judge, calls)

        self.workers.work = (
            WorkerLoop(
                stage, workers, self._attempt, self._handover, failed_tries, self._endings
            ).work
            if stage.batch is None
            else Batches(
                stage,
                index,
                intake,
                workers,
                self._attempt,
                self._handover,
                judge,
                self._endings,
            ).work
        )
        self.workers.leave = self._let_leave

    def goes_on_in(self, following: StageRun) -> None:
        """Send completed items on to this stage."""
        self._handover.next_channel = following.channel

    def rewire(self) -> None:
        """Find out again which listeners there are."""
        self.recorder.rewire()
        self._attempt.rewire()

    def gauge(self) -> StageGauge:
        """Figures that the stage's books do not have."""
        return StageGauge(
            self.workers.count,
            self.channel.capacity,
            self.channel.blocked,
            len(self.crew.abandoned),
            self.workers.seconds(),
            self._runner.child_cpu_seconds,
            self._concurrency,
            self._runner.thread_cpu_seconds,
            self._limits.held_seconds(),
            self._limits.holds,
            self._attempt.batches,
            self._attempt.batched_items,
            self._counters,
            self._runner.nodes,
        )

    def inside(self) -> StageInside:
        """The stage at this moment, for an estimate of what will come."""
        book = self.run.ledger.stages[self.index]
        return StageInside(
            now=self.run.timers.now(),
            begun=begun(book),
            blocked=blocked(book),
            dues=self._retries.dues(),
            delays={tries: tuple(each) for tries, each in self._retries.delays.copy().items()},
            most_retrying=self._retries.capacity,
            limits=self._limits.levels() + self._calls.levels(),
            batch=self._batch,
            attempts=self._attempts,
        )

    async def fail_unread(self, envelope: Envelope) -> None:
        """Settle as failed an item that was taken in and could not be read."""
        await self._endings.fail_unread(envelope)

    # Ending: see `Supervised`

    def stop(self) -> None:
        """Stop anything from starting. May be called twice."""
        self.channel.close()
        self._retries.close()
        self.crew.begins_no_more = True

    def begin_no_more(self) -> None:
        """Cancel workers that wait for a try to begin; running tries may end."""
        self.crew.begin_no_more()

    def settle_all(self) -> list[Awaitable[None]]:
        """Settle as cancelled everything that waits here.

        Returns:
            What is left to await for the listeners.
        """
        envelopes = self.channel.drain() + self._retries.drain()
        waits = [apart(self._handover.give_up, envelope, None) for envelope in envelopes]
        return [wait for wait in waits if wait is not None]

    def put(self, envelope: Envelope) -> None:
        """Put an item into the stage's channel."""
        self.channel.put(envelope)

    async def close(self) -> None:
        """Release what the stage's tasks used, once no worker is left."""
        for resources in self._resources.rest():
            await self._supervisor.outlive(resources.close)
        await self._supervisor.outlive(self._runner.close)
        self.release_limits()
        self._calls.close()

    def release_limits(self) -> None:
        """No more tries: another event loop may use the stage's limits."""
        self._limits.close()

    def forget_threads(self) -> None:
        """Stop waiting for threads that go on."""
        self.crew.forget_threads()

    async def _let_leave(self, worker: WorkerBook) -> None:
        """A worker leaves: release what it alone used."""
        if not self.run.is_left_behind:
            resources = self._resources.taken_from(worker)
            if resources is not None:
                await self._supervisor.outlive(resources.close)
        await self._runner.leave(worker)
