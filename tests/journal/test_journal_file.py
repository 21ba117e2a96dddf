"""The file of a journal: made private, opened by one writer, and never taken for another."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from antflow import (
    JournalCorruptError,
    JournalError,
    JournalInUseError,
    JournalOpenError,
    JournalVersionError,
    Pipeline,
    Stage,
)
from antflow._core import file_lock
from antflow.journal import network_mounts, writer_lock
from antflow.journal.file import (
    APPLICATION_ID,
    FORMAT,
    JournalConnection,
    open_for_reading,
    open_for_writing,
)
from antflow.journal.network_mounts import network_file_system
from antflow.sinks import SqliteSink
from antflow.testing import run_virtual
from tests.support import HANG_GUARD, SOURCE, same

NOBODY = 65534

Opener = Callable[[Path], JournalConnection]
OPENERS: list[Opener] = [open_for_writing, open_for_reading]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def make(path: Path, rows: int = 0) -> Path:
    """A journal, closed again, with a table."""
    with closing(open_for_writing(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS things (text)")
        connection.executemany("INSERT INTO things VALUES (?)", [["x" * 1_000]] * rows)
    return path


@contextmanager
def another_process(code: str, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that has run this code, and has printed a line; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.first = process.stdout.readline().strip()  # type: ignore[attr-defined]
        yield process
    finally:
        process.kill()
        process.communicate(timeout=HANG_GUARD)


def done_in_another_process(code: str, *arguments: Any, user: int | None = None) -> str:
    """What code prints that runs in a process of its own, there perhaps as another user."""
    first = "import os, sys, antflow.exceptions, antflow.journal.file\n"
    if user is not None:
        first += f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
    done = subprocess.run(
        [sys.executable, "-c", first + textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


OPEN_AND_HOLD = """
    import sys
    from antflow.journal.file import open_for_writing
    connection = open_for_writing(sys.argv[1])
    connection.execute("CREATE TABLE IF NOT EXISTS things (text)")
    connection.execute("INSERT INTO things VALUES ('held')")
    print("open", flush=True)
    sys.stdin.read()
"""

TELL_ERROR = """
    try:
        getattr(antflow.journal.file, sys.argv[2])(sys.argv[1]).close()
        print("opened")
    except antflow.JournalError as error:
        print(f"{type(error).__name__}: {error}")
"""


# A new journal


def test_new_journal_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The files and the new folder cannot be read by others, whatever the umask."""
    old = os.umask(0)
    try:
        path = tmp_path / "runs" / "a" / "run.db"
        connection = open_for_writing(path)
        connection.execute("CREATE TABLE things (text)")
    finally:
        os.umask(old)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    connection.close()
    assert modes == dict.fromkeys(["run.db", "run.db-shm", "run.db-wal", "run.db.lock"], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["run.db"]


def test_new_journal_says_that_it_is_one(tmp_path: Path) -> None:
    """Tools see what the file is, and it can shrink."""
    with closing(open_for_writing(tmp_path / "run.db")) as connection:
        assert pragma(connection, "application_id") == APPLICATION_ID
        assert APPLICATION_ID.to_bytes(4, "big") == b"antJ"
        assert pragma(connection, "user_version") == FORMAT == 1
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "auto_vacuum") == 2
        assert not connection.in_transaction


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
def test_durability_is_how_a_commit_is_synchronized(
    durability: Any, level: int, tmp_path: Path
) -> None:
    """For the process NORMAL will do, against a power cut it is FULL."""
    with closing(open_for_writing(tmp_path / "run.db", durability)) as connection:
        assert pragma(connection, "synchronous") == level
    with pytest.raises(ValueError, match="durability='disk': must be one of 'process', 'power'"):
        open_for_writing(tmp_path / "run.db", "disk")  # type: ignore[arg-type]


def test_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    """As ``mktemp`` makes it, or a process that was killed at once; to be read, it has nothing."""
    path = tmp_path / "run.db"
    path.touch(0o644)
    with pytest.raises(JournalOpenError, match="it is empty"):
        open_for_reading(path)
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    open_for_reading(path).close()


