"""Heavy computation: measure the standard library's modules, in a process per worker.

python examples/cpu_in_processes.py

Python threads take turns at computing, processes do not. A stage with `executor="process"` sends
each value to its worker's process and gets the result back, so it must be possible to pickle both,
and the task must be a function at the top of a module. One of the files here ends its process. It
is tried in three of them and then fails; the others are not affected.
"""

import ast
import asyncio
import os
from pathlib import Path

from antflow import Pipeline, Stage, WorkerLostError

POISON = "this.py"


def measure(path: Path) -> tuple[str, int, int]:
    """Return the name of a module, and how many functions and branches it has."""
    if path.name == POISON:
        os._exit(1)  # as a crash in a C library would
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
    branches = sum(isinstance(node, ast.If | ast.For | ast.While | ast.Try) for node in nodes)
    return path.stem, functions, branches


async def main() -> None:
    workers = os.cpu_count() or 1
    stage = Stage("Measure", workers, [measure], executor="process", timeout=20, task_attempts=1)
    paths = sorted(Path(asyncio.__file__).parents[1].glob("[s-z]*.py"))
    results = await Pipeline([stage]).run(paths, dashboard="auto")

    for name, functions, branches in sorted(results.values(), key=lambda row: -row[2])[:5]:
        print(f"{name:12} {functions:4} functions {branches:4} branches")
    for failure in results.failed:
        assert isinstance(failure.error, WorkerLostError)
        print(f"{failure.value.name}: {failure.error}")
    print(f"{len(results)} of {len(paths)} modules were measured")


# The processes import this file too, and must not start the program again.
if __name__ == "__main__":
    asyncio.run(main())
