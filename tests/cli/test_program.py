"""The `antflow` program as a whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from antflow import __version__
from antflow.cli import main
from tests.cli.running import SOURCE, antflow, environment


def test_version_is_the_package_version() -> None:
    """`antflow --version` says which one is installed."""
    result = antflow("--version")
    assert (result.exit_code, result.output) == (0, f"antflow, version {__version__}\n")


def test_help_names_the_commands() -> None:
    """`antflow --help` lists the commands, and each command its options."""
    assert {"run", "check", "demo", "doctor", "completion"} <= set(antflow("--help").output.split())
    text = antflow("demo", "--help").output
    assert {"--dashboard", "--workers", "--out", "--limit"} <= set(text.split())


def test_program_loads_only_what_it_needs() -> None:
    """Asking for the version loads no drawing, no database and no demo."""
    code = (
        "import sys\n"
        "from antflow.cli import main\n"
        "main(['--version'], standalone_mode=False)\n"
        "late = {'rich', 'sqlite3', 'antflow.cli.demo.library_scan', 'antflow.display'}\n"
        "print(late & set(sys.modules))\n"
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


@pytest.mark.process
@pytest.mark.parametrize("program", ["antflow", "python -m antflow"])
@pytest.mark.parametrize(
    ("shell", "told"), [("bash", "complete "), ("zsh", "#compdef antflow"), ("fish", "complete ")]
)
def test_completion_prints_a_script(program: str, shell: str, told: str) -> None:
    """Each shell gets its script, for the program `antflow`, however it was asked for."""
    result = CliRunner().invoke(main, ["completion", shell], prog_name=program)
    assert result.exit_code == 0
    assert told in result.stdout
    assert f"_ANTFLOW_COMPLETE={shell}_complete" in result.stdout
    assert "python" not in result.stdout
    result = CliRunner().invoke(main, ["completion", "sh"])
    assert result.exit_code == 2
    assert "'sh' is not one of 'bash', 'zsh', 'fish'" in result.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_completion_in_a_real_bash(tmp_path: Path) -> None:
    """A bash that has read the script completes commands, options, choices, files and folders."""
    program = tmp_path / "antflow"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m antflow \"$@\"\n")
    program.chmod(0o755)
    asked = [
        ("ru", "run"),
        ("run app:p --dash", "--dashboard"),
        ("run app:p --dashboard d", "detailed"),
        ("run app : p --form", "--format"),  # as bash divides it
        ("run --items ", "<default>"),
        ("run app", "<default>"),
        ("check --app-dir ", "<dirnames>"),
        ("completion ", "bash zsh fish"),
    ]
    lines = ["set -e", 'compopt() { COMPREPLY=("<$2>"); }', 'eval "$(antflow completion bash)"']
    for words, _ in asked:
        given = " ".join(f"'{word}'" for word in words.split(" "))
        lines.append(f"COMP_WORDS=(antflow {given}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))")
        lines.append('COMPREPLY=(); _antflow_completion antflow; echo "${COMPREPLY[@]}"')
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)],
        env=environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [answer for _, answer in asked]


@pytest.mark.parametrize("command", ["", "run", "check", "demo", "doctor", "completion"])
def test_help_fits_a_terminal(command: str) -> None:
    """On 80 columns no line of a help is wider, and no summary of a command is cut off."""
    result = CliRunner().invoke(main, [*command.split(), "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    assert not [line for line in result.output.splitlines()[1:] if line.endswith("...")]


def test_program_completes_for_a_shell() -> None:
    """The completion script that the shell is told to ask for is there, and completes commands."""
    ask = {"_ANTFLOW_COMPLETE": "zsh_source"}
    script = CliRunner().invoke(main, prog_name="antflow", env=ask)
    assert (script.exit_code, "#compdef antflow" in script.output) == (0, True)
    words = {"_ANTFLOW_COMPLETE": "zsh_complete", "COMP_WORDS": "antflow do", "COMP_CWORD": "1"}
    answer = CliRunner().invoke(main, prog_name="antflow", env=words)
    assert "doctor" in answer.output.split()
    assert "demo" not in answer.output.split()


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(
    ("slow", "code", "told"), [("click", -signal.SIGINT, ""), ("app", 130, "Interrupted.\n")]
)
def test_ctrl_c_while_the_program_begins(tmp_path: Path, slow: str, code: int, told: str) -> None:
    """It prints no traceback, whether the program itself or the user's module is being loaded."""
    (tmp_path / f"{slow}.py").write_text(
        "import time; print('loading', flush=True); time.sleep(60)"
    )
    args = ("-m", "antflow", "check", "app:pipeline")
    paths = os.pathsep.join([str(tmp_path), str(SOURCE)])
    process = subprocess.Popen(
        [sys.executable, *args],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    # A line that is being written when the signal comes is written twice.
    assert (process.returncode, output.removeprefix("loading\n")) == (code, told)
