"""Changes to an exported graph that leave its answers as they are and make it smaller and faster.

1. Reshapes that undo each other go: the exporter splits the heads off and joins them again around each attention.
2. The last block computes only the token that the head reads, which is the first one in most architectures. Keys and values
   are still those of all tokens. With four blocks that is about a fifth of all the work.
3. Queries, keys and values of one input become one matrix product, in ONNX Runtime's ``Attention``.

The exporter writes the weights of blocks that share them (ALBERT) once for each; they become one again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    DeduplicateHashedInitializersPass,
    RemoveUnusedNodesPass,
)

MICROSOFT = "com.microsoft"
_ALONG = {"Add", "Sub", "Mul", "Div", "Gelu", "Erf", "Tanh", "Relu", "Sigmoid", "Sqrt", "Pow", "Cast", "Identity"}
_HIDDEN_RANK = 3  # states are [B, L, D]
_LENGTH_AXIS = 1


def simplify(model: ir.Model, narrow: bool = True, pack: bool = True) -> None:
    """Change a graph in place, and forget shapes and notes of the exporter, which quantisers stumble over.

    Types stay: no quantiser can infer them behind a node of ONNX Runtime's own, and what has no type is not quantised.

    Args:
        model: as the exporter has made it.
        narrow: carry out change 2.
        pack: carry out change 3.
    """
    graph = model.graph
    for initializer in graph.initializers.values():
        initializer.const_value = ir.tensor(np.asarray(_content(initializer), order="C"), name=initializer.name)
    DeduplicateHashedInitializersPass()(model)
    _join_reshapes(graph)
    RemoveUnusedNodesPass()(model)
    if narrow:
        _narrow_last_block(graph)
    if pack:
        _pack_attention(graph)
    RemoveUnusedNodesPass()(model)
    ClearMetadataAndDocStringPass()(model)
    for value in (value for node in graph for value in node.outputs if not value.is_graph_output()):
        value.shape = None
    model.producer_name, model.producer_version = "kdcli", None
    if any(node.domain == MICROSOFT for node in graph):
        model.opset_imports[MICROSOFT] = 1


# 1. Reshapes


def _join_reshapes(graph: ir.Graph) -> None:
    for node in list(graph):
        before = node.inputs[0].producer() if node.op_type == "Reshape" and node.inputs[0] is not None else None
        if before is None or before.op_type != "Reshape":
            continue
        source = before.inputs[0]
        if source is not None and source.shape is not None and source.shape == node.outputs[0].shape:
            node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)


# 2. The last block


def _narrow_last_block(graph: ir.Graph) -> None:
    """Push the head's choice of one token up to the last attention."""
    chosen = next((node for node in reversed(list(graph)) if _chosen_token(node) is not None), None)
    if chosen is None or chosen.inputs[0] is None:
        return
    token = _chosen_token(chosen)
    narrow: set[ir.Node] = set()
    for node in reversed(list(graph)):
        uses = [(use.node, use.idx) for value in node.outputs for use in value.uses()]
        inner = bool(uses) and not any(value.is_graph_output() for value in node.outputs)
        narrow_uses = ((user is chosen and place == 0) or (user in narrow and _follows(user, place)) for user, place in uses)
        if inner and _may_be_narrow(node) and all(narrow_uses):
            narrow.add(node)
    if not any(node.op_type == "MultiHeadAttention" for node in narrow):
        return
    cut: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node not in narrow:
            continue
        for place, value in enumerate(node.inputs):
            if value is None or not _follows(node, place) or value.producer() in narrow:
                continue
            if value not in cut:
                cut[value] = _one_token(graph, node, value, token or 0)
            node.replace_input_with(place, cut[value])
    chosen.replace_input_with(1, _constant(graph, "only_token", np.array(0, dtype=np.int64)))


def _chosen_token(node: ir.Node) -> int | None:
    """Which token a node takes of states [B, L, D], if that is what it does."""
    if node.op_type != "Gather" or len(node.inputs) < 2 or node.inputs[0] is None or node.inputs[1] is None:
        return None
    states, place = node.inputs[0], ir.convenience.get_const_tensor(node.inputs[1])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if axis != _LENGTH_AXIS or place is None or place.shape.rank() != 0 or not _has_length(states):
        return None
    return int(place.numpy())


