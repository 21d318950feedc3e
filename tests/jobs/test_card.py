"""The model card: what the Hub reads of it, and that it says what was measured and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import EvalResult, ModelCard, metadata_load

from kdcli.data.task import Split, Task
from kdcli.data.task_loading import DataRequest, load_task
from kdcli.evaluation.agreement import Slice
from kdcli.evaluation.document import AgreementTable, Evaluation, ModelScore, Retention, Unscored
from kdcli.evaluation.report.number_format import parameters_text
from kdcli.jobs.card import model_card
from kdcli.plan.plan import Plan
from kdcli.tasks.calibration import calibrate
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_scores import class_scores
from kdcli.tasks.regression import Regression
from tests.plan.desk import Desk

BERT, ROBERTA = "google-bert/bert-base-uncased", "FacebookAI/roberta-base"
LOGITS = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]], dtype=np.float32)
LABELS = np.array([0, 1, 1])


@pytest.fixture(scope="module")
def task(tiny_data: Path) -> Task:
    return load_task(DataRequest(data=str(tiny_data)))


@pytest.fixture
def desk(tmp_path: Path, task: Task, tiny_bert: Path, tiny_roberta: Path) -> Desk:
    return Desk(tmp_path, task, tiny_bert, tiny_roberta)


def with_references(plan: Plan, **references: str) -> Plan:
    """The plan, its teachers named so, their files in the Hub's cache."""
    teachers = [
        teacher.model_copy(update={"reference": references[teacher.name], "folder": f"/cache/{teacher.name}/snapshots/1a2b"})
        if teacher.name in references
        else teacher
        for teacher in plan.teachers
    ]
    return plan.model_copy(update={"teachers": teachers})


def model(name: str, role: Any, accuracy: float, **more: Any) -> ModelScore:
    scores = {"accuracy": accuracy, "macro-f1": accuracy - 0.01}
    interval = (accuracy - 0.05, accuracy + 0.03)
    return ModelScore(name=name, role=role, kind="checkpoint", scores=scores, interval=interval, **more)


def evaluation(split: str = "dev", **more: Any) -> Evaluation:
    """A student with all that can be known of it, and those that it is compared with."""
    student = model(
        "student",
        "student",
        0.9,
        parameters=2_500_000,
        retention=Retention(of="roberta", value=0.957, low=0.921, high=0.989),
        retention_of_ensemble=Retention(of="ensemble", value=0.9473, low=0.91, high=0.98),
        calibration=calibrate(LOGITS, LABELS),
    )
    others = [
        model("without teachers", "without-teachers", 0.8, parameters=2_500_000),
        model("bert", "teacher", 0.92, parameters=109_000_000),
        model("roberta", "teacher", 0.94, parameters=125_000_000),
        model("ensemble", "ensemble", 0.95),
    ]
    fields = {
        "kdcli": "0", "task": "Film Reviews", "split": split, "rows": 60, "source": "/home/me/dev.jsonl",
        "fingerprint": "0123456789abcdef", "labels": ["negative", "positive"], "metric": "accuracy",
        "models": [student, *others],
    }  # fmt: skip
    return Evaluation(**{**fields, **more})


def read_back(text: str, folder: Path) -> tuple[dict[str, Any], list[EvalResult]]:
    """The metadata block, and the results in it, as the Hub's library reads them."""
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    data: dict[str, Any] = metadata_load(path) or {}
    return data, ModelCard.load(path).data.get("eval_results", [])


