"""Files that results are written to: nothing that is in them is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from antflow import PipelineResult
from antflow.cli.letters import letter_line
from antflow.cli.output import JsonLines
from antflow.cli.output_file import Old, OutputFile, kept_open
from antflow.cli.refusals import Refusal, RunFailed
from tests.cli.running import antflow, errors_of, objects_of, start

QUIET = ("--dashboard", "none")
RUN = ("run", "app:pipeline", "--items", "items", *QUIET)
OLD = '{"id": "old", "value": 1}\n'
LETTER = letter_line(PipelineResult("old", 1, 0, stage="Fetch"))


@pytest.fixture
def ten(folder: Path) -> Path:
    """A folder with ten items, one of which fails."""
    (folder / "items").write_text("".join(f"{n}\n" for n in range(10)))
    return folder


def ids(path: Path) -> list[object]:
    return [each["id"] for each in objects_of(path.read_text())]


@pytest.mark.parametrize("option", ["--out", "--failed"])
def test_file_that_is_not_empty_is_refused(ten: Path, option: str) -> None:
    """Before anything is done: the module is not even imported."""
    (ten / "old").write_text(OLD)
    (ten / "app.py").write_text("print('imported')")
    result = antflow(*RUN, option, "old")
    assert errors_of(result) == [
        f"Error: {option} 'old': is not empty; --append adds to it, --force replaces it"
    ]
    assert result.exit_code == 2
    assert "imported" not in result.output
    assert (ten / "old").read_text() == OLD


def test_same_command_again_changes_nothing(ten: Path) -> None:
    """The second run is refused, and the results of the first stay."""
    for code in (1, 2):
        result = antflow(*RUN, "--out", "out", "--failed", "failed")
        assert result.exit_code == code
        assert len(ids(ten / "out")) == 8
        assert sorted(map(str, ids(ten / "failed"))) == ["6", "8"]


def test_append_adds_lines(ten: Path) -> None:
    """The old lines stay, also one that a killed program left unfinished, on a line of its own."""
    (ten / "out").write_text(OLD + '{"id": 7, "val')
    (ten / "failed").write_text("")
    antflow(*RUN, "--out", "out", "--failed", "failed", "--append")
    old, cut, *new = (ten / "out").read_text().splitlines(keepends=True)
    assert (old, cut) == (OLD, '{"id": 7, "val\n')
    assert len(objects_of("".join(new))) == 8
    before = (ten / "out").read_text()
    antflow(*RUN, "--out", "out", "--append")
    assert (ten / "out").read_text().startswith(before)
    assert len((ten / "out").read_text().splitlines()) == 18


OTHER = "--out 'old': has other lines than results"
OTHERS = "--failed 'old': has other lines than dead letters"


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        *(("--out", text, OTHER) for text in ("notes\n", "[1]\n", '{"id": 1, "n": 2}\n', LETTER)),
        *(("--failed", text, OTHERS) for text in ("notes", '{"id": 1}\n', OLD)),
        ("--out", '{"id": 1, "val', ""),
        ("--out", '{"i\n{"id": 1, "value": 2}\n', ""),
        ("--out", "\ufeff" + OLD, ""),
        ("--out", "\n" + OLD, ""),
        ("--failed", LETTER[:30], ""),
        ("--failed", LETTER, ""),
    ],
)
def test_append_adds_only_to_lines_of_the_same_kind(
    ten: Path, option: str, text: str, reason: str
) -> None:
    """A file of something else is refused before anything is done, and stays as it is."""
    (ten / "old").write_text(text)
    if reason:
        (ten / "app.py").write_text("print('imported')")
    result = antflow(*RUN, option, "old", "--append")
    assert errors_of(result) == ([f"Error: {reason}"] if reason else [])
    assert "imported" not in result.output
    assert ((ten / "old").read_text() == text) is bool(reason)
    assert (ten / "old").read_text().startswith(text)


def test_append_to_a_file_that_another_program_fills_meanwhile(ten: Path) -> None:
    """Lines that have come since the command began are looked at, too."""
    with (ten / "app.py").open("a") as app:
        app.write("\nimport pathlib\npathlib.Path('out').write_text('notes\\n')\n")
    (ten / "out").touch()
    assert errors_of(antflow(*RUN, "--out", "out", "--append")) == [
        "Error: --out 'out': has other lines than results"
    ]
    assert (ten / "out").read_text() == "notes\n"


def test_force_replaces_at_the_end(ten: Path) -> None:
    """The file behind a link is replaced and keeps its permissions; no other file is left."""
    (ten / "real").write_text(OLD)
    (ten / "real").chmod(0o640)
    (ten / "link").symlink_to("real")
    before = set(os.listdir(ten))
    assert antflow(*RUN, "--out", "link", "--force").exit_code == 1
    assert (ten / "link").is_symlink()
    assert len(ids(ten / "real")) == 8
    assert stat.S_IMODE((ten / "real").stat().st_mode) == 0o640
    assert set(os.listdir(ten)) == before


@pytest.mark.parametrize("option", ["", "--append", "--force"])
@pytest.mark.parametrize("when", ["imported", "running"])
def test_files_are_those_of_the_folder_of_the_command(
    ten: Path, monkeypatch: pytest.MonkeyPatch, option: str, when: str
) -> None:
    """A target that changes the folder, when it is imported or in a task, changes no file."""
    monkeypatch.chdir(ten)  # and back, at the end
    (ten / "elsewhere").mkdir()
    begin = "import os; os.chdir('elsewhere')" if when == "imported" else "import os"
    (ten / "moves.py").write_text(
        f"""{begin}
