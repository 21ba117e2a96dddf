"""Share clients and connections: a client for the whole run, a connection for each worker.

python examples/resources.py

A resource has a name and a function that makes a context manager. The run enters it before its
first use, passes its value to the tasks by that name, and leaves it at the end, even if it fails or
is cancelled.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from antflow import Pipeline, Stage


class Client:
    """Like `httpx.AsyncClient` or `aiohttp.ClientSession`: it keeps connections, so share one."""

    async def __aenter__(self) -> "Client":
        print("client opened")
        self.calls = 0
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0.01)
        print("client closed after", self.calls, "calls")

    async def get(self, number: int) -> str:
        self.calls += 1
        await asyncio.sleep(0.05)
        return f"page {number}"


@asynccontextmanager
async def connection() -> AsyncIterator[set[str]]:
    rows = set[str]()
    try:
        yield rows
    finally:
        print("connection closed after", len(rows), "rows")


async def fetch(number: int, client: Client) -> str:
    return await client.get(number)


async def enrich(page: str, client: Client) -> str:
    return page + " of " + await client.get(0)


async def save(page: str, database: set[str]) -> None:
    database.add(page)
    if page.startswith("page 7 "):
        raise OSError("the disk is full")


async def main() -> None:
    shared = {"client": Client}  # the same function in both stages: one client for both
    own = {"database": connection}
    pipeline = Pipeline(
        [
            Stage("Fetch", workers=5, tasks=[fetch], resources=shared),
            Stage("Enrich", workers=5, tasks=[enrich], resources=shared),
            Stage("Save", 2, [save], resources=own, resource_scope="worker", task_attempts=1),
        ]
    )
    print(await pipeline.run(range(20), on_failures="ignore"))

    print("\nAnd a run that is cancelled in the middle:")
    try:
        await pipeline.run(range(1_000_000), timeout=0.3, on_failures="ignore")
    except TimeoutError as error:
        print(error)


if __name__ == "__main__":
    asyncio.run(main())
