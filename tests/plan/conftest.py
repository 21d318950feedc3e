"""The tiny task with its teachers, and a shelf of configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdcli.data.sources import DataRequest, load_task
from kdcli.data.task import Task
from kdcli.models.loading import quiet_transformers
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
