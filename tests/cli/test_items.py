"""From the bytes of a file to items, and what is no item."""

from __future__ import annotations

import asyncio
import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import pytest

from antflow import Pipeline, PipelineResult, Stage
from antflow.cli import item_lines as item_lines_module
from antflow.cli import lines as lines_module
from antflow.cli.item import Item
from antflow.cli.item_lines import Format, ItemSource, format_of
from antflow.cli.letters import letter_line
from antflow.cli.lines import CHUNK_BYTES, BadLine, InputFile
from antflow.cli.output_file import OutputFile
from antflow.cli.refusals import Refusal
from tests.cli.running import antflow, errors_of


async def keep(value: Any) -> Any:
    return value


def read(
    path: Path,
    format: Format = "lines",
    limit: int | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    skip: int = 0,
    seen: list[BadLine] | None = None,
    is_guess: bool = False,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The items of a file, and what is said about the lines that are none."""
    file = InputFile(str(path), encoding)
    pipeline = Pipeline([Stage("Keep", 1, [keep])])
    source = ItemSource(file, format, pipeline, limit, delimiter, is_guess, skip)
    bad: list[str] = []

    async def put_aside(line: BadLine) -> None:
        bad.append(str(line).removeprefix(f"{path}:"))
        if seen is not None:
            seen.append(line)

    source.on_bad_line = put_aside

    async def main() -> list[dict[str, Any]]:
        return [dict(item) async for item in source.items()]

    try:
        return asyncio.run(main()), bad
    finally:
        file.close()


def written(tmp_path: Path, data: str | bytes, name: str = "items") -> Path:
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def values(items: list[dict[str, Any]]) -> list[Any]:
    return [item["value"] for item in items]


# -- lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"a\nb c\n\xc3\xa4\n",
        b"a\nb c\n\xc3\xa4",
        b"a\r\nb c\r\n\xc3\xa4\r\n",
        b"\xef\xbb\xbfa\nb c\n\xc3\xa4\n",
    ],
)
def test_lines_however_they_end(tmp_path: Path, data: bytes) -> None:
    """A byte order mark, Windows line ends and a missing last one make no difference."""
    items, bad = read(written(tmp_path, data))
    assert (values(items), bad) == (["a", "b c", "ä"], [])
    assert [item["id"] for item in items] == [1, 2, 3]


def test_lines_that_are_blank_are_left_out(tmp_path: Path) -> None:
    """Blank lines are no items; ids stay the numbers of the lines."""
    items, bad = read(written(tmp_path, "\na\n  \n\t\r\nb"))
    assert ([(item["id"], item["value"]) for item in items], bad) == ([(2, "a"), (5, "b")], [])


@pytest.mark.parametrize("format", ["lines", "jsonl", "csv"])
def test_items_of_an_empty_file(tmp_path: Path, format: Format) -> None:
    """An empty file has no items, which is no fault."""
    assert read(written(tmp_path, ""), format) == ([], [])


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"ok\nab\xff\n", "2:3: not UTF-8 text; --encoding names another encoding"),
        (b"ok\n\xc3\xa4\xff", "2:2: not UTF-8 text; --encoding names another encoding"),
        (b"ok\nab\0c\n", "2:3: a null character: not text"),
    ],
)
@pytest.mark.parametrize("format", ["lines", "jsonl", "csv"])
def test_lines_that_are_not_text_are_told_by_column(
    tmp_path: Path, data: bytes, fault: str, format: Format
) -> None:
    """Bytes that are no text are told by line and column (in characters)."""
    _, bad = read(written(tmp_path, data), format)
    assert fault in bad


@pytest.mark.parametrize("format", ["lines", "jsonl"])
def test_lines_of_utf16(tmp_path: Path, format: Format) -> None:
    """A file in UTF-16 is told which option reads it."""
    _, bad = read(written(tmp_path, "ä".encode("utf-16")), format)
    assert bad == ["1:1: this is UTF-16; --encoding utf-16 reads it"]


def test_lines_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end is given up, however it is spread, and the next ones are read."""
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 100_000)
    long = "x" * 1_000_000
    items, bad = read(written(tmp_path, f"a\n{long}\nb\n{'y' * 100_000}\n{long}"))
    assert [len(value) for value in values(items)] == [1, 1, 100_000]
    assert bad == [f"{number}:100000: longer than 100,000 bytes" for number in (2, 5)]


