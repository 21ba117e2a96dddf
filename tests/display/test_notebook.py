"""In a notebook: one output per run, updated in place. The kernel is a real one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from rich.console import Console, RenderableType
from rich.text import Text

from antflow.display import create
from antflow.display.notebook import COLUMNS, PAGE, ROWS, SHORTEST_PAUSE, NotebookCell
from tests.display.conftest import make_snapshot, untimed
from tests.pty_screen import PATIENCE, PtyScreen, clean_environment

LEVELS = ["progress", "auto", "compact", "detailed", "full"]

SETUP = """
import asyncio, os, signal, sys
from rich.text import Text
from antflow import Pipeline, Stage
from antflow.display import BaseDashboard, create

async def some_fail(number):
    await asyncio.sleep(0)
    if number % 10 == 0:
        raise ValueError(f"no {number}")
    return number

async def nothing(number):
    await asyncio.sleep(0)
    return number

class Own(BaseDashboard):
    def render(self, snapshot):
        return Text(f"{snapshot.pipeline_stats.items_processed} through", "red")

def pipeline(task=some_fail, name="pipeline"):
    return Pipeline([Stage("Fetch", 3, [task], task_attempts=1), Stage("Save", 2, [nothing])],
                    name=name)
"""


class Cell(NamedTuple):
    """What a cell has shown: outputs as they were saved, and what came from the kernel."""

    outputs: list[Any]
    messages: list[dict[str, Any]]

    @property
    def displays(self) -> list[dict[str, str]]:
        return [out["data"] for out in self.outputs if out["output_type"] == "display_data"]

    @property
    def display(self) -> dict[str, str]:
        (display,) = self.displays
        return display

    @property
    def printed(self) -> str:
        return self.stream("stdout")

    def stream(self, name: str) -> str:
        return "".join(out["text"] for out in self.outputs if out.get("name") == name)

    @property
    def errors(self) -> list[str]:
        return [out["ename"] for out in self.outputs if out["output_type"] == "error"]

    @property
    def frames(self) -> list[dict[str, Any]]:
        kinds = ("display_data", "update_display_data")
        return [message for message in self.messages if message["msg_type"] in kinds]


class RecordingClient(NotebookClient):
    """Keeps the messages from the kernel, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.messages: list[dict[str, Any]] = []

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        self.messages.append(msg)
        return super().process_message(msg, cell, cell_index)


class Notebook:
    """A notebook whose kernel is running, and the file it is saved to."""

    def __init__(self, client: RecordingClient, path: Path) -> None:
        self._client = client
        self._path = path

    def run(self, code: str) -> Cell:
        """Execute one more cell, save the notebook, and read it again."""
        cells = self._client.nb.cells
        cells.append(new_code_cell(code))
        self._client.messages = []
        self._client.execute_cell(cells[-1], len(cells) - 1)
        nbformat.write(self._client.nb, self._path)
        saved = nbformat.read(self._path, as_version=4)
        return Cell(saved.cells[-1].outputs, self._client.messages)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """One kernel for all tests here: its start is what takes time."""
    folder = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # older versions of jupyter_core warn without it
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder))
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
            patch.delenv(name, raising=False)
        patch.setenv("CI", "true")  # a build server executes notebooks, too
        client = RecordingClient(
            nb=new_notebook(), kernel_name="python3", timeout=60, allow_errors=True
        )
        with client.setup_kernel():
            notebook = Notebook(client, folder / "saved.ipynb")
            assert notebook.run(SETUP).outputs == []
            yield notebook