def test_the_hub_reads_back_one_result_for_each_split_and_metric(desk: Desk, tmp_path: Path) -> None:
    card = model_card(desk.plan_of("kdcli"), [evaluation("dev"), evaluation("test", rows=40)])
    data, results = read_back(card, tmp_path)
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-classification"
    assert {"knowledge-distillation", "kdcli"} <= set(data["tags"])
    assert data["metrics"] == ["accuracy", "f1"]
    assert [(each.dataset_split, each.metric_name, each.metric_type, each.metric_value) for each in results] == [
        ("dev", "accuracy", "accuracy", 0.9),
        ("dev", "macro-f1", "f1", 0.89),
        ("test", "accuracy", "accuracy", 0.9),
        ("test", "macro-f1", "f1", 0.89),
    ]
    assert {(each.task_type, each.dataset_name, each.dataset_type) for each in results} == {
        ("text-classification", "Film Reviews", "film-reviews")
    }
    assert results[0].metric_args == {"interval_95": pytest.approx([0.85, 0.93])}
    assert results[1].metric_args == {"average": "macro"}
    assert [(each.dataset_args or {})["rows"] for each in results] == [60, 60, 40, 40]


def test_every_metric_of_the_task_has_a_name_on_the_hub(desk: Desk, tmp_path: Path) -> None:
    plan = desk.plan_of("kdcli")
    kind = plan.task.known()
    student = model("student", "student", 0.9).model_copy(update={"scores": dict.fromkeys(kind.metrics, 0.5)})
    _, results = read_back(model_card(plan, [evaluation(models=[student])]), tmp_path)
    assert [each.metric_name for each in results] == list(kind.metrics)
    numbers = Regression()
    assert all(metric.on_hub[0] for metric in (*METRICS.values(), *(numbers.metrics | numbers.errors).values()))


def test_scores_of_numpy_can_be_written(desk: Desk, tmp_path: Path) -> None:
    student = model("student", "student", 0.9).model_copy(
        update={"scores": {"accuracy": np.float64(0.9)}, "interval": (np.float64(0.8), np.float64(1.0))}
    )
    _, results = read_back(model_card(desk.plan_of("kdcli"), [evaluation(models=[student])]), tmp_path)
    assert results[0].metric_value == 0.9


def test_base_models_are_the_teachers_from_the_hub_alone(desk: Desk, tmp_path: Path) -> None:
    plan = with_references(desk.plan_of("kdcli"), bert=BERT, roberta=ROBERTA)
    card = model_card(plan, [evaluation()])
    assert read_back(card, tmp_path)[0]["base_model"] == [BERT, ROBERTA]
    assert f"[{BERT}](https://huggingface.co/{BERT})" in card
    mixed = model_card(with_references(desk.plan_of("kdcli"), bert=BERT), [evaluation()])
    assert read_back(mixed, tmp_path)[0]["base_model"] == [BERT]


@pytest.mark.parametrize("reference", ["models/bert", "./models", "/models/bert", "~/models"])
def test_a_folder_is_no_base_model(desk: Desk, tmp_path: Path, reference: str) -> None:
    plan = desk.plan_of("kdcli")
    local = plan.teachers[0].model_copy(update={"reference": reference, "folder": f"/home/me/{reference}"})
    card = model_card(plan.model_copy(update={"teachers": [local]}), [evaluation()])
    assert "base_model" not in read_back(card, tmp_path)[0]


def test_no_path_of_this_machine_is_told(desk: Desk, tmp_path: Path, tiny_bert: Path) -> None:
    card = model_card(desk.plan_of("kdcli"), [evaluation()])
    assert str(tiny_bert) not in card
    assert str(tmp_path) not in card
    assert "/home/me" not in card


def test_teachers_are_listed_and_assistants_too(desk: Desk) -> None:
    card = model_card(desk.plan_of("teacher-assistant", teachers=f"bert={desk.models[0]}"), [evaluation()])
    assert "| bert | bert | 4 | 32 |" in card
    assert "| co-finetuned in the same run |" in card
    assert "| assistant-1 | bert | 3 | 32 |" in card


def test_a_student_without_teachers_is_not_called_distilled(desk: Desk) -> None:
    card = model_card(desk.plan_of("finetune"), [evaluation()])
    assert "Trained on labels alone" in card
    assert "Distilled" not in card
    assert "It began with layers 1–2 of pre-trained bert." in card
    assert "| roberta | roberta |" not in card


