"""The models as a loss is held against them, before anything is trained: their sizes and what they show, no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kdcli.errors import Problems, did_you_mean
from kdcli.recipe.layer_maps import Layers
from kdcli.recipe.yaml_document import Document, KeyPath

INTERNALS = {"hidden": "hidden states", "attention": "attention probabilities", "scores": "attention scores"} | {
    kind: f"{kind} of the attention" for kind in ("queries", "keys", "values")
}
"""What a model may show of its insides, and how messages call it."""


@dataclass(frozen=True)
class ModelShape:
    """One model.

    Attributes:
        name: a teacher's name, or ``student``.
        reference: as the user asked for it.
        model_type: of its configuration.
        layers, width, heads: its sizes.
        weight_groups: how many groups of layers have weights of their own; less than the layers where they share them.
        shows: gives the kinds of :data:`INSIDES` that it can show; asked when a loss is planned that looks at it.
    """

    name: str
    reference: str
    model_type: str
    layers: int
    width: int
    heads: int
    weight_groups: int
    shows: Callable[[], frozenset[str]]


@dataclass(frozen=True)
class Models:
    """What the terms of one training are held against.

    Attributes:
        document: where the recipe's values stand.
        layers: the recipe's layer map, for losses without one of their own.
        batch_size: samples per optimiser step.
        teachers: those that teach here.
        given: names of those that the user named; where an assistant teaches, it stands in for all of them.
        student: as planned.
        probabilities: what models of this kind of task put out are probabilities.
        problems: where everything that is wrong is noted.
    """

    document: Document
    layers: Layers
    batch_size: int
    teachers: Sequence[ModelShape]
    given: Sequence[str]
    student: ModelShape
    problems: Problems
    probabilities: bool = True

    def refuse(self, path: KeyPath, what: str, *, expected: str = "", found: str = "", remedy: str = "") -> None:
        """Note that the value at ``path`` of the recipe does not fit the models."""
        self.problems.add(self.document.where(path), what, expected=expected, found=found, remedy=remedy)

    def refuse_unknown(self, name: str, path: KeyPath) -> None:
        """Note a teacher's name that nobody has."""
        refuse_unknown(name, path, self.given, self.document, self.problems)

    def refuse_unknown_in(self, by_teacher: Any, path: KeyPath) -> None:
        """Note the teachers' names in a map by teacher that nobody has; what is no map has none."""
        for name in by_teacher if isinstance(by_teacher, dict) else ():
            self.refuse_unknown(str(name), (*path, name))


def refuse_unknown(name: str, path: KeyPath, names: Sequence[str], document: Document, problems: Problems) -> None:
    """Note a teacher's name that is none of ``names``."""
    if name not in names:
        problems.add(
            document.where(path),
            f"there is no teacher {name!r}",
            expected="one of " + ", ".join(names),
            remedy=did_you_mean(name, names),
        )
