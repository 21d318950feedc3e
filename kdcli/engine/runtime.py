"""Where the training runs: device, precision, processes and seeds, through Accelerate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, LoggerType, ProjectConfiguration

from kdcli.errors import Problem, RequestError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
TRACKERS = ("tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio")


def make_accelerator(
    precision: Literal["fp32", "bf16", "fp16"], device: str, folder: Path | None = None, track: Sequence[str] = ()
) -> Accelerator:
    """The process's accelerator; started with ``accelerate launch`` it spans all processes.

    Args:
        precision: of the training.
        device: ``cpu`` keeps it off the GPU.
        folder: where TensorBoard writes; None for no tracker at all.
        track: further trackers, of :data:`TRACKERS`.
    """
    keep_memory()
    AcceleratorState._reset_state()
    if torch.device(device).type == "cuda" and precision != "fp32":
        torch.set_float32_matmul_precision("high")  # TF32 for what stays in fp32 under autocast; --precision fp32 is exact
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=torch.device(device).type == "cpu",
        log_with=[LoggerType(name) for name in ("tensorboard", *track)] if folder is not None else None,
        project_config=ProjectConfiguration(str(folder), logging_dir=str(folder)) if folder is not None else None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def keep_memory() -> None:
    """Have the C library keep memory that is freed, for the next step: a training frees and takes the same sizes over and over.

    By itself glibc gives every large block back to the system at once, and the system clears it page by page when it is wanted
    again, which takes a fifth of a training step of a small model. :func:`give_back_memory` returns it now and then. Without
    glibc nothing is done.
    """
    import ctypes

    option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if option is not None:
        for parameter, value in ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26)):
            option(parameter, value)


def give_back_memory() -> None:
    """Return to the system what the C library keeps of memory that was freed, such as the activations of long texts.

    Where the C library is not glibc, nothing is done.
    """
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def check_trackers(track: Sequence[str]) -> None:
    """Refuse a tracker that is unknown or not installed, before anything is trained.

    Raises:
        RequestError: with the package to install.
    """
    import importlib.util

    for name in track:
        if name not in TRACKERS:
            raise RequestError(Problem(f"--track {name}", "there is no such tracker", "one of " + ", ".join(TRACKERS)))
        if importlib.util.find_spec(name) is None:
            raise RequestError(Problem(f"--track {name}", f"the package {name} is not installed", remedy=f"pip install {name}"))


def rng_state() -> dict[str, Any]:
    """The state of this process's random numbers."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Put back what :func:`rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
