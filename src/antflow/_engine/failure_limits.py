"""Stops a run when going on is hopeless: too many items failed, or one failed with ``stop_on``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from antflow._core.envelope import Envelope
from antflow._core.error_kinds import ErrorKinds, ErrorSet, error_set
from antflow._core.failure_limit import FailureLimit, FailureWindow
from antflow._core.failures import kinds_of, told_alone
from antflow._core.foreign import note
from antflow._core.ledger import ItemKey
from antflow._core.run_errors import TooManyFailures
from antflow._core.snapshot import FailedItem
from antflow._core.stage import Stage
from antflow._core.text import counted, error_type_name
from antflow._engine.run import Run
from antflow._engine.supervisor import Supervisor

HOW_TO_GO_ON = (
    "to go on, run what was not taken in yet, with "
    "retry_failed=[*error.results.failed, *error.results.cancelled]"
)
HOW_WITHOUT_RESULTS = (
    "to go on, run what was not taken in yet, with the items that failed or were cancelled as "
    "retry_failed (the failed ones are not in error.results: a stream has given them to its loop, "
    "and with collect_results=False none are kept)"
)


Failure = tuple[ItemKey, FailedItem]
"""An item that failed: its key in the run, and what is told of it."""


class FailureLimits:
    """Hears of each item that fails, and stops the run if that makes it hopeless.

    It decides when the books have a failure, before it is recorded: a journal then has which items
    are to be tried again before it has the failure that stops the run, so a kill in between loses
    neither. It stops as soon as that is recorded, before anything is awaited. An item that does not
    fail costs nothing here, whatever the limits are.

    Args:
        run: The run. Its ``to_retry`` is filled in here.
        supervisor: Stops it.
        stages: The stages, as the user described them.
        max_failures: The limit of the run, or ``None``.
        stop_on: The errors at which the run stops, in whatever stage.

    Attributes:
        stop_on: All errors at which the run stops, stage by stage; ``None`` = none.
    """

    def __init__(
        self,
        run: Run,
        supervisor: Supervisor,
        stages: Sequence[Stage],
        max_failures: FailureLimit | None,
        stop_on: ErrorKinds,
    ) -> None:
        self._run = run
        self._supervisor = supervisor
        self.stop_on: list[ErrorSet | None] = [
            error_set(stop_on, stage.stop_on) for stage in stages
        ]
        self._whole = _window(max_failures)
        self._own = [_window(stage.max_failures) for stage in stages]
        self._is_needed = any((self._whole, *self._own, *self.stop_on))
        # The stages whose failures were too many: what fails there later, in tries that had begun,
        # is to be tried again as well.
        self._given_up: Sequence[int] = ()
        self._stopping: tuple[str, TooManyFailures] | None = None

    def item_failed(self, envelope: Envelope, error: Exception) -> None:
        """An item has failed for good, and the books have it: decide what follows."""
        if not self._is_needed:
            return
        run, position = self._run, envelope.position
        failure = (envelope.key, run.failures.last)
        stop_on = self.stop_on[position]
        cause = None if stop_on is None else stop_on.found_in(error)
        if cause is not None or position in self._given_up:
            self._retry_later([failure])
        if run.is_stopping:
            return
        if cause is not None:
            self._stop_because_of(cause, failure, position)
            return
        ledger, book = run.ledger, run.ledger.stages[position]
        settled = ledger.accepted + ledger.children - ledger.in_flight
        whole, own = self._whole, self._own[position]
        if whole is not None and whole.is_tripped_by(failure, ledger.failed, settled):
            self._stop_at(whole, None, range(len(self._own)))
        elif own is not None and own.is_tripped_by(failure, book.failed, book.left):
            self._stop_at(own, run.facts.stage_names[position], [position])

    def _stop_because_of(self, cause: BaseException, failure: Failure, position: int) -> None:
        book, told = self._run.ledger.stages[position], failure[1]
        why = f"stopped by {error_type_name(cause)} (stop_on)"
        of = counted(book.left, "item")
        reason = f"{why}: {book.failed:,} of {of} failed in stage {told.stage!r}"
        self._stop(why, reason, told_alone(told))

    def _stop_at(
        self, window: FailureWindow[Failure], stage: str | None, given_up: Sequence[int]
    ) -> None:
        self._given_up = given_up
        of = counted(window.settled, "item")
        if window.of_last is None:
            kinds = self._run.failures.kinds_told(stage)
            self._run.to_retry = None
            if (memory := self._run.memory) is not None:
                memory.retry_later(None)
        else:
            of = f"the last {of}"
            kinds = kinds_of(told for _, told in window.failures)
            self._retry_later(window.failures)
        where = "" if stage is None else f" in stage {stage!r}"
        reason = f"{window.failed:,} of {of} failed{where} (max_failures={window.limit})"
        self._stop("stopped by max_failures", reason, kinds)

    def _stop(self, why: str, reason: str, failures: str) -> None:
        run = self._run
        how_to_go_on = HOW_TO_GO_ON if run.keeps_results else HOW_WITHOUT_RESULTS
        if run.error is not None:  # its source has failed: that is raised
            note(run.error, f"then {reason}: {failures}")
        self._stopping = why, TooManyFailures(reason, failures, how_to_go_on)

    def stop_if_hopeless(self) -> None:
        """The failure is recorded: stop the run, if it was the one that makes it hopeless."""
        if self._stopping is not None:
            (why, error), self._stopping = self._stopping, None
            self._supervisor.stop_intake(error)
            self._supervisor.shut_down(why)

    def _retry_later(self, failures: Iterable[Failure]) -> None:
        if (to_retry := self._run.to_retry) is not None:
            found = {key: told.item_id for key, told in failures}
            to_retry |= found
            if (memory := self._run.memory) is not None:
                memory.retry_later(found)


def _window(limit: FailureLimit | None) -> FailureWindow[Failure] | None:
    return None if limit is None else FailureWindow(limit)
