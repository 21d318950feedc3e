"""What is said of a wrong key or value: the nearest right one, and everything that is allowed there."""

from __future__ import annotations

import pytest

from kdcli.errors import Problem, RequestError
from kdcli.recipe.loading import loads

TEXT = """\
name: mine
{top}
stages:
  - name: one
    {stage}
    objective:
      - {{loss: hard-labels, weight: 0.5}}
      - {{loss: {term}}}
"""
TERM = "stages.0.objective.1"
MAPS = ["uniform", "first", "last", "skip", "last-intermediate", "middle", "top", "embeddings"]
LOSSES = [
    "hard-labels",
    "soft-labels",
    "logits-mse",
    "hidden-mse",
    "hidden-cosine",
    "attention-kl",
    "attention-mse",
    "relation-kl",
    "relational",
    "random-layers",
]


def refused(term: str = "soft-labels", top: str = "summary: none", stage: str = "epochs: 1") -> tuple[Problem, ...]:
    """The problems of a recipe in which one line is wrong."""
    with pytest.raises(RequestError) as caught:
        loads(TEXT.format(term=term, top=top, stage=stage), "mine.yaml")
    return caught.value.problems


def in_term(term: str) -> Problem:
    """The only problem of a recipe with a wrong term."""
    (problem,) = refused(term)
    return problem


# Keys.


@pytest.mark.parametrize(
    ("written", "path", "nearest"),
    [
        ("layer: uniform", "layer", "layers"),
        ("teacher: {}", "teacher", "teachers"),
        ("assistant: []", "assistant", "assistants"),
        ("teachers: {cofinetuning: {}}", "teachers.cofinetuning", "cofinetune"),
        ("teachers: {out_of_folds: 3}", "teachers.out_of_folds", "out_of_fold"),
        ("teachers: {cofinetune: {epoch: 3}}", "teachers.cofinetune.epoch", "epochs"),
        ("teachers: {cofinetune: {head_lerning_rate: 3}}", "teachers.cofinetune.head_lerning_rate", "head_learning_rate"),
        ("student: {sise: 4L}", "student.sise", "size"),
        ("student: {init: {form: bert}}", "student.init.form", "from"),
        ("student: {init: {weight: pretrained}}", "student.init.weight", "weights"),
        ("training: {batchsize: 8}", "training.batchsize", "batch_size"),
        ("training: {warm_up: 0.1}", "training.warm_up", "warmup"),
        ("training: {early_stoping: 1}", "training.early_stoping", "early_stopping"),
        ("training: {optimiser: {}}", "training.optimiser", "optimizer"),
        ("training: {optimizer: {nam: sgd}}", "training.optimizer.nam", "name"),
        ("training: {optimizer: {beta_1: 0.9}}", "training.optimizer.beta_1", "beta1"),
    ],
)
def test_misspelt_key_outside_of_the_stages_gets_the_nearest(written: str, path: str, nearest: str) -> None:
    (problem,) = refused(top=written)
    assert (problem.where, problem.what) == (f"mine.yaml:2  {path}", f"unknown key {path.split('.')[-1]!r}")
    assert problem.remedy == f"did you mean '{nearest}'?"
    assert nearest in problem.expected.removeprefix("one of ").split(", ")


@pytest.mark.parametrize(
    ("written", "path", "nearest"),
    [
        ("epoch: 3", "stages.0.epoch", "epochs"),
        ("expanded: stacked", "stages.0.expanded", "expand"),
        ("freezes: []", "stages.0.freezes", "freeze"),
        ("learningrate: 1", "stages.0.learningrate", "learning_rate"),
        ("until: {loss: soft-labels, below: 1, windw: 0.5}", "stages.0.until.windw", "window"),
        ("until: {loss: soft-labels, below: 1, belw: 0.5}", "stages.0.until.belw", "below"),
    ],
)
def test_misspelt_key_of_a_stage_gets_the_nearest(written: str, path: str, nearest: str) -> None:
    (problem,) = refused(stage=written)
    assert (problem.where, problem.what) == (f"mine.yaml:5  {path}", f"unknown key {path.split('.')[-1]!r}")
    assert problem.remedy == f"did you mean '{nearest}'?"
    assert nearest in problem.expected.removeprefix("one of ").split(", ")


