"""Hidden states of the asked layers, taken by hooks while the model runs as it always does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kdcli.errors import Problem, RequestError


def blocks(model: nn.Module) -> nn.ModuleList:
    """The list of transformer blocks of an encoder (of its groups, where layers share weights as in ALBERT).

    Raises:
        RequestError: the architecture keeps its blocks in a way that is not known.
    """
    config: Any = model.config
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    for size in (config.num_hidden_layers, getattr(config, "num_hidden_groups", None)):
        for candidate in lists:
            if size is not None and len(candidate) == size:
                return candidate
    raise RequestError(Problem(config.model_type, "its transformer blocks were not found, so its hidden states cannot be used"))


@contextmanager
def hidden_states(model: nn.Module, layers: Iterable[int]) -> Iterator[dict[int, Tensor]]:
    """Collect hidden states [B, L, D] of ``layers`` from every forward pass inside the block.

    Layer 0 is what the first block is given, layer j what the j-th block returns. Blocks are counted in the order in which
    they run, so that shared blocks count once per use.
    """
    wanted = frozenset(layers)
    found: dict[int, Tensor] = {}
    if not wanted:
        yield found
        return
    ran = 0

    def before(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if ran == 0 and 0 in wanted:
            found[0] = arguments[0] if arguments else keywords["hidden_states"]

    def after(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal ran
        ran += 1
        if ran in wanted:
            found[ran] = output if isinstance(output, Tensor) else output[0]

    def restart(_: nn.Module, __: Any) -> None:
        nonlocal ran
        ran = 0
        found.clear()

    stack = blocks(model)
    handles = [model.register_forward_pre_hook(restart)]
    handles += [stack[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(after) for block in stack]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
