"""``kdcli export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import options
from kdcli.cli.session import print_document, results, session

EXAMPLES = """Examples:

  kdcli export --onnx

  kdcli export runs/latest --onnx --out ./production --json
"""


def export(
    target: Annotated[
        Path | None, typer.Argument(help="A run or a checkpoint folder. Default: the latest run.", show_default=False)
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write ONNX. It is the one format that there is, so it may be left out.")
    ] = True,
    benchmark: Annotated[
        bool, typer.Option("--benchmark/--no-benchmark", help="Time the file beside the student and its teachers.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", help="Export folder. Default: export/ in the run or the checkpoint folder.")
    ] = None,
    task: options.Task = None,
    data: options.Data = None,
    text_column: options.TextColumn = None,
    text_pair_column: options.TextPairColumn = None,
    label_column: options.LabelColumn = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the student as one ONNX file, checked against torch on real text and timed."""
    with session(quiet) as events:
        import json

        from kdcli.cli.rendering import export_tables, show
        from kdcli.jobs.export import ExportRequest
        from kdcli.jobs.export import export as run_job

        request = options.data_request(
            task=task, data=data, eval=None, test=None, text_column=text_column,
            text_pair_column=text_pair_column, label_column=label_column,
        )  # fmt: skip
        done = run_job(ExportRequest(target, out, benchmark, request), events)
        events.emit_finished()
        if json_output:
            print_document(json.dumps(done.as_data(), indent=2))
        else:
            show(results(), *export_tables(done))
