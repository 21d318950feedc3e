"""How long an answer takes: models timed in turns at one shape, the shapes to time at, and the limit to keep."""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError
from kdcli.export.energy import POWERCAP, EnergyMeter

BATCHES, LENGTHS = (1, 8, 32), (16, 64, 128)
GRID = tuple((batch, length) for batch in BATCHES for length in LENGTHS)
_FEWEST, _MOST = 7, 500
_WARM_UP = 3
_RESAMPLES = 2000
_LIMIT = re.compile(r"(\d+(?:\.\d+)?)(ms|s)@b([1-9]\d*)s([1-9]\d*)")


@dataclass(frozen=True)
class Latency:
    """One model at one shape.

    Attributes:
        p50_ms, p90_ms, p99_ms: percentiles of the milliseconds per batch.
        interval_ms: 95 % interval of ``p50_ms``, by bootstrap over the runs.
        samples_per_second: at the median.
        joules: per batch, of the whole machine while it answered; None where it does not tell.
        runs: how many were timed.
    """

    model: str
    engine: str
    batch: int
    length: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    interval_ms: tuple[float, float]
    samples_per_second: float
    joules: float | None
    runs: int


@dataclass(frozen=True)
class Contestant:
    """A model that can be run on a batch: name, engine and a function that returns when the answer is there."""

    model: str
    engine: str
    call: Callable[[], Any]


@dataclass(frozen=True)
class LatencyLimit:
    """The longest that an answer may take at one shape, as in ``--max-latency 5ms@b1s64``."""

    milliseconds: float
    batch: int
    length: int

    @classmethod
    def parse(cls, text: str) -> LatencyLimit:
        """Read ``5ms@b1s64``: time in ``ms`` or ``s``, batch, tokens per text.

        Raises:
            RequestError: it is written otherwise, or the time is 0.

        >>> LatencyLimit.parse("5ms@b1s64")
        LatencyLimit(milliseconds=5.0, batch=1, length=64)
        """
        found = _LIMIT.fullmatch(text.strip())
        milliseconds = float(found[1]) * (1e3 if found[2] == "s" else 1.0) if found else 0.0
        if found is None or milliseconds == 0.0:
            expected = "TIME@bBATCHsLENGTH: a time above 0 in ms or s, texts per batch, tokens per text"
            raise RequestError(
                Problem("--max-latency", "is not a limit at a shape", expected, repr(text), "--max-latency 5ms@b1s64")
            )
        return cls(milliseconds, int(found[3]), int(found[4]))

    def broken(self, latencies: Sequence[Latency]) -> str | None:
        """What is wrong with the latencies of a variant: their median is above the limit, or none is of its shape."""
        shape = f"b{self.batch}s{self.length}"
        measured = [row for row in latencies if (row.batch, row.length) == (self.batch, self.length)]
        if not measured:
            return f"nothing was timed at {shape}, where the limit is {three_figures(self.milliseconds)} ms"
        slow = [
            f"{row.model} in {row.engine} takes {three_figures(row.p50_ms)} ms at {shape} "
            f"(median, 95 % interval {_range(row.interval_ms)} ms), above the limit of {three_figures(self.milliseconds)} ms"
            for row in measured
            if row.p50_ms > self.milliseconds
        ]
        return "\n".join(slow) or None


def measure(
    contestants: Sequence[Contestant], batch: int, length: int, seconds: float = 6.0, powercap: Path = POWERCAP
) -> list[Latency]:
    """Time all of them in turns, so that a change of the machine's speed meets all alike.

    Every round has an order of its own, so that none always finds the caches as the same other one left them.

    Args:
        contestants: what to time; each gets as many runs as every other.
        batch: texts per call, to be told with the result.
        length: tokens per text, likewise.
        seconds: no round begins later, once there are enough of them.
        powercap: where the energy counters lie.
    """
    meter = EnergyMeter.find(powercap)
    generator = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in contestants]
    joules = [0.0 for _ in contestants]
    for contestant in contestants:
        for _ in range(_WARM_UP):
            contestant.call()
    with _no_garbage_collection():
        begin = time.perf_counter()
        for round_number in range(_MOST):
            if round_number >= _FEWEST and time.perf_counter() - begin > seconds:
                break
            for row in generator.permutation(len(contestants)):
                before = meter.read() if meter else []
                start = time.perf_counter_ns()
                contestants[row].call()
                times[row].append((time.perf_counter_ns() - start) / 1e6)
                joules[row] += meter.joules(before, meter.read()) if meter else 0.0
    return [
        _latency(contestant, batch, length, np.array(values), round(used / len(values), 6) if meter else None)
        for contestant, values, used in zip(contestants, times, joules, strict=True)
    ]


def grid(longest: int) -> list[tuple[int, int]]:
    """The shapes of the full benchmark, as ``(batch, length)``, for a model that takes so many tokens."""
    return list(dict.fromkeys((batch, min(length, longest)) for batch, length in GRID))


def own_distribution(
    lengths: Sequence[int] | NDArray[Any], batch: int, generator: np.random.Generator, batches: int = 32
) -> NDArray[np.int64]:
    """Lengths of texts as they come in use, [batches, batch]: drawn from those of a split, with replacement.

    A batch is padded to its longest text, so it costs ``batch`` times its maximum.
    """
    return generator.choice(np.asarray(lengths, dtype=np.int64), (batches, batch))


def by_shape(latencies: Sequence[Latency]) -> dict[tuple[int, int], list[Latency]]:
    """The latencies of each ``(batch, length)``, fastest first."""
    shapes = sorted({(row.batch, row.length) for row in latencies})
    ordered = sorted(latencies, key=lambda row: row.p50_ms)
    return {shape: [row for row in ordered if (row.batch, row.length) == shape] for shape in shapes}


def three_figures(value: float) -> str:
    """A positive number with three significant digits and without an exponent.

    >>> [three_figures(value) for value in (0.01234, 2.5, 1234.5)]
    ['0.0123', '2.50', '1234']
    """
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def _latency(contestant: Contestant, batch: int, length: int, values: NDArray[Any], joules: float | None) -> Latency:
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(values, [50, 90, 99]))
    return Latency(
        contestant.model, contestant.engine, batch, length, p50, p90, p99, _median_interval(values),
        round(batch * 1e3 / float(np.median(values)), 2), joules, len(values),
    )  # fmt: skip


def _median_interval(values: NDArray[Any]) -> tuple[float, float]:
    """95 % percentile bootstrap, as if the runs did not depend on each other."""
    rows = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[rows], axis=1), [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def _range(interval: tuple[float, float]) -> str:
    return "–".join(map(three_figures, interval))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
