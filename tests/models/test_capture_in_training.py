"""Capturing changes neither the answer nor what is learnt, and what is captured can be learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from kdcli.models.capture import Found, blocks, captured, serves
from kdcli.models.output import KINDS, Wanted
from tests.models.architectures import (
    LAYERS,
    NAMES,
    PROJECTED,
    SHARED_BLOCK,
    WITHOUT_SCORES,
    attentive,
    every,
    inputs,
    projection,
    projection_rows,
    real_rows,
)

ALL = range(1, LAYERS + 1)
_DROPOUTS = ("hidden_dropout_prob", "dropout", "embedding_dropout", "mlp_dropout")
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


def classifier(name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return AutoModelForSequenceClassification.from_config(attentive(name).config).eval()


def forgetful(name: str) -> Any:
    """A model in training mode that drops half of its attention, and nothing else that decides layer 1's attention."""
    config = attentive(name).config
    changes: dict[str, float] = dict.fromkeys([key for key in _DROPOUTS if hasattr(config, key)], 0.0)
    changes |= dict.fromkeys([key for key in _ATTENTION_DROPOUTS if hasattr(config, key)], 0.5)
    return attentive(name, **changes).train()


def passed(model: Any, wanted: Wanted, seed: int = 0) -> tuple[Tensor, Found]:
    """The last states of real tokens [N, D], and what was captured."""
    torch.manual_seed(seed)
    given = inputs()
    with torch.no_grad(), captured(model, wanted) as found:
        states = model(**given).last_hidden_state
    return states[given["attention_mask"].bool()], found


