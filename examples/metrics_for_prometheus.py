"""A program that Prometheus can scrape while its pipeline runs, and a look at what it finds there.

python examples/metrics_for_prometheus.py

It needs `pip install 'antflow[prometheus]'`. An argument is the port; otherwise, one that is free
is taken.
"""

import asyncio
import random
import sys
import urllib.request

from prometheus_client import CollectorRegistry, start_http_server

from antflow import Pipeline, Stage
from antflow.sinks import CallbackSink, PipelineCollector


async def fetch(number: int) -> int:
    await asyncio.sleep(random.uniform(0.01, 0.1))
    if random.random() < 0.1:
        raise ConnectionError("try again")
    return number


def parse(number: int) -> float:
    return 1 / (number % 20)


def scrape(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        for line in response.read().decode().splitlines():
            if line.startswith(("antflow_pipeline_items_total", "antflow_stage_errors_total")):
                print(line)


async def main(port: int) -> None:
    stages = [
        Stage("Fetch", 10, [fetch], task_attempts=9, task_wait_seconds=0.1),
        Stage("Parse", 2, [parse], task_attempts=1),
    ]
    sink = CallbackSink(lambda events: None)  # its events are counted, as those of every sink
    pages = Pipeline(stages, name="pages", observers=[sink])

    registry = CollectorRegistry()
    registry.register(PipelineCollector(pages))
    server, _ = start_http_server(port, "127.0.0.1", registry)
    try:
        for _ in range(2):  # two runs; the counters are those of both
            await pages.run(range(400), on_failures="ignore")
            await asyncio.to_thread(scrape, server.server_port)
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
