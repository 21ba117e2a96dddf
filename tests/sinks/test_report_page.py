"""The page of a report, opened in a real browser from a file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, a_browser, browser_path

from .reports import a_pipeline, data_of, hostile_run, run

pytestmark = pytest.mark.skipif(
    browser_path() is None, reason="no Chromium here: apt-get install chromium"
)

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with a_browser(folder) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    path = folder / "report.html"
    run(a_pipeline(), report=path)
    return path


def check_quiet(browser: Browser, path: Path) -> None:
    """The page has complained about nothing, and asked for nothing but itself."""
    assert browser.complaints == []
    assert browser.value("violations") == []
    assert set(browser.requests) == {path.as_uri()}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("wide", WIDTHS)
def test_page_opens_without_a_complaint(
    browser: Browser, report: Path, wide: int, scheme: str
) -> None:
    """The page draws, fits its window, keeps to its policy, and asks nothing of the network."""
    browser.open(report, wide, scheme)
    check_quiet(browser, report)
    assert browser.value("document.documentElement.scrollWidth") == wide
    for canvas in ("rows", "rates"):
        drawn = browser.value(
            f"[...new Uint32Array(document.getElementById('{canvas}').getContext('2d')"
            ".getImageData(0, 0, 300, 100).data.buffer)].filter(Boolean).length"
        )
        assert drawn > 100
    light = browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 248)"
    assert light == (scheme == "light")


def test_page_follows_the_colour_scheme(browser: Browser, report: Path) -> None:
    """Drawings change their colours with the rest of the page while it is open."""
    browser.open(report, scheme="light")
    picture = "document.getElementById('rates').toDataURL()"
    light = browser.value(picture)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    browser.value("new Promise(done => setTimeout(done, 200))")
    assert browser.value(picture) != light


@pytest.mark.parametrize("wide", WIDTHS)
def test_hostile_page_is_inert(browser: Browser, folder: Path, wide: int) -> None:
    """Hostile ids, messages and names are only text: no element, no script, no request."""
    path = folder / "hostile.html"
    hostile_run(path)
    browser.open(path, wide)
    check_quiet(browser, path)
    strange = "img, a, iframe, b, link, object, form, svg[onload], [onclick], [onerror]"
    assert browser.value(f"document.querySelectorAll({strange!r}).length") == 0
    assert browser.value("document.scripts.length") == 2
    assert browser.value("document.title") == "</title><svg onload=alert(5)>: finished"
    shown = browser.value("document.body.innerText")
    assert "</script><img src=x onerror=alert(1)><!--<script>" in shown
    assert browser.value("document.documentElement.scrollWidth") == wide


def test_failed_ids_can_be_downloaded(browser: Browser, report: Path, folder: Path) -> None:
    """The button brings the ids of the failed items, one a line."""
    browser.open(report)
    browser.value("document.getElementById('download').click()")
    until = time.monotonic() + 30
    while not (found := list(folder.glob("failed-*.txt"))):
        assert time.monotonic() < until, "nothing was downloaded"
        browser.value("new Promise(done => setTimeout(done, 50))")
    assert found[0].read_text().split() == data_of(report.read_text("utf-8"))["failed"]
    check_quiet(browser, report)


def rows_at(browser: Browser) -> tuple[float, float, float]:
    """Left, top and width of the timeline's drawing."""
    box = browser.value(
        "(canvas => { canvas.scrollIntoView(); const box = canvas.getBoundingClientRect();"
        "return [box.left, box.top, box.width]; })(document.getElementById('rows'))"
    )
    left, top, width = box
    return left, top, width


def hint(browser: Browser) -> str:
    text: str = browser.value("document.getElementById('hint').textContent")
    return text


def test_timeline_tells_of_a_try_and_zooms(browser: Browser, report: Path) -> None:
    """Pointing at a try names its worker and item; a drag, a button and keys zoom, and go back."""
    browser.open(report)
    left, top, width = rows_at(browser)
    browser.point(left + 0.02 * width, top + 24)
    told = hint(browser)
    assert re.fullmatch(r"Fetch-W0, item \d+: done after 1\d\d ms, at [\d.]+ m?s", told), told
    picture = "document.getElementById('rows').toDataURL()"
    whole = browser.value(picture)
    browser.drag(left + 0.5 * width, top + 24, left + 0.75 * width)
    browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.value(picture) != whole
    browser.point(left + 0.02 * width, top + 24)
    assert hint(browser) != told
    for way_back in (
        "document.querySelector('[data-zoom=all]').click()",
        "document.getElementById('rows').dispatchEvent(new KeyboardEvent('keydown', {key: '0'}))",
        "document.getElementById('rows').dispatchEvent(new MouseEvent('dblclick'))",
    ):
        browser.value("document.querySelector('[data-zoom=in]').click()")
        browser.value(way_back)
        browser.point(1, 1)
        browser.value(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        assert browser.value(picture) == whole
    assert browser.complaints == []
