"""Each line of code in the table of docs/which-one.md works as it stands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from antflow.telemetry import configure_telemetry
from antflow.testing import VirtualLoop
from tests.test_docs import ROOT, Block, blocks_of, run_block

PAGE = (ROOT / "docs" / "which-one.md").read_text("utf-8")
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][1:]
LINES = [row[2].strip("`") for row in ROWS]


@pytest.mark.parametrize("line", LINES)
def test_line_of_the_table_works(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line runs, a run after it does, and what survives the program is in a file."""
    monkeypatch.chdir(tmp_path)
    registry = CollectorRegistry()
    monkeypatch.setattr(REGISTRY, "register", registry.register)
    namespace: dict[str, Any] = {"__name__": "__main__", "REGISTRY": REGISTRY}
    shared = next(block for block in blocks_of(PAGE) if block.kind == "python")
    prelude = shared.text.partition("steps, sink")[0].replace("range(100)", "range(43)")
    more = "from antflow.sinks import *\npipeline = Pipeline(stages)\nprovider = TracerProvider()\n"
    before = "results = await pipeline.run(items)\n" if "results" in line else ""
    after = "" if "run(" in line else "await pipeline.run(items)\n"
    text = f"{prelude}{more}{before}{line}\n{after}"
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        run_block(Block(1, "python", text, True, None), "which-one.md", namespace, runner)
    configure_telemetry()
    (row,) = (row for row in ROWS if row[2].strip("`") == line)
    files = [path.name for path in tmp_path.iterdir() if path.name in line]
    assert len(files) == (row[4].strip(" |") == "yes")