from antflow import Pipeline, Stage

async def move(item):
    if os.path.isdir("elsewhere"):
        os.chdir("elsewhere")
    if item == "5":
        raise ValueError
    return item

pipeline = Pipeline([Stage("Move", 1, [move], task_attempts=1)])
"""
    )
    options = [option] if option else []
    files = ["out.csv", "failed"]
    for name in files if option else []:
        (ten / name).write_text("id,rest\n" if name == "out.csv" else LETTER)
    args = ("run", "moves:pipeline", "--items", "items", *QUIET, *options)
    assert antflow(*args, "--out", "out.csv", "--failed", "failed").exit_code == 1
    assert list((ten / "elsewhere").iterdir()) == []
    assert len((ten / "out.csv").read_text().splitlines()) == 10
    assert ids(ten / "failed")[-1:] == [6]


def test_force_and_append_exclude_each_other(ten: Path) -> None:
    """Which of the two is meant is not guessed."""
    (error,) = errors_of(antflow(*RUN, "--out", "out", "--force", "--append"))
    assert "choose one" in error


@pytest.mark.parametrize("first", [b"\xff\xfe wrong file\n", b""])
@pytest.mark.parametrize("flags", [("--force",), ("--force", "--on-bad-line", "dead-letter")])
def test_input_without_items_changes_no_results(
    ten: Path, first: bytes, flags: tuple[str, ...]
) -> None:
    """With --force, too: results are replaced only by a run that has taken an item in."""
    (ten / "items").write_bytes(first)
    (ten / "out").write_text(OLD)
    antflow(*RUN, "--out", "out", "--failed", "failed", *flags)
    assert (ten / "out").read_text() == OLD


@pytest.mark.parametrize(
    ("first", "options", "kept"),
    [
        (b"", (), "--out 'out' and --failed 'failed' still have"),
        (b"1\n2\n", ("--skip", "2"), "--out 'out' and --failed 'failed' still have"),
        (b"\xff\n", ("--on-bad-line", "error"), "--out 'out' and --failed 'failed' still have"),
        (b"\xff\n", (), "--out 'out' still has"),
        (b"1\n", (), ""),
    ],
    ids=["empty", "skipped", "refused", "put aside", "an item"],
)
def test_results_that_force_did_not_replace_are_told(
    ten: Path, first: bytes, options: tuple[str, ...], kept: str
) -> None:
    """Old results are not taken for those of a run that had no items."""
    (ten / "items").write_bytes(first)
    for name in ("out", "failed"):
        (ten / name).write_text(OLD)
    result = antflow(*RUN, "--out", "out", "--failed", "failed", "--force", *options)
    told = [line for line in result.stderr.splitlines() if "no item was taken in" in line]
    assert told == ([f"no item was taken in; {kept} the lines of an earlier run"] if kept else [])
    for name in ("out", "failed"):
        assert ((ten / name).read_text() == OLD) is (f"'{name}'" in kept)


def test_files_are_there_after_a_run_without_lines_for_them(ten: Path) -> None:
    """What comes next in a script finds an empty file, unless the run was refused."""
    (ten / "items").write_text("")
    assert antflow(*RUN, "--out", "out", "--failed", "failed").exit_code == 0
    assert (ten / "out").read_text() == (ten / "failed").read_text() == ""
    (ten / "items").write_bytes(b"\xff\n")
    assert antflow(*RUN, "--out", "out2").exit_code == 2
    assert not (ten / "out2").exists()


def test_file_that_cannot_be_opened_ends_the_run_before_its_first_item(ten: Path) -> None:
    """It is told of with exit code 2, and no task is called."""
    with (ten / "app.py").open("a") as app:
        app.write("\nimport os\nos.mkdir('out')\n")
    result = antflow(*RUN, "--out", "out")
    assert result.exit_code == 2
    assert errors_of(result) == ["Error: --out 'out': Is a directory"]
    assert "fetching" not in result.output


def test_run_that_is_killed_leaves_the_results_it_had(ten: Path) -> None:
    """New files have each line as soon as it is ready; a file to be replaced is still the old."""
    (ten / "app.py").write_text(
        "import time\nfrom antflow import Pipeline, Stage\n"
        "def wait(x):\n    if int(x) > 4: time.sleep(60)\n    return x\n"
        "pipeline = Pipeline([Stage('Wait', 1, [wait])])\n"
    )
    (ten / "failed").write_text(OLD)
    for flags, out in (((), "out"), (("--force",), "failed")):
        process = start(ten, *RUN, "--out", out, *flags)
        parts = [ten / out] if out == "out" else []
        deadline = time.monotonic() + 20
        while sum(len(each.read_bytes().splitlines()) for each in parts if each.exists()) < 5:
            parts = parts or list(ten.glob("failed.*.part"))
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert [each["value"] for each in objects_of(parts[0].read_text())] == list("01234")
    assert (ten / "failed").read_text() == OLD


@pytest.mark.parametrize("way", ["symlink", "hard link", "path", "not there yet"])
@pytest.mark.parametrize(
    ("pair", "use"),
    [(("--out", "--failed"), "of --out"), (("--items", "--out"), "that --items reads")],
)
def test_two_names_of_one_file_are_refused(
    ten: Path, way: str, pair: tuple[str, str], use: str
) -> None:
    """Whatever the two names are, and whether or not the file is there yet."""
    first = "items" if pair[0] == "--items" else "one"
    if way == "not there yet" and first == "one":
        (ten / "other").symlink_to("one")
    elif first == "one":
        (ten / "one").touch()
    if way == "symlink":
        (ten / "other").symlink_to(first)
    elif way == "hard link":
        (ten / "other").hardlink_to(ten / first)
    other = "other" if (ten / "other").exists() or (ten / "other").is_symlink() else f"./{first}"
    options = {"--items": "items", pair[0]: first, pair[1]: other}
    args = [each for option in options.items() for each in option]
    result = antflow("run", "app:pipeline", *args, "--force", *QUIET)
    (error,) = errors_of(result)
    assert error == f"Error: {pair[1]} {other!r}: is the file {use}"
    assert result.exit_code == 2


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_file_of_a_standard_stream_is_refused(ten: Path, stream: str) -> None:
    """Dead letters are not written among the results, nor among what the run prints."""
    with open(ten / "log", "w") as log:
        process = start(ten, *RUN, "--failed", "log", **{stream: log})
        _, errors = process.communicate()
    told = errors if stream == "stdout" else (ten / "log").read_text()
    assert told.startswith("Error: --failed 'log': is the file that ")
    assert process.returncode == 2


def test_items_are_not_read_from_the_file_that_has_the_results(ten: Path) -> None:
    """``--items FILE >> FILE`` would never end."""
    with open(ten / "items", "a") as out:
        process = start(ten, *RUN, stdout=out)
        _, errors = process.communicate(timeout=30)
    assert errors == "Error: --out '-': is the file that --items reads\n"


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="there is no /dev/stdout")
def test_standard_output_by_its_path(ten: Path) -> None:
    """``/dev/stdout`` is standard output, and not where tasks print; devices may be shared."""
    process = start(ten, *RUN, "--out", "/dev/stdout", "--failed", "/dev/null")
    output, _ = process.communicate()
    assert len(objects_of(output)) == 8
    assert antflow(*RUN, "--out", "/dev/null", "--failed", "/dev/null").exit_code == 1


def test_file_that_another_program_fills_meanwhile(tmp_path: Path) -> None:
    """A file that was empty and is not any more is not written to."""
    file = OutputFile(str(tmp_path / "out"), "--out", "refuse")
    (tmp_path / "out").write_text(OLD)
    with pytest.raises(FileExistsError), kept_open(file):
        file.write(b"new\n")
    assert (tmp_path / "out").read_text() == OLD


FIRST: dict[str, tuple[Old, str, bytes]] = {
    "made": ("refuse", "", b"first\n"),
    "made and still empty": ("refuse", "", b""),
    "made by --append": ("append", "", b""),
    "added to": ("append", OLD, b"first\n"),
    "made by --force": ("replace", "", b"first\n"),
    "replaced": ("replace", OLD, b"first\n"),
}
"""What another run does with the file: its option, the old content, what it has written."""


@pytest.mark.parametrize("second", ["refuse", "append", "replace"])
@pytest.mark.parametrize("first", FIRST)
def test_file_that_another_run_has(tmp_path: Path, first: str, second: Old) -> None:
    """It is refused until the other run is over, unless lines are added to one that stays."""
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    old, content, line = FIRST[first]
    out.write_text(content)
    with kept_open(OutputFile(str(out), "--out", old)) as one:
        one.write(line)
        if second == "append" and first != "replaced":
            with kept_open(OutputFile(str(out), "--out", second)) as other:
                other.write(b"second\n")
        else:
            with (
                pytest.raises((BlockingIOError, Refusal), match=r"another run is|is not empty"),
                kept_open(OutputFile(str(out), "--out", second)) as other,
            ):
                other.write(b"second\n")
        one.write(b"last\n")
    added = ["second"] if second == "append" and first != "replaced" else []
    kept = content.splitlines() if old == "append" else []
    assert out.read_text().splitlines() == [*kept, *line.decode().split(), *added, "last"]
    assert list(tmp_path.iterdir()) == [out]
    with kept_open(OutputFile(str(out), "--out", "replace")) as later:
        later.write(b"new\n")
    assert out.read_text() == "new\n"


def test_file_that_another_run_replaces_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is not the file any more: lines go to the new one."""
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    out.write_text(OLD)
    first = OutputFile(str(out), "--out", "replace")
    first.write(b"first\n")
    opened: list[str] = []
    really_open = os.open

    def open_late(path: str, *args: int) -> int:
        descriptor = really_open(path, *args)
        if path == str(out) and not opened:
            opened.append(path)
            first.close(makes=True)
        return descriptor

    monkeypatch.setattr(os, "open", open_late)
    with kept_open(OutputFile(str(out), "--out", "append")) as second:
        second.write(b"second\n")
    assert out.read_text() == "first\nsecond\n"


