"""The terminal of the tests."""

from __future__ import annotations

import os
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("no terminals of this kind", allow_module_level=True)

from tests.pty_screen import PtyScreen


@pytest.mark.parametrize("is_read", [True, False])
def test_window_that_is_closed(is_read: bool) -> None:
    """It is gone at once, and what is opened next is not taken for it."""
    for _ in range(5):
        screen = PtyScreen()
        if not is_read:
            screen.halt("unread")
        before = os.open(os.devnull, os.O_RDONLY)
        os.close(before)
        screen.hang_up()
        after = os.open(os.devnull, os.O_RDONLY)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(screen.stream.fileno(), b"x")
        os.close(after)
        screen.close()
        assert after == before
