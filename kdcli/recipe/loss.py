"""What the losses of a recipe have in common: keys, what they need of the models, how they are held against them.

A loss is a block in ``kdcli/recipe/losses/`` and the term in ``kdcli/losses/`` that computes it. What the block says here,
everybody else goes by: the plan, the estimate, the documentation, the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from kdcli.recipe.blocks import Block, Changing, Schedule
from kdcli.recipe.layer_maps import LayerMapError, Layers, resolve
from kdcli.recipe.model_shapes import INTERNALS, Models, ModelShape
from kdcli.recipe.yaml_document import KeyPath

LayerMaps = Mapping[str, Mapping[int, int]]


class LossBlock(Block):
    """What every loss term has."""

    listed: ClassVar[int] = 1000
    """Where documentation and messages list it: the lowest first, those of the same number by name."""

    name: str | None = Field(None, min_length=1, pattern=r"^[\w-]+$", description="name in logs; null: that of the loss")
    weight: Changing = Field(1.0, description="factor of this term in the sum; a term of weight 0 is not computed")

    @classmethod
    def loss_name(cls) -> str:
        """What a recipe calls it: the one value of its key ``loss``."""
        (name,) = get_args(cls.model_fields["loss"].annotation)
        return str(name)

    @property
    def label(self) -> str:
        """The name in logs."""
        return self.name or self.loss_name()

    @property
    def is_off(self) -> bool:
        """Whether its weight is 0 throughout, so that it is not computed."""
        weight = self.weight
        return weight.stays_zero if isinstance(weight, Schedule) else weight == 0

    @property
    def compares_layers(self) -> bool:
        """Whether it goes by a layer map."""
        return False

    @property
    def looks_at_first_token(self) -> bool:
        """Whether it learns from the state of the first token ([CLS])."""
        return False

    def needs(self) -> frozenset[str]:
        """What it must see of the insides of both sides, kinds of :data:`~kdcli.recipe.model_shapes.INSIDES`.

        Every loss says it; there is no default, so that none is taken by mistake to need nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it needs of the models' insides")

    def by_error(self) -> list[str]:
        """The keys by which it looks at the teachers' errors on gold labels; none if it does not."""
        return []

    def by_error_without_labels(self) -> list[str]:
        """Those of :meth:`by_error` that say nothing of what to do with samples without a gold label."""
        return []

    def notes(self, accumulation: int) -> list[str]:
        """What the user should know of a training with this term whose batches are cut into so many parts."""
        return []

    def plan(self, path: KeyPath, models: Models) -> dict[str, Any]:
        """What is settled once the models are known, by the names of the attributes of a planned term.

        What is none of them is kept under its name in the planned term's ``more``. What cannot be settled is left out and
        noted as a problem.

        Args:
            path: its key path in the recipe.
            models: what it is held against.
        """
        return {}

    def reach(self, layers: LayerMaps, teachers: Sequence[str], models: Models) -> int:
        """The highest place of the student that its gradient reaches: 0 the embeddings, K the top layer, K + 1 the head.

        Args:
            layers: teacher → {student layer: teacher layer}, as planned.
            teachers: whom it looks at.
            models: what it was held against.
        """
        return models.student.layers + 1

    def layers_seen(self, pairs: Mapping[int, int], depth: int) -> set[int]:
        """The layers of a teacher of that depth whose insides it may ask for, over all steps.

        Args:
            pairs: {student layer: teacher layer} of that teacher, as planned; empty if it goes by no layer map.
            depth: the teacher's layers.
        """
        return set(range(depth + 1)) if self.needs() else set()


