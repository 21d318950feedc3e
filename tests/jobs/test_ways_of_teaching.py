"""What the recipes ask of a run beyond one training: assistants on the way, out-of-fold answers, text without labels."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdcli.data.task_loading import DataRequest, load_task
from kdcli.engine.events import Event, Events, Logged, Note, PhaseStarted, StepDone
from kdcli.errors import InterruptedRunError, RequestError
from kdcli.jobs.distill import distill
from kdcli.jobs.evaluate import EvaluateRequest, evaluate
from kdcli.jobs.request_checks import with_starter_defaults
from kdcli.jobs.run_folder import RunFolder
from kdcli.models.weight_loading import load_classifier
from kdcli.plan.request import TrainRequest
from kdcli.plan.settings import load_recipe
from kdcli.recipe.catalogue import shipped
from kdcli.recipe.yaml_document import Override

TinyRun = tuple[Path, list[Event]]

BY_ERROR = "stages.0.objective.1.weighting=inverse-error"


def changed(request: TrainRequest, *settings: str, **fields: object) -> TrainRequest:
    """The request with more overrides and other fields, without the baseline."""
    overrides = (*request.overrides, *(Override.parse(text) for text in settings))
    return request.model_copy(update={"baseline": False, "overrides": overrides, **fields})


class StopAt:
    """Presses Ctrl-C at a step of a phase."""

    def __init__(self, phase: str, step: int) -> None:
        self.phase, self.step = phase, step

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and (event.phase, event.step) == (self.phase, self.step):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def chain(request_for_tiny: TrainRequest, tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TrainRequest:
    """Teachers of four and six layers, an assistant of three, a student of two."""
    return changed(
        request_for_tiny,
        "stages.0.epochs=1",
        recipe="teacher-assistant",
        teachers=str(tiny_run[0]),
        allow_weak_teachers=True,  # the assistant has no time to learn the task
    )


@pytest.fixture(scope="module")
def chain_run(chain: TrainRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[Event]]:
    told: list[Event] = []
    run, _ = distill(chain, Events([told.append]), tmp_path_factory.mktemp("runs") / "chain")
    return run, told


def test_assistant_learns_from_the_teachers_and_teaches_the_student(chain_run: tuple[RunFolder, list[Event]]) -> None:
    run, told = chain_run
    assert [event.phase for event in told if isinstance(event, PhaseStarted)] == ["assistant-1", "distill"]
    assistant, student = load_classifier(run.assistant("assistant-1")), load_classifier(run.student)
    assert (assistant.config.num_hidden_layers, student.config.num_hidden_layers) == (3, 2)  # type: ignore[union-attr]
    hops = {hop.name: hop.teachers for hop in run.read_plan().hops}
    assert hops == {"assistant-1": ["bert", "roberta"], "distill": ["assistant-1"]}
    logged = [event for event in told if isinstance(event, Logged) and event.phase == "distill"]
    assert not any("bert" in key for event in logged for key in event.values)


def test_student_of_a_chain_is_compared_with_the_teachers_and_the_assistant(chain_run: tuple[RunFolder, list[Event]]) -> None:
    run, _ = chain_run
    for evaluation in (
        evaluate(EvaluateRequest((str(run.path),), split=split, device="cpu", report=False), Events()).evaluation
        for split in ("dev", "test")
    ):
        assert [model.name for model in evaluation.models if model.role == "teacher"] == ["bert", "roberta", "assistant-1"]


@pytest.mark.parametrize(("phase", "step"), [("assistant-1", 4), ("distill", 3)])
def test_interrupted_chain_resumes_to_the_same_student(
    phase: str, step: int, chain: TrainRequest, chain_run: tuple[RunFolder, list[Event]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        distill(chain, Events([StopAt(phase, step)]), out)
    distill(None, Events(), out, resume=True)
    resumed, whole = (load_file(folder / "model.safetensors") for folder in (out / "student", chain_run[0].student))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_out_of_fold_answers_are_of_copies_that_have_not_seen_the_sample(
    request_for_tiny: TrainRequest, tiny_bert: Path, tmp_path: Path
) -> None:
    """Labels at random: who has seen a sample knows its label, who has not is at chance."""
    generator = np.random.default_rng(0)
    words = [f"{left}{right}" for left in "bcdfgklmnprst" for right in ("a", "e", "i", "o")]
    texts = [" ".join(generator.choice(words, 6)) for _ in range(48)]
    rows = [
        {"text": text, "label": label} for text, label in zip(texts, generator.permutation(["yes", "no"] * 24), strict=True)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = changed(
        request_for_tiny,
        "teachers.cofinetune.epochs=40",
        "teachers.out_of_fold=4",
        BY_ERROR,
        "stages.0.epochs=4",
        teachers=f"bert={tiny_bert}",
        data=DataRequest(data=str(tmp_path / "train.jsonl"), eval=str(tmp_path / "train.jsonl")),
        allow_weak_teachers=True,
    )
    told: list[Event] = []
    run, evaluation = distill(request, Events([told.append]), tmp_path / "run")

    labels = load_task(request.data).train.targets
    assert labels is not None
    seen = next(model.scores["accuracy"] for model in evaluation.models if model.role == "teacher")
    folds = [np.load(path)["logits of bert"] for path in sorted(run.out_of_fold.glob("*.npz"))]
    assert [len(fold) for fold in folds] == [12, 12, 12, 12]
    weights = [
        event.values["soft-labels/weight-mean/bert"] for event in told if isinstance(event, Logged) and event.phase == "distill"
    ]
    assert seen > 0.95
    assert np.mean(weights) < 0.7
    phases = [event.phase for event in told if isinstance(event, PhaseStarted)]
    assert phases == ["cofinetune", "fold-1", "fold-2", "fold-3", "fold-4", "distill"]


def test_memorised_teachers_make_weights_that_say_nothing_and_the_user_is_told(
    request_for_tiny: TrainRequest, tiny_roberta: Path, tmp_path: Path
) -> None:
    told: list[Event] = []
    request = changed(request_for_tiny, "teachers.cofinetune.epochs=10", BY_ERROR, teachers=f"roberta={tiny_roberta}")
    distill(request, Events([told.append]), tmp_path / "run")
    warnings = [event.text for event in told if isinstance(event, Note) and event.warning]
    assert len([text for text in warnings if "says nothing here" in text and "out_of_fold" in text]) == 1


def test_student_is_taught_on_text_without_labels(
    request_for_tiny: TrainRequest, tiny_run: TinyRun, tiny_data: Path, tmp_path: Path
) -> None:
    texts = [json.loads(line)["text"] for line in (tiny_data / "test.jsonl").read_text().splitlines()]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    request = changed(
        request_for_tiny,
        "stages.0.epochs=1",
        teachers=str(tiny_run[0]),
        data=DataRequest(data=str(tiny_data), unlabelled=str(tmp_path / "more.jsonl")),
    )
    told: list[Event] = []
    run, _ = distill(request, Events([told.append]), tmp_path / "run")
    samples = sum(event.samples for event in told if isinstance(event, StepDone) and event.phase == "distill")
    assert samples == 160 + 40
    assert run.read_plan().task.splits["unlabelled"].rows == 40


def test_weights_by_error_are_refused_for_text_without_labels(
    request_for_tiny: TrainRequest, tiny_run: TinyRun, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "more.csv").write_text("text\nThe film was great\n")
    data = DataRequest(data=str(tiny_data), unlabelled=str(tmp_path / "more.csv"))
    alike = "stages.0.objective.1.unlabelled_weighting=null"
    request = changed(request_for_tiny, BY_ERROR, alike, teachers=str(tiny_run[0]), data=data)
    with pytest.raises(RequestError, match="gold labels") as caught:
        distill(request, Events(), tmp_path / "run")
    assert "agreement" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("name,other\na,b\n", "there is no column .text., which is the text in"), ("text\n", "no rows"), (None, "no such file")],
)
def test_unlabelled_file_that_cannot_be_used_is_refused(
    content: str | None, message: str, tiny_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "more.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RequestError, match=message):
        load_task(DataRequest(data=str(tiny_data), unlabelled=str(path)))


def test_student_may_be_as_large_as_its_teacher_without_being_asked_for(
    request_for_tiny: TrainRequest, tiny_run: TinyRun, tmp_path: Path
) -> None:
    request = changed(request_for_tiny, "stages.0.epochs=1", recipe="born-again", student=None, teachers=str(tiny_run[0]))
    run, _ = distill(request, Events(), tmp_path / "run")
    assert load_classifier(run.student).config.num_hidden_layers == 4  # type: ignore[union-attr]


def test_stages_move_on_and_stop_early_in_a_whole_run(
    request_for_tiny: TrainRequest, tiny_run: TinyRun, tmp_path: Path
) -> None:
    request = request_for_tiny.model_copy(
        update={
            "recipe": "internal-stacked",
            "teachers": str(tiny_run[0]),
            "baseline": False,
            "overrides": tuple(
                Override.parse(text)
                for text in (
                    "training.batch_size=16",
                    "training.learning_rate=3e-3",
                    "stages.0.until.below=0.9",
                    "stages.0.epochs=4",
                    "stages.1.epochs=30",
                    "training.early_stopping=3",
                )
            ),
        }
    )
    told: list[Event] = []
    distill(request, Events([told.append]), tmp_path / "run")
    notes = [event.text for event in told if isinstance(event, Note)]
    assert any("internal-1: hidden-cosine is" in text and "moving on" in text for text in notes)
    assert any("classification: no better dev score for 3 evaluations" in text for text in notes)


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipe_takes_the_rates_of_the_starter_task(name: str) -> None:
    request = TrainRequest(command="distill", teachers="bert,roberta", student="4L", recipe=name)
    recipe = load_recipe(with_starter_defaults(request)).recipe
    assert recipe.training.learning_rate == 1e-3
    assert all(stage.learning_rate is None for stage in recipe.stages)
    assert recipe.student.init.weights == ("pretrained" if name == "finetune" else "finetuned")


def test_own_recipe_is_left_as_it_is_on_the_starter_task(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nstages: [{name: a, objective: [{loss: hard-labels}]}]\n")
    request = TrainRequest(command="distill", teachers="bert", student="4L", recipe=str(tmp_path / "mine.yaml"))
    assert with_starter_defaults(request) == request
