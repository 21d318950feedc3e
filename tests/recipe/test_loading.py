"""YAML to recipe: every mistake at once, each with its place; overrides from flags."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdcli.errors import Problem, RequestError
from kdcli.recipe.loading import LoadedRecipe, load, loads
from kdcli.recipe.losses.hidden_mse import HiddenMse
from kdcli.recipe.losses.projection import Projection
from kdcli.recipe.losses.soft_labels import SoftLabels
from kdcli.recipe.yaml_document import Override

MINIMAL = """\
name: mine
stages:
  - name: distill
    objective:
      - {loss: hard-labels}
"""

FULL = """\
name: full
summary: everything at once
paper: none
teachers:
  cofinetune: {pooling: attention, which: bare, epochs: 3}
  labels: {bert: [negative, positive]}
student:
  init: {from: first-teacher, layers: first, weights: pretrained}
layers: {bert: {1: 2, 2: 4}, roberta: uniform}
stages:
  - name: warm
    epochs: 1
    objective:
      - {loss: hidden-mse, projection: {side: teacher, share: per-layer}}
  - name: distill
    epochs: 2
    objective:
      - {loss: hard-labels, weight: 0.5}
      - {loss: soft-labels, temperature: 2, weighting: uniform}
      - {loss: hidden-mse, projection: null}
