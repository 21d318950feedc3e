"""What a model's scores cost: points of the pictures, and the export's benchmark at one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdcli.evaluation.document import Evaluation, ModelScore
from kdcli.evaluation.report.charts import Point
from kdcli.evaluation.report.verdict import main_model


@dataclass(frozen=True)
class Latencies:
    """What the benchmark found at one shape: its entries of ``latency``, the fastest first."""

    batch: int
    length: int
    rows: Sequence[Mapping[str, Any]]
    machine: str


def latencies(benchmark: Mapping[str, Any] | None) -> Latencies | None:
    """The benchmark's entries at its middle shape."""
    rows = benchmark["latency"] if benchmark else []
    if not benchmark or not rows:
        return None
    shapes = sorted({(row["batch"], row["length"]) for row in rows})
    batches, lengths = (sorted(set(sizes)) for sizes in zip(*shapes, strict=True))
    middle = batches[len(batches) // 2], lengths[len(lengths) // 2]
    batch, length = middle if middle in shapes else shapes[len(shapes) // 2]
    chosen = [row for row in rows if (row["batch"], row["length"]) == (batch, length)]
    machine = benchmark["machine"]
    versions = [f"{name} {machine[name]}" for name in ("torch", "onnxruntime") if machine.get(name)]
    threads = [f"{machine['threads']} threads"] if machine.get("threads") else []
    about = [str(machine[key]) for key in ("processor", "gpu") if machine.get(key)] + threads + versions
    return Latencies(batch, length, sorted(chosen, key=lambda row: float(row["p50_ms"])), ", ".join(about))


def timed_points(evaluation: Evaluation, benchmark: Mapping[str, Any]) -> list[Point]:
    """Scores against the milliseconds of the benchmark's middle shape; those whose score is not known are left out."""
    shape = latencies(benchmark)
    files = {f"onnx {each['precision']}": each for each in benchmark["variants"]}
    found = []
    for row in shape.rows if shape else []:
        model, file = _timed(evaluation, row["model"]), files.get(row["engine"])
        if model is not None:
            score = model.scores[evaluation.metric] if file is None else _score_of_file(evaluation, model, file)
            role = model.role if file is None else "export"
            found += [] if score is None else [Point(f"{row['model']}, {row['engine']}", role, row["p50_ms"], score)]
    return found


def _timed(evaluation: Evaluation, name: str) -> ModelScore | None:
    """The model that the benchmark calls so: the student, or a teacher, whose name may be that of another model here."""
    if name == "student":
        return main_model(evaluation)
    called = (name, f"teacher {name}")
    return next((model for model in evaluation.of("teacher") if model.name in called), None)


def _score_of_file(evaluation: Evaluation, model: ModelScore, file: Mapping[str, Any]) -> float | None:
    """What an ONNX file scores: its own score, or else the model's less what the export's check found it to lose."""
    for each in evaluation.of("export"):
        if each.path and each.path.endswith(file["file"]):
            return each.scores[evaluation.metric]
    split = file["check"]["split"] if file["check"] else {}
    if split.get("metric") != evaluation.metric:
        return None
    return model.scores[evaluation.metric] - float(split["drop"]) / 100
