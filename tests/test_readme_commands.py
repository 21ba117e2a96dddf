"""The two commands of the README, and that `.ci/run` takes them from there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CI = ROOT / ".ci" / "run"

SHOW = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/antflow demo"
TEST = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest"


def sh_blocks(markdown: str) -> list[str]:
    """The contents of every ```sh block, in order."""
    fences = re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```$", markdown, re.MULTILINE)
    return [text.strip() for info, text in fences if info == "sh"]


def command_read_by_ci(folder: Path, number: int) -> str:
    """What the function ``readme_command`` of `.ci/run` finds in a folder's README.md."""
    source = re.search(r"^readme_command\(\) \{\n.*?^\}$", CI.read_text(), re.DOTALL | re.MULTILINE)
    assert source, "`.ci/run` has no function readme_command"
    done = subprocess.run(
        ["bash", "-c", f"{source[0]}\nreadme_command {number}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="`.ci/run` is a bash script")


def test_readme_starts_with_the_two_commands() -> None:
    """A newcomer shows and tests the library with one line each."""
    assert sh_blocks((ROOT / "README.md").read_text("utf-8"))[:2] == [SHOW, TEST]


@needs_bash
@pytest.mark.parametrize(("number", "command"), [(1, SHOW), (2, TEST)], ids=["show", "test"])
def test_ci_reads_the_commands_of_the_readme(number: int, command: str) -> None:
    """`.ci/run` finds in README.md what a reader finds there."""
    assert command_read_by_ci(ROOT, number) == command


@needs_bash
def test_ci_when_the_readme_changes(tmp_path: Path) -> None:
    """`.ci/run` follows the README: other blocks do not confuse it, a missing one is empty."""
    blocks = [("python", "x = 1"), ("sh", "first"), ("", "plain"), ("sh", "second && third")]
    readme = "\n".join(f"```{info}\n{text}\n```\n" for info, text in blocks)
    (tmp_path / "README.md").write_text(readme)
    found = [command_read_by_ci(tmp_path, number) for number in (1, 2, 3)]
    assert found == ["first", "second && third", ""]
    assert sh_blocks(readme) == found[:2]


def test_ci_does_not_repeat_the_commands() -> None:
    """The commands stand in the README alone: `.ci/run` runs the text it read, unchanged."""
    script = CI.read_text()
    assert "[test]" not in script
    assert "antflow demo\n" not in script.replace('"$scratch/oldest/bin/antflow" demo\n', "")
    assert 'bash -c "$demo_command"' in script
    assert 'bash -c "$test_command"' in script
    assert script.count("test_command=") == 1


def test_ci_is_executable() -> None:
    """`.ci/run` can be started by its name."""
    assert os.access(CI, os.X_OK)
