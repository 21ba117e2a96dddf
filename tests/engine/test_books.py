"""A run may begin with the books of one that was cut off, and goes on where that was."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest

from antflow import Drop, PipelineResult, Retry, RunFacts, Stage, StatusTracker
from antflow._core.books import Books, folded
from antflow._core.envelope import Envelope
from antflow._core.ledger import Ledger
from antflow._core.transition import Kind, Transition
from antflow._engine.engine import Engine
from antflow._engine.run import Run
from antflow._monitor.callbacks import CallbackGuard
from antflow.testing import MemoryStore, run_virtual

ITEMS = 5
COUNTS = ("accepted", "children", "completed", "failed", "dropped", "expanded", "cancelled")


class Journal(MemoryStore):
    """A store from which the items in flight can be had again: it keeps every value."""

    def __init__(self) -> None:
        super().__init__()
        self.entering: dict[tuple[Any, int], Any] = {}
        self.begun_at: list[int] = []

    def opened(self, facts: RunFacts, stages: Sequence[Stage]) -> None:
        super().opened(facts, stages)
        self.begun_at.append(len(self.transitions))

    def admit(self, envelopes: Sequence[Envelope]) -> Any:
        for envelope in envelopes:
            self.entering[envelope.key, 0] = envelope.value
        return super().admit(envelopes)

    def record(self, transition: Transition, value: Any) -> Any:
        if transition.kind in (Kind.COMPLETED, Kind.EMITTED):
            self.entering[transition.key, transition.stage + 1] = value
        return super().record(transition, value)

    def cut_off_after(self, length: int) -> Journal:
        """A journal with only the first transitions."""
        journal = Journal()
        journal.transitions = self.transitions[:length]
        journal.entering = dict(self.entering)
        journal.begun_at = [0]
        return journal

    def revive(self, entered: Transition, stage: int) -> Envelope:
        value = self.entering[entered.key, stage]
        metadata = dict(entered.metadata)
        envelope = Envelope(
            entered.seq, entered.item_id, value, metadata, value, 100, stage, entered.branch
        )
        # The children that it has are not made again.
        envelope.children = sum(
            each.kind is Kind.EMITTED and (each.seq, each.branch[:-1]) == entered.key
            for each in self.transitions
        )
        return envelope

    def sessions(self) -> list[list[Transition]]:
        ends = [*self.begun_at[1:], len(self.transitions)]
        return [self.transitions[a:b] for a, b in zip(self.begun_at, ends, strict=True)]

    def books(self) -> Books:
        return folded(self.sessions(), len(stages()), self.revive)


class Paid:
    """Counts what has been done; what was done twice would be paid for twice."""

    def __init__(self) -> None:
        self.calls: Counter[Any] = Counter()

    async def split(self, number: int) -> list[Any]:
        await asyncio.sleep(1)
        self.calls["split", number] += 1
        return [(number, 0), (number, 1), (number, 2)]

    async def check(self, pair: tuple[int, int]) -> Any:
        await asyncio.sleep(0.5)
        self.calls["check", pair] += 1
        if pair == (1, 1):
            raise LookupError("no such page")
        return Drop if pair == (2, 2) else pair


def stages(paid: Paid | None = None) -> list[Stage]:
    paid = Paid() if paid is None else paid
    retry = Retry(attempts=2, wait=1.5)
    return [
        Stage("Split", 2, [paid.split], expand=True),
        Stage("Check", 2, [paid.check], retry=retry),
        Stage("Keep", 1, [str]),
    ]


def run(journal: Journal, books: Books | None, paid: Paid, tracker: StatusTracker) -> Run:
    """Run the items that the books do not have, after those that they have."""
    done: list[Run] = []
    results: list[PipelineResult[Any]] = []
    first = 0 if books is None else books.next_sequence_id

    async def main() -> None:
        run = Engine(
            stages(paid),
            deliver=results.append,
            guard=CallbackGuard(),
            store=journal,
            listeners=[tracker.follow()],
            books=books,
        )
        run.intake.take_all(islice(range(ITEMS), first, None))
        await run.supervisor.wait()
        done.append(run.run)

    run_virtual(main())
    return done[0]


def counts(ledger: Ledger) -> dict[str, int]:
    return {name: getattr(ledger, name) for name in COUNTS}


def whole_run() -> tuple[Journal, Run]:
    journal = Journal()
    return journal, run(journal, None, Paid(), StatusTracker())


def test_run_goes_on_wherever_the_one_before_was_cut_off() -> None:
    """Cut off after any transition: every item gets one outcome, and the counts are the same."""
    whole, first = whole_run()
    assert len(whole.transitions) > 60
    for length in range(1, len(whole.transitions)):
        journal = whole.cut_off_after(length)
        tracker = StatusTracker()
        second = run(journal, journal.books(), Paid(), tracker)
        assert counts(second.ledger) == counts(first.ledger), length
        assert second.facts.run_id == whole.transitions[0].run
        assert [each.n for each in journal.transitions] == list(
            range(1, len(journal.transitions) + 1)
        )
        again = journal.books()
        assert counts(again.ledger) == counts(first.ledger)
        assert again.waiting == []
        assert sum(tracker.get_stats().values()) == 4 * ITEMS


@pytest.mark.parametrize("first", [5, 17, 30, 44])
def test_run_that_is_cut_off_twice_goes_on_again(first: int) -> None:
    """What was in hand at either end waits again: the third run finishes what is left."""
    whole, complete = whole_run()
    journal = whole.cut_off_after(first)
    run(journal, journal.books(), Paid(), StatusTracker())
    begun, length = journal.begun_at[1], len(journal.transitions)
    for cut in range(begun, length, 3):
        again = journal.cut_off_after(cut)
        again.begun_at = [0, begun]
        third = run(again, again.books(), Paid(), StatusTracker())
        assert counts(third.ledger) == counts(complete.ledger), cut


def test_what_was_through_a_stage_is_not_done_again() -> None:
    """After a cut, only what had not been recorded as through is called."""
    whole, _ = whole_run()
    length = next(n for n, each in enumerate(whole.transitions) if each.kind is Kind.EXPANDED) + 12
    journal = whole.cut_off_after(length)
    through = {each.key for each in journal.transitions if each.kind is Kind.EXPANDED}
    assert through
    paid = Paid()
    run(journal, journal.books(), paid, StatusTracker())
    for seq, _ in through:
        assert paid.calls["split", seq] == 0
    assert max(paid.calls.values()) <= 2  # a retry


def test_tries_that_an_item_has_had_are_not_forgotten() -> None:
    """An item revived with its tries goes on counting them, and the books balance."""
    whole, first = whole_run()
    cut = next(n for n, each in enumerate(whole.transitions) if each.kind is Kind.RETRYING) + 1
    journal = whole.cut_off_after(cut)
    tried = whole.transitions[cut - 1]

    def revive(entered: Transition, stage: int) -> Envelope:
        envelope = journal.revive(entered, stage)
        if entered.key == tried.key:
            envelope.attempts = tried.attempt
        return envelope

    paid = Paid()
    second = run(journal, folded(journal.sessions(), 3, revive), paid, StatusTracker())
    assert paid.calls["check", (1, 1)] == 1
    assert second.ledger.failed == first.ledger.failed == 1
    assert second.ledger.stages[1].retrying == 0


def test_tracker_knows_the_items_that_were_taken_over() -> None:
    """An item of the run before has a history in this one, from the stage where it goes on."""
    whole, _ = whole_run()
    journal = whole.cut_off_after(
        next(n for n, each in enumerate(whole.transitions) if each.kind is Kind.EXPANDED) + 1
    )
    tracker = StatusTracker()
    books = journal.books()
    child = next(envelope for envelope in books.waiting if envelope.branch)
    run(journal, books, Paid(), tracker)
    history = [(event.status, event.stage) for event in tracker.get_history(child.id)]
    assert history[0] == ("queued", "Check")
    assert history[-1] == ("completed", "Keep")


def test_records_that_do_not_fit_are_refused() -> None:
    """Records in an order that cannot have happened are an error, with the number and both."""
    whole, _ = whole_run()
    started = next(each for each in whole.transitions if each.kind is Kind.STARTED)
    with pytest.raises(ValueError, match=rf"transition {started.n}: STARTED at stage 0, but NEW"):
        folded([[started]], 3, whole.revive)
    with pytest.raises(ValueError, match="no transitions"):
        folded([], 3, whole.revive)
