"""``kdcli cofinetune``: several teachers under one shared head, trained together (MT-BERT, stage 1)."""

from __future__ import annotations

from pathlib import Path

from kdcli.atomic_files import write_json
from kdcli.data.splits import DEV
from kdcli.engine.events import Events
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.comparison import compare
from kdcli.evaluation.document import Evaluation
from kdcli.jobs.model_outputs import Questions
from kdcli.jobs.run_folder import RunFolder
from kdcli.jobs.run_opening import opened
from kdcli.jobs.teacher_training import train_teachers
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest


def cofinetune(
    request: TrainRequest | None, events: Events, out: Path | None = None, resume: bool = False
) -> tuple[RunFolder, Evaluation]:
    """Train the teachers, score them on the dev split and write the run folder.

    Raises:
        RequestError: the request is wrong, or no teacher needs it.
        InterruptedRunError: a signal asked to stop; ``resume`` goes on.
    """
    with opened(request, out, resume, events, check=_refuse_nothing_to_do) as open_run:
        train_teachers(open_run)
        run, plan, task = open_run.folder, open_run.prepared.plan, open_run.prepared.task
        questions = Questions(task, DEV, open_run.trainer.accelerator.device, open_run.events)
        evaluation = compare(task, DEV, questions.run_alone(run, plan))
        open_run.once(lambda: write_json(run.evaluation, evaluation.model_dump(mode="json")))
        return run, evaluation


def _refuse_nothing_to_do(plan: Plan) -> None:
    if not plan.to_cofinetune:
        raise RequestError(
            Problem("--teachers", "all of them are fine-tuned already", remedy="--set teachers.cofinetune.which=all")
        )
