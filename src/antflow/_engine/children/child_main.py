"""The program of a stage's child process, and how the two sides talk.

A message is a body and a note. The body holds the user's objects, which may turn out not to be
loadable over there; the note is plain, always loadable, and says what the body is. So whatever is
wrong with a body, the two sides never fall out of step.

    parent ◀── seconds of processor time ─── child, once: it has started
    parent ── (function, args, kwargs, resources, batch?), name ─▶ child
    parent ◀── value,                              type's name ─── child
    parent ◀── parts of an exception,      a `Failure` ─────────── child
    parent ── None, None: leave ─────────────────────────────────▶ child

Each note from the child says how much processor time it has taken so far, which only the child can
tell, and what its tasks have counted since the last one. During a long call a `Report` with nothing
else comes now and then, so that both are known when they happen, and not long after.

The child leads its own process group. Ctrl-C, which the terminal sends to the whole group, does not
reach it (the parent decides), and killing it kills the programs its tasks started too.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from antflow._core.counters import Counters, counters_here
from antflow._core.error_copies import Failure, in_parts, in_words
from antflow._core.text import safe_str
from antflow._core.value_or_error import sendable

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

NAME_PREFIX = "antflow "
UNGUARDED = 78
"""Exit code of a child that would start a pipeline while it imports the program (EX_CONFIG)."""

NOTHING = pickle.dumps(None)

_dumps = partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL)

SECONDS_AS_ORPHAN = 1.0
"""How long a child outlives its parent, to leave its resources if it has nothing else to do."""

BETWEEN_REPORTS = 0.5
"""Seconds between two reports of a call that goes on, as far as its task lets go of Python's lock.
Up to this much of a child's computing is unknown if it is killed."""

_is_serving = False


class Report(NamedTuple):
    """The note of a message from a child.

    Attributes:
        about: The kind of body: a type's name, a `Failure`, or ``None`` where there is no body.
        computed: Seconds of processor time that the child has taken since it was started.
        is_last: Whether this is what was waited for.
        counts: What was counted since the last report.
    """

    about: str | Failure | None
    computed: float
    is_last: bool = True
    counts: Mapping[str, int | float] = {}


def send(connection: Connection[Any, Any], body: bytes, note: object) -> None:
    """Send a message.

    Args:
        connection: Where to.
        body: Something pickled.
        note: ``None``, a string or a `Report`.

    Raises:
        OSError: The other side is gone.
    """
    connection.send_bytes(body)
    connection.send(note)


def receive(connection: Connection[Any, Any]) -> tuple[Any, BaseException | None, Any]:
    """Wait for a message.

    Returns:
        The body, or ``None`` and what loading it raised; and the note.

    Raises:
        EOFError: The other side is gone.
        OSError: The same.
    """
    body = fault = None
    try:
        body = connection.recv()
    except BaseException as error:  # why: it may be the object's own; a lost peer shows just below
        fault = error
    return body, fault, connection.recv()


def refuse_unguarded() -> None:
    """End this process if it is a child that came here by importing the program.

    A child imports the program it is part of. A program that starts its pipeline right then, not
    under ``if __name__ == "__main__":``, would do so in each child, which would need children.
    """
    from multiprocessing import current_process, parent_process

    # While a child imports the program, `multiprocessing` has told it its name, not yet its parent.
    is_named = current_process().name.startswith(NAME_PREFIX)
    if is_named and parent_process() is None and not _is_serving:
        os._exit(UNGUARDED)  # what it printed so far, the parent has printed too


