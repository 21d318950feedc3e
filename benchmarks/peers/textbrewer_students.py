"""One student by TextBrewer, for ``benchmarks/quality.py``; run by it, in an environment that has textbrewer.

What helps kdcli is given to TextBrewer too: bf16 where the machine has it, batches padded to their longest text, outputs of the
teacher kept after the first epoch, warm-up, linear decay, clipping, the best epoch by the dev split, and to begin with the
teacher's own layers and head. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

LENGTH = 128
WITHOUT_DECAY = ("bias", "LayerNorm.weight")


def main() -> None:
    """Train one student, keep its best epoch, print how it went."""
    options = argparse.ArgumentParser()
    options.add_argument("--teacher", required=True, help="a fine-tuned checkpoint, which lends its layers too")
    options.add_argument("--data", required=True, help="folder with train.csv and dev.csv: text, label")
    options.add_argument("--layers", type=int, required=True)
    options.add_argument("--steps", type=int, required=True)
    options.add_argument("--batch-size", type=int, required=True)
    options.add_argument("--learning-rate", type=float, required=True)
    options.add_argument("--temperature", type=float, default=4)
    options.add_argument("--hard", type=float, default=1, help="weight of the gold labels")
    options.add_argument("--hidden", type=float, default=1, help="weight of the hidden states; 0 for logits alone")
    options.add_argument("--metric", choices=["accuracy", "macro-f1", "matthews"], required=True)
    options.add_argument("--seed", type=int, required=True)
    options.add_argument("--out", required=True)
    begin = time.perf_counter()
    dev, seconds = train(options.parse_args())
    print(json.dumps({"dev": dev, "training_seconds": seconds, "seconds": time.perf_counter() - begin}))


def train(chosen: argparse.Namespace) -> tuple[float, float]:
    """Best dev score, and seconds of the training itself."""
    torch.manual_seed(chosen.seed)
    folder = Path(chosen.data)
    teacher: Any = AutoModelForSequenceClassification.from_pretrained(chosen.teacher).eval()
    tokenizer = AutoTokenizer.from_pretrained(chosen.teacher)
    train_set, dev_set = (samples(folder / f"{split}.csv", tokenizer, teacher.config.label2id) for split in ("train", "dev"))
    student = cut(chosen.teacher, teacher, chosen.layers)
    depth = teacher.config.num_hidden_layers
    layers = range(1, chosen.layers + 1) if chosen.hidden else []
    config = DistillationConfig(
        temperature=chosen.temperature,
        hard_label_weight=chosen.hard,
        kd_loss_type="ce",
        intermediate_matches=[
            {
                "layer_T": depth * row // chosen.layers,
                "layer_S": row,
                "feature": "hidden",
                "loss": "hidden_mse",
                "weight": chosen.hidden,
            }
            for row in layers
        ],
    )
    loader: Any = DataLoader(
        range(len(train_set)),  # type: ignore[arg-type]
        batch_size=chosen.batch_size,
        shuffle=True,
        collate_fn=lambda rows: padded(train_set, rows),
    )
    settings = TrainingConfig(device="cpu", ckpt_frequency=1, output_dir=tempfile.mkdtemp(), log_dir=None)
    distiller = GeneralDistiller(settings, config, Kept(teacher), Bf16(student), adapt, adapt)
    decays = [p for name, p in student.named_parameters() if not name.endswith(WITHOUT_DECAY)]
    others = [p for name, p in student.named_parameters() if name.endswith(WITHOUT_DECAY)]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=chosen.learning_rate
    )
    schedule = {"num_warmup_steps": round(0.1 * chosen.steps), "num_training_steps": chosen.steps}
    best = Best(student, dev_set, chosen.metric, Path(chosen.out), tokenizer)
    begin = time.perf_counter()
    with distiller:
        distiller.train(
            optimizer,
            loader,
            num_epochs=max(1, round(chosen.steps / len(loader))),
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args=schedule,
            max_grad_norm=1.0,
            callback=best,
        )
    return best.score, time.perf_counter() - begin


def samples(path: Path, tokenizer: Any, classes: dict[str, int]) -> list[dict[str, Any]]:
    """The rows of a split, tokenised."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=LENGTH)
    return [
        {"row": number, "input_ids": ids, "attention_mask": mask, "labels": classes[row["label"]]}
        for number, (row, ids, mask) in enumerate(zip(rows, encoded["input_ids"], encoded["attention_mask"], strict=True))
    ]


