"""Events as rows of a real PostgreSQL, and what happens when it fails."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from antflow import Pipeline, Stage
from antflow._core.addresses import without_password
from antflow.sinks import EventLog, EventRecord, PostgresSink
from tests.postgres_server import OWNER, PASSWORD, PostgresServer

from .test_sink import run

pytestmark = pytest.mark.process


@pytest.fixture
def dsn(postgres: PostgresServer) -> str:
    """The address of an empty schema."""
    return postgres.schema()


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", ())


@pytest.fixture
def many_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a busy machine needs to start a server."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.1,) * 300)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The texts of warnings, with their tracebacks; a password is in none of them."""
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("antflow")
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)
    assert not any(PASSWORD in text or "s3cr3t" in text for text in texts)


async def interrupted(sink: PostgresSink, action: Callable[[], object], items: int = 200) -> None:
    """Run a pipeline, and in the middle, when a part of it is written, do something."""

    async def work(number: int) -> int:
        if number == items // 2:
            while not sink.counts.delivered:
                await asyncio.sleep(0.001)
            await asyncio.get_running_loop().run_in_executor(None, action)
        return number

    results = await Pipeline([Stage("A", 1, [work])], observers=[sink]).run(range(items))
    assert results.values() == list(range(items))


def numbers(postgres: PostgresServer, dsn: str) -> list[int]:
    return [seq for (seq,) in postgres.run("SELECT seq FROM events ORDER BY seq", dsn)]


# -- what is written --------------------------------------------------------------------------


def test_postgres_has_a_row_for_each_event(postgres: PostgresServer, dsn: str) -> None:
    """Each event is a row, and each run one with its counts."""
    sink = PostgresSink(dsn)
    asyncio.run(run(sink))
    asyncio.run(run(sink))
    assert postgres.run("SELECT count(*) FROM events", dsn) == [(sink.counts.delivered,)]
    columns = "pipeline, stages ->> 0, how, completed, failed, ended > started"
    rows = postgres.run(f"SELECT {columns} FROM runs", dsn)
    assert rows == [("pipeline", "Halve", "finished", 4, 1, True)] * 2
    failed = postgres.run("SELECT item, error_type FROM events WHERE kind = 'failed'", dsn)
    assert failed == [("3", "ValueError")] * 2


def test_columns_of_postgres_are_the_fields_of_the_record(
    postgres: PostgresServer, dsn: str
) -> None:
    """The columns stand in the order of the record's fields, with types that SQL knows."""
    asyncio.run(run(PostgresSink(dsn)))
    query = (
        "SELECT attname, format_type(atttypid, -1) FROM pg_attribute "
        "WHERE attrelid = 'events'::regclass AND attnum > 0 ORDER BY attnum"
    )
    types = dict(postgres.run(query, dsn))
    assert tuple(types) == EventRecord._fields
    assert types["timestamp"] == "timestamp with time zone"
    assert types["value"] == "jsonb"


def test_values_can_be_asked_for_parts(postgres: PostgresServer, dsn: str) -> None:
    """A value is ``jsonb``, and its time a time."""
    sink = PostgresSink(dsn, values=True, kinds=["completed"])
    pipeline = Pipeline([Stage("A", 1, [lambda each: {"n": each}])], observers=[sink])
    asyncio.run(pipeline.run([1, 2]))
    query = (
        "SELECT item FROM events WHERE value @> '{\"n\": 2}' "
        "AND timestamp > now() - interval '1 hour'"
    )
    assert postgres.run(query, dsn) == [("1",)]


def test_items_in_postgres_are_found_by_an_index(postgres: PostgresServer, dsn: str) -> None:
    """A query for one item need not read other rows."""
    asyncio.run(run(PostgresSink(dsn)))
    query = "EXPLAIN SELECT * FROM events WHERE item = '3'"
    plan = postgres.run(query, f"{dsn}&enable_seqscan=off")
    assert "events_item" in str(plan)