def test_journal_keeps_the_mode_that_its_owner_gave_it(tmp_path: Path) -> None:
    """Only a new one is made private."""
    path = make(tmp_path / "run.db")
    path.chmod(0o640)
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@needs_fork
def test_process_that_is_killed_while_it_makes_a_journal(tmp_path: Path) -> None:
    """Before whichever statement that is, the next one makes it, or finds it made."""
    code = """
        from antflow.journal.file import JournalConnection, open_for_writing
        execute, count = JournalConnection.execute, 0
        for last in range(20):
            path = f"{sys.argv[1]}/{last}.db"
            if os.fork() == 0:
                def counted(self, *args):
                    global count
                    if count == last:
                        os.kill(os.getpid(), 9)
                    count += 1
                    return execute(self, *args)
                JournalConnection.execute = counted
                open_for_writing(path)
                os._exit(0)
            _, status = os.wait()
            journal = open_for_writing(path)
            vacuum = journal.execute("PRAGMA auto_vacuum").fetchone()[0]
            number = journal.execute("PRAGMA application_id").fetchone()[0]
            journal.close()
            print(status, vacuum, number, flush=True)
            if status == 0:
                break
    """
    *killed, last = done_in_another_process(code, tmp_path).splitlines()
    assert len(killed) > 5
    assert {*killed} == {f"9 2 {APPLICATION_ID}"}
    assert last == f"0 2 {APPLICATION_ID}"


def test_journal_can_be_used_by_another_thread(tmp_path: Path) -> None:
    """It is opened in one thread and written in another."""
    with closing(open_for_writing(tmp_path / "run.db")) as connection:
        thread = threading.Thread(target=connection.execute, args=["CREATE TABLE things (text)"])
        thread.start()
        thread.join()
        assert connection.execute("SELECT count(*) FROM things").fetchone() == (0,)


# One writer


def test_second_writer_is_told_who_has_the_journal(tmp_path: Path) -> None:
    """The process, the host and the time, and what to do; the first one goes on."""
    path = tmp_path / "run.db"
    with another_process(OPEN_AND_HOLD, path) as process:
        with pytest.raises(JournalInUseError) as caught:
            open_for_writing(path)
        holder = json.loads((tmp_path / "run.db.lock").read_text())
        since = holder["started"].partition("T")[2][:8]
        assert (holder["pid"], holder["host"]) == (process.pid, socket.gethostname())
        assert str(caught.value) == (
            f"journal {str(path)!r} is open in process {process.pid} on host "
            f"{socket.gethostname()} since {since}; wait for it, or use another path"
        )
        assert process.poll() is None


