"""What the figures were measured on: processor, instruction sets, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_CPUINFO = Path("/proc/cpuinfo")
_MATTERING = (
    "avx2", "avx512_f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16",
    "neon", "dot", "i8mm", "bf16", "fp16_arith", "sve", "sve2", "sme",
)  # fmt: skip
_IN_CPUINFO = {"avx512f": "avx512_f", "asimd": "neon", "asimddp": "dot", "asimdhp": "fp16_arith"}
_INT8_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "dot", "i8mm"}
_BF16_PRODUCTS = {"avx512_bf16", "amx_bf16", "bf16"}


def describe(threads: int, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The machine as ``benchmark.json`` keeps it; what it does not tell is None.

    Args:
        threads: how many the models were given.
        device: with ``cuda``, the GPU and its software are named too.
    """
    import onnxruntime
    import transformers

    told = _capabilities()
    about = {
        "processor": _processor(),
        "physical_cores": told.get("num_physical_cores"),
        "logical_cores": told.get("num_logical_cores") or os.cpu_count(),
        "threads": threads,
        "instructions": instructions(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "transformers": transformers.__version__,
    }
    return about | (_gpu(torch.device(device)) if torch.device(device).type == "cuda" else {})


def instructions() -> list[str]:
    """The instruction sets of this processor that matter to matrix products, in torch's names."""
    told = _capabilities()
    return [name for name in _MATTERING if told.get(name)]


def has_vnni() -> bool:
    """Whether it adds up products of 8-bit numbers in 32 bits; without that, a sum of two may not fit into its 16."""
    return not _INT8_PRODUCTS.isdisjoint(instructions())


def has_bf16() -> bool:
    """Whether it multiplies bf16 numbers in hardware."""
    return not _BF16_PRODUCTS.isdisjoint(instructions())


def _capabilities() -> Mapping[str, Any]:
    """What torch tells since 2.11, or else what can be known without it."""
    tell: Any = getattr(torch.cpu, "get_capabilities", _known_without_torch)
    found: Mapping[str, Any] = tell()
    return found


def _known_without_torch() -> dict[str, Any]:
    if _CPUINFO.is_file():
        words = {word for line in _cpuinfo("flags", "features") for word in line.lower().split()}
        return {_IN_CPUINFO.get(word, word): True for word in words}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return {"neon": True, "dot": True, "fp16_arith": True}
    best = torch.backends.cpu.get_cpu_capability()
    return {"avx2": best in ("AVX2", "AVX512"), "avx512_f": best == "AVX512"}


def _cpuinfo(*names: str) -> list[str]:
    """What stands in /proc/cpuinfo beside these names, which are in lower case; nothing outside Linux."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    parts = [line.partition(":") for line in lines]
    return [value.strip() for name, _, value in parts if name.strip().lower() in names]


def _processor() -> str:
    if named := _cpuinfo("model name"):
        return named[0]
    told = _capabilities().get("cpu_name")
    return _told_by_macos() or str(told or platform.processor() or platform.machine())


def _told_by_macos() -> str:
    if platform.system() != "Darwin":
        return ""
    try:
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return asked.stdout.strip()


def _gpu(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if torch.cuda.is_available() else None
    return {"gpu": name, "cuda": torch.version.cuda}
