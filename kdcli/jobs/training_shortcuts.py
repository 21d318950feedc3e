"""What spares a training work without changing its result: teachers that answer once, embeddings of the tokens that occur."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from torch import nn

from kdcli.caching import cache_folder
from kdcli.data.batching import Samples
from kdcli.engine.events import Note
from kdcli.engine.stages import Asking, Phase, Stage
from kdcli.engine.teacher_outputs import Stores, Teaching, stores_for, wants_of
from kdcli.jobs.run_opening import OpenRun
from kdcli.models.dropout import quick_dropout
from kdcli.models.teachers import Ensemble
from kdcli.models.vocabulary import trimmed
from kdcli.recipe.schema import settled

CACHE_LIMIT = 32 * 2**30
_FOLDER = "answers"


def train_quickly(open_run: OpenRun, phase: Phase, models: Mapping[str, nn.Module]) -> None:
    """Train a phase with embeddings of those tokens alone that occur in it, and with quick dropout.

    Adafactor scales its steps by the whole matrix, so that it is given the whole.

    Args:
        open_run: the run.
        phase: what is trained.
        models: the models that learn, by the names of their views.
    """
    views = {name: [samples.views[name] for samples in (phase.train, phase.dev)] for name in models}
    whole = open_run.prepared.plan.recipe.training.optimizer.name == "adafactor"
    with quick_dropout(models.values()), nullcontext() if whole else trimmed(models, views):
        open_run.trainer.run(phase)


@contextmanager
def teaching(open_run: OpenRun, ensemble: Ensemble | None, train: Samples, stages: Sequence[Stage]) -> Iterator[Asking | None]:
    """The teachers of a training, with a place for their answers where some of them would be asked twice."""
    if ensemble is None:
        yield None
        return
    wants = wants_of(stages)
    asking = Teaching(ensemble, train, wants, profile=open_run.trainer.profile)
    root = cache_folder(_FOLDER)
    per_epoch = -(-len(train) // settled(open_run.prepared.plan.recipe.training.batch_size))
    steps = sum(stage.plan.steps for stage in stages if wants_of([stage]))
    if root is not None and open_run.cache_limit > 0 and steps > per_epoch:
        teachers = [teacher for teacher in ensemble.members() if teacher.name in wants]
        processes = open_run.trainer.accelerator.num_processes
        try:
            stores = stores_for(
                teachers,
                train,
                wants,
                len(open_run.prepared.plan.task.labels),
                root,
                open_run.cache_limit,
                processes,
            )
        except OSError as error:
            open_run.events.emit(Note(f"{root}: {error.strerror}: the teachers answer in every epoch", warning=True))
        else:
            asking = Teaching(ensemble, train, wants, stores.by_teacher, open_run.trainer.profile)
            open_run.events.emit(Note(_about(stores, root)))
    try:
        yield asking
    finally:
        asking.close()


def _about(stores: Stores, root: Path) -> str:
    """What is kept of the teachers, and where."""
    names = " and ".join(stores.by_teacher)
    if stores.room >= stores.needed:
        return f"{names}: answers are kept, {_gigabytes(stores.needed)} in {root} (--cache-size)"
    return (
        f"{names}: {stores.room / stores.needed:.0%} of the answers are kept, {_gigabytes(stores.room)} in {root}; "
        "the others are asked for in every epoch (a larger --cache-size, or more room on the disk)"
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
