"""Asking every kind of model about a split: runs with all that is in them, checkpoints, ONNX files, tables of predictions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.data.task import Split, Task
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.inference import EVALUATION_BATCH, predict
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.comparison import ENSEMBLE, ModelOutputs, ensemble, unlike
from kdcli.evaluation.document import Kind as ModelKind
from kdcli.evaluation.document import Role
from kdcli.export.file_names import precision_of
from kdcli.export.gate import Texts, file_logits
from kdcli.export.sessions import check_provider, open_session
from kdcli.export.sessions import run as run_session
from kdcli.jobs.evaluation_targets import Target, TargetKind
from kdcli.jobs.prediction_files import read_predictions
from kdcli.jobs.run_folder import RunFolder
from kdcli.jobs.teacher_training import load_teachers, refuse_outputs_not_finite, teacher_logits, trained_folder
from kdcli.jobs.tokenized_splits import samples_of, tokenizers_of
from kdcli.models.checkpoints import Checkpoint, Reference, describe, fetch_weights, parse_references
from kdcli.models.head import parameters_of
from kdcli.models.head_file import read_shared_head
from kdcli.models.student import STUDENT, STUDENT_NAME, StudentLearner
from kdcli.models.teachers import Teacher
from kdcli.models.weight_loading import load_classifier, load_tokenizer, text_limit
from kdcli.models.weights import weight_bytes
from kdcli.plan.plan import DISTILL, Plan, TeacherPlan
from kdcli.plan.resolve import asks_teachers
from kdcli.tasks.kind import Kind
from kdcli.tasks.kinds import kind_of_head, kinds

Logits = NDArray[np.float32]


@dataclass
class Questions:
    """What models are asked, and what they have answered already.

    Attributes:
        task: the task.
        split: name of the split.
        device: where to compute.
        events: who is told.
        max_length: tokens per text; None takes what each model was trained with.
        notes: how predictions made elsewhere were read.
    """

    task: Task
    split: str
    device: torch.device
    events: Events
    max_length: int | None = None
    notes: list[str] = field(default_factory=list)
    _known: dict[tuple[str, ...], tuple[Logits, int]] = field(default_factory=dict)

    @property
    def rows(self) -> Split:
        """The samples."""
        return self.task.splits[self.split]

    @cached_property
    def onnx_device(self) -> str:
        """Where ONNX files are asked: on the GPU where ONNX Runtime has its provider, else on the CPU."""
        if self.device.type != "cpu":
            try:
                check_provider("cuda")
                return "cuda"
            except RequestError:
                self.events.emit(Note("this ONNX Runtime has no CUDA provider: ONNX files are asked on the CPU"))
        return "cpu"

    def know(self, run: RunFolder, plan: Plan, logits: Mapping[str, Logits], sizes: Mapping[str, int]) -> None:
        """Take what a run's teachers have said of these samples already: teacher → logits [n, C], and → parameters."""
        for name, values in logits.items():
            self._known[self._key(plan.teacher(name), run, plan)] = values, sizes[name]

    def _key(self, teacher: TeacherPlan, run: RunFolder, plan: Plan) -> tuple[str, ...]:
        length = self.max_length or plan.recipe.training.max_length
        order = teacher.order or list(range(len(plan.task.labels)))
        return str(trained_folder(teacher, run).resolve()), str(order), str(length)

    def run_alone(self, run: RunFolder, plan: Plan) -> list[ModelOutputs]:
        """All that is in one run: student, its exported files, the student without teachers, teachers, their ensemble."""
        teachers = self._teachers(run, plan, str, ENSEMBLE)
        return [*self._students(run, plan, teachers, _Names(alone=plan.baseline_name), files=True), *teachers]

    def run_among_others(
        self, run: RunFolder, plan: Plan, name: str, recipe: str, seen: Mapping[str, str]
    ) -> list[ModelOutputs]:
        """A run that is compared with others: its students under the run's name, and its teachers.

        Args:
            run: the run.
            plan: its plan.
            name: what the run is called.
            recipe: what it shares with runs of other seeds.
            seen: teachers that other runs have brought: folder → name.
        """
        used = set(seen.values())
        folders = {teacher.name: str(trained_folder(teacher, run).resolve()) for teacher in plan.teachers}

        def called(teacher: str) -> str:
            known = seen.get(folders[teacher])
            return known or (teacher if teacher not in used else f"{teacher} of {name}")

        teachers = self._teachers(run, plan, called)
        names = _Names(name, f"{name} {plan.baseline_name}", recipe, int(plan.request["seed"]))
        return [*self._students(run, plan, teachers, names, files=False), *teachers]

    def model(self, target: Target) -> ModelOutputs:
        """A checkpoint, a teacher under a shared head, an ONNX file or a table of predictions, which the user has named.

        Raises:
            RequestError: its outputs are not finite, or its classes are not the task's.
        """
        self.events.emit(WorkStarted(f"asking {target.name}"))
        found = {
            "checkpoint": self._checkpoint,
            "teacher": self._cofinetuned,
            "onnx": self._onnx,
            "predictions": self._predictions,
        }[target.kind](target)
        if found.outputs is not None:
            refuse_outputs_not_finite(str(target.path), found.outputs, self.rows.source)
        return found

    def named_teachers(self, text: str, known: Collection[str]) -> list[ModelOutputs]:
        """Teachers that were named on their own, and with several of them their ensemble.

        Args:
            text: as ``--teachers`` takes it.
            known: names that teachers of runs have.
        """
        found: list[ModelOutputs] = []
        for described in [describe(reference) for reference in parse_references(text, "--teachers")]:
            described.check_head()
            folder = fetch_weights(described)
            kind: TargetKind = "checkpoint" if described.shared_head is None else "teacher"
            entry = self.model(Target(unlike(described.name, known), folder, kind))
            found.append(replace(entry, role="teacher"))
        if len(found) > 1:
            found.append(ensemble(_ensemble_name(found) if known else ENSEMBLE, self.task.kind, found))
        return found

    def _students(
        self, run: RunFolder, plan: Plan, teachers: Sequence[ModelOutputs], names: _Names, *, files: bool
    ) -> list[ModelOutputs]:
        length = self.max_length or plan.recipe.training.max_length
        mine = tuple(entry.name for entry in teachers if entry.role == "teacher")
        together = next((entry.name for entry in teachers if entry.role == "ensemble"), None)
        found = []
        for folder, role in students(run):
            name = names.of(role)
            self.events.emit(WorkStarted(f"asking {names.said(role)}"))
            recipe = None if names.recipe is None else names.recipe + (" without teachers" if role != "student" else "")
            entry = self._classifier(Target(name, folder, "checkpoint"), role, length)
            found.append(
                replace(
                    entry, run=run.path.name, teachers=mine, ensemble=together, recipe=recipe, seed=names.seed
                )
            )  # fmt: skip
        for file in sorted((run.export / "onnx").glob("*.onnx")) if files else []:
            precision = precision_of(file)
            name = f"{names.of('student')} {precision}, ONNX"
            if precision == "bf16" and self.onnx_device == "cpu":
                continue  # ONNX Runtime has no bf16 products for CPUs
            self.events.emit(WorkStarted(f"asking {name}"))
            entry = self._onnx(Target(name, file, "onnx"), length)
            found.append(replace(entry, role="export", run=run.path.name, teachers=mine, ensemble=together))
        return found

    def _teachers(
        self, run: RunFolder, plan: Plan, called: Callable[[str], str], together: str | None = None
    ) -> list[ModelOutputs]:
        """The run's teachers, and with several of them their ensemble."""
        if plan.student is not None and not asks_teachers(DISTILL, plan.recipe):
            return []
        length = self.max_length or plan.recipe.training.max_length
        found = []
        for planned in plan.teachers:
            folder = trained_folder(planned, run)
            key = self._key(planned, run, plan)
            if key not in self._known:
                if self.max_length is not None:
                    self._length(_described(Target(planned.name, folder, "teacher")))
                self.events.emit(WorkStarted(f"asking teacher {planned.name}"))
                teacher = load_teachers(plan, run, [planned])[0]
                logits = teacher_logits(teacher, folder, self.rows, length, self.device, EVALUATION_BATCH)
                self._known[key] = logits, teacher.parameter_count
            logits, size = self._known[key]
            ordered = logits[:, _order(f"teacher {planned.name}", plan.task.kind, plan.task.labels, self.task)]
            found.append(self._entry(called(planned.name), "teacher", "checkpoint", ordered, size, folder, run=run.path.name))
        given = [entry for entry, planned in zip(found, plan.teachers, strict=True) if planned.kind != "assistant"]
        if len(given) > 1:
            found.append(ensemble(together or _ensemble_name(given), self.task.kind, given, run.path.name))
        return found

    def _checkpoint(self, target: Target) -> ModelOutputs:
        return self._classifier(target, "model", self._length(_described(target)))

    def _classifier(self, target: Target, role: Role, length: int) -> ModelOutputs:
        described = _described(target)
        order = self._order(target, *_head_outputs(described))
        self._length(described, length)
        logits, size = classifier_logits(target.path, self.rows, length, self.device)
        return self._entry(target.name, role, "checkpoint", logits[:, order], size, target.path)

    def _cofinetuned(self, target: Target) -> ModelOutputs:
        order = self._order(target, *_shared_outputs(target))
        teacher = Teacher.cofinetuned(target.path.resolve().name, target.path.resolve(), order)
        length = self._length(_described(target))
        logits = teacher_logits(teacher, target.path, self.rows, length, self.device, EVALUATION_BATCH)
        return self._entry(target.name, "model", "checkpoint", logits, teacher.parameter_count, target.path)

    def _onnx(self, target: Target, length: int | None = None) -> ModelOutputs:
        folder = _folder_of(target.path)
        found = describe(Reference(target.name, str(folder), "model"), weights=False)
        order = self._order(target, *_head_outputs(found))
        session = open_session(target.path, torch.get_num_threads(), self.onnx_device)
        read_by = Texts.of(load_tokenizer(folder), self.rows.samples, length or self._length(found))
        logits = file_logits(lambda inputs: run_session(session, inputs), read_by)
        entry = self._entry(target.name, "model", "onnx", logits[:, order], None, target.path)
        return replace(entry, bytes=target.path.stat().st_size)

    def _predictions(self, target: Target) -> ModelOutputs:
        predictions, notes = read_predictions(target.path, self.task, self.rows)
        self.notes += notes
        return ModelOutputs(target.name, "model", "predictions", predictions, path=str(target.path))

    def _entry(
        self, name: str, role: Role, kind: ModelKind, outputs: Logits, size: int | None, path: Path, run: str | None = None
    ) -> ModelOutputs:
        weights = weight_bytes(path) if path.is_dir() else 0
        return ModelOutputs(
            name, role, kind, self.task.kind.predictions(outputs), outputs, size, weights or None, run, str(path)
        )

    def _length(self, found: Checkpoint, asked: int | None = None) -> int:
        """Tokens per text: what was asked for, which a model has to have the positions for, or as many as it takes."""
        asked = asked or self.max_length
        if asked is not None and asked > found.max_length:
            raise RequestError(
                Problem(
                    f"--max-length {asked}",
                    f"is longer than {found.name} can take",
                    f"at most {found.max_length}, as {found.folder / 'config.json'} says",
                )
            )
        return asked or text_limit(found)

    def _order(self, target: Target, kind: str, outputs: Sequence[str]) -> list[int]:
        if not outputs:
            raise RequestError(
                Problem(str(target.path), "has no classification head", "a checkpoint that was fine-tuned for classification")
            )
        return _order(str(target.path), kind, outputs, self.task)


