"""The `antflow` program as a whole."""

from __future__ import annotations

import os
import subprocess
import sys

from click.testing import CliRunner

from antflow import __version__
from antflow.cli import main
from tests.cli.running import SOURCE, antflow


def test_version_is_the_package_version() -> None:
    """`antflow --version` says which one is installed."""
    result = antflow("--version")
    assert (result.exit_code, result.output) == (0, f"antflow, version {__version__}\n")


def test_help_names_the_commands() -> None:
    """`antflow --help` lists the commands, and each command its options."""
    assert {"run", "check", "demo", "doctor"} <= set(antflow("--help").output.split())
    text = antflow("demo", "--help").output
    assert {"--dashboard", "--workers", "--out", "--limit", "--slow"} <= set(text.split())


def test_program_loads_only_what_it_needs() -> None:
    """Asking for the version loads no drawing, no database and no demo."""
    code = (
        "import sys\n"
        "from antflow.cli import main\n"
        "main(['--version'], standalone_mode=False)\n"
        "print({'rich', 'sqlite3', 'antflow.demo', 'antflow.display'} & set(sys.modules))\n"
    )
    keep = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=keep | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1:] == ["set()"]


def test_program_completes_for_a_shell() -> None:
    """The completion script that the shell is told to ask for is there, and completes commands."""
    ask = {"_ANTFLOW_COMPLETE": "zsh_source"}
    script = CliRunner().invoke(main, prog_name="antflow", env=ask)
    assert (script.exit_code, "#compdef antflow" in script.output) == (0, True)
    words = {"_ANTFLOW_COMPLETE": "zsh_complete", "COMP_WORDS": "antflow do", "COMP_CWORD": "1"}
    answer = CliRunner().invoke(main, prog_name="antflow", env=words)
    assert "doctor" in answer.output.split()
    assert "demo" not in answer.output.split()
