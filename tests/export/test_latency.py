"""Timing in turns: what is counted, in which order, and which limits hold."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdcli.errors import RequestError
from kdcli.export.energy import EnergyMeter
from kdcli.export.latency import (
    GRID,
    Contestant,
    Latency,
    LatencyLimit,
    _latency,
    _median_interval,
    by_shape,
    grid,
    measure,
    own_distribution,
)


def latency(p50: float = 4.0, batch: int = 1, length: int = 64, model: str = "student") -> Latency:
    return Latency(
        model, "onnxruntime int8", batch, length, p50, p50 * 1.1, p50 * 1.2, (p50 * 0.9, p50 * 1.05), 250.0, None, 100
    )


def nothing() -> None:
    """A call without work."""


def test_percentiles_and_throughput_are_those_of_numpy() -> None:
    values = np.random.default_rng(3).lognormal(1.0, 0.3, 101)
    found = _latency(Contestant("student", "torch", nothing), 8, 16, values, 0.25)
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx(np.percentile(values, [50, 90, 99]), abs=1e-4)
    assert found.samples_per_second == pytest.approx(8 / (np.median(values) / 1e3), abs=0.01)
    assert (found.model, found.engine, found.batch, found.length, found.runs, found.joules) == (
        "student", "torch", 8, 16, 101, 0.25,
    )  # fmt: skip


def test_interval_covers_the_true_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    intervals = [_median_interval(generator.lognormal(np.log(7.0), 0.4, 40)) for _ in range(300)]
    covered = np.mean([low <= 7.0 <= high for low, high in intervals])
    assert 0.9 <= covered <= 0.99
    assert np.mean([low <= 8.5 <= high for low, high in intervals]) < 0.5


def test_interval_is_the_same_each_time_and_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).lognormal(1.0, 0.5, 80)
    theirs = bootstrap((values,), np.median, method="percentile", n_resamples=5000).confidence_interval
    assert _median_interval(values) == _median_interval(values)
    assert _median_interval(values) == pytest.approx(tuple(theirs), rel=0.03)


def test_interval_of_equal_times_has_no_width() -> None:
    assert _median_interval(np.full(7, 2.0)) == (2.0, 2.0)


def test_every_round_times_each_contestant_once_and_orders_vary() -> None:
    told: list[str] = []
    names = ["a", "b", "c", "d"]

    def call(name: str) -> Callable[[], None]:
        return lambda: told.append(name)

    found = measure([Contestant(name, "torch", call(name)) for name in names], 1, 16, seconds=0.05)
    warm_up, timed = told[:12], told[12:]
    rounds = [tuple(timed[start : start + 4]) for start in range(0, len(timed), 4)]
    assert warm_up == [name for name in names for _ in range(3)]
    assert all(sorted(order) == names for order in rounds)
    assert {row.runs for row in found} == {len(rounds)}
    followers = {name: {order[place + 1] for order in rounds for place in range(3) if order[place] == name} for name in names}
    assert all(followers[name] == set(names) - {name} for name in names)


def test_slow_contestants_get_seven_rounds_and_quick_ones_a_bounded_number() -> None:
    slow = measure([Contestant("slow", "torch", lambda: time.sleep(0.01))], 1, 16, seconds=0.0)
    quick = measure([Contestant("quick", "torch", nothing)], 1, 16, seconds=60.0)
    assert slow[0].runs == 7
    assert slow[0].p50_ms >= 10.0
    assert quick[0].runs == 500


def test_garbage_is_not_collected_while_the_clock_runs_and_is_afterwards() -> None:
    seen: list[bool] = []
    measure([Contestant("a", "torch", lambda: seen.append(gc.isenabled()))], 1, 16, seconds=0.0)
    assert seen == [True] * 3 + [False] * 7
    assert gc.isenabled()

    def fail() -> None:
        if not gc.isenabled():
            raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        measure([Contestant("a", "torch", fail)], 1, 16, seconds=0.0)
    assert gc.isenabled()


def zone(folder: Path, place: str, name: str, microjoules: int, full: int = 1_000_000) -> Path:
    """A counter as Linux shows it."""
    path = folder / place
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n", encoding="ascii")
    (path / "max_energy_range_uj").write_text(f"{full}\n", encoding="ascii")
    (path / "energy_uj").write_text(f"{microjoules}\n", encoding="ascii")
    return path / "energy_uj"


def test_energy_per_call_is_counted_over_a_counter_that_starts_again(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 970_000)

    def work(microjoules: int) -> Callable[[], None]:
        def call() -> None:
            counter.write_text(str((int(counter.read_text()) + microjoules) % 1_000_000))

        return call

    found = measure(
        [Contestant("small", "torch", work(20_000)), Contestant("large", "torch", work(300_000))], 1, 16, 0.0, tmp_path
    )
    assert [row.joules for row in found] == pytest.approx([0.02, 0.3])


def test_packages_and_memory_are_counted_and_what_they_contain_is_not(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 0)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 5)
    zone(tmp_path, "intel-rapl:1", "psys", 0)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    meter = EnergyMeter.find(tmp_path)
    assert meter is not None
    assert meter.counters == (package, memory)
    assert meter.read() == [900_000, 5]
    assert meter.joules([900_000, 5], [100_000, 5]) == pytest.approx(0.2)


@pytest.mark.parametrize("case", ["no folder", "no counters", "not readable", "not a number"])
def test_machine_that_tells_no_energy_has_no_meter(case: str, tmp_path: Path) -> None:
    if case == "not readable":
        zone(tmp_path, "intel-rapl:0", "package-0", 0).unlink()
    elif case == "not a number":
        zone(tmp_path, "intel-rapl:0", "package-0", 0).write_text("")
    folder = tmp_path / "missing" if case == "no folder" else tmp_path
    assert EnergyMeter.find(folder) is None
    assert measure([Contestant("a", "torch", nothing)], 1, 16, 0.0, folder)[0].joules is None


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5ms@b1s64", LatencyLimit(5.0, 1, 64)),
        ("0.5ms@b8s128", LatencyLimit(0.5, 8, 128)),
        ("1s@b32s512", LatencyLimit(1000.0, 32, 512)),
        (" 1.5s@b1s1 ", LatencyLimit(1500.0, 1, 1)),
    ],
)
def test_limit_is_read(text: str, limit: LatencyLimit) -> None:
    assert LatencyLimit.parse(text) == limit


@pytest.mark.parametrize(
    "text",
    ["", "5ms", "5@b1s64", "5ms@b1", "5ms@s64", "5ms@b0s64", "5ms@b1s0", "0ms@b1s64", "-5ms@b1s64", "5us@b1s64", "5ms@b1s64x",
     "5 ms@b1s64", ".5ms@b1s64", "nanms@b1s64", "5ms@s64b1"],
)  # fmt: skip
def test_limit_that_cannot_be_read_names_the_flag_and_the_form(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        LatencyLimit.parse(text)
    (problem,) = caught.value.problems
    assert problem.where == "--max-latency"
    assert problem.found == repr(text)
    assert "5ms@b1s64" in problem.remedy
    assert "above 0" in problem.expected


def test_limit_holds_up_to_the_limit_and_says_what_breaks_it() -> None:
    limit = LatencyLimit.parse("5ms@b1s64")
    assert limit.broken([latency(5.0), latency(80.0, batch=32), latency(80.0, length=128)]) is None
    assert limit.broken([latency(6.0), latency(80.0, batch=32)]) == (
        "student in onnxruntime int8 takes 6.00 ms at b1s64 (median, 95 % interval 5.40–6.30 ms), above the limit of 5.00 ms"
    )


def test_limit_at_a_shape_that_was_not_timed_does_not_hold() -> None:
    said = LatencyLimit.parse("5ms@b1s64").broken([latency(0.1, batch=8)])
    assert said is not None
    assert "nothing was timed at b1s64" in said


def test_grid_is_cut_to_what_the_model_takes() -> None:
    assert grid(512) == list(GRID)
    assert grid(100) == [(batch, length) for batch in (1, 8, 32) for length in (16, 64, 100)]
    assert grid(64) == [(batch, length) for batch in (1, 8, 32) for length in (16, 64)]
    assert grid(8) == [(1, 8), (8, 8), (32, 8)]


def test_own_distribution_draws_the_lengths_of_the_split() -> None:
    lengths = [5] * 70 + [9] * 25 + [40] * 5
    drawn = own_distribution(lengths, 8, np.random.default_rng(0), batches=500)
    assert drawn.shape == (500, 8)
    assert set(drawn.flat) == {5, 9, 40}
    assert np.mean(drawn == 9) == pytest.approx(0.25, abs=0.02)
    assert np.array_equal(drawn, own_distribution(np.array(lengths), 8, np.random.default_rng(0), batches=500))


def test_latencies_are_sorted_within_each_shape() -> None:
    rows = [latency(3.0), latency(9.0, batch=32), latency(1.0, model="other"), latency(2.0, length=16)]
    assert {shape: [row.p50_ms for row in found] for shape, found in by_shape(rows).items()} == {
        (1, 16): [2.0], (1, 64): [1.0, 3.0], (32, 64): [9.0],
    }  # fmt: skip
