"""The student: its size, where its weights are from, and that it is an ordinary checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    pipeline,
)

from kdcli.data.batching import Batch, Samples
from kdcli.data.task import Split
from kdcli.data.tokens import tokenise
from kdcli.errors import RequestError
from kdcli.models.capture import blocks, captured, serves
from kdcli.models.output import KINDS, Wanted
from kdcli.models.student import (
    STUDENT,
    BuiltStudent,
    Size,
    StudentLearner,
    build_student,
    fitting_heads,
    parse_size,
    save_student,
    student_config,
)
from kdcli.models.weight_loading import load_classifier, load_tokenizer
from tests.models.architectures import NAMES, VOCABULARY, checkpoint, encoder, every, inputs

LABELS = ("bad", "fair", "good")


def built(source: Path, chosen: list[int], seed: int = 0, size: Size | None = None) -> BuiltStudent:
    config = student_config(AutoConfig.from_pretrained(source), size or Size(len(chosen)), chosen, LABELS)
    return build_student(config, source, chosen, seed)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4L", Size(4)),
        ("12l", Size(12)),
        ("4L-312H", Size(4, 312)),
        ("4L-312H-12A", Size(4, 312, 12)),
        ("3L-2A", Size(3, None, 2)),
    ],
)
def test_a_size_is_read(text: str, size: Size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["bert", "4", "L", "4L-", "4L-312", "./4L", "4L-12A-312H", "google/bert-4L", ""])
def test_anything_else_is_a_checkpoint(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize("text", ["0L", "4L-0H", "4L-312H-0A", "4L-312H-7A"])
def test_a_size_that_cannot_be_built_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=text):
        parse_size(text)


@pytest.mark.parametrize(("width", "heads", "fitting"), [(312, 12, 12), (30, 12, 10), (7, 4, 1), (4, 12, 4)])
def test_heads_divide_the_width(width: int, heads: int, fitting: int) -> None:
    assert fitting_heads(width, heads) == fitting


def test_the_configuration_takes_over_size_and_labels_and_leaves_the_source_alone() -> None:
    source = BertConfig(hidden_size=48, num_attention_heads=4, intermediate_size=192, num_hidden_layers=6)
    before = copy.deepcopy(source.to_dict())
    config = student_config(source, Size(2, 24, 3), [1, 2], LABELS)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 24, 3)
    assert config.intermediate_size == 96
    assert config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert config.label2id == {"bad": 0, "fair": 1, "good": 2}
    assert config.num_labels == 3
    assert config.problem_type == "single_label_classification"
    assert source.to_dict() == before


def test_without_a_width_the_sources_width_and_heads_stay() -> None:
    source = BertConfig(hidden_size=48, num_attention_heads=4, intermediate_size=192)
    config = student_config(source, Size(2), [1, 2], LABELS)
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (48, 4, 192)


def test_layer_types_follow_the_copied_layers() -> None:
    source = ModernBertConfig(num_hidden_layers=6, global_attn_every_n_layers=3)
    kinds = source.layer_types
    assert kinds[0] != kinds[1]
    assert student_config(source, Size(3), [1, 4, 6], LABELS).layer_types == [kinds[0], kinds[3], kinds[5]]
    assert student_config(source, Size(3), [], LABELS).layer_types == kinds[:3]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chosen", [[1, 2], [2, 4], [3]])
def test_copied_weights_equal_those_of_the_chosen_layers(name: str, chosen: list[int], tmp_path: Path) -> None:
    source, student = encoder(name), built(checkpoint(name, tmp_path), chosen)
    model: Any = student.model
    is_shared = len(blocks(source)) == 1
    for row, block in enumerate(blocks(model)):
        there = blocks(source)[0 if is_shared else chosen[row] - 1].state_dict()
        for key, weight in block.state_dict().items():
            assert torch.equal(weight, there[key]), (row, key)
    embeddings = source.embeddings.state_dict()
    assert all(torch.equal(weight, embeddings[key]) for key, weight in model.base_model.embeddings.state_dict().items())


def test_a_pooler_that_the_source_has_not_trained_is_as_fresh_as_the_head(tmp_path: Path) -> None:
    folder = checkpoint("bert", tmp_path)
    config = student_config(encoder("bert").config, Size(2), [2, 4], ("a", "b"))
    trained, idle = (build_student(config, folder, [2, 4], 0, idle_pooler=idle) for idle in (False, True))
    assert idle.fresh - trained.fresh == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert all(torch.equal(weight, idle.model.state_dict()[name]) for name, weight in trained.model.state_dict().items())
    learner = StudentLearner(idle.model, idle.fresh)
    assert {"model.bert.pooler.dense.weight", "model.classifier.weight"} <= set(learner.fresh_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_fresh_are_exactly_the_parameters_of_the_head(name: str, tmp_path: Path) -> None:
    student = built(checkpoint(name, tmp_path), [2, 4])
    model: Any = student.model
    of_the_encoder = {f"{model.base_model_prefix}.{key}" for key, _ in model.base_model.named_parameters()}
    assert student.fresh == {key for key, _ in model.named_parameters()} - of_the_encoder
    assert {"classifier.weight", "classifier.out_proj.weight"} & student.fresh


@pytest.mark.parametrize("name", NAMES)
def test_a_two_layer_student_of_every_family_answers_and_loads_where_it_was_saved(name: str, tmp_path: Path) -> None:
    model: Any = built(checkpoint(name, tmp_path / "source"), [2, 4]).model.eval()
    model.save_pretrained(tmp_path / "student")
    loaded = load_classifier(tmp_path / "student").eval()
    with torch.no_grad():
        logits = model(**inputs()).logits
        assert logits.shape == (3, 3)
        assert torch.equal(loaded(**inputs()).logits, logits)


@pytest.mark.parametrize("name", NAMES)
def test_a_narrower_student_of_every_family_answers(name: str, tmp_path: Path) -> None:
    model: Any = built(checkpoint(name, tmp_path), [2, 4], size=Size(2, 16)).model.eval()
    assert model.config.hidden_size == 16
    assert model(**inputs()).logits.shape == (3, 3)


def test_a_parameter_of_another_shape_is_fresh_and_one_of_the_same_shape_is_copied(tmp_path: Path) -> None:
    student = built(checkpoint("electra-narrow-embeddings", tmp_path), [1, 2], size=Size(2, 16))
    copied = {key for key, _ in student.model.named_parameters()} - student.fresh
    assert copied
    assert all(key.startswith("electra.embeddings.") for key in copied)
    words = encoder("electra-narrow-embeddings").embeddings.word_embeddings.weight
    assert torch.equal(student.model.get_parameter("electra.embeddings.word_embeddings.weight"), words)


def test_a_part_that_the_chosen_layer_lacks_is_fresh(tmp_path: Path) -> None:
    student = built(checkpoint("modernbert", tmp_path), [3, 1])
    assert "model.layers.1.attn_norm.weight" in student.fresh


def test_without_a_source_everything_is_fresh() -> None:
    config = student_config(BertConfig(vocab_size=VOCABULARY, hidden_size=16, num_attention_heads=2), Size(1), [], LABELS)
    student = build_student(config, None, [], 0)
    assert student.fresh == {key for key, _ in student.model.named_parameters()}


def test_the_seed_decides_the_fresh_weights_and_nothing_else(tmp_path: Path) -> None:
    source = checkpoint("roberta", tmp_path)
    one, same, other = (built(source, [1, 2], seed).model.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[key], same[key]) for key in one)
    differing = {key for key in one if not torch.equal(one[key], other[key])}
    assert differing == {"classifier.dense.weight", "classifier.out_proj.weight"}


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "albert"])
def test_building_leaves_the_global_random_numbers_alone(name: str, tmp_path: Path) -> None:
    source = checkpoint(name, tmp_path)
    before = torch.get_rng_state()
    built(source, [1, 2])
    assert torch.equal(torch.get_rng_state(), before)


def masked_language_model(folder: Path) -> Path:
    """A checkpoint as pre-training leaves it: without a pooler, which BERT's classifier has."""
    config = BertConfig(vocab_size=VOCABULARY, hidden_size=16, num_attention_heads=2, num_hidden_layers=3)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_what_the_checkpoint_lacks_is_fresh(tmp_path: Path) -> None:
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} <= built(masked_language_model(tmp_path), [1, 2]).fresh


