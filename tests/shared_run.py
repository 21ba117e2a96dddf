"""A run of all tests in two processes: half of the time they wait.

A run of a few is over sooner in one, and one that is watched needs the terminal.
"""

from __future__ import annotations

import os
from random import randrange

import pytest

PROCESSES = 2


def share(config: pytest.Config) -> None:
    """Set up pytest-xdist for a run of all tests, where it is installed and not set up already."""
    if _has_xdist(config) and _is_of_all(config) and not _is_watched(config):
        config.option.numprocesses = PROCESSES
        config.option.dist = "loadfile"  # what the tests of a file share is made once
        config.option.maxworkerrestart = "0"  # a test that hangs ends the run
        # The processes must find the same tests: ids that show a set have one order in all.
        os.environ.setdefault("PYTHONHASHSEED", str(randrange(1 << 32)))


def _has_xdist(config: pytest.Config) -> bool:
    is_part = "PYTEST_XDIST_WORKER" in os.environ  # of such a run, or started by one of its tests
    return config.pluginmanager.hasplugin("xdist") and not is_part


def _is_of_all(config: pytest.Config) -> bool:
    option = config.option
    names_files = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    chooses = option.keyword or option.collectonly or getattr(option, "lf", False)
    return option.numprocesses is None and not (names_files or chooses)


def _is_watched(config: pytest.Config) -> bool:
    option = config.option
    return bool(option.usepdb or option.maxfail or option.capture == "no")
