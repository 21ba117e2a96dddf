"""Tasks for worker processes, which import them from here."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from antflow import (
    Drop,
    RetryAfter,
    count,
    current_batch,
    current_item,
    log_context,
    set_task_status,
)


class Odd(Exception):
    """An error whose constructor wants other arguments than it passes on."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Unsendable(Exception):
    """An error that holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def note(file: Path, line: object) -> None:
    with file.open("a") as lines:
        lines.write(f"{line}\n")


def noted(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def double(value: int) -> int:
    return value * 2


async def double_later(value: int) -> int:
    await asyncio.sleep(0.01)
    return value * 2


def where(value: object) -> int:
    return os.getpid()


async def where_async(value: object) -> int:
    return os.getpid()


def fail_oddly(value: int) -> None:
    error = Odd(value, "so it is")
    error.add_note("from afar")
    raise error


def fail_unsendably(value: int) -> None:
    raise Unsendable("locked")


def give_lock(value: int) -> Any:
    return threading.Lock()


def drop_odd(value: int) -> Any:
    return Drop if value % 2 else value


def count_bytes(value: int) -> int:
    count("bytes", value)
    return value


def three(value: int) -> list[int]:
    return [value * 10 + i for i in range(3)]


def halves(values: list[int]) -> list[Any]:
    return [ValueError(f"odd {each}") if each % 2 else each // 2 for each in values]


def keys_of_batch(values: list[int]) -> list[Any]:
    return [(item.id, item.attempt) for item in current_batch()]


def describe(value: int) -> tuple[Any, ...]:
    item = current_item()
    return item.id, item.attempt, item.stage, item.idempotency_key, log_context()["stage"]


def remember(value: int) -> Any:
    item = current_item()
    if item.checkpointed is None:
        item.checkpoint({"job": value})
        raise ConnectionError("after it was kept")
    return item.checkpointed, item.attempt


async def remember_later(value: int) -> Any:
    item = current_item()
    if item.checkpointed is None:
        await item.checkpoint({"job": value})
        raise ConnectionError("after it was kept")
    return item.checkpointed, item.attempt


def hold_once(path: str) -> str:
    file = Path(path)
    note(file, "called")
    if len(noted(file)) == 1:
        raise RetryAfter(0.05)
    return "done"


async def report_and_wait(path: str) -> str:
    set_task_status("half way")
    while not os.path.exists(path):  # noqa: ASYNC240 - a moment
        await asyncio.sleep(0.01)
    return "done"


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


async def sleep_async(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def sleep_until_cancelled(path: str) -> None:
    note(Path(path), "begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note(Path(path), "cancelled")
        raise


async def most_at_once(value: object) -> int:
    """How many calls of it were under way in this process at the same time, at most."""
    counts["now"] += 1
    counts["most"] = max(counts["most"], counts["now"])
    await asyncio.sleep(0.2)
    counts["now"] -= 1
    return counts["most"]


counts = {"now": 0, "most": 0}


def die(path: str) -> str:
    """Ends its process at each call but those that find the file."""
    if not Path(path).exists():
        note(Path(f"{path}.calls"), os.getpid())
        os.kill(os.getpid(), 9)
    time.sleep(0.1)
    return "alive"


def die_once(path: str) -> int:
    """Ends its process at the first call of all, and returns how many there were."""
    file = Path(path)
    note(file, os.getpid())
    if len(noted(file)) == 1:
        os.kill(os.getpid(), 9)
    return len(noted(file))


class Session:
    """Makes resources that note when they are entered and left."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextmanager
    def plain(self) -> Iterator[int]:
        note(self._file, f"enter-{os.getpid()}")
        yield os.getpid()
        note(self._file, f"leave-{os.getpid()}")

    @asynccontextmanager
    async def later(self) -> AsyncIterator[int]:
        note(self._file, f"enter-{os.getpid()}")
        yield os.getpid()
        note(self._file, f"leave-{os.getpid()}")


@contextmanager
def no_session() -> Iterator[None]:
    yield


def each_of(values: list[int]) -> Iterator[int]:
    yield from values


def with_session(value: int, session: int) -> tuple[int, int]:
    return session, os.getpid()


async def with_session_async(value: int, session: int) -> tuple[int, int]:
    return session, os.getpid()


async def sleep_and_note(file: Path, value: int) -> int:
    note(file, os.getpid())
    await asyncio.sleep(0.05)
    return value


async def with_session_until_cancelled(path: str, session: int) -> None:
    await sleep_until_cancelled(path)
