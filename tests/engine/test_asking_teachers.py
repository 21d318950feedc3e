"""Whom a step asks, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kdcli.engine.events import Logged
from kdcli.errors import InterruptedRunError
from kdcli.losses.attention_kl import AttentionKlTerm
from kdcli.losses.attention_mse import AttentionMseTerm
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.logits_mse import LogitsMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.losses.relation_kl import RelationKlTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.models.output import KINDS, Wanted
from kdcli.models.student import STUDENT
from tests.engine.phases import (
    DEPTHS,
    PER_EPOCH,
    WIDTHS,
    Listening,
    Material,
    Part,
    Told,
    ensemble,
    labels_alone,
    phase,
    stopping_at,
    trainer,
)

HALVES = {"bert": 0.5, "roberta": 0.5}


def wanted(**layers: set[int]) -> Wanted:
    return Wanted(**{kind: frozenset(rows) for kind, rows in layers.items()})


def of_bert(_: Projections) -> list[Term]:
    return [SoftLabelsTerm(["bert"])]


def of_roberta(bank: Projections) -> list[Term]:
    return [HiddenMseTerm({"roberta": {0: 0, 2: 5}}, 32, WIDTHS, bank, "student")]


def of_both(bank: Projections) -> list[Term]:
    return [
        HardLabelsTerm(),
        HiddenMseTerm({"bert": {1: 1}}, 32, WIDTHS, bank),
        HiddenMseTerm({"bert": {2: 4}}, 32, WIDTHS, bank),
        AttentionKlTerm({"bert": {1: 2}, "roberta": {2: 6}}),
        AttentionMseTerm({"bert": {2: 3}}),
        RelationKlTerm({"roberta": {2: 5}}, ["queries", "values"]),
        LogitsMseTerm(["roberta"]),
    ]


NEEDS: Mapping[str, Mapping[str, Wanted]] = {
    "stage-0": {"bert": Wanted()},
    "stage-2": {"roberta": wanted(hidden={0, 5})},
    "stage-3": {
        "bert": wanted(hidden={1, 4}, attention={2}, scores={3}),
        "roberta": wanted(attention={6}, queries={5}, values={5}),
    },
}


def test_a_stage_asks_those_teachers_alone_that_its_terms_need_and_for_their_layers(material: Material, tmp_path: Path) -> None:
    """The second stage looks at gold labels alone and asks nobody."""
    trained = phase(material, [Part(1, terms) for terms in (of_bert, labels_alone, of_roberta, of_both)])
    trained.ensemble = Listening(ensemble(material))
    trainer(tmp_path).run(trained)
    assert [needs for _, needs in trained.ensemble.asked] == list(NEEDS.values())


def test_teachers_run_and_show_no_more_than_they_are_asked_for(material: Material) -> None:
    teachers, batch = ensemble(material), phase(material, (1,)).train.batch(range(4))
    ran: list[str] = []
    handles = [
        teacher.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, teacher in teachers.teachers.items()
    ]
    for needs in NEEDS.values():
        answers = teachers(batch, needs)
        shown = {name: wanted(**{kind: set(getattr(answer, kind)) for kind in KINDS}) for name, answer in answers.items()}
        assert shown == needs
    for handle in handles:
        handle.remove()
    assert ran == ["bert", "roberta", "bert", "roberta"]


def test_a_stage_without_teachers_needs_none_to_be_there(material: Material, tmp_path: Path) -> None:
    trained = phase(material, [Part(1, labels_alone)], teachers=False)
    assert trained.ensemble is None
    trainer(tmp_path).run(trained)


def test_layers_drawn_every_epoch_are_those_that_are_asked_for(material: Material, tmp_path: Path) -> None:
    """The student has one layer below its top, so that one layer of each teacher is drawn."""
    trained = phase(
        material, (3 * PER_EPOCH,), terms=lambda bank: [RandomLayersTerm(2, 32, DEPTHS, WIDTHS, bank, width=8)], seed=3
    )
    trained.ensemble = Listening(ensemble(material))
    trainer(tmp_path).run(trained)
    asked = [needs for _, needs in trained.ensemble.asked]
    for needs in asked:
        for name, depth in DEPTHS.items():
            (layer,) = needs[name].hidden
            assert 1 <= layer < depth
    epochs = [asked[begin : begin + PER_EPOCH] for begin in range(0, 3 * PER_EPOCH, PER_EPOCH)]
    assert all(epoch == [epoch[0]] * PER_EPOCH for epoch in epochs)
    assert len({str(epoch[0]) for epoch in epochs}) > 1


def drawing(chances: Mapping[str, float]) -> Part:
    return Part(6, lambda _: [HardLabelsTerm(), SoftLabelsTerm(list(chances), chances=chances)])


def drawn(
    material: Material, folder: Path, chances: Mapping[str, float] = HALVES, seed: int = 0, told: Told | None = None
) -> list[str]:
    """Who was asked in each step of two stages, whose batches are cut in two."""
    trained = phase(material, [drawing(chances)] * 2, seed=seed)
    trained.ensemble = listening = Listening(ensemble(material))
    try:
        trainer(folder, told, accumulation=2).run(trained)
    except InterruptedRunError:
        assert told is not None
    names = ["+".join(needs) for _, needs in listening.asked]
    assert names[::2] == names[1::2]
    return names[::2]


@pytest.fixture(scope="module")
def whole(material: Material, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return drawn(material, tmp_path_factory.mktemp("whole"))


def test_one_teacher_is_drawn_per_step_by_seed_and_stage(whole: list[str], material: Material, tmp_path: Path) -> None:
    assert len(whole) == 12
    assert set(whole) == {"bert", "roberta"}
    assert whole[:6] != whole[6:]
    assert drawn(material, tmp_path / "other", seed=1) != whole


@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_resumed_run_draws_the_same_teachers(step: int, whole: list[str], material: Material, tmp_path: Path) -> None:
    assert drawn(material, tmp_path, told=stopping_at(step)) == whole[:step]
    assert drawn(material, tmp_path) == whole[step:]


def test_a_teacher_without_a_chance_is_never_asked(material: Material, tmp_path: Path) -> None:
    told = Told()
    assert set(drawn(material, tmp_path, {"bert": 0.0, "roberta": 1.0}, told=told)) == {"roberta"}
    for event in told.of(Logged):
        assert "soft-labels/weight-mean/roberta" in event.values
        assert "soft-labels/weight-mean/bert" not in event.values


def test_what_the_student_shows_is_what_its_terms_compare(material: Material, tmp_path: Path) -> None:
    trained = phase(material, [Part(1, labels_alone), Part(1, of_both)])
    shown: list[Wanted] = []

    def look(_: object, __: object, answers: Mapping[str, object]) -> None:
        answer = answers[STUDENT]
        shown.append(wanted(**{kind: set(getattr(answer, kind)) for kind in KINDS}))

    trained.learner.register_forward_hook(look)
    trainer(tmp_path).run(trained)
    assert [one for one in shown if one] == [
        wanted(hidden={1, 2}, attention={1, 2}, scores={2}, queries={2}, values={2}),
    ]