def test_lines_that_are_too_long_hold_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an endless line no more than the limit is ever kept."""

    class Endless(io.RawIOBase):
        left = 100

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return b"x" * size if self.left > 0 else b""

    monkeypatch.setattr(lines_module, "LONGEST_LINE", 1000)
    monkeypatch.setattr(lines_module, "_open", lambda _: Endless())
    tracemalloc.start()
    try:
        (line,) = InputFile("endless").lines()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * CHUNK_BYTES  # of 100
    assert (line.number, line.fault, len(line.text)) == (1, "longer than 1,000 bytes", 1000)


@pytest.mark.parametrize("format", ["lines", "jsonl", "csv"])
def test_line_without_an_end_is_told_of_at_once(
    format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of it, which may never end, is not read before the next line is asked for."""
    left = 100

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            nonlocal left
            left -= 1
            assert left
            return b"x" * size

    monkeypatch.setattr(lines_module, "LONGEST_LINE", 1_000_000)
    monkeypatch.setattr(lines_module, "_open", lambda _: Endless())
    source = ItemSource(InputFile("endless"), format, Pipeline([Stage("Keep", 1, [keep])]))
    with pytest.raises(BadLine, match="endless:1:1000000: longer than 1,000,000 bytes"):
        asyncio.run(anext(source.items()))


def test_packed_file(tmp_path: Path) -> None:
    """What ends in .gz is unpacked; one that is cut short or is none ends with its place."""
    text = "".join(f"{number}\n" for number in range(50_000))
    packed = gzip.compress(text.encode())
    items, bad = read(written(tmp_path, packed, "a.gz"))
    assert (values(items), bad) == (text.split(), [])
    for data in (packed[:-500], text.encode()):
        for format in FORMATS:
            with pytest.raises(BadLine, match=r"b\.gz:\d+:1: the packed file is damaged"):
                read(written(tmp_path, data, "b.gz"), format)


EXCEL = ", or save it as CSV if it is one of Excel"


@pytest.mark.parametrize("format", ["lines", "jsonl", "csv", "json"])
@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", gzip.compress(b"a\n" * 99), "packed with gzip: unpack it first, or name it .gz"),
        ("a.GZ", gzip.compress(gzip.compress(b"a\n")), "packed with gzip: unpack it first"),
        ("a.bz2", bz2.compress(b"a\n"), "packed with bzip2: unpack it first"),
        ("a.xz", lzma.compress(b"a\n"), "packed with xz: unpack it first"),
        ("a.zst", b"\x28\xb5\x2f\xfd\x04\0a\n", "packed with zstd: unpack it first"),
        ("a.xlsx", b"PK\x03\x04\x14\0\n\na\n", f"packed with zip: unpack it first{EXCEL}"),
    ],
    ids=["gzip", "twice", "bzip2", "xz", "zstd", "zip"],
)
def test_packed_file_that_is_not_named_so(
    tmp_path: Path, name: str, data: bytes, reason: str, format: Format
) -> None:
    """It ends the intake: what looks like lines in it are no items."""
    path = written(tmp_path, data, name)
    for encoding in ("utf-8", "latin-1"):
        with pytest.raises(BadLine, match=f":1:1: {reason}$"):
            read(path, format, encoding=encoding)


def test_suffix_of_a_packed_file_in_capitals(tmp_path: Path) -> None:
    """Windows makes no difference between ``.gz`` and ``.GZ``."""
    path = written(tmp_path, gzip.compress(b'{"a": 1}\n'), "A.JSONL.GZ")
    assert format_of(path.name) == "jsonl"
    items, _ = read(path, "jsonl")
    assert values(items) == [{"a": 1}]
    with pytest.raises(Refusal, match="packed files can be read, but not written"):
        OutputFile("B.GZ", "--out", "refuse")


