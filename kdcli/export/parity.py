"""Whether the exported file says what the model says, on real text at several shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOLERANCE = 1e-3


@dataclass(frozen=True)
class ShapeParity:
    """Both engines on the same batch.

    Attributes:
        batch, length: shape of the inputs.
        max_difference: largest difference of a logit.
        agreement: fraction of samples with the same class.
    """

    batch: int
    length: int
    max_difference: float
    agreement: float

    @property
    def holds(self) -> bool:
        """Finite, all classes the same, all logits within :data:`TOLERANCE`."""
        return self.agreement == 1.0 and self.max_difference <= TOLERANCE


def open_session(path: Path, threads: int) -> Any:
    """The file in ONNX Runtime on the CPU, on a fixed number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feed(session: Any, inputs: Any) -> dict[str, Any]:
    """The inputs that the graph declares, and no others."""
    return {declared.name: inputs[declared.name].numpy() for declared in session.get_inputs()}


def check_parity(
    model: Any, tokenizer: Any, session: Any, batches: Sequence[Sequence[Any]], max_length: int
) -> list[ShapeParity]:
    """Run torch and ONNX Runtime on each batch of texts (or pairs of texts), right-padded as in real use."""
    found = []
    for texts in batches:
        inputs = encode(tokenizer, texts, max_length)
        with torch.no_grad():
            ours = model(**inputs).logits.numpy()
        theirs = session.run(None, feed(session, inputs))[0]
        difference = float(np.max(np.abs(ours - theirs))) if np.isfinite(theirs).all() else float("inf")
        agreement = float(np.mean(ours.argmax(-1) == theirs.argmax(-1)))
        batch, length = inputs["input_ids"].shape
        found.append(ShapeParity(int(batch), int(length), difference, agreement))
    return found


def encode(tokenizer: Any, texts: Sequence[Any], max_length: int) -> Any:
    """Texts, or pairs of texts, as right-padded tensors."""
    if isinstance(texts[0], tuple):
        columns: list[Any] = [list(column) for column in zip(*texts, strict=True)]
    else:
        columns = [list(texts)]
    return tokenizer(*columns, padding=True, truncation=True, max_length=max_length, return_tensors="pt")


def real_batches(texts: Sequence[Any]) -> list[list[Any]]:
    """Three batches of real text: 1 of the shortest, 8 of middling length, 32 up to the longest."""
    ordered = sorted(texts, key=lambda text: sum(map(len, text)) if isinstance(text, tuple) else len(text))
    middle = len(ordered) // 2
    spread = np.linspace(0, len(ordered) - 1, 32).astype(int)
    return [
        [ordered[len(ordered) // 10]],
        [ordered[row % len(ordered)] for row in range(middle, middle + 8)],
        [ordered[row] for row in spread],
    ]