def end_group(pid: int) -> None:
    """Kill a child, and what its tasks started and is still running."""
    if sys.platform == "win32":
        os.kill(pid, signal.SIGTERM)
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it is just starting, or gone
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Reports:
    """Sends a child's answers and, while one is awaited, how much it has computed.

    A separate thread sends the latter, as far as the task lets go of Python's lock; it is parked
    while nothing is asked.

    Args:
        connection: To the parent.
        counters: What tasks count.
    """

    def __init__(self, connection: Connection[Any, Any], counters: Counters) -> None:
        self._connection = connection
        self._counters = counters
        self._lock = threading.Lock()  # around a message, which has two parts
        self._is_awaited = threading.Event()
        threading.Thread(target=self._report, name="antflow reports", daemon=True).start()

    def expect(self) -> None:
        """An answer is awaited from now on."""
        self._is_awaited.set()

    def answer(self, body: bytes, about: str | Failure | None) -> None:
        """Send the answer.

        Raises:
            OSError: The parent is gone.
        """
        with self._lock:
            self._is_awaited.clear()
            send(self._connection, body, self._report_of(about))

    def _report_of(self, about: str | Failure | None, *, is_last: bool = True) -> Report:
        return Report(about, time.process_time(), is_last, self._counters.taken())

    def _report(self) -> None:
        try:
            while self._is_awaited.wait():
                time.sleep(BETWEEN_REPORTS)
                with self._lock:
                    if self._is_awaited.is_set():
                        send(self._connection, NOTHING, self._report_of(None, is_last=False))
        except OSError:  # the parent is gone, which is seen elsewhere
            pass


def serve(connection: Connection[Any, Any]) -> None:
    """Answer calls until told to leave, or until the parent is gone.

    Args:
        connection: To the parent. It stays open to the very end: when it closes, this process is
            gone.
    """
    global _is_serving
    _is_serving = True
    _stand_apart(connection)
    values: dict[str, Any] = {}
    resources = ExitStack()
    counters = Counters()
    counters_here.set(counters)
    reports = Reports(connection, counters)
    try:
        connection.send(time.process_time())
        while True:
            question, fault, name = receive(connection)
            if name is None:
                break
            reports.expect()
            reports.answer(*_answer(question, fault, name, values, resources))
            del question, fault  # they may be large, and the next ones may take long to come
        failure = _left(resources)
        reports.answer(NOTHING, failure)
    except (EOFError, OSError):  # the parent is gone
        _left(resources)


def _stand_apart(connection: Connection[Any, Any]) -> None:
    """Do not go down with the terminal's group, but not outlive the parent either."""
    # A handler rather than SIG_IGN, which the programs that tasks start would inherit. The signal
    # was held back until now.
    signal.signal(signal.SIGINT, _stay)
    if sys.platform != "win32":
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # A process that a task forks must not keep the connection open when this one is gone.
        os.register_at_fork(after_in_child=connection.close)
        os.set_inheritable(connection.fileno(), False)
    threading.Thread(target=_end_after_parent, name="antflow parent watch", daemon=True).start()


def _stay(number: int, frame: FrameType | None) -> None:
    pass


def _end_after_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    parent.join()
    time.sleep(SECONDS_AS_ORPHAN)
    end_group(os.getpid())


def _answer(
    question: Any,
    fault: BaseException | None,
    name: str,
    values: dict[str, Any],
    resources: ExitStack,
) -> tuple[bytes, str | Failure]:
    try:
        if fault is not None:
            raise TypeError(
                f"the call of task {name} could not be loaded in its child process: "
                f"{type(fault).__name__}: {safe_str(fault)}"
            ) from fault
        function, args, kwargs, factories, is_batch = question
        _enter(factories, values, resources)
        value = function(*args, **kwargs, **values)
        return sendable(name, value, is_batch, _dumps, "its child process")
    except BaseException as error:  # why: the parent judges it
        return in_parts(error), in_words(error, own_frames=1)


def _enter(
    factories: Mapping[str, Callable[[], Any]], values: dict[str, Any], resources: ExitStack
) -> None:
    for name, factory in factories.items():
        if name not in values:
            manager = factory()
            if not hasattr(manager, "__enter__") and hasattr(manager, "__aenter__"):
                raise TypeError(
                    f"resource {name}: {type(manager).__name__} is an async context manager; "
                    'with executor="process" it must be one for a plain "with"'
                )
            values[name] = resources.enter_context(manager)


def _left(resources: ExitStack) -> Failure | None:
    try:
        resources.close()
    except BaseException as error:  # why: it is on its way out; the parent logs it
        return in_words(error, own_frames=1)
    return None
