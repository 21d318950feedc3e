"""How time, memory and disk of a distillation grow with rows, layers and teachers: small models, one plot, one table.

    python benchmarks/growth.py --sst2 SST-2/train.tsv --tokenizers some-bert,some-roberta --plot growth.png

Teachers of width 128 with random weights, a student of two layers, hidden states and soft labels, two epochs. Each point is one
``kdcli distill`` in a process and a cache of its own; points of a line are run in a shuffled order, so that a change of the
machine's speed does not look like a slope.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROWS, LAYERS, TEACHERS = (1000, 2000, 4000, 8000, 16000, 32000, 64000), (2, 4, 6, 8, 10, 12), (1, 2, 3, 4)
FIXED_ROWS, FIXED_LAYERS, FIXED_TEACHERS = 4000, 4, 2
WIDTH = 128


@dataclass(frozen=True)
class Point:
    """One run and what it cost: seconds in the loop (both epochs, the second alone), memory, cache on disk and its ideal."""

    rows: int
    layers: int
    teachers: int
    seconds: float
    first_epoch: float
    second_epoch: float
    peak_bytes: int
    cache_bytes: int
    state_bytes: int


def write_teachers(folder: Path, tokenizers: list[Path]) -> None:
    """Teachers of every depth in both families, with random weights and heads."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, RobertaConfig
    from transformers import RobertaForSequenceClassification as Roberta

    from kdcli.models.weight_loading import quiet_transformers

    quiet_transformers()
    labels: dict[str, Any] = {"id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}
    for layers in {*LAYERS, FIXED_LAYERS}:
        for number in range(max(TEACHERS)):
            tokenizer: Any = AutoTokenizer.from_pretrained(tokenizers[number % 2])
            size = {"num_hidden_layers": layers, "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
            more: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **size, **labels}
            torch.manual_seed(number)
            model: Any
            if number % 2:
                model = Roberta(RobertaConfig(max_position_embeddings=514 + tokenizer.pad_token_id, **more))
            else:
                model = BertForSequenceClassification(BertConfig(**more))
            model.save_pretrained(folder / f"t{number}-{layers}")
            tokenizer.model_max_length = 512
            tokenizer.save_pretrained(folder / f"t{number}-{layers}")


def measure(folder: Path, rows: int, layers: int, teachers: int, lines: list[str]) -> Point:
    """Distil once in a process of its own."""
    (folder / "train.tsv").write_text("\n".join(lines[: rows + 1]) + "\n", encoding="utf-8")
    out, cache = (Path(tempfile.mkdtemp(dir=folder, prefix=name)) for name in ("run-", "cache-"))
    named = ",".join(f"t{number}={folder / f't{number}-{layers}'}" for number in range(teachers))
    words = ["distill", "--teachers", named, "--student", "2L", "--recipe", str(folder / "recipe.yaml"), "--quiet"]
    words += ["--data", str(folder / "train.tsv"), "--eval", str(folder / "dev.tsv"), "--text-column", "sentence"]
    command = [sys.executable, "-c", _MEASURED, *words, "--allow-weak-teachers", "--out", str(out)]
    done = subprocess.run(command, env=os.environ | {"KDCLI_CACHE": str(cache)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    peak = int(done.stderr.strip().splitlines()[-1])
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    spent = [
        (entry["epoch"], sum(seconds for name, seconds in entry["seconds"].items() if name not in ("dev", "checkpoint")))
        for entry in entries
        if entry["kind"] == "train"
    ]
    first = sum(seconds for epoch, seconds in spent if epoch <= 1)
    second = sum(seconds for epoch, seconds in spent if epoch > 1)
    stored = [path for path in (cache / "answers").rglob("*") if path.is_file()]
    states = sum(_state_bytes(path) for path in stored if path.suffix == ".answers")
    size = sum(path.stat().st_size for path in stored)
    for finished in (out, cache):
        shutil.rmtree(finished)
    return Point(rows, layers, teachers, first + second, first, second, peak, size, states)


_MEASURED = """
import resource, sys
from kdcli.cli.start import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
"""


def _state_bytes(data: Path) -> int:
    """Bytes of the unpadded hidden states in a file of answers: all but the logits, which are one per entry of the index."""
    texts = data.with_suffix(".index").stat().st_size // 40
    classes = json.loads((data.parent / "about.json").read_text(encoding="utf-8"))["layout"]["classes"]
    return data.stat().st_size - 4 * int(classes) * texts


def plot(lines: dict[str, list[Point]], path: Path) -> None:
    """Seconds against rows, layers and teachers with straight lines through them, and memory against rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for axis, (name, points) in zip(axes.flat, lines.items(), strict=False):
        across = np.array([getattr(point, name) for point in points], dtype=float)
        for label, values in (
            ("first epoch", [point.first_epoch for point in points]),
            ("second epoch", [point.second_epoch for point in points]),
        ):
            slope, start = np.polyfit(across, values, 1)
            (drawn,) = axis.plot(across, values, "o", label=label)
            axis.plot(across, start + slope * across, "-", color=drawn.get_color(), linewidth=1)
        axis.set(xlabel=name if name != "layers" else "layers of each teacher", ylabel="seconds in the loop", ylim=(0, None))
        axis.legend()
    memory, rows = axes.flat[3], [point.rows for point in lines["rows"]]
    memory.plot(rows, [point.peak_bytes / 2**20 for point in lines["rows"]], "o-", label="peak resident memory")
    memory.plot(rows, [point.cache_bytes / 2**20 for point in lines["rows"]], "s-", label="answers on disk")
    memory.set(xlabel="rows", ylabel="MiB", ylim=(0, None))
    memory.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all points, print the table, write JSON and plot."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--sst2", type=Path, required=True, help="train.tsv of SST-2")
    options.add_argument("--tokenizers", required=True, help="two folders, comma-separated")
    options.add_argument("--max-rows", type=int, default=ROWS[-1])
    options.add_argument("--json", type=Path, default=Path("growth.json"))
    options.add_argument("--plot", type=Path, default=Path("growth.png"))
    chosen = options.parse_args()
    lines = chosen.sst2.read_text(encoding="utf-8").splitlines()
    wanted = {
        "rows": [(rows, FIXED_LAYERS, FIXED_TEACHERS) for rows in ROWS if rows <= chosen.max_rows],
        "layers": [(FIXED_ROWS, layers, FIXED_TEACHERS) for layers in LAYERS],
        "teachers": [(FIXED_ROWS, FIXED_LAYERS, teachers) for teachers in TEACHERS],
    }
    with tempfile.TemporaryDirectory(prefix="kdcli-growth-") as name:
        folder = Path(name)
        write_teachers(folder, [Path(part).resolve() for part in chosen.tokenizers.split(",")])
        (folder / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
        (folder / "dev.tsv").write_text("\n".join([lines[0], *lines[-64:]]) + "\n", encoding="utf-8")
        places = sorted({place for group in wanted.values() for place in group})
        random.Random(0).shuffle(places)
        found: dict[tuple[int, int, int], Point] = {}
        for place in places:
            found[place] = measure(folder, *place, lines)
            print(found[place], file=sys.stderr, flush=True)
    groups = {group: [found[place] for place in order] for group, order in wanted.items()}
    chosen.json.write_text(
        json.dumps({group: [asdict(point) for point in points] for group, points in groups.items()}, indent=2)
    )
    plot(groups, chosen.plot)
    print("| rows | teacher layers | teachers | first epoch, s | second, s | peak MiB | cache / unpadded states |")
    print("|---|---|---|---|---|---|---|")
    for point in sorted(found.values(), key=lambda point: (point.rows, point.layers, point.teachers)):
        cells = [point.rows, point.layers, point.teachers, f"{point.first_epoch:.1f}", f"{point.second_epoch:.1f}"]
        cells += [point.peak_bytes // 2**20, f"{point.cache_bytes / point.state_bytes:.3f}"]
        print("| " + " | ".join(map(str, cells)) + " |")


_RECIPE = """
name: growth
summary: hidden states of two layers and soft labels
student: {init: {from: scratch}}
layers: uniform
stages:
  - name: distill
    epochs: 2
    objective:
      - {loss: hard-labels}
      - {loss: soft-labels}
      - {loss: hidden-mse, projection: null}
training: {learning_rate: 1e-4, batch_size: 32, max_length: 128, evaluations_per_epoch: 1}
"""

if __name__ == "__main__":
    main()
