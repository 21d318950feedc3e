"""Teachers that answer once: the same training as with teachers that are asked every time."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from kdcli.data.batching import Samples
from kdcli.engine.output_store import KEPT_AS
from kdcli.engine.stages import Phase, ReadsAhead
from kdcli.engine.teacher_outputs import Teaching, stores_for, wants_of
from kdcli.losses.attention_kl import AttentionKlTerm
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.losses.relational import RelationalTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.models.capture import serves
from kdcli.models.head import SharedHead
from kdcli.models.output import KINDS, Output, Wanted
from kdcli.models.teachers import Ensemble, Teacher
from kdcli.models.weight_loading import load_encoder
from tests.engine import phases
from tests.engine.keeping import ENDLESS, EPOCH, Desk, Result, asked, different_texts, kept, samples
from tests.engine.launching import run_in_two_processes
from tests.engine.phases import (
    DEPTHS,
    WIDTHS,
    Material,
    Terms,
    all_terms,
    differing,
    every_loss,
    stage,
)
from tests.engine.resuming import Course
from tests.engine.two_processes_keeping import SETTINGS, STEPS
from tests.models.architectures import LAYERS, NAMES, VOCABULARY, encoder, every
from tests.models.random_texts import random_samples, random_view

both_losses = pytest.mark.parametrize("terms", [all_terms, every_loss])


@pytest.fixture
def desk(material: Material, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(material, tmp_path)
    yield made
    made.close()


Always = Callable[[Terms], Result]


@pytest.fixture(scope="module")
def always(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Always:
    """What comes out if the teachers are asked every time."""
    made: dict[Terms, Result] = {}

    def result(terms: Terms) -> Result:
        if terms not in made:
            desk = Desk(material, tmp_path_factory.mktemp("always"))
            made[terms] = desk.train(desk.phase(terms, None, dropout=0.1))
        return made[terms]

    return result


def assert_same(found: Result, expected: Result) -> None:
    """To the last bit."""
    assert differing(found.weights, expected.weights) == []
    assert found.logged == expected.logged


def one_by_one(bank: Projections) -> list[Term]:
    """Every loss that looks at each sample alone."""
    return [term for term in every_loss(bank) if not isinstance(term, RelationalTerm)]


def soft_labels(_: Projections) -> list[Term]:
    return [HardLabelsTerm(), SoftLabelsTerm(["bert"])]


def drawn_teachers(_: Projections) -> list[Term]:
    return [HardLabelsTerm(), SoftLabelsTerm(list(WIDTHS), chances={"bert": 0.5, "roberta": 0.5})]


def drawn_layers(bank: Projections) -> list[Term]:
    return [RandomLayersTerm(2, 32, DEPTHS, WIDTHS, bank, width=8)]


def drawn(bank: Projections) -> list[Term]:
    return [*drawn_teachers(bank), *drawn_layers(bank)]


# The same training


def test_the_texts_are_of_unlike_length_and_some_are_there_twice(material: Material, desk: Desk) -> None:
    made = desk.phase(all_terms, None)
    assert len(set(made.train.lengths)) > 5
    assert different_texts(made, "bert") <= len(made.train) - 6


@both_losses
def test_kept_answers_give_the_same_training_as_teachers_that_are_asked_every_time(
    terms: Terms, always: Always, desk: Desk
) -> None:
    """To the last bit, of weights and of everything that is logged; after the first epoch nobody is asked."""
    made = desk.phase(terms, dropout=0.1)
    assert_same(desk.train(made), always(terms))
    for name, batches in asked(made).items():
        assert len(batches) <= EPOCH
        assert set(chain(*batches)) == set(chain(*always(terms).asked[name]))
        assert kept(made)[name] == different_texts(made, name)
    assert {name: len(batches) for name, batches in always(terms).asked.items()} == dict.fromkeys(WIDTHS, 3 * EPOCH)


@both_losses
def test_a_limit_that_holds_half_of_the_answers_gives_the_same_training(terms: Terms, always: Always, desk: Desk) -> None:
    whole = desk.phase(terms)
    assert isinstance(whole.ensemble, Teaching)
    needed = sum(
        int(store.layout.sizes(whole.train.views[name].lengths).sum()) for name, store in whole.ensemble.stores.items()
    )
    made = desk.phase(terms, needed // 2, dropout=0.1)
    assert_same(desk.train(made), always(terms))
    assert 0 < sum(kept(made).values()) < sum(different_texts(made, name) for name in WIDTHS)
    assert any(len(batches) > EPOCH for batches in asked(made).values())
    used = sum(path.stat().st_size for path in desk.answers.rglob("*") if path.suffix in (".answers", ".index"))
    assert used <= needed // 2


@both_losses
def test_real_teachers_say_nearly_the_same_in_other_company(terms: Terms, material: Material, tmp_path: Path) -> None:
    """So that a training with kept answers differs from one without by rounding alone."""
    desk = Desk(material, tmp_path, phases.ensemble)
    found, expected = desk.train(desk.phase(terms)), desk.train(desk.phase(terms, None))
    desk.close()
    assert differing(found.weights, expected.weights, 1e-5) == []
    for ours, theirs in zip(found.logged, expected.logged, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


@both_losses
def test_a_second_run_asks_the_teachers_nothing_and_gives_the_same_weights(
    terms: Terms, material: Material, tmp_path: Path
) -> None:
    desk = Desk(material, tmp_path, phases.ensemble)
    first = desk.train(desk.phase(terms, dropout=0.1))
    ran: list[str] = []
    teachers = phases.ensemble(material).members()
    handles = [teacher.register_forward_hook(lambda *_: ran.append("a teacher")) for teacher in teachers]
    handles += [teacher.model.register_forward_hook(lambda *_: ran.append("an encoder")) for teacher in teachers]
    assert_same(desk.train(desk.phase(terms, dropout=0.1)), first)
    assert ran == []
    desk.train(desk.phase(terms, None, steps=1))
    for handle in handles:
        handle.remove()
    desk.close()
    assert sorted(ran) == ["a teacher", "a teacher", "an encoder", "an encoder"]


def test_a_run_with_another_seed_asks_nothing_either(desk: Desk) -> None:
    """Its batches are others."""
    desk.train(desk.phase(all_terms, steps=EPOCH))
    made = desk.phase(all_terms, steps=EPOCH)
    made.seed = 7
    desk.train(made)
    assert asked(made) == {"bert": [], "roberta": []}


def test_a_text_that_is_there_twice_is_asked_about_once(desk: Desk) -> None:
    made = desk.phase(soft_labels)
    assert isinstance(made.ensemble, Teaching)
    last = len(made.train) - 1
    for rows in ([0, 5, 0], [last, 0], [last - 1], [5]):
        made.ensemble(made.train.batch(rows), {"bert": Wanted()})
    assert len(asked(made)["bert"]) == 1
    assert kept(made) == {"bert": 2}


def test_layers_that_are_drawn_every_epoch_are_asked_for_once(always: Always, desk: Desk) -> None:
    made = desk.phase(drawn_layers, dropout=0.1)
    assert_same(desk.train(made), always(drawn_layers))
    assert all(len(batches) <= EPOCH for batches in asked(made).values())
    again = desk.phase(drawn_layers, dropout=0.1)
    again.seed = 3
    desk.train(again)
    assert asked(again) == {"bert": [], "roberta": []}


def test_teachers_that_are_drawn_every_step_are_asked_about_what_is_new_to_them(always: Always, desk: Desk) -> None:
    made = desk.phase(drawn_teachers, dropout=0.1)
    assert_same(desk.train(made), always(drawn_teachers))
    for batches in asked(made).values():
        known: set[tuple[int, ...]] = set()
        for batch in batches:
            assert not set(batch) <= known
            known |= set(batch)
        assert batches
    assert sum(map(len, asked(made).values())) < 3 * EPOCH


def test_a_later_stage_finds_what_an_earlier_one_was_told(desk: Desk) -> None:
    """The first stage asks for logits alone, and the teachers show the rest as well."""
    made = desk.phase(soft_labels, None)
    rows = [stage(row, EPOCH, terms(made.projections)) for row, terms in enumerate((soft_labels, all_terms))]
    made.stages = rows
    made.ensemble = desk.teaching(made)
    desk.train(made)
    assert (len(asked(made)["bert"]), len(asked(made)["roberta"])) == (EPOCH, EPOCH)


def test_accumulation_cuts_kept_answers_as_it_cuts_a_batch(material: Material, tmp_path: Path) -> None:
    """Two micro-batches of four, four of two, one of eight; answers that are there, and answers that come."""
    desk = Desk(material, tmp_path, phases.ensemble)

    def train(accumulation: int) -> Result:
        return desk.train(desk.phase(one_by_one, steps=EPOCH + 1), accumulation=accumulation)

    whole = train(1)
    found = [train(2)]
    shutil.rmtree(desk.answers)
    found += [train(4), train(2)]
    desk.close()
    for cut in found:
        assert differing(cut.weights, whole.weights, 1e-5) == []
        for ours, theirs in zip(cut.logged, whole.logged, strict=True):
            losses = {key: value for key, value in theirs.items() if key.startswith("loss") or key == "gradient-norm"}
            assert {key: ours[key] for key in losses} == pytest.approx(losses, rel=1e-4)


def test_answers_that_are_lost_while_they_are_used_are_asked_for_again(always: Always, desk: Desk) -> None:
    made = desk.phase(all_terms, dropout=0.1)
    teaching = made.ensemble
    assert isinstance(teaching, Teaching)
    batches = iter(range(100))
    plain = teaching.fetch

    def fetch(batch: Any) -> None:
        if next(batches) == 2 * EPOCH:
            for data in desk.answers.rglob("*.answers"):
                data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        plain(batch)

    teaching.fetch = fetch  # type: ignore[method-assign]
    assert_same(desk.train(made), always(all_terms))
    assert sum(map(len, asked(made).values())) > 2 * EPOCH


def test_a_folder_that_is_removed_while_it_is_used_costs_answers_and_nothing_else(
    always: Always, desk: Desk, tmp_path: Path
) -> None:
    made = desk.phase(all_terms, dropout=0.1)
    batches = iter(range(100))
    assert isinstance(made.ensemble, Teaching)
    plain = made.ensemble.fetch

    def fetch(batch: Any) -> None:
        if next(batches) == EPOCH // 2:
            shutil.rmtree(
                desk.answers.rename(tmp_path / "removed"), ignore_errors=True
            )  # at once: the training writes beside it
        plain(batch)

    made.ensemble.fetch = fetch  # type: ignore[method-assign]
    assert_same(desk.train(made), always(all_terms))


# Interrupted and resumed


@pytest.mark.parametrize(
    ("terms", "step", "deleted"),
    [(all_terms, 2, False), (all_terms, EPOCH + 1, True), (drawn, EPOCH, False), (drawn, 2 * EPOCH - 1, True)],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    terms: Terms, step: int, deleted: bool, desk: Desk, tmp_path: Path
) -> None:
    """Over the answers that it kept, and where they are gone."""

    def make() -> Phase:
        if deleted:
            shutil.rmtree(desk.answers, ignore_errors=True)
        return desk.phase(terms, dropout=0.1)

    course = Course(make, {"evaluations_per_epoch": 2})
    whole = course.run(tmp_path / "whole")
    shutil.rmtree(desk.answers)
    course.assert_resumed_equals(whole, step, tmp_path / "stopped")


# Several processes


@pytest.fixture(scope="module")
def together(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what came out."""
    root = tmp_path_factory.mktemp("together")
    run_in_two_processes("tests.engine.two_processes_keeping", material.bert, material.roberta, material.data, root)
    return root


