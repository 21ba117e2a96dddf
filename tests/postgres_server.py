"""A real PostgreSQL for tests, on a socket in a temporary folder.

It is the one of the system: Debian's package is ``postgresql``. The server refuses to run as root,
so there it runs as the user ``postgres``, whom that package makes.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import asyncpg

PASSWORD = "s3cr3t/w0rd"
OWNER = "antflow"

LONGEST_START = 60.0
"""Seconds for a server to answer; a busy machine is slow."""


WATCH = """
read nothing
server=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -CONT $server && kill -QUIT $server
sleep 0.1; rm -rf "$1"
"""
"""Ends the server if the tests are killed: then the pipe that it reads from is closed."""


class Missing(Exception):
    """There is no PostgreSQL here; the message says why."""


class PostgresServer:
    """A server of its own: made with `postgres_server`."""

    def __init__(self, programs: Path, folder: Path, settings: Sequence[str]) -> None:
        self._settings = ["listen_addresses=", *settings]
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, user: str = OWNER, password: str = PASSWORD, **options: str) -> str:
        """Where its database is, for a user, as a URL."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        quoted = password.replace("/", "%2F")
        return f"postgresql://{user}:{quoted}@/postgres?host={self._folder}{more}"

    def schema(self, **options: str) -> str:
        """The address of an empty schema."""
        name = f"s_{secrets.token_hex(6)}"
        self.run(f"CREATE SCHEMA {name}")
        return self.address(search_path=name, **options)

    def run(self, statement: str, address: str | None = None) -> list[tuple[Any, ...]]:
        """Run SQL as its owner; the rows of the last statement."""
        return rows_of(address or self.address(), statement)

    def make(self) -> None:
        """Make its files."""
        (self._folder / "password").write_text(PASSWORD)
        self._chown()
        options = ["--no-sync", "-U", OWNER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"]
        command = [str(self._programs / "initdb"), "-D", str(self._data), *options]
        made = subprocess.run(
            [*command, f"--pwfile={self._folder / 'password'}"],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **unprivileged(),
        )
        if made.returncode:
            raise Missing(f"initdb failed: {made.stderr.strip()}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        deadline = time.monotonic() + LONGEST_START
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self._folder)]
        while True:
            if self._process is None or self._process.poll() is not None:
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        [*command, *(part for each in self._settings for part in ("-c", each))],
                        cwd=self._folder,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                        **unprivileged(),
                    )
            try:
                self.run("SELECT 1")
                return
            except Exception:
                if time.monotonic() > deadline:
                    self.stop()
                    raise Missing((self._folder / "log").read_text()[-2_000:]) from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: at once (SIGQUIT, as ``pg_ctl stop -m immediate``), or kill it (SIGKILL)."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait()

    def pause(self) -> None:
        """Stop all its processes, until `resume`: it is there and does not answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for process in [self._process.pid, *_children_of(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _chown(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
            shutil.chown(self._folder / "password", "postgres")


@contextmanager
def postgres_server(settings: Sequence[str] = ("fsync=off",)) -> Iterator[PostgresServer]:
    """A server that runs.

    Args:
        settings: Those of the server that it does not come with.

    Raises:
        Missing: There is no PostgreSQL here, or it does not start.
    """
    programs = _programs()
    folder = Path(mkdtemp(prefix="antflow-pg"))  # short: a socket's path has at most 107 bytes
    watch = subprocess.Popen(["sh", "-c", WATCH, "sh", str(folder)], stdin=subprocess.PIPE)
    try:
        server = PostgresServer(programs, folder, settings)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        watch.communicate()


def unprivileged() -> dict[str, Any]:
    """Options for `subprocess`: who runs a server."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def rows_of(address: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query; none of several, which end with ``;``."""
    with ThreadPoolExecutor(1) as thread:  # the caller may have an event loop that is running
        return thread.submit(asyncio.run, _rows_of(address, query)).result()


async def _rows_of(address: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(address, timeout=10)
    try:
        if ";" in query:
            await connection.execute(query)
            return []
        return list(map(tuple, await connection.fetch(query)))
    finally:
        await connection.close()


def _programs() -> Path:
    """The folder of the newest PostgreSQL. Debian has it outside of PATH."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *_on_path("initdb")]
    if not found:
        raise Missing("PostgreSQL is not installed (apt-get install postgresql)")
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        raise Missing("PostgreSQL does not run as root, and there is no user 'postgres'")
    return max(found, key=lambda path: (len(path.parts[-3]), path.parts[-3])).parent


def _on_path(name: str) -> list[Path]:
    found = shutil.which(name)
    return [Path(found).resolve()] if found else []


def _children_of(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in text.split()]
