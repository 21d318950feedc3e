"""The job of ``kdcli export``: files that hold, in the ecosystem's layout, or a reason and the folder as it was."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Event, Events
from kdcli.errors import GateError, RequestError
from kdcli.export import variants as variants_module
from kdcli.export.file_names import FILES
from kdcli.export.gate import file_logits
from kdcli.export.latency import LatencyLimit
from kdcli.jobs import export as export_job
from kdcli.jobs.export import Export, ExportRequest, export
from tests.conftest import sentences
from tests.export.classifiers import Drawer

TinyRun = tuple[Path, list[Event]]
LABELS = ["positive", "negative"]  # the data's classes are the other way round
TEXTS = ["great film", "The plot was awful, the actor hopeless!", "music " * 60, ""]
CONFIG_AND_TOKENIZER = {"config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A run's student in every precision, timed."""
    folder = tmp_path_factory.mktemp("out") / "export"
    request = ExportRequest(target=tiny_run[0], out=folder, precisions=tuple(FILES), max_drop=5.0, reduce_range=True)
    return export(request, Events())


@pytest.fixture(scope="module")
def checkpoint(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that somebody else has trained a little; its classes have names, in an order of their own."""
    folder = tmp_path_factory.mktemp("foreign") / "checkpoint"
    names: dict[str, Any] = {"id2label": dict(enumerate(LABELS)), "label2id": {name: row for row, name in enumerate(LABELS)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_hidden_layers=2, **names)
        tokenizer: Any = AutoTokenizer.from_pretrained(tiny_bert)
        rows = sentences(160, 11)
        given = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
        wanted = torch.tensor([LABELS.index(label) for _, label in rows])
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(12):
            loss: Any = torch.nn.functional.cross_entropy(model(**given).logits, wanted)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Drawer:
    return Drawer(tmp_path_factory.mktemp("graphs"))


Quick = Callable[..., Export]


@pytest.fixture
def quick(checkpoint: Path, drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quick:
    """Exports the foreign checkpoint without timing it."""
    monkeypatch.setattr(variants_module, "write_graph", drawer.write_graph)

    def made(**changes: Any) -> Export:
        request = ExportRequest(target=checkpoint, out=tmp_path / "export", benchmark="off", reduce_range=True, max_drop=100.0)
        return export(replace(request, **changes), Events())

    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def asked_of_torch(folder: Path, texts: list[str]) -> Any:
    """Logits of a checkpoint."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")).logits


def asked_of_file(folder: Path, precision: str, texts: list[str]) -> Any:
    """Logits of a file, with the tokenizer beside it."""
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(str(folder / "onnx" / FILES[precision]), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {key.name: inputs[key.name] for key in session.get_inputs()})[0]


def test_folder_has_the_layout_of_the_ecosystem_and_the_files_that_hold(exported: Export, tiny_run: TinyRun) -> None:
    names = set(contents(exported.folder))
    assert {variant.precision for variant in exported.kept} == {"fp32", "fp16", "int8", "int8-static"}
    files = {f"onnx/{FILES[variant.precision]}" for variant in exported.kept}
    beside = {"README.md"} if (tiny_run[0] / "student" / "README.md").is_file() else set()
    assert names == CONFIG_AND_TOKENIZER | files | {"predict.py", "benchmark.json", "benchmark.png"} | beside
    assert not list(exported.folder.parent.glob(".*"))


def test_transformers_reads_configuration_and_tokenizer_of_the_folder(exported: Export) -> None:
    config = AutoConfig.from_pretrained(exported.folder)
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.architectures == ["BertForSequenceClassification"]
    tokenizer = AutoTokenizer.from_pretrained(exported.folder)
    assert tokenizer("great")["input_ids"][0] == tokenizer.cls_token_id