@pytest.mark.parametrize(
    ("term", "path", "nearest"),
    [
        ("soft-labels, temprature: 2", "temprature", "temperature"),
        ("soft-labels, weigting: uniform", "weigting", "weighting"),
        ("soft-labels, divergense: kl", "divergense", "divergence"),
        ("logits-mse, faktor: 2", "faktor", "factor"),
        ("hidden-mse, projektion: null", "projektion", "projection"),
        ("hidden-mse, normalize: true", "normalize", "normalise"),
        ("hidden-cosine, token: cls", "token", "tokens"),
        ("attention-kl, head: mean", "head", "heads"),
        ("attention-mse, layer: top", "layer", "layers"),
        ("relation-kl, relation: [keys]", "relation", "relations"),
        ("relational, angle_wight: 1", "angle_wight", "angle_weight"),
        ("random-layers, widht: 8", "widht", "width"),
        ("hard-labels, wieght: 8", "wieght", "weight"),
        ("hidden-mse, projection: {sides: teacher}", "projection.sides", "side"),
        ("hidden-cosine, projection: {shared: per-layer}", "projection.shared", "share"),
        ("soft-labels, weight: {from: 0, to: 1, shap: linear}", "weight.shap", "shape"),
        ("soft-labels, temperature: {from: 1, to: 2, evry: epoch}", "temperature.evry", "every"),
        ("logits-mse, factor: {from: 1, to: 2, beginn: 0}", "factor.beginn", "begin"),
    ],
)
def test_misspelt_key_of_a_term_gets_the_nearest(term: str, path: str, nearest: str) -> None:
    problem = in_term(term)
    assert (problem.where, problem.what) == (f"mine.yaml:8  {TERM}.{path}", f"unknown key {path.split('.')[-1]!r}")
    assert problem.remedy == f"did you mean '{nearest}'?"
    assert nearest in problem.expected.removeprefix("one of ").split(", ")


@pytest.mark.parametrize(
    ("term", "path", "missing"),
    [
        ("soft-labels, weight: {from: 0, too: 1}", "weight.too", "to"),
        ("soft-labels, temperature: {form: 1, to: 2}", "temperature.form", "from"),
    ],
)
def test_key_that_is_missing_because_it_is_misspelt_is_told_once(term: str, path: str, missing: str) -> None:
    problem = in_term(term)
    assert problem.where == f"mine.yaml:8  {TERM}.{path}"
    assert problem.remedy == f"did you mean '{missing}'?"


def test_two_misspelt_keys_of_one_block_are_both_told() -> None:
    found = refused("soft-labels, temprature: 2, weigting: uniform")
    assert [problem.remedy for problem in found] == ["did you mean 'temperature'?", "did you mean 'weighting'?"]


def test_misspelt_loss_key_is_told_with_what_stands_there() -> None:
    with pytest.raises(RequestError) as caught:
        loads(TEXT.format(term="soft-labels", top="", stage="").replace("{loss: soft", "{lss: soft"), "mine.yaml")
    (problem,) = caught.value.problems
    assert problem.where.startswith("mine.yaml:8  stages.0.objective.1")
    assert "lss" in str(problem)
    assert "None" not in problem.found


def test_key_of_another_loss_is_told_with_the_keys_of_this_one() -> None:
    problem = in_term("attention-kl, temperature: 2")
    assert problem.what == "unknown key 'temperature'"
    assert problem.expected == "one of name, weight, teachers, teacher_reduction, layers, layer_reduction, loss, heads"


@pytest.mark.parametrize(("written", "path"), [("init: {source: bert}", "student.init.source")])
def test_key_goes_by_one_name_alone(written: str, path: str) -> None:
    """Names of the code that the language does not have would be told at wrong places later, and editors refuse them."""
    (problem,) = refused(top=f"student: {{{written}}}")
    assert problem.where == f"mine.yaml:2  {path}"
    assert problem.what.startswith("unknown key")
    found = refused("soft-labels, weight: {start: 0, to: 1}")
    assert f"mine.yaml:8  {TERM}.weight.start" in [problem.where for problem in found]


# Losses and other words.


