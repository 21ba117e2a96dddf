"""Text from outside: it can be anything, and it must only ever be text."""

from __future__ import annotations

import unicodedata

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from antflow._core.text import clean, safe_str
from antflow.display.canvas import ASCII, UNICODE, Canvas, glyphs_for, known_encoding

NASTY = [
    "[red]x[/red]",
    "[/x]",
    "\x1b[2J",
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x1b\\",
    "\x1b]8;;http://x\x1b\\y",
    "\x1bP1$r\x1b\\",
    "\x1b\x1b[31m[2J",
    "\x1bc",
    "\x1b(0",
    "\x9b2J",
    "\x9d0;t\x9c",
    "\x90q\x9c",
    "\u202eevil\u202c",
    "\u2066x\u2069",
    "\u200b\u200d\ufeff",
    "a\nb\r\nc\rd\te",
    "\u2028\u2029\x85",
    "\x00\x07\x08\x7f",
    "日本語",
    "\uff57\uff49\uff44\uff45",
    "e\u0301\u0302",
    "\u0301",
    "❤️",
    "👍🏽",
    "👨‍👩‍👧",
    "🇩🇪",
    "कि",
    "\u1100\u1161\u11a8",
    "\u3164",
    "\ud800",
    "\udc9b",
    "\xa0\u3000",
    "",
]


def can_be_emulated(character: str) -> bool:
    """The emulator stops at marks without a combining class, which terminals do not."""
    return unicodedata.combining(character) > 0 or unicodedata.category(character) not in (
        "Mn",
        "Me",
    )


strange_text = st.text(st.characters(codec=None).filter(can_be_emulated), max_size=6)
texts = st.lists(st.sampled_from(NASTY) | strange_text, max_size=6).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("a\r\nb\nc", "a ⏎ b ⏎ c"),
        ("\x1b\x1b[31m[2J", "·[2J"),
        ("\x9b31mC1", "·31mC1"),
        ("\x1b]0;no end\nnext line", "0;no end ⏎ next line"),
        ("â\x80\x9cread wrongly“â\x80\x9d is still text", "â··read wrongly“â·· is still text"),
        ("abc\u202edef", "abc·def"),
        ("\ud800", "·"),
        ("tab\tnbsp\xa0.", "tab nbsp ."),
        ("[red]markup stays[/x]", "[red]markup stays[/x]"),
    ],
)
def test_clean_examples(text: str, expected: str) -> None:
    """Sequences go whole, line ends and controls leave a sign, text stays."""
    assert clean(text) == expected


@given(texts)
def test_clean_drives_no_terminal(text: str) -> None:
    """Only printable characters come out, writable in UTF-8; twice is the same as once."""
    cleaned = clean(text)
    assert cleaned.replace("\u3000", " ").isprintable()
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned


def test_text_of_what_cannot_be_told() -> None:
    """An object whose text raises, or is no plain string, is shown all the same."""

    class Raises:
        def __str__(self) -> str:
            raise RuntimeError

    class Sly(str):
        def isprintable(self) -> bool:
            return True

    class Hidden:
        def __str__(self) -> str:
            return Sly("\x1b[2Jx")

    assert clean(Raises()) == "<Raises: str() failed>"
    assert clean(Sly("\x1b[2Jx")) == "x"
    assert clean(Hidden()) == "x"
    assert type(safe_str(Sly("x"))) is str


@given(texts)
@example("\u0301")
def test_text_is_as_wide_as_it_says(text: str) -> None:
    """A terminal takes exactly the cells that were counted, so that columns stay aligned."""
    shown = Canvas(80, 24).text(text)
    screen = pyte.Screen(200, 3)
    pyte.Stream(screen).feed(f"<{shown}>")
    assert screen.cursor.x == cell_len(shown) + 2
    assert screen.buffer[0][cell_len(shown) + 1].data == ">"
    assert screen.title == screen.icon_name == ""
    assert screen.cursor.y == 0


@given(texts, st.integers(0, 30), st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252"]))
@example("日本語の長い名前", 7, "utf-8")
def test_text_fits_where_it_is_cropped(text: str, width: int, encoding: str) -> None:
    """Cropped is never wider, padded is exactly as wide, and all of it can be written."""
    canvas = Canvas(80, 24, encoding)
    shown = canvas.text(text)
    shown.encode(encoding)
    canvas.crop(shown, width).encode(encoding)
    assert cell_len(canvas.crop(shown, width)) <= width
    assert cell_len(canvas.pad(shown, width)) == width


def test_text_when_it_is_long() -> None:
    """A message of ten megabytes costs no more than its first line."""
    assert len(Canvas(80, 24).text("x" * 10_000_000)) == 500


def test_glyphs_for_encodings() -> None:
    """Where the drawing characters cannot be written there are others."""
    assert glyphs_for("utf-8") is UNICODE
    assert glyphs_for("ascii") is glyphs_for("latin-1") is ASCII
    assert known_encoding("no-such-thing") == "ascii"
    assert "".join(ASCII).isascii()
    assert all(cell_len(glyph) == 1 for glyph in "".join(UNICODE))
