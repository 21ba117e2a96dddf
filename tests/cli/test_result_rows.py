"""Results as rows of CSV, in which no part of them is left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from antflow.cli.output_file import Old, OutputFile
from tests.cli.running import antflow, errors_of

RUN = ("run", "mine:pipeline", "--items", "in.jsonl", "--dashboard", "none")


@pytest.fixture
def made(folder: Path) -> Path:
    """A folder with a pipeline that returns what it is given."""
    (folder / "mine.py").write_text(
        "from app import *\nasync def keep(x): return x\n"
        "pipeline = Pipeline([Stage('Keep', 1, [keep])])\n"
    )
    return folder


def rows_of(path: Path, delimiter: str = ",") -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


@pytest.mark.parametrize(("name", "delimiter"), [("out.csv", ","), ("out.tsv", "\t")])
def test_results_as_csv(made: Path, name: str, delimiter: str) -> None:
    """A column for each key of the first value, one for the rest of later ones; text as it is."""
    values = [
        {"id": "a", "name": " x,y\t", "size": 1},
        {"id": "b", "name": 'say "hi"\r\n', "size": None, "more": [1]},
        "text",
        {"id": "c", "size": {"w": 1}},
        {"name": "\ud800"},
    ]
    (made / "in.jsonl").write_text("\n".join(map(json.dumps, values)))
    assert antflow(*RUN, "--out", name).exit_code == 0
    assert rows_of(made / name, delimiter) == [
        ["id", "name", "size", "rest"],
        ["a", " x,y\t", "1", ""],
        ["b", 'say "hi"\r\n', "null", '{"more": [1]}'],
        ["3", "", "", '{"value": "text"}'],
        ["c", "", '{"w": 1}', ""],
        ["5", "\\ud800", "", ""],
    ]


def test_what_is_text_in_json_is_text_in_csv(made: Path) -> None:
    """A date, a Decimal, an id or a path is written without the quotes of JSON."""
    (made / "mine.py").write_text(
        """
from app import *
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path

class Colour(str, Enum):
    RED = "red"

async def parse(x):
    return {"day": date(2026, 1, 2), "price": Decimal("1.10"), "file": Path("a b"),
            "colour": Colour.RED, "many": [Decimal("2")], "none": None}

