"""Protocols that a cluster's library must fulfil: see `antflow.runners` for the libraries.

    RemoteRunner ── Nodes ── Node ══ Link ═══════════ FarHost ── the tasks
                             home │ the cluster's own │ a worker process of the cluster

A `Link` carries bytes. The home sends packs of orders, one at a time; and asks for events, again
and again, which a call answers as soon as there are some. So all that a library needs is to call a
function in a given worker process, several at a time, and to fail the call when that process is
lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

LONGEST_POLL = 5.0
"""Seconds after which a call for events is answered even if there are none."""

LONGEST_SILENCE = 20.0
"""Seconds without any answer after which a worker process counts as lost."""


class NodeFacts(NamedTuple):
    """The facts about a worker process of a cluster.

    Attributes:
        host: Its machine, by the name or address that the cluster uses.
        pid: Its process id.
        python: Version of Python: ``"3.11"``.
        antflow: Version of this library.
    """

    host: str
    pid: int
    python: str
    antflow: str


class Start(NamedTuple):
    """All that a worker process needs to call the tasks of a stage.

    Attributes:
        stage: The stage's name.
        token: Names this run of the stage.
        tasks: The tasks and resources, pickled.
        threads: How many plain functions run at the same time as long as none is slow.
    """

    stage: str
    token: str
    tasks: bytes
    threads: int


class Link(Protocol):
    """The far side of a stage in one worker process."""

    async def send(self, pack: bytes) -> None:
        """Bring orders there.

        Raises:
            Exception: It is lost.
        """
        ...

    async def receive(self) -> bytes:
        """Wait for events; an empty list after `LONGEST_POLL`.

        Raises:
            Exception: It is lost.
        """
        ...


class Cluster(Protocol):
    """A cluster, as one run of a stage uses it.

    Attributes:
        address: What the user calls it: ``"dask://scheduler:8786"``.
    """

    address: str

    def dumps(self, value: Any, /) -> bytes:
        """Pickle a value of the user's, classes and functions of ``__main__`` included."""
        ...

    def loads(self, data: bytes, /) -> Any:
        """Load what the far side has pickled."""
        ...

    async def connect(self) -> None:
        """Connect.

        Raises:
            Exception: It cannot be reached.
        """
        ...

    async def workers(self) -> Mapping[str, int]:
        """The worker processes there are now: address → threads.

        Raises:
            Exception: It cannot be reached.
        """
        ...

    async def facts(self, address: str) -> NodeFacts:
        """The facts about a worker process.

        Raises:
            ImportError: It does not have this library.
            Exception: It is lost.
        """
        ...

    async def open(self, address: str, start: Start) -> Link:
        """Begin with a stage in a worker process.

        Raises:
            ImportError: It cannot load the tasks.
            AttributeError: The same.
            Exception: It is lost.
        """
        ...

    async def epitaph(self, address: str, pid: int) -> str:
        """How a lost worker process has ended: ``"was killed by signal 9"``.

        Returns:
            "" if the cluster does not say, or does not know yet.
        """
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...