@dataclass(frozen=True)
class _Names:
    """What the students of a run are called, and which recipe and seed they are of."""

    student: str = STUDENT_NAME
    alone: str = "without teachers"
    recipe: str | None = None
    seed: int | None = None

    def of(self, role: Role) -> str:
        return self.student if role == "student" else self.alone

    def said(self, role: Role) -> str:
        """The name in a sentence."""
        if self.student != STUDENT_NAME:
            return self.of(role)
        return "the student" if role == "student" else "the student without teachers"


def students(run: RunFolder) -> list[tuple[Path, Role]]:
    """The trained students that a run holds."""
    known: list[tuple[Path, Role]] = [(run.student, "student"), (run.baseline, "without-teachers")]
    return [row for row in known if row[0].is_dir()]


def task_of(target: Target) -> Kind | None:
    """The task of a model that is no run; None where it does not say."""
    if target.kind == "predictions":
        return None
    if target.kind == "teacher":
        about = read_shared_head(target.path.resolve().parent)
        return kinds()[about.kind].of_outputs(about.labels)
    return _whole(target).task_kind


def outputs_of(target: Target) -> tuple[str, Sequence[str]]:
    """The kind of task of a model that is no run, and what its outputs are called; nothing where it does not say."""
    if target.kind == "predictions":
        return "", ()
    return _shared_outputs(target) if target.kind == "teacher" else _head_outputs(_whole(target))


