"""Which insides an architecture shows, where its blocks are, and that hidden states are those of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    ConvBertConfig,
    MegatronBertConfig,
    PreTrainedConfig,
    SqueezeBertConfig,
)

from kdcli.errors import RequestError
from kdcli.models.capture import blocks, captured, serves
from kdcli.models.output import KINDS, Wanted
from tests.models.architectures import (
    CONFIGS,
    LAYERS,
    NAMES,
    VOCABULARY,
    WIDTH,
    WITH_SCORES,
    WITHOUT_SCORES,
    encoder,
    every,
    inputs,
)

_SIZE = {"hidden_size": WIDTH, "embedding_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 48}
HIDDEN_ALONE = {
    "convbert": lambda: ConvBertConfig(**_SIZE, num_hidden_layers=LAYERS, vocab_size=VOCABULARY),
    "megatron-bert": lambda: MegatronBertConfig(**_SIZE, num_hidden_layers=LAYERS, vocab_size=VOCABULARY),
}


class UnheardOfConfig(PreTrainedConfig):  # type: ignore[misc]
    """Of an architecture that transformers does not have."""

    model_type = "unheard-of"


def hidden(layers: range | list[int]) -> Wanted:
    return Wanted.of("hidden", layers)


def hooks(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("name", WITH_SCORES)
def test_architectures_with_the_attention_interface_show_everything(name: str) -> None:
    assert serves(CONFIGS[name]()) == set(KINDS)


@pytest.mark.parametrize("name", WITHOUT_SCORES)
def test_architectures_with_an_attention_of_their_own_show_everything_but_the_scores(name: str) -> None:
    assert serves(CONFIGS[name]()) == set(KINDS) - {"scores"}


@pytest.mark.parametrize("name", HIDDEN_ALONE)
def test_other_architectures_show_hidden_states_alone(name: str) -> None:
    assert serves(HIDDEN_ALONE[name]()) == {"hidden"}


def test_blocks_that_cannot_be_read_are_refused_by_the_architectures_name() -> None:
    config = SqueezeBertConfig(**_SIZE, num_hidden_layers=LAYERS, vocab_size=VOCABULARY)
    assert serves(config) == frozenset()
    model: Any = AutoModel.from_config(config)
    with pytest.raises(RequestError, match="squeezebert: cannot show its hidden"), captured(model, Wanted.of("hidden", [1])):
        pass


def test_an_architecture_that_transformers_does_not_have_shows_hidden_states_alone() -> None:
    assert serves(UnheardOfConfig()) == {"hidden"}


@pytest.mark.parametrize("name", WITHOUT_SCORES)
def test_scores_that_are_not_shown_are_refused_by_the_architectures_name(name: str) -> None:
    model = encoder(name)
    before = hooks(model)
    with pytest.raises(RequestError, match=rf"{name}(.|\n)*scores"), captured(model, every(["attention", "scores"], [1])):
        pass
    assert hooks(model) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hidden"])
@pytest.mark.parametrize("name", HIDDEN_ALONE)
def test_an_attention_that_is_not_shown_is_refused_by_the_architectures_name(name: str, kind: str) -> None:
    model: Any = AutoModel.from_config(HIDDEN_ALONE[name]())
    before, implementation = hooks(model), model.config._attn_implementation
    with pytest.raises(RequestError, match=rf"{name}(.|\n)*{kind}"), captured(model, Wanted.of(kind, [1])):
        pass
    assert hooks(model) == before
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("name", NAMES)
def test_captured_states_equal_those_of_transformers(name: str) -> None:
    model, given = encoder(name), inputs()
    with torch.no_grad():
        expected = model(**given, output_hidden_states=True)
        with captured(model, hidden(range(LAYERS + 1))) as found:
            model(**given)
    assert sorted(found["hidden"]) == list(range(LAYERS + 1))
    normed_at_the_end = name == "modernbert"
    for layer in range(LAYERS if normed_at_the_end else LAYERS + 1):
        assert torch.equal(found["hidden"][layer], expected.hidden_states[layer]), layer
    last = model.final_norm(found["hidden"][LAYERS]) if normed_at_the_end else found["hidden"][LAYERS]
    assert torch.equal(last, expected.last_hidden_state)


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_is_captured_as_its_encoder_is(name: str) -> None:
    model = AutoModelForSequenceClassification.from_config(encoder(name).config).eval()
    served = serves(model.config)
    with torch.no_grad():
        with captured(model.base_model, every(served, [2])) as expected:
            model.base_model(**inputs())
        with captured(model, every(served, [2])) as found:
            model(**inputs())
    for kind in KINDS:
        assert sorted(found[kind]) == ([2] if kind in served else []), kind
    assert all(torch.equal(found[kind][2], expected[kind][2]) for kind in served)


@pytest.mark.parametrize("name", NAMES)
def test_of_each_kind_only_the_asked_layers_are_kept(name: str) -> None:
    model = encoder(name)
    asked = {"hidden": [0, 3], "attention": [2], "keys": [1, 4], "values": [4]}
    with captured(model, Wanted(**{kind: frozenset(layers) for kind, layers in asked.items()})) as found:
        model(**inputs())
    assert {kind: sorted(layers) for kind, layers in found.items()} == {kind: asked.get(kind, []) for kind in KINDS}


@pytest.mark.parametrize("name", NAMES)
def test_the_hooks_are_gone_afterwards(name: str) -> None:
    model = encoder(name)
    before = hooks(model)
    with captured(model, every(serves(model.config), [1])):
        assert hooks(model) > before
    assert hooks(model) == before


@pytest.mark.parametrize("name", ["bert", "mpnet"])
def test_the_hooks_are_gone_after_an_error(name: str) -> None:
    model = encoder(name)
    before = hooks(model)
    with pytest.raises(ValueError, match="input_ids"), captured(model, every(["hidden", "attention"], [1])):
        model()
    assert hooks(model) == before


def test_asking_for_nothing_adds_no_hook() -> None:
    model = encoder("bert")
    before = hooks(model)
    with captured(model, Wanted()) as found:
        assert hooks(model) == before
        model(**inputs())
    assert found == {kind: {} for kind in KINDS}


@pytest.mark.parametrize("name", ["bert", "albert", "mpnet", "deberta-v2"])
def test_a_second_pass_replaces_what_the_first_showed(name: str) -> None:
    model = encoder(name)
    seen = []
    with torch.no_grad(), captured(model, every(serves(model.config), [1, LAYERS])) as found:
        for seed in (1, 2, 1):
            model(**inputs(seed))
            seen.append({(kind, layer): tensor for kind, layers in found.items() for layer, tensor in layers.items()})
    first, second, again = seen
    assert len(first) == 2 * len(serves(model.config))
    assert all(torch.equal(tensor, again[place]) for place, tensor in first.items())
    assert not any(torch.equal(tensor, second[place]) for place, tensor in first.items())


def test_gradients_flow_through_captured_states() -> None:
    model = encoder("bert")
    with captured(model, hidden([2])) as found:
        model(**inputs())
    found["hidden"][2].square().sum().backward()  # type: ignore[no-untyped-call]
    touched = [any(part.grad is not None for part in block.parameters()) for block in blocks(model)]
    assert touched == [True, True, False, False]


def test_blocks_that_are_not_found_are_refused() -> None:
    model = encoder("bert")
    model.config.num_hidden_layers = 17
    with pytest.raises(RequestError, match="bert"):
        blocks(model)


def test_blocks_of_a_real_checkpoint_are_found(tiny_roberta: Path) -> None:
    assert len(blocks(AutoModel.from_pretrained(tiny_roberta))) == 6


def test_wants_of_two_terms_join_by_kind() -> None:
    one, other = Wanted(hidden=frozenset({1}), attention=frozenset({2})), Wanted(hidden=frozenset({3}), values=frozenset({4}))
    assert one | other == Wanted(hidden=frozenset({1, 3}), attention=frozenset({2}), values=frozenset({4}))
    assert (one | other).inside_attention == {2, 4}
    assert one
    assert not Wanted()
    assert not hidden([1, 2]).inside_attention
