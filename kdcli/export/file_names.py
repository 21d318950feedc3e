"""What exported files are called."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "fp32": "model.onnx",
    "fp16": "model_fp16.onnx",
    "bf16": "model_bf16.onnx",
    "int8": "model_int8.onnx",
    "int8-static": "model_int8_static.onnx",
}


def precision_of(file: Path) -> str:
    """What a file is called by: its precision, or for files of others what stands behind ``model`` in their name."""
    known = {name: precision for precision, name in FILES.items()}
    return known.get(file.name) or file.stem.removeprefix("model").strip("_-") or file.stem