@pytest.mark.parametrize("loss", LOSSES)
def test_misspelt_loss_gets_the_nearest_and_all_of_them(loss: str) -> None:
    wrong = loss[:2] + loss[3:]
    problem = in_term(wrong)
    assert (problem.where, problem.what) == (f"mine.yaml:8  {TERM}.loss", f"unknown loss {wrong!r}")
    assert problem.expected == "one of " + ", ".join(LOSSES)
    assert problem.remedy == f"did you mean '{loss}'?"


@pytest.mark.parametrize(
    ("term", "path", "nearest"),
    [
        ("soft-labels, divergence: reverse_kl", "divergence", "reverse-kl"),
        ("soft-labels, weighting: invers-error", "weighting", "inverse-error"),
        ("soft-labels, scale: corectness", "scale", "correctness"),
        ("soft-labels, draw: rankd", "draw", "ranked"),
        ("soft-labels, teacher_reduction: summ", "teacher_reduction", "sum"),
        ("hidden-mse, layers: unifrom", "layers", "uniform"),
        ("hidden-mse, layers: last_intermediate", "layers", "last-intermediate"),
        ("hidden-mse, layers: {bert: unifrom}", "layers.bert", "uniform"),
        ("hidden-mse, tokens: alll", "tokens", "all"),
        ("hidden-mse, projection: atuo", "projection", "auto"),
        ("hidden-mse, projection: {side: techer}", "projection.side", "teacher"),
        ("hidden-mse, projection: {share: per_layer}", "projection.share", "per-layer"),
        ("attention-kl, heads: mach", "heads", "match"),
        ("attention-kl, heads: {bert: maen}", "heads.bert", "mean"),
        ("relation-kl, relation_heads: atuo", "relation_heads", "auto"),
        ("relation-kl, relations: [value]", "relations.0", "values"),
        ("relational, states: logit", "states", "logits"),
        ("random-layers, form: layerwise", "form", "layer-wise"),
        ("soft-labels, weight: {from: 1, to: 2, shape: exponental}", "weight.shape", "exponential"),
        ("soft-labels, weight: {from: 1, to: 2, every: epochs}", "weight.every", "epoch"),
    ],
)
def test_misspelt_word_in_a_term_gets_the_nearest(term: str, path: str, nearest: str) -> None:
    problem = in_term(term)
    assert problem.where == f"mine.yaml:8  {TERM}.{path}"
    assert problem.remedy == f"did you mean '{nearest}'?"
    assert nearest in problem.expected


@pytest.mark.parametrize(
    ("written", "path", "nearest"),
    [
        ("layers: lst", "layers", "last"),
        ("layers: {bert: embedings}", "layers.bert", "embeddings"),
        ("student: {init: {layers: mached}}", "student.init.layers", "matched"),
        ("student: {init: {weights: finetune}}", "student.init.weights", "finetuned"),
        ("teachers: {cofinetune: {pooling: atention}}", "teachers.cofinetune.pooling", "attention"),
        ("teachers: {cofinetune: {which: bar}}", "teachers.cofinetune.which", "bare"),
        ("training: {schedule: liner}", "training.schedule", "linear"),
        ("training: {precision: bf-16}", "training.precision", "bf16"),
        ("training: {optimizer: {name: adam}}", "training.optimizer.name", "adamw"),
    ],
)
def test_misspelt_word_outside_of_the_stages_gets_the_nearest(written: str, path: str, nearest: str) -> None:
    (problem,) = refused(top=written)
    assert problem.where == f"mine.yaml:2  {path}"
    assert problem.remedy == f"did you mean '{nearest}'?"
    assert nearest in problem.expected


@pytest.mark.parametrize(
    ("written", "path", "nearest"),
    [
        ("expand: stackd", "stages.0.expand", "stacked"),
        ("schedule: cosin", "stages.0.schedule", "cosine"),
        ("freeze: [embedings]", "stages.0.freeze.0", "embeddings"),
        ("freeze: [head, 2, haed]", "stages.0.freeze.2", "head"),
    ],
)
def test_misspelt_word_of_a_stage_gets_the_nearest(written: str, path: str, nearest: str) -> None:
    (problem,) = refused(stage=written)
    assert problem.where == f"mine.yaml:5  {path}"
    assert problem.remedy == f"did you mean '{nearest}'?"
    assert nearest in problem.expected


# Values that may be of several shapes: what is said names all of them.

