"""The Hugging Face side of the co-finetuning job of ``benchmarks/training.py``: one model after the other, with the Trainer.

Defaults of ``TrainingArguments``, dynamic padding, one epoch each; no evaluation, no checkpoints. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def main() -> None:
    """Fine-tune every model once and print how long it took together."""
    options = argparse.ArgumentParser()
    options.add_argument("models", nargs="+")
    options.add_argument("--data", required=True)
    options.add_argument("--batch-size", type=int)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    with open(chosen.data, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    seconds = 0.0
    for folder in chosen.models:
        set_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        samples = [{**tokenizer(row["sentence"], truncation=True, max_length=128), "label": int(row["label"])} for row in rows]
        more: dict[str, Any] = {} if chosen.batch_size is None else {"per_device_train_batch_size": chosen.batch_size}
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(), num_train_epochs=1, save_strategy="no", report_to=[], disable_tqdm=True, **more
        )
        collator = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model=model, args=arguments, train_dataset=samples, data_collator=collator)
        begin = time.perf_counter()
        trainer.train()
        seconds += time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "samples": len(rows)}))


if __name__ == "__main__":
    main()
