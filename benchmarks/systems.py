"""The systems that are compared, and virtual environments for those to be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import OTHER_CLONE

ROOT = Path(__file__).parent.parent
"""The clone that this suite is part of."""


@dataclass(frozen=True, slots=True)
class System:
    """A way to run items through stages.

    Attributes:
        name: ``"pypeln"``.
        requirement: What to install, with its version; "" if nothing has to be.
    """

    name: str
    requirement: str = ""


SYSTEMS = {
    each.name: each
    for each in (
        System("ours"),
        System(OTHER_CLONE),
        System("published", "antflow==0.10.0"),
        System("pool"),
        System("semaphores"),
        System("bare loop"),
        System("pypeln", "pypeln==0.4.9"),
        System("aiostream", "aiostream==0.8.1"),
        System("streamable", "streamable==2.0.0"),
        System("aiometer", "aiometer==1.0.0"),
    )
}


class Missing(Exception):
    """A system is not installed."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Where a system runs.

    Attributes:
        python: The interpreter.
        source: The folder to import antflow from; ``None``: use the installed one.
    """

    python: str
    source: Path | None = None

    def environment(self) -> dict[str, str]:
        """The environment variables for its processes."""
        inherited = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        return inherited | ({} if self.source is None else {"PYTHONPATH": str(self.source)})


class Systems:
    """Finds the interpreter of each system.

    Args:
        python: The interpreter of this clone's systems, and of new virtual environments.
        venvs: The folder for virtual environments.
        installs: Whether to make those that are missing.
        other_clone: Another clone of the project.

    Attributes:
        version: The interpreter's name and version.
    """

    def __init__(
        self, python: str, venvs: Path, *, installs: bool, other_clone: Path | None = None
    ) -> None:
        self._here = Interpreter(python, ROOT / "src")
        self.version = self._version_of(python)
        self._venvs = venvs / self.version.rpartition(".")[0].replace(" ", "-").lower()
        self._installs = installs
        self._found: dict[str, Interpreter | Missing] = {}
        if other_clone is not None:
            self._found[OTHER_CLONE] = Interpreter(python, other_clone.resolve() / "src")

    def find(self, name: str) -> Interpreter:
        """The interpreter of a system.

        Raises:
            Missing: It is not installed, or installing it failed.
        """
        if name not in self._found:
            self._found[name] = self._look(SYSTEMS[name])
        found = self._found[name]
        if isinstance(found, Missing):
            raise found
        return found

    def _look(self, system: System) -> Interpreter | Missing:
        if not system.requirement:
            return self._here
        folder = self._venvs / system.requirement
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        ready = folder / "ready"
        if not ready.exists():
            if not self._installs:
                return Missing(f"{system.requirement} is not installed here; `--install` does it")
            print(f"installing {system.requirement} in {folder}", file=sys.stderr)
            try:
                self._install(folder, python, system.requirement)
            except (OSError, subprocess.CalledProcessError) as error:
                return Missing(f"{system.requirement} cannot be installed: {_last_line(error)}")
            ready.touch()
        return Interpreter(str(python))

    def _install(self, folder: Path, python: Path, requirement: str) -> None:
        command = [self._here.python, "-m", "venv", "--clear", str(folder)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        loop = "uvloop; sys_platform != 'win32' and implementation_name == 'cpython'"
        command = [str(python), "-m", "pip", "install", "-q", requirement, loop]
        subprocess.run(command, check=True, capture_output=True, text=True)

    @staticmethod
    def _version_of(python: str) -> str:
        code = "import platform as p; print(p.python_implementation(), p.python_version())"
        command = [python, "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def default_venvs() -> Path:
    """The folder for virtual environments, in the user's cache folder."""
    if os.name == "nt":
        cache = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        cache = Path.home() / "Library/Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "antflow-benchmarks"


def _last_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return str(text).strip().splitlines()[-1]
