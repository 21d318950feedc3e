"""How fast a student answers, beside its teacher in torch and beside optimum-onnx, in one run with interleaved rounds.

    python -m venv peer && peer/bin/pip install torch==2.13.0 'optimum-onnx[onnxruntime]==0.1.0' 'transformers<4.58'
    python benchmarks/inference.py --peer-python peer/bin/python

A BERT teacher of 12 layers and width 768 and a student of 4, with random weights (a speed does not depend on them), unless
checkpoints are named. ``kdcli export`` and the peer write the student's files; all files run in the ONNX Runtime of this
environment, on as many threads as torch has. No waiting thread spins, in torch neither (unless OMP_WAIT_POLICY says so):
where another process wants the same cores, spinning makes a short batch in torch ten times as slow. Texts are of unlike
length, padded on the right. Of the peer's settings (unfused and fused graphs, int8 per tensor and per channel) the one that is
fastest at a shape counts there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
from running import kdcli
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from kdcli.data.starter_data import sample_texts
from kdcli.models.starter_teachers import write_starter_teacher
from kdcli.models.weight_loading import quiet_transformers

HERE = Path(__file__).resolve().parent
TEACHER, STUDENT = 12, 4
EAGER, PEER = "teacher, torch eager, fp32", "optimum-onnx"
FEWEST, TURN = 3, 0.25
TOLERANCE = 1e-3

Shape = tuple[int, int]
Call = Callable[[], Any]
Found = dict[str, dict[str, list[float]]]


def write_checkpoint(folder: Path, layers: int) -> Path:
    """A BERT classifier of width 768 with random weights, always the same ones, and a small tokenizer."""
    small = folder.with_name("tokenizer")
    write_starter_teacher("bert", sample_texts(64), small, num_hidden_layers=1, hidden_size=8)
    tokenizer: Any = AutoTokenizer.from_pretrained(small)
    tokenizer.model_max_length = 512
    torch.manual_seed(layers)
    model: Any = BertForSequenceClassification(BertConfig(num_hidden_layers=layers))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ours(student: Path, out: Path) -> dict[str, Path]:
    """The files that kdcli exports, by name."""
    flags = ["--onnx", "--precision", "fp32,int8", "--no-benchmark", "--out", str(out)]
    kdcli("export", str(student), *flags, "--max-drop", "100")  # random weights have nothing to lose
    return exported(out)


def exported(folder: Path) -> dict[str, Path]:
    """The files of an export folder, by name."""
    return {"kdcli, fp32": folder / "onnx" / "model.onnx", "kdcli, int8": folder / "onnx" / "model_int8.onnx"}


def theirs(python: str, student: Path, out: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """The files that optimum-onnx exports, by name, and what it said."""
    command = [python, str(HERE / "peers" / "optimum_export.py"), str(student), str(out), "--instructions", instructions()]
    done = subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    files = {f"{PEER}, {file['precision']}, {name}": Path(file["path"]) for name, file in said["files"].items()}
    return files, said


def instructions() -> str:
    """Which of the peer's quantisation settings is made for this machine."""
    if platform.machine() in ("arm64", "aarch64"):
        return "arm64"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split() if Path("/proc/cpuinfo").is_file() else []
    if "avx512_vnni" in flags:
        return "avx512_vnni"
    return "avx512" if "avx512f" in flags else "avx2"


