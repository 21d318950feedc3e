"""The report's sentences: what came out, and how it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from kdcli.evaluation.document import Evaluation, ModelScore
from kdcli.evaluation.report.number_format import NBSP, hundredfold, p_value, signed
from kdcli.evaluation.significance import Difference, ModelDifference


def main_model(evaluation: Evaluation) -> ModelScore:
    """The model that the report is about: the best of those that the evaluation is about."""
    return max(evaluation.judged or evaluation.models, key=lambda model: model.scores[evaluation.metric])


def subject(evaluation: Evaluation, model: ModelScore) -> str:
    """How a sentence about a model begins."""
    return "The student" if evaluation.of("student") == [model] else model.name


def verdict(evaluation: Evaluation) -> list[str]:
    """What came out, in plain sentences."""
    ours, teacher = main_model(evaluation), evaluation.best_teacher
    if evaluation.recipes and len(evaluation.recipes[0].scores) > 1:  # its best seed says little of a recipe
        return [*_recipe_sentences(evaluation), *_kept_over_seeds(evaluation)]
    found = [*_recipe_sentences(evaluation), _kept(evaluation, ours)]
    against = difference_of(evaluation, ours.name, teacher.name) if teacher is not None else None
    if teacher is not None and against is not None:
        between = _difference_sentence(f"The difference from the best teacher ({teacher.name})", against)
        found.append(f"{between} {against.limit}")
    elif ours.drop is not None:
        low, high = signed(-ours.drop.high), signed(-ours.drop.low)
        found.append(f"Its difference from {ours.drop.of} is {signed(-ours.drop.value)} points ({low} to {high}).")
    alone = next(iter(evaluation.of("without-teachers")), None)
    if alone is not None and (against := difference_of(evaluation, ours.name, alone.name)):
        which = alone.name if alone.name.startswith("without teachers") else "without teachers"
        found.append(_difference_sentence(f"The gain over the same student {which}", against))
    return found


def difference_of(evaluation: Evaluation, ours: str, theirs: str) -> ModelDifference | None:
    """The comparison of two models, where it was made in this direction."""
    return next((each for each in evaluation.differences if (each.ours, each.theirs) == (ours, theirs)), None)


def _recipe_sentences(evaluation: Evaluation) -> list[str]:
    if not evaluation.recipes:
        return []
    best = evaluation.recipes[0]
    spread = "" if best.deviation is None else f" ± {hundredfold(best.deviation)}"
    several = len(evaluation.recipes) > 1
    which = f"The recipe with the highest mean is {best.name}: it scores" if several else f"{best.name} scores"
    runs = "1 seed" if len(best.scores) == 1 else f"{len(best.scores)} seeds"
    others = [_difference_sentence(f"Its difference from {each.theirs}", each) for each in evaluation.recipe_differences[:1]]
    return [f"{which} {hundredfold(best.mean)}{spread} points of {evaluation.metric} over {runs}.", *others]


def _kept_over_seeds(evaluation: Evaluation) -> list[str]:
    best = evaluation.recipes[0]
    shares = [kept.value for name in best.models.values() if (kept := evaluation.model(name).retention) is not None]
    if not shares:
        return []
    mean, low, high = (hundredfold(value) for value in (sum(shares) / len(shares), min(shares), max(shares)))
    return [f"Its runs keep {mean}{NBSP}% of their best teacher’s {evaluation.metric} on average (from {low} to {high})."]


def _kept(evaluation: Evaluation, ours: ModelScore) -> str:
    name, kept = subject(evaluation, ours), ours.retention
    if kept is None:
        metric = evaluation.metric
        score, low, high = map(hundredfold, (ours.scores[metric], *ours.interval))
        guesses = [hundredfold(each.scores[metric]) for each in evaluation.of("majority")]
        beside = "".join(f"; always answering the most frequent class scores {each}" for each in guesses)
        between = f"{low} to {high}" if ours.interval[0] < 0 else f"{low}–{high}"
        return f"{name} scores {score} ({between}) points of {metric} on {evaluation.rows:,} samples{beside}."
    teacher = next((model for model in evaluation.models if model.name == kept.of), None)
    whose = "the best teacher’s" if evaluation.best_teacher is teacher else f"{kept.of}’s"
    smaller, metric = _smaller(ours, teacher), evaluation.metric
    if kept.value <= 0:
        return f"{name} keeps nothing of {whose} {metric}: it scores {hundredfold(ours.scores[metric])} points{smaller}."
    if kept.interval is None:
        why = f"{kept.of} does not clearly score above 0, so that the share may be anything"
        return f"{name} keeps {hundredfold(kept.value)}{NBSP}% of {whose} {metric}{smaller}; without an interval: {why}."
    low, high = map(hundredfold, kept.interval)
    between = f"{low} to {high}" if kept.interval[0] < 0 else f"{low}–{high}"
    return f"{name} keeps {hundredfold(kept.value)}{NBSP}% ({between}) of {whose} {metric}{smaller}."


def _smaller(ours: ModelScore, teacher: ModelScore | None) -> str:
    if teacher is None or not ours.parameters or not teacher.parameters:
        return ""
    times = teacher.parameters / ours.parameters
    if 0.95 < times < 1.05:
        return ", with about as many parameters"
    return f", with {times:.1f} times fewer parameters" if times > 1 else f", with {1 / times:.1f} times as many parameters"


def _difference_sentence(what: str, found: Difference) -> str:
    points = f"{signed(found.difference)} points"
    if found.interval is None:
        return f"{what} is {points}. {found.limit}"
    points = f"{points} ({signed(found.interval[0])} to {signed(found.interval[1])})"
    shown = "is significant" if found.significant else "is not significant"
    among = f", both corrected for {found.comparisons} comparisons" if found.comparisons > 1 else ""
    return f"{what}, {points}, {shown} ({p_value(found.p_value)}{among})."


def methods(evaluations: Sequence[Evaluation], *, layers: bool = False, latencies: bool = False) -> list[str]:
    """How the numbers of the report were made, each method once; ``layers`` and ``latencies`` tell whether it has them."""
    models = [model for evaluation in evaluations for model in evaluation.models]
    pairs = [each for evaluation in evaluations for each in evaluation.differences]
    seeds = [each for evaluation in evaluations for each in evaluation.recipe_differences]
    tables = [each for evaluation in evaluations for each in evaluation.agreements]
    compared: list[Difference] = [*pairs, *seeds]
    how = "Wilson’s method" if evaluations[0].metric == "accuracy" else "the bootstrap, smoothed"
    told = [
        (True, f"Intervals of scores: 95 % over samples, by {how}. They say nothing about other seeds."),
        (
            any(model.retention or model.retention_of_ensemble for model in models),
            "Retention: our score divided by the teacher’s; 95 % interval by Fieller’s method, from the same bootstrap as the "
            "difference, so that it leaves out 100 % if and only if the difference is significant by itself.",
        ),
        *((True, words) for words in dict.fromkeys(f"{each.test}, because {each.why}." for each in compared)),
        (
            bool(pairs),
            "Intervals of differences between models: 95 %, paired bootstrap over samples, smoothed with some samples on which "
            "the models differ, so that it is wide enough where they differ on few.",
        ),
        (bool(seeds), "Recipes: compared over the seeds of their training, on one split; 95 % intervals by Student’s t."),
        (
            any(each.comparisons > 1 for each in compared),
            "Comparisons made together: intervals corrected by Bonferroni’s method and p-values by Holm’s; an interval leaves "
            "out 0 if and only if the difference is significant.",
        ),
        (bool(compared), "What can be shown at all: the smallest difference found with 80 % power at the 5 % level."),
        (bool(tables), "Inherited: teacher right or wrong against student right or wrong (Aguilar et al. 2020)."),
        (
            any(table.slices for table in tables),
            "Slices: exact permutation test, one-sided, of losing no more in the slice than elsewhere; p-values corrected by "
            "Holm’s method for all slices looked at.",
        ),
        (
            any(model.calibration for model in models),
            "Calibration: expected calibration error over bins of equal width (Guo et al. 2017); its upper bound by the "
            "bootstrap over samples; the temperature is fitted on one half of the samples and judged on the other, and given "
            "where it helps.",
        ),
        (
            layers,
            "Insides: linear CKA (Kornblith et al. 2019) of the states of tokens that both tokenizers have, aligned by text.",
        ),
        (
            latencies,
            "Latency: models timed in turns with the same threads; medians with 95 % bootstrap intervals.",
        ),
    ]
    return [words for so, words in told if so]
