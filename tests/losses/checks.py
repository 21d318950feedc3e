"""What has to hold for every loss term."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.losses.projection import Projections
from kdcli.losses.term import Outputs, Term
from kdcli.models.output import KINDS, Output, Wanted
from kdcli.models.student import STUDENT
from tests.losses.random_samples import Array, RandomSamples, own_place
from tests.losses.reference import Matrices

Reference = Callable[[RandomSamples, Matrices], Array]
STEP = 1e-5


@dataclass
class Case:
    """A term, samples, and what its parts have to be, from the samples and the bank's matrices."""

    term: Term
    samples: RandomSamples
    reference: Reference
    bank: Projections = field(default_factory=Projections)


def randomised(bank: Projections, seed: int = 0) -> Projections:
    """Matrices that are random, so that none of them is by chance the right one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in bank.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return bank


def matrices(bank: Projections) -> dict[str, Array]:
    return {
        name.removesuffix(".weight"): parameter.detach().numpy().astype(np.float64)
        for name, parameter in bank.named_parameters()
    }


def parts(term: Term, *cuts: tuple[Batch, Outputs]) -> Tensor:
    """What a term's parts say of the samples of all cuts: totals and counts summed, then divided once."""
    totals = torch.stack([term(batch, outputs) for batch, outputs in cuts]).sum(0)
    counts = torch.stack([term.count(batch) for batch, _ in cuts]).sum(0)
    return totals / counts.clamp(min=1.0)


def value(term: Term, *cuts: tuple[Batch, Outputs]) -> Tensor:
    return parts(term, *cuts).sum()


def student_tensors(term: Term, outputs: Outputs) -> dict[tuple[str, int], Tensor]:
    """Kind and layer → what the term may look at of the student, as leaves of the graph."""
    wanted, output = term.needs().get(STUDENT, Wanted()), outputs[STUDENT]
    found = {("logits", 0): output.logits}
    found |= {(kind, layer): getattr(output, kind)[layer] for kind in KINDS for layer in getattr(wanted, kind)}
    return {place: tensor.requires_grad_() for place, tensor in found.items()}


def assert_value_is_the_reference(case: Case) -> None:
    expected = case.reference(case.samples, matrices(case.bank))
    assert expected.sum() > 1e-4  # something to compare
    assert case.term.count(case.samples.cut()[0]).shape == expected.shape == (case.term.parts,)
    np.testing.assert_allclose(parts(case.term, case.samples.cut()).detach().numpy(), expected, rtol=2e-5, atol=1e-7)


def assert_gradient_is_that_of_the_reference(case: Case) -> None:
    """Along random directions, of everything of the student and of the matrices; none where there is padding."""
    generator, known = np.random.default_rng(0), matrices(case.bank)
    batch, outputs = case.samples.cut()
    tensors = student_tensors(case.term, outputs)
    value(case.term, (batch, outputs)).backward()  # type: ignore[no-untyped-call]

    def agree(gradient: Array, way: Array, ends: Sequence[Array]) -> None:
        slope = float(ends[0].sum() - ends[1].sum()) / (2 * STEP)
        assert float((gradient * way).sum()) == pytest.approx(
            slope, rel=1e-4, abs=1e-4 * float(np.linalg.norm(gradient)) + 1e-7
        )

    moving = 0
    for (kind, layer), tensor in tensors.items():
        own = case.samples.student(kind, layer)
        gradient = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy().astype(np.float64)
        way, real = np.zeros(tensor.shape), np.zeros(tensor.shape, dtype=bool)
        for row, values in enumerate(own):
            real[own_place(row, values)] = True
        way[real] = generator.normal(size=int(real.sum()))
        assert (gradient[~real] == 0.0).all()
        ways = [way[own_place(row, values)] for row, values in enumerate(own)]
        ends = [case.reference(case.samples.moved(kind, layer, [sign * STEP * w for w in ways]), known) for sign in (1, -1)]
        agree(gradient, way, ends)
        moving += bool(np.abs(gradient).max() > 1e-6)
    for key, matrix in known.items():
        found = case.bank[key].weight.grad
        gradient = np.zeros(matrix.shape) if found is None else found.numpy().astype(np.float64)  # type: ignore[operator]
        way = generator.normal(size=matrix.shape)
        ends = [case.reference(case.samples, {**known, key: matrix + sign * STEP * way}) for sign in (1, -1)]
        agree(gradient, way, ends)
        moving += bool(np.abs(gradient).max() > 1e-6)
    assert moving


def assert_padding_changes_nothing(case: Case) -> None:
    narrow, wide = case.samples.cut(), case.samples.cut(more_padding=6, garbage=-3e3, masked=-3e38)
    assert torch.equal(case.term.count(wide[0]), case.term.count(narrow[0]))
    torch.testing.assert_close(parts(case.term, wide), parts(case.term, narrow), rtol=1e-5, atol=1e-7)


def assert_cuts_change_nothing(case: Case) -> None:
    """8×1 = 4×2 = 2×4 = 8, and uneven cuts, as far as groups of samples stay together."""
    group = case.term.group
    assert len(case.samples) == 8
    assert group in (1, 2, 4)
    whole = parts(case.term, case.samples.cut())
    for size in (size for size in (1, 2, 4) if size % group == 0):
        cuts = [case.samples.cut(range(begin, begin + size)) for begin in range(0, 8, size)]
        torch.testing.assert_close(parts(case.term, *cuts), whole, rtol=1e-5, atol=1e-7)
    uneven = [case.samples.cut(range(group)), case.samples.cut(range(group, 8))]
    torch.testing.assert_close(parts(case.term, *uneven), whole, rtol=1e-5, atol=1e-7)


def only(output: Output, wanted: Wanted) -> Output:
    """What a model that is asked for ``wanted`` would say."""
    shown = {kind: {layer: getattr(output, kind)[layer] for layer in getattr(wanted, kind)} for kind in KINDS}
    return Output(output.logits, **shown)


def assert_needs_are_what_is_used(case: Case) -> None:
    """The value is the same with that alone, and there is none if a model or a layer is missing."""
    batch, outputs = case.samples.cut()
    needs = case.term.needs()
    asked = {name: only(outputs[name], wanted) for name, wanted in needs.items()}
    assert torch.equal(case.term(batch, asked), case.term(batch, outputs))
    for name, wanted in needs.items():
        with pytest.raises(KeyError):
            case.term(batch, {other: output for other, output in asked.items() if other != name})
        for kind in KINDS:
            for layer in getattr(wanted, kind):
                less = replace(wanted, **{kind: getattr(wanted, kind) - {layer}})
                with pytest.raises(KeyError):
                    case.term(batch, {**asked, name: only(outputs[name], less)})


def assert_finite(term: Term, batch: Batch, outputs: Mapping[str, Output]) -> None:
    """Value and gradient."""
    tensors = student_tensors(term, outputs)
    found = value(term, (batch, outputs))
    assert torch.isfinite(found)
    if found.requires_grad:
        found.backward()  # type: ignore[no-untyped-call]
    for tensor in tensors.values():
        assert tensor.grad is None or torch.isfinite(tensor.grad).all()
