"""``kdcli evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.cli import options
from kdcli.cli.session import print_document, results, session

if TYPE_CHECKING:
    from kdcli.evaluation.document import Evaluation

EXAMPLES = """Examples:

  kdcli evaluate

  kdcli evaluate runs/latest --split test --min-retention 0.98:bound --max-ece 0.05 --junit gates.xml

  kdcli evaluate seeds/mt-bert seeds/kdcli --out comparison

  kdcli evaluate ./model.onnx old=predictions.csv --teachers ./my-bert --data test.csv
"""


class Split(StrEnum):
    """Which rows to score on."""

    dev = "dev"
    test = "test"


def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs, folders of runs (seeds of one recipe are recognised), checkpoints, ONNX files, or tables with a column "
            "of predicted classes; each perhaps as name=path. Default: the latest run.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[Split | None, typer.Option("--split", help="Default: test where there is one, else dev.")] = None,
    teachers: Annotated[
        str | None,
        typer.Option("--teachers", help="Models to hold the others against, comma-separated; a run's own are known."),
    ] = None,
    suggest_map: Annotated[
        Path | None,
        typer.Option("--suggest-map", metavar="FILE", help="Write the run's recipe with the layer maps that would fit best."),
    ] = None,
    task: options.Task = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="A file, all of it scored on; a folder with train/dev/test files; with --task its files as distributed; or "
            "a Hub dataset. Default: what the run was made with.",
            rich_help_panel="Data",
        ),
    ] = None,
    eval: options.Eval = None,
    test: options.Test = None,
    text_column: options.TextColumn = None,
    text_pair_column: options.TextPairColumn = None,
    label_column: options.LabelColumn = None,
    kind: options.Kind = None,
    metric: options.Metric = None,
    max_length: options.MaxLength = None,
    device: options.DeviceOption = options.Device.auto,
    min_score: options.MinScore = None,
    min_retention: options.MinRetention = None,
    max_drop: options.MaxDrop = None,
    max_ece: options.MaxEce = None,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Write the gates as JUnit XML.", rich_help_panel="Run and output"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the document, the report and the tables. Default: the run's, where one run is scored on its data.",
            rich_help_panel="Run and output",
        ),
    ] = None,
    report: options.ReportFlag = True,
    json_output: options.Json = False,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the JSON Schema of --json and stop.", rich_help_panel="Run and output")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Score models side by side on the same rows, and say what their differences are worth."""
    with session(quiet) as events:
        if json_schema:
            print_document(schema())
            return
        from kdcli.atomic_files import write_text
        from kdcli.data.task_loading import DataRequest
        from kdcli.evaluation.junit import junit as as_junit
        from kdcli.jobs.evaluate import EvaluateRequest
        from kdcli.jobs.evaluate import evaluate as run_job

        done = run_job(
            EvaluateRequest(
                targets=tuple(targets or ()),
                teachers=teachers,
                data=DataRequest(
                    task=task, data=data, eval=eval, test=test, text_column=text_column,
                    text_pair_column=text_pair_column, label_column=label_column, kind=kind, metric=metric,
                ),
                split=split.value if split else None,
                max_length=max_length,
                device=device.value,
                gates=options.gates(
                    min_score=min_score, min_retention=min_retention, max_drop=max_drop, max_ece=max_ece
                ),
                out=out,
                report=report,
                suggest_map=suggest_map,
            ),
            events,
        )  # fmt: skip
        if junit is not None:
            write_text(junit, as_junit(done.evaluation))
        events.emit_finished()
        show_evaluation(done.evaluation, json_output)
        check_gates(done.evaluation)


def schema() -> str:
    """The JSON Schema of an evaluation."""
    import json

    from kdcli.evaluation.document import Evaluation

    return json.dumps(Evaluation.model_json_schema(mode="serialization"), indent=2)


def show_evaluation(evaluation: Evaluation, json_output: bool) -> None:
    """The scores as tables, or as JSON."""
    from kdcli.atomic_files import json_text
    from kdcli.cli.evaluation_view import evaluation_view
    from kdcli.cli.rendering import show

    if json_output:
        print_document(json_text(evaluation.model_dump(mode="json")))
    else:
        console = results()
        show(console, *evaluation_view(evaluation, console.width))


def check_gates(evaluation: Evaluation) -> None:
    """Fail if a gate does not hold.

    Raises:
        GateError: with one sentence per broken gate.
    """
    from kdcli.errors import GateError

    broken = [gate.sentence for gate in evaluation.gates if not gate.passed]
    if broken:
        raise GateError("\n".join(broken))
