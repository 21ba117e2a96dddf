"""Which runs of the tests two processes share."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests.shared_run import PROCESSES, share

ALL = pytest.Config.ArgsSource.TESTPATHS
NAMED = pytest.Config.ArgsSource.ARGS


class Plugins:
    """The plugins of a run."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def hasplugin(self, name: str) -> bool:
        return name in self.names


WITH_XDIST, WITHOUT = Plugins("xdist"), Plugins()


def processes(source: Any = ALL, plugins: Plugins = WITH_XDIST, **options: Any) -> int | None:
    """How many processes a run has that is asked for like this."""
    plain = {"numprocesses": None, "keyword": "", "collectonly": False, "lf": False}
    watched = {"usepdb": False, "maxfail": 0, "capture": "fd"}
    option = SimpleNamespace(**plain | watched | options)
    config: Any = SimpleNamespace(args_source=source, pluginmanager=plugins, option=option)
    share(config)
    number: int | None = option.numprocesses
    return number


@pytest.fixture(autouse=True)
def _on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def test_run_of_all_tests_is_shared() -> None:
    """Two processes run what ``python -m pytest`` runs, with and without a choice of markers."""
    assert processes() == PROCESSES
    assert processes(markexpr="not real_time") == PROCESSES


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ({"source": NAMED}, None),
        ({"keyword": "limits"}, None),
        ({"lf": True}, None),
        ({"collectonly": True}, None),
        ({"maxfail": 1}, None),
        ({"usepdb": True}, None),
        ({"capture": "no"}, None),
        ({"numprocesses": 0}, 0),
        ({"numprocesses": 7}, 7),
        ({"plugins": WITHOUT}, None),
    ],
    ids=["files", "-k", "--lf", "--collect-only", "-x", "--pdb", "-s", "-n0", "-n7", "no xdist"],
)
def test_other_run_is_not(asked: dict[str, Any], number: int | None) -> None:
    """A run of some tests, or one that is watched, stays in one process; ``-n`` decides itself."""
    assert processes(**asked) == number


def test_processes_of_a_shared_run_order_sets_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """They must find the same tests, and the ids of some show a set."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    processes()
    assert os.environ["PYTHONHASHSEED"].isdigit()
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    processes()
    assert os.environ["PYTHONHASHSEED"] == "7"


def test_process_of_a_shared_run_does_not_share_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither it nor a run of pytest that one of its tests starts."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert processes() is None
