"""What all pictures have in common: they can be read, and a page can hold them side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from kdcli.evaluation.report import canvas, charts
from kdcli.evaluation.report.canvas import Picture
from tests.evaluation.report.drawings import DRAW, MARKUP, contrast, model, words

every_picture = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)


@every_picture
def test_the_same_numbers_give_the_same_bytes(draw: Callable[[str], Picture]) -> None:
    assert draw("one") == draw("one")


@every_picture
def test_names_are_shown_as_they_are(draw: Callable[[str], Picture]) -> None:
    picture = draw("one")
    assert any(MARKUP in text for text in words(picture))
    assert "<b>" not in picture.svg + picture.inline


@every_picture
def test_no_two_pictures_of_a_page_share_an_id(draw: Callable[[str], Picture]) -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', draw(name).inline)) for name in ("one", "two")]
    assert not ids[0] & ids[1]
    assert all(each.startswith("one-") for each in ids[0])


@every_picture
def test_what_is_referred_to_is_in_the_picture(draw: Callable[[str], Picture]) -> None:
    inline = draw("one").inline
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', inline)) == set(re.findall(r'\bid="([^"]+)"', inline))


@every_picture
def test_inline_picture_takes_colours_and_font_from_the_page(draw: Callable[[str], Picture]) -> None:
    inline = draw("one").inline
    assert "var(--ink)" in inline
    assert not [colour for colour in canvas.THEME if colour in inline]
    assert not re.findall(r"font-family|http|<style|<\?xml|<metadata|<title", inline)
    root = ElementTree.fromstring(inline)
    assert root.get("role") == "img"
    assert root.get("aria-label")


@every_picture
def test_files_are_an_svg_and_a_png_of_the_same_shape(draw: Callable[[str], Picture]) -> None:
    picture = draw("one")
    _, _, width, height = map(float, ElementTree.fromstring(picture.svg).get("viewBox", "").split())
    assert width == picture.width
    assert picture.png.startswith(b"\x89PNG")
    pixels = [int.from_bytes(picture.png[start : start + 4]) for start in (16, 20)]
    assert pixels[0] / pixels[1] == pytest.approx(width / height, rel=0.02)


@every_picture
def test_letters_are_large_enough_for_a_phone(draw: Callable[[str], Picture]) -> None:
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", draw("one").inline)]
    assert min(sizes) >= 11


@every_picture
def test_settings_of_the_user_change_nothing(draw: Callable[[str], Picture]) -> None:
    import matplotlib

    expected = draw("one")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path", "axes.grid": True}):
        assert draw("one") == expected
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("colour", [canvas.INK, canvas.FAINT])
def test_letters_can_be_read_on_paper(colour: str) -> None:
    from matplotlib.colors import to_rgb

    assert contrast(to_rgb(colour), to_rgb(canvas.PAPER)) >= 4.5


@pytest.mark.parametrize("colour", canvas.SERIES)
def test_lines_can_be_seen_on_paper(colour: str) -> None:
    from matplotlib.colors import to_rgb

    assert contrast(to_rgb(colour), to_rgb(canvas.PAPER)) >= 3


def test_long_names_lose_their_middle_and_unprintable_signs_are_replaced() -> None:
    name = "distilled-" + "x" * 60 + "-seed\x00\x1b7"
    found = [text for text in words(charts.scores("one", "Scores", [model(name, 0.8)], "f1")) if "…" in text]
    assert len(found) == 1
    assert found[0].startswith("distilled-")
    assert found[0].endswith("-seed\ufffd\ufffd7")
    assert len(found[0]) <= 50


def test_any_script_can_be_drawn() -> None:
    name = "教師 учитель 🤖"
    assert name in words(charts.scores("one", "Scores", [model(name, 0.8)], "f1"))
