"""A faster event loop, if one is installed."""

from __future__ import annotations

import asyncio
import warnings
from importlib import import_module

__all__ = ["install_fast_loop"]


def install_fast_loop() -> bool:
    """Use uvloop for every event loop made from now on, if it is installed.

    Call it once, before ``asyncio.run()``. It does not change a loop that is running already, or
    one that is chosen with ``loop_factory=``. It never raises and never warns.

    Returns:
        Whether it was done. ``False`` without uvloop (the extra ``antflow[uvloop]``), on Windows,
        and where Python no longer has event loop policies (from 3.16 on: use ``uvloop.run()``).
    """
    try:
        uvloop = import_module("uvloop")
        with warnings.catch_warnings():
            # Policies are deprecated since Python 3.14. They are still the only way to choose the
            # loop of an `asyncio.run()` in other code.
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(  # type: ignore[deprecated]
                uvloop.EventLoopPolicy()
            )
    except Exception:
        return False
    return True
