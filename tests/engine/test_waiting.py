"""What would make the program wait for a GPU in the middle of a training, looked for without one.

The program hands work to a GPU and goes on. It has to wait where it asks for a number of a tensor, for a tensor whose size
depends on such numbers, and where it copies something there that is not in pinned memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import kdcli
from kdcli.data.batching import AlignedRuns, Batch
from kdcli.engine import guards, loss_log
from kdcli.engine.checkpoint import Position
from kdcli.engine.loop import Trainer, step
from kdcli.engine.objective import Objective
from kdcli.engine.prefetch import Delivery
from kdcli.engine.stage_state import StageRun
from kdcli.engine.stages import Phase
from kdcli.losses.projection import Projections
from kdcli.losses.relational import RelationalTerm
from kdcli.losses.term import Term
from kdcli.models.output import Output
from tests.engine.keeping import ENDLESS, Desk
from tests.engine.phases import Material, Terms, all_terms, every_loss, trainer
from tests.losses.cases import ALL, HALFWAY, Make

PACKAGE = Path(kdcli.__file__).parent
GPU = torch.device("meta")  # tensors without contents stand for those of a GPU: to ask for their numbers is an error
_ATEN = torch.ops.aten
_NUMBERS = (_ATEN._local_scalar_dense.default, _ATEN.equal.default)
_SIZES = (_ATEN.nonzero.default, _ATEN.masked_select.default, _ATEN._unique2.default, _ATEN.unique_dim.default)
_INDEXING = (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default)


def place(depth: int = 2) -> str | None:
    """File and line of the nearest code that is neither torch's nor this file's, if it is kdcli's."""
    frame: Any = sys._getframe(depth)
    while frame is not None and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    if frame is None or PACKAGE not in Path(frame.f_code.co_filename).parents:
        return None
    return f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{frame.f_lineno}"


class Asks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where kdcli asks for numbers of a tensor, or for a tensor whose size depends on them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func in _INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if (func in _NUMBERS or func in _SIZES or masked) and (where := place()) is not None:
            self.places.append(f"{where} {func}")
        return func(*args, **(kwargs or {}))


class Sends(TorchFunctionMode):
    """Notes where kdcli copies something to the GPU and waits until it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        more = kwargs or {}
        made = func in (torch.tensor, torch.as_tensor) and more.get("device") == GPU
        if (made or _is_moved(func, args, more) or _is_indexed(func, args)) and (where := place()) is not None:
            self.places.append(f"{where} {func.__name__}")
        return func(*args, **more)


def _is_moved(func: Any, args: Any, more: Mapping[str, Any]) -> bool:
    if func not in (Tensor.to, Tensor.copy_) or more.get("non_blocking"):
        return False
    if func is Tensor.copy_:
        return bool(args[0].device == GPU and args[1].device != GPU)
    return args[0].device != GPU and GPU in (*args[1:], more.get("device"))


def _is_indexed(func: Any, args: Any) -> bool:
    if func not in (Tensor.__getitem__, Tensor.__setitem__) or args[0].device != GPU:
        return False
    indices = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(index, list) or (isinstance(index, Tensor) and index.device != GPU) for index in indices)


def look(mode: Asks | Sends, tensor: Tensor, source: str) -> list[str]:
    """What is noted of some code of kdcli's."""
    space: dict[str, Any] = {"torch": torch}
    exec(compile(f"def run(tensor):\n    return {source}", str(PACKAGE / "imagined.py"), "exec"), space)
    with mode:
        space["run"](tensor)
    return mode.places


@pytest.mark.parametrize(
    "source", ["tensor.sum().item()", "bool(tensor.sum() > 0)", "float(tensor[0, 0])", "tensor[tensor > 0]", "tensor.nonzero()"]
)
def test_asking_for_numbers_is_noted_and_an_error_where_there_are_none(source: str) -> None:
    assert look(Asks(), torch.ones(2, 3), source)[0].startswith("imagined.py:2 ")
    with pytest.raises((RuntimeError, NotImplementedError)):
        look(Asks(), torch.ones(2, 3, device=GPU), source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.tensor(1.0, device=tensor.device)",
        "torch.full((2,), 1.0).to(tensor.device)",
        "tensor[[0, 1]]",
        "tensor[:, torch.arange(2)]",
        "tensor.copy_(torch.ones(2, 3))",
    ],
)
def test_sending_is_noted(source: str) -> None:
    assert len(look(Sends(), torch.ones(2, 3, device=GPU), source)) == 1
    assert look(Sends(), torch.ones(2, 3), source) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.full((2,), 1.0, device=tensor.device)",
        "tensor.masked_fill(tensor > 0, 0.0).sum()",
        "tensor.copy_(torch.ones(2, 3), non_blocking=True)",
        "torch.ones(2, 3).to(tensor.device, non_blocking=True)",
        "tensor[:1, 2:]",
    ],
)
def test_what_needs_no_waiting_is_not_noted(source: str) -> None:
    assert look(Asks(), torch.ones(2, 3), source) == look(Sends(), torch.ones(2, 3, device=GPU), source) == []


