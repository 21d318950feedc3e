"""Trains small phases and writes what comes out; started on two processes by ``test_cut_batches.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdcli.engine.events import Evaluated, Logged, Note
from kdcli.engine.stages import Phase
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.recipe.schema import Until
from tests.engine.phases import WIDTHS, Material, Part, Told, changing, every_loss, labels_alone, phase, trainer, weights


@dataclass(frozen=True)
class Case:
    """A phase, the settings that it is trained with in one process, and what two processes change of them."""

    make: Callable[[Material], Phase]
    settings: Mapping[str, Any]
    cut: Mapping[str, Any]


def lower_layer(bank: Projections) -> list[Term]:
    """A loss on the first layer alone."""
    return [HiddenMseTerm({"bert": {1: 2}}, 32, WIDTHS, bank, "teacher", weight=changing(2.0, 1.0))]


def drawn(_: Projections) -> list[Term]:
    """One teacher per step."""
    return [HardLabelsTerm(), SoftLabelsTerm(["bert", "roberta"], chances={"bert": 0.5, "roberta": 0.5})]


def stages(material: Material) -> Phase:
    """A stage that ends early, one that leaves the projections alone, and one that draws."""
    until = Until(loss="hidden-mse", below=100.0, window=0.5)
    return phase(material, [Part(8, lower_layer, freeze=["embeddings"], until=until), Part(2, labels_alone), Part(2, drawn)])


CASES = {
    "uneven": Case(lambda material: phase(material, (6,)), {"batch_size": 9, "evaluations_per_epoch": 1}, {"accumulation": 2}),
    "one-row": Case(lambda material: phase(material, (2,)), {"batch_size": 47}, {}),
    "every-loss": Case(
        lambda material: phase(material, (4,), terms=every_loss), {"evaluations_per_epoch": 1}, {"accumulation": 2}
    ),
    "whole-batch": Case(
        lambda material: phase(material, (2,), terms=lambda bank: every_loss(bank, None)), {}, {"accumulation": 2}
    ),
    "stages": Case(stages, {"weight_decay": 0.3}, {"accumulation": 2}),
}


def losses(values: Mapping[str, float]) -> dict[str, float]:
    """What is logged of the whole batch; what terms observe is of one part of it."""
    return {key: value for key, value in values.items() if key.startswith("loss") or key == "gradient-norm"}


def trained(case: Case, material: Material, folder: Path, cut: bool) -> tuple[int, dict[str, Any]]:
    """Train a case; returns the number of processes, and weights, score, logged values and notes."""
    told, made = Told(), case.make(material)
    running = trainer(folder, told, **case.settings, **(case.cut if cut else {}))
    score = running.run(made)
    result = {
        "weights": weights(made),
        "score": score,
        "losses": [losses(event.values) for event in told.of(Logged)],
        "steps": [event.step for event in told.of(Logged)],
        "evaluated": [event.step for event in told.of(Evaluated)],
        "notes": [note.text for note in told.of(Note)],
    }
    return running.accelerator.num_processes, result


def main() -> None:
    """Train every case and keep what comes out."""
    bert, roberta, data, out = (Path(argument) for argument in sys.argv[1:])
    for name, case in CASES.items():
        processes, result = trained(case, Material(bert, roberta, data), out / name, cut=True)
        assert processes == 2
        if torch.distributed.get_rank() == 0:
            torch.save(result, out / f"{name}.pt")
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
