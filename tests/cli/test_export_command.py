"""``kdcli export`` as a user types it: exit codes, messages, one document on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner, Result

from kdcli.cli.app import app
from kdcli.export import variants as variants_module
from tests.export.classifiers import Drawer

Typed = Callable[..., Result]


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Drawer:
    return Drawer(tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def checkpoint(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of two layers and two classes, whose answers are far from each other."""
    folder = tmp_path_factory.mktemp("checkpoints") / "mine"
    names: dict[str, Any] = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    model: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_hidden_layers=2, **names)
    model.classifier.bias.data[0] = 5.0
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


@pytest.fixture
def typed(checkpoint: Path, drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Types ``kdcli export CHECKPOINT --out export`` and more words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(variants_module, "write_graph", drawer.write_graph)

    def run(*words: str, target: Path = checkpoint, benchmark: bool = False) -> Result:
        fixed = ["export", str(target), "--out", "export", *([] if benchmark else ["--no-benchmark"])]
        return CliRunner().invoke(app, [*fixed, *words])

    return run


def test_files_that_hold_are_listed_and_the_exit_code_is_0(typed: Typed, tmp_path: Path) -> None:
    done = typed("--precision", "fp32,int8")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    first_table = [line[:2] for line in lines if line and line[0] in ("fp32", "int8")][:2]  # what has no room is below
    assert first_table == [["fp32", "yes"], ["int8", "yes"]]
    assert done.stdout.splitlines()[-1] == "export"
    assert sorted(path.name for path in (tmp_path / "export" / "onnx").iterdir()) == ["model.onnx", "model_int8.onnx"]


def test_json_is_one_document_and_nothing_else(typed: Typed, tmp_path: Path) -> None:
    done = typed("--precision", "fp32,int8,int8-static", "--json", "--calibration", "minmax")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["format"] == 2
    assert [row["precision"] for row in found["variants"]] == ["fp32", "int8", "int8-static"]
    assert found == json.loads((tmp_path / "export" / "benchmark.json").read_text(encoding="utf-8"))


def test_quiet_has_nothing_on_stderr(typed: Typed) -> None:
    done = typed("--quiet", "--precision", "fp32,int8")
    assert done.exit_code == 0
    assert done.stderr == ""
    assert "fp32" in done.stdout


def test_result_fits_60_columns(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    done = typed("--precision", "fp32,int8")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 60
    assert "points lost" in done.stdout


def test_latency_above_the_limit_is_exit_code_1_and_the_files_are_there(typed: Typed, tmp_path: Path) -> None:
    done = typed("--max-latency", "0.0001ms@b1s8")
    assert done.exit_code == 1, done.output
    assert "above the limit of 0.000100 ms" in done.stderr
    assert "b1s8" in done.stderr
    assert "Traceback" not in done.output
    assert (tmp_path / "export" / "onnx" / "model.onnx").is_file()


def test_latency_below_the_limit_is_exit_code_0(typed: Typed) -> None:
    assert typed("--max-latency", "100s@b1s8").exit_code == 0


def test_precision_that_cannot_run_here_is_exit_code_1(typed: Typed) -> None:
    done = typed("--precision", "bf16")
    assert done.exit_code == 1, done.output
    assert "bf16" in done.stderr
    assert "Traceback" not in done.output


REFUSED = {
    "unknown precision": (["--precision", "int9"], "did you mean 'int8'?"),
    "no precision": (["--precision", ","], "--precision: is empty"),
    "malformed limit": (["--max-latency", "5@b1"], "--max-latency 5ms@b1s64"),
    "limit of 0": (["--max-latency", "0ms@b1s8"], "a time above 0"),
    "negative drop": (["--max-drop", "-1"], "--max-drop"),
    "unknown calibration": (["--calibration", "mean"], "--calibration"),
    "no such provider": (["--device", "cuda"], "onnxruntime-gpu"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_words_are_exit_code_2_and_leave_nothing(
    name: str, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    words, message = REFUSED[name]
    done = typed(*words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_checkpoint_without_a_head_is_exit_code_2(typed: Typed, tiny_bert: Path) -> None:
    done = typed(target=tiny_bert)
    assert done.exit_code == 2
    assert "no classification head" in done.stderr


def test_folder_that_cannot_be_written_is_told_without_a_traceback(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = typed("--out", "file/export")
    assert done.exit_code in (2, 3), done.output
    assert "Traceback" not in done.output
    assert "file" in done.stderr


def test_full_disk_is_told_without_a_traceback(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed("--precision", "fp32").exit_code == 0

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(variants_module, "quantise_dynamic", full)
    done = typed("--precision", "fp32,int8")
    assert done.exit_code == 3, done.output
    assert "No space left" in done.stderr
    assert "Traceback" not in done.output
    assert (tmp_path / "export" / "onnx" / "model.onnx").is_file()
