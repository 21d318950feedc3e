"""``kdcli export``: the student as ONNX files, each held against the model on the task's own text, and timed."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli import __version__
from kdcli.atomic_files import whole_folder, write_json
from kdcli.data import starter_data
from kdcli.data.splits import DEV, TEST, TRAIN
from kdcli.data.task import Task
from kdcli.data.task_loading import DataRequest, load_scored
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.engine.interruption import refuse_to_go_on
from kdcli.errors import GateError, Problem, RequestError
from kdcli.evaluation.chance import against_chance
from kdcli.evaluation.intervals import score_interval
from kdcli.export.file_names import FILES
from kdcli.export.gate import Examiner, Texts, file_logits
from kdcli.export.graph import GraphSettings
from kdcli.export.latency import Latency, LatencyLimit
from kdcli.export.machine import describe as describe_machine
from kdcli.export.machine import has_vnni
from kdcli.export.memory import Memory, session_memory
from kdcli.export.plot import draw
from kdcli.export.quantisation import Calibration
from kdcli.export.serving import write_predict
from kdcli.export.sessions import check_provider, open_session
from kdcli.export.variants import DEFAULT, Asked, Variant, Workshop
from kdcli.jobs.evaluation_files import refresh_report
from kdcli.jobs.latency_benchmark import Runner, file_runner, run_benchmark, torch_runners
from kdcli.jobs.ownership import owned
from kdcli.jobs.request_checks import load_task_of
from kdcli.jobs.run_folder import RunFolder, find_run, refuse_unwritable
from kdcli.jobs.teacher_training import load_teachers, refuse_outputs_not_finite, trained_folder
from kdcli.models.checkpoints import Reference, describe
from kdcli.models.padding import is_given_each_length_by_itself
from kdcli.models.student import STUDENT_NAME
from kdcli.models.weight_loading import load_classifier, load_tokenizer, text_limit
from kdcli.models.weights import weight_bytes, weight_files
from kdcli.plan.hardware import resolve_device
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers
from kdcli.tasks.kind import Kind

Benchmark = Literal["off", "short", "full"]
_CALIBRATION_BATCHES, _CALIBRATION_BATCH = 16, 8
_SHOWN = 3


@dataclass(frozen=True)
class ExportRequest:
    """What ``kdcli export`` was asked for.

    Attributes:
        target: a run, a checkpoint folder, or None for the latest run.
        out: where the export folder goes; None for ``export/`` in the run or beside the checkpoint.
        precisions: which files; None for fp32 and int8, of which int8 may turn out not to be good enough.
        max_drop: points of the task's metric that a file may lose against the model.
        graph: what is asked of all graphs.
        reduce_range: 7 bits for int8 weights; None where this processor needs it.
        embeddings: quantise embedding tables too.
        calibration: for static int8.
        benchmark: whom to time, and where.
        max_latency: the fastest file must keep to it.
        data: texts for a checkpoint that belongs to no run: one file, all of which is judged on, or data with a dev split.
        device: where files are checked and timed.
    """

    target: Path | None = None
    out: Path | None = None
    precisions: tuple[str, ...] | None = None
    max_drop: float = 0.5
    graph: GraphSettings = field(default_factory=GraphSettings)
    reduce_range: bool | None = None
    embeddings: bool = True
    calibration: Calibration = "percentile"
    benchmark: Benchmark = "short"
    max_latency: LatencyLimit | None = None
    data: DataRequest = field(default_factory=DataRequest)
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class Judged:
    """What files were held against the model on.

    Attributes:
        rows: how many texts.
        split: what they are: ``dev split``, ``all rows`` of a file, ``sample texts`` where no data was named.
        source: where they are from.
        student_score: of the model on them, by the task's metric; None without classes.
        at_chance: the model knows nothing about them, so that files are judged by their agreement with it.
    """

    rows: int
    split: str
    source: str
    student_score: float | None = None
    at_chance: bool = False

    def __str__(self) -> str:
        return f"{self.rows} texts ({self.split}{f' of {self.source}' if self.source else ''})"


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: where it lies.
        variants: all that were made, with those that did not hold and were deleted.
        latencies: empty without a benchmark.
        memory: by precision, what a process takes that has nothing but the file; empty without a benchmark.
        machine: what it was measured on.
        weights: bytes of the checkpoint's weights.
        reduce_range: whether int8 weights have 7 bits.
        broken: sentences of the gates that were asked for by name and not met.
        judged: the texts that the files were held against the model on.
    """

    folder: Path
    variants: list[Variant]
    latencies: list[Latency]
    memory: dict[str, Memory]
    machine: dict[str, Any]
    weights: int
    reduce_range: bool
    broken: list[str]
    judged: Judged

    @property
    def kept(self) -> list[Variant]:
        """The files that hold."""
        return [variant for variant in self.variants if variant.broken is None]

    def as_data(self) -> dict[str, Any]:
        """The content of ``benchmark.json`` and of ``kdcli export --json``."""
        return {
            "format": 2,
            "folder": str(self.folder),
            "weights_bytes": self.weights,
            "reduce_range": self.reduce_range,
            "judged": asdict(self.judged),
            "variants": [
                {
                    "precision": variant.precision,
                    "file": f"onnx/{FILES[variant.precision]}",
                    "kept": variant.broken is None,
                    "broken": variant.broken,
                    "bytes": variant.bytes,
                    "memory": asdict(self.memory[variant.precision]) if variant.precision in self.memory else None,
                    "check": None if variant.check is None else asdict(variant.check),
                    "left_in_fp32": list(variant.excluded),
                    "nodes": dict(variant.nodes),
                }
                for variant in self.variants
            ],
            "latency": [asdict(row) for row in self.latencies],
            "machine": self.machine,
            "gates": self.broken,
        }


