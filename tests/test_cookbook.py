"""The programs of the cookbook run as they stand there, against stand-ins on this machine."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins import Call, HttpStandIn, Reply, SmtpStandIn, serving
from tests.test_docs import ROOT, blocks_of

FOLDER = ROOT / "docs" / "cookbook"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")
LONGEST = 31
"""Lines of a program, besides imports, comments and blank ones."""

TOLD = re.compile(r"\d\d:\d\d:\d\d pipeline: |[\d,]+ ok, |[\d,]+ of [\d,]+ items failed: ")
"""A line of a display, or about failures."""

OK = Reply(b"fine")


def untidy(lines: Iterable[str]) -> bytes:
    """A file as people and Windows leave it: with a BOM, blank lines, spaces and CRLF."""
    return "".join(["\ufeff", "\r\n", *(f"  {line} \t\r\n \r\n" for line in lines)]).encode()


SOON = {"Retry-After-Ms": "50"}


class Kitchen:
    """A folder in which the program of one page runs, and the stand-ins that it talks to."""

    def __init__(self, page: str, folder: Path, stack: ExitStack) -> None:
        self.page = page
        self.folder = folder
        self._stack = stack

    def web(self, answer: Callable[[Call], Reply]) -> HttpStandIn:
        """A server that answers by a function."""
        server = HttpStandIn(answer)
        self._stack.enter_context(serving(server))
        return server

    def mail(self) -> SmtpStandIn:
        """A mail server."""
        server = SmtpStandIn()
        self._stack.enter_context(serving(server))
        return server

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def lines(self, name: str) -> list[str]:
        """The lines of a file."""
        return (self.folder / name).read_text("utf-8").splitlines()

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV file."""
        with open(self.folder / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def run(self, changes: dict[str, str] | None = None, *arguments: str) -> str:
        """Run the program, with some of its constants changed; return what it prints."""
        program = program_of(self.page)
        for old, new in (changes or {}).items():
            assert old in program
            program = program.replace(old, new)
        path = self.write("program.py", program)
        secrets = {"OPENAI_API_KEY": "secret", "SMTP_PASSWORD": "secret"}
        done = subprocess.run(
            [sys.executable, "-W", "error", path, *arguments],
            cwd=self.folder,
            env={**os.environ, **secrets, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for line in done.stderr.splitlines():  # those of the display, and of failures
            assert re.match(
                r"\d\d:\d\d:\d\d pipeline: |[\d,]+ ok, |[\d,]+ of [\d,]+ items failed: ", line
            ), done.stderr
        return done.stderr + done.stdout


def program_of(page: str) -> str:
    """The first block of Python in a page."""
    markdown = (FOLDER / f"{page}.md").read_text("utf-8")
    return next(block.text for block in blocks_of(markdown) if block.kind == "python")


class Once:
    """Says of each key whether it is asked for the first time."""

    def __init__(self) -> None:
        self.seen: set[object] = set()

    def __call__(self, key: object) -> bool:
        is_new = key not in self.seen
        self.seen.add(key)
        return is_new


# -- one function for each page ---------------------------------------------------------------


def llm_batch(kitchen: Kitchen) -> None:
    """Answers, tokens and cost are right after a 429, a 500 and a prompt that is refused."""
    first = Once()

    def answer(call: Call) -> Reply:
        prompt = json.loads(call.body)["messages"][0]["content"]
        if prompt == "prompt 3" and first(prompt):
            return Reply(status=429, headers=SOON)
        if prompt == "prompt 4" and first(prompt):
            return Reply(status=500)
        if prompt == "prompt 5":
            return Reply(b"not allowed", 400)
        usage = {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500}
        choices = [{"index": 0, "message": {"role": "assistant", "content": prompt.upper()}}]
        body = json.dumps({"choices": choices, "usage": {**usage, "prompt_tokens_details": {}}})
        return Reply(body.encode(), headers={"Content-Type": "application/json"})

    service = kitchen.web(answer)
    prompts = [f"prompt {n}" for n in range(12)]
    kitchen.write("prompts.txt", untidy(prompts))  # empty lines ask nothing
    changes = {"https://api.openai.com": service.url, "backoff(1)": "backoff(0.1)"}
    printed = kitchen.run(changes)
    with pytest.raises(AssertionError, match=r"FileExistsError.*answers\.jsonl"):
        kitchen.run(changes)

    assert re.search(r"counted: tokens 16,500 \(.*/s\), dollars 0\.0132 \(", printed)
    answers = {each["prompt"]: each for each in map(json.loads, kitchen.lines("answers.jsonl"))}
    assert len(answers) == 12
    assert answers.pop("prompt 5") == {"prompt": "prompt 5", "error": "not allowed"}
    assert all(each["answer"] == prompt.upper() for prompt, each in answers.items())
    assert len(service.calls) == 14
    assert {call.path for call in service.calls} == {"/v1/chat/completions"}
    assert {call.headers["Authorization"] for call in service.calls} == {"Bearer secret"}


def downloads(kitchen: Kitchen) -> None:
    """Files are whole however they were cut off, and nothing is downloaded twice."""
    first = Once()
    content = bytes(range(256)) * 1_000
    half = len(content) // 2

    def answer(call: Call) -> Reply:
        whole = b"" if call.path == "/empty" else content
        start = int(call.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if call.path == "/gone":
            return Reply(status=404)
        if call.path == "/no-ranges":
            start = 0
        elif start >= len(whole):
            return Reply(status=416, headers={"Content-Range": f"bytes */{len(whole)}"})
        rest = whole[start:]
        is_cut = call.path in ("/cut", "/no-ranges") and first(call.path)
        length = {"Content-Length": str(len(rest))}
        return Reply(rest[: half if is_cut else None], 206 if start else 200, length)

    server = kitchen.web(answer)
    names = ["plain", "empty", "cut", "no-ranges", "begun", "complete", "there", "gone", "slash/"]
    long = "signed?by=" + "x" * 300
    names.append(long)
    urls = [f"{server.url}/{name}" for name in [*names, "plain"]]
    comments = ["# these:", f"# {server.url}/old", f"#{server.url}/older"]
    kitchen.write("urls.txt", untidy([*urls, *comments]))
    kitchen.write("downloads/begun.part", content[:1_000])
    kitchen.write("downloads/complete.part", content)
    kitchen.write("downloads/there", b"old")
    changes = {"backoff(1)": "backoff(0.01)"}
    printed = kitchen.run(changes)

    assert f"{server.url}/gone: 404" in printed
    assert printed.endswith("8 files, 1,792,000 bytes, 1 skipped\n")
    files = {path.name: path.read_bytes() for path in (kitchen.folder / "downloads").iterdir()}
    assert files.pop("there") == b"old"
    assert (files.pop("empty"), files.pop("gone.part")) == (b"", b"")
    whole = ["plain", "cut", "no-ranges", "begun", "complete", "slash", long[-200:]]
    assert files == dict.fromkeys(whole, content)
    ranges = [call.headers["Range"] for call in server.calls if call.path == "/cut"]
    assert ranges == ["bytes=0-", f"bytes={half}-"]

    server.calls.clear()
    assert kitchen.run(changes).endswith("0 files, 0 bytes, 9 skipped\n")
    assert {call.path for call in server.calls} == {"/gone"}


def scraping(kitchen: Kitchen) -> None:
    """Each site is asked at its pace for what it allows, and again only after a 5xx or a 429."""
    first = Once()
    rules = b"User-agent: *\nDisallow: /private\n"

    def answer(call: Call) -> Reply:
        if call.path == "/robots.txt":
            return Reply(rules)
        if call.path == "/gone":
            return Reply(status=404)
        if call.path == "/flaky" and first(call.path):
            return Reply(status=500)
        if call.path == "/fast" and first(call.path):
            return Reply(status=429, headers=SOON)
        return Reply(call.path.encode())

    site = kitchen.web(answer)
    free = kitchen.web(lambda call: Reply(status=404) if call.path == "/robots.txt" else OK)
    down = kitchen.web(lambda call: Reply(status=503))
    paths = ["/a", "/b", "/private/c", "/gone", "/flaky", "/fast"]
    urls = [f"{site.url}{path}" for path in paths] + [f"{free.url}/x", f"{down.url}/y"]
    urls += [free.url, f"{free.url}-1/z"]  # sorted as text, another site in the middle of this one
    kitchen.write("urls.txt", untidy([*urls, f"# {site.url}/old"]))
    changes = {
        "crawl_delay(AGENT) or 1": "crawl_delay(AGENT) or 0.1",
        "backoff(2)": "0.01",
        "unpack_args=True": "unpack_args=True, task_wait_seconds=0.01",
    }
    printed = kitchen.run(changes)

    assert f"\n{site.url}/: <RunResults: 4 ok, 1 failed>, 1 not allowed\n" in printed
    assert f"\n{free.url}/: <RunResults: 2 ok, 0 failed>, 0 not allowed\n" in printed
    assert f"\n{down.url}/: 503" in printed
    asked = Counter(call.path for call in site.calls)
    assert asked == {"/robots.txt": 1, "/a": 1, "/b": 1, "/gone": 1, "/flaky": 2, "/fast": 2}
    assert (free.times_asked("/robots.txt"), free.times_asked("/x")) == (1, 1)
    assert down.times_asked("/y") == 0
    times = [call.time for call in site.calls[1:]]
    assert times[-1] - times[0] > 0.3  # seven requests, 0.1 s apart; the first may arrive late
    assert {call.headers["User-Agent"].partition("/")[0] for call in site.calls} == {"example-bot"}
    saved = sorted(path.read_text() for path in (kitchen.folder / "pages").iterdir())
    assert saved == ["/a", "/b", "/fast", "/flaky", "fine", "fine"]


def upserts(kitchen: Kitchen) -> None:
    """Rows are inserted or updated in few transactions, and only the bad one is missing."""
    rows = [f"sku-{n},Product {n},{-1 if n == 700 else n}" for n in range(1_200)]
    changes = {"backoff(0.5)": "0.01"}
    kitchen.write("products.csv", "\n".join(["\ufeffsku,name,price", *rows[:3]]))  # as Excel does
    assert kitchen.run(changes).endswith("3 rows written, 0 refused\n")

    odd = ["sku-1,Short", "sku-2,Long,3,4", "only", ""]
    lines = ["sku,name,price", "sku-0,Another,7", *rows[1:], *odd]
    kitchen.write("products.csv", "\r\n".join(lines))
    printed = kitchen.run(changes)
    for row in ("row 1201, sku-1", "row 1202, sku-2", "row 1203, only"):
        assert f"{row}: not as many fields as the header has\n" in printed
    assert "row 701, sku-700: CHECK constraint failed: price >= 0\n" in printed
    assert printed.endswith("1199 rows written, 4 refused\n")
    with closing(sqlite3.connect(kitchen.folder / "shop.db")) as database:
        found = dict(database.execute("SELECT sku, price FROM products"))
    header = (kitchen.folder / "shop.db").read_bytes()[:100]
    transactions = int.from_bytes(header[24:28], "big")  # SQLite counts them there
    assert transactions < 600  # 500 of them for the rows beside the bad one
    expected: dict[str, int] = {f"sku-{n}": n for n in range(1_200)} | {"sku-0": 7}
    del expected["sku-700"]
    assert found == expected


def cpu(kitchen: Kitchen) -> None:
    """The requests of all files are counted, except those of a file that is cut off."""
    start = '127.0.0.1 - - [10/Oct/2026:13:55:36 +0000] "GET'
    page, missing = f'{start} /page?n=1 HTTP/1.1" 200 99', f'{start} /missing HTTP/1.1" 404 0'
    for name in "ab":
        log = "\n".join([page] * 600 + [missing] * 20 + ["rubbish"])
        kitchen.write(f"logs/{name}.gz", gzip.compress(log.encode()))
    kitchen.write("logs/bad.gz", gzip.compress(page.encode())[:-10])
    printed = kitchen.run(None, "logs")
    assert f"{Path('logs', 'bad.gz')}: Compressed file ended" in printed
    assert printed.endswith("   1,200  200  /page\n      40  404  /missing\n")


def thumbnails(kitchen: Kitchen) -> None:
    """Thumbnails are small and upright, and are made again only for newer pictures."""
    images: Any = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    (kitchen.folder / "pictures").mkdir()
    turned = images.Exif()
    turned[0x0112] = 6  # turn it to the right
    images.new("RGB", (1_000, 500), "red").save(kitchen.folder / "pictures/a.jpg", exif=turned)
    for name in ("b", "c"):
        images.new("RGBA", (400, 800)).save(kitchen.folder / f"pictures/{name}.png")
    kitchen.write("pictures/d.txt", "no picture")
    printed = kitchen.run()
    assert "d.txt: cannot identify image file" in printed
    assert printed.endswith("3 made, 0 skipped, 1 failed\n")
    sizes = {}
    for path in (kitchen.folder / "thumbnails").iterdir():
        with images.open(path) as image:
            sizes[path.name] = image.size
    assert sizes == dict.fromkeys(["a.jpg.jpg", "b.png.jpg", "c.png.jpg"], (160, 320))

    os.utime(kitchen.folder / "pictures/a.jpg", (2e9, 2e9))
    assert kitchen.run().endswith("1 made, 2 skipped, 1 failed\n")


def enrich_csv(kitchen: Kitchen) -> None:
    """All rows are in order, even a ragged one, with a title or the reason of the failure."""
    first = Once()

    def answer(call: Call) -> Reply:
        number = call.path.removeprefix("/isbn/").removesuffix(".json")
        if number == "2":
            return Reply(status=404)
        if number in "34" and first(number):
            return Reply(status=503 if number == "3" else 429, headers=SOON)
        book = {"title": f"Book {number}"} | ({"number_of_pages": 99} if number == "1" else {})
        return Reply(json.dumps(book).encode(), headers={"Content-Type": "application/json"})

    service = kitchen.web(answer)
    ragged = {5: ",more"}
    shelves = [f" {n} ,A{n}{ragged.get(n, '')}\r\n" for n in range(1, 6)]
    kitchen.write("books.csv", "\ufeffisbn,shelf\r\n" + "".join(shelves))  # as Excel writes it
    changes = {"https://openlibrary.org": service.url, "rate=3": "rate=100", "backoff(1)": "0.05"}
    kitchen.run(changes)
    rows = kitchen.rows("enriched.csv")
    found = [tuple(row.values()) for row in rows if row["isbn"] != " 2 "]
    assert found == [(f" {n} ", f"A{n}", f"Book {n}", "99" if n == "1" else "", "") for n in "1345"]
    assert rows[1] == {
        "isbn": " 2 ",
        "shelf": "A2",
        "title": "",
        "pages": "",
        "error": "unknown ISBN",
    }
    assert [service.times_asked(f"/isbn/{n}.json") for n in "12345"] == [1, 1, 2, 2, 1]

    (kitchen.folder / "enriched.csv").replace(kitchen.folder / "books.csv")
    service.answer = lambda call: Reply(
        b'{"title": "New"}', headers={"Content-Type": "application/json"}
    )
    kitchen.run(changes)
    assert kitchen.lines("enriched.csv")[0] == "isbn,shelf,title,pages,error"
    assert {(row["title"], row["error"]) for row in kitchen.rows("enriched.csv")} == {("New", "")}


def uploads(kitchen: Kitchen) -> None:
    """Files arrive whole, after refusals for now; a missing file and an old address fail."""
    first, patience = Once(), iter(range(6))
    stored: dict[str, bytes] = {}

    def answer(call: Call) -> Reply:
        if call.path == "/bucket/old?signature=x":
            return Reply(b"Request has expired", 403)
        if call.path == "/bucket/slow?signature=x" and next(patience, None) is not None:
            return Reply(b"Slow Down", 503, SOON)
        if call.path == "/bucket/damaged?signature=x" and first(call.path):
            return Reply(b"BadDigest", 400)
        if call.headers["Content-MD5"] != b64encode(hashlib.md5(call.body).digest()).decode():
            return Reply(b"BadDigest", 400)
        stored[call.path] = call.body
        return Reply()

    storage = kitchen.web(answer)
    names = ["plain", "slow", "damaged", "empty", "old", "missing"]
    for name in names[:-1]:
        kitchen.write(f"files/{name}", b"" if name == "empty" else name.encode() * 50_000)
    addresses = [f"files/{name}, {storage.url}/bucket/{name}?signature=x\n" for name in names]
    odd = ["files/alone\n", "files/third, one, two\n", "   \n", ",\n"]
    kitchen.write("uploads.csv", "\ufeff" + "".join([*odd, *addresses]).replace("\n", " \r\n"))
    printed = kitchen.run({"backoff(1)": "0.05"})

    assert "\nfiles/old: Request has expired\n" in printed
    assert "\nfiles/missing: [Errno 2]" in printed
    assert "\nfiles/alone : not enough values to unpack" in printed
    assert "\nfiles/third: too many values to unpack" in printed
    assert printed.endswith("4 files uploaded, 4 failed\n")
    assert kitchen.lines("done.txt") == [f"files/{name}" for name in names[:4]]
    assert stored == {
        f"/bucket/{name}?signature=x": b"" if name == "empty" else name.encode() * 50_000
        for name in names[:4]
    }


def mail(kitchen: Kitchen) -> None:
    """Each address gets one mail, listed twice or not, and none in a second run."""
    server = kitchen.mail()
    names = ["ada", "bob", "refused", "eve", "zoe"]
    rows = "name,email\n" + "".join(f"{name}, {name}@example.org\n" for name in names)
    rows = f"{rows}Ada,ada@example.org \nnobody\n"  # twice, with other spaces; and no address
    rows = rows.replace("\n", "\r\n")
    kitchen.write("recipients.csv", b"\xef\xbb\xbf" + rows.encode())  # as Excel writes it
    changes = {
        '"smtp.example.com", 587': f'"127.0.0.1", {server.port}',
        "smtp.starttls(context=ssl.create_default_context())": "ssl",
        "backoff(5)": "0.05",
    }
    printed = kitchen.run(changes)

    assert "refused@example.org: " in printed
    assert "no such user" in printed, printed
    assert server.connections == 5
    assert len(server.mails) == 4

    kitchen.write("recipients.csv", f"{rows}unlucky,unlucky@example.org\n")
    assert "refused@example.org: " in kitchen.run(changes)
    assert server.connections == 8  # "unlucky" needed two
    expected = [f"{name}@example.org" for name in ("ada", "bob", "eve", "unlucky", "zoe")]
    assert sorted(mail["To"] for mail in server.mails) == expected
    assert sorted(kitchen.lines("sent.txt")) == expected
    assert len({mail["Message-ID"] for mail in server.mails}) == 5

    kitchen.write("recipients.csv", "email,name\nnameless@example.org\n")
    assert "nameless@example.org: " in kitchen.run(changes)  # and not "Dear None"
    assert len(server.mails) == 5


def embeddings(kitchen: Kitchen) -> None:
    """Each document has its own vector, and a second run asks only for what is missing."""
    first = Once()
    sizes: list[int] = []

    def answer(call: Call) -> Reply:
        texts = json.loads(call.body)["input"]
        if first("429"):
            return Reply(status=429, headers=SOON)
        if "too long" in texts:
            return Reply(b"too long", 400)
        sizes.append(len(texts))
        data = [{"index": n, "embedding": [float(text), 0.5]} for n, text in enumerate(texts)]
        body = json.dumps({"data": data[::-1], "usage": {"total_tokens": 9}})
        return Reply(body.encode(), headers={"Content-Type": "application/json"})

    service = kitchen.web(answer)
    with closing(sqlite3.connect(kitchen.folder / "documents.db")) as database:
        database.execute("CREATE TABLE documents (id INTEGER PRIMARY KEY, text)")
        documents = [(n, "too long" if n == 40 else str(n)) for n in range(250)]
        database.executemany("INSERT INTO documents VALUES (?, ?)", documents)
        database.commit()
        changes = {"https://api.openai.com": service.url, "backoff(1)": "0.05"}
        printed = kitchen.run(changes)

        assert "document 40: too long\n" in printed
        assert "249 ok, 1 failed" in printed
        assert sorted(sizes) == [1] * 99 + [50, 100]
        vectors = dict(database.execute("SELECT id, vector FROM vectors"))
        assert vectors == {
            n: array("f", [n, 0.5]).tobytes() for n, text in documents if text != "too long"
        }

        database.execute("UPDATE documents SET text = '40' WHERE id = 40")
        database.commit()
        assert "1 ok, 0 failed" in kitchen.run(changes)


RECIPES: dict[str, Callable[[Kitchen], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        llm_batch,
        downloads,
        scraping,
        upserts,
        cpu,
        thumbnails,
        enrich_csv,
        uploads,
        mail,
        embeddings,
    )
}


# -- the tests --------------------------------------------------------------------------------


@pytest.fixture
def kitchen(page: str, tmp_path: Path) -> Iterator[Kitchen]:
    with ExitStack() as stack:
        yield Kitchen(page, tmp_path, stack)


@pytest.mark.process
@pytest.mark.parametrize("page", RECIPES)
def test_program_of_a_page(page: str, kitchen: Kitchen) -> None:
    """The program does what its page says, against stand-ins that fail as services do."""
    RECIPES[page](kitchen)


def test_each_page_has_its_stand_in() -> None:
    """Every page of the cookbook is run here, and the index leads to it."""
    assert sorted(RECIPES) == PAGES
    index = (FOLDER / "index.md").read_text("utf-8")
    assert [page for page in PAGES if f"({page}.md)" not in index] == []


@pytest.mark.parametrize("page", PAGES)
def test_program_of_a_page_is_short(page: str) -> None:
    """A program is read at one go."""
    lines = program_of(page).splitlines()
    assert sum(not re.match(r"import |from | *#|$", line) for line in lines) <= LONGEST
