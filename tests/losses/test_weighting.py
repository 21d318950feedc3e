"""How much a teacher counts on a sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcli.losses import weighting
from kdcli.models.student import STUDENT
from tests.losses import reference
from tests.losses.random_samples import THREE, RandomSamples

SIZES = {"bert": 110, "roberta": 125, "deberta": 44}
SHARES = torch.tensor([[[0.8, 0.1, 0.1]], [[0.2, 0.7, 0.1]], [[0.5, 0.4, 0.1]]]).log()  # [3 teachers, 1 sample, 3 classes]
LABEL = torch.tensor([0])
HOW: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "uniform": lambda logits, labels, student: weighting.uniform(logits),
    "inverse-error": lambda logits, labels, student: weighting.inverse_error(logits, labels),
    "softmax-error": lambda logits, labels, student: weighting.softmax_error(logits, labels),
    "confidence": lambda logits, labels, student: weighting.confidence(logits),
    "agreement": lambda logits, labels, student: weighting.agreement(logits),
    "uncertainty": lambda logits, labels, student: weighting.by_uncertainty(
        logits, weighting.uncertainty_of(student), [SIZES[name] for name in THREE]
    ),
}
every_way = pytest.mark.parametrize("how", HOW)
sums_to_the_number_of_teachers = pytest.mark.parametrize("how", ["uniform", "softmax-error", "uncertainty"])


def answers(samples: RandomSamples) -> tuple[Tensor, Tensor, Tensor]:
    """Teachers' logits, labels, student's logits."""
    teachers = torch.tensor(np.stack([samples.logits[name] for name in THREE]), dtype=torch.float32)
    return teachers, torch.from_numpy(samples.labels), torch.tensor(samples.logits[STUDENT], dtype=torch.float32)


@every_way
def test_weights_equal_numpy(how: str) -> None:
    samples = RandomSamples(30, seed=1)
    expected = reference.teacher_weights(samples, THREE, how, SIZES)
    found = HOW[how](*answers(samples))
    assert found.shape == (3, 30)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)


@every_way
def test_normalised_weights_have_the_mean_one_over_the_teachers(how: str) -> None:
    samples = RandomSamples(30, seed=2)
    found = weighting.normalised(HOW[how](*answers(samples)))
    torch.testing.assert_close(found.mean(0), torch.ones(30))
    expected = reference.teacher_weights(samples, THREE, how, SIZES, normalise=True)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)


@sums_to_the_number_of_teachers
def test_some_weights_are_normalised_by_nature(how: str) -> None:
    found = HOW[how](*answers(RandomSamples(30, seed=3)))
    torch.testing.assert_close(found.mean(0), torch.ones(30))


@every_way
def test_weights_stay_finite_for_extreme_logits(how: str) -> None:
    teachers, labels, student = answers(RandomSamples(30, seed=4))
    found = HOW[how](teachers * 1e4, labels, student * 1e4)
    assert torch.isfinite(found).all()
    assert torch.isfinite(weighting.normalised(found)).all()
    assert (found >= 0).all()


@every_way
def test_half_precision_answers_are_weighed_in_fp32(how: str) -> None:
    rounded = [part.bfloat16() if part.is_floating_point() else part for part in answers(RandomSamples(5, seed=5))]
    whole = [part.float() if part.is_floating_point() else part for part in rounded]
    found = HOW[how](*rounded)
    assert found.dtype == torch.float32
    assert torch.equal(found, HOW[how](*whole))


def test_an_ensemble_that_is_certain_and_wrong_still_has_some_correctness() -> None:
    certain = torch.tensor([[[1e4, -1e4, 0.0]]])
    found = torch.cat([weighting.ensemble_correctness(certain, torch.tensor([label])) for label in range(3)])
    assert found[0] == 1.0
    assert ((found[1:] > 0) & (found[1:] < 0.1)).all()


def test_weights_worked_out_by_hand() -> None:
    assert weighting.errors(SHARES, LABEL)[:, 0].exp().tolist() == pytest.approx([1 / 0.8, 1 / 0.2, 1 / 0.5])
    assert weighting.softmax_error(SHARES, LABEL)[:, 0].tolist() == pytest.approx([1.6, 0.4, 1.0])
    assert weighting.confidence(SHARES)[:, 0].tolist() == pytest.approx([0.8, 0.7, 0.5])
    # from the mean of the others, (0.35, 0.55, 0.1), (0.65, 0.25, 0.1) and (0.5, 0.4, 0.1): 0.45, 0.45 and 0
    assert weighting.agreement(SHARES)[:, 0].tolist() == pytest.approx([0.55, 0.55, 1.0])
    assert weighting.ensemble_agreement(SHARES).tolist() == pytest.approx([0.7])
    assert weighting.ensemble_disagreement(SHARES).tolist() == pytest.approx([0.3])
    assert weighting.ensemble_correctness(SHARES, LABEL).tolist() == pytest.approx([1 / (1 + np.log(2))])
    assert weighting.fixed(SHARES, [0.5, 2.0, 1.0])[:, 0].tolist() == [0.5, 2.0, 1.0]
    assert weighting.fixed(SHARES.expand(3, 7, 3), [0.5, 2.0, 1.0]).shape == (3, 7)


def test_a_teacher_that_is_right_weighs_more_than_one_that_is_wrong_and_never_more_than_one() -> None:
    logits = torch.tensor([[60.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 60.0]])[:, None]
    weights = weighting.inverse_error(logits, torch.zeros(1, dtype=torch.int64)).flatten().tolist()
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) == 5
    assert weights[0] == 1.0
    assert weights[4] == pytest.approx(1 / 61)


def test_teachers_that_say_the_same_agree_and_one_that_stands_alone_does_not() -> None:
    same, other = torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])
    assert weighting.agreement(torch.stack([same] * 3)).flatten().tolist() == pytest.approx([1.0] * 3)
    assert weighting.agreement(torch.stack([same, same, other])).flatten().tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert weighting.agreement(torch.stack([same, other])).flatten().tolist() == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize("function", [weighting.uniform, weighting.agreement])
def test_one_teacher_agrees_with_itself(function: Callable[[Tensor], Tensor]) -> None:
    assert torch.equal(function(torch.randn(1, 4, 3)), torch.ones(1, 4))


def test_samples_on_which_the_teachers_disagree_weigh_more_by_disagreement() -> None:
    yes, no, unsure = [3.0, 0.0], [0.0, 3.0], [0.5, 0.0]
    weights = weighting.ensemble_disagreement(torch.tensor([[yes, yes, yes], [yes, unsure, no]])).tolist()
    assert weights[0] == pytest.approx(0.0, abs=1e-6)
    assert weights == sorted(weights)
    assert weights[2] > 0.9


def test_a_single_teacher_teaches_texts_without_labels_with_its_whole_weight() -> None:
    assert torch.equal(weighting.ensemble_disagreement(torch.randn(1, 4, 3)), torch.ones(4))


def test_the_surer_the_student_the_larger_the_teacher() -> None:
    unsure = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    two = weighting.by_uncertainty(torch.zeros(2, 5, 3), unsure, [300, 100])
    assert two[1].tolist() == pytest.approx((2 * unsure).tolist())
    assert two[0].tolist() == pytest.approx((2 - 2 * unsure).tolist())
    three = weighting.by_uncertainty(torch.zeros(3, 5, 3), unsure, [200, 300, 100])
    assert three[2].tolist() == pytest.approx([3.0, 1.5, 0.0, 0.0, 0.0])
    assert three[0].tolist() == pytest.approx([0.0, 1.5, 3.0, 1.5, 0.0])
    assert three[1].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.5, 3.0])
    assert weighting.by_uncertainty(torch.zeros(1, 5, 3), unsure, [7]).tolist() == [[1.0] * 5]


def test_uncertainty_goes_from_zero_to_one_and_carries_no_gradient() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [3.0, 3.0, 3.0], [2.0, 1.0, 0.0]], requires_grad=True)
    found = weighting.uncertainty_of(logits)
    assert not found.requires_grad
    shares = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    assert found.tolist() == pytest.approx([0.0, 1.0, -(shares * np.log(shares)).sum() / np.log(3)])
