"""One term of the objective held against the models: whom it looks at, which layers, which heads, which projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdcli.errors import Problems, did_you_mean
from kdcli.models.checkpoints import Checkpoint
from kdcli.plan.architecture import insides
from kdcli.plan.blueprint import Blueprint
from kdcli.plan.plan import TermPlan
from kdcli.recipe.document import KeyPath
from kdcli.recipe.layers import LayerMapError, resolve
from kdcli.recipe.loading import LoadedRecipe
from kdcli.recipe.schema import (
    AttentionKl,
    AttentionMse,
    HiddenCosine,
    HiddenMse,
    LayeredLoss,
    LayerLoss,
    Loss,
    Projection,
    RandomLayers,
    Relational,
    RelationKl,
    SoftLabels,
    TeacherLoss,
    settled,
)

Side = Literal["teacher", "student"]
Heads = dict[str, Literal["match", "mean"] | dict[int, int]]
_RELATION_HEADS = 48
_INSIDES = {"hidden": "hidden states", "attention": "attention probabilities", "scores": "attention scores"} | {
    kind: f"{kind} of the attention" for kind in ("queries", "keys", "values")
}


@dataclass(frozen=True)
class Models:
    """What the terms of one training are held against.

    Attributes:
        loaded: the recipe and where its values stand.
        teachers: those that teach here.
        given: names of those that the user named; where an assistant teaches, it stands in for all of them.
        student: as planned.
        problems: where everything that is wrong is noted.
    """

    loaded: LoadedRecipe
    teachers: Sequence[Checkpoint]
    given: Sequence[str]
    student: Blueprint
    problems: Problems

    def where(self, path: KeyPath) -> str:
        """The place of a value of the recipe, as messages begin."""
        return self.loaded.document.where(path)

    def depth(self, name: str) -> int:
        """How many layers a teacher has."""
        return next(teacher.layers for teacher in self.teachers if teacher.name == name)


def plan_term(loss: Loss, path: KeyPath, models: Models) -> TermPlan:
    """Resolve one term; what cannot be resolved is left out and noted as a problem.

    Args:
        loss: the term.
        path: its key path in the recipe.
        models: what it is held against.
    """
    if not isinstance(loss, TeacherLoss):
        return TermPlan(loss=loss)
    teachers = _teachers(loss, path, models)
    _refuse_unserved(loss, teachers, path, models)
    if isinstance(loss, SoftLabels) and (loss.teachers is None or len(teachers) == len(set(loss.teachers))):
        _check_weighting(loss, teachers, path, models)
    layers = _layers(loss, teachers, path, models) if isinstance(loss, LayeredLoss) and compares_layers(loss) else {}
    heads: Heads = {}
    projected: dict[str, Side | None] = {}
    if isinstance(loss, AttentionKl | AttentionMse):
        heads = _heads(loss, teachers, path, models)
    relation_heads = _relation_heads(loss, teachers, path, models) if isinstance(loss, RelationKl) else {}
    if isinstance(loss, HiddenMse | HiddenCosine):
        projected = _projections(loss, teachers, path, models)
    if isinstance(loss, Relational):
        _check_group(loss, path, models)
    return TermPlan(
        loss=loss,
        teachers=[teacher.name for teacher in teachers],
        layers=layers,
        heads=heads,
        relation_heads=relation_heads,
        projected=projected,
    )


def _teachers(loss: TeacherLoss, path: KeyPath, models: Models) -> list[Checkpoint]:
    if loss.teachers is None:
        return list(models.teachers)
    for name in loss.teachers:
        refuse_unknown(name, (*path, "teachers"), models.given, models.loaded, models.problems)
    if not any(teacher.name in models.given for teacher in models.teachers):
        return list(models.teachers)
    return [teacher for teacher in models.teachers if teacher.name in loss.teachers]


def refuse_unknown(name: str, path: KeyPath, names: Sequence[str], loaded: LoadedRecipe, problems: Problems) -> None:
    """Note a teacher's name that nobody has."""
    if name not in names:
        problems.add(
            loaded.document.where(path),
            f"there is no teacher {name!r}",
            expected="one of " + ", ".join(names),
            remedy=did_you_mean(name, names),
        )


def _named(spec: Any, key: str, path: KeyPath, models: Models) -> None:
    """Check the teachers' names in a map by teacher."""
    for name in spec if isinstance(spec, dict) else ():
        refuse_unknown(str(name), (*path, key, name), models.given, models.loaded, models.problems)