@pytest.mark.parametrize("asked", [TEXTS[:1], TEXTS, TEXTS[2:]], ids=["one", "all", "long"])
def test_files_answer_as_the_student_does(asked: list[str], exported: Export, tiny_run: TinyRun) -> None:
    expected = asked_of_torch(tiny_run[0] / "student", asked).numpy()
    assert np.abs(asked_of_file(exported.folder, "fp32", asked) - expected).max() < 1e-4
    for precision in ("fp16", "int8", "int8-static"):
        assert np.isfinite(asked_of_file(exported.folder, precision, asked)).all()
    assert np.abs(asked_of_file(exported.folder, "fp16", asked) - expected).max() < 0.05


def test_files_say_where_they_are_from(exported: Export, tiny_run: TinyRun) -> None:
    for variant in exported.kept:
        graph = onnx.load(str(exported.folder / "onnx" / FILES[variant.precision]))
        about = {entry.key: entry.value for entry in graph.metadata_props}
        assert about["labels"] == "negative,positive"
        assert about["recipe"] == "kdcli"
        assert about["precision"] == variant.precision
        assert len(about["weights_sha256"]) == len(about["tokenizer_sha256"]) == 64
        assert str(tiny_run[0]) not in str(about)


def test_benchmark_file_tells_all_variants_and_what_was_found(exported: Export) -> None:
    found = json.loads((exported.folder / "benchmark.json").read_text(encoding="utf-8"))
    assert found == json.loads(json.dumps(exported.as_data()))
    assert found["format"] == 2
    assert found["weights_bytes"] > 0
    assert found["reduce_range"] is True
    assert [row["precision"] for row in found["variants"]] == list(FILES)
    for row in found["variants"]:
        path = exported.folder / row["file"]
        assert row["kept"] == (row["broken"] is None) == path.is_file()
        if row["kept"]:
            assert row["bytes"] == path.stat().st_size
            assert row["check"]["split"]["rows"] == 60
            assert row["check"]["split"]["metric"] == "accuracy"
            low, high = row["check"]["split"]["interval"]
            assert low <= row["check"]["split"]["score"] <= high
            assert {shape["batch"] for shape in row["check"]["shapes"]} == {1, 8, 32}
    assert {row["nodes"].get("Attention") for row in found["variants"] if row["precision"] in ("fp32", "int8")} == {1}


def test_every_teacher_the_student_and_the_files_are_timed_alike(exported: Export) -> None:
    rows = exported.latencies
    files = {("student", f"onnx {variant.precision}") for variant in exported.kept}
    assert {(row.model, row.engine) for row in rows} == {("bert", "torch"), ("roberta", "torch"), ("student", "torch"), *files}
    assert all(0 < row.p50_ms <= row.p90_ms <= row.p99_ms for row in rows)
    for shape in {(row.batch, row.length) for row in rows}:
        assert len({row.runs for row in rows if (row.batch, row.length) == shape}) == 1
    assert exported.machine["threads"] == torch.get_num_threads()
    assert set(exported.memory) <= {variant.precision for variant in exported.kept}


def test_precision_that_cannot_run_here_is_told_only_because_it_was_named(exported: Export) -> None:
    bf16 = next(variant for variant in exported.variants if variant.precision == "bf16")
    assert exported.broken == [f"bf16: {bf16.broken}"]


def test_checkpoint_without_data_is_held_against_itself_and_has_no_score(quick: Quick, checkpoint: Path) -> None:
    done = quick()
    assert [variant.precision for variant in done.kept] == ["fp32", "int8"]
    assert done.latencies == []
    assert not (done.folder / "benchmark.png").exists()
    for variant in done.kept:
        assert variant.check is not None
        assert variant.check.split.metric is None
        assert variant.check.split.score is None
        assert variant.check.split.rows == 64
        assert variant.check.split.drop == pytest.approx(100 * (1 - variant.check.split.agreement))
    expected = asked_of_torch(checkpoint, TEXTS).numpy()
    np.testing.assert_allclose(asked_of_file(done.folder, "fp32", TEXTS), expected, atol=1e-4)


