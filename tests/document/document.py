"""Runs the code blocks of the document "Dashboard vs StatusTracker" as they stand there.

Each test file of this folder is about one section of it. A block is kept as a string, word for
word, and run as the body of an asynchronous program. What the document leaves to its reader is
filled in: names (``items``, ``db``), the module ``asyncio``, and ``[...]``, which becomes the name
``stages``.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from typing import Any


async def run_block(source: str, /, **fill_ins: Any) -> dict[str, Any]:
    """Run a block; ``await`` may stand in it anywhere.

    Args:
        source: The block.
        fill_ins: The names it is given.

    Returns:
        All its names afterwards.
    """
    code = compile(
        source.replace("[...]", "stages"),
        "<document>",
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    namespace: dict[str, Any] = {"__name__": "document", "asyncio": asyncio, **fill_ins}
    answer = eval(code, namespace)
    if inspect.iscoroutine(answer):
        await answer
    return namespace
