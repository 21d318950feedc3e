"""Students, teachers and others on the same split, side by side: from their answers to one document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count

import numpy as np

from kdcli import __version__
from kdcli.data.splits import TRAIN
from kdcli.data.task import Split, Task
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.agreement import agreement, slices
from kdcli.evaluation.chance import chance_test
from kdcli.evaluation.document import AgreementTable, Chance, Evaluation, Kind, ModelScore, RecipeScore, Role, Unscored
from kdcli.evaluation.intervals import score_interval
from kdcli.evaluation.retention import held_against
from kdcli.evaluation.seeds import RecipeDifference, compare_recipes
from kdcli.evaluation.significance import ModelDifference, compare_models
from kdcli.tasks.kind import Kind as TaskKind
from kdcli.tasks.kind import Outputs, rows_not_finite
from kdcli.tasks.metric import Metric, Values

ENSEMBLE = "ensemble"
_COMPARED_WITH_EACH_OTHER = 8
_SLICES_KEPT = 50
_BY_FAR = 0.02
_ROLES: tuple[Role, ...] = ("ensemble", "without-teachers", "export", "student", "model", "teacher", "majority")


@dataclass(frozen=True)
class ModelOutputs:
    """What one model says of a split, as the task has it.

    Attributes:
        name, role, kind, run, path, parameters, bytes: as in :class:`kdcli.evaluation.document.ModelScore`.
        predictions: what is decided [n, …].
        outputs: what it is decided from [n, …], or None where only the predictions are known.
        teachers: names of the answers that are this model's teachers, for what it keeps of their score.
        ensemble: name of the answer that is its teachers' ensemble.
        recipe: what it shares with the runs that differ from its own in the seed alone.
        seed: of its training.

    Within its role a name stands for one model; across roles :func:`with_distinct_names` tells them apart.
    """

    name: str
    role: Role
    kind: Kind
    predictions: Values
    outputs: Outputs | None = None
    parameters: int | None = None
    bytes: int | None = None
    run: str | None = None
    path: str | None = None
    teachers: tuple[str, ...] = ()
    ensemble: str | None = None
    recipe: str | None = None
    seed: int | None = None

    @property
    def not_finite(self) -> int:
        """For how many samples its outputs are infinite or NaN; then it has no score."""
        return 0 if self.outputs is None else len(rows_not_finite(self.outputs))


def with_distinct_names(entries: Sequence[ModelOutputs], kind: TaskKind) -> list[ModelOutputs]:
    """The same, so that no two are called alike: names that a user chooses meet those of kdcli in tables and documents.

    What is kdcli's own (the ensemble, a run's student, the majority class) keeps its name; another model of that name gets its
    role put before it, as in "teacher ensemble". Names that are distinct already stay as they are.
    """
    names: dict[tuple[Role, str], str] = {}
    taken = {kind.guess_name}
    for entry in sorted(entries, key=lambda entry: _ROLES.index(entry.role)):
        candidates = (entry.name, f"{entry.role} {entry.name}")
        name = next((each for each in candidates if each not in taken), None) or unlike(candidates[-1], taken)
        taken.add(name)
        names[entry.role, entry.name] = name
    return [
        replace(
            entry,
            name=names[entry.role, entry.name],
            teachers=tuple(names.get(("teacher", name), name) for name in entry.teachers),
            ensemble=None if entry.ensemble is None else names.get(("ensemble", entry.ensemble), entry.ensemble),
        )
        for entry in entries
    ]


def unlike(name: str, known: Collection[str]) -> str:
    """The name, with a number behind it where others have it already."""
    candidates = (name if number == 1 else f"{name} ({number})" for number in count(1))
    return next(candidate for candidate in candidates if candidate not in known)


def ensemble(name: str, kind: TaskKind, members: Sequence[ModelOutputs], run: str | None = None) -> ModelOutputs:
    """The members, whose outputs are known, as one model."""
    mixed = kind.ensemble([member.outputs for member in members if member.outputs is not None])
    sizes = [member.parameters for member in members if member.parameters is not None]
    return ModelOutputs(
        name=name,
        role="ensemble",
        kind="ensemble",
        predictions=kind.predictions(mixed),
        outputs=mixed,
        parameters=sum(sizes) if len(sizes) == len(members) else None,
        bytes=None,
        run=run,
    )


def compare(task: Task, split: str, entries: Sequence[ModelOutputs], notes: Iterable[str] = ()) -> Evaluation:
    """Score every model on the same labels and compare those that are to be compared.

    Raises:
        RequestError: the split has no labels, a model has not answered it as often as there are samples, or none of those that
            the evaluation is about has finite outputs.
    """
    rows, metric = labelled(task, split), task.kind.metric(task.metric)
    assert rows.targets is not None
    every = with_distinct_names(entries, task.kind)
    for entry in every:
        check_entry(entry.path or entry.name, entry.predictions, rows)
    unscored = [_unscored(entry, len(rows)) for entry in every if entry.not_finite]
    entries = _scorable(every)
    by_name = {entry.name: entry for entry in entries}
    ranking = {entry.name: metric.score(entry.predictions, rows.targets) for entry in entries}
    models = [_scored(entry, by_name, ranking, task.kind, metric, rows.targets) for entry in entries]
    if TRAIN in task.splits:
        models.append(_guess(task, metric, rows.targets))
    judged = sorted(
        (model for model in models if model.role in ("student", "model")), key=lambda model: -model.scores[task.metric]
    )
    models = [*judged, *(model for model in models if model not in judged)]
    recipes = _recipes(entries, models, task.metric)
    evaluation = Evaluation(
        kdcli=__version__,
        task=task.name,
        split=split,
        rows=len(rows),
        source=rows.source,
        fingerprint=rows.fingerprint,
        labels=list(task.kind.class_names),
        metric=task.metric,
        models=models,
        unscored=unscored,
        recipes=recipes,
        recipe_differences=_recipe_differences(recipes, task.metric),
        cautions=[*_without_score(every), *_at_chance(models, task), *_under_trained(models)],
        notes=[*notes, *_notes(task, rows), *_single_seeds(recipes), *_repeated_seeds(entries)],
    )
    if not evaluation.judged and unscored:
        raise RequestError([Problem(each.path or each.name, each.sentence) for each in unscored])
    return evaluation.model_copy(
        update={
            "differences": _differences(evaluation, by_name, metric, rows.targets),
            "agreements": _agreements(evaluation, by_name, ranking, rows, task.kind, metric),
        }
    )


def labelled(task: Task, split: str) -> Split:
    """A split of the task that can be scored on.

    Raises:
        RequestError: it has no labels.
    """
    rows = task.splits[split]
    if rows.targets is None or not task.kind.known(rows.targets).all():
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


def _unscored(entry: ModelOutputs, rows: int) -> Unscored:
    return Unscored(
        name=entry.name, role=entry.role, kind=entry.kind, run=entry.run, path=entry.path,
        not_finite=entry.not_finite, rows=rows,
    )  # fmt: skip


def _scorable(entries: Sequence[ModelOutputs]) -> list[ModelOutputs]:
    """Those with finite outputs; a model one of whose teachers has no score has no best teacher either."""
    without = {entry.name for entry in entries if entry.not_finite}
    return [
        replace(
            entry,
            teachers=() if without & set(entry.teachers) else entry.teachers,
            ensemble=None if entry.ensemble in without else entry.ensemble,
        )
        for entry in entries
        if entry.name not in without
    ]


def _without_score(entries: Sequence[ModelOutputs]) -> Iterator[str]:
    """Who has no score, and which figures miss it therefore."""
    for entry in entries:
        if not entry.not_finite:
            continue
        missed = ""
        if entry.role == "teacher" and any(entry.name in other.teachers for other in entries):
            missed = "; what students keep of their best teacher's score cannot be said"
        elif entry.recipe is not None and entry.seed is not None:
            missed = f"; the mean of {entry.recipe} is without seed {entry.seed}"
        yield f"{_unscored(entry, len(entry.predictions)).sentence}{missed}"


def _at_chance(models: Sequence[ModelScore], task: Task) -> Iterator[str]:
    """Who knows nothing of the task, as far as these samples can show."""
    for model in models:
        found = model.chance
        if found is not None and found.at_chance:
            yield (
                f"{model.name} is at chance: {task.metric} {model.scores[task.metric]:.4f}, {task.kind.guessing} "
                f"{found.majority:.4f}, p = {found.p_value:.2f} against its own predictions shuffled"
            )


def _under_trained(models: Sequence[ModelScore]) -> Iterator[str]:
    """Best teachers that their students beat by far: a share of their score says little."""
    for model in models:
        drop = model.drop
        if drop is not None and drop.high < 0 and -drop.value >= _BY_FAR:
            above = f"{-100 * drop.value:.1f} points above it ({-100 * drop.high:.1f} to {-100 * drop.low:.1f})"
            yield (
                f"{drop.of} is under-trained: {model.name} scores {above}, so that a share of its score is no measure; "
                "train it longer, or with another learning rate"
            )


def _best_teacher(entry: ModelOutputs, by_name: dict[str, ModelOutputs], ranking: dict[str, float]) -> ModelOutputs | None:
    """Of a model's own teachers the one with the highest score."""
    known = [name for name in entry.teachers if name in by_name]
    return by_name[max(known, key=lambda name: ranking[name])] if known else None