@pytest.mark.parametrize("name", ["run.db", "link.db", "./run.db", "folder/run.db"])
def test_second_writer_in_the_same_process(name: str, tmp_path: Path) -> None:
    """By the same name, or another: links to the file or its folder are the same journal."""
    (tmp_path / "link.db").symlink_to(tmp_path / "run.db")
    (tmp_path / "folder").symlink_to(tmp_path)
    told = rf"in this process \({os.getpid()}\) on host"
    journal = closing(open_for_writing(tmp_path / "run.db"))
    with journal, pytest.raises(JournalInUseError, match=told):
        open_for_writing(f"{tmp_path}/{name}")
    make(tmp_path / "link.db")


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    """After ``kill -9`` the next writer has it at once, with everything that was committed."""
    path = tmp_path / "run.db"
    with another_process(OPEN_AND_HOLD, path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(HANG_GUARD)
        assert (tmp_path / "run.db.lock").exists()
        with closing(open_for_writing(path)) as connection:
            assert connection.execute("SELECT text FROM things").fetchall() == [("held",)]
            assert json.loads((tmp_path / "run.db.lock").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == ["run.db"]


def test_file_with_two_names_is_refused(tmp_path: Path) -> None:
    """By another name SQLite would not find what is not yet in the file."""
    path = make(tmp_path / "run.db")
    with closing(open_for_writing(path)):
        os.link(path, tmp_path / "other.db")
        for opener in OPENERS:
            with pytest.raises(JournalOpenError, match=r"has 2 names \(hard links\)"):
                opener(tmp_path / "other.db")
    (tmp_path / "other.db").unlink()
    make(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "started": 5}'])
def test_lock_whose_holder_cannot_be_read(content: str, tmp_path: Path) -> None:
    """It is about to be written, or was written by something else; the lock holds all the same."""
    with closing(open_for_writing(tmp_path / "run.db")):
        (tmp_path / "run.db.lock").write_text(content)
        with pytest.raises(JournalInUseError, match="is open in another process; wait for it"):
            open_for_writing(tmp_path / "run.db")


def test_lock_of_another_day_and_host(tmp_path: Path) -> None:
    """The message has the date then, and nothing in it drives a terminal."""
    with closing(open_for_writing(tmp_path / "run.db")):
        holder = {"pid": os.getpid(), "host": "h\x1b[31m", "started": "2020-01-02T03:04:05+00:00"}
        (tmp_path / "run.db.lock").write_text(json.dumps(holder))
        told = rf"in process {os.getpid()} on host h since 2020-01-02 03:04:05;"
        with pytest.raises(JournalInUseError, match=told):
            open_for_writing(tmp_path / "run.db")


def test_lock_that_was_removed_meanwhile_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between opening and locking it, another writer may give it back: two would hold two files."""
    opened = []

    def lock(descriptor: int) -> bool:
        opened.append(descriptor)
        if len(opened) == 1:
            os.remove(tmp_path / "run.db.lock")
        return file_lock.lock_or_fail(descriptor)

    monkeypatch.setattr(writer_lock, "lock_or_fail", lock)
    with closing(open_for_writing(tmp_path / "run.db")):
        assert len(opened) == 2
        monkeypatch.undo()
        with pytest.raises(JournalInUseError):
            open_for_writing(tmp_path / "run.db")


def test_lock_is_given_back_if_the_journal_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The disk may be full at that moment; the next try is not refused by what the first left."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("antflow.journal.file._make_private", full)
        with pytest.raises(JournalOpenError, match="No space left on device"):
            open_for_writing(tmp_path / "run.db")
    assert os.listdir(tmp_path) == []
    make(tmp_path / "run.db")


def test_file_system_without_locks_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two writers would not see each other."""

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(file_lock.fcntl, "flock", no_locks)
    with pytest.raises(JournalOpenError, match="this file system has no locks"):
        open_for_writing(tmp_path / "run.db")


def test_lock_of_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One byte far behind the text is locked, so that others can read who has it."""
    held: dict[int, int] = {}

    class Windows:
        LK_NBLCK = 2

        @staticmethod
        def locking(descriptor: int, mode: int, count: int) -> None:
            assert (mode, count) == (2, 1)
            if held:
                raise PermissionError(errno.EACCES, "Permission denied")
            held[descriptor] = os.lseek(descriptor, 0, os.SEEK_CUR)

    monkeypatch.setattr(file_lock, "fcntl", None)
    monkeypatch.setattr(file_lock, "msvcrt", Windows)
    with closing(open_for_writing(tmp_path / "run.db")):
        assert list(held.values()) == [file_lock.LOCKED_BYTE]
        with pytest.raises(JournalInUseError, match=f"in this process \\({os.getpid()}\\)"):
            open_for_writing(tmp_path / "run.db")
        assert (tmp_path / "run.db.lock").stat().st_size < 200


def test_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """What it leads to would be overwritten."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run.db.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(JournalOpenError, match=r"run\.db\.lock"):
        open_for_writing(tmp_path / "run.db")
    assert (tmp_path / "precious").read_text() == "kept"


def test_lock_file_of_another_is_not_removed(tmp_path: Path) -> None:
    """If ours was removed by hand, one of that name belongs to another writer."""
    with closing(open_for_writing(tmp_path / "run.db")):
        (tmp_path / "run.db.lock").unlink()
        (tmp_path / "run.db.lock").write_text("another's")
    assert (tmp_path / "run.db.lock").read_text() == "another's"


def test_journal_that_another_program_has_locked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is waited for, but not for ever; the lock of the writer is given back."""
    monkeypatch.setattr("antflow.journal.file.BUSY_SECONDS", 0.05)
    path = make(tmp_path / "run.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalOpenError, match="another program has locked it: database is"):
            open_for_writing(path)
        other.execute("ROLLBACK")
        make(path)


# Readers


def test_readers_do_not_wait_and_do_not_write(tmp_path: Path) -> None:
    """They see what is committed while the writer is in the middle of a transaction."""
    path = tmp_path / "run.db"
    with closing(open_for_writing(path)) as writer:
        writer.execute("CREATE TABLE things (text)")
        writer.execute("INSERT INTO things VALUES ('one')")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO things VALUES ('two')")
        with closing(open_for_reading(path)) as reader, closing(open_for_reading(path)) as other:
            assert reader.execute("SELECT text FROM things").fetchall() == [("one",)]
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                other.execute("DELETE FROM things")
            writer.execute("COMMIT")
            assert reader.execute("SELECT count(*) FROM things").fetchone() == (2,)
    count = """
        with_rows = antflow.journal.file.open_for_reading(sys.argv[1])
        print(with_rows.execute("SELECT count(*) FROM things").fetchone()[0])
    """
    with another_process(OPEN_AND_HOLD, path):
        assert done_in_another_process(count, path) == "3"


def test_journal_of_a_killed_process_can_be_read(tmp_path: Path) -> None:
    """What was committed is there, without a writer that would have to repair something."""
    with another_process(OPEN_AND_HOLD, tmp_path / "run.db"):
        pass
    with closing(open_for_reading(tmp_path / "run.db")) as reader:
        assert reader.execute("SELECT text FROM things").fetchall() == [("held",)]


def test_reader_changes_no_file(tmp_path: Path) -> None:
    """SQLite leaves two files without content; the next writer removes them."""
    path = make(tmp_path / "run.db", rows=5)
    before = path.read_bytes()
    with closing(open_for_reading(path)) as reader:
        assert reader.execute("SELECT count(*) FROM things").fetchone() == (5,)
    assert path.read_bytes() == before
    assert (tmp_path / "run.db-wal").stat().st_size == 0
    make(path)
    assert os.listdir(tmp_path) == ["run.db"]


def test_locks_of_sqlite_survive_whatever_is_opened_besides(tmp_path: Path) -> None:
    """A process that closes a file loses its locks on it; others would take the WAL away."""
    path = tmp_path / "run.db"
    visit = """
        import sqlite3
        connection = sqlite3.connect(sys.argv[1])
        connection.execute("SELECT * FROM things").fetchall()
        connection.close()  # the last one removes the WAL
    """
    with closing(open_for_writing(path)) as writer:
        writer.execute("CREATE TABLE things (text)")
        open_for_reading(path).close()
        with pytest.raises(JournalInUseError):
            open_for_writing(path)
        done_in_another_process(visit, path)
        assert (tmp_path / "run.db-wal").stat().st_size > 0
        writer.execute("INSERT INTO things VALUES ('kept')")
    with closing(open_for_reading(path)) as reader:
        assert reader.execute("SELECT text FROM things").fetchall() == [("kept",)]


# What is something else


def write_text(path: Path) -> None:
    path.write_text("id,name\n1,Ada\n" * 100)


def write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name)")
        connection.execute("INSERT INTO users VALUES ('Ada')")
        connection.commit()


def write_wal_database(path: Path) -> None:
    """One whose program was killed, so that its WAL is still there."""
    code = """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE users (name)")
        print("open", flush=True)
        sys.stdin.read()
    """
    with another_process(code, path):
        pass


def write_events(path: Path) -> None:
    stages = [Stage("A", 1, [same])]
    run_virtual(lambda: Pipeline(stages, observers=[SqliteSink(path)]).run([1]))


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("write", "told"),
    [
        (write_text, "it is not an SQLite database"),
        (write_database, "it is an SQLite database of something else, not a journal"),
        pytest.param(
            write_wal_database,
            "it is an SQLite database of something else, not a journal",
            marks=pytest.mark.process,
        ),
        (write_events, "it is an event log, not a journal"),
        (Path.mkdir, "it is a folder"),
        (os.mkfifo, "it is not a file"),
    ],
)
def test_what_is_something_else_is_refused_untouched(
    write: Callable[[Path], None], told: str, opener: Opener, tmp_path: Path
) -> None:
    """Not a byte of it changes, and no file is made beside it."""
    path = tmp_path / "run.db"
    write(path)
    before = contents(tmp_path)
    with pytest.raises(JournalOpenError) as caught:
        opener(path)
    assert str(caught.value) == f"journal {str(path)!r}: {told}"
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, Any]:
    return {
        each.name: (each.stat().st_mtime_ns, each.is_file() and each.read_bytes())
        for each in folder.iterdir()
    }


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("version", [2, 0])
def test_journal_of_another_format_is_refused_untouched(
    version: int, opener: Opener, tmp_path: Path
) -> None:
    """A newer version of the library may have written it: it stays as it is."""
    path = make(tmp_path / "run.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = contents(tmp_path)
    told = f"version wrote it: its format is {version}, and this version of antflow knows 1"
    with pytest.raises(JournalVersionError, match=told):
        opener(path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("opener", OPENERS)
def test_newer_format_that_is_only_in_the_wal(opener: Opener, tmp_path: Path) -> None:
    """A newer version is changing it at this moment."""
    path = make(tmp_path / "run.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 7")
        with pytest.raises(JournalVersionError, match="a newer version wrote it"):
            opener(path)
    assert not (tmp_path / "run.db.lock").exists()


@pytest.mark.parametrize("opener", OPENERS)
def test_damaged_file_is_told_and_kept(opener: Opener, tmp_path: Path) -> None:
    """The file is shorter than it says."""
    path = make(tmp_path / "run.db", rows=100)
    os.truncate(path, 8192)
    before = path.read_bytes()
    with pytest.raises(JournalCorruptError, match="it is damaged: database disk image"):
        opener(path)
    assert path.read_bytes() == before
    assert not (tmp_path / "run.db.lock").exists()


@pytest.mark.parametrize("path", [5, b"run.db", None])
def test_path_of_another_type(path: Any) -> None:
    """It is refused as an argument."""
    for opener in OPENERS:
        with pytest.raises(TypeError, match="must be the path of a file"):
            opener(path)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_path_that_no_file_can_have(path: str) -> None:
    """It is refused as an argument, too."""
    for opener in OPENERS:
        with pytest.raises(ValueError, match="must be the path of a file"):
            opener(Path(path) if path and "\0" not in path else path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a?b#c%20.db", "naïve ä.db", "caf\udce9.db", "-x.db"])
def test_path_with_signs_that_mean_something_in_a_uri(name: str, tmp_path: Path) -> None:
    """The file has just that name."""
    make(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    open_for_reading(tmp_path / name).close()


# Folders and file systems


def test_missing_journal_cannot_be_read(tmp_path: Path) -> None:
    """It is not made, either."""
    with pytest.raises(JournalOpenError, match="No such file or directory"):
        open_for_reading(tmp_path / "run.db")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user can enter; that of pytest cannot be."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


def opened_by_another_user(opener: Opener, path: Path) -> str:
    """What opening comes to for a user whom permissions bind, as they do not bind root."""
    user = NOBODY if hasattr(os, "geteuid") and os.geteuid() == 0 else None
    return done_in_another_process(TELL_ERROR, path, opener.__name__, user=user)


def test_folder_that_cannot_be_written_is_refused(shared_folder: Path) -> None:
    """SQLite keeps files beside the journal."""
    shared_folder.chmod(0o555)
    told = opened_by_another_user(open_for_writing, shared_folder / "run.db")
    assert told == (
        f"JournalOpenError: journal '{shared_folder}/run.db': its folder '{shared_folder}' cannot "
        "be written: Permission denied"
    )
    assert os.listdir(shared_folder) == []
    told = opened_by_another_user(open_for_writing, shared_folder / "new" / "run.db")
    assert told.startswith("JournalOpenError: journal ")
    assert told.endswith(f"Permission denied: '{shared_folder}/new'")


def test_file_that_cannot_be_written_is_refused(shared_folder: Path) -> None:
    """SQLite would open it to read, and fail with the first item."""
    path = make(shared_folder / "run.db")
    shared_folder.chmod(0o777)
    path.chmod(0o444)
    told = opened_by_another_user(open_for_writing, path)
    assert told == f"JournalOpenError: journal {str(path)!r}: attempt to write a readonly database"
    assert not (shared_folder / "run.db.lock").exists()


def test_journal_in_a_folder_that_cannot_be_written_can_be_read(shared_folder: Path) -> None:
    """A copy on a read-only disk, or that of another user."""
    path = make(shared_folder / "run.db")
    path.chmod(0o444)
    shared_folder.chmod(0o555)
    assert opened_by_another_user(open_for_reading, path) == "opened"
    path.chmod(0o600)
    if os.geteuid() == 0:
        told = opened_by_another_user(open_for_reading, path)
        assert told == f"JournalOpenError: journal {str(path)!r}: unable to open database file"


def test_network_file_system_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything is made there, with its type and the reason."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/home {tmp_path}/home nfs4 rw 0 0\n")
    monkeypatch.setattr(network_mounts, "MOUNTS", str(mounts))
    with pytest.raises(JournalOpenError, match=r"is on a network file system \(nfs4\).*local disk"):
        open_for_writing(tmp_path / "home" / "runs" / "run.db")
    assert os.listdir(tmp_path) == ["mounts"]
    make(tmp_path / "run.db")


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", None),
        ("/mnt/nas", "cifs"),
        ("/mnt/nas/deep/er", "cifs"),
        ("/mnt/nasty", None),
        ("/mnt/nas/local", None),
        ("/mnt/my disk", "fuse.sshfs"),
        ("/mnt/stick", None),
        ("/mnt/twice", "lustre"),
        ("/mnt/c", "9p"),
    ],
)
def test_file_system_of_a_folder(
    folder: str, kind: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is that of the nearest mount above it, and of the last one at a place."""
    (tmp_path / "mounts").write_text(
        "/dev/sda / ext4 rw 0 0\n"
        "//nas/a /mnt/nas cifs rw 0 0\n"
        "/dev/sdb /mnt/nas/local xfs rw 0 0\n"
        "me@host: /mnt/my\\040disk fuse.sshfs rw 0 0\n"
        "/dev/sdc /mnt/stick fuseblk rw 0 0\n"
        "/dev/sdd /mnt/twice ext4 rw 0 0\n"
        "a@tcp:/b /mnt/twice lustre rw 0 0\n"
        "C: /mnt/c 9p rw 0 0\n"
    )
    monkeypatch.setattr(network_mounts, "MOUNTS", str(tmp_path / "mounts"))
    assert network_file_system(folder) == kind


def test_mounts_of_this_machine_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux they are real; elsewhere there is no such list, and nothing is refused."""
    network_file_system(os.path.realpath(tempfile.gettempdir()))
    monkeypatch.setattr(network_mounts, "MOUNTS", "/does/not/exist")
    assert network_file_system("/") is None


# Forks


@needs_fork
def test_forked_process_cannot_use_the_journal_of_its_parent(tmp_path: Path) -> None:
    """Each use is refused, and closing it there leaves it to the parent."""
    code = """
        journal = antflow.journal.file.open_for_writing(sys.argv[1])
        journal.execute("CREATE TABLE things (text)")
        journal.execute("BEGIN IMMEDIATE")
        if os.fork() == 0:
            uses = [
                lambda: journal.execute("SELECT 1"),
                lambda: journal.executemany("SELECT ?", [[1]]),
                lambda: journal.executescript("SELECT 1"),
                journal.cursor, journal.commit, journal.rollback,
            ]
            told = []
            for use in uses:
                try:
                    use()
                except antflow.JournalForkError as error:
                    told.append(str(error))
            journal.close()
            del journal
            print(len(told), len(set(told)), told[0], flush=True)
            os._exit(0)
        os.wait()
        journal.execute("INSERT INTO things VALUES ('parent')")
        journal.execute("COMMIT")
        print(os.getpid(), os.path.exists(sys.argv[1] + ".lock"), flush=True)
        journal.close()
    """
    told, parent = done_in_another_process(code, tmp_path / "run.db").splitlines()
    pid, has_lock = parent.split()
    assert told.startswith(f"6 1 journal '{tmp_path}/run.db' was opened by process {pid}, and this")
    assert told.endswith("forked from it: open it where it is used")
    assert has_lock == "True"
    with closing(open_for_reading(tmp_path / "run.db")) as reader:
        assert reader.execute("SELECT text FROM things").fetchall() == [("parent",)]


@needs_fork
def test_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    """It may live on: as soon as the parent ends, the journal is free."""
    code = """
        import os, sys
        from antflow.journal.file import open_for_writing
        journal = open_for_writing(sys.argv[1])
        read, write = os.pipe()
        if os.fork() == 0:
            print("forked", flush=True)
            os.close(write)
            os.read(read, 1)  # until the parent has ended
            sys.stdin.read()
            os._exit(0)
        sys.stdin.readline()
        os._exit(0)
    """
    with another_process(code, tmp_path / "run.db") as process:
        assert process.stdin is not None
        with pytest.raises(JournalInUseError):
            open_for_writing(tmp_path / "run.db")
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(HANG_GUARD)
        make(tmp_path / "run.db")


def test_every_refusal_is_an_error_of_the_journal() -> None:
    """One ``except`` is enough."""
    for kind in (JournalInUseError, JournalOpenError, JournalVersionError, JournalCorruptError):
        assert issubclass(kind, JournalError)