@dataclass(frozen=True)
class _Source:
    """What is exported, and what it is judged on."""

    checkpoint: Path
    folder: Path
    texts: list[Any]
    others: list[Any]
    targets: NDArray[np.int64] | None
    kind: Kind
    metric: str
    order: list[int]
    max_length: int
    plan: Plan | None
    run: RunFolder | None
    split: str
    origin: str


def export(request: ExportRequest, events: Events) -> Export:
    """Write the export folder with the files that hold; a folder that was there before stays until this one is complete.

    Raises:
        RequestError: no such run or checkpoint, it has no head, or ONNX Runtime lacks the device.
        GateError: the fp32 file does not say what the model says; nothing is written.
    """
    check_provider(request.device)
    if request.benchmark != "off":
        resolve_device(request.device)
    with owned(find_run(request.target).path) if _writes_into_run(request) else nullcontext():
        return _export(request, events)


def _writes_into_run(request: ExportRequest) -> bool:
    """Whether the export goes into a run's own folder."""
    return request.out is None and (request.target is None or (request.target / "plan.yaml").is_file())


def _export(request: ExportRequest, events: Events) -> Export:
    source = _source(request, events)
    _refuse_place(source.folder)
    _refuse_longer_than_model(request.max_latency, source.checkpoint)
    model: Any = load_classifier(source.checkpoint).eval()
    if is_given_each_length_by_itself(model):
        kind = model.config.model_type
        why = f"{kind} answers a padded text otherwise than the text alone, so that a file would be wrong in batches"
        raise RequestError(Problem(str(source.checkpoint), why, "a model whose outputs do not depend on padding"))
    tokenizer = load_tokenizer(source.checkpoint)
    texts = Texts.of(tokenizer, source.texts, source.max_length)
    reduce_range = not has_vnni() if request.reduce_range is None else request.reduce_range
    if request.graph.probabilities and not source.kind.has_probabilities:
        what = f"a model for {source.kind.name} gives no probabilities"
        raise RequestError(Problem("--probabilities", what, "the outputs alone"))
    asked = Asked(
        replace(request.graph, kind=source.kind), request.max_drop, reduce_range, request.embeddings, request.calibration,
        torch.get_num_threads(), request.device,
    )  # fmt: skip
    with whole_folder(source.folder) as partial:
        model.config.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if (source.checkpoint / "README.md").is_file():
            shutil.copy(source.checkpoint / "README.md", partial)
        (partial / "onnx").mkdir()
        workshop, judged = _workshop(source, model, tokenizer, texts, asked, partial / "onnx", events)
        variants = []
        for precision in request.precisions or DEFAULT:
            events.emit(WorkStarted(f"writing and checking {precision}"))
            variants.append(workshop.make(precision))
        broken = _broken(variants, request)
        kept = [variant for variant in variants if variant.broken is None]
        if not kept:
            raise GateError("\n".join([*broken, "no file holds; nothing was written"]))
        write_predict(partial, f"onnx/{kept[0].path.name}", source.max_length, source.kind)
        latencies, memory = _measured(request, source, model, tokenizer, texts, kept, events)
        done = Export(
            folder=source.folder,
            variants=variants,
            latencies=latencies,
            memory=memory,
            machine=describe_machine(asked.threads, request.device),
            weights=weight_bytes(source.checkpoint),
            reduce_range=reduce_range,
            broken=broken + _too_slow(request, latencies),
            judged=judged,
        )
        write_json(partial / "benchmark.json", done.as_data())
        if latencies:
            draw(latencies, done.machine, partial / "benchmark.png")
        refuse_to_go_on()
    events.emit(Note(f"written: {done.folder}"))
    if source.run is not None and source.plan is not None and source.folder == source.run.export:
        refresh_report(source.run, source.plan)
    return done