def check_entry(where: str, predictions: Values, rows: Split) -> None:
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


def _scored(
    entry: ModelOutputs,
    by_name: dict[str, ModelOutputs],
    ranking: dict[str, float],
    kind: TaskKind,
    metric: Metric,
    targets: Values,
) -> ModelScore:
    best = _best_teacher(entry, by_name, ranking)
    together = None if entry.ensemble is None else by_name.get(entry.ensemble)
    ours = entry.predictions
    kept, drop, of_all = None, None, None
    if best is not None:
        kept, drop = held_against(metric, ours, best.predictions, targets, best.name)
    if together is not None:
        of_all, _ = held_against(metric, ours, together.predictions, targets, together.name)
    return ModelScore(
        name=entry.name,
        role=entry.role,
        kind=entry.kind,
        run=entry.run,
        path=entry.path,
        scores=kind.scores_of(ours, targets),
        interval=score_interval(metric, ours, targets),
        parameters=entry.parameters,
        bytes=entry.bytes,
        retention=kept,
        retention_of_ensemble=of_all,
        drop=drop,
        chance=_chance(kind, metric, ours, targets),
        calibration=None if entry.outputs is None else kind.calibration(entry.outputs, targets),
        classes=kind.class_scores(ours, targets),
        confusion=kind.confusion(ours, targets),
    )