CHANGING = ["number", "from", "to"]
SEVERAL_SHAPES = [
    *(
        (f"{loss}, {key}: {value}", key, CHANGING)
        for loss, key in (("soft-labels", "weight"), ("soft-labels", "temperature"), ("logits-mse", "factor"))
        for value in ("much", "true", "[1]", "'1'")
    ),
    *(("hidden-mse, layers: " + value, "layers", [*MAPS, "map"]) for value in ("3", "[1, 2]", "true", "all")),
    *((f"hidden-mse, layers: {{bert: {value}}}", "layers.bert", [*MAPS, "map"]) for value in ("3", "[1, 2]", "all", "null")),
    *(("attention-kl, heads: " + value, "heads", ["auto", "match", "mean", "map"]) for value in ("4", "[1]", "null", "all")),
    *(
        (f"attention-mse, heads: {{bert: {value}}}", "heads.bert", ["auto", "match", "mean", "map"])
        for value in ("4", "[1]", "null", "all")
    ),
    *(
        (
            "soft-labels, weighting: " + value,
            "weighting",
            ["uniform", "inverse-error", "softmax-error", "confidence", "agreement", "uncertainty", "map", "number"],
        )
        for value in ("3", "[uniform]", "null", "true", "best")
    ),
    *(
        (f"{loss}, projection: {value}", "projection", ["auto", "null", "side"])
        for loss in ("hidden-mse", "hidden-cosine")
        for value in ("3", "[auto]", "true", "teacher")
    ),
    *(
        ("relation-kl, relation_heads: " + value, "relation_heads", ["auto", "null", "number"])
        for value in ("[4]", "true", "all")
    ),
]


@pytest.mark.parametrize(("term", "path", "allowed"), SEVERAL_SHAPES)
def test_value_of_a_wrong_shape_in_a_term_is_told_with_all_that_is_allowed(term: str, path: str, allowed: list[str]) -> None:
    problem = in_term(term)
    assert problem.where == f"mine.yaml:8  {TERM}.{path}"
    assert problem.what == "has a wrong value"
    assert [word for word in allowed if word not in problem.expected] == []
    # under a teacher's name there are no further teachers
    assert problem.expected.count("map") == 1 or not path.endswith(".bert")
    assert problem.found


@pytest.mark.parametrize(
    ("top", "path", "allowed"),
    [
        *((f"layers: {value}", "layers", [*MAPS, "map"]) for value in ("3", "[top]", "null", "true")),
        *((f"layers: {{bert: {value}}}", "layers.bert", [*MAPS, "map"]) for value in ("3", "[top]", "null", "true")),
        *(
            (f"student: {{init: {{layers: {value}}}}}", "student.init.layers", ["first", "last", "uniform", "matched", "list"])
            for value in ("3", "{1: 2}", "null", "true")
        ),
    ],
)
def test_value_of_a_wrong_shape_is_told_with_all_that_is_allowed(top: str, path: str, allowed: list[str]) -> None:
    (problem,) = refused(top=top)
    assert problem.where == f"mine.yaml:2  {path}"
    assert [word for word in allowed if word not in problem.expected] == []
    assert problem.expected.count("map") == 1 or not path.endswith(".bert")
    assert problem.found


@pytest.mark.parametrize("value", ["[0]", "[pooler]", "[1.5]", "[true]", "[[1]]", "[null]"])
def test_part_to_freeze_that_cannot_be_is_told_once_with_all_that_can(value: str) -> None:
    (problem,) = refused(stage=f"freeze: {value}")
    assert problem.where == "mine.yaml:5  stages.0.freeze.0"
    assert [word for word in ("embeddings", "head", "number") if word not in problem.expected] == []


def test_all_wrong_parts_to_freeze_are_told() -> None:
    found = refused(stage="freeze: [head, 0, 2, pooler]")
    assert [problem.where for problem in found] == ["mine.yaml:5  stages.0.freeze.1", "mine.yaml:5  stages.0.freeze.3"]


@pytest.mark.parametrize("written", ["layers: {1: 3, 2: 6}", "layers: {1: uniform}"])
def test_layer_map_without_the_teachers_name_says_that_it_is_missing(written: str) -> None:
    problems = refused(top=written)
    assert all(problem.where.startswith("mine.yaml:2  layers") for problem in problems)
    assert "teacher" in str(problems[0])


