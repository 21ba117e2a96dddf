"""A faster event loop, where one is installed."""

from __future__ import annotations

import asyncio
import warnings
from importlib import import_module

__all__ = ["install_fast_loop"]


def install_fast_loop() -> bool:
    """Have every event loop made from now on be one of uvloop's, if uvloop is installed.

    Call it once, before ``asyncio.run()``. A loop that is running already stays what it is, and so
    does one that is asked for by name (``loop_factory=``). It never raises and never warns.

    Returns:
        Whether it was done. ``False`` without uvloop (the extra ``antflow[uvloop]``), on Windows,
        and where Python no longer has event loop policies (from 3.16 on: use ``uvloop.run()``).
    """
    try:
        uvloop = import_module("uvloop")
        with warnings.catch_warnings():
            # Policies are deprecated since Python 3.14. They are still the only way to choose the
            # loop of an `asyncio.run()` that somebody else calls.
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(  # type: ignore[deprecated]
                uvloop.EventLoopPolicy()
            )
    except Exception:
        return False
    return True
