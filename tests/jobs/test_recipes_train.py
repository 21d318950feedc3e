"""Every shipped recipe trains a student on tiny real models, from two teachers whose tokenizers, depths and widths differ."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Evaluated, Event, Events, Logged, PhaseDone
from kdcli.jobs.cofinetune import cofinetune
from kdcli.jobs.distill import distill
from kdcli.models.weight_loading import load_classifier
from kdcli.plan.request import TrainRequest
from kdcli.recipe.catalogue import shipped
from kdcli.recipe.yaml_document import Override

RATES = ("training.learning_rate=3e-3", "training.batch_size=16", "training.precision=fp32")
WITHOUT_TEACHERS = {"finetune"}
SAME_HEADS = {"minilm": ("stages.0.objective.0.heads=mean", "stages.0.objective.1.relation_heads=8")}


@pytest.fixture(scope="module")
def teachers(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tiny teachers, co-finetuned on the tiny task."""
    settings = (*RATES, "teachers.cofinetune.learning_rate=3e-3", "teachers.cofinetune.epochs=4")
    request = TrainRequest(
        command="cofinetune",
        teachers=f"bert={tiny_bert},roberta={tiny_roberta}",
        data=DataRequest(data=str(tiny_data)),
        overrides=tuple(Override.parse(text) for text in settings),
        device="cpu",
    )
    run, _ = cofinetune(request, Events(), tmp_path_factory.mktemp("runs") / "teachers")
    return run.path


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipe_trains_a_student(name: str, teachers: Path, tiny_data: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    settings = (*RATES, "stages.*.epochs=0.5", *SAME_HEADS.get(name, ()))
    request = TrainRequest(
        command="distill",
        teachers=str(teachers),
        student=None if name == "born-again" else "2L",
        recipe=name,
        data=DataRequest(data=str(tiny_data)),
        overrides=tuple(Override.parse(text) for text in settings),
        device="cpu",
        allow_weak_teachers=True,
    )

    run, evaluation = distill(request, Events([told.append]), tmp_path / "run")

    plan = run.read_plan()
    values = [event.values for event in told if isinstance(event, Logged)]
    assert all(math.isfinite(value) for logged in values for value in logged.values())
    for stage in plan.stages:
        logged = [
            event for event in told if isinstance(event, Logged) and (event.phase, event.stage) == (stage.phase, stage.name)
        ]
        assert {f"loss/{term.loss.label}" for term in stage.terms} <= logged[-1].values.keys()
        assert any(isinstance(event, Evaluated) and event.stage == stage.name for event in told)
    assert [event.phase for event in told if isinstance(event, PhaseDone)] == [hop.name for hop in plan.hops]
    load_classifier(run.student)
    assert (
        evaluation.model("student").scores["accuracy"]
        == json.loads(run.evaluation.read_text())["models"][0]["scores"]["accuracy"]
    )
    asked = {model.name for model in evaluation.models if model.role == "teacher"}
    assert asked == (set() if name in WITHOUT_TEACHERS else {teacher.name for teacher in plan.teachers})


def test_an_encoder_with_a_rate_of_its_own_is_trained_at_it(
    tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """With hardly any rate one encoder stays as it is while the other learns beside it."""
    request = TrainRequest(
        command="cofinetune",
        teachers=f"bert={tiny_bert},roberta={tiny_roberta}",
        data=DataRequest(data=str(tiny_data), train_rows=60),
        overrides=tuple(
            Override.parse(f"teachers.cofinetune.{text}")
            for text in ("learning_rate=3e-3", "epochs=1", "learning_rates.roberta=1e-9")
        ),
        device="cpu",
    )
    run, _ = cofinetune(request, Events(), tmp_path / "teachers")
    moved = {}
    for name, began in (("bert", tiny_bert), ("roberta", tiny_roberta)):
        before, after = load_file(began / "model.safetensors"), load_file(run.path / "teachers" / name / "model.safetensors")
        shared = [key for key in after if key in before and after[key].ndim > 1]
        assert shared
        moved[name] = max(float((after[key] - before[key]).abs().max()) for key in shared)
    assert moved["roberta"] < 1e-6 < 1e-3 < moved["bert"]
