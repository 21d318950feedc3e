"""Evaluate: runs, checkpoints and other data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kdcli.data.sources import DataRequest
from kdcli.engine.events import Event, Events
from kdcli.errors import RequestError
from kdcli.jobs.evaluate import EvaluateRequest, evaluate

TinyRun = tuple[Path, list[Event]]


def test_dev_scores_are_those_of_the_run(tiny_run: TinyRun) -> None:
    at_the_end = json.loads((tiny_run[0] / "evaluation.json").read_text())
    again = evaluate(EvaluateRequest(target=tiny_run[0], split="dev", device="cpu"), Events())
    assert again.model_dump() == at_the_end


def test_student_and_all_teachers_are_scored_on_the_same_rows(tiny_run: TinyRun) -> None:
    found = evaluate(EvaluateRequest(target=tiny_run[0], device="cpu"), Events())
    assert (found.split, found.rows) == ("test", 40)
    assert [model.role for model in found.models] == ["student", "without-teachers", "teacher", "teacher", "majority"]
    best = found.best_teacher
    assert best is not None
    assert found.student.retention == found.student.scores["accuracy"] / best.scores["accuracy"]
    assert (tiny_run[0] / "evaluation-test.json").is_file()


def test_checkpoint_is_scored_on_given_data(tiny_run: TinyRun, tiny_data: Path) -> None:
    request = EvaluateRequest(target=tiny_run[0] / "student", data=DataRequest(data=str(tiny_data)), device="cpu")
    found = evaluate(request, Events())
    assert found.student.scores == evaluate(EvaluateRequest(target=tiny_run[0], device="cpu"), Events()).student.scores


def test_run_is_scored_on_another_test_file(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    lines = (tiny_data / "test.jsonl").read_text().splitlines()[:10]
    (tmp_path / "other.jsonl").write_text("\n".join(lines) + "\n")
    request = EvaluateRequest(target=tiny_run[0], data=DataRequest(test=str(tmp_path / "other.jsonl")), device="cpu")
    assert evaluate(request, Events()).rows == 10


def test_checkpoint_with_other_classes_is_refused_with_both_lists(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a,cat\nb,dog\n" * 20)
    with pytest.raises(RequestError, match=r"cat, dog(.|\n)*negative, positive"):
        evaluate(EvaluateRequest(target=tiny_run[0] / "student", data=DataRequest(data=str(tmp_path))), Events())


def test_checkpoint_without_data_is_refused(tiny_run: TinyRun) -> None:
    with pytest.raises(RequestError, match="--task or --data"):
        evaluate(EvaluateRequest(target=tiny_run[0] / "student"), Events())


def test_run_without_a_student_says_how_to_finish_it(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copy(tiny_run[0] / "plan.yaml", tmp_path)
    with pytest.raises(RequestError, match="--resume"):
        evaluate(EvaluateRequest(target=tmp_path), Events())