@pytest.mark.parametrize("size", [3_000, 10_000_000])
def test_long_texts_are_cut(postgres: PostgresServer, dsn: str, size: int) -> None:
    """An id, a message or what `redact` makes of them may be huge: its beginning is recorded."""

    def fail(value: object) -> None:
        raise ValueError(os.urandom(size // 2).hex())

    def longer(field: str, value: Any) -> Any:
        return os.urandom(size // 2).hex()

    sinks = [PostgresSink(dsn, values=True), PostgresSink(dsn, values=True, redact=longer)]
    for sink in sinks:
        stages = [Stage("A", 1, [fail], task_attempts=1)]
        pipeline = Pipeline(stages, observers=[sink])
        item = {"id": os.urandom(size // 2).hex(), "value": 1}
        asyncio.run(pipeline.run([item], on_failures="ignore"))
        assert sink.counts.error is None
    ((longest, message),) = postgres.run(
        "SELECT max(length(item)), max(length(error)) FROM events", dsn
    )
    assert (longest, message) == (200, 2_000)


def test_two_sinks_write_to_one_database(
    postgres: PostgresServer, dsn: str, no_retries: None
) -> None:
    """Sinks that begin at once make the tables once, and each writes all of its run."""
    sinks = [PostgresSink(dsn, batch=10) for _ in range(8)]

    async def all_of_them() -> None:
        await asyncio.gather(*(run(sink, 50) for sink in sinks))

    asyncio.run(all_of_them())
    assert {sink.counts.error for sink in sinks} == {None}
    written = sum(sink.counts.delivered for sink in sinks)
    assert postgres.run("SELECT count(*), count(DISTINCT run) FROM events", dsn) == [(written, 8)]
    assert postgres.run("SELECT count(*) FROM runs WHERE accepted = 50", dsn) == [(8,)]


def test_two_runs_share_a_sink(postgres: PostgresServer, dsn: str) -> None:
    """A sink that hears two runs at once writes both, over one connection that it closes."""
    sink = PostgresSink(f"{dsn}&application_name=shared")

    async def both() -> None:
        await asyncio.gather(run(sink, 50), run(sink, 80))

    asyncio.run(both())
    rows = postgres.run("SELECT accepted FROM runs ORDER BY 1", dsn)
    assert rows == [(50,), (80,)]
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shared'"
    assert postgres.run(query) == [(0,)]


def test_all_of_a_cancelled_run_is_written(postgres: PostgresServer, dsn: str) -> None:
    """What a cancelled run did is written before its caller goes on."""
    sink = PostgresSink(dsn)

    async def cancelled() -> None:
        stages = [Stage("Wait", 2, [asyncio.sleep])]
        running = asyncio.create_task(Pipeline(stages, observers=[sink]).run([60.0, 70.0]))
        while sink.counts.emitted < 4:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(cancelled())
    query = "SELECT count(*), max(how) FROM events JOIN runs USING (run) WHERE kind = 'cancelled'"
    assert postgres.run(query, dsn) == [(2, "cancelled")]


PROGRAM = """
import sys
from antflow import Pipeline, Stage
from antflow.sinks import PostgresSink
import asyncio

async def stop(item):
    if item == 5:
        {end}
    return item

async def main():
    await Pipeline(
        [Stage("A", 1, [stop], task_attempts=1)], observers=[PostgresSink(sys.argv[1], every=60)]
    ).run(range(10))

{start}
"""


@pytest.mark.parametrize(
    ("end", "start"),
    [
        ("sys.exit(3)", "asyncio.run(main())"),
        ("raise KeyboardInterrupt", "asyncio.run(main())"),
        # A loop that is left as it is: only `atexit` is there to write.
        ("loop.stop()", "loop = asyncio.new_event_loop(); task = loop.create_task(main()); "
         "loop.run_forever()"),
    ],
)  # fmt: skip
def test_all_of_a_program_that_ends_is_written(
    postgres: PostgresServer, dsn: str, end: str, start: str
) -> None:
    """If the program is ended from inside a run, everything up to then is written."""
    program = PROGRAM.format(end=end, start=start)
    subprocess.run(
        [sys.executable, "-c", program, dsn], capture_output=True, timeout=60, check=False
    )
    rows = postgres.run("SELECT kind FROM events WHERE item = '5' ORDER BY seq", dsn)
    assert rows[:2] == [("admitted",), ("started",)]


# -- what fails -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT])
def test_a_server_that_comes_back_costs_nothing(
    postgres: PostgresServer, dsn: str, how: signal.Signals, many_retries: None, warnings: list[str]
) -> None:
    """A server that is killed in the middle of a run and started again has every event once."""

    def restart() -> None:
        postgres.stop(how)
        threading.Timer(0.3, postgres.start).start()

    sink = PostgresSink(dsn, batch=20, every=0.005)
    asyncio.run(interrupted(sink, restart))
    assert numbers(postgres, dsn) == list(range(sink.counts.emitted))
    assert sink.counts.dropped == 0
    assert warnings == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT])
def test_a_server_that_stays_away_costs_no_item(
    postgres: PostgresServer,
    dsn: str,
    how: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[str],
) -> None:
    """If the server is killed for good, the sink goes off with one warning; no item notices."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.01, 0.01))
    sink = PostgresSink(dsn, batch=20, every=0.005)
    try:
        asyncio.run(interrupted(sink, lambda: postgres.stop(how)))
    finally:
        postgres.start()
    counts = sink.counts
    assert counts.error is not None
    assert 0 < counts.dropped < counts.emitted == counts.delivered + counts.dropped
    off, lost = warnings
    assert off.startswith("PostgresSink is off, after 3 attempts at writing to 'postgresql://antf")
    assert lost.startswith(f"PostgresSink lost {counts.dropped} events: it is off")
    assert numbers(postgres, dsn) == list(range(counts.delivered))


@pytest.mark.parametrize("when", ["connecting", "writing"])
def test_a_server_that_does_not_answer_costs_no_item(
    postgres: PostgresServer,
    dsn: str,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
    no_retries: None,
    warnings: list[str],
) -> None:
    """A server that takes what it is sent and says nothing is given up after a while."""
    for module in ("antflow._postgres.server", "antflow.sinks.postgres"):
        monkeypatch.setattr(f"{module}.LONGEST_WAIT", 1.0)
    sink = PostgresSink(dsn, batch=20, every=0.005)
    try:
        if when == "connecting":
            postgres.pause()
            asyncio.run(run(sink))
        else:
            asyncio.run(interrupted(sink, postgres.pause))
    finally:
        postgres.resume()
    assert sink.counts.error == "TimeoutError: the server did not answer within 1 s"
    assert len(warnings) == 2


def test_no_server_costs_no_item(tmp_path: Path, no_retries: None, warnings: list[str]) -> None:
    """Where there is no server, the sink is off and the run ends as ever."""
    sink = PostgresSink(f"postgresql://me:{PASSWORD}@/x?host={tmp_path}".replace("t/w", "t%2Fw"))
    asyncio.run(run(sink))
    assert sink.counts.emitted == sink.counts.dropped > 0
    assert "at writing to 'postgresql://me@/x': " in warnings[0]


def test_connects_again_for_the_next_run(
    postgres: PostgresServer, dsn: str, no_retries: None, warnings: list[str]
) -> None:
    """A sink that went off in one run connects again in the next."""
    sink = PostgresSink(dsn)
    postgres.stop()
    try:
        asyncio.run(run(sink))
        assert sink.counts.error is not None
    finally:
        postgres.start()
    lost = sink.counts.emitted
    asyncio.run(run(sink))
    assert sink.counts.error is None
    assert len(numbers(postgres, dsn)) == sink.counts.delivered == sink.counts.emitted - lost


def test_a_batch_written_twice_is_there_once(
    postgres: PostgresServer, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose commit was not heard of is written again, and no row is there twice."""
    monkeypatch.setattr("antflow.sinks.sink.RETRIES_AFTER", (0.0,))

    class Doubting(PostgresSink):
        times = 0

        def write(self, records: list[EventRecord]) -> None:
            super().write(records)
            self.times += 1
            if self.times % 2:
                raise ConnectionResetError

    sink = Doubting(dsn, batch=5)
    asyncio.run(run(sink))
    assert numbers(postgres, dsn) == list(range(sink.counts.emitted))


def test_a_batch_is_written_whole_or_not(
    postgres: PostgresServer, dsn: str, no_retries: None, warnings: list[str]
) -> None:
    """A batch of which one row is refused leaves no other row."""
    asyncio.run(run(PostgresSink(dsn), 1))
    before = numbers(postgres, dsn)
    postgres.run("ALTER TABLE events ADD CHECK (item <> '3') NOT VALID;", dsn)
    sink = PostgresSink(dsn)
    asyncio.run(run(sink))
    assert numbers(postgres, dsn) == before
    assert "CheckViolationError" in str(sink.counts.error)


@contextmanager
def a_user(postgres: PostgresServer, dsn: str, rights: str) -> Iterator[str]:
    """The address for another user, who has these rights."""
    schema = dsn.rpartition("=")[2]
    name = f"u_{schema}"
    postgres.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; {rights.format(name)};", dsn)
    postgres.run(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
    yield postgres.address(name, search_path=schema)
    postgres.run(f"DROP OWNED BY {name}; DROP ROLE {name};")


def test_a_user_who_may_only_read_costs_no_item(
    postgres: PostgresServer, dsn: str, no_retries: None, warnings: list[str]
) -> None:
    """A user who may not write makes the sink go off; the same user can read the log."""
    asyncio.run(run(PostgresSink(dsn)))
    before = numbers(postgres, dsn)
    with a_user(postgres, dsn, "GRANT SELECT ON runs, events TO {}") as reader:
        sink = PostgresSink(reader)
        asyncio.run(run(sink))
        assert "InsufficientPrivilegeError: permission denied" in str(sink.counts.error)
        assert numbers(postgres, dsn) == before
        with EventLog.open(reader) as log:
            assert len(log.get_failed_items()) == 1


def test_a_user_needs_few_rights(postgres: PostgresServer, dsn: str) -> None:
    """Where the tables are made, a user who may only add rows to them is enough."""
    asyncio.run(run(PostgresSink(dsn), 1))
    rights = "GRANT INSERT ON events, runs TO {0}; GRANT SELECT, UPDATE ON runs TO {0}"
    with a_user(postgres, dsn, rights) as writer:
        sink = PostgresSink(writer)
        asyncio.run(run(sink))
        assert sink.counts.error is None
        assert sink.counts.delivered == sink.counts.emitted > 0


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.seq > 200 THEN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


def test_a_full_disk_of_the_server_costs_no_item(
    postgres: PostgresServer, dsn: str, no_retries: None, warnings: list[str]
) -> None:
    """If the server's disk is full the sink goes off; what was written is whole."""
    asyncio.run(run(PostgresSink(dsn), 1))
    postgres.run(f"DELETE FROM events; {FULL}", dsn)
    sink = PostgresSink(dsn, batch=20, every=0.005)
    asyncio.run(interrupted(sink, lambda: None))
    assert str(sink.counts.error).startswith("DiskFullError: could not extend file")
    assert numbers(postgres, dsn) == list(range(sink.counts.delivered))
    assert len(warnings) == 2


@pytest.mark.parametrize("table", ["events", "runs"])
def test_a_table_that_disappears_costs_no_item(
    postgres: PostgresServer, dsn: str, table: str, no_retries: None, warnings: list[str]
) -> None:
    """A table that is dropped in the middle of a run is not made again; the sink goes off."""
    sink = PostgresSink(dsn, batch=20, every=0.005)
    asyncio.run(interrupted(sink, lambda: postgres.run(f"DROP TABLE {table}", dsn)))
    assert f'UndefinedTableError: relation "{table}" does not exist' in str(sink.counts.error)
    assert any("PostgresSink is off" in text for text in warnings)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("CREATE TABLE events (mine text);", "its table 'events' belongs to something else"),
        ("CREATE VIEW runs AS SELECT 1 AS mine;", "its table 'runs' belongs to something else"),
        ("COMMENT ON TABLE runs IS 'my runs';", "its table 'runs' belongs to something else"),
        ("COMMENT ON TABLE events IS 'antflow events, format 9';", "newer version (its format is"),
    ],
)
def test_other_tables_are_left_alone(
    postgres: PostgresServer,
    dsn: str,
    change: str,
    error: str,
    no_retries: None,
    warnings: list[str],
) -> None:
    """Tables of something else, or of a newer version, are not touched; the run goes on."""
    if change.startswith("COMMENT"):
        asyncio.run(run(PostgresSink(dsn)))
    postgres.run(change, dsn)
    query = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    before = postgres.run(query, dsn)
    sink = PostgresSink(dsn)
    asyncio.run(run(sink))
    assert error in str(sink.counts.error)
    assert sink.counts.emitted == sink.counts.dropped > 0
    assert postgres.run(query, dsn) == before
    with pytest.raises(ValueError, match=r"has no events|newer version \(its format is 9"):
        EventLog.open(dsn)


# -- addresses and passwords ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("postgresql://u:pw@host/name", "postgresql://u@host/name"),
        ("postgres://u:p%40w@a:1,b:2/name?x=pw", "postgres://u@a:1,b:2/name"),
        ("postgresql://u:p@w@[::1]:5432/name", "postgresql://u@[::1]:5432/name"),
        ("postgresql:///name?password=pw", "postgresql:///name"),
        ("postgresql://", "postgresql://"),
        ("postgresql://u:p/w@host/name", "postgresql://…"),
        ("postgresql://u:p?w@host/name", "postgresql://…"),
        ("postgresql://u:p#w@host/name", "postgresql://…"),
        ("postgresql://u:p/w", "postgresql://…"),
        ("postgresql://u:1/2@host/name", "postgresql://…"),
        ("postgresql://u:pw@[::1/name", "postgresql://…"),
        ("events.sqlite", "events.sqlite"),
    ],
)
def test_an_address_is_shown_without_its_password(source: str, shown: str) -> None:
    """What is shown of an address has no password, even if that is written wrongly."""
    assert without_password(source) == shown


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:s3cr3t/x@host/name",
        "postgresql://u:s3cr3t#x@host/name",
        "postgresql://u:1/s3cr3t@host/name",
        "postgresql://host:s3cr3t/name",
        "host=here password=s3cr3t",
        "mysql://u:s3cr3t@host/name",
    ],
)
def test_a_wrong_address_is_refused(dsn: str) -> None:
    """What is not an address is refused where it is given, without being shown."""
    with pytest.raises(ValueError, match="dsn: must be the address of a PostgreSQL") as caught:
        PostgresSink(dsn)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("dsn", [None, 3, "", b"postgresql://u:pw@host/name"])
