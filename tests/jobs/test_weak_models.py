"""Teachers and assistants that nobody can learn from: at chance, or with outputs that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdcli.data.task import Split, Task
from kdcli.engine.events import Event, Events, Note
from kdcli.errors import GateError, RequestError
from kdcli.jobs.teacher_training import refuse_outputs_not_finite, refuse_weak_teachers
from kdcli.plan.hardware import teachers_dtype
from kdcli.tasks.classification import Classification

LABELS = np.array([0, 1] * 40)
GOOD = np.eye(2, dtype=np.float32)[LABELS]
POOR = np.eye(2, dtype=np.float32)[np.zeros_like(LABELS)]


def task() -> Task:
    rows = Split([f"text {row}" for row in range(len(LABELS))], None, LABELS, "dev.csv", "0")
    return Task("reviews", Classification(("bad", "good"), ("bad", "good")), "accuracy", {"train": rows, "dev": rows})


@pytest.mark.parametrize(("assistants", "words"), [(False, "--teacher-epochs"), (True, "a larger assistant")])
def test_who_is_at_chance_teaches_nobody(assistants: bool, words: str) -> None:
    said = {"good": GOOD, "poor": POOR}
    with pytest.raises(GateError) as refused:
        refuse_weak_teachers(said, task(), False, Events(), assistants)
    assert f"{'assistant' if assistants else 'teacher'} poor is at chance on dev" in str(refused.value)
    assert words in str(refused.value)
    assert "good is at chance" not in str(refused.value)
    told: list[Event] = []
    refuse_weak_teachers(said, task(), True, Events([told.append]), assistants)
    assert [event.warning for event in told if isinstance(event, Note)] == [True]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_refused_whatever_is_allowed(value: float) -> None:
    broken = GOOD.copy()
    broken[7, 1] = value
    with pytest.raises(RequestError, match=r"not finite for 1 of 80 samples(.|\n)*row 8 of dev\.csv"):
        refuse_outputs_not_finite("teacher bert", broken, "dev.csv")
    refuse_outputs_not_finite("teacher bert", GOOD, "dev.csv")


def test_frozen_teachers_compute_in_what_the_plan_says() -> None:
    assert teachers_dtype("fp32") == torch.float32
    assert teachers_dtype("bf16") == torch.bfloat16
    assert teachers_dtype("fp16") == torch.float16