def test_checkpoint_with_data_is_scored_whatever_the_order_of_its_classes(
    quick: Quick, checkpoint: Path, tiny_data: Path
) -> None:
    done = quick(data=DataRequest(data=str(tiny_data)))
    rows = [json.loads(line) for line in (tiny_data / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = asked_of_torch(checkpoint, [row["text"] for row in rows]).argmax(-1).tolist()
    right = np.mean([LABELS[answer] == row["label"] for answer, row in zip(answers, rows, strict=True)])
    assert right > 0.7
    check = done.kept[0].check
    assert check is not None
    assert check.split.score == pytest.approx(right)
    assert check.split.metric == "accuracy"
    assert check.split.rows == len(rows)
    assert AutoConfig.from_pretrained(done.folder).id2label == dict(enumerate(LABELS))


def test_data_with_other_classes_is_refused(quick: Quick, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("text,label\n" + "a film,good\na plot,bad\n" * 20)
    with pytest.raises(RequestError, match="are not the classes of the task"):
        quick(data=DataRequest(data=str(tmp_path / "data.csv")))
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def spoil(monkeypatch: pytest.MonkeyPatch, drawer: Drawer, *precisions: str) -> None:
    """Files of these precisions answer another class."""

    def write(model: Any, example: Any, path: Path, about: dict[str, str], settings: Any) -> dict[str, int]:
        counts = drawer.write_graph(model, example, path, about, settings)
        if about["precision"] in precisions:
            graph = onnx.load(str(path))
            for one in graph.graph.initializer:
                if one.name.endswith("classifier.bias"):
                    values = onnx.numpy_helper.to_array(one) + np.array([50.0, 0.0], dtype=np.float32)
                    one.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), one.name))
            onnx.save(graph, str(path))
        return counts

    monkeypatch.setattr(variants_module, "write_graph", write)


def test_file_that_differs_from_the_model_stops_the_job(
    quick: Quick, drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, drawer, "fp32")
    with pytest.raises(GateError, match="largest logit difference"):
        quick()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("named", [True, False])
def test_other_files_that_do_not_hold_are_deleted_and_told_if_they_were_named(
    named: bool, quick: Quick, drawer: Drawer, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, drawer, "int8")
    data = DataRequest(data=str(tiny_data))
    done = quick(precisions=("fp32", "int8") if named else None, max_drop=1.0, data=data)
    assert [variant.precision for variant in done.kept] == ["fp32"]
    assert [variant.broken is None for variant in done.variants] == [True, False]
    broken = done.variants[1].broken
    assert broken is not None
    assert "points of accuracy on 60 texts, where --max-drop allows 1" in broken
    assert done.broken == ([f"int8: {broken}"] if named else [])
    assert sorted(path.name for path in (done.folder / "onnx").iterdir()) == ["model.onnx"]
    assert json.loads((done.folder / "benchmark.json").read_text())["gates"] == done.broken


