"""The insides of a run's student beside those of its teachers, and the recipe that they suggest.

A student that was trained along a layer map resembles its teachers along that map. So what is suggested says most for runs
whose recipe compares no layers; for the others it says whether the map was followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import yaml

from kdcli.data.splits import DEV
from kdcli.data.task import Split, Task
from kdcli.engine.events import Events, WorkStarted
from kdcli.evaluation.document import LayerComparison, TeacherSimilarity
from kdcli.evaluation.layer_similarity import compare_layers
from kdcli.jobs.run_folder import RunFolder
from kdcli.jobs.teacher_training import load_teachers, trained_folder
from kdcli.jobs.tokenized_splits import samples_of, tokenizers_of
from kdcli.models.padding import is_given_each_length_by_itself
from kdcli.models.student import STUDENT, StudentLearner
from kdcli.models.weight_loading import load_classifier
from kdcli.plan.plan import DISTILL, Plan
from kdcli.plan.resolve import asks_teachers
from kdcli.recipe.layer_maps import Layers, TeacherLayers
from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.schema import Recipe

MOST_ROWS = 128
"""How many texts are looked at, at the most."""

_SEED = 0
Maps = dict[str, dict[int, int]]


def measure_layers(run: RunFolder, plan: Plan, task: Task, events: Events, device: torch.device) -> LayerComparison | None:
    """Compare the layers of a run's student with those of its teachers and assistants, on rows of dev.

    None where there is nothing to compare: the recipe asks no teachers, or the run makes no student.
    """
    if plan.student is None or not asks_teachers(DISTILL, plan.recipe):
        return None
    teachers = [teacher for teacher in load_teachers(plan, run) if not is_given_each_length_by_itself(teacher.model)]
    names = [teacher.name for teacher in teachers]
    if not teachers:
        return None
    events.emit(WorkStarted(f"comparing the insides with teacher{'s' if len(names) > 1 else ''} {', '.join(names)}"))
    folders = {STUDENT: run.student} | {name: trained_folder(plan.teacher(name), run) for name in names}
    samples = samples_of(_some_rows(task.dev), tokenizers_of(folders), plan.recipe.training.max_length, aligned=True)
    student = StudentLearner(load_classifier(run.student))
    return compare_layers(student, teachers, samples, device, _trained_along(plan), DEV)


def _some_rows(split: Split) -> Split:
    """At most :data:`MOST_ROWS` rows, always the same ones, in their order."""
    count = min(len(split), MOST_ROWS)
    return split.select(np.sort(np.random.default_rng(_SEED).choice(len(split), count, replace=False)))


def _trained_along(plan: Plan) -> Maps:
    """Teacher → all pairs of layers that the student's own training compares; what a later loss says holds."""
    maps: Maps = {}
    for stage in plan.hops[-1].stages:
        for term in stage.terms:
            for teacher, pairs in term.layers.items():
                maps.setdefault(teacher, {}).update(pairs)
    return maps


def suggested_recipe(plan: Plan, insides: LayerComparison, run: str = "") -> str:
    """The run's recipe with the layer maps of highest CKA, as the text of a recipe file.

    A loss's own layers give way to them, those of the embeddings (layer 0) excepted; ``top``, where it is a loss's default,
    stays. Recipes with assistants keep their layers: none of their trainings but the last one has this student.

    A student that was trained along a map resembles its teachers along that map, so this says most for runs whose recipe
    compares no layers; such a recipe still needs a loss that does.

    Args:
        plan: of the run.
        insides: of the run's student.
        run: where the run is; stands in the comment at the top.
    """
    recipe = plan.recipe
    data = recipe.model_dump(exclude_defaults=True, by_alias=True)
    data["name"] = f"{recipe.name}-suggested"
    suggested = {} if recipe.assistants else {entry.teacher: entry.suggested for entry in insides.teachers}
    if suggested:
        given = [teacher.name for teacher in plan.given_teachers]
        data["layers"] = {name: _changed(recipe.layers, name, suggested) for name in given}
        for stage, written in zip(recipe.stages, data["stages"], strict=True):
            for loss, term in zip(stage.objective, written["objective"], strict=True):
                if isinstance(loss, LayerLoss) and loss.layers is not None and "layers" in term:
                    own = {name: _changed(loss.layers, name, suggested) for name in given}
                    _replace_layers(term, loss, own, data["layers"])
    ordered = {key: data[key] for key in Recipe.model_fields if key in data}
    text = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return "".join(f"# {' '.join(line.split())}\n" for line in _explanation(plan, insides, run)) + text


def _replace_layers(term: dict[str, Any], loss: LayerLoss, own: dict[str, Any], common: dict[str, Any]) -> None:
    """Let a loss go by the recipe's layers, or by its own where it compares embeddings too."""
    assert loss.layers is not None
    specs = list(loss.layers.values()) if isinstance(loss.layers, dict) else [loss.layers]
    if all(spec == "embeddings" or (isinstance(spec, dict) and set(spec) == {0}) for spec in specs):
        return
    if own != common:
        term["layers"] = own
    elif type(loss).model_fields["layers"].default is None:
        del term["layers"]
    else:
        term["layers"] = None


def _changed(layers: Layers, teacher: str, suggested: Mapping[str, dict[int, int]]) -> TeacherLayers:
    """What a recipe says of a teacher's layers, with the suggested map in place of all but the embeddings."""
    spec: TeacherLayers = layers.get(teacher, "uniform") if isinstance(layers, dict) else layers
    if teacher not in suggested:
        return spec
    pairs = {0: 0} if spec == "embeddings" else spec if isinstance(spec, dict) else {}
    return {ours: theirs for ours, theirs in pairs.items() if ours == 0} | suggested[teacher]


def _explanation(plan: Plan, insides: LayerComparison, run: str) -> list[str]:
    """The comment at the top."""
    student = plan.student_or_fail
    lines = [
        f"The layer maps of highest CKA, from {f'the run {run}' if run else 'a run'}: recipe {plan.recipe.name}, "
        f"{plan.task.name}, student {student.reference}, seed {plan.request['seed']};",
        f"{insides.rows} rows of {insides.split}, {insides.tokens} tokens.",
    ]
    lines += [_line(entry) for entry in insides.teachers]
    if plan.recipe.assistants:
        lines.append("The recipe has assistants, whose layers cannot be named in it, so its layers are as they were.")
    elif not any(term.layers for stage in plan.hops[-1].stages for term in stage.terms):
        lines.append("No loss of the recipe compares layers, so add one that does, such as {loss: hidden-mse}.")
    return lines


def _line(entry: TeacherSimilarity) -> str:
    before = "not compared so far" if entry.map_cka is None else f"so far {entry.map} with CKA {entry.map_cka:.3f}"
    return f"{entry.teacher}: {entry.suggested} with CKA {entry.suggested_cka:.3f}; {before}"
