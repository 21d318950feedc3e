"""Teacher layers that are drawn anew every epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.schedule import Moment
from tests.losses.cases import RANDOM_LAYERS, Make
from tests.losses.checks import (
    assert_cuts_change_nothing,
    assert_gradient_is_that_of_the_reference,
    assert_needs_are_what_is_used,
    assert_padding_changes_nothing,
    assert_value_is_the_reference,
    matrices,
    parts,
    value,
)
from tests.losses.random_samples import SAME_WIDTHS, RandomSamples

every_form = pytest.mark.parametrize("make", RANDOM_LAYERS.values(), ids=RANDOM_LAYERS)
TEACHER_LAYERS = {"bert": 12, "roberta": 6}
MOMENT = Moment(step=70, steps=200, epoch=2, epochs=6, seed=3, stage=1)


def drawing(student_layers: int = 4, teacher_layers: Mapping[str, int] = TEACHER_LAYERS) -> RandomLayersTerm:
    return RandomLayersTerm(student_layers, 2, teacher_layers, dict.fromkeys(teacher_layers, 2), width=2)


def drawn(term: RandomLayersTerm, moment: Moment) -> dict[str, list[int]]:
    term.begin(moment)
    return dict(term.chosen)


@every_form
def test_value_equals_numpy(make: Make) -> None:
    assert_value_is_the_reference(make())


@every_form
def test_gradient_of_the_student_and_the_projections_equals_finite_differences(make: Make) -> None:
    assert_gradient_is_that_of_the_reference(make())


@every_form
def test_padding_changes_nothing(make: Make) -> None:
    assert_padding_changes_nothing(make())


@every_form
def test_a_batch_of_eight_equals_its_parts(make: Make) -> None:
    assert_cuts_change_nothing(make())


# Drawing


def test_layers_are_below_the_top_in_order_and_each_at_most_once() -> None:
    term = drawing()
    for epoch in range(50):
        for name, layers in drawn(term, replace(MOMENT, epoch=epoch)).items():
            assert layers == sorted(set(layers))
            assert len(layers) == 3
            assert set(layers) <= set(range(1, TEACHER_LAYERS[name]))


def test_the_same_moment_draws_the_same_layers_whatever_was_drawn_before() -> None:
    moments = [replace(MOMENT, epoch=epoch) for epoch in range(20)]
    first, second = ([drawn(drawing(), moment) for moment in order] for order in (moments, moments[::-1]))
    assert first == second[::-1]
    one = drawing()
    assert [drawn(one, moment) for moment in moments] == first


def test_layers_are_drawn_once_per_epoch() -> None:
    found = [drawn(drawing(), replace(MOMENT, step=step)) for step in range(60, 90)]
    assert found == [found[0]] * 30
    epochs = [str(drawn(drawing(), replace(MOMENT, epoch=epoch))) for epoch in range(20)]
    assert len(set(epochs)) > 15


@pytest.mark.parametrize("changed", [{"seed": 4}, {"stage": 2}])
def test_seed_and_stage_change_what_is_drawn(changed: dict[str, int]) -> None:
    moments = [replace(MOMENT, epoch=epoch) for epoch in range(20)]
    term = drawing()
    assert [drawn(term, moment) for moment in moments] != [drawn(term, replace(moment, **changed)) for moment in moments]


def test_teachers_of_the_same_depth_are_drawn_from_independently() -> None:
    term = drawing(4, {"bert": 12, "roberta": 12})
    found = [drawn(term, replace(MOMENT, epoch=epoch)) for epoch in range(20)]
    assert sum(layers["bert"] != layers["roberta"] for layers in found) > 15


def test_all_layers_below_the_top_are_drawn_equally_often() -> None:
    term, epochs = drawing(), 2000
    found = [drawn(term, replace(MOMENT, epoch=epoch)) for epoch in range(epochs)]
    for name, depth in TEACHER_LAYERS.items():
        chance = 3 / (depth - 1)
        for layer in range(1, depth):
            times = sum(layer in layers[name] for layers in found)
            assert times / epochs == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / epochs))


@pytest.mark.parametrize(("student", "teacher", "count"), [(4, 12, 3), (2, 12, 1), (1, 12, 1), (6, 4, 3), (3, 2, 1), (5, 5, 4)])
def test_as_many_layers_are_drawn_as_both_have_below_the_top(student: int, teacher: int, count: int) -> None:
    term = drawing(student, {"bert": teacher})
    assert len(drawn(term, MOMENT)["bert"]) == count
    assert term.needs()[STUDENT] == Wanted.of("hidden", range(1, count + 1))


def test_something_is_drawn_before_the_first_step() -> None:
    assert drawing().chosen == drawn(drawing(), Moment())


def test_the_drawn_layers_are_asked_for_and_no_others() -> None:
    term = drawing()
    for epoch in range(5):
        chosen = drawn(term, replace(MOMENT, epoch=epoch))
        assert term.needs() == {
            STUDENT: Wanted.of("hidden", [1, 2, 3]),
            "bert": Wanted.of("hidden", chosen["bert"]),
            "roberta": Wanted.of("hidden", chosen["roberta"]),
        }


@pytest.mark.parametrize("epoch", range(4))
def test_what_is_asked_for_is_what_is_used(epoch: int) -> None:
    case = RANDOM_LAYERS["layer-wise"]()
    case.term.begin(replace(MOMENT, epoch=epoch))
    assert_needs_are_what_is_used(case)


def test_a_student_deeper_than_one_teacher_is_compared_as_far_as_that_teacher_goes() -> None:
    samples = RandomSamples(layers={STUDENT: 4, "bert": 6, "roberta": 2})
    term = RandomLayersTerm(4, 6, {"bert": 6, "roberta": 2}, {"bert": 12, "roberta": 3}, width=5)
    assert term.needs()[STUDENT] == Wanted.of("hidden", [1, 2, 3])
    assert term.needs()["roberta"] == Wanted.of("hidden", [1])
    before = parts(term, samples.cut())
    samples.insides["hidden"][STUDENT][2] = samples.of("hidden", STUDENT, 0)
    after = parts(term, samples.cut())
    assert after[1] == before[1]
    assert after[0] != before[0]


# What is compared


@pytest.mark.parametrize("concatenated", [False, True])
def test_projections_are_by_teacher_side_and_place_or_one_for_all_places(concatenated: bool) -> None:
    bank = Projections()
    RandomLayersTerm(3, 6, {"bert": 6, "roberta": 2}, {"bert": 12, "roberta": 3}, bank, width=5, concatenated=concatenated)
    expected = {
        "random-layers/bert/student/1": (5, 12 if concatenated else 6),
        "random-layers/bert/teacher/1": (5, 24 if concatenated else 12),
        "random-layers/roberta/student/1": (5, 6),
        "random-layers/roberta/teacher/1": (5, 3),
    }
    if not concatenated:
        expected |= {"random-layers/bert/student/2": (5, 6), "random-layers/bert/teacher/2": (5, 12)}
    assert {key: matrix.shape for key, matrix in matrices(bank).items()} == expected


@pytest.mark.parametrize("name", RANDOM_LAYERS)
def test_lengths_of_the_states_do_not_matter(name: str) -> None:
    case = RANDOM_LAYERS[name]()
    before = parts(case.term, case.samples.cut())
    for model in (STUDENT, "bert"):
        for layer, found in case.samples.insides["hidden"][model].items():
            case.samples.insides["hidden"][model][layer] = [7.0 * states for states in found]
    torch.testing.assert_close(parts(case.term, case.samples.cut()), before)


@pytest.mark.parametrize("concatenated", [False, True])
def test_contrary_states_are_as_far_apart_as_can_be(concatenated: bool) -> None:
    samples = RandomSamples(widths=SAME_WIDTHS, layers={STUDENT: 3, "bert": 3, "roberta": 3})
    term = RandomLayersTerm(3, 6, {"bert": 3}, SAME_WIDTHS, width=12 if concatenated else 6, concatenated=concatenated)
    for layer, found in samples.insides["hidden"][STUDENT].items():
        samples.insides["hidden"]["bert"][layer] = [-2.0 * states for states in found]
    assert value(term, samples.cut()).item() == pytest.approx(4.0, rel=1e-5)  # maps of equal widths start as the identity
    for layer, found in samples.insides["hidden"][STUDENT].items():
        samples.insides["hidden"]["bert"][layer] = found
    assert value(term, samples.cut()).item() == pytest.approx(0.0, abs=1e-6)
