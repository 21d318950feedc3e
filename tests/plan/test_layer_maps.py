"""Which layer map a term goes by: its own, else the recipe's; by name, by teacher, or pair by pair."""

from __future__ import annotations

import pytest

from kdcli.recipe.layer_maps import NamedLayerMap
from tests.plan.desk import Maps, Shelf

# (student layers, BERT of 4, RoBERTa of 6), worked out by hand
NAMED: dict[NamedLayerMap, dict[int, Maps]] = {
    "uniform": {
        1: {"bert": {1: 4}, "roberta": {1: 6}},
        2: {"bert": {1: 2, 2: 4}, "roberta": {1: 3, 2: 6}},
        4: {"bert": {1: 1, 2: 2, 3: 3, 4: 4}, "roberta": {1: 2, 2: 3, 3: 5, 4: 6}},
    },
    "first": {
        1: {"bert": {1: 1}, "roberta": {1: 1}},
        2: {"bert": {1: 1, 2: 2}, "roberta": {1: 1, 2: 2}},
        4: {"bert": {1: 1, 2: 2, 3: 3, 4: 4}, "roberta": {1: 1, 2: 2, 3: 3, 4: 4}},
    },
    "last": {
        1: {"bert": {1: 4}, "roberta": {1: 6}},
        2: {"bert": {1: 3, 2: 4}, "roberta": {1: 5, 2: 6}},
        4: {"bert": {1: 1, 2: 2, 3: 3, 4: 4}, "roberta": {1: 3, 2: 4, 3: 5, 4: 6}},
    },
    "skip": {
        2: {"bert": {1: 2}, "roberta": {1: 3}},
        4: {"bert": {1: 1, 2: 2, 3: 3}, "roberta": {1: 2, 2: 3, 3: 5}},
    },
    "last-intermediate": {
        2: {"bert": {1: 3}, "roberta": {1: 5}},
        4: {"bert": {1: 1, 2: 2, 3: 3}, "roberta": {1: 3, 2: 4, 3: 5}},
    },
    "middle": {
        1: {"bert": {1: 2}, "roberta": {1: 3}},
        2: {"bert": {1: 2}, "roberta": {1: 3}},
        4: {"bert": {2: 2}, "roberta": {2: 3}},
    },
    "top": {
        1: {"bert": {1: 4}, "roberta": {1: 6}},
        2: {"bert": {2: 4}, "roberta": {2: 6}},
        4: {"bert": {4: 4}, "roberta": {4: 6}},
    },
    "embeddings": {
        1: {"bert": {0: 0}, "roberta": {0: 0}},
        2: {"bert": {0: 0}, "roberta": {0: 0}},
        4: {"bert": {0: 0}, "roberta": {0: 0}},
    },
}
CASES = [(name, depth, maps) for name, depths in NAMED.items() for depth, maps in depths.items()]
TERMS = """\
name: mine
layers: LAYERS
stages:
  - name: one
    objective:
      - {loss: TERM}
"""


def layers_of(shelf: Shelf, term: str, layers: str = "uniform", student: str = "2L") -> Maps:
    """The layer maps of a recipe's only term."""
    text = TERMS.replace("LAYERS", layers).replace("TERM", term)
    (stage,) = shelf.stages(text, student=student)
    (planned,) = stage.terms
    return planned.layers


@pytest.mark.parametrize(("name", "depth", "maps"), CASES)
def test_named_map_is_resolved_for_every_teachers_depth(name: NamedLayerMap, depth: int, maps: Maps, shelf: Shelf) -> None:
    assert layers_of(shelf, "hidden-mse", layers=name, student=f"{depth}L") == maps
    assert layers_of(shelf, f"hidden-mse, layers: {name}", layers="first", student=f"{depth}L") == maps


