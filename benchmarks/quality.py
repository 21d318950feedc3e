r"""The study behind docs/results.md: students of kdcli, of TextBrewer and of plain fine-tuning, on several tasks and seeds.

    python benchmarks/quality.py --data DATA --models l6=./minilm-l6,bpe=./minilm-bpe,mpnet=./mpnet --work study --hours 3

DATA has the sets as they are distributed: glue/SST-2, glue/CoLA, trec, banking77, mind. Each is split here, always alike: dev
is held out of the training rows and chooses checkpoints and searches; what is reported is the official test split, or the
official dev split where test has no labels (SST-2, CoLA, MIND's sample).

A cell is one training: (task, teachers, student's layers, method, seed). What a cell gave is written to benchmarks/quality.json
at once (scores, seconds, the prediction on every test row), so that a study goes on where it ended, on this machine or another,
and every figure can be computed again. The run folders stay below --work, plan.yaml in each.

Methods: kdcli (the default recipe and nothing but teachers, student and data), another recipe by its name, textbrewer and
finetune (both with a small search of their own on seed 0, chosen by dev). Students of one task have the same teachers: a pair
that kdcli has co-finetuned, or (TextBrewer takes no other) a single one that the Hugging Face Trainer has fine-tuned.
"""

from __future__ import annotations

import argparse
import base64
import csv
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_tables import CLAIMS  # beside this file

HERE = Path(__file__).parent
RESULTS = HERE / "quality.json"
Row = tuple[str, str]


@dataclass(frozen=True)
class Task:
    """One task: how to read it, how it is scored, how much of the training rows dev is."""

    name: str
    metric: str
    read: Callable[[Path, str], list[Row]]
    rows: int | None = None
    held_out: float = 0.1
    part_of: str | None = None  # its first training rows, with its dev and test rows and its teachers


def _table(path: Path, separator: str, header: bool = True, quoted: bool = False) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE))[
            1 if header else 0 :
        ]


def _sst2(data: Path, split: str) -> list[Row]:
    rows = _table(data / "glue/SST-2" / ("train.tsv" if split == "train" else "dev.tsv"), "\t")
    return [(row[0], ("negative", "positive")[int(row[1])]) for row in rows]


def _cola(data: Path, split: str) -> list[Row]:
    rows = _table(data / "glue/CoLA" / ("train.tsv" if split == "train" else "dev.tsv"), "\t", header=False)
    return [(row[3], ("unacceptable", "acceptable")[int(row[1])]) for row in rows]


def _trec(data: Path, split: str) -> list[Row]:
    return [(row[0], row[1]) for row in _table(data / "trec" / f"{split}.tsv", "\t")]


def _banking(data: Path, split: str) -> list[Row]:
    return [(row[0], row[1]) for row in _table(data / "banking77" / f"{split}.csv", ",", quoted=True)]


def _mind(data: Path, split: str) -> list[Row]:
    folder = "MINDsmall_train" if split == "train" else "MINDsmall_dev"
    return [(row[3], row[1]) for row in _table(data / "mind" / folder / "news.tsv", "\t", header=False)]


TASKS = {
    task.name: task
    for task in (
        Task("banking-1000", "accuracy", _banking, 1000, 0.2),
        Task("mind", "macro-f1", _mind, None, 0.2),
        Task("trec", "accuracy", _trec),
        Task("cola", "matthews", _cola),
        Task("sst2-10000", "accuracy", _sst2, 10_000),
        Task("banking", "accuracy", _banking),
        *(Task(f"sst2-{rows}", "accuracy", _sst2, rows, part_of="sst2-10000") for rows in (3000, 1000, 300)),
    )
}
WHOLE = tuple(name for name, task in TASKS.items() if task.part_of is None)
# one-of-pair: the first of the pair minilm, alone; separate: both of them, each fine-tuned by itself
PAIRS = {
    "minilm": ("l6", "bpe"),
    "mpnet": ("mpnet", "l6"),
    "single": ("l6",),
    "one-of-pair": ("l6",),
    "separate": ("l6", "bpe"),
}
DEPTHS = {"minilm": (3, 2), "single": (3, 2), "one-of-pair": (3, 2), "separate": (3, 2), "mpnet": (6, 4)}
# TextBrewer takes one teacher; fine-tuning begins with the first teacher's layers, which are l6's in all but mpnet
_SHARED = {
    *(("textbrewer", teachers) for teachers in PAIRS if teachers != "single"),
    *(("finetune", teachers) for teachers in ("single", "one-of-pair", "separate")),
}
_TRAINER_RATES = {"l6": (1e-4, 2e-4), "bpe": (1e-4, 2e-4), "mpnet": (3e-5, 6e-5)}
_FINETUNE_SEARCH = tuple({"learning_rate": rate} for rate in (1e-4, 2e-4, 5e-4))
_TEXTBREWER_SEARCH = (
    {"learning_rate": 5e-4, "temperature": 4.0, "hidden": 1.0},
    {"learning_rate": 2e-4, "temperature": 4.0, "hidden": 1.0},
    {"learning_rate": 5e-4, "temperature": 8.0, "hidden": 1.0},
    {"learning_rate": 5e-4, "temperature": 4.0, "hidden": 0.0},
)


