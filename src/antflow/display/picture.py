"""A frame of a display as an SVG picture, for documents."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.console import Console, RenderableType

from antflow._core.snapshot import DashboardSnapshot
from antflow._monitor.view import UNNAMED
from antflow.display import create

# Rich's own template asks a server for a font; this one uses the reader's fonts. Each run of text
# carries its length, so any monospaced font lines up.
_TEMPLATE = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
        white-space: pre;
    }}
    .{unique_id}-title {{
        font-size: 18px;
        font-weight: bold;
        font-family: system-ui, sans-serif;
    }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})"
       clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""


def svg(
    snapshots: Sequence[DashboardSnapshot],
    level: str,
    width: int = 80,
    height: int = 24,
    title: str = "",
    name: str = UNNAMED,
) -> str:
    """Draw a moment of a run as a display would show it.

    Args:
        snapshots: Snapshots of the run in order, at least one; the last one is shown.
        level: Name of the display, as in `antflow.display.create`.
        width: Columns of the terminal in the picture.
        height: Rows it may have.
        title: Text in its title bar.
        name: The pipeline's.

    Returns:
        An SVG document. It refers to nothing outside itself, and is the same for the same
        snapshots.
    """
    console = Console(
        file=StringIO(),
        record=True,
        width=width,
        height=height,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        no_color=False,
        legacy_windows=False,
    )
    display = create(level)
    display._name = name  # noqa: SLF001 - without a run it has no pipeline
    frame: RenderableType = ""
    for snapshot in snapshots:
        frame = display.render(snapshot)
    console.print(frame)
    return console.export_svg(title=title, code_format=_TEMPLATE, unique_id="antflow")
