"""One teacher by the Hugging Face Trainer, for ``benchmarks/quality.py``: early stopping, the best epoch by the dev split.

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from textbrewer_students import LENGTH, scored
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

_SAMPLES, _FEWEST, _MOST, _PATIENCE = 60_000, 6, 30, 4


def main() -> None:
    """Fine-tune once, keep the best epoch, print how it went."""
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--data", required=True, help="folder with train.csv and dev.csv: text, label")
    options.add_argument("--learning-rate", type=float, required=True)
    options.add_argument("--metric", choices=["accuracy", "macro-f1", "matthews"], required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", required=True)
    chosen = options.parse_args()
    begin = time.perf_counter()
    set_seed(chosen.seed)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    train, dev = (_read(Path(chosen.data) / f"{split}.csv") for split in ("train", "dev"))
    names = sorted({label for _, label in train})
    model = AutoModelForSequenceClassification.from_pretrained(
        chosen.model, id2label=dict(enumerate(names)), label2id={name: row for row, name in enumerate(names)}
    )

    def samples(rows: list[tuple[str, str]]) -> Any:
        encoded = tokenizer([text for text, _ in rows], truncation=True, max_length=LENGTH)
        return [
            {"input_ids": ids, "attention_mask": mask, "label": names.index(label)}
            for ids, mask, (_, label) in zip(encoded["input_ids"], encoded["attention_mask"], rows, strict=True)
        ]

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        learning_rate=chosen.learning_rate,
        num_train_epochs=min(_MOST, max(_FEWEST, -(-_SAMPLES // len(train)))),
        per_device_train_batch_size=16 if len(train) < 4000 else 32,
        per_device_eval_batch_size=64,
        warmup_steps=0.1,
        weight_decay=0.01,
        bf16=True,
        use_cpu=True,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        report_to=[],
        disable_tqdm=True,
        seed=chosen.seed,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=samples(train),
        eval_dataset=samples(dev),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {"score": scored(chosen.metric, found.label_ids, found.predictions.argmax(-1))},
        callbacks=[EarlyStoppingCallback(_PATIENCE)],
    )
    trainer.train()
    model.save_pretrained(chosen.out)
    tokenizer.save_pretrained(chosen.out)
    print(
        json.dumps(
            {"dev": trainer.state.best_metric, "steps": trainer.state.global_step, "seconds": time.perf_counter() - begin}
        )
    )


def _read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
