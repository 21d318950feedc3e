"""Which of two texts a token is of: told to every model that tells them apart, by its own account, and to no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    FNetConfig,
    FunnelConfig,
    RoFormerConfig,
    XLNetConfig,
    pipeline,
)

from kdcli.data.task import Split
from kdcli.data.tokens import fingerprint
from kdcli.engine.events import Events
from kdcli.errors import RequestError
from kdcli.export.gate import Texts
from kdcli.jobs.export import ExportRequest, export
from kdcli.jobs.model_outputs import classifier_logits
from kdcli.models.capture import captured
from kdcli.models.output import Wanted
from kdcli.models.padding import is_given_each_length_by_itself
from kdcli.models.segments import SEGMENTS, segment_kinds
from kdcli.models.student import build_student, save_student
from kdcli.models.weight_loading import load_classifier, load_tokenizer

FIRST = ["The film was great", "a story", "The plot was boring, and its music awful!"]
SECOND = ["The story was dreadful", "a film that was long", "charming"]
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
MAKE: dict[str, tuple[Callable[[int], Any], bool]] = {
    "albert": (lambda words: AlbertConfig(vocab_size=words, embedding_size=16, **SIZE), True),
    "bert": (lambda words: BertConfig(vocab_size=words, **SIZE), True),
    "roformer": (lambda words: RoFormerConfig(vocab_size=words, embedding_size=32, **SIZE), True),
    "funnel": (
        lambda words: FunnelConfig(
            vocab_size=words, d_model=32, n_head=4, d_head=8, d_inner=64, block_sizes=[1, 1], num_decoder_layers=1
        ),
        True,
    ),
    "bert with one kind of segment": (lambda words: BertConfig(vocab_size=words, type_vocab_size=1, **SIZE), False),
    "distilbert": (
        lambda words: DistilBertConfig(
            vocab_size=words, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64
        ),
        False,
    ),
}
every_kind = pytest.mark.parametrize("kind", MAKE)
named_or_not = pytest.mark.parametrize("named", [True, False])


@pytest.fixture
def make(tiny_bert: Path, tmp_path: Path) -> Callable[[str, bool], Path]:
    """A checkpoint of a kind whose answers lean on everything, and a tokenizer that names segments or does not."""

    def checkpoint(kind: str, named: bool) -> Path:
        names = ["input_ids", SEGMENTS, "attention_mask"] if named else ["input_ids", "attention_mask"]
        tokenizer = AutoTokenizer.from_pretrained(tiny_bert, model_input_names=names)
        config = MAKE[kind][0](len(tokenizer))
        config.id2label, config.label2id = {0: "same", 1: "other"}, {"same": 0, "other": 1}
        torch.manual_seed(0)
        model: Any = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.3)
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return checkpoint


def by_hand(folder: Path, takes: bool) -> np.ndarray[Any, Any]:
    """The logits of each pair alone, its segments counted from where the first text ends."""
    model, tokenizer = load_classifier(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for first, second in zip(FIRST, SECOND, strict=True):
        ids = tokenizer(first, second)["input_ids"]
        boundary = len(tokenizer(first)["input_ids"])
        segments = torch.tensor([[int(place >= boundary) for place in range(len(ids))]])
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
        with torch.no_grad():
            found.append(model.eval()(**inputs, **({SEGMENTS: segments} if takes else {})).logits[0].numpy())
    return np.stack(found)


@every_kind
@named_or_not
def test_pairs_are_answered_as_the_model_was_made_for(kind: str, named: bool, make: Callable[[str, bool], Path]) -> None:
    folder, takes = make(kind, named), MAKE[kind][1]
    split = Split(FIRST, SECOND, np.zeros(3, dtype=np.int64), "here", "")
    found, _ = classifier_logits(folder, split, 64, torch.device("cpu"))
    np.testing.assert_allclose(found, by_hand(folder, takes), atol=2e-5)
    assert (SEGMENTS in load_tokenizer(folder).model_input_names) == takes
    assert bool(segment_kinds(AutoConfig.from_pretrained(folder))) == takes


@pytest.mark.parametrize("kind", ["albert", "bert with one kind of segment"])
@named_or_not
def test_a_saved_student_is_asked_alike_by_everybody(
    kind: str, named: bool, make: Callable[[str, bool], Path], tmp_path: Path
) -> None:
    folder = make(kind, named)
    save_student(load_classifier(folder), load_tokenizer(folder), tmp_path / "student", 64)
    ask = pipeline("text-classification", str(tmp_path / "student"), top_k=None)
    answers = [ask({"text": first, "text_pair": second}) for first, second in zip(FIRST, SECOND, strict=True)]
    found = np.array(
        [[{each["label"]: each["score"] for each in answer}[name] for name in ("same", "other")] for answer in answers]
    )
    logits = by_hand(folder, MAKE[kind][1])
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("kind", ["albert", "bert with one kind of segment"])
def test_an_exported_file_is_asked_alike(kind: str, make: Callable[[str, bool], Path], tmp_path: Path) -> None:
    folder, takes = make(kind, False), MAKE[kind][1]
    (tmp_path / "pairs.csv").write_text(
        "text,text_pair,label\n"
        + "".join(
            f'"{one}","{other}",same\n"{other}","{one}",other\n'
            for one, other in zip(FIRST, SECOND, strict=True)
            for _ in range(7)
        )
    )
    from kdcli.data.task_loading import DataRequest

    data = DataRequest(data=str(tmp_path / "pairs.csv"), text_pair_column="text_pair")
    export(ExportRequest(target=folder, out=tmp_path / "export", precisions=("fp32",), benchmark="off", data=data), Events())
    session = onnxruntime.InferenceSession(tmp_path / "export" / "onnx" / "model.onnx")
    assert (SEGMENTS in {node.name for node in session.get_inputs()}) == takes
    texts = Texts.of(load_tokenizer(tmp_path / "export"), list(zip(FIRST, SECOND, strict=True)), 64)
    found = session.run(["logits"], texts.batch([0, 1, 2]))[0]
    np.testing.assert_allclose(found, by_hand(folder, takes), atol=1e-3)


def test_tokens_that_were_kept_for_other_segments_are_not_taken(make: Callable[[str, bool], Path]) -> None:
    folder = make("albert", False)
    assert fingerprint(load_tokenizer(folder)) != fingerprint(AutoTokenizer.from_pretrained(folder))


def test_a_tokenizer_with_more_segments_than_the_model_is_refused(make: Callable[[str, bool], Path]) -> None:
    folder = make("bert", True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:2 [SEP]:2"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("[CLS]:0 $A:0 [SEP]:0", pair, special)
    tokenizer.save_pretrained(folder)
    with pytest.raises(RequestError, match="segments that the model does not have") as caught:
        load_tokenizer(folder)
    assert caught.value.problems[0].found == "segment 2"


LEANS_ON_PADDING = {
    "xlnet": XLNetConfig(vocab_size=200, d_model=32, n_layer=2, n_head=4, d_inner=64),
    "fnet": FNetConfig(**{**SIZE, "vocab_size": 200}),
    "funnel": FunnelConfig(
        vocab_size=200, d_model=32, n_head=4, d_head=8, d_inner=64, block_sizes=[1, 1], num_decoder_layers=1
    ),
}


@pytest.mark.parametrize("kind", LEANS_ON_PADDING)
def test_a_model_that_leans_on_padding_answers_a_batch_as_its_texts_alone(kind: str, tiny_bert: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(LEANS_ON_PADDING[kind])
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    tokenizer, texts = load_tokenizer(tmp_path), [*FIRST, *SECOND, "The film"]
    split = Split(texts, None, np.zeros(len(texts), dtype=np.int64), "here", "")
    found, _ = classifier_logits(tmp_path, split, 64, torch.device("cpu"))
    with torch.no_grad():
        alone = torch.cat([model.eval()(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    np.testing.assert_allclose(found, alone.numpy(), atol=2e-5)
    with (
        pytest.raises(RequestError, match=r"padding|cannot show"),
        captured(load_classifier(tmp_path), Wanted(hidden=frozenset({1}))),
    ):
        pass
    with pytest.raises(RequestError, match=r"padding|not there"):
        build_student(model.config, tmp_path, [1, 2], 0)


def test_ordinary_models_are_given_whole_batches(make: Callable[[str, bool], Path]) -> None:
    for kind in ("albert", "distilbert"):
        assert not is_given_each_length_by_itself(load_classifier(make(kind, True)))