class TeacherLoss(LossBlock):
    """What every loss term has that looks at teachers."""

    teachers: list[str] | None = Field(None, min_length=1, description="names of the teachers that it looks at; null: all")
    teacher_reduction: Literal["mean", "sum"] = Field("mean", description="how the teachers' values become one")

    def plan(self, path: KeyPath, models: Models) -> dict[str, Any]:
        """Choose the teachers, hold what it needs against what they and the student show, and settle the rest."""
        teachers = self._asked(path, models)
        self._refuse_unserved(teachers, path, models)
        return {"teachers": [teacher.name for teacher in teachers], **self.settle(teachers, path, models)}

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """What a loss of its own kind settles with its teachers; as :meth:`plan`."""
        return {}

    def _asked(self, path: KeyPath, models: Models) -> list[ModelShape]:
        if self.teachers is None:
            return list(models.teachers)
        for name in self.teachers:
            models.refuse_unknown(name, (*path, "teachers"))
        if not any(teacher.name in models.given for teacher in models.teachers):
            return list(models.teachers)
        return [teacher for teacher in models.teachers if teacher.name in self.teachers]

    def _refuse_unserved(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> None:
        needed = self.needs()
        sides = [(f"teacher {teacher.name}", teacher) for teacher in teachers]
        for side, model in [*sides, ("the student", models.student)]:
            served = model.shows()
            if needed <= served:
                continue
            remedy = "loss: hidden-mse" if "hidden" in served else "loss: soft-labels"
            if "attention" in served:
                remedy = "loss: attention-kl (the probabilities are shown)"
            models.refuse(
                (*path, "loss"),
                f"{self.loss_name()} cannot be served by {model.model_type} ({side})",
                expected="an architecture that shows its " + ", ".join(INTERNALS[kind] for kind in sorted(needed - served)),
                found=f"{model.model_type} shows "
                + (", ".join(INTERNALS[kind] for kind in sorted(served)) or "its answers alone"),
                remedy=remedy,
            )


class LayerLoss(TeacherLoss):
    """What every loss term has that compares layers."""

    layers: Layers | None = Field(
        None, description="which teacher layer supervises which student layer, for this term; null: the recipe's layers"
    )
    layer_reduction: Literal["sum", "mean"] = Field("sum", description="how the layers' values become one")

    @property
    def compares_layers(self) -> bool:
        """It does, unless a loss says otherwise."""
        return True

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """The layer maps."""
        return {"layers": self._layer_maps(teachers, path, models)} if self.compares_layers else {}

    def reach(self, layers: LayerMaps, teachers: Sequence[str], models: Models) -> int:
        """The highest layer that is compared."""
        if not self.compares_layers:
            return super().reach(layers, teachers, models)
        return max((layer for pairs in layers.values() for layer in pairs), default=-1)

    def layers_seen(self, pairs: Mapping[int, int], depth: int) -> set[int]:
        """Those that are compared."""
        return set(pairs.values())

    def _layer_maps(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, dict[int, int]]:
        own = self.layers is not None
        spec, base = (self.layers, (*path, "layers")) if own else (models.layers, ("layers",))
        if own:
            models.refuse_unknown_in(self.layers, base)
        maps = {}
        for teacher in teachers:
            chosen: Any = spec.get(teacher.name, "uniform") if isinstance(spec, dict) else spec
            place: KeyPath = (*base, teacher.name) if isinstance(spec, dict) else base
            count = models.student.layers
            try:
                pairs = resolve(chosen, count, teacher.layers)
            except LayerMapError as error:
                teacher_side = "" if error.of_student else f"; teacher {teacher.name} is {teacher.reference}"
                models.refuse(
                    place,
                    str(error),
                    expected=error.expected + teacher_side,
                    found=f"{chosen} for a student of {count} layer{'s' if count > 1 else ''}",
                    remedy=error.remedy,
                )
                continue
            if 0 in (*pairs, *pairs.values()) and self.needs() - {"hidden"}:
                models.refuse(
                    place,
                    f"layer 0 is the embeddings, which have no attention for {self.loss_name()}",
                    expected="layers from 1",
                    found=str(pairs),
                )
            maps[teacher.name] = pairs
        return maps