def _may_be_narrow(node: ir.Node) -> bool:
    """Whether a node treats every token by itself, or is an attention, whose queries do."""
    if node.op_type == "MatMul":
        weight = node.inputs[1]
        return weight is not None and weight.shape is not None and weight.shape.rank() == 2
    if node.op_type == "LayerNormalization":
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
        return axis in (-1, _HIDDEN_RANK - 1)
    if node.op_type == "MultiHeadAttention":
        return len(node.inputs) < 6 or node.inputs[5] is None  # a bias has a row per query
    return node.op_type in _ALONG


def _follows(node: ir.Node, place: int) -> bool:
    """Whether an input of a node that may be narrow must then be narrow too."""
    value = node.inputs[place]
    if node.op_type == "MultiHeadAttention":
        return place == 0
    if node.op_type in ("MatMul", "LayerNormalization"):
        return place == 0
    return value is not None and _has_length(value)


def _has_length(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.rank() == _HIDDEN_RANK and value.shape[_LENGTH_AXIS] != 1


def _one_token(graph: ir.Graph, before: ir.Node, states: ir.Value, token: int) -> ir.Value:
    """The states [B, 1, D] of one token."""
    place = _constant(graph, f"{states.name}_token", np.array([token], dtype=np.int64))
    node = ir.node("Gather", [states, place], {"axis": _LENGTH_AXIS})
    node.outputs[0].name, node.outputs[0].type = f"{states.name}_narrow", states.type
    graph.insert_before(before, node)
    return node.outputs[0]


# 3. One matrix product for queries, keys and values


@dataclass(frozen=True)
class _LinearMap:
    """x·W + b with x [B, L, D], W [D, E] and, where there is one, b [E]."""

    source: ir.Value
    weight: ir.Value
    bias: ir.Value | None

    @property
    def width(self) -> int:
        return int(_content(self.weight).shape[1])


def _pack_attention(graph: ir.Graph) -> None:
    packed: dict[tuple[int, ...], list[ir.Value]] = {}  # blocks that share their weights go on sharing them
    for number, node in enumerate(list(graph)):
        if node.op_type != "MultiHeadAttention" or len(node.inputs) != 5:  # more inputs: a bias, which stays with it
            continue
        maps = [found for found in map(_linear_map, node.inputs[:3]) if found is not None]
        if len(maps) < 3 or any(one.source is not maps[0].source for one in maps):
            continue
        heads, scale = node.attributes["num_heads"].as_int(), node.attributes["scale"].as_float()
        attributes: dict[str, Any] = {"num_heads": heads}
        if not math.isclose(scale, (maps[0].width / heads) ** -0.5, rel_tol=1e-5):
            attributes["scale"] = scale
        key = tuple(id(value) for one in maps for value in (one.weight, one.bias))
        if key not in packed:
            packed[key] = _one_map(graph, maps, f"attention_{number}")
        fused = ir.node("Attention", [maps[0].source, *packed[key], node.inputs[4]], attributes, domain=MICROSOFT)
        fused.name = f"attention_{number}"
        fused.outputs[0].name, fused.outputs[0].type = f"attention_{number}_output", node.outputs[0].type
        graph.insert_before(node, fused)
        node.outputs[0].replace_all_uses_with(fused.outputs[0], replace_graph_outputs=True)


def _linear_map(value: ir.Value | None) -> _LinearMap | None:
    """The linear map that a value comes from."""
    node = None if value is None else value.producer()
    bias = None
    if node is not None and node.op_type == "Add":
        first, second = (one for one in node.inputs if one is not None)
        rest, bias = (second, first) if ir.convenience.get_const_tensor(first) is not None else (first, second)
        node = rest.producer()
        if ir.convenience.get_const_tensor(bias) is None:
            return None
    if node is None or node.op_type != "MatMul" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    weight = ir.convenience.get_const_tensor(node.inputs[1])
    if weight is None or weight.shape.rank() != 2:
        return None
    return _LinearMap(node.inputs[0], node.inputs[1], bias)


def _one_map(graph: ir.Graph, maps: Sequence[_LinearMap], name: str) -> list[ir.Value]:
    """Weight and bias of three maps side by side; a map without a bias has zeros."""
    weights = [_content(one.weight) for one in maps]
    biases = [np.zeros(one.width, weights[0].dtype) if one.bias is None else _content(one.bias) for one in maps]
    return [
        _constant(graph, f"{name}_weight", np.concatenate(weights, axis=1)),
        _constant(graph, f"{name}_bias", np.concatenate(biases)),
    ]


def _content(value: ir.Value) -> Any:
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    return tensor.numpy()


def _constant(graph: ir.Graph, name: str, content: Any) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(content, name=name))
    graph.register_initializer(value)
    return value
