"""Model folders that cannot be used: one message, exit code 2, nothing left behind, in every command that loads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from kdcli.cli.app import app
from kdcli.models.configuration import read_configuration
from kdcli.models.weight_loading import load_tokenizer


def kdcli(*words: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def classifier(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a head for the tiny task."""
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = Path(shutil.copytree(tiny_bert, tmp_path_factory.mktemp("classifier") / "mine"))
    config = read_configuration(tiny_bert).config
    config.id2label, config.label2id = {0: "negative", 1: "positive"}, {"negative": 0, "positive": 1}
    with torch.random.fork_rng(devices=[]):
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def prefixed(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({f"module.{name}": tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")


def more_tokens(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["flimmering"])
    tokenizer.save_pretrained(folder)


def configured(**keys: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | keys))

    return change


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a prefix": (prefixed, "none of the encoder's"),
    "tokens without an embedding": (more_tokens, "no embedding"),
    "classes from 1": (configured(id2label={"1": "negative", "2": "positive"}, label2id=None), "id2label"),
    "three names, two outputs": (configured(id2label={"0": "a", "1": "b", "2": "c"}, label2id=None), "[2, 32]"),
    "several labels": (configured(problem_type="multi_label_classification"), "problem_type"),
    "a width without measure": (configured(hidden_size=10**9), "hidden_size"),
}
COMMANDS = {
    "distill": ("distill", "--teachers", "mine={model}", "--student", "2L", "--data", "{data}"),
    "cofinetune": ("cofinetune", "--teachers", "mine={model}", "--data", "{data}"),
    "evaluate": ("evaluate", "{model}", "--data", "{data}/dev.jsonl"),
    "as a teacher of evaluate": ("evaluate", "{good}", "--teachers", "mine={model}", "--data", "{data}/dev.jsonl"),
    "export": ("export", "{model}", "--onnx", "--data", "{data}"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_model_is_refused_and_nothing_is_left(
    command: str, fault: str, classifier: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    spoil, said = FAULTS[fault]
    spoil(folder)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = kdcli(*(word.format(model=folder, data=tiny_data, good=classifier) for word in COMMANDS[command]))
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("error  ") >= 1
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_student_that_does_not_fit_is_refused(
    classifier: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    prefixed(folder)
    done = kdcli("distill", "--teachers", classifier, "--student", folder, "--data", tiny_data, "--dry-run")
    assert done.exit_code == 2
    assert "take 'module.' from the names" in done.stderr


def test_more_tokens_than_positions_are_refused(classifier: Path, tiny_data: Path) -> None:
    done = kdcli("evaluate", classifier, "--data", tiny_data / "dev.jsonl", "--max-length", "129")
    assert done.exit_code == 2
    assert "--max-length 129: is longer than mine can take" in done.stderr
    assert "at most 128" in done.stderr


@pytest.mark.parametrize("named", ["lr=1e-5", "a,b", "x=lr=1e-5", "lr=1e-5,other={classifier}"])
def test_a_folder_with_signs_in_its_name_is_taken(
    named: str, classifier: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lr=1e-5", "a,b"):
        shutil.copytree(classifier, tmp_path / name)
    teachers = named.format(classifier=classifier)
    done = kdcli("distill", "--teachers", teachers, "--student", "2L", "--data", tiny_data, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["teachers"]) == (2 if "other" in named else 1)
