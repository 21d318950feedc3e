"""``soft-labels``: the teachers' class distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from kdcli.recipe.blocks import Number, PositiveChanging, form_of
from kdcli.recipe.loss import TeacherLoss
from kdcli.recipe.loss_blocks import registered
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.weightings import (
    NONE,
    SCALES,
    WEIGHTINGS,
    ScaleName,
    UnlabelledScaleName,
    UnlabelledWeightingName,
    WeightingName,
    scales_in_words,
    weightings_in_words,
)
from kdcli.recipe.yaml_document import KeyPath

DivergenceName = Literal["cross-entropy", "kl", "reverse-kl", "js", "tv"]


@registered
class SoftLabels(TeacherLoss):
    """Distance from the teachers' class distributions."""

    listed: ClassVar[int] = 20

    loss: Literal["soft-labels"]
    divergence: DivergenceName = Field(
        "cross-entropy",
        description="cross-entropy or KL divergence of the student from the teacher (same gradient), KL the other way round, "
        "Jensen–Shannon divergence, total variation distance",
    )
    temperature: PositiveChanging = Field(1.0, description="divides both sides' logits")
    temperature_squared: bool = Field(False, description="multiply by t², as Hinton et al. (2015) do")
    weighting: Annotated[
        Annotated[WeightingName, Tag("<name>")] | Annotated[dict[str, Number], Field(min_length=1), Tag("<map>")],
        Discriminator(form_of),
    ] = Field(
        "uniform",
        description=f"how much each teacher counts on a sample: {weightings_in_words()}; or a map of teacher: weight",
    )
    normalise_weights: bool = Field(False, description="scale a sample's weights so that their mean over the teachers is 1")
    scale: ScaleName = Field(NONE, description=f"a further factor per sample: {scales_in_words()}")
    unlabelled_weighting: UnlabelledWeightingName | None = Field(
        None, description="weighting on samples without a gold label; null: the same as on the others"
    )
    unlabelled_scale: UnlabelledScaleName | None = Field(
        None, description="scale on samples without a gold label; null: the same as on the others"
    )
    min_uncertainty: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="leave out samples on which the student's entropy, divided by log C, is below this",
    )
    draw: Literal["uniform", "ranked"] | None = Field(
        None, description="ask one teacher per step, drawn with equal chances or with chances by rank of dev score"
    )

    def needs(self) -> frozenset[str]:
        """Nothing but outputs."""
        return frozenset()

    def by_error(self) -> list[str]:
        """``weighting`` and ``scale`` where they go by gold labels."""
        named = {"weighting": (WEIGHTINGS, self.weighting), "scale": (SCALES, self.scale)}
        return [
            key
            for key, (ways, name) in named.items()
            if isinstance(name, str) and name in ways and ways[name].looks_at == "labels"
        ]

    def by_error_without_labels(self) -> list[str]:
        """Those of them without another way for samples that have no gold label."""
        return [key for key in self.by_error() if getattr(self, f"unlabelled_{key}") is None]

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        """Nothing; the weights of the teachers are looked at."""
        if self.teachers is None or len(teachers) == len(set(self.teachers)):
            self._check_weights([teacher.name for teacher in teachers], path, models)
        if not models.probabilities:
            self._refuse_what_needs_probabilities(path, models)
        return {}

    def _refuse_what_needs_probabilities(self, path: KeyPath, models: Models) -> None:
        """Where models put out numbers, nobody is sure or unsure."""
        asks = {
            "weighting": isinstance(self.weighting, str) and WEIGHTINGS[self.weighting].probabilities,
            "scale": self.scale in SCALES and SCALES[self.scale].probabilities,
            "min_uncertainty": self.min_uncertainty > 0,
        }
        for key, asked in asks.items():
            if asked:
                models.refuse(
                    (*path, key),
                    "needs probabilities, and models for this kind of task put out none",
                    expected="weighting: uniform, inverse-error or a map; no scale by agreement; min_uncertainty: 0",
                    found=f"{key}: {getattr(self, key)}",
                )

    def _check_weights(self, names: Sequence[str], path: KeyPath, models: Models) -> None:
        if isinstance(self.weighting, dict):
            self._check_weight_map(self.weighting, names, path, models)
        if self.draw is not None:
            self._refuse_what_needs_all(path, models)
        least = {"draw": 1 if self.draw is None else 2}
        least["weighting"] = 1 if isinstance(self.weighting, dict) else WEIGHTINGS[self.weighting].least_teachers
        for key, count in least.items():
            if len(names) < count:
                models.refuse(
                    (*path, key),
                    "needs two teachers or more to choose from",
                    found=", ".join(names),
                    remedy="--teachers with another one, or a recipe for one teacher such as soft-labels",
                )

    def _check_weight_map(self, weights: dict[str, float], names: Sequence[str], path: KeyPath, models: Models) -> None:
        models.refuse_unknown_in(weights, (*path, "weighting"))
        weighed = [name for name in names if name in models.given]
        missing = [name for name in weighed if name not in weights]
        if missing:
            models.refuse((*path, "weighting"), "has no weight for every teacher", expected="also " + ", ".join(missing))
        elif weighed and not sum(weights[name] for name in weighed):
            models.refuse((*path, "weighting"), "the teachers' weights sum to zero", expected="one above 0 at least")

    def _refuse_what_needs_all(self, path: KeyPath, models: Models) -> None:
        """A step that asks one teacher cannot compare it with the others."""
        needs_all = {
            "weighting": isinstance(self.weighting, str) and WEIGHTINGS[self.weighting].compares,
            "normalise_weights": self.normalise_weights,
            "scale": self.scale in SCALES and SCALES[self.scale].compares,
            "unlabelled_weighting": self.unlabelled_weighting is not None and WEIGHTINGS[self.unlabelled_weighting].compares,
            "unlabelled_scale": self.unlabelled_scale in SCALES and SCALES[self.unlabelled_scale].compares,
        }
        for key, asked in needs_all.items():
            if asked:
                models.refuse(
                    (*path, key),
                    "compares the teachers with each other, and with draw a step asks one of them alone",
                    expected="weighting: uniform, inverse-error, confidence or a map; no scale; weights as they are",
                    found=f"{key}: {getattr(self, key)}",
                    remedy="draw: null",
                )
