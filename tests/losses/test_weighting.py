"""How much a teacher counts on a sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdcli.errors import RequestError
from kdcli.losses.weighting import inverse_error, uniform


def test_inverse_error_equals_one_over_one_plus_cross_entropy() -> None:
    generator = np.random.default_rng(4)
    logits, labels = generator.normal(size=(20, 5)) * 3, generator.integers(5, size=20)
    expected = [1 / (1 + np.log(np.exp(row).sum()) - row[label]) for row, label in zip(logits, labels, strict=True)]
    found = inverse_error(torch.tensor(logits, dtype=torch.float32), torch.from_numpy(labels))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_a_teacher_that_is_right_weighs_more_than_one_that_is_wrong_and_never_more_than_one() -> None:
    logits = torch.tensor([[60.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 60.0]])
    weights = inverse_error(logits, torch.zeros(5, dtype=torch.int64))
    assert weights.tolist() == sorted(weights.tolist(), reverse=True)
    assert len(set(weights.tolist())) == 5
    assert weights[0].item() == 1.0
    assert weights[4].item() == pytest.approx(1 / 61)


def test_inverse_error_without_labels_is_refused_with_a_remedy() -> None:
    with pytest.raises(RequestError, match="uniform"):
        inverse_error(torch.zeros(2, 3), None)


def test_uniform_is_one_per_sample_and_asks_for_no_labels() -> None:
    assert uniform(torch.randn(4, 3), None).tolist() == [1.0] * 4