@dataclass(frozen=True, order=True)
class Cell:
    """One training."""

    seed: int
    task: str
    teachers: str
    layers: int
    method: str

    @property
    def key(self) -> str:
        """As it stands in the results."""
        return f"{self.task}/{self.teachers}/{self.layers}L/{self.method}/{self.seed}"


class Study:
    """Makes cells and keeps what they gave."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.models = dict(part.split("=", 1) for part in options.models.split(","))
        self.work = Path(options.work).resolve()
        self.results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        self.end = time.time() + 3600 * options.hours

    def run(self) -> None:
        """All cells that are asked for and not there, until the hours are over."""
        for task in self._tasks():
            self._write(task)
            if not self._has(f"{task.name}/gold"):
                labels = [label for _, label in self._test(task)]
                self._keep(f"{task.name}/gold", {"metric": task.metric, **_packed(labels, sorted(set(labels)))})
        for cell in self._cells():
            if time.time() > self.end:
                print("the hours are over", file=sys.stderr)
                return
            if not self._has(cell.key):
                with Claimed(self.work / "claims" / cell.key.replace("/", "_")) as mine:
                    if mine:
                        self._make(cell)

    def _tasks(self) -> list[Task]:
        return [TASKS[name] for name in self.options.tasks.split(",")]

    def _cells(self) -> Iterator[Cell]:
        for seed in map(int, self.options.seeds.split(",")):
            for task in self._tasks():
                if self.options.claims:
                    sides = [side for claim in CLAIMS for side in (claim.ours, claim.theirs)]
                    yield from (Cell(seed, task.name, *side) for side in dict.fromkeys((t, 3, m) for t, m in sides))
                    continue
                for teachers in self.options.teachers.split(","):
                    for layers in DEPTHS[teachers] if self.options.layers is None else [self.options.layers]:
                        for method in self.options.methods.split(","):
                            if (method, teachers) not in _SHARED:
                                yield Cell(seed, task.name, teachers, layers, method)

    def _has(self, key: str) -> bool:
        if RESULTS.is_file():
            self.results = json.loads(RESULTS.read_text(encoding="utf-8"))
        return key in self.results

    def _keep(self, key: str, found: dict[str, Any]) -> None:
        with Claimed(self.work / "claims" / "results", wait=True):
            self._has(key)
            self.results[key] = found
            beside = RESULTS.with_suffix(".partial")
            beside.write_text(json.dumps(dict(sorted(self.results.items())), indent=0) + "\n", encoding="utf-8")
            os.replace(beside, RESULTS)
        print(key, {name: value for name, value in found.items() if name != "predictions"}, file=sys.stderr, flush=True)

    # Data

    def _folder(self, task: str) -> Path:
        return self.work / "data" / task

    def _write(self, task: Task) -> None:
        """The task's three files, always the same rows in each."""
        folder = self._folder(task.name)
        if folder.is_dir():
            return
        if task.part_of is not None:
            self._write_part(task)
            return
        data = Path(self.options.data)
        rows = task.read(data, "train")
        generator = random.Random(0)
        if task.rows is not None:
            generator.shuffle(rows)
            rows = rows[: task.rows]
        by_class: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_class[row[1]].append(row)
        train, dev = [], []
        for name in sorted(by_class):
            generator.shuffle(by_class[name])
            count = round(len(by_class[name]) * task.held_out)
            dev += by_class[name][:count]
            train += by_class[name][count:]
        generator.shuffle(train)
        partial = folder.with_name(f"{task.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        for split, chosen in (("train", train), ("dev", dev), ("test", task.read(data, "test"))):
            with (partial / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *chosen])
        partial.rename(folder)

    def _write_part(self, task: Task) -> None:
        """A task with fewer training rows of another one; its dev and test rows are all there."""
        assert task.part_of is not None
        whole, partial = self._folder(task.part_of), self._folder(f"{task.name}.partial")
        self._write(TASKS[task.part_of])
        shutil.copytree(whole, partial, dirs_exist_ok=True)
        with (whole / "train.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[: 1 + (task.rows or 0)]
        with (partial / "train.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        partial.rename(self._folder(task.name))

    # Teachers

    def _cofinetuned(self, task: Task, pair: str) -> Path:
        """The run folder of a pair that is co-finetuned as kdcli does by itself, and its teachers' scores."""
        out = self.work / "teachers" / f"{task.name}-{pair}"
        key = f"{task.name}/{pair}/teachers"
        with Claimed(self.work / "claims" / out.name, wait=True):
            if not (out / "teachers").is_dir():
                names = ",".join(f"{name}={self.models[name]}" for name in PAIRS[pair])
                seconds = self._kdcli("cofinetune", "--teachers", names, *self._flags(task), "--out", str(out))
                self._keep(f"{key}/seconds", {"seconds": seconds})
            for name in PAIRS[pair]:
                if not self._has(f"{key}/{name}"):
                    scores = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
                    dev = next(model["scores"][task.metric] for model in scores["models"] if model["name"] == name)
                    predicted = self._predict_cofinetuned(task, out, name)
                    self._keep(f"{key}/{name}", {"dev": dev, **self._scored(task, predicted)})
        return out

    def _trained(self, task: Task, name: str) -> Path:
        """A teacher fine-tuned by the Hugging Face Trainer with a small search over the rate."""
        tries = []
        for rate in _TRAINER_RATES[name]:
            out = self.work / "teachers" / f"{task.name}-trainer-{name}-{rate:g}"
            key = f"{task.name}/trainer/{name}/{rate:g}"
            with Claimed(self.work / "claims" / out.name, wait=True):
                if not self._has(key) or not out.is_dir():
                    found = self._script(
                        "trainer_teachers.py", model=self.models[name], data=self._folder(task.name), learning_rate=rate,
                        metric=task.metric, out=out,
                    )  # fmt: skip
                    self._keep(key, {**found, **self._scored(task, self._predict(task, out))})
            tries.append((self.results[key]["dev"], out))
        return max(tries)[1]

    # Cells

    def _make(self, cell: Cell) -> None:
        task = TASKS[cell.task]
        if cell.method == "textbrewer":
            self._searched(cell, task, _TEXTBREWER_SEARCH, self._textbrewer)
        elif cell.method == "finetune":
            self._searched(cell, task, _FINETUNE_SEARCH, self._finetune)
        else:
            self._keep(cell.key, self._distilled(cell, task))

    def _teachers(self, cell: Cell, task: Task) -> str:
        task = TASKS[task.part_of or task.name]
        names = PAIRS[cell.teachers]
        if cell.teachers == "one-of-pair":
            return f"{names[0]}={self._cofinetuned(task, 'minilm') / 'teachers' / names[0]}"
        if cell.teachers in ("single", "separate"):
            return ",".join(f"{name}={self._trained(task, name)}" for name in names)
        return str(self._cofinetuned(task, cell.teachers))

    def _distilled(self, cell: Cell, task: Task) -> dict[str, Any]:
        out = self.work / "runs" / cell.key.replace("/", "_")
        recipe = [] if cell.method == "kdcli" else ["--recipe", *cell.method.split(" ")]
        command = ["distill", "--teachers", self._teachers(cell, task), "--student", f"{cell.layers}L", *self._flags(task)]
        return self._student(task, out, *command, *recipe, "--seed", str(cell.seed))

    def _student(self, task: Task, out: Path, *words: str) -> dict[str, Any]:
        """Run ``kdcli distill``: the student's scores and the seconds of the command."""
        seconds = self._kdcli(*words, "--no-report", "--out", str(out))
        scores = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
        dev = next(model["scores"][task.metric] for model in scores["models"] if model["role"] == "student")
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        return {"dev": dev, "seconds": seconds, **self._scored(task, self._predict(task, out / "student"))}

    def _searched(self, cell: Cell, task: Task, search: Any, train: Callable[..., dict[str, Any]]) -> None:
        """A method with a search of its own: every choice on seed 0, on the other seeds the one that was best on dev."""
        tries = {}
        for choice in search:
            key = f"{cell.task}/{cell.teachers}/{cell.layers}L/{cell.method}/search/{json.dumps(choice)}"
            if not self._has(key):
                self._keep(key, train(cell, task, choice, 0))
            tries[key] = (self.results[key]["dev"], choice)
        best = max(tries, key=lambda key: tries[key][0])
        choice = tries[best][1]
        found = self.results[best] if cell.seed == 0 else train(cell, task, choice, cell.seed)
        self._keep(cell.key, {**found, "choice": choice})

    def _finetune(self, cell: Cell, task: Task, choice: dict[str, float], seed: int) -> dict[str, Any]:
        """The student's layers of the pre-trained first teacher, on gold labels alone, for as many steps as kdcli takes."""
        name = PAIRS[cell.teachers][0]
        out = self.work / "runs" / f"{cell.task}_{cell.teachers}_{cell.layers}L_finetune_{choice['learning_rate']:g}_{seed}"
        plan = self._plan(cell, task)
        command = [
            "distill",
            "--recipe",
            "finetune",
            "--teachers",
            f"{name}={self.models[name]}",
            "--student",
            f"{cell.layers}L",
        ]
        command += [*self._flags(task), "--learning-rate", f"{choice['learning_rate']:g}", "--seed", str(seed)]
        command += ["--batch-size", str(plan["batch_size"]), "--epochs", str(plan["steps"] / self._steps_per_epoch(task, plan))]
        command += ["--set", "student.init.layers=uniform"]
        return self._student(task, out, *command)

    def _textbrewer(self, cell: Cell, task: Task, choice: dict[str, float], seed: int) -> dict[str, Any]:
        plan, about = self._plan(cell, task), "-".join(f"{value:g}" for value in choice.values())
        out = self.work / "runs" / f"{cell.task}_{cell.layers}L_textbrewer_{about}_{seed}"
        teacher = self._trained(TASKS[task.part_of or task.name], PAIRS["single"][0])
        found = self._script(
            "textbrewer_students.py", teacher=teacher, data=self._folder(task.name),
            layers=cell.layers, steps=plan["steps"], batch_size=plan["batch_size"], metric=task.metric, seed=seed, out=out,
            **choice,
        )  # fmt: skip
        return {**found, **self._scored(task, self._predict(task, out))}

    def _plan(self, cell: Cell, task: Task) -> dict[str, Any]:
        """Batch size and optimiser steps of kdcli's own run."""
        command = ["distill", "--teachers", self._teachers(cell, task), "--student", f"{cell.layers}L", *self._flags(task)]
        words = [sys.executable, "-m", "kdcli", *command, "--dry-run", "--json", "--quiet"]
        plan = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
        steps = sum(stage["steps"] for stage in plan["hops"][-1]["stages"])
        return {"steps": steps, "batch_size": plan["recipe"]["training"]["batch_size"]}

    def _steps_per_epoch(self, task: Task, plan: dict[str, Any]) -> int:
        with (self._folder(task.name) / "train.csv").open(encoding="utf-8", newline="") as file:
            rows = sum(1 for _ in csv.reader(file)) - 1
        return -(-rows // int(plan["batch_size"]))

    # Commands

    def _flags(self, task: Task) -> list[str]:
        return ["--data", str(self._folder(task.name)), "--metric", task.metric, "--quiet"]

    def _kdcli(self, *words: str) -> float:
        """Run a command; returns its seconds. What did not come to its end is made again."""
        out = Path(words[words.index("--out") + 1])
        shutil.rmtree(out, ignore_errors=True)
        print("kdcli", shlex.join(words), file=sys.stderr, flush=True)
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "kdcli", *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    def _script(self, name: str, **flags: Any) -> dict[str, Any]:
        words = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
        print(name, shlex.join(words), file=sys.stderr, flush=True)
        command = [self.options.peer_python, str(HERE / "peers" / name), *words]
        found: dict[str, Any] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
        return found

    # Predictions on test: one way for everybody, transformers alone

    def _test(self, task: Task) -> list[Row]:
        with (self._folder(task.name) / "test.csv").open(encoding="utf-8", newline="") as file:
            return [(row["text"], row["label"]) for row in csv.DictReader(file)]

    def _predict(self, task: Task, folder: Path) -> list[str]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        return _predicted(self._test(task), AutoTokenizer.from_pretrained(folder), model, list(model.config.id2label.values()))

    def _predict_cofinetuned(self, task: Task, run: Path, name: str) -> list[str]:
        import torch
        from transformers import AutoModel, AutoTokenizer

        from kdcli.models.head import SharedHead

        head, labels = SharedHead.load(run / "teachers")
        encoder = AutoModel.from_pretrained(run / "teachers" / name).eval()
        head.eval()

        def answer(**inputs: torch.Tensor) -> Any:
            return argparse.Namespace(logits=head(name, encoder(**inputs).last_hidden_state, inputs["attention_mask"]))

        return _predicted(self._test(task), AutoTokenizer.from_pretrained(run / "teachers" / name), answer, list(labels))

    def _scored(self, task: Task, predicted: list[str]) -> dict[str, Any]:
        labels = [label for _, label in self._test(task)]
        return {"test": score(task.metric, labels, predicted), **_packed(predicted, sorted(set(labels) | set(predicted)))}


def _packed(names: list[str], classes: list[str]) -> dict[str, Any]:
    """A class for every row, as text of few characters; ``quality_tables.py`` reads it."""
    packed = zlib.compress(bytes(classes.index(name) for name in names), 9)
    return {"classes": classes, "predictions": base64.b85encode(packed).decode()}


def _predicted(rows: list[Row], tokenizer: Any, model: Any, labels: list[str]) -> list[str]:
    import torch

    encoded = [tokenizer(text, truncation=True, max_length=128) for text, _ in rows]
    order = sorted(range(len(rows)), key=lambda row: len(encoded[row]["input_ids"]))
    found = [""] * len(rows)
    with torch.inference_mode():
        for begin in range(0, len(order), 64):
            chosen = order[begin : begin + 64]
            batch = tokenizer.pad([encoded[row] for row in chosen], return_tensors="pt")
            for row, best in zip(chosen, model(**batch).logits.argmax(-1).tolist(), strict=True):
                found[row] = labels[best]
    return found


def score(metric: str, labels: list[str], predicted: list[str]) -> float:
    """One metric on one split; macro F1 over the classes that occur in its labels."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if metric == "accuracy":
        return float(accuracy_score(labels, predicted))
    if metric == "macro-f1":
        return float(f1_score(labels, predicted, labels=sorted(set(labels)), average="macro", zero_division=0))
    return float(matthews_corrcoef(labels, predicted))


class Claimed:
    """A lock between processes that work on one study: it is ours, or (without ``wait``) somebody else's."""

    def __init__(self, path: Path, wait: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w", encoding="utf-8")
        self.wait = wait

    def __enter__(self) -> bool:
        import fcntl

        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self.file.close()


def main() -> None:
    """Make the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", required=True, help="NAME=FOLDER,… of the encoders l6, bpe and mpnet, as far as needed")
    parser.add_argument("--work", default="study", help="folder of the runs")
    parser.add_argument("--hours", type=float, default=1.0, help="no cell begins after that")
    parser.add_argument("--tasks", default=",".join(WHOLE))
    parser.add_argument("--teachers", default="minilm,single", help=", ".join(PAIRS))
    parser.add_argument(
        "--methods", default="kdcli,textbrewer,finetune", help="these, or a recipe with flags: 'kdcli --effort quick'"
    )
    parser.add_argument("--claims", action="store_true", help="the papers' claims, in place of teachers, methods and layers")
    parser.add_argument("--layers", type=int, help="of the student; default: a half and a third of the first teacher's")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of an environment with textbrewer")
    Study(parser.parse_args()).run()


if __name__ == "__main__":
    main()
