"""Hidden states taken by hooks are those that transformers itself would return."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from kdcli.errors import RequestError
from kdcli.models.capture import blocks, hidden_states
from tests.models.architectures import LAYERS, NAMES, encoder, inputs


def hooks(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_captured_states_equal_those_of_transformers(name: str) -> None:
    model, given = encoder(name), inputs()
    with torch.no_grad():
        expected = model(**given, output_hidden_states=True)
        with hidden_states(model, range(LAYERS + 1)) as found:
            model(**given)
    assert sorted(found) == list(range(LAYERS + 1))
    normed_at_the_end = name == "modernbert"
    for layer in range(LAYERS if normed_at_the_end else LAYERS + 1):
        assert torch.equal(found[layer], expected.hidden_states[layer]), layer
    last = model.final_norm(found[LAYERS]) if normed_at_the_end else found[LAYERS]
    assert torch.equal(last, expected.last_hidden_state)


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_is_captured_as_its_encoder_is(name: str) -> None:
    model = AutoModelForSequenceClassification.from_config(encoder(name).config).eval()
    with torch.no_grad():
        expected = model.base_model(**inputs(), output_hidden_states=True).hidden_states
        with hidden_states(model, [0, 2]) as found:
            model(**inputs())
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[2], expected[2])


@pytest.mark.parametrize("name", ["bert", "albert", "modernbert"])
def test_only_the_asked_layers_are_kept(name: str) -> None:
    model = encoder(name)
    with hidden_states(model, [1, 3]) as found:
        model(**inputs())
    assert sorted(found) == [1, 3]


@pytest.mark.parametrize("name", NAMES)
def test_the_hooks_are_gone_afterwards(name: str) -> None:
    model = encoder(name)
    before = hooks(model)
    with hidden_states(model, [0, 1]):
        assert hooks(model) > before
    assert hooks(model) == before


def test_the_hooks_are_gone_after_an_error() -> None:
    model = encoder("bert")
    before = hooks(model)
    with pytest.raises(ValueError, match="input_ids"), hidden_states(model, [1]):
        model()
    assert hooks(model) == before


def test_asking_for_no_layer_adds_no_hook() -> None:
    model = encoder("bert")
    before = hooks(model)
    with hidden_states(model, []) as found:
        assert hooks(model) == before
        model(**inputs())
    assert found == {}


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_a_second_pass_replaces_the_states_of_the_first(name: str) -> None:
    model = encoder(name)
    with torch.no_grad(), hidden_states(model, [0, 1, LAYERS]) as found:
        model(**inputs(1))
        first = dict(found)
        model(**inputs(2))
        second = dict(found)
        model(**inputs(1))
    assert all(torch.equal(first[layer], found[layer]) for layer in first)
    assert not any(torch.equal(first[layer], second[layer]) for layer in first)


def test_gradients_flow_through_captured_states() -> None:
    model = encoder("bert")
    with hidden_states(model, [2]) as found:
        model(**inputs())
    found[2].square().sum().backward()  # type: ignore[no-untyped-call]
    touched = [any(part.grad is not None for part in block.parameters()) for block in blocks(model)]
    assert touched == [True, True, False, False]


def test_blocks_that_are_not_found_are_refused() -> None:
    model = encoder("bert")
    model.config.num_hidden_layers = 17
    with pytest.raises(RequestError, match="bert"):
        blocks(model)


def test_blocks_of_a_real_checkpoint_are_found(tiny_roberta: Path) -> None:
    assert len(blocks(AutoModel.from_pretrained(tiny_roberta))) == 6
