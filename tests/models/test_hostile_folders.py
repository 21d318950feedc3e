"""Whatever stands in the files of a model folder: it is loaded, or refused by name; nothing unforeseen, nothing endless."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdcli.errors import RequestError
from kdcli.models.checkpoints import Reference, describe, parse_references
from kdcli.models.head import SharedHead
from kdcli.models.starter_teachers import write_starter_teacher
from kdcli.models.teachers import CofinetunedTeachers, Teacher
from kdcli.models.weight_loading import load_classifier, load_encoder, load_tokenizer, quiet_transformers, text_limit
from tests.models.architectures import CONFIGS
from tests.models.mutations import broken, linked, mutated, outcome

_SIZE = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
_SECONDS = 20


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> dict[str, Path]:
    """Classifiers of two blocks, of an architecture that is known by heart and of one that is not."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    quiet_transformers()
    made = {}
    for kind in ("bert", "distilbert"):
        folder = made[kind] = tmp_path_factory.mktemp("smallest") / kind
        write_starter_teacher("bert", texts[:40], folder, **_SIZE)
        config: Any = AutoConfig.from_pretrained(folder)
        if kind != "bert":
            config = CONFIGS[kind]()
            config.vocab_size = len(load_tokenizer(folder))
        config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
        with torch.random.fork_rng(devices=[]):
            AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return made


def use(folder: Path) -> None:
    """All that a command does with a model folder before it asks the model."""
    found = describe(Reference("mine", str(folder), "--teachers"))
    found.check_head()
    load_tokenizer(folder)
    text_limit(found)
    (load_encoder if found.head_labels is None else load_classifier)(folder)


def surprises(folder: Path, file: str, work: Callable[[], object], step: int = 1) -> tuple[dict[str, str], int]:
    """The mutations of a file (each, or every ``step``-th) that end neither done nor refused, and how many were refused."""
    whole = (folder / file).read_bytes()
    cases = dict(list(mutated(json.loads(whole)))[::step]) | broken(whole)
    found = {}
    for name, content in cases.items():
        (folder / file).write_bytes(content)
        found[name] = outcome(work, RequestError)
    (folder / file).write_bytes(whole)
    assert outcome(work, RequestError) == "done"
    assert {found[name] for name in broken(whole)} == {"refused"}
    return {name: end for name, end in found.items() if end not in ("done", "refused")}, list(found.values()).count("refused")


@pytest.mark.parametrize(
    ("kind", "file"),
    [("bert", "config.json"), ("distilbert", "config.json"), ("bert", "tokenizer_config.json"), ("bert", "tokenizer.json")],
)
def test_a_changed_file_is_loaded_or_refused(kind: str, file: str, smallest: dict[str, Path], tmp_path: Path) -> None:
    folder = linked(smallest[kind], tmp_path / "model")
    found, refused = surprises(folder, file, lambda: use(folder), 1 if kind == "bert" else 3)
    assert found == {}
    assert refused > 80


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 10**9),
        ("num_hidden_layers", 10**9),
        ("vocab_size", 10**9),
        ("max_position_embeddings", 2**31),
        ("intermediate_size", 10**12),
        ("num_attention_heads", 3),
        ("hidden_act", "unheard-of"),
        ("layer_norm_eps", "x"),
        ("pad_token_id", -1),
        ("hidden_dropout_prob", 7.5),
        ("architectures", "BertModel"),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
        ("transformers_weights", "elsewhere.safetensors"),
        ("to_dict", 1),
        ("is_decoder", True),
    ],
)
def test_a_refusal_names_file_and_key(key: str, value: object, smallest: dict[str, Path], tmp_path: Path) -> None:
    folder = linked(smallest["bert"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    begin = time.monotonic()
    with pytest.raises(RequestError) as caught:
        describe(Reference("mine", str(folder), "--teachers"))
    assert "config.json" in str(caught.value)
    assert key in str(caught.value)
    assert time.monotonic() - begin < _SECONDS


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size", "n_layers", "dim"])
def test_a_size_without_measure_is_refused_where_no_weights_are_looked_at(
    key: str, smallest: dict[str, Path], tmp_path: Path
) -> None:
    folder = linked(smallest["distilbert"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: 10**9}))
    with pytest.raises(RequestError, match=key):
        describe(Reference("mine", str(folder), "--teachers"), weights=False)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_file_of_50_megabytes_is_refused_unread(file: str, smallest: dict[str, Path], tmp_path: Path) -> None:
    folder = linked(smallest["bert"], tmp_path / "model")
    with (folder / file).open("r+b") as content:
        content.truncate(50_000_000)
    begin = time.monotonic()
    with pytest.raises(RequestError, match=rf"{file}: is too long"):
        use(folder)
    assert time.monotonic() - begin < _SECONDS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_max_length", 0),
        ("model_max_length", 2),
        ("model_max_length", "x"),
        ("truncation_side", "top"),
        ("model_input_names", "input_ids"),
        ("pad_token", 5),
    ],
)
def test_an_odd_setting_of_a_tokenizer_is_named(key: str, value: object, smallest: dict[str, Path], tmp_path: Path) -> None:
    folder = linked(smallest["bert"], tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {key: value}))
    with pytest.raises(RequestError, match=rf"tokenizer_config\.json  {key}"):
        load_tokenizer(folder)