def test_two_processes_find_each_others_answers(together: Path, desk: Desk) -> None:
    """Whatever is written when an epoch begins; what comes out is what one process trains that always asks."""
    made = desk.phase(all_terms, None, steps=STEPS)
    one = desk.train(made, **SETTINGS)
    for rank in range(2):
        found = torch.load(together / f"{rank}.pt")
        assert differing(found["weights"], one.weights, 1e-5) == []
        assert found["kept"] == {name: different_texts(made, name) for name in WIDTHS}
        assert all(0 < count < STEPS * 2 // 3 for count in found["asked"].values())
        assert found["asked"] == found["asked by the last epoch"]
    assert len(list((together / "answers").rglob("*.answers"))) == 4
    again = desk.phase(all_terms, None, steps=STEPS)
    again.ensemble = Desk(desk.material, together, opened=desk.opened).teaching(again)
    desk.train(again, **SETTINGS)
    assert asked(again) == {"bert": [], "roberta": []}


# What is kept, and where


@pytest.mark.parametrize("limit", [ENDLESS, None])
def test_answers_are_rounded_alike_whether_they_are_kept_or_not(limit: int | None, desk: Desk) -> None:
    made = desk.phase(every_loss, limit)
    assert isinstance(made.ensemble, Teaching)
    batch, needs = made.train.batch(range(6)), wants_of(made.stages)
    first, second = made.ensemble(batch, needs), made.ensemble(batch, needs)
    assert (len(asked(made)["bert"]) == 1) == (limit is not None)
    for name, wanted in needs.items():
        for answer in (first[name], second[name]):
            assert answer.logits.dtype == torch.float32
            assert all(tensor.dtype == KEPT_AS[kind] for kind in KINDS for tensor in getattr(answer, kind).values())
            assert all(set(getattr(answer, kind)) == getattr(wanted, kind) for kind in KINDS)
        assert_same_at_real_tokens(first[name], second[name], made.train.views[name].lengths[:6])


def assert_same_at_real_tokens(one: Output, other: Output, lengths: Any) -> None:
    """To the last bit; padding may be anything."""
    assert torch.equal(one.logits, other.logits)
    for kind in KINDS:
        ours, theirs = getattr(one, kind), getattr(other, kind)
        assert ours.keys() == theirs.keys()
        for layer, tensor in ours.items():
            assert tensor.shape == theirs[layer].shape
            for row, length in enumerate(lengths.tolist()):
                sides = {"hidden": (length,), "attention": (len(tensor[row]), length, length)}
                sides |= {"scores": sides["attention"]}
                place = tuple(slice(side) for side in sides.get(kind, (len(tensor[row]), length)))
                assert torch.equal(tensor[row][place], theirs[layer][row][place])


def test_answers_can_be_learned_from(desk: Desk) -> None:
    """They are no inference tensors, which autograd refuses to keep; asked for or kept, and with or without a store."""
    for limit in (ENDLESS, None):
        made = desk.phase(every_loss, limit)
        assert isinstance(made.ensemble, Teaching)
        batch, needs = made.train.batch(range(4)), wants_of(made.stages)
        for answers in (made.ensemble(batch, needs), made.ensemble(batch, needs)):
            for answer in answers.values():
                tensors = [answer.logits, *(tensor for kind in KINDS for tensor in getattr(answer, kind).values())]
                assert not any(tensor.is_inference() or tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("name", NAMES)
def test_the_insides_of_every_family_come_back_as_they_were_said(name: str, tmp_path: Path) -> None:
    """All kinds that it shows, of the embeddings and of all layers."""
    config = encoder(name).config
    config.num_labels = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).eval()
    served = serves(config)
    wanted = every(served, range(1, LAYERS + 1)) | Wanted.of("hidden", [0] if "hidden" in served else [])
    teachers = Ensemble([Teacher("mine", model, [2, 0, 1])])
    texts = random_samples(random_view(range(5, VOCABULARY), 12, config.pad_token_id or 0), 3, ["mine"])
    stores = stores_for(teachers.members(), texts, {"mine": wanted}, 3, tmp_path, ENDLESS, 1).by_teacher
    teaching, plain = (Teaching(teachers, texts, {"mine": wanted}, given) for given in (stores, None))
    batch = texts.batch([3, 1, 8, 10])
    said = plain(batch, {"mine": wanted})["mine"]
    teaching(batch, {"mine": wanted})
    found = teaching(batch, {"mine": wanted})["mine"]
    teaching.close()
    assert len(stores["mine"]) == 4
    assert_same_at_real_tokens(found, said, texts.lengths[[3, 1, 8, 10]])
    assert {kind: sorted(getattr(found, kind)) for kind in KINDS} == {kind: sorted(getattr(wanted, kind)) for kind in KINDS}


ANSWER = 2 * 4 + 40
"""Two logits and their entry in the index."""


@pytest.mark.parametrize("processes", [1, 3])
def test_each_process_may_write_all_that_is_missing(processes: int, desk: Desk) -> None:
    """Each text once; no process knows what the others will be asked for."""
    made = desk.phase(soft_labels, processes=processes)
    assert isinstance(made.ensemble, Teaching)
    assert made.ensemble.stores["bert"].allowance.left == different_texts(made, "bert") * ANSWER
    desk.train(made)
    assert kept(made)["bert"] == different_texts(made, "bert")


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_share_a_limit_that_is_small(processes: int, desk: Desk) -> None:
    made = desk.phase(soft_labels, 600, processes=processes)
    assert isinstance(made.ensemble, Teaching)
    store = made.ensemble.stores["bert"]
    assert store.allowance.left == (600 - (store.folder / "about.json").stat().st_size) // processes
    texts = store.allowance.left // ANSWER
    desk.train(made)
    assert kept(made)["bert"] == texts < different_texts(made, "bert") / processes
    assert sum(path.stat().st_size for path in desk.answers.rglob("*") if path.is_file()) <= 600


@pytest.mark.parametrize("limit", [ENDLESS, 600])
def test_how_much_can_be_kept_is_told(limit: int, desk: Desk) -> None:
    """For each text once, with what is there already: the same in a second run."""
    for _ in range(2):
        made = desk.phase(soft_labels, limit)
        assert isinstance(made.ensemble, Teaching)
        teachers, wants = made.ensemble.ensemble.members()[:1], {"bert": Wanted()}
        stores = stores_for(teachers, made.train, wants, 2, desk.answers, limit, 2)
        texts = different_texts(made, "bert")
        about = (stores.by_teacher["bert"].folder / "about.json").stat().st_size
        assert (stores.needed, stores.room) == (texts * ANSWER, min(limit - about, texts * ANSWER))
        desk.train(made)


def test_a_second_run_needs_no_more_room(desk: Desk) -> None:
    """And so no other teacher has to go for it."""
    desk.train(desk.phase(all_terms, steps=EPOCH))
    desk.close()
    used = sum(path.stat().st_size for path in desk.answers.rglob("*") if path.is_file())
    other = desk.answers / "other"
    other.mkdir()
    (other / "x.answers").write_bytes(bytes(1000))
    made = desk.phase(all_terms, used + 1000)
    assert other.is_dir()
    desk.train(made)
    assert asked(made) == {"bert": [], "roberta": []}


def test_answers_about_other_texts_leave_room_for_these(desk: Desk) -> None:
    """The same teachers are asked about a second task, which is smaller."""
    desk.train(desk.phase(soft_labels, steps=EPOCH))
    made = desk.phase(soft_labels, None, steps=2 * EPOCH)
    made.train = samples(desk.material, first=24)
    made.ensemble = desk.teaching(made)
    desk.train(made)
    assert len(asked(made)["bert"]) <= EPOCH
    assert kept(made)["bert"] > different_texts(made, "bert")


def test_wants_are_those_of_all_stages_and_never_the_students(material: Material) -> None:
    bank = Projections()
    lists: list[list[Term]] = [
        [HardLabelsTerm()],
        [SoftLabelsTerm(["bert"]), HiddenMseTerm({"bert": {1: 2}}, 32, WIDTHS, bank)],
        [HiddenMseTerm({"bert": {2: 4}}, 32, WIDTHS, bank), AttentionKlTerm({"roberta": {1: 3}})],
        drawn_layers(bank),
    ]
    stages = [stage(row, 1, terms) for row, terms in enumerate(lists)]
    assert wants_of(stages[:1]) == {}
    assert wants_of(stages[:3]) == {
        "bert": Wanted(hidden=frozenset([2, 4])),
        "roberta": Wanted(attention=frozenset([3])),
    }
    assert wants_of(stages) == {
        "bert": Wanted(hidden=frozenset([1, 2, 3, 4])),
        "roberta": Wanted(hidden=frozenset([1, 2, 3, 4, 5]), attention=frozenset([3])),
    }


def test_teachers_are_read_ahead(desk: Desk) -> None:
    """What is kept of all texts of a batch is put into it; what the batch has is not looked up again."""
    made = desk.phase(soft_labels)
    teaching = made.ensemble
    assert isinstance(teaching, Teaching)
    assert isinstance(teaching, ReadsAhead)
    teaching(made.train.batch([4, 5]), {"bert": Wanted()})
    new = int(made.train.lengths.argmax())
    known, half = made.train.batch([5, 4, 5]), made.train.batch([4, new])
    for batch in (known, half):
        teaching.fetch(batch)
    assert list(known.outputs) == ["bert"]
    assert half.outputs == {}
    assert teaching(known, {"bert": Wanted()})["bert"] is known.outputs["bert"]
    assert teaching(known, {}) == {}
    assert len(asked(made)["bert"]) == 1


# Whose answers they are


def teacher(material: Material, name: str = "bert", classes: int = 2) -> Teacher:
    """A co-finetuned teacher; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        head = SharedHead({name: 32, "other": 48}, classes, "attention")
        return Teacher(name, load_encoder(material.bert), list(range(classes)), head)


def one_weight(module: Any) -> None:
    """Move a single number as little as can be."""
    parameter = next(iter(module.parameters()))
    flat = parameter.data.view(-1)
    flat[0] = torch.nextafter(flat[0], torch.tensor(torch.inf))


CHANGES: dict[str, Callable[[Teacher], Any]] = {
    "weights": lambda teacher: one_weight(teacher.model.encoder.layer[3].output.dense),  # type: ignore[union-attr,index]
    "head": lambda teacher: one_weight(teacher.head.prediction),  # type: ignore[union-attr]
    "pooling": lambda teacher: one_weight(teacher.head.pooling),  # type: ignore[union-attr]
    "input": lambda teacher: one_weight(teacher.head.inputs["bert"]),  # type: ignore[union-attr]
    "order": lambda teacher: teacher.order.copy_(torch.tensor([1, 0])),  # type: ignore[operator]
    "dtype": lambda teacher: teacher.to(torch.bfloat16),
    "kind": lambda teacher: setattr(teacher.head, "kind", "mean"),
    "no-head": lambda teacher: setattr(teacher, "head", None),
}


def folder(material: Material, root: Path, made: Teacher, wanted: Wanted | None = None, classes: int = 2) -> str:
    """The name of the folder of a teacher's answers."""
    view = samples(material).views["bert"]
    texts = Samples(None, {made.name: view}, {}, made.name)
    stores = stores_for([made], texts, {made.name: wanted or Wanted()}, classes, root, ENDLESS, 1)
    return stores.by_teacher[made.name].folder.name


@pytest.mark.parametrize("change", CHANGES)
def test_another_teacher_has_another_folder(change: str, material: Material, tmp_path: Path) -> None:
    plain, changed = teacher(material), teacher(material)
    assert plain.fingerprint() == changed.fingerprint()
    assert folder(material, tmp_path, plain) == folder(material, tmp_path, changed)
    CHANGES[change](changed)
    assert plain.fingerprint() != changed.fingerprint()
    assert folder(material, tmp_path, plain) != folder(material, tmp_path, changed)


def test_the_same_teacher_under_another_name_has_the_same_folder(material: Material, tmp_path: Path) -> None:
    plain, renamed = teacher(material), teacher(material, "first")
    assert plain.fingerprint() == renamed.fingerprint()
    assert folder(material, tmp_path, plain) == folder(material, tmp_path, renamed)


def test_another_head_of_the_teachers_beside_it_is_nothing_to_a_teacher(material: Material) -> None:
    plain, changed = teacher(material), teacher(material)
    assert changed.head is not None
    changed.head.inputs["third"] = torch.nn.Linear(8, 48)
    assert plain.fingerprint() == changed.fingerprint()


def test_other_layers_and_other_classes_have_another_folder(material: Material, tmp_path: Path) -> None:
    made = teacher(material)
    layouts = [
        Wanted(),
        Wanted.of("hidden", [1]),
        Wanted.of("hidden", [1, 2]),
        Wanted.of("hidden", [2]),
        Wanted.of("keys", [1]),
    ]
    names = {folder(material, tmp_path, made, wanted) for wanted in layouts}
    assert len(names) == len(layouts)
    assert folder(material, tmp_path, made, Wanted.of("hidden", [2, 1])) in names
    assert folder(material, tmp_path, made, classes=3) not in names


def test_a_teacher_that_computes_otherwise_with_the_same_weights_is_another_one(material: Material) -> None:
    plain, changed = teacher(material), teacher(material)
    config: Any = copy.deepcopy(plain.model.config)
    config.hidden_act = "relu"
    model = type(plain.model)(config)
    model.load_state_dict(plain.model.state_dict())
    changed.model = model.eval()
    inputs: dict[str, Tensor] = samples(material).batch([3, 4]).views["bert"]
    assert not torch.equal(plain(inputs).logits, changed(inputs).logits)
    assert plain.fingerprint() != changed.fingerprint()
