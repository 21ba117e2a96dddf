"""What a child process sends, from two threads over one connection."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from antflow._core.counters import Counters
from antflow._engine.children import child_main
from antflow._engine.children.child_main import NOTHING, Report, Reports


class SlowConnection:
    """Takes its time between the two parts of a message, so that another could come in between."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.begun = threading.Event()
        """Half of a report has been sent."""

    def send_bytes(self, body: bytes) -> None:
        self.sent.append(body)
        if body == NOTHING:
            self.begun.set()
        time.sleep(0.01)

    def send(self, note: Report) -> None:
        self.sent.append(note)


def test_messages_of_two_threads_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a body and its note; after the answer comes no report of that call."""
    monkeypatch.setattr(child_main, "BETWEEN_REPORTS", 0.001)
    connection: Any = SlowConnection()
    reports = Reports(connection, Counters())
    for _ in range(5):
        connection.begun.clear()
        reports.expect()
        assert connection.begun.wait(60)
        reports.answer(b"answer", "int")
    bodies, notes = connection.sent[0::2], connection.sent[1::2]
    assert all(isinstance(note, Report) for note in notes)
    pairs = [(body, note.is_last) for body, note in zip(bodies, notes, strict=True)]
    assert pairs.count((b"answer", True)) == 5
    assert set(pairs) == {(b"answer", True), (NOTHING, False)}
    assert pairs[-1] == (b"answer", True)
