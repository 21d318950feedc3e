"""Numbers as targets, end to end on tiny models: teachers, student, evaluation, report, export, script, pipeline."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import pipeline

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Events
from kdcli.errors import RequestError
from kdcli.evaluation.gates import Gate
from kdcli.jobs.distill import distill
from kdcli.jobs.evaluate import EvaluateRequest, evaluate
from kdcli.jobs.export import ExportRequest, export
from kdcli.jobs.run_folder import RunFolder
from kdcli.plan.request import TrainRequest
from tests.jobs.conftest import QUICK


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny task's texts; the number grows with the class and a little with the length of the text."""
    folder = tmp_path_factory.mktemp("numbers")
    for split in ("train", "dev", "test"):
        rows = [json.loads(line) for line in (tiny_data / f"{split}.jsonl").read_text().splitlines()]
        with (folder / f"{split}.csv").open("w", newline="") as file:
            write = csv.writer(file)
            write.writerow(["text", "label"])
            write.writerows([row["text"], f"{(row['label'] == 'positive') + len(row['text']) / 500:.3f}"] for row in rows)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tiny_bert: Path, tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    request = TrainRequest(
        command="distill",
        teachers=f"bert={tiny_bert},roberta={tiny_roberta}",
        student="2L",
        data=DataRequest(data=str(data)),
        overrides=QUICK,
        device="cpu",
        baseline=True,
    )
    made, _ = distill(request, Events(), tmp_path_factory.mktemp("runs") / "numbers", report=True)
    return made


def test_teachers_and_student_learn_the_numbers(run: RunFolder) -> None:
    found = json.loads(run.evaluation.read_text())
    assert (found["metric"], found["labels"]) == ("pearson", [])
    scores = {model["name"]: model["scores"] for model in found["models"]}
    assert scores["bert"]["pearson"] > 0.8
    assert scores["student"]["pearson"] > 0.8
    assert scores["mean"]["pearson"] == 0.0
    assert 0 < scores["student"]["mse"] < scores["mean"]["mse"]
    assert all(model["calibration"] is None and model["confusion"] == [] for model in found["models"])
    assert (run.path / "report.html").is_file()


def test_scores_are_those_of_the_pipeline(run: RunFolder, data: Path) -> None:
    with (data / "test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    said = pipeline("text-classification", str(run.student), device="cpu")([row["text"] for row in rows])
    gold = [float(row["label"]) for row in rows]
    expected = np.corrcoef([each["score"] for each in said], gold)[0, 1]
    gates = [Gate.parse("min-score", "0.5"), Gate.parse("min-retention", "0.5")]
    ours = evaluate(EvaluateRequest(targets=(str(run.path),), device="cpu", report=False, gates=tuple(gates)), Events())
    assert ours.evaluation.model("student").scores["pearson"] == pytest.approx(expected, abs=1e-5)
    assert all(gate.passed for gate in ours.evaluation.gates)


def test_the_trained_student_teaches_and_is_scored_as_a_checkpoint(run: RunFolder, data: Path) -> None:
    request = EvaluateRequest(
        targets=(str(run.student),), data=DataRequest(data=str(data / "test.csv")), device="cpu", report=False
    )
    (model,) = evaluate(request, Events()).evaluation.of("model")
    assert model.scores["pearson"] > 0.8


def test_a_classifier_is_refused_as_a_teacher_of_numbers(tiny_run: tuple[Path, object], data: Path, tmp_path: Path) -> None:
    request = TrainRequest(
        command="distill", teachers=f"t={tiny_run[0] / 'student'}", student="1L", data=DataRequest(data=str(data)), device="cpu"
    )
    with pytest.raises(RequestError, match="another kind of task"):
        distill(request, Events(), tmp_path / "run")


def test_the_exported_script_gives_the_numbers(run: RunFolder, data: Path) -> None:
    done = export(ExportRequest(run.path, precisions=("fp32",), benchmark="off"), Events())
    assert [variant.broken for variant in done.variants] == [None]
    with (data / "test.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:5]
    said = pipeline("text-classification", str(run.student), device="cpu")(texts)
    printed = subprocess.run(
        [sys.executable, str(done.folder / "predict.py"), *texts], capture_output=True, text=True, check=True
    ).stdout
    numbers = [float(line.split("\t")[0]) for line in printed.splitlines()]
    assert numbers == pytest.approx([each["score"] for each in said], abs=2e-4)
