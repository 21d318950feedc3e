"""Hard labels, soft labels and logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from kdcli.losses.divergences import DIVERGENCES
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.logits_mse import LogitsMseTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.models.output import Output, Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.schedule import Moment
from tests.losses.cases import CHANCES, LABELS, Make, changing
from tests.losses.checks import (
    assert_cuts_change_nothing,
    assert_gradient_is_that_of_the_reference,
    assert_padding_changes_nothing,
    assert_value_is_the_reference,
    parts,
    value,
)
from tests.losses.random_samples import TEACHERS, THREE, Array, RandomSamples
from tests.losses.reference import softmax, teacher_weights, uncertainty

every_form = pytest.mark.parametrize("make", LABELS.values(), ids=LABELS)
every_divergence = pytest.mark.parametrize("divergence", DIVERGENCES)
WITHOUT_LABELS = ("uniform", "confidence", "agreement", "uncertainty")
COMPUTED = ("inverse-error", "softmax-error", "confidence", "agreement", "uncertainty")
drawing = partial(SoftLabelsTerm, THREE, chances=CHANCES)


def gradient(term: Term, samples: RandomSamples, model: str = STUDENT) -> Array:
    batch, outputs = samples.cut()
    logits = outputs[model].logits.requires_grad_()
    (found,) = torch.autograd.grad(value(term, (batch, outputs)), logits)
    return found.numpy().astype(np.float64)


@every_form
def test_value_equals_numpy(make: Make) -> None:
    assert_value_is_the_reference(make())


@pytest.mark.parametrize("name", [name for name in LABELS if name != "hard-of-the-teachers"])
def test_gradient_equals_finite_differences(name: str) -> None:
    assert_gradient_is_that_of_the_reference(LABELS[name]())


@every_form
def test_padding_changes_nothing(make: Make) -> None:
    assert_padding_changes_nothing(make())


@every_form
def test_a_batch_of_eight_equals_its_parts(make: Make) -> None:
    assert_cuts_change_nothing(make())


# Hard labels


@pytest.mark.parametrize("model", TEACHERS)
def test_each_model_that_learns_is_pulled_from_its_distribution_to_the_label(model: str) -> None:
    samples = RandomSamples(seed=1, unlabelled=[2])
    expected = np.array([softmax(logits) for logits in samples.logits[model]])
    expected[np.arange(8), samples.labels] -= 1
    expected[2] = 0
    np.testing.assert_allclose(gradient(HardLabelsTerm(TEACHERS), samples, model), expected / 7, rtol=1e-4, atol=1e-7)


def test_rows_without_a_label_are_neither_counted_nor_learned_from() -> None:
    samples = RandomSamples(seed=2, unlabelled=[1, 4])
    assert HardLabelsTerm((STUDENT, *TEACHERS)).count(samples.cut()[0]).tolist() == [6.0] * 3
    assert (gradient(HardLabelsTerm(), samples) != 0).any(-1).nonzero()[0].tolist() == [0, 2, 3, 5, 6, 7]


def test_a_batch_without_any_label_says_nothing() -> None:
    samples = RandomSamples(4, unlabelled=range(4))
    assert value(HardLabelsTerm(), samples.cut()).item() == 0.0
    assert not gradient(HardLabelsTerm(), samples).any()


def test_hard_labels_ask_the_models_that_learn() -> None:
    assert HardLabelsTerm().needs() == {STUDENT: Wanted()}
    assert HardLabelsTerm(TEACHERS).needs() == dict.fromkeys(TEACHERS, Wanted())


# Soft labels


@every_divergence
def test_a_student_that_answers_as_its_teacher_feels_no_pull(divergence: str) -> None:
    samples, term = RandomSamples(), SoftLabelsTerm(["bert"], 2.0, divergence=divergence)
    assert np.abs(gradient(term, samples)).max() > 1e-3
    samples.logits[STUDENT] = samples.logits["bert"]
    assert np.abs(gradient(term, samples)).max() < 1e-7


def test_cross_entropy_and_kl_have_the_same_gradient_and_differ_by_the_entropy_of_the_teachers() -> None:
    samples = RandomSamples(seed=3)
    with_entropy, without = (SoftLabelsTerm(TEACHERS, 2.0, divergence=name) for name in ("cross-entropy", "kl"))
    np.testing.assert_allclose(gradient(with_entropy, samples), gradient(without, samples), atol=1e-7)
    shares = np.array([softmax(logits / 2) for name in TEACHERS for logits in samples.logits[name]])
    entropy = -(shares * np.log(shares)).sum(-1).mean()
    difference = value(with_entropy, samples.cut()) - value(without, samples.cut())
    assert difference.item() == pytest.approx(entropy, rel=1e-4)


def test_temperature_squared_is_a_factor_and_off_unless_asked_for() -> None:
    cut = RandomSamples().cut()
    plain = value(SoftLabelsTerm(TEACHERS, 3.0), cut).item()
    assert value(SoftLabelsTerm(TEACHERS, 3.0, True), cut).item() == pytest.approx(9 * plain)


@pytest.mark.parametrize(("step", "temperature"), [(0, 8.0), (2, 6.0), (6, 2.0)])
def test_temperature_follows_its_schedule(step: int, temperature: float) -> None:
    cut, term = RandomSamples().cut(), SoftLabelsTerm(TEACHERS, changing(8, 2), True)
    term.begin(Moment(step, 7))
    assert torch.equal(parts(term, cut), parts(SoftLabelsTerm(TEACHERS, temperature, True), cut))


def test_by_default_teachers_count_alike_and_their_mean_is_taken() -> None:
    batch, outputs = RandomSamples().cut()
    outputs["roberta"] = outputs["bert"]
    one = value(SoftLabelsTerm(["bert"]), (batch, outputs)).item()
    assert value(SoftLabelsTerm(TEACHERS), (batch, outputs)).item() == pytest.approx(one)
    assert value(SoftLabelsTerm(TEACHERS, teacher_reduction="sum"), (batch, outputs)).item() == pytest.approx(2 * one)


@pytest.mark.parametrize("weighting", WITHOUT_LABELS)
def test_weights_by_answers_need_no_labels(weighting: str) -> None:
    batch, outputs = RandomSamples().cut()
    term = SoftLabelsTerm(TEACHERS, weighting=weighting, scale="agreement", sizes={"bert": 2, "roberta": 1})
    assert torch.equal(parts(term, (replace(batch, targets=None), outputs)), parts(term, (batch, outputs)))


def test_out_of_fold_answers_weigh_and_are_not_learned_from() -> None:
    samples, blind = RandomSamples(seed=4), RandomSamples(seed=4, out_of_fold=TEACHERS)
    blind.logits, blind.labels = samples.logits, samples.labels
    uniform, by_error = SoftLabelsTerm(TEACHERS), SoftLabelsTerm(TEACHERS, weighting="inverse-error")
    assert torch.equal(parts(uniform, blind.cut()), parts(uniform, samples.cut()))
    assert not torch.allclose(parts(by_error, blind.cut()), parts(by_error, samples.cut()), rtol=1e-3)


@pytest.mark.parametrize("weighting", ["softmax-error", "agreement", "uncertainty"])
def test_a_single_teacher_has_nobody_to_be_weighed_against(weighting: str) -> None:
    cut, term = RandomSamples().cut(), SoftLabelsTerm(["bert"], weighting=weighting, sizes={"bert": 5})
    assert torch.equal(parts(term, cut), parts(SoftLabelsTerm(["bert"]), cut))


def test_no_gradient_flows_through_the_student_s_uncertainty() -> None:
    samples = RandomSamples(seed=5)
    frozen = samples.cut()[1][STUDENT].logits
    term = SoftLabelsTerm(TEACHERS, weighting="uncertainty", sizes={"bert": 2, "roberta": 1})
    batch, outputs = samples.cut()
    leaf = frozen.clone().requires_grad_()
    value(term, (batch, {**outputs, STUDENT: Output(leaf)})).backward()  # type: ignore[no-untyped-call]
    weights = torch.tensor(teacher_weights(samples, TEACHERS, "uncertainty", {"bert": 2, "roberta": 1}))
    other = frozen.double().requires_grad_()
    targets = torch.stack([outputs[name].logits.double().softmax(-1) for name in TEACHERS])
    ((-(targets * other.log_softmax(-1)).sum(-1) * weights).mean()).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(leaf.grad.double(), other.grad, rtol=1e-4, atol=1e-7)


def test_samples_on_which_the_student_is_sure_are_left_out_but_count_in_the_mean() -> None:
    samples, term = RandomSamples(seed=6), SoftLabelsTerm(TEACHERS, min_uncertainty=0.6)
    kept = [row for row in range(8) if uncertainty(samples, row) >= 0.6]
    assert 0 < len(kept) < 8
    assert term.count(samples.cut()[0]).tolist() == [8.0, 8.0]
    assert (gradient(term, samples) != 0).any(-1).nonzero()[0].tolist() == kept


# What is observed


@pytest.mark.parametrize("normalise", [False, True])
def test_the_spread_of_the_weights_is_observed_only_when_asked(normalise: bool) -> None:
    samples, term = RandomSamples(), SoftLabelsTerm(TEACHERS, weighting="inverse-error", normalise_weights=normalise)
    term(*samples.cut())
    assert not term.observed
    term.observing = True
    term(*samples.cut())
    weights = teacher_weights(samples, TEACHERS, "inverse-error", normalise=normalise)
    for name, of_teacher in zip(TEACHERS, weights, strict=True):
        assert term.observed[f"weight-mean/{name}"].item() == pytest.approx(of_teacher.mean(), rel=1e-5)
        assert term.observed[f"weight-spread/{name}"].item() == pytest.approx(of_teacher.std(), rel=1e-4)


def test_the_fraction_of_samples_that_is_kept_is_observed() -> None:
    samples, term = RandomSamples(seed=6), SoftLabelsTerm(TEACHERS, min_uncertainty=0.6)
    term.observing = True
    term(*samples.cut())
    assert term.observed["kept"].item() == pytest.approx(np.mean([uncertainty(samples, row) >= 0.6 for row in range(8)]))


def seen(means: Mapping[str, float], spread: float = 0.0) -> dict[str, float]:
    return {f"weight-mean/{name}": mean for name, mean in means.items()} | {f"weight-spread/{name}": spread for name in means}


FLAT = seen({"bert": 0.99, "roberta": 0.985}, 0.004)


@pytest.mark.parametrize("weighting", COMPUTED)
def test_weights_that_stay_flat_five_times_are_remarked_upon(weighting: str) -> None:
    term = SoftLabelsTerm(TEACHERS, weighting=weighting, name="from-teachers")
    assert [term.remark(FLAT) for _ in range(4)] == [None] * 4
    said = term.remark(FLAT)
    assert said is not None
    assert said.startswith(f"from-teachers: weighting by {weighting} says nothing here")
    assert ("out_of_fold" in said) == weighting.endswith("-error")


@pytest.mark.parametrize("varying", [seen({"bert": 0.9, "roberta": 0.8}), seen({"bert": 0.9, "roberta": 0.9}, 0.1)])
def test_weights_that_vary_between_teachers_or_samples_are_not_remarked_upon(varying: dict[str, float]) -> None:
    term = SoftLabelsTerm(TEACHERS, weighting="inverse-error")
    assert [term.remark(varying) for _ in range(9)] == [None] * 9
    assert [term.remark(FLAT) for _ in range(4)] == [None] * 4
    assert term.remark(FLAT) is not None
    assert term.remark(varying) is None


@pytest.mark.parametrize("weighting", ["uniform", {"bert": 1.0, "roberta": 1.0}])
def test_weights_that_are_meant_to_be_flat_are_not_remarked_upon(weighting: str | dict[str, float]) -> None:
    term = SoftLabelsTerm(TEACHERS, weighting=weighting)
    assert [term.remark(seen({"bert": 1.0, "roberta": 1.0})) for _ in range(9)] == [None] * 9


def test_teachers_that_know_every_label_by_heart_are_remarked_upon_and_others_are_not() -> None:
    for sharpness, flat in ((60.0, True), (2.0, False)):
        samples, term = RandomSamples(seed=7), SoftLabelsTerm(TEACHERS, weighting="inverse-error")
        for row, name in enumerate(TEACHERS):
            samples.logits[name] = np.eye(3)[samples.labels] * (sharpness + row)
        term.observing = True
        said = None
        for _ in range(5):
            term(*samples.cut())
            said = term.remark({key: figure.item() for key, figure in term.observed.items()})
        assert (said is not None) == flat


# One teacher per step


def drawn(term: SoftLabelsTerm, moment: Moment) -> str:
    term.begin(moment)
    (name,) = term.needs().keys() - {STUDENT}
    return name


def test_the_same_moment_draws_the_same_teacher() -> None:
    moments = [Moment(step, 100, seed=3, stage=1) for step in range(100)]
    first, second = ([drawn(drawing(), moment) for moment in order] for order in (moments, moments[::-1]))
    assert first == second[::-1]


@pytest.mark.parametrize("changed", [{"seed": 4}, {"stage": 2}])
def test_seed_and_stage_change_what_is_drawn(changed: dict[str, int]) -> None:
    moments = [Moment(step, 100, seed=3, stage=1) for step in range(100)]
    term = drawing()
    assert [drawn(term, moment) for moment in moments] != [drawn(term, replace(moment, **changed)) for moment in moments]


@pytest.mark.parametrize("chances", [CHANCES, {"bert": 3.0, "roberta": 0.0, "deberta": 1.0}])
def test_teachers_are_drawn_as_often_as_their_chances_say(chances: dict[str, float]) -> None:
    term, steps = SoftLabelsTerm(THREE, chances=chances), 3000
    found = [drawn(term, Moment(step, steps, seed=9)) for step in range(steps)]
    for name in THREE:
        chance = chances[name] / sum(chances.values())
        assert found.count(name) / steps == pytest.approx(chance, abs=4 * (chance * (1 - chance) / steps) ** 0.5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_drawn_teacher_says_what_it_says_alone(reduction: str) -> None:
    term, cut = SoftLabelsTerm(THREE, chances=CHANCES, teacher_reduction=reduction), RandomSamples().cut()  # type: ignore[arg-type]
    for step in range(10):
        name = drawn(term, Moment(step, 10))
        found = parts(term, cut)
        assert found[THREE.index(name)] == value(SoftLabelsTerm([name]), cut)
        assert found.count_nonzero() == 1


# Logits


def test_the_factor_of_the_teacher_s_logits_rises_over_the_stage() -> None:
    samples, term = RandomSamples(), LogitsMseTerm(["bert"], changing(0, 1))
    term.begin(Moment(0, 11))
    assert value(term, samples.cut()).item() == pytest.approx((samples.logits[STUDENT] ** 2).mean(), rel=1e-5)
    term.begin(Moment(10, 11))
    expected = ((samples.logits[STUDENT] - samples.logits["bert"]) ** 2).mean()
    assert value(term, samples.cut()).item() == pytest.approx(expected, rel=1e-5)


NEEDED: list[tuple[Callable[[], Term], tuple[str, ...]]] = [
    (lambda: SoftLabelsTerm(TEACHERS), TEACHERS),
    (lambda: SoftLabelsTerm(["roberta"]), ("roberta",)),
    (lambda: LogitsMseTerm(THREE), THREE),
]


@pytest.mark.parametrize(("make", "teachers"), NEEDED)
def test_the_teachers_are_asked_for_their_logits_alone(make: Callable[[], Term], teachers: tuple[str, ...]) -> None:
    assert make().needs() == dict.fromkeys((STUDENT, *teachers), Wanted())
