"""The training job of ``benchmarks/training.py`` in TextBrewer; run by it, in an environment of its own.

Teachers of 12 layers and width 768 and a student of 4, all with random weights; gold labels, soft labels at temperature 4 and,
with one teacher, the mean squared error of the hidden states of four layers (with several teachers TextBrewer distils logits
alone). Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from typing import Any

import torch
from textbrewer import DistillationConfig, GeneralDistiller, MultiTeacherDistiller, TrainingConfig
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

TEMPERATURE, LENGTH, LAYERS = 4, 128, 4


def main() -> None:
    """Train once and print how long it took."""
    options = argparse.ArgumentParser()
    options.add_argument("--tokenizer", required=True)
    options.add_argument("--data", required=True)
    options.add_argument("--teachers", type=int, default=1)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--padding", choices=["longest", "max_length"], default="longest")
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer)
    with open(chosen.data, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))

    def collate(batch: list[dict[str, str]]) -> dict[str, Any]:
        texts = [row["sentence"] for row in batch]
        inputs = tokenizer(texts, padding=chosen.padding, truncation=True, max_length=LENGTH, return_tensors="pt")
        return {**inputs, "labels": torch.tensor([int(row["label"]) for row in batch])}

    def adapt(_: Any, outputs: Any) -> dict[str, Any]:
        return {"logits": outputs.logits, "hidden": outputs.hidden_states, "losses": outputs.loss}

    teachers = [BertForSequenceClassification(BertConfig()).eval() for _ in range(chosen.teachers)]
    student = BertForSequenceClassification(BertConfig(num_hidden_layers=LAYERS))
    settings: dict[str, Any] = {"temperature": TEMPERATURE, "hard_label_weight": 1, "kd_loss_type": "ce"}
    training = TrainingConfig(device="cpu", output_dir=tempfile.mkdtemp(), log_dir=None)
    if chosen.teachers == 1:
        settings["intermediate_matches"] = [
            {"layer_T": 3 * layer, "layer_S": layer, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
            for layer in range(1, LAYERS + 1)
        ]
        distiller: Any = GeneralDistiller(training, DistillationConfig(**settings), teachers[0], student, adapt, adapt)
    else:
        distiller = MultiTeacherDistiller(training, DistillationConfig(**settings), teachers, student, adapt, adapt)
    loader: Any = DataLoader(rows, batch_size=chosen.batch_size, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    begin = time.perf_counter()
    with distiller:
        distiller.train(optimizer, loader, num_epochs=chosen.epochs, callback=None, output_hidden_states=True)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "samples": len(rows) * chosen.epochs}))


if __name__ == "__main__":
    main()