def test_same_command_twice_at_once_writes_one_set_of_results(ten: Path) -> None:
    """The second is refused when it opens the file: every result is there once."""
    pytest.importorskip("fcntl")
    run = ("run", "app:pipeline", "--items", "-", "--out", "out", "--failed", "failed", *QUIET)
    first = start(ten, *run)
    assert first.stdin is not None
    first.stdin.write("7\n")  # fails: nothing is written to the file of results yet
    first.stdin.flush()
    until = time.monotonic() + 30
    while not (ten / "failed").exists() or not (ten / "failed").stat().st_size:
        assert time.monotonic() < until
        time.sleep(0.02)
    (ten / "failed").rename(ten / "elsewhere")
    second = start(ten, *run)
    _, errors = second.communicate("1\n2\n", timeout=60)
    first.communicate("1\n2\n", timeout=60)
    assert "Error: --out 'out': another run is writing to it" in errors
    assert second.returncode == 2
    assert ids(ten / "out") == [2, 3]


def test_file_that_another_run_writes_is_not_replaced(ten: Path) -> None:
    """``--force`` on a file of a run that goes on is refused, and the other run loses nothing."""
    pytest.importorskip("fcntl")
    run = ("run", "app:pipeline", "--items", "-", "--out", "out", *QUIET)
    first = start(ten, *run)
    assert first.stdin is not None
    first.stdin.write("1\n")
    first.stdin.flush()
    until = time.monotonic() + 30
    while not (ten / "out").exists() or not (ten / "out").stat().st_size:
        assert time.monotonic() < until
        time.sleep(0.02)
    second = start(ten, *run, "--force")
    _, errors = second.communicate("1\n2\n", timeout=60)
    first.communicate("2\n3\n", timeout=60)
    assert errors == "Error: --out 'out': another run is writing to it\n"
    assert second.returncode == 2
    assert ids(ten / "out") == [1, 2, 3]


needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


def fill(file: OutputFile, room: int, lines: list[str]) -> list[str]:
    """Write lines to a file on a disk that has room for that many bytes; gives those left over."""

    def write(data: bytes) -> None:
        file.write(data[:room])
        if len(data) > room:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            full.characters_written = room  # type: ignore[attr-defined]
            raise full

    async def main() -> list[str]:
        output = JsonLines(write, file.path, take_back=file.take_back)
        for line in lines:
            output.add(line, line)
        with pytest.raises(RunFailed, match="No space left"):
            await output.end()
        return output.unwritten

    return asyncio.run(main())


ROWS = ['id,text,rest\r\n1,"one ""1""\nmore",\r\n', '2,"two\nmore",\r\n', "3,three,\r\n"]


@pytest.mark.parametrize("old", ["refuse", "append", "replace"])
@pytest.mark.parametrize("room", [5, len(ROWS[0]), len(ROWS[0]) + 4, len(ROWS[0]) + 9])
def test_line_for_which_there_is_half_the_room(tmp_path: Path, old: Old, room: int) -> None:
    """It is taken off again, or what is appended later would be read as part of it."""
    out = tmp_path / "out.csv"
    content = "" if old == "refuse" else "id,text,rest\r\n0,zero,\r\n"
    out.write_text(content, newline="")
    file = OutputFile(str(out), "--out", old)
    whole = [] if room < len(ROWS[0]) else ROWS[:1]
    with kept_open(file):
        assert fill(file, room, ROWS) == ROWS[len(whole) :]
    kept = content if old == "append" else ""
    assert out.read_bytes().decode() == kept + "".join(whole)


