"""Export: the file says what the model says, at any shape, or it is not kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdcli.engine.events import Event, Events
from kdcli.errors import GateError, RequestError
from kdcli.export.graph import write_graph
from kdcli.jobs import export as export_job
from kdcli.jobs.export import ExportRequest, export

TinyRun = tuple[Path, list[Event]]


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "export"
    export(ExportRequest(target=tiny_run[0], out=folder), Events())
    return folder


def test_export_folder_has_the_layout_of_the_ecosystem(exported: Path) -> None:
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx", "benchmark.json"} <= names


@pytest.mark.parametrize(
    "words", [["great film"], ["The plot was awful, the actor hopeless!"] * 3 + ["a"], ["music " * 60, "b"]]
)
def test_onnx_equals_torch_at_shapes_it_was_not_traced_with(words: list[str], exported: Path, tiny_run: TinyRun) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_run[0] / "student").eval()
    inputs = tokenizer(words, padding=True, return_tensors="pt")
    session = onnxruntime.InferenceSession(str(exported / "onnx" / "model.onnx"))
    theirs = session.run(None, {key.name: inputs[key.name].numpy() for key in session.get_inputs()})[0]
    with torch.no_grad():
        ours = model(**inputs).logits.numpy()
    assert np.allclose(ours, theirs, atol=1e-4)


def test_graph_is_sound_dynamic_and_says_what_it_is(exported: Path) -> None:
    graph = onnx.load(str(exported / "onnx" / "model.onnx"))
    onnx.checker.check_model(graph)
    for value in graph.graph.input:
        assert [dimension.dim_param for dimension in value.type.tensor_type.shape.dim] == ["batch", "length"]
    about = {entry.key: entry.value for entry in graph.metadata_props}
    assert about["labels"] == "negative,positive"
    assert about["recipe"] == "kdcli"


def test_benchmark_times_every_teacher_and_both_engines_on_equal_threads(exported: Path) -> None:
    found = json.loads((exported / "benchmark.json").read_text())
    assert {(row["model"], row["engine"]) for row in found["latency"]} == {
        ("bert", "torch"), ("roberta", "torch"), ("student", "torch"), ("student", "onnxruntime"),
    }  # fmt: skip
    assert all(0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"] for row in found["latency"])
    assert len({row["runs"] for row in found["latency"] if row["batch"] == 1}) == 1
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert len(found["parity"]) == 3
    assert all(row["holds"] for row in found["parity"])


def test_file_that_differs_from_the_model_is_not_kept(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = write_graph

    def write_another_model(model: torch.nn.Module, *more: object) -> None:
        spoiled = AutoModelForSequenceClassification.from_pretrained(tiny_run[0] / "student").eval()
        spoiled.classifier.bias.data += 1.0
        honest(spoiled, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(export_job, "write_graph", write_another_model)
    with pytest.raises(GateError, match="largest logit difference"):
        export(ExportRequest(target=tiny_run[0], out=tmp_path / "export", benchmark=False), Events())
    assert not list(tmp_path.iterdir())


def test_checkpoint_without_a_run_is_exported(tiny_run: TinyRun, tmp_path: Path) -> None:
    done = export(ExportRequest(target=tiny_run[0] / "student", out=tmp_path / "export", benchmark=False), Events())
    assert done.model.is_file()
    assert done.latencies == []


def test_checkpoint_without_a_head_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no classification head"):
        export(ExportRequest(target=tiny_bert, out=tmp_path / "export"), Events())
