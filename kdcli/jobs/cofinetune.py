"""``kdcli cofinetune``: several teachers under one shared head, trained together (MT-BERT, stage 1)."""

from __future__ import annotations

from pathlib import Path

from kdcli.data.task import DEV
from kdcli.engine.events import Events, WorkStarted
from kdcli.engine.inference import EVALUATION_BATCH
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.comparison import Answer, Evaluation, compare_on
from kdcli.files import write_json
from kdcli.jobs.opening import OpenRun, opened
from kdcli.jobs.run_folder import RunFolder
from kdcli.jobs.teachers import answers_of, load_teachers, train_teachers, trained_folder
from kdcli.plan.request import TrainRequest


def cofinetune(
    request: TrainRequest | None, events: Events, out: Path | None = None, resume: bool = False
) -> tuple[RunFolder, Evaluation]:
    """Train the teachers, score them on the dev split and write the run folder.

    Raises:
        RequestError: the request is wrong, or no teacher needs it.
        InterruptedRunError: a signal asked to stop; ``resume`` goes on.
    """
    with opened(request, out, resume, events) as open_run:
        if not open_run.prepared.plan.to_cofinetune:
            raise RequestError(
                Problem("--teachers", "all of them are fine-tuned already", remedy="--set teachers.cofinetune.which=all")
            )
        train_teachers(open_run)
        evaluation = _evaluate(open_run)
        open_run.once(lambda: write_json(open_run.folder.evaluation, evaluation.model_dump()))
        return open_run.folder, evaluation


def _evaluate(open_run: OpenRun) -> Evaluation:
    run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
    open_run.events.emit(WorkStarted("scoring the teachers on dev"))
    device = open_run.trainer.accelerator.device
    length = plan.recipe.training.max_length
    answers: list[Answer] = []
    for teacher in load_teachers(plan, run):
        folder = trained_folder(plan.teacher(teacher.name), run)
        logits = answers_of(teacher, folder, task.dev, length, device, EVALUATION_BATCH)
        answers.append((teacher.name, "teacher", logits, teacher.parameter_count))
    return compare_on(task, DEV, answers)
