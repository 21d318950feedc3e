"""The commands as functions: the same results as the jobs, typed, without a subprocess."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdcli import api
from kdcli.engine.events import Event, StepDone
from kdcli.errors import RequestError

SETTINGS = {
    "training.learning_rate": 3e-3,
    "training.batch_size": 16,
    "training.precision": "fp32",
    "teachers.cofinetune.learning_rate": 3e-3,
    "teachers.cofinetune.epochs": 5,  # other teachers than those of other tests, which find what is kept of theirs
    "stages.0.epochs": 4,
}


@pytest.fixture(scope="module")
def made(
    tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[api.Trained, list[Event]]:
    told: list[Event] = []
    found = api.distill(
        {"bert": tiny_bert, "roberta": tiny_roberta},
        "2L",
        settings=SETTINGS,
        device="cpu",
        gates={"min-score": 0.5},
        report=False,
        out=tmp_path_factory.mktemp("runs") / "made",
        listener=told.append,
        data=tiny_data,
    )
    return found, told


def test_a_student_is_made_with_its_plan_its_scores_and_its_events(made: tuple[api.Trained, list[Event]]) -> None:
    found, told = made
    assert found.evaluation.model("student").scores["accuracy"] > 0.9
    assert [gate.passed for gate in found.evaluation.gates] == [True]
    assert found.plan.recipe.stages[0].epochs == 4
    assert (found.student / "model.safetensors").is_file()
    assert (found.teachers / "bert" / "model.safetensors").is_file()
    assert sum(isinstance(event, StepDone) for event in told) == sum(stage.steps for stage in found.plan.stages)


def test_evaluate_and_export_take_what_distill_has_made(made: tuple[api.Trained, list[Event]], tiny_data: Path) -> None:
    found, _ = made
    again = api.evaluate(found.folder, split="dev", device="cpu")
    assert again.model("student").scores == found.evaluation.model("student").scores
    alone = api.evaluate(found.student, device="cpu", data=tiny_data / "test.jsonl")
    assert alone.of("model")[0].scores["accuracy"] > 0.9
    files = api.export(found.folder, precisions=["fp32"])
    assert [variant.precision for variant in files.kept] == ["fp32"]


def test_teachers_alone_are_trained_and_can_be_named_by_a_list(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    teachers = tmp_path / "mine"
    teachers.symlink_to(tiny_bert)
    made = api.cofinetune([teachers], settings=SETTINGS, device="cpu", out=tmp_path / "run", data=tiny_data, train_rows=60)
    assert made.evaluation.of("teacher")[0].name == "mine"


def test_what_is_wrong_is_raised_and_nothing_is_printed(capsys: pytest.CaptureFixture[str], tiny_data: Path) -> None:
    with pytest.raises(RequestError, match="no-such-model"):
        api.distill("no-such-model", "2L", data=tiny_data)
    with pytest.raises(RequestError, match=r"settings\['stages.0.epoch'\]|epoch"):
        api.distill({"bert": "./nowhere"}, "2L", settings={"stages.0.epoch": 3}, data=tiny_data)
    assert capsys.readouterr().out == ""


def test_importing_the_functions_loads_no_torch() -> None:
    program = "import json, sys; import kdcli.api; print(json.dumps(sorted({'torch', 'transformers'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
