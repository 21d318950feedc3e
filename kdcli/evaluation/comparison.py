"""Students, teachers and others on the same split, side by side: from their answers to one document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kdcli import __version__
from kdcli.data.task import TRAIN, Split, Task
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.agreement import agreement, slices
from kdcli.evaluation.calibration import calibrate
from kdcli.evaluation.chance import majority_answers
from kdcli.evaluation.classes import class_scores, confusion, missing_classes
from kdcli.evaluation.document import AgreementTable, Evaluation, Kind, ModelScore, RecipeScore, Role
from kdcli.evaluation.intervals import score_interval
from kdcli.evaluation.metrics import Classes, metrics_of, score
from kdcli.evaluation.retention import held_against
from kdcli.evaluation.seeds import RecipeDifference, compare_recipes
from kdcli.evaluation.significance import ModelDifference, compare_models

Logits = NDArray[np.float32]
MAJORITY, ENSEMBLE = "majority class", "ensemble"
_COMPARED_WITH_EACH_OTHER = 8
_SLICES_KEPT = 50


@dataclass(frozen=True)
class Answer:
    """What one model says of a split, in the task's class order.

    Attributes:
        name, role, kind, run, path, parameters, bytes: as in :class:`kdcli.evaluation.document.ModelScore`.
        predictions: predicted classes [n].
        logits: [n, C], or None where only the classes are known.
        teachers: names of the answers that are this model's teachers, for what it keeps of their score.
        ensemble: name of the answer that is its teachers' ensemble.
        recipe: what it shares with the runs that differ from its own in the seed alone.
        seed: of its training.
    """

    name: str
    role: Role
    kind: Kind
    predictions: Classes
    logits: Logits | None = None
    parameters: int | None = None
    bytes: int | None = None
    run: str | None = None
    path: str | None = None
    teachers: tuple[str, ...] = ()
    ensemble: str | None = None
    recipe: str | None = None
    seed: int | None = None


def ensemble(name: str, members: Sequence[Answer], run: str | None = None) -> Answer:
    """The mean of the members' probabilities, as one model; their logits are [n, C] each."""
    from scipy.special import log_softmax, logsumexp

    assert all(member.logits is not None for member in members)
    logs = np.stack([log_softmax(np.asarray(member.logits, dtype=np.float64), axis=-1) for member in members])
    mixed = (logsumexp(logs, axis=0) - np.log(len(members))).astype(np.float32)
    sizes = [member.parameters for member in members if member.parameters is not None]
    return Answer(
        name=name,
        role="ensemble",
        kind="ensemble",
        predictions=mixed.argmax(-1),
        logits=mixed,
        parameters=sum(sizes) if len(sizes) == len(members) else None,
        bytes=None,
        run=run,
    )


def compare(task: Task, split: str, answers: Sequence[Answer], notes: Iterable[str] = ()) -> Evaluation:
    """Score every model on the same labels and compare those that are to be compared.

    Raises:
        RequestError: the split has no labels, or a model has not answered it as often as there are samples.
    """
    rows = labelled(task, split)
    assert rows.labels is not None
    for answer in answers:
        check_answer(answer.path or answer.name, answer.predictions, rows)
    by_name = {answer.name: answer for answer in answers}
    ranking = {answer.name: score(task.metric, answer.predictions, rows.labels) for answer in answers}
    models = [_scored(answer, by_name, ranking, task, rows.labels) for answer in answers]
    if TRAIN in task.splits:
        models.append(_majority(task, rows.labels))
    judged = sorted(
        (model for model in models if model.role in ("student", "model")), key=lambda model: -model.scores[task.metric]
    )
    models = [*judged, *(model for model in models if model not in judged)]
    recipes = _recipes(answers, models, task.metric)
    evaluation = Evaluation(
        kdcli=__version__,
        task=task.name,
        split=split,
        rows=len(rows),
        source=rows.source,
        fingerprint=rows.fingerprint,
        labels=list(task.labels),
        metric=task.metric,
        models=models,
        recipes=recipes,
        recipe_differences=_recipe_differences(recipes, task.metric),
        notes=[*notes, *_notes(task, rows), *_single_seeds(recipes), *_repeated_seeds(answers)],
    )
    return evaluation.model_copy(
        update={
            "differences": _differences(evaluation, by_name, rows.labels),
            "agreements": _agreements(evaluation, by_name, ranking, rows, task.labels),
        }
    )


