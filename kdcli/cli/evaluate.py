"""``kdcli evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import options
from kdcli.cli.distill import check_gates, show_evaluation
from kdcli.cli.session import session

EXAMPLES = """Examples:

  kdcli evaluate

  kdcli evaluate runs/latest --split test --min-retention 0.98 --json
"""


class Split(StrEnum):
    """Which rows to score on."""

    dev = "dev"
    test = "test"


def evaluate(
    target: Annotated[
        Path | None, typer.Argument(help="A run or a checkpoint folder. Default: the latest run.", show_default=False)
    ] = None,
    split: Annotated[Split | None, typer.Option("--split", help="Default: test where there is one, else dev.")] = None,
    task: options.Task = None,
    data: options.Data = None,
    eval: options.Eval = None,
    test: options.Test = None,
    text_column: options.TextColumn = None,
    text_pair_column: options.TextPairColumn = None,
    label_column: options.LabelColumn = None,
    metric: options.Metric = None,
    max_length: options.MaxLength = None,
    device: options.DeviceOption = options.Device.auto,
    min_retention: Annotated[
        float | None,
        typer.Option("--min-retention", help="Exit 1 below this share of the best teacher's score.", rich_help_panel="Gates"),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", help="Exit 1 below this score.", rich_help_panel="Gates")
    ] = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score the student and every teacher on the same rows."""
    with session(quiet) as events:
        from kdcli.data.sources import DataRequest
        from kdcli.jobs.evaluate import EvaluateRequest
        from kdcli.jobs.evaluate import evaluate as run_job

        given = DataRequest(
            task=task, data=data, eval=eval, test=test, text_column=text_column,
            text_pair_column=text_pair_column, label_column=label_column, metric=metric,
        )  # fmt: skip
        evaluation = run_job(EvaluateRequest(target, given, split.value if split else None, max_length, device.value), events)
        events.emit_finished()
        show_evaluation(evaluation, json_output)
        check_gates(evaluation, min_score, min_retention)
