"""Flags that several commands share, and what they mean together."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kdcli.data.task_loading import DataRequest
    from kdcli.evaluation.gates import Gate
    from kdcli.recipe.yaml_document import Override

_MOST_BYTES = 2.0**63
_DATA, _TRAINING, _OUTPUT, _GATES = "Data", "Training", "Run and output", "Gates"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Effort(StrEnum):
    """How long to train where the recipe leaves it open."""

    quick = "quick"
    normal = "normal"
    thorough = "thorough"


class Precision(StrEnum):
    """What to train in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="cola, sst2, mrpc, qqp, mnli, mnli-mm, qnli, rte, wnli or mind. Files from --data, else from the Hub.",
        rich_help_panel=_DATA,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="With --task the folder with its files as distributed; else a CSV, TSV, JSONL or Parquet file, a folder with "
        "train/dev/test files, or a Hub dataset. Without --task and --data: the starter task.",
        rich_help_panel=_DATA,
    ),
]
Eval = Annotated[
    str | None,
    typer.Option("--eval", help="File with the dev split. Default: found in the folder, or held out.", rich_help_panel=_DATA),
]
Test = Annotated[
    str | None,
    typer.Option("--test", help="File with the test split; read by evaluate alone.", rich_help_panel=_DATA),
]
Unlabelled = Annotated[
    str | None,
    typer.Option(
        "--unlabelled", help="File with further texts without labels, which the student is taught on.", rich_help_panel=_DATA
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text-column", help="Column with the text. Default: guessed by its name; the plan says which.", rich_help_panel=_DATA
    ),
]
TextPairColumn = Annotated[
    str | None,
    typer.Option(
        "--text-pair-column",
        help="Column with the second text of a pair; none for single texts. Default: guessed by the two names, such as "
        "question and sentence.",
        rich_help_panel=_DATA,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        help="Column with the class. Default: guessed by its name; the plan says which.",
        rich_help_panel=_DATA,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="Kind of task. Default: what the column of labels looks like; the plan says which.",
        rich_help_panel=_DATA,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="What decides, such as accuracy, macro-f1 or pearson; one that there is not is refused with those that there are. "
        "Default: the task's.",
        rich_help_panel=_DATA,
    ),
]
TrainRows = Annotated[
    int | None,
    typer.Option("--train-rows", min=2, help="Train on this many rows, drawn at random.", rich_help_panel=_DATA),
]
Recipe = Annotated[str, typer.Option("--recipe", help="Name of a shipped recipe, or a YAML file.", rich_help_panel=_TRAINING)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override any value of the recipe, such as stages.0.epochs=3; may be repeated.",
        rich_help_panel=_TRAINING,
    ),
]
EffortOption = Annotated[
    Effort,
    typer.Option(
        "--effort",
        help="How long to train where the recipe leaves it open: quick takes about a third of normal's steps, thorough three "
        "times as many. The plan says how many epochs that is.",
        rich_help_panel=_TRAINING,
    ),
]
TeacherEpochs = Annotated[
    float | None, typer.Option("--teacher-epochs", help="Epochs of co-finetuning.", rich_help_panel=_TRAINING)
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Samples per step, over all processes.", rich_help_panel=_TRAINING)
]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", help="Peak learning rate.", rich_help_panel=_TRAINING)]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", help="Tokens per text; longer texts are cut.", rich_help_panel=_TRAINING)
]
TrainPrecision = Annotated[
    Precision | None,
    typer.Option("--precision", help="auto takes bf16 where the machine has it.", rich_help_panel=_TRAINING),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of everything drawn at random.", rich_help_panel=_TRAINING)
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.", rich_help_panel=_TRAINING)]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Also log to wandb, mlflow, … (comma-separated; TensorBoard and metrics.jsonl are always written).",
        rich_help_panel=_OUTPUT,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Run folder. Default: runs/<task>-<student>-<time>.", rich_help_panel=_OUTPUT),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the latest run, or with the one in --out.", rich_help_panel=_OUTPUT),
]
CacheSize = Annotated[
    str,
    typer.Option(
        "--cache-size",
        metavar="SIZE",
        help="Disk for the teachers' kept outputs, of all runs together: 20GB, 500MB; 0 asks the teachers in every epoch. "
        "They lie in the folder that KDCLI_CACHE names, else in ~/.cache/kdcli.",
        rich_help_panel=_OUTPUT,
    ),
]
ShowProfile = Annotated[
    bool, typer.Option("--profile", help="Show where the time of the training went.", rich_help_panel=_OUTPUT)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print the plan, train nothing.", rich_help_panel=_OUTPUT)
]
MinScore = Annotated[
    str | None,
    typer.Option(
        "--min-score",
        metavar="LIMIT",
        help="Exit 1 below this score: 0.9 or 90%. With :bound behind it (as in all gates) the unfavourable end of the 95 % "
        "interval has to keep to it: 0.9:bound.",
        rich_help_panel=_GATES,
    ),
]
MinRetention = Annotated[
    str | None,
    typer.Option(
        "--min-retention", metavar="LIMIT", help="Exit 1 below this share of the best teacher's score.", rich_help_panel=_GATES
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="Exit 1 if it scores so many points below the best teacher.",
        rich_help_panel=_GATES,
    ),
]
MaxEce = Annotated[
    str | None,
    typer.Option("--max-ece", metavar="LIMIT", help="Exit 1 above this expected calibration error.", rich_help_panel=_GATES),
]
ReportFlag = Annotated[
    bool,
    typer.Option("--report/--no-report", help="Write report.html, its pictures and CSV tables.", rich_help_panel=_OUTPUT),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.", rich_help_panel=_OUTPUT)]


def data_request(
    *,
    task: str | None,
    data: str | None,
    eval: str | None,
    test: str | None,
    text_column: str | None,
    text_pair_column: str | None,
    label_column: str | None,
    metric: str | None = None,
    train_rows: int | None = None,
    unlabelled: str | None = None,
    kind: str | None = None,
) -> DataRequest:
    """The data flags as one request; paths that exist are made absolute, so that the run can be used from elsewhere."""
    from kdcli.data.task_loading import DataRequest
    from kdcli.errors import Problem, RequestError

    if data is None and task in (None, "starter"):
        given = {"--eval": eval, "--test": test, "--text-column": text_column, "--label-column": label_column, "--kind": kind}
        given["--text-pair-column"] = text_pair_column
        for flag, value in given.items():
            if value is not None:
                raise RequestError(Problem(f"{flag} {value}", "needs --data (or --task) as well"))
    return DataRequest(
        task=task,
        data=_absolute(data),
        eval=_absolute(eval),
        test=_absolute(test),
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        metric=metric,
        train_rows=train_rows,
        unlabelled=_absolute(unlabelled),
        kind=kind,
    )


def _absolute(path: str | None) -> str | None:
    return str(Path(path).resolve()) if path is not None and Path(path).exists() else path


def overrides(set_values: list[str] | None, flags: dict[str, tuple[tuple[Any, ...], Any]]) -> tuple[Override, ...]:
    """The overrides of ``--set`` behind those of the shorthand flags that were given.

    Args:
        set_values: what ``--set`` was given.
        flags: flag → (key path, value or None).
    """
    from kdcli.recipe.yaml_document import Override

    short = [
        Override(path, getattr(value, "value", value), f"{flag} {getattr(value, 'value', value)}")
        for flag, (path, value) in flags.items()
        if value is not None
    ]
    return (*short, *(Override.parse(text) for text in set_values or []))


def gates(*, min_score: str | None, min_retention: str | None, max_drop: str | None, max_ece: str | None) -> tuple[Gate, ...]:
    """The gates that were asked for.

    Raises:
        RequestError: with every limit that cannot be read.
    """
    from kdcli.evaluation.gates import parse_gates

    given = {"min-score": min_score, "min-retention": min_retention, "max-drop": max_drop, "max-ece": max_ece}
    return tuple(parse_gates(given))


def byte_size(text: str, flag: str) -> int:
    """``20GB``, ``1.5 GiB``, ``500MB`` or a number of bytes; K, M, G and T count in steps of 1000, Ki… in steps of 1024.

    >>> byte_size("1.5GiB", "--cache-size")
    1610612736

    Raises:
        RequestError: it is none of these.
    """
    from kdcli.errors import Problem, RequestError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise RequestError(Problem(f"{flag} {text}", "is not a size", "such as 20GB, 500MB, 1.5GiB or 0"))
    size = float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2].lower() or " ")
    if size > _MOST_BYTES:
        raise RequestError(Problem(f"{flag} {text}", "is more than any disk holds", "such as 20GB, 500MB, 1.5GiB or 0"))
    return int(size)


def split_names(values: list[str] | None) -> tuple[str, ...]:
    """``wandb,mlflow`` and repeated flags as single names."""
    return tuple(name.strip() for value in values or [] for name in value.split(",") if name.strip())