def _chance(kind: TaskKind, metric: Metric, predictions: Values, targets: Values) -> Chance:
    found = chance_test(kind, metric, predictions, targets)
    return Chance(majority=found.majority, p_value=found.p_value, at_chance=found.at_chance)


def _guess(task: Task, metric: Metric, targets: Values) -> ModelScore:
    assert task.train.targets is not None
    guess = task.kind.guess(task.train.targets, len(targets))
    return ModelScore(
        name=task.kind.guess_name,
        role="majority",
        kind="constant",
        scores=task.kind.scores_of(guess, targets),
        interval=score_interval(metric, guess, targets),
    )


def _recipes(entries: Sequence[ModelOutputs], models: Sequence[ModelScore], metric: str) -> list[RecipeScore]:
    """Runs that differ in their seed alone, the best mean first; empty where there is one run of each."""
    scores = {model.name: model.scores[metric] for model in models}
    found: dict[tuple[Role, str], dict[int, ModelOutputs]] = defaultdict(dict)
    for entry in entries:
        if entry.recipe is not None and entry.seed is not None:
            found[entry.role, entry.recipe].setdefault(entry.seed, entry)
    if all(len(of_seeds) < 2 for of_seeds in found.values()):
        return []
    recipes: list[RecipeScore] = []
    for (_, called), of_seeds in found.items():
        name = unlike(called, {recipe.name for recipe in recipes})
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


def _differences(
    evaluation: Evaluation, by_name: dict[str, ModelOutputs], metric: Metric, targets: Values
) -> list[ModelDifference]:
    found: list[ModelDifference] = []
    for pairs in _families(evaluation):
        wanted = {name for pair in pairs for name in pair}
        predictions = {name: entry.predictions for name, entry in by_name.items() if name in wanted}
        found += compare_models(metric, predictions, targets, pairs)
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
    evaluation: Evaluation,
    by_name: dict[str, ModelOutputs],
    ranking: dict[str, float],
    rows: Split,
    kind: TaskKind,
    metric: Metric,
) -> list[AgreementTable]:
    """Each model that is judged with its best teacher, or with each of them where it is judged alone."""
    assert rows.targets is not None
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
            found = agreement(metric, theirs, mine.predictions, rows.targets)
            if found is None:
                continue
            tables.append(
                AgreementTable(
                    teacher=name,
                    student=model.name,
                    both_right=len(found.both_right),
                    lost=len(found.lost),
                    gained=len(found.gained),
                    both_wrong=len(found.both_wrong),
                    changed=len(found.changed),
                    slices=slices(rows, kind, metric, theirs, mine.predictions)[:_SLICES_KEPT] if len(judged) == 1 else [],
                )
            )
    return tables


def _notes(task: Task, rows: Split) -> list[str]:
    assert rows.targets is not None
    notes = []
    missing = task.kind.missing(rows.targets)
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


def _repeated_seeds(entries: Sequence[ModelOutputs]) -> list[str]:
    """Runs that were made with the same seed of the same recipe."""
    found: dict[tuple[Role, str, int], list[str]] = defaultdict(list)
    for entry in entries:
        if entry.recipe is not None and entry.seed is not None:
            found[entry.role, entry.recipe, entry.seed].append(entry.name)
    return [
        f"{' and '.join(names)}: the same recipe with the same seed ({seed}), of which the first counts"
        for (_, _, seed), names in found.items()
        if len(names) > 1
    ]
