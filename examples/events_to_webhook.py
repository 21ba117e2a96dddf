"""Failures to a web service in batches, while the run goes on; the service fails at first.

python examples/events_to_webhook.py
"""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar
from urllib.request import Request, urlopen

from antflow import Pipeline, Stage
from antflow.sinks import CallbackSink, EventRecord


class Service(BaseHTTPRequestHandler):
    """It stands in for yours: it is down for the first request, and keeps what it is sent."""

    is_up = False
    received: ClassVar[dict[tuple[str, int], str]] = {}  # (run, seq) → item: nothing is kept twice

    def do_POST(self) -> None:
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if Service.is_up:
            self.received.update({(each["run"], each["seq"]): each["item"] for each in events})
        self.send_response(200 if Service.is_up else 503)
        self.end_headers()
        Service.is_up = True

    def log_message(self, format: str, *args: object) -> None:
        print("the service answers", args[1])


def post(url: str, events: list[EventRecord]) -> None:
    """Called in the sink's thread, so it may block; what it raises makes the sink call it again."""
    data = json.dumps([event.to_dict() for event in events]).encode()
    request = Request(url, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=5):
        print(len(events), "events posted")


async def fetch(number: int) -> float:
    await asyncio.sleep(0.005)
    return 1 / (number % 25)


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/failures"

    sink = CallbackSink(lambda events: post(url, events), kinds=["failed"], batch=10)
    pipeline = Pipeline([Stage("Fetch", 5, [fetch], task_attempts=1)], observers=[sink])
    print(asyncio.run(pipeline.run(range(500), on_failures="ignore")))
    print(sink.counts)
    print("the service knows of items", *sorted(map(int, Service.received.values())))
    server.shutdown()
    server.server_close()
