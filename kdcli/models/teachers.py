"""Teachers: while they are co-finetuned, and frozen, when they answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.models.capture import captured
from kdcli.models.finite_checks import refuse_weights_not_finite
from kdcli.models.head import SharedHead, parameters_of
from kdcli.models.named_modules import NamedModules
from kdcli.models.output import Output, Wanted
from kdcli.models.weight_loading import load_classifier, load_encoder

_NAMES = frozenset({"architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version"})  # change nothing


class CofinetunedTeachers(nn.Module):
    """N encoders under one shared head, as they are trained together (MT-BERT, stage 1).

    Args:
        encoders: teacher name → encoder.
        head: the pooling and prediction layers that all of them feed.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], head: SharedHead) -> None:
        super().__init__()
        self.encoders = NamedModules(encoders)
        self.head = head

    def forward(self, batch: Batch, needs: Mapping[str, Wanted] | None = None) -> dict[str, Output]:
        """Every teacher's logits for a batch that has a view for each of them."""
        outputs = {}
        for name, encoder in self.encoders.items():
            inputs = batch.views[name]
            states = encoder(**inputs).last_hidden_state
            outputs[name] = Output(self.head(name, states, inputs["attention_mask"]))
        return outputs

    def fresh_parameters(self) -> list[str]:
        """Names of the parameters that no pre-training has touched."""
        return [name for name, _ in self.named_parameters() if name.startswith("head.")]

    def depths(self) -> dict[str, int | str]:
        """Where each parameter stands in its model; not known here, so that layers have no rates of their own."""
        return {}

    def owners(self) -> dict[str, str]:
        """Parameter → the teacher whose encoder it is of."""
        return {
            f"encoders.{name}.{parameter}": name
            for name, encoder in self.encoders.items()
            for parameter, _ in encoder.named_parameters()
        }

    def save(self, folder: Path, labels: tuple[str, ...], tokenizers: Mapping[str, Any], kind: str = "classification") -> None:
        """Write each encoder so that ``AutoModel`` loads it, and the shared head beside them.

        Raises:
            RunFailedError: weights are not finite.
        """
        refuse_weights_not_finite(self.named_parameters(), "the co-finetuned teachers")
        for name, encoder in self.encoders.items():
            encoder.save_pretrained(folder / name)  # type: ignore[operator]
            tokenizers[name].save_pretrained(folder / name)
        self.head.save(folder, labels, kind)


class Teacher(nn.Module):
    """A frozen teacher that answers in the task's class order.

    Args:
        name: how the plan and the batches call it.
        model: an encoder (with ``head``), or a model with its own classification head.
        order: for each class of the task, the teacher's output index.
        head: the shared head, for a co-finetuned teacher.
    """

    def __init__(self, name: str, model: nn.Module, order: list[int], head: SharedHead | None = None) -> None:
        super().__init__()
        self.name, self.model, self.head = name, model, head
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def cofinetuned(cls, name: str, folder: Path, order: list[int]) -> Teacher:
        """Load a teacher that was co-finetuned; its shared head lies in the folder above."""
        head, _ = SharedHead.load(folder.parent)
        return cls(name, load_encoder(folder), order, _head_for(head, folder.name, name))

    @classmethod
    def finetuned(cls, name: str, folder: Path, order: list[int]) -> Teacher:
        """Load a teacher that has a trained head of its own."""
        return cls(name, load_classifier(folder), order)

    @property
    def parameter_count(self) -> int:
        """Parameters that take part in its outputs, those of its head among them."""
        return parameters_of(self.model, *([] if self.head is None else self.head.parts_of(self.name)))

    def fingerprint(self) -> str:
        """Of all that decides what it says of given tokens: configuration, weights, their type, head and class order."""
        config: Any = self.model.config
        settings = {key: value for key, value in config.to_dict().items() if key not in _NAMES and not key.startswith("_")}
        written = json.dumps(settings, sort_keys=True, default=str)
        digest = blake2b(f"{config.model_type}|{type(self.model).__name__}|{written}".encode(), digest_size=16)
        if self.head is not None:
            digest.update(self.head.kind.encode())
        parts = {"model": self.model, "order": self.order}
        if self.head is not None:
            parts |= {"input": self.head.inputs[self.name], "pooling": self.head.pooling, "head": self.head.prediction}
        for part, owner in parts.items():
            tensors = {"": owner} if isinstance(owner, Tensor) else owner.state_dict()
            for name, tensor in sorted(tensors.items()):
                digest.update(f"{part}|{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def forward(self, inputs: dict[str, Tensor], wanted: Wanted | None = None) -> Output:
        """Logits in the task's order, fp32, and what is wanted of the insides."""
        with captured(self.model, wanted or Wanted()) as found:
            result = self.model(**inputs)
        if self.head is None:
            logits = result.logits
        else:
            logits = self.head(self.name, result.last_hidden_state, inputs["attention_mask"])
        order: Any = self.order
        return Output(logits.float()[:, order], **{kind: dict(layers) for kind, layers in found.items()})


def _head_for(head: SharedHead, saved_name: str, name: str) -> SharedHead:
    """The shared head, knowing the teacher by the name that it has in this run."""
    if saved_name != name:
        head.inputs[name] = head.inputs[saved_name]
    return head


class Ensemble(nn.Module):
    """The frozen teachers of a run, asked together.

    Args:
        teachers: the teachers.
        dtype: what the teachers compute in; bf16 where the machine has it.
    """

    def __init__(self, teachers: Iterable[Teacher], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.teachers = NamedModules({teacher.name: teacher for teacher in teachers})
        self.to(dtype)

    def members(self) -> list[Teacher]:
        """The teachers, in order."""
        return list(self.teachers.values())  # type: ignore[arg-type]

    def forward(self, batch: Batch, needs: Mapping[str, Wanted] | None = None) -> dict[str, Output]:
        """The answers to a batch: of the teachers that ``needs`` names, or of all, without their insides."""
        asked = {name: Wanted() for name in self.teachers} if needs is None else needs
        return {name: teacher(batch.views[name], asked[name]) for name, teacher in self.teachers.items() if name in asked}
