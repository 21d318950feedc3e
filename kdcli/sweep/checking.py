"""Before anything is trained: every key and value of a sweep is held against the recipe's schema and against the models."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kdcli.atomic_files import temporary_folder
from kdcli.data.splits import TEST
from kdcli.engine.events import Events
from kdcli.errors import Problems, RequestError
from kdcli.jobs.request_checks import check_cheaply, prepare
from kdcli.jobs.run_folder import RunFolder
from kdcli.models.checkpoints import Reference
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers, make_plan
from kdcli.plan.settings import load_recipe, on_this_machine
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.schema import Recipe
from kdcli.recipe.yaml_document import expanded, put
from kdcli.sweep.space import Parameter, overrides
from kdcli.sweep.sweep_file import LoadedSweep

_SIZE = ("student", "size")


@dataclass(frozen=True)
class Checked:
    """A sweep that can be carried out.

    Attributes:
        plan: of the first trial.
        identity: 16 hex digits of all that decides about its results; the same on every machine.
        once: the teachers are co-finetuned once, for all trials.
    """

    plan: Plan
    identity: str
    once: bool


def check(request: TrainRequest, loaded: LoadedSweep, first: Mapping[str, Any], events: Events) -> Checked:
    """Hold all ends of ranges and all choices against the recipe, the models and the data.

    Args:
        request: with the starter task's defaults in it.
        loaded: the sweep.
        first: the values of the first trial.
        events: who is told.

    Raises:
        RequestError: with everything that is wrong, each with file and line of the sweep.
    """
    recipe = load_recipe(request)
    _refuse_values(request, recipe, loaded)
    with temporary_folder() as folder:
        prepared = prepare(check_cheaply(_with_places(request, loaded, first)), RunFolder(folder), events)
        references = [Reference(one.name, one.reference, "--teachers") for one in prepared.plan.given_teachers]
        problems = Problems()
        for values in _corners(loaded):
            trial = _with_places(request, loaded, values)
            try:
                make_plan(
                    on_this_machine(trial, load_recipe(trial)),
                    prepared.task,
                    references,
                    starter=request.data.is_starter,
                    sized=False,
                )
            except RequestError as error:
                problems.extend(error)
        problems.raise_if_any()
    return Checked(prepared.plan, _identity(request, recipe.recipe, loaded, prepared.plan), trained_once(prepared.plan, loaded))


def with_values(request: TrainRequest, loaded: LoadedSweep, values: Mapping[str, Any]) -> TrainRequest:
    """The request of a trial."""
    return request.model_copy(update={"overrides": (*request.overrides, *overrides(loaded.parameters, values))})


def trained_once(plan: Plan, loaded: LoadedSweep) -> bool:
    """Whether the teachers have to be co-finetuned, and no trial changes anything about that."""
    here = asks_teachers("distill", plan.recipe) and bool(plan.to_cofinetune)
    return here and plan.recipe.teachers.out_of_fold is None and all(one.path[0] != "teachers" for one in loaded.parameters)


def _with_places(request: TrainRequest, loaded: LoadedSweep, values: Mapping[str, Any]) -> TrainRequest:
    """The request of a trial, whose values are named in messages by their lines in the sweep's file."""
    placed = tuple(one.override(values[one.key], one.place) for one in loaded.parameters)
    return request.model_copy(update={"overrides": (*request.overrides, *placed)})


def _refuse_values(request: TrainRequest, recipe: LoadedRecipe, loaded: LoadedSweep) -> None:
    problems = Problems()
    placed = []
    for parameter in loaded.parameters:
        if request.student is not None and parameter.path == _SIZE:
            problems.add(f"{parameter.place}  {parameter.key}", "has no effect beside --student", remedy="leave out --student")
        try:
            _put(recipe, parameter)
            placed.append(parameter)
        except RequestError as error:
            problems.extend(error)
    rest = replace(loaded, parameters=placed)
    for values in _corners(rest):
        try:
            load_recipe(_with_places(request, rest, values))
        except RequestError as error:
            problems.extend(error)
    problems.raise_if_any()


def _put(recipe: LoadedRecipe, parameter: Parameter) -> None:
    """Put the first value of a parameter into a recipe, for the sake of finding out that there is no such place."""
    document = copy.deepcopy(recipe.document)
    for single in expanded(parameter.override(parameter.ends()[0], f"{parameter.place}  {parameter.key}"), document.data):
        put(document, single)


def _corners(loaded: LoadedSweep) -> Iterator[dict[str, Any]]:
    """The first and the last combination, and the first with every other end or choice in turn."""
    first = {parameter.key: parameter.ends()[0] for parameter in loaded.parameters}
    yield first
    yield {parameter.key: parameter.ends()[-1] for parameter in loaded.parameters}
    for parameter in loaded.parameters:
        for value in parameter.ends()[1:]:
            yield first | {parameter.key: value}


def _identity(request: TrainRequest, recipe: Recipe, loaded: LoadedSweep, plan: Plan) -> str:
    decides = {
        "sweep": loaded.content,
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "student": request.student,
        "seed": request.seed,
        "metric": plan.task.metric,
        "labels": plan.task.labels,
        "splits": {name: split.fingerprint for name, split in plan.task.splits.items() if name != TEST},
        "teachers": {teacher.name: teacher.fingerprint for teacher in plan.given_teachers},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]


def for_teachers(request: TrainRequest) -> TrainRequest:
    """The request that co-finetunes the teachers alone."""
    data = replace(request.data, unlabelled=None)
    return request.model_copy(update={"command": "cofinetune", "student": None, "baseline": None, "data": data})