class Tags(HTMLParser):
    """What a browser would make of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.styles: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles |= {value or "" for name, value in attrs if name == "style"}

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_is_harmless(display: dict[str, str]) -> None:
    """Two types, styled text and nothing else, and both say the same."""
    assert set(display) == {"text/plain", "text/html"}
    page = Tags(display["text/html"])
    assert page.tags <= {"pre", "span"}
    assert page.attributes == {"style"}
    assert not any("url" in style or "expression" in style for style in page.styles)
    lines = [line.rstrip() for line in page.text.removeprefix("\n").splitlines()]
    assert lines == display["text/plain"].split("\n")
    assert all(c.isprintable() or c in "\n\u3000" for c in display["text/plain"])
    assert all(len(line) <= COLUMNS for line in lines)


def option(level: str) -> str:
    return "progress=True" if level == "progress" else f"dashboard={level!r}"


# -- one output, updated in place -------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_run_has_one_output(level: str, notebook: Notebook) -> None:
    """A top-level ``await``: one output, in the end with 100 % and the counts; no widget."""
    cell = notebook.run(f"results = await pipeline().run(range(100), {option(level)})")
    assert [out["output_type"] for out in cell.outputs] == ["display_data"]
    assert_is_harmless(cell.display)
    text = cell.display["text/plain"]
    assert "100%" in text
    assert "100/100" in text
    assert text.splitlines()[-1].endswith("90 ok, 10 failed")
    assert cell.frames[0]["msg_type"] == "display_data"
    assert "0/100" in cell.frames[0]["content"]["data"]["text/plain"]
    assert {frame["msg_type"] for frame in cell.frames[1:]} == {"update_display_data"}
    for frame in cell.frames:
        assert_is_harmless(frame["content"]["data"])
    kinds = {message["msg_type"] for message in cell.messages}
    assert kinds <= {"status", "execute_input", "display_data", "update_display_data"}
    assert notebook.run("print(len(results), len(results.failed))").printed == "90 10\n"


def test_own_display(notebook: Notebook) -> None:
    """A subclass of ``BaseDashboard`` is drawn in the cell, with the counts below it."""
    cell = notebook.run("await pipeline().run(range(100), custom_dashboard=Own()); None")
    assert_is_harmless(cell.display)
    assert cell.display["text/plain"] == "90 through\n90 ok, 10 failed"
    assert cell.outputs[0]["output_type"] == "display_data"


def test_prints_are_left_to_the_kernel(notebook: Notebook) -> None:
    """What tasks print and log is in the cell, once and in order, beside the one output."""
    cell = notebook.run("""
before = sys.stdout, sys.stderr
async def chatty(number):
    print("line", number, "<b>")
    await asyncio.to_thread(sys.stderr.write, f"error {number}\\n")
    return number
await pipeline(chatty).run(range(20), dashboard="full", dashboard_update_interval=0.01)
assert before == (sys.stdout, sys.stderr)
""")
    assert cell.errors == []
    assert "20 ok, 0 failed" in cell.display["text/plain"]
    assert cell.stream("stdout") == "".join(f"line {n} <b>\n" for n in range(20))
    errors = cell.stream("stderr").splitlines()
    assert sorted(errors) == sorted(f"error {n}" for n in range(20))
    assert cell.outputs[0]["output_type"] == "display_data"


def test_failure_is_located_in_its_cell(notebook: Notebook) -> None:
    """A line of a cell has the cell's number, as in IPython's tracebacks, not its made-up file."""
    cell = notebook.run("""
number = len(In) - 1
async def wrong(item):
    raise ValueError(item)
results = await pipeline(wrong).run([1], dashboard="compact")
print(results.failed[0].location == f"In[{number}]:3 in wrong")
print((await pipeline().run([0], on_failures="ignore")).failed[0].location)
""")
    assert cell.errors == []
    assert re.search(r"In\[\d+\]:3 in wrong", cell.display["text/plain"])
    own, earlier = cell.printed.splitlines()
    assert own == "True"
    assert re.fullmatch(r"In\[1\]:\d+ in some_fail", earlier)


def test_log_is_plain_lines(notebook: Notebook) -> None:
    """``dashboard="log"`` prints, here as elsewhere."""
    cell = notebook.run("await pipeline().run(range(100), dashboard='log'); None")
    assert cell.displays == []
    assert untimed(cell.stream("stderr")).startswith("pipeline: 0% 0/100, ")
    assert cell.stream("stderr").endswith("\n90 ok, 10 failed\n")


def test_total_that_is_not_known(notebook: Notebook) -> None:
    """A count instead of a percent."""
    for level in LEVELS:
        cell = notebook.run(f"await pipeline().run((n for n in range(30)), {option(level)}); None")
        assert "30 done" in cell.display["text/plain"]
        assert "%" not in cell.display["text/plain"].partition("busy")[0]
        assert cell.display["text/plain"].endswith("27 ok, 3 failed")


def test_two_runs_in_one_cell(notebook: Notebook) -> None:
    """At once, or one after the other with the same display: each has an output of its own."""
    cell = notebook.run("""
