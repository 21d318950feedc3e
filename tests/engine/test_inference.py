"""Asking a model about a whole split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kdcli.data.batching import Batch
from kdcli.engine.inference import predict
from kdcli.models.output import Output
from kdcli.models.student import STUDENT, StudentLearner
from tests.engine.phases import DEV_ROWS, Material, dev_samples, ensemble, student, train_samples

CPU = torch.device("cpu")


@pytest.fixture
def learner(material: Material) -> StudentLearner:
    return student(material, 0).eval()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_rows_come_in_sample_order_and_equal_asking_one_by_one(
    batch_size: int, material: Material, learner: StudentLearner
) -> None:
    samples = dev_samples(material)
    logits = predict(learner, samples, batch_size, CPU)[STUDENT]
    assert logits.shape == (DEV_ROWS, 2)
    with torch.no_grad():
        alone = [learner(samples.batch([row]))[STUDENT].logits[0].numpy() for row in range(DEV_ROWS)]
    np.testing.assert_allclose(logits, alone, atol=1e-5)
    assert len(np.unique(logits[:, 0])) > DEV_ROWS // 2


def test_every_model_that_answers_is_in_the_result(material: Material) -> None:
    samples, asked = train_samples(material), ensemble(material)
    found = predict(asked, samples, 16, CPU)
    assert sorted(found) == ["bert", "roberta"]
    for name, logits in found.items():
        alone = asked.teachers[name](samples.batch([5]).views[name]).logits[0].numpy()
        np.testing.assert_allclose(logits[5], alone, atol=1e-5)


def test_every_sample_is_asked_for_exactly_once(material: Material) -> None:
    asked: list[int] = []

    def model(batch: Batch) -> dict[str, Output]:
        asked.extend(batch.rows.tolist())
        return {"rows": Output(batch.rows[:, None].to(torch.bfloat16))}

    found = predict(model, dev_samples(material), 6, CPU)["rows"]
    assert sorted(asked) == list(range(DEV_ROWS))
    assert found[:, 0].tolist() == list(range(DEV_ROWS))
    assert found.dtype == np.float32


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_of_several_processes_make_the_whole(processes: int, material: Material, learner: StudentLearner) -> None:
    samples = dev_samples(material)
    shares: list[list[Any]] = []

    def collect(share: list[Any]) -> list[Any]:
        shares.append(share)
        return [row for one in shares for row in one]

    for rank in range(processes):
        found = predict(learner, samples, 6, CPU, rank=rank, processes=processes, gather=collect)
    assert all(shares)
    assert sum(len(rows) for share in shares for rows, _ in share) == DEV_ROWS
    np.testing.assert_array_equal(found[STUDENT], predict(learner, samples, 6, CPU)[STUDENT])


def test_no_gradient_is_kept(material: Material, learner: StudentLearner) -> None:
    modes: list[bool] = []

    def model(batch: Batch) -> dict[str, Output]:
        answers: dict[str, Output] = learner(batch)
        modes.append(answers[STUDENT].logits.requires_grad)
        return answers

    predict(model, dev_samples(material), 10, CPU)
    assert modes == [False, False]