FORMATS: list[Format] = ["lines", "jsonl", "csv"]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.txt", "lines"),
        ("a", "lines"),
        ("-", "lines"),
        ("jsonl", "jsonl"),
        ("a.JSONL", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("a.b.csv", "csv"),
    ],
)
def test_format_by_suffix(name: str, format: Format) -> None:
    """The suffix says what a file is; .gz is looked through."""
    assert format_of(name) == format


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a folder and a closed standard input are refused by name."""
    for path, reason in ((tmp_path / "no", "No such file"), (tmp_path, "is a folder")):
        with pytest.raises(Refusal, match=f"--items '{path}': {reason}"):
            InputFile(str(path))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Refusal, match="there is no standard input"):
        InputFile("-")


def bad_lines(path: Path, format: Format, encoding: str = "utf-8") -> list[BadLine]:
    """The lines that are no items."""
    file = InputFile(str(path), encoding)
    source = ItemSource(file, format, Pipeline([Stage("Keep", 1, [keep])]))
    bad: list[BadLine] = []

    async def put_aside(line: BadLine) -> None:
        bad.append(line)

    source.on_bad_line = put_aside

    async def main() -> None:
        async for _ in source.items():
            pass

    asyncio.run(main())
    file.close()
    return bad


def test_bad_lines_are_kept_whole(tmp_path: Path) -> None:
    """Of a line that is no item nothing is lost: its bytes, its length, all lines of a row."""
    data = b"ok\n" + b"\xff" * 5000 + b"\xc3\xa4\n"
    (bad,) = bad_lines(written(tmp_path, data), "lines")
    assert bad.text.encode(errors="surrogateescape") == data[3:-1]
    text = 'a,b\n1,2\n"x\ny"\n3,4\n"open\n,5\n'
    text16 = "ä".encode("utf-16-le") + b"\x01\xd8"
    (bad,) = bad_lines(written(tmp_path, text16), "lines", "utf-16-le")
    assert bad.text == "ä\udc01\udcd8"
    first, second = bad_lines(written(tmp_path, text), "csv")
    assert (first.number, first.text) == (3, '"x\ny"')
    assert (second.number, second.text) == (6, '"open\n,5')


def test_file_that_cannot_be_read_further(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails in the middle ends the intake by file and line, after what came before."""

    class Failing(io.RawIOBase):
        chunks: ClassVar[list[bytes]] = [b"a\nb\n"]

        def read(self, size: int = -1) -> bytes:
            if not self.chunks:
                raise OSError(5, "Input/output error")
            return self.chunks.pop()

    monkeypatch.setattr(lines_module, "_open", lambda _: Failing())
    taken: list[Any] = []

    async def main() -> None:
        source = ItemSource(InputFile("disk"), "lines", Pipeline([Stage("Keep", 1, [keep])]))
        async for item in source.items():
            taken.append(item["value"])

    with pytest.raises(BadLine, match="disk:3:1: cannot be read: Input/output error"):
        asyncio.run(main())
    assert taken == ["a", "b"]


# -- JSON -------------------------------------------------------------------------------------


def test_json_lines(tmp_path: Path) -> None:
    """An object with an id brings it, and is passed whole; all else gets its line's number."""
    given = [
        5,
        {"id": "a", "value": 1, "lang": "de"},
        {"id": 0, "x": 1},
        {"x": 2},
        None,
        {"id": None},
    ]
    items, bad = read(written(tmp_path, "\n".join(map(json.dumps, given))), "jsonl")
    assert bad == []
    assert items == [
        {"id": 1, "value": 5},
        {"id": "a", "value": {"id": "a", "value": 1, "lang": "de"}},
        {"id": 0, "value": {"id": 0, "x": 1}},
        {"id": 4, "value": {"x": 2}},
        {"id": 5, "value": None},
        {"id": 6, "value": {"id": None}},
    ]


