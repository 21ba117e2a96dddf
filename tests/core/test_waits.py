"""Optional waits: chained, or discarded."""

from __future__ import annotations

import asyncio

import pytest

from antflow._core.waits import both


def test_second_wait_is_closed_if_the_first_fails() -> None:
    """Of two waits in a row, the second one is closed when the first one raises."""

    async def fails() -> None:
        raise OSError("the first")

    async def never_begun() -> None:
        raise AssertionError

    async def main() -> None:
        second = never_begun()
        wait = both(fails(), second)
        assert wait is not None
        with pytest.raises(OSError, match="the first"):
            await wait
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await second

    asyncio.run(main())
