"""The hidden-state loss against a few lines of numpy in double precision."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pytest
import torch

from kdcli.losses.hidden import HiddenMseTerm
from kdcli.models.student import STUDENT
from tests.losses.random_samples import TEACHERS, WIDTHS, Array, RandomSamples, value, value_of_parts

PAIRS = {"bert": {1: 2, 2: 4}, "roberta": {0: 0, 1: 1, 2: 3}}
TEACHER_WIDTHS = {name: WIDTHS[name] for name in TEACHERS}
SAME_WIDTHS = dict.fromkeys(WIDTHS, 4)
Side = Literal["teacher", "student"]
Share = Literal["per-layer", "per-teacher"]
Matrices = Mapping[tuple[str, int], Array]
CASES: list[tuple[Side, Share]] = [
    ("teacher", "per-layer"),
    ("teacher", "per-teacher"),
    ("student", "per-layer"),
    ("student", "per-teacher"),
]


def hidden_mse(samples: RandomSamples, matrices: Matrices | None, side: str) -> float:
    total = 0.0
    for name, rows in PAIRS.items():
        errors: dict[int, list[float]] = {layer: [] for layer in rows}
        for student_layer, teacher_layer in rows.items():
            for row in range(len(samples)):
                for place, run in samples.counterparts(name, row):
                    student = samples.hidden[STUDENT][student_layer][row][place]
                    teacher = samples.hidden[name][teacher_layer][row][run].mean(0)
                    if matrices is not None and side == "teacher":
                        teacher = matrices[name, student_layer] @ teacher
                    elif matrices is not None:
                        student = matrices[name, student_layer] @ student
                    errors[student_layer].append(float(np.mean((student - teacher) ** 2)))
        total += sum(float(np.mean(found)) for found in errors.values())
    return total


def random_term(side: Side, share: Share, seed: int = 0) -> HiddenMseTerm:
    """A term whose projections are random, so that none of them is by chance the right one."""
    term = HiddenMseTerm(PAIRS, WIDTHS[STUDENT], TEACHER_WIDTHS, side, share)
    generator = torch.Generator().manual_seed(seed)
    for parameter in term.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return term


def key(term: HiddenMseTerm, name: str, layer: int) -> str:
    return f"{name}-{layer}" if term.share == "per-layer" else name


def matrices(term: HiddenMseTerm) -> dict[tuple[str, int], Array]:
    weights = {name: parameter.detach().numpy().astype(np.float64) for name, parameter in term.projections.named_parameters()}
    return {(name, row): weights[key(term, name, row) + ".weight"] for name, rows in PAIRS.items() for row in rows}


@pytest.mark.parametrize(("side", "share"), CASES)
def test_value_equals_numpy(side: Side, share: Share) -> None:
    samples, term = RandomSamples(seed=1), random_term(side, share)
    assert value(term, *samples.cut()).item() == pytest.approx(hidden_mse(samples, matrices(term), side), rel=1e-5)


def test_without_a_projection_states_are_compared_as_they_are() -> None:
    samples = RandomSamples(seed=2, widths=SAME_WIDTHS)
    term = HiddenMseTerm(PAIRS, 4, SAME_WIDTHS, side=None)
    assert not list(term.parameters())
    assert value(term, *samples.cut()).item() == pytest.approx(hidden_mse(samples, None, ""), rel=1e-5)


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_gradient_of_the_student_equals_finite_differences(side: Side) -> None:
    samples, term = RandomSamples(seed=3), random_term(side, "per-layer")
    batch, outputs = samples.cut()
    states = {layer: hidden.requires_grad_() for layer, hidden in outputs[STUDENT].hidden.items()}
    value(term, batch, outputs).backward()  # type: ignore[no-untyped-call]
    generator = np.random.default_rng(0)
    for layer, own in samples.hidden[STUDENT].items():
        gradient = states[layer].grad
        assert gradient is not None
        ways = [generator.normal(size=values.shape) for values in own]
        found = sum(float((gradient[row, : len(way)].numpy() * way).sum()) for row, way in enumerate(ways))
        ends = []
        for sign in (1, -1):
            samples.hidden[STUDENT][layer] = [values + sign * 1e-5 * way for values, way in zip(own, ways, strict=True)]
            ends.append(hidden_mse(samples, matrices(term), side))
        samples.hidden[STUDENT][layer] = own
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


@pytest.mark.parametrize(("side", "share"), CASES)
def test_gradient_of_the_projections_equals_finite_differences(side: Side, share: Share) -> None:
    samples, term = RandomSamples(seed=4), random_term(side, share)
    value(term, *samples.cut()).backward()  # type: ignore[no-untyped-call]
    generator = np.random.default_rng(1)
    ways = {name: generator.normal(size=tuple(parameter.shape)) for name, parameter in term.projections.named_parameters()}
    found, ends = 0.0, []
    for name, parameter in term.projections.named_parameters():
        assert parameter.grad is not None
        found += float((parameter.grad.numpy() * ways[name]).sum())
    for sign in (1, -1):
        moved = {
            (name, row): matrix + sign * 1e-5 * ways[key(term, name, row) + ".weight"]
            for (name, row), matrix in matrices(term).items()
        }
        ends.append(hidden_mse(samples, moved, side))
    assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_no_gradient_reaches_padding_or_unmatched_tokens() -> None:
    samples, term = RandomSamples(seed=5), random_term("teacher", "per-layer")
    batch, outputs = samples.cut()
    embeddings = outputs[STUDENT].hidden[0].requires_grad_()
    value(term, batch, outputs).backward()  # type: ignore[no-untyped-call]
    matched = {(row, place) for row in range(len(samples)) for place, _ in samples.counterparts("roberta", row)}
    assert embeddings.grad is not None
    assert {(row, place) for row, place in embeddings.grad.abs().sum(-1).nonzero().tolist()} == matched


def test_tokens_without_a_counterpart_are_left_out_and_not_counted() -> None:
    samples, term = RandomSamples(seed=6), random_term("teacher", "per-layer")
    batch, outputs = samples.cut()
    counted = [sum(len(samples.counterparts(name, row)) for row in range(len(samples))) for name in TEACHERS]
    assert counted[1] < counted[0] == sum(samples.lengths[STUDENT])
    assert term.count(batch).tolist() == counted
    before = term(batch, outputs)
    for row in range(len(samples)):
        matched = {place for place, _ in samples.counterparts("roberta", row)}
        for place in set(range(outputs[STUDENT].hidden[0].shape[1])) - matched:
            outputs[STUDENT].hidden[0][row, place] = -99.0
    assert torch.equal(term(batch, outputs), before)
    place, _ = samples.counterparts("roberta", 0)[0]
    outputs[STUDENT].hidden[0][0, place] = -99.0
    assert not torch.equal(term(batch, outputs), before)


@pytest.mark.parametrize(("side", "share"), CASES)
def test_padding_changes_nothing(side: Side, share: Share) -> None:
    samples, term = RandomSamples(seed=7), random_term(side, share)
    wide, narrow = samples.cut(more_padding=6), samples.cut()
    assert torch.equal(term.count(wide[0]), term.count(narrow[0]))
    assert value(term, *wide).item() == pytest.approx(value(term, *narrow).item(), rel=1e-6)


@pytest.mark.parametrize("parts", [(4, 4), (1, 5, 2)])
def test_a_batch_of_eight_equals_its_parts(parts: tuple[int, ...]) -> None:
    samples, term = RandomSamples(seed=8), random_term("teacher", "per-layer")
    ends = np.cumsum([0, *parts])
    cuts = [samples.cut(range(begin, end)) for begin, end in itertools.pairwise(ends)]
    assert value_of_parts(term, cuts).item() == pytest.approx(value(term, *samples.cut()).item(), rel=1e-5)


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_one_matrix_per_pair_of_layers_or_one_per_teacher(side: Side) -> None:
    shape = {name: (4, width) if side == "teacher" else (width, 4) for name, width in TEACHER_WIDTHS.items()}
    by_layer = HiddenMseTerm(PAIRS, 4, TEACHER_WIDTHS, side, "per-layer")
    by_teacher = HiddenMseTerm(PAIRS, 4, TEACHER_WIDTHS, side, "per-teacher")
    assert {name: tuple(parameter.shape) for name, parameter in by_layer.projections.named_parameters()} == {
        f"{name}-{row}.weight": shape[name] for name, rows in PAIRS.items() for row in rows
    }
    assert {name: tuple(parameter.shape) for name, parameter in by_teacher.projections.named_parameters()} == {
        f"{name}.weight": shape[name] for name in PAIRS
    }


def test_projections_start_as_the_identity_where_widths_agree_and_orthogonal_where_they_do_not() -> None:
    term = HiddenMseTerm(PAIRS, 4, {"bert": 4, "roberta": 3})
    for name, weight in term.projections.named_parameters():
        expected = torch.eye(4 if name.startswith("bert") else 3)
        small = weight if name.startswith("bert") else weight.T @ weight
        assert torch.allclose(small, expected, atol=1e-6)


def test_it_asks_for_the_matched_layers_alone() -> None:
    assert HiddenMseTerm(PAIRS, 4, TEACHER_WIDTHS).needs.hidden == {
        STUDENT: frozenset({0, 1, 2}),
        "bert": frozenset({2, 4}),
        "roberta": frozenset({0, 1, 3}),
    }


def test_the_spread_of_the_projected_teacher_is_observed_only_when_asked() -> None:
    samples, term = RandomSamples(seed=9), random_term("teacher", "per-layer")
    term(*samples.cut())
    assert not term.observed
    term.observing = True
    term(*samples.cut())
    for (name, row), matrix in matrices(term).items():
        states = samples.hidden[name][PAIRS[name][row]]
        everywhere = [(sample, run) for sample in range(len(samples)) for _, run in samples.counterparts(name, sample)]
        projected = [matrix @ states[sample][run].mean(0) for sample, run in everywhere]
        assert term.observed[f"projected-std/{name}-{row}"].item() == pytest.approx(np.std(projected, axis=0).mean(), rel=1e-4)


_PRINT_PROJECTIONS = """
import torch
from kdcli.losses.hidden import HiddenMseTerm
torch.manual_seed(0)
term = HiddenMseTerm({"bert": {0: 0, 1: 1, 2: 2, 3: 3}}, 4, {"bert": 6})
print([(name, weight.flatten().tolist()) for name, weight in term.named_parameters()])
"""


def test_projections_are_the_same_in_every_process() -> None:
    """Their order and first values must not hang on Python's hash seed: optimiser states are matched by that order."""
    found = [
        subprocess.run(
            [sys.executable, "-c", _PRINT_PROJECTIONS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert "bert-0" in found[0]
    assert found[0] == found[1]