def test_line_for_which_there_is_half_the_room_stays_in_a_shared_file(tmp_path: Path) -> None:
    """Nothing is taken off a file to which another run adds its lines."""
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    file, other = (OutputFile(str(out), "--out", "append") for _ in range(2))
    with kept_open(file), kept_open(other):
        other.write(b"a\n")
        assert fill(file, 3, ["1\n", "2\n"]) == ["2\n"]
    assert out.read_text() == "a\n1\n2"


@needs_dev_full
def test_results_that_could_not_be_written_are_named(ten: Path) -> None:
    """A full disk: the summary says which results are in no file."""
    result = antflow(*RUN, "--out", "/dev/full")
    assert result.exit_code == 3
    assert errors_of(result) == ["Error: /dev/full: No space left on device"]
    (count,) = (n for n in range(9) if f"{n} ok" in result.stderr)
    (told,) = (line for line in result.stderr.splitlines() if line.startswith("not written"))
    noun = "result" if count == 1 else "results"
    begin, _, names = told.rpartition(": ")
    assert begin == f"not written, or only in part: {count} {noun}"
    assert len(set(names.split(", ")) & set("1234579") | {"10"}) >= count


@needs_dev_full
@pytest.mark.parametrize("as_csv", [False, True])
def test_results_that_could_not_be_written_are_dead_letters(ten: Path, as_csv: bool) -> None:
    """With ``--failed``, what was done is kept there, and starts over when it is fed back."""
    out = ten / ("out.csv" if as_csv else "out")
    out.symlink_to("/dev/full")
    result = antflow(*RUN, "--out", out, "--failed", "failed")
    assert result.exit_code == 3
    (count,) = (n for n in range(9) if f"{n} ok" in result.stderr)
    (told,) = (line for line in result.stderr.splitlines() if line.startswith("not written"))
    noun = "result" if count == 1 else "results"
    assert told == f"not written, or only in part: {count} {noun}, now in the --failed file"
    letters = objects_of((ten / "failed").read_text())
    kept = [letter for letter in letters if letter["error_type"] == "NotWritten"]
    assert len(kept) == count
    reason = f"{out}: No space left on device"
    for letter in kept:
        assert letter["value"] == letter["input"] == str(letter["id"] - 1)
        assert letter["error"] == f"done, but the result was not written to {reason}"
        assert letter["restart"] is True

    run = (
        "run",
        "app:pipeline",
        "--items",
        "failed",
        "--format",
        "jsonl",
        "--out",
        "again",
        *QUIET,
    )
    assert antflow(*run, "--failed", "still").exit_code in (0, 1)
    assert {letter["id"] for letter in kept} <= set(ids(ten / "again"))
    taken = [letter["id"] for letter in letters]
    assert sorted([*ids(ten / "again"), *ids(ten / "still")], key=str) == sorted(taken, key=str)


