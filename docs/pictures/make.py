"""Draw the pictures of the documentation, from a real run on a virtual clock.

python docs/pictures/make.py
"""

import asyncio
import random
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from rich.console import Console, RenderableType

from antflow import DashboardSnapshot, Pipeline, Stage, set_task_status
from antflow.display import create
from antflow.testing import run_virtual

FOLDER = Path(__file__).parent
ITEMS = 600
MOMENT = 150.0
"""The second of the run at which the pictures are taken."""

SIZES = {"progress": (100, 1), "compact": (100, 26), "detailed": (120, 40), "full": (120, 34)}


# Rich's own template asks a server for a font; this one uses the reader's fonts. Each run of text
# carries its length, so any monospaced font lines up.
TEMPLATE = """\
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


class Snapshots:
    """A dashboard that keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[DashboardSnapshot] = []

    def on_update(self, snapshot: DashboardSnapshot) -> None:
        self.seen.append(snapshot)


def shop(dice: random.Random) -> Pipeline:
    """Pictures on their way into a shop: the third stage is the slow one."""

    async def download(number: int) -> int:
        await asyncio.sleep(dice.uniform(2, 10))
        if dice.random() < 0.04:
            raise ConnectionError("connection reset by peer")
        return number

    async def resize(number: int) -> int:
        await asyncio.sleep(dice.uniform(2, 6))
        if dice.random() < 0.02:
            raise ValueError("not a picture")
        return number

    async def describe(number: int) -> int:
        for part in ("looking", "writing", "checking"):
            set_task_status(part)
            await asyncio.sleep(dice.uniform(1, 9))
        if dice.random() < 0.015:
            raise TimeoutError("no answer after 30 s")
        return number

    async def publish(number: int) -> int:
        await asyncio.sleep(dice.uniform(0.5, 3))
        return number

    return Pipeline(
        [
            Stage("Download", workers=16, tasks=[download], task_attempts=2, task_wait_seconds=5),
            Stage("Resize", workers=12, tasks=[resize], task_attempts=1, queue_capacity=40),
            Stage("Describe", workers=24, tasks=[describe], task_attempts=1, queue_capacity=60),
            Stage("Publish", workers=4, tasks=[publish]),
        ],
        name="shop",
    )


async def snapshots_until(moment: float) -> list[DashboardSnapshot]:
    """What a display sees of the run in so many seconds."""
    snapshots = Snapshots()
    running = asyncio.create_task(
        shop(random.Random(1)).run(range(ITEMS), custom_dashboard=snapshots)
    )
    await asyncio.sleep(moment)
    seen = list(snapshots.seen)
    await running
    return seen


def svg(snapshots: list[DashboardSnapshot], level: str, width: int, height: int) -> str:
    """The last of the snapshots as a display would show it, in a terminal of this size.

    The document refers to nothing outside itself, and is the same for the same snapshots.
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
    display._name = "shop"  # without a run it has no pipeline
    frame: RenderableType = ""
    for snapshot in snapshots:
        frame = display.render(snapshot)
    console.print(frame)
    return console.export_svg(title="antflow", code_format=TEMPLATE, unique_id="antflow")


def pictures() -> dict[str, bytes]:
    """File name → SVG. The wall clock stands still too, so every run gives the same."""
    with patch("time.time", return_value=0.0):
        snapshots = run_virtual(lambda: snapshots_until(MOMENT), seed=1)
    return {f"{level}.svg": svg(snapshots, level, *size).encode() for level, size in SIZES.items()}


if __name__ == "__main__":
    for name, picture in pictures().items():
        (FOLDER / name).write_bytes(picture)
        print("drawn:", FOLDER / name)