COMMA_OR_BRACE = 8 if sys.version_info >= (3, 13) else 9
"""Where Python sees the fault of a trailing comma."""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"a": 1,}', f"2:{COMMA_OR_BRACE}: not JSON: "),
        ("{", "2:2: not JSON: "),
        ("1 2", "2:3: not JSON: Extra data"),
        ('["NaN", NaN]', "2:9: NaN is not a JSON number"),
        ("[-Infinity]", "2:2: -Infinity is not a JSON number"),
        ("[1e999]", "2:1: '1e999' is too large a number"),
        ('{"a": {"b": 1, "b": 1}}', "2:1: key 'b' appears twice in one object"),
        ("[" * 100_000, "2:1: "),
        ("9" * 5000, "2:1: "),
    ],
)
def test_lines_that_are_not_json_are_told_by_column(tmp_path: Path, line: str, fault: str) -> None:
    """A line that is no JSON is told by line and column, and the next ones are read."""
    items, (bad,) = read(written(tmp_path, f"1\n{line}\n3\n"), "jsonl")
    assert values(items) == [1, 3]
    assert bad.startswith(fault)


# -- CSV --------------------------------------------------------------------------------------


def test_csv_rows(tmp_path: Path) -> None:
    """Each row is a dict by the header; quoted line ends belong to the row."""
    text = 'name,size\nant,1\n\n"a\nb",2\n"say ""hi""",3\n'
    items, bad = read(written(tmp_path, text), "csv")
    assert bad == []
    assert values(items) == [
        {"name": "ant", "size": "1"},
        {"name": "a\nb", "size": "2"},
        {"name": 'say "hi"', "size": "3"},
    ]
    assert [item["id"] for item in items] == [2, 4, 6]


def test_csv_with_an_id_column(tmp_path: Path) -> None:
    """A column "id" gives the ids, and a column "value" is one like the others."""
    items, _ = read(written(tmp_path, "id,value,lang\na,1,de\n"), "csv")
    assert items == [{"id": "a", "value": {"id": "a", "value": "1", "lang": "de"}}]


def test_csv_rows_whose_id_is_empty(tmp_path: Path) -> None:
    """An empty cell is no id: the row has that of its line."""
    items, _ = read(written(tmp_path, "id,value\na,1\n,2\n,3\n"), "csv")
    found = [(item["id"], item["value"]["value"]) for item in items]
    assert found == [("a", "1"), (3, "2"), (4, "3")]


def test_csv_rows_that_do_not_fit(tmp_path: Path) -> None:
    """A row with other fields than the header, or quotes that do not, is told by its line."""
    text = 'a,b\n1,2\n1\n1,2,3\n"x"y,2\n3,4\n"open,5\n'
    items, bad = read(written(tmp_path, text), "csv")
    assert values(items) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert [line.partition(": ")[0] for line in bad] == ["3:1", "4:1", "5:1", "7:1"]
    assert bad[0] == "3:1: has 1 field; the header has 2"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("a,,b", "column 2 of the header has no name: give it one"),
        ("a, ,b", "column 2 of the header has no name: give it one"),
        (",a,", "column 1 of the header has no name: give it one"),
        ("a;b;", "column 3 of the header, after the last ';', has no name: give it one"),
        ("a,b,a", "columns 1 and 3 of the header are both named 'a'"),
        ("\ufeff ,,", "the header is blank: it must have a name for each column"),
        ("  ", "the header is blank: it must have a name for each column"),
    ],
)
def test_csv_header_that_is_unusable(tmp_path: Path, header: str, reason: str) -> None:
    """A header without all names, or with one twice, makes the whole file no CSV."""
    with pytest.raises(BadLine, match=f":1:1: {reason}$"):
        read(written(tmp_path, f"{header}\n1,2,3\n"), "csv")


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "-"])
def test_csv_header_is_looked_at_before_anything_is_done(folder: Path, name: str) -> None:
    """A file with one that cannot be used changes no other file, and begins no run."""
    data = b"id,,name\n1,2,3\n"
    (folder / "in.csv").write_bytes(data)
    (folder / "in.csv.gz").write_bytes(gzip.compress(data))
    (folder / "report.md").write_text("old")
    options = ("--format", "csv", "--report", "report.md", "--dashboard", "none")
    result = antflow("run", "app:pipeline", "--items", name, *options, stdin=data)
    shown = "<stdin>" if name == "-" else name
    assert errors_of(result) == [
        f"Error: {shown}:1:1: column 2 of the header has no name: give it one"
    ]
    assert result.exit_code == 2
    is_read_later = name == "-"  # a pipe is read by the run
    assert ((folder / "report.md").read_text() != "old") is is_read_later


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (b"pr\xe9nom,b", ":1:3: not UTF-8 text"),
        (b'"first"x,b', ":1:1: not CSV"),
        (b"\n\na\0,b", ":3:2: a null character"),
        (b"x" * 101, ":1:100: longer than"),
        ("ä".encode("utf-16"), ":1:1: this is UTF-16"),
    ],
)
def test_csv_header_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: bytes, fault: str
) -> None:
    """It ends the input: the row below it is not taken for it."""
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 100)
    with pytest.raises(BadLine, match=fault):
        read(written(tmp_path, header + b"\n1,2\n3,4\n"), "csv")


