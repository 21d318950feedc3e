"""The recipe's stages as they will be trained: schedules over layers expanded, and what moves in each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from kdcli.errors import did_you_mean
from kdcli.losses.term_classes import term_class
from kdcli.plan.plan import StagePlan
from kdcli.recipe.loss_blocks import Loss
from kdcli.recipe.model_shapes import Models
from kdcli.recipe.schema import Recipe, Stage, Training, settled
from kdcli.recipe.term_plan import TermPlan, plan_term
from kdcli.recipe.yaml_document import KeyPath

Place = int | str


def plan_stages(phase: str, recipe: Recipe, models: Models, rows_per_epoch: int, times: float = 1.0) -> list[StagePlan]:
    """Every stage of one training, with every mistake in it noted.

    Args:
        phase: the training's name.
        recipe: whose stages they are.
        models: teachers and student.
        rows_per_epoch: training samples.
        times: how often the stages' epochs are gone through.

    Raises:
        TypeError: no term computes one of the losses.
    """
    planned: list[StagePlan] = []
    for row, stage in enumerate(recipe.stages):
        path: KeyPath = ("stages", row)
        before = models.problems.noted
        terms = [
            _planned(loss, (*path, "objective", place), models) for place, loss in enumerate(stage.objective) if not loss.is_off
        ]
        _check_stage(stage, terms, path, models)
        expanded = [] if models.problems.noted > before else _expanded(stage, terms)
        taken = [other.name for other in recipe.stages if other is not stage]
        for name, chosen in expanded:
            if name in taken:
                models.refuse(
                    (*path, "expand"),
                    f"makes a stage {name}, and another one has that name",
                    expected="names that differ from " + ", ".join(made for made, _ in expanded),
                )
            if stage.until is not None and stage.until.loss not in [term.loss.label for term in chosen]:
                models.refuse(
                    (*path, "until", "loss"),
                    f"stage {name} has no loss {stage.until.loss!r} once it is expanded",
                    expected="a loss on every layer that the stage is expanded over",
                    remedy="one of " + ", ".join(term.loss.label for term in chosen),
                )
            planned.append(_stage(phase, name, stage, chosen, recipe.training, models, rows_per_epoch, times))
            if not planned[-1].moves:
                models.refuse(
                    (*path, "freeze"),
                    f"stage {name} trains nothing",
                    expected="a part of the student that its losses reach and that is not frozen",
                    found=f"losses reach {brief_places(_reached(chosen, models))}; frozen: {brief_places(stage.freeze)}",
                )
    return planned


def _planned(loss: Loss, path: KeyPath, models: Models) -> TermPlan:
    """A term as it will be trained; a loss that nothing computes is found out here, not after hours of training."""
    term_class(type(loss))
    return plan_term(loss, path, models)


def _check_stage(stage: Stage, terms: Sequence[TermPlan], path: KeyPath, models: Models) -> None:
    labels = [term.loss.label for term in terms]
    if not terms:
        models.refuse(
            (*path, "objective"),
            f"stage {stage.name} trains nothing: the weights of its losses sum to zero",
            expected="a weight above 0 at least",
        )
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        if not all(term.loss.name is None for term in terms if term.loss.label == label):
            models.refuse((*path, "objective"), f"two terms have the name {label!r}")
    if stage.until is not None and stage.until.loss not in labels:
        models.refuse(
            (*path, "until", "loss"),
            f"stage {stage.name} has no loss {stage.until.loss!r}",
            expected="one of " + ", ".join(labels),
            remedy=did_you_mean(stage.until.loss, labels),
        )
    if stage.expand is not None and not any(term.loss.compares_layers for term in terms):
        models.refuse(
            (*path, "expand"),
            "there is no loss on layers in this stage to be expanded",
            expected="attention-kl, hidden-cosine or another loss that compares layers",
            found=", ".join(labels),
        )
    layers = [place for place in stage.freeze if isinstance(place, int)]
    depth = models.student.layers
    for layer in layers:
        if layer > depth:
            models.refuse((*path, "freeze"), f"student layer {layer} does not exist", expected=f"1..{depth}")
    groups = models.student.weight_groups
    if layers and groups < depth and set(layers) != set(range(1, depth + 1)):
        models.refuse(
            (*path, "freeze"),
            f"the layers of {models.student.model_type} share their weights",
            expected=f"all layers 1..{depth}, or none",
            found=brief_places(layers),
        )


def _stage(
    phase: str,
    name: str,
    stage: Stage,
    terms: Sequence[TermPlan],
    training: Training,
    models: Models,
    rows_per_epoch: int,
    times: float,
) -> StagePlan:
    frozen, epochs = set(stage.freeze), settled(stage.epochs) * times
    return StagePlan(
        phase=phase,
        name=name,
        epochs=epochs,
        steps=steps(epochs, rows_per_epoch, training),
        learning_rates=learning_rates(training, stage.learning_rate),
        warmup=training.warmup if stage.warmup is None else stage.warmup,
        schedule=stage.schedule or training.schedule,
        terms=list(terms),
        freeze=list(stage.freeze),
        moves=[place for place in _reached(terms, models) if place not in frozen],
        until=stage.until,
    )


def steps(epochs: float, rows: int, training: Training) -> int:
    """Optimiser steps of a number of epochs over so many rows."""
    return max(1, math.ceil(epochs * math.ceil(rows / settled(training.batch_size))))


def learning_rates(training: Training, body: float | None = None) -> dict[Literal["body", "head", "projection"], float]:
    """Peak rates; ``body`` in place of the training's own."""
    rate = body or settled(training.learning_rate)
    return {"body": rate, "head": training.head_learning_rate, "projection": training.projection_learning_rate or rate}


