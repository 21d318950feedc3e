"""Weights and products in 8 bits, by ONNX Runtime's quantiser; embeddings row by row by our own."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdcli.atomic_files import temporary_folder

Calibration = Literal["minmax", "entropy", "percentile"]
Feed = Mapping[str, NDArray[np.int64]]

_PRODUCTS = ("MatMul", "Attention")
_TABLE_ROWS = 512  # smaller tables are not worth a node
_LARGEST = 127.0


@dataclass(frozen=True)
class Settings:
    """How products are quantised.

    Weights are int8, symmetric, with a scale per column; activations uint8.

    Attributes:
        reduce_range: 7 bits for the weights. Without VNNI instructions pairs of 8-bit products are added up in 16 bits, which
            can overflow and then gives wrong answers.
        exclude: names of nodes that stay as they are.
        only: names of the nodes that are quantised; None for all.
    """

    reduce_range: bool
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None

    def options(self) -> dict[str, Any]:
        """What both of ONNX Runtime's quantisers are told."""
        import onnx
        from onnxruntime.quantization import QuantType

        return {
            "op_types_to_quantize": list(_PRODUCTS),
            "per_channel": True,
            "reduce_range": self.reduce_range,
            "weight_type": QuantType.QInt8,
            "nodes_to_exclude": list(self.exclude),
            "nodes_to_quantize": None if self.only is None else list(self.only),
            "extra_options": {
                "DefaultTensorType": onnx.TensorProto.FLOAT,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
            },
        }


def products(path: Path) -> list[str]:
    """Names of the nodes of a graph that hold weights and can be quantised, from the inputs to the head.

    A ``Gemm`` goes by the name that the dynamic quantiser gives to its product, once it has taken the bias off; the static
    one leaves it as it is.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {initializer.name for initializer in graph.initializer}
    return [
        f"{node.name}_MatMul" if node.op_type == "Gemm" else node.name
        for node in graph.node
        if node.op_type in (*_PRODUCTS, "Gemm") and node.input[1] in weights
    ]


def quantise_dynamic(source: Path, target: Path, settings: Settings) -> None:
    """Weights in int8; the range of each product's input is taken anew at every call."""
    from onnxruntime.quantization import quantize_dynamic

    with _quiet():
        quantize_dynamic(str(source), str(target), **settings.options())


def quantise_static(source: Path, target: Path, settings: Settings, feeds: Sequence[Feed], method: Calibration) -> None:
    """Weights in int8, and fixed ranges for the products' inputs, from what they are on ``feeds`` (QDQ format).

    Args:
        source: a graph without ``Attention`` nodes, which have no static form.
        target: the file to write.
        settings: what is quantised.
        feeds: batches of real text, all of one shape; not those that the result is judged on.
        method: how a range follows from the values that were seen.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[Feed] = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self.rest, None)

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    with _quiet():
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            calibrate_method=methods[method],
            **settings.options(),
        )


def quantise_embeddings(path: Path) -> None:
    """Store the large embedding tables of a graph in int8, with a scale per row; rows are widened when they are looked up."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    tables = {initializer.name: initializer for initializer in graph.initializer}
    made: dict[str, tuple[str, str]] = {}
    nodes = []
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != onnx.TensorProto.FLOAT or len(table.dims) != 2 or table.dims[0] < _TABLE_ROWS:
            nodes.append(node)
            continue
        if table.name not in made:
            rows, scales = rows_in_8_bits(numpy_helper.to_array(table))
            made[table.name] = (f"{table.name}_int8", f"{table.name}_scale")
            for name, content in zip(made[table.name], (rows, scales), strict=True):
                graph.initializer.append(numpy_helper.from_array(content, name))
        rows_name, scales_name = made[table.name]
        place, output = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [rows_name, place], [f"{output}_int8"], axis=0),
            helper.make_node("Cast", [f"{output}_int8"], [f"{output}_wide"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [scales_name, place], [f"{output}_scale"], axis=0),
            helper.make_node("Mul", [f"{output}_wide", f"{output}_scale"], [output]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [initializer for initializer in graph.initializer if initializer.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def rows_in_8_bits(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A table [V, D] as int8 [V, D] and a scale per row [V, 1]; off by half a scale at the most."""
    scales = np.abs(table).max(1, keepdims=True) / _LARGEST
    scales[scales == 0] = 1.0
    return np.rint(table / scales).astype(np.int8), scales.astype(np.float32)


def by_harm(nodes: Iterable[str], write_only: Callable[[str, Path], None], harm: Callable[[Path], float]) -> list[str]:
    """Nodes in the order of the harm that quantising each of them alone does, the worst first; without those that do none.

    Args:
        nodes: their names.
        write_only: writes the graph to a file with that one node quantised.
        harm: of such a file, the larger the worse.
    """
    found = {}
    with temporary_folder() as folder:
        for node in nodes:
            path = folder / "one.onnx"
            write_only(node, path)
            found[node] = harm(path)
    return sorted((name for name in found if found[name] > 0), key=lambda name: -found[name])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser from the terminal: it reports progress, and advises its own preprocessing, whose work is done."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(before)