def test_what_the_checkpoint_lacks_comes_from_the_seed(tmp_path: Path) -> None:
    source = masked_language_model(tmp_path)
    before = torch.get_rng_state()
    one, same = (built(source, [1, 2]).model.state_dict() for _ in range(2))
    assert [key for key in one if not torch.equal(one[key], same[key])] == []
    assert torch.equal(torch.get_rng_state(), before)


def batch_of(given: dict[str, torch.Tensor]) -> Batch:
    return Batch(torch.arange(len(given["input_ids"])), None, {STUDENT: given}, {})


def test_the_learner_answers_as_the_model_does_with_the_asked_layers(tmp_path: Path) -> None:
    student = built(checkpoint("bert", tmp_path), [1, 2])
    model: Any = student.model.eval()
    answer = StudentLearner(model).output(inputs(), Wanted.of("hidden", [0, 2]))
    expected = model(**inputs(), output_hidden_states=True)
    assert torch.equal(answer.logits, expected.logits)
    assert sorted(answer.hidden) == [0, 2]
    assert torch.equal(answer.hidden[2], expected.hidden_states[2])


@pytest.mark.parametrize("name", NAMES)
def test_the_learner_shows_what_is_wanted_of_the_student_and_nothing_else(name: str, tmp_path: Path) -> None:
    model: Any = built(checkpoint(name, tmp_path), [1, 2]).model.eval()
    served = serves(model.config)
    needs = {STUDENT: every(served, [2]), "teacher": Wanted.of("hidden", [1])}
    answers = StudentLearner(model)(batch_of(inputs()), needs)
    with captured(model, needs[STUDENT]) as expected:
        model(**inputs())
    assert sorted(answers) == [STUDENT]
    for kind in KINDS:
        shown = getattr(answers[STUDENT], kind)
        assert sorted(shown) == ([2] if kind in served else []), kind
        assert all(torch.equal(tensor, expected[kind][layer]) for layer, tensor in shown.items())