def test_a_tokenizer_without_padding_token_is_refused(smallest: dict[str, Path], tmp_path: Path) -> None:
    folder = linked(smallest["bert"], tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(RequestError, match="no padding token"):
        load_tokenizer(folder)


def test_tokens_without_an_embedding_are_refused_with_both_numbers(smallest: dict[str, Path], tmp_path: Path) -> None:
    folder = linked(smallest["bert"], tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    size = len(tokenizer)
    tokenizer.add_tokens(["flimmering"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(RequestError, match=rf"flimmering(.|\n)*ids below {size}(.|\n)*up to {size}"):
        load_tokenizer(folder)


@pytest.fixture
def together(tiny_bert: Path, tiny_roberta: Path, tmp_path: Path) -> Path:
    """Two teachers under a shared head."""
    folders = {"one": tiny_bert, "two": tiny_roberta}
    learner = CofinetunedTeachers(
        {name: load_encoder(folder) for name, folder in folders.items()}, SharedHead({"one": 32, "two": 48}, 2, "attention")
    )
    folder = tmp_path / "teachers"
    folder.mkdir()
    learner.save(folder, ("a", "b"), {name: load_tokenizer(path) for name, path in folders.items()})
    return folder


def test_a_changed_shared_head_is_refused(together: Path) -> None:
    def work() -> None:
        for reference in parse_references(str(together), "--teachers"):
            describe(reference)
        Teacher.cofinetuned("one", together / "one", [0, 1])

    found, refused = surprises(together, "head.json", work)
    assert found == {}
    assert refused > 55


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teachers": ["../bert", "two"]}, "teachers"),
        ({"widths": {"one": 48, "two": 48}}, "head.safetensors"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a", "b", "c"]}, r"prediction\.bias"),
        ({"pooling": "cls"}, r"pooling\.inner"),
    ],
)
def test_a_shared_head_that_is_another_than_its_weights_is_refused(change: dict[str, Any], said: str, together: Path) -> None:
    about = json.loads((together / "head.json").read_text())
    (together / "head.json").write_text(json.dumps(about | change))
    with pytest.raises(RequestError, match=said):
        parse_references(str(together), "--teachers")


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x08\0\0\0\0\0\0\0{}      "])
def test_broken_weights_of_a_shared_head_are_refused(content: bytes | None, together: Path) -> None:
    (together / "head.safetensors").unlink()
    if content is not None:
        (together / "head.safetensors").write_bytes(content)
    with pytest.raises(RequestError, match=r"head\.safetensors"):
        Teacher.cofinetuned("one", together / "one", [0, 1])


def test_other_kinds_of_folders_are_called_what_they_are(tiny_bert: Path, tmp_path: Path) -> None:
    adapter, sentences, slow = tmp_path / "adapter", tmp_path / "sentences", tmp_path / "slow"
    for folder in (adapter, sentences):
        folder.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (sentences / "modules.json").write_text("[]")
    shutil.copytree(tiny_bert, sentences / "0_Transformer")
    shutil.copytree(tiny_bert, slow)
    shutil.copytree(tiny_bert, tmp_path / "both")
    (tmp_path / "both" / "adapter_config.json").write_text("{}")
    (slow / "model.safetensors").rename(slow / "adapter_model.safetensors")
    for folder, said in (
        (tmp_path / "both", "adapter .* beside its weights"),
        (adapter, "an adapter"),
        (sentences, "0_Transformer"),
        (slow, "an adapter"),
    ):
        with pytest.raises(RequestError, match=said):
            describe(Reference("mine", str(folder), "--teachers"))
