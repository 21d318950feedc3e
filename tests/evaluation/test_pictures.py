"""The pictures: what stands in them, that a page can hold them side by side, and that they can be read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from kdcli.evaluation import pictures
from kdcli.evaluation.calibration import Bin, Calibration
from kdcli.evaluation.curves import Line, Phase
from kdcli.evaluation.document import ModelScore, RecipeScore
from kdcli.evaluation.pictures import Grid, Picture, Point

MARKUP = '<b>&"x"</b> $a_b$'
BINS = (Bin(0.0, 0.5, 0, None, None), Bin(0.5, 1.0, 40, 0.8, 0.7))
CALIBRATION = Calibration(ece=0.1, ece_high=0.12, nll=0.5, bins=BINS, temperature=1.2, ece_after=0.05, nll_after=0.4)
PHASE = Phase(
    name=MARKUP,
    metric="accuracy",
    losses=[Line("loss", [1, 2, 3], [90.0, 3.0, 1.0]), Line("loss/hard-labels", [1, 2, 3], [2.0, 1.0, 0.5])],
    dev=[Line(MARKUP, [2, 3], [0.5, 0.75])],
    best=3,
    stages=[("one", 1), ("two", 2)],
    averaged=1,
)
GRID = Grid("CKA", [[0.1, 0.87], [1.0, math.nan], [12.4, 3.21]], "student layer", f"layer of {MARKUP}")


def model(name: str, score: float) -> ModelScore:
    return ModelScore(name=name, role="student", kind="checkpoint", scores={"f1": score}, interval=(score - 0.05, score + 0.02))


def recipe(name: str) -> RecipeScore:
    return RecipeScore(name=name, scores={0: 0.5, 1: 0.6}, mean=0.55, deviation=0.0707, models={0: "a", 1: "b"})


DRAW: dict[str, Callable[[str], Picture]] = {
    "scores": lambda name: pictures.scores(name, "Scores", [model(MARKUP, 0.8), model("other", 0.7)], "f1"),
    "seeds": lambda name: pictures.seeds(name, "Seeds", [recipe(MARKUP), recipe("other")], "f1"),
    "reliability": lambda name: pictures.reliability(name, MARKUP, CALIBRATION),
    "confusion": lambda name: pictures.confusion(name, MARKUP, [MARKUP, "b"], [[30, 4], [0, 17]]),
    "heatmap": lambda name: pictures.heatmap(name, GRID, {0: 1, 1: 0}, {2: 1}),
    "losses": lambda name: pictures.losses(name, PHASE),
    "progress": lambda name: pictures.progress(name, PHASE),
    "tradeoff": lambda name: pictures.tradeoff(
        name, "Costs", "MB", "f1", [Point(MARKUP, "student", 1, 0.5), Point("b", "teacher", 90, 0.6)]
    ),
}
every_picture = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)


def words(picture: Picture) -> list[str]:
    """The texts of the inline SVG, as a reader sees them."""
    return [element.text or "" for element in ElementTree.fromstring(picture.inline).iter("text")]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2, of colours from 0 to 1."""

    def luminance(colour: tuple[float, ...]) -> float:
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


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
    assert not [colour for colour in pictures.THEME if colour in inline]
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


def test_scores_are_written_beside_the_names() -> None:
    assert {"80.0", "70.0", "other"} <= set(words(DRAW["scores"]("one")))


def test_a_recipe_shows_mean_and_spread_of_its_seeds() -> None:
    assert "55.0 ± 7.1" in words(DRAW["seeds"]("one"))


def test_confusion_matrix_writes_every_count_but_zero() -> None:
    found = words(DRAW["confusion"]("one"))
    assert {"30", "4", "17"} <= set(found)
    assert "0" not in found


def test_cells_of_a_heatmap_hold_two_figures() -> None:
    assert [text for text in words(DRAW["heatmap"]("one")) if text in (".10", ".87", "1.0", "–", "12", "3.2")] == [
        ".10", ".87", "1.0", "–", "12", "3.2",
    ]  # fmt: skip


def test_a_wide_heatmap_has_a_scale_instead_of_figures_and_numbers_few_columns() -> None:
    found = words(pictures.heatmap("one", Grid("CKA", [[0.31] * 25] * 2, "student layer", "layer", top=1.0), {1: 3}, {1: 4}))
    assert ".31" not in found
    assert [text for text in found if text.isdigit()] == ["0", "4", "8", "12", "16", "20", "24", "0", "1"]