def labelled(task: Task, split: str) -> Split:
    """A split of the task that can be scored on.

    Raises:
        RequestError: it has no labels.
    """
    rows = task.splits[split]
    if rows.labels is None or (rows.labels < 0).any():
        raise RequestError(
            Problem(
                f"the {split} split of {task.name}",
                "has no labels, so nothing can be scored on it",
                "a class for each sample",
                rows.source,
                "--split dev, or --test FILE with labels",
            )
        )
    return rows


def _best_teacher(answer: Answer, by_name: dict[str, Answer], ranking: dict[str, float]) -> Answer | None:
    """Of a model's own teachers the one with the highest score."""
    known = [name for name in answer.teachers if name in by_name]
    return by_name[max(known, key=lambda name: ranking[name])] if known else None


def check_answer(where: str, predictions: Classes, rows: Split) -> None:
    """Refuse predictions that are not as many as the samples.

    Raises:
        RequestError: with both numbers.
    """
    if len(predictions) != len(rows):
        raise RequestError(
            Problem(
                where,
                "has not as many predictions as the split has samples",
                f"{len(rows)}, one for each sample of {rows.source}",
                str(len(predictions)),
            )
        )


def _scored(answer: Answer, by_name: dict[str, Answer], ranking: dict[str, float], task: Task, labels: Classes) -> ModelScore:
    best = _best_teacher(answer, by_name, ranking)
    together = None if answer.ensemble is None else by_name.get(answer.ensemble)
    ours = answer.predictions
    kept, drop, of_all = None, None, None
    if best is not None:
        kept, drop = held_against(task.metric, ours, best.predictions, labels, best.name)
    if together is not None:
        of_all, _ = held_against(task.metric, ours, together.predictions, labels, together.name)
    return ModelScore(
        name=answer.name,
        role=answer.role,
        kind=answer.kind,
        run=answer.run,
        path=answer.path,
        scores={metric: score(metric, ours, labels) for metric in metrics_of(task.labels)},
        interval=score_interval(task.metric, ours, labels),
        parameters=answer.parameters,
        bytes=answer.bytes,
        retention=kept,
        retention_of_ensemble=of_all,
        drop=drop,
        calibration=None if answer.logits is None else calibrate(answer.logits, labels),
        classes=class_scores(ours, labels, task.labels),
        confusion=confusion(ours, labels, len(task.labels)),
    )


def _majority(task: Task, labels: Classes) -> ModelScore:
    assert task.train.labels is not None
    guess = majority_answers(task.train.labels, labels)
    return ModelScore(
        name=MAJORITY,
        role="majority",
        kind="constant",
        scores={metric: score(metric, guess, labels) for metric in metrics_of(task.labels)},
        interval=score_interval(task.metric, guess, labels),
    )


def _recipes(answers: Sequence[Answer], models: Sequence[ModelScore], metric: str) -> list[RecipeScore]:
    """Runs that differ in their seed alone, the best mean first; empty where there is one run of each."""
    scores = {model.name: model.scores[metric] for model in models}
    found: dict[str, dict[int, Answer]] = defaultdict(dict)
    for answer in answers:
        if answer.recipe is not None and answer.seed is not None:
            found[answer.recipe].setdefault(answer.seed, answer)
    if all(len(of_seeds) < 2 for of_seeds in found.values()):
        return []
    recipes = []
    for name, of_seeds in found.items():
        values = {seed: scores[of_seeds[seed].name] for seed in sorted(of_seeds)}
        numbers = np.array(list(values.values()))
        recipes.append(
            RecipeScore(
                name=name,
                scores=values,
                mean=float(numbers.mean()),
                deviation=float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
                models={seed: of_seeds[seed].name for seed in values},
            )
        )
    return sorted(recipes, key=lambda recipe: -recipe.mean)


def _recipe_differences(recipes: Sequence[RecipeScore], metric: str) -> list[RecipeDifference]:
    with_spread = {recipe.name: recipe.scores for recipe in recipes if len(recipe.scores) > 1}
    return compare_recipes(metric, with_spread) if len(with_spread) > 1 else []


