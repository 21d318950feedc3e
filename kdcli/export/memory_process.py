"""One model in a process of its own, and its memory: ``python -m kdcli.export.memory_process``, started by ``memory.py``.

Only the packages that answer are imported, before the first reading.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.atomic_files import write_json

_CALLS = 3
_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")

Inputs = Mapping[str, Any]


def of_onnx(path: Path, inputs: Inputs, threads: int) -> dict[str, int]:
    """Bytes before and after an ONNX file is loaded, and at the peak while it answers."""
    import onnxruntime

    before = resident()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    loaded = resident()
    fed = {declared.name: inputs[declared.name] for declared in session.get_inputs()}
    return {"before": before, "loaded": loaded, "peak": peak_of(lambda: session.run(None, fed))}


def of_checkpoint(folder: Path, inputs: Inputs, threads: int) -> dict[str, int]:
    """The same of a checkpoint in torch; its weights are read once, since they are mapped and not yet in memory."""
    import torch

    from kdcli.models.configuration import read_configuration
    from kdcli.models.weight_checks import check_weights, skeleton
    from kdcli.models.weight_loading import load_classifier, load_encoder
    from kdcli.models.weights import read_headers

    torch.set_num_threads(threads)
    found = read_configuration(folder)
    classifies = check_weights(folder, found, read_headers(folder))
    skeleton(found.config, classifier=classifies)  # its code is read before the first measurement
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    before = resident()
    model = (load_classifier if classifies else load_encoder)(folder).eval()
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.sum()
        return {"before": before, "loaded": resident(), "peak": peak_of(lambda: model(**tensors))}


def readable() -> bool:
    """Whether this system tells a process what it takes."""
    try:
        return resident() > 0
    except ImportError:
        return False


def resident() -> int:
    """Bytes in memory now; outside Linux the most that there have been."""
    return _told_by_linux("VmRSS") or _most_so_far()


def peak_of(call: Callable[[], Any]) -> int:
    """The most bytes in memory while it is called a few times; outside Linux, since the process began."""
    if _FORGET.exists():
        _FORGET.write_text("5", encoding="ascii")
    for _ in range(_CALLS):
        call()
    return _told_by_linux("VmHWM") or _most_so_far()


def _told_by_linux(name: str) -> int:
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines() if _STATUS.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _most_so_far() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(kind: str, model: str, inputs: str, threads: str, out: str) -> None:
    """Measure one model and write the three readings down as JSON."""
    with np.load(inputs) as file:
        arrays = dict(file)
    readings = {"onnx": of_onnx, "torch": of_checkpoint}[kind](Path(model), arrays, int(threads))
    write_json(Path(out), readings)


if __name__ == "__main__":
    main(*sys.argv[1:])
