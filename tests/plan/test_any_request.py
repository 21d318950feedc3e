"""Right recipes, changed at random and held against models of every kind: a sound plan or a refusal with its reasons."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kdcli.errors import Problem, RequestError
from kdcli.models.checkpoints import parse_references
from kdcli.plan.plan import HopPlan
from kdcli.plan.resolve import check_recipe
from kdcli.recipe.catalogue import shipped
from kdcli.recipe.loading import LoadedRecipe, loads
from kdcli.recipe.yaml_document import KeyPath, Override
from tests.plan.desk import Shelf, named

quick = settings(
    deadline=None,
    database=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in shipped().items()}
TEXTS["many"] = """\
name: many
stages:
  - name: inside
    objective:
      - {loss: attention-kl}
      - {loss: hidden-mse}
      - {loss: relation-kl}
      - {loss: relational}
  - name: answers
    objective:
      - {loss: soft-labels}
      - {loss: hard-labels}
      - {loss: logits-mse}
      - {loss: random-layers}
"""

names = st.sampled_from(["bert", "other", "brt"])
layers = st.integers(0, 7)
named_maps = st.sampled_from(["uniform", "first", "last", "skip", "last-intermediate", "middle", "top", "embeddings"])
pairs = st.dictionaries(layers, layers, min_size=1, max_size=4)
layer_maps = named_maps | st.dictionaries(names, named_maps | pairs, min_size=1, max_size=2)
head_pairs = st.dictionaries(st.integers(1, 9), st.integers(1, 9), min_size=1, max_size=3)
heads = st.sampled_from(["auto", "match", "mean"])
places = st.lists(st.sampled_from(["embeddings", "head", 1, 2, 3, 5]), max_size=5)
losses = st.sampled_from(
    ["hard-labels", "soft-labels", "logits-mse", "hidden-mse", "hidden-cosine", "attention-kl", "attention-mse", "relation-kl",
     "relational", "random-layers"]
)  # fmt: skip
terms = st.fixed_dictionaries(
    {"loss": losses},
    optional={
        "weight": st.sampled_from([0, 1, {"from": 0, "to": 1}]),
        "teachers": st.lists(names, min_size=1, max_size=2),
        "layers": st.none() | layer_maps,
        "name": st.sampled_from(["one", "two", "hidden-mse"]),
        "heads": heads | st.dictionaries(names, heads | head_pairs, min_size=1, max_size=2),
        "projection": st.sampled_from(["auto", None, {"side": "teacher"}, {"side": "student", "share": "per-teacher"}]),
        "relation_heads": st.sampled_from(["auto", None, 4, 7, 48]),
        "weighting": st.sampled_from(["uniform", "uncertainty", "inverse-error"])
        | st.dictionaries(names, st.sampled_from([0, 1]), min_size=1, max_size=2),
        "draw": st.sampled_from([None, "uniform", "ranked"]),
        "states": st.sampled_from(["cls", "logits"]),
        "group": st.sampled_from([None, 4, 99]),
    },
)
KEYS_OF_LOSSES = {
    "hard-labels": (),
    "soft-labels": ("teachers", "weighting", "draw"),
    "logits-mse": ("teachers",),
    "hidden-mse": ("teachers", "layers", "projection"),
    "hidden-cosine": ("teachers", "layers", "projection"),
    "attention-kl": ("teachers", "layers", "heads"),
    "attention-mse": ("teachers", "layers", "heads"),
    "relation-kl": ("teachers", "layers", "relation_heads"),
    "relational": ("teachers", "layers", "states", "group"),
    "random-layers": ("teachers",),
}


def own_keys(term: dict[str, Any]) -> dict[str, Any]:
    """The term with the keys that its loss has."""
    return {key: value for key, value in term.items() if key in ("loss", "weight", "name", *KEYS_OF_LOSSES[term["loss"]])}


objectives = st.lists(terms.map(own_keys), min_size=1, max_size=3)
changes: st.SearchStrategy[tuple[KeyPath, Any]] = st.one_of(
    st.tuples(st.just(("layers",)), layer_maps),
    st.tuples(st.just(("assistants",)), st.lists(st.sampled_from(["midway", "3L", "4L", "3L-16H", "0L", "8X"]), max_size=3)),
    st.tuples(st.just(("student", "init", "from")), st.sampled_from(["first-teacher", "scratch", "bert", "other", "brt"])),
    st.tuples(st.just(("student", "init", "layers")), st.sampled_from(["first", "last", "uniform", "matched", [1, 2], [6]])),
    st.tuples(st.just(("student", "size")), st.sampled_from(["2L", "teacher", "9L", "2L-36H", "4X"])),
    st.tuples(st.just(("teachers", "labels")), st.dictionaries(names, st.just(["a", "b"]), max_size=1)),
    st.tuples(st.just(("training", "batch_size")), st.sampled_from([1, 8, 64])),
    st.tuples(st.just(("training", "max_length")), st.sampled_from([4, 128, 129])),
    st.tuples(st.just(("stages", 0, "expand")), st.sampled_from([None, "progressive", "stacked"])),
    st.tuples(st.just(("stages", 0, "freeze")), places),
    st.tuples(st.just(("stages", "*", "freeze")), places),
    st.tuples(st.just(("stages", 0, "until")), losses.map(lambda loss: {"loss": loss, "below": 1})),
    st.tuples(st.just(("stages", 0, "name")), st.sampled_from(["internal-1", "inside-1", "x"])),
    st.tuples(st.just(("stages", 0, "objective")), objectives),
    st.tuples(st.just(("stages", 1)), objectives.map(lambda objective: {"name": "x-1", "objective": objective})),
    st.tuples(st.just(("stages", "*", "objective", "*", "weight")), st.sampled_from([0, 1])),
    st.tuples(st.just(("stages", "*", "epochs")), st.sampled_from([0.001, 3, 1000])),
)  # fmt: skip
models = st.tuples(
    st.sampled_from(["bert", "roberta", "electra", "albert", "mpnet", "deberta-v2", "convbert", "squeezebert"]),
    st.integers(1, 6),
    st.sampled_from([(32, 4), (48, 4), (32, 8)]),
)
BERT = ("bert", 4, (32, 4))
sizes = st.sampled_from(["1L", "2L", "3L", "4L", "6L", "2L-36H", "2L-32H-8A", "3L-7A", "4X", "0L", None])


def prepared(name: str, overrides: list[tuple[KeyPath, Any]]) -> LoadedRecipe | None:
    """The changed recipe, if it is still one."""
    made = [Override(path, copy.deepcopy(value), "--set x=y") for path, value in overrides]
    try:
        return loads(TEXTS[name], "mine.yaml", made)
    except RequestError as error:
        assert_reasons(error.problems)
        return None


def assert_reasons(problems: tuple[Problem, ...]) -> None:
    """There are reasons, each of them once, and each says where and what."""
    assert len(set(problems)) == len(problems) > 0
    for problem in problems:
        places = ("mine.yaml", "--set x=y", "--student", "--teachers", "--set")
        assert problem.where.startswith(places) or "config.json" in problem.where
        assert problem.what
        assert not problem.found.startswith("losses reach nothing"), "what follows from another mistake is none of its own"


def assert_sound(hops: list[HopPlan], depths: dict[str, int]) -> None:
    """Everything that the trainings name is there."""
    for hop in hops:
        depth = hop.student.layers
        assert len({stage.name for stage in hop.stages}) == len(hop.stages)
        for stage in hop.stages:
            assert stage.steps > 0
            assert stage.moves
            assert not set(stage.moves) & set(stage.freeze)
            assert set(stage.moves) | set(stage.freeze) <= {"embeddings", *range(1, depth + 1), "head"}
            labels = [term.loss.label for term in stage.terms]
            assert labels
            assert stage.until is None or stage.until.loss in labels
            for term in stage.terms:
                assert set(term.teachers) <= set(hop.teachers)
                assert (term.loss.loss_name() == "hard-labels") == (not term.teachers)
                for teacher, pairs in term.layers.items():
                    assert teacher in term.teachers
                    assert pairs
                    assert all(0 <= ours <= depth and 0 <= theirs <= depths[teacher] for ours, theirs in pairs.items())
                for kept in (term.heads, term.relation_heads, term.projected):
                    assert not kept or set(kept) >= set(term.teachers)
    assert [hop.name for hop in hops][-1] == "distill"
    assert all(later.teachers == [earlier.name] for earlier, later in pairwise(hops))


@quick
@given(
    name=st.sampled_from(sorted(TEXTS)),
    overrides=st.lists(changes, max_size=4),
    first=models,
    second=st.none() | models,
    student=sizes,
)
@example(name="many", overrides=[(("layers",), {"bert": {1: 9}})], first=BERT, second=None, student="2L")
@example(name="many", overrides=[(("assistants",), ["0L"])], first=BERT, second=None, student="2L")
@example(
    name="internal-stacked", overrides=[(("stages", 0, "objective", 1, "layers"), "top")], first=BERT, second=None, student="2L"
)
@example(name="internal-stacked", overrides=[(("stages", 1, "name"), "internal-1")], first=BERT, second=None, student="2L")
def test_any_request_is_planned_soundly_or_refused(
    name: str,
    overrides: list[tuple[KeyPath, Any]],
    first: tuple[str, int, tuple[int, int]],
    second: tuple[str, int, tuple[int, int]] | None,
    student: str | None,
    shelf: Shelf,
) -> None:
    loaded = prepared(name, overrides)
    if loaded is None:
        return
    teachers: dict[str, Path] = {"bert": shelf.model(first[0], first[1], *first[2])}
    if second is not None:
        teachers["other"] = shelf.model(second[0], second[1], *second[2])
    try:
        hops, depths = check_recipe(loaded, parse_references(named(teachers), "--teachers"), student)
    except RequestError as error:
        assert_reasons(error.problems)
        return
    assert_sound(hops, depths)


@quick
@given(
    objective=st.lists(terms.map(own_keys), min_size=1, max_size=4),
    expand=st.sampled_from([None, "progressive", "stacked"]),
    freeze=places,
    until=st.none() | losses.map(lambda loss: {"loss": loss, "below": 1}),
    student=st.sampled_from(["1L", "2L", "4L"]),
)
def test_any_stage_is_planned_soundly_or_refused(
    objective: list[dict[str, Any]], expand: str | None, freeze: list[Any], until: Any, student: str, shelf: Shelf
) -> None:
    stage = {"name": "x", "objective": objective, "expand": expand, "freeze": freeze, "until": until}
    loaded = prepared("many", [(("stages",), [stage, {"name": "x-1", "objective": [{"loss": "hard-labels"}]}])])
    assert loaded is not None
    teachers = {"bert": shelf.model(), "other": shelf.model("roberta", 6, 48)}
    try:
        hops, depths = check_recipe(loaded, parse_references(named(teachers), "--teachers"), student)
    except RequestError as error:
        assert_reasons(error.problems)
        return
    assert_sound(hops, depths)


@pytest.mark.parametrize("epochs", ["1e300", "1e308", "1e-300"])
def test_numbers_of_epochs_beyond_all_bounds_are_planned_or_refused(epochs: str, shelf: Shelf) -> None:
    for problem in shelf.problems(TEXTS["many"], f"stages.0.epochs={epochs}", teachers=shelf.one()):
        assert problem.where == f"--set stages.0.epochs={epochs}  stages.0.epochs"
