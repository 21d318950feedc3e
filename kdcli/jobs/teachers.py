"""The teachers of a run: co-finetuned where they need it, loaded, and asked whether they know the task at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.data.batching import Samples
from kdcli.data.task import DEV, TRAIN, Split, Task
from kdcli.data.tokens import TokenView, tokenise
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.inference import predict
from kdcli.engine.loop import Phase, Scores, Stage
from kdcli.errors import GateError
from kdcli.evaluation.chance import against_chance
from kdcli.evaluation.metrics import scores
from kdcli.files import whole_folder
from kdcli.jobs.opening import OpenRun
from kdcli.jobs.run_folder import RunFolder
from kdcli.losses.labels import HardLabelsTerm
from kdcli.models.checkpoints import Reference, describe, fetch_weights
from kdcli.models.head import SharedHead
from kdcli.models.loading import load_encoder, load_tokenizer
from kdcli.models.teachers import CofinetunedTeachers, Teacher
from kdcli.plan.plan import Plan, TeacherPlan

COFINETUNE = "cofinetune"


def train_teachers(open_run: OpenRun) -> None:
    """Co-finetune the teachers that have no trained head (MT-BERT, stage 1); done once per run."""
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    stages = plan.stages_of("cofinetune")
    if not stages or run.teachers.is_dir():
        return
    bare = plan.to_cofinetune
    events = open_run.events
    events.emit(WorkStarted("loading and tokenising for the teachers"))
    folders = {teacher.name: weights_folder(teacher) for teacher in bare}
    tokenizers = {name: load_tokenizer(folder) for name, folder in folders.items()}
    seed = int(plan.request["seed"])
    torch.manual_seed(seed)
    head = SharedHead(
        {teacher.name: teacher.width for teacher in bare}, len(task.labels), plan.recipe.teachers.cofinetune.pooling
    )
    learner = CofinetunedTeachers({name: load_encoder(folder) for name, folder in folders.items()}, head)
    term = HardLabelsTerm([teacher.name for teacher in bare])
    phase = Phase(
        name=COFINETUNE,
        title="co-finetuning " + " and ".join(folders),
        learner=learner,
        stages=[Stage(stage.name, stage.steps, [term], stage.learning_rates) for stage in stages],
        train=_samples(task, TRAIN, tokenizers, plan),
        dev=_samples(task, DEV, tokenizers, plan),
        ensemble=None,
        score=dev_scores(task),
        metric=task.metric,
        seed=seed,
    )
    open_run.trainer.run(phase)

    def save() -> None:
        with whole_folder(run.teachers) as partial:
            learner.save(partial, task.labels, tokenizers)

    open_run.once(save)


def weights_folder(teacher: TeacherPlan) -> Path:
    """The folder with a teacher's weights as the user gave them; fetched from the Hub where they are not there yet."""
    folder = Path(teacher.folder)
    if any(folder.glob("model*.safetensors")):
        return folder
    return fetch_weights(describe(Reference(teacher.name, teacher.reference, "--teachers")))


def trained_folder(teacher: TeacherPlan, run: RunFolder) -> Path:
    """The folder of a teacher as it answers: co-finetuned in this run, or as it was given."""
    return run.teachers / teacher.name if teacher.kind == "cofinetune" else weights_folder(teacher)


def load_teachers(plan: Plan, run: RunFolder) -> list[Teacher]:
    """The trained teachers, frozen, in fp32, answering in the task's class order."""
    loaded = []
    for teacher in plan.teachers:
        folder = trained_folder(teacher, run)
        order = teacher.order or list(range(len(plan.task.labels)))
        make = Teacher.finetuned if teacher.kind == "finetuned" else Teacher.cofinetuned
        loaded.append(make(teacher.name, folder, order))
    return loaded


def answers_of(
    teacher: Teacher, folder: Path, split: Split, plan_length: int, device: torch.device, batch_size: int
) -> NDArray[np.float32]:
    """A teacher's logits [n, C] on a split, through its own tokenizer."""
    view = tokenise(split, load_tokenizer(folder), plan_length)
    samples = Samples(split.labels, {teacher.name: view}, {}, leading=teacher.name)
    teacher.to(device)
    answers = predict(lambda batch: {teacher.name: teacher(batch.views[teacher.name])}, samples, batch_size, device)
    return answers[teacher.name]


def refuse_weak_teachers(logits: Mapping[str, NDArray[np.float32]], task: Task, allow: bool, events: Events) -> None:
    """Stop before anything is distilled from a teacher that does not know the task.

    Raises:
        GateError: a teacher is at chance on the dev split, and weak teachers were not allowed.
    """
    assert task.dev.labels is not None
    weak = []
    for name, values in logits.items():
        test = against_chance(values, task.dev.labels, task.metric)
        text = (
            f"teacher {name} is at chance on dev: {task.metric} {test.score:.4f}, majority class {test.majority:.4f}, "
            f"p = {test.p_value:.2f} against its own answers shuffled"
        )
        if test.at_chance:
            weak.append(text)
    if weak and not allow:
        raise GateError(
            "\n".join(weak)
            + "\n  a student cannot learn the task from it\n  try       more epochs or another learning rate for the teachers "
            "(--teacher-epochs, --set teachers.cofinetune.learning_rate=…), other teachers, or --allow-weak-teachers to go on"
        )
    for text in weak:
        events.emit(Note(text, warning=True))


def dev_scores(task: Task) -> _DevScores:
    """Scores of dev logits, by model."""
    return _DevScores(task)


class _DevScores:
    def __init__(self, task: Task) -> None:
        assert task.dev.labels is not None
        self.labels, self.classes = task.dev.labels, len(task.labels)

    def __call__(self, logits: Mapping[str, NDArray[np.float32]]) -> Scores:
        return {name: scores(values, self.labels, self.classes) for name, values in logits.items()}


def _samples(task: Task, split: str, tokenizers: Mapping[str, object], plan: Plan) -> Samples:
    names: Sequence[str] = list(tokenizers)
    views: dict[str, TokenView] = {
        name: tokenise(task.splits[split], tokenizer, plan.recipe.training.max_length) for name, tokenizer in tokenizers.items()
    }
    return Samples(task.splits[split].labels, views, {}, leading=names[0])
