"""What reports are made from in the tests: evaluations of drawn logits, drawn insides, logged values, a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.data.task import Split, Task
from kdcli.evaluation.agreement import Slice
from kdcli.evaluation.comparison import ModelOutputs, compare, ensemble
from kdcli.evaluation.document import Evaluation, GateResult, Kind, LayerComparison, Role, TeacherSimilarity
from kdcli.evaluation.report.html_page import Material
from kdcli.export.gate import Check, SplitCheck
from kdcli.export.latency import Latency
from kdcli.export.variants import Variant
from kdcli.jobs.export import Export, Judged
from kdcli.tasks.classification import Classification

WORDS = ["film", "story", "plot", "actor", "scene", "music", "ending", "camera", "light", "sound"]
MARKUP = '<script>alert("x")</script> & $a_b$'


def task_of(classes: Sequence[str], rows: int, metric: str = "accuracy") -> Task:
    """Texts of drawn words with drawn labels, as train and as test."""
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        texts = [" ".join(generator.choice(WORDS, generator.integers(2, 12))) for _ in range(count)]
        labels = np.arange(count, dtype=np.int64) % len(classes)
        return Split(texts, None, labels, "reviews/test.jsonl", "0123456789abcdef")

    names = tuple(classes)
    splits = {"train": split(2 * len(classes)), "dev": split(rows), "test": split(rows)}
    return Task("reviews", Classification(names, names), metric, splits)


def answer(task: Task, name: str, role: Role, skill: float, noise: int, **more: Any) -> ModelOutputs:
    """A model that prefers the right class by so many standard deviations of its noise."""
    labels = task.splits["test"].targets
    assert labels is not None
    logits = np.random.default_rng(noise).normal(size=(len(labels), len(task.kind.class_names)))
    logits[np.arange(len(labels)), labels] += skill
    kind: Kind = more.pop("kind", "checkpoint")
    scaled = (1.5 * logits).astype(np.float32)
    return ModelOutputs(name=name, role=role, kind=kind, predictions=scaled.argmax(-1), outputs=scaled, **more)


def family(task: Task, student: str = "student", teachers: Sequence[str] = ("bert", "roberta")) -> list[ModelOutputs]:
    """A student with its teachers, their ensemble, itself without them, and its ONNX file."""
    masters = [
        answer(task, name, "teacher", 2.4 + 0.2 * place, place, parameters=110_000_000 + place, bytes=440_000_000)
        for place, name in enumerate(teachers)
    ]
    taught: dict[str, Any] = {"teachers": tuple(teachers), "parameters": 34_500_000, "bytes": 138_000_000}
    if len(masters) > 1:
        taught["ensemble"] = "ensemble"
    together = [ensemble("ensemble", task.kind, masters)] if len(masters) > 1 else []
    file = {**taught, "kind": "onnx", "bytes": 35_000_000, "path": "runs/one/export/onnx/model_int8.onnx"}
    return [
        answer(task, student, "student", 2.3, 10, **taught),
        answer(task, "without teachers", "without-teachers", 1.7, 11, **taught),
        answer(task, f"{student} int8", "export", 2.25, 12, **file),
        *masters,
        *together,
    ]


def seeds_of(task: Task, seeds: Sequence[int] = (0, 1, 2), **skills: float) -> list[ModelOutputs]:
    """Students of several seeds each, by the names and skills of their recipes."""
    return [
        answer(task, f"{recipe}-{seed}", "student", skill, 10 * seed + int(skill), recipe=recipe, seed=seed)
        for recipe, skill in skills.items()
        for seed in seeds
    ]


def evaluation_of(task: Task, answers: Sequence[ModelOutputs], split: str = "test") -> Evaluation:
    """The answers, compared, with a gate that holds and one that does not."""
    found = compare(task, split, answers, ["The labels were made up."])
    name = found.models[0].name
    kept = f"--min-score 0.5: accuracy of {name} is 0.7000 on test"
    lost = f"--min-retention 0.99: the share of the teacher's score that {name} keeps is 0.9000 on test"
    gates = [
        GateResult(gate="--min-score 0.5", model=name, value=0.7, limit=0.5, passed=True, sentence=kept),
        GateResult(gate="--min-retention 0.99", model=name, value=0.9, limit=0.99, passed=False, sentence=lost),
    ]
    return found.model_copy(update={"gates": gates})


def lost(name: str, difference: float, p_value: float) -> Slice:
    """A slice of 40 samples on which the student is so much worse, or better."""
    return Slice("word", name, 40, 0.9, 0.9 + difference, difference, -0.01, p_value)


def compare_layers(teachers: Mapping[str, int], layers: int = 4, heads: int = 12) -> LayerComparison:
    """Likeness that is greatest along the even map, for teachers with so many layers; the first shows all that there is."""
    generator = np.random.default_rng(3)

    def likeness(rows: int, columns: int, first: int = 0) -> list[list[float]]:
        ours, theirs = np.arange(first, rows + first) / layers, np.arange(first, columns + first) / (columns + first - 1)
        near = np.exp(-6 * np.abs(ours[:, None] - theirs))
        values: list[list[float]] = (near * 0.9 + generator.uniform(0, 0.1, near.shape)).tolist()
        return values

    entries = []
    for place, (name, depth) in enumerate(teachers.items()):
        even = {layer: layer * depth // layers for layer in range(1, layers + 1)}
        entries.append(
            TeacherSimilarity(
                teacher=name,
                cka=likeness(layers + 1, depth + 1),
                cls_cosine=None if place else likeness(layers + 1, depth + 1),
                attention_kl=[[3 * (1 - value) for value in row] for row in likeness(layers, depth, 1)],
                head_kl=(14 * generator.uniform(0, 1, (layers, heads)) ** 3).tolist(),
                heads="mean" if place else "match",
                map={} if place else even,
                map_cka=None if place else 0.81,
                suggested={layer: max(1, at - layer % 2) for layer, at in even.items()},
                suggested_cka=0.84,
            )
        )
    return LayerComparison(student="student", split="dev", rows=500, tokens=12_345, teachers=entries)


def metrics_lines(steps: int = 60, every: int = 5) -> list[dict[str, Any]]:
    """Two phases of so many logged steps, evaluated five times each."""
    generator = np.random.default_rng(4)
    lines: list[dict[str, Any]] = []
    for phase, models in (("cofinetune", ("bert", "roberta")), ("distill", ("student",))):
        best = 0.0
        for place in range(1, steps + 1):
            step, left = place * every, np.exp(-3 * place / steps)
            terms = {"loss/hard-labels": left + 0.1 * generator.random(), "loss/hidden-mse": 20 * left + generator.random()}
            values = {**terms, "loss": sum(terms.values()), "learning-rate": 1e-4}
            stage = "second" if phase == "distill" and place > steps / 2 else phase
            lines.append({"kind": "train", "phase": phase, "step": step, "stage": stage, "values": values})
            if place % max(steps // 5, 1) == 0:
                scores = {model: {"accuracy": 0.9 - 0.4 * left - 0.05 * generator.random()} for model in models}
                score = max(each["accuracy"] for each in scores.values())
                about = {"phase": phase, "step": step, "stage": stage, "best": score > best}
                lines.append({"kind": "dev", **about, "scores": scores})
                best = max(best, score)
        lines.append({"kind": "done", "phase": phase, "step": None, "score": best})
    return lines


def benchmark_of(teachers: Sequence[str] = ("bert", "roberta")) -> dict[str, Any]:
    """Torch and two ONNX files at nine shapes, as an export writes it."""
    engines = [("student", "torch", 12.0), ("student", "onnx fp32", 8.0), ("student", "onnx int8", 4.5)]
    engines += [(name, "torch", 44.0 + place) for place, name in enumerate(teachers)]
    latencies = [
        Latency(model, engine, batch, length, ms * batch * length / 256, 2 * ms, 3 * ms, (ms, 1.1 * ms), 1e3 / ms, None, 30)
        for batch in (1, 8, 32)
        for length in (16, 64, 128)
        for model, engine, ms in engines
    ]
    check = Check([], SplitCheck(100, 1e-4, 0.99, "accuracy", 0.7, (0.6, 0.8), 0.4))
    variants = [Variant(precision, Path("model.onnx"), 1_000_000, check, None) for precision in ("fp32", "int8")]
    machine = {"processor": "Some Processor", "threads": 2, "torch": "2.9", "onnxruntime": "1.22"}
    judged = Judged(100, "dev split", "dev.csv", 0.704)
    return Export(Path("export"), variants, latencies, {}, machine, 138_000_000, False, [], judged).as_data()


def whole_material(**changes: Any) -> Material:
    """All that a report can show, two classes and two teachers; ``changes`` replaces fields."""
    task = task_of(["negative", "positive"], 240)
    found = evaluation_of(task, family(task))
    fields: dict[str, Any] = {
        "title": "reviews-4L-20260101-120000",
        "evaluations": [found, found.model_copy(update={"split": "dev"})],
        "layers": compare_layers({"bert": 12, "roberta": 12}),
        "metrics": metrics_lines(),
        "recipe": "name: mt-bert\nstages:\n- name: distill\n  epochs: 3\n",
        "environment": {"kdcli": "0.9", "seed": "0", "machine": "2 cores"},
        "benchmark": benchmark_of(),
        "facts": [("student", "4 layers, width 312"), ("bert", "12 layers, width 768")],
    }
    return Material(**{**fields, **changes})
