"""The language written down: the JSON Schema and the tables are those that the code gives, and say of recipes what it says."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kdcli.errors import RequestError
from kdcli.recipe import blocks, schema
from kdcli.recipe.blocks import Block
from kdcli.recipe.catalogue import remarks, schema_file, shipped
from kdcli.recipe.language_reference import json_schema, key_tables, recipe_table, schema_text, with_tables, write
from kdcli.recipe.loading import load, loads
from kdcli.recipe.loss import LayerLoss, LossBlock, TeacherLoss
from kdcli.recipe.loss_blocks import losses
from kdcli.recipe.losses.projection import Projection
from kdcli.recipe.yaml_document import Override, parse

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "to write it anew: python -m kdcli.recipe.language_reference"
LOSSES = losses()
BLOCKS = [
    *(
        block
        for module in (blocks, schema)
        for block in vars(module).values()
        if isinstance(block, type) and issubclass(block, BaseModel) and block.__module__ == module.__name__
    ),
    Projection,
    LossBlock,
    TeacherLoss,
    LayerLoss,
    *LOSSES,
]
Change = Callable[[dict[str, Any]], object]


# What lies in the project is what the code says.


def test_shipped_json_schema_is_the_one_that_the_code_gives() -> None:
    assert schema_file().read_text(encoding="utf-8") == schema_text(), AGAIN
    assert json.loads(schema_text()) == json_schema()


def test_tables_of_the_documentation_are_those_that_the_code_gives() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert with_tables(page) == page, AGAIN
    assert key_tables() in page, AGAIN
    assert recipe_table() in page, AGAIN


def test_every_deviation_that_a_recipe_names_is_documented_and_its_settings_can_be_set() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, path in shipped().items():
        said = [text for texts in remarks(path).values() for text in texts]
        assert all(text in page for text in said), AGAIN
        overrides = [Override.parse(text) for text in re.findall(r"--set ([^\s,)]+)", " ".join(said))]
        assert load(path, overrides).recipe.name == name


def test_writing_them_anew_changes_what_stands_between_the_marks_alone(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "recipes.md"
    marks = "<!-- {0}: begin -->\nstale words\n<!-- {0}: end -->"
    parts = "\n\nbetween\n\n".join(marks.format(name) for name in ("recipes", "deviations", "keys"))
    page.write_text(f"before\n\n{parts}\n\nbehind\n", encoding="utf-8")
    write(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "stale words" not in text
    assert text.startswith("before\n\n<!-- recipes: begin -->\n\n| recipe |")
    assert "<!-- recipes: end -->\n\nbetween\n\n<!-- deviations: begin -->\n\n| recipe | deviates" in text
    assert "<!-- deviations: end -->\n\nbetween\n\n<!-- keys: begin -->\n\n### A recipe" in text
    assert text.endswith("<!-- keys: end -->\n\nbehind\n")
    written = (tmp_path / "recipes" / "recipe.schema.json").read_text(encoding="utf-8")
    assert written == schema_text()
    write(tmp_path)
    assert page.read_text(encoding="utf-8") == text


# Nothing is left out.


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_every_key_of_every_block_is_described(block: type[BaseModel]) -> None:
    assert (block.__doc__ or "").strip().endswith((".", ")", "``)."))
    bare = [name for name, info in block.model_fields.items() if not info.description and name != "loss"]
    assert bare == []


def test_every_property_of_the_json_schema_is_described() -> None:
    def bare(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.get("properties", {}).items():
                if not value.get("description") and name != "loss":
                    yield f"{path}.{name}"
            for name, value in node.items():
                yield from bare(value, f"{path}/{name}")
        elif isinstance(node, list):
            for value in node:
                yield from bare(value, path)

    written = json_schema()
    assert list(bare(written, "")) == []
    assert all(block.get("description") for block in written["$defs"].values())


@pytest.mark.parametrize("block", [block for block in BLOCKS if block is not Block], ids=lambda block: block.__name__)
def test_every_key_of_every_block_stands_in_a_table(block: type[BaseModel]) -> None:
    rows = key_tables().splitlines()
    for name, info in block.model_fields.items():
        if name != "loss":
            meaning = (info.description or "").replace("``", "`").replace("|", "\\|")
            assert [row for row in rows if row.startswith(f"| `{info.alias or name}` | {meaning} | ")]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_every_loss_has_a_heading_with_its_first_sentence(loss: type[LossBlock]) -> None:
    sentence = (loss.__doc__ or "").splitlines()[0]
    assert f"### `loss: {loss.loss_name()}`\n\n{sentence}" in key_tables()


def test_every_row_of_every_table_has_four_cells() -> None:
    rows = [row for row in key_tables().splitlines() if row.startswith("|")]
    assert rows
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


def test_every_shipped_recipe_stands_in_the_table_with_its_summary() -> None:
    rows = recipe_table().splitlines()[2:]
    assert len(rows) == len(shipped())
    for row, (name, path) in zip(rows, shipped().items(), strict=True):
        data = parse(path.read_text(encoding="utf-8"), name).data
        assert row == f"| `{name}` | {data['summary']} | {data.get('paper', '')} |"


# Editors say what kdcli says.


def as_json(value: Any) -> Any:
    """YAML's data as JSON has it: every key is text."""
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipe_is_valid(name: str, validator: Any) -> None:
    data = parse(shipped()[name].read_text(encoding="utf-8"), name).data
    assert [error.message for error in validator.iter_errors(as_json(data))] == []


