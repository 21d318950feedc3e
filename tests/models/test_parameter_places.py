"""Every parameter of a classification model has its place: the embeddings, one of the blocks, or the head."""

from __future__ import annotations

import re
from typing import Any

import pytest
from transformers import AlbertConfig, AutoModelForSequenceClassification

from kdcli.models.capture import blocks
from kdcli.models.student import StudentLearner, parameter_places
from tests.models.architectures import CONFIGS, LAYERS, NAMES, SHARED_BLOCK, VOCABULARY, WIDTH

_BLOCK = re.compile(r"\.layers?\.(\d+)\.")
_BEFORE_THE_BLOCKS = ("embeddings_project", "embedding_hidden_mapping_in")
_HEAD = {
    "bert": {"bert.pooler", "classifier"},
    "roberta": {"classifier"},
    "xlm-roberta": {"classifier"},
    "camembert": {"classifier"},
    "electra": {"classifier"},
    "electra-narrow-embeddings": {"classifier"},
    "albert": {"albert.pooler", "classifier"},
    "distilbert": {"pre_classifier", "classifier"},
    "mpnet": {"classifier"},
    "deberta-v2": {"pooler", "classifier"},
    "modernbert": {"head", "classifier"},
}


def classifier(name: str) -> Any:
    return AutoModelForSequenceClassification.from_config(CONFIGS[name]())


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_one_place_between_the_embeddings_and_the_head(name: str) -> None:
    model = classifier(name)
    places = parameter_places(model)
    assert list(places) == [key for key, _ in model.named_parameters()]
    above = {LAYERS} if name == SHARED_BLOCK else set(range(1, LAYERS + 1))
    assert set(places.values()) == {0, "head"} | above


@pytest.mark.parametrize("name", [name for name in NAMES if name != SHARED_BLOCK])
def test_a_parameter_of_a_block_stands_where_its_name_says(name: str) -> None:
    places = parameter_places(classifier(name))
    of_blocks = {key: int(match[1]) + 1 for key in places if (match := _BLOCK.search(key))}
    assert set(of_blocks.values()) == set(range(1, LAYERS + 1))
    assert {key: places[key] for key in of_blocks} == of_blocks


@pytest.mark.parametrize("name", NAMES)
def test_the_embeddings_and_what_leads_from_them_to_the_blocks_stand_at_zero(name: str) -> None:
    model = classifier(name)
    places = parameter_places(model)
    own = {id(weight) for weight in model.base_model.embeddings.parameters()}
    at_zero = [
        key for key, weight in model.named_parameters() if id(weight) in own or any(part in key for part in _BEFORE_THE_BLOCKS)
    ]
    assert len(at_zero) >= 2
    assert {places[key] for key in at_zero} == {0}


@pytest.mark.parametrize("name", NAMES)
def test_the_head_is_the_pooler_and_all_that_lies_outside_of_the_encoder(name: str) -> None:
    head = {key for key, place in parameter_places(classifier(name)).items() if place == "head"}
    parts = {next((part for part in _HEAD[name] if key.startswith(f"{part}.")), key) for key in head}
    assert parts == _HEAD[name]


def test_a_last_norm_stands_with_the_top_block() -> None:
    assert parameter_places(classifier("modernbert"))["model.final_norm.weight"] == LAYERS


@pytest.mark.parametrize(("groups", "expected"), [(1, [LAYERS]), (2, [2, LAYERS]), (LAYERS, [1, 2, 3, LAYERS])])
def test_a_shared_block_stands_where_the_topmost_of_its_uses_does(groups: int, expected: list[int]) -> None:
    config = AlbertConfig(
        vocab_size=VOCABULARY, embedding_size=16, hidden_size=WIDTH, num_attention_heads=4, intermediate_size=48,
        num_hidden_layers=LAYERS, num_hidden_groups=groups, max_position_embeddings=40,
    )  # fmt: skip
    model: Any = AutoModelForSequenceClassification.from_config(config)
    of_weight = {id(weight): row for row, block in enumerate(blocks(model)) for weight in block.parameters()}
    places = parameter_places(model)
    found = {of_weight[id(weight)]: places[key] for key, weight in model.named_parameters() if id(weight) in of_weight}
    assert [found[row] for row in range(groups)] == expected


@pytest.mark.parametrize("name", NAMES)
def test_depths_are_the_places_as_the_learner_names_its_parameters(name: str) -> None:
    model = classifier(name)
    learner = StudentLearner(model)
    depths = learner.depths()
    assert list(depths) == [key for key, _ in learner.named_parameters()]
    assert list(depths.values()) == list(parameter_places(model).values())
