"""Which of the items a run takes, where several runs share a file: those whose id hashes to it.

Nothing coordinates the runs. Each reads the whole input and takes its own share, so an id is always
in the same shard, wherever it stands in the file and even after lines are added.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from antflow._core.errors import JournalError, JournalKeyError
from antflow._core.log import warn
from antflow._core.text import clean, safe_repr, safe_str
from antflow.cli.item import Item
from antflow.cli.lines import BadLine
from antflow.cli.parameters import DIGITS, ParamType

if TYPE_CHECKING:
    from antflow.journal.reader import JournalReader

Command = TypeVar("Command", bound=Callable[..., Any])

AUTO = "auto"

LOOKED_AT = 100
"""Items of a journal that are looked at, to find out whether it is of another shard."""


@dataclass(frozen=True, slots=True)
class Array:
    """How a scheduler tells each program of an array of jobs which one it is.

    Attributes:
        index: Variable with its number.
        first: Variable with the number of the first; "": 0.
        step: Variable with the difference of two numbers; "": 1.
        count: Variable with how many there are; "": it does not say.
    """

    index: str
    first: str = ""
    step: str = ""
    count: str = ""


ARRAYS = (
    Array(
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_STEP",
        "SLURM_ARRAY_TASK_COUNT",
    ),
    Array("JOB_COMPLETION_INDEX"),  # Kubernetes, an Indexed Job
    Array("AWS_BATCH_JOB_ARRAY_INDEX", count="AWS_BATCH_JOB_ARRAY_SIZE"),
    Array("CLOUD_RUN_TASK_INDEX", count="CLOUD_RUN_TASK_COUNT"),
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shares of the items.

    Attributes:
        number: Which one, from 1.
        count: How many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether all items are in it."""
        return self.count == 1

    def takes(self, entry: Item | BadLine) -> bool:
        """Whether an item is in it, or a line that is not an item: that is known by its number."""
        if self.is_whole:
            return True
        if isinstance(entry, BadLine):
            return self.takes_id(entry.number)
        if entry.own_id is not None:
            return self.takes_id(entry.own_id)
        return self.takes_id(_content_key(entry.content))

    def takes_id(self, item_id: Any) -> bool:
        """Whether an item with this id is in it."""
        found = blake2b(_bytes_of(item_id), digest_size=8).digest()
        return int.from_bytes(found, "big") % self.count == self.number - 1


WHOLE = Shard(1, 1)


def takes_shard(command: Command) -> Command:
    """Add the option."""
    return click.option(
        "--shard",
        type=ShardChoice(),
        default=WHOLE,
        metavar="K/N|auto[/N]",
        help="Take only the K-th of N shares of the items, by their ids: for N runs of this "
        "command, each with its own files. auto reads the environment: Slurm, Kubernetes (with "
        "/N), AWS Batch, Cloud Run.",
    )(command)


class ShardChoice(ParamType):
    """``K/N``, from ``1/N`` to ``N/N``; or ``auto`` or ``auto/N``."""

    name = "shard"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shard:
        """The shard that a text stands for."""
        if isinstance(value, Shard):
            return value
        number, slash, count = value.partition("/")
        if (slash and not _is_count(count)) or not (
            number == AUTO or (slash and _is_count(number))
        ):
            self.fail(f"{value!r}: must be like 3/16, or {AUTO}, or {AUTO}/16", param, ctx)
        if number == AUTO:
            try:
                return shard_of(os.environ, int(count) if slash else None)
            except ValueError as error:
                self.fail(f"{value!r}: {error}", param, ctx)
        if int(number) > int(count):
            self.fail(f"{value!r}: shards run from 1/{count} to {count}/{count}", param, ctx)
        return Shard(int(number), int(count))


def shard_of(environment: Mapping[str, str], count: int | None) -> Shard:
    """The shard of this program in an array of jobs.

    Args:
        environment: Its variables.
        count: How many there are, if the user has said so.

    Raises:
        ValueError: It is not in one, or it is not known how many there are.
    """
    for array in ARRAYS:
        if array.index not in environment:
            continue
        index, first, step = (
            _number(environment, name, otherwise)
            for name, otherwise in ((array.index, 0), (array.first, 0), (array.step, 1))
        )
        counted = _number(environment, array.count, 0)
        if count is not None and counted and count != counted:
            raise ValueError(f"{array.count} says that there are {counted}")
        of = count or counted
        if not of:
            raise ValueError(f"{array.index} does not say how many there are: use {AUTO}/N")
        place = (index - first) // step
        if not 0 <= place < of:
            raise ValueError(f"{array.index} is {index}, and there are {of} shards")
        return Shard(place + 1, of)
    names = ", ".join(array.index for array in ARRAYS)
    raise ValueError(f"no variable says which shard this is; none of these is set: {names}")


def warn_of_other_shards(shard: Shard, journal: JournalReader) -> None:
    """Warn if a journal has items of another shard: with another N, they are elsewhere now."""
    try:
        for item_id, _ in islice(journal.ids(fed_only=True), LOOKED_AT):
            # The name of a duplicate is not in the file.
            if not shard.takes_id(item_id) and "#" not in safe_str(item_id):
                told = "the journal has items that are not in shard %s, like %s: with another N, "
                told += "items move to other shards, whose journals do not know them"
                warn(told, shard, clean(safe_repr(item_id)))
                return
    except JournalError:  # the run says so
        return


def _is_count(text: str) -> bool:
    return DIGITS.fullmatch(text) is not None and int(text) > 0


def _number(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environment.get(name, "")
    if not text:
        return otherwise
    if not DIGITS.fullmatch(text):
        raise ValueError(f"{name} is {text!r}, which is not a number")
    return int(text)


def _bytes_of(item_id: Any) -> bytes:
    """Bytes that stand for an id: equal ids have the same, on every machine."""
    from antflow.journal.item_keys import item_key  # few share their items

    try:
        key = item_key(item_id)
    except JournalKeyError:  # too long, or a list
        key = safe_str(item_id)
    if isinstance(key, bytes):
        return b"b" + key
    return f"{type(key).__name__[0]}{key}".encode("utf-8", "surrogatepass")


def _content_key(content: Any) -> str:
    from antflow.journal.item_keys import content_key
    from antflow.journal.json_codec import JsonCodec

    return content_key(content, JsonCodec())
