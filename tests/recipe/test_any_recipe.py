"""Whatever is written in a file or typed behind --set, the answer is a recipe or a refusal with its reasons."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kdcli.errors import Problem, RequestError
from kdcli.recipe.catalogue import shipped
from kdcli.recipe.loading import loads
from kdcli.recipe.schema import Recipe
from kdcli.recipe.yaml_document import Key, KeyPath, Override, parse

ORIGIN = "mine.yaml"
quick = settings(deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

SHIPPED: dict[str, Any] = {name: parse(path.read_text(encoding="utf-8"), name).data for name, path in shipped().items()}
EVERYTHING = """\
name: everything
summary: each key once
paper: none
teachers:
  cofinetune: {pooling: attention, which: bare, epochs: 3, learning_rate: 5e-5, head_learning_rate: 1e-3}
  labels: {bert: [negative, positive]}
  out_of_fold: 5
assistants: [midway, 3L]
student: {size: 2L, init: {from: bert, layers: [1, 3], weights: finetuned}}
layers: {bert: {1: 2, 2: 4}, roberta: uniform}
stages:
  - name: warm
    expand: stacked
    epochs: 1
    until: {loss: hidden-mse, below: 0.5, window: 0.2}
    freeze: [embeddings, 1]
    learning_rate: 1e-4
    warmup: 0.2
    schedule: cosine
    objective:
      - {loss: hidden-mse, projection: {side: teacher, share: per-layer}, tokens: all, normalise: true}
      - {loss: attention-kl, heads: {bert: {1: 2}, roberta: mean}, layers: {bert: top}}
      - {loss: relation-kl, relations: [keys], relation_heads: 8}
  - name: distill
    objective:
      - {loss: hard-labels, weight: {from: 0, to: 1, shape: cosine, begin: 0.1, end: 0.9, every: epoch}}
      - {loss: soft-labels, name: soft, temperature: {from: 4, to: 1}, weighting: {bert: 1, roberta: 2}, teachers: [bert]}
      - {loss: relational, states: cls, group: 4}
      - {loss: random-layers, width: 8, form: concatenated}
training: {batch_size: 32, optimizer: {name: sgd, beta1: 0.8}, precision: auto, early_stopping: 3}
"""
RECIPES: dict[str, Any] = {**SHIPPED, "everything": parse(EVERYTHING, "everything").data}


def paths(data: Any, path: KeyPath = ()) -> list[KeyPath]:
    """The key paths of everything inside."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] * bool(path) + [found for key, value in inside for found in paths(value, (*path, key))]


PLACES = [(name, path) for name, data in RECIPES.items() for path in paths(data)]

# fmt: off
FRAGMENTS = [
    "name: a", "stages:", "  - ", "    ", "\n", "{", "}", "[", "]", ": ", ", ", "*a", "&a ", "<<: ", "? ", "| ", "> ", "'", '"',
    "#", "!!bool ", "!!int ", "!!float ", "!!timestamp ", "!!binary ", "!!null ", "!!seq ", "!!map ", "!!set ", "!!omap ",
    "!!str ", "!x ", "!!python/name:os ", "loss", "hard-labels", "objective:", "%YAML 1.1\n", "---\n", "...", "-", "0x",
    "1_0", "1:2", ".inf", "~", "=", "2020-02-31",
]
# fmt: on
yamlish = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=15).map("".join)
words = sorted({str(part) for _, path in PLACES for part in path} | {"uniform", "top", "auto", "mean", "kl", "midway", "4L"})
scalars = (
    st.none() | st.booleans() | st.integers(-2, 9) | st.integers() | st.floats() | st.sampled_from(words) | st.text(max_size=6)
    | st.dates(datetime.date(1, 1, 1)) | st.binary(max_size=3)
)  # fmt: skip
keys: st.SearchStrategy[Key] = st.sampled_from(words) | st.integers(-2, 12) | st.text(max_size=4)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
# a value as it stands somewhere else in a recipe, and so of a likely shape
elsewhere = st.sampled_from(PLACES).map(lambda place: inside(RECIPES[place[0]], place[1]))


def inside(data: Any, path: KeyPath) -> Any:
    for key in path:
        data = data[key]
    return copy.deepcopy(data)


def problems_of(action: Callable[[], object]) -> tuple[Problem, ...]:
    """The reasons of a refusal; none if there was none. Anything else that is raised goes through."""
    try:
        action()
    except RequestError as error:
        return error.problems or (Problem("", "a refusal without a reason"),)
    return ()


def load_or_refuse(text: str, overrides: Sequence[Override] = ()) -> None:
    """Load, and look at what comes out: a whole recipe, or problems that say where and what."""
    loaded: list[Recipe] = []
    found = problems_of(lambda: loaded.append(loads(text, ORIGIN, overrides).recipe))
    assert bool(found) is not bool(loaded)
    for problem in found:
        assert problem.where.startswith((ORIGIN, "--set"))
        assert problem.what
        assert str(problem)
    assert len(set(found)) == len(found)
    for recipe in loaded:
        assert Recipe.model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe


def written(data: Any) -> str:
    return str(yaml.safe_dump(data, allow_unicode=True, sort_keys=False))


def test_what_is_mutated_here_is_right_to_begin_with() -> None:
    loads(EVERYTHING, ORIGIN)
    for data in SHIPPED.values():
        loads(written(data), ORIGIN)


@quick
@given(text=st.text() | yamlish | yamlish.map(lambda tail: EVERYTHING + tail))
@example("name: a\nstages: &s [*s]")
@example("\ufeffname: a")
@example("? [1]\n: 2")
@example("{}: 1")
@example("name: a\n---\nname: b")
def test_any_text(text: str) -> None:
    load_or_refuse(text)


