"""Gates: how they are written, what they hold against what, and how CI reads them."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.errors import RequestError
from kdcli.evaluation.comparison import ModelOutputs, compare
from kdcli.evaluation.document import Evaluation
from kdcli.evaluation.gates import GATES, Gate, GateName, parse_gates, with_gates
from kdcli.evaluation.junit import junit
from tests.evaluation.test_comparison import ALL, LABELS, STUDENT, task


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Student 0.8, best teacher 0.95."""
    return compare(task(), "dev", ALL)


def held(evaluation: Evaluation, name: GateName, text: str) -> bool:
    (result,) = with_gates(evaluation, [Gate.parse(name, text)]).gates
    return result.passed


@pytest.mark.parametrize(
    ("text", "limit", "bound"),
    [
        ("0.98", 0.98, False),
        ("98%", 0.98, False),
        ("0.98:bound", 0.98, True),
        (" 97.5%:bound ", 0.975, True),
        ("1", 1.0, False),
    ],
)
def test_a_limit_is_a_fraction_or_a_percentage_perhaps_for_the_bound(text: str, limit: float, bound: bool) -> None:
    gate = Gate.parse("min-score", text)
    assert gate.limit == pytest.approx(limit)
    assert gate.bound == bound


@pytest.mark.parametrize("text", ["", "high", "0.9:lower", "nan", "inf", "0.9:", ":bound", "0,9", "98"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--min-score"):
        Gate.parse("min-score", text)


def test_points_have_no_percent_sign_and_may_be_large() -> None:
    assert Gate.parse("max-drop", "12.5").limit == 12.5
    with pytest.raises(RequestError, match="points"):
        Gate.parse("max-drop", "5%")


@given(st.text(max_size=12))
def test_any_text_is_a_limit_or_a_clear_refusal(text: str) -> None:
    for name in GATES:
        try:
            assert np.isfinite(Gate.parse(name, text).limit)
        except RequestError as error:
            assert f"--{name}" in str(error)  # noqa: PT017 - it may be refused, and need not be


def test_all_unreadable_limits_are_said_at_once() -> None:
    with pytest.raises(RequestError, match=r"--min-score x(.|\n)*--max-ece y"):
        parse_gates({"min-score": "x", "max-ece": "y", "min-retention": None})


@pytest.mark.parametrize(
    ("name", "passes", "breaks"),
    [("min-score", "0.8", "0.81"), ("min-retention", "0.84", "0.85"), ("max-drop", "15", "14.9"), ("max-ece", "0.5", "0.01")],
)
def test_a_gate_holds_at_its_limit_and_breaks_beyond(evaluation: Evaluation, name: GateName, passes: str, breaks: str) -> None:
    assert held(evaluation, name, passes)
    assert not held(evaluation, name, breaks)


@pytest.mark.parametrize(("name", "text"), [("min-score", "0.8"), ("min-retention", "0.84"), ("max-drop", "15")])
def test_the_bound_is_harder_to_keep_than_the_figure(evaluation: Evaluation, name: GateName, text: str) -> None:
    assert held(evaluation, name, text)
    assert not held(evaluation, name, f"{text}:bound")


def test_the_bound_is_the_unfavourable_end_of_the_interval(evaluation: Evaluation) -> None:
    student = evaluation.model("student")
    assert student.retention is not None
    assert student.drop is not None
    assert student.calibration is not None
    ends = {
        "min-score": student.interval[0],
        "min-retention": student.retention.low,
        "max-drop": 100 * student.drop.high,
        "max-ece": student.calibration.ece_high,
    }
    for name in GATES:
        (result,) = with_gates(evaluation, [Gate.parse(name, "0.5:bound")]).gates
        assert result.value == ends[name]


def test_every_gate_is_held_against_every_student() -> None:
    found = with_gates(compare(task(), "dev", ALL), [Gate.parse("min-score", "0.7"), Gate.parse("min-retention", "0.99")])
    assert [(gate.model, gate.gate, gate.passed) for gate in found.gates] == [
        ("student", "--min-score 0.7", True),
        ("student", "--min-retention 0.99", False),
    ]
    assert "0.8421" in found.gates[1].sentence


def test_a_gate_whose_figure_is_missing_is_refused() -> None:
    alone = compare(task(), "dev", [ModelOutputs("elsewhere", "model", "predictions", LABELS.copy())])
    for name in ("min-retention", "max-drop", "max-ece"):
        with pytest.raises(RequestError, match=f"--{name}"):
            with_gates(alone, [Gate.parse(name, "0.5")])


def test_junit_has_a_case_per_gate_and_fails_where_it_is_broken() -> None:
    gates = [Gate.parse("min-score", "0.7"), Gate.parse("min-retention", "0.99")]
    text = junit(with_gates(compare(task(), "dev", ALL), gates))
    suite = ElementTree.fromstring(text.encode()).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    cases = {case.get("name"): case.find("failure") for case in suite.findall("testcase")}
    assert cases["accuracy"] is None
    assert cases["--min-score 0.7"] is None
    failure = cases["--min-retention 0.99"]
    assert failure is not None
    assert "0.8421" in str(failure.get("message"))


def test_junit_is_xml_whatever_a_model_is_called() -> None:
    named = ModelOutputs("a\x00<b>&\ud800", "student", "checkpoint", STUDENT.predictions, STUDENT.outputs)
    text = junit(with_gates(compare(task(), "dev", [named]), [Gate.parse("min-score", "0.9")]))
    case = ElementTree.fromstring(text.encode()).find(".//testcase")
    assert case is not None
    assert case.get("classname") == "a\N{REPLACEMENT CHARACTER}<b>&\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("text", ["0.1", "0.1:bound", "0", "0:bound", "-1:bound"])
def test_a_gate_on_a_figure_that_does_not_exist_never_passes_and_says_why(evaluation: Evaluation, text: str) -> None:
    student, *others = evaluation.models
    assert student.retention is not None
    gate = Gate.parse("min-retention", text)
    for kept in (None, student.retention.model_copy(update={"low": None, "high": None, "value": float("nan")})):
        without = evaluation.model_copy(update={"models": [student.model_copy(update={"retention": kept}), *others]})
        (result,) = with_gates(without, [gate]).gates
        assert (result.passed, result.value) == (False, None)
        assert "does not exist, because" in result.sentence
        assert "<failure" in junit(with_gates(without, [gate]))


def test_a_share_without_an_interval_keeps_to_a_limit_of_its_own_and_not_to_one_of_its_bound(evaluation: Evaluation) -> None:
    student, *others = evaluation.models
    assert student.retention is not None
    kept = student.retention.model_copy(update={"low": None, "high": None})
    without = evaluation.model_copy(update={"models": [student.model_copy(update={"retention": kept}), *others]})
    assert held(without, "min-retention", "0.5")
    assert not held(without, "min-retention", "0.5:bound")


@pytest.mark.parametrize("name", ["min-score", "max-drop", "max-ece"])
def test_a_figure_that_is_no_number_passes_no_gate(evaluation: Evaluation, name: GateName) -> None:
    student, *others = evaluation.models
    assert student.drop is not None
    nan = {
        "scores": {metric: float("nan") for metric in student.scores},
        "drop": student.drop.model_copy(update={"value": float("nan")}),
        "calibration": None if student.calibration is None else replace(student.calibration, ece=float("nan")),
    }
    without = evaluation.model_copy(update={"models": [student.model_copy(update=nan), *others]})
    if name == "max-ece" and student.calibration is None:
        pytest.skip("the student of these tests gives classes alone")
    assert not held(without, name, "0")
    assert not held(without, name, "1")