@pytest.mark.parametrize("needs", [None, {}, {"teacher": Wanted.of("attention", [1])}])
def test_a_student_of_which_nothing_is_wanted_shows_nothing(needs: dict[str, Wanted] | None, tmp_path: Path) -> None:
    model: Any = built(checkpoint("bert", tmp_path), [1, 2]).model.eval()
    answer = StudentLearner(model)(batch_of(inputs()), needs)[STUDENT]
    assert torch.equal(answer.logits, model(**inputs()).logits)
    assert not any(getattr(answer, kind) for kind in KINDS)


def test_an_answer_keeps_its_insides_when_the_next_one_is_given(tmp_path: Path) -> None:
    learner = StudentLearner(built(checkpoint("bert", tmp_path), [1, 2]).model.eval())
    wanted = every(["hidden", "attention"], [1])
    first = learner.output(inputs(1), wanted)
    before = first.hidden[1].clone(), first.attention[1].clone()
    second = learner.output(inputs(2), wanted)
    assert torch.equal(first.hidden[1], before[0])
    assert torch.equal(first.attention[1], before[1])
    assert not torch.equal(second.attention[1], first.attention[1])


def test_the_student_learns_from_its_own_attention(tmp_path: Path) -> None:
    learner = StudentLearner(built(checkpoint("bert", tmp_path), [1, 2]).model)
    answer = learner.output(inputs(), Wanted.of("attention", [1]))
    answer.attention[1][:, :, :3, :3].square().sum().backward()  # type: ignore[no-untyped-call]
    learnt = {key for key, weight in learner.named_parameters() if weight.grad is not None}
    assert "model.bert.encoder.layer.0.attention.self.query.weight" in learnt
    assert not any("layer.1." in key or "classifier" in key for key in learnt)


def test_fresh_parameters_are_named_as_the_learner_names_them(tmp_path: Path) -> None:
    student = built(checkpoint("bert", tmp_path), [1, 2])
    learner = StudentLearner(student.model, student.fresh)
    assert set(learner.fresh_parameters()) == {"model.classifier.weight", "model.classifier.bias"}
    assert set(learner.fresh_parameters()) <= {key for key, _ in learner.named_parameters()}


@pytest.mark.parametrize("teacher", ["tiny_bert", "tiny_roberta"])
def test_a_saved_student_answers_through_a_pipeline_as_it_does_here(
    teacher: str, texts: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(teacher)
    tokenizer = load_tokenizer(source)
    model: Any = built(source, [1, 2]).model.eval()
    save_student(model, tokenizer, tmp_path, max_length=12)
    read = [*texts[:6], " ".join(texts[:4])]
    view = tokenise(Split(read, None, None, "", ""), tokenizer, 12)
    assert view.lengths.max() == 12
    batch = Samples(None, {STUDENT: view}, {}, STUDENT).batch(range(len(read)))
    with torch.no_grad():
        logits = StudentLearner(model)(batch)[STUDENT].logits.numpy()
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    answers = [classify(text, truncation=True)[0] for text in read]
    assert [answer["label"] for answer in answers] == [LABELS[row] for row in shares.argmax(-1)]
    np.testing.assert_allclose([answer["score"] for answer in answers], shares.max(-1), atol=1e-5)


def test_a_saved_student_is_an_ordinary_checkpoint(tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    before = tokenizer.model_max_length
    model: Any = built(tiny_bert, [1, 4]).model
    save_student(model, tokenizer, tmp_path, max_length=24)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(weight, model.state_dict()[key]) for key, weight in loaded.state_dict().items())
    assert loaded.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 24
    assert tokenizer.model_max_length == before


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_kept_head_answers_as_its_checkpoint_does_in_the_order_of_the_task(
    kind: str, order: list[int], tiny_bert: Path, tmp_path: Path
) -> None:
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "distilbert":
        sizes = {"n_layers": 2, "dim": 32, "n_heads": 4, "hidden_dim": 64}
    config = AutoConfig.for_model(kind, vocab_size=100, max_position_embeddings=64, num_labels=3, **sizes)
    torch.manual_seed(3)
    checkpoint: Any = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in checkpoint.parameters():
        parameter.data.normal_(0, 0.2)
    checkpoint.save_pretrained(tmp_path)
    names = ("one", "two", "three")
    wanted = student_config(checkpoint.config, Size(2, 32, 4), [1, 2], names)
    built = build_student(wanted, tmp_path, [1, 2], 0, order)
    tokens = torch.randint(5, 90, (4, 9))
    with torch.no_grad():
        expected = checkpoint(input_ids=tokens).logits[:, order]
        torch.testing.assert_close(built.model.eval()(input_ids=tokens).logits, expected)
    assert not built.fresh
    assert build_student(wanted, tmp_path, [1, 2], 0).fresh
