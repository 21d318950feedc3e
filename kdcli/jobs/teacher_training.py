"""The teachers of a run: co-finetuned where they need it, loaded, and asked whether they know the task at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.atomic_files import has_its_sum, replace_with_sum, whole_folder
from kdcli.data.task import Split, Task
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.inference import EVALUATION_BATCH, predict
from kdcli.engine.stages import Phase, Scores, Stage
from kdcli.errors import GateError, Problem, RequestError, RunFailedError
from kdcli.evaluation.chance import against_chance
from kdcli.jobs.run_folder import RunFolder
from kdcli.jobs.run_opening import OpenRun
from kdcli.jobs.tokenized_splits import samples_of, tokenizers_of
from kdcli.jobs.training_shortcuts import train_quickly
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.models.checkpoints import Reference, describe, fetch_weights, is_whole
from kdcli.models.head import SharedHead
from kdcli.models.teachers import CofinetunedTeachers, Teacher
from kdcli.models.weight_loading import load_encoder, load_tokenizer
from kdcli.plan.plan import COFINETUNE, Plan, TeacherPlan
from kdcli.plan.stages import steps
from kdcli.tasks.kind import rows_not_finite

_FOLDS_SEED = 0
_LOGITS_OF = "logits of "  # a teacher may be called as one of numpy's own arguments


def train_teachers(open_run: OpenRun) -> None:
    """Co-finetune the teachers that have no trained head (MT-BERT, stage 1); done once per run."""
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    if not plan.cofinetune or run.teachers.is_dir():
        return
    title = "co-finetuning " + " and ".join(teacher.name for teacher in plan.to_cofinetune)
    learner, tokenizers = _cofinetuned(open_run, COFINETUNE, title, task.train, task.dev)

    def save() -> None:
        with whole_folder(run.teachers, sealed=True) as partial:
            learner.save(partial, task.kind.output_names, tokenizers, task.kind.name)

    open_run.once(save)


def _cofinetuned(
    open_run: OpenRun, name: str, title: str, train: Split, dev: Split
) -> tuple[CofinetunedTeachers, dict[str, Any]]:
    """The bare teachers, trained on ``train`` with the best weights on ``dev``, and their tokenizers."""
    plan, task = open_run.prepared.plan, open_run.prepared.task
    bare = plan.to_cofinetune
    open_run.events.emit(WorkStarted("loading and tokenising for the teachers"))
    folders = {teacher.name: weights_folder(teacher) for teacher in bare}
    tokenizers = {name: load_tokenizer(folder) for name, folder in folders.items()}
    seed = int(plan.request["seed"])
    torch.manual_seed(seed)
    head = SharedHead(
        {teacher.name: teacher.width for teacher in bare}, len(task.kind.output_names), plan.recipe.teachers.cofinetune.pooling
    )
    learner = CofinetunedTeachers({name: load_encoder(folder) for name, folder in folders.items()}, head)
    term = HardLabelsTerm([teacher.name for teacher in bare], kind=task.kind)
    phase = Phase(
        name=name,
        title=title,
        learner=learner,
        stages=[
            Stage(stage.model_copy(update={"steps": steps(stage.epochs, len(train), plan.recipe.training)}), [term])
            for stage in plan.cofinetune
        ],
        train=samples_of(train, tokenizers, plan.recipe.training.max_length),
        dev=samples_of(dev, tokenizers, plan.recipe.training.max_length),
        ensemble=None,
        score=dev_scores(task),
        metric=task.metric,
        seed=seed,
    )
    train_quickly(open_run, phase, dict(learner.encoders.items()))
    return learner, tokenizers


def out_of_fold_logits(open_run: OpenRun) -> dict[str, NDArray[np.float32]]:
    """Teacher → logits [n, C] on the student's samples, each from a copy that was trained without that sample.

    The copies are co-finetuned as the teachers are, on all folds but one, with the best weights on the same dev split; folds
    are drawn class by class. Samples without labels, which no copy is trained on, are answered with zeros: weights that need
    errors are refused there. Done once per run and fold, and kept.
    """
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    folds = plan.recipe.teachers.out_of_fold
    if folds is None:
        return {}
    assert task.train.targets is not None
    outputs = {
        teacher.name: np.zeros((len(task.training_rows), len(task.kind.output_names)), dtype=np.float32)
        for teacher in plan.to_cofinetune
    }
    parts = task.kind.folds(task.train.targets, folds, _FOLDS_SEED)
    for number, (others, held_out) in enumerate(parts, 1):
        path = run.out_of_fold / f"fold-{number}-of-{folds}.npz"
        if not path.is_file():
            _ask_fold(open_run, number, folds, others, held_out, path)
        elif not has_its_sum(path):
            raise RunFailedError(f"{path}: is not what was written; remove it, and --resume asks the teachers again")
        with np.load(path) as kept:
            for name in outputs:
                outputs[name][held_out] = kept[f"{_LOGITS_OF}{name}"]
    return outputs


def _ask_fold(
    open_run: OpenRun, number: int, folds: int, others: NDArray[np.int64], held_out: NDArray[np.int64], path: Path
) -> None:
    plan, task = open_run.prepared.plan, open_run.prepared.task
    title = f"co-finetuning without fold {number} of {folds}"
    learner, tokenizers = _cofinetuned(open_run, f"fold-{number}", title, task.train.select(others), task.dev)
    open_run.events.emit(WorkStarted(f"asking about fold {number}"))
    samples = samples_of(task.train.select(held_out), tokenizers, plan.recipe.training.max_length)
    logits = predict(learner.eval(), samples, EVALUATION_BATCH, open_run.trainer.accelerator.device)
    for teacher, values in logits.items():
        refuse_outputs_not_finite(f"teacher {teacher} without fold {number}", values, task.train.source)

    def save() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **{f"{_LOGITS_OF}{name}": values for name, values in logits.items()})  # type: ignore[arg-type]
        replace_with_sum(partial, path)

    open_run.once(save)


def weights_folder(teacher: TeacherPlan) -> Path:
    """The folder with a teacher's weights as the user gave them; fetched from the Hub where they are not there yet."""
    folder = Path(teacher.folder)
    if is_whole(folder):
        return folder
    return fetch_weights(describe(Reference(teacher.name, teacher.reference, "--teachers")))


