"""Confusion matrices and heatmaps: what is written into the cells, how layer maps are marked, and that it can be read."""

from __future__ import annotations

import pytest

from kdcli.evaluation.report import canvas, heatmaps
from kdcli.evaluation.report.heatmaps import Grid
from tests.evaluation.report.drawings import DRAW, contrast, words


def test_confusion_matrix_writes_every_count_but_zero() -> None:
    found = words(DRAW["confusion"]("one"))
    assert {"30", "4", "17"} <= set(found)
    assert "0" not in found


def test_cells_of_a_heatmap_hold_two_figures() -> None:
    assert [text for text in words(DRAW["heatmap"]("one")) if text in (".10", ".87", "1.0", "–", "12", "3.2")] == [
        ".10", ".87", "1.0", "–", "12", "3.2",
    ]  # fmt: skip


def test_a_wide_heatmap_has_a_scale_instead_of_figures_and_numbers_few_columns() -> None:
    found = words(heatmaps.heatmap("one", Grid("CKA", [[0.31] * 25] * 2, "student layer", "layer", top=1.0), {1: 3}, {1: 4}))
    assert ".31" not in found
    assert [text for text in found if text.isdigit()] == ["0", "4", "8", "12", "16", "20", "24", "0", "1"]


@pytest.mark.parametrize("columns", [6, 25])
def test_layer_maps_are_drawn_where_they_are_and_explained(columns: int) -> None:
    def shapes(chosen: dict[int, int], suggested: dict[int, int]) -> tuple[int, int, set[str]]:
        grid = Grid("KL", [[0.5] * columns] * 2, "student layer", "layer", 1, 1)
        picture = heatmaps.heatmap("one", grid, chosen, suggested)
        outlines = picture.inline.count(f"stroke: {heatmaps.ON_BRIGHT}")
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

    letters = {heatmaps.ON_BRIGHT: (0.0, 0.0, 0.0), heatmaps.ON_DARK: (1.0, 1.0, 1.0)}
    colours = [matplotlib.colormaps[heatmaps.CELLS](place)[:3] for place in range(256)]
    assert min(contrast(letters[heatmaps.readable_on(colour)], colour) for colour in colours) >= 4.5


def test_no_colour_of_a_cell_is_taken_for_one_of_the_page() -> None:
    import matplotlib
    from matplotlib.colors import to_hex

    coloured = {to_hex(matplotlib.colormaps[heatmaps.CELLS](place)) for place in range(256)}
    assert not coloured & set(canvas.THEME)
    assert not {heatmaps.ON_BRIGHT, heatmaps.ON_DARK} & set(canvas.THEME)
