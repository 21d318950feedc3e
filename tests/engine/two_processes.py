"""Trains two small phases and writes their weights; started on two processes by ``test_loop.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.engine.phases import Material, phase, trainer, weights

# rows do not divide by four; a last batch has one row for two processes
CASES = {"uneven": {"batch_size": 9, "accumulation": 2}, "one-row": {"batch_size": 47, "accumulation": 1}}
STEPS = 6


def main() -> None:
    """Train every case and keep what comes out."""
    bert, roberta, data, out = (Path(argument) for argument in sys.argv[1:])
    for name, case in CASES.items():
        trained = phase(Material(bert, roberta, data), (STEPS,))
        running = trainer(out / name, None, **case)
        assert running.accelerator.num_processes == 2
        score = running.run(trained)
        if running.accelerator.is_main_process:
            torch.save({"weights": weights(trained), "score": score}, out / f"{name}.pt")
        running.accelerator.wait_for_everyone()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
