"""The rows of a frame, ready to be written to a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.style import Style


class Row(NamedTuple):
    """One row of a frame.

    Attributes:
        text: As it is written, with its styles.
        plain: Its characters alone.
    """

    text: str
    plain: str

    @property
    def cells(self) -> int:
        """Its width."""
        return cell_len(self.plain)

    def height(self, columns: int) -> int:
        """How many rows it takes if it is wrapped."""
        return 1 if self.cells <= columns else len(chop_cells(self.plain, columns))

    def cut(self, columns: int) -> Row:
        """The row, not wider than this many columns; one that is cut loses its style."""
        if self.cells <= columns:
            return self
        said = set_cell_size(self.plain, columns)
        return Row(said, said)


def rendered(
    console: Console,
    renderable: RenderableType,
    safe: Callable[[str], str],
    styled: Callable[[str, Style | None], str],
) -> list[Row]:
    """The rows of a renderable, as wide as a console.

    Args:
        console: Renders it.
        renderable: The frame.
        safe: Keeps only those parts of a text that change cells.
        styled: Writes a safe text in its style.

    Raises:
        Exception: Whatever rendering raises.
    """
    rows = []
    for line in console.render_lines(renderable, pad=False):
        segments = Segment.remove_color(line) if console.no_color else line
        said = [(safe(text), style) for text, style, control in segments if not control]
        text = "".join(styled(text, style) for text, style in said)
        rows.append(Row(text, "".join(text for text, _ in said)))
    return rows


def is_said(line: str, rows: Sequence[Row]) -> bool:
    """Whether the last row already says what a line below it would say."""
    return not line or (bool(rows) and line in rows[-1].plain)
