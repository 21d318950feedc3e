"""The graph says what torch says at any shape, whatever the family, with its attention as single nodes."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import kdcli
from kdcli.errors import RunFailedError
from kdcli.export.graph import LOGITS, OPSET, PROBABILITIES, GraphSettings, write_graph
from tests.export.classifiers import CLASSES, LAYERS, LONGEST, OWN_ATTENTION, classifier, said, tokens, told
from tests.models.architectures import NAMES

ABOUT = {"kdcli": "0.0", "labels": "a,b,ü", "note": "two\nlines"}
TRACED = [9, 6, 3]
SHAPES = {
    "one token": [1],
    "one text": [7],
    "a longer text": [LONGEST],
    "all tokens real": [12, 12],
    "mostly padding": [30, 1, 2, 1, 3],
    "every length": list(range(1, LONGEST)),
}
LIKE_BERT = tuple(name for name in NAMES if name not in (*OWN_ATTENTION, "modernbert"))
ATTENTION = {"Attention": LAYERS - 1, "MultiHeadAttention": 1}


@dataclass(frozen=True)
class Exported:
    """A model, its file, and what was counted while it was written."""

    model: Any
    path: Path
    counts: dict[str, int]


Export = Callable[..., Exported]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Writes the graph of a family, once for all tests that ask for the same one."""
    made: dict[Any, Exported] = {}

    def written(name: str, attention: str = "sdpa", fused: bool = True) -> Exported:
        key = (name, attention, fused)
        if key not in made:
            model = classifier(name, attention)
            path = tmp_path_factory.mktemp("graphs") / "model.onnx"
            settings = GraphSettings(fused=fused, probabilities=True)
            counts = write_graph(model, tokens(model, TRACED, types=name == "bert"), path, ABOUT, settings)
            made[key] = Exported(model, path, counts)
        return made[key]

    return written


def nodes(path: Path) -> Counter[str]:
    """How many nodes of each kind a file has."""
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def assert_equal_at_all_shapes(found: Exported, types: bool) -> None:
    for number, (what, lengths) in enumerate(SHAPES.items()):
        for width in {max(lengths), min(max(lengths) + 5, LONGEST)}:
            given = tokens(found.model, lengths, width, seed=number, types=types)
            logits, probabilities = told(found.path, given)
            assert logits.shape == probabilities.shape == (len(lengths), CLASSES)
            np.testing.assert_allclose(logits, said(found.model, given), atol=1e-4, rtol=0, err_msg=what)
            np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=1e-6)
            assert (probabilities.argmax(-1) == logits.argmax(-1)).all()


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_file_equals_torch_at_shapes_it_was_not_traced_with(name: str, fused: bool, export: Export) -> None:
    found = export(name, fused=fused)
    assert_equal_at_all_shapes(found, types=name == "bert")
    graph = onnx.load(str(found.path))
    onnx.checker.check_model(graph, full_check=not fused)
    assert graph.ir_version <= 10  # what onnxruntime 1.22 reads
    assert {opset.domain: opset.version for opset in graph.opset_import}[""] == OPSET
    for value in graph.graph.input:
        assert [dimension.dim_param for dimension in value.type.tensor_type.shape.dim] == ["batch", "length"]
    for value, wanted in zip(graph.graph.output, (LOGITS, PROBABILITIES), strict=True):
        batch, classes = value.type.tensor_type.shape.dim
        assert (value.name, batch.dim_param, classes.dim_value) == (wanted, "batch", CLASSES)


@pytest.mark.parametrize("name", ["bert", "albert", "distilbert", "modernbert"])
def test_model_with_eager_attention_gives_the_same_fused_file(name: str, export: Export) -> None:
    eager, sdpa = export(name, "eager"), export(name)
    assert eager.counts == sdpa.counts
    assert_equal_at_all_shapes(eager, types=name == "bert")


@pytest.mark.parametrize("name", LIKE_BERT)
def test_every_block_has_one_attention_node(name: str, export: Export) -> None:
    found = export(name)
    assert nodes(found.path) == found.counts
    assert {kind: found.counts.get(kind, 0) for kind in ATTENTION} == ATTENTION
    assert found.counts["Softmax"] == 1  # of the probabilities
    assert "Reshape" not in found.counts


def test_modernbert_keeps_its_windows_beside_the_attention_nodes(export: Export) -> None:
    counts = export("modernbert").counts
    assert counts["MultiHeadAttention"] == LAYERS
    assert "Attention" not in counts
    assert counts["Softmax"] == 1


@pytest.mark.parametrize("name", OWN_ATTENTION)
def test_attention_that_cannot_be_chosen_stays_as_it_is(name: str, export: Export) -> None:
    found = export(name)
    assert not found.counts.keys() & ATTENTION.keys()
    assert found.counts["Softmax"] == LAYERS + 1
    assert {node.domain for node in onnx.load(str(found.path)).graph.node} == {""}


