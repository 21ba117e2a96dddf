"""Faults that a maintainer could make, each planted in a copy of the library to see it caught.

The tables beside this file hold them, one for each layer:

    [retry-timer-is-kept]                      a name
    what = "A retry that is due sooner …"      one sentence
    file = "_engine/retry_heap.py"                below src/antflow
    before = '''…'''                           text that stands there exactly once
    after = '''…'''                            what stands there when the fault is planted
    nets = "tests/engine/test_retry_heap.py -k …"     arguments for pytest: what concerns it

``python -m tests.planted`` plants each and runs its nets. That each can still be planted is a test
of every day.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = Path("src", "antflow")


class Stale(Exception):
    """The text that a fault changes does not stand there, or not once."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        table: The table it stands in.
        name: Its name there.
        what: What is wrong then, in a sentence.
        file: The file, below the package.
        before: The text there, which occurs once.
        after: What it becomes.
        nets: Arguments for pytest: which tests should catch it.
    """

    table: str
    name: str
    what: str
    file: str
    before: str
    after: str
    nets: str

    def __str__(self) -> str:
        return f"{self.table}/{self.name}"

    def applied(self, text: str) -> str:
        """The text of the file with the fault in it.

        Raises:
            Stale: It cannot be planted.
        """
        if (count := text.count(self.before)) != 1:
            raise Stale(f"its text occurs {count} times in {self.file}")
        return text.replace(self.before, self.after)


def all_faults(folder: Path = Path(__file__).parent) -> list[Fault]:
    """The faults of all tables of a folder."""
    return [
        Fault(path.stem, name, **fields)
        for path in sorted(folder.glob("*.toml"))
        for name, fields in tomllib.loads(path.read_text("utf-8")).items()
    ]
