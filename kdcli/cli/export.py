"""``kdcli export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import options
from kdcli.cli.session import print_document, results, session

EXAMPLES = """Examples:

  kdcli export --onnx

  kdcli export runs/latest --precision fp32,int8,int8-static --max-drop 1 --out ./production

  kdcli export ./my-classifier --task sst2 --data glue/SST-2 --max-latency 5ms@b1s64 --json
"""
_FILES, _GATES, _TIMING = "Files", "Gates", "Benchmark"


class Calibration(StrEnum):
    """How a static range follows from the values that were seen."""

    minmax = "minmax"
    entropy = "entropy"
    percentile = "percentile"


class Device(StrEnum):
    """Where files are checked and timed."""

    cpu = "cpu"
    cuda = "cuda"


def export(
    target: Annotated[
        Path | None, typer.Argument(help="A run or a checkpoint folder. Default: the latest run.", show_default=False)
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write ONNX. It is the one format that there is, so it may be left out.")
    ] = True,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="Files to write: fp32, fp16, bf16, int8, int8-static. One that is named and not good enough is exit code 1. "
            "Default: fp32, and int8 if it is good enough.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    embeddings: Annotated[
        bool,
        typer.Option(
            "--quantize-embeddings/--no-quantize-embeddings",
            help="In int8 files, store the embedding tables in int8 too, with a scale per row.",
            rich_help_panel=_FILES,
        ),
    ] = True,
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--no-reduce-range",
            help="7 bits for int8 weights, for processors without VNNI. Default: as this processor needs it.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = None,
    calibration: Annotated[
        Calibration,
        typer.Option("--calibration", help="How int8-static finds its ranges on training texts.", rich_help_panel=_FILES),
    ] = Calibration.percentile,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Have the probabilities as a second output.", rich_help_panel=_FILES)
    ] = False,
    fused: Annotated[
        bool,
        typer.Option(
            "--fused/--plain",
            help="Use ONNX Runtime's own attention nodes; --plain keeps to the ONNX standard, for other engines.",
            rich_help_panel=_FILES,
        ),
    ] = True,
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop",
            help="Points that a file may lose against the model; one that loses more is deleted.",
            min=0,
            max=100,
            rich_help_panel=_GATES,
        ),
    ] = 0.5,
    max_latency: Annotated[
        str | None,
        typer.Option(
            "--max-latency",
            help="Exit 1 if the fastest file is slower: 5ms@b1s64 is 5 ms for 1 text of 64 tokens.",
            rich_help_panel=_GATES,
        ),
    ] = None,
    benchmark: Annotated[
        bool | None,
        typer.Option(
            "--benchmark/--no-benchmark",
            help="Time over a grid of shapes, with eager, bf16 and compiled torch beside it; or not at all. Default: at two "
            "shapes of real text.",
            show_default=False,
            rich_help_panel=_TIMING,
        ),
    ] = None,
    device: Annotated[
        Device, typer.Option("--device", help="Where files are checked and timed.", rich_help_panel=_TIMING)
    ] = Device.cpu,
    out: Annotated[
        Path | None, typer.Option("--out", help="Export folder. Default: export/ in the run or the checkpoint folder.")
    ] = None,
    task: options.Task = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="For a checkpoint: a file, all of whose rows are judged on; a folder with train/dev files or a Hub dataset, "
            "of which dev is judged on; with --task its files as distributed. Default: sample texts, without a score.",
            rich_help_panel="Data",
        ),
    ] = None,
    eval: options.Eval = None,
    text_column: options.TextColumn = None,
    text_pair_column: options.TextPairColumn = None,
    label_column: options.LabelColumn = None,
    kind: options.Kind = None,
    metric: options.Metric = None,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the student as ONNX files that are as good as it is, and time them."""
    with session(quiet) as events:
        import json

        from kdcli.cli.export_view import export_view
        from kdcli.cli.rendering import show
        from kdcli.errors import GateError
        from kdcli.export.graph import GraphSettings
        from kdcli.export.latency import LatencyLimit
        from kdcli.export.variants import parse_precisions
        from kdcli.jobs.export import ExportRequest
        from kdcli.jobs.export import export as run_job

        request = ExportRequest(
            target=target,
            out=out,
            precisions=None if precision is None else parse_precisions(precision),
            max_drop=max_drop,
            graph=GraphSettings(fused=fused, probabilities=probabilities),
            reduce_range=reduce_range,
            embeddings=embeddings,
            calibration=calibration.value,
            benchmark="short" if benchmark is None else "full" if benchmark else "off",
            max_latency=None if max_latency is None else LatencyLimit.parse(max_latency),
            data=options.data_request(
                task=task, data=data, eval=eval, test=None, text_column=text_column,
                text_pair_column=text_pair_column, label_column=label_column, kind=kind, metric=metric,
            ),
            device=device.value,
        )  # fmt: skip
        done = run_job(request, events)
        events.emit_finished()
        if json_output:
            print_document(json.dumps(done.as_data(), indent=2))
        else:
            console = results()
            show(console, *export_view(done, console.width))
        if done.broken:
            raise GateError("\n".join(done.broken))
