"""Modules by names that a user chooses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kdcli.models.named_modules import NamedModules

NAMES = [name for name in dir(nn.ModuleDict()) if not name.startswith("__")] + ["student", "0", "-", "été"]


def test_any_name_is_only_a_name() -> None:
    modules = NamedModules({name: nn.Linear(row % 3 + 1, 2) for row, name in enumerate(NAMES)})
    assert list(modules) == NAMES
    assert all(name in modules for name in NAMES)
    assert modules.training is True
    assert len(modules.state_dict()) == 2 * len(NAMES)
    again = NamedModules({name: nn.Linear(row % 3 + 1, 2) for row, name in enumerate(NAMES)})
    again.load_state_dict(modules.state_dict())
    assert all(torch.equal(again[name].weight, modules[name].weight) for name in NAMES)  # type: ignore[arg-type]
    assert list(copy.deepcopy(modules).to(torch.float64)) == NAMES
    assert len(list(modules.parameters())) == 2 * len(NAMES)


@pytest.mark.parametrize("name", ["", "a.b"])
def test_a_name_that_a_state_dict_could_not_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        NamedModules({name: nn.Identity()})