def base() -> dict[str, Any]:
    """A recipe with one stage and two terms."""
    terms = [{"loss": "hidden-mse"}, {"loss": "soft-labels"}]
    return {"name": "mine", "layers": "uniform", "stages": [{"name": "one", "objective": terms}]}


def top(**more: Any) -> Change:
    return lambda recipe: recipe.update(more)


def stage(**more: Any) -> Change:
    return lambda recipe: recipe["stages"][0].update(more)


def term(**more: Any) -> Change:
    return lambda recipe: recipe["stages"][0]["objective"][0].update(more)


def soft(**more: Any) -> Change:
    return lambda recipe: recipe["stages"][0]["objective"][1].update(more)


def without(*path: Any) -> Change:
    def change(recipe: dict[str, Any]) -> None:
        block: Any = recipe
        for key in path[:-1]:
            block = block[key]
        del block[path[-1]]

    return change


RIGHT: dict[str, Change] = {
    "as it stands": top(),
    "map by teacher": top(layers={"bert": {1: 2, 2: 4}, "roberta": "last"}),
    "embeddings": term(layers={"bert": {0: 0}}),
    "no map of its own": term(layers=None),
    "weight that changes": soft(weight={"from": 0, "to": 1, "shape": "cosine", "every": "epoch"}),
    "weights by teacher": soft(weighting={"bert": 1, "roberta": 0.5}),
    "no projection": term(projection=None),
    "projection": term(projection={"side": "teacher"}),
    "heads": term(loss="attention-kl", heads={"bert": {1: 2}, "roberta": "mean"}),
    "relation heads": term(loss="relation-kl", relation_heads=12),
    "the attention's own heads": term(loss="relation-kl", relation_heads=None),
    "parts to freeze": stage(freeze=["embeddings", 1, "head"]),
    "until": stage(until={"loss": "hidden-mse", "below": 0.5}),
    "layers to copy": top(student={"size": "4L", "init": {"from": "bert", "layers": [1, 3], "weights": "finetuned"}}),
    "assistants": top(assistants=["midway", "6L"]),
    "out of fold": top(teachers={"out_of_fold": 5, "labels": {"bert": ["no", "yes"]}}),
    "optimiser": top(training={"optimizer": {"name": "sgd", "beta1": 0.9}, "learning_rate": 1}),
}