@pytest.mark.parametrize("change", ["os.remove(name)", "os.replace('app.py', name)"])
@pytest.mark.parametrize("option", [(), ("--append",), ("--force",)])
def test_results_that_another_program_removed_are_told(
    ten: Path, option: tuple[str, ...], change: str
) -> None:
    """What is written to a file without a name is lost: the run does not count as a success."""
    (ten / "rm.py").write_text(
        f"""
import glob, os
from antflow import Pipeline, Stage
def work(item):
    if item == "9":
        (name,) = glob.glob("out.*.part") or ["out"]
        {change}
    return item
pipeline = Pipeline([Stage("Work", 1, [work])])
"""
    )
    if option:
        (ten / "out").write_text(OLD)
    result = antflow("run", "rm:pipeline", "--items", "items", "--out", "out", *option, *QUIET)
    assert result.exit_code == 3
    (error,) = errors_of(result)
    assert error.startswith("Error: --out '")
    assert "out" in error
    assert error.endswith("': was removed during the run, and the lines of the run with it")
    if option == ("--force",):
        assert (ten / "out").read_text() == OLD


def test_results_that_another_program_renamed_are_kept(ten: Path) -> None:
    """As a rotation of logs does it: the lines are there, under the other name."""
    (ten / "mv.py").write_text(
        """
import os
from antflow import Pipeline, Stage
def work(item):
    if item == "9":
        os.rename("out", "out.1")
    return item
pipeline = Pipeline([Stage("Work", 1, [work])])
"""
    )
    assert antflow("run", "mv:pipeline", "--items", "items", "--out", "out", *QUIET).exit_code == 0
    assert ids(ten / "out.1") == [*range(1, 11)]


@pytest.mark.parametrize("option", ["--out", "--failed", "--report"])
def test_name_of_a_folder_is_not_taken_for_a_file(ten: Path, option: str) -> None:
    """A slash at the end says that a folder is meant, also one that is not there."""
    assert errors_of(antflow(*RUN, option, "results/")) == [
        f"Error: {option} 'results/': Is a directory"
    ]
    assert not (ten / "results").exists()


