"""Values that a recipe leaves open (``auto``), derived from the rows, the models and the effort.

What the rules were chosen by is in docs/results.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kdcli.plan.plan import DerivedPlan
from kdcli.plan.request import Effort
from kdcli.recipe.loading import LoadedRecipe, with_values
from kdcli.recipe.schema import AUTO, Recipe, settled
from kdcli.recipe.yaml_document import KeyPath, Override, dotted

_FLAG = "derived by the plan"
_USUAL_WIDTH = 768
RATE_FROM_SCRATCH = 5e-4  # at the least
EVALUATIONS = 15  # of a stage of many epochs


@dataclass(frozen=True)
class Circumstances:
    """What the rules look at.

    Attributes:
        rows: training rows of the student.
        labelled: training rows of the teachers, which need a label.
        width: of the student's hidden states.
        layers: of the student.
        scratch: the student starts from random weights.
        teacher_widths: of the teachers that are co-finetuned, by name.
        effort: how much time may be spent.
    """

    rows: int
    labelled: int
    width: int = _USUAL_WIDTH
    layers: int = 1
    scratch: bool = False
    teacher_widths: Mapping[str, int] = field(default_factory=dict)
    effort: Effort = "normal"


@dataclass(frozen=True)
class Length:
    """How long something is trained.

    Attributes:
        samples: how many are seen, the same ones in every epoch.
        least, most: epochs.
    """

    samples: int
    least: int
    most: int

    def epochs(self, rows: int) -> int:
        """For so many rows."""
        return min(self.most, max(self.least, math.ceil(self.samples / rows)))


STUDENT_LENGTHS: Mapping[Effort, Length] = {
    "quick": Length(30_000, 2, 10),
    "normal": Length(90_000, 6, 30),
    "thorough": Length(270_000, 18, 90),
}
TEACHER_LENGTHS: Mapping[Effort, Length] = {
    "quick": Length(10_000, 2, 5),
    "normal": Length(25_000, 3, 12),
    "thorough": Length(60_000, 6, 24),
}


def derived(loaded: LoadedRecipe, about: Circumstances) -> tuple[LoadedRecipe, list[DerivedPlan]]:
    """The recipe with a number in every place that it leaves open; and what was put there, and why."""
    found = list(_found(loaded.recipe, about))
    told = [DerivedPlan(key=dotted(path), value=value, why=why) for path, value, why in found]
    return with_values(loaded, [Override(path, value, _FLAG) for path, value, _ in found]), told


def copies(rows: int) -> int:
    """Texts that are made from each training text: more where there are few."""
    return max(0, min(8, round(12_000 / rows) - 1))


def batch_size(rows: int) -> int:
    """Samples per step: fewer where there are few rows, so that an epoch has steps enough."""
    return 16 if rows < 4000 else 32


def student_rate(width: int, scratch: bool) -> float:
    """Peak learning rate of a student: narrow ones, and those from random weights, take larger steps."""
    if scratch:
        return _rounded(max(RATE_FROM_SCRATCH, 1e-3 * min(1.0, 384 / width)))
    return _rounded(5e-4 * min(1.0, 384 / width))


def teacher_rate(width: int) -> float:
    """Peak learning rate of teachers that are co-finetuned."""
    return _rounded(2e-4 * min(1.0, 384 / width) ** 2)


def _teacher_rates(widths: Mapping[str, int], given: Mapping[str, float]) -> Iterator[tuple[KeyPath, float, str]]:
    """The widest teacher's rate for all, and one of their own for those that are narrower and were given none."""
    widest = max(widths.values(), default=_USUAL_WIDTH)
    usual, place = teacher_rate(widest), ("teachers", "cofinetune")
    yield (*place, "learning_rate"), usual, f"width {widest}"
    for name, width in widths.items():
        if name not in given and teacher_rate(width) != usual:
            yield (*place, "learning_rates", name), teacher_rate(width), f"width {width}"


def _rounded(rate: float) -> float:
    """To two digits."""
    return float(f"{rate:.1e}")


def _found(recipe: Recipe, about: Circumstances) -> Iterator[tuple[KeyPath, float | int, str]]:
    training, cofinetune = recipe.training, recipe.teachers.cofinetune
    rows, effort = f"{about.rows:,} rows", f"{about.effort} effort"
    if recipe.augmentation.copies == AUTO:
        yield ("augmentation", "copies"), copies(about.labelled), f"{about.labelled:,} rows"
    if training.batch_size == AUTO:
        yield ("training", "batch_size"), batch_size(about.labelled), f"{about.labelled:,} rows with labels"
    if training.learning_rate == AUTO:
        how = ", random weights" if about.scratch else ""
        yield ("training", "learning_rate"), student_rate(about.width, about.scratch), f"width {about.width}{how}"
    if cofinetune.learning_rate == AUTO:
        yield from _teacher_rates(about.teacher_widths, cofinetune.learning_rates)
    if cofinetune.epochs == AUTO:
        count = TEACHER_LENGTHS[about.effort].epochs(about.labelled)
        yield ("teachers", "cofinetune", "epochs"), count, f"{about.labelled:,} rows, {effort}"
    parts = {place: about.layers if stage.expand else 1 for place, stage in enumerate(recipe.stages) if stage.epochs == AUTO}
    whole = STUDENT_LENGTHS[about.effort].epochs(about.rows)
    each = max(1, round(whole / max(1, sum(parts.values()))))
    for place in parts:
        shared = "" if len(parts) == 1 and parts[place] == 1 else f", a part of {whole}"
        yield ("stages", place, "epochs"), each, f"{rows}, {effort}{shared}"
    last = recipe.stages[-1].epochs
    planned = each if last == AUTO else settled(last)
    often = min(1.0, _rounded(EVALUATIONS / planned))
    if training.evaluations_per_epoch == AUTO:
        yield ("training", "evaluations_per_epoch"), often, f"{planned:g} epochs"
    else:
        often = settled(training.evaluations_per_epoch)
    if training.early_stopping == AUTO:
        yield ("training", "early_stopping"), max(3, math.ceil(planned * often / 3)), f"a third of {planned:g} epochs"
