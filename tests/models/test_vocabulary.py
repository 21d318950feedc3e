"""A model that is trained on those rows of its embedding alone whose tokens occur is the model that is trained whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertForMaskedLM

from kdcli.data.tokens import TokenView
from kdcli.engine.events import Event, StepDone
from kdcli.engine.optimisation import rate_factor
from kdcli.engine.stages import Phase
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.term import Term
from kdcli.models.head import SharedHead
from kdcli.models.student import STUDENT, StudentLearner
from kdcli.models.teachers import CofinetunedTeachers
from kdcli.models.vocabulary import TrimmedEmbedding, trimmed
from tests.engine.phases import RATES, Material, Part, Told, all_terms, differing, labels_alone, phase, stage, trainer
from tests.engine.resuming import Course
from tests.models.architectures import NAMES, VOCABULARY, encoder
from tests.models.random_texts import random_samples, random_view

USED = [5, 6, 9, 11, 12, 17, 20, 21, 22, 30, 41, 42, 58]
DECAY, WARMUP, CLIP, MOMENTUM = 0.4, 0.3, 0.2, 0.8
STEPS = 6
every_family = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def material(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> Material:
    return Material(tiny_bert, tiny_roberta, tiny_data)


def classifier(name: str, **changes: Any) -> Any:
    """A small model of that family, always with the same weights, without dropout."""
    config = encoder(name, **changes).config
    for key, value in vars(config).items():
        if "dropout" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():  # what starts as zero could hide that it does not move
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return model


def view(model: Any, tokens: Sequence[int] = USED) -> TokenView:
    """Texts for a model; padding is a token that no text has."""
    return random_view(tokens, 24, model.config.pad_token_id or 0)


def embedding(model: Any) -> Tensor:
    weight: Tensor = model.get_input_embeddings().weight
    return weight.detach().clone()


def rising(_: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """The last evaluation is the best one."""
    rising.score += 1.0  # type: ignore[attr-defined]
    return {STUDENT: {"accuracy": rising.score}}  # type: ignore[attr-defined]


rising.score = 0.0  # type: ignore[attr-defined]


def labelled(model: Any, terms: Sequence[Term] = (), freeze: Sequence[str] = ()) -> Phase:
    """A phase that trains a model on labels."""
    samples = random_samples(view(model))
    only = stage(0, STEPS, terms or [HardLabelsTerm()], warmup=WARMUP, freeze=freeze)
    return Phase("distill", "training", StudentLearner(model), [only], samples, samples, None, rising, "accuracy", 0)


def train(trained: Phase, folder: Path, trims: bool, **settings: Any) -> dict[str, Tensor]:
    """Train a phase of a student, trimmed or whole; returns what the model is afterwards."""
    model = trained.learner.model
    assert isinstance(model, nn.Module)
    running = trainer(folder, **{"weight_decay": DECAY, "clip_norm": CLIP, "evaluations_per_epoch": 1, **settings})
    views = {STUDENT: [trained.train.views[STUDENT], trained.dev.views[STUDENT]]}
    with trimmed({STUDENT: model}, views) if trims else nullcontext():
        assert isinstance(model.get_input_embeddings(), TrimmedEmbedding) == trims  # type: ignore[operator]
        running.run(trained)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def unused(model: Any) -> list[int]:
    return sorted(set(range(VOCABULARY)) - set(USED) - {model.config.pad_token_id or 0})


# The same training


def rate(step: int) -> float:
    """The learning rate of the embedding."""
    return RATES["body"] * rate_factor(step, STEPS, WARMUP, "linear")


def adamw_factor(steps: int = STEPS) -> float:
    """What decay leaves of a number without a gradient."""
    return math.prod(1 - rate(step) * DECAY for step in range(steps))


def sgd_factor(steps: int = STEPS) -> float:
    """The same where decay is a part of the gradient and goes into the momentum."""
    number, velocity = 1.0, 0.0
    for step in range(steps):
        velocity = MOMENTUM * velocity + DECAY * number
        number -= rate(step) * velocity
    return number


@pytest.mark.parametrize(
    ("name", "optimizer", "factor"),
    [
        *((name, "adamw", adamw_factor) for name in NAMES if name not in ("xlm-roberta", "camembert", "electra")),
        *((name, "sgd", sgd_factor) for name in ("bert", "roberta", "albert")),
    ],
)
def test_a_trimmed_training_gives_the_whole_model(
    name: str, optimizer: str, factor: Callable[[], float], tmp_path: Path
) -> None:
    """With warm-up, clipping and weight decay, which alone moves the rows that no text has."""
    settings = {"optimizer": {"name": optimizer, "beta1": MOMENTUM}}
    start = embedding(classifier(name))
    models = [classifier(name) for _ in range(2)]
    whole, found = (train(labelled(model), tmp_path / str(row), row == 1, **settings) for row, model in enumerate(models))
    assert differing(found, whole, 1e-6) == []
    rows, still = embedding(models[1]), unused(models[1])
    assert not torch.allclose(rows[USED], start[USED] * factor(), atol=1e-5)
    torch.testing.assert_close(rows[still], start[still] * factor(), rtol=2e-6, atol=0.0)
    assert factor() < 1 - 5e-4


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_trimmed_student_learns_the_same_from_its_teachers(accumulation: int, material: Material, tmp_path: Path) -> None:
    """Of another tokenizer and the same; dropout draws the same numbers."""
    found = []
    for trims in (False, True):
        made = phase(material, [Part(8, all_terms)], dropout=0.1)
        made.score = rising
        found.append(train(made, tmp_path / str(trims), trims, accumulation=accumulation))
    assert differing(found[1], found[0], 1e-6) == []


def test_without_decay_the_rows_that_do_not_occur_stay_to_the_last_bit(tmp_path: Path) -> None:
    model = classifier("bert")
    start = embedding(model)
    train(labelled(model), tmp_path, True, weight_decay=0.0)
    still = unused(model)
    assert torch.equal(embedding(model)[still], start[still])
    assert not torch.equal(embedding(model)[USED], start[USED])


def test_the_weights_of_the_best_evaluation_are_whole(tmp_path: Path) -> None:
    """Their other rows have shrunk as far as they had by then."""
    found = []
    for trims in (False, True):
        model = classifier("bert")
        made, scores = labelled(model), iter([0.3, 0.4, 0.9, 0.5, 0.6, 0.2])
        made.score = lambda _, scores=scores: {STUDENT: {"accuracy": next(scores)}}  # type: ignore[misc]
        found.append(train(made, tmp_path / str(trims), trims, evaluations_per_epoch=3))
    assert differing(found[1], found[0], 1e-6) == []
    still = unused(model)
    expected = embedding(classifier("bert"))[still] * adamw_factor(3)
    torch.testing.assert_close(embedding(model)[still], expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("step", [2, 5])
def test_a_trimmed_training_that_is_interrupted_goes_on_with_the_whole_model(
    step: int, material: Material, tmp_path: Path
) -> None:
    """Every part of it trims anew."""
    made: list[Phase] = []

    class Trimmed(Course):
        def run(self, folder: Path, told: Told | None = None, evaluated: int = 0) -> Any:
            made.append(phase(material, [Part(STEPS, labels_alone)], teachers=False))
            learner: Any = made[-1].learner
            views = {STUDENT: [made[-1].train.views[STUDENT], made[-1].dev.views[STUDENT]]}
            with trimmed({STUDENT: learner.model}, views):
                return super().run(folder, told, evaluated)

    course = Trimmed(lambda: made[-1], {"weight_decay": DECAY, "evaluations_per_epoch": 1})
    whole = course.run(tmp_path / "whole")
    course.assert_resumed_equals(whole, step, tmp_path / "stopped")
    states = [one.learner.state_dict() for one in (made[0], made[2])]
    assert differing(states[1], states[0]) == []
    assert differing(states[0], phase(material, teachers=False).learner.state_dict(), 1e-6) != []


def test_the_optimiser_has_no_more_than_the_rows_that_occur(tmp_path: Path) -> None:
    """And the padding, and the one that shows what decay does; that is what it is for."""
    model = classifier("bert")
    sizes: list[list[int]] = []

    def look(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 1:
            weight = model.get_input_embeddings().weight
            sizes.append([*weight.shape, *weight.grad.shape] if weight.grad is not None else [*weight.shape])

    views = {STUDENT: [view(model)]}
    with trimmed({STUDENT: model}, views):
        trainer(tmp_path, Told(look), evaluations_per_epoch=1).run(labelled(model))
        state = torch.load(tmp_path / "checkpoints" / "distill" / "state.pt")
    assert sizes[0][:2] == [len(USED) + 2, 32]
    moments = [entry["exp_avg"].shape for entry in state["optimizer"]["state"].values()]
    assert (len(USED) + 2, 32) in moments
    assert (VOCABULARY, 32) not in moments


# What the model says


@every_family
def test_inside_the_block_the_model_says_what_the_whole_one_says(name: str) -> None:
    """Logits to the last bit; gradients of the rows that are there, and of everything else, as well."""
    whole, model = classifier(name).eval(), classifier(name).eval()
    batch = random_samples(view(model)).batch(range(8))
    inputs = batch.views[STUDENT]
    assert batch.targets is not None
    assert (inputs["attention_mask"] == 0).any()
    expected = whole(**inputs).logits
    nn.functional.cross_entropy(expected, batch.targets).backward()  # type: ignore[no-untyped-call]
    with trimmed({STUDENT: model}, {STUDENT: [view(model)]}):
        small = model.get_input_embeddings()
        assert isinstance(small, TrimmedEmbedding)
        logits = model(**inputs).logits
        assert torch.equal(logits, expected)
        nn.functional.cross_entropy(logits, batch.targets).backward()  # type: ignore[no-untyped-call]
        assert small.weight.grad is not None
        rows = small.rows[USED]  # type: ignore[index]
        torch.testing.assert_close(
            small.weight.grad[rows], whole.get_input_embeddings().weight.grad[USED], atol=1e-7, rtol=1e-5
        )
        padding = small.rows[model.config.pad_token_id or 0]  # type: ignore[index]
        torch.testing.assert_close(
            small.weight.grad[padding],
            whole.get_input_embeddings().weight.grad[model.config.pad_token_id or 0],
            atol=1e-7,
            rtol=1e-5,
        )
        assert (small.weight.grad[-1] == 0).all()
    gradients = dict(whole.named_parameters())
    for key, parameter in model.named_parameters():
        if parameter is not model.get_input_embeddings().weight and gradients[key].grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[key].grad, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
def test_the_padding_gets_no_gradient_where_the_embedding_says_so(padded: bool) -> None:
    """Even where a model looks at it."""
    whole = nn.Embedding(10, 4, padding_idx=3 if padded else None)
    small = TrimmedEmbedding(whole, np.array([1, 3, 8]))
    ids = torch.tensor([[1, 3, 3], [8, 1, 3]])
    factors = torch.randn(2, 3, 4)
    for layer in (whole, small):
        (layer(ids) * factors).sum().backward()
    assert whole.weight.grad is not None
    assert small.weight.grad is not None
    assert torch.equal(small(ids), whole(ids))
    assert torch.equal(small.weight.grad[:-1], whole.weight.grad[[1, 3, 8]])
    assert bool((small.weight.grad[1] == 0).all()) == padded
    assert (small.weight.grad[-1] == 0).all()


def test_padding_that_does_not_occur_is_no_padding() -> None:
    small = TrimmedEmbedding(nn.Embedding(10, 4, padding_idx=3), np.array([1, 8]))
    assert small.padding_idx is None
    small(torch.tensor([1, 8])).sum().backward()
    assert small.weight.grad is not None
    assert (small.weight.grad[:-1] == 1).all()


@pytest.mark.parametrize("token", [0, 2, 9, 10, 11])
def test_a_token_that_was_not_counted_is_refused(token: int) -> None:
    """One that is not used, one that the whole embedding does not have, one that would be the row that belongs to nobody."""
    small = TrimmedEmbedding(nn.Embedding(10, 4), np.array([1, 3, 8]))
    with pytest.raises(IndexError):
        small(torch.tensor([1, token]))


def test_a_token_of_another_split_is_refused() -> None:
    model = classifier("bert").eval()
    with trimmed({STUDENT: model}, {STUDENT: [view(model)]}), pytest.raises(IndexError):
        model(torch.tensor([[5, 6, 7]]))


def test_all_splits_are_counted_and_the_padding_too() -> None:
    model = classifier("roberta").eval()
    one, other = view(model, [5, 6]), view(model, [9, 30])
    with trimmed({STUDENT: model}, {STUDENT: [one, other]}):
        assert model(torch.tensor([[5, 6, 9, 30, 1]])).logits.shape == (1, 2)
        assert len(model.get_input_embeddings().weight) == 6


# Put back


def test_everything_is_as_it_was_behind_the_block(tmp_path: Path) -> None:
    """The same embedding in its place, trainable, and the checkpoint of the model has the whole vocabulary."""
    model = classifier("bert")
    before = model.get_input_embeddings()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    order = [name for name, _ in model.named_parameters()]
    train(labelled(model), tmp_path / "run", True)
    assert model.get_input_embeddings() is before
    assert before.weight.requires_grad
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
    assert [name for name, _ in model.named_parameters()] == order
    model.save_pretrained(tmp_path / "student")
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert saved["bert.embeddings.word_embeddings.weight"].shape == (VOCABULARY, 32)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert differing(loaded.state_dict(), model.state_dict()) == []


def test_a_model_that_nobody_trained_is_the_same_to_the_last_bit() -> None:
    model, untouched = classifier("albert"), classifier("albert")
    with trimmed({STUDENT: model}, {STUDENT: [view(model)]}):
        pass
    assert differing(model.state_dict(), untouched.state_dict()) == []


def test_an_error_inside_the_block_leaves_a_whole_model() -> None:
    """With what was trained before it."""
    model, untouched = classifier("bert"), classifier("bert")
    whole = model.get_input_embeddings()

    def fail() -> None:
        with trimmed({STUDENT: model}, {STUDENT: [view(model)]}):
            small = model.get_input_embeddings()
            with torch.no_grad():
                small.weight[:-1] += 1.0
                small.weight[-1] *= 0.5
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.get_input_embeddings() is whole
    used = [0, *USED]
    expected = untouched.get_input_embeddings().weight * 0.5
    expected = expected.index_put((torch.tensor(used),), untouched.get_input_embeddings().weight[used] + 1.0)
    assert torch.equal(whole.weight, expected)


def test_frozen_embeddings_stay_as_they_are(tmp_path: Path) -> None:
    """To the last bit, and frozen; under weight decay as well."""
    model = classifier("bert")
    start = embedding(model)
    end = train(labelled(model, freeze=["embeddings"]), tmp_path, True)
    assert torch.equal(end["bert.embeddings.word_embeddings.weight"], start)
    assert not model.get_input_embeddings().weight.requires_grad
    assert not torch.equal(end["classifier.weight"], classifier("bert").classifier.weight)


def test_embeddings_that_were_frozen_before_are_frozen_inside_and_behind() -> None:
    model = classifier("bert")
    model.get_input_embeddings().weight.requires_grad_(False)
    with trimmed({STUDENT: model}, {STUDENT: [view(model)]}):
        assert not model.get_input_embeddings().weight.requires_grad
    assert not model.get_input_embeddings().weight.requires_grad


def test_models_of_unlike_tokens_are_each_trimmed_to_their_own(tmp_path: Path) -> None:
    """As co-finetuned teachers are."""
    encoders = {"bert": encoder("bert"), "roberta": encoder("roberta")}
    learner = CofinetunedTeachers(encoders, SharedHead(dict.fromkeys(encoders, 32), 2, "mean"))
    views = {"bert": [random_view(USED, 12, 0)], "roberta": [random_view([7, 8, 30], 12, 1)]}
    with trimmed(encoders, views):
        assert [len(model.get_input_embeddings().weight) for model in encoders.values()] == [len(USED) + 2, 5]
        assert learner.encoders["bert"].get_input_embeddings() is encoders["bert"].get_input_embeddings()  # type: ignore[operator]
    assert [len(model.get_input_embeddings().weight) for model in encoders.values()] == [VOCABULARY, VOCABULARY]


# What is left whole


@pytest.mark.parametrize(("count", "trims"), [(52, True), (53, False), (59, False)])
def test_nothing_is_trimmed_where_most_rows_are_used(count: int, trims: bool) -> None:
    """Of sixty; the padding comes to the tokens of the texts."""
    model = classifier("bert")
    before = model.get_input_embeddings()
    with trimmed({STUDENT: model}, {STUDENT: [view(model, range(1, count + 1))]}):
        assert (model.get_input_embeddings() is not before) == trims
    assert model.get_input_embeddings() is before


def test_an_embedding_that_another_layer_shares_is_left_whole() -> None:
    model = BertForMaskedLM(encoder("bert").config)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    before = model.get_input_embeddings()
    with trimmed({STUDENT: model}, {STUDENT: [view(model)]}):
        assert model.get_input_embeddings() is before


class Own(nn.Embedding):
    """Whose lookup nobody knows."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Embedding(VOCABULARY, 32, max_norm=1.0),
        lambda: nn.Embedding(VOCABULARY, 32, scale_grad_by_freq=True),
        lambda: nn.Embedding(VOCABULARY, 32, sparse=True),
        lambda: Own(VOCABULARY, 32),
    ],
    ids=["max-norm", "scaled-by-frequency", "sparse", "of-its-own-kind"],
)
def test_an_embedding_that_is_more_than_a_table_is_left_whole(make: Callable[[], nn.Embedding]) -> None:
    model = classifier("bert")
    before = make()
    model.set_input_embeddings(before)
    with trimmed({STUDENT: model}, {STUDENT: [view(model)]}):
        assert model.get_input_embeddings() is before


def test_the_last_row_is_never_looked_up_and_shows_what_decay_does() -> None:
    whole = nn.Embedding(6, 3)
    small = TrimmedEmbedding(whole, np.array([2, 4]))
    assert small.weight.shape == (3, 3)
    assert (small.weight[-1] == 1).all()
    rows: Any = small.rows
    assert rows.tolist().count(len(small.weight)) == 4
    assert "rows" not in small.state_dict()
    start = whole.weight.detach().clone()
    with torch.no_grad():
        small.weight.copy_(torch.tensor([[1.0] * 3, [2.0] * 3, [0.5, 0.25, 0.125]]))
    small.put_back(whole, np.array([2, 4]))
    assert torch.equal(whole.weight[[0, 1, 3, 5]], start[[0, 1, 3, 5]] * torch.tensor([0.5, 0.25, 0.125]))
    assert whole.weight[2].tolist() == [1.0] * 3
    assert whole.weight[4].tolist() == [2.0] * 3
