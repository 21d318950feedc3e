"""A classification checkpoint as one ONNX graph with dynamic batch and length, its attention as single nodes.

Attention is not looked for in the finished graph, where every release of the exporter draws it in another way: while the model
is traced, an attention function of our own, registered with transformers, puts one ``MultiHeadAttention`` of ONNX Runtime
there. Architectures without that interface (MPNet, DeBERTa-v2) keep their attention as it is.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcli.engine.interruption import refuse_to_go_on
from kdcli.errors import RunFailedError
from kdcli.export.surgery import MICROSOFT, simplify
from kdcli.tasks.classification import CLASSES
from kdcli.tasks.kind import Kind

OPSET = 20  # the first one with Gelu as a single node
LOGITS, PROBABILITIES = "logits", "probabilities"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_DIMENSIONS = ("batch", "length")
_FUSED = "kdcli-onnx"


@dataclass(frozen=True)
class GraphSettings:
    """What is asked of a graph.

    Attributes:
        fused: use the nodes that ONNX Runtime has for attention, and leave out what the head does not read. Without it the
            graph has operators of the ONNX standard alone, which other engines read too.
        packed: where fused, join queries, keys and values into one product (which static quantisation cannot take).
        probabilities: have them as a second output, where the kind of task has any.
        kind: of task.
    """

    fused: bool = True
    packed: bool = True
    probabilities: bool = False
    kind: Kind = CLASSES


class _Traced(nn.Module):
    """The model as a function of its inputs in a fixed order, which is what the exporter traces; answers in fp32."""

    def __init__(self, model: nn.Module, names: list[str], probabilities: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.model, self.names, self.probabilities = model, names, probabilities

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits.float()
        return (logits,) if self.probabilities is None else (logits, self.probabilities(logits))


def write_graph(
    model: nn.Module, example: Mapping[str, Tensor], path: Path, about: Mapping[str, str], settings: GraphSettings
) -> dict[str, int]:
    """Export a model in the precision that it has.


    Args:
        model: a classification model, in eval mode, on the CPU.
        example: tokenised text with more than one sample, padding among it; says which inputs the model takes.
        path: the file to write; its folder exists.
        about: kept in the file as metadata.
        settings: what is asked of the graph.

    Returns:
        How many nodes of each kind the graph has: ``Attention`` and ``MultiHeadAttention`` are fused ones.

    Raises:
        RunFailedError: the exporter cannot express the model, or the graph is not sound.
    """
    import onnx

    program = _traced(model, example, settings)
    simplify(program.model, narrow=settings.fused, pack=settings.fused and settings.packed)
    graph: Any = program.model_proto
    weights = {initializer.name for initializer in graph.graph.initializer}
    typed = [info for info in graph.graph.value_info if info.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(typed)
    for value in graph.graph.input:
        _name_dimensions(value, _DIMENSIONS)
    for value in graph.graph.output:
        _name_dimensions(value, _DIMENSIONS[:1])
    onnx.helper.set_model_props(graph, dict(about))
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    return dict(Counter(node.op_type for node in graph.graph.node))


def _traced(model: nn.Module, example: Mapping[str, Tensor], settings: GraphSettings) -> Any:
    names = [name for name in _INPUTS if name in example]
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _attention_of(model, settings.fused):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Traced(model, names, settings.kind.probabilities if settings.probabilities else None),
                tuple(example[name] for name in names),
                input_names=names,
                output_names=[LOGITS, PROBABILITIES] if settings.probabilities else [LOGITS],
                dynamic_shapes=(tuple(dynamic for _ in names),),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        refuse_to_go_on()
        raise RunFailedError(f"torch cannot export this architecture to ONNX: {str(error).splitlines()[0]}") from error
    refuse_to_go_on()  # the exporter goes on when Ctrl-C comes in some of its passes
    return program


def _name_dimensions(value: Any, names: tuple[str, ...]) -> None:
    for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        if not dimension.dim_param:
            raise RunFailedError(f"the exported graph has a fixed size in {value.name}, where {name} should be dynamic")
        dimension.dim_param = name


@contextmanager
def _attention_of(model: nn.Module, fused: bool) -> Iterator[None]:
    """Within the block the model's attention is traced as one node, if its architecture lets one choose."""
    config: Any = model.config
    before = config._attn_implementation
    if fused and getattr(model, "_supports_attention_backend", False):
        _register()
        config._attn_implementation = _FUSED
    elif not fused:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_FUSED, _attention)
    AttentionMaskInterface.register(_FUSED, _mask)


def _mask(*, mask_function: Any, attention_mask: Tensor | None, **more: Any) -> Tensor | None:
    """Which tokens are real [B, L], int32; [B, 1, L, L], bool, where it also matters who looks at whom (sliding windows)."""
    from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

    if mask_function is bidirectional_mask_function:
        return None if attention_mask is None else attention_mask.to(torch.int32)
    more |= {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    mask: Tensor | None = sdpa_mask(mask_function=mask_function, attention_mask=attention_mask, **more)
    return mask


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as one node. Shapes: query, key, value [B, A, L, D/A] → [B, L, A, D/A]; fewer heads of keys are repeated."""
    samples, heads, tokens, width = query.shape
    if key.shape[1] != heads:
        key, value = (tensor.repeat_interleave(heads // tensor.shape[1], dim=1) for tensor in (key, value))
    flat = [tensor.transpose(1, 2).flatten(2) for tensor in (query, key, value)]
    real, bias = (attention_mask, None) if attention_mask is None or attention_mask.dim() == 2 else (None, attention_mask)
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill(~bias, torch.finfo(query.dtype).min)
    mixed = torch.onnx.ops.symbolic(
        f"{MICROSOFT}::MultiHeadAttention",
        (*flat, None, real, bias) if bias is not None else (*flat, None, real),
        {"num_heads": heads, "scale": width**-0.5 if scaling is None else float(scaling)},
        dtype=query.dtype,
        shape=(samples, tokens, heads * width),
        version=1,
    )
    return mixed.view(samples, tokens, heads, width), None
