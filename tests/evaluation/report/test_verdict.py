"""The report's sentences: the answer first, with the test that stands behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kdcli.evaluation.comparison import compare
from kdcli.evaluation.document import Retention
from kdcli.evaluation.report.verdict import methods, verdict
from kdcli.evaluation.significance import ModelDifference
from tests.evaluation.report.material import answer, evaluation_of, family, seeds_of, task_of


def test_several_seeds_of_recipes_lead_the_verdict() -> None:
    task = task_of(["a", "b", "c"], 90)
    found = compare(task, "test", seeds_of(task, good=3.0, poor=1.0))
    assert verdict(found)[0].startswith("The recipe with the highest mean is good: it scores")
    assert "over 3 seeds" in verdict(found)[0]
    assert verdict(found)[1].startswith("Its difference from poor, +")


def test_what_is_kept_is_said_of_all_seeds_and_not_of_the_best_one() -> None:
    task = task_of(["a", "b", "c"], 90)
    teacher = answer(task, "bert", "teacher", 2.5, 9)
    runs = [replace(one, teachers=("bert",)) for one in seeds_of(task, good=3.0, poor=1.0)]
    found = compare(task, "test", [*runs, teacher])
    kept = [found.model(name).retention for name in found.recipes[0].models.values()]
    mean = sum(one.value for one in kept if one is not None) / 3
    said = verdict(found)
    assert (
        said[2]
        .replace("\u00a0", " ")
        .startswith(f"Its runs keep {100 * mean:.1f} % of their best teacher’s accuracy on average")
    )
    assert len(said) == 3


def test_teachers_alone_are_judged_themselves() -> None:
    task = task_of(["bad", "good"], 60)
    found = compare(task, "dev", [answer(task, "weak", "teacher", 1.0, 1), answer(task, "strong", "teacher", 3.0, 2)])
    assert verdict(found)[0].startswith("strong scores")


def test_verdict_says_what_the_test_found() -> None:
    task = task_of(["a", "b"], 60)
    found = evaluation_of(task, family(task))
    fields: dict[str, Any] = {
        "metric": "accuracy", "ours": "student", "theirs": "roberta", "low": -0.09, "high": -0.01, "smallest": 0.04,
        "test": "McNemar's exact test", "why": "", "samples": 60, "only_ours": 1, "only_theirs": 9,
    }  # fmt: skip
    models = [
        model.model_copy(
            update={
                "scores": {"accuracy": {"roberta": 0.9}.get(model.name, 0.85)},
                "parameters": 50_000_000 if model.name == "student" else 40_000_000,
                "retention": Retention(of="roberta", value=0.945, low=0.9, high=0.99),
            }
        )
        for model in found.models
    ]

    def sentences(p_value: float) -> list[str]:
        difference = ModelDifference(**fields, difference=-0.05, p_value=p_value)
        return verdict(found.model_copy(update={"models": models, "differences": [difference]}))

    assert sentences(0.021) == [
        "The student keeps 94.5\u00a0% (90.0–99.0) of the best teacher’s accuracy, with 1.2 times as many parameters.",
        "The difference from the best teacher (roberta), −5.0 points (−9.0 to −1.0), is significant (p = 0.021). "
        "These 60 samples can only show differences above 4.0 points (80 % power, 5 % level).",
    ]
    assert "is not significant (p = 0.200)" in sentences(0.2)[1]
    assert "(p < 0.001)" in sentences(0.0001)[1]


def test_methods_tell_of_nothing_that_was_not_done() -> None:
    task = task_of(["bad", "good"], 60)
    told = " ".join(methods([compare(task, "test", [answer(task, "mine", "model", 1.5, 1)])]))
    assert "Wilson" in told
    assert not [word for word in ("Holm", "McNemar", "Retention", "CKA", "Latency", "power", "seeds of") if word in told]
