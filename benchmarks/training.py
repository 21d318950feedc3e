"""How fast kdcli trains, beside TextBrewer and the Hugging Face Trainer, in one run with interleaved repeats.

    python -m venv peer && peer/bin/pip install torch==2.13.0 transformers textbrewer==0.2.1.post1
    python benchmarks/training.py --peer peer/bin/python --sst2 SST-2/train.tsv \
        --tokenizers some-bert,some-roberta --models some-bert,some-roberta

Teachers of 12 layers and width 768 and a student of 4, with random weights (a speed does not depend on them), on the first rows
of SST-2. ``--tokenizers`` are two folders with unlike tokenizers, ``--models`` two encoders to co-finetune. What is compared is
the time in the training loop, tokenising and all, without scoring the dev split and writing checkpoints, which the peers do
not do. The floor is the time of the matrix products alone at the rate of this machine, measured between the runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

HERE = Path(__file__).resolve().parent
EPOCHS, BATCH, LENGTH, STUDENT, DEPTH, WIDTH = 3, 32, 128, 4, 12, 768
PARTS = ("one-teacher", "teachers", "projected", "attention", "cofinetune", "start-up")


@dataclass(frozen=True)
class Bench:
    """Where the runs find what they need.

    Attributes:
        folder: models, data and runs.
        peer: the interpreter of the peers' environment, or None to leave them out.
        rows: of the training data.
        tokenizers: two folders.
        models: encoders to co-finetune.
        threads: of every run.
        precision: of kdcli's runs.
    """

    folder: Path
    peer: str | None
    rows: int
    tokenizers: tuple[Path, Path]
    models: tuple[Path, ...]
    threads: int
    precision: str

    def kdcli(self, words: Sequence[str]) -> Path:
        """Run one training in a cache of its own and return its folder."""
        out = Path(tempfile.mkdtemp(dir=self.folder, prefix="run-"))
        cache = tempfile.mkdtemp(dir=self.folder, prefix="cache-")
        environment = os.environ | {"KDCLI_CACHE": cache, "OMP_NUM_THREADS": str(self.threads)}
        command = [sys.executable, "-m", "kdcli", *words, "--precision", self.precision, "--out", str(out), "--quiet"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"kdcli {' '.join(words)}\n{done.stderr}")
        shutil.rmtree(cache)
        return out

    def distilled(self, recipe: str, teachers: int, data: str = "train.tsv", length: int = LENGTH) -> dict[str, float]:
        """Samples per second of a distillation: over all epochs, and from the second epoch on."""
        named = ",".join(f"t{number}={self.folder / f't{number}'}" for number in range(1, teachers + 1))
        words = ["distill", "--teachers", named, "--student", f"{STUDENT}L", "--recipe", str(self.folder / recipe)]
        words += ["--data", str(self.folder / data), "--eval", str(self.folder / "dev.tsv"), "--text-column", "sentence"]
        out = self.kdcli([*words, "--allow-weak-teachers", "--max-length", str(length)])
        entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        shutil.rmtree(out)
        return _rates(entries, "distill")

    def cofinetuned(self, batch: int) -> dict[str, float]:
        """Samples per second of a co-finetuning over one epoch."""
        named = ",".join(f"m{number}={path.resolve()}" for number, path in enumerate(self.models))
        words = ["cofinetune", "--teachers", named, "--data", str(self.folder / "train.tsv")]
        words += ["--eval", str(self.folder / "dev.tsv"), "--text-column", "sentence", "--epochs", "1"]
        out = self.kdcli([*words, "--batch-size", str(batch), "--max-length", str(LENGTH)])
        entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        shutil.rmtree(out)
        return _rates(entries, "cofinetune")

    def beside(self, script: str, *words: str) -> dict[str, float]:
        """Samples per second of a peer's script."""
        assert self.peer is not None
        command = [self.peer, str(HERE / "peers" / script), "--threads", str(self.threads), *words]
        done = subprocess.run([*command, "--data", str(self.folder / "train.tsv")], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
        return {"samples_per_s": found["samples"] / found["seconds"]}


def _rates(entries: Sequence[Mapping[str, Any]], phase: str) -> dict[str, float]:
    def rate(chosen: Sequence[Mapping[str, Any]]) -> float:
        seconds = sum(
            spent for entry in chosen for name, spent in entry["seconds"].items() if name not in ("dev", "checkpoint")
        )
        return sum(int(entry["samples"]) for entry in chosen) / seconds if seconds else float("nan")

    steps = [entry for entry in entries if entry["phase"] == phase and entry["kind"] == "train"]
    later = [entry for before, entry in itertools.pairwise(steps) if before["epoch"] >= 1]
    return {"samples_per_s": rate(steps), "later_samples_per_s": rate(later) if later else float("nan")}


def prepare(folder: Path, sst2: Path, rows: int, tokenizers: tuple[Path, Path]) -> None:
    """Write teachers with random weights, recipes, and the data."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, RobertaConfig
    from transformers import RobertaForSequenceClassification as Roberta

    from kdcli.models.weight_loading import quiet_transformers

    quiet_transformers()
    labels: dict[str, Any] = {"id2label": {0: "0", 1: "1"}, "label2id": {"0": 0, "1": 1}}
    for number in (1, 2, 3):
        tokenizer: Any = AutoTokenizer.from_pretrained(tokenizers[1 if number == 2 else 0])
        torch.manual_seed(number)
        size: dict[str, Any] = {"vocab_size": max(30522, len(tokenizer)), "pad_token_id": tokenizer.pad_token_id, **labels}
        model: Any
        if number == 2:
            model = Roberta(RobertaConfig(max_position_embeddings=514 + tokenizer.pad_token_id, **size))
        else:
            model = BertForSequenceClassification(BertConfig(**size))
        model.save_pretrained(folder / f"t{number}")
        tokenizer.model_max_length = 512
        tokenizer.save_pretrained(folder / f"t{number}")
    terms: list[dict[str, Any]] = [{"loss": "hard-labels"}, {"loss": "soft-labels", "temperature": 4}]
    hidden = {"loss": "hidden-mse", "projection": None}
    recipes = {
        "hidden": [*terms, hidden],
        "projected": [*terms, {"loss": "hidden-mse", "projection": {"side": "teacher"}}],
        "attention": [*terms, hidden, {"loss": "attention-kl"}],
    }
    for name, objective in recipes.items():
        recipe = {
            "name": name,
            "summary": name,
            "student": {"init": {"from": "scratch"}},
            "layers": "uniform",
            "stages": [{"name": "distill", "epochs": EPOCHS, "objective": objective}],
            "training": {"learning_rate": 1e-4, "batch_size": BATCH, "evaluations_per_epoch": 1},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    lines = sst2.read_text(encoding="utf-8").splitlines()
    (folder / "train.tsv").write_text("\n".join(lines[: rows + 1]) + "\n", encoding="utf-8")
    (folder / "dev.tsv").write_text("\n".join([lines[0], *lines[-64:]]) + "\n", encoding="utf-8")
    texts = [line.split("\t")[0] for line in lines[1:]]
    long = [f"{' '.join(texts[row * 20 : row * 20 + 20])}\t{row % 2}" for row in range(128)]
    (folder / "long.tsv").write_text("\n".join(["sentence\tlabel", *long]) + "\n", encoding="utf-8")


def floor(threads: int, precision: str, tokens: float) -> dict[str, float]:
    """Samples per second of the one-teacher job if it were its matrix products alone."""
    from kdcli.plan.hardware import resolve_precision

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if resolve_precision(precision, torch.device("cpu")) == "bf16" else torch.float32
    states = torch.randn(round(BATCH * tokens), WIDTH, dtype=dtype)
    weights = torch.randn(4 * WIDTH, WIDTH, dtype=dtype)
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        torch.nn.functional.linear(states, weights)
        best = min(best, time.perf_counter() - begin)
    rate = 2 * states.numel() * len(weights) / best
    layer = 2 * 12 * WIDTH**2 * tokens  # operations of a layer's forward pass for one text
    return {"samples_per_s": rate / (layer * (DEPTH / EPOCHS + 3 * STUDENT)), "gflop_per_s": rate / 1e9}


def start_up() -> dict[str, float]:
    """Seconds of a few commands, and of importing what every typer program imports."""
    commands = {
        "import": [sys.executable, "-c", "import typer, rich"],
        "help": [sys.executable, "-m", "kdcli", "--help"],
        "recipe list": [sys.executable, "-m", "kdcli", "recipe", "list"],
    }
    found = {}
    for name, command in commands.items():
        begin = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        found[name] = time.perf_counter() - begin
    return found


def mean_tokens(bench: Bench) -> float:
    """Of a training text, through the first tokenizer."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(bench.tokenizers[0])
    texts = [line.split("\t")[0] for line in (bench.folder / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    return statistics.mean(len(ids) for ids in tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"])


def jobs(bench: Bench, parts: Sequence[str]) -> dict[str, Callable[[], dict[str, float]]]:
    """What is run in every repeat, one after the other."""
    made: dict[str, Callable[[], dict[str, float]]] = {}
    tokenizer = ("--tokenizer", str(bench.tokenizers[0].resolve()))
    models = [str(path.resolve()) for path in bench.models]
    tokens = mean_tokens(bench)
    made["floor"] = lambda: floor(bench.threads, bench.precision, tokens)
    if "one-teacher" in parts:
        made["kdcli, one teacher"] = lambda: bench.distilled("hidden.yaml", 1)
        if bench.peer:
            once = ("--epochs", "1")  # every epoch costs it the same
            made["TextBrewer, one teacher"] = lambda: bench.beside("textbrewer_training.py", *tokenizer, *once)
            fixed = ("--padding", "max_length", *once)
            made["TextBrewer, one teacher, fixed padding"] = lambda: bench.beside("textbrewer_training.py", *tokenizer, *fixed)
    if "teachers" in parts:
        made.setdefault("kdcli, one teacher", lambda: bench.distilled("hidden.yaml", 1))
        made["kdcli, two teachers"] = lambda: bench.distilled("hidden.yaml", 2)
        made["kdcli, three teachers"] = lambda: bench.distilled("hidden.yaml", 3)
        if bench.peer:
            two = ("--teachers", "2", "--epochs", "1")
            made["TextBrewer, two teachers, logits"] = lambda: bench.beside("textbrewer_training.py", *tokenizer, *two)
    if "projected" in parts:
        made["kdcli, one teacher, projected"] = lambda: bench.distilled("projected.yaml", 1)
        made["kdcli, three teachers, projected"] = lambda: bench.distilled("projected.yaml", 3)
    if "attention" in parts:
        made["kdcli, length 64"] = lambda: bench.distilled("hidden.yaml", 1, "long.tsv", 64)
        made["kdcli, length 64, attention KL"] = lambda: bench.distilled("attention.yaml", 1, "long.tsv", 64)
    if "cofinetune" in parts:
        for batch in (8, 32):
            made[f"kdcli, cofinetune, batch {batch}"] = lambda batch=batch: bench.cofinetuned(batch)  # type: ignore[misc]
            if bench.peer:
                words = (*models, "--batch-size", str(batch))
                made[f"Trainer, one after the other, batch {batch}"] = lambda words=words: bench.beside(  # type: ignore[misc]
                    "trainer_finetuning.py", *words
                )
    if "start-up" in parts:
        made["start-up"] = start_up
    return made


RATIOS: dict[str, tuple[str, str, str]] = {
    "one teacher, of the floor": ("kdcli, one teacher", "floor", "samples_per_s"),
    "one teacher / TextBrewer": ("kdcli, one teacher", "TextBrewer, one teacher", "samples_per_s"),
    "one teacher / TextBrewer with fixed padding": (
        "kdcli, one teacher",
        "TextBrewer, one teacher, fixed padding",
        "samples_per_s",
    ),
    "two teachers with hidden states / TextBrewer, two, logits": (
        "kdcli, two teachers",
        "TextBrewer, two teachers, logits",
        "samples_per_s",
    ),
    "cost of three teachers / one, from epoch 2": ("kdcli, one teacher", "kdcli, three teachers", "later_samples_per_s"),
    "cost of three teachers / one, projected, from epoch 2": (
        "kdcli, one teacher, projected",
        "kdcli, three teachers, projected",
        "later_samples_per_s",
    ),
    "cost of attention KL on 4 layers, length 64, from epoch 2": (
        "kdcli, length 64",
        "kdcli, length 64, attention KL",
        "later_samples_per_s",
    ),
    "co-finetuning / Trainer, both at its batch of 8": (
        "kdcli, cofinetune, batch 8",
        "Trainer, one after the other, batch 8",
        "samples_per_s",
    ),
    "co-finetuning / Trainer, both at batch 32": (
        "kdcli, cofinetune, batch 32",
        "Trainer, one after the other, batch 32",
        "samples_per_s",
    ),
    "co-finetuning at batch 32 / Trainer at its batch of 8": (
        "kdcli, cofinetune, batch 32",
        "Trainer, one after the other, batch 8",
        "samples_per_s",
    ),
}


def ratios(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, list[float]]:
    """Ratio by name, one per repeat, of jobs of the same repeat."""
    made = {}
    for name, (ours, theirs, figure) in RATIOS.items():
        if ours in found and theirs in found:
            key = figure if figure in found[theirs][0] else "samples_per_s"
            made[name] = [one[figure] / other[key] for one, other in zip(found[ours], found[theirs], strict=True)]
    for command in ("help", "recipe list"):
        for row in found.get("start-up", []):
            made.setdefault(f"kdcli {command} / import typer, rich", []).append(row[command] / row["import"])
    return made


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown: rates, then ratios, as median (lowest–highest)."""
    lines = ["| job | samples/s | from epoch 2 |", "|---|---|---|"]
    for name, rows in found.items():
        if name != "start-up":
            cells = [[row[key] for row in rows if key in row] for key in ("samples_per_s", "later_samples_per_s")]
            lines.append(f"| {name} | {_spread(cells[0])} | {_spread([value for value in cells[1] if value == value])} |")
    lines += ["", "| ratio | median (lowest–highest) |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {_spread(values, 2)} |" for name, values in ratios(found).items()])


def _spread(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main() -> None:
    """Run everything, print the tables, write the JSON."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--peer", help="Python of an environment with torch, transformers and textbrewer")
    options.add_argument("--sst2", type=Path, required=True, help="train.tsv of SST-2")
    options.add_argument("--tokenizers", required=True, help="two folders, comma-separated")
    options.add_argument("--models", default="", help="encoders to co-finetune, comma-separated folders")
    options.add_argument("--rows", type=int, default=1024)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    options.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    options.add_argument("--json", type=Path, default=Path("training.json"))
    chosen = options.parse_args()
    first, second = (Path(name).resolve() for name in chosen.tokenizers.split(","))
    models = tuple(Path(name) for name in chosen.models.split(",") if name)
    parts = [part for part in chosen.parts.split(",") if part != "cofinetune" or models]
    with tempfile.TemporaryDirectory(prefix="kdcli-training-") as name:
        folder = Path(name)
        bench = Bench(folder, chosen.peer, chosen.rows, (first, second), models, chosen.threads, chosen.precision)
        prepare(folder, chosen.sst2, chosen.rows, bench.tokenizers)
        found: dict[str, list[dict[str, float]]] = {}
        for repeat in range(chosen.repeats):
            for job, run in jobs(bench, parts).items():
                found.setdefault(job, []).append(run())
                print(f"{repeat + 1}/{chosen.repeats} {job}: {found[job][-1]}", file=sys.stderr, flush=True)
            document = {"settings": vars(chosen), "torch": torch.__version__, "runs": found, "ratios": ratios(found)}
            chosen.json.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
