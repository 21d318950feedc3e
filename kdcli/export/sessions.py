"""Files in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(path: Path, threads: int, device: str = "cpu") -> Any:
    """A file on a fixed number of threads, which sleep when there is nothing to do.

    Raises:
        RequestError: ONNX Runtime lacks the device's provider, or cannot read or run the file there.
    """
    import onnxruntime

    provider = _PROVIDERS[device]
    check_provider(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its errors have no common type
        raise RequestError(Problem(str(path), "ONNX Runtime cannot load the file", found=_first_line(error))) from error
    if provider not in session.get_providers():
        raise RequestError(
            Problem(f"--device {device}", f"ONNX Runtime has {provider} and cannot use it here", remedy="--device cpu")
        )
    return session


def check_provider(device: str) -> None:
    """Refuse a device that this installation of ONNX Runtime was not built for.

    Raises:
        RequestError: with the package that is.
    """
    import onnxruntime

    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise RequestError(
            Problem(
                f"--device {device}",
                f"this ONNX Runtime has no {_PROVIDERS[device]}",
                remedy="pip uninstall onnxruntime && pip install onnxruntime-gpu",
            )
        )


def run(session: Any, inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    """Logits [B, C]; the session is given the inputs that its graph declares, and no others.

    Raises:
        RequestError: it cannot be run here (memory, a kernel that fails).
    """
    try:
        logits: NDArray[np.float32] = session.run(["logits"], feed(session, inputs))[0]
    except Exception as error:  # its errors have no common type
        raise RequestError(Problem("ONNX Runtime", "cannot run the file", found=_first_line(error))) from error
    return logits


def feed(session: Any, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """The inputs that the graph declares."""
    return {declared.name: inputs[declared.name] for declared in session.get_inputs()}


def bound_call(session: Any, inputs: Mapping[str, NDArray[np.int64]], device: str) -> Callable[[], Any]:
    """A call for timing: on a GPU inputs and outputs stay there, and it returns when the answer is there."""
    fed = feed(session, inputs)
    if device == "cpu":
        return lambda: session.run(["logits"], fed)
    import onnxruntime

    binding = session.io_binding()
    kept = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0) for name, value in fed.items()}
    for name, value in kept.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("logits", device)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
