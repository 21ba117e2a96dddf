"""A local HTTP server for W0: `python -m benchmarks.server` prints its port and serves.

It ends when its standard input does. One request in fifty is refused the first time.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

REFUSED = 50


def application() -> web.Application:
    """The pages: ``/item/7`` is ``{"number": 7}``."""
    refused: set[int] = set()

    async def item(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number % REFUSED == 0 and number not in refused:
            refused.add(number)
            return web.Response(status=503)
        return web.json_response({"number": number})

    app = web.Application()
    app.router.add_get("/item/{number}", item)
    return app


async def main() -> None:
    """Serve until the standard input ends."""
    runner = web.AppRunner(application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
