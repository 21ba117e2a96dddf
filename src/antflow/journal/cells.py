"""Values as the columns of a journal hold them.

The place of a value that is left out has a text of its own, ``{"$omitted":{"why":"too large",…}}``,
whatever the codec is. What a codec makes never looks like that: `cell_of` keeps such text as bytes.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from antflow.journal.codec import Codec
from antflow.journal.omitted import Omitted

Cell = str | bytes
"""A value in a column: text if it is text, for people who look at the tables."""

MARK = '{"$omitted":'
"""How the text begins that stands for a value that is left out."""


def cell_of(data: bytes) -> Cell:
    """The bytes of a codec, as they are kept. Those that are not UTF-8 stay as they are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return data if "\0" in text or text.startswith(MARK) else text  # a zero may end a text


def omitted_cell(omitted: Omitted, kept: bytes | None = None) -> Cell:
    """The note that is kept in the place of a value.

    Args:
        omitted: Why it is left out. Its ``kept`` does not count.
        kept: The bytes of that.
    """
    about: dict[str, Any] = {"why": omitted.why}
    if omitted.size is not None:
        about |= {"size": omitted.size, "hash": omitted.hash}
    if kept is not None:
        cell = cell_of(kept)
        is_text = isinstance(cell, str)
        about["kept"] = cell if is_text else {"base64": base64.b64encode(kept).decode()}
    return json.dumps({"$omitted": about}, separators=(",", ":"))


def is_omitted(cell: Cell | None) -> bool:
    """Whether a value was left out."""
    return isinstance(cell, str) and cell.startswith(MARK)


def value_of(cell: Cell, codec: Codec) -> Any:
    """The value that is kept; an `Omitted` if it was left out."""
    if not isinstance(cell, str):
        return codec.decode(cell)
    return _omitted(cell, codec) if cell.startswith(MARK) else codec.decode(cell.encode())


def _omitted(cell: str, codec: Codec) -> Omitted:
    about = json.loads(cell)["$omitted"]
    kept = about.get("kept")
    if kept is not None:
        data = kept.encode() if isinstance(kept, str) else base64.b64decode(kept["base64"])
        kept = codec.decode(data)
    return Omitted(about["why"], about.get("size"), about.get("hash"), kept)