training: {learning_rate: 5e-5, batch_size: 32, precision: auto}
"""

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


def refused(text: str, *flags: str) -> tuple[Problem, ...]:
    """The problems for which a recipe is refused."""
    with pytest.raises(RequestError) as caught:
        loads(text, "mine.yaml", [Override.parse(flag) for flag in flags])
    return caught.value.problems


def accepted(text: str, *flags: str) -> LoadedRecipe:
    return loads(text, "mine.yaml", [Override.parse(flag) for flag in flags])


def test_full_recipe_says_what_it_says() -> None:
    recipe = accepted(FULL).recipe
    assert recipe.layers == {"bert": {1: 2, 2: 4}, "roberta": "uniform"}
    assert [stage.name for stage in recipe.stages] == ["warm", "distill"]
    first, last = recipe.stages[0].objective[0], recipe.stages[1].objective[2]
    assert isinstance(first, HiddenMse)
    assert isinstance(last, HiddenMse)
    assert first.projection == Projection(side="teacher", share="per-layer")
    assert last.projection is None
    soft = recipe.stages[1].objective[1]
    assert isinstance(soft, SoftLabels)
    assert (soft.temperature, soft.weighting) == (2.0, "uniform")


@pytest.mark.parametrize(
    ("written", "number"), [("5e-5", 5e-5), ("5E-5", 5e-5), ("1.5e-4", 1.5e-4), ("+2e-3", 2e-3), ("3", 3.0)]
)
def test_exponent_without_a_dot_is_a_float(written: str, number: float) -> None:
    assert accepted(MINIMAL + f"training: {{learning_rate: {written}}}\n").recipe.training.learning_rate == number


def test_text_that_looks_like_an_exponent_stays_text_in_quotes() -> None:
    assert accepted(MINIMAL.replace("mine", '"5e-5"')).recipe.name == "5e-5"


def test_every_value_knows_its_line() -> None:
    document = accepted(FULL).document
    lines = FULL.splitlines()
    for path, needle in {
        ("teachers", "labels", "bert"): "negative",
        ("layers", "bert"): "roberta: uniform",
        ("stages", 1, "epochs"): "epochs: 2",
        ("stages", 1, "objective", 2, "projection"): "projection: null",
        ("training", "precision"): "precision",
    }.items():
        line = next(number for number, text in enumerate(lines, start=1) if needle in text)
        assert document.where(path) == f"mine.yaml:{line}  {'.'.join(map(str, path))}"


def test_a_value_that_is_not_written_is_placed_at_the_block_around_it() -> None:
    document = accepted(FULL).document
    assert document.place(("training", "max_length")) == document.place(("training",))
    assert document.place(("nothing", "of", "this")) == "mine.yaml:1"


def test_all_mistakes_are_reported_at_once_each_with_file_line_and_key_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\n"
        "layer: uniform\n"
        "stages:\n"
        "  - name: distill\n"
        "    epochs: many\n"
        "    objective:\n"
        "      - {loss: soft-label}\n"
        "      - {loss: hidden-mse, projection: {side: techer}}\n"
        "training:\n"
        "  batch_size: 0\n"
        "  warmup: 1.5\n",
        encoding="utf-8",
    )
    with pytest.raises(RequestError) as caught:
        load(path)
    assert {problem.where for problem in caught.value.problems} == {
        f"{path}:2  layer",
        f"{path}:5  stages.0.epochs",
        f"{path}:7  stages.0.objective.0.loss",
        f"{path}:8  stages.0.objective.1.projection.side",
        f"{path}:10  training.batch_size",
        f"{path}:11  training.warmup",
    }
    text = str(caught.value)
    for remedy in ("'layers'?", "'soft-labels'?", "'teacher'?"):
        assert f"try       did you mean {remedy}" in text


@pytest.mark.parametrize(
    ("text", "where", "nearest"),
    [
        (MINIMAL + "layerz: uniform\n", "mine.yaml:6  layerz", "layers"),
        (MINIMAL + "training: {batchsize: 3}\n", "mine.yaml:6  training.batchsize", "batch_size"),
        (MINIMAL + "teachers: {labls: {}}\n", "mine.yaml:6  teachers.labls", "labels"),
        (MINIMAL + "teachers:\n  cofinetune:\n    epoch: 3\n", "mine.yaml:8  teachers.cofinetune.epoch", "epochs"),
        (MINIMAL + "student: {init: {form: bert}}\n", "mine.yaml:6  student.init.form", "from"),
        (MINIMAL.replace("    obj", "    epoch: 3\n    obj"), "mine.yaml:4  stages.0.epoch", "epochs"),
        (
            MINIMAL + "  - name: two\n    objectives: []\n    objective: [{loss: hard-labels}]\n",
            "mine.yaml:7  stages.1.objectives",
            "objective",
        ),
        (
            MINIMAL.replace("hard-labels", "soft-labels, temprature: 2"),
            "mine.yaml:5  stages.0.objective.0.temprature",
            "temperature",
        ),
        (
            MINIMAL.replace("hard-labels", "hidden-mse, projektion: null"),
            "mine.yaml:5  stages.0.objective.0.projektion",
            "projection",
        ),
        (
            MINIMAL.replace("hard-labels", "hidden-mse, projection: {sides: teacher}"),
            "mine.yaml:5  stages.0.objective.0.projection.sides",
            "side",
        ),
    ],
)
def test_unknown_key_is_refused_with_line_and_suggestion(text: str, where: str, nearest: str) -> None:
    (problem,) = refused(text)
    assert problem.where == where
    assert problem.what.startswith("unknown key")
    assert nearest in problem.expected
    assert problem.remedy == f"did you mean '{nearest}'?"


def test_unknown_key_of_a_term_lists_the_keys_of_that_term_alone() -> None:
    (problem,) = refused(MINIMAL.replace("hard-labels", "hard-labels, temperature: 2"))
    assert problem.expected == "one of name, weight, loss"


def test_unknown_loss_is_refused_with_the_known_ones() -> None:
    (problem,) = refused(MINIMAL.replace("hard-labels", "hiden-mse"))
    assert problem.where == "mine.yaml:5  stages.0.objective.0.loss"
    assert problem.what == "unknown loss 'hiden-mse'"
    assert problem.expected == "one of " + ", ".join(LOSSES)
    assert problem.remedy == "did you mean 'hidden-mse'?"


def test_term_without_a_loss_is_refused() -> None:
    (problem,) = refused(MINIMAL.replace("loss: hard-labels", "weight: 1"))
    assert problem.where == "mine.yaml:5  stages.0.objective.0"
    assert "needs a loss" in problem.what


@pytest.mark.parametrize(
    ("extra", "where", "expected"),
    [
        ("training: {batch_size: many}", "training.batch_size", "whole number"),
        ("training: {batch_size: 1.5}", "training.batch_size", "whole number"),
        ("training: {learning_rate: -1}", "training.learning_rate", "number > 0 or auto"),
        ("training: {learning_rate: .inf}", "training.learning_rate", "number > 0 or auto"),
        ("training: {weight_decay: .nan}", "training.weight_decay", ""),
        ("training: {warmup: 1}", "training.warmup", "less than 1"),
        ("training: {max_length: 3}", "training.max_length", "greater than or equal to 4"),
        ("training: {schedule: [linear]}", "training.schedule", "linear / cosine / constant"),
        ("training: [1]", "training", ""),
        ("summary: [a]", "summary", "text"),
        ("layers: unifrom", "layers", "uniform / first / last"),
        ("layers: {bert: {1: three}}", "layers.bert.1", "whole number"),
        ("layers: {bert: {1: -3}}", "layers.bert.1", "greater than or equal to 0"),
        ("layers: {bert: {}}", "layers.bert", ""),
        ("student: {init: {layers: [0]}}", "student.init.layers.0", "greater than or equal to 1"),
        ("student: {init: {weights: fresh}}", "student.init.weights", "pretrained / finetuned"),
        ("teachers: {labels: {bert: positive}}", "teachers.labels.bert", "list"),
    ],
)
def test_wrong_value_is_refused_with_what_was_expected_and_found(extra: str, where: str, expected: str) -> None:
    (problem,) = refused(MINIMAL + extra + "\n")
    assert problem.where == f"mine.yaml:6  {where}"
    assert expected in problem.expected
    assert problem.found


@pytest.mark.parametrize(
    ("extra", "where"),
    [
        ("layers: []", "layers"),
        ("layers: {bert: [1, 2]}", "layers.bert"),
        ("student: {init: {layers: {1: 2}}}", "student.init.layers"),
    ],
)
def test_layers_of_a_wrong_shape_are_not_taken_for_a_term_of_the_objective(extra: str, where: str) -> None:
    (problem,) = refused(MINIMAL + extra + "\n")
    assert problem.where == f"mine.yaml:6  {where}"
    assert "objective" not in str(problem)
    assert "loss" not in str(problem)


@pytest.mark.parametrize(
    ("text", "where", "key"),
    [
        ("summary: a\n", {"mine.yaml:1  name", "mine.yaml:1  stages"}, ""),
        ("name: a\nstages:\n  - epochs: 2\n", {"mine.yaml:3  stages.0.name", "mine.yaml:3  stages.0.objective"}, ""),
    ],
)
def test_missing_keys_are_all_named(text: str, where: set[str], key: str) -> None:
    found = refused(text)
    assert {problem.where for problem in found} == where
    assert all(problem.what.endswith("is missing") for problem in found)


def test_stages_of_one_name_are_refused() -> None:
    (problem,) = refused(MINIMAL + "  - name: distill\n    objective: [{loss: hard-labels}]\n")
    assert problem.where == "mine.yaml:2  stages"
    assert "stage names must differ" in problem.expected


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (MINIMAL + "name: other\n", "mine.yaml:6"),
        (MINIMAL + "training:\n  batch_size: 1\n  batch_size: 2\n", "mine.yaml:8"),
        (MINIMAL + "layers: {bert: {1: 2, 1: 3}}\n", "mine.yaml:6"),
    ],
)
def test_duplicate_key_is_refused_with_its_line(text: str, where: str) -> None:
    (problem,) = refused(text)
    assert problem.where == where
    assert "stands twice" in problem.what


@pytest.mark.parametrize(
    "value",
    [
        "!!python/name:os.system",
        "!!python/object:os.stat_result {}",
        "!!python/object/apply:os.system [echo]",
        "!!python/object/new:dict {bert: uniform}",
        "!!python/tuple [1, 2]",
        "!mine uniform",
        "!mine {bert: uniform}",
        "!mine [uniform]",
    ],
)
def test_constructors_are_refused_on_scalars_lists_and_maps(value: str) -> None:
    (problem,) = refused(MINIMAL + f"layers: {value}\n")
    assert problem.where == "mine.yaml:6"
    assert "tag" in problem.what
    assert "not allowed" in problem.what


def test_harmless_looking_map_with_a_constructor_is_refused_and_not_read_as_a_map() -> None:
    (problem,) = refused(MINIMAL + "training: !!python/object/apply:os.system {batch_size: 3}\n")
    assert problem.where == "mine.yaml:6"
    assert "not allowed" in problem.what


@pytest.mark.parametrize(
    "value", ["!!bool maybe", "!!bool yes", "!!int ''", "!!float ''", "!!int abc", "!!int 1:30", "!!int 010"]
)
def test_tag_that_does_not_fit_its_value_is_refused(value: str) -> None:
    (problem,) = refused(MINIMAL + f"summary: {value}\n")
    assert problem.where.startswith("mine.yaml")
    assert "not valid YAML" in problem.what


@pytest.mark.parametrize("tag", ["timestamp", "binary", "omap", "set", "pairs"])
def test_tags_of_other_kinds_are_refused(tag: str) -> None:
    (problem,) = refused(MINIMAL + f"summary: !!{tag} 2020-01-01\n")
    assert "not allowed" in problem.what


@pytest.mark.parametrize(
    "written", ["1:30", "1:30.5", "190:20:30", "010", "0x10", "0o10", "0b1", "1_000", "+.5_0", "1e", "2020-01-01"]
)
def test_what_older_yaml_reads_as_another_number_is_refused_as_it_is_written(written: str) -> None:
    for key in ("batch_size", "learning_rate"):
        (problem,) = refused(MINIMAL + f"training: {{{key}: {written}}}\n")
        assert problem.where == f"mine.yaml:6  training.{key}"
        assert problem.found == repr(written)
    (problem,) = refused(MINIMAL, f"training.batch_size={written}")
    assert problem.found == repr(written)


@pytest.mark.parametrize("written", ["yes", "no", "on", "off", "Yes", "NO", "y", "n"])
def test_words_that_older_yaml_reads_as_true_or_false_are_text(written: str) -> None:
    assert loads(MINIMAL + f"summary: {written}\n", "mine.yaml").recipe.summary == written
    (problem,) = refused(MINIMAL.replace("{loss: hard-labels}", f"{{loss: hidden-mse, normalise: {written}}}"))
    assert problem.found == repr(written)


@pytest.mark.parametrize(
    ("written", "value"),
    [("5e-5", 5e-5), ("1E-3", 1e-3), (".5", 0.5), ("1.", 1.0), ("+0.25", 0.25), ("1", 1.0), ("0.1e1", 1.0)],
)
def test_numbers_are_read_as_they_are_written(written: str, value: float) -> None:
    assert loads(MINIMAL + f"training: {{learning_rate: {written}}}\n", "mine.yaml").recipe.training.learning_rate == value


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan", ".NaN", "1e999"])
def test_numbers_that_are_not_finite_are_refused(written: str) -> None:
    (problem,) = refused(MINIMAL + f"training: {{learning_rate: {written}}}\n")
    assert problem.where == "mine.yaml:6  training.learning_rate"


@pytest.mark.parametrize(
    "text",
    [
        "root:x:0:0:secret:/root:/bin/sh\nother:x:1:1:secret:/:/bin/sh\n",
        "password: secret\nuser: me\n",
        "- secret\n- more\n",
        "secret",
        "key = secret\n",
        "token: secret: more\n",
        "'secret",
        "- {a: secret",
        "\tsecret",
        "secret: [1, 2\nb: }",
        "%secret\n---\n",
        "@secret",
    ],
)
def test_nothing_of_a_file_that_is_no_recipe_is_shown(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        load(tmp_path / "mine.yaml")
    assert "secret" not in str(caught.value)


def test_bytes_of_a_file_that_is_no_text_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"secret\xff\xfe")
    with pytest.raises(RequestError, match="byte 7") as caught:
        load(tmp_path / "mine.yaml")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [" + "1," * 150_000 + "1]", "# " + "x" * 300_000, "[" * 270_000])
def test_a_text_that_is_far_too_long_for_a_recipe_is_refused_before_it_is_parsed(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    start = time.perf_counter()
    with pytest.raises(RequestError, match="too long for a recipe"):
        load(tmp_path / "mine.yaml")
    (problem,) = refused(MINIMAL, f"summary={text}")
    assert "too long" in problem.what
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("text", ["[" * 20_000, "a: " * 20_000, "{" * 20_000, "- " * 20_000, "&a [" * 9_000])
def test_nesting_without_end_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("value", ["&a {bert: *a}", "&a [*a]", "{bert: &a {1: *a}}"])
def test_anchor_that_refers_to_itself_is_refused(value: str) -> None:
    (problem,) = refused(MINIMAL + f"layers: {value}\n")
    assert problem.where == "mine.yaml:6"
    assert "refers to itself" in problem.what


def test_flood_of_aliases_is_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{row}: &a{row} [{', '.join([f'*a{row - 1}'] * 10)}]" for row in range(1, 9)]
    (problem,) = refused("\n".join(levels) + "\n")
    assert "far too large" in problem.what


def test_deep_nesting_is_refused() -> None:
    (problem,) = refused(MINIMAL + "layers: " + "[" * 3000 + "]" * 3000 + "\n")
    assert "not valid YAML" in problem.what or "wrong value" in problem.what


def test_anchor_that_is_used_twice_is_read() -> None:
    text = MINIMAL.replace("{loss: hard-labels}", "&gold {loss: hard-labels}\n      - {loss: soft-labels}")
    text += "  - name: again\n    objective: [*gold]\n"
    loaded = accepted(text, "stages.1.objective.0.weight=2")
    assert [stage.objective[0].weight for stage in loaded.recipe.stages] == [1, 2]


@pytest.mark.parametrize("text", ["", "# a comment\n", "null", "- name: mine\n", "mine", "3", "---\n"])
def test_what_is_not_a_mapping_is_refused(text: str) -> None:
    (problem,) = refused(text)
    assert problem.what == "is not a recipe"
    assert problem.expected == "a mapping with the key 'stages'"


@pytest.mark.parametrize(
    ("text", "where"), [("name: [", "mine.yaml:1"), ("a: 1\nb: c: d\n", "mine.yaml:2"), ("a: 1\n\tb: 2\n", "mine.yaml:2")]
)
def test_broken_yaml_is_refused_with_its_line(text: str, where: str) -> None:
    (problem,) = refused(text)
    assert problem.where == where
    assert "not valid YAML" in problem.what


@pytest.mark.parametrize("key", ["[1, 2]", "1.5", "null", "true"])
def test_key_that_is_neither_text_nor_a_number_is_refused(key: str) -> None:
    (problem,) = refused(MINIMAL + f"? {key}\n: 2\n")
    assert problem.where == "mine.yaml:6"
    assert "a key must be" in problem.what


def test_empty_file_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.touch()
    with pytest.raises(RequestError, match="is not a recipe") as caught:
        load(path)
    assert caught.value.problems[0].where == str(path)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: path.write_bytes(b"name: \xff\xfe\n")])
def test_file_that_cannot_be_read_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    make(path)
    with pytest.raises(RequestError) as caught:
        load(path)
    assert caught.value.problems[0].where == str(path)
    assert "cannot be read" in caught.value.problems[0].what


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("stages.0.epochs=3", ("stages", 0, "epochs"), 3),
        ("training.learning_rate=5e-5", ("training", "learning_rate"), 5e-5),
        ("name=", ("name",), None),
        ("paper=a=b", ("paper",), "a=b"),
        ("layers={bert: {1: 3}}", ("layers",), {"bert": {1: 3}}),
        ("student.init.layers=[1, 3]", ("student", "init", "layers"), [1, 3]),
        ("stages.*.epochs=1", ("stages", "*", "epochs"), 1),
    ],
)
def test_override_is_read_from_its_text(text: str, path: tuple[str | int, ...], value: object) -> None:
    assert Override.parse(text) == Override(path, value, f"--set {text}")


@pytest.mark.parametrize("text", ["", "epochs", "=3", "a..b=3", ".a=3", "a.=3", " =3"])
def test_override_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not of the form key=value") as caught:
        Override.parse(text)
    assert caught.value.problems[0].where == f"--set {text}"


@pytest.mark.parametrize("text", ["a=[1", "a={", "a=*b", "a=!!python/name:os.system", "a=!!python/tuple [1]", "a={b: 1, b: 2}"])
def test_override_with_a_broken_value_is_refused_at_the_flag(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        Override.parse(text)
    assert caught.value.problems[0].where.startswith(f"--set {text}")


def test_overrides_take_the_place_of_values_in_order() -> None:
    recipe = accepted(FULL, "stages.0.epochs=4", "stages.0.epochs=5", "training.max_length=64", "layers=last").recipe
    assert [stage.epochs for stage in recipe.stages] == [5, 2]
    assert recipe.training.max_length == 64
    assert recipe.layers == "last"


def test_override_makes_blocks_that_are_missing() -> None:
    recipe = accepted(
        MINIMAL, "student.init.from=scratch", "training.batch_size=7", "teachers.labels.bert=['no', 'yes']"
    ).recipe
    assert recipe.student.init.source == "scratch"
    assert recipe.training.batch_size == 7
    assert recipe.teachers.labels == {"bert": ["no", "yes"]}


def test_wildcard_reaches_every_stage() -> None:
    assert [stage.epochs for stage in accepted(FULL, "stages.*.epochs=0.5").recipe.stages] == [0.5, 0.5]


def test_wildcard_reaches_every_term_of_a_stage() -> None:
    recipe = accepted(FULL, "stages.1.objective.*.weight=3").recipe
    assert [[term.weight for term in stage.objective] for stage in recipe.stages] == [[1], [3, 3, 3]]


def test_two_wildcards_reach_every_term_of_every_stage() -> None:
    recipe = accepted(FULL, "stages.*.objective.*.weight=3").recipe
    assert [[term.weight for term in stage.objective] for stage in recipe.stages] == [[3], [3, 3, 3]]


@pytest.mark.parametrize("flag", ["training.*=3", "training.*.batch_size=3", "nothing.*.epochs=3"])
def test_wildcard_that_meets_no_list_is_refused_at_the_flag(flag: str) -> None:
    (problem,) = refused(FULL, flag)
    assert problem.where.startswith(f"--set {flag}")


@pytest.mark.parametrize(
    "flag",
    [
        "stages.2.epochs=3",
        "stages.0.objective.7.weight=3",
        "stages.0.objective.7={loss: hard-labels}",
        "stages.3={}",
        "stages.99999999999999999999.epochs=1",
    ],
)
def test_override_of_an_entry_that_does_not_exist_is_refused_at_the_flag(flag: str) -> None:
    (problem,) = refused(FULL, flag)
    assert problem.where == f"--set {flag}"
    assert "there is no" in problem.what
    assert "entries" in problem.what


def test_place_behind_the_end_of_a_list_appends_to_it() -> None:
    flags = ["stages.1.objective.3={loss: logits-mse}", "stages.2={name: last, objective: [{loss: hard-labels}]}"]
    loaded = accepted(FULL, *flags, "stages.2.epochs=7", "stages.1.objective.3.weight=0.5")
    assert [stage.name for stage in loaded.recipe.stages] == ["warm", "distill", "last"]
    assert loaded.recipe.stages[2].epochs == 7
    assert [(term.label, term.weight) for term in loaded.recipe.stages[1].objective][2:] == [
        ("hidden-mse", 1),
        ("logits-mse", 0.5),
    ]
    assert loaded.document.place(("stages", 2, "name")) == f"--set {flags[1]}"
    assert loaded.document.place(("stages", 2, "epochs")) == "--set stages.2.epochs=7"


def test_what_is_wrong_with_an_appended_entry_points_to_the_flag() -> None:
    flag = "stages.2={name: last, objective: []}"
    (problem,) = refused(FULL, flag)
    assert problem.where == f"--set {flag}  stages.2.objective"


def test_override_of_an_appended_or_replaced_term_keeps_the_lines_of_the_others() -> None:
    found = refused(FULL, "stages.1.objective.0={loss: hard-labels}", "stages.1.objective.2.projection=3")
    assert [problem.where.partition("  ")[2] for problem in found] == ["stages.1.objective.2.projection"]
    document = accepted(FULL, "stages.1.objective.0={loss: hard-labels}").document
    assert document.place(("stages", 1, "objective", 1)) == "mine.yaml:19"


def test_value_that_a_wildcard_gave_to_many_may_be_changed_for_one() -> None:
    flags = ["stages.*.until={loss: hidden-mse, below: 1}", "stages.0.until.below=2"]
    overrides = [Override.parse(flag) for flag in flags]
    for _ in range(2):
        recipe = loads(FULL, "mine.yaml", overrides).recipe
        assert [stage.until.below for stage in recipe.stages if stage.until is not None] == [2, 1]
    assert overrides[0].value == {"loss": "hidden-mse", "below": 1}


def test_override_beside_a_key_that_was_missing_makes_a_block_with_a_number_as_key() -> None:
    assert accepted(MINIMAL, "layers.bert.1=3", "layers.bert.2=6").recipe.layers == {"bert": {1: 3, 2: 6}}


def test_override_through_a_value_offers_the_nested_form() -> None:
    (problem,) = refused(FULL, "layers.roberta.1=3")
    assert problem.where == "--set layers.roberta.1=3"
    assert problem.remedy == "--set 'layers.roberta={1: 3}'"
    assert accepted(FULL, "layers.roberta={1: 3}").recipe.layers == {"bert": {1: 2, 2: 4}, "roberta": {1: 3}}


@pytest.mark.parametrize("flag", ["stages.².epochs=1", "stages.①.epochs=1", f"stages.{'9' * 5000}.epochs=1"])
def test_override_by_what_only_looks_like_a_number_is_refused_at_the_flag(flag: str) -> None:
    (problem,) = refused(FULL, flag)
    assert problem.where == f"--set {flag if len(flag) <= 500 else flag[:500] + '…'}"
    assert len(str(problem)) < 1000


@pytest.mark.parametrize("flag", ["name.first=3", "stages.first.epochs=3", "stages.-1.epochs=3", "training.batch_size.x=3"])
def test_override_through_what_has_no_such_key_is_refused_at_the_flag(flag: str) -> None:
    (problem,) = refused(FULL, flag)
    assert problem.where == f"--set {flag}"
    assert "there is no" in problem.what


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("trainning=3", "training"),
        ("training.batchsize=3", "batch_size"),
        ("stages.0.epoch=3", "epochs"),
        ("stages.1.objective.1.temprature=3", "temperature"),
        ("trainin.batch_size=3", "training"),
        ("student.innit.layers=first", "init"),
    ],
)
def test_override_of_an_unknown_key_points_to_the_flag(flag: str, nearest: str) -> None:
    (problem,) = refused(FULL, flag)
    assert problem.where.startswith(f"--set {flag}  ")
    assert problem.what.startswith("unknown key")
    assert problem.remedy == f"did you mean '{nearest}'?"


@pytest.mark.parametrize("flag", ["training.batch_size=0", "training.batch_size=many", "stages.*.epochs=-1", "layers=uniforn"])
def test_override_with_a_wrong_value_points_to_the_flag(flag: str) -> None:
    found = refused(FULL, flag)
    assert {problem.where.split("  ")[0] for problem in found} == {f"--set {flag}"}


def test_override_of_a_block_takes_the_places_of_what_was_inside() -> None:
    (problem,) = refused(FULL, "training={batch_size: 0}")
    assert problem.where == "--set training={batch_size: 0}  training.batch_size"
