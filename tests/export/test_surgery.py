"""What is left out of a graph was not needed: the answers stay, the last block has one token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from kdcli.export import graph as graph_module
from kdcli.export.graph import GraphSettings, write_graph
from kdcli.export.surgery import simplify
from tests.export.classifiers import LAYERS, LONGEST, classifier, opened, said, tokens, told
from tests.models.architectures import WIDTH

TRACED = [9, 6, 3]
BATCH, LENGTH = 4, 17
MIDDLE = 48  # width of the feed-forward layer


def written(model: Any, path: Path, **more: Any) -> dict[str, int]:
    return write_graph(model, tokens(model, TRACED), path, {}, GraphSettings(**more))


def computed(path: Path, model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of everything that is computed on the way, by name."""
    graph = onnx.load(str(path))
    already = {value.name for value in graph.graph.output}
    names = [name for node in graph.graph.node for name in node.output if name and name not in already]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    watched = path.with_name("watched.onnx")
    onnx.save(graph, str(watched))
    given = tokens(model, [LENGTH] * BATCH)
    fed = {value.name: given[value.name].numpy() for value in opened(path).get_inputs()}
    found = opened(watched).run(names, fed)
    return {name: value.shape for name, value in zip(names, found, strict=True)}


def rows(shapes: dict[str, tuple[int, ...]], width: int) -> list[int]:
    """Tokens for which states of that width are computed, for each time that they are."""
    return sorted(shape[1] for shape in shapes.values() if len(shape) == 3 and shape[-1] == width)


def assert_same_answers(model: Any, path: Path, lengths: Sequence[Sequence[int]] = ([1], [LENGTH], [20, 3, 1, 8])) -> None:
    for seed, some in enumerate(lengths):
        given = tokens(model, list(some), seed=seed)
        np.testing.assert_allclose(told(path, given)[0], said(model, given), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "albert"])
def test_last_block_computes_the_token_that_the_head_reads_and_no_other(name: str, tmp_path: Path) -> None:
    model = classifier(name)
    written(model, tmp_path / "model.onnx", fused=True)
    shapes = computed(tmp_path / "model.onnx", model)
    middle = rows(shapes, MIDDLE)
    assert set(middle) == {1, LENGTH}
    assert middle.count(1) * (LAYERS - 1) == middle.count(LENGTH)
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    attention = next(node for node in graph.node if node.op_type == "MultiHeadAttention")
    queries, keys, values = (shapes[place] for place in attention.input[:3])
    assert (queries, keys, values) == ((BATCH, 1, WIDTH), (BATCH, LENGTH, WIDTH), (BATCH, LENGTH, WIDTH))
    assert shapes[attention.output[0]] == (BATCH, 1, WIDTH)
    assert_same_answers(model, tmp_path / "model.onnx")


def test_plain_graph_computes_all_tokens(tmp_path: Path) -> None:
    model = classifier("bert")
    written(model, tmp_path / "model.onnx", fused=False)
    assert set(rows(computed(tmp_path / "model.onnx", model), MIDDLE)) == {LENGTH}


class MeanPooled(torch.nn.Module):
    """The head reads the mean over all tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self._supports_attention_backend = True

    def forward(self, **inputs: torch.Tensor) -> Any:
        states = self.model.base_model(**inputs).last_hidden_state
        real = inputs["attention_mask"][..., None].to(states.dtype)
        return _Answer(self.model.classifier((states * real).sum(1) / real.sum(1)))


class TwiceRead(MeanPooled):
    """The head reads the first token, and the largest number of all tokens."""

    def forward(self, **inputs: torch.Tensor) -> Any:
        states = self.model.base_model(**inputs).last_hidden_state
        return _Answer(self.model.classifier(states[:, 0] + states.amax(1)))


class LastRead(MeanPooled):
    """The head reads the second token."""

    def forward(self, **inputs: torch.Tensor) -> Any:
        return _Answer(self.model.classifier(self.model.base_model(**inputs).last_hidden_state[:, 1]))


class _Answer:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize("head", [MeanPooled, TwiceRead])
def test_head_that_reads_all_tokens_gets_all_of_them(head: type[MeanPooled], tmp_path: Path) -> None:
    model = head(classifier("bert")).eval()
    counts = written(model, tmp_path / "model.onnx")
    assert counts["Attention"] == LAYERS
    assert set(rows(computed(tmp_path / "model.onnx", model), MIDDLE)) == {LENGTH}
    assert_same_answers(model, tmp_path / "model.onnx", lengths=([LENGTH], [20, 20]))


def test_head_may_read_another_token_than_the_first(tmp_path: Path) -> None:
    model = LastRead(classifier("bert")).eval()
    written(model, tmp_path / "model.onnx")
    assert set(rows(computed(tmp_path / "model.onnx", model), MIDDLE)) == {1, LENGTH}
    assert_same_answers(model, tmp_path / "model.onnx", lengths=([LENGTH], [20, 3, 2]))


@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "wide"])
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "apart"])
def test_answers_are_the_same_with_each_change_on_and_off(
    narrow: bool, pack: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "simplify", lambda model, **_: simplify(model, narrow=narrow, pack=pack))
    model = classifier("bert")
    counts = written(model, tmp_path / "model.onnx")
    packed = LAYERS - narrow if pack else 0
    assert (counts.get("Attention", 0), counts.get("MultiHeadAttention", 0)) == (packed, LAYERS - packed)
    assert_same_answers(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_windows_of_modernbert_hold_beyond_their_length(fused: bool, tmp_path: Path) -> None:
    model = classifier("modernbert", layers=3)
    window = model.config.local_attention
    written(model, tmp_path / "model.onnx", fused=fused)
    assert 3 * window < LONGEST
    assert_same_answers(model, tmp_path / "model.onnx", lengths=([LONGEST], [window, window + 1], [LONGEST, 2 * window, 2]))
    blind = tokens(model, [LONGEST])
    model.config.local_attention = model.config.sliding_window = 4 * LONGEST
    for module in model.modules():
        if hasattr(module, "sliding_window"):
            module.sliding_window = 4 * LONGEST
    assert np.abs(told(tmp_path / "model.onnx", blind)[0] - said(model, blind)).max() > 1e-3  # the windows matter at all


def test_one_block_alone_is_narrowed_too(tmp_path: Path) -> None:
    model = classifier("bert", layers=1)
    counts = written(model, tmp_path / "model.onnx")
    assert (counts["MultiHeadAttention"], counts.get("Attention", 0)) == (1, 0)
    assert set(rows(computed(tmp_path / "model.onnx", model), MIDDLE)) == {1}
    assert_same_answers(model, tmp_path / "model.onnx")