def gradients(model: nn.Module, outcome: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    outcome.backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def loss_on(kind: str, tensor: Tensor, given: dict[str, Tensor]) -> Tensor:
    """An arbitrary number that depends on all that real tokens have in a captured tensor."""
    real = given["attention_mask"].bool()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        share = torch.randn(tensor.shape)
    if kind == "hidden":
        return (tensor * share)[real].sum()
    if kind in ("attention", "scores"):
        share = share.masked_fill(~real[:, None, None, :], 0)
        return (real_rows(tensor, given) * real_rows(share, given)).sum()
    return (tensor * share).transpose(1, 2)[real].sum()


def learning(name: str, block: nn.Module) -> list[str]:
    """Which of a block's projections were given a gradient."""
    weights = {kind: projection(name, kind, block).weight for kind in PROJECTED}
    return [
        kind
        for kind, weight in weights.items()
        if weight.grad is not None and projection_rows(name, kind, weight.grad).abs().max() > 0
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_and_its_gradients_are_the_same_with_and_without_capture(name: str) -> None:
    model, given = classifier(name), inputs()
    torch.manual_seed(6)
    share = torch.randn(3, model.config.num_labels)
    plain = model(**given).logits
    expected = gradients(model, (plain * share).sum())
    with captured(model, every(serves(model.config), ALL)) as found:
        logits = model(**given).logits
    assert len(found["attention"]) == LAYERS
    assert_close(logits, plain, rtol=0, atol=1e-5)
    learnt = gradients(model, (logits * share).sum())
    assert learnt.keys() == expected.keys()
    for parameter, gradient in expected.items():
        assert_close(learnt[parameter], gradient, rtol=1e-4, atol=1e-5, msg=parameter)


@pytest.mark.parametrize("name", NAMES)
def test_a_forward_pass_after_the_capture_is_exactly_as_it_was_before(name: str) -> None:
    model = attentive(name)
    before, _ = passed(model, Wanted())
    passed(model, every(serves(model.config), ALL))
    after, found = passed(model, Wanted())
    assert torch.equal(after, before)
    assert not any(found.values())


def _every_kind() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        yield from ((name, kind) for kind in KINDS if kind != "scores" or name not in WITHOUT_SCORES)


@pytest.mark.parametrize(("name", "kind"), _every_kind())
def test_a_loss_reaches_what_made_the_captured_tensor_and_nothing_above(name: str, kind: str) -> None:
    model, given = attentive(name), inputs()
    stack = blocks(model)
    layer = 1 if name == SHARED_BLOCK else 3
    with captured(model, Wanted.of(kind, [layer])) as found:
        model(**given)
    learnt = gradients(model, loss_on(kind, found[kind][layer], given))
    assert all(gradient.isfinite().all() for gradient in learnt.values())
    teaching = {"hidden": [*PROJECTED], "attention": ["queries", "keys"], "scores": ["queries", "keys"]}
    assert learning(name, stack[layer - 1]) == teaching.get(kind, [kind])
    assert all(learning(name, block) == [*PROJECTED] for block in stack[: layer - 1])
    assert not any(weight.grad is not None for block in stack[layer:] for weight in block.parameters())
    words = model.get_input_embeddings().weight.grad
    assert words.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_on_the_attention_adds_to_that_on_the_answer(name: str) -> None:
    model, given = classifier(name), inputs()
    wanted = Wanted.of("attention", [2, LAYERS])

    def learnt(answer: float, attention: float) -> dict[str, Tensor]:
        with captured(model, wanted) as found:
            logits = model(**given).logits
        insides = torch.stack([loss_on("attention", tensor, given) for tensor in found["attention"].values()])
        return gradients(model, answer * logits.square().sum() + attention * insides.sum())

    both, one, other = learnt(1, 1), learnt(1, 0), learnt(0, 1)
    noise = 1e-6 * max(1.0, *(float(gradient.abs().max()) for gradient in both.values()))  # of sums that come to 0
    for parameter, gradient in both.items():
        assert_close(gradient, one[parameter] + other[parameter], rtol=1e-3, atol=1e-3 * float(gradient.abs().max()) + noise)


@pytest.mark.parametrize("name", NAMES)
def test_captured_attention_is_that_before_dropout(name: str) -> None:
    model, given = forgetful(name), inputs()
    _, training = passed(model, Wanted.of("attention", ALL))
    _, evaluated = passed(model.eval(), Wanted.of("attention", ALL))
    assert_close(real_rows(training["attention"][1], given), real_rows(evaluated["attention"][1], given))
    for layer in ALL:
        rows = real_rows(training["attention"][layer].exp(), given)
        assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
    assert not torch.allclose(training["attention"][LAYERS], evaluated["attention"][LAYERS])


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_on_captured_layers_and_follows_the_seed(name: str) -> None:
    model = forgetful(name)
    one, same, other = (passed(model, Wanted.of("attention", ALL), seed)[0] for seed in (1, 1, 2))
    evaluated, _ = passed(model.eval(), Wanted.of("attention", ALL))
    assert one.isfinite().all()
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-3)
    assert not torch.allclose(one, evaluated, atol=1e-3)


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_dropout_keeps_the_attentions_mean(name: str) -> None:
    """What is not dropped is scaled up: over many passes the states that leave the only layer are nearly those without it."""
    model = forgetful(name)
    block: Any = blocks(model)[0]
    mixtures: list[Tensor] = []
    mixer = block.attention.output.dense if name == "bert" else block.attention.attn.o
    handle = mixer.register_forward_pre_hook(lambda _, arguments: mixtures.append(arguments[0]))
    for seed in range(150):
        passed(model, Wanted.of("attention", [1]), seed)
    dropped = torch.stack(mixtures)
    mixtures.clear()
    passed(model.eval(), Wanted.of("attention", [1]))
    handle.remove()
    standard_error = dropped.std(0) / len(dropped) ** 0.5
    assert ((dropped.mean(0) - mixtures[0]).abs() < 5 * standard_error + 1e-4).all()
    assert dropped.std(0).mean() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_in_evaluation_draws_no_random_numbers(name: str) -> None:
    model = forgetful(name).eval()
    before = torch.get_rng_state()
    with captured(model, every(serves(model.config), ALL)):
        model(**inputs())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_captured_attention_are_finite_in_bf16(name: str) -> None:
    model, given = attentive(name), inputs()
    with torch.autocast("cpu", torch.bfloat16), captured(model, Wanted.of("attention", ALL)) as found:
        model(**given)
    insides = [loss_on("attention", tensor, given) for tensor in found["attention"].values()]
    learnt = gradients(model, torch.stack(insides).sum())
    assert all(gradient.isfinite().all() for gradient in learnt.values())
    assert any(gradient.abs().max() > 0 for gradient in learnt.values())