def test_csv_row_of_several_lines_that_is_not_text(tmp_path: Path) -> None:
    """Such a row is one bad line, as a whole: what follows in its quotes is not a row."""
    data = b'a,b\r\n1,"two\r\nlines \xff\r\n2,3"\r\n4,5\r\n'
    seen: list[BadLine] = []
    items, bad = read(written(tmp_path, data), "csv", seen=seen)
    assert values(items) == [{"a": "4", "b": "5"}]
    assert bad == ["3:7: not UTF-8 text; --encoding names another encoding"]
    assert [line.text for line in seen] == ['1,"two\r\nlines \udcff\r\n2,3"']


# -- a few at a time --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
def test_limit_counts_items(tmp_path: Path, limit: int) -> None:
    """So many items are taken, and lines that are none are not among them."""
    items, bad = read(written(tmp_path, "1\nx\n2\nx\n3\n"), "jsonl", limit)
    assert values(items) == [1, 2, 3][:limit]
    assert len(bad) == min(limit - 1, 2) if limit else bad == []


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 9])
def test_skip_leaves_out_what_limit_takes(tmp_path: Path, skip: int) -> None:
    """Together they give each item and each bad line once, with its own number."""
    path = written(tmp_path, "1\nx\n2\n\n3\nx\n")
    begun, bad_of_begun = read(path, "jsonl", skip)
    rest, bad_of_rest = read(path, "jsonl", skip=skip)
    everything, bad = read(path, "jsonl")
    assert begun + rest == everything
    assert [item["id"] for item in everything] == [1, 3, 5]
    assert len(bad) == 2
    assert bad_of_begun + bad_of_rest == bad
    one, _ = read(path, "jsonl", 1, skip=skip)
    assert one == everything[skip : skip + 1]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.jsonl", b"1\n2\nx\n4\n", ":3:1: not JSON"),
        (
            "a.jsonl.gz",
            gzip.compress(b"1\n2\n", mtime=0) + b"rubbish",
            ":3:1: the packed file is damaged",
        ),
        (
            "a.csv.gz",
            gzip.compress(b'a\n1\n2\n"3\n', mtime=0) + b"rubbish",
            ":5:1: the packed file is damaged",
        ),
    ],
)
def test_items_before_a_fault_are_taken_in(
    tmp_path: Path, name: str, data: bytes, fault: str
) -> None:
    """A line that is none, or a damaged file, ends the input after the items before it."""
    path = written(tmp_path, data, name)
    file = InputFile(str(path))
    source = ItemSource(file, format_of(name), Pipeline([Stage("Keep", 1, [keep])]))
    seen: list[Any] = []

    async def main() -> None:
        async for item in source.items():
            seen.append(item["value"])

    with pytest.raises(BadLine, match=fault):
        asyncio.run(main())
    file.close()
    assert seen in ([1, 2], [{"a": "1"}, {"a": "2"}])