@pytest.mark.parametrize(
    ("term", "path"),
    [
        ("hidden-mse, layers: {bert: {1: one}}", "layers.bert.1"),
        ("hidden-mse, layers: {bert: {one: 1}}", "layers.bert.one"),
        ("hidden-mse, layers: {bert: {1: -1}}", "layers.bert.1"),
        ("hidden-mse, layers: {bert: {1: 2.5}}", "layers.bert.1"),
        ("hidden-mse, layers: {bert: {}}", "layers.bert"),
        ("hidden-mse, layers: {}", "layers"),
        ("attention-kl, heads: {bert: {0: 1}}", "heads.bert.0"),
        ("attention-kl, heads: {bert: {1: 0}}", "heads.bert.1"),
        ("attention-kl, heads: {bert: {}}", "heads.bert"),
        ("soft-labels, weighting: {bert: -1}", "weighting.bert"),
        ("soft-labels, weighting: {bert: much}", "weighting.bert"),
        ("soft-labels, weight: -1", "weight"),
        ("soft-labels, weight: .nan", "weight"),
        ("soft-labels, weight: .inf", "weight"),
        ("soft-labels, weight: {from: -1, to: 1}", "weight.from"),
        ("soft-labels, weight: {from: 0, to: 1, begin: 0.5, end: 0.5}", "weight"),
        ("soft-labels, weight: {from: 0, to: 1, shape: exponential}", "weight"),
        ("soft-labels, temperature: 0", "temperature"),
        ("soft-labels, teachers: []", "teachers"),
        ("soft-labels, teachers: bert", "teachers"),
        ("soft-labels, min_uncertainty: 1", "min_uncertainty"),
        ("soft-labels, name: two words", "name"),
        ("relation-kl, relations: []", "relations"),
        ("relation-kl, relations: keys", "relations"),
        ("relation-kl, relation_heads: 0", "relation_heads"),
        ("relation-kl, relation_heads: 1.5", "relation_heads"),
        ("random-layers, width: 0", "width"),
        ("relational, group: 2", "group"),
    ],
)
def test_value_that_cannot_be_is_told_at_its_key(term: str, path: str) -> None:
    problem = in_term(term)
    assert problem.where == f"mine.yaml:8  {TERM}.{path}"
    assert problem.what == "has a wrong value"
    assert problem.expected
    assert problem.found


def test_schedule_that_lacks_an_end_says_which() -> None:
    problem = in_term("soft-labels, weight: {from: 1}")
    assert (problem.where, problem.what) == (f"mine.yaml:8  {TERM}.weight.to", "the key 'to' is missing")


@pytest.mark.parametrize("entry", ["hard-labels", "3", "[hard-labels]", "null", "true"])
def test_term_that_is_no_map_is_told_at_its_place(entry: str) -> None:
    text = TEXT.format(term="soft-labels", top="", stage="").replace("{loss: soft-labels}", entry)
    with pytest.raises(RequestError) as caught:
        loads(text, "mine.yaml")
    (problem,) = caught.value.problems
    assert problem.where == f"mine.yaml:8  {TERM}"
    assert problem.expected


# Whoever writes YAML need not know what kdcli is written in.

FOREIGN = ("instance of", "object to extract", "after validation", "constrained-", "literal[", "match pattern")


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ("top", "student: 4L"),
        ("top", "training: [1]"),
        ("top", "teachers: bert"),
        ("top", "layers: {}"),
        ("top", "student: {init: {layers: []}}"),
        ("stage", "until: 3"),
        ("stage", "freeze: [x]"),
        ("stage", "freeze: head"),
        ("stage", "epochs: many"),
        ("term", "soft-labels, weighting: {}"),
        ("term", "soft-labels, teachers: []"),
        ("term", "soft-labels, name: two words"),
        ("term", "hidden-mse, layers: {bert: {}}"),
        ("term", "hidden-mse, projection: {side: 3}"),
        ("term", "soft-labels}\n      - {loss: [a]"),
        ("term", "soft-labels}\n      - hard-labels\n      - {loss: hard-labels"),
    ],
)
def test_messages_speak_of_the_recipe_and_not_of_the_code(place: str, written: str) -> None:
    for problem in refused(**{place: written}):
        text = "\n".join([problem.where, problem.what, problem.expected])
        assert [word for word in FOREIGN if word in text] == []
