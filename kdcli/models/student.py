"""The student: its size, its first weights, and its life as an ordinary checkpoint.

The student is always its architecture's own ``…ForSequenceClassification`` model. Whatever pooling the teachers share, the
student answers through the head that transformers gives that architecture, so that ``transformers.pipeline`` and
``AutoModelForSequenceClassification`` load it where kdcli is not installed and say exactly what ``kdcli evaluate`` says.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.errors import Problem, RequestError
from kdcli.models.capture import blocks, captured
from kdcli.models.configuration import SINGLE_LABEL, longest_input
from kdcli.models.finite_checks import refuse_weights_not_finite
from kdcli.models.output import Output, Wanted
from kdcli.models.padding import leans_on_padding
from kdcli.models.weight_checks import is_plain
from kdcli.models.weight_loading import load_classifier, load_encoder_and_gaps, quiet_transformers

STUDENT = "<student>"  # keys a student beside its teachers; no name that a user can give has a <
STUDENT_NAME = "student"
_MOST_LAYERS, _LARGEST_WIDTH = 1000, 65_536
_SIZE = re.compile(r"(\d+)L(?:-(\d+)H)?(?:-(\d+)A)?", re.IGNORECASE)
_BELOW_BLOCKS = ("embedding", "relative_attention_bias", "encoder.LayerNorm")
_LAYER_INDEX = re.compile(r"(?<![^.])(layers?)\.(\d+)\.")


@dataclass(frozen=True)
class Size:
    """A student's size; what is None is taken over from the teacher that it is cut from."""

    layers: int
    width: int | None = None
    heads: int | None = None


def parse_size(text: str, where: str = "") -> Size | None:
    """``4L``, ``4L-312H`` or ``4L-312H-12A``; None for anything else, which then is a checkpoint.

    ``where`` names in messages who asked for it.

    >>> parse_size("4L-312H-12A")
    Size(layers=4, width=312, heads=12)

    Raises:
        RequestError: a size of which a part is zero, larger than any encoder is, or the heads do not divide the width.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    layers, (width, heads) = int(match[1]), (int(part) if part else None for part in match.groups()[1:])
    too_large = layers > _MOST_LAYERS or max(width or 0, heads or 0) > _LARGEST_WIDTH
    if 0 in (layers, width, heads) or too_large or (width and heads and width % heads):
        raise RequestError(
            Problem(
                where or f"--student {text}", "is not a size that can be built", "4L, 4L-312H, or 4L-312H-12A (312 = 12 · 26)"
            )
        )
    return Size(layers, width, heads)


def student_config(
    source: Any,
    size: Size,
    chosen_layers: Sequence[int],
    labels: Sequence[str],
    problem_type: str = SINGLE_LABEL,
) -> Any:
    """The source's configuration at the student's size, for the task's outputs.

    Args:
        source: the configuration of the checkpoint that the student is cut from.
        size: layers, width and heads.
        chosen_layers: the source's layers that are copied, from 1; empty for random weights.
        labels: names of the outputs in order: the classes.
        problem_type: what transformers calls the kind of task.
    """
    config = copy.deepcopy(source)
    kinds = getattr(config, "layer_types", None)
    rows = [layer - 1 for layer in chosen_layers] or list(range(size.layers))
    config.num_hidden_layers = size.layers
    if kinds:
        config.layer_types = [kinds[row % len(kinds)] for row in rows]
    if size.width is not None and size.width != source.hidden_size:
        for name in ("intermediate_size", "hidden_dim"):
            if name in vars(config):
                setattr(config, name, round(getattr(source, name) * size.width / source.hidden_size))
        for name in ("embedding_size", "pooler_hidden_size"):
            if getattr(config, name, None) == source.hidden_size:
                setattr(config, name, size.width)
        config.hidden_size = size.width
    config.num_attention_heads = size.heads or fitting_heads(config.hidden_size, source.num_attention_heads)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: row for row, label in enumerate(labels)}
    config.problem_type = problem_type
    return config


def fitting_heads(width: int, heads: int) -> int:
    """The largest number of heads up to ``heads`` that divides the width."""
    return next(count for count in range(min(heads, width), 0, -1) if width % count == 0)


@dataclass(frozen=True)
class BuiltStudent:
    """A student before training.

    Attributes:
        model: the classification model, fp32.
        fresh: names of the parameters that were not copied from anywhere, or from where the task has not trained them.
    """

    model: nn.Module
    fresh: frozenset[str]


def build_student(
    config: Any,
    source: Path | None,
    chosen_layers: Sequence[int],
    seed: int,
    head_order: Sequence[int] | None = None,
    *,
    idle_pooler: bool = False,
) -> BuiltStudent:
    """Make a student from its configuration and copy what the source has.

    Args:
        config: from :func:`student_config`.
        source: folder of the checkpoint to copy from, or None for random weights.
        chosen_layers: for student layer 1, 2, … the source's layer, from 1.
        seed: of the random weights.
        head_order: for each class, the output of the source's own head that is kept for it; None for a fresh head.
        idle_pooler: the source has learned the task past its pooler, which therefore is as fresh as the head.

    Raises:
        RequestError: the source is broken, or its architecture answers a padded text otherwise than the text alone.
    """
    from transformers import AutoModelForSequenceClassification

    quiet_transformers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = AutoModelForSequenceClassification.from_config(config)
    model.float()
    if not is_plain(config) and leans_on_padding(model, longest_input(config)):
        why = "a student whose outputs depend on the padding of a batch cannot be trained in batches"
        raise RequestError(Problem("--student", why, "another architecture", config.model_type))
    copied: set[str] = set()
    if source is not None:
        encoder, invented = load_encoder_and_gaps(source)
        weights = {name: tensor for name, tensor in encoder.state_dict().items() if name not in invented}
        base: nn.Module = model.base_model
        own = base.state_dict()
        for name in own:
            there = _source_name(name, chosen_layers)
            if there in weights and weights[there].shape == own[name].shape:
                own[name] = weights[there]
                copied.add(f"{model.base_model_prefix}.{name}")
        base.load_state_dict(own)
        if head_order is not None:
            copied |= _copy_head(load_classifier(source), model, list(head_order))
    if idle_pooler:
        copied = {name for name in copied if "pooler" not in name}
    fresh = frozenset(name for name, _ in model.named_parameters() if name not in copied)
    return BuiltStudent(model, fresh)


def _copy_head(source: Any, model: Any, order: list[int]) -> set[str]:
    """Copy what is behind the encoder, the last layer's outputs in another order; returns the names of the parameters."""
    inside = f"{model.base_model_prefix}."
    last = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == len(order) and not name.startswith(inside)
    ][-1]
    trained, own = source.state_dict(), model.state_dict()
    names = {name for name in own if not name.startswith(inside)}
    for name in names:
        own[name] = trained[name][order] if name in (f"{last}.weight", f"{last}.bias") else trained[name]
    model.load_state_dict(own)
    return names


