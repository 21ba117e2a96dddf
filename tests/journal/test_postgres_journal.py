"""Journals in PostgreSQL: one writer, servers that end or do not answer, and what is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antflow import Pipeline, Stage
from antflow.exceptions import (
    JournalInUseError,
    JournalOpenError,
    JournalVersionError,
    JournalWriteError,
)
from antflow.journal import Journal, schema
from antflow.journal.copies import copy_journal
from antflow.journal.databases import open_for_writing
from antflow.journal.item_keys import item_key
from antflow.journal.postgres_text import batches, kept_key, kept_text, kept_value, key_of, value_of
from antflow.sinks import PostgresSink
from tests.journal.crashing import rows_of
from tests.journal.test_resuming import Calls, run, two_stages
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.process, pytest.mark.real_time]

CONNECTIONS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'antflow journal%'"
END_CONNECTIONS = CONNECTIONS.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")


@pytest.fixture
def address(postgres: PostgresServer) -> str:
    return postgres.schema()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has failed is tried again at once."""
    for module in ("antflow.journal.writer", "antflow.journal.remote"):
        monkeypatch.setattr(f"{module}.FIRST_PAUSE", 0.05)
        monkeypatch.setattr(f"{module}.LONGEST_PAUSE", 0.2)


def assert_all_there(journal: Any, items: int) -> None:
    """Each item has its outcome, once, and its result of the first stage."""
    assert rows_of(journal, "SELECT count(*) FROM items") == [(items,)]
    assert rows_of(journal, "SELECT count(*) FROM results") == [(items,)]
    completed = "SELECT count(*), min(outcome), max(outcome) FROM outcomes"
    assert rows_of(journal, completed) == [(items, "completed", "completed")]


async def disturbed(journal: Any, items: int, at: int, disturb: Callable[[], Any]) -> list[Any]:
    """Run items of two stages; when the ``at``-th is in the first, disturb that, in a thread."""
    begun = 0

    async def get(number: int) -> int:
        nonlocal begun
        begun += 1
        if begun == at:
            await asyncio.get_running_loop().run_in_executor(None, disturb)
        await asyncio.sleep(0.001)
        return number + 1

    async def put(number: int) -> int:
        return number * 10

    stages = [Stage("Get", 4, [get], task_attempts=1), Stage("Put", 4, [put], task_attempts=1)]
    async with asyncio.timeout(60):
        results = await Pipeline(stages).run(range(items), journal=journal)
    return results.values()


# One writer


