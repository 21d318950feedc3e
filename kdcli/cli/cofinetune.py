"""``kdcli cofinetune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.cli import options
from kdcli.cli.distill import show_plan
from kdcli.cli.evaluate import show_evaluation
from kdcli.cli.session import session
from kdcli.recipe.catalogue import DEFAULT_RECIPE

if TYPE_CHECKING:
    from kdcli.plan.request import TrainRequest

EXAMPLES = """Examples:

  kdcli cofinetune --teachers bert,roberta

  kdcli cofinetune --teachers bert=./my-bert,./my-roberta --data train.csv --eval dev.csv --out runs/teachers
"""


def cofinetune(
    teachers: Annotated[
        str | None,
        typer.Option("--teachers", help="Names, folders, Hub ids or name=checkpoint, comma-separated."),
    ] = None,
    task: options.Task = None,
    data: options.Data = None,
    eval: options.Eval = None,
    test: options.Test = None,
    text_column: options.TextColumn = None,
    text_pair_column: options.TextPairColumn = None,
    label_column: options.LabelColumn = None,
    kind: options.Kind = None,
    metric: options.Metric = None,
    train_rows: options.TrainRows = None,
    recipe: options.Recipe = DEFAULT_RECIPE,
    set_values: options.Set = None,
    effort: options.EffortOption = options.Effort.normal,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Epochs of co-finetuning.", rich_help_panel="Training")
    ] = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    max_length: options.MaxLength = None,
    precision: options.TrainPrecision = None,
    seed: options.Seed = 0,
    device: options.DeviceOption = options.Device.auto,
    track: options.Track = None,
    profile: options.ShowProfile = False,
    out: options.Out = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fine-tune several teachers together under one shared head; kdcli distill --teachers RUN then reuses them."""
    with session(quiet, None if dry_run else "kdcli cofinetune") as events:
        from kdcli.errors import Problem, RequestError
        from kdcli.plan.request import TrainRequest

        request: TrainRequest | None = None
        if teachers is not None or not resume:
            if teachers is None:
                raise RequestError(Problem("--teachers", "is missing", remedy="kdcli cofinetune --teachers bert,roberta"))
            request = TrainRequest(
                command="cofinetune",
                teachers=teachers,
                data=options.data_request(
                    task=task, data=data, eval=eval, test=test, text_column=text_column,
                    text_pair_column=text_pair_column, label_column=label_column, kind=kind, metric=metric,
                    train_rows=train_rows,
                ),
                recipe=recipe,
                overrides=options.overrides(
                    set_values,
                    {
                        "--epochs": (("teachers", "cofinetune", "epochs"), epochs),
                        "--batch-size": (("training", "batch_size"), batch_size),
                        "--learning-rate": (("teachers", "cofinetune", "learning_rate"), learning_rate),
                        "--max-length": (("training", "max_length"), max_length),
                        "--precision": (("training", "precision"), precision),
                    },
                ),
                effort=effort.value,
                seed=seed,
                device=device.value,
                track=options.split_names(track),
            )  # fmt: skip
        if dry_run:
            if request is None:
                raise RequestError(Problem("--dry-run", "does not go with --resume alone", remedy="name the teachers"))
            from kdcli.jobs.request_checks import dry_plan

            plan = dry_plan(request, events)
            events.emit_finished()
            show_plan(plan, json_output)
            return
        from kdcli.cli.profile_view import Spent, show_profile
        from kdcli.jobs.cofinetune import cofinetune as run_job

        spent = Spent()
        events.add(spent)
        run, evaluation = run_job(request, events, out, resume)
        events.emit_finished()
        show_evaluation(evaluation, json_output)
        if profile:
            show_profile(spent, json_output)
        events.emit_note(f"teachers: {run.teachers}; use them with kdcli distill --teachers {run.path} --student …")
