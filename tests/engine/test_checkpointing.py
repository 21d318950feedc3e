"""The state on disk: whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from kdcli.engine import checkpoint
from kdcli.engine.checkpoint import Position, State
from kdcli.errors import RunFailedError


def state(step: int, **changes: Any) -> State:
    parameter = torch.nn.Parameter(torch.full((3,), float(step)))
    optimizer = torch.optim.AdamW([parameter])
    parameter.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    content: dict[str, Any] = {
        "position": Position(stage=1, step=step, best_score=0.25, best_step=2),
        "objective": {"weight": parameter.detach()},
        "optimizer": optimizer.state_dict(),
        "scaler": None,
        "random": [{"cpu": torch.get_rng_state()}],
    }
    return State(**content | changes)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = state(7)
    checkpoint.save(tmp_path / "phase", saved)
    loaded = checkpoint.load(tmp_path / "phase")
    assert loaded is not None
    assert loaded.position == saved.position
    assert loaded.scaler is None
    assert torch.equal(loaded.objective["weight"], saved.objective["weight"])
    assert torch.equal(loaded.random[0]["cpu"], saved.random[0]["cpu"])
    moments, expected = loaded.optimizer["state"][0], saved.optimizer["state"][0]
    assert all(torch.equal(moments[name], expected[name]) for name in expected)
    assert loaded.optimizer["param_groups"] == saved.optimizer["param_groups"]


def test_where_nothing_was_saved_there_is_nothing(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "phase") is None


def test_the_best_weights_stay_until_there_are_better_ones(tmp_path: Path) -> None:
    found = []
    for step, best in enumerate([None, 1.0, None, None, 4.0, None]):
        checkpoint.save(tmp_path / "phase", state(step), None if best is None else {"weight": torch.full((2,), best)})
        weights = checkpoint.best_weights(tmp_path / "phase")
        found.append(None if weights is None else weights["weight"].tolist())
    assert found == [None, [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [4.0, 4.0], [4.0, 4.0]]


def test_the_best_weights_stay_where_files_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    checkpoint.save(tmp_path / "phase", state(1), {"weight": torch.ones(2)})
    checkpoint.save(tmp_path / "phase", state(2))
    weights = checkpoint.best_weights(tmp_path / "phase")
    assert weights is not None
    assert torch.equal(weights["weight"], torch.ones(2))


def test_broken_best_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "phase", state(1), {"weight": torch.ones(2)})
    (tmp_path / "phase" / "best.pt").write_bytes(b"no weights" * 50)
    with pytest.raises(RunFailedError, match=f"broken.*remove {tmp_path / 'phase'}"):
        checkpoint.best_weights(tmp_path / "phase")


def test_a_later_state_replaces_the_one_before_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / "phase", state(step))
    loaded = checkpoint.load(tmp_path / "phase")
    assert loaded is not None
    assert loaded.position.step == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["phase"]


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "phase", state(1))
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(tmp_path / "phase", state(2, optimizer={"state": lambda: None}))
    loaded = checkpoint.load(tmp_path / "phase")
    assert loaded is not None
    assert loaded.position.step == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["phase"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_broken_state_is_refused_with_the_file_and_the_way_out(damage: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "phase", state(1))
    (file,) = (tmp_path / "phase").glob("*.pt")
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"no checkpoint" * 50, "empty": b""}[damage])
    with pytest.raises(RunFailedError, match="broken") as failure:
        checkpoint.load(tmp_path / "phase")
    assert str(file) in str(failure.value)
    assert f"remove {tmp_path / 'phase'}" in str(failure.value)


@pytest.mark.parametrize("name", ["state.pt", "best.pt", "position.json", "SHA256SUMS"])
def test_no_flipped_bit_and_no_cut_is_loaded(name: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "phase", state(1), {"weight": torch.ones(2)})
    file, draw = tmp_path / "phase" / name, Random(0)
    whole = file.read_bytes()
    for round in range(130):
        content = bytearray(whole)
        if round < 110:
            content[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        else:
            del content[draw.randrange(len(whole)) :]
        file.write_bytes(content)
        with pytest.raises(RunFailedError, match=f"broken; remove {tmp_path / 'phase'}"):
            checkpoint.load(tmp_path / "phase")
        with pytest.raises(RunFailedError, match="broken"):
            checkpoint.best_weights(tmp_path / "phase")


def test_best_weights_that_were_damaged_are_not_sealed_as_right(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "phase", state(1), {"weight": torch.ones(2)})
    file = tmp_path / "phase" / "best.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    checkpoint.save(tmp_path / "phase", state(2))
    with pytest.raises(RunFailedError, match=r"best\.pt"):
        checkpoint.best_weights(tmp_path / "phase")


_KILLED_AT_EVERY_MOMENT = """
import os, sys
from pathlib import Path
import torch
from kdcli.engine import checkpoint
from kdcli.engine.checkpoint import Position, State

folder = Path(sys.argv[1])


def save(step):
    state = State(Position(step=step), {"weight": torch.full((3,), float(step))}, {}, None, [])
    checkpoint.save(folder / "phase", state, {"weight": torch.full((3,), float(step))})


def killed_at(moment):
    seen = 0

    def watch(event, arguments):
        nonlocal seen
        if event.split(".")[0] in ("open", "os", "shutil") and any(str(folder) in str(one) for one in arguments):
            seen += 1
            if seen == moment:
                os._exit(9)

    sys.addaudithook(watch)
    save(2)
    os._exit(0)


moment = 0
ended = False
while not ended:
    moment += 1
    save(1)
    child = os.fork()
    if child == 0:
        killed_at(moment)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = checkpoint.load(folder / "phase")
    print(moment, None if found is None else found.position.step)
"""


def test_a_kill_at_any_moment_leaves_the_state_before_or_the_new_one(tmp_path: Path) -> None:
    """A process saves over an older state and dies before its 1st, 2nd, 3rd, … touch of the file system."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_AT_EVERY_MOMENT, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    assert len(found) > 5
    assert found[str(len(found))] == "2"
    assert set(found.values()) == {"1", "2"}, found
