"""Modules by names that a user chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn


class NamedModules(nn.Module):
    """As ``nn.ModuleDict``, with any names: none of them can be taken for an attribute such as ``items`` or ``training``.

    A state dict has them as they are; so they hold no dot.
    """

    def __init__(self, modules: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        for name, module in (modules or {}).items():
            self[name] = module

    def __getitem__(self, name: str) -> nn.Module:
        module = self._modules[name]
        assert module is not None
        return module

    def __setitem__(self, name: str, module: nn.Module) -> None:
        if not name or "." in name:
            raise ValueError(f"{name!r} cannot be the name of a module")
        self._modules[name] = module

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def items(self) -> list[tuple[str, nn.Module]]:
        """Names and modules, in order."""
        return [(name, self[name]) for name in self]

    def values(self) -> list[nn.Module]:
        """The modules, in order."""
        return [self[name] for name in self]
