"""A child process as its parent sees it: started, asked, seen out, by its own thread.

    ask ──▶ questions ──▶ thread ──▶ connection ──▶ child process (`child_main`)
        ◀── future ◀─────        ◀──────────────

Only the thread waits, so the event loop never does: not for a process to start, for a value to be
pickled, nor for a killed process to be gone. It is a daemon, and the process is killed at exit: an
event loop that was left behind keeps no program from ending.

That the connection closes is the one sign that the process has ended: the kernel closes it then,
and until then the child does not. A process that ended stays a zombie, and its number its own,
until it is buried here.

Children are spawned, whatever the platform's default is. A fork copies locks that other threads
hold. A fork server has the environment of when it was started, and lets Ctrl-C through to children
that are just starting; a spawned child inherits the signal mask of the thread that starts it.
"""

from __future__ import annotations

import asyncio
import atexit
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from antflow._core.counters import Counters
from antflow._core.error_copies import Failure, copied, out_of_parcels
from antflow._core.errors import PipelineError
from antflow._core.log import warn
from antflow._core.stage import task_name
from antflow._core.text import clean, safe_str
from antflow._core.value_or_error import ValueOrError, unloadable
from antflow._engine.children.child_main import (
    NAME_PREFIX,
    NOTHING,
    UNGUARDED,
    end_group,
    receive,
    send,
    serve,
)

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

LEAVE_SECONDS = 30.0
"""How long a child may take to leave its resources, and then to end, before it is killed."""

Question = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any], Mapping[str, Any], bool]
"""Function, arguments, keyword arguments, resources, and whether the answer is that of a batch."""

Phase = Literal["starting", "idle", "at work"]


class ChildLost(ChildProcessError):
    """A child process ended without being told to.

    Attributes:
        phase: What it was doing: ``"starting"``, ``"idle"`` or ``"at work"``.
    """

    def __init__(self, message: str, phase: Phase) -> None:
        super().__init__(message)
        self.phase = phase


class NoChild(PipelineError):
    """No child process can be started: the fault is in the program, not in one call."""


class ProcessorTime:
    """How much processor time child processes have taken, those that are gone included.

    Attributes:
        seconds: All of them together, as far as they have said.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Add seconds that one of them has taken; from any thread."""
        with self._lock:
            self.seconds += seconds


