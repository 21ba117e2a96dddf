"""Tasks for child processes, which import them from here."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from antflow import RetryAfter, count


def add(first: int, second: int = 1) -> int:
    return first + second


def pid(*_: object) -> int:
    return os.getpid()


def give(make: Callable[[], Any]) -> Any:
    return make()


def take(value: object) -> str:
    return type(value).__name__


def note(file: Path, line: object) -> None:
    with file.open("a") as lines:
        lines.write(f"{line}\n")


def noted(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


# -- that compute ---------------------------------------------------------------------------------


def compute(seconds: float) -> float:
    """Takes so much processor time; returns how much its process has taken by then."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return time.process_time()


def compute_until_noted(file: Path) -> float:
    """Computes until there is something in the file."""
    while not noted(file):
        compute(0.01)
    return time.process_time()


def compute_and_die_once(file: Path, seconds: float) -> float:
    """Computes; the first time its process then ends."""
    compute(seconds)
    return die(file, times=1)


# -- that end or hold up their process -------------------------------------------------------------


def noted_sleep(file: Path, seconds: float = 3600, times: int = 1_000_000) -> int:
    """Sleeps at its first so many calls, and returns how many there were."""
    note(file, os.getpid())
    calls = len(noted(file))
    if calls <= times:
        time.sleep(seconds)
    return calls


def die(file: Path, times: int = 1_000_000) -> int:
    """Ends its process at its first so many calls, and returns how many there were."""
    note(file, os.getpid())
    calls = len(noted(file))
    if calls <= times:
        os._exit(3)
    return calls


def die_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_with_fork_left_behind(file: Path) -> None:
    if not (child := os.fork()):
        time.sleep(3600)
        os._exit(0)
    note(file, child)
    os._exit(3)


def sleep_in_program(file: Path) -> None:
    """Starts another program and waits for it, for an hour."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as program:
        note(file, os.getpid())
        note(file, program.pid)


def interrupt_program() -> int:
    """Stops another program as Ctrl-C does, and returns how it ended."""
    code = "print(flush=True); import time; time.sleep(3600)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
    return program.returncode


def leave_thread() -> None:
    threading.Thread(target=time.sleep, args=(3600,)).start()


# -- values that cannot be sent, or not be loaded --------------------------------------------------


class Unloadable:
    """Can be pickled, and what is pickled raises when it is loaded."""

    def __init__(self, error: type[BaseException] = ValueError) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return raise_, (self.error,)


def raise_(error: type[BaseException]) -> None:
    raise error("not here")


def lock() -> Any:
    return threading.Lock()


async def coroutine() -> None: ...


# -- exceptions ------------------------------------------------------------------------------------


class Plain(Exception):
    pass


class MoreArguments(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class OwnText(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Holding(Exception):
    """Holds something that cannot be sent."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class HoldingArgument(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text, threading.Lock())

    def __str__(self) -> str:
        return str(self.args[0])


class PoisonedReduce(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class PoisonedLoad(Exception):
    def __reduce__(self) -> Any:
        return raise_, (SystemExit,)


class PoisonedStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class NoAttributes(Exception):
    """Refuses every look at it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class HidesMessage(ExceptionGroup[Exception]):
    """A group that says nothing of itself."""

    @property
    def message(self) -> str:
        raise RuntimeError("no")


class Unbound:
    """As the proxies of web frameworks are, outside a request."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("outside of a request")


class Addressed(Exception):
    """Has a text that is another one in each process."""


def addressed() -> Exception:
    return Addressed(object())


def local_class() -> Exception:
    class Local(Exception):
        pass

    return Local("far away")


MAKERS: dict[str, Callable[[], BaseException]] = {
    "Plain": partial(Plain, "a", 2),
    "MoreArguments": partial(MoreArguments, 503, "busy"),
    "OwnText": partial(OwnText, 7),
    "KeywordOnly": partial(KeywordOnly, code=7),
    "Frozen": partial(Frozen, 7),
    "Holding": partial(Holding, "held"),
    "HoldingArgument": partial(HoldingArgument, "held"),
    "Addressed": addressed,
    "PoisonedReduce": partial(PoisonedReduce, "text"),
    "PoisonedStr": partial(PoisonedStr, "text"),
    "FileNotFoundError": partial(FileNotFoundError, 2, "gone", "file"),
    "UnicodeDecodeError": partial(UnicodeDecodeError, "utf-8", b"\xff", 0, 1, "bad"),
    "ExceptionGroup": partial(ExceptionGroup, "both", [Plain("a"), KeyError("b")]),
    "CancelledError": partial(asyncio.CancelledError, "own"),
    "KeyboardInterrupt": partial(KeyboardInterrupt, "own"),
    "SystemExit": partial(SystemExit, 4),
}

BEYOND_COPYING: dict[str, Callable[[], BaseException]] = {
    "PoisonedLoad": partial(PoisonedLoad, "text"),
    "local_class.<locals>.Local": local_class,
}


ODD: dict[str, Callable[[], BaseException]] = {
    "NoAttributes": partial(NoAttributes, "text"),
    "HidesMessage": partial(HidesMessage, "both", [Plain("a"), KeyError("b")]),
}


def fail_oddly(name: str) -> None:
    raise ODD[name]()


def unbound() -> Unbound:
    return Unbound()


def fail_in_group(name: str) -> None:
    raise BaseExceptionGroup("two", [RetryAfter(0.01), (MAKERS | BEYOND_COPYING)[name]()])


def fail(name: str) -> None:
    raise (MAKERS | BEYOND_COPYING)[name]()


def answers(names: list[str]) -> list[Any]:
    """A batch: each value but "fine" is answered with the error that it names."""
    given: list[Any] = []
    for name in names:
        try:
            if name != "fine":
                fail(name)
            given.append(name)
        except Exception as error:
            given.append(error)
    return given


def stop() -> None:
    raise StopIteration("own")


# -- resources -------------------------------------------------------------------------------------


@contextmanager
def model(file: Path) -> Iterator[str]:
    note(file, f"entered-{os.getpid()}")
    yield f"model-{os.getpid()}"
    note(file, f"left-{os.getpid()}")


@contextmanager
def broken_exit() -> Iterator[None]:
    yield
    raise ValueError("cannot leave")


@contextmanager
def second_time(file: Path) -> Iterator[str]:
    note(file, "asked")
    if len(noted(file)) == 1:
        raise ValueError("not yet")
    yield "there"


@asynccontextmanager
async def asynchronous() -> Any:
    yield None


def use(value: int, model: str) -> tuple[int, str]:
    return value, model


def three_of(value: int) -> Any:
    """An iterator that can be sent between processes."""
    return iter([value] * 3)


def count_and_fail_once(value: int) -> int:
    """Counts its tries; the first one in each process fails."""
    count("tries")
    if not _has_failed:
        _has_failed.append(True)
        raise ValueError(value)
    return value


_has_failed: list[bool] = []


def count_and_hang(value: int) -> None:
    """Counts, and goes on until it is killed."""
    count("rows", 7)
    time.sleep(60)


def count_many(value: str) -> None:
    """Counts under twenty names of its own, and takes long enough for another to begin."""
    for number in range(20):
        count(f"{value}{number}")
    time.sleep(0.5)


# -- that are refused -----------------------------------------------------------------------------


class AuthError(Exception):
    """The key is not valid."""


def refuse(value: object) -> None:
    raise AuthError("401")


def refuse_with_a_local_class(value: object) -> None:
    class LocalError(Exception):
        """Cannot be imported from anywhere."""

    raise LocalError("401")