def test_items_are_there_as_soon_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pipe, what is there is handed over before anybody waits for more."""
    told: list[str] = []

    chunks = [b"a\nb\n", b"c", b"\n", b""]

    class Pipe(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            told.append("read")
            return chunks.pop(0)

    monkeypatch.setattr(lines_module, "_open", lambda _: Pipe())
    source = ItemSource(InputFile("pipe"), "lines", Pipeline([Stage("Keep", 1, [keep])]))

    async def main() -> None:
        async for item in source.items():
            told.append(item["value"])

    asyncio.run(main())
    assert told == ["read", "a", "b", "read", "read", "c", "read"]


# -- text as it is ----------------------------------------------------------------------------

CELLS = ["a", " b ", "", "two\nlines", "\r\nWindows\r\n", 'say ""', "a,b;c\td|e", "ä\ufeff"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("1\r2,3\n", "2:1: not CSV: a carriage return that is not in quotes"),
        ('1,"2\n3,4\n', "2:1: not CSV: a quote that is not closed takes in all lines to the end"),
        (f"1,{'2' * 101}\n", "2:1: not CSV: a cell of more than 100 characters"),
        ('1,"2"3\n', "2:1: not CSV: ',' expected after '\"'"),
    ],
)
def test_csv_row_with_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, fault: str
) -> None:
    """The reason speaks of the file, and not of how Python should have been asked to read it."""
    monkeypatch.setattr(item_lines_module, "LONGEST_LINE", 100)
    limit = csv.field_size_limit()
    _, bad = read(written(tmp_path, f"a,b\n{row}"), "csv")
    csv.field_size_limit(limit)
    assert bad == [fault]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_csv_cells_come_through_as_they_are(
    tmp_path: Path, delimiter: str, end: str, encoding: str
) -> None:
    """Line ends, quotes, spaces and delimiters in a cell are those that were written."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    header = [f"column {number}" for number in range(len(CELLS))]
    writer.writerows([header, CELLS, CELLS[::-1]])
    path = written(tmp_path, text.getvalue().encode(encoding))
    items, bad = read(path, "csv", encoding=encoding)
    assert bad == []
    assert [list(value) for value in values(items)] == [header, header]
    assert [list(value.values()) for value in values(items)] == [CELLS, CELLS[::-1]]


@pytest.mark.parametrize(
    ("header", "delimiter", "columns"),
    [
        ("a;b", None, ["a", "b"]),
        ('a;"b;,,c"', None, ["a", "b;,,c"]),
        ("a;b,c", None, ["a", "b,c"]),
        ("a,b,c;d", None, ["a", "b", "c;d"]),
        ("a b", "\t", ["a b"]),
        ("a b", None, ["a b"]),
        ("a;b", ",", ["a;b"]),
        ("a:b", ":", ["a", "b"]),
        ("\n\r\na;b", None, ["a", "b"]),
    ],
)
def test_delimiter_of_csv(
    tmp_path: Path, header: str, delimiter: str | None, columns: list[str]
) -> None:
    """The header shows it, outside of quotes, unless it is given."""
    text = f"{header}\n{header}\n"
    items, bad = read(written(tmp_path, text), "csv", delimiter=delimiter)
    assert bad == []
    assert [list(value) for value in values(items)] == [columns]


