"""The tiny task with its teachers, and a shelf of configurations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from kdcli.data.task import Task
from kdcli.data.task_loading import DataRequest, load_task
from kdcli.models.weight_loading import quiet_transformers
from tests.plan.desk import Desk, Shelf


@pytest.fixture(scope="session")
def task(tiny_data: Path) -> Task:
    return load_task(DataRequest(data=str(tiny_data)))


@pytest.fixture
def desk(tmp_path: Path, task: Task, tiny_bert: Path, tiny_roberta: Path) -> Desk:
    return Desk(tmp_path, task, tiny_bert, tiny_roberta)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    quiet_transformers()
    return Shelf(tmp_path_factory.mktemp("configurations"))


@pytest.fixture(scope="session")
def classifier(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with a head of its own, its classes in the other order."""
    from transformers import AutoModelForSequenceClassification

    quiet_transformers()
    folder = tmp_path_factory.mktemp("classifier") / "bert"
    shutil.copytree(tiny_bert, folder)
    names = {0: "POSITIVE", 1: "NEGATIVE"}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, id2label=names, label2id={name: row for row, name in names.items()}
    )
    model.save_pretrained(folder)
    return folder
