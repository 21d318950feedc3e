"""Layer maps: which teacher layer supervises which student layer. Layer 0 is the embeddings, layer 1 the first block."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from kdcli.recipe.blocks import form_of

NamedLayerMap = Literal["uniform", "first", "last", "skip", "last-intermediate", "middle", "top", "embeddings"]
LayerPairs = Annotated[
    dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]],
    Field(min_length=1, description="student layer: teacher layer; 0 is the embeddings, 1 the first block"),
]
TeacherLayers = Annotated[Annotated[NamedLayerMap, Tag("<name>")] | Annotated[LayerPairs, Tag("<map>")], Discriminator(form_of)]
Layers = Annotated[
    Annotated[NamedLayerMap, Tag("<name>")] | Annotated[dict[str, TeacherLayers], Field(min_length=1), Tag("<map>")],
    Discriminator(form_of),
]


class LayerMapError(ValueError):
    """A layer map that cannot be resolved, with what was expected and what would help.

    Attributes:
        of_student: it does not fit the student, whoever teaches it.
    """

    def __init__(self, what: str, expected: str, remedy: str = "", of_student: bool = False) -> None:
        super().__init__(what)
        self.expected = expected
        self.remedy = remedy
        self.of_student = of_student


def named_map(name: NamedLayerMap, student_layers: int, teacher_layers: int) -> dict[int, int]:
    """The pairs that a name stands for, of a student of K layers and a teacher of T.

    ``uniform`` matches student layer j with teacher layer j·T/K (MT-BERT, §3.2; halves round up), so that the last
    layers meet; ``first`` matches j with j; ``last`` matches j with T − K + j. ``skip`` is ``uniform`` without the top
    layer and ``last-intermediate`` the last K − 1 teacher layers below the top (Patient KD's two choices). ``middle``
    matches K/2 with T/2, ``top`` K with T, ``embeddings`` 0 with 0.

    >>> named_map("uniform", 4, 12)
    {1: 3, 2: 6, 3: 9, 4: 12}
    >>> named_map("last", 2, 6)
    {1: 5, 2: 6}
    >>> named_map("last-intermediate", 6, 12)
    {1: 7, 2: 8, 3: 9, 4: 10, 5: 11}

    Raises:
        LayerMapError: the student is deeper than the teacher, or has no layer below the top.
    """
    if name == "embeddings":
        return {0: 0}
    if name == "top":
        return {student_layers: teacher_layers}
    if name == "middle":
        return {max(1, student_layers // 2): max(1, teacher_layers // 2)}
    if student_layers > teacher_layers:
        raise LayerMapError(
            f"layer map {name!r} needs a teacher at least as deep as the student",
            f"at most {teacher_layers} student layers (the teacher has {teacher_layers}), or an explicit map",
            f"--student {teacher_layers}L, or an explicit map such as {{bert: {{1: 1, {student_layers}: {teacher_layers}}}}}",
        )
    if name in ("skip", "last-intermediate") and student_layers == 1:
        raise LayerMapError(
            f"layer map {name!r} leaves the top layer out, and the student has no other",
            "a student of two layers or more, or another map",
            "layers: uniform",
            of_student=True,
        )
    rows = range(1, student_layers + 1)
    if name == "first":
        return {row: row for row in rows}
    if name == "last":
        return {row: teacher_layers - student_layers + row for row in rows}
    if name == "last-intermediate":
        return {row: teacher_layers - student_layers + row for row in rows[:-1]}
    uniform = {row: (2 * row * teacher_layers + student_layers) // (2 * student_layers) for row in rows}
    if name == "skip":
        del uniform[student_layers]
    return uniform


def resolve(spec: NamedLayerMap | dict[int, int], student_layers: int, teacher_layers: int) -> dict[int, int]:
    """A layer map as pairs ``{student layer: teacher layer}``, checked against both depths.

    Raises:
        LayerMapError: a layer does not exist on one of the two sides, or a name does not fit the depths.
    """
    if isinstance(spec, str):
        return named_map(spec, student_layers, teacher_layers)
    for side, layers, depth in (("student", spec.keys(), student_layers), ("teacher", spec.values(), teacher_layers)):
        for layer in layers:
            if not 0 <= layer <= depth:
                raise LayerMapError(
                    f"{side} layer {layer} does not exist",
                    f"0..{depth} (the {side} has {depth} layers; 0 is the embeddings)",
                    _fitting_map(student_layers, teacher_layers),
                )
    return dict(sorted(spec.items()))


def _fitting_map(student_layers: int, teacher_layers: int) -> str:
    if student_layers > teacher_layers:
        return ""
    return f"layers: uniform   → {named_map('uniform', student_layers, teacher_layers)}"