@pytest.mark.parametrize(
    ("first", "delimiter", "columns"),
    [
        ("sep=;", None, ["a,b", "c,d"]),
        ("sep=;\r", None, ["a,b", "c,d"]),
        ('"SEP=;"', None, ["a,b", "c,d"]),
        ("\ufeffsep=;", None, ["a,b", "c,d"]),
        ("sep=,", None, ["a", "b;c", "d"]),
        ("sep=;", ",", ["a", "b;c", "d"]),
    ],
)
def test_csv_that_names_its_delimiter(
    tmp_path: Path, first: str, delimiter: str | None, columns: list[str]
) -> None:
    """A first line for Excel is no header, and is obeyed unless the delimiter is given."""
    path = written(tmp_path, f"{first}\na,b;c,d\na,b;c,d\nx\n")
    items, bad = read(path, "csv", delimiter=delimiter)
    assert [list(value) for value in values(items)] == [columns]
    assert [item["id"] for item in items] == [3]
    assert bad == [f"4:1: has 1 field; the header has {len(columns)}"]
    with pytest.raises(BadLine, match=r":2:1: column . of the header.* has no name"):
        read(written(tmp_path, f"{first}\n;,\n"), "csv", delimiter=delimiter)


def test_csv_with_a_column_named_like_the_line_for_excel(tmp_path: Path) -> None:
    """Only the whole first line names a delimiter."""
    items, bad = read(written(tmp_path, "sep=,b\n1,2\nsep=;\n"), "csv")
    assert values(items) == [{"sep=": "1", "b": "2"}]
    assert len(bad) == 1


@pytest.mark.parametrize(
    ("encoding", "data", "expected", "faults"),
    [
        ("latin-1", b"\xe4\n\xff\xfe\n", ["ä", "ÿþ"], []),
        ("cp1252", b"\x80\na\x81\nb\n", ["€", "b"], ["2:2: not CP1252 text"]),
        ("utf-16", "ä\n\u0a0a\n😀".encode("utf-16"), ["ä", "\u0a0a", "😀"], []),
        ("shift_jis", "日本\n語".encode("shift_jis"), ["日本", "語"], []),
        (
            "shift_jis",
            b"a\x81\n\x81\xad\nb\x81",
            [],
            [f"{n}: not SHIFT_JIS text" for n in ("1:2", "2:1", "3:2")],
        ),
        ("ascii", "a\nä\nb".encode(), ["a", "b"], ["2:1: not ASCII text"]),
        ("utf-7", b"a\n+2AA-\nb", ["a", "b"], ["2:1: not UTF-7 text"]),
        ("utf-16-le", b"a\0\n\0b\0\0\xd8\n\0c\0", ["a", "c"], ["2:2: not UTF-16-LE text"]),
        ("utf-16-le", b"a\0\n\0b\0c", ["a"], ["2:2: not UTF-16-LE text"]),
        ("utf-32", "a\n".encode("utf-32") + b"\xff" * 4, ["a"], ["2:1: not UTF-32 text"]),
    ],
)
def test_encoding(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    data: bytes,
    expected: list[str],
    faults: list[str],
) -> None:
    """A text in another encoding is read, however its bytes come; a bad line is one of its own."""
    for size in (1, 3, 65_536):
        monkeypatch.setattr(lines_module, "CHUNK_BYTES", size)
        items, bad = read(written(tmp_path, data), encoding=encoding)
        assert (values(items), bad) == (expected, faults)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "shift_jis", "utf-8-sig"])