def test_a_card_says_where_student_and_baseline_did_not_begin_alike(desk: Desk) -> None:
    plan = desk.plan_of("kdcli", baseline=True)
    assert "- The student began with layers 2, 4 of co-finetuned bert, the one without" in model_card(plan, [evaluation()])
    assert "the one without" not in model_card(desk.plan_of("kdcli"), [evaluation()])


def test_a_student_with_random_weights_says_so(desk: Desk) -> None:
    assert "It began with random weights." in model_card(desk.plan_of("kdcli", student="2L-16H"), [evaluation()])


def test_the_recipe_is_told_with_its_stages_and_what_was_changed(desk: Desk) -> None:
    card = model_card(desk.plan_of("annealing", "training.batch_size=8", teachers=f"bert={desk.models[0]}"), [evaluation()])
    assert "`annealing`: First the teacher's logits" in card
    assert "Jafari et al." in card
    assert "| distill | logits | 7 | logits-mse × 1 |" in card
    assert "With other values than the recipe has: `training.batch_size=8`." in card
    assert "In batches of 8" in card


def test_scores_have_intervals_and_the_share_of_the_teachers(desk: Desk) -> None:
    card = model_card(desk.plan_of("kdcli"), [evaluation(), evaluation("test")])
    assert "### dev split" in card
    assert "### test split" in card
    assert (
        "| student | 2.5M | 0.9000 | 0.8500 to 0.9300 | 95.7% of roberta (92.1% to 98.9%) "
        "| 94.7% of ensemble (91.0% to 98.0%) |" in card
    )
    assert "| without teachers | 2.5M | 0.8000 | 0.7500 to 0.8300 |  |  |" in card
    assert "| ensemble |  | 0.9500 |" in card
    assert "The student by other metrics: macro-f1 0.8900." in card


def test_rows_and_fingerprints_of_all_splits_are_told(desk: Desk, task: Task) -> None:
    card = model_card(desk.plan_of("kdcli"), [evaluation()])
    for name, split in task.splits.items():
        assert f"| {name} | {len(split)} | `{split.fingerprint}` |" in card


def test_use_fits_single_texts_and_pairs(desk: Desk, task: Task) -> None:
    assert 'classify("some text", truncation=True, max_length=128)' in model_card(desk.plan_of("kdcli"), [evaluation()])
    pairs: dict[str, Split] = {
        name: Split(split.texts, split.texts, split.targets, split.source, split.fingerprint)
        for name, split in task.splits.items()
    }
    plan = desk.plan_of("kdcli", task=Task("pairs", task.kind, "accuracy", pairs))
    assert 'classify({"text": "some text", "text_pair": "another text"}, truncation=True' in model_card(plan, [evaluation()])


def test_limits_name_calibration_temperature_and_the_split_that_chose(desk: Desk) -> None:
    found = calibrate(LOGITS, LABELS)
    card = model_card(desk.plan_of("kdcli"), [evaluation()])
    assert f"off by {found.ece:.1%} on average" in card
    assert f"at most {found.ece_high:.1%} with 97.5 % confidence" in card
    assert ("With its logits divided by" in card) == (found.mended is not None)
    assert "The checkpoint was chosen on the dev split, so that the scores above flatter it a little." in card
    assert "No other split was scored." in card
    assert "No other split" not in model_card(desk.plan_of("kdcli"), [evaluation(), evaluation("test")])
    assert "flatter" not in model_card(desk.plan_of("kdcli"), [evaluation("test")])


def a_slice(name: str, p_value: float) -> Slice:
    return Slice("word", name, samples=30, teacher=0.9, student=0.7, difference=-0.2, elsewhere=-0.01, p_value=p_value)


def test_limits_name_slices_only_where_they_are_significant(desk: Desk) -> None:
    table = AgreementTable(
        teacher="roberta", student="student", both_right=50, lost=5, gained=1, both_wrong=4, changed=6,
        slices=[a_slice("not", 0.01), a_slice("never", 0.2)],
    )  # fmt: skip
    card = model_card(desk.plan_of("kdcli"), [evaluation(agreements=[table])])
    assert "loses more accuracy to roberta than elsewhere (p ≤ 0.05) in: word not (90.0% → 70.0%)." in card
    assert "never" not in card
    assert "than elsewhere" not in model_card(desk.plan_of("kdcli"), [evaluation()])


