"""What is known of architectures by heart is what their code says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, RobertaConfig, XLMRobertaConfig

from kdcli.models import weight_checks
from kdcli.models.capture import serves
from kdcli.plan import model_size
from kdcli.plan.model_size import internals, parameter_count

BY_HEART = {"bert": BertConfig, "roberta": RobertaConfig, "xlm-roberta": XLMRobertaConfig}
SIZES = {
    "num_hidden_layers": some.integers(0, 3),
    "num_attention_heads": some.sampled_from([1, 2, 4]),
    "hidden_size": some.sampled_from([4, 8, 12]),
    "intermediate_size": some.integers(1, 9),
    "vocab_size": some.integers(8, 30),
    "max_position_embeddings": some.integers(8, 30),
    "type_vocab_size": some.integers(1, 2),
    "num_labels": some.integers(1, 5),
}


def built(config: Any, classifier: bool) -> int:
    """Parameters of the model itself, weights and all."""
    factory = AutoModelForSequenceClassification if classifier else AutoModel
    return sum(parameter.numel() for parameter in factory.from_config(config).parameters())


def test_every_architecture_that_is_known_by_heart_is_tested() -> None:
    assert set(BY_HEART) == set(weight_checks.BY_HEART)


@pytest.mark.parametrize("kind", sorted(BY_HEART))
@given(size=some.fixed_dictionaries(SIZES), classifier=some.booleans())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_counted_parameters_are_those_of_the_model(kind: str, size: dict[str, int], classifier: bool) -> None:
    config = BY_HEART[kind](**size)
    assert weight_checks.is_plain(config)
    assert parameter_count(config, classifier=classifier) == built(config, classifier)
    assert model_size._count(config, classifier) == built(config, classifier)


@pytest.mark.parametrize("kind", sorted(BY_HEART))
def test_insides_that_are_known_by_heart_are_those_that_are_served(kind: str) -> None:
    config = BY_HEART[kind]()
    assert internals(config) == serves(config)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, ValueError),
        ({"pad_token_id": 99, "vocab_size": 20}, AssertionError),
        ({"hidden_act": "unheard-of"}, KeyError),
    ],
)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_what_the_architecture_refuses_is_not_counted(kind: str, change: dict[str, Any], refusal: type[Exception]) -> None:
    size = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}
    with pytest.raises(refusal):
        parameter_count(BY_HEART[kind](**size | change), classifier=True)


def test_cross_attention_is_counted_where_there_is_some() -> None:
    size = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}
    config = BertConfig(**size, is_decoder=True, add_cross_attention=True)
    assert parameter_count(config, classifier=False) == built(config, False)
