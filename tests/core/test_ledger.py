"""The books: legal transitions, entered live or folded later, give the same ledger."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antflow._core.envelope import Envelope
from antflow._core.errors import ItemCancelled
from antflow._core.failures import FailureBook
from antflow._core.ledger import Ledger
from antflow._core.run_facts import RunFacts
from antflow._core.transition import LEGAL, Kind, State, Transition, next_state
from antflow._engine.listeners import Listeners
from antflow._engine.recorder import Recorder
from antflow._monitor.callbacks import CallbackGuard
from antflow.testing import MemoryStore
from tests.support import fold

STAGES = 3


class LiveBooks:
    """Items walked through the recorders by hand, with a store that keeps every transition."""

    def __init__(self) -> None:
        self.ledger = Ledger(STAGES)
        self.store = MemoryStore()
        facts = RunFacts("run", tuple("ABC"), 0.0, 0.0)
        listeners = Listeners(facts, CallbackGuard(), _never, _never, count(1), self.store)
        self.recorders = [
            Recorder(stage, self.ledger, FailureBook(), facts, listeners) for stage in range(STAGES)
        ]
        self.clock = count(1)
        self.items: list[tuple[Envelope, State]] = []

    def step(self, choice: int) -> None:
        """Do one of the things that are legal now."""
        legal: list[tuple[int | None, Kind]] = [(None, Kind.ADMITTED)]
        for held, (_, state) in enumerate(self.items):
            legal += [(held, kind) for (before, kind) in LEGAL if before is state]
        legal = [step for step in legal if step[1] not in (Kind.DROPPED, Kind.EXPANDED)]
        number, kind = legal[choice % len(legal)]
        now = float(next(self.clock))
        if number is None:
            envelope = Envelope(len(self.items), len(self.items), "value", {}, "value")
            self.recorders[0].admitted([envelope], now)
            self.items.append((envelope, State.QUEUED))
            return
        envelope, state = self.items[number]
        self._enter(envelope, state, kind, now)
        last = envelope.position == STAGES - 1
        following = next_state(state, kind, last_stage=last)
        assert following is not None
        if following is State.QUEUED:
            envelope.position += 1
            envelope.attempts = 0
        self.items[number] = (envelope, following)

    def _enter(self, envelope: Envelope, state: State, kind: Kind, now: float) -> None:
        recorder = self.recorders[envelope.position]
        book = self.ledger.stages[envelope.position]
        # One worker per item, as in the engine: a worker holds one item at a time.
        worker = book.worker(envelope.sequence_id)
        if kind is Kind.STARTED:
            recorder.started(envelope, worker, now)
        elif kind is Kind.COMPLETED:
            recorder.completed(envelope, worker, "new", now)
        elif kind is Kind.SKIPPED:
            recorder.skipped(envelope, worker, now)
        elif kind is Kind.RETRYING:
            recorder.retrying(envelope, worker, ValueError(), now)
        elif kind is Kind.FAILED:
            holder = worker if state is State.IN_PROGRESS else None
            recorder.failed(envelope, holder, ValueError(), now)
        else:
            holder = worker if state is State.IN_PROGRESS else None
            recorder.cancelled(envelope, holder, ItemCancelled(), now)


def _never(error: BaseException) -> None:
    raise error


def _counts(ledger: Ledger) -> list[object]:
    return [
        (ledger.accepted, ledger.children, ledger.in_flight),
        [
            (book.entered, book.completed, book.in_progress, book.waiting, book.retrying)
            for book in ledger.stages
        ],
        [(book.failed, book.skipped, book.retried, book.cancelled) for book in ledger.stages],
        [
            (worker.stage, worker.index, worker.completed, worker.failed, worker.busy)
            for worker in ledger.workers()
            if worker.since == worker.since
        ],
    ]


@given(st.lists(st.integers(0, 10_000), max_size=80))
def test_ledger_equals_the_fold_of_all_recorded_transitions(choices: list[int]) -> None:
    """What the recorders entered live is what the kept transitions add up to, at every length."""
    live = LiveBooks()
    for choice in choices:
        live.step(choice)
    assert _counts(fold(live.store.transitions, STAGES)) == _counts(live.ledger)


@given(st.lists(st.integers(0, 10_000), max_size=80))
def test_books_balance_after_every_legal_transition(choices: list[int]) -> None:
    """Accepted items are settled or in flight, and in exactly one place, after each single step."""
    live = LiveBooks()
    for choice in choices:
        live.step(choice)
        assert live.ledger.discrepancy() is None


@given(st.lists(st.integers(0, 10_000), max_size=40), st.data())
def test_apply_recognises_a_transition_it_has_entered(
    choices: list[int], data: st.DataObject
) -> None:
    """Applying a transition again changes nothing, so a journal may hand one out twice."""
    live = LiveBooks()
    for choice in choices:
        live.step(choice)
    ledger = Ledger(STAGES)
    for number, transition in enumerate(live.store.transitions):
        assert ledger.apply(transition)
        again = data.draw(st.integers(0, number))
        assert not ledger.apply(live.store.transitions[again])
    assert _counts(ledger) == _counts(live.ledger)


def test_discrepancy_names_the_numbers_when_an_entry_is_missing() -> None:
    """A ledger with one entry wrong says so, with every count."""
    ledger = Ledger(STAGES)
    ledger.stages[0].admitted(2)
    assert ledger.discrepancy() is None
    ledger.accepted = 3
    text = ledger.discrepancy()
    assert text is not None
    assert "accepted 3" in text
    assert "in flight 2" in text


def test_discrepancy_notices_an_item_that_is_nowhere() -> None:
    """An item that left the run's count but not its stage is noticed."""
    ledger = Ledger(STAGES)
    ledger.stages[0].admitted(1)
    ledger.in_flight = 0
    ledger.stages[2].worker(0).completed = 1
    ledger.stages[2].entered = 1
    assert ledger.discrepancy() == "items in flight: 0, in the stages: 1"


def test_discrepancy_notices_an_item_that_is_in_no_stage() -> None:
    """An item that left its stage but not the run's count, as one that was lost, is noticed."""
    ledger = Ledger(STAGES)
    ledger.stages[0].admitted(1)
    ledger.stages[0].entered = 0
    assert ledger.discrepancy() == "items in flight: 1, in the stages: 0"


def test_apply_refuses_a_started_transition_without_a_worker() -> None:
    """A transition that cannot have happened is an error, not a wrong count."""
    transition = Transition("run", 1, 0, (), 0, {}, 0, Kind.STARTED, -1, "", 1, 0.0, 0.0, None)
    with pytest.raises(ValueError, match="names no worker"):
        Ledger(1).apply(transition)


def test_short_tries_leave_nothing_of_their_limits_to_later_ones() -> None:
    """What a limit held up a try too short to be counted is not taken off the next long one."""
    books = LiveBooks()
    book, recorder = books.ledger.stages[0], books.recorders[0]
    worker, now = book.worker(0), 1.0
    for number, seconds in enumerate([40e-6] * 20_000 + [1.0]):
        envelope = Envelope(number, number, "value", {}, "value")
        recorder.admitted([envelope], now)
        recorder.started(envelope, worker, now)
        worker.wait_begins("limited", now)
        worker.wait_ends(now + 30e-6)
        now += seconds
        recorder.completed(envelope, worker, "new", now)
    assert book.run_times.read(20_001).quantile(1.0) == pytest.approx(1.0, rel=0.05)