@quick
@given(data=values | st.fixed_dictionaries({"name": values, "stages": st.lists(values, max_size=2)}))
def test_any_data(data: object) -> None:
    load_or_refuse(written(data))


@quick
@given(objective=st.lists(st.dictionaries(keys, values | elsewhere, max_size=3), min_size=1, max_size=3), loss=elsewhere)
@example(objective=[{"weight": "a"}], loss="hard-labels")
@example(objective=[{"relation_heads": [4]}], loss="relation-kl")
@example(objective=[{"name": 3}], loss=["hard-labels"])
def test_any_terms(objective: list[dict[Key, Any]], loss: object) -> None:
    terms = [{"loss": loss, **term} for term in objective]
    load_or_refuse(written({"name": "a", "stages": [{"name": "one", "objective": terms}]}))


@settings(quick, max_examples=250)
@given(
    place=st.sampled_from(PLACES),
    value=values | elsewhere,
    how=st.sampled_from(["replace", "delete", "nest", "twice", "add"]),
    key=keys,
)
@example(("kdcli", ("stages", 0, "objective", 0, "loss")), None, "replace", "")
@example(("teacher-annealing", ("stages", 0, "objective", 0, "weight")), [1], "replace", "")
@example(("everything", ("stages", 0, "until")), 3, "add", "windw")
@example(("everything", ("stages", 0, "freeze")), ["x"], "replace", "")
def test_any_change_of_a_right_recipe(place: tuple[str, KeyPath], value: Any, how: str, key: Key) -> None:
    name, path = place
    data = copy.deepcopy(RECIPES[name])
    last, block = path[-1], data
    for step in path[:-1]:
        block = block[step]
    if how == "replace":
        block[last] = value
    elif how == "delete":
        del block[last]
    elif how == "nest":
        block[last] = {key: block[last]} if isinstance(key, str) else [block[last]]
    elif how == "twice" and isinstance(block, list):
        block.insert(0, copy.deepcopy(inside(data, path)))
    elif isinstance(block[last], dict):
        block[last][key] = value
    elif isinstance(block, dict):
        block[key] = value
    load_or_refuse(written(data))


@quick
@given(name=st.sampled_from(sorted(RECIPES)), row=st.integers(0, 40), other=st.integers(0, 40), cut=st.booleans())
def test_lines_that_were_lost_or_doubled(name: str, row: int, other: int, cut: bool) -> None:
    text = EVERYTHING if name == "everything" else shipped()[name].read_text(encoding="utf-8")
    lines = text.splitlines()
    row, other = row % len(lines), other % len(lines)
    if cut:
        del lines[row]
    else:
        lines.insert(other, lines[row])
    load_or_refuse("\n".join(lines) + "\n")


starred = st.sampled_from(PLACES).map(lambda place: tuple("*" if isinstance(key, int) else key for key in place[1]))


@settings(quick, max_examples=120)
@given(
    name=st.sampled_from(sorted(RECIPES)),
    overrides=st.lists(
        st.tuples(
            st.sampled_from(PLACES).map(lambda place: place[1])
            | starred
            | st.lists(keys | st.just("*"), min_size=1, max_size=4).map(tuple),
            values | elsewhere,
        ),
        min_size=1,
        max_size=3,
    ),
)
@example("tinybert", [(("stages", "*", "objective"), 3), (("stages", 0, "objective", "*", "weight"), 1)])
@example("tinybert", [(("stages", 2), {"name": "x"}), (("stages", "*", "name"), "x")])
@example("tinybert", [(("stages", 0), None), (("stages", 0, "name"), "x")])
def test_any_overrides(name: str, overrides: list[tuple[KeyPath, Any]]) -> None:
    text = written(RECIPES[name])
    load_or_refuse(text, [Override(path, copy.deepcopy(value), "--set x=y") for path, value in overrides])


@settings(quick, max_examples=150)
@given(
    name=st.sampled_from(sorted(RECIPES)),
    text=st.text()
    | st.tuples(st.sampled_from(PLACES).map(lambda place: ".".join(map(str, place[1]))), yamlish | st.sampled_from(words)).map(
        "=".join
    )
    | st.tuples(st.text(max_size=8), yamlish).map("=".join),
)
@example("kdcli", "stages.0.objective.0.weight=")
@example("kdcli", "stages.².epochs=3")
@example("kdcli", "stages.0.objective.1.weighting=3")
@example("kdcli", "training=")
@example("kdcli", "=")
def test_any_text_of_a_flag(name: str, text: str) -> None:
    made: list[Override] = []
    found = problems_of(lambda: made.append(Override.parse(text)))
    assert all(problem.where.startswith("--set ") and problem.what for problem in found)
    assert bool(made) is not bool(found)
    load_or_refuse(written(RECIPES[name]), made)


@pytest.mark.parametrize("depth", [50, 400, 485, 500, 700])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ("{a: ", "}"), ("{? ", "}")])
def test_deep_nesting(depth: int, begin: str, end: str) -> None:
    load_or_refuse(f"{EVERYTHING}more: {begin * depth}1{end * depth}\n")
    load_or_refuse(
        EVERYTHING.replace("layers: {bert: {1: 2, 2: 4}, roberta: uniform}", f"layers: {begin * depth}1{end * depth}")
    )


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "1e400", "-1e400", "0b2", "0o9", "1__0", "190:20:30", "1e308", "-0"])
@pytest.mark.parametrize(
    "key", ["training.batch_size", "training.learning_rate", "stages.0.epochs", "student.init.layers.0", "layers.bert.1"]
)
def test_numbers_of_unusual_size_or_form(number: str, key: str) -> None:
    made: list[Override] = []
    if not problems_of(lambda: made.append(Override.parse(f"{key}={number}"))):
        load_or_refuse(EVERYTHING, made)