await asyncio.gather(
    pipeline(name="one").run(range(20), dashboard="full"),
    pipeline(name="two").run(range(30), dashboard="compact"),
)
display_of_both = create("detailed")
for count in (40, 50):
    await pipeline().run(range(count), custom_dashboard=display_of_both)
""")
    last_lines = [display["text/plain"].splitlines()[-1] for display in cell.displays]
    assert last_lines == [f"{n * 9 // 10} ok, {n // 10} failed" for n in (20, 30, 40, 50)]
    ids = [frame["content"]["transient"]["display_id"] for frame in cell.frames]
    assert len(set(ids)) == 4


def test_run_in_a_thread_of_the_kernel(notebook: Notebook) -> None:
    """An event loop of its own in a thread: the output is in the cell that waits for it."""
    cell = notebook.run("""
def in_thread():
    return asyncio.run(pipeline().run(range(100), dashboard="detailed"))
print(len(await asyncio.to_thread(in_thread)))
""")
    assert cell.errors == []
    assert cell.printed == "90\n"
    assert cell.display["text/plain"].endswith("90 ok, 10 failed")


# -- how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_run_that_ends_with_an_error(level: str, notebook: Notebook) -> None:
    """A source that raises: the last frame stays, above the error."""
    cell = notebook.run(f"""
def source():
    yield from range(25)
    raise OSError("the disk")
await pipeline().run(source(), {option(level)})
""")
    assert cell.errors == ["OSError"]
    assert "25 done" in cell.display["text/plain"]
    assert cell.display["text/plain"].endswith("22 ok, 3 failed")
    assert [out["output_type"] for out in cell.outputs] == ["display_data", "error"]


@pytest.mark.parametrize("level", LEVELS)
def test_interrupt_of_the_kernel(level: str, notebook: Notebook) -> None:
    """The stop button: what was done by then stays, and the kernel goes on."""
    cell = notebook.run(f"""
async def stops(number):
    if number == 30:
        os.kill(os.getpid(), signal.SIGINT)  # what the button does
    await asyncio.sleep(0 if number < 30 else 3600)
    return number
await pipeline(stops).run(range(100), {option(level)})
""")
    assert cell.errors == ["CancelledError"]
    counts = re.search(r"(\d+) ok, 0 failed, (\d+) cancelled$", cell.display["text/plain"])
    assert counts
    assert int(counts[1]) <= 30
    assert int(counts[2]) >= 3
    assert notebook.run("print('alive')").printed == "alive\n"


def test_publisher_that_fails(notebook: Notebook) -> None:
    """The run does not notice; one record says that the display is off; it is tried once."""
    cell = notebook.run("""
import logging
records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("antflow").addHandler(handler)
publisher = get_ipython().display_pub
calls = []
def broken(*args, **options):
    calls.append(options)
    raise RuntimeError("nobody listens")
type(publisher).publish, kept = broken, type(publisher).publish
try:
    results = await pipeline(nothing).run(range(100), dashboard="full")
finally:
    type(publisher).publish = kept
    logging.getLogger("antflow").removeHandler(handler)
print(len(results), len(calls), [record.getMessage() for record in records])
""")
    assert cell.displays == []
    message = "the display failed in on_update; the run goes on without it"
    assert cell.printed.startswith(f"100 1 ['{message}: RuntimeError at ")
    assert cell.printed.endswith(" in broken: nobody listens']\n")


def test_own_display_that_raises_leaves_its_last_good_frame(notebook: Notebook) -> None:
    """Its last good frame stays, and the run goes on to its end."""
    cell = notebook.run("""
class Breaks(Own):
    def render(self, snapshot):
        if snapshot.pipeline_stats.items_processed:
            raise ValueError("broken")
        return Text("fine")
