"""Recipes with one mistake each, and what is said of it: where it was written, what is wrong, expected, found, remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kdcli.errors import Problem

Sizes = tuple[str, int, int, int]
BERT: dict[str, Sizes] = {"bert": ("bert", 4, 32, 4)}
ROBERTA: dict[str, Sizes] = {"roberta": ("roberta", 6, 48, 4)}
BOTH = BERT | ROBERTA
EIGHT_HEADS: dict[str, Sizes] = {"eight": ("bert", 4, 32, 8)}
ALBERT: dict[str, Sizes] = {"albert": ("albert", 4, 32, 4)}


def other(kind: str) -> dict[str, Sizes]:
    """A teacher of another architecture, called ``other``."""
    return {"other": (kind, 4, 32, 4)}


def recipe(
    term: str = "soft-labels",
    *,
    layers: str = "uniform",
    student: str = "{}",
    teachers: str = "{}",
    assistants: str = "[]",
    training: str = "{}",
    freeze: str = "[]",
    until: str = "null",
    expand: str = "null",
    hard: float = 0,
) -> str:
    """A recipe in which everything stands in a line of its own."""
    return f"""\
name: mine
layers: {layers}
student: {student}
teachers: {teachers}
assistants: {assistants}
training: {training}
stages:
  - name: one
    freeze: {freeze}
    until: {until}
    expand: {expand}
    objective:
      - {{loss: hard-labels, weight: {hard}}}
      - {{loss: {term}}}
