"""``kdcli export``: the student as ONNX, checked against torch on real text and timed beside its teachers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdcli import __version__
from kdcli.data import starter
from kdcli.data.sources import DataRequest
from kdcli.data.task import DEV, Split
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.errors import GateError, Problem, RequestError
from kdcli.export.graph import write_graph
from kdcli.export.latency import Contestant, Latency, machine, measure
from kdcli.export.parity import ShapeParity, check_parity, encode, feed, open_session, real_batches
from kdcli.files import whole_folder, write_json
from kdcli.jobs.preparation import load_task_of
from kdcli.jobs.run_folder import RunFolder, find_run
from kdcli.jobs.teachers import load_teachers, trained_folder
from kdcli.models.checkpoints import Reference, describe
from kdcli.models.loading import load_classifier, load_tokenizer, text_limit
from kdcli.models.teachers import Teacher
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers


@dataclass(frozen=True)
class ExportRequest:
    """What ``kdcli export`` was asked for.

    Attributes:
        target: a run, a checkpoint folder, or None for the latest run.
        out: where the export folder goes; None for ``export/`` in the run or beside the checkpoint.
        benchmark: measure latencies.
        data: texts for a checkpoint that belongs to no run.
    """

    target: Path | None = None
    out: Path | None = None
    benchmark: bool = True
    data: DataRequest = field(default_factory=DataRequest)


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        model: the ONNX file.
        parity: each shape that was checked.
        latencies: empty without a benchmark.
        sizes: bytes on disk, of the checkpoint's weights and of the ONNX file.
    """

    folder: Path
    model: Path
    parity: list[ShapeParity]
    latencies: list[Latency]
    machine: dict[str, Any]
    sizes: dict[str, int]

    def as_data(self) -> dict[str, Any]:
        """The content of ``benchmark.json`` and of ``kdcli export --json``."""
        return {
            "format": 1,
            "model": str(self.model),
            "bytes": self.sizes,
            "parity": [asdict(row) | {"holds": row.holds} for row in self.parity],
            "latency": [asdict(row) for row in self.latencies],
            "machine": self.machine,
        }


@dataclass(frozen=True)
class _Source:
    checkpoint: Path
    folder: Path
    texts: list[Any]
    max_length: int
    plan: Plan | None
    run: RunFolder | None


def export(request: ExportRequest, events: Events) -> Export:
    """Write the export folder, and only if the file passes its parity check.

    Raises:
        RequestError: no such run or checkpoint, or it has no head.
        GateError: the exported file does not say what the model says; nothing is kept of it.
    """
    source = _source(request, events)
    model: Any = load_classifier(source.checkpoint).eval()
    tokenizer = load_tokenizer(source.checkpoint)
    threads = torch.get_num_threads()
    with whole_folder(source.folder) as partial:
        path = partial / "onnx" / "model.onnx"
        path.parent.mkdir()
        events.emit(WorkStarted("exporting to ONNX"))
        batches = real_batches(source.texts)
        write_graph(model, encode(tokenizer, batches[1], source.max_length), path, _about(source, model))
        model.config.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if (source.checkpoint / "README.md").is_file():
            shutil.copy(source.checkpoint / "README.md", partial)
        events.emit(WorkStarted("checking against torch on real text"))
        session = open_session(path, threads)
        parity = check_parity(model, tokenizer, session, batches, source.max_length)
        _refuse_disparity(parity)
        latencies = _benchmark(source, model, tokenizer, session, batches, events) if request.benchmark else []
        done = Export(
            folder=source.folder,
            model=source.folder / "onnx" / "model.onnx",
            parity=parity,
            latencies=latencies,
            machine=machine(threads),
            sizes={
                "checkpoint": sum(file.stat().st_size for file in source.checkpoint.glob("model*.safetensors")),
                "onnx": path.stat().st_size,
            },
        )
        write_json(partial / "benchmark.json", done.as_data())
    events.emit(Note(f"written: {done.model}"))
    return done


