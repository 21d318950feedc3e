"""The shared pooling and prediction layers of co-finetuned teachers (MT-BERT, stage 1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdcli.atomic_files import write_json
from kdcli.models.head_file import HEAD_WEIGHTS, SHARED_HEAD, read_shared_head
from kdcli.models.named_modules import NamedModules
from kdcli.recipe.schema import Pooling


class AttentionPooling(nn.Module):
    """Additive attention over tokens: a = softmax(q·tanh(V h + v)), pooled = Σ a h; padding gets no weight.

    Shapes: states [B, L, D], mask [B, L] → [B, D].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool."""
        scores = self.query(torch.tanh(self.inner(states))).squeeze(-1).float()  # [B, L]
        weights = scores.masked_fill(mask == 0, float("-inf")).softmax(-1)
        return torch.bmm(weights[:, None, :].to(states.dtype), states).squeeze(1)


class ClsPooling(nn.Module):
    """The state of the first token. Shapes: states [B, L, D], mask [B, L] → [B, D]."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool."""
        return states[:, 0]


class MeanPooling(nn.Module):
    """The mean over real tokens. Shapes: states [B, L, D], mask [B, L] → [B, D]."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool."""
        real = mask[..., None].to(states.dtype)
        return (states * real).sum(1) / real.sum(1)


def make_pooling(kind: Pooling, width: int) -> nn.Module:
    """The pooling layer of that name for hidden states of ``width``."""
    if kind == "attention":
        return AttentionPooling(width)
    return ClsPooling() if kind == "cls" else MeanPooling()


def parameters_of(*modules: nn.Module) -> int:
    """Parameters of a model, or of the parts that its outputs come from: the one way in which kdcli counts them."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def head_parameters(widths: Mapping[str, int], classes: int, pooling: Pooling) -> dict[str, int]:
    """Teacher → parameters of the shared head that its outputs go through, before there is a head.

    Args:
        widths: of all teachers under it.
        classes: C.
        pooling: the kind of pooling.
    """
    with torch.device("meta"):
        head = SharedHead(widths, classes, pooling)
    return {name: parameters_of(*head.parts_of(name)) for name in widths}


def saved_head_parameters(folder: Path) -> dict[str, int]:
    """As :func:`head_parameters`, of the head that lies in a folder."""
    about = read_shared_head(folder)
    return head_parameters(about.widths, len(about.labels), about.pooling)


class SharedHead(nn.Module):
    """One pooling layer and one prediction layer for all teachers.

    A teacher whose width differs from the shared width (the widest of them) has a linear map of its own in front.

    Args:
        widths: teacher name → width of its hidden states.
        classes: number of classes C.
        pooling: the kind of pooling.
        dropout: on the pooled state, while training.
    """

    def __init__(self, widths: Mapping[str, int], classes: int, pooling: Pooling, dropout: float = 0.1) -> None:
        super().__init__()
        self.widths, self.classes, self.kind = dict(widths), classes, pooling
        width = max(widths.values())
        self.inputs = NamedModules(
            {name: nn.Identity() if own == width else nn.Linear(own, width) for name, own in widths.items()}
        )
        self.pooling = make_pooling(pooling, width)
        self.dropout = nn.Dropout(dropout)
        self.prediction = nn.Linear(width, classes)

    def forward(self, name: str, states: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, C] of the teacher ``name`` from its last hidden states [B, L, D]."""
        pooled = self.pooling(self.inputs[name](states), mask)
        logits: Tensor = self.prediction(self.dropout(pooled))
        return logits

    def parts_of(self, name: str) -> list[nn.Module]:
        """What of the head a teacher's outputs go through."""
        return [self.inputs[name], self.pooling, self.prediction]

    def save(self, folder: Path, labels: tuple[str, ...], kind: str = "classification") -> None:
        """Write the head beside the teachers' folders, with what is needed to build it again.

        Args:
            folder: the folder above those of the teachers.
            labels: names of the outputs in order: the classes.
            kind: of task.
        """
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / HEAD_WEIGHTS)
        write_json(
            folder / SHARED_HEAD,
            {"teachers": list(self.widths), "widths": self.widths, "pooling": self.kind, "labels": list(labels), "kind": kind},
        )

    @classmethod
    def load(cls, folder: Path) -> tuple[SharedHead, tuple[str, ...]]:
        """The head that :meth:`save` wrote, and its class names in output order.

        Raises:
            RequestError: it is broken, or its two files do not belong together.
        """
        about = read_shared_head(folder)
        head = cls(about.widths, len(about.labels), about.pooling)
        head.load_state_dict(load_file(folder / HEAD_WEIGHTS))
        return head, about.labels
