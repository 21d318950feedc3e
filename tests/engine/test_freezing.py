"""What moves in a stage, and what stays as it is to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from kdcli.engine.events import Event, StepDone
from kdcli.losses.attention_kl import AttentionKlTerm
from kdcli.losses.attention_mse import AttentionMseTerm
from kdcli.losses.hidden_cosine import HiddenCosineTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.relation_kl import RelationKlTerm
from kdcli.losses.relational import RelationalTerm
from tests.engine.phases import (
    WIDTHS,
    Material,
    Part,
    Terms,
    Told,
    all_terms,
    differing,
    every_loss,
    phase,
    trainer,
    weights,
)

PLACES: Mapping[str, int | str] = {
    "model.bert.embeddings.": "embeddings",
    "model.bert.encoder.layer.0.": 1,
    "model.bert.encoder.layer.1.": 2,
    "model.bert.pooler.": "head",
    "model.classifier.": "head",
    "projections.": "projections",
}


def place(name: str) -> int | str:
    return next(found for begin, found in PLACES.items() if name.startswith(begin))


def moved_by(material: Material, folder: Path, parts: Sequence[Part], **settings: Any) -> list[dict[int | str, set[bool]]]:
    """For every stage: place → whether its tensors moved; after its last step."""
    made = phase(material, parts)
    states = [weights(made)]
    ends = [sum(part.steps for part in parts[: row + 1]) for row in range(len(parts))]

    def remember(event: Event) -> None:
        if isinstance(event, StepDone) and event.step in ends:
            states.append(weights(made))

    trainer(folder, Told(remember), weight_decay=0.3, **settings).run(made)
    return [by_place(before, after) for before, after in pairwise(states)]


def by_place(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[int | str, set[bool]]:
    moved = set(differing(before, after))
    found: dict[int | str, set[bool]] = {}
    for name in before:
        found.setdefault(place(name), set()).add(name in moved)
    return found


@pytest.mark.parametrize("freeze", [["embeddings"], [1], [2], ["head"], ["embeddings", 1], [2, "head"], ["embeddings", 1, 2]])
def test_frozen_parts_stay_to_the_last_bit_and_all_others_move(
    freeze: Sequence[int | str], material: Material, tmp_path: Path
) -> None:
    """Every tensor of every other part moves, those of the projections included."""
    (found,) = moved_by(material, tmp_path, [Part(2, every_loss, freeze=freeze)])
    assert found == {part: {part not in freeze} for part in PLACES.values()}


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
def test_what_is_frozen_in_one_stage_moves_in_the_next(optimizer: str, material: Material, tmp_path: Path) -> None:
    frozen: list[list[int | str]] = [["embeddings", 1], [2, "head"], []]
    parts = [Part(2, every_loss, freeze=freeze) for freeze in frozen]
    found = moved_by(material, tmp_path, parts, optimizer={"name": optimizer})
    for part, stage in zip(parts, found, strict=True):
        assert stage == {name: {name not in part.freeze} for name in PLACES.values()}


def test_freezing_holds_with_accumulation_and_layer_decay(material: Material, tmp_path: Path) -> None:
    (found,) = moved_by(material, tmp_path, [Part(2, every_loss, freeze=["embeddings", 2])], accumulation=2, layer_decay=0.5)
    assert found == {part: {part not in ("embeddings", 2)} for part in PLACES.values()}


def hidden_mse(layer: int) -> Terms:
    return lambda bank: [HiddenMseTerm({"bert": {layer: 2}, "roberta": {layer: 3}}, 32, WIDTHS, bank, "student")]


def hidden_cosine(layer: int) -> Terms:
    return lambda bank: [HiddenCosineTerm({"bert": {layer: 2}}, 32, WIDTHS, bank)]


def attention_kl(layer: int) -> Terms:
    return lambda _: [AttentionKlTerm({"bert": {layer: 2}})]


def attention_mse(layer: int) -> Terms:
    return lambda _: [AttentionMseTerm({"roberta": {layer: 3}})]


def relation_kl(layer: int) -> Terms:
    return lambda _: [RelationKlTerm({"bert": {layer: 2}}, relation_heads=8)]


def relational(layer: int) -> Terms:
    return lambda _: [RelationalTerm({"bert": {layer: 2}})]


INNER = [hidden_mse, hidden_cosine, attention_kl, attention_mse, relation_kl, relational]


@pytest.mark.parametrize("make", INNER)
def test_a_loss_on_a_layer_moves_nothing_above_it(make: Callable[[int], Terms], material: Material, tmp_path: Path) -> None:
    """Neither decay nor the moments of a stage before, in which all moved, reach what the loss does not."""
    first, second, third = moved_by(material, tmp_path, [Part(2, all_terms), Part(2, make(1)), Part(2, make(2))])
    assert all(True in stage for stage in first.values())
    for layer, stage in ((1, second), (2, third)):
        assert stage["embeddings"] == {True}
        for below in range(1, layer + 1):
            assert True in stage[below]
        for above in range(layer + 1, 3):
            assert stage[above] == {False}
        assert stage["head"] == {False}