def _refuse_place(folder: Path) -> None:
    """Only an older export is replaced: whatever else lies in the folder is the user's.

    Raises:
        RequestError: there is something else, or nothing can be written there.
    """
    where = f"--out {folder}"
    if folder.exists() and not folder.is_dir():
        raise RequestError(Problem(where, "is a file", "a new folder, or that of an earlier export", remedy="--out DIR"))
    others = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others and not ((folder / "benchmark.json").is_file() and (folder / "onnx").is_dir()):
        found = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
        problem = "has files that are not an earlier export's, which would be lost"
        raise RequestError(
            Problem(where, problem, "a new folder, or that of an earlier export", found, f"--out {folder / 'export'}")
        )
    refuse_unwritable(folder.absolute().parent, where)


def _refuse_longer_than_model(limit: LatencyLimit | None, checkpoint: Path) -> None:
    """A time cannot be measured for texts that the model does not take.

    Raises:
        RequestError: with the most tokens that it takes.
    """
    longest = describe(Reference(checkpoint.name, str(checkpoint), "checkpoint"), weights=False).max_length
    if limit is not None and limit.length > longest:
        found = f"b{limit.batch}s{limit.length}"
        raise RequestError(Problem("--max-latency", "is about longer texts than the model takes", f"at most s{longest}", found))


def _workshop(
    source: _Source, model: Any, tokenizer: Any, texts: Texts, asked: Asked, folder: Path, events: Events
) -> tuple[Workshop, Judged]:
    events.emit(WorkStarted("asking the model"))
    reference = file_logits(_model_call(model), texts)
    refuse_outputs_not_finite(str(source.checkpoint), reference, "the texts that the files are held against")
    examiner = Examiner(texts, reference, source.order, kind=source.kind)
    judged = Judged(len(texts.rows), source.split, source.origin)
    if source.targets is not None:
        labels, kind, metric = source.targets, source.kind, source.kind.metric(source.metric)
        chance = against_chance(kind, metric, reference[:, source.order], labels)
        judged = replace(judged, student_score=chance.score, at_chance=chance.at_chance)
        examiner = Examiner(
            texts, reference, source.order, source.metric,
            lambda predictions, rows: metric.score(predictions, labels[rows]),
            lambda predictions, rows: score_interval(metric, predictions, labels[rows]),
            chance.at_chance, kind,
        )  # fmt: skip
    for note in _about_judging(judged, source.metric, source.kind):
        events.emit(note)
    others = Texts.of(tokenizer, source.others, source.max_length)
    rows = np.random.default_rng(0).integers(0, len(others.rows), (_CALIBRATION_BATCHES, _CALIBRATION_BATCH))
    length = int(np.median(others.lengths))  # the calibration compares batches with each other, which must be of one shape
    feeds = [others.batch(chosen, length) for chosen in rows]
    example = {name: torch.from_numpy(value) for name, value in texts.batch(texts.shapes()[-2]).items()}
    workshop = Workshop(
        model, example, feeds, _about(source, model, folder), examiner, asked, folder,
        lambda text: events.emit(Note(text)),
    )  # fmt: skip
    return workshop, judged