def _expanded(stage: Stage, terms: Sequence[TermPlan]) -> list[tuple[str, list[TermPlan]]]:
    """The stage as it is, or one stage per student layer from the bottom up."""
    if stage.expand is None:
        return [(stage.name, list(terms))]
    layers = sorted({layer for term in terms for pairs in term.layers.values() for layer in pairs})
    stages = []
    for place, layer in enumerate(layers):
        kept = {layer} if stage.expand == "progressive" else set(layers[: place + 1])
        chosen = [restricted for term in terms if (restricted := _restricted(term, kept)) is not None]
        stages.append((f"{stage.name}-{layer}", chosen))
    return stages


def _restricted(term: TermPlan, layers: set[int]) -> TermPlan | None:
    """A term on these student layers alone; None if nothing is left of it. Terms without layers stay as they are."""
    if not term.layers:
        return term
    maps = {
        teacher: {ours: theirs for ours, theirs in pairs.items() if ours in layers} for teacher, pairs in term.layers.items()
    }
    kept = {teacher: pairs for teacher, pairs in maps.items() if pairs}
    if not kept:
        return None
    return term.model_copy(update={"layers": kept, "teachers": [name for name in term.teachers if name in kept]})


def _reached(terms: Sequence[TermPlan], models: Models) -> list[Place]:
    """The parts of the student, from the bottom up, that the gradient of any of the terms reaches, shared weights included."""
    depth = models.student.layers
    highest = max((term.loss.reach(term.layers, term.teachers, models) for term in terms), default=-1)
    places: list[Place] = ["embeddings", *range(1, depth + 1), "head"]
    groups = models.student.weight_groups
    shared = {(layer - 1) * groups // depth for layer in range(1, min(highest, depth) + 1)}
    also = {layer for layer in range(1, depth + 1) if (layer - 1) * groups // depth in shared}
    return [place for row, place in enumerate(places) if row <= highest or place in also]


def brief_places(places: Sequence[Place]) -> str:
    """``embeddings, layers 1–4, head``."""
    layers = [place for place in places if isinstance(place, int)]
    parts = [str(place) for place in places if place == "embeddings"]
    if layers:
        run = len(layers) > 1 and layers == list(range(layers[0], layers[-1] + 1))
        numbers = f"{layers[0]}–{layers[-1]}" if run else ", ".join(map(str, layers))
        parts.append(f"layer{'s' if len(layers) > 1 else ''} {numbers}")
    parts += [str(place) for place in places if place == "head"]
    return ", ".join(parts) or "nothing"
