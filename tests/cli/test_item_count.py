"""The number of items, for the bar: counted beside the run, and never a wrong one."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from antflow.cli.item_count import count_again, count_lines
from antflow.cli.item_lines import ItemSource, format_of
from antflow.cli.lines import InputFile
from tests.cli.running import antflow
from tests.pty_screen import PATIENCE

pytestmark = pytest.mark.real_time

BLANKS = "one\n\n  \n\t\r\n　\n\x1c\n two\r\né\n　three\nlast"
FILES: dict[str, tuple[str, bytes, str]] = {
    "lines": ("a.txt", BLANKS.encode(), "utf-8"),
    "byte order mark": ("a.txt", b"\xef\xbb\xbfone\ntwo\n", "utf-8"),
    "only that": ("a.txt", b"\xef\xbb\xbf\ntwo\n", "utf-8"),
    "UTF-16": ("a.txt", BLANKS.encode("utf-16"), "utf-16"),
    "many": ("a.txt", b"".join(b"%d\n" % number for number in range(50_000)), "utf-8"),
    "packed": ("a.txt.gz", gzip.compress(b"1\n\n2\n" * 5000), "utf-8"),
    "empty": ("a.txt", b"", "utf-8"),
    "JSON lines": ("a.jsonl", b'1\n\n{"id": 2}\n"a"\n', "utf-8"),
    "JSON": ("a.json", b"[1, 2,\n3]", "utf-8"),
    "CSV": ("a.csv", b'\n\na,b\n1,"x\n\ny"\n\n2,"""q\n"""\n3,a"b\n', "utf-8"),
}


class ARun:
    """A run that notes what it is told to expect."""

    def __init__(self) -> None:
        self.told: list[int | None] = []

    def expect(self, total: int | None) -> None:
        self.told.append(total)


async def read(
    path: Path,
    encoding: str = "utf-8",
    limit: int | None = None,
    at_first: Callable[[], None] = lambda: None,
    skip: int = 0,
) -> tuple[int, list[int | None]]:
    """How many items a file has, and what the run was told; counting ends before the reading."""
    run = ARun()
    pipeline: Any = SimpleNamespace(stages=[SimpleNamespace(name="Keep")], current_run=run)
    file = InputFile(str(path), encoding)
    source = ItemSource(file, format_of(path.name), pipeline, limit, skip=skip)
    source.counts = True
    bad: list[Any] = []

    async def put_aside(line: Any) -> None:
        bad.append(line)

    source.on_bad_line = put_aside
    items = 0
    async for _ in source.items():
        items += 1
        if items == 1:
            for _ in range(100):
                if run.told:
                    break
                await asyncio.sleep(0.002)
            at_first()
    file.close()
    return items, run.told


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("limit", [None, 2, 10**6])
@pytest.mark.parametrize("skip", [0, 1, 10**6])
def test_items_of_a_file_are_counted(
    name: str, limit: int | None, skip: int, tmp_path: Path
) -> None:
    """The run is told at once how many there will be, and that is how many come."""
    path, data, encoding = FILES[name]
    (tmp_path / path).write_bytes(data)
    items, told = asyncio.run(read(tmp_path / path, encoding, limit, skip=skip))
    assert told == [items]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b"1\nx\n2\nNaN\n3\n"),
        ("a.txt", b"1\nStra\xdfe\n\xff\n2\n"),
        ("a.csv", b'a,b\n1,2\n3\n4,5\n"x"y,1\n6,7\n'),
    ],
)
def test_lines_that_are_no_items_do_not_count(name: str, data: bytes, tmp_path: Path) -> None:
    """A bad line is not an item: in the end the number is that of the items."""
    (tmp_path / name).write_bytes(data)
    items, told = asyncio.run(read(tmp_path / name))
    assert (items, told[-1]) == (data.count(b"\n") - 2 - name.endswith("csv"), items)


def test_file_that_grows_has_no_number_until_its_end(tmp_path: Path) -> None:
    """What was counted is taken back when more items come."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(20_000)))

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"more\n" * 20_000)

    items, told = asyncio.run(read(path, at_first=grow))
    assert (items, told) == (40_000, [20_000, None, 40_000])


def test_file_that_changes_while_it_is_counted_has_no_number(tmp_path: Path) -> None:
    """It is left open."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"1\n" * 100_000)
    file = InputFile(str(path))

    def change() -> bool:
        with path.open("ab") as grown:
            grown.write(b"1\n")
        return True

    assert count_again(file, count_lines, change) is None
    assert count_again(file, count_lines, lambda: True) is not None
    assert count_again(file, count_lines, lambda: False) is None
    path.unlink()
    path.write_bytes(b"1\n")
    assert count_again(file, count_lines, lambda: True) is None, "another file of that name"
    file.close()


def test_pipe_is_read_once(tmp_path: Path) -> None:
    """A pipe is not counted, which would take its items: the run is told at its end."""
    fifo = tmp_path / "a.txt"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(b"1\n2\n3\n"))
    writer.start()
    items, told = asyncio.run(asyncio.wait_for(read(fifo), PATIENCE))
    writer.join(PATIENCE)
    assert (items, told) == (3, [3])


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), "20/20,"),
        (("--limit", "5"), "5/5,"),
        (("--total", "80"), "20/80,"),
        (("--skip", "3"), "17/17,"),
        (("--skip", "3", "--limit", "5"), "5/5,"),
    ],
)
def test_run_shows_how_many_there_will_be(
    options: tuple[str, ...], shown: str, folder: Path
) -> None:
    """A percentage of the items of the file, of --limit, or of --total; less those of --skip."""
    (folder / "quick.py").write_text(
        "from antflow import Pipeline, Stage\n"
        "async def keep(x): return x\n"
        "pipeline = Pipeline([Stage('Keep', 2, [keep])])\n"
    )
    (folder / "in.txt").write_text("".join(f"{number}\n" for number in range(20)))
    run = ("run", "quick:pipeline", "--items", "in.txt", "--dashboard", "log", *options)
    result = antflow(*run)
    assert result.exit_code == 0
    assert shown in result.stderr
