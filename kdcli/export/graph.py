"""A classification checkpoint as one ONNX graph with dynamic batch and length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcli.errors import RunFailedError

OPSET = 18
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_DIMENSIONS = ("batch", "length")


class _Logits(nn.Module):
    """The model as a function of its inputs in a fixed order, which is what the exporter traces."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def write_graph(model: nn.Module, example: Mapping[str, Tensor], path: Path, about: Mapping[str, str]) -> None:
    """Export a model in fp32.

    Args:
        model: a classification model, in eval mode, on the CPU.
        example: tokenised text with more than one sample, padding among it; says which inputs the model takes.
        path: the file to write; its folder exists.
        about: kept in the file as metadata.

    Raises:
        RunFailedError: the exporter cannot express the model, or the graph is not sound.
    """
    import onnx

    names = [name for name in _INPUTS if name in example]
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model, names),
                tuple(example[name] for name in names),
                str(path),
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple(dynamic for _ in names),),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise RunFailedError(f"torch cannot export this architecture to ONNX: {str(error).splitlines()[0]}") from error
    graph: Any = onnx.load(str(path))
    for value in graph.graph.input:
        _name_dimensions(value, _DIMENSIONS)
    for value in graph.graph.output:
        _name_dimensions(value, _DIMENSIONS[:1])
    onnx.helper.set_model_props(graph, dict(about))
    onnx.checker.check_model(graph, full_check=False)
    onnx.save(graph, str(path))


def _name_dimensions(value: Any, names: tuple[str, ...]) -> None:
    for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        if not dimension.dim_param:
            raise RunFailedError(f"the exported graph has a fixed size in {value.name}, where {name} should be dynamic")
        dimension.dim_param = name
