"""``kdcli distill``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.cli import options
from kdcli.cli.evaluate import check_gates, show_evaluation
from kdcli.cli.session import print_document, results, session
from kdcli.recipe.catalogue import DEFAULT_RECIPE

if TYPE_CHECKING:
    from kdcli.engine.events import Events
    from kdcli.plan.request import TrainRequest

EXAMPLES = """Examples:

  kdcli distill --teachers bert,roberta --student 4L

  kdcli distill --teachers bert=./my-bert,roberta=./my-roberta --student 3L --task sst2 --data ./SST-2 --min-retention 0.98

  kdcli distill --teachers bert=./my-bert --student 4L --data train.csv --sweep sweep.yaml --out runs/sweep
"""


def distill(
    teachers: Annotated[
        str | None,
        typer.Option(
            "--teachers",
            help="Names, folders, Hub ids or name=checkpoint, comma-separated; or the folder of a cofinetune run.",
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            help="4L, 4L-312H, 4L-312H-12A, teacher (as large as it), or a checkpoint. Default: what the recipe says.",
        ),
    ] = None,
    task: options.Task = None,
    data: options.Data = None,
    eval: options.Eval = None,
    test: options.Test = None,
    unlabelled: options.Unlabelled = None,
    text_column: options.TextColumn = None,
    text_pair_column: options.TextPairColumn = None,
    label_column: options.LabelColumn = None,
    kind: options.Kind = None,
    metric: options.Metric = None,
    train_rows: options.TrainRows = None,
    recipe: options.Recipe = DEFAULT_RECIPE,
    set_values: options.Set = None,
    effort: options.EffortOption = options.Effort.normal,
    sweep: Annotated[
        Path | None,
        typer.Option(
            "--sweep",
            metavar="FILE",
            help="Search over recipe values: a YAML file with parameters (keys as --set has them), each with choices or a "
            "range. Ranked by dev score; needs pip install 'kdcli[sweep]'.",
            rich_help_panel="Training",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option("--epochs", help="Epochs of every stage of the distillation.", rich_help_panel="Training"),
    ] = None,
    teacher_epochs: options.TeacherEpochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    max_length: options.MaxLength = None,
    precision: options.TrainPrecision = None,
    seed: options.Seed = 0,
    device: options.DeviceOption = options.Device.auto,
    baseline: Annotated[
        bool | None,
        typer.Option(
            "--baseline/--no-baseline",
            help="Also train the same student without teachers. Default: for the starter task.",
            rich_help_panel="Training",
        ),
    ] = None,
    allow_weak_teachers: Annotated[
        bool,
        typer.Option("--allow-weak-teachers", help="Go on with a teacher that is at chance.", rich_help_panel="Training"),
    ] = False,
    min_score: options.MinScore = None,
    min_retention: options.MinRetention = None,
    max_drop: options.MaxDrop = None,
    max_ece: options.MaxEce = None,
    track: options.Track = None,
    cache_size: options.CacheSize = "32GiB",
    profile: options.ShowProfile = False,
    out: options.Out = None,
    report: options.ReportFlag = True,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a small student from one or several teachers: co-finetune, distill, score, write the run folder."""
    again = "kdcli distill" if sweep is None else f"kdcli distill --sweep {shlex.quote(str(sweep))}"
    with session(quiet, None if dry_run else again) as events:
        from kdcli.errors import Problem, RequestError
        from kdcli.plan.request import TrainRequest

        cache_limit = options.byte_size(cache_size, "--cache-size")
        gates = options.gates(min_score=min_score, min_retention=min_retention, max_drop=max_drop, max_ece=max_ece)
        request: TrainRequest | None = None
        if teachers is not None or student is not None or not resume:
            if teachers is None:
                raise RequestError(
                    Problem("--teachers", "is missing", remedy="kdcli distill --teachers bert,roberta --student 4L")
                )
            request = TrainRequest(
                command="distill",
                teachers=teachers,
                student=student,
                data=options.data_request(
                    task=task, data=data, eval=eval, test=test, text_column=text_column,
                    text_pair_column=text_pair_column, label_column=label_column, kind=kind, metric=metric,
                    train_rows=train_rows,
                    unlabelled=unlabelled,
                ),
                recipe=recipe,
                overrides=options.overrides(
                    set_values,
                    {
                        "--epochs": (("stages", "*", "epochs"), epochs),
                        "--teacher-epochs": (("teachers", "cofinetune", "epochs"), teacher_epochs),
                        "--batch-size": (("training", "batch_size"), batch_size),
                        "--learning-rate": (("training", "learning_rate"), learning_rate),
                        "--max-length": (("training", "max_length"), max_length),
                        "--precision": (("training", "precision"), precision),
                    },
                ),
                effort=effort.value,
                seed=seed,
                device=device.value,
                baseline=baseline,
                allow_weak_teachers=allow_weak_teachers,
                track=options.split_names(track),
            )  # fmt: skip
        if sweep is not None:
            if gates or profile:
                flag = f"--{gates[0].name}" if gates else "--profile"
                raise RequestError(
                    Problem(flag, "is for a single run; it does not go with --sweep", remedy=f"leave out {flag}")
                )
            if dry_run:
                show_dry_sweep(request, sweep, events, json_output)
            else:
                run_sweep(request, sweep, events, out, resume, cache_limit, json_output)
            return
        if dry_run:
            if request is None:
                raise RequestError(
                    Problem("--dry-run", "does not go with --resume alone", remedy="name the teachers and the student")
                )
            from kdcli.jobs.request_checks import dry_plan

            plan = dry_plan(request, events)
            events.emit_finished()
            show_plan(plan, json_output)
            return
        from kdcli.cli.profile_view import Spent, show_profile
        from kdcli.jobs.distill import distill as run_job

        spent = Spent()
        events.add(spent)
        run, evaluation = run_job(request, events, out, resume, cache_limit, gates, report)
        events.emit_finished()
        show_evaluation(evaluation, json_output)
        if profile:
            show_profile(spent, json_output)
        events.emit_note(f"student: {run.student}")
        check_gates(evaluation)