def _whole(target: Target) -> Checkpoint:
    """A checkpoint, or what lies beside an ONNX file, with a head that can be used and a tokenizer."""
    folder = _folder_of(target.path) if target.kind == "onnx" else target.path
    found = describe(Reference(target.name, str(folder), "model"), weights=target.kind == "checkpoint")
    found.check_head()
    load_tokenizer(folder)
    return found


def _shared_outputs(target: Target) -> tuple[str, Sequence[str]]:
    about = read_shared_head(target.path.resolve().parent)
    return about.kind, about.labels


def _head_outputs(found: Checkpoint) -> tuple[str, Sequence[str]]:
    kind = kind_of_head(found.problem_type)
    return found.problem_type if kind is None else kind.name, found.head_labels or ()


def classifier_logits(folder: Path, rows: Split, max_length: int, device: torch.device) -> tuple[Logits, int]:
    """Logits [n, C] of a classification checkpoint in the order of its own head, and its parameter count."""
    model: Any = load_classifier(folder).to(device).eval()
    samples = samples_of(rows, tokenizers_of({STUDENT: folder}), max_length)
    logits = predict(StudentLearner(model), samples, EVALUATION_BATCH, device)[STUDENT]
    return logits, parameters_of(model)


def _ensemble_name(members: Sequence[ModelOutputs]) -> str:
    return f"{ENSEMBLE} of {' and '.join(answer.name for answer in members)}"


def _order(where: str, kind: str, outputs: Sequence[str], task: Task) -> list[int]:
    same = (kind, tuple(outputs)) == (task.kind.name, task.kind.output_names)
    return list(range(len(outputs))) if same else task.kind.order_of(where, outputs, kind)


def _described(target: Target) -> Checkpoint:
    found = describe(Reference(target.name, str(target.path), "model"))
    found.check_head()
    return found


def _folder_of(file: Path) -> Path:
    """The folder with the configuration and the tokenizer of an ONNX file: its own, or the one above ``onnx/``.

    Raises:
        RequestError: they are not there.
    """
    for folder in (file.resolve().parent, file.resolve().parent.parent):
        if (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file():
            return folder
    raise RequestError(
        Problem(
            str(file), "its configuration and tokenizer are not there", "config.json and tokenizer.json beside it or above it"
        )
    )
