"""The two commands of the README, and that `.ci/run` takes them from there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
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


def asked_of_ci(
    function: str, *args: object, folder: Path = ROOT, environment: Mapping[str, str] | None = None
) -> str:
    """What a function of `.ci/run` prints in a folder."""
    source = re.search(rf"^{function}\(\) \{{\n.*?^\}}$", CI.read_text(), re.DOTALL | re.MULTILINE)
    assert source, f"`.ci/run` has no function {function}"
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{source[0]}\n{function} {' '.join(map(str, args))}"],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
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
    assert asked_of_ci("readme_command", number) == command


@needs_bash
def test_ci_when_the_readme_changes(tmp_path: Path) -> None:
    """`.ci/run` follows the README: other blocks do not confuse it, a missing one is empty."""
    blocks = [("python", "x = 1"), ("sh", "first"), ("", "plain"), ("sh", "second && third")]
    readme = "\n".join(f"```{info}\n{text}\n```\n" for info, text in blocks)
    (tmp_path / "README.md").write_text(readme)
    found = [asked_of_ci("readme_command", number, folder=tmp_path) for number in (1, 2, 3)]
    assert found == ["first", "second && third", ""]
    assert sh_blocks(readme) == found[:2]


def test_ci_does_not_repeat_the_commands() -> None:
    """The commands stand in the README alone: `.ci/run` runs the text it read, unchanged."""
    script = CI.read_text()
    assert "[test]" not in script
    assert "antflow demo\n" not in script.replace('"$scratch/oldest/bin/antflow" demo\n', "")
    assert 'bash -c "$demo_command"' in script
    assert """bash -c 'tests "$0"' "$test_command\"""" in script
    assert script.count("test_command=") == 1


@needs_bash
def test_ci_tests_every_python_we_name() -> None:
    """`.ci/run` takes the classifiers at their word, and they begin with the oldest we allow."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    named = asked_of_ci("supported_pythons").splitlines()
    versions = [f"Programming Language :: Python :: {version}" for version in named]
    assert versions == [each for each in project["classifiers"] if ":: 3." in each]
    assert project["requires-python"] == f">={named[0]}"


@needs_bash
@pytest.mark.parametrize("where", ["PATH", "pyenv"])
def test_ci_finds_a_python(tmp_path: Path, where: str) -> None:
    """The first that runs and can make a venv: a shim of another version is passed over."""
    good, shims = tmp_path / "versions" / "3.99.10" / "bin", tmp_path / "shims"
    for folder, code in ((shims, 127), (good, 0), (tmp_path / "versions" / "3.99.9" / "bin", 0)):
        folder.mkdir(parents=True)
        (folder / "python3.99").write_text(f"#!/bin/sh\nexit {code}\n")
        (folder / "python3.99").chmod(0o755)
    places = {
        "PATH": {"PATH": f"{shims}:{good}:{os.environ['PATH']}", "PYENV_ROOT": "/nowhere"},
        "pyenv": {"PATH": f"{shims}:{os.environ['PATH']}", "PYENV_ROOT": str(tmp_path)},
    }
    assert asked_of_ci("find_python", "3.99", environment=places[where]) == str(good / "python3.99")


@needs_bash
def test_ci_asks_a_python_for_its_version(tmp_path: Path) -> None:
    """The name alone does not make it one: a Python is found under its own version only."""
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in (mine, "3.99"):
        (tmp_path / f"python{version}").symlink_to(sys.executable)
    places = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYENV_ROOT": "/nowhere"}
    assert asked_of_ci("find_python", mine, environment=places) == str(tmp_path / f"python{mine}")
    with pytest.raises(subprocess.CalledProcessError):
        asked_of_ci("find_python", "3.99", environment=places)


@needs_bash
def test_ci_leaves_real_time_to_one_python() -> None:
    """On the other Pythons `.ci/run` runs the same command, without the tests of real time."""
    told = asked_of_ci("tests_on", "/usr/bin/python3.12", "/tmp/venv", shlex.quote(TEST))
    same = TEST.replace("python3", "/usr/bin/python3.12", 1).replace(".venv", "/tmp/venv")
    assert told == f"{same} -m 'not real_time'"
    assert 'tests_on "$python"' in CI.read_text()
    assert "real_time" not in TEST


def test_ci_is_executable() -> None:
    """`.ci/run` can be started by its name."""
    assert os.access(CI, os.X_OK)