def _about_judging(judged: Judged, metric: str, kind: Kind) -> list[Note]:
    notes = [Note(f"files are held against the model on {judged}")]
    if judged.at_chance:
        value = f"{metric} {judged.student_score:.4f}"
        notes.append(
            Note(
                f"the model itself cannot be told from chance on them ({value}), so its score says nothing about a file: at "
                f"most --max-drop points of the texts may change their {kind.decision}",
                warning=True,
            )
        )
    return notes


def _model_call(model: Any) -> Any:
    def ask(inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = model(
                **{name: torch.from_numpy(value) for name, value in inputs.items()}
            ).logits.numpy()
        return logits

    return ask


def _about(source: _Source, model: Any, folder: Path) -> dict[str, str]:
    """Metadata of all files; the tokenizer lies above their folder."""
    weights = weight_files(source.checkpoint)
    about = {
        "kdcli": __version__,
        "labels": ",".join(model.config.id2label[row] for row in range(model.config.num_labels)),
        "max_length": str(source.max_length),
        "weights_sha256": ",".join(_sha256(file) for file in weights),
        "tokenizer_sha256": _sha256(folder.parent / "tokenizer.json"),
    }
    return about | ({"recipe": source.plan.recipe.name, "task": source.plan.task.name} if source.plan else {})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _broken(variants: Sequence[Variant], request: ExportRequest) -> list[str]:
    """Sentences of the files that do not hold, of those that were asked for by name.

    Raises:
        GateError: fp32 is among them; there is nothing that could be kept.
    """
    for variant in variants:
        if variant.precision == "fp32" and variant.broken is not None:
            raise GateError(f"the ONNX file does not say what the model says; nothing was kept\n  {variant.broken}")
    return [f"{variant.precision}: {variant.broken}" for variant in variants if variant.broken and request.precisions]


def _too_slow(request: ExportRequest, latencies: Sequence[Latency]) -> list[str]:
    limit = request.max_latency
    if limit is None:
        return []
    files = [
        row for row in latencies if (row.batch, row.length) == (limit.batch, limit.length) and row.engine.startswith("onnx")
    ]
    fastest = sorted(files, key=lambda row: row.p50_ms)[:1]
    sentence = limit.broken(fastest)
    return [sentence] if sentence else []


def _measured(
    request: ExportRequest,
    source: _Source,
    model: Any,
    tokenizer: Any,
    texts: Texts,
    kept: Sequence[Variant],
    events: Events,
) -> tuple[list[Latency], dict[str, Memory]]:
    """How fast all are, and how much memory the files take; every model reads the same texts with its own tokenizer."""
    if not kept or (request.benchmark == "off" and request.max_latency is None):
        return [], {}
    threads, full = torch.get_num_threads(), request.benchmark == "full"
    runners: list[Runner] = []
    if request.benchmark != "off":
        runners += _teacher_runners(source, full, request.device)
        runners += torch_runners(STUDENT_NAME, model, model, _logits_of, texts, full, request.device)
    for variant in kept:
        session = open_session(variant.path, threads, request.device)
        runners.append(file_runner(variant.precision, session, texts, request.device))
    latencies = run_benchmark(runners, full, request.max_latency, source.max_length, events)
    memory = {}
    if request.benchmark != "off":
        for variant in kept:
            events.emit(WorkStarted(f"measuring the memory of {variant.precision}"))
            found = session_memory(variant.path, texts.batch(texts.shapes()[-1]), threads)
            if found is not None:
                memory[variant.precision] = found
    return latencies, memory


def _logits_of(module: Any) -> Any:
    return lambda inputs: module(**inputs).logits


def _teacher_runners(source: _Source, full: bool, device: str) -> list[Runner]:
    if source.plan is None or source.run is None or not asks_teachers("distill", source.plan.recipe):
        return []
    runners = []
    for teacher in load_teachers(source.plan, source.run):
        tokenizer = load_tokenizer(trained_folder(source.plan.teacher(teacher.name), source.run))
        texts = Texts.of(tokenizer, source.texts, source.max_length)
        name = f"teacher {teacher.name}" if teacher.name == STUDENT_NAME else teacher.name
        runners += torch_runners(name, teacher, teacher.model, lambda module: module, texts, full, device)
    return runners


def _source(request: ExportRequest, events: Events) -> _Source:
    target = request.target
    if target is not None and not (target / "plan.yaml").is_file():
        return _checkpoint_source(request, target, events)
    run = find_run(target)
    plan = run.read_plan()
    if not request.data.is_starter:
        student = shlex.join(["kdcli", "export", str(run.student), "--data", "FILE", "--out", str(run.export)])
        where = f"--data {request.data.data or request.data.task}"
        raise RequestError(
            Problem(where, "a run's files are held against its student on the run's own dev split", remedy=student)
        )
    run.refuse_half(plan)
    if not run.student.is_dir():
        what = "has teachers and no student" if plan.student is None else "has no student yet"
        raise RequestError(
            Problem(str(run.path), what, remedy=shlex.join(["kdcli", "distill", "--resume", "--out", str(run.path)]))
        )
    events.emit(WorkStarted("reading the data"))
    task = load_task_of(TrainRequest.model_validate(plan.request).data, run)
    order = list(range(len(task.kind.output_names)))
    return _of_task(request, run.student, run.export, task, order, plan.recipe.training.max_length, plan, run)


def _checkpoint_source(request: ExportRequest, folder: Path, events: Events) -> _Source:
    if not folder.is_dir():
        raise RequestError(Problem(str(folder), "there is no such run or checkpoint folder"))
    found = describe(Reference(folder.name, str(folder), "checkpoint"))
    if found.head_labels is None:
        raise RequestError(
            Problem(str(folder), "has no classification head", "a checkpoint that was fine-tuned for classification")
        )
    found.check_head()
    length, kind = text_limit(found), found.task_kind
    assert kind is not None
    if request.data.is_starter:
        texts: list[Any] = starter_data.sample_texts(64)
        out, order = request.out or folder / "export", list(range(len(found.head_labels)))
        return _Source(folder, out, texts, texts, None, kind, "", order, length, None, None, "sample texts", "")
    whole = request.data.is_one_file
    events.emit(WorkStarted("reading the data"))
    task = load_scored(request.data, kind) if whole else load_task_of(request.data, RunFolder(folder))
    task = task.with_all_of(kind)
    for note in task.notes:
        events.emit(Note(note))
    task.kind.metric(task.metric)
    order = task.kind.order_of(f"checkpoint {folder.name}", found.head_labels, kind.name)
    return _of_task(request, folder, folder / "export", task, order, length, None, None, TEST if whole else DEV)


def _of_task(
    request: ExportRequest,
    checkpoint: Path,
    folder: Path,
    task: Task,
    order: list[int],
    length: int,
    plan: Plan | None,
    run: RunFolder | None,
    judged_on: str = DEV,
) -> _Source:
    """Judged on dev, or on all rows of a file; calibrated on what was trained on, where that is known."""
    split = task.splits[judged_on]
    others = task.splits.get(TRAIN, split).samples
    name = f"{DEV} split" if judged_on == DEV else "all rows"
    return _Source(
        checkpoint, request.out or folder, split.samples, others, split.targets, task.kind, task.metric, order, length, plan,
        run, name, Path(split.source).name,
    )  # fmt: skip