@pytest.mark.parametrize("name", NAMES)
def test_plain_file_has_operators_of_the_standard_alone(name: str, export: Export) -> None:
    graph = onnx.load(str(export(name, fused=False).path))
    assert {node.domain for node in graph.graph.node} == {""}
    assert {opset.domain for opset in graph.opset_import} == {""}
    assert not graph.functions


@pytest.mark.parametrize("name", ["bert", "modernbert", "mpnet"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_export_leaves_the_model_as_it_was(name: str, fused: bool, tmp_path: Path) -> None:
    model = classifier(name)
    before, weights = model.config._attn_implementation, copy.deepcopy(model.state_dict())
    given = tokens(model, TRACED)
    answers = said(model, given)
    write_graph(model, given, tmp_path / "model.onnx", ABOUT, GraphSettings(fused=fused))
    assert model.config._attn_implementation == before
    assert (said(model, given) == answers).all()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_model_that_cannot_be_traced_is_refused_and_left_as_it_was(fused: bool, tmp_path: Path) -> None:
    model = classifier("bert")
    honest = model.bert.encoder.forward

    def undecided(hidden_states: torch.Tensor, *more: Any, **named: Any) -> Any:
        return honest(hidden_states if hidden_states.sum() > 0 else -hidden_states, *more, **named)

    model.bert.encoder.forward = undecided
    with pytest.raises(RunFailedError, match="cannot export this architecture"):
        write_graph(model, tokens(model, TRACED), tmp_path / "model.onnx", ABOUT, GraphSettings(fused=fused))
    assert model.config._attn_implementation == "sdpa"
    assert not list(tmp_path.iterdir())


def test_weights_that_blocks_share_are_stored_once(export: Export, tmp_path: Path) -> None:
    settings, sizes = GraphSettings(), []
    for layers in (2, 4):
        model = classifier("albert", layers=layers)
        path = tmp_path / f"{layers}.onnx"
        counts = write_graph(model, tokens(model, TRACED), path, ABOUT, settings)
        assert counts["Attention"] == layers - 1
        sizes.append(path.stat().st_size)
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    packed = 4 * 3 * (model.config.hidden_size**2 + model.config.hidden_size)  # again, for the blocks but the last one
    block = 4 * sum(parameter.numel() for parameter in model.albert.encoder.albert_layer_groups.parameters())
    assert sizes[1] - sizes[0] < block / 4
    assert sizes[1] < weights + packed + 24_000


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_file_says_what_it_is_and_nothing_of_the_machine(fused: bool, export: Export) -> None:
    found = export("bert", fused=fused)
    graph = onnx.load(str(found.path))
    assert {entry.key: entry.value for entry in graph.metadata_props} == ABOUT
    assert graph.producer_name == "kdcli"
    assert not graph.graph.doc_string
    assert not any(node.doc_string or node.metadata_props for node in graph.graph.node)
    content = found.path.read_bytes()
    for place in (Path(kdcli.__file__).parents[1], Path(torch.__file__).parents[1], Path.home(), found.path.parent):
        assert str(place).encode() not in content
    assert b"site-packages" not in content
    assert b".py" not in content


@pytest.mark.parametrize("name", ["bert", "distilbert", "mpnet"])
def test_exporter_says_nothing(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = classifier(name)
    capfd.readouterr()
    write_graph(model, tokens(model, TRACED), tmp_path / "model.onnx", ABOUT, GraphSettings())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_file_in_another_precision_answers_in_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = classifier("bert")
    given = tokens(model, TRACED)
    expected = said(model, given)
    write_graph(model.to(dtype), given, tmp_path / "model.onnx", ABOUT, GraphSettings())
    graph = onnx.load(str(tmp_path / "model.onnx"))
    assert graph.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    kinds = Counter(one.data_type for one in graph.graph.initializer if len(one.dims) == 2)
    assert set(kinds) == {onnx.TensorProto.FLOAT16 if dtype == torch.float16 else onnx.TensorProto.BFLOAT16}
    if dtype == torch.float16:  # ONNX Runtime has no bf16 on CPUs
        assert np.abs(told(tmp_path / "model.onnx", given)[0] - expected).max() < 0.02


def test_inputs_are_those_of_the_example(tmp_path: Path) -> None:
    model = classifier("bert")
    for types in (False, True):
        path = tmp_path / f"{types}.onnx"
        write_graph(model, tokens(model, TRACED, types=types), path, ABOUT, GraphSettings())
        names = [value.name for value in onnx.load(str(path)).graph.input]
        assert names == ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