# Losses


def there(batch: Batch, outputs: Mapping[str, Output]) -> tuple[Batch, dict[str, Output]]:
    """Samples and answers as they are on a GPU."""
    moved = Batch(
        batch.rows.to(GPU),
        None if batch.targets is None else batch.targets.to(GPU),
        {name: {key: tensor.to(GPU) for key, tensor in view.items()} for name, view in batch.views.items()},
        {name: AlignedRuns(run.first.to(GPU), run.last.to(GPU), run.identity) for name, run in batch.runs.items()},
        {name: logits.to(GPU) for name, logits in batch.out_of_fold.items()},
        batch.numbers,
    )
    return moved, {name: answer.mapped(lambda _, tensor: tensor.to(GPU)) for name, answer in outputs.items()}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ALL.items()])
def test_no_loss_makes_the_program_wait(make: Make) -> None:
    """Neither for its value nor for its count."""
    case = make()
    case.bank.to(GPU)
    objective = Objective(nn.Identity(), [case.term]).to(GPU)
    batch, outputs = there(*case.samples.cut())
    with Sends() as sends:
        objective.begin(HALFWAY)
        counts = objective.counts(batch)
        values = case.term(batch, outputs)
    assert counts.device == values.device == GPU
    assert sends.places == []


# Steps


@pytest.fixture
def desk(material: Material, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(material, tmp_path)
    yield made
    made.close()


def at_work(running: Trainer, phase: Phase, position: Position) -> StageRun:
    """The first stage of a phase, as a trainer trains it."""
    folder = running.checkpoints / phase.name
    return StageRun(
        accelerator=running.accelerator,
        settings=running.settings,
        events=running.events,
        profile=running.profile,
        folder=folder,
        phase=phase,
        row=0,
        position=position,
    )


def one_by_one(bank: Projections) -> list[Term]:
    return [term for term in every_loss(bank) if not isinstance(term, RelationalTerm)]


@pytest.mark.parametrize("terms", [all_terms, one_by_one])
@pytest.mark.parametrize("kept", [False, True])
def test_a_step_that_is_not_logged_asks_for_no_number(
    terms: Terms, kept: bool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With answers from the teachers or from the disk; a gradient that is not finite is looked for on the CPU alone."""
    made = desk.phase(terms, ENDLESS if kept else None, steps=100)
    running = trainer(desk.folder, evaluations_per_epoch=1, accumulation=2)
    stage = at_work(running, made, Position())
    stage.model.train()
    monkeypatch.setattr(guards, "refuse_gradient", lambda *_: None)
    batches = [made.train.batch(rows) for rows in ([0, 3, 5], [7, 8])]

    def asked_at(position: int) -> list[str]:
        stage.position.step = position
        if kept and position > 0:
            for batch in batches:
                desk.opened[0].fetch(batch)
                assert set(batch.outputs) == {"bert", "roberta"}
        asks = Asks()
        with asks:
            step(stage, Delivery(batches, True, 5))
        return asks.places

    asked_at(0)
    assert not stage.logs_now
    assert asked_at(2) == []
    assert asked_at(4) == []
    loss_log.write(stage)


def test_a_step_that_is_logged_may_ask(desk: Desk) -> None:
    """So that the test above looks where something can be found."""
    made = desk.phase(all_terms, steps=100)
    stage = at_work(trainer(desk.folder), made, Position(step=1))
    assert stage.logs_now
    with Asks() as asks:
        step(stage, Delivery([made.train.batch([0, 3])], True, 2))
        stage.steps_summed = torch.ones(())
        loss_log.write(stage)
    assert any(place.startswith("engine/loss_log.py") for place in asks.places)
