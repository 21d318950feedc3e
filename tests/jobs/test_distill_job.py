"""The main job, end to end, on two tiny models of different architectures and tokenizers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Evaluated, Event, Events, PhaseStarted, StepDone
from kdcli.errors import GateError, InterruptedRunError, RequestError
from kdcli.jobs.distill import distill
from kdcli.jobs.evaluate import EvaluateRequest, evaluate
from kdcli.plan.request import TrainRequest
from kdcli.recipe.yaml_document import Override
from tests.jobs.conftest import QUICK

TinyRun = tuple[Path, list[Event]]


def test_run_folder_holds_everything_and_nothing_half_written(tiny_run: TinyRun) -> None:
    run, _ = tiny_run
    names = {path.name for path in run.iterdir()}
    assert {"plan.yaml", "metrics.jsonl", "teachers", "student", "baseline", "checkpoints", "evaluation.json"} <= names
    assert {path.name for path in (run / "teachers").iterdir()} == {
        "bert", "roberta", "head.json", "head.safetensors", "SHA256SUMS"
    }  # fmt: skip
    assert (run / "student" / "README.md").is_file()
    assert not list(run.rglob(".*.partial"))


def test_student_learns_the_task_from_its_teachers(tiny_run: TinyRun) -> None:
    evaluation = json.loads((tiny_run[0] / "evaluation.json").read_text())
    scores = {model["role"]: model["scores"]["accuracy"] for model in evaluation["models"]}
    assert scores["teacher"] > 0.9
    assert scores["student"] > 0.9
    assert scores["majority"] < 0.7
    assert {model["name"] for model in evaluation["models"] if model["role"] == "teacher"} == {"bert", "roberta"}


def test_student_has_no_projection_and_no_teacher_in_it(tiny_run: TinyRun) -> None:
    weights = load_file(tiny_run[0] / "student" / "model.safetensors")
    assert all(name.startswith(("bert.", "classifier.")) for name in weights)
    assert sum(".layer.1." in name for name in weights) > 0
    assert not any(".layer.2." in name for name in weights)


def test_pipeline_without_kdcli_gives_the_answers_of_evaluate(tiny_run: TinyRun, tiny_data: Path, tmp_path: Path) -> None:
    run, _ = tiny_run
    rows = [json.loads(line) for line in (tiny_data / "test.jsonl").read_text().splitlines()]
    program = (
        "import json, sys\n"
        "sys.modules['kdcli'] = None\n"  # importing kdcli now fails, as where it is not installed
        "from transformers import pipeline\n"
        f"classify = pipeline('text-classification', {str(run / 'student')!r}, device='cpu')\n"
        f"texts = {[row['text'] for row in rows]!r}\n"
        "print(json.dumps([answer['label'] for answer in classify(texts)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    answers = json.loads(done.stdout.splitlines()[-1])
    accuracy = sum(answer == row["label"] for answer, row in zip(answers, rows, strict=True)) / len(rows)
    ours = evaluate(EvaluateRequest(targets=(str(run),), device="cpu", report=False), Events()).evaluation
    assert ours.split == "test"
    assert ours.model("student").scores["accuracy"] == accuracy


def test_teachers_load_with_auto_model(tiny_run: TinyRun) -> None:
    from transformers import AutoModel, AutoTokenizer

    for name, width in (("bert", 32), ("roberta", 48)):
        model: Any
        model, report = AutoModel.from_pretrained(tiny_run[0] / "teachers" / name, output_loading_info=True)
        assert not report["missing_keys"]
        assert model.config.hidden_size == width
        assert AutoTokenizer.from_pretrained(tiny_run[0] / "teachers" / name).is_fast


def test_plan_records_request_seeds_versions_and_fingerprints(tiny_run: TinyRun) -> None:
    plan = yaml.safe_load((tiny_run[0] / "plan.yaml").read_text())
    assert plan["request"]["seed"] == 0
    assert plan["versions"]["torch"]
    assert all(len(split["fingerprint"]) == 16 for split in plan["task"]["splits"].values())
    assert all(teacher["fingerprint"] for teacher in plan["teachers"])
    assert plan["hops"][0]["stages"][0]["terms"][2]["layers"]["roberta"] == {1: 3, 2: 6}
    assert plan["recipe"]["student"]["init"]["from"] == "first-teacher"


def test_metrics_file_has_every_phase_and_every_term(tiny_run: TinyRun) -> None:
    entries = [json.loads(line) for line in (tiny_run[0] / "metrics.jsonl").read_text().splitlines()]
    assert {entry["phase"] for entry in entries} == {"cofinetune", "distill", "baseline"}
    terms = {key for entry in entries if entry["kind"] == "train" and entry["phase"] == "distill" for key in entry["values"]}
    assert {"loss", "loss/hard-labels", "loss/soft-labels", "loss/hidden-mse", "learning-rate", "gradient-norm"} <= terms
    assert "soft-labels/weight-spread/bert" in terms


def test_steps_and_evaluations_are_told_as_events(tiny_run: TinyRun) -> None:
    _, told = tiny_run
    phases = [event.phase for event in told if isinstance(event, PhaseStarted)]
    assert phases == ["cofinetune", "distill", "baseline"]
    steps = [event.step for event in told if isinstance(event, StepDone) and event.phase == "distill"]
    assert steps == list(range(1, 41))
    assert sum(isinstance(event, Evaluated) and event.phase == "distill" for event in told) == 4


class _InterruptAt:
    """Presses Ctrl-C at a step of a phase."""

    def __init__(self, phase: str, step: int) -> None:
        self.phase, self.step = phase, step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and (event.phase, event.step) == (self.phase, self.step):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("phase", "step"), [("cofinetune", 7), ("distill", 13)])
def test_interrupted_run_resumes_to_the_same_student(
    phase: str, step: int, tiny_run: TinyRun, request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    alone = request_for_tiny.model_copy(update={"baseline": False})
    with pytest.raises(InterruptedRunError, match="--resume"):
        distill(alone, Events([_InterruptAt(phase, step)]), out)
    assert not (out / "student").exists()
    told: list[Event] = []
    distill(None, Events([told.append]), out, resume=True)
    first = next(event for event in told if isinstance(event, PhaseStarted))
    assert (first.phase, first.step) == (phase, step)
    resumed, whole = load_file(out / "student" / "model.safetensors"), load_file(tiny_run[0] / "student" / "model.safetensors")
    assert resumed.keys() == whole.keys()
    assert all((resumed[name] == whole[name]).all() for name in whole)
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    logged = [entry["step"] for entry in entries if entry["phase"] == phase and entry["kind"] == "train"]
    assert logged == sorted(set(logged))


def test_resume_with_other_flags_is_refused(tiny_run: TinyRun, request_for_tiny: TrainRequest) -> None:
    with pytest.raises(RequestError, match="seed"):
        distill(request_for_tiny.model_copy(update={"seed": 5}), Events(), tiny_run[0], resume=True)


def test_out_that_is_there_already_is_refused(tiny_run: TinyRun, request_for_tiny: TrainRequest) -> None:
    with pytest.raises(RequestError, match="--resume"):
        distill(request_for_tiny, Events(), tiny_run[0])


def test_cofinetuned_teachers_are_reused_by_their_run_folder(
    tiny_run: TinyRun, request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    told: list[Event] = []
    request = request_for_tiny.model_copy(update={"teachers": str(tiny_run[0]), "baseline": False, "student": "3L"})
    run, evaluation = distill(request, Events([told.append]), tmp_path / "again")
    assert [event.phase for event in told if isinstance(event, PhaseStarted)] == ["distill"]
    assert not run.teachers.exists()
    assert evaluation.model("student").scores["accuracy"] > 0.9


@pytest.fixture(scope="module")
def swapped(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student as a teacher, its classes in the other order."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("swapped") / "teacher"
    model: Any = AutoModelForSequenceClassification.from_pretrained(tiny_run[0] / "student")
    model.classifier.weight.data = model.classifier.weight.data.flip(0)
    model.classifier.bias.data = model.classifier.bias.data.flip(0)
    model.config.id2label = {0: "POSITIVE", 1: "NEGATIVE"}
    model.config.label2id = {"POSITIVE": 0, "NEGATIVE": 1}
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_run[0] / "student").save_pretrained(folder)
    return folder


def taught_by(swapped: Path, request: TrainRequest, student: str, *flags: str) -> TrainRequest:
    """A distillation from that teacher alone."""
    kept = tuple(override for override in request.overrides if override.path[0] != "student")
    overrides = kept + tuple(map(Override.parse, flags))
    return request.model_copy(
        update={"teachers": f"mine={swapped}", "student": student, "baseline": False, "overrides": overrides}
    )


def test_finetuned_teacher_with_labels_in_another_order_is_matched_by_name(
    swapped: Path, request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    _, evaluation = distill(taught_by(swapped, request_for_tiny, "1L"), Events(), tmp_path / "run")
    assert evaluation.best_teacher is not None
    assert evaluation.best_teacher.scores["accuracy"] > 0.9


@pytest.mark.parametrize("head", ["kept", "fresh"])
def test_a_student_cut_from_a_finetuned_teacher_has_its_head_in_the_order_of_the_task(
    head: str, swapped: Path, request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    """As deep as its teacher and hardly trained, it is its teacher."""
    still = ["training.learning_rate=1e-12", "training.head_learning_rate=1e-12", "stages.0.epochs=1", "training.warmup=0"]
    request = taught_by(swapped, request_for_tiny, "2L", *still, f"student.init.head={head}")
    run, evaluation = distill(request, Events(), tmp_path / "run")
    teacher, student = (model.scores["accuracy"] for model in (evaluation.model("mine"), evaluation.model("student")))
    if head == "kept":
        assert student == teacher > 0.9
    ours, theirs = (load_file(folder / "model.safetensors")["classifier.weight"] for folder in (run.student, swapped))
    assert torch.allclose(ours, theirs.flip(0), atol=1e-6) == (head == "kept")
    told = run.read_plan().first_weights(run.read_plan().student_or_fail)
    assert told == ("layers 1–2 and the head of fine-tuned mine" if head == "kept" else "layers 1–2 of fine-tuned mine")


def test_texts_made_from_texts_are_taught_on_and_not_scored(
    tiny_run: TinyRun, request_for_tiny: TrainRequest, tmp_path: Path
) -> None:
    more = tuple(map(Override.parse, ("augmentation.copies=1", "stages.0.epochs=1")))
    request = request_for_tiny.model_copy(
        update={"teachers": str(tiny_run[0]), "baseline": True, "overrides": request_for_tiny.overrides + more}
    )
    told: list[Event] = []
    run, _ = distill(request, Events([told.append]), tmp_path / "run")
    plan = run.read_plan()
    rows, made = plan.task.splits["train"].rows, plan.task.splits["augmented"].rows
    assert 0 < made <= rows
    assert plan.hops[-1].stages[0].steps == -(-(rows + made) // 16)
    steps = [event.step for event in told if isinstance(event, StepDone) and event.phase == "baseline"]
    assert steps[-1] == plan.hops[-1].stages[0].steps  # as many, on the labelled rows alone
    assert evaluate(EvaluateRequest(targets=(str(run.path),), device="cpu", report=False), Events()).evaluation.split == "test"


def test_teacher_at_chance_stops_the_run_unless_allowed(
    request_for_tiny: TrainRequest, tiny_data: Path, tmp_path: Path
) -> None:
    lazy = (*request_for_tiny.overrides, Override.parse("teachers.cofinetune.learning_rate=1e-9"))
    lazy = (*lazy, Override.parse("teachers.cofinetune.head_learning_rate=1e-9"), Override.parse("stages.0.epochs=1"))
    request = request_for_tiny.model_copy(update={"overrides": lazy, "baseline": False})
    with pytest.raises(GateError, match=r"at chance(.|\n)*--allow-weak-teachers"):
        distill(request, Events(), tmp_path / "stopped")
    run, _ = distill(request.model_copy(update={"allow_weak_teachers": True}), Events(), tmp_path / "allowed")
    assert run.student.is_dir()


def test_finetune_recipe_trains_without_asking_teachers(request_for_tiny: TrainRequest, tmp_path: Path) -> None:
    told: list[Event] = []
    overrides = tuple(override for override in request_for_tiny.overrides if override.path[0] in ("training", "stages"))
    request = request_for_tiny.model_copy(update={"recipe": "finetune", "baseline": False, "overrides": overrides})
    _, evaluation = distill(request, Events([told.append]), tmp_path / "run")
    assert [event.phase for event in told if isinstance(event, PhaseStarted)] == ["distill"]
    assert {model.role for model in evaluation.models} == {"student", "majority"}


def test_mt_bert_recipe_projects_the_teachers(request_for_tiny: TrainRequest, tiny_run: TinyRun, tmp_path: Path) -> None:
    request = request_for_tiny.model_copy(update={"recipe": "mt-bert", "teachers": str(tiny_run[0]), "baseline": False})
    run, evaluation = distill(request, Events(), tmp_path / "run")
    assert run.read_plan().recipe.stages[0].objective[2].model_dump()["projection"]["side"] == "teacher"
    logged = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert any("hidden-mse/projected-std/roberta-2" in entry.get("values", {}) for entry in logged)
    assert evaluation.model("student").scores["accuracy"] > 0.8


def test_pairs_of_texts_are_distilled(tiny_bert: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    rows = [("the film was great", "the film was great", "same"), ("the plot was boring", "the music was charming", "other")]
    lines = ["sentence1\tsentence2\tlabel"] + ["\t".join(row) for row in rows * 80]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    request = TrainRequest(
        command="distill",
        teachers=f"bert={tiny_bert},roberta={tiny_roberta}",
        student="2L",
        data=DataRequest(data=str(tmp_path / "train.tsv"), eval=str(tmp_path / "train.tsv")),
        overrides=(*QUICK, Override.parse("stages.0.epochs=10")),
        device="cpu",
    )
    run, evaluation = distill(request, Events(), tmp_path / "run")
    assert run.read_plan().task.pairs
    assert evaluation.model("student").scores["accuracy"] > 0.9
