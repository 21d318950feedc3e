"""The insides of whole runs, and the recipes that they suggest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from kdcli.data.task_loading import DataRequest, load_task
from kdcli.engine.events import Event, Events, WorkStarted
from kdcli.evaluation.document import LayerComparison, TeacherSimilarity
from kdcli.jobs.distill import distill
from kdcli.jobs.layer_comparison import MOST_ROWS, _some_rows, measure_layers, suggested_recipe
from kdcli.jobs.request_checks import dry_plan
from kdcli.jobs.run_folder import RunFolder
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.recipe.catalogue import shipped
from kdcli.recipe.loading import loads
from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.losses.hidden_mse import HiddenMse
from kdcli.recipe.schema import Recipe
from kdcli.recipe.yaml_document import Override

TinyRun = tuple[Path, list[Event]]
CPU = torch.device("cpu")
SUGGESTED = {"bert": {1: 1, 2: 3}, "roberta": {1: 2, 2: 5}}


@pytest.fixture(scope="module")
def measured(tiny_run: TinyRun, tiny_data: Path) -> tuple[Plan, LayerComparison, list[Event]]:
    run = RunFolder(tiny_run[0])
    plan, told = run.read_plan(), list[Event]()
    found = measure_layers(run, plan, load_task(DataRequest(data=str(tiny_data))), Events([told.append]), CPU)
    assert found is not None
    return plan, found, told


def test_run_is_compared_with_all_its_teachers_on_dev(measured: tuple[Plan, LayerComparison, list[Event]]) -> None:
    _, found, told = measured
    assert (found.student, found.split, found.rows) == ("student", "dev", 60)
    assert [entry.teacher for entry in found.teachers] == ["bert", "roberta"]
    assert [entry.map for entry in found.teachers] == [{1: 2, 2: 4}, {1: 3, 2: 6}]
    assert [np.shape(entry.cka) for entry in found.teachers] == [(3, 5), (3, 7)]
    assert [event.title for event in told if isinstance(event, WorkStarted)] == [
        "comparing the insides with teachers bert, roberta"
    ]


def test_document_survives_json(measured: tuple[Plan, LayerComparison, list[Event]]) -> None:
    _, found, _ = measured
    assert LayerComparison.model_validate_json(found.model_dump_json()) == found


def test_student_trained_along_a_map_resembles_the_teacher_along_it(
    measured: tuple[Plan, LayerComparison, list[Event]],
) -> None:
    _, found, _ = measured
    top = np.array(found.teachers[1].cka)[2]
    assert top[6] > 0.5 > abs(top[0])


def test_large_dev_split_is_looked_at_in_part_and_in_order(tiny_data: Path) -> None:
    train = load_task(DataRequest(data=str(tiny_data))).train
    few = _some_rows(train)
    assert len(few) == MOST_ROWS < len(train)
    assert few.texts == _some_rows(train).texts
    rows = iter(train.texts)
    assert all(text in rows for text in few.texts)


def test_run_without_teachers_has_nothing_to_compare(request_for_tiny: TrainRequest, tiny_data: Path, tmp_path: Path) -> None:
    request = request_for_tiny.model_copy(update={"recipe": "finetune", "overrides": (), "baseline": False})
    plan = dry_plan(request, Events())
    assert measure_layers(RunFolder(tmp_path), plan, load_task(DataRequest(data=str(tiny_data))), Events(), CPU) is None


def test_assistants_are_compared_too(
    request_for_tiny: TrainRequest, tiny_run: TinyRun, tiny_data: Path, tmp_path: Path
) -> None:
    overrides = tuple(
        Override.parse(text)
        for text in (
            "assistants=[3L]", "student.init.weights=pretrained", "stages.0.epochs=1", "training.batch_size=32",
            "training.precision=fp32",
        )
    )  # fmt: skip
    request = request_for_tiny.model_copy(
        update={
            "recipe": "mt-bert",
            "teachers": str(tiny_run[0]),
            "overrides": overrides,
            "baseline": False,
            "allow_weak_teachers": True,
        }
    )
    run, _ = distill(request, Events(), tmp_path / "run")
    plan = run.read_plan()
    found = measure_layers(run, plan, load_task(DataRequest(data=str(tiny_data))), Events(), CPU)
    assert found is not None
    maps = {entry.teacher: entry.map for entry in found.teachers}
    assert maps == {"bert": {}, "roberta": {}, "assistant-1": {1: 2, 2: 3}}
    assert loads(suggested_recipe(plan, found), "suggested").recipe.layers == plan.recipe.layers


# What is suggested


def beside(maps: dict[str, dict[int, int]] | None = None) -> LayerComparison:
    """Findings that suggest :data:`SUGGESTED`."""
    entries = [
        TeacherSimilarity(
            teacher=name,
            cka=[[0.0]],
            cls_cosine=None,
            attention_kl=None,
            head_kl=None,
            map=(maps or {}).get(name, {}),
            map_cka=0.5 if maps else None,
            suggested=pairs,
            suggested_cka=0.75,
        )
        for name, pairs in SUGGESTED.items()
    ]
    return LayerComparison(student="student", split="dev", rows=60, tokens=700, teachers=entries)


def planned(request: TrainRequest, recipe: str, *settings: str) -> Plan:
    overrides = tuple(Override.parse(text) for text in settings)
    return dry_plan(request.model_copy(update={"recipe": recipe, "overrides": overrides, "baseline": False}), Events())


def suggested(plan: Plan) -> Recipe:
    return loads(suggested_recipe(plan, beside()), "suggested").recipe


def layers_of(recipe: Recipe) -> list[Any]:
    return [loss.layers for stage in recipe.stages for loss in stage.objective if isinstance(loss, LayerLoss)]


def test_suggested_recipe_of_a_run_loads_and_plans(
    measured: tuple[Plan, LayerComparison, list[Event]], request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    plan, found, _ = measured
    path = tmp_path / "suggested.yaml"
    path.write_text(suggested_recipe(plan, found, "runs/tiny"))
    again = planned(request_for_tiny, str(path))
    maps = {entry.teacher: entry.suggested for entry in found.teachers}
    assert again.recipe.layers == maps
    assert again.recipe.name == "kdcli-suggested"
    assert [term.layers for term in again.hops[-1].stages[0].terms if term.layers] == [maps]
    assert again.student_or_fail.copied_layers == list(maps["bert"].values())  # student.init.layers is matched
    assert again.recipe.model_copy(update={"name": "kdcli", "layers": "uniform"}) == plan.recipe


@pytest.mark.parametrize("name", shipped())
def test_suggestion_for_every_shipped_recipe_loads_and_plans(name: str, request_for_tiny: TrainRequest, tmp_path: Path) -> None:
    settings = ["assistants=[3L]"] if name == "teacher-assistant" else []
    plan = planned(request_for_tiny, name, *settings)
    path = tmp_path / "suggested.yaml"
    path.write_text(suggested_recipe(plan, beside()))
    again = planned(request_for_tiny, str(path))
    assert again.recipe.layers == (plan.recipe.layers if name == "teacher-assistant" else SUGGESTED)


def test_recipe_is_written_as_a_user_would(request_for_tiny: TrainRequest) -> None:
    text = suggested_recipe(
        planned(request_for_tiny, "kdcli"), beside({"bert": {1: 2, 2: 4}, "roberta": {1: 3, 2: 6}}), "runs/a"
    )
    top = [line for line in text.splitlines() if line.startswith("#")]
    assert "the run runs/a" in top[0]
    assert "60 rows of dev, 700 tokens" in top[1]
    assert top[2] == "# bert: {1: 1, 2: 3} with CKA 0.750; so far {1: 2, 2: 4} with CKA 0.500"
    assert "layers:\n  bert: {1: 1, 2: 3}\n  roberta: {1: 2, 2: 5}\n" in text
    assert "- {loss: hard-labels}\n" in text
    assert "null" not in text
    assert "accumulation" not in text


def test_recipe_that_compares_no_layers_is_told_to(request_for_tiny: TrainRequest) -> None:
    text = suggested_recipe(planned(request_for_tiny, "soft-labels"), beside())
    assert "# bert: {1: 1, 2: 3} with CKA 0.750; not compared so far" in text
    assert "add one that does" in text


def test_losses_own_maps_give_way_and_embeddings_stay(request_for_tiny: TrainRequest, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
name: mine
layers: skip
stages:
  - name: one
    objective:
      - {loss: hidden-mse, name: a, layers: embeddings}
      - {loss: hidden-mse, name: b, layers: {bert: {0: 0, 2: 4}}}
      - {loss: hidden-mse, name: c, layers: last}
      - {loss: attention-kl, layers: {bert: {1: 4}, roberta: top}}
      - {loss: relation-kl, name: d, layers: uniform, relation_heads: null}
      - {loss: relation-kl, name: e}
      - {loss: hidden-mse, name: f, projection: {side: teacher}}
"""
    )
    plan = planned(request_for_tiny, str(path))
    found = suggested(plan)
    assert found.layers == SUGGESTED
    mixed = {"bert": {0: 0, 1: 1, 2: 3}, "roberta": SUGGESTED["roberta"]}
    assert layers_of(found) == ["embeddings", mixed, None, None, None, "top", None]
    assert yaml.safe_load(suggested_recipe(plan, beside()))["stages"][0]["objective"][4]["relation_heads"] is None
    path.write_text(suggested_recipe(plan, beside()))
    planned(request_for_tiny, str(path))


def test_loss_on_attention_does_not_inherit_the_embeddings(request_for_tiny: TrainRequest, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
name: mine
layers: {bert: {0: 0, 1: 2, 2: 4}, roberta: uniform}
stages:
  - name: one
    objective:
      - {loss: hidden-mse}
      - {loss: attention-kl, layers: uniform}
"""
    )
    found = suggested(planned(request_for_tiny, str(path)))
    assert found.layers == {"bert": {0: 0, 1: 1, 2: 3}, "roberta": {1: 2, 2: 5}}
    assert layers_of(found) == [None, SUGGESTED]
    path.write_text(suggested_recipe(planned(request_for_tiny, str(path)), beside()))
    planned(request_for_tiny, str(path))


def test_teacher_that_shows_nothing_keeps_its_map(request_for_tiny: TrainRequest) -> None:
    plan = planned(request_for_tiny, "mt-bert", "layers=last")
    findings = beside()
    alone = findings.model_copy(update={"teachers": findings.teachers[:1]})
    found = loads(suggested_recipe(plan, alone), "suggested").recipe
    assert found.layers == {"bert": SUGGESTED["bert"], "roberta": "last"}
    assert any(isinstance(loss, HiddenMse) for loss in found.stages[0].objective)
