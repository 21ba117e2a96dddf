"""The metrics of `antflow run`: for Prometheus to fetch, in a file, and pushed at the end.

Nothing here can end or change the run. What is wrong with an option is refused before it begins;
what goes wrong later is one warning.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from antflow import Pipeline
from antflow._core.log import warn
from antflow._core.text import clean
from antflow.cli.output_file import NamedFiles
from antflow.cli.parameters import Command, ParamType, complete_file
from antflow.cli.refusals import reason_of, refuse

if TYPE_CHECKING:
    from antflow.sinks import PipelineCollector

LOOPBACK = "127.0.0.1"
BETWEEN_WRITES = 15.0
"""Seconds between two versions of the file: as often as Prometheus usually asks."""

LONGEST_PUSH = 5.0
"""Seconds that a Pushgateway, or a disk, may take at the end."""

LONGEST_REQUEST = 5.0
"""Seconds that a client of the server may be silent."""

LONGEST_END = 0.1
"""Seconds until the server notices that it is to end."""

MOST_REQUESTS = 8
"""Requests that are answered at once."""

Address = tuple[str, int]


class AddressType(ParamType):
    """``PORT``, on this machine alone, or ``HOST:PORT``."""

    name = "address"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Host and port."""
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
        if not is_port or value.startswith(":"):
            self.fail(f"{value!r}: must be PORT or HOST:PORT, a port from 0 to 65535", param, ctx)
        return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


class GatewayUrl(ParamType):
    """``http://host:9091``."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The URL."""
        try:
            parts = urlsplit(value)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
            is_url = is_url and parts.port != 0
        except ValueError:  # it has a port that is not one
            is_url = False
        if not is_url:  # not shown: it may have a password in it
            self.fail("must be a URL like http://localhost:9091", param, ctx)
        return str(value)


def takes_metrics(command: Command) -> Command:
    """Add the options that say where the metrics go."""
    port = click.option(
        "--metrics-port",
        type=AddressType(),
        metavar="[HOST:]PORT",
        help="Serve metrics for Prometheus, at /metrics.  [default host: 127.0.0.1]",
    )
    url = click.option(
        "--metrics-push",
        type=GatewayUrl(),
        metavar="URL",
        help="Push the metrics to a Pushgateway at the end.",
    )
    file = click.option(
        "--metrics-file",
        metavar="FILE.prom",
        help="Write the metrics to a file for node_exporter, every 15 s and at the end.",
        shell_complete=complete_file,
    )
    return port(url(file(command)))


class Metrics:
    """The places that want the metrics of a run.

    Args:
        given: The values of the options that `takes_metrics` adds, by name.
        named: The files of other options; that of the metrics is added.

    Raises:
        Refusal: One of them cannot be used.
    """

    def __init__(self, given: Mapping[str, Any], named: NamedFiles) -> None:
        address: Address | None = given["metrics_port"]
        url: str | None = given["metrics_push"]
        path: str | None = given["metrics_file"]
        self._url = url
        self._path = path
        # The program may change its folder; and a link stays what it is.
        self._place = path and os.path.realpath(path)
        self._is_wanted = not (address is None and url is None and path is None)
        self._server: _Server | None = None
        if self._is_wanted:
            try:
                import antflow.sinks.prometheus  # noqa: F401
            except ImportError as error:
                refuse(f"metrics need prometheus-client: install antflow[prometheus] ({error})")
        if path is not None:
            _check_path(path)
            named.add("--metrics-file", path)
        if address is not None:
            self._server = _bound(address)

    @contextmanager
    def of(self, pipeline: Pipeline) -> Iterator[None]:
        """Provide the metrics of a pipeline, and their last state at the end, however that comes.

        Raises:
            Refusal: The file cannot be written.
        """
        if not self._is_wanted:
            yield
            return
        from antflow.sinks.prometheus import PipelineCollector

        collector = PipelineCollector(pipeline)
        if self._server is not None:
            self._server.begin(collector)
        file = None
        if self._path is not None and self._place is not None:
            file = _File(self._path, self._place, collector)
        try:
            yield
        finally:
            if file is not None:
                file.end()
            if self._url is not None and pipeline.current_run is not None:
                _push(collector, self._url, pipeline.name)

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.end()


