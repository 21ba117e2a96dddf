"""Values as the columns of a journal hold them."""

from __future__ import annotations

from typing import Any

from antflow.journal.codec import Codec

Cell = str | bytes
"""What a column holds for a value: text if it is text, for people who look at the tables."""


def cell_of(data: bytes) -> Cell:
    """The bytes of a codec, as they are kept. Those that are not UTF-8 stay as they are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return data if "\0" in text else text  # which some databases cut off there


def value_of(cell: Cell, codec: Codec) -> Any:
    """The value that is kept."""
    return codec.decode(cell.encode() if isinstance(cell, str) else cell)