def kinds_needed(loss: Loss) -> frozenset[str]:
    """What a loss must see of the insides of both sides (the kinds of :class:`~kdcli.models.output.Wanted`)."""
    if isinstance(loss, HiddenMse | HiddenCosine | RandomLayers) or (isinstance(loss, Relational) and loss.states != "logits"):
        return frozenset({"hidden"})
    if isinstance(loss, RelationKl):
        return frozenset(loss.relations)
    return frozenset({"attention-kl": ["attention"], "attention-mse": ["scores"]}.get(loss.loss, []))


def compares_layers(loss: Loss) -> bool:
    """Whether a loss goes by a layer map."""
    return isinstance(loss, LayeredLoss) and not (isinstance(loss, Relational) and loss.states == "logits")


def _refuse_unserved(loss: Loss, teachers: Sequence[Checkpoint], path: KeyPath, models: Models) -> None:
    needed = kinds_needed(loss)
    sides: list[tuple[str, Any]] = [(f"teacher {teacher.name}", teacher.config) for teacher in teachers]
    for side, config in [*sides, ("the student", models.student.config)]:
        served = insides(config)
        if needed <= served:
            continue
        remedy = "loss: hidden-mse" if "hidden" in served else "loss: soft-labels"
        if "attention" in served:
            remedy = "loss: attention-kl (the probabilities are shown)"
        models.problems.add(
            models.where((*path, "loss")),
            f"{loss.loss} cannot be served by {config.model_type} ({side})",
            expected="an architecture that shows its " + ", ".join(_INSIDES[kind] for kind in sorted(needed - served)),
            found=f"{config.model_type} shows " + (", ".join(_INSIDES[kind] for kind in sorted(served)) or "its answers alone"),
            remedy=remedy,
        )


def _check_weighting(loss: SoftLabels, teachers: Sequence[Checkpoint], path: KeyPath, models: Models) -> None:
    names = [teacher.name for teacher in teachers]
    weighed = [name for name in names if name in models.given]
    if isinstance(loss.weighting, dict):
        for name in loss.weighting:
            refuse_unknown(name, (*path, "weighting", name), models.given, models.loaded, models.problems)
        missing = [name for name in weighed if name not in loss.weighting]
        if missing:
            models.problems.add(
                models.where((*path, "weighting")), "has no weight for every teacher", expected="also " + ", ".join(missing)
            )
        elif weighed and not sum(loss.weighting[name] for name in weighed):
            models.problems.add(
                models.where((*path, "weighting")), "the teachers' weights sum to zero", expected="one above 0 at least"
            )
    if loss.draw is not None:
        _refuse_what_needs_all(loss, path, models)
    for key, asks in (("draw", loss.draw is not None), ("weighting", loss.weighting == "uncertainty")):
        if asks and len(names) < 2:
            models.problems.add(
                models.where((*path, key)),
                "needs two teachers or more to choose from",
                found=", ".join(names),
                remedy="--teachers with another one, or a recipe for one teacher such as soft-labels",
            )


def _refuse_what_needs_all(loss: SoftLabels, path: KeyPath, models: Models) -> None:
    """A step that asks one teacher cannot compare it with the others."""
    needs_all = {
        "weighting": loss.weighting in ("softmax-error", "agreement", "uncertainty"),
        "normalise_weights": loss.normalise_weights,
        "scale": loss.scale != "none",
        "unlabelled_weighting": loss.unlabelled_weighting == "agreement",
        "unlabelled_scale": loss.unlabelled_scale not in (None, "none"),
    }
    for key, asked in needs_all.items():
        if asked:
            models.problems.add(
                models.where((*path, key)),
                "compares the teachers with each other, and with draw a step asks one of them alone",
                expected="weighting: uniform, inverse-error, confidence or a map; no scale; weights as they are",
                found=f"{key}: {getattr(loss, key)}",
                remedy="draw: null",
            )


def _layers(loss: LayeredLoss, teachers: Sequence[Checkpoint], path: KeyPath, models: Models) -> dict[str, dict[int, int]]:
    assert isinstance(loss, LayerLoss)
    own = loss.layers is not None
    spec, base = (loss.layers, (*path, "layers")) if own else (models.loaded.recipe.layers, ("layers",))
    if own:
        _named(loss.layers, "layers", path, models)
    maps = {}
    for teacher in teachers:
        chosen: Any = spec.get(teacher.name, "uniform") if isinstance(spec, dict) else spec
        place: KeyPath = (*base, teacher.name) if isinstance(spec, dict) else base
        try:
            pairs = resolve(chosen, models.student.plan.layers, teacher.layers)
        except LayerMapError as error:
            count = models.student.plan.layers
            teacher_side = "" if error.of_student else f"; teacher {teacher.name} is {teacher.reference}"
            models.problems.add(
                models.where(place),
                str(error),
                expected=error.expected + teacher_side,
                found=f"{chosen} for a student of {count} layer{'s' if count > 1 else ''}",
                remedy=error.remedy,
            )
            continue
        if 0 in (*pairs, *pairs.values()) and kinds_needed(loss) - {"hidden"}:
            models.problems.add(
                models.where(place),
                f"layer 0 is the embeddings, which have no attention for {loss.loss}",
                expected="layers from 1",
                found=str(pairs),
            )
        maps[teacher.name] = pairs
    return maps


