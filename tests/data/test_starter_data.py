"""The starter task: real text from what is installed, with the libraries' names masked."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from kdcli.data import starter_data
from kdcli.data.splits import DEV, TEST, TRAIN
from kdcli.data.task import Task
from kdcli.data.task_loading import DataRequest, load_task
from kdcli.errors import RunFailedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("starter")
    starter_data.write_starter_data(place)
    return place


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return load_task(DataRequest(data=str(folder)))


def test_every_library_has_its_rows_in_every_split(task: Task) -> None:
    assert set(task.kind.class_names) == set(starter_data.LIBRARIES)
    for name, count in starter_data.ROWS.items():
        labels = task.splits[name].targets
        assert labels is not None
        assert Counter(labels.tolist()) == dict.fromkeys(range(len(task.kind.class_names)), count)


def test_classes_are_mixed_in_every_split(task: Task) -> None:
    for split in task.splits.values():
        assert split.targets is not None
        assert set(split.targets[:80].tolist()) == set(range(len(task.kind.class_names)))


def test_no_text_stands_twice(task: Task) -> None:
    texts = [text for name in (TRAIN, DEV, TEST) for text in task.splits[name].texts]
    assert len(set(texts)) == len(texts)


def test_texts_are_one_plain_line_of_a_sensible_length(task: Task) -> None:
    for text in task.train.texts:
        assert 40 <= len(text) <= 160
        assert text.isascii()
        assert text.isprintable()
        assert "  " not in text


def test_names_of_the_libraries_are_masked(task: Task) -> None:
    names = [name for library, others in starter_data.LIBRARIES.items() for name in (library, *others)]
    telling = re.compile(r"\b(" + "|".join(map(re.escape, names)) + ")", re.IGNORECASE)
    assert [text for split in task.splits.values() for text in split.texts if telling.search(text)] == []


def test_the_same_rows_come_out_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter_data, "ROWS", {TRAIN: 8, DEV: 2, TEST: 2})
    for name in ("once", "again"):
        starter_data.write_starter_data(tmp_path / name)
    for split in (TRAIN, DEV, TEST):
        once = (tmp_path / "once" / f"{split}.jsonl").read_bytes()
        assert once == (tmp_path / "again" / f"{split}.jsonl").read_bytes()
        assert {tuple(json.loads(line)) for line in once.splitlines()} == {("text", "label")}


def test_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter_data, "LIBRARIES", {"no_such_library": ()})
    with pytest.raises(RunFailedError, match="needs the package no_such_library"):
        starter_data.write_starter_data(tmp_path)


def test_library_with_too_few_docstrings_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter_data, "LIBRARIES", {"typer": ()})
    monkeypatch.setattr(starter_data, "ROWS", {TRAIN: 100_000})
    with pytest.raises(RunFailedError, match="needs 100000 docstrings of typer, and found"):
        starter_data.write_starter_data(tmp_path)


def test_sample_texts_are_always_the_same() -> None:
    texts = starter_data.sample_texts(20)
    assert len(texts) == 20
    assert texts == starter_data.sample_texts(20)
    assert texts[:5] == starter_data.sample_texts(5)
