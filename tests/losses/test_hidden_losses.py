"""Hidden states: mean squared error and cosine, of all tokens or of one vector per sample."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from kdcli.losses.hidden import HiddenTerm
from kdcli.losses.hidden_cosine import HiddenCosineTerm
from kdcli.losses.hidden_mse import HiddenMseTerm, squared_distance
from kdcli.losses.projection import Projections
from kdcli.models.output import Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.losses.projection import Side, Tokens
from tests.losses.cases import ALL_TOKENS, HIDDEN, PAIRS, Make
from tests.losses.checks import (
    assert_cuts_change_nothing,
    assert_finite,
    assert_gradient_is_that_of_the_reference,
    assert_padding_changes_nothing,
    assert_value_is_the_reference,
    matrices,
    parts,
    randomised,
    value,
)
from tests.losses.random_samples import SAME_WIDTHS, TEACHERS, WIDTHS, Array, RandomSamples

every_form = pytest.mark.parametrize("make", HIDDEN.values(), ids=HIDDEN)
both = pytest.mark.parametrize("kind", [HiddenMseTerm, HiddenCosineTerm])
all_tokens = pytest.mark.parametrize("tokens", ALL_TOKENS)


def plain(kind: type[HiddenTerm], tokens: Tokens = "all", teachers: Sequence[str] = TEACHERS) -> HiddenTerm:
    return kind({name: PAIRS[name] for name in teachers}, 6, SAME_WIDTHS, tokens=tokens)


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


# Tokens


@both
def test_no_gradient_reaches_unmatched_tokens(kind: type[HiddenTerm]) -> None:
    samples = RandomSamples(seed=5, widths=SAME_WIDTHS)
    batch, outputs = samples.cut()
    embeddings = outputs[STUDENT].hidden[0].requires_grad_()
    value(plain(kind), (batch, outputs)).backward()  # type: ignore[no-untyped-call]
    matched = {(row, place) for row in range(len(samples)) for place, _ in samples.counterparts("roberta", row)}
    assert embeddings.grad is not None
    assert {(row, place) for row, place in embeddings.grad.abs().sum(-1).nonzero().tolist()} == matched


@all_tokens
def test_units_are_matched_tokens_or_samples(tokens: Tokens) -> None:
    samples = RandomSamples(seed=6)
    matched = [sum(len(samples.counterparts(name, row)) for row in range(8)) for name in TEACHERS]
    assert matched[1] < matched[0] == sum(samples.lengths[STUDENT])
    assert plain(HiddenMseTerm, tokens).count(samples.cut()[0]).tolist() == (matched if tokens == "all" else [8.0, 8.0])


@both
def test_a_sample_without_any_counterpart_says_nothing(kind: type[HiddenTerm]) -> None:
    samples, term = RandomSamples(4, seed=7, widths=SAME_WIDTHS), plain(kind, teachers=["roberta"])
    samples.runs[2][:, 1] = samples.runs[2][:, 0]
    assert torch.equal(term(*samples.cut([2])), torch.zeros(1))
    assert value(term, samples.cut([2])).item() == 0.0
    torch.testing.assert_close(value(term, samples.cut()), value(term, samples.cut([0, 1, 3])))
    assert_finite(term, *samples.cut([2]))


@both
def test_the_first_token_is_that_of_each_model_whatever_lies_behind_it(kind: type[HiddenTerm]) -> None:
    samples, term = RandomSamples(seed=8, widths=SAME_WIDTHS), plain(kind, "cls")
    batch, outputs = samples.cut()
    before = parts(term, (batch, outputs))
    for output in outputs.values():
        for states in output.hidden.values():
            states[:, 1:] = float("nan")
    assert torch.equal(parts(term, (batch, outputs)), before)


def test_cosine_and_normalised_error_do_not_see_lengths() -> None:
    samples = RandomSamples(seed=9, widths=SAME_WIDTHS)
    normalised = HiddenMseTerm(PAIRS, 6, SAME_WIDTHS, tokens="cls")
    normalised.normalise = True
    cosine = HiddenCosineTerm(PAIRS, 6, SAME_WIDTHS, tokens="cls")
    before = [parts(term, samples.cut()) for term in (normalised, cosine)]
    torch.testing.assert_close(6 * before[0], 2 * before[1])  # |a − b|² = 2 (1 − cos) for unit vectors
    for states in samples.insides["hidden"][STUDENT].values():
        states[:] = [3.5 * own for own in states]
    for term, value_before in zip((normalised, cosine), before, strict=True):
        torch.testing.assert_close(parts(term, samples.cut()), value_before)
    assert not torch.allclose(parts(plain(HiddenMseTerm, "cls"), samples.cut()), before[0])


@both
@all_tokens
def test_equal_states_are_no_distance_apart(kind: type[HiddenTerm], tokens: Tokens) -> None:
    samples = RandomSamples(seed=10, widths=SAME_WIDTHS)
    for student_layer, teacher_layer in PAIRS["bert"].items():
        samples.insides["hidden"]["bert"][teacher_layer] = samples.of("hidden", STUDENT, student_layer)
    assert value(plain(kind, tokens, ["bert"]), samples.cut()).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("filling", [0.0, 1e4, -1e4])
@pytest.mark.parametrize(
    "make", [HIDDEN["mse-all-normalised"], HIDDEN["cosine-all-as-they-are"], HIDDEN["mse-all-as-they-are"]]
)
def test_value_and_gradient_stay_finite_for_states_without_length_and_huge_ones(make: Make, filling: float) -> None:
    case = make()
    batch, outputs = case.samples.cut()
    for states in outputs[STUDENT].hidden.values():
        states.fill_(filling)
    assert_finite(case.term, batch, outputs)


# Projections


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_one_matrix_per_pair_of_layers_or_one_per_teacher(side: Side) -> None:
    shape = {name: (6, WIDTHS[name]) if side == "teacher" else (WIDTHS[name], 6) for name in TEACHERS}
    by_layer, by_teacher = Projections(), Projections()
    HiddenMseTerm(PAIRS, 6, WIDTHS, by_layer, side)
    HiddenMseTerm(PAIRS, 6, WIDTHS, by_teacher, side, "per-teacher")
    assert {key: matrix.shape for key, matrix in matrices(by_layer).items()} == {
        f"hidden-mse/{side}/{name}/{row}-{there}": shape[name] for name, rows in PAIRS.items() for row, there in rows.items()
    }
    assert {key: matrix.shape for key, matrix in matrices(by_teacher).items()} == {
        f"hidden-mse/{side}/{name}": shape[name] for name in PAIRS
    }


def test_only_the_teachers_that_are_named_get_a_matrix() -> None:
    bank = Projections()
    HiddenMseTerm(PAIRS, 6, {"bert": 6, "roberta": 3}, bank, {"bert": None, "roberta": "teacher"}, "per-teacher")
    assert list(bank) == ["hidden-mse/teacher/roberta"]
    none = Projections()
    HiddenMseTerm(PAIRS, 6, SAME_WIDTHS, none)
    assert not list(none)


def test_a_later_term_of_that_name_finds_what_an_earlier_one_has_trained_and_others_do_not() -> None:
    bank = Projections()
    first = HiddenMseTerm(PAIRS, 6, WIDTHS, bank, "student")
    randomised(bank)
    again = HiddenMseTerm({"bert": {1: 2}}, 6, WIDTHS, bank, "student")
    other = HiddenMseTerm({"bert": {1: 2}}, 6, WIDTHS, bank, "student", name="hint")
    assert again.projections["bert", 1, 2] is first.projections["bert", 1, 2]
    assert other.projections["bert", 1, 2] is not first.projections["bert", 1, 2]


@pytest.mark.parametrize("tokens", ["all", "cls"])
def test_the_spread_of_the_projected_teacher_is_observed_only_when_asked(tokens: Tokens) -> None:
    samples, bank = RandomSamples(seed=9), Projections()
    term = HiddenMseTerm(PAIRS, 6, WIDTHS, bank, "teacher", tokens=tokens)
    randomised(bank)
    term(*samples.cut())
    assert not term.observed
    term.observing = True
    term(*samples.cut())
    known = matrices(bank)
    assert len(term.observed) == len(known)
    for name, rows in PAIRS.items():
        for student_layer, teacher_layer in rows.items():
            states = samples.of("hidden", name, teacher_layer)
            projected: list[Array] = []
            for row, own in enumerate(states):
                runs = [list(run) for _, run in samples.counterparts(name, row)] if tokens == "all" else [[0]]
                matrix = known[f"hidden-mse/teacher/{name}/{student_layer}-{teacher_layer}"]
                projected += [matrix @ own[run].mean(0) for run in runs]
            found = term.observed[f"projected-std/{name}-{student_layer}"].item()
            assert found == pytest.approx(np.std(projected, axis=0).mean(), rel=1e-4)


def test_without_a_projection_on_the_teacher_s_side_nothing_is_observed() -> None:
    term = HiddenMseTerm(PAIRS, 6, WIDTHS, side="student")
    term.observing = True
    term(*RandomSamples().cut())
    assert not term.observed


def first_weights() -> str:
    bank = Projections()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        HiddenMseTerm({"bert": {0: 0, 1: 1, 2: 2, 3: 3}, "roberta": {3: 3}}, 4, {"bert": 6, "roberta": 3}, bank, "student")
    return str([(name, weight.flatten().tolist()) for name, weight in bank.named_parameters()])


def test_projections_are_the_same_in_every_process() -> None:
    """Their order and first values must not hang on Python's hash seed: optimiser states are matched by that order."""
    there = subprocess.run(
        [sys.executable, "-c", "from tests.losses.test_hidden_losses import first_weights; print(first_weights())"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "bert/0" in there
    assert there.strip() == first_weights()


@both
def test_it_asks_for_the_matched_layers_alone(kind: type[HiddenTerm]) -> None:
    assert plain(kind).needs() == {
        STUDENT: Wanted.of("hidden", [0, 1, 2]),
        "bert": Wanted.of("hidden", [2, 4]),
        "roberta": Wanted.of("hidden", [0, 1, 3]),
    }


@pytest.mark.parametrize("masked", [False, True])
def test_squared_distance_has_the_gradient_of_its_value(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[True, False, True], [False, False, True]]) if masked else None
    assert torch.autograd.gradcheck(lambda one, other: squared_distance(one, other, mask), (ours, theirs))
    kept = (ours - theirs).detach().numpy()[mask.numpy() if mask is not None else slice(None)]
    assert squared_distance(ours, theirs, mask).item() == pytest.approx((kept**2).sum(), rel=1e-12)


def test_squared_distance_ignores_what_is_not_finite_behind_the_mask() -> None:
    ours = torch.tensor([[1.0, 2.0], [float("nan"), float("inf")]], requires_grad=True)
    total = squared_distance(ours, torch.zeros(2, 2), torch.tensor([True, False]))
    total.backward()  # type: ignore[no-untyped-call]
    assert total.item() == 5.0
    assert ours.grad is not None
    assert ours.grad.tolist() == [[2.0, 4.0], [0.0, 0.0]]