WRONG: dict[str, Change] = {
    "misspelt key": top(layer="uniform"),
    "misspelt key of a stage": stage(epoch=3),
    "misspelt key of a term": term(wieght=3),
    "misspelt key of a block": top(training={"batchsize": 3}),
    "misspelt key of a schedule": soft(weight={"from": 0, "to": 1, "shap": "linear"}),
    "key of another loss": term(temperature=2),
    "no stages": without("stages"),
    "no stage": top(stages=[]),
    "no name": without("name"),
    "stage without an objective": without("stages", 0, "objective"),
    "stage without a name": without("stages", 0, "name"),
    "empty objective": stage(objective=[]),
    "term without a loss": without("stages", 0, "objective", 0, "loss"),
    "unknown loss": term(loss="hiden-mse"),
    "loss as a list": term(loss=["hidden-mse"]),
    "weight as a word": term(weight="much"),
    "weight as yes": term(weight=True),
    "negative weight": term(weight=-1),
    "schedule without an end": soft(weight={"from": 0}),
    "temperature of zero": soft(temperature=0),
    "unknown map": top(layers="unifrom"),
    "map as a list": top(layers=[3, 6, 9]),
    "map without a teacher": top(layers={1: 3, 2: 6}),
    "unknown map of a teacher": top(layers={"bert": "unifrom"}),
    "map to a word": top(layers={"bert": {1: "three"}}),
    "map to a negative layer": top(layers={"bert": {1: -3}}),
    "empty map": top(layers={"bert": {}}),
    "no epochs": stage(epochs=0),
    "unknown expansion": stage(expand="stack"),
    "unknown part to freeze": stage(freeze=["embedding"]),
    "layer 0 frozen": stage(freeze=[0]),
    "until without a value": stage(until={"loss": "hidden-mse"}),
    "unknown projection": term(projection="teacher"),
    "unknown side": term(projection={"side": "both"}),
    "unknown weighting": soft(weighting="best"),
    "weights as words": soft(weighting={"bert": "much"}),
    "unknown tokens": term(tokens="first"),
    "relation heads of zero": term(loss="relation-kl", relation_heads=0),
    "unknown relation": term(loss="relation-kl", relations=["query"]),
    "unknown heads": term(loss="attention-kl", heads="max"),
    "group of two": term(loss="relational", group=2),
    "batch as yes": top(training={"batch_size": True}),
    "half a sample": top(training={"batch_size": 1.5}),
    "batch as text": top(training={"batch_size": "32"}),
    "warm-up of everything": top(training={"warmup": 1}),
    "unknown schedule": top(training={"schedule": "step"}),
    "unknown optimiser": top(training={"optimizer": {"name": "adam"}}),
    "layers to copy from 0": top(student={"init": {"layers": [0, 1]}}),
    "unknown layers to copy": top(student={"init": {"layers": "skip"}}),
    "size as a number": top(student={"size": 4}),
    "assistant as a number": top(assistants=[8]),
    "labels as text": top(teachers={"labels": {"bert": "positive"}}),
    "one fold": top(teachers={"out_of_fold": 1}),
    "name of the code for from": top(student={"init": {"source": "bert"}}),
    "name of the code for from in a schedule": soft(weight={"start": 0, "to": 1}),
}


def changed(change: Change) -> dict[str, Any]:
    recipe = copy.deepcopy(base())
    change(recipe)
    return recipe


def loads_as_yaml(recipe: dict[str, Any]) -> bool:
    import yaml

    try:
        loads(yaml.safe_dump(recipe, sort_keys=False), "mine.yaml")
    except RequestError:
        return False
    return True


@pytest.mark.parametrize("about", RIGHT)
def test_what_is_right_is_right_in_both(about: str, validator: Any) -> None:
    recipe = changed(RIGHT[about])
    assert loads_as_yaml(recipe)
    assert [error.message for error in validator.iter_errors(as_json(recipe))] == []


@pytest.mark.parametrize("about", WRONG)
def test_what_is_wrong_is_wrong_in_an_editor(about: str, validator: Any) -> None:
    assert not validator.is_valid(as_json(changed(WRONG[about])))


@pytest.mark.parametrize("about", WRONG)
def test_what_is_wrong_in_an_editor_is_wrong_here(about: str) -> None:
    assert not loads_as_yaml(changed(WRONG[about]))
