"""A checkpoint whose weights are not those that its configuration describes is refused, and a trained head is seen."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from kdcli.errors import Problem, RequestError
from kdcli.models.checkpoints import Checkpoint, Reference, describe
from kdcli.models.configuration import longest_input, read_configuration
from kdcli.models.weight_checks import check_weights, place, skeleton
from kdcli.models.weight_loading import load_classifier, load_encoder
from kdcli.models.weights import read_headers
from kdcli.tasks.regression import Regression
from tests.models.architectures import CONFIGS, NAMES, checkpoint, encoder

State = dict[str, Tensor]
LABELS = ("bad", "good")


def described(folder: Path) -> Checkpoint:
    return describe(Reference("mine", str(folder), "--teachers"))


def refusal(folder: Path) -> Problem:
    with pytest.raises(RequestError) as caught:
        described(folder)
    return caught.value.problems[0]


@pytest.fixture
def classifier(tiny_bert: Path, tmp_path: Path) -> Path:
    """A BERT with a trained head."""
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    config = read_configuration(tiny_bert).config
    config.id2label, config.label2id = dict(enumerate(LABELS)), {name: row for row, name in enumerate(LABELS)}
    with torch.random.fork_rng(devices=[]):
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def change(folder: Path, state: Callable[[State], Mapping[str, Tensor]] | None = None, **config: Any) -> Path:
    """The folder with other tensors, other keys in its configuration."""
    if state is not None:
        tensors = {name: tensor.clone().contiguous() for name, tensor in state(load_file(folder / "model.safetensors")).items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(written | config), encoding="utf-8")
    return folder


def without(part: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


@pytest.mark.parametrize("prefix", ["module.", "model.", "bert.", "module._orig_mod.", "0.auto_model."])
def test_a_prefix_is_refused_with_a_command_that_mends_it(prefix: str, classifier: Path) -> None:
    before = load_file(classifier / "model.safetensors")
    change(classifier, lambda state: {prefix + name: tensor for name, tensor in state.items()})
    problem = refusal(classifier)
    assert "none of the encoder's" in problem.what
    assert f"{prefix}bert.embeddings" in problem.found
    assert f"take {prefix!r} from the names" in problem.remedy
    python, flag, code = shlex.split(problem.remedy.partition("names: ")[2])
    assert (python, flag) == ("python", "-c")
    exec(code, {})
    assert described(classifier).head_labels == LABELS
    after = load_file(classifier / "model.safetensors")
    assert {name: tensor.tolist() for name, tensor in before.items()} == {
        name: tensor.tolist() for name, tensor in after.items()
    }


def test_the_command_that_mends_works_in_a_folder_of_any_name_and_on_shards(classifier: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s $HOME "here"'
    encoder_alone = load_encoder(classifier)
    encoder_alone.save_pretrained(folder, max_shard_size="60KB")  # type: ignore[operator]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(classifier / name, folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for shard in set(index["weight_map"].values()):
        tensors = {f"module.{name}": tensor.clone() for name, tensor in load_file(folder / shard).items()}
        save_file(tensors, folder / shard, {"format": "pt"})
    index["weight_map"] = {f"module.{name}": shard for name, shard in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    code = shlex.split(refusal(folder).remedy.partition("names: ")[2])[2]
    exec(code, {})
    assert described(folder).layers == 4


def test_weights_of_another_architecture_are_refused_with_its_name(classifier: Path) -> None:
    problem = refusal(change(classifier, model_type="roberta", pad_token_id=1))
    assert "none of the encoder's" in problem.what
    assert "those of a bert" in problem.remedy


@pytest.mark.parametrize("part", ["layer.2.", "embeddings.word_embeddings", "layer.0.attention.self.query.bias"])
def test_an_encoder_with_a_gap_is_refused_and_never_filled_at_random(part: str, classifier: Path) -> None:
    change(classifier, without(part))
    problem = refusal(classifier)
    assert part in problem.expected
    for load in (load_encoder, load_classifier):
        with pytest.raises(RequestError, match=r"not what config\.json says"):
            load(classifier)


@pytest.mark.parametrize(("layers", "said"), [(6, "32 of the encoder's"), (3, "more blocks")])
def test_another_number_of_blocks_is_refused(layers: int, said: str, classifier: Path) -> None:
    assert said in refusal(change(classifier, num_hidden_layers=layers)).what


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", 64), ("vocab_size", 77), ("max_position_embeddings", 512), ("intermediate_size", 99)]
)
def test_another_shape_is_refused_with_both_and_the_key(key: str, value: int, classifier: Path) -> None:
    other: dict[str, Any] = {key: value}
    problem = refusal(change(classifier, None, **other))
    assert "another shape" in problem.what
    assert key in problem.expected
    assert str(value) in problem.expected


def test_what_no_pretraining_has_may_be_missing(tiny_roberta: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "model"))
    more = {"embeddings.position_ids": torch.arange(130)[None], "lm_head.bias": torch.zeros(3)}
    change(folder, lambda state: without("pooler")(state) | more)
    assert described(folder).head_labels is None
    load_encoder(folder)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_taken_with_its_head_and_without(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    bare, trained = checkpoint(name, tmp_path / "bare"), tmp_path / "trained"
    config = CONFIGS[name]()
    config.id2label, config.label2id = dict(enumerate(LABELS)), {name: row for row, name in enumerate(LABELS)}
    with torch.random.fork_rng(devices=[]):
        AutoModelForSequenceClassification.from_config(config).save_pretrained(trained)
        AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path / "tagger")
    assert not check(bare)
    assert check(trained)
    assert check(change(trained, architectures=None))
    assert check(change(trained, architectures=["SomethingOfMyOwn"]))
    assert not check(tmp_path / "tagger")
    load_classifier(trained)
    output = next(part for part in ("out_proj.weight", "classifier.weight") if part in str(list(load_file(weights(trained)))))
    change(trained, without(output))
    with pytest.raises(RequestError, match="part of a classification head"):
        check(trained)


def check(folder: Path) -> bool:
    return check_weights(folder, read_configuration(folder), read_headers(folder))


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_what_is_known_by_heart_is_what_transformers_says(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]()
    with torch.random.fork_rng(devices=[]):
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    headers = read_headers(tmp_path)
    meta = {tensor: torch.empty(header.shape, device="meta") for tensor, header in headers.items()}
    for classifier in (False, True):
        _, fit = place(config, meta, classifier=classifier, memory=False)
        assert [part for part in fit.missing if "pooler" not in part] == []
        assert fit.mismatched == {}
    assert check(tmp_path)


def test_a_head_without_architectures_is_used(classifier: Path) -> None:
    assert described(change(classifier, architectures=None)).head_labels == LABELS


@pytest.mark.parametrize("named", [None, ["BertForTokenClassification"]])
def test_a_head_for_tokens_is_no_head_for_texts(named: list[str] | None, classifier: Path) -> None:
    change(classifier, without("pooler"), architectures=named)
    assert described(classifier).head_labels is None


@pytest.mark.parametrize("part", ["classifier.weight", "classifier.bias", "pooler.dense.weight"])
def test_half_a_head_is_refused(part: str, classifier: Path) -> None:
    assert part in refusal(change(classifier, without(part))).found


def test_a_head_of_another_size_is_refused_with_both_shapes(classifier: Path) -> None:
    problem = refusal(change(classifier, id2label={"0": "a", "1": "b", "2": "c"}, label2id=None))
    assert "id2label" in problem.where
    assert (problem.expected[:7], problem.found[:7]) == ("[3, 32]", "[2, 32]")


@pytest.mark.parametrize(
    ("id2label", "label2id", "key"),
    [
        ({"1": "bad", "2": "good"}, None, "id2label"),
        ({"0": "bad", "2": "good"}, None, "id2label"),
        ({"0": "bad", "1": "bad"}, None, "id2label"),
        ({"0": "bad", "1": " "}, None, "id2label.1"),
        ({"0": "bad", "1": 7}, None, "id2label.1"),
        (["bad", "good"], None, "id2label"),
        ({}, None, "id2label"),
        (None, None, "id2label"),
        ({"0": "bad", "1": "good"}, {"bad": 1, "good": 0}, "label2id"),
        ({"0": "bad", "1": "good"}, {"bad": 0}, "label2id"),
        ({"0": "bad", "1": "good"}, ["bad"], "label2id"),
        (None, {"bad": 0, "good": 1}, "label2id"),
    ],
)
def test_odd_names_of_classes_are_refused(id2label: object, label2id: object, key: str, classifier: Path) -> None:
    problem = refusal(change(classifier, id2label=id2label, label2id=label2id))
    assert problem.where == f"{classifier / 'config.json'}  {key}"


def test_ids_that_say_nothing_contradict_nothing(classifier: Path) -> None:
    change(classifier, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert described(classifier).head_labels == LABELS


@pytest.mark.parametrize("kind", ["multi_label_classification"])
def test_a_head_for_another_kind_of_task_is_refused(kind: str, classifier: Path) -> None:
    change(classifier, problem_type=kind)
    with pytest.raises(RequestError, match=rf"problem_type(.|\n)*no kind of task yet(.|\n)*{kind}"):
        described(classifier).check_head()
    with pytest.raises(RequestError, match="problem_type"):
        load_classifier(classifier)


def test_a_head_of_one_output_is_a_regression(classifier: Path) -> None:
    change(
        classifier,
        lambda state: {name: tensor[:1] if name.startswith("classifier") else tensor for name, tensor in state.items()},
        id2label={"0": "score"},
        label2id=None,
    )
    found = described(classifier)
    found.check_head()
    assert found.task_kind == Regression("score")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read_as_fp32(kind: torch.dtype, classifier: Path) -> None:
    change(classifier, lambda state: {name: tensor.to(kind) for name, tensor in state.items()}, dtype=str(kind)[6:])
    assert described(classifier).head_labels == LABELS
    assert {parameter.dtype for parameter in load_classifier(classifier).parameters()} == {torch.float32}


def test_quantised_weights_are_refused(classifier: Path) -> None:
    change(classifier, lambda state: {name: (tensor * 100).to(torch.int8) for name, tensor in state.items()})
    assert "quantised" in refusal(classifier).what


def test_a_parameter_under_two_names_is_refused(classifier: Path) -> None:
    change(classifier, lambda state: state | {name.removeprefix("bert."): 2 * tensor for name, tensor in state.items()})
    assert "under two names" in refusal(classifier).what


def test_the_building_of_a_model_without_end_is_stopped() -> None:
    config = CONFIGS["albert"]()
    config.inner_group_num = 2**40
    with pytest.raises(ValueError, match="larger than any encoder"):
        skeleton(config, classifier=False)


def test_a_configuration_that_returns_tuples_is_read_as_one_that_does_not(tmp_path: Path, tiny_bert: Path) -> None:
    folder = change(Path(shutil.copytree(tiny_bert, tmp_path / "model")), return_dict=False, output_attentions=True)
    result = load_encoder(folder)(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.ones(1, 2, dtype=torch.int64))
    assert result.last_hidden_state.shape == (1, 2, 32)


@pytest.mark.parametrize("name", ["xlnet", "funnel"])
def test_architectures_of_their_own_kind_are_taken(name: str, tmp_path: Path) -> None:
    from transformers import FunnelConfig, XLNetConfig

    width: dict[str, Any] = {"vocab_size": 60, "d_model": 32, "n_head": 4}
    config: Any = (
        XLNetConfig(**width, n_layer=2, d_inner=48)
        if name == "xlnet"
        else FunnelConfig(**width, block_sizes=[1, 1], d_head=8, d_inner=48)
    )
    with torch.random.fork_rng(devices=[]):
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    assert check(tmp_path)
    assert check(change(tmp_path, architectures=None))
    load_classifier(tmp_path)
    assert longest_input(read_configuration(tmp_path).config) == 512


def test_models_that_are_no_encoders_are_refused(tmp_path: Path) -> None:
    for kind in ("gpt2", "t5", "vit", "clip", "llama"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(RequestError, match="not a transformer encoder"):
            read_configuration(tmp_path)


def test_encoders_are_loaded_as_they_were_saved(tmp_path: Path) -> None:
    for name in ("deberta-v2", "modernbert"):
        model = encoder(name)
        model.save_pretrained(tmp_path / name)
        loaded = load_encoder(tmp_path / name).state_dict()
        assert all(torch.equal(tensor, loaded[key]) for key, tensor in model.state_dict().items())