def test_what_was_not_measured_is_not_spoken_of(desk: Desk, tmp_path: Path) -> None:
    bare = evaluation(models=[model("student", "student", 0.9)])
    card = model_card(desk.plan_of("kdcli"), [bare])
    assert "calibration" not in card
    assert "of the teachers together" not in card
    nothing = model_card(desk.plan_of("kdcli"), [])
    assert "None were measured." in nothing
    assert "model-index" not in read_back(nothing, tmp_path)[0]


def test_classes_without_a_sample_are_named(desk: Desk) -> None:
    classes = class_scores(np.array([0, 1]), np.array([0, 0]), ["negative", "positive"])
    student = model("student", "student", 0.9, classes=classes)
    card = model_card(desk.plan_of("kdcli"), [evaluation(models=[student])])
    assert "On the dev split no sample is of class positive." in card


@pytest.mark.parametrize("name", ["a | b", "two\nlines", "---", "yes", "1.0", "key: 'value' # no comment", "Ünïcode ✓", "!!!"])
def test_odd_names_leave_metadata_and_tables_whole(desk: Desk, tmp_path: Path, name: str) -> None:
    student = model(name, "student", 0.9)
    text = model_card(desk.plan_of("kdcli"), [evaluation(models=[student], task=name)])
    _, results = read_back(text, tmp_path)
    assert results[0].dataset_name == name
    (line,) = [line for line in text.splitlines() if "0.8500 to 0.9300" in line]
    assert line.replace("\\|", "").count("|") == 6


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[click](javascript:alert(1))", "![x](http://evil)",
        "`code`", "**bold**", "a|b", "a\n# heading", "a\n---\nb: c", "# heading", "$math$", "&lt;", "~~gone~~", "a\x1b[31mb",
        "a\u202eb", "__init__",
    ],
)  # fmt: skip
def test_names_are_text_and_nothing_else(desk: Desk, tmp_path: Path, name: str) -> None:
    plan = desk.plan_of("kdcli")
    plan = plan.model_copy(update={"task": plan.task.model_copy(update={"labels": ["fine", name], "name": name})})
    card = model_card(plan, [evaluation(task=name, labels=["fine", name])])
    body = card.split("\n---\n", 1)[1]
    rendered = _without_escapes(body)
    for mark in ("<script", "<img", "](javascript", "](http://evil", "**bold", "~~gone", "\x1b", "\u202e", "&lt;"):
        assert mark not in rendered
    assert [line for line in body.splitlines() if line.startswith("# ")] == [body.splitlines()[1]]
    read_back(card, tmp_path)


def _without_escapes(text: str) -> str:
    """What is left as Markdown where every character behind a backslash is taken out."""
    return re.sub(r"\\.", "", text)


def test_parameters_are_the_same_in_every_table(desk: Desk) -> None:
    plan = desk.plan_of("kdcli")
    sizes = {teacher.name: teacher.parameters for teacher in plan.given_teachers}
    models = [model("student", "student", 0.9, parameters=plan.student_or_fail.parameters)]
    models += [model(name, "teacher", 0.9, parameters=size) for name, size in sizes.items()]
    card = model_card(plan, [evaluation(models=models)])
    for name, size in sizes.items():
        rows = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        assert len(rows) == 2
        assert all(f"| {parameters_text(size)} |" in row for row in rows)


def test_a_model_without_a_score_and_what_is_in_doubt_are_in_the_card(desk: Desk) -> None:
    spoilt = Unscored(name="spoilt", role="export", kind="onnx", not_finite=3, rows=60)
    card = model_card(desk.plan_of("kdcli"), [evaluation(unscored=[spoilt], cautions=["bert is under-trained: …"])])
    assert "| spoilt |  | no score |" in card
    assert "- On the dev split bert is under-trained: …." in card