def _heads(loss: AttentionKl | AttentionMse, teachers: Sequence[Checkpoint], path: KeyPath, models: Models) -> Heads:
    _named(loss.heads, "heads", path, models)
    ours, resolved = models.student.plan.heads, Heads()
    for teacher in teachers:
        spec = loss.heads.get(teacher.name, "auto") if isinstance(loss.heads, dict) else loss.heads
        place: KeyPath = (*path, "heads", teacher.name) if isinstance(loss.heads, dict) else (*path, "heads")
        if isinstance(spec, dict):
            _refuse_missing_heads(spec, teacher, place, models)
            resolved[teacher.name] = spec
        elif spec == "match" and ours != teacher.heads:
            models.problems.add(
                models.where(place),
                f"the numbers of heads differ, so that they cannot be matched (teacher {teacher.name})",
                expected=f"{ours} heads, as the student has",
                found=f"{teacher.heads}",
                remedy=f"heads: mean, or a map such as {{{teacher.name}: {{1: 1}}}} (student head: teacher head)",
            )
        else:
            resolved[teacher.name] = "mean" if spec == "mean" or ours != teacher.heads else "match"
    return resolved


def _refuse_missing_heads(pairs: Mapping[int, int], teacher: Checkpoint, place: KeyPath, models: Models) -> None:
    for side, heads, count in (
        ("student", pairs.keys(), models.student.plan.heads),
        (f"teacher {teacher.name}", pairs.values(), teacher.heads),
    ):
        beyond = [head for head in heads if head > count]
        if beyond:
            models.problems.add(models.where(place), f"{side} head {beyond[0]} does not exist", expected=f"1..{count}")


def _relation_heads(loss: RelationKl, teachers: Sequence[Checkpoint], path: KeyPath, models: Models) -> dict[str, int | None]:
    student, resolved = models.student.plan, {}
    asked, place = loss.relation_heads, (*path, "relation_heads")
    for teacher in teachers:
        widths = (student.width, teacher.width)
        common = max(count for count in range(1, _RELATION_HEADS + 1) if not any(width % count for width in widths))
        if asked is None and student.heads != teacher.heads:
            models.problems.add(
                models.where(place),
                f"the numbers of heads differ ({student.heads} and {teacher.heads} of teacher {teacher.name})",
                expected="a number of relation heads that both widths can be cut into",
                remedy="relation_heads: auto",
            )
        elif isinstance(asked, int) and any(width % asked for width in widths):
            models.problems.add(
                models.where(place),
                "does not divide both widths",
                expected=f"a divisor of {student.width} (student) and {teacher.width} (teacher {teacher.name})",
                found=str(asked),
                remedy=f"relation_heads: {common}",
            )
        resolved[teacher.name] = common if asked == "auto" else asked
    return resolved


def _projections(
    loss: HiddenMse | HiddenCosine, teachers: Sequence[Checkpoint], path: KeyPath, models: Models
) -> dict[str, Side | None]:
    ours = models.student.plan.width
    unlike = [teacher for teacher in teachers if teacher.width != ours]
    if loss.projection is None and unlike:
        models.problems.add(
            models.where((*path, "projection")),
            "the widths differ, so a projection is needed",
            expected=f"{ours} on both sides",
            found=", ".join(f"{teacher.name} {teacher.width}" for teacher in unlike),
            remedy="projection: auto",
        )
    if isinstance(loss.projection, Projection):
        return {teacher.name: loss.projection.side for teacher in teachers}
    return {teacher.name: "student" if loss.projection and teacher in unlike else None for teacher in teachers}


def _check_group(loss: Relational, path: KeyPath, models: Models) -> None:
    batch = settled(models.loaded.recipe.training.batch_size)
    if loss.group is not None and loss.group > batch:
        models.problems.add(
            models.where((*path, "group")), "is larger than the batch", expected=f"3..{batch}", found=str(loss.group)
        )
    if not loss.distance_weight + loss.angle_weight:
        models.problems.add(models.where(path), "distance_weight and angle_weight sum to zero", expected="one above 0 at least")
