"""Locks on files: who has one, and files that know no locks."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from antflow._core.file_lock import lock, unlock

fcntl = pytest.importorskip("fcntl")


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_lock_is_for_one_or_for_those_that_share(tmp_path: Path) -> None:
    """A file that is had alone is had by no other; one that is shared, by all that share it."""
    one, other = opened(tmp_path / "file"), opened(tmp_path / "file")
    assert lock(one)
    assert not lock(other)
    assert not lock(other, shared=True)
    assert lock(one, shared=True)
    assert lock(other, shared=True)
    assert not lock(one)
    unlock(one)
    assert lock(other)
    os.close(other)
    assert lock(one)
    os.close(one)


def test_what_is_no_file_can_always_be_had() -> None:
    """A pipe or a device is for all."""
    ends = os.pipe()
    assert all(map(lock, [*ends, ends[1]]))
    for end in ends:
        os.close(end)


def test_file_without_locks_can_always_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may have none."""

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    descriptor = opened(tmp_path / "file")
    assert lock(descriptor)
    unlock(descriptor)
    os.close(descriptor)