def trained_folder(teacher: TeacherPlan, run: RunFolder) -> Path:
    """The folder of a teacher as it answers: trained in this run, or as it was given."""
    if teacher.kind == "assistant":
        return run.assistant(teacher.name)
    return run.teachers / teacher.name if teacher.kind == "cofinetune" else weights_folder(teacher)


def load_teachers(plan: Plan, run: RunFolder, wanted: Sequence[TeacherPlan] | None = None) -> list[Teacher]:
    """The trained teachers (all, assistants too, or those that are wanted), frozen, in fp32, in the task's class order."""
    loaded = []
    for teacher in plan.teachers if wanted is None else wanted:
        folder = trained_folder(teacher, run)
        order = teacher.order or list(range(len(plan.task.labels)))
        make = Teacher.finetuned if teacher.kind in ("finetuned", "assistant") else Teacher.cofinetuned
        loaded.append(make(teacher.name, folder, order))
    return loaded


def teacher_logits(
    teacher: Teacher, folder: Path, split: Split, plan_length: int, device: torch.device, batch_size: int
) -> NDArray[np.float32]:
    """A teacher's logits [n, C] on a split, through its own tokenizer."""
    samples = samples_of(split, tokenizers_of({teacher.name: folder}), plan_length)
    teacher.to(device)
    outputs = predict(lambda batch: {teacher.name: teacher(batch.views[teacher.name])}, samples, batch_size, device)
    return outputs[teacher.name]


def refuse_outputs_not_finite(name: str, logits: NDArray[np.float32], source: str) -> None:
    """Refuse a model whose outputs [n, C] say nothing for some of the samples: it has no score, and nothing can learn from it.

    Raises:
        RequestError: with how many of them.
    """
    broken = rows_not_finite(logits)
    if len(broken):
        raise RequestError(
            Problem(
                name,
                f"its outputs are not finite for {len(broken)} of {len(logits)} samples, so that it has no score",
                "numbers",
                f"NaN or infinite outputs, first for row {broken[0] + 1} of {source}",
                "another checkpoint; this one was broken in training, or when it was converted",
            )
        )


def refuse_weak_teachers(
    logits: Mapping[str, NDArray[np.float32]], task: Task, allow: bool, events: Events, assistants: bool = False
) -> None:
    """Stop before anything is distilled from a teacher, or an assistant, that does not know the task.

    Raises:
        GateError: one is at chance on the dev split, and weak teachers were not allowed.
    """
    assert task.dev.targets is not None
    weak = []
    for name, values in logits.items():
        test = against_chance(task.kind, task.kind.metric(task.metric), values, task.dev.targets)
        text = (
            f"{'assistant' if assistants else 'teacher'} {name} is at chance on dev: {task.metric} {test.score:.4f}, "
            f"{task.kind.guess_name} {test.majority:.4f}, p = {test.p_value:.2f} against its own predictions shuffled"
        )
        if test.at_chance:
            weak.append(text)
    if weak and not allow:
        remedy = "the assistants (--epochs, --set training.learning_rate=…), a larger assistant (--set assistants=…)"
        if not assistants:
            remedy = "the teachers (--teacher-epochs, --set teachers.cofinetune.learning_rate=…), other teachers"
        raise GateError(
            "\n".join(weak)
            + "\n  a student cannot learn the task from it\n  try       more epochs or another learning rate for "
            + f"{remedy}, or --allow-weak-teachers to go on"
        )
    for text in weak:
        events.emit(Note(text, warning=True))


def dev_scores(task: Task) -> _DevScores:
    """Scores of dev logits, by model."""
    return _DevScores(task)


class _DevScores:
    def __init__(self, task: Task) -> None:
        assert task.dev.targets is not None
        self.labels, self.kind = task.dev.targets, task.kind

    def __call__(self, logits: Mapping[str, NDArray[np.float32]]) -> Scores:
        return {name: self.kind.scores(values, self.labels) for name, values in logits.items()}