def _source(request: ExportRequest, events: Events) -> _Source:
    target = request.target
    if target is not None and not (target / "plan.yaml").is_file():
        return _checkpoint_source(request, target)
    run = find_run(target)
    plan = run.read_plan()
    if not run.student.is_dir():
        what = "has teachers and no student" if plan.student is None else "has no student yet"
        raise RequestError(Problem(str(run.path), what, remedy=f"kdcli distill --resume --out {run.path}"))
    events.emit(WorkStarted("reading the data"))
    task = load_task_of(TrainRequest.model_validate(plan.request).data, run)
    return _Source(run.student, request.out or run.export, _texts(task.splits[DEV]), plan.recipe.training.max_length, plan, run)


def _checkpoint_source(request: ExportRequest, folder: Path) -> _Source:
    if not folder.is_dir():
        raise RequestError(Problem(str(folder), "there is no such run or checkpoint folder"))
    found = describe(Reference(folder.name, str(folder), "checkpoint"))
    if found.head_labels is None:
        raise RequestError(
            Problem(str(folder), "has no classification head", "a checkpoint that was fine-tuned for classification")
        )
    length = text_limit(found)
    if request.data.is_starter:
        texts: list[Any] = starter.sample_texts(64)
    else:
        texts = _texts(load_task_of(request.data, RunFolder(folder)).splits[DEV])
    return _Source(folder, request.out or folder / "export", texts, length, None, None)


def _texts(split: Split) -> list[Any]:
    rows = range(min(len(split), 512))
    if split.pairs is None:
        return [split.texts[row] for row in rows]
    return [(split.texts[row], split.pairs[row]) for row in rows]


def _about(source: _Source, model: Any) -> dict[str, str]:
    about = {
        "kdcli": __version__,
        "labels": ",".join(model.config.id2label[row] for row in range(model.config.num_labels)),
    }
    return about | ({"recipe": source.plan.recipe.name, "task": source.plan.task.name} if source.plan else {})


def _refuse_disparity(parity: Sequence[ShapeParity]) -> None:
    broken = [row for row in parity if not row.holds]
    if broken:
        rows = "\n".join(
            f"  batch {row.batch}, length {row.length}: largest logit difference {row.max_difference:.2e}, "
            f"same class {row.agreement:.1%}"
            for row in broken
        )
        raise GateError(f"the ONNX file does not say what the model says; it was not kept\n{rows}")


def _benchmark(
    source: _Source, model: Any, tokenizer: Any, session: Any, batches: Sequence[Sequence[Any]], events: Events
) -> list[Latency]:
    """One short text, and a batch of 32 up to the longest; every model reads the same texts with its own tokenizer."""
    teachers: list[tuple[Teacher, Any]] = []
    if source.plan is not None and source.run is not None and asks_teachers("distill", source.plan.recipe):
        for teacher in load_teachers(source.plan, source.run):
            folder = trained_folder(source.plan.teacher(teacher.name), source.run)
            teachers.append((teacher, load_tokenizer(folder)))
    latencies = []
    for texts in (batches[0], batches[2]):
        inputs = encode(tokenizer, texts, source.max_length)
        batch, length = inputs["input_ids"].shape
        events.emit(WorkStarted(f"timing at batch {batch}, length {length}"))
        contestants = [
            Contestant(teacher.name, "torch", _teacher_call(teacher, encode(own, texts, source.max_length)))
            for teacher, own in teachers
        ]
        contestants.append(Contestant("student", "torch", _model_call(model, inputs)))
        contestants.append(Contestant("student", "onnxruntime", _session_call(session, inputs)))
        latencies += measure(contestants, int(batch), int(length))
    return latencies


def _teacher_call(teacher: Teacher, inputs: Any) -> Any:
    return lambda: teacher(dict(inputs))


def _model_call(model: Any, inputs: Any) -> Any:
    def call() -> Any:
        with torch.inference_mode():
            return model(**inputs).logits

    return call


def _session_call(session: Any, inputs: Any) -> Any:
    fed = feed(session, inputs)
    return lambda: session.run(None, fed)
