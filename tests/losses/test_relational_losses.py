"""Distances and angles between the samples of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdcli.losses.relational import RelationalTerm
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from tests.losses.cases import RELATIONAL, TOP_PAIRS, Make
from tests.losses.checks import (
    assert_cuts_change_nothing,
    assert_finite,
    assert_gradient_is_that_of_the_reference,
    assert_padding_changes_nothing,
    assert_value_is_the_reference,
    parts,
    value,
)
from tests.losses.random_samples import TEACHERS, RandomSamples

every_form = pytest.mark.parametrize("make", RELATIONAL.values(), ids=RELATIONAL)
IN_GROUPS = {name: make for name, make in RELATIONAL.items() if (case := make()).term.group and len(case.samples) == 8}
ONE = {"bert": {1: 1}}


@every_form
def test_value_equals_numpy(make: Make) -> None:
    assert_value_is_the_reference(make())


@every_form
def test_gradient_equals_finite_differences(make: Make) -> None:
    assert_gradient_is_that_of_the_reference(make())


@every_form
def test_padding_changes_nothing(make: Make) -> None:
    assert_padding_changes_nothing(make())


@pytest.mark.parametrize("make", IN_GROUPS.values(), ids=IN_GROUPS)
def test_a_batch_of_eight_cut_between_groups_equals_its_parts(make: Make) -> None:
    assert_cuts_change_nothing(make())


def test_a_batch_cut_within_a_group_would_not() -> None:
    samples, term = RandomSamples(seed=1), RelationalTerm(ONE, group=4)
    cuts = [samples.cut(range(6)), samples.cut([6, 7])]
    assert not torch.allclose(value(term, *cuts), value(term, samples.cut()), rtol=1e-3)


# Groups


@pytest.mark.parametrize(
    ("group", "pairs", "triplets"),
    [(None, 7 * 6, 7 * 6 * 5), (4, 4 * 3 + 3 * 2, 4 * 3 * 2 + 3 * 2 * 1), (3, 3 * 2 * 2, 3 * 2 * 2), (2, 3 * 2, 0)],
)
def test_ordered_pairs_and_triplets_within_groups_are_counted(group: int | None, pairs: int, triplets: int) -> None:
    term = RelationalTerm(TOP_PAIRS, group=group)
    assert term.count(RandomSamples(7).cut()[0]).tolist() == [pairs, triplets] * 2
    assert term.parts == 4


def test_the_whole_batch_is_one_group_unless_a_size_is_given() -> None:
    cut = RandomSamples(6).cut()
    whole = RelationalTerm(TOP_PAIRS)
    assert whole.group == 0
    assert torch.equal(parts(whole, cut), parts(RelationalTerm(TOP_PAIRS, group=6), cut))
    assert torch.equal(parts(whole, cut), parts(RelationalTerm(TOP_PAIRS, group=64), cut))
    assert RelationalTerm(TOP_PAIRS, group=6).group == 6


@pytest.mark.parametrize("count", [1, 2])
def test_one_sample_has_no_relations_and_two_are_as_far_apart_as_their_mean(count: int) -> None:
    batch, outputs = RandomSamples(count).cut()
    term = RelationalTerm(TOP_PAIRS)
    assert value(term, (batch, outputs)).item() == pytest.approx(0.0, abs=1e-6)
    assert_finite(term, batch, outputs)


def test_a_last_group_of_one_adds_nothing() -> None:
    samples, term = RandomSamples(9), RelationalTerm(TOP_PAIRS, group=4)
    torch.testing.assert_close(parts(term, samples.cut()), parts(term, samples.cut(range(8))))


def test_order_within_a_group_does_not_matter_and_who_is_in_it_does() -> None:
    samples, term = RandomSamples(seed=2), RelationalTerm(TOP_PAIRS, group=4)
    before = value(term, samples.cut())
    torch.testing.assert_close(value(term, samples.cut([3, 1, 0, 2, 7, 6, 5, 4])), before)
    assert not torch.allclose(value(term, samples.cut([0, 4, 1, 5, 2, 6, 3, 7])), before, rtol=1e-3)


# What is compared


def test_a_student_that_is_turned_shifted_and_scaled_is_no_distance_away() -> None:
    samples, term = RandomSamples(seed=3, widths=dict.fromkeys((STUDENT, *TEACHERS), 6)), RelationalTerm(ONE, "cls")
    generator = np.random.default_rng(0)
    turn, shift = np.linalg.qr(generator.normal(size=(6, 6)))[0], generator.normal(size=6)
    samples.insides["hidden"][STUDENT][1] = [2.5 * states @ turn + shift for states in samples.of("hidden", "bert", 1)]
    assert value(term, samples.cut()).item() == pytest.approx(0.0, abs=1e-6)
    samples.insides["hidden"][STUDENT][1][0] += 1.0
    assert value(term, samples.cut()).item() > 1e-3


def test_the_weights_are_factors_of_distances_and_angles() -> None:
    cut = RandomSamples(seed=4).cut()
    plain = parts(RelationalTerm(TOP_PAIRS, distance_weight=1.0, angle_weight=1.0), cut)
    weighted = parts(RelationalTerm(TOP_PAIRS, distance_weight=3.0, angle_weight=0.5), cut)
    torch.testing.assert_close(weighted, plain * torch.tensor([3.0, 0.5] * 2))
    torch.testing.assert_close(parts(RelationalTerm(TOP_PAIRS), cut), plain * torch.tensor([1.0, 2.0] * 2))


@pytest.mark.parametrize("which", [STUDENT, "bert"])
@pytest.mark.parametrize("twins", [2, 8])
def test_samples_that_a_model_cannot_tell_apart_keep_value_and_gradient_finite(which: str, twins: int) -> None:
    samples = RandomSamples(seed=5)
    samples.logits[which][:twins] = samples.logits[which][0]
    assert_finite(RelationalTerm({"bert": {1: 1}}, "logits"), *samples.cut())


def test_twins_are_no_distance_apart_and_point_nowhere() -> None:
    samples = RandomSamples(3)
    samples.logits["bert"] = np.eye(3)  # all distances alike, all cosines one half
    samples.logits[STUDENT] = np.array([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]])  # distances 0, 1.5, 1.5, cosines 0, 0, 1
    found = parts(RelationalTerm(ONE, "logits", distance_weight=1.0, angle_weight=1.0), samples.cut())
    assert found.tolist() == pytest.approx([(2 * 0.5 + 4 * 0.125) / 6, 0.125], rel=1e-5)


@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_the_scale_of_the_answers_does_not_matter(factor: float) -> None:
    samples, term = RandomSamples(seed=6), RelationalTerm({"bert": {1: 1}}, "logits")
    before = value(term, samples.cut())
    samples.logits[STUDENT] *= factor
    torch.testing.assert_close(value(term, samples.cut()), before, rtol=1e-3, atol=1e-6)
    assert_finite(term, *samples.cut())


@pytest.mark.parametrize("states", ["cls", "mean"])
def test_hidden_states_are_asked_for_where_they_are_compared(states: str) -> None:
    assert RelationalTerm(TOP_PAIRS, states).needs() == {
        STUDENT: Wanted.of("hidden", [1, 2]),
        "bert": Wanted.of("hidden", [4]),
        "roberta": Wanted.of("hidden", [2, 3]),
    }


def test_logits_need_no_layers() -> None:
    assert RelationalTerm({"bert": {1: 1}}, "logits").needs() == {STUDENT: Wanted(), "bert": Wanted()}


@pytest.mark.parametrize("pairs", [{1: 1, 2: 4}, {}])
def test_pairs_of_layers_are_not_looked_at_for_logits(pairs: dict[int, int]) -> None:
    cut = RandomSamples(seed=7).cut()
    assert torch.equal(parts(RelationalTerm({"bert": pairs}, "logits"), cut), parts(RelationalTerm(ONE, "logits"), cut))