# The file


def _check_path(path: str) -> None:
    if not path.endswith(".prom"):
        refuse(f"--metrics-file {path!r}: must end in .prom: node_exporter reads no other files")
    if os.path.isdir(path):
        refuse(f"--metrics-file {path!r}: is a folder")
    if os.path.exists(path) and not os.path.isfile(path):  # a device would be replaced
        refuse(f"--metrics-file {path!r}: is not an ordinary file")


class _File:
    """A file that is written again and again, by a thread.

    Args:
        path: Its name in messages.
        place: Where it is.
        collector: The metrics.

    Raises:
        Refusal: It cannot be written.
    """

    def __init__(self, path: str, place: str, collector: PipelineCollector) -> None:
        self._path = path
        self._place = place
        self._collector = collector
        self._is_over = Event()
        self._has_failed = False
        try:
            self._write()
        except OSError as error:
            refuse(f"--metrics-file {path!r}: {error.strerror}", error)
        self._thread = Thread(target=self._work, name="antflow metrics", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Write it once more."""
        self._is_over.set()
        self._thread.join(LONGEST_PUSH)  # a disk may hang: the run has ended all the same

    def _work(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(BETWEEN_WRITES)
            try:
                self._write()
            except Exception as error:
                if not self._has_failed:
                    self._has_failed = True
                    warn(
                        "--metrics-file %s: cannot be written: %s",
                        clean(self._path),
                        reason_of(error),
                    )

    def _write(self) -> None:
        from antflow.sinks.prometheus import write_file

        write_file(self._collector, self._place)


# The Pushgateway


def _push(collector: PipelineCollector, url: str, pipeline: str) -> None:
    from antflow.sinks.prometheus import push, without_password

    try:
        push(collector, url, pipeline, LONGEST_PUSH)
    except Exception as error:
        address = without_password(url)[0]
        warn("--metrics-push %s: %s", clean(address), reason_of(error))


# The server


def _bound(address: Address) -> _Server:
    try:
        return _Server(address)
    except (OSError, UnicodeError) as error:
        host, port = address
        reason = getattr(error, "strerror", None) or str(error)
        refuse(f"--metrics-port: cannot listen on {host} port {port}: {reason}", error)


class _Server(ThreadingMixIn, TCPServer):
    """Answers each request in a thread of its own: none waits for the event loop.

    It listens as soon as it is made, so that a port in use is known before anything else is done;
    it answers from `begin` on.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: Address) -> None:
        host, port = address
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self._host = host
        self._slots = BoundedSemaphore(MOST_REQUESTS)
        self._thread: Thread | None = None
        self.collector: PipelineCollector | None = None
        bound_to: Any = found[0][4]
        super().__init__(bound_to, _Handler)

    def begin(self, collector: PipelineCollector) -> None:
        """Answer from now on."""
        self.collector = collector
        self._thread = Thread(
            target=self.serve_forever, args=(LONGEST_END,), name="antflow metrics", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Answer no more, and leave the port."""
        if self._thread is not None:
            self.shutdown()
        self.server_close()

    def knows_as_itself(self, host: str) -> bool:
        """Whether a request that names this host is meant for this server.

        A page in a browser can reach a server on the same machine, through a name that its author
        lets point there. An address is not such a name.
        """
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in ("localhost", self._host.lower()):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    # Of the base classes

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to answer, unless too many requests are being answered."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the client has gone, or sends no request."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = LONGEST_REQUEST
    server_version = "antflow"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the metrics."""
        from antflow.sinks.prometheus import TEXT_TYPE, exposition

        assert self.server.collector is not None
        if not self.server.knows_as_itself(self.headers.get("Host", "")):
            self.send_error(403, explain="The Host header names another server.")
            return
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="The metrics are at /metrics.")
            return
        try:
            text = exposition(self.server.collector)
        except Exception as error:
            self.send_error(500, explain=reason_of(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", TEXT_TYPE)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)

    do_HEAD = do_GET  # noqa: N815 - the name that the base class looks for

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""
