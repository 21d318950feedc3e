"""The script beside an exported model that answers without torch and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from kdcli.atomic_files import write_text
from kdcli.models.checkpoints import Reference, describe
from kdcli.models.weight_loading import load_tokenizer, text_limit
from kdcli.tasks.classification import CLASSES
from kdcli.tasks.kind import Kind

_PREDICT = Template('''\
"""$what: python predict.py "a text" "another text", or a text on each line of standard input."""

import argparse
import io
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
$constants
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))
TOKENIZER.enable_truncation(max_length=$max_length, direction=$truncation)
TOKENIZER.enable_padding(direction="right", pad_id=$pad_id, pad_token=$pad_token, pad_type_id=$pad_type)
ON_ONE_LINE = str.maketrans({"\\t": "\\\\t", "\\n": "\\\\n", "\\r": "\\\\r"})


def seen(text: str) -> str:
    """The part of a long text that the model sees, and as much again, so that 100 MB are not tokenised for it."""
    size = 16 * $max_length
    while size < len(text):
        part = text[$part]
        if size >= 1 << 20 or len(TOKENIZER.encode(part).overflowing) > 2:
            return part
        size *= 8
    return text


def predict(session: onnxruntime.InferenceSession, texts: list[str], pairs: list[str] | None = None) -> list[$result]:
    """$told"""
    seen_texts = list(map(seen, texts))
    samples = seen_texts if pairs is None else list(zip(seen_texts, map(seen, pairs), strict=True))
    found: list[$result] = []
    for batch in (TOKENIZER.encode_batch(samples[start : start + 32]) for start in range(0, len(samples), 32)):
        rows = [{"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids} for row in batch]
        inputs = {node.name: np.array([row[node.name] for row in rows], np.int64) for node in session.get_inputs()}
        outputs = session.run(["logits"], inputs)[0].astype(np.float32)
        if not np.isfinite(outputs).all():
            raise ValueError("the model's outputs are not finite")
$decide
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("texts", nargs="*", help="none: each line of standard input is one")
    options.add_argument("--model", default=$model_file, help="a file beside this script (%(default)s)")
    chosen = options.parse_args()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" ends it, as it ends others
    given = [os.fsencode(text) for text in chosen.texts] or [sys.stdin.buffer.read().removeprefix(b"\\xef\\xbb\\xbf")]
    try:
        texts = [text.decode() for text in given]
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\\n") + 1
        options.error(f"line {line} of the text is not UTF-8: byte {error.object[error.start]:#04x}")
    if not chosen.texts:
        texts = [line.removesuffix("\\n") for line in io.StringIO(texts[0], newline=None)]  # CRLF and CR end lines, too
    try:
        answers = predict(onnxruntime.InferenceSession(HERE / chosen.model, providers=["CPUExecutionProvider"]), texts)
    except ValueError as error:
        options.exit(3, f"{error}\\n")
    sys.stdout.reconfigure(encoding="utf-8")
    for text, answer in zip(texts, answers, strict=True):
        print($cells, text.translate(ON_ONE_LINE), sep="\\t")
''')


def write_predict(folder: Path, model_file: str, max_length: int | None = None, kind: Kind = CLASSES) -> Path:
    """Write ``predict.py``, which needs onnxruntime, tokenizers and numpy, and can be copied into a service.

    Args:
        folder: an export folder, with configuration and tokenizer in it.
        model_file: the file in it that is asked unless another one is named, such as ``onnx/model.onnx``.
        max_length: tokens per text, at which the files were checked; None for as many as the model takes.
        kind: of task.

    Raises:
        RequestError: the folder's configuration or tokenizer cannot be used.
    """
    tokenizer = load_tokenizer(folder)
    known = {
        "max_length": max_length or text_limit(describe(Reference(folder.name, str(folder), "export"), weights=False)),
        "truncation": tokenizer.truncation_side,
        "pad_id": tokenizer.pad_token_id,
        "pad_token": tokenizer.pad_token,
        "pad_type": tokenizer.pad_token_type_id,
        "model_file": model_file,
    }
    path = folder / "predict.py"
    part = ":size" if tokenizer.truncation_side == "right" else "-size:"
    settled = {name: json.dumps(value) for name, value in known.items()}
    write_text(path, _PREDICT.substitute(settled | {"part": part} | vars(kind.serving)))
    return path
