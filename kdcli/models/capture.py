"""The insides of asked layers, taken while the model runs as it always does.

Hidden states come from hooks. What is inside the attention comes from an attention function of our own, registered with
transformers: in the asked layers it computes the probabilities itself, in all others it is SDPA. Architectures that compute
their attention without that interface (MPNet, DeBERTa-v2) are read at the inputs of their dropout and the outputs of their
projections.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdcli.errors import Problem, RequestError
from kdcli.models.output import KINDS, Wanted
from kdcli.models.padding import is_given_each_length_by_itself

_ATTENTION = "kdcli"
_EAGER_PROJECTIONS = {"deberta-v2": ("query_proj", "key_proj", "value_proj"), "mpnet": ("q", "k", "v")}
_UNREADABLE = frozenset(
    {"flaubert", "fnet", "funnel", "nystromformer", "squeezebert", "xlm", "xlnet"}
)  # blocks of another kind, states of another shape, or such that depend on padding
_SMALLEST = 1e-12


def serves(config: Any) -> frozenset[str]:
    """The kinds of insides (:class:`Wanted`) that an architecture can show; from its configuration alone."""
    from transformers import AutoModel

    if config.model_type in _UNREADABLE:
        return frozenset()
    if config.model_type in _EAGER_PROJECTIONS:
        return frozenset(KINDS) - {"scores"}
    implementation = AutoModel._model_mapping.get(type(config), None)
    if getattr(implementation, "_supports_attention_backend", False):
        return frozenset(KINDS)
    return frozenset({"hidden"})


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


Found = dict[str, dict[int, Tensor]]


class _Recorder:
    """What one forward pass shows; it counts the blocks in the order in which they run, shared ones once per use."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.found: Found = {kind: {} for kind in KINDS}
        self.ran = 0

    @property
    def layer(self) -> int:
        """The layer that is running."""
        return self.ran + 1

    def restart(self, _: nn.Module, __: Any) -> None:
        self.ran = 0
        for tensors in self.found.values():
            tensors.clear()

    def before_first(self, _: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if self.ran == 0 and 0 in self.wanted.hidden:
            self.found["hidden"][0] = arguments[0] if arguments else keywords["hidden_states"]

    def after_block(self, _: nn.Module, __: Any, output: Any) -> None:
        self.ran += 1
        if self.ran in self.wanted.hidden:
            self.found["hidden"][self.ran] = output if isinstance(output, Tensor) else output[0]

    def note(self, kind: str, tensor: Tensor) -> None:
        """Keep a tensor of the running layer, if it is asked for and not there yet."""
        if self.wants(kind):
            self.found[kind].setdefault(self.layer, tensor)

    def wants(self, kind: str) -> bool:
        return self.layer in getattr(self.wanted, kind)


_reading: dict[nn.Module, _Recorder] = {}  # by module inside of a block, so that models that run in turns do not mix up


@contextmanager
def captured(model: nn.Module, wanted: Wanted) -> Iterator[Found]:
    """Collect the asked insides from every forward pass within the ``with`` block: kind → layer → tensor.

    Hidden layer 0 is what the first block is given, layer j what the j-th block returns.

    Raises:
        RequestError: the architecture cannot show what is asked for (the plan asks :func:`serves` before).
    """
    recorder = _Recorder(wanted)
    if not wanted:
        yield recorder.found
        return
    config: Any = model.config
    if is_given_each_length_by_itself(model):
        why = "depends on the padding of a batch, so that its internal representations cannot be compared; its outputs can"
        raise RequestError(Problem(config.model_type, why, remedy="--recipe soft-labels"))
    missing = sorted(kind for kind in KINDS if getattr(wanted, kind) and kind not in serves(config))
    if missing:
        raise RequestError(Problem(config.model_type, f"cannot show its {', '.join(missing)}"))
    stack = blocks(model)
    handles = [model.register_forward_pre_hook(recorder.restart)]
    handles += [stack[0].register_forward_pre_hook(recorder.before_first, with_kwargs=True)]
    handles += [block.register_forward_hook(recorder.after_block) for block in stack]
    try:
        if wanted.inside_attention:
            with _reading_attention(model, stack, recorder):
                yield recorder.found
        else:
            yield recorder.found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _reading_attention(model: nn.Module, stack: nn.ModuleList, recorder: _Recorder) -> Iterator[None]:
    config: Any = model.config
    if config.model_type in _EAGER_PROJECTIONS:
        handles = [handle for block in stack for handle in _eager_hooks(block, config, recorder)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        return
    _register()
    before = config._attn_implementation
    config._attn_implementation = _ATTENTION
    mine = [module for block in stack for module in block.modules()]
    outer = {module: _reading[module] for module in mine if module in _reading}
    _reading.update(dict.fromkeys(mine, recorder))
    try:
        yield
    finally:
        for module in mine:
            _reading.pop(module, None)
        _reading.update(outer)
        config._attn_implementation = before


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_ATTENTION, _attention)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of one layer: SDPA, unless the probabilities or scores of this layer are asked for.

    Shapes: query, key, value [B, A, L, D/A] → [B, L, A, D/A]; keys and values may have fewer heads, which are repeated.
    """
    recorder = _reading.get(module)
    if recorder is None or not (recorder.wants("attention") or recorder.wants("scores")):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        _note_projections(recorder, query, key, value)
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **more
        )
        return result
    if key.shape[1] != query.shape[1]:
        key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
    _note_projections(recorder, query, key, value)
    if attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(-1, -2)).float()  # [B, A, L, L]
    recorder.note("scores", scores)
    if attention_mask is not None:
        lowest = torch.finfo(scores.dtype).min
        if attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, lowest)
        else:
            scores = (scores + attention_mask).clamp(min=lowest)
    logs = functional.log_softmax(scores, dim=-1)
    recorder.note("attention", logs)
    weights = functional.dropout(logs.exp(), dropout, training=dropout > 0)
    mixed = torch.matmul(weights.to(value.dtype), value)  # [B, A, L, D/A]
    return mixed.transpose(1, 2).contiguous(), None


def _note_projections(recorder: _Recorder | None, query: Tensor, key: Tensor, value: Tensor) -> None:
    for kind, tensor in (("queries", query), ("keys", key), ("values", value)):
        if recorder is not None:
            recorder.note(kind, tensor)


def _eager_hooks(block: nn.Module, config: Any, recorder: _Recorder) -> Iterator[Any]:
    """Hooks into an attention that is computed without transformers' interface."""
    names = _EAGER_PROJECTIONS[config.model_type]
    attention = next(module for module in block.modules() if all(hasattr(module, name) for name in (*names, "dropout")))
    heads = config.num_attention_heads

    def projected(kind: str) -> Any:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            recorder.note(kind, output.view(*output.shape[:-1], heads, -1).transpose(1, 2))

        return note

    def probabilities(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if recorder.wants("attention"):
            recorder.note("attention", arguments[0].float().clamp(min=_SMALLEST).log())

    for kind, name in zip(("queries", "keys", "values"), names, strict=True):
        yield getattr(attention, name).register_forward_hook(projected(kind))
    dropout: nn.Module = attention.dropout  # type: ignore[assignment]
    yield dropout.register_forward_pre_hook(probabilities)
