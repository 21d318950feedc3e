"""Teachers under a shared head, and frozen teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from kdcli.data.batching import Batch, Samples
from kdcli.data.task import Split
from kdcli.data.tokens import tokenise
from kdcli.errors import RequestError
from kdcli.models.capture import captured, serves
from kdcli.models.head import SharedHead
from kdcli.models.output import KINDS, Output, Wanted
from kdcli.models.teachers import CofinetunedTeachers, Ensemble, Teacher
from kdcli.models.weight_loading import load_encoder, load_tokenizer
from tests.models.architectures import NAMES, checkpoint, encoder, every, inputs, real_rows

LABELS = ("negative", "positive", "neither")
WIDTHS = {"bert": 32, "roberta": 48}


@pytest.fixture
def folders(tiny_bert: Path, tiny_roberta: Path) -> dict[str, Path]:
    return {"bert": tiny_bert, "roberta": tiny_roberta}


@pytest.fixture
def teachers(folders: dict[str, Path]) -> CofinetunedTeachers:
    """Two encoders of unlike width under one head, in evaluation mode."""
    encoders = {name: load_encoder(folder) for name, folder in folders.items()}
    learner = CofinetunedTeachers(encoders, SharedHead(WIDTHS, len(LABELS), "attention"))
    return learner.eval()


@pytest.fixture
def saved(teachers: CofinetunedTeachers, folders: dict[str, Path], tmp_path: Path) -> Path:
    teachers.save(tmp_path, LABELS, {name: load_tokenizer(folder) for name, folder in folders.items()})
    return tmp_path


@pytest.fixture
def batch(folders: dict[str, Path], texts: list[str]) -> Batch:
    split = Split(texts[:9], None, None, "", "")
    views = {name: tokenise(split, load_tokenizer(folder), 24) for name, folder in folders.items()}
    return Samples(None, views, {}, "bert").batch(range(9))


def test_every_teacher_answers_through_its_own_tokens(teachers: CofinetunedTeachers, batch: Batch) -> None:
    answers = teachers(batch)
    assert {name: tuple(answer.logits.shape) for name, answer in answers.items()} == {"bert": (9, 3), "roberta": (9, 3)}
    for name, answer in answers.items():
        view = batch.views[name]
        one = {key: value[4:5, : int(view["attention_mask"][4].sum())] for key, value in view.items()}
        states = teachers.encoders[name](**one).last_hidden_state
        alone = teachers.head(name, states, one["attention_mask"])
        assert torch.allclose(alone, answer.logits[4:5], atol=1e-5)


def test_the_head_alone_is_fresh(teachers: CofinetunedTeachers) -> None:
    fresh = set(teachers.fresh_parameters())
    assert fresh == {f"head.{name}" for name, _ in teachers.head.named_parameters()}
    assert "head.inputs.bert.weight" in fresh


def test_saved_teachers_load_with_auto_model_and_lack_nothing(saved: Path, teachers: CofinetunedTeachers) -> None:
    for name, trained in teachers.encoders.items():
        loaded, report = AutoModel.from_pretrained(saved / name, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        weights = loaded.state_dict()
        assert all(torch.equal(weight, weights[key]) for key, weight in trained.state_dict().items())
        assert AutoTokenizer.from_pretrained(saved / name)("great story")["input_ids"]


def test_a_loaded_teacher_answers_as_it_did_when_it_was_saved(saved: Path, teachers: CofinetunedTeachers, batch: Batch) -> None:
    expected = teachers(batch)
    for name in WIDTHS:
        teacher = Teacher.cofinetuned(name, saved / name, [0, 1, 2])
        assert torch.equal(teacher(batch.views[name]).logits, expected[name].logits)


def test_a_teacher_may_be_called_by_another_name_than_it_was_saved_under(
    saved: Path, teachers: CofinetunedTeachers, batch: Batch
) -> None:
    teacher = Teacher.cofinetuned("roberta", saved / "bert", [0, 1, 2])
    assert torch.equal(teacher(batch.views["bert"]).logits, teachers(batch)["bert"].logits)


def test_logits_come_in_the_tasks_order(saved: Path, batch: Batch) -> None:
    plain = Teacher.cofinetuned("bert", saved / "bert", [0, 1, 2])(batch.views["bert"]).logits
    turned = Teacher.cofinetuned("bert", saved / "bert", [2, 0, 1])(batch.views["bert"]).logits
    assert torch.equal(turned, plain[:, [2, 0, 1]])
    assert not torch.equal(turned, plain)


def test_a_finetuned_teacher_answers_with_its_own_head_in_the_tasks_order(tmp_path: Path) -> None:
    config = encoder("roberta").config
    config.num_labels = 3
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    teacher = Teacher.finetuned("mine", tmp_path, [1, 2, 0])
    with torch.no_grad():
        assert torch.equal(teacher(inputs()).logits, model(**inputs()).logits[:, [1, 2, 0]])
    assert teacher.parameter_count == sum(weight.numel() for weight in model.parameters())


def test_a_bare_encoder_is_refused_as_a_finetuned_teacher(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no trained classification head"):
        Teacher.finetuned("mine", checkpoint("bert", tmp_path), [0, 1])


def test_a_teacher_is_frozen(tmp_path: Path) -> None:
    """Dropout is configured, and must not act; no gradient must be asked for or kept."""
    config: Any = BertConfig(vocab_size=60, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, hidden_dropout_prob=0.5)
    config.attention_probs_dropout_prob = 0.5
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    teacher = Teacher.finetuned("mine", tmp_path, [0, 1])
    answer = teacher(inputs(), every(KINDS, [1]))
    assert torch.allclose(answer.logits, teacher(inputs()).logits, atol=1e-6)
    assert not answer.logits.requires_grad
    assert not any(getattr(answer, kind)[1].requires_grad for kind in KINDS)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(part.training for part in teacher.modules())


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_of_every_family_shows_the_insides_of_its_encoder(name: str, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_config(encoder(name).config).eval()
    model.save_pretrained(tmp_path)
    served = serves(model.config)
    wanted = every(served, [1, 3])
    answer = Teacher.finetuned("mine", tmp_path, [1, 0])(inputs(), wanted)
    with torch.no_grad(), captured(model, wanted) as expected:
        logits = model(**inputs()).logits
    assert torch.equal(answer.logits, logits[:, [1, 0]])
    for kind in KINDS:
        shown = getattr(answer, kind)
        assert sorted(shown) == ([1, 3] if kind in served else []), kind
        assert all(torch.equal(tensor, expected[kind][layer]) for layer, tensor in shown.items())


def test_a_cofinetuned_teacher_shows_the_attention_that_transformers_computes(saved: Path, batch: Batch) -> None:
    given = batch.views["bert"]
    teacher = Teacher.cofinetuned("bert", saved / "bert", [0, 1, 2])
    plain = teacher(given)
    answer = teacher(given, Wanted.of("attention", [2, 4]))
    eager = AutoModel.from_pretrained(saved / "bert", attn_implementation="eager").eval()
    with torch.no_grad():
        expected = eager(**given, output_attentions=True).attentions
    assert torch.allclose(answer.logits, plain.logits, atol=1e-5)
    assert sorted(answer.attention) == [2, 4]
    for layer, attention in answer.attention.items():
        assert torch.allclose(real_rows(attention.exp(), given), real_rows(expected[layer - 1], given), atol=1e-5)


def test_the_ensemble_gives_each_teachers_answer_and_asked_layers(saved: Path, batch: Batch) -> None:
    alone = {name: Teacher.cofinetuned(name, saved / name, [0, 1, 2]) for name in WIDTHS}
    needs = {"bert": Wanted(hidden=frozenset({2, 4}), attention=frozenset({3})), "roberta": Wanted.of("values", [6])}
    answers = Ensemble(alone.values())(batch, needs)
    for name, teacher in alone.items():
        assert torch.allclose(answers[name].logits, teacher(batch.views[name]).logits, atol=1e-5)
    assert {kind: sorted(getattr(answers["bert"], kind)) for kind in KINDS if getattr(answers["bert"], kind)} == {
        "hidden": [2, 4],
        "attention": [3],
    }
    assert {kind: sorted(getattr(answers["roberta"], kind)) for kind in KINDS if getattr(answers["roberta"], kind)} == {
        "values": [6]
    }
    expected = alone["bert"].model(**batch.views["bert"], output_hidden_states=True).hidden_states
    assert torch.allclose(answers["bert"].hidden[4], expected[4], atol=1e-5)


def test_an_ensemble_without_needs_answers_for_all_and_shows_nothing(saved: Path, batch: Batch) -> None:
    alone = {name: Teacher.cofinetuned(name, saved / name, [0, 1, 2]) for name in WIDTHS}
    answers = Ensemble(alone.values())(batch)
    assert list(answers) == list(WIDTHS)
    for name, teacher in alone.items():
        assert torch.equal(answers[name].logits, teacher(batch.views[name]).logits)
        assert not any(getattr(answers[name], kind) for kind in KINDS)


@pytest.mark.parametrize("named", [[], ["roberta"], ["roberta", "bert"]])
def test_only_teachers_that_are_named_are_asked(saved: Path, batch: Batch, named: list[str]) -> None:
    ensemble = Ensemble(Teacher.cofinetuned(name, saved / name, [0, 1, 2]) for name in WIDTHS)
    asked = []
    for name, teacher in ensemble.teachers.items():
        teacher.register_forward_pre_hook(lambda *_, name=name: asked.append(name))
    answers = ensemble(batch, dict.fromkeys(named, Wanted()))
    assert sorted(answers) == sorted(asked) == sorted(named)


def test_an_ensemble_in_bf16_answers_in_fp32_and_nearly_the_same(saved: Path, batch: Batch) -> None:
    def asked(dtype: torch.dtype) -> Output:
        ensemble = Ensemble([Teacher.cofinetuned("bert", saved / "bert", [2, 0, 1])], dtype)
        answer: Output = ensemble(batch, {"bert": every(["hidden", "attention", "keys"], [1])})["bert"]
        return answer

    exact, half = asked(torch.float32), asked(torch.bfloat16)
    assert half.logits.dtype == torch.float32
    assert half.hidden[1].dtype == half.keys[1].dtype == torch.bfloat16
    assert half.attention[1].dtype == torch.float32
    assert half.attention[1].isfinite().all()
    assert torch.allclose(half.attention[1].exp(), exact.attention[1].exp(), atol=0.01)
    assert torch.allclose(half.logits, exact.logits, atol=0.05)
    assert not torch.equal(half.logits, exact.logits)


def test_only_parameters_that_take_part_in_an_answer_are_counted(saved: Path, teachers: CofinetunedTeachers) -> None:
    """The shared head's map for a narrower teacher takes no part in the answer of the others."""
    head = teachers.head
    shared = sum(weight.numel() for part in (head.pooling, head.prediction) for weight in part.parameters())
    for name in WIDTHS:
        own = [*teachers.encoders[name].parameters(), *head.inputs[name].parameters()]
        expected = sum(weight.numel() for weight in own) + shared
        assert Teacher.cofinetuned(name, saved / name, [0, 1, 2]).parameter_count == expected