def show_dry_sweep(request: TrainRequest | None, file: Path, events: Events, json_output: bool) -> None:
    """Check a sweep and show what it would do."""
    from kdcli.errors import Problem, RequestError
    from kdcli.sweep.extra import require_optuna

    require_optuna()
    if request is None:
        raise RequestError(Problem("--dry-run", "does not go with --resume alone", remedy="name the teachers and the student"))
    from kdcli.atomic_files import json_text
    from kdcli.cli.rendering import show
    from kdcli.cli.sweep_view import dry_sweep_document, dry_sweep_view
    from kdcli.sweep.job import dry_sweep

    dry = dry_sweep(request, file, events)
    events.emit_finished()
    if json_output:
        print_document(json_text(dry_sweep_document(dry)))
    else:
        console = results()
        show(console, *dry_sweep_view(dry, console.width))


def run_sweep(
    request: TrainRequest | None,
    file: Path,
    events: Events,
    out: Path | None,
    resume: bool,
    cache_limit: int,
    json_output: bool,
) -> None:
    """Search over recipe values and show the ranked trials."""
    from kdcli.sweep.extra import require_optuna

    require_optuna()
    from kdcli.atomic_files import json_text
    from kdcli.cli.rendering import show
    from kdcli.cli.sweep_view import sweep_view
    from kdcli.sweep.job import sweep as run_job

    folder, result = run_job(request, file, events, out, resume, cache_limit)
    events.emit_finished()
    if json_output:
        print_document(json_text(result.model_dump(mode="json")))
    else:
        console = results()
        show(console, *sweep_view(result, console.width))
    events.emit_note(f"page: {folder.page}")


def show_plan(plan: object, json_output: bool) -> None:
    """The plan as pictures, or as JSON."""
    from kdcli.cli.plan_view import plan_view
    from kdcli.cli.rendering import show
    from kdcli.plan.plan import Plan

    assert isinstance(plan, Plan)
    if json_output:
        print_document(plan.model_dump_json(indent=2, by_alias=True))
    else:
        console = results()
        show(console, *plan_view(plan, console.width))