class Child:
    """One child process, and the thread that talks to it.

    The thread puts its answers into the futures as values: a future that holds an exception changes
    some, and complains about those that were never retrieved.

    Args:
        name: Whose it is.
        processor_time: Adds up its processor time.
        counters: Adds up what its functions count.

    Attributes:
        is_over: It takes no more questions.
        is_gone: Done when the process has ended and left no zombie.
    """

    def __init__(self, name: str, processor_time: ProcessorTime, counters: Counters) -> None:
        self._name = name
        self._processor_time = processor_time
        self._computed = 0.0
        self._counters = counters
        self._miscounted: ValueError | None = None
        self._loop = asyncio.get_running_loop()
        self.is_over = False
        self.is_gone: asyncio.Future[None] = self._loop.create_future()
        self._questions: SimpleQueue[tuple[Question, asyncio.Future[ValueOrError]] | None]
        self._questions = SimpleQueue()
        self._lock = threading.Lock()  # around the next two
        self._is_unwanted = False
        self._process: SpawnProcess | None = None
        self._pid = 0
        self._connection: Connection[Any, Any] | None = None
        threading.Thread(target=self._live, name=f"antflow-{name}", daemon=True).start()

    # From outside

    def ask(self, question: Question) -> asyncio.Future[ValueOrError]:
        """Request a call, to be made after those before it."""
        answer: asyncio.Future[ValueOrError] = self._loop.create_future()
        self._questions.put((question, answer))
        return answer

    def dismiss(self) -> None:
        """Make it leave its resources and end, once it has answered."""
        self.is_over = True
        self._questions.put(None)

    def kill(self) -> None:
        """End it now, whatever it does; from any thread."""
        self.dismiss()
        with self._lock:
            self._is_unwanted = True
            # If it ended by itself, perhaps long ago, its pid may have been reused by now.
            if self._process is not None and self._process.exitcode is None:
                end_group(self._pid)

    # In its thread

    def _live(self) -> None:
        try:
            while (asked := self._questions.get()) is not None:
                question, answer = asked
                self._deliver(answer, self._pair(question))
                del asked, question, answer  # they may be large, and the next may take long to come
                if self.is_over:
                    break
            self._part()
        finally:
            self.is_over = True
            self._deliver(self.is_gone, None)

    def _deliver(self, future: asyncio.Future[Any], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(_settle, future, value)
        except RuntimeError:  # the event loop is closed: nothing waits any more
            pass

    def _pair(self, question: Question) -> ValueOrError:
        name = task_name(question[0])
        try:
            message = _pickled(question, name)
            connection = self._connection or self._start()
            value, error = self._answer(connection, message, name)
            return out_of_parcels(value) if question[-1] else value, error
        except BaseException as error:  # why: another thread waits for it
            return None, error

    def _start(self) -> Connection[Any, Any]:
        here = None
        label = NAME_PREFIX + self._name
        try:
            from multiprocessing import get_context, resource_tracker

            context = get_context("spawn")
            here, there = context.Pipe()
            with there:
                process = context.Process(target=serve, args=(there,), name=label, daemon=False)
                resource_tracker.ensure_running()  # starting it would undo the next line
                _hold_back_interrupts()
                process.start()
        except Exception as error:
            self.is_over = True
            if here is not None:
                here.close()
            raise self._unable(error) from error
        assert process.pid is not None
        self._pid = process.pid
        self._connection = here
        atexit.register(self.kill)
        with self._lock:
            self._process = process
            if self._is_unwanted:
                end_group(self._pid)
        try:
            self._note_computed(here.recv())
        except (EOFError, OSError):
            raise self._lost("starting") from None
        return here

    def _answer(self, connection: Connection[Any, Any], message: bytes, name: str) -> ValueOrError:
        if connection.poll():  # it was asked nothing yet: the connection has closed
            raise self._lost("idle")
        try:
            send(connection, message, name)
            value, fault, note = self._hear(connection)
        except Exception:  # it is gone; or out of step, if memory ran out while it was read
            raise self._lost("at work") from None
        if isinstance(note, Failure):
            return None, copied(value, note)
        if (miscounted := self._miscounted) is not None:
            return None, miscounted
        if fault is not None:
            raise unloadable(name, note, fault, "its child process")
        return value, None

    def _hear(self, connection: Connection[Any, Any]) -> tuple[Any, BaseException | None, Any]:
        """Receive until the awaited message; note on the way what each one says of its work."""
        self._miscounted = None
        while True:
            body, fault, report = receive(connection)
            self._note_computed(report.computed)
            try:
                self._counters.add_all(report.counts)
            except ValueError as error:  # all children together use too many names
                self._miscounted = error
            if report.is_last:
                return body, fault, report.about

    def _note_computed(self, seconds: float) -> None:
        self._processor_time.add(seconds - self._computed)
        self._computed = seconds

    def _lost(self, phase: Phase) -> Exception:
        """The process is gone: clear up, and say what happened to it."""
        if phase == "at work":  # it went this moment; what its task had started goes with it
            end_group(self._pid)
        code = self._bury()
        if phase == "starting" and code == UNGUARDED:
            return self._unable(
                "it would start the pipeline again while it imports the program; start it under "
                "`if __name__ == '__main__':`"
            )
        if phase == "starting" and code is not None and code >= 0:
            return self._unable(
                f"it ended with exit code {code} while it imported the program (see stderr)"
            )
        return ChildLost(f"child process {self._pid} {_in_words(code)} while {phase}", phase)

    def _unable(self, reason: object) -> NoChild:
        return NoChild(f"no child process of {self._name} could be started: {reason}")

    def _part(self) -> None:
        if self._process is None or (connection := self._connection) is None:
            return
        has_ended = False
        try:
            send(connection, NOTHING, None)
            if connection.poll(LEAVE_SECONDS):
                if (failure := self._hear(connection)[2]) is not None:
                    warn(
                        "%s: closing its resources: %s: %s",
                        self._name,
                        clean(failure.name),
                        clean(failure.text),
                    )
                has_ended = connection.poll(LEAVE_SECONDS)  # that is, when the connection closes
        except (EOFError, OSError):
            has_ended = True
        if not has_ended:
            end_group(self._pid)
        self._bury()

    def _bury(self) -> int | None:
        """Wait for the end of a process that is ending; returns its exit code if that is known."""
        assert self._process is not None
        assert self._connection is not None
        self.is_over = True
        with self._lock:
            process, self._process = self._process, None
        self._connection.close()
        atexit.unregister(self.kill)
        process.join()
        # Not closed: at exit `multiprocessing` joins all processes that it knows, perhaps this
        # one. When nothing refers to it any more, its files are closed.
        return process.exitcode


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _hold_back_interrupts() -> None:
    """Make this thread's children start with Ctrl-C held back, until they can take it."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _in_words(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _pickled(question: Question, name: str) -> bytes:
    try:
        return pickle.dumps(question, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise TypeError(
            f"the arguments of task {name} cannot be sent to a child process: {safe_str(error)}"
        ) from error