def test_a_database_has_one_writer(address: str) -> None:
    """A second one is refused, in this process or another, with the one that has it."""
    with closing(open_for_writing(address)):
        told = f"is open in this process ({os.getpid()}) on host {socket.gethostname()} since "
        with pytest.raises(JournalInUseError) as caught:
            open_for_writing(address)
        assert told in str(caught.value)
        with pytest.raises(JournalInUseError):
            run(two_stages(Calls()), [1], address)
        code = """
        import sys
        from antflow.journal.databases import open_for_writing
        open_for_writing(sys.argv[1])
        """
        command = [sys.executable, "-c", textwrap.dedent(code), address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert f"is open in process {os.getpid()} on host" in done.stderr
    open_for_writing(address).close()


def test_the_lock_of_a_killed_writer_is_free(address: str) -> None:
    """It belongs to the connection, which ends with the process."""
    code = """
    import os, signal, sys
    from antflow.journal.databases import open_for_writing
    journal = open_for_writing(sys.argv[1])
    os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), address], check=False)
    deadline = time.monotonic() + 10
    while True:
        try:
            open_for_writing(address).close()
            break
        except JournalInUseError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_two_schemas_are_two_journals(postgres: PostgresServer) -> None:
    """Each has its own writer, items and results."""
    first, second = postgres.schema(), postgres.schema()
    with closing(open_for_writing(first)):
        assert run(two_stages(Calls()), [1], second).values() == [20]
    assert run(two_stages(Calls()), [1], first).resumed == 0


@pytest.mark.usefixtures("soon")
def test_a_run_whose_journal_was_taken_over_ends(postgres: PostgresServer, address: str) -> None:
    """While the connection was lost, another has written: items and runs are not what they were."""

    def take_over() -> None:
        postgres.run("UPDATE writer SET id = 'other', pid = 77, host = 'there';", address)
        postgres.run(END_CONNECTIONS)

    with pytest.raises(JournalInUseError, match="was taken over by process 77 on host there"):
        asyncio.run(disturbed(address, 200, 50, take_over))
    assert len(asyncio.run(disturbed(address, 200, 0, print))) == 200
    assert_all_there(address, 200)


@pytest.mark.usefixtures("soon")
def test_a_run_whose_journal_another_holds_ends(postgres: PostgresServer, address: str) -> None:
    """The lock must be taken again before anything is written."""
    others: list[Any] = []

    def take_over() -> None:
        deadline = time.monotonic() + 20
        while not others and time.monotonic() < deadline:
            postgres.run(END_CONNECTIONS)
            try:
                others.append(open_for_writing(address))
            except JournalInUseError:
                continue

    try:
        with pytest.raises(JournalInUseError, match=r"is open in this process|was taken over"):
            asyncio.run(disturbed(address, 200, 50, take_over))
    finally:
        for other in others:
            other.close()


# A server that ends, or does not answer


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("max_unflushed", [0, 50])
def test_a_run_goes_on_when_its_connections_are_lost(
    max_unflushed: int, postgres: PostgresServer, address: str
) -> None:
    """Again and again: what was perhaps written is written again, and is there once."""
    is_over = threading.Event()

    def end_connections() -> None:
        def ends() -> None:
            while not is_over.wait(0.03):
                postgres.run(END_CONNECTIONS)

        threading.Thread(target=ends).start()

    try:
        journal = Journal(address, max_unflushed=max_unflushed)
        results = asyncio.run(disturbed(journal, 400, 1, end_connections))
    finally:
        is_over.set()
    assert sorted(results) == [10 * (number + 1) for number in range(400)]
    assert_all_there(address, 400)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGKILL])
def test_a_run_waits_for_a_server_that_was_ended(
    how: signal.Signals, postgres: PostgresServer, address: str
) -> None:
    """It goes on when the server is there again, and nothing is lost."""

    def restart() -> None:
        postgres.stop(how)
        time.sleep(0.5)
        postgres.start()

    assert len(asyncio.run(disturbed(address, 200, 60, restart))) == 200
    assert_all_there(address, 200)


def test_a_run_fails_if_that_is_what_is_asked_for(postgres: PostgresServer, address: str) -> None:
    """With "fail", it ends with what was not written."""
    with pytest.raises(JournalWriteError, match="not written: "):
        asyncio.run(disturbed(Journal(address, on_error="fail"), 200, 60, postgres.stop))
    postgres.start()
    assert len(asyncio.run(disturbed(address, 200, 0, print))) == 200
    assert_all_there(address, 200)


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON results FOR EACH ROW EXECUTE FUNCTION full_disk();
"""
TROUBLES = {
    "No space left on device": (FULL, "DROP FUNCTION full_disk CASCADE;"),
    "read-only transaction": (
        "ALTER ROLE antflow SET default_transaction_read_only = on;",
        "ALTER ROLE antflow RESET default_transaction_read_only;",
    ),
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_run_waits_while_a_server_takes_nothing(
    trouble: str, postgres: PostgresServer, address: str
) -> None:
    """Its disk is full, or it is one that only reads: displays say so; then the run goes on."""
    begin, end = TROUBLES[trouble]
    told: list[str] = []

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        pipeline: Pipeline[Any, Any]

        async def get(number: int) -> int:
            if number == 20:
                await loop.run_in_executor(None, begins)
            return number + 1

        def begins() -> None:
            postgres.run(begin, address)
            if "READ" in begin.upper():
                postgres.run(END_CONNECTIONS)

        async def watch() -> None:
            while not told:
                await asyncio.sleep(0.02)
                state = pipeline.get_dashboard_snapshot().journal
                if state is not None and state.stalled:
                    told.append(state.stalled)
            writes = f"{address}&default_transaction_read_only=off"
            await loop.run_in_executor(None, postgres.run, end, writes)

        pipeline = Pipeline([Stage("Get", 2, [get]), Stage("Put", 2, [two_times])])
        watching = asyncio.create_task(watch())
        async with asyncio.timeout(30):
            results = await pipeline.run(range(60), journal=address)
            await watching
        return results.values()

    assert len(asyncio.run(main())) == 60
    assert trouble in told[0]
    assert_all_there(address, 60)


async def two_times(number: int) -> int:
    return number * 2


@pytest.mark.usefixtures("soon")
def test_a_server_that_does_not_answer_holds_up_nothing_else(
    postgres: PostgresServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop goes on, as the run waits; a run that is cancelled meanwhile ends."""
    monkeypatch.setattr("antflow.journal.writer.LAST_PATIENCE", 0.5)
    gaps: list[float] = []
    run(two_stages(Calls()), range(30), address)

    async def main() -> float:
        loop = asyncio.get_running_loop()

        async def get(number: int) -> int:
            if number == 40:
                postgres.pause()
            return number + 1

        async def beat() -> None:
            while True:
                began = loop.time()
                await asyncio.sleep(0.01)
                gaps.append(loop.time() - began)

        beating = asyncio.create_task(beat())
        pipeline = Pipeline([Stage("Get", 2, [get]), Stage("Put", 2, [two_times])])
        task = asyncio.create_task(pipeline.run(range(100), journal=address))
        await asyncio.sleep(1.5)
        assert not task.done()
        began = loop.time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        beating.cancel()
        return loop.time() - began

    try:
        assert asyncio.run(main()) < 3
    finally:
        postgres.resume()
    assert len(gaps) > 50
    assert max(gaps) < 0.5


def test_the_event_loop_goes_on_while_a_journal_is_opened(
    postgres: PostgresServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer is told of after some seconds, before an item is run."""
    monkeypatch.setattr("antflow._postgres.server.LONGEST_WAIT", 1.0)
    calls, beats = Calls(), 0

    async def main() -> None:
        nonlocal beats
        pipeline = Pipeline[Any, Any](two_stages(calls))
        task = asyncio.create_task(pipeline.run(range(9), journal=address))
        while not task.done():
            await asyncio.sleep(0.01)
            beats += 1
        await task

    postgres.pause()
    try:
        with pytest.raises(JournalOpenError, match="did not answer within 1 s"):
            asyncio.run(main())
    finally:
        postgres.resume()
    assert beats > 30
    assert calls.made == []


# What is refused


@contextmanager
def a_role(postgres: PostgresServer, address: str, *rights: str) -> Iterator[str]:
    """The address for a user who has these rights in a schema."""
    schema = address.rpartition("=")[2]
    name = f"u_{schema}"
    postgres.run(f"CREATE ROLE {name} LOGIN PASSWORD 'secret';", address)
    for right in rights:
        postgres.run(f"GRANT {right} TO {name};".replace("HERE", f"SCHEMA {schema}"), address)
    try:
        yield postgres.address(name, "secret", search_path=schema)
    finally:
        postgres.run(f"DROP OWNED BY {name}; DROP ROLE {name};")


CHANGES = {
    "CREATE TABLE items (mine text);": (JournalOpenError, "'items' belongs to something else"),
    "CREATE VIEW runs AS SELECT 1;": (JournalOpenError, "'runs' belongs to something else"),
    "CREATE TABLE writer (x text);": (JournalOpenError, "'writer' belongs to something else"),
    "COMMENT ON TABLE writer IS 'antflow journal, format 9';": (
        *(JournalVersionError, "a newer version wrote it: its format is 9"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tables_of_others_are_left_alone(
    change: str, postgres: PostgresServer, address: str
) -> None:
    """Nothing is written to them, and no item is run."""
    kind, told = CHANGES[change]
    calls = Calls()
    if change.startswith("COMMENT"):
        run(two_stages(Calls()), [1], address)
    postgres.run(change, address)
    query = "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    before = sorted(postgres.run(query, address))
    for action in (
        lambda: run(two_stages(calls), [7], address),
        lambda: Journal.open(address),
        lambda: asyncio.run(Pipeline(two_stages(calls)).plan([7], address)),
    ):
        with pytest.raises(kind, match=told):
            action()
    assert calls.made == []
    assert sorted(postgres.run(query, address)) == before


def test_the_tables_of_an_event_log_are_left_alone(address: str) -> None:
    """They have a table of the same name; the message says what helps."""
    asyncio.run(Pipeline([Stage("A", 1, [str])], observers=[PostgresSink(address)]).run([1]))
    with pytest.raises(JournalOpenError, match=r"an event log; use another schema, with \?search"):
        run(two_stages(Calls()), [1], address)


def test_what_is_wrong_with_a_database_is_said_before_an_item_is_run(
    postgres: PostgresServer, address: str
) -> None:
    """In words, without the password."""
    calls = Calls()
    schema = address.rpartition("=")[2]
    wrong = {
        postgres.address(password="s3cr3t"): "password authentication failed",
        address.replace("/postgres?", "/nowhere?"): 'database "nowhere" does not exist',
        address.replace(schema, "nowhere"): "no schema of its search path .nowhere. exists",
        "postgresql://me:s3cr3t@127.0.0.1:1/name": "Connect call failed|onnection refused",
        f"postgresql://me:s3cr3t@/name?host={postgres._folder}/nowhere": "No such file",
    }
    for place, told in wrong.items():
        for action in (lambda at: run(two_stages(calls), [7], at), Journal.open):
            with pytest.raises(JournalOpenError, match=told) as caught:
                action(place)
            assert str(caught.value).startswith("journal 'postgresql://")
            assert "s3cr3t" not in "".join(map(str, [caught.value, caught.value.__cause__]))
    with (
        a_role(postgres, address, "USAGE ON HERE") as place,
        pytest.raises(JournalOpenError, match="permission denied for schema"),
    ):
        run(two_stages(calls), [7], place)
    for unquoted in ("postgresql://me:s3cr3t/x@host/name", "postgresql://me:s3cr3t#@host/name"):
        with pytest.raises(ValueError, match="must be the address of a PostgreSQL") as refused:
            Journal(unquoted)
        assert "s3cr3t" not in str(refused.value)
    with pytest.raises(JournalOpenError, match="it does not exist"):
        Journal.open(address)
    assert calls.made == []


def test_a_user_who_may_only_read_can_read(postgres: PostgresServer, address: str) -> None:
    """To write, more is needed; the tables stay as they are."""
    run(two_stages(Calls()), range(5), address)
    with a_role(postgres, address, "USAGE ON HERE", "SELECT ON ALL TABLES IN HERE") as place:
        with Journal.open(place) as reader:
            assert reader.info.outcomes == {"completed": 5}
        with pytest.raises(JournalOpenError, match="permission denied for table writer"):
            run(two_stages(Calls()), range(5), place)


def test_pickles_that_others_could_have_written_are_not_loaded(
    postgres: PostgresServer, address: str
) -> None:
    """A database must be as private as a file."""
    kept = Journal(address, codec="pickle", trusted=True)
    assert run([Stage("A", 1, [complex]), Stage("B", 1, [str])], [1], kept).values() == ["(1+0j)"]
    with a_role(postgres, address, "USAGE ON HERE", "UPDATE ON results") as place:
        with pytest.raises(JournalOpenError, match="others can write to the table 'results'"):
            run([Stage("A", 1, [complex])], [1], kept)
        with pytest.raises(JournalOpenError, match="others can write to the table 'results'"):
            Journal.open(address, codec="pickle", trusted=True)
        del place
    assert run([Stage("A", 1, [complex]), Stage("B", 1, [str])], [1], kept).resumed == 1


def test_the_password_is_in_no_message(postgres: PostgresServer, address: str) -> None:
    """Nor in what shows a journal."""
    secret = "s3cr3t"
    journal = Journal(address)
    run(two_stages(Calls()), [1], journal)
    with Journal.open(address) as reader:
        shown = [repr(journal), journal.path, repr(reader), reader.path, str(reader.info)]
    assert not any(secret in text for text in shown)
    assert f"search_path={address.rpartition('=')[2]}" in repr(journal)


def test_attempts_that_are_written_again_are_there_once(address: str) -> None:
    """As all rows, if the answer to a commit was lost."""
    calls = Calls()
    calls.broken = {("Put", 2)}
    run(two_stages(calls), [1, 2], address)
    attempts = rows_of(address, "SELECT * FROM attempts")
    assert len(attempts) == 1
    with closing(open_for_writing(address)) as connection:
        row = connection.execute("SELECT * FROM attempts").fetchone()
        for _ in range(2):
            connection.write([(schema.ATTEMPT, row[:-1])])
    assert rows_of(address, "SELECT * FROM attempts") == attempts


def test_rows_of_a_transaction_keep_their_order_where_it_counts() -> None:
    """Rows of one table go together, but not past a statement that deletes."""
    result, outcome = (1, 1, "7", 1, 0.5, 1), (1, "completed", 1, "7", 1, 0.5, None, 0.0, 1)
    rows: list[Any] = [
        *((schema.RESULT, result), (schema.OUTCOME, outcome), (schema.RESULT, (2, *result[1:]))),
        (schema.FORGET_OUTCOME, {"item": 1}),
        *((schema.OUTCOME, outcome), (schema.RESULT, result)),
    ]
    parts = [(query.split()[2], len(values)) for query, values in batches(rows)]
    assert parts == [
        *(("results", 2), ("outcomes", 1)),
        ("outcomes", 1),
        *(("outcomes", 1), ("results", 1)),
    ]


# Values


WORDS = st.text() | st.text(st.characters(categories=["Cs", "Ll", "Cc"]))
LIKE_KEPT = st.sampled_from(
    ["base64:", "escaped:", 'escaped:"a"', "base64:YQ==", '{"$bytes":"YQ=="}']
)


@given(value=WORDS | LIKE_KEPT | st.builds(str.__add__, LIKE_KEPT, WORDS) | st.binary() | st.none())
@example(value="\0")
@example(value="\ud800")
def test_any_value_has_a_text_that_postgres_keeps(value: Any) -> None:
    """It is that value again, and no other one's text."""
    kept = kept_value(value)
    assert (value_of(kept), type(value_of(kept))) == (value, type(value))
    if isinstance(kept, str):
        assert "\0" not in kept
        kept.encode()
    if isinstance(value, str):
        assert kept_text(value) == kept


@given(
    one=st.integers() | st.floats(allow_nan=False) | WORDS | st.binary() | LIKE_KEPT,
    other=st.integers(0, 9) | st.integers(0, 9).map(str) | st.binary(max_size=2) | st.text("05"),
)
@example(one=5, other="5")
@example(one=b"5", other="5")
def test_keys_in_postgres_are_apart(one: Any, other: Any) -> None:
    """Two keys have one text if they are equal, and each comes back as it was."""
    keys = [item_key(one), item_key(other)]
    assert (kept_key(keys[0]) == kept_key(keys[1])) == (keys[0] == keys[1])
    for key in keys:
        back = key_of(kept_key(key))
        assert (back, type(back)) == (key, type(key))
        assert "\0" not in kept_key(key)


ODD: list[Any] = [
    *(5, "5", b"5", 5.5, "5.5", float("inf"), 2**63 - 1, -(2**63) + 1, 2**70, "", "\0", "a\0b"),
    *("\ud800", 'é"\\', b"\0\xff", (1, "1"), "base64:YQ==", 'escaped:"x"', '{"$bytes":"NQ=="}'),
]


def test_odd_ids_and_values_come_back(address: str) -> None:
    """NUL, halves of surrogate pairs, bytes, infinity, large numbers: as in a file."""
    items = [{"id": each, "value": each} for each in ODD]
    calls: list[Any] = []

    async def note(value: Any) -> Any:
        calls.append(value)
        return value

    async def fail(value: Any) -> Any:
        if value == "\0":
            raise ValueError("no \0 \ud800")
        return value

    stages = [Stage("Note", 4, [note]), Stage("Fail", 1, [fail], task_attempts=1)]
    first = run(stages, items, address)
    assert len(calls) == len(ODD)
    again = run(stages, items, address)
    assert len(calls) == len(ODD)
    assert again.resumed == len(ODD)
    assert again.values() == first.values() == [each for each in ODD if each != "\0"]
    with Journal.open(address) as reader:
        found = [*reader.results(), *reader.failed()]
        assert sorted(map(repr, (each.id for each in found))) == sorted(map(repr, ODD))
        [failed] = reader.failed()
        assert failed.stage == "Fail"
    [(error,)] = rows_of(address, "SELECT error FROM attempts")
    assert "no " in error


def test_a_journal_moves_between_a_file_and_a_database(address: str, tmp_path: Path) -> None:
    """In both directions, with the checksums of its rows, whatever is in them."""
    there, back, calls = address, tmp_path / "back.db", Calls()
    calls.broken = {("Put", 4)}
    first = tmp_path / "run.db"
    items = [{"id": each, "value": number} for number, each in enumerate(ODD)]
    expected = run(two_stages(calls), items, first)
    copied = copy_journal(str(first), there)
    assert copied.rows["items"] == len(ODD)
    assert copied.is_whole
    copy_journal(there, str(back))
    calls.new()
    for place in (there, back):
        results = run(two_stages(calls), items, place)
        assert (results.values(), results.resumed) == (expected.values(), len(ODD))
        assert calls.new() == []
    for table in ("items", "results", "outcomes", "attempts", "checkpoints"):
        rows = f"SELECT * FROM {table} ORDER BY item, crc"
        assert rows_of(first, rows) == rows_of(back, rows)
        sums = f"SELECT item, crc FROM {table} ORDER BY item, crc"
        assert rows_of(first, sums) == rows_of(there, sums)
    with pytest.raises(JournalOpenError, match="there is a journal there already"):
        copy_journal(str(first), there)


def test_a_copy_that_fails_leaves_nothing_in_the_database(
    postgres: PostgresServer, address: str, tmp_path: Path
) -> None:
    """The schema is empty as before."""
    from antflow.exceptions import JournalCorruptError
    from tests.journal.crashing import change

    path = tmp_path / "run.db"
    run(two_stages(Calls()), range(5), path)
    change(path, "UPDATE outcomes SET value = '77' WHERE item = 3")
    with pytest.raises(JournalCorruptError, match="table outcomes is damaged"):
        copy_journal(str(path), address)
    query = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    assert postgres.run(query, address) == [(0,)]
    copied = copy_journal(str(path), address, repairs=True)
    assert copied.damaged == {"outcomes": [3]}


def test_many_results_are_read_as_they_were_when_it_began(address: str) -> None:
    """They come in parts; what a run writes meanwhile is not among them."""
    run(two_stages(Calls()), range(2500), Journal(address, max_unflushed=1000))
    with Journal.open(address) as reader:
        results = reader.results()
        begun = [next(results)]
        run(two_stages(Calls()), range(2600), Journal(address, max_unflushed=1000))
        assert len([*begun, *results]) == 2500
        assert len([*reader.results()]) == 2600


def test_a_commit_survives_what_it_is_to_survive(postgres: PostgresServer, address: str) -> None:
    """A server that answers before it has written to its disk is told to wait for that."""
    settings = {
        ("process", "off"): "local",
        ("process", "remote_apply"): "remote_apply",
        ("power", "off"): "on",
        ("power", "local"): "on",
    }
    for (durability, given_), used in settings.items():
        place = f"{address}&synchronous_commit={given_}"
        with closing(open_for_writing(place, durability)) as connection:  # type: ignore[arg-type]
            assert connection.execute(
                "SELECT current_setting('synchronous_commit')"
            ).fetchone() == (used,)


def test_without_a_database_asyncpg_is_not_imported(tmp_path: Path) -> None:
    """A journal in a file does without it; with one, its absence is told of with what helps."""
    code = """
    import asyncio, sys
    from antflow import Pipeline, Stage
    sys.modules["asyncpg"] = None
    pipeline = Pipeline([Stage("A", 1, [str])])
    print(asyncio.run(pipeline.run([1], journal=sys.argv[1])).values())
    asyncio.run(pipeline.run([1], journal="postgresql://host/name"))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "['1']\n", done.stderr
    assert "PostgreSQL needs asyncpg: pip install 'antflow[postgres]'" in done.stderr
