"""`install_fast_loop`: with uvloop, without it, and with one that does not work."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import antflow

SOURCE = Path(antflow.__file__).parents[1]


HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None


REPORT = """
import asyncio
from antflow.loops import install_fast_loop

async def main():
    return type(asyncio.get_running_loop()).__module__

answers = [install_fast_loop(), install_fast_loop()]
print(answers, asyncio.run(main()).partition(".")[0])
"""


BLOCKED = "import sys; sys.modules['uvloop'] = None"


BROKEN = "import sys, types; sys.modules['uvloop'] = types.ModuleType('uvloop')"


WARNING = """
import asyncio, sys, types, warnings
def policy():
    warnings.warn("policies will go", DeprecationWarning)
    return asyncio.DefaultEventLoopPolicy()
sys.modules['uvloop'] = types.SimpleNamespace(EventLoopPolicy=policy)
"""


def run_program(*parts: str) -> str:
    """What a program prints in a Python of its own, in which every warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(parts)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")
def test_fast_loop_with_uvloop() -> None:
    """With uvloop, `asyncio.run` runs its loop; no warning is given, and twice is as good."""
    assert run_program(REPORT) == "[True, True] uvloop"


@pytest.mark.parametrize("missing", [BLOCKED, BROKEN], ids=["blocked", "broken"])
def test_fast_loop_without_uvloop(missing: str) -> None:
    """Without uvloop, or with one that is not what it should be, all stays as it was."""
    assert run_program(missing, REPORT) == "[False, False] asyncio"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="making the policy warns by itself there")
def test_fast_loop_when_policies_are_deprecated() -> None:
    """That Python and uvloop want policies to go is not shown to the user."""
    assert run_program(WARNING, REPORT) == "[True, True] asyncio"


def test_fast_loop_is_not_imported_unless_it_is_asked_for() -> None:
    """Importing the module imports no uvloop."""
    assert run_program("import sys, antflow.loops; print('uvloop' in sys.modules)") == "False"


@pytest.mark.contract
def test_install_fast_loop_is_there() -> None:
    """``install_fast_loop`` takes nothing."""
    assert callable(antflow.install_fast_loop)
    assert not inspect.signature(antflow.install_fast_loop).parameters


@pytest.mark.contract
def test_install_fast_loop_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvloop, ``install_fast_loop()`` raises nothing and changes nothing."""
    monkeypatch.setitem(importlib.import_module("sys").modules, "uvloop", None)
    assert antflow.install_fast_loop() is False
