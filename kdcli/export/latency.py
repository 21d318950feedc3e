"""How long an answer takes: teachers and student in torch, the student in ONNX Runtime, on the same threads."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

_SECONDS_PER_SHAPE = 6.0
_FEWEST, _MOST = 7, 200
_WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """One model at one shape.

    Attributes:
        median_ms, p10_ms, p90_ms: milliseconds per batch.
        runs: how many were timed.
    """

    model: str
    engine: str
    batch: int
    length: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True)
class Contestant:
    """A model that can be run on a batch: name, engine and a function per shape."""

    model: str
    engine: str
    call: Callable[[], Any]


def measure(contestants: Sequence[Contestant], batch: int, length: int) -> list[Latency]:
    """Time all of them in turns, round after round, so that a change of the machine's speed meets all alike."""
    times: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        for _ in range(_WARM_UP):
            contestant.call()
    begin = time.perf_counter()
    for round_number in range(_MOST):
        if round_number >= _FEWEST and time.perf_counter() - begin > _SECONDS_PER_SHAPE:
            break
        for row, contestant in enumerate(contestants):
            start = time.perf_counter()
            contestant.call()
            times[row].append((time.perf_counter() - start) * 1e3)
    found = []
    for contestant, values in zip(contestants, times, strict=True):
        p10, median, p90 = np.percentile(values, [10, 50, 90])
        found.append(
            Latency(
                contestant.model, contestant.engine, batch, length,
                round(float(median), 4), round(float(p10), 4), round(float(p90), 4), len(values),
            )
        )  # fmt: skip
    return found


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    import onnxruntime

    return {
        "processor": _processor(),
        "threads": threads,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
