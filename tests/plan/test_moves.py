"""What of the student moves in a stage: the parts that its losses reach, without those that the recipe freezes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.plan.stages import brief_places
from tests.plan.desk import Shelf

Places = list[int | str]
EMBEDDINGS, HEAD = "embeddings", "head"


def moves(
    shelf: Shelf, *terms: str, freeze: str = "[]", student: str = "4L", teacher: str = "bert", layers: str = "uniform"
) -> Places:
    """What moves in a single stage with those terms."""
    written = "".join(f"      - {{{term}}}\n" for term in terms)
    text = f"name: mine\nlayers: {layers}\nstages:\n  - name: one\n    freeze: {freeze}\n    objective:\n{written}"
    (stage,) = shelf.stages(text, teachers={"teacher": shelf.model(teacher, layers=6)}, student=student)
    return stage.moves


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("loss: hard-labels", [EMBEDDINGS, 1, 2, 3, 4, HEAD]),
        ("loss: soft-labels", [EMBEDDINGS, 1, 2, 3, 4, HEAD]),
        ("loss: logits-mse", [EMBEDDINGS, 1, 2, 3, 4, HEAD]),
        ("loss: relational, states: logits", [EMBEDDINGS, 1, 2, 3, 4, HEAD]),
        ("loss: relational", [EMBEDDINGS, 1, 2, 3, 4]),
        ("loss: relational, layers: middle", [EMBEDDINGS, 1, 2]),
        ("loss: relation-kl", [EMBEDDINGS, 1, 2, 3, 4]),
        ("loss: relation-kl, layers: {teacher: {1: 1}}", [EMBEDDINGS, 1]),
        ("loss: hidden-mse", [EMBEDDINGS, 1, 2, 3, 4]),
        ("loss: hidden-mse, layers: embeddings", [EMBEDDINGS]),
        ("loss: hidden-mse, layers: {teacher: {0: 6}}", [EMBEDDINGS]),
        ("loss: hidden-mse, layers: skip", [EMBEDDINGS, 1, 2, 3]),
        ("loss: hidden-mse, layers: last-intermediate", [EMBEDDINGS, 1, 2, 3]),
        ("loss: hidden-cosine, layers: middle", [EMBEDDINGS, 1, 2]),
        ("loss: hidden-cosine, layers: {teacher: {3: 1, 1: 6}}", [EMBEDDINGS, 1, 2, 3]),
        ("loss: attention-kl, layers: top", [EMBEDDINGS, 1, 2, 3, 4]),
        ("loss: attention-mse, layers: {teacher: {2: 5}}", [EMBEDDINGS, 1, 2]),
        ("loss: random-layers", [EMBEDDINGS, 1, 2, 3]),
    ],
)
def test_gradient_of_a_loss_reaches_its_highest_layer_and_all_below(term: str, expected: Places, shelf: Shelf) -> None:
    assert moves(shelf, term) == expected


def test_losses_of_a_stage_reach_what_the_highest_of_them_does(shelf: Shelf) -> None:
    low, middle = "loss: hidden-mse, layers: {teacher: {1: 2}}", "loss: attention-kl, layers: middle"
    assert moves(shelf, low, middle) == moves(shelf, middle, low) == [EMBEDDINGS, 1, 2]
    assert moves(shelf, low, "loss: hard-labels") == [EMBEDDINGS, 1, 2, 3, 4, HEAD]


def test_terms_of_weight_zero_reach_nothing(shelf: Shelf) -> None:
    assert moves(shelf, "loss: hidden-mse, layers: middle", "loss: soft-labels, weight: 0") == [EMBEDDINGS, 1, 2]


def test_highest_layer_over_all_teachers_counts(shelf: Shelf) -> None:
    text = (
        "name: mine\nlayers: {bert: {1: 2}, roberta: {2: 6}}\nstages:\n  - {name: one, objective: [{loss: hidden-mse}]}\n"
        "  - {name: two, objective: [{loss: hidden-mse, teachers: [bert]}]}\n"
    )
    assert [stage.moves for stage in shelf.stages(text, student="3L")] == [[EMBEDDINGS, 1, 2], [EMBEDDINGS, 1]]


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        ("[]", [EMBEDDINGS, 1, 2, 3, 4, HEAD]),
        ("[embeddings]", [1, 2, 3, 4, HEAD]),
        ("[embeddings, 1, 2]", [3, 4, HEAD]),
        ("[4, 2]", [EMBEDDINGS, 1, 3, HEAD]),
        ("[head]", [EMBEDDINGS, 1, 2, 3, 4]),
        ("[embeddings, 1, 2, 3, 4]", [HEAD]),
        ("[1, 1]", [EMBEDDINGS, 2, 3, 4, HEAD]),
    ],
)
def test_frozen_parts_do_not_move(freeze: str, expected: Places, shelf: Shelf) -> None:
    assert moves(shelf, "loss: hard-labels", freeze=freeze) == expected


def test_freezing_what_no_loss_reaches_changes_nothing(shelf: Shelf) -> None:
    assert moves(shelf, "loss: hidden-mse, layers: middle", freeze="[3, 4, head]") == [EMBEDDINGS, 1, 2]


def test_expanded_stages_move_more_and_more(shelf: Shelf) -> None:
    text = (
        "name: mine\nstages:\n  - {name: a, expand: HOW, freeze: [embeddings], objective: [{loss: hidden-mse}]}\n"
        "  - {name: b, objective: [{loss: hard-labels}]}\n"
    )
    for how in ("progressive", "stacked"):
        stages = shelf.stages(text.replace("HOW", how), student="3L")
        assert [stage.moves for stage in stages] == [[1], [1, 2], [1, 2, 3], [EMBEDDINGS, 1, 2, 3, HEAD]]


@pytest.mark.parametrize("teacher", ["bert", "electra", "mpnet", "deberta-v2", "modernbert", "convbert"])
def test_reach_does_not_depend_on_the_architecture(teacher: str, shelf: Shelf) -> None:
    assert moves(shelf, "loss: hidden-mse, layers: middle", teacher=teacher) == [EMBEDDINGS, 1, 2]


def test_all_or_none_of_shared_layers_may_be_frozen(shelf: Shelf) -> None:
    assert moves(shelf, "loss: hard-labels", teacher="albert") == [EMBEDDINGS, 1, 2, 3, 4, HEAD]
    assert moves(shelf, "loss: hard-labels", teacher="albert", freeze="[4, 3, 2, 1]") == [EMBEDDINGS, HEAD]


def test_random_layers_reach_no_further_than_there_are_teacher_layers_to_be_drawn(shelf: Shelf) -> None:
    """A teacher of 3 layers has two below its top, and so student layers 1 and 2 are compared."""
    text = (
        "name: mine\nstudent: {init: {from: scratch}}\nstages:\n"
        "  - {name: one, objective: [{loss: random-layers}], freeze: FREEZE}\n"
    )
    teachers = {"teacher": shelf.model(layers=3)}
    (stage,) = shelf.stages(text.replace("FREEZE", "[]"), teachers=teachers, student="6L")
    assert stage.moves == [EMBEDDINGS, 1, 2]
    shelf.refused(text.replace("FREEZE", "[embeddings, 1, 2]"), teachers=teachers, student="6L")


@settings(deadline=None, database=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.dictionaries(st.integers(0, 4), st.integers(0, 6), min_size=1),
    frozen=st.sets(st.sampled_from([EMBEDDINGS, HEAD, 1, 2, 3, 4]), max_size=3),
)
def test_moves_are_the_places_up_to_the_highest_layer_without_the_frozen_ones(
    pairs: dict[int, int], frozen: set[int | str], shelf: Shelf
) -> None:
    expected = [place for place in [EMBEDDINGS, 1, 2, 3, 4][: max(pairs) + 1] if place not in frozen]
    term, written = f"loss: hidden-mse, layers: {{teacher: {pairs}}}", str(sorted(frozen, key=str))
    if expected:
        assert moves(shelf, term, freeze=written) == expected
    else:
        text = f"name: a\nstages:\n  - {{name: one, freeze: {written}, objective: [{{{term}}}]}}\n"
        (problem,) = shelf.refused(text, teachers={"teacher": shelf.model(layers=6)}, student="4L")
        assert problem.what == "stage one trains nothing"


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ([], "nothing"),
        ([EMBEDDINGS], "embeddings"),
        ([1], "layer 1"),
        ([1, 2, 3], "layers 1–3"),
        ([1, 3], "layers 1, 3"),
        ([EMBEDDINGS, 1, 2, HEAD], "embeddings, layers 1–2, head"),
        ([HEAD, 2, EMBEDDINGS], "embeddings, layer 2, head"),
    ],
)
def test_places_in_words(places: Places, text: str) -> None:
    assert brief_places(places) == text
    assert all(low < high for low, high in pairwise([place for place in places if isinstance(place, int)]))


def test_loss_on_one_layer_moves_all_that_share_its_weights(shelf: Shelf) -> None:
    assert moves(shelf, "loss: hidden-mse, layers: middle", teacher="albert") == [EMBEDDINGS, 1, 2, 3, 4]


def test_weight_that_is_zero_from_begin_to_end_trains_nothing(shelf: Shelf) -> None:
    text = "name: mine\nstages: [{name: one, objective: [{loss: soft-labels, weight: {from: 0, to: 0}}]}]\n"
    (problem,) = shelf.refused(text)
    assert "trains nothing" in problem.what
