"""How much memory a model takes, in a process that does nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.atomic_files import temporary_folder
from kdcli.errors import RunFailedError
from kdcli.export import memory_process

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Memory:
    """Resident bytes above those of the process before the model.

    Attributes:
        loaded_bytes: once it is loaded.
        peak_bytes: the most while it answers; outside Linux the most while it loads and answers.
    """

    loaded_bytes: int
    peak_bytes: int


def session_memory(path: Path, inputs: Inputs, threads: int) -> Memory | None:
    """Of an ONNX file in ONNX Runtime on the CPU, beside onnxruntime and numpy; None where the system does not tell.

    Raises:
        RunFailedError: the process ended early, because there is too little memory or the file cannot be loaded.
    """
    return _measured("onnx", path, inputs, threads)


def torch_memory(folder: Path, inputs: Inputs, threads: int) -> Memory | None:
    """Of a checkpoint in torch on the CPU, in fp32, beside torch and transformers; None where the system does not tell.

    Raises:
        RunFailedError: the process ended early, because there is too little memory or the checkpoint cannot be loaded.
    """
    return _measured("torch", folder, inputs, threads)


def _measured(kind: str, model: Path, inputs: Inputs, threads: int) -> Memory | None:
    if not memory_process.readable():
        return None
    with temporary_folder() as folder:
        given, out = folder / "inputs.npz", folder / "readings.json"
        arrays: dict[str, Any] = dict(inputs)
        np.savez(given, **arrays)
        command = [sys.executable, "-P", "-m", memory_process.__name__, kind, model.resolve(), given, threads, out]
        done = subprocess.run(
            [str(word) for word in command], env=_environment(threads), capture_output=True, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RunFailedError(f"the memory of {model} could not be measured: {_cause(done)}")
        readings = json.loads(out.read_text(encoding="utf-8"))
    loaded, peak = (max(readings[name] - readings["before"], 0) for name in ("loaded", "peak"))
    return Memory(loaded, max(loaded, peak))


def _environment(threads: int) -> dict[str, str]:
    """Packages are found where this process finds them, and the pools of threads have the given size."""
    places = os.pathsep.join(place for place in sys.path if place)
    return os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": str(threads)}


def _cause(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        why = " (the system ends a process so when memory runs out)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{why}"
    said = [line for line in done.stderr.splitlines() if line[:1].strip()]  # of a traceback the last one names the error
    return said[-1] if said else f"its process ended with exit code {done.returncode}"