@pytest.mark.parametrize("writer", ["quantise_embeddings", "write_predict", "write_json"])
def test_folder_stays_whole_when_the_disk_is_full(
    writer: str, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(quick().folder)

    def full(*given: Any) -> None:
        if isinstance(given[0], Path) and given[0].is_file():
            given[0].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(variants_module if writer.startswith("quantise") else export_job, writer, full)
    with pytest.raises(OSError, match="No space left"):
        quick()
    assert contents(tmp_path / "export") == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_folder_stays_as_it_was_when_no_file_holds(quick: Quick, tmp_path: Path) -> None:
    before = contents(quick().folder)
    with pytest.raises(GateError, match="bf16"):
        quick(precisions=("bf16",))
    assert contents(tmp_path / "export") == before


def test_older_files_go_when_the_folder_is_written_anew(quick: Quick) -> None:
    first = quick(precisions=("fp32", "fp16"))
    assert (first.folder / "onnx" / FILES["fp16"]).is_file()
    second = quick(precisions=("fp32",))
    assert sorted(path.name for path in (second.folder / "onnx").iterdir()) == ["model.onnx"]


def test_folder_that_cannot_be_written_is_told(quick: Quick, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="file"):
        quick(out=tmp_path / "file" / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_place_that_holds_something_else_is_refused_and_stays(quick: Quick, checkpoint: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("a year's work")
    for place in (mine, mine / "notes.txt", checkpoint):
        before = contents(tmp_path) | contents(checkpoint)
        with pytest.raises(RequestError, match="--out"):
            quick(out=place)
        assert contents(tmp_path) | contents(checkpoint) == before


def test_latency_of_longer_texts_than_the_model_takes_is_refused(quick: Quick) -> None:
    with pytest.raises(RequestError, match="longer texts than the model takes"):
        quick(max_latency=LatencyLimit.parse("5ms@b1s100000"))


@pytest.mark.parametrize("kept", [0, 7, 1000])
def test_truncated_weights_are_refused(kept: int, quick: Quick, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(RequestError) as caught:
        quick(target=tmp_path / "broken")
    assert str(tmp_path / "broken") in str(caught.value)
    assert not (tmp_path / "export").exists()


def test_checkpoint_without_a_head_is_refused(quick: Quick, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no classification head"):
        quick(target=tiny_bert)
    assert not list(tmp_path.iterdir())


def test_folder_that_does_not_exist_is_refused(quick: Quick, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such run or checkpoint"):
        quick(target=tmp_path / "nowhere")


def test_provider_that_is_not_installed_is_told_with_its_package(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RequestError, match="onnxruntime-gpu") as caught:
        quick(device="cuda")
    assert "CUDAExecutionProvider" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_one_file_is_judged_on_as_a_whole_whatever_its_size_and_classes(quick: Quick, tiny_data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (tiny_data / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    one_class = [row for row in rows if row["label"] == "positive"][:7]
    file = tmp_path / "seven.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in one_class), encoding="utf-8")
    done = quick(data=DataRequest(data=str(file)), precisions=("fp32",))
    check = done.kept[0].check
    assert check is not None
    assert check.single is not None
    assert (check.split.rows, check.single.rows, done.judged.rows) == (7, 7, 7)
    assert str(done.judged) == "7 texts (all rows of seven.jsonl)"
    assert done.as_data()["judged"]["rows"] == 7


def test_model_at_chance_is_said_to_be(
    checkpoint: Path, drawer: Drawer, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants_module, "write_graph", drawer.write_graph)
    lines = (tiny_data / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: str(row["label"]))
    file = tmp_path / "coins.jsonl"
    file.write_text("".join(json.dumps({**row, "label": LABELS[place % 2]}) + "\n" for place, row in enumerate(rows)))
    told: list[Event] = []
    request = ExportRequest(
        target=checkpoint, out=tmp_path / "export", benchmark="off", precisions=("fp32",), data=DataRequest(data=str(file))
    )
    done = export(request, Events([told.append]))
    assert done.judged.at_chance
    assert any("the model itself cannot be told from chance" in str(event) for event in told)


def test_model_whose_own_outputs_are_not_finite_is_refused(
    checkpoint: Path, tmp_path: Path, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(*given: Any) -> Any:
        found = file_logits(*given)
        found[3] = np.nan
        return found

    monkeypatch.setattr(export_job, "file_logits", spoiled)
    with pytest.raises(RequestError, match="for 1 of 64 samples"):
        quick()
    assert not list(tmp_path.iterdir())


def test_data_of_a_run_is_refused_with_the_command_for_its_student(quick: Quick, tiny_run: TinyRun, tiny_data: Path) -> None:
    with pytest.raises(RequestError, match="run's own dev split") as caught:
        quick(target=tiny_run[0], data=DataRequest(data=str(tiny_data / "dev.jsonl")))
    assert f"kdcli export {tiny_run[0] / 'student'} --data FILE" in str(caught.value)
