"""How teachers may be weighted on a sample, and samples by their teachers: what a recipe may write and what each looks at.

``kdcli/losses/weighting.py`` computes them, under the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Weighting:
    """One way.

    Attributes:
        about: what it is, for the documentation.
        looks_at: beside the teachers' outputs: nothing, the gold ``labels``, or the ``student``'s own output.
        compares: it compares the teachers with each other, so that all of them have to be asked.
        least_teachers: how many there have to be.
        probabilities: it needs outputs that are probabilities.
    """

    about: str
    looks_at: Literal["nothing else", "labels", "student"] = "nothing else"
    compares: bool = False
    least_teachers: int = 1
    probabilities: bool = False


NONE = "none"
WEIGHTINGS = {
    "uniform": Weighting("uniform"),
    "inverse-error": Weighting("inverse-error 1/(1+CE)", looks_at="labels"),
    "softmax-error": Weighting("softmax-error N·softmax over the N teachers of −CE", looks_at="labels", compares=True),
    "confidence": Weighting("confidence (largest probability)", probabilities=True),
    "agreement": Weighting("agreement (1 − total variation from the mean of the others)", compares=True, probabilities=True),
    "uncertainty": Weighting(
        "uncertainty (unsure student: the smallest teacher, sure: the largest)",
        looks_at="student",
        compares=True,
        least_teachers=2,
        probabilities=True,
    ),
}
"""The weight of each teacher on a sample."""

SCALES = {
    "correctness": Weighting("correctness 1/(1+CE) of the teachers' mean distribution", looks_at="labels", compares=True),
    "agreement": Weighting("the teachers' mean agreement", compares=True, probabilities=True),
    "disagreement": Weighting("disagreement (1 − agreement; 1 with a single teacher)", compares=True, probabilities=True),
}
"""The factor of a sample, of all teachers together; without one it is 1."""

if TYPE_CHECKING:
    WeightingName = str
    UnlabelledWeightingName = str
    ScaleName = str
    UnlabelledScaleName = str
else:

    def _by_outputs(ways):
        """Those that can do with samples that nobody has labelled, whoever learns from them."""
        return [name for name, way in ways.items() if way.looks_at == "nothing else"]

    WeightingName = Literal[*WEIGHTINGS]
    UnlabelledWeightingName = Literal[*_by_outputs(WEIGHTINGS)]
    ScaleName = Literal[NONE, *SCALES]
    UnlabelledScaleName = Literal[NONE, *_by_outputs(SCALES)]


def weightings_in_words() -> str:
    """All ways of weighting teachers, as the documentation tells them."""
    return "; ".join(way.about for way in WEIGHTINGS.values())


def scales_in_words() -> str:
    """All factors of a sample, as the documentation tells them."""
    *first, last = (way.about for way in SCALES.values())
    return f"{', '.join(first)}, or {last}"