def _differences(evaluation: Evaluation, by_name: dict[str, Answer], labels: Classes) -> list[ModelDifference]:
    found: list[ModelDifference] = []
    for pairs in _families(evaluation):
        wanted = {name for pair in pairs for name in pair}
        predictions = {name: answer.predictions for name, answer in by_name.items() if name in wanted}
        found += compare_models(evaluation.metric, predictions, labels, pairs)
    return found


def _families(evaluation: Evaluation) -> list[list[tuple[str, str]]]:
    """Whom to compare with whom, by questions; p-values are corrected within a question.

    One student or model: is it as good as the others, and are its exported files as good as it is? Several: which is best, each
    with each while they are few, else the best with the others. Runs that are one seed of several of their recipe are not
    compared one by one.
    """
    of_recipes = {name for recipe in evaluation.recipes if len(recipe.scores) > 1 for name in recipe.models.values()}
    judged = [model.name for model in evaluation.of("student", "model") if model.name not in of_recipes]
    if len(judged) == 1 and not of_recipes:
        others = [(judged[0], model.name) for model in evaluation.of("teacher", "ensemble", "without-teachers")]
        files = [(model.name, judged[0]) for model in evaluation.of("export")]
        return [family for family in (others, files) if family]
    if len(judged) < 2:
        return []
    if len(judged) <= _COMPARED_WITH_EACH_OTHER:
        return [list(combinations(judged, 2))]
    return [[(judged[0], name) for name in judged[1:]]]


def _agreements(
    evaluation: Evaluation, by_name: dict[str, Answer], ranking: dict[str, float], rows: Split, names: Sequence[str]
) -> list[AgreementTable]:
    """Each model that is judged with its best teacher, or with each of them where it is judged alone."""
    assert rows.labels is not None
    judged = evaluation.judged
    tables = []
    for model in judged:
        mine = by_name[model.name]
        best = _best_teacher(mine, by_name, ranking)
        if best is None:
            continue
        others = [name for name in mine.teachers if name in by_name and name != best.name] if len(judged) == 1 else []
        for name in [best.name, *others]:
            theirs = by_name[name].predictions
            found = agreement(theirs, mine.predictions, rows.labels)
            tables.append(
                AgreementTable(
                    teacher=name,
                    student=model.name,
                    both_right=len(found.both_right),
                    lost=len(found.lost),
                    gained=len(found.gained),
                    both_wrong=len(found.both_wrong),
                    changed=len(found.changed),
                    slices=slices(rows, names, theirs, mine.predictions)[:_SLICES_KEPT] if len(judged) == 1 else [],
                )
            )
    return tables


def _notes(task: Task, rows: Split) -> list[str]:
    assert rows.labels is not None
    notes = []
    missing = missing_classes(rows.labels, task.labels)
    if missing:
        shown = ", ".join(missing[:10]) + (f", … ({len(missing)} in all)" if len(missing) > 10 else "")
        notes.append(
            f"{rows.source} has no sample of class {shown}, so nothing is shown about {'it' if len(missing) == 1 else 'them'}; "
            "macro-averages leave out a class that neither occurs nor is answered"
        )
    if TRAIN in task.splits and rows is not task.train:
        seen = set(task.train.samples)
        again = sum(sample in seen for sample in rows.samples)
        if again:
            notes.append(
                f"{again} of the {len(rows)} samples ({again / len(rows):.1%}) stand word for word in the training split too"
            )
    return notes


def _single_seeds(recipes: Sequence[RecipeScore]) -> list[str]:
    alone = [recipe.name for recipe in recipes if len(recipe.scores) == 1]
    if not alone:
        return []
    return [
        f"{', '.join(alone)}: one seed, so that the recipe cannot be told from its seed; it is not compared with the others"
    ]


def _repeated_seeds(answers: Sequence[Answer]) -> list[str]:
    """Runs that were made with the same seed of the same recipe."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for answer in answers:
        if answer.recipe is not None and answer.seed is not None:
            found[answer.recipe, answer.seed].append(answer.name)
    return [
        f"{' and '.join(names)}: the same recipe with the same seed ({seed}), of which the first counts"
        for (_, seed), names in found.items()
        if len(names) > 1
    ]
