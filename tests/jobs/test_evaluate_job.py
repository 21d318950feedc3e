"""Evaluate: runs, checkpoints and other data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Event, Events, WorkStarted
from kdcli.errors import RequestError
from kdcli.evaluation.document import Evaluation
from kdcli.evaluation.gates import Gate
from kdcli.jobs.distill import distill
from kdcli.jobs.evaluate import EvaluateRequest, evaluate
from kdcli.jobs.export import ExportRequest, export
from kdcli.jobs.request_checks import dry_plan
from kdcli.plan.request import TrainRequest
from tests.jobs.conftest import QUICK

TinyRun = tuple[Path, list[Event]]


def scored(*targets: Path | str, **more: Any) -> Evaluation:
    """What ``kdcli evaluate`` says of them, without a report."""
    request = EvaluateRequest(targets=tuple(map(str, targets)), device="cpu", report=False, **more)
    return evaluate(request, Events()).evaluation


def test_dev_scores_are_those_of_the_run(tiny_run: TinyRun) -> None:
    at_the_end = json.loads((tiny_run[0] / "evaluation.json").read_text())
    again = evaluate(EvaluateRequest(targets=(str(tiny_run[0]),), split="dev", device="cpu", report=False), Events())
    assert again.evaluation.model_dump(mode="json") == at_the_end


def test_student_and_all_teachers_are_scored_on_the_same_rows(tiny_run: TinyRun) -> None:
    found = scored(tiny_run[0])
    assert (found.split, found.rows) == ("test", 40)
    roles = [model.role for model in found.models]
    assert roles == ["student", "without-teachers", "teacher", "teacher", "ensemble", "majority"]
    best = found.best_teacher
    assert best is not None
    kept = found.model("student").retention
    assert kept is not None
    assert kept.value == found.model("student").scores["accuracy"] / best.scores["accuracy"]
    assert (tiny_run[0] / "evaluation-test.json").is_file()


def test_checkpoint_is_scored_on_given_data(tiny_run: TinyRun, tiny_data: Path) -> None:
    found = scored(tiny_run[0] / "student", data=DataRequest(data=str(tiny_data)))
    assert found.model("student").scores == scored(tiny_run[0]).model("student").scores


def test_run_is_scored_on_another_test_file(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    lines = (tiny_data / "test.jsonl").read_text().splitlines()[:10]
    (tmp_path / "other.jsonl").write_text("\n".join(lines) + "\n")
    assert scored(tiny_run[0], data=DataRequest(test=str(tmp_path / "other.jsonl"))).rows == 10


def test_checkpoint_with_other_classes_is_refused_with_both_lists(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a,cat\nb,dog\n" * 20)
    with pytest.raises(RequestError, match=r"cat, dog(.|\n)*negative, positive"):
        evaluate(EvaluateRequest(targets=(str(tiny_run[0] / "student"),), data=DataRequest(data=str(tmp_path))), Events())


def test_all_models_with_other_classes_are_said_before_any_is_asked(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a,cat\nb,dog\n" * 20)
    told: list[Event] = []
    words = (str(tiny_run[0] / "student"), str(tiny_run[0] / "baseline"), str(tiny_run[0] / "teachers" / "bert"))
    with pytest.raises(RequestError) as refused:
        evaluate(EvaluateRequest(targets=words, data=DataRequest(data=str(tmp_path))), Events([told.append]))
    assert len(refused.value.problems) == 3
    assert not any(isinstance(event, WorkStarted) and "asking" in event.title for event in told)


def test_checkpoint_without_data_is_refused(tiny_run: TinyRun) -> None:
    with pytest.raises(RequestError, match="--data FILE, or --task"):
        evaluate(EvaluateRequest(targets=(str(tiny_run[0] / "student"),)), Events())


def test_run_without_a_student_says_how_to_finish_it(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copy(tiny_run[0] / "plan.yaml", tmp_path)
    with pytest.raises(RequestError, match="--resume"):
        evaluate(EvaluateRequest(targets=(str(tmp_path),)), Events())


def seeds_of(run: Path, folder: Path) -> Path:
    """Two copies of a run in a folder, as two seeds."""
    for seed in (0, 1):
        shutil.copytree(run, folder / f"s{seed}", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
        plan = yaml.safe_load((folder / f"s{seed}" / "plan.yaml").read_text())
        plan["request"]["seed"] = seed
        (folder / f"s{seed}" / "plan.yaml").write_text(yaml.safe_dump(plan))
    return folder


def test_runs_side_by_side_bring_their_teachers_and_are_compared(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = seeds_of(tiny_run[0], tmp_path / "seeds")
    found = scored(folder)
    assert {model.name for model in found.of("student")} == {"s0", "s1"}
    assert {model.name for model in found.of("teacher")} == {"bert", "roberta", "bert of s1", "roberta of s1"}
    assert {model.name for model in found.of("without-teachers")} == {"s0 without teachers", "s1 without teachers"}
    assert {(recipe.name, len(recipe.scores)) for recipe in found.recipes} == {("seeds", 2), ("seeds without teachers", 2)}
    assert [{one.ours, one.theirs} for one in found.recipe_differences] == [{"seeds", "seeds without teachers"}]
    kept = found.model("s1").retention
    assert kept is not None
    assert kept.of.endswith(" of s1")


def test_teachers_that_runs_share_are_asked_once(
    tiny_run: TinyRun, tiny_data: Path, request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    request = request_for_tiny.model_copy(update={"teachers": str(tiny_run[0]), "baseline": False})
    runs = [distill(request, Events(), tmp_path / name)[0].path for name in ("a", "b")]
    told: list[Event] = []
    again = EvaluateRequest(targets=tuple(map(str, runs)), device="cpu", report=False)
    found = evaluate(again, Events([told.append])).evaluation
    assert {model.name for model in found.of("teacher")} == {"bert", "roberta"}
    assert [model.name for model in found.of("ensemble")] == ["ensemble of bert and roberta"]
    titles = [event.title for event in told if isinstance(event, WorkStarted)]
    assert titles.count("asking teacher bert") == 1


def test_a_teacher_under_a_shared_head_says_what_it_says_in_its_run(tiny_run: TinyRun, tiny_data: Path) -> None:
    data = DataRequest(data=str(tiny_data))
    alone = scored(tiny_run[0] / "teachers" / "bert", data=data).model("bert")
    assert alone.scores == scored(tiny_run[0]).model("bert").scores
    assert alone.role == "model"


def test_named_teachers_give_a_checkpoint_its_retention(tiny_run: TinyRun, tiny_data: Path) -> None:
    data = DataRequest(data=str(tiny_data))
    found = scored(tiny_run[0] / "student", data=data, teachers=str(tiny_run[0]))
    assert found.model("student").retention == scored(tiny_run[0]).model("student").retention
    assert {one.student for one in found.agreements} == {"student"}
    assert found.of("ensemble")


def test_onnx_files_answer_as_the_checkpoint_does(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export(ExportRequest(target=tiny_run[0], out=folder, precisions=("fp32",), benchmark="off"), Events())
    data = DataRequest(data=str(tiny_data))
    found = scored(tiny_run[0] / "student", folder, data=data)
    files = [model for model in found.models if model.kind == "onnx"]
    assert [model.scores for model in files] == [found.model("student").scores]
    assert files[0].bytes == (folder / "onnx" / "model.onnx").stat().st_size
    assert found.differences[0].difference == 0


def test_predictions_made_elsewhere_are_scored(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (tiny_data / "test.jsonl").read_text().splitlines()]
    wrong = {"positive": "negative", "negative": "positive"}
    answers = [wrong[row["label"]] if place < 4 else row["label"] for place, row in enumerate(rows)]
    (tmp_path / "theirs.csv").write_text("id,prediction\n" + "".join(f"{row},{one}\n" for row, one in enumerate(answers)))
    found = scored(tiny_run[0], f"theirs={tmp_path / 'theirs.csv'}")
    theirs = found.model("theirs")
    assert theirs.scores["accuracy"] == 0.9
    assert theirs.calibration is None
    assert theirs.retention is None  # they never had the run's teachers
    named = scored(tiny_run[0], f"theirs={tmp_path / 'theirs.csv'}", teachers=f"mine={tiny_run[0] / 'baseline'}")
    assert named.model("theirs").retention is not None


def test_predictions_of_another_length_or_class_or_without_a_column_are_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    table = tmp_path / "theirs.csv"
    table.write_text("prediction\npositive\n")
    with pytest.raises(RequestError, match=r"theirs\.csv: has not as many predictions(.|\n)*40(.|\n)*1"):
        scored(tiny_run[0], table)
    table.write_text("prediction\n" + "positve\n" * 40)
    with pytest.raises(RequestError, match=r"theirs\.csv:2: 'positve' is not a class(.|\n)*did you mean 'positive'"):
        scored(tiny_run[0], table)
    table.write_text("score\n" + "0.4\n" * 40)
    with pytest.raises(RequestError, match=r"no column with predicted classes(.|\n)*score"):
        scored(tiny_run[0], table)


def test_classes_in_another_order_are_matched_by_name(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    turned = tmp_path / "student"
    shutil.copytree(tiny_run[0] / "student", turned)
    config = json.loads((turned / "config.json").read_text())
    config["id2label"] = {"0": config["id2label"]["1"], "1": config["id2label"]["0"]}
    config["label2id"] = {name: int(row) for row, name in config["id2label"].items()}
    (turned / "config.json").write_text(json.dumps(config))
    data = DataRequest(data=str(tiny_data))
    right = scored(tiny_run[0] / "student", data=data).model("student").scores["accuracy"]
    assert scored(turned, data=data).model("student").scores["accuracy"] == pytest.approx(1 - right)


def test_a_split_that_is_not_there_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "a,negative\nb,positive\n" * 40)
    request = DataRequest(data=str(tmp_path))
    with pytest.raises(RequestError, match=r"--split test: (.|\n)*no such split with labels(.|\n)*dev"):
        scored(tiny_run[0] / "student", data=request, split="test")


def test_one_file_is_scored_on_as_a_whole(tiny_run: TinyRun, tiny_data: Path) -> None:
    data = DataRequest(data=str(tiny_data / "test.jsonl"))
    alone = scored(tiny_run[0] / "student", data=data)
    assert (alone.split, alone.rows, alone.notes) == ("test", 40, [])
    in_run = scored(tiny_run[0])
    assert alone.model("student").scores == in_run.model("student").scores
    assert scored(tiny_run[0], data=data).model("bert").scores == in_run.model("bert").scores
    assert [model.role for model in alone.models] == ["model"]


def test_a_file_that_lacks_a_class_of_the_model_is_scored_with_all_its_classes(tmp_path: Path, tiny_bert: Path) -> None:
    lines = [f"{text},{label}" for text, label in (("fine", "good"), ("bad", "bad"), ("so so", "mixed"))] * 30
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]))
    request = TrainRequest(
        command="distill", teachers=f"bert={tiny_bert}", student="1L", data=DataRequest(data=str(tmp_path / "train.csv")),
        overrides=QUICK, device="cpu",
    )  # fmt: skip
    run, _ = distill(request, Events(), tmp_path / "run")
    (tmp_path / "some.csv").write_text("\n".join(["text,label", *(line for line in lines if "bad" not in line)]))
    for target in (run.path, run.student):
        found = scored(target, data=DataRequest(data=str(tmp_path / "some.csv")))
        assert found.labels == ["bad", "good", "mixed"]
        assert any("no sample of class bad" in note for note in found.notes)
        assert sum(map(sum, found.judged[0].confusion)) == found.rows == 60


def test_a_test_file_without_labels_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text\n" + "a\nb\n" * 10)
    with pytest.raises(RequestError, match=r"test\.csv: (.|\n)*label"):
        scored(tiny_run[0], data=DataRequest(test=str(tmp_path / "test.csv")))


def test_a_class_that_the_test_file_lacks_is_said(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\n" + "a,positive\nb,positive\n" * 10)
    found = scored(tiny_run[0], data=DataRequest(test=str(tmp_path / "test.csv")))
    assert any("no sample of class negative" in note for note in found.notes)


def test_a_run_keeps_document_card_report_tables_and_insides(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run[0], run, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    done = evaluate(EvaluateRequest(targets=(str(run),), device="cpu"), Events())
    assert done.report == run / "report.html"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "roberta" in page
    assert Evaluation.model_validate_json((run / "evaluation-test.json").read_text()) == done.evaluation
    assert {path.name for path in (run / "tables" / "test").iterdir()} >= {"scores.csv", "classes.csv", "predictions.csv"}
    assert {one["teacher"] for one in json.loads((run / "insides.json").read_text())["teachers"]} == {"bert", "roberta"}
    results = ModelCard.load(run / "student" / "README.md").data.eval_results
    assert {(result.dataset_split, result.metric_type) for result in results} >= {("test", "accuracy"), ("dev", "accuracy")}


def test_other_data_leave_the_run_as_it_was(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_run[0].rglob("*") if path.is_file()}
    request = EvaluateRequest(
        targets=(str(tiny_run[0]),), data=DataRequest(test=str(tiny_data / "dev.jsonl")), device="cpu", out=tmp_path / "proof"
    )
    done = evaluate(request, Events())
    assert done.report == tmp_path / "proof" / "report.html"
    assert (tmp_path / "proof" / "evaluation.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in tiny_run[0].rglob("*") if path.is_file()} == before


def test_the_suggested_recipe_is_one_that_can_be_distilled_with(
    tiny_run: TinyRun, request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    path = tmp_path / "suggested.yaml"
    scored(tiny_run[0], suggest_map=path)
    plan = dry_plan(request_for_tiny.model_copy(update={"recipe": str(path), "overrides": ()}), Events())
    layers = next(term.layers for stage in plan.hops[-1].stages for term in stage.terms if term.layers)
    assert layers.keys() == {"bert", "roberta"}
    with pytest.raises(RequestError, match="about one run"):
        scored(tiny_run[0] / "student", suggest_map=path)


def test_the_document_fits_its_schema(tiny_run: TinyRun) -> None:
    found = scored(tiny_run[0], gates=(Gate.parse("min-score", "0.1"),))
    schema = Evaluation.model_json_schema(mode="serialization")
    jsonschema.validate(found.model_dump(mode="json"), schema)
    assert schema["properties"]["format"]["const"] == 3


def test_a_model_is_not_held_against_teachers_that_it_never_had(tiny_run: TinyRun, tmp_path: Path) -> None:
    foreign = Path(shutil.copytree(tiny_run[0] / "student", tmp_path / "foreign"))
    found = scored(tiny_run[0], foreign, tiny_run[0] / "baseline", data=DataRequest())
    assert found.model("student").retention is not None
    assert found.model("foreign").retention is None
    assert found.model("baseline").retention is not None  # it lies in the run's folder
    named = scored(tiny_run[0], foreign, teachers=f"mine={tiny_run[0] / 'baseline'}")
    kept = named.model("foreign").retention
    assert kept is not None
    assert kept.of == "mine"


def test_a_run_and_teachers_of_kdclis_own_names_stay_apart(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run[0], tmp_path / "bert", ignore=shutil.ignore_patterns("checkpoints", "tensorboard")))
    taken = ",".join(f"{name}={run / 'baseline'}" for name in ("student", "ensemble", "latest"))
    found = scored(run, f"student={run / 'baseline'}", teachers=taken)
    names = [model.name for model in found.models]
    assert len(names) == len(set(names))
    assert [model.name for model in found.of("student")] == ["student"]
    assert {"teacher student", "teacher ensemble", "latest", "bert", "roberta"} <= {one.name for one in found.of("teacher")}
    assert found.of("model")[0].name == "model student"
    two = scored(run, seeds_of(tiny_run[0], tmp_path / "seeds"))
    assert {model.name for model in two.of("student")} == {"bert", "s0", "s1"}


def test_a_checkpoint_whose_outputs_are_not_finite_is_refused(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_run[0] / "student", tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    data = DataRequest(data=str(tiny_data))
    gate = (Gate.parse("min-score", "0.1"),)
    for request in ({"data": data, "gates": gate}, {"teachers": f"bad={broken}", "data": data}):
        words = (broken,) if "gates" in request else (tiny_run[0] / "student",)
        with pytest.raises(RequestError, match="its outputs are not finite for 40 of 40 samples, so that it has no score"):
            scored(*words, **request)
    with pytest.raises(RequestError, match="not finite"):
        export(ExportRequest(target=broken, out=tmp_path / "export", benchmark="off", data=data), Events())
    assert not (tmp_path / "export").exists()


def test_a_run_whose_student_is_not_finite_passes_no_gate(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = seeds_of(tiny_run[0], tmp_path / "seeds")
    weights = load_file(folder / "s1" / "student" / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, folder / "s1" / "student" / "model.safetensors", {"format": "pt"})
    found = scored(folder, gates=(Gate.parse("min-score", "0.1"),))
    assert {(gate.model, gate.passed) for gate in found.gates} == {("s0", True), ("s1", False)}
    assert [one.name for one in found.unscored] == ["s1"]
    with pytest.raises(RequestError, match="has no score"):
        scored(folder / "s1")
