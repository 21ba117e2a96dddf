"""Small servers on this machine, for programs that talk to services."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import NamedTuple, cast

LOCALHOST = "127.0.0.1"


class Call(NamedTuple):
    """A request that an HTTP stand-in got, and when."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    time: float


class Reply(NamedTuple):
    """The answer to a request. A ``Content-Length`` that is too high breaks the connection."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {}


class HttpStandIn(ThreadingHTTPServer):
    """An HTTP server that answers by a function and keeps the requests."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, answer: Callable[[Call], Reply]) -> None:
        super().__init__((LOCALHOST, 0), HttpHandler)
        self.answer = answer
        self.calls: list[Call] = []
        self.url = f"http://{LOCALHOST}:{self.server_port}"

    def times_asked(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(call.path == path for call in self.calls)


class HttpHandler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        server = cast(HttpStandIn, self.server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = Call(self.command, self.path, dict(self.headers), body, time.monotonic())
        server.calls.append(call)
        reply = server.answer(call)
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class SmtpStandIn(ThreadingTCPServer):
    """A mail server that keeps what it is sent.

    It refuses addresses that begin with "refused", and hangs up once, before the first mail to an
    address that begins with "unlucky".
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__((LOCALHOST, 0), SmtpHandler)
        self.port = self.server_address[1]
        self.mails: list[Message] = []
        self.connections = 0
        self.has_hung_up = False


class SmtpHandler(StreamRequestHandler):
    def handle(self) -> None:
        server = cast(SmtpStandIn, self.server)
        server.connections += 1
        self.say("220 ready")
        for line in self.rfile:
            word, _, rest = line.decode().strip().partition(" ")
            word = word.lower()
            address = rest.partition("<")[2]
            if word == "ehlo":
                self.say("250-stand-in\r\n250 AUTH PLAIN")
            elif word == "auth":
                self.say("235 welcome")
            elif word == "data":
                self.say("354 go on")
                data = b"".join(iter(self.rfile.readline, b".\r\n"))
                server.mails.append(message_from_bytes(data))
                self.say("250 taken")
            elif word == "quit":
                self.say("221 bye")
                return
            elif address.startswith("refused"):
                self.say("550 no such user")
            elif address.startswith("unlucky") and not server.has_hung_up:
                server.has_hung_up = True
                return
            else:
                self.say("250 yes")

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def serving(server: HttpStandIn | SmtpStandIn) -> Iterator[None]:
    """Let a stand-in serve during a block."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
