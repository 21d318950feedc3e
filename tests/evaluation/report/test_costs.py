"""What scores cost: which score a timed model or file has."""

from __future__ import annotations

import pytest

from kdcli.evaluation.comparison import compare
from kdcli.evaluation.report.costs import latencies, timed_points
from tests.evaluation.report.material import benchmark_of, family, task_of


def test_exported_file_has_its_own_score_or_the_students_less_what_it_lost() -> None:
    task, benchmark = task_of(["bad", "good"], 80), benchmark_of()
    found, shape = compare(task, "test", family(task)), latencies(benchmark)
    assert shape is not None
    assert (shape.batch, shape.length) == (8, 64)
    scores = {point.label: point.score for point in timed_points(found, benchmark)}
    assert scores["student, onnx int8"] == found.model("student int8").scores["accuracy"]
    assert scores["student, onnx fp32"] == pytest.approx(found.model("student").scores["accuracy"] - 0.004)
    assert scores["bert, torch"] == found.model("bert").scores["accuracy"]
