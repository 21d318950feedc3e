"""Gates: limits that a model must keep to, for CI jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kdcli.errors import Problem, RequestError
from kdcli.evaluation.document import Evaluation, GateResult, ModelScore, Unscored

GateName = Literal["min-score", "min-retention", "max-drop", "max-ece"]
GATES: tuple[GateName, ...] = get_args(GateName)
_BOUND = "bound"
_LARGEST_FRACTION = 2.0


@dataclass(frozen=True)
class Gate:
    """One limit.

    Attributes:
        name: which figure it limits.
        limit: as a fraction; points (hundredths) for ``max-drop``.
        bound: hold the unfavourable end of the 95 % interval against the limit, and not the figure itself.
        text: as the user wrote it.
    """

    name: GateName
    limit: float
    bound: bool
    text: str

    @classmethod
    def parse(cls, name: GateName, text: str) -> Gate:
        """``0.98``, ``98%`` or ``0.98:bound``.

        >>> Gate.parse("min-retention", "98%:bound").limit
        0.98

        Raises:
            RequestError: it is none of these.
        """
        number, colon, word = text.strip().partition(":")
        percent = number.endswith("%")
        try:
            limit = float(number.removesuffix("%"))
        except ValueError:
            limit = math.nan
        if percent and name != "max-drop":
            limit /= 100
        fine = math.isfinite(limit) and (not colon or word == _BOUND) and not (percent and name == "max-drop")
        if not fine:
            example = "0.5 (points)" if name == "max-drop" else "0.98 or 98%"
            raise RequestError(
                Problem(
                    f"--{name} {text}",
                    "is not a limit",
                    f"{example}; with :{_BOUND} behind it, the 95 % interval must keep to it as well",
                )
            )
        if name != "max-drop" and limit > _LARGEST_FRACTION:
            raise RequestError(Problem(f"--{name} {text}", "is a fraction", "0 to 1", remedy=f"--{name} {number}%"))
        return cls(name, limit, bool(colon), text.strip())

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares with a teacher."""
        return self.name in ("min-retention", "max-drop")

    def check(self, evaluation: Evaluation, model: ModelScore) -> GateResult:
        """Hold a model against the limit.

        Raises:
            RequestError: the evaluation does not have the figure (no teacher, no logits).
        """
        value, what = self._found(evaluation, model)
        end = "lower" if self.name.startswith("min") else "upper"
        what = f"the {end} end of the 95 % interval of {what}" if self.bound else what
        if value is None or not math.isfinite(value):
            value, passed, is_what = None, False, f"does not exist{self._why_not(model)}"
        else:
            passed = value >= self.limit - 1e-12 if self.name.startswith("min") else value <= self.limit + 1e-12
            is_what = f"is {value:.2f} points" if self.name == "max-drop" else f"is {value:.4f}"
        return GateResult(
            gate=f"--{self.name} {self.text}",
            model=model.name,
            value=value,
            limit=self.limit,
            passed=passed,
            sentence=f"--{self.name} {self.text}: {what} {is_what} on {evaluation.split}",
        )

    def without_score(self, model: Unscored) -> GateResult:
        """What becomes of the limit where a model has no score: it is not kept to."""
        asked = f"--{self.name} {self.text}"
        return GateResult(
            gate=asked, model=model.name, value=None, limit=self.limit, passed=False, sentence=f"{asked}: {model.sentence}"
        )

    def _found(self, evaluation: Evaluation, model: ModelScore) -> tuple[float | None, str]:
        """The figure, or the end of its interval, that is held against the limit, if there is one; and what figure it is."""
        if self.name == "min-score":
            value = model.interval[0] if self.bound else model.scores[evaluation.metric]
            return value, f"{evaluation.metric} of {model.name}"
        if self.name == "max-ece":
            if model.calibration is None:
                raise RequestError(Problem("--max-ece", f"{model.name} gives no probabilities, so it has no calibration error"))
            value = model.calibration.ece_high if self.bound else model.calibration.ece
            return value, f"the calibration error (ECE) of {model.name}"
        if model.drop is None:
            raise RequestError(
                Problem(
                    f"--{self.name}",
                    "needs a teacher with a score to compare with",
                    found="; ".join([f"{model.name} has none here", *(each.sentence for each in evaluation.unscored)]),
                    remedy="--teachers FOLDER",
                )
            )
        if self.name == "max-drop":
            drop = model.drop.high if self.bound else model.drop.value
            return 100 * drop, f"the drop of {model.name} below {model.drop.of}"
        what, kept = f"the share that {model.name} keeps of the {evaluation.metric} of {model.drop.of}", model.retention
        if kept is None:
            return None, what
        return kept.low if self.bound else kept.value, what

    def _why_not(self, model: ModelScore) -> str:
        """Why there is no figure, as far as that is known."""
        if self.name != "min-retention" or model.drop is None:
            return ""
        if model.retention is None:
            return f", because {model.drop.of} scores 0 or less"
        return f", because {model.drop.of} does not clearly score above 0"


def parse_gates(given: Mapping[str, str | None]) -> list[Gate]:
    """The gates that were asked for, by name (one of :data:`GATES`).

    Raises:
        RequestError: with every limit that cannot be read.
    """
    problems: list[Problem] = []
    gates = []
    for name in GATES:
        text = given.get(name)
        if text is not None:
            try:
                gates.append(Gate.parse(name, text))
            except RequestError as error:
                problems += error.problems
    if problems:
        raise RequestError(problems)
    return gates


def with_gates(evaluation: Evaluation, gates: Sequence[Gate]) -> Evaluation:
    """The evaluation, with every gate held against every model that it is about.

    Raises:
        RequestError: a figure that a gate needs is not there.
    """
    results = [gate.check(evaluation, model) for model in evaluation.judged for gate in gates]
    without = [model for model in evaluation.unscored if model.role == evaluation.judged_role]
    results += [gate.without_score(model) for model in without for gate in gates]
    return evaluation.model_copy(update={"gates": results})