@pytest.mark.parametrize("columns", [6, 25])
def test_layer_maps_are_drawn_where_they_are_and_explained(columns: int) -> None:
    def shapes(chosen: dict[int, int], suggested: dict[int, int]) -> tuple[int, int, set[str]]:
        grid = Grid("KL", [[0.5] * columns] * 2, "student layer", "layer", 1, 1)
        picture = pictures.heatmap("one", grid, chosen, suggested)
        outlines = picture.inline.count(f"stroke: {pictures.ON_BRIGHT}")
        return outlines, picture.inline.count("fill: #c2500b"), set(words(picture))

    none, own, both = (shapes(*maps) for maps in (({}, {}), ({1: 2, 0: 0}, {}), ({1: 2, 2: 3, 9: 9}, {1: 2, 2: 4})))
    assert none[:2] == (0, 0)
    assert own[:2] == (1, 0)  # layer 0 is not in this picture
    assert both[0] == 2
    assert both[1] >= 2
    assert {"the recipe's map", "suggested map"} & none[2] == set()
    assert {"the recipe's map", "suggested map"} <= both[2]


def test_letters_can_be_read_on_every_colour_of_a_cell() -> None:
    import matplotlib

    letters = {pictures.ON_BRIGHT: (0.0, 0.0, 0.0), pictures.ON_DARK: (1.0, 1.0, 1.0)}
    colours = [matplotlib.colormaps[pictures.CELLS](place)[:3] for place in range(256)]
    assert min(contrast(letters[pictures.readable_on(colour)], colour) for colour in colours) >= 4.5


def test_no_colour_of_a_cell_is_taken_for_one_of_the_page() -> None:
    import matplotlib
    from matplotlib.colors import to_hex

    cells = {to_hex(matplotlib.colormaps[pictures.CELLS](place)) for place in range(256)}
    assert not cells & set(pictures.THEME)
    assert not {pictures.ON_BRIGHT, pictures.ON_DARK} & set(pictures.THEME)


@pytest.mark.parametrize("colour", [pictures.INK, pictures.FAINT])
def test_letters_can_be_read_on_paper(colour: str) -> None:
    from matplotlib.colors import to_rgb

    assert contrast(to_rgb(colour), to_rgb(pictures.PAPER)) >= 4.5


@pytest.mark.parametrize("colour", pictures.SERIES)
def test_lines_can_be_seen_on_paper(colour: str) -> None:
    from matplotlib.colors import to_rgb

    assert contrast(to_rgb(colour), to_rgb(pictures.PAPER)) >= 3


def test_losses_far_apart_have_a_logarithmic_axis_in_plain_numbers() -> None:
    found = words(DRAW["losses"]("one"))
    assert {"1", "10", "100"} <= set(found)
    assert not [text for text in found if "mathdefault" in text]


def test_long_names_lose_their_middle_and_unprintable_signs_are_replaced() -> None:
    name = "distilled-" + "x" * 60 + "-seed\x00\x1b7"
    found = [text for text in words(pictures.scores("one", "Scores", [model(name, 0.8)], "f1")) if "…" in text]
    assert len(found) == 1
    assert found[0].startswith("distilled-")
    assert found[0].endswith("-seed\ufffd\ufffd7")
    assert len(found[0]) <= 50


def test_any_script_can_be_drawn() -> None:
    name = "教師 учитель 🤖"
    assert name in words(pictures.scores("one", "Scores", [model(name, 0.8)], "f1"))


def test_undominated_points_are_those_that_no_other_beats_in_both() -> None:
    def point(cost: float, score: float) -> Point:
        return Point("", "model", cost, score)

    best = [point(1, 0.5), point(2, 0.7), point(5, 0.9)]
    worse = [point(1, 0.4), point(3, 0.7), point(4, 0.6), point(5, 0.8), point(9, 0.9)]
    assert pictures.undominated([*worse, *reversed(best)]) == best


def test_numbers_of_points_at_one_place_do_not_cover_each_other() -> None:
    points = [Point(f"model {place}", "model", 1, 0.5 + place / 1000) for place in range(4)]
    points.append(Point("far", "teacher", 9, 0.9))
    root = ElementTree.fromstring(pictures.tradeoff("one", "Costs", "MB", "f1", points).inline)
    numbers = [each for each in root.iter("text") if each.text in list("1234") and "--ink" in each.get("style", "")]
    places = [(float(each.get("x", 0)), float(each.get("y", 0))) for each in numbers]
    assert len(places) == 4
    assert min(math.dist(one, other) for one in places for other in places if one != other) > 8
