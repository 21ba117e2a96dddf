"""Runs programs, each in a fresh process, in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from benchmarks.sample import Sample
from benchmarks.systems import ROOT, Interpreter, Missing, Systems
from benchmarks.terminal import open_terminal
from benchmarks.workload import Figure, Program, Workload

TIMEOUT = 600.0
"""The most seconds that one measurement may take."""


@dataclass(slots=True)
class Outcome:
    """The samples of a workload.

    Attributes:
        workload: The workload.
        rounds: For each round, name of a program → what it measured.
        skipped: Name of a program → why it was left out.
    """

    workload: Workload
    rounds: list[dict[str, Sample]]
    skipped: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def ran(self) -> list[str]:
        """Names of the programs that were measured."""
        return [
            name for name in self.workload.programs if any(name in each for each in self.rounds)
        ]

    @property
    def figures(self) -> list[tuple[Figure, float]]:
        """The figures whose programs were measured."""
        values = [(figure, figure.value(self.rounds)) for figure in self.workload.figures]
        return [(figure, value) for figure, value in values if value is not None]

    @property
    def is_good(self) -> bool:
        """Whether our own programs worked, and no figure missed its target."""
        ours = [name for name, each in self.workload.programs.items() if each.system == "ours"]
        verdicts = [figure.verdict(value) for figure, value in self.figures]
        return not self.skipped.keys() & ours and "MISSED" not in verdicts


class Failed(Exception):
    """A program did not do its work."""


class Runner:
    """Runs the measurements.

    Args:
        systems: Where the systems are.
        loop: "asyncio" or "uvloop".
        quick: Whether to use the small number of items.
    """

    def __init__(self, systems: Systems, loop: str = "asyncio", *, quick: bool = False) -> None:
        self._systems = systems
        self._loop = loop
        self._quick = quick

    def measure(
        self,
        workload: Workload,
        rounds: int,
        only: Sequence[str] | None = None,
        items: int | None = None,
    ) -> Outcome:
        """Let the programs of a workload take turns: A B C A B C …

        Args:
            workload: The workload.
            rounds: How many rounds.
            only: Names of the programs to run; ``None`` = all.
            items: How many items; ``None`` = as many as the workload says.
        """
        if items is None:
            items = workload.quick if self._quick else workload.items
        names = list(workload.programs if only is None else only)
        outcome = Outcome(workload, [{} for _ in range(rounds)])
        for number, samples in enumerate(outcome.rounds, 1):
            for name in names:
                if name in outcome.skipped:
                    continue
                _say(f"{workload.name}  round {number} of {rounds}  {name}")
                try:
                    samples[name] = self.run(workload, name, items)
                except (Missing, Failed) as reason:
                    outcome.skipped[name] = str(reason)
        _say("")
        for samples in outcome.rounds:
            for name in outcome.skipped:
                samples.pop(name, None)
        return outcome

    def run(self, workload: Workload, name: str, items: int) -> Sample:
        """Make one measurement, in a separate process.

        Raises:
            Missing: The program's system is not installed.
            Failed: The program did not do its work.
        """
        program = workload.programs[name]
        interpreter = self._systems.find(program.system)
        with TemporaryDirectory() as folder:
            answer = Path(folder) / "answer.json"
            asked = program.twin_of or name
            arguments = [workload.name, asked, str(program.items(items)), self._loop, str(answer)]
            command = [interpreter.python, "-m", "benchmarks.child", *arguments]
            self._finish(command, interpreter, program)
            return Sample(**json.loads(answer.read_text(encoding="utf-8")))

    def _finish(self, command: list[str], interpreter: Interpreter, program: Program) -> None:
        environment = interpreter.environment()
        if program.needs_terminal:
            environment = {k: v for k, v in environment.items() if k != "CI"}
            environment |= {"TERM": "xterm-256color"}
        try:
            with _output(program) as output:
                subprocess.run(
                    command,
                    check=True,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=TIMEOUT,
                )
        except subprocess.CalledProcessError as error:
            lines = str(error.stderr).strip().splitlines()
            raise Failed(lines[-1] if lines else f"exit code {error.returncode}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(str(error)) from error


@contextmanager
def _output(program: Program) -> Iterator[IO[str] | int]:
    if not program.needs_terminal:
        yield subprocess.DEVNULL
        return
    with open_terminal() as terminal:
        yield terminal


def _say(text: str) -> None:
    """Show what is being done, if a person is watching."""
    if sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        print(f"\r{text:{width - 1}.{width - 1}}\r", end="", file=sys.stderr, flush=True)