"""


LINES = {
    "layers": 2,
    "student": 3,
    "teachers": 4,
    "assistants": 5,
    "training": 6,
    "stages.0.freeze": 9,
    "stages.0.until": 10,
    "stages.0.expand": 11,
    "stages.0.objective": 12,
    "stages.0.objective.1": 14,
}
TERM = "stages.0.objective.1"


def line_of(path: str) -> int:
    """The line of the block that a key path leads into."""
    parts = path.split(".")
    return next(LINES[".".join(parts[:length])] for length in range(len(parts), 0, -1) if ".".join(parts[:length]) in LINES)


@dataclass(frozen=True)
class Wrong:
    """A recipe with one mistake, and what is said of it (parts of the texts; an empty one must be empty)."""

    about: str
    path: str
    what: str
    expected: str = ""
    found: str = ""
    remedy: str = ""
    term: str = "soft-labels"
    rest: dict[str, Any] = field(default_factory=dict)
    models: dict[str, Sizes] = field(default_factory=lambda: BOTH)
    student: str = "2L"

    @property
    def text(self) -> str:
        return recipe(self.term, **self.rest)


def assert_said(problem: Problem, wrong: Wrong, origin: str = "mine.yaml") -> None:
    """The problem is the one that was foreseen, at its line and key path."""
    assert problem.where == f"{origin}:{line_of(wrong.path)}  {wrong.path}"
    for said, part in (
        (problem.what, wrong.what),
        (problem.expected, wrong.expected),
        (problem.found, wrong.found),
        (problem.remedy, wrong.remedy),
    ):
        assert part in said if part else not said


LAYER_MAPS = [
    Wrong(
        "missing teacher layer",
        "layers.bert",
        "teacher layer 9 does not exist",
        "0..4 (the teacher has 4 layers; 0 is the embeddings); teacher bert is ",
        "{1: 9} for a student of 2 layers",
        "layers: uniform   → {1: 2, 2: 4}",
        term="hidden-mse",
        rest={"layers": "{bert: {1: 9}}"},
    ),
    Wrong(
        "missing student layer",
        "layers.roberta",
        "student layer 3 does not exist",
        "0..2 (the student has 2 layers; 0 is the embeddings); teacher roberta is ",
        "{1: 1, 3: 4} for a student of 2 layers",
        "layers: uniform   → {1: 3, 2: 6}",
        term="attention-kl",
        rest={"layers": "{roberta: {1: 1, 3: 4}}"},
    ),
    Wrong(
        "missing layer in the term's own map",
        f"{TERM}.layers.roberta",
        "teacher layer 7 does not exist",
        "0..6 ",
        "{2: 7} for a student of 2 layers",
        "layers: uniform   → {1: 3, 2: 6}",
        term="relational, layers: {roberta: {2: 7}, bert: top}",
        rest={"layers": "last"},
    ),
    Wrong(
        "map by name for a deeper student",
        "layers",
        "layer map 'last' needs a teacher at least as deep as the student",
        "at most 4 student layers (the teacher has 4), or an explicit map; teacher bert is ",
        "last for a student of 5 layers",
        "--student 4L, or an explicit map",
        term="hidden-mse",
        rest={"layers": "last", "student": "{init: {from: roberta}}"},
        student="5L",
    ),
    Wrong(
        "map by name of one teacher for a deeper student",
        f"{TERM}.layers.bert",
        "layer map 'uniform' needs a teacher at least as deep as the student",
        "at most 4 student layers",
        "uniform for a student of 6 layers",
        "--student 4L, or an explicit map",
        term="hidden-mse, layers: {bert: uniform, roberta: top}",
        rest={"student": "{init: {from: roberta}}"},
        student="6L",
    ),
    Wrong(
        "nothing below the top",
        "layers",
        "layer map 'skip' leaves the top layer out, and the student has no other",
        "a student of two layers or more, or another map",
        "skip for a student of 1 layer",
        "layers: uniform",
        term="hidden-mse",
        rest={"layers": "skip"},
        models=BERT,
        student="1L",
    ),
    Wrong(
        "nothing below the top in the term's own map",
        f"{TERM}.layers",
        "layer map 'last-intermediate' leaves the top layer out, and the student has no other",
        "a student of two layers or more, or another map",
        "last-intermediate for a student of 1 layer",
        "layers: uniform",
        term="hidden-cosine, layers: last-intermediate",
        models=BERT,
        student="1L",
    ),
    *(
        Wrong(
            f"{loss} on embeddings, {layers}",
            f"{TERM}.layers{'.bert' if '{' in layers else ''}",
            f"layer 0 is the embeddings, which have no attention for {loss}",
            "layers from 1",
            found,
            term=f"{loss}, layers: {layers}",
            models=BERT,
        )
        for loss in ("attention-kl", "attention-mse", "relation-kl")
        for layers, found in (
            ("embeddings", "{0: 0}"),
            ("{bert: {1: 0}}", "{1: 0}"),
            ("{bert: {2: 4, 0: 1}}", "{0: 1, 2: 4}"),
        )
    ),
]

ARCHITECTURES = [
    *(
        Wrong(
            f"attention-mse, {kind} teaches",
            f"{TERM}.loss",
            f"attention-mse cannot be served by {kind} (teacher other)",
            "an architecture that shows its attention scores",
            f"{kind} shows attention probabilities, hidden states, keys of the attention, queries of the attention, values",
            "loss: attention-kl",
            term="attention-mse",
            models=BERT | other(kind),
        )
        for kind in ("mpnet", "deberta-v2")
    ),
    *(
        Wrong(
            f"attention-mse, {kind} learns",
            f"{TERM}.loss",
            f"attention-mse cannot be served by {kind} (the student)",
            "an architecture that shows its attention scores",
            f"{kind} shows attention probabilities, hidden states, keys of the attention, queries of the attention, values",
            "loss: attention-kl",
            term="attention-mse, teachers: [bert]",
            rest={"student": "{init: {from: other}}"},
            models=BERT | other(kind),
        )
        for kind in ("mpnet", "deberta-v2")
    ),
    *(
        Wrong(
            f"{loss}, convbert {does}",
            f"{TERM}.loss",
            f"{loss.partition(',')[0]} cannot be served by convbert ({side})",
            shown,
            "convbert shows hidden states",
            "loss: hidden-mse",
            term=f"{loss}{more}",
            rest={"student": f"{{init: {{from: {source}}}}}"},
            models=BERT | other("convbert"),
        )
        for loss, shown in (
            ("attention-kl", "an architecture that shows its attention probabilities"),
            ("attention-mse", "an architecture that shows its attention scores"),
            ("relation-kl", "its keys of the attention, queries of the attention, values of the attention"),
            ("relation-kl, relations: [values]", "an architecture that shows its values of the attention"),
        )
        for does, side, more, source in (
            ("teaches", "teacher other", "", "bert"),
            ("learns", "the student", ", teachers: [bert]", "other"),
        )
        if not (loss.endswith("]") and does == "learns")
    ),
    *(
        Wrong(
            f"{loss}, squeezebert {does}",
            f"{TERM}.loss",
            f"{loss} cannot be served by squeezebert ({side})",
            "an architecture that shows its hidden states",
            "squeezebert shows its answers alone",
            "loss: soft-labels",
            term=f"{loss}{more}",
            rest={"student": f"{{init: {{from: {source}}}}}"},
            models=BERT | other("squeezebert"),
        )
        for loss in ("hidden-mse", "hidden-cosine", "relational", "random-layers")
        for does, side, more, source in (
            ("teaches", "teacher other", "", "bert"),
            ("learns", "the student", ", teachers: [bert]", "other"),
        )
    ),
]

WIDTHS_AND_HEADS = [
    *(
        Wrong(
            f"{loss} without a projection",
            f"{TERM}.projection",
            "the widths differ, so a projection is needed",
            "32 on both sides",
            "roberta 48",
            "projection: auto",
            term=f"{loss}, projection: null",
        )
        for loss in ("hidden-mse", "hidden-cosine")
    ),
    *(
        Wrong(
            f"{loss} with unlike heads",
            f"{TERM}.heads",
            "the numbers of heads differ, so that they cannot be matched (teacher eight)",
            "4 heads, as the student has",
            "8",
            "heads: mean, or a map such as {eight: {1: 1}}",
            term=f"{loss}, heads: match",
            models=BERT | EIGHT_HEADS,
        )
        for loss in ("attention-kl", "attention-mse")
    ),
    Wrong(
        "unlike heads of one teacher",
        f"{TERM}.heads.eight",
        "the numbers of heads differ, so that they cannot be matched (teacher eight)",
        "4 heads, as the student has",
        "8",
        "heads: mean",
        term="attention-kl, heads: {bert: match, eight: match}",
        models=BERT | EIGHT_HEADS,
    ),
    Wrong(
        "missing student head",
        f"{TERM}.heads.bert",
        "student head 5 does not exist",
        "1..4",
        term="attention-kl, heads: {bert: {1: 1, 5: 2}}",
    ),
    Wrong(
        "missing teacher head",
        f"{TERM}.heads.eight",
        "teacher eight head 9 does not exist",
        "1..8",
        term="attention-mse, heads: {eight: {1: 8, 2: 9}}",
        models=BERT | EIGHT_HEADS,
    ),
    Wrong(
        "relation heads that divide one width alone",
        f"{TERM}.relation_heads",
        "does not divide both widths",
        "a divisor of 32 (student) and 48 (teacher roberta)",
        "32",
        "relation_heads: 16",
        term="relation-kl, relation_heads: 32",
    ),
    Wrong(
        "relation heads that divide nothing",
        f"{TERM}.relation_heads",
        "does not divide both widths",
        "a divisor of 32 (student) and 32 (teacher bert)",
        "7",
        "relation_heads: 32",
        term="relation-kl, relation_heads: 7",
        models=BERT,
    ),
    Wrong(
        "the attention's own heads for relations, which are unlike",
        f"{TERM}.relation_heads",
        "the numbers of heads differ (4 and 8 of teacher eight)",
        "a number of relation heads that both widths can be cut into",
        "",
        "relation_heads: auto",
        term="relation-kl, relation_heads: null",
        models=BERT | EIGHT_HEADS,
    ),
]

NOTHING_TRAINED = [
    Wrong(
        "all weights zero",
        "stages.0.objective",
        "stage one trains nothing: the weights of its losses sum to zero",
        "a weight above 0",
        term="soft-labels, weight: 0",
    ),
    Wrong(
        "everything frozen",
        "stages.0.freeze",
        "stage one trains nothing",
        "a part of the student that its losses reach and that is not frozen",
        "losses reach embeddings, layers 1–2, head; frozen: embeddings, layers 1–2, head",
        rest={"freeze": "[embeddings, 1, 2, head]"},
    ),
    Wrong(
        "a loss on the embeddings, which are frozen",
        "stages.0.freeze",
        "stage one trains nothing",
        "a part of the student",
        "losses reach embeddings; frozen: embeddings",
        term="hidden-mse, layers: embeddings",
        rest={"freeze": "[embeddings]"},
    ),
    Wrong(
        "a loss on the lower half, which is frozen",
        "stages.0.freeze",
        "stage one trains nothing",
        "a part of the student",
        "losses reach embeddings, layer 1; frozen: embeddings, layer 1",
        term="attention-kl, layers: {bert: {1: 2}, roberta: {1: 3}}",
        rest={"freeze": "[embeddings, 1]"},
    ),
    Wrong(
        "one of the expanded stages",
        "stages.0.freeze",
        "stage one-1 trains nothing",
        "a part of the student",
        "losses reach embeddings, layer 1; frozen: embeddings, layer 1",
        term="hidden-cosine",
        rest={"freeze": "[embeddings, 1]", "expand": "progressive"},
    ),
    Wrong(
        "a layer that does not exist is frozen",
        "stages.0.freeze",
        "student layer 7 does not exist",
        "1..2",
        rest={"freeze": "[embeddings, 2, 7]"},
    ),
    Wrong(
        "one of layers that share their weights is frozen",
        "stages.0.freeze",
        "the layers of albert share their weights",
        "all layers 1..2, or none",
        "layer 2",
        rest={"freeze": "[2]"},
        models=ALBERT,
    ),
    Wrong(
        "layers that share their weights are expanded and one is frozen",
        "stages.0.freeze",
        "the layers of albert share their weights",
        "all layers 1..3, or none",
        "layers 1–2",
        term="hidden-mse",
        rest={"freeze": "[1, 2]", "expand": "stacked"},
        models=ALBERT,
        student="3L",
    ),
]

NAMES = [
    Wrong(
        f"unknown teacher in {path}",
        path,
        "there is no teacher 'brt'",
        "one of bert, roberta",
        "",
        "did you mean 'bert'?",
        term=term,
        rest=rest,
    )
    for path, term, rest in (
        ("layers.brt", "hidden-mse", {"layers": "{brt: uniform}"}),
        ("layers.brt", "hard-labels", {"layers": "{brt: {1: 1}, bert: top}"}),
        ("student.init.from", "soft-labels", {"student": "{init: {from: brt}}"}),
        ("teachers.labels.brt", "soft-labels", {"teachers": "{labels: {brt: [a, b]}}"}),
        (f"{TERM}.teachers", "soft-labels, teachers: [roberta, brt]", {}),
        (f"{TERM}.teachers", "hidden-mse, teachers: [bert, brt]", {}),
        (f"{TERM}.teachers", "random-layers, teachers: [bert, brt]", {}),
        (f"{TERM}.teachers", "logits-mse, teachers: [bert, brt]", {}),
        (f"{TERM}.layers.brt", "hidden-mse, layers: {brt: top}", {}),
        (f"{TERM}.layers.brt", "relation-kl, layers: {brt: top, roberta: top}", {}),
        (f"{TERM}.heads.brt", "attention-kl, heads: {brt: mean}", {}),
        (f"{TERM}.heads.brt", "attention-mse, heads: {brt: {1: 1}, bert: match}", {}),
        (f"{TERM}.weighting.brt", "soft-labels, weighting: {bert: 1, roberta: 1, brt: 1}", {}),
    )
]

WEIGHTS = [
    Wrong(
        "a weight is missing",
        f"{TERM}.weighting",
        "has no weight for every teacher",
        "also roberta",
        term="soft-labels, weighting: {bert: 1}",
    ),
    Wrong(
        "weights sum to zero",
        f"{TERM}.weighting",
        "the teachers' weights sum to zero",
        "one above 0",
        term="soft-labels, weighting: {bert: 0, roberta: 0.0}",
    ),
    Wrong(
        "weights of the term's own teachers sum to zero",
        f"{TERM}.weighting",
        "the teachers' weights sum to zero",
        "one above 0",
        term="soft-labels, teachers: [roberta], weighting: {roberta: 0}",
    ),
    *(
        Wrong(
            f"{key}: {value} with {about}",
            f"{TERM}.{key}",
            "needs two teachers or more to choose from",
            "",
            "bert",
            "--teachers with another one",
            term=f"soft-labels{more}, {key}: {value}",
            models=models,
        )
        for key, value in (("draw", "uniform"), ("draw", "ranked"), ("weighting", "uncertainty"))
        for about, more, models in (("one teacher", "", BERT), ("one of two teachers", ", teachers: [bert]", BOTH))
    ),
    *(
        Wrong(
            f"draw with {setting}",
            f"{TERM}.{setting.partition(':')[0]}",
            "compares the teachers with each other, and with draw a step asks one of them alone",
            "weighting: uniform, inverse-error, confidence or a map",
            setting.replace("true", "True"),
            "draw: null",
            term=f"soft-labels, draw: ranked, {setting}",
        )
        for setting in (
            "weighting: softmax-error",
            "weighting: agreement",
            "weighting: uncertainty",
            "normalise_weights: true",
            "scale: correctness",
            "scale: agreement",
        )
    ),
    Wrong(
        "distances and angles both without weight",
        TERM,
        "distance_weight and angle_weight sum to zero",
        "one above 0",
        term="relational, distance_weight: 0, angle_weight: 0",
    ),
    Wrong(
        "group larger than the batch",
        f"{TERM}.group",
        "is larger than the batch",
        "3..16",
        "17",
        term="relational, group: 17",
        rest={"training": "{batch_size: 16}"},
    ),
]

STAGES = [
    Wrong(
        "until names a loss that is not there",
        "stages.0.until.loss",
        "stage one has no loss 'soft-label'",
        "one of soft-labels",
        "",
        "did you mean 'soft-labels'?",
        rest={"until": "{loss: soft-label, below: 1}"},
    ),
    Wrong(
        "until names a loss of weight zero",
        "stages.0.until.loss",
        "stage one has no loss 'hard-labels'",
        "one of soft-labels",
        rest={"until": "{loss: hard-labels, below: 1}"},
        remedy="did you mean",
    ),
    Wrong(
        "until names a loss that has another name",
        "stages.0.until.loss",
        "stage one has no loss 'hidden-mse'",
        "one of states",
        term="hidden-mse, name: states",
        rest={"until": "{loss: hidden-mse, below: 1}"},
    ),
    Wrong(
        "nothing to expand",
        "stages.0.expand",
        "there is no loss on layers in this stage to be expanded",
        "attention-kl, hidden-cosine",
        "hard-labels, soft-labels",
        rest={"expand": "progressive", "hard": 1},
    ),
    Wrong(
        "random layers are nothing to expand",
        "stages.0.expand",
        "there is no loss on layers in this stage to be expanded",
        "attention-kl, hidden-cosine",
        "random-layers",
        term="random-layers",
        rest={"expand": "stacked"},
    ),
    Wrong(
        "two terms of one name",
        "stages.0.objective",
        "two terms have the name 'hard-labels'",
        term="soft-labels, name: hard-labels",
        rest={"hard": 1},
    ),
]

STUDENTS = [
    *(
        Wrong(
            f"assistant {size} is not between",
            "assistants.0",
            "is not an assistant between its teacher and the student",
            "midway, or a size of more than 2 and less than 4 layers, such as 3L",
            size,
            rest={"assistants": f"[{size}]"},
        )
        for size in ("1L", "2L", "4L", "5L", "8X", "three")
    ),
    Wrong(
        "assistant is not between the one before and the student",
        "assistants.1",
        "is not an assistant between its teacher and the student",
        "midway, or a size of more than 2 and less than 4 layers, such as 3L",
        "5L",
        rest={"assistants": "[4L, 5L]"},
        models=ROBERTA,
    ),
    Wrong(
        "no room for an assistant midway",
        "assistants.0",
        "is not an assistant between its teacher and the student",
        "a student that is two layers or more shallower than bert (4 layers; the student has 3)",
        "midway",
        rest={"assistants": "[midway]"},
        student="3L",
    ),
    Wrong(
        "room for one assistant midway but not for two",
        "assistants.1",
        "is not an assistant between its teacher and the student",
        "a student that is two layers or more shallower than assistant-1 (3 layers; the student has 2)",
        "midway",
        rest={"assistants": "[midway, midway]"},
    ),
    Wrong(
        "map that does not say which layers to copy",
        "student.init.layers",
        "the recipe's layer map does not say which layers to copy",
        "a teacher layer for each student layer 1..3",
        "layers: top, nothing for 1, 2",
        "layers: uniform, or student.init.layers: uniform",
        rest={"layers": "top", "student": "{init: {layers: matched}}"},
        student="3L",
    ),
    Wrong(
        "map that matches a layer with the embeddings does not say which layer to copy",
        "student.init.layers",
        "the recipe's layer map does not say which layers to copy",
        "a teacher layer for each student layer 1..2",
        "layers: {1: 0, 2: 3}, nothing for 1",
        "layers: uniform",
        rest={"layers": "{bert: {1: 0, 2: 3}}", "student": "{init: {layers: matched}}"},
    ),
    Wrong(
        "list of layers to copy that is too short",
        "student.init.layers",
        "does not fit the student",
        "2 layers out of 1..4",
        "[1]",
        rest={"student": "{init: {layers: [1]}}"},
    ),
    Wrong(
        "list of layers to copy that goes beyond the teacher",
        "student.init.layers",
        "does not fit the student",
        "2 layers out of 1..4",
        "[1, 5]",
        rest={"student": "{init: {layers: [1, 5]}}"},
    ),
    Wrong(
        "copied map names a layer that is not there",
        "layers.bert",
        "teacher layer 9 does not exist",
        "0..4 ",
        "{1: 9}",
        "layers: uniform   → {1: 2, 2: 4}",
        rest={"layers": "{bert: {1: 9}}", "student": "{init: {layers: matched}}"},
    ),
]

ALL = [*LAYER_MAPS, *ARCHITECTURES, *WIDTHS_AND_HEADS, *NOTHING_TRAINED, *NAMES, *WEIGHTS, *STAGES, *STUDENTS]
