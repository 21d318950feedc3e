"""What this machine can compute on, and in what."""

from __future__ import annotations

from typing import Any, Literal

import torch

from kdcli.errors import Problem, RequestError

Precision = Literal["fp32", "bf16", "fp16"]


def resolve_device(name: str) -> torch.device:
    """``auto`` takes the GPU where there is one.

    Raises:
        RequestError: a GPU was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError(Problem("--device cuda", "no CUDA device is available", remedy="--device auto"))
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_precision(name: str, device: torch.device, where: str = "") -> Precision:
    """``auto`` takes bf16 where the machine computes it in hardware; ``where`` says in messages who asked for it.

    Raises:
        RequestError: fp16 was asked for without a GPU.
    """
    if name == "fp16" and device.type != "cuda":
        raise RequestError(Problem(where or "--precision fp16", "fp16 needs a GPU", remedy="--precision auto"))
    if name in ("fp32", "bf16", "fp16"):
        return name  # type: ignore[return-value]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if has_bf16_instructions() else "fp32"


def teachers_dtype(precision: Precision) -> torch.dtype:
    """What frozen teachers compute in while a student learns from them: what the plan says, of weights and states alike."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def has_bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX)."""
    cpu: Any = torch.cpu
    return bool(
        getattr(cpu, "_is_avx512_bf16_supported", lambda: False)() or getattr(cpu, "_is_amx_tile_supported", lambda: False)()
    )
