"""What is taken from inside the attention is what transformers itself computes there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AlbertConfig, AutoModel

from kdcli.models.capture import Found, blocks, captured, serves
from kdcli.models.output import KINDS, Wanted
from tests.models.architectures import (
    FUSED,
    LAYERS,
    NAMES,
    PROJECTED,
    VOCABULARY,
    WIDTH,
    WITH_SCORES,
    attentive,
    eager_twin,
    encoder,
    every,
    inputs,
    projection,
    real_rows,
)

ALL = range(1, LAYERS + 1)
HEADS = 4
WINDOW = 4


def shown(model: Any, wanted: Wanted, given: dict[str, Tensor]) -> Found:
    with torch.no_grad(), captured(model, wanted) as found:
        model(**given)
    return found


def eager_attention(model: Any, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        attentions: tuple[Tensor, ...] = eager_twin(model)(**given, output_attentions=True).attentions
    return attentions


def distances(length: int) -> Tensor:
    """[L, L], how many tokens lie between a query and a key, one more than that."""
    places = torch.arange(length)
    return (places[:, None] - places).abs()


def slides(model: Any, layer: int) -> bool:
    kinds = getattr(model.config, "layer_types", None)
    return kinds is not None and kinds[layer - 1] == "sliding_attention"


def allowed(model: Any, layer: int, given: dict[str, Tensor]) -> Tensor:
    """[B, 1, L, L], True where a query may look."""
    real = given["attention_mask"].bool()[:, None, None, :]
    near = distances(real.shape[-1]) <= WINDOW
    return real & near if slides(model, layer) else real.expand(-1, -1, real.shape[-1], -1)


def assert_same_rows(found: Tensor, expected: Tensor, given: dict[str, Tensor]) -> None:
    assert_close(real_rows(found, given), real_rows(expected, given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", ["padded", "of one length", "without a mask"])
@pytest.mark.parametrize("name", NAMES)
def test_captured_attention_is_the_eager_attention_of_transformers(name: str, padding: str) -> None:
    model, given = attentive(name), inputs()
    if padding != "padded":
        given["attention_mask"] = torch.ones_like(given["attention_mask"])
    asked = {"input_ids": given["input_ids"]} if padding == "without a mask" else given
    found = shown(model, Wanted.of("attention", ALL), asked)["attention"]
    expected = eager_attention(model, asked)
    assert sorted(found) == list(ALL)
    for layer in ALL:
        assert found[layer].shape == (3, HEADS, 9, 9)
        assert expected[layer - 1][0].max() > 2 / 9, "so even that a wrong attention would look alike"
        assert_same_rows(found[layer].exp(), expected[layer - 1], given)


@pytest.mark.parametrize("name", NAMES)
def test_attention_of_one_layer_is_the_same_whichever_others_are_asked(name: str) -> None:
    model, given = attentive(name), inputs()
    everything = shown(model, Wanted.of("attention", ALL), given)["attention"]
    for layer in ALL:
        alone = shown(model, Wanted.of("attention", [layer]), given)["attention"]
        assert sorted(alone) == [layer]
        assert_same_rows(alone[layer].exp(), everything[layer].exp(), given)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_real_tokens_sum_to_one_and_give_nothing_to_padding(name: str) -> None:
    given = inputs()
    found = shown(attentive(name), Wanted.of("attention", ALL), given)["attention"]
    padding = ~given["attention_mask"].bool()
    for layer in ALL:
        assert found[layer].isfinite().all()
        rows = real_rows(found[layer].exp(), given)
        assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
        on_padding = real_rows(found[layer].exp() * padding[:, None, None, :], given)
        assert on_padding.max() < 1e-9


@pytest.mark.parametrize("name", WITH_SCORES)
def test_softmax_of_the_masked_scores_is_the_attention(name: str) -> None:
    model, given = attentive(name), inputs()
    found = shown(model, every(["scores", "attention"], ALL), given)
    expected = eager_attention(model, given)
    for layer in ALL:
        masked = found["scores"][layer].masked_fill(~allowed(model, layer, given), -torch.inf)
        assert_same_rows(masked.softmax(-1), expected[layer - 1], given)
        assert_same_rows(masked.softmax(-1), found["attention"][layer].exp(), given)


@pytest.mark.parametrize("name", WITH_SCORES)
def test_scores_are_the_scaled_products_of_queries_and_keys_before_any_mask(name: str) -> None:
    found = shown(attentive(name), every(["scores", "queries", "keys"], ALL), inputs())
    for layer in ALL:
        products = found["queries"][layer] @ found["keys"][layer].transpose(-1, -2)
        assert_close(found["scores"][layer], products / (WIDTH / HEADS) ** 0.5, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_queries_keys_and_values_are_split_by_head(name: str) -> None:
    found = shown(encoder(name), every(PROJECTED, ALL), inputs())
    for kind in PROJECTED:
        assert {layer: tuple(tensor.shape) for layer, tensor in found[kind].items()} == dict.fromkeys(
            ALL, (3, HEADS, 9, WIDTH // HEADS)
        )


@pytest.mark.parametrize("name", [name for name in NAMES if name != FUSED])
def test_queries_keys_and_values_are_the_projections_of_the_layer_below(name: str) -> None:
    model, given = attentive(name), inputs()
    found = shown(model, every(["hidden"], range(LAYERS)) | every(PROJECTED, ALL), given)
    for layer in ALL:
        block = blocks(model)[0 if name == "albert" else layer - 1]
        for kind in PROJECTED:
            linear = projection(name, kind, block)
            by_hand = found["hidden"][layer - 1] @ linear.weight.detach().T + linear.bias.detach()
            assert_close(found[kind][layer], by_hand.view(3, 9, HEADS, WIDTH // HEADS).transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_queries_and_keys_of_modernbert_are_rotated_projections() -> None:
    """The first token is not turned, and turning keeps lengths; values are never turned."""
    model, given = attentive(FUSED), inputs()
    found = shown(model, every(KINDS, ALL), given)
    for layer in ALL[1:]:
        block: Any = blocks(model)[layer - 1]
        with torch.no_grad():
            fused = block.attn.Wqkv(block.attn_norm(found["hidden"][layer - 1]))
        by_hand = fused.view(3, 9, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        assert_close(found["values"][layer], by_hand[2])
        for kind, tensor in zip(("queries", "keys"), by_hand[:2], strict=True):
            assert_close(found[kind][layer][:, :, 0], tensor[:, :, 0])
            assert_close(found[kind][layer].norm(dim=-1), tensor.norm(dim=-1))
            assert not torch.allclose(found[kind][layer], tensor)


def test_values_under_the_attention_give_what_the_attention_returns() -> None:
    model, given = attentive("bert"), inputs()
    found = shown(model, every(["hidden", "attention", "values"], ALL), given)
    for layer in ALL[1:]:
        mixed = (found["attention"][layer].exp() @ found["values"][layer]).transpose(1, 2).reshape(3, 9, WIDTH)
        block: Any = blocks(model)[layer - 1]
        with torch.no_grad():
            after = block.attention.output(mixed, found["hidden"][layer - 1])
            returned = block.output(block.intermediate(after), after)
        assert_close(returned, found["hidden"][layer], rtol=1e-4, atol=1e-5)


def test_sliding_layers_of_modernbert_look_no_further_than_their_window() -> None:
    model, given = attentive("modernbert"), inputs()
    found = shown(model, Wanted.of("attention", ALL), given)["attention"]
    beyond = distances(9) > WINDOW
    assert [slides(model, layer) for layer in ALL] == [False, True, True, False]
    for layer in ALL:
        longest = found[layer][0].exp()
        assert (longest[:, ~beyond] > 0).all()
        assert (longest[:, beyond] == 0).all() == slides(model, layer)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_shared_block_counts_once_for_each_of_its_uses(groups: int) -> None:
    config = AlbertConfig(
        vocab_size=VOCABULARY, embedding_size=16, hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=48,
        num_hidden_layers=LAYERS, num_hidden_groups=groups, initializer_range=0.3, max_position_embeddings=40,
    )  # fmt: skip
    model, given = AutoModel.from_config(config).eval(), inputs()
    assert len(blocks(model)) == groups
    found = shown(model, every(KINDS, ALL), given)
    expected = eager_attention(model, given)
    for layer in ALL:
        assert_same_rows(found["attention"][layer].exp(), expected[layer - 1], given)
    for kind in KINDS:
        assert sorted(found[kind]) == list(ALL)
        tensors = [found[kind][layer] for layer in ALL]
        assert not any(torch.equal(one, other) for one, other in pairwise(tensors))


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_model_that_was_loaded_with_eager_attention_shows_the_same(name: str) -> None:
    model, given = attentive(name), inputs()
    eager = eager_twin(model)
    one, other = (shown(each, Wanted.of("attention", ALL), given)["attention"] for each in (model, eager))
    assert eager.config._attn_implementation == "eager"
    for layer in ALL:
        assert torch.equal(real_rows(one[layer], given), real_rows(other[layer], given))


@pytest.mark.parametrize("precision", ["weights", "autocast"])
@pytest.mark.parametrize("name", NAMES)
def test_attention_in_bf16_is_finite_and_kept_in_fp32(name: str, precision: str) -> None:
    model, given = encoder(name), inputs()
    exact = shown(model, Wanted.of("attention", ALL), given)["attention"]
    if precision == "weights":
        model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        found = shown(model, every(serves(model.config), ALL), given)
    for layer in ALL:
        attention = found["attention"][layer]
        assert attention.dtype == torch.float32
        assert attention.isfinite().all()
        rows = real_rows(attention.exp(), given)
        assert_close(rows, real_rows(exact[layer].exp(), given), rtol=0, atol=0.02)
        assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]), rtol=0, atol=0.01)
        assert found["queries"][layer].dtype == torch.bfloat16
        assert all(layers[layer].isfinite().all() for layers in found.values() if layers)