pipeline = Pipeline([Stage("Parse", 1, [parse])])
"""
    )
    (made / "in.jsonl").write_text("1")
    assert antflow(*RUN, "--out", "out.csv").exit_code == 0
    assert rows_of(made / "out.csv") == [
        ["id", "day", "price", "file", "colour", "many", "none", "rest"],
        ["1", "2026-01-02", "1.10", "a b", "red", '["2"]', "null", ""],
    ]


def test_results_are_appended_to_csv(made: Path) -> None:
    """The header stays the only one, and its columns those of the new rows."""
    for value in ({"b": 1, "c": 2}, {"c": 3, "b": 4}, 5):
        (made / "in.jsonl").write_text(json.dumps(value))
        assert antflow(*RUN, "--out", "out.csv", "--append").exit_code == 0
    assert rows_of(made / "out.csv") == [
        ["id", "b", "c", "rest"],
        ["1", "1", "2", ""],
        ["1", "4", "3", ""],
        ["1", "", "", '{"value": 5}'],
    ]


@pytest.mark.parametrize("first", ["refuse", "append", "replace"])
def test_header_is_written_by_one_of_two_runs(made: Path, first: Old) -> None:
    """A run that adds to a file without a header is refused until another has written its own."""
    pytest.importorskip("fcntl")
    (made / "in.jsonl").write_text('{"b": 1}')
    headers: list[str] = []
    other = OutputFile("out.csv", "--out", first, headers.append, has_header=True)
    other.write(b"")  # as when its first item is there, and no result yet
    result = antflow(*RUN, "--out", "out.csv", "--append")
    assert result.exit_code == 2
    assert errors_of(result) == ["Error: --out 'out.csv': another run is about to write its header"]
    other.write(b"id,a,b,rest\r\n7,,,\r\n")
    assert antflow(*RUN, "--out", "out.csv", "--append").exit_code == 0
    other.write(b"8,,,\r\n")
    other.close(makes=True)
    assert headers == []
    names, *rows = rows_of(made / "out.csv")
    assert names == ["id", "a", "b", "rest"]
    assert rows == [["7", "", "", ""], ["1", "", "1", ""], ["8", "", "", ""]]


@pytest.mark.parametrize("header", ["id,a,b,rest", "a,b"])
def test_header_that_another_run_has_just_written(made: Path, header: str) -> None:
    """It counts, although there was none when the command began; one of others is refused."""
    (made / "mine.py").write_text(
        f"from app import *\nwith open('out.csv', 'a') as file: file.write('{header}\\n')\n"
        "async def keep(x): return x\npipeline = Pipeline([Stage('Keep', 1, [keep])])\n"
    )
    (made / "in.jsonl").write_text('{"b": 1}')
    result = antflow(*RUN, "--out", "out.csv", "--append")
    assert result.exit_code == (0 if header.startswith("id") else 2)
    rows = [["1", "", "1", ""]] if header.startswith("id") else []
    assert rows_of(made / "out.csv") == [header.split(","), *rows]


def test_rows_are_added_to_a_file_that_a_spreadsheet_saved(made: Path) -> None:
    """Its byte order mark is no part of the first column's name."""
    (made / "in.jsonl").write_text('{"b": 1}')
    (made / "out.csv").write_bytes(b"\xef\xbb\xbfid,b,rest\r\n")
    assert antflow(*RUN, "--out", "out.csv", "--append").exit_code == 0
    assert rows_of(made / "out.csv")[1:] == [["1", "1", ""]]


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ('{"id": True}', [["id", "rest"], ["1", '{"id": true}']]),
        ('{"id": NA()}', [["id", "rest"], ["1", '{"id": {"type": "NA", "repr": "<NA>"}}']]),
        ('{"\\ud800": x}', [["id", "\\ud800", "rest"], ["1", "5", ""]]),
        ('{"": x}', [["id", "rest"], ["1", '{"": 5}']]),
        ("{}", [["id", "rest"], ["1", ""]]),
        ("Point(x, [x])", [["id", "x", "y", "rest"], ["1", "5", "[5]", ""]]),
        ("Model()", [["id", "x", "y", "rest"], ["1", "json", "[1]", ""]]),
        ("OrderedDict(b=x, a='a')", [["id", "b", "a", "rest"], ["1", "5", "a", ""]]),
        ("OrderedDict({1: x})", [["id", "value", "rest"], ["1", '{"1": 5}', ""]]),
    ],
)
def test_rows_of_odd_objects(made: Path, value: str, rows: list[list[str]]) -> None:
    """A key or an id of any kind is kept, and spoils no other result."""
    (made / "mine.py").write_text(
        "from app import *\n"
        "from collections import OrderedDict\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Point: x: int; y: list\n"
        "class Model:\n"
        "    def model_dump(self, mode): return {'x': mode, 'y': [1]}\n"
        "class NA:\n"
        "    def __eq__(self, other): raise TypeError('ambiguous')\n"
        "    def __repr__(self): return '<NA>'\n"
        f"async def make(x): return {value}\n"
        "pipeline = Pipeline([Stage('Make', 1, [make])])\n"
    )
    (made / "in.jsonl").write_text("5")
    assert antflow(*RUN, "--out", "out.csv").exit_code == 0
    assert rows_of(made / "out.csv") == rows


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--out", "other.csv", "--append"), "--out 'other.csv': has other columns"),
        (("--failed", "failed.csv"), "--failed 'failed.csv': has JSON lines; name it .jsonl"),
    ],
)
def test_csv_that_would_be_mixed_up_is_refused(
    made: Path, options: tuple[str, ...], reason: str
) -> None:
    """Rows are not added to another table, and dead letters are not read back as rows."""
    (made / "in.jsonl").write_text("1")
    (made / "other.csv").write_text("name,size\nx,1\n")
    (error,) = errors_of(antflow(*RUN, *options))
    assert reason in error
    assert (made / "other.csv").read_text() == "name,size\nx,1\n"