print(len(await pipeline().run(range(100), custom_dashboard=Breaks())))
""")
    assert cell.display["text/plain"] == "fine"
    assert cell.printed.endswith("90\n")
    assert cell.errors == []


# -- where there is no cell -------------------------------------------------------------------


def test_output_that_leads_elsewhere(notebook: Notebook) -> None:
    """Redirected, captured, or in a forked process: plain lines, where the user wants them."""
    cell = notebook.run("""
import contextlib, io, multiprocessing, warnings
from IPython.utils.capture import capture_output
from antflow.display.notebook import kernel_display

with contextlib.redirect_stderr(io.StringIO()) as file:
    await pipeline().run(range(100), dashboard="full")
with capture_output() as captured:
    await pipeline().run(range(100), dashboard="full")
for text in (file.getvalue(), captured.stderr):
    assert text.endswith("\\n90 ok, 10 failed\\n")
assert captured.outputs == []

def in_child():
    assert kernel_display(sys.stderr) is None
    assert len(asyncio.run(pipeline().run(range(100), dashboard="full"))) == 90

assert kernel_display(sys.stderr) is not None
with warnings.catch_warnings(action="ignore"):
    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
await asyncio.to_thread(child.join)
assert child.exitcode == 0
""")
    assert cell.errors == []
    assert cell.displays == []


SCRIPT = """
import asyncio, sys
{first}
from antflow import Pipeline, Stage
async def nothing(number):
    return number
for level in {levels!r}:
    options = dict(progress=True) if level == "progress" else dict(dashboard=level)
    asyncio.run(Pipeline([Stage("S", 2, [nothing])]).run(range(10), **options))
loaded = sorted({{name.split(".")[0] for name in sys.modules}} & {{"IPython", "ipykernel"}})
print(loaded)
"""


def test_program_without_a_kernel_does_not_import_ipython() -> None:
    """Nothing of it is loaded for a display, on a terminal or not; loaded, it changes nothing."""
    for first, loaded in (("", "[]"), ("import IPython.display, ipykernel.iostream", None)):
        script = SCRIPT.format(first=first, levels=LEVELS)
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=PATIENCE,
            check=True,
        )
        assert done.stdout.strip() == (loaded or "['IPython', 'ipykernel']")
        assert done.stderr.count("\n10 ok, 0 failed\n") == len(LEVELS)
    screen = PtyScreen(80, 24)
    try:
        screen.spawn(SCRIPT.format(first="", levels=LEVELS))
        assert screen.wait() == 0
        assert screen.paper.splitlines()[-1] == "[]"
    finally:
        screen.close()


# -- text from outside ------------------------------------------------------------------------

NASTY = [
    "<script>alert(1)</script>",
    "</pre><img src=x onerror=alert(1)>",
    "\"'><b>&amp;",
    "[/red]",
    "[link=javascript:alert(1)]x[/link]",
    "\x1b[2J\x1b]0;title\x07\x9b2J",
    "two\r\nlines\u2028\u202e\x00",
    "日本語 👍🏽",
]


@pytest.mark.parametrize("level", LEVELS)
def test_hostile_text(level: str, notebook: Notebook) -> None:
    """Ids, errors and names that want to be more than text are text."""
    cell = notebook.run(f"""
nasty = {NASTY!r}
async def hostile(text):
    await asyncio.sleep(0)
    raise ValueError(text)
stages = [
    Stage("<i>&[/x]", 2, [nothing]),
    Stage(nasty[0], 2, [nothing]),
    Stage(nasty[1], 2, [hostile], task_attempts=1),
]
items = [{{"id": text, "value": text}} for text in nasty]
await Pipeline(stages, name=nasty[1]).run(items, {option(level)}); None
""")
    assert cell.errors == []
    for frame in cell.frames:
        assert_is_harmless(frame["content"]["data"])
    assert_is_harmless(cell.display)
    assert cell.display["text/plain"].endswith(f"0 ok, {len(NASTY)} failed")
    if level in ("detailed", "full"):
        assert "<i>&[/x]" in cell.display["text/plain"]
        assert "&lt;i&gt;&amp;[/x]" in cell.display["text/html"]


def test_own_display_with_hostile_renderables(notebook: Notebook) -> None:
    """Links and control codes in what a display of one's own draws are left out."""
    cell = notebook.run("""
class Hostile(BaseDashboard):
    def render(self, snapshot):
        return "[link='javascript:alert(1)\\"><script>']x[/link] <script> \\x1b[2J\\x07 end"
await pipeline().run(range(10), custom_dashboard=Hostile()); None
""")
    assert cell.errors == []
    assert_is_harmless(cell.display)
    assert cell.display["text/plain"].splitlines()[0].startswith("x <script> ")


