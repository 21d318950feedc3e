"""One tiny run of the whole job, made once and looked at by many tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Event, Events
from kdcli.jobs.distill import distill
from kdcli.plan.request import TrainRequest
from kdcli.recipe.yaml_document import Override

QUICK = tuple(
    Override.parse(text)
    for text in (
        "training.learning_rate=3e-3",
        "training.batch_size=16",
        "training.precision=fp32",
        "teachers.cofinetune.learning_rate=3e-3",
        "teachers.cofinetune.epochs=4",
        "stages.0.epochs=4",
        "student.init.weights=finetuned",
    )
)


def tiny_request(bert: Path, roberta: Path, data: Path) -> TrainRequest:
    """Two tiny teachers, a student of two layers, settings that learn the tiny task in seconds."""
    return TrainRequest(
        command="distill",
        teachers=f"bert={bert},roberta={roberta}",
        student="2L",
        data=DataRequest(data=str(data)),
        overrides=QUICK,
        device="cpu",
        baseline=True,
    )


@pytest.fixture(scope="session")
def request_for_tiny(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> TrainRequest:
    return tiny_request(tiny_bert, tiny_roberta, tiny_data)


@pytest.fixture(scope="session")
def tiny_run(request_for_tiny: TrainRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The folder of a finished run, and everything that was told while it was made."""
    told: list[Event] = []
    run, _ = distill(request_for_tiny, Events([told.append]), tmp_path_factory.mktemp("runs") / "tiny")
    return run.path, told