@needs_dev_full
@pytest.mark.parametrize("failed", ["/dev/full", "link"])
def test_dead_letters_that_could_not_be_written_are_named(ten: Path, failed: str) -> None:
    """If neither file takes anything, all is told: results, failed items and bad lines."""
    (ten / "link").symlink_to("/dev/full")
    (ten / "items.jsonl").write_text('"7"\n"1"\nbad\n')
    args = ("run", "app:pipeline", "--items", "items.jsonl", *QUIET)
    result = antflow(*args, "--out", "/dev/full", "--failed", failed)
    assert result.exit_code == 3
    told = [line for line in result.stderr.splitlines() if line.startswith("not written")]
    names = sorted(name for line in told for name in line.rpartition(": ")[2].split(", "))
    assert names in (["1"], ["1", "2"], ["1", "2", "line 3"])  # those that had been taken in
    assert all(
        line.startswith(("not written, or only in part: ", "not written to the --failed file: "))
        for line in told
    )


@needs_dev_full
def test_bad_line_that_could_not_be_put_aside_is_named(ten: Path) -> None:
    """It is told even if it comes before the first item, when the files are opened."""
    (ten / "items.jsonl").write_text('bad\n"1"\n')
    args = ("run", "app:pipeline", "--items", "items.jsonl", *QUIET)
    result = antflow(*args, "--out", "out", "--failed", "/dev/full")
    assert result.exit_code == 3
    assert errors_of(result) == ["Error: /dev/full: No space left on device"]
    assert "not written to the --failed file: 1 item: line 1\n" in result.stderr


def test_bad_line_is_named_if_the_file_cannot_be_opened(ten: Path) -> None:
    """The folder of ``--failed`` vanishes: the error says so, and the summary names the line."""
    (ten / "folder").mkdir()
    (ten / "items.jsonl").write_text('bad\n"1"\n')
    (ten / "gone.py").write_text("import os; os.rmdir('folder')\nfrom app import pipeline")
    args = ("run", "gone:pipeline", "--items", "items.jsonl", *QUIET)
    result = antflow(*args, "--out", "out", "--failed", "folder/failed")
    assert result.exit_code == 2
    assert errors_of(result) == ["Error: --failed 'folder/failed': No such file or directory"]
    assert "not written to the --failed file: 1 item: line 1\n" in result.stderr


@needs_dev_full
@pytest.mark.process
@pytest.mark.parametrize("full", ["--out", "--failed"])
def test_file_that_is_full_is_told_of_although_the_reader_is_gone(ten: Path, full: str) -> None:
    """Standard output without a reader is silent, but does not silence the other file."""
    other = "--out" if full == "--failed" else "--failed"
    args = ("run", "app:pipeline", "--items", "-", *QUIET, full, "/dev/full", other, "-")
    process = start(ten, *args)
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate("7\n1\n", timeout=60)
    assert process.returncode == 3
    assert errors.endswith("Error: /dev/full: No space left on device\n")
    missing = "only in part: 1 result: 2" if full == "--out" else "--failed file: 1 item: 1"
    assert missing in errors


def test_file_that_cannot_be_put_in_its_place(tmp_path: Path) -> None:
    """The error says where the new lines are, and they are there."""
    (tmp_path / "out").write_text(OLD)
    file = OutputFile(str(tmp_path / "out"), "--out", "replace")
    file.write(b"new\n")
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(RunFailed, match="the new lines are in") as caught:
        file.close(makes=True)
    (part,) = tmp_path.glob("out.*.part")
    assert str(part) in str(caught.value)
    assert part.read_text() == "new\n"


def test_file_that_may_not_be_written_is_refused_early(tmp_path: Path) -> None:
    """A missing folder, a folder, and a path below a file are told of by `OutputFile` itself."""
    (tmp_path / "file").touch()
    for path, reason in (
        ("no/out", "No such file or directory"),
        ("", "No such file or directory"),
        (str(tmp_path / "out.jsonl.gz"), "packed files can be read, but not written"),
        (str(tmp_path), "Is a directory"),
        (str(tmp_path / "file" / "x"), "Not a directory"),
    ):
        with pytest.raises(Refusal, match=reason):
            OutputFile(path, "--out", "append")