def padded(rows: list[dict[str, Any]], chosen: Any) -> dict[str, Tensor]:
    """Some rows as one batch, padded to the longest of them."""
    batch = [rows[number] for number in chosen]
    longest = max(len(row["input_ids"]) for row in batch)
    made = {
        key: torch.tensor([row[key] + [0] * (longest - len(row[key])) for row in batch])
        for key in ("input_ids", "attention_mask")
    }
    return {
        **made,
        "labels": torch.tensor([row["labels"] for row in batch]),
        "rows": torch.tensor([row["row"] for row in batch]),
    }


def cut(path: str, teacher: Any, layers: int) -> Any:
    """The teacher with every so many of its layers, the top one among them, and with its own head."""
    config = AutoConfig.from_pretrained(path, num_hidden_layers=layers)
    student = AutoModelForSequenceClassification.from_config(config)
    depth = int(teacher.config.num_hidden_layers)
    theirs = teacher.state_dict()

    def there(name: str) -> str:
        return re.sub(r"(layers?)\.(\d+)\.", lambda found: f"{found[1]}.{depth * (int(found[2]) + 1) // layers - 1}.", name)

    student.load_state_dict({name: theirs[there(name)] for name in student.state_dict()})
    return student


class Bf16(nn.Module):
    """A model that computes in bf16 and answers in fp32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor, **inputs: Tensor) -> Any:
        """The model's outputs with hidden states."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(**inputs, output_hidden_states=True)


class Kept(nn.Module):
    """A teacher that answers once about each row."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = Bf16(model)
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(self, rows: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Any:
        """Logits and hidden states, padded as the batch is."""
        numbers, lengths = rows.tolist(), attention_mask.sum(1).tolist()
        if not all(number in self.known for number in numbers):
            found = self.model(rows=rows, attention_mask=attention_mask, **inputs)
            states = torch.stack(found.hidden_states, 1)  # [B, layers, L, D]
            for place, (number, length) in enumerate(zip(numbers, lengths, strict=True)):
                self.known[number] = (found.logits[place].float(), states[place, :, :length].bfloat16())
        logits = torch.stack([self.known[number][0] for number in numbers])
        first = self.known[numbers[0]][1]
        states = torch.zeros(len(numbers), first.shape[0], attention_mask.shape[1], first.shape[2])
        for place, number in enumerate(numbers):
            kept = self.known[number][1]
            states[place, :, : kept.shape[1]] = kept
        return Said(logits, tuple(states.unbind(1)))


class Said:
    """What a teacher has said."""

    def __init__(self, logits: Tensor, hidden_states: tuple[Tensor, ...]) -> None:
        self.logits, self.hidden_states, self.loss = logits, hidden_states, None


def adapt(batch: dict[str, Tensor], outputs: Any) -> dict[str, Any]:
    """What TextBrewer looks at: on real tokens alone."""
    found = {"logits": outputs.logits.float(), "hidden": outputs.hidden_states, "inputs_mask": batch["attention_mask"]}
    return found if outputs.loss is None else {**found, "losses": outputs.loss}


class Best:
    """Scores the student after every epoch and keeps the best one."""

    def __init__(self, student: Any, dev: list[dict[str, Any]], metric: str, out: Path, tokenizer: Any) -> None:
        self.student, self.dev, self.metric, self.out, self.tokenizer = student, dev, metric, out, tokenizer
        self.score = -1.0

    def __call__(self, model: Any, step: int) -> None:
        """As TextBrewer calls it."""
        self.student.eval()
        order = sorted(range(len(self.dev)), key=lambda row: len(self.dev[row]["input_ids"]))
        predicted = np.empty(len(order), dtype=int)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for begin in range(0, len(order), 64):
                batch = padded(self.dev, order[begin : begin + 64])
                logits = self.student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                predicted[batch["rows"].numpy()] = logits.argmax(-1).numpy()
        self.student.train()
        score = scored(self.metric, [row["labels"] for row in self.dev], predicted)
        if score > self.score:
            self.score = score
            self.student.save_pretrained(self.out)
            self.tokenizer.save_pretrained(self.out)


def scored(metric: str, labels: Any, predicted: Any) -> float:
    """One metric."""
    if metric == "accuracy":
        return float(accuracy_score(labels, predicted))
    if metric == "macro-f1":
        return float(f1_score(labels, predicted, average="macro", zero_division=0))
    return float(matthews_corrcoef(labels, predicted))


if __name__ == "__main__":
    main()
