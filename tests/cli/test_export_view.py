"""Latencies in the terminal, wide and narrow."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from kdcli.cli.export_view import latency_tables
from kdcli.export.latency import Latency

MACHINE = {"processor": "Some Processor", "threads": 2, "instructions": ["avx2"], "torch": "2.13.0", "onnxruntime": "1.31.1"}


def latency(model: str, engine: str, p50: float, batch: int = 1, joules: float | None = None) -> Latency:
    interval = (p50 * 0.97, p50 * 1.04)
    return Latency(model, engine, batch, 64, p50, p50 * 1.1, p50 * 1.3, interval, batch * 1e3 / p50, joules, 50)


ROWS = [
    latency("roberta", "torch eager", 10.0),
    latency("student", "onnxruntime fp32", 2.0),
    latency("student", "onnxruntime int8", 0.5),
]


def printed(rows: list[Latency], width: int) -> list[str]:
    """The lines of the tables on a terminal of some width."""
    out = StringIO()
    Console(file=out, width=width).print(Group(*latency_tables(rows, MACHINE, width)))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_wide_table_says_everything_fastest_first() -> None:
    assert printed(ROWS, 110) == [
        "milliseconds per batch at batch 1, length 64",
        "model    engine              p50  95 % interval    p90    p99  samples/s  speed-up",
        "student  onnxruntime int8  0.500    0.485–0.520  0.550  0.650       2000     20.0×",
        "student  onnxruntime fp32   2.00      1.94–2.08   2.20   2.60        500      5.0×",
        "roberta  torch eager        10.0      9.70–10.4   11.0   13.0        100      1.0×",
        "",
        "on Some Processor, 2 threads, avx2, torch 2.13.0, onnxruntime 1.31.1; speed-up: over the slowest of a table",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_narrow_tables_have_every_figure(width: int) -> None:
    lines = printed(ROWS, width)
    assert all(cell_len(line) <= width for line in lines)
    text = "\n".join(lines)
    for figure in ("0.500", "0.485–0.520", "0.550", "0.650", "2000", "20.0×", "9.70–10.4", "11.0", "13.0", "1.0×"):
        assert figure in text


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 100, 120])
def test_figures_are_whole_at_any_width(width: int) -> None:
    rows = [*ROWS, latency("a-teacher-with-a-very-long-name-that-never-ends", "torch eager", 1234.5)]
    lines = printed(rows, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "…" not in "".join(lines)
    assert "1234" in "".join(lines)
    assert "2469.0×" in "".join(lines)


def test_all_tables_have_the_same_columns() -> None:
    rows = [*ROWS, latency("roberta", "torch eager", 98_765.4, batch=32), latency("student", "torch", 9_876.5, batch=32)]
    for width in range(40, 110, 5):
        headers = [line.split() for line in printed(rows, width) if line.startswith("model")]
        assert headers[: len(headers) // 2] == headers[len(headers) // 2 :]


def test_energy_is_shown_where_the_machine_tells() -> None:
    rows = [latency("roberta", "torch", 10.0, joules=0.25), latency("student", "torch", 1.0, joules=0.0125)]
    lines = printed(rows, 120)
    assert lines[1].split()[-1] == "mJ"
    assert [line.split()[-1] for line in lines[2:4]] == ["12.5", "250"]
    assert "mJ" not in printed([*rows, latency("other", "torch", 5.0)], 120)[1]


def test_names_are_not_taken_for_markup() -> None:
    assert "[bold]x[/]" in "\n".join(printed([latency("[bold]x[/]", "torch", 1.0)], 100))


def test_no_latencies_make_no_tables() -> None:
    assert latency_tables([], MACHINE, 80) == []
