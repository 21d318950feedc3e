"""Trains a small phase over kept answers and writes what comes out; started on two processes by ``test_teaching.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from kdcli.engine.events import StepDone
from tests.engine.keeping import ROWS, Desk, asked, kept
from tests.engine.phases import Material, Told, all_terms, trainer, weights

EPOCH = ROWS // 4
STEPS = 3 * EPOCH
SETTINGS: dict[str, Any] = {"batch_size": 4}


def main() -> None:
    """Three epochs; what is asked in the last one is counted apart."""
    bert, roberta, data, out = (Path(argument) for argument in sys.argv[1:])
    desk = Desk(Material(bert, roberta, data), out)
    made = desk.phase(all_terms, steps=STEPS, processes=2)
    counts: list[dict[str, int]] = []
    told = Told(lambda event: counts.append(count()) if isinstance(event, StepDone) else None)

    def count() -> dict[str, int]:
        return {name: len(batches) for name, batches in asked(made).items()}

    running = trainer(out, told, evaluations_per_epoch=1, **SETTINGS)
    assert running.accelerator.num_processes == 2
    running.run(made)
    found = {
        "weights": weights(made),
        "kept": kept(made),
        "asked": count(),
        "asked by the last epoch": counts[2 * EPOCH - 1],
    }
    torch.save(found, out / f"{running.accelerator.process_index}.pt")
    desk.close()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
