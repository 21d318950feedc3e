"""The peer of ``benchmarks/inference.py``: a checkpoint in optimum-onnx; run by it, in an environment of its own.

Writes every file that its settings for a CPU make: the plain export, graph optimisation O2 (fusion) and O3 (and an approximate
GELU), and of each a dynamic int8 file per tensor and per channel. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from onnx import TensorProto
from optimum.exporters.onnx import main_export
from optimum.onnxruntime import AutoQuantizationConfig, ORTOptimizer, ORTQuantizer, quantization
from optimum.onnxruntime.configuration import AutoOptimizationConfig

LEVELS = ("O2", "O3")
PACKAGES = ("optimum", "optimum-onnx", "onnxruntime", "onnx", "transformers", "torch")


class ToldTheType(quantization.ONNXQuantizer):  # type: ignore[misc]
    """Knows that values are fp32: it cannot infer that in a fused graph and stops there; optimum-onnx has no setting for it."""

    def __init__(self, *args: Any, extra_options: dict[str, Any], **more: Any) -> None:
        super().__init__(*args, extra_options={**extra_options, "DefaultTensorType": TensorProto.FLOAT}, **more)


def main() -> None:
    """Export once, write the variants, name them."""
    options = argparse.ArgumentParser()
    options.add_argument("checkpoint", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--instructions", choices=["avx2", "avx512", "avx512_vnni", "arm64"], default="avx2")
    chosen = options.parse_args()
    graphs, failed = exported(chosen.checkpoint, chosen.out)
    files = {name: {"precision": "fp32", "path": str(path)} for name, path in graphs.items()}
    settings = getattr(AutoQuantizationConfig, chosen.instructions)
    quantization.ONNXQuantizer = ToldTheType
    for name, path in graphs.items():
        for per_channel in (False, True):
            variant = f"{name}, per {'channel' if per_channel else 'tensor'}"
            folder = chosen.out / variant.replace(", ", "-").replace(" ", "-")
            try:
                quantizer: Any = ORTQuantizer.from_pretrained(path.parent, file_name=path.name)
                quantizer.quantize(settings(is_static=False, per_channel=per_channel), save_dir=folder, file_suffix="")
            except Exception as error:
                failed[variant] = said(error)
            else:
                files[variant] = {"precision": "int8", "path": str(folder / path.name)}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    print(json.dumps({"files": files, "failed": failed, "versions": versions, "settings": chosen.instructions}))


def exported(checkpoint: Path, out: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Files in fp32 by name, and why those that are not there are not."""
    readable, plain = out / "checkpoint", out / "plain"
    # its transformers may not know the tokenizer class that a newer one has written, and a graph needs none
    shutil.copytree(checkpoint, readable, ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*", "vocab*", "export"))
    main_export(str(readable), output=plain, task="text-classification", library_name="transformers", do_validation=False)
    graphs, failed = {"plain": plain / "model.onnx"}, {}
    for level in LEVELS:
        try:
            optimizer: Any = ORTOptimizer.from_pretrained(plain)
            optimizer.optimize(AutoOptimizationConfig.with_optimization_level(level), save_dir=out / level, file_suffix="")
        except Exception as error:
            failed[level] = said(error)
        else:
            graphs[level] = out / level / "model.onnx"
    return graphs, failed


def said(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


if __name__ == "__main__":
    main()
