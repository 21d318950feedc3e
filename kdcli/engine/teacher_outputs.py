"""Teachers that answer once: what they said of a sample is kept and not asked again.

With fixed weights and inputs a teacher says the same of a sample in every epoch. What it says is rounded the same way whether
it was kept or not, so that a training does not depend on what the disk has room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.batching import Batch, Samples
from kdcli.data.tokens import TokenView
from kdcli.engine.output_store import ENTRY_BYTES, VERSION, Allowance, Layout, OutputStore, allowance, keys_of, rounded
from kdcli.engine.profile import Profile
from kdcli.engine.stages import Stage
from kdcli.errors import RunFailedError
from kdcli.models.finite_checks import listed
from kdcli.models.output import Output, Wanted
from kdcli.models.student import STUDENT
from kdcli.models.teachers import Ensemble, Teacher


class Teaching:
    """The teachers of a phase, as the loop asks them.

    Args:
        ensemble: the teachers.
        samples: what they are asked about.
        wants: teacher → all that the phase will ever ask of it.
        stores: teacher → where its answers are kept; teachers without a store are asked every time.
        profile: where the time is noted.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        samples: Samples,
        wants: Mapping[str, Wanted],
        stores: Mapping[str, OutputStore] | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.ensemble, self.samples, self.wants = ensemble, samples, wants
        self.stores = dict(stores or {})
        self.profile = profile or Profile()
        by_view: dict[int, list[bytes]] = {}
        self._keys: dict[str, list[bytes]] = {}
        for name in self.stores:
            view = samples.views[name]
            if id(view) not in by_view:
                by_view[id(view)] = keys_of(view.ids, view.type_ids, view.bounds)
            self._keys[name] = by_view[id(view)]

    def fetch(self, batch: Batch) -> None:
        """Put the answers that are kept into a batch; called ahead of time, beside the training."""
        for name in self.stores:
            output = self._kept(name, batch)
            if output is not None:
                batch.outputs[name] = output

    def refresh(self) -> None:
        """Learn what the other processes of the run have kept; called at the begin of an epoch."""
        for store in self.stores.values():
            store.refresh()

    def __call__(self, batch: Batch, needs: Mapping[str, Wanted]) -> dict[str, Output]:
        """What the teachers that ``needs`` names say of a batch; perhaps more of their insides than was asked."""
        outputs: dict[str, Output] = {}
        for name, wanted in needs.items():
            output = batch.outputs.get(name)
            outputs[name] = output if isinstance(output, Output) else self._ask(name, batch, wanted)
        return outputs

    def close(self) -> None:
        """Close the files."""
        for store in self.stores.values():
            store.close()

    def _ask(self, name: str, batch: Batch, wanted: Wanted) -> Output:
        store = self.stores.get(name)
        kept = self._kept(name, batch) if store is not None else None
        if kept is not None:
            return kept.to(batch.rows.device)
        keeps = store is not None and store.takes
        if keeps:
            wanted = wanted | self.wants[name]
        with self.profile.section("teachers"):
            with torch.inference_mode():
                said: Output = self.ensemble.teachers[name](batch.views[name], wanted)
            output = said.mapped(rounded)
        if keeps or output.logits.device.type != "cuda":  # there it would cost a wait, and the loss will tell
            self._refuse_not_finite(name, batch, output.logits)
        if store is not None and keeps:
            with self.profile.section("cache"):
                return self._keep(name, store, batch, output)
        return output

    def _refuse_not_finite(self, name: str, batch: Batch, logits: Tensor) -> None:
        """Stop where a teacher's outputs say nothing, before a student learns from them or they are kept."""
        broken = [int(row) for row, fine in zip(batch.numbers, logits.isfinite().all(-1).tolist(), strict=True) if not fine]
        if broken:
            dtype = next((str(each.dtype).removeprefix("torch.") for each in self.ensemble.parameters()), "")
            raise RunFailedError(
                f"teacher {name}: its outputs are not finite for {len(broken)} of {len(logits)} training samples in a batch "
                f"(rows {listed(broken)}, computed in {dtype}). Use --precision fp32, or a teacher whose outputs are finite"
            )

    def _keep(self, name: str, store: OutputStore, batch: Batch, output: Output) -> Output:
        """Keep an answer; returns it as it is kept, which for a text that was asked about before is what was said then."""
        keys, lengths = self._keys_at(name, batch), self._lengths(name, batch)
        seen_before = len(set(keys)) < len(keys) or any(key in store for key in keys)
        store.write(keys, lengths, output.to(torch.device("cpu")))
        kept = self._kept(name, batch) if seen_before else None
        return output if kept is None else kept.to(batch.rows.device)

    def _kept(self, name: str, batch: Batch) -> Output | None:
        store, keys = self.stores[name], self._keys_at(name, batch)
        kept = store.read(keys, self._lengths(name, batch)) if all(key in store for key in keys) else None
        return kept if kept is not None and bool(kept.logits.isfinite().all()) else None

    def _keys_at(self, name: str, batch: Batch) -> list[bytes]:
        keys = self._keys[name]
        return [keys[number] for number in batch.numbers]

    def _lengths(self, name: str, batch: Batch) -> NDArray[np.int64]:
        return self.samples.views[name].lengths[batch.numbers]