def test_dead_letters_are_read_as_they_were_written(tmp_path: Path, encoding: str) -> None:
    """In UTF-8, even where ``--encoding`` still says what the items of the first run were in."""
    text = "naïve “quotes” Á日本"
    failed = PipelineResult("ä", text, 0, error=KeyError("é"), stage="Keep", input=text)
    data = letter_line(failed).encode() + b'"a"\n'
    path = written(tmp_path, data)
    items, bad = read(path, "jsonl", encoding=encoding)
    assert (values(items), bad) == ([text, "a"], [])
    assert items[0]["id"] == "ä"
    seen: list[BadLine] = []
    read(path, encoding=encoding, seen=seen, is_guess=True)
    assert "a dead letter: --format jsonl reads it" in str(seen[0])
    assert seen[0].text == data.decode().splitlines()[0]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_dead_letters_that_were_converted_are_read(tmp_path: Path, encoding: str) -> None:
    """``--encoding`` is right about a file that another program has written anew."""
    failed = PipelineResult(1, "äд"[: 1 if encoding == "latin-1" else 2], 0, stage="Keep")
    items, bad = read(
        written(tmp_path, letter_line(failed).encode(encoding)), "jsonl", encoding=encoding
    )
    assert (values(items), bad) == ([failed.value], [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf_32"])
def test_encoding_that_needs_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    """A file without one cannot be read, and the reason names the encodings that need none."""
    name = encoding.replace("_", "-")
    reason = f":1:1: not {name.upper()} text: .* --encoding {name}-le or {name}-be needs none"
    with pytest.raises(BadLine, match=reason):
        read(written(tmp_path, "text without a mark\n"), encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-9", "rot13", "hex", ""])
def test_encoding_that_there_is_not(tmp_path: Path, encoding: str) -> None:
    """Names of nothing, and of what makes no text, are refused."""
    with pytest.raises(Refusal, match=f"--encoding '{encoding}'"):
        InputFile(str(written(tmp_path, "a")), encoding)


# -- JSON arrays ------------------------------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 1])
def test_json_array(tmp_path: Path, indent: int | None) -> None:
    """Its elements are the items, however they are laid out; those without an id are numbered."""
    given = [{"id": "a", "value": [1]}, "two\nlines", {"x": None}]
    path = written(tmp_path, f"\ufeff{json.dumps(given, indent=indent)}\n")
    items, bad = read(path, "json")
    assert (values(items), bad) == (given, [])
    assert [item["id"] for item in items] == ["a", 2, 3]
    assert read(written(tmp_path, "\n"), "json") == ([], [])


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'{"a": 1}', "1:1: must be an array of items; --format jsonl reads JSON lines"),
        (b'{"a": 1}\n{"a": 2}\n', "2:1: not JSON: Extra data; --format jsonl reads JSON lines"),
        (b"[1,\n2,\n", "3:1: not JSON: Expecting value"),
        (b"[1,\nNaN]", "2:1: NaN is not a JSON number"),
        (b' ["NaN",\n{"NaN": -Infinity}]', "2:9: -Infinity is not a JSON number"),
        (b'{"a": [NaN]}', "1:8: NaN is not a JSON number"),
        (b'["],", [1],\n  1e999]', "2:3: '1e999' is too large a number"),
        (b'[{"a": 1}\n, {"b": 1, "b": 2}, x]', "2:3: key 'b' appears twice in one object"),
        (b"[1,\n\xff]", "2:1: not UTF-8 text; --encoding names another encoding"),
        (b"[" + b" " * 100, "1:1: longer than 99 bytes; JSON lines may be"),
    ],
)
def test_json_file_that_is_not_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, fault: str
) -> None:
    """It is refused with a reason and its place, and none of its lines is taken for an item."""
    monkeypatch.setattr(item_lines_module, "LONGEST_JSON", 99)
    with pytest.raises(BadLine) as caught:
        read(written(tmp_path, data), "json")
    assert str(caught.value) == f"{tmp_path / 'items'}:{fault}"


def test_item_is_shown_as_it_is_in_the_file() -> None:
    """A failure is told with what was in the file, not with the keys that were put round it."""
    assert repr(Item({"id": 1, "value": 5}, lambda: (5, 5), 1, "Work")) == "5"


def test_a_line_that_ends_the_intake_says_how_to_go_on(folder: Path) -> None:
    """Where a bad line ends the intake, the summary says what is not done and what goes on."""
    path = folder / "items.jsonl"
    path.write_text('"a"\n"b"\nnope\n"d"\n')
    result = antflow("run", "app:pipeline", "--items", path, "--dashboard", "none")
    assert result.exit_code == 2
    assert "only up to line 2; the rest is not done; --skip 2 goes on with it" in result.stderr
    path.write_text('"a"\n"b"\n"c"\n"d"\n')
    again = antflow("run", "app:pipeline", "--items", path, "--skip", 2, "--dashboard", "none")
    assert [json.loads(line)["value"] for line in again.stdout.splitlines()] == ["c", "d"]
