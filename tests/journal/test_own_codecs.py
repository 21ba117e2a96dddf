"""Codecs of the user's own, whose bytes may be anything."""

from __future__ import annotations

import asyncio
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from antflow import Pipeline, RunResults, Stage, current_item
from antflow.journal import Journal
from antflow.journal.codec import Codec
from antflow.journal.copies import copy_journal
from tests.journal.crashing import rows_of


class Packed:
    """Bytes that are not UTF-8."""

    name = "packed"

    def encode(self, value: Any) -> bytes:
        return zlib.compress(json.dumps(value).encode())

    def decode(self, data: bytes) -> Any:
        return json.loads(zlib.decompress(data))


class Padded:
    """Text with zeros in it, which some databases cut off there."""

    name = "padded"

    def encode(self, value: Any) -> bytes:
        return b"\0" + json.dumps(value).encode()

    def decode(self, data: bytes) -> Any:
        assert data[:1] == b"\0"
        return json.loads(data[1:])


class Text:
    """Text, which stays one."""

    name = "text"

    def encode(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def decode(self, data: bytes) -> Any:
        return json.loads(data)


CODECS: list[tuple[str, Codec]] = [("BLOB", Packed()), ("BLOB", Padded()), ("TEXT", Text())]


@pytest.mark.parametrize(("kind", "codec"), CODECS)
def test_the_bytes_of_any_codec_come_back(kind: str, codec: Codec, tmp_path: Path) -> None:
    """Inputs, results, checkpoints and children: kept as text if they are, else as bytes."""
    path, copied = tmp_path / "run.db", tmp_path / "copy.db"
    calls: list[Any] = []
    broken = {2}

    async def get(number: int) -> int:
        calls.append(("Get", number))
        await current_item().checkpoint([number])
        if number in broken:
            raise ValueError("no 2")
        kept: int = current_item().checkpointed[0]
        return number + kept

    async def split(number: int) -> list[int]:
        calls.append(("Split", number))
        return [number, number + 1]

    async def put(number: int) -> int:
        calls.append(("Put", number))
        return number * 10

    stages = [
        Stage("Get", 1, [get], task_attempts=1),
        Stage("Split", 1, [split], expand=True),
        Stage("Put", 1, [put]),
    ]

    def run(path: Path, **options: Any) -> RunResults[Any]:
        journal = Journal(path, codec=codec, **options)
        pipeline = Pipeline[int, Any](stages)
        return asyncio.run(pipeline.run([1, 2], journal=journal, on_failures="ignore"))

    assert run(path).values() == [20, 30]
    copy_journal(str(path), str(copied))
    calls.clear()
    broken.clear()
    assert run(copied, retry_failed=True).values() == [20, 30, 40, 50]
    assert calls == [("Get", 2), ("Split", 4), ("Put", 4), ("Put", 5)]
    with Journal.open(copied, codec=codec) as reader:
        assert [each.value for each in reader.results()] == [20, 30, 40, 50]
        assert [each.input for each in reader.results()] == [2, 3, 4, 5]
    for table, column in (
        *(("items", "input"), ("results", "value"), ("checkpoints", "value")),
        ("outcomes WHERE outcome = 'completed'", "value"),
    ):
        query = f"SELECT DISTINCT upper(typeof({column})) FROM {table}"
        assert rows_of(copied, query) == [(kind,)], table