# -- how often, how large, in which colors ----------------------------------------------------


def test_pages_get_two_frames_a_second(notebook: Notebook) -> None:
    """However short the interval: counted from the kernel's own messages and their dates."""
    cell = notebook.run("""
async def slow(number):
    await asyncio.sleep(0.15)
    return number
await pipeline(slow).run(range(30), dashboard="compact", dashboard_update_interval=0.01); None
""")
    dates = [frame["header"]["date"] for frame in cell.frames]
    seconds = (dates[-1] - dates[0]).total_seconds()
    assert seconds >= 1.5
    assert 3 <= len(dates) <= 2 * seconds + 3
    assert "0/30" in cell.frames[0]["content"]["data"]["text/plain"]
    assert "30/30" in cell.frames[-1]["content"]["data"]["text/plain"]


class Page:
    """Stands for IPython and a page: keeps what it is shown."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.shown: list[dict[str, str]] = []
        self.outputs = 0

    def __call__(self, cell: Any, display_id: bool) -> Page:
        assert display_id
        self.outputs += 1
        self.update(cell)
        return self

    def update(self, cell: Any) -> None:
        self.shown.append(cell._repr_mimebundle_())

    def cell(self) -> NotebookCell:
        return NotebookCell(self, clock=lambda: self.now)

    def heights(self) -> list[int]:
        return [Tags(shown["text/html"]).text.count("\n") - 1 for shown in self.shown]


@pytest.mark.parametrize("interval", [0.01, 0.1, 0.3, 0.499, 0.501, 0.7, 2.0])
def test_rate_of_frames(interval: float) -> None:
    """Never more than two a second; and no interval of half a second misses every other one."""
    page = Page()
    cell = page.cell()
    times: list[float] = []
    for number in range(1, int(20 / interval)):
        before = len(page.shown)
        cell.draw(Text(f"frame {number}"))
        if len(page.shown) > before:
            times.append(page.now)
        page.now += interval
    assert times[0] == 1000.0
    seconds = times[-1] - times[0]
    assert len(times) <= seconds / SHORTEST_PAUSE + 1.1
    assert len(times) >= seconds / max(interval + 0.01, SHORTEST_PAUSE + interval / 2)
    assert min(later - earlier for earlier, later in pairwise(times)) > SHORTEST_PAUSE - 0.06
    cell.close(Text("the end"))
    assert page.shown[-1]["text/plain"] == "the end"
    assert page.outputs == 1


def test_height_never_shrinks_while_it_runs() -> None:
    """What stands below does not jump: a smaller frame is filled up; the last one is as it is."""
    page = Page()
    cell = page.cell()
    for lines in (["a"], ["", "a", "b", "", ""], ["a", "b"], [], ["a"] * 99, ["a"]):
        cell.draw(Text("\n".join(lines)) if lines else Text(end=""))
        page.now += 1
    assert page.heights() == [1, 5, 5, 5, ROWS, ROWS]
    cell.close(None, "3 ok, 0 failed")
    cell.close(None, "3 ok, 0 failed")
    cell.draw(Text("too late"))
    assert page.heights()[6:] == [2]
    assert page.shown[-1]["text/plain"] == "a\n3 ok, 0 failed"


def test_end_without_a_frame() -> None:
    """The counts alone, if there are any; else no output at all."""
    page = Page()
    page.cell().close()
    assert page.shown == []
    page.cell().close(None, "0 ok, 0 failed")
    assert [shown["text/plain"] for shown in page.shown] == ["0 ok, 0 failed"]


def test_last_line_is_said_once() -> None:
    """Not again below a frame whose last line has the counts already."""
    page = Page()
    page.cell().close(Text("bar  3 ok, 0 failed"), "3 ok, 0 failed")
    assert page.shown[-1]["text/plain"] == "bar  3 ok, 0 failed"


def luminance(color: tuple[int, int, int]) -> float:
    """Relative luminance as WCAG 2 has it."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def colors_of(html: str, name: str = "color") -> list[tuple[int, int, int]]:
    codes = re.findall(rf"(?<![-\w]){name}: #([0-9a-f]{{6}})", html)
    return [(int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in codes]


NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"]


def test_colors_are_readable_on_any_page() -> None:
    """At least 3:1 on white and on nearly black: all sixteen colors, dim ones, all displays."""
    page = Page()
    cell = page.cell()
    frames: list[RenderableType] = [create(level).render(make_snapshot()) for level in LEVELS]
    styles = [*NAMES, *(f"bright_{name}" for name in NAMES), ""]
    frames += [Text("x", f"{dim} {style}") for dim in ("", "dim") for style in styles]
    for frame in frames:
        cell.draw(frame)
        page.now += 1
    assert len(page.shown) == len(LEVELS) + 2 * 17
    colors = {color for shown in page.shown for color in colors_of(shown["text/html"])}
    assert len(colors) > 20
    for color in colors:
        assert contrast(color, (0xFF, 0xFF, 0xFF)) >= 3, color
        assert contrast(color, (0x11, 0x11, 0x11)) >= 3, color


@pytest.mark.parametrize(
    "style",
    [
        "on red",
        "on bright_yellow",
        "white on red",
        "reverse",
        "red reverse",
        "bright_cyan reverse",
        "default reverse",
        "#00ff00 on #000080",
    ],
)
def test_text_on_a_color_of_its_own(style: str) -> None:
    """It has both colors, so that the page's color does not matter."""
    page = Page()
    page.cell().draw(Text("x", style))
    html = page.shown[0]["text/html"]
    (color,), (background,) = colors_of(html), colors_of(html, "background-color")
    assert contrast(color, background) >= 3


@pytest.mark.parametrize("style", ["default", "on default", "bold default on default"])
def test_text_in_the_default_color(style: str) -> None:
    """It has the page's own."""
    page = Page()
    page.cell().draw(Text("x", style))
    html = page.shown[0]["text/html"]
    assert colors_of(html) == colors_of(html, "background-color") == []


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """``NO_COLOR``: the page's own color and its grey, nothing else."""
    monkeypatch.setenv("NO_COLOR", "1")
    page = Page()
    page.cell().draw(create("full").render(make_snapshot()))
    assert set(colors_of(page.shown[0]["text/html"])) <= {tuple(PAGE.foreground_color)}


@pytest.mark.parametrize("level", LEVELS)
def test_frames_are_as_on_a_terminal(level: str) -> None:
    """The same lines, in 100 columns and at most 30 rows."""
    snapshot = make_snapshot(1000)
    page = Page()
    page.cell().draw(create(level).render(snapshot))
    assert_is_harmless(page.shown[0])
    terminal = Console(file=StringIO(), width=COLUMNS, height=ROWS, force_terminal=True)
    with terminal.capture() as drawn:
        terminal.print(create(level).render(snapshot))
    expected = Text.from_ansi(drawn.get()).plain.splitlines()
    assert page.shown[0]["text/plain"].split("\n") == [line.rstrip() for line in expected]
    assert 1 <= len(expected) <= ROWS


def test_wide_characters_take_two_cells_each() -> None:
    """Whatever the page's fonts: columns to the right of them stay where they are."""
    page = Page()
    page.cell().draw(Text("a日本<b>━👍", "red"))
    html = page.shown[0]["text/html"]
    box = '<span style="display:inline-block; width:{}ch">{}</span>'
    assert f"a{box.format(4, '日本')}&lt;b&gt;━{box.format(2, '👍')}</span>\n" in html
    assert page.shown[0]["text/plain"] == "a日本<b>━👍"
