"""A rough guess at memory and time, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import torch

from kdcli.plan.plan import COFINETUNE, DISTILL, Estimate, StagePlan, StudentPlan, TeacherPlan

_EFFICIENCY = 0.35
_ADAMW_BYTES = 16
_ACTIVATIONS_PER_TOKEN_AND_LAYER = 40


def estimate(
    teachers: Sequence[TeacherPlan],
    students: Mapping[str, StudentPlan],
    stages: Iterable[StagePlan],
    *,
    batch_size: int,
    rows: int,
    tokens: float,
    dtype: torch.dtype,
    device: torch.device,
    repeats: int,
    rounds: int = 1,
) -> Estimate:
    """Seconds and bytes from the sizes, if every teacher answers once.

    A forward pass costs 2 operations per block weight and token, a training step three forward passes. The machine's rate is
    taken from a short matrix product, of which a training loop reaches about a third.

    Args:
        teachers: all of them.
        students: by the training in which they learn; none when teachers alone are trained.
        stages: what is trained.
        batch_size: samples per step.
        rows: texts that the teachers are asked about; each of them once, since their answers are kept.
        dtype: of the matrix products.
        device: where they run.
        tokens: mean tokens per sample.
        repeats: how often the student is trained (2 with a baseline, of which only one asks the teachers).
        rounds: how often the teachers are co-finetuned (more than once for out-of-fold answers).
    """
    rate = _matrix_rate(dtype, device) * _EFFICIENCY
    block = {teacher.name: 12 * teacher.layers * teacher.width**2 for teacher in teachers}
    operations = 0.0
    stages = list(stages)
    asked_about: dict[tuple[str, str], int] = {}  # texts by training and teacher
    for stage in stages:
        samples = stage.steps * batch_size
        if stage.phase == COFINETUNE:
            fresh = sum(block[teacher.name] for teacher in teachers if teacher.kind == "cofinetune")
            operations += 6 * fresh * samples * tokens * rounds
        else:
            for name in {name for term in stage.terms for name in term.teachers}:
                asked_about[stage.phase, name] = min(rows, asked_about.get((stage.phase, name), 0) + samples)
            trained = students[stage.phase].layer_parameters * (repeats if stage.phase == DISTILL else 1)
            operations += 6 * trained * samples * tokens
    operations += sum(2 * block[name] * texts * tokens for (_, name), texts in asked_about.items())
    frozen = sum(teacher.parameters for teacher in teachers) * (2 if dtype is not torch.float32 else 4)
    cofinetuned = sum(teacher.parameters for teacher in teachers if teacher.kind == "cofinetune") * _ADAMW_BYTES
    learning = frozen + max((student.parameters for student in students.values()), default=0) * _ADAMW_BYTES
    widest = max(
        [teacher.layers * teacher.width for teacher in teachers if teacher.kind == "cofinetune"]
        + [student.layers * student.width for student in students.values()]
        + [1]
    )
    activations = batch_size * 2 * tokens * widest * _ACTIVATIONS_PER_TOKEN_AND_LAYER * 4
    return Estimate(
        memory_bytes=int(max(cofinetuned, learning) + activations) + 600 * 2**20,
        seconds=operations / rate,
        tokens_per_sample=round(tokens, 1),
        disk_bytes=int(rows * _output_bytes(teachers, stages, tokens)),
    )


def _output_bytes(teachers: Sequence[TeacherPlan], stages: Iterable[StagePlan], tokens: float) -> float:
    """Bytes that the answers of all teachers to a text of so many tokens take: two per value of the insides."""
    by_name = {teacher.name: teacher for teacher in teachers}
    internals: set[tuple[str, str, int]] = set()
    for term in (term for stage in stages for term in stage.terms):
        loss = term.loss
        for name in term.teachers:
            layers = loss.layers_seen(term.layers.get(name, {}), by_name[name].layers)
            internals |= {(name, kind, layer) for kind in loss.needs() for layer in layers}
    sizes = 0.0
    for name, kind, _ in internals:
        square = kind in ("attention", "scores")
        sizes += 2 * tokens * (by_name[name].heads * tokens if square else by_name[name].width)
    return sizes


def _matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a matrix product of a typical size."""
    left, right = (torch.randn(512, 1024, dtype=dtype, device=device) for _ in range(2))
    right = right.t().contiguous()
    best = float("inf")
    for _ in range(4):
        begin = time.perf_counter()
        product = left @ right
        product.flatten()[0].item()
        best = min(best, time.perf_counter() - begin)
    return 2 * 512 * 512 * 1024 / best
