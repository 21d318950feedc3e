"""What spares a training work without changing its result: teachers that answer once, embeddings of the tokens that occur."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from kdcli.caching import cache_folder
from kdcli.data.batching import Samples
from kdcli.engine.events import Note
from kdcli.engine.phase import Asking, Phase, Stage
from kdcli.engine.teaching import Teaching, stores_for, wants_of
from kdcli.jobs.opening import OpenRun
from kdcli.models.teachers import Ensemble
from kdcli.models.vocabulary import trimmed

CACHE_LIMIT = 32 * 2**30
_ANSWERS = "answers"


def run_trimmed(open_run: OpenRun, phase: Phase, models: Mapping[str, nn.Module]) -> None:
    """Train a phase with embeddings of those tokens alone that occur in it.

    Adafactor scales its steps by the whole matrix, so that it is given the whole.

    Args:
        open_run: the run.
        phase: what is trained.
        models: the models that learn, by the names of their views.
    """
    if open_run.prepared.plan.recipe.training.optimizer.name == "adafactor":
        open_run.trainer.run(phase)
        return
    views = {name: [samples.views[name] for samples in (phase.train, phase.dev)] for name in models}
    with trimmed(models, views):
        open_run.trainer.run(phase)


@contextmanager
def teaching(open_run: OpenRun, ensemble: Ensemble | None, train: Samples, stages: Sequence[Stage]) -> Iterator[Asking | None]:
    """The teachers of a training, with a place for their answers where some of them would be asked twice."""
    if ensemble is None:
        yield None
        return
    wants = wants_of(stages)
    asking = Teaching(ensemble, train, wants, profile=open_run.trainer.profile)
    root = cache_folder(_ANSWERS)
    per_epoch = -(-len(train) // open_run.prepared.plan.recipe.training.batch_size)
    steps = sum(stage.steps for stage in stages if wants_of([stage]))
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
            asking = Teaching(ensemble, train, wants, stores, open_run.trainer.profile)
    try:
        yield asking
    finally:
        asking.close()