@pytest.mark.parametrize(
    ("loss", "without_word"),
    [
        ("hidden-mse", "first"),
        ("hidden-cosine", "first"),
        ("attention-kl", "first"),
        ("attention-mse", "first"),
        ("relation-kl", "top"),
        ("relational", "top"),
    ],
)
def test_term_without_a_map_of_its_own_goes_by_the_recipes_or_by_the_top(loss: str, without_word: str, shelf: Shelf) -> None:
    wanted: NamedLayerMap = "first" if without_word == "first" else "top"
    assert layers_of(shelf, loss, layers="first") == NAMED[wanted][2]
    assert layers_of(shelf, f"{loss}, layers: null", layers="first") == NAMED["first"][2]
    assert layers_of(shelf, f"{loss}, layers: last", layers="first") == NAMED["last"][2]


def test_terms_of_one_stage_may_go_by_different_maps(shelf: Shelf) -> None:
    text = TERMS.replace("LAYERS", "last").replace(
        "{loss: TERM}", "{loss: hidden-mse}\n      - {loss: hidden-cosine, layers: {bert: {2: 1}, roberta: skip}}"
    )
    (stage,) = shelf.stages(text)
    assert [term.layers for term in stage.terms] == [NAMED["last"][2], {"bert": {2: 1}, "roberta": {1: 3}}]


@pytest.mark.parametrize(
    ("layers", "maps"),
    [
        ("{bert: {1: 4, 2: 4}, roberta: {1: 6, 2: 6}}", {"bert": {1: 4, 2: 4}, "roberta": {1: 6, 2: 6}}),
        ("{bert: {2: 1, 1: 4}, roberta: first}", {"bert": {1: 4, 2: 1}, "roberta": {1: 1, 2: 2}}),
        ("{bert: {0: 0}, roberta: {0: 3, 2: 0}}", {"bert": {0: 0}, "roberta": {0: 3, 2: 0}}),
        ("{roberta: {2: 5}}", {"bert": {1: 2, 2: 4}, "roberta": {2: 5}}),
        ("{bert: embeddings, roberta: top}", {"bert": {0: 0}, "roberta": {2: 6}}),
    ],
)
def test_maps_by_teacher_are_taken_pair_by_pair_and_are_uniform_for_the_others(layers: str, maps: Maps, shelf: Shelf) -> None:
    assert layers_of(shelf, "hidden-mse", layers=layers) == maps
    assert layers_of(shelf, f"hidden-mse, layers: {layers}", layers="first") == maps


def test_term_of_some_teachers_has_their_maps_alone(shelf: Shelf) -> None:
    assert layers_of(shelf, "hidden-mse, teachers: [roberta]") == {"roberta": {1: 3, 2: 6}}
    # in the order of --teachers, however the term lists them
    assert list(layers_of(shelf, "hidden-mse, teachers: [roberta, bert]")) == ["bert", "roberta"]


@pytest.mark.parametrize("loss", ["relational, states: logits", "soft-labels", "logits-mse", "random-layers", "hard-labels"])
def test_losses_that_compare_no_matched_layers_have_no_map(loss: str, shelf: Shelf) -> None:
    assert layers_of(shelf, loss) == {}


@pytest.mark.parametrize(
    ("loss", "maps"),
    [
        ("soft-labels", {}),
        ("relational, states: logits", {}),
        ("relational", NAMED["top"][2]),
        ("hidden-mse, layers: last", NAMED["last"][2]),
    ],
)
def test_map_that_no_term_goes_by_need_not_fit(loss: str, maps: Maps, shelf: Shelf) -> None:
    assert layers_of(shelf, loss, layers="{bert: {9: 9}}") == maps


def test_deeper_student_may_learn_by_pairs(shelf: Shelf) -> None:
    text = TERMS.replace("LAYERS", "{bert: {8: 4, 1: 1}}").replace("TERM", "hidden-mse")
    (stage,) = shelf.stages(text, "student.init.from=scratch", teachers=shelf.one(), student="8L")
    assert stage.terms[0].layers == {"bert": {1: 1, 8: 4}}