def inputs_of(shape: Shape, vocabulary: int) -> dict[str, torch.Tensor]:
    """Tokens drawn at random; the first text is the longest, the last one half of it."""
    batch, length = shape
    generator = torch.Generator().manual_seed(batch * length)
    lengths = torch.linspace(length, max(1, length // 2) if batch > 1 else length, batch).round().long()
    mask = (torch.arange(length) < lengths[:, None]).long()  # [B, L]
    tokens = torch.randint(1, vocabulary, (batch, length), generator=generator) * mask
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}


def torch_call(model: Any, inputs: Mapping[str, torch.Tensor]) -> Call:
    """The model's logits in torch."""

    def call() -> Any:
        with torch.inference_mode():
            return model(**inputs).logits.numpy()

    return call


def session_call(session: Any, inputs: Mapping[str, torch.Tensor]) -> Call:
    """The file's logits in ONNX Runtime."""
    fed = {node.name: inputs[node.name].numpy() for node in session.get_inputs()}
    return lambda: session.run(["logits"], fed)[0]


def open_session(path: Path, threads: int) -> Any:
    """A file in ONNX Runtime, set up alike for all."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check(sessions: Mapping[str, Any], student: Any) -> dict[str, float]:
    """Largest difference of a logit from torch by file; ends the script where a file in fp32 differs."""
    inputs = inputs_of((8, 64), student.config.vocab_size)
    expected = torch_call(student, inputs)()
    found = {}
    for name, session in sessions.items():
        found[name] = float(np.abs(session_call(session, inputs)() - expected).max())
        if "fp32" in name and not found[name] <= TOLERANCE:
            raise SystemExit(f"{name} does not say what torch says: logits differ by {found[name]:.2e}")
    return found


def timed(calls: Mapping[str, Call], seconds: float, seed: int) -> dict[str, float]:
    """Median milliseconds of each; round after round, each has its turn in an order drawn anew."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(seed)
    end = time.perf_counter() + seconds
    done = 0
    while done < FEWEST or time.perf_counter() < end:
        for name in order.sample(list(calls), len(calls)):
            times[name] += turn(calls[name])
        done += 1
    return {name: statistics.median(values) for name, values in times.items()}


def turn(call: Call) -> list[float]:
    """Milliseconds of one call after the other; the first one, which finds another model in the caches, only if it is long."""
    times: list[float] = []
    end = time.perf_counter() + TURN
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return times[1:] or times


def best(found: Mapping[str, Sequence[float]], precision: str) -> str | None:
    """The fastest of the peer's files at a shape."""
    names = [name for name in found if name.startswith(f"{PEER}, {precision}")]
    return min(names, key=lambda name: statistics.median(found[name]), default=None)


def ratios(found: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Ratio by name at one shape, one per repeat, of times of the same repeat; above 1 the one named last is faster."""
    pairs = {f"{EAGER} / {name}": (EAGER, name) for name in found if name != EAGER and not name.startswith(PEER)}
    pairs["kdcli, fp32 / kdcli, int8"] = ("kdcli, fp32", "kdcli, int8")
    for precision in ("fp32", "int8"):
        peer = best(found, precision)
        if peer is not None:
            pairs[f"{EAGER} / {PEER}, {precision}, its best"] = (EAGER, peer)
            pairs[f"{PEER}, {precision}, its best / kdcli, {precision}"] = (peer, f"kdcli, {precision}")
    return {
        name: [one / other for one, other in zip(found[slow], found[fast], strict=True)] for name, (slow, fast) in pairs.items()
    }


def table(found: Found) -> str:
    """Markdown: milliseconds per batch, then ratios, as median (lowest–highest) of the repeats."""
    by_shape = {shape: ratios(rows) for shape, rows in found.items()}
    return "\n".join([*_rows("ms per batch", found), "", *_rows("ratio", by_shape)])


def _rows(title: str, found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    names = list(next(iter(found.values())))
    lines = [f"| {title} | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    return lines + [f"| {name} | {' | '.join(_spread(rows[name]) for rows in found.values())} |" for name in names]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def shapes_of(text: str) -> list[Shape]:
    """Read 1x16,8x64."""
    pairs = [part.split("x") for part in text.split(",")]
    return [(int(batch), int(length)) for batch, length in pairs]


def load(folder: Path, attention: str) -> Any:
    """A classifier in fp32 with the named attention."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32)
    return model.eval()


def stop_spinning() -> None:
    """Start this script again with threads of torch that sleep while they wait, which has to be said before torch is loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})


def main() -> None:
    """Export, check, time, print the tables, write the JSON."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--peer-python", help="Python of an environment with optimum-onnx")
    options.add_argument("--teacher", type=Path, help="a checkpoint; none: random weights")
    options.add_argument("--student", type=Path, help="a checkpoint; none: random weights")
    options.add_argument("--exported", type=Path, help="the student's export folder, where it was exported before")
    options.add_argument("--shapes", type=shapes_of, default="1x16,8x64,32x128", help="batch x length, comma-separated")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--seconds", type=float, default=20, help=f"of each shape and repeat, but {FEWEST} rounds at least")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    if chosen.exported and not chosen.student:
        options.error("--exported needs the --student that it was made from")
    quiet_transformers()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory(prefix="kdcli-inference-") as name:
        folder = Path(name)
        teacher = chosen.teacher or write_checkpoint(folder / "teacher", TEACHER)
        student = chosen.student or write_checkpoint(folder / "student", STUDENT)
        files = exported(chosen.exported) if chosen.exported else ours(student, folder / "export")
        peers, said = theirs(chosen.peer_python, student, folder / "peer") if chosen.peer_python else ({}, {})
        files |= peers
        sessions = {file: open_session(path, chosen.threads) for file, path in files.items()}
        sizes = {file: path.stat().st_size for file, path in files.items()}
        models = {
            EAGER: load(teacher, "eager"),
            "teacher, torch SDPA, fp32": load(teacher, "sdpa"),
            "student, torch SDPA, fp32": load(student, "sdpa"),
        }
    differences = check(sessions, models["student, torch SDPA, fp32"])
    for file, difference in differences.items():
        print(f"{file}: {sizes[file] / 1e6:.0f} MB, logits differ from torch by {difference:.1e}", file=sys.stderr, flush=True)
    for file, error in said.get("failed", {}).items():
        print(f"{PEER} could not write {file}: {error}", file=sys.stderr, flush=True)
    found = run(models, sessions, chosen)
    document = {
        "settings": vars(chosen) | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY")},
        "versions": {package.__name__: package.__version__ for package in (torch, onnxruntime, transformers)},
        "instructions": instructions(),
        "peer": said,
        "bytes": sizes,
        "differences": differences,
        "ms": found,
        "ratios": {shape: ratios(rows) for shape, rows in found.items()},
    }
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
    print(table(found))


def run(models: Mapping[str, Any], sessions: Mapping[str, Any], chosen: argparse.Namespace) -> Found:
    """Milliseconds by shape and name, one median per repeat."""
    vocabulary = min(model.config.vocab_size for model in models.values())
    found: Found = {}
    for repeat in range(chosen.repeats):
        for shape in chosen.shapes:
            inputs = inputs_of(shape, vocabulary)
            calls = {name: torch_call(model, inputs) for name, model in models.items()}
            calls |= {name: session_call(session, inputs) for name, session in sessions.items()}
            rows = found.setdefault(f"{shape[0]} × {shape[1]}", {})
            for name, milliseconds in timed(calls, chosen.seconds, repeat).items():
                rows.setdefault(name, []).append(milliseconds)
            print(f"{repeat + 1}/{chosen.repeats} {shape[0]} × {shape[1]}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    stop_spinning()
    main()
