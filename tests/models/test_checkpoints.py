"""What is known of a checkpoint before a weight is loaded, and how a wrong one is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from kdcli.errors import RequestError
from kdcli.models.checkpoints import ALIASES, Reference, describe, parse_references
from kdcli.models.head import SharedHead
from kdcli.models.teachers import CofinetunedTeachers
from kdcli.models.weight_loading import load_classifier, load_encoder, load_tokenizer
from tests.models.architectures import NAMES, encoder


def reference(folder: Path | str) -> Reference:
    return Reference("mine", str(folder), "--teachers")


@pytest.fixture
def copied(tiny_bert: Path, tmp_path: Path) -> Path:
    """A BERT checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


def test_references_are_names_and_checkpoints() -> None:
    assert parse_references("bert, mine=./my-bert,x=roberta", "--teachers") == [
        Reference("bert", ALIASES["bert"], "--teachers"),
        Reference("mine", "./my-bert", "--teachers"),
        Reference("x", ALIASES["roberta"], "--teachers"),
    ]


def test_a_path_or_hub_id_is_called_by_its_last_part() -> None:
    found = parse_references("./models/My BERT.v2,owner/some-model", "--teachers")
    assert [(one.name, one.checkpoint) for one in found] == [
        ("my-bert-v2", "./models/My BERT.v2"),
        ("some-model", "owner/some-model"),
    ]


@pytest.mark.parametrize("text", ["", " , ", "bert,bert", "a=x,a=y", "a b=./x", "a="])
def test_references_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--teachers"):
        parse_references(text, "--teachers")


def test_a_run_folder_stands_for_all_its_teachers(tiny_bert: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    folders = {"one": tiny_bert, "two": tiny_roberta}
    learner = CofinetunedTeachers(
        {name: load_encoder(folder) for name, folder in folders.items()}, SharedHead({"one": 32, "two": 48}, 2, "mean")
    )
    (tmp_path / "teachers").mkdir()
    learner.save(tmp_path / "teachers", ("a", "b"), {name: load_tokenizer(folder) for name, folder in folders.items()})
    for given in (tmp_path, tmp_path / "teachers"):
        found = parse_references(str(given), "--teachers")
        assert [(one.name, Path(one.checkpoint)) for one in found] == [(name, tmp_path / "teachers" / name) for name in folders]
    assert describe(found[0]).shared_head == tmp_path / "teachers"
    assert describe(reference(tiny_bert)).shared_head is None


def test_a_folder_is_described_from_its_files(tiny_roberta: Path) -> None:
    found = describe(reference(tiny_roberta))
    vocabulary = len(load_tokenizer(tiny_roberta))
    assert (found.model_type, found.layers, found.width, found.heads) == ("roberta", 6, 48, 4)
    assert found.vocabulary == vocabulary
    assert found.head_labels is None
    assert len(found.fingerprint) == 16


@pytest.mark.parametrize("name", NAMES)
def test_the_longest_input_is_one_that_the_model_takes(name: str, copied: Path) -> None:
    model = encoder(name)
    model.save_pretrained(copied)
    longest = describe(reference(copied)).max_length
    assert longest == (38 if model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 40)
    ids = torch.full((1, longest), 7)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.shape[1] == longest


def test_the_fingerprint_follows_the_weights(copied: Path) -> None:
    before = describe(reference(copied)).fingerprint
    assert describe(reference(copied)).fingerprint == before
    model = load_encoder(copied)
    next(model.parameters()).data += 1
    model.save_pretrained(copied)  # type: ignore[operator]
    assert describe(reference(copied)).fingerprint != before


def test_a_trained_head_is_seen_with_its_labels(copied: Path) -> None:
    model = BertForSequenceClassification(encoder("bert").config)
    model.config.id2label = {0: "no", 1: "yes"}
    model.save_pretrained(copied)
    assert describe(reference(copied)).head_labels == ("no", "yes")


def test_a_config_that_names_a_classifier_without_its_weights_has_no_head(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(
        json.dumps(config | {"architectures": ["BertForSequenceClassification"]}), encoding="utf-8"
    )
    assert describe(reference(copied)).head_labels is None
    with pytest.raises(RequestError, match="no trained classification head"):
        load_classifier(copied)


def test_pickled_weights_are_refused_with_the_command_that_converts_them(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(RequestError, match=r"pickled(.|\n)*pytorch_model\.bin(.|\n)*save_file"):
        describe(reference(copied))


def test_a_folder_without_weights_is_refused(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(RequestError, match="no weights"):
        describe(reference(copied))


def test_broken_weights_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RequestError, match=r"model\.safetensors: is broken"):
        describe(reference(copied))


def test_weights_that_break_after_the_look_at_them_are_refused_too(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RequestError, match="is broken"):
        load_encoder(copied)


def test_a_folder_without_a_fast_tokenizer_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(RequestError, match="fast tokenizer"):
        describe(reference(copied))


@pytest.mark.parametrize("content", ["{", '{"model_type": "no-such-architecture"}'])
def test_a_broken_configuration_is_refused(content: str, copied: Path) -> None:
    (copied / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=r"config\.json"):
        describe(reference(copied))


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not a checkpoint"):
        describe(reference(tmp_path))


def test_a_model_that_is_no_encoder_is_refused(copied: Path) -> None:
    (copied / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    with pytest.raises(RequestError, match="not a transformer encoder"):
        describe(reference(copied))


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RequestError, match="did you mean 'roberta'"):
        describe(reference("robertta"))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such folder"):
        describe(reference(tmp_path / "nothing"))


def test_a_hub_model_that_is_not_here_is_refused_with_the_way_to_fetch_it() -> None:
    with pytest.raises(RequestError, match=r"offline(.|\n)*hf download"):
        describe(reference("kdcli-tests/no-such-model"))


@pytest.mark.parametrize("name", ["student", "train", "keys", "ensemble", "assistant-1", "baseline", "latest", "scratch"])
def test_no_name_is_kept_for_kdcli_itself(name: str) -> None:
    assert [reference.name for reference in parse_references(f"{name}=./somewhere", "--teachers")] == [name]


@pytest.mark.parametrize("names", [("bert", "BERT"), ("\u00e9", "e\u0301x"[:-1]), ("one", "one")])
def test_names_that_a_disk_may_not_tell_apart_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(RequestError, match=r"two models are called|is not name=checkpoint"):
        parse_references(",".join(f"{name}=./{row}" for row, name in enumerate(names)), "--teachers")


@pytest.mark.parametrize("name", ["a.b", "a/b", "..", "a b", "a\nb", "\x1b[31m", "", "x" * 65])
def test_names_that_make_no_folder_are_refused(name: str) -> None:
    with pytest.raises(RequestError):
        parse_references(f"{name}=./somewhere", "--teachers")
