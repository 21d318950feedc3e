"""Who runs against whom in the benchmark of an export: teachers and student in torch, the files in ONNX Runtime."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.engine.events import Events, WorkStarted
from kdcli.export.gate import Texts
from kdcli.export.latency import Contestant, Latency, LatencyLimit, grid, measure
from kdcli.export.machine import has_bf16
from kdcli.export.sessions import bound_call

Inputs = dict[str, NDArray[np.int64]]
Ask = Callable[[Inputs], Any]
_OWN_BATCHES = 16


@dataclass
class Runner:
    """A model that takes part.

    Attributes:
        model, engine: names for tables.
        texts: the split as its tokenizer sees it.
        prepare: makes a function that answers for inputs, which returns when the answer is there.
    """

    model: str
    engine: str
    texts: Texts
    prepare: Callable[[Inputs], Callable[[], Any]]


def file_runner(precision: str, session: Any, texts: Texts, device: str) -> Runner:
    """A file in ONNX Runtime."""
    return Runner("student", f"onnx {precision}", texts, lambda inputs: bound_call(session, inputs, device))


def torch_runners(
    name: str, module: Any, encoder: Any, ask: Callable[[Any], Any], texts: Texts, full: bool, device: str
) -> list[Runner]:
    """A model in torch: as it is, and in full form with eager attention, in bf16 where the processor has it, and compiled.

    Args:
        name: for tables.
        module: what is called.
        encoder: where the attention is chosen; a part of ``module`` or ``module`` itself.
        ask: module → function of inputs, as keywords.
        texts: the split as its tokenizer sees it.
        full: all forms.
        device: where it runs; ``module`` is moved there.
    """
    module.to(device)
    made = [Runner(name, "torch", texts, _torch_call(ask(module), device))]
    if not full:
        return made
    eager = copy.deepcopy(module)
    place = eager if encoder is module else _counterpart(module, encoder, eager)
    place.set_attn_implementation("eager")
    made.append(Runner(name, "torch eager", texts, _torch_call(ask(eager), device)))
    if has_bf16() or device == "cuda":
        half = copy.deepcopy(module).to(torch.bfloat16)
        made.append(Runner(name, "torch bf16", texts, _torch_call(ask(half), device)))
    compiled = torch.compile(copy.deepcopy(module), dynamic=True)
    made.append(Runner(name, "torch compiled", texts, _torch_call(ask(compiled), device)))
    return made


def _counterpart(module: Any, part: Any, copied: Any) -> Any:
    """The part of a copy that stands where ``part`` stands in the original."""
    name = next(name for name, candidate in module.named_modules() if candidate is part)
    return copied.get_submodule(name)


def _torch_call(ask: Ask, device: str) -> Callable[[Inputs], Callable[[], Any]]:
    def prepare(inputs: Inputs) -> Callable[[], Any]:
        tensors: Any = {name: torch.from_numpy(value).to(device) for name, value in inputs.items()}

        def call() -> None:
            with torch.inference_mode():
                ask(tensors)
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    return prepare


def run_benchmark(
    runners: Sequence[Runner], full: bool, limit: LatencyLimit | None, longest: int, events: Events
) -> list[Latency]:
    """Time all models: in short form one short text and 32 texts up to the longest; in full form a grid besides, and batches
    as they come from the split; and at the shape of a limit.

    All models read the same texts, each with its own tokenizer, at the shape that the student's has given it.
    """
    own = runners[-1].texts
    shapes = own.shapes()
    found = []
    for rows in (shapes[0], shapes[-1]):
        found += _timed(runners, partial(_real, batches=[rows]), _shape(own.batch(rows)), events)
    exact = list(grid(longest)) if full else []
    if limit is not None and (limit.batch, limit.length) not in exact:
        exact.append((limit.batch, limit.length))
    for shape in exact:
        found += _timed(runners, partial(_filled, shape=shape), shape, events)
    for batch in (1, 32) if full else ():
        drawn = np.random.default_rng(0).integers(0, len(own.rows), (_OWN_BATCHES, batch))
        mean = round(float(np.mean([own.batch(rows)["input_ids"].shape[1] for rows in drawn])))
        found += _timed(runners, partial(_real, batches=drawn), (batch, mean), events)
    return found


def _real(runner: Runner, batches: Iterable[Sequence[int] | NDArray[np.int64]]) -> list[Inputs]:
    return [runner.texts.batch(rows) for rows in batches]


def _filled(runner: Runner, shape: tuple[int, int]) -> list[Inputs]:
    return [runner.texts.filled(*shape)]


def _shape(inputs: Mapping[str, NDArray[np.int64]]) -> tuple[int, int]:
    batch, length = inputs["input_ids"].shape
    return batch, length


def _timed(
    runners: Sequence[Runner], inputs_of: Callable[[Runner], Sequence[Inputs]], shape: tuple[int, int], events: Events
) -> list[Latency]:
    events.emit(WorkStarted(f"timing at batch {shape[0]}, length {shape[1]}"))
    contestants = []
    for runner in runners:
        calls = [runner.prepare(inputs) for inputs in inputs_of(runner)]
        contestants.append(Contestant(runner.model, runner.engine, _in_turns(calls)))
    return measure(contestants, *shape)


def _in_turns(calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
    coming = itertools.cycle(calls)
    return lambda: next(coming)()