def test_no_address_is_refused(dsn: Any) -> None:
    """Something that is not a string is refused."""
    with pytest.raises(TypeError, match="must be the address of a PostgreSQL database"):
        PostgresSink(dsn)


def test_a_wrong_password_is_not_shown(
    postgres: PostgresServer, no_retries: None, warnings: list[str]
) -> None:
    """Neither errors nor warnings have the password, nor has anything that prints the sink."""
    dsn = postgres.address(password="s3cr3t")
    sink = PostgresSink(dsn)
    asyncio.run(run(sink))
    assert sink.counts.error == (
        f'InvalidPasswordError: password authentication failed for user "{OWNER}"'
    )
    with pytest.raises(ConnectionError, match="InvalidPasswordError") as caught:
        EventLog.open(dsn)
    shown = [str(caught.value), repr(sink), sink.target, str(list(vars(sink).values()))]
    assert not any("s3cr3t" in text for text in shown)


def test_without_asyncpg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asyncpg is missing, the error says how to install it, when the sink is made."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for make in (PostgresSink, EventLog.open):
        with pytest.raises(ImportError, match=r"pip install 'antflow\[postgres\]'"):
            make("postgresql://host/name")


def test_asyncpg_is_imported_when_it_is_needed() -> None:
    """Neither the package nor the class needs asyncpg, only a sink that is made does."""
    program = (
        "import sys; from antflow.sinks import EventLog, PostgresSink; "
        "before = 'asyncpg' in sys.modules; PostgresSink('postgresql://host/name'); "
        "print(before, 'asyncpg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"True"]


# -- reading ----------------------------------------------------------------------------------


def test_reads_many_rows_and_asks_meanwhile(dsn: str) -> None:
    """Rows come in parts, and another question may be asked between two of them."""
    asyncio.run(run(PostgresSink(dsn), 700))
    with EventLog.open(dsn) as log:
        seen = 0
        for event in log.events():
            seen += 1
            if event.kind == "failed":
                assert log.get_stats()["completed"] == 699
        assert seen == 700 * 5 - 2
        assert next(log.events()).kind == "admitted"
        assert len(log.get_history(5)) == 6


def test_reading_leaves_no_transaction(postgres: PostgresServer, dsn: str) -> None:
    """Between two questions the log holds nothing back, and after it is closed nothing is left."""
    asyncio.run(run(PostgresSink(dsn), 700))
    query = "SELECT state FROM pg_stat_activity WHERE application_name = 'reading'"
    threads = threading.active_count()
    with EventLog.open(f"{dsn}&application_name=reading") as log:
        events = log.events()
        next(events)
        assert postgres.run(query) == [("idle in transaction",)]
        events.close()  # type: ignore[attr-defined]
        assert postgres.run(query) == [("idle",)]
    assert postgres.run(query) == []
    assert threading.active_count() == threads


def test_a_log_whose_server_restarts(postgres: PostgresServer, dsn: str) -> None:
    """A question that the server does not survive fails; later ones connect again."""
    asyncio.run(run(PostgresSink(dsn)))
    with EventLog.open(dsn) as log:
        before = log.get_stats()
        postgres.stop()
        try:
            with pytest.raises(ConnectionError, match="postgresql://antflow@/postgres"):
                log.get_stats()
        finally:
            postgres.start()
        assert log.get_stats() == before


def test_a_question_can_be_interrupted(postgres: PostgresServer, dsn: str) -> None:
    """Ctrl-C ends a question that the server has not answered yet."""
    asyncio.run(run(PostgresSink(dsn)))
    held, interrupted = threading.Event(), threading.Event()
    in_time: list[bool] = []

    async def hold() -> None:
        connection = await asyncpg.connect(dsn)
        async with connection.transaction():
            await connection.execute("LOCK TABLE events")
            held.set()
            loop = asyncio.get_running_loop()
            in_time.append(await loop.run_in_executor(None, interrupted.wait, 20))
        await connection.close()

    other = threading.Thread(target=asyncio.run, args=[hold()])
    other.start()
    with EventLog.open(dsn) as log:
        assert held.wait(30)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        try:
            with pytest.raises(KeyboardInterrupt):
                log.get_stats()
        finally:
            interrupted.set()
            other.join()
        assert in_time == [True]
        assert log.get_stats()["failed"] == 1