def wants_of(stages: Iterable[Stage]) -> dict[str, Wanted]:
    """Teacher → all that the terms of some stages may ever ask of it."""
    wants: dict[str, list[Wanted]] = {}
    for stage in stages:
        for term in stage.terms:
            for name, wanted in term.may_need().items():
                if name != STUDENT:
                    wants.setdefault(name, []).append(wanted)
    return {name: reduce(Wanted.__or__, wanted) for name, wanted in wants.items()}


@dataclass(frozen=True)
class Stores:
    """Where the answers of a phase are kept.

    Attributes:
        by_teacher: teacher → its store.
        needed: bytes of all answers, each text once.
        room: bytes that may be had for them, with those that are there already.
    """

    by_teacher: dict[str, OutputStore]
    needed: int
    room: int


def stores_for(
    teachers: Sequence[Teacher], samples: Samples, wants: Mapping[str, Wanted], classes: int, root: Path, limit: int, parts: int
) -> Stores:
    """A store for every teacher, among them those that earlier runs have filled.

    Args:
        teachers: who is asked.
        samples: about what.
        wants: teacher → all that is ever asked of it.
        classes: C.
        root: the folder of all stores.
        limit: bytes that all of them may have together; what does not fit is asked again.
        parts: processes that share what may still be written.

    Raises:
        OSError: the folder cannot be written.
    """
    share = Allowance(0)
    stores = {}
    needed = missing = 0
    for teacher in teachers:
        config: Any = teacher.model.config
        layout = Layout(classes, int(config.hidden_size), int(config.num_attention_heads), wants[teacher.name])
        about = f"{VERSION}|{transformers.__version__}|{layout}|{teacher.fingerprint()}"
        folder = root / blake2b(about.encode(), digest_size=12).hexdigest()
        store = stores[teacher.name] = OutputStore(folder, layout, share, {"teacher": teacher.name})
        sizes = _sizes(store, samples.views[teacher.name])
        needed += sum(sizes.values())
        missing += sum(size for key, size in sizes.items() if key not in store)
    room = allowance(root, limit, missing, [store.folder for store in stores.values()]).left
    share.left = min(missing, room // parts)
    return Stores(stores, needed, needed - missing + min(missing, room))


def _sizes(store: OutputStore, view: TokenView) -> dict[bytes, int]:
    """For each different text of a split, the bytes that its answer takes."""
    sizes = store.layout.sizes(view.lengths) + ENTRY_BYTES
    return dict(zip(keys_of(view.ids, view.type_ids, view.bounds), sizes.tolist(), strict=True))
