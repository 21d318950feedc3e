"""The graph says what torch says at any shape, whatever the family, with its attention as single nodes."""

from __future__ import annotations

import copy
from collections import Counter
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
LIKE_ROBERTA = ("xlm-roberta", "camembert")  # the same code


@dataclass(frozen=True)
class Exported:
    """A model of a family, its file, and what was counted while it was written."""

    name: str
    model: Any
    path: Path
    counts: dict[str, int]


def exported(name: str, folder: Path, attention: str = "sdpa", fused: bool = True, layers: int = LAYERS) -> Exported:
    """Write the file of a family, which must leave the model as it was."""
    model = classifier(name, attention, layers)
    before, weights = model.config._attn_implementation, copy.deepcopy(model.state_dict())
    given = tokens(model, TRACED, types=name == "bert")
    answers = said(model, given)
    counts = write_graph(model, given, folder / "model.onnx", ABOUT, GraphSettings(fused=fused, probabilities=True))
    assert model.config._attn_implementation == before
    assert (said(model, given) == answers).all()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    return Exported(name, model, folder / "model.onnx", counts)


@pytest.fixture(scope="module", params=NAMES)
def fused(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(request.param, tmp_path_factory.mktemp("fused"))


@pytest.fixture(scope="module", params=[name for name in NAMES if name not in LIKE_ROBERTA])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(request.param, tmp_path_factory.mktemp("plain"), fused=False)


def nodes(path: Path) -> Counter[str]:
    """How many nodes of each kind a file has."""
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def assert_equal_at_all_shapes(found: Exported) -> None:
    for number, (what, lengths) in enumerate(SHAPES.items()):
        for width in {max(lengths), min(max(lengths) + 5, LONGEST)}:
            given = tokens(found.model, lengths, width, seed=number, types=found.name == "bert")
            logits, probabilities = told(found.path, given)
            assert logits.shape == probabilities.shape == (len(lengths), CLASSES)
            np.testing.assert_allclose(logits, said(found.model, given), atol=1e-4, rtol=0, err_msg=what)
            np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=1e-6)
            assert (probabilities.argmax(-1) == logits.argmax(-1)).all()


def assert_sound(found: Exported) -> None:
    graph = onnx.load(str(found.path))
    onnx.checker.check_model(graph)
    assert graph.ir_version <= 10  # what onnxruntime 1.22 reads
    assert {opset.domain: opset.version for opset in graph.opset_import}[""] == OPSET
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if found.name == "bert" else [])]
    assert [value.name for value in graph.graph.input] == names
    for value in graph.graph.input:
        assert [dimension.dim_param for dimension in value.type.tensor_type.shape.dim] == ["batch", "length"]
    for value, wanted in zip(graph.graph.output, (LOGITS, PROBABILITIES), strict=True):
        batch, classes = value.type.tensor_type.shape.dim
        assert (value.name, batch.dim_param, classes.dim_value) == (wanted, "batch", CLASSES)


def assert_tells_nothing_of_the_machine(found: Exported) -> None:
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


def test_fused_file_equals_torch_at_shapes_it_was_not_traced_with(fused: Exported) -> None:
    assert_equal_at_all_shapes(fused)


def test_fused_file_is_sound_and_dynamic(fused: Exported) -> None:
    assert_sound(fused)


def test_fused_file_says_what_it_is_and_nothing_of_the_machine(fused: Exported) -> None:
    assert_tells_nothing_of_the_machine(fused)


def test_every_block_has_the_attention_node_that_its_family_allows(fused: Exported) -> None:
    assert nodes(fused.path) == fused.counts
    found = {kind: fused.counts.get(kind, 0) for kind in ("Attention", "MultiHeadAttention", "Softmax")}
    if fused.name in OWN_ATTENTION:
        assert found == {"Attention": 0, "MultiHeadAttention": 0, "Softmax": LAYERS + 1}
        assert {node.domain for node in onnx.load(str(fused.path)).graph.node} == {""}
    elif fused.name == "modernbert":  # whose rotary positions stand between queries and attention
        assert found == {"Attention": 0, "MultiHeadAttention": LAYERS, "Softmax": 1}
    else:
        assert found == {"Attention": LAYERS - 1, "MultiHeadAttention": 1, "Softmax": 1}
        assert "Reshape" not in fused.counts


def test_plain_file_equals_torch_at_shapes_it_was_not_traced_with(plain: Exported) -> None:
    assert_equal_at_all_shapes(plain)


def test_plain_file_has_operators_of_the_standard_alone(plain: Exported) -> None:
    assert_sound(plain)
    assert_tells_nothing_of_the_machine(plain)
    graph = onnx.load(str(plain.path))
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""}
    assert {opset.domain for opset in graph.opset_import} == {""}
    assert not graph.functions


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_model_with_eager_attention_gives_a_fused_file(name: str, tmp_path: Path) -> None:
    found = exported(name, tmp_path, "eager")
    assert found.counts.get("Attention", 0) + found.counts["MultiHeadAttention"] == LAYERS
    assert_equal_at_all_shapes(found)


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


def test_weights_that_blocks_share_are_stored_once(tmp_path: Path) -> None:
    found = exported("albert", tmp_path, layers=4)
    assert (found.counts["Attention"], found.counts["MultiHeadAttention"]) == (3, 1)
    weights = sum(parameter.numel() for parameter in found.model.parameters())
    packed = 3 * (found.model.config.hidden_size + 1) * found.model.config.hidden_size  # again, for the blocks but the last
    stored = sum(int(np.prod(one.dims)) for one in onnx.load(str(found.path)).graph.initializer)
    assert stored < weights + packed + 500
    assert found.path.stat().st_size < 4 * (weights + packed) + 24_000


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
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
    kind = onnx.TensorProto.FLOAT16 if dtype == torch.float16 else onnx.TensorProto.BFLOAT16
    matrices = {one.data_type for one in graph.graph.initializer if len(one.dims) == 2} - {onnx.TensorProto.INT64}
    assert matrices == {kind}
    if dtype == torch.float16:  # ONNX Runtime has no bf16 on CPUs
        assert np.abs(told(tmp_path / "model.onnx", given)[0] - expected).max() < 0.02
