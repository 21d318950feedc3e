"""The commands as functions, for notebooks and training scripts: the same arguments, typed results, no subprocess.

Importing this module imports torch as late as possible; what a function raises is a :class:`kdcli.errors.KdcliError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    from kdcli.data.task_loading import DataRequest
    from kdcli.engine.events import Event, Events
    from kdcli.evaluation.document import Evaluation
    from kdcli.evaluation.gates import Gate
    from kdcli.jobs.export import Export
    from kdcli.plan.plan import Plan
    from kdcli.plan.request import TrainRequest
    from kdcli.recipe.yaml_document import Override

PathText = str | os.PathLike[str]
Device = Literal["auto", "cpu", "cuda"]
Listener = Callable[["Event"], None]
GateName = Literal["min-score", "min-retention", "max-drop", "max-ece"]


class Data(TypedDict, total=False):
    """The flags about the data, as ``kdcli distill --help`` tells them."""

    task: str
    data: PathText
    eval: PathText
    test: PathText
    text_column: str
    text_pair_column: str
    label_column: str
    kind: str
    metric: str
    train_rows: int
    unlabelled: PathText


@dataclass(frozen=True)
class Trained:
    """What ``distill`` or ``cofinetune`` has made.

    Attributes:
        folder: the run folder.
        plan: everything that was settled before the training.
        evaluation: the scores on dev, as ``evaluation.json`` has them.
    """

    folder: Path
    plan: Plan
    evaluation: Evaluation

    @property
    def student(self) -> Path:
        """The folder of the student, which ``AutoModelForSequenceClassification`` loads."""
        return self.folder / "student"

    @property
    def teachers(self) -> Path:
        """The folder of the teachers that were co-finetuned in the run."""
        return self.folder / "teachers"


def distill(
    teachers: str | Mapping[str, PathText] | Sequence[PathText],
    student: PathText | None = None,
    *,
    recipe: PathText = "kdcli",
    settings: Mapping[str, object] | None = None,
    effort: Literal["quick", "normal", "thorough"] = "normal",
    seed: int = 0,
    device: Device = "auto",
    baseline: bool | None = None,
    allow_weak_teachers: bool = False,
    gates: Mapping[GateName, str | float] | None = None,
    out: PathText | None = None,
    resume: bool = False,
    report: bool = True,
    listener: Listener | None = None,
    **data: Unpack[Data],
) -> Trained:
    """Make a student from teachers, as ``kdcli distill`` does.

    >>> distill({"mine": "./my-bert"}, "4L", data="reviews.csv")  # doctest: +SKIP

    Args:
        teachers: as ``--teachers`` takes them, or name → checkpoint, or checkpoints.
        student: a size such as ``4L``, or a checkpoint; None where the recipe says it.
        recipe: a name or a file.
        settings: values put in place of the recipe's, by key: ``{"stages.0.epochs": 3}``.
        effort: how many epochs a recipe trains that leaves their number open.
        seed: of everything drawn at random.
        device: where to compute.
        baseline: also train the same student without teachers; None: for the starter task only.
        allow_weak_teachers: go on with a teacher that is at chance.
        gates: limits, as the flags of the same name take them; ``evaluation.gates`` says whether they hold.
        out: the run folder; None makes a new one below ``runs/``.
        resume: go on with the run in ``out``.
        report: write ``report.html`` and the tables.
        listener: called with every event of the run (:mod:`kdcli.engine.events`): progress, notes, scores.
        data: the flags about the data; none for the starter task.

    Raises:
        RequestError: the request is wrong, with everything that is wrong about it.
        GateError: a teacher is at chance.
        RunFailedError: the run failed; ``resume`` goes on from the last checkpoint.
    """
    from kdcli.jobs.distill import distill as job

    request = _request(
        "distill", teachers, student, recipe, settings, data,
        effort=effort, seed=seed, device=device, baseline=baseline, allow_weak_teachers=allow_weak_teachers,
    )  # fmt: skip
    run, evaluation = job(
        request, _events(listener), _path(out), resume, gates=_gates(gates), report=report
    )  # fmt: skip
    return Trained(run.path, run.read_plan(), evaluation)


def cofinetune(
    teachers: str | Mapping[str, PathText] | Sequence[PathText],
    *,
    recipe: PathText = "kdcli",
    settings: Mapping[str, object] | None = None,
    effort: Literal["quick", "normal", "thorough"] = "normal",
    seed: int = 0,
    device: Device = "auto",
    out: PathText | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    **data: Unpack[Data],
) -> Trained:
    """Fine-tune several teachers together, as ``kdcli cofinetune`` does; arguments and errors as of :func:`distill`."""
    from kdcli.jobs.cofinetune import cofinetune as job

    request = _request("cofinetune", teachers, None, recipe, settings, data, effort=effort, seed=seed, device=device)
    run, evaluation = job(request, _events(listener), _path(out), resume)
    return Trained(run.path, run.read_plan(), evaluation)


def evaluate(
    *targets: PathText,
    teachers: str | None = None,
    split: Literal["dev", "test"] | None = None,
    max_length: int | None = None,
    device: Device = "auto",
    gates: Mapping[GateName, str | float] | None = None,
    out: PathText | None = None,
    report: bool = False,
    listener: Listener | None = None,
    **data: Unpack[Data],
) -> Evaluation:
    """Score models side by side on the same rows, as ``kdcli evaluate`` does.

    Args:
        targets: runs, folders of runs, checkpoints, ONNX files, tables of predictions; none for the latest run.
        teachers: models to hold the others against, as ``--teachers`` takes them.
        split: None takes test where there is one.
        max_length: tokens per text; None takes each model's own.
        device: where to compute.
        gates: limits; ``evaluation.gates`` says whether they hold.
        out: folder for the document, the report and the tables.
        report: write report and tables.
        listener: called with every event.
        data: for models that belong to no run.

    Raises:
        RequestError: nothing there, wrong data, labels that do not match.
    """
    from kdcli.jobs.evaluate import EvaluateRequest
    from kdcli.jobs.evaluate import evaluate as job

    request = EvaluateRequest(
        targets=tuple(os.fspath(target) for target in targets),
        teachers=teachers,
        data=_data(data),
        split=split,
        max_length=max_length,
        device=device,
        gates=_gates(gates),
        out=_path(out),
        report=report,
    )
    return job(request, _events(listener)).evaluation


def export(
    target: PathText | None = None,
    *,
    out: PathText | None = None,
    precisions: Sequence[str] | None = None,
    max_drop: float = 0.5,
    benchmark: Literal["off", "short", "full"] = "off",
    max_latency: str | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    listener: Listener | None = None,
    **data: Unpack[Data],
) -> Export:
    """Write a student as ONNX files that are as good as it is, as ``kdcli export --onnx`` does.

    Args:
        target: a run or a checkpoint folder; None for the latest run.
        out: the export folder; None for ``export/`` in the run or beside the checkpoint.
        precisions: which files; None for fp32 and int8.
        max_drop: points of the metric that a file may lose.
        benchmark: how much is timed.
        max_latency: the fastest file must keep to it, such as ``5ms@b1s64``.
        device: where files are checked and timed.
        listener: called with every event.
        data: texts for a checkpoint that belongs to no run.

    Raises:
        RequestError: no such run or checkpoint, or it cannot be exported.
        GateError: no file holds; nothing is written.
    """
    from kdcli.export.latency import LatencyLimit
    from kdcli.jobs.export import ExportRequest
    from kdcli.jobs.export import export as job

    request = ExportRequest(
        target=_path(target),
        out=_path(out),
        precisions=None if precisions is None else tuple(precisions),
        max_drop=max_drop,
        benchmark=benchmark,
        max_latency=None if max_latency is None else LatencyLimit.parse(max_latency),
        data=_data(data),
        device=device,
    )
    return job(request, _events(listener))


def _request(
    command: Literal["distill", "cofinetune"],
    teachers: str | Mapping[str, PathText] | Sequence[PathText],
    student: PathText | None,
    recipe: PathText,
    settings: Mapping[str, object] | None,
    data: Data,
    **more: Any,
) -> TrainRequest:
    from kdcli.plan.request import TrainRequest

    if isinstance(teachers, Mapping):
        teachers = ",".join(f"{name}={os.fspath(path)}" for name, path in teachers.items())
    elif not isinstance(teachers, str):
        teachers = ",".join(os.fspath(path) for path in teachers)
    return TrainRequest(
        command=command,
        teachers=teachers,
        student=None if student is None else os.fspath(student),
        data=_data(data),
        recipe=os.fspath(recipe),
        overrides=tuple(_override(key, value) for key, value in (settings or {}).items()),
        **more,
    )


def _override(key: str, value: object) -> Override:
    from kdcli.recipe.yaml_document import Override

    return replace(Override.parse(f"{key}=null"), value=value, flag=f"settings[{key!r}]")


def _data(data: Data) -> DataRequest:
    from kdcli.data.task_loading import DataRequest

    paths = ("data", "eval", "test", "unlabelled")
    given: dict[str, Any] = {key: _absolute(value) if key in paths else value for key, value in data.items()}
    return DataRequest(**given)


def _absolute(path: Any) -> str:
    text = os.fspath(path)
    return str(Path(text).resolve()) if Path(text).exists() else str(text)


def _gates(gates: Mapping[GateName, str | float] | None) -> tuple[Gate, ...]:
    from kdcli.evaluation.gates import parse_gates

    return tuple(parse_gates({name: str(limit) for name, limit in (gates or {}).items()}))


def _path(path: PathText | None) -> Path | None:
    return None if path is None else Path(path)


def _events(listener: Listener | None) -> Events:
    from kdcli.engine.events import Events

    return Events([] if listener is None else [listener])