def _source_name(name: str, chosen_layers: Sequence[int]) -> str:
    """The source's name of a student's parameter: the same, with the number of the layer that it is copied from."""

    def renumber(match: re.Match[str]) -> str:
        row = int(match[2])
        return f"{match[1]}.{chosen_layers[row] - 1}." if row < len(chosen_layers) else match[0]

    return _LAYER_INDEX.sub(renumber, name, count=1)


class StudentLearner(nn.Module):
    """A classification model as the engine trains it: answers under :data:`STUDENT`.

    Args:
        model: the classification model.
        fresh: names of the model's parameters that start from random weights.
    """

    def __init__(self, model: nn.Module, fresh: Iterable[str] = ()) -> None:
        super().__init__()
        self.model = model
        self._fresh = [f"model.{name}" for name in fresh]

    def forward(self, batch: Batch, needs: Mapping[str, Wanted] | None = None) -> dict[str, Output]:
        """Logits, and what ``needs`` wants of the student's insides."""
        return {STUDENT: self.output(batch.views[STUDENT], (needs or {}).get(STUDENT))}

    def output(self, inputs: dict[str, Tensor], wanted: Wanted | None = None) -> Output:
        """Logits [B, C] for one model's inputs, and what is wanted of the insides."""
        with captured(self.model, wanted or Wanted()) as found:
            logits = self.model(**inputs).logits
        return Output(logits, **{kind: dict(layers) for kind, layers in found.items()})

    def fresh_parameters(self) -> list[str]:
        """Names of the head's parameters that no pre-training has touched; an encoder from random weights is no head."""
        depths = self.depths()
        return [name for name in self._fresh if depths[name] == "head"]

    def owners(self) -> dict[str, str]:
        """Parameter → the model that it is of: one alone."""
        return {}

    def depths(self) -> dict[str, int | str]:
        """Where each parameter stands: 0 for the embeddings, 1… for the blocks, ``head`` for what is behind the encoder."""
        return {f"model.{name}": place for name, place in parameter_places(self.model).items()}


def parameter_places(model: nn.Module) -> dict[str, int | str]:
    """Where each parameter of a classification model stands: 0 the embeddings, 1… the blocks, ``head``.

    Blocks that share their weights (ALBERT) stand where the topmost of them does. Embeddings of relative positions, which all
    blocks share, stand with the embeddings, a last norm with the top block, a pooler with the head.
    """
    config: Any = model.config
    stack, depth = blocks(model), int(config.num_hidden_layers)
    topmost = {row * len(stack) // depth: row + 1 for row in range(depth)}  # of the uses of each block
    of_block = {id(parameter): topmost[row] for row, block in enumerate(stack) for parameter in block.parameters()}
    base: nn.Module = model.base_model  # type: ignore[assignment]
    in_base = {id(parameter) for parameter in base.parameters()}
    places: dict[str, int | str] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in of_block:
            places[name] = of_block[id(parameter)]
        elif id(parameter) not in in_base or "pooler" in name:
            places[name] = "head"
        else:
            places[name] = 0 if any(part in name for part in _BELOW_BLOCKS) else depth
    return places


def save_student(model: nn.Module, tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write the student as transformers writes it, with a tokenizer that truncates where training did.

    Raises:
        RunFailedError: its weights are not finite.
    """
    refuse_weights_not_finite(model.named_parameters(), "the student")
    model.save_pretrained(folder)  # type: ignore[operator]
    ours = copy.deepcopy(tokenizer)
    ours.model_max_length = max_length
    ours.save_pretrained(folder)
