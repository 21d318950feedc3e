"""Memory of models whose weights have a known size."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdcli.errors import RunFailedError
from kdcli.export import memory, memory_process
from kdcli.export.memory import Memory, session_memory, torch_memory

MIB = 2**20
WIDTH = 2048
IDS = {"input_ids": np.ones((4, 16), dtype=np.int64)}
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="bounds hold where Linux tells")


def write_product(path: Path, width: int = WIDTH) -> Path:
    """A graph with one matrix of ``4 * width**2`` bytes and a wide answer."""
    generator = np.random.default_rng(0)
    table, matrix = (
        numpy_helper.from_array(generator.standard_normal((rows, width)).astype(np.float32), name)
        for rows, name in ((8, "table"), (width, "matrix"))
    )
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["rows"]), helper.make_node("MatMul", ["rows", "matrix"], ["out"])],
        "product",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", "length", width])],
        [table, matrix],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def test_session_takes_its_weights_and_at_the_peak_its_activations(tmp_path: Path) -> None:
    path = write_product(tmp_path / "model.onnx")
    few = session_memory(path, IDS | {"of another model": np.ones(1)}, threads=1)
    many = session_memory(path, {"input_ids": np.ones((32, 128), dtype=np.int64)}, threads=1)
    assert few is not None
    assert many is not None
    weights, activations = 4 * WIDTH**2, 2 * 4 * 32 * 128 * WIDTH
    assert weights <= few.loaded_bytes <= 2.5 * weights + 16 * MIB
    assert few.loaded_bytes <= few.peak_bytes
    assert activations / 2 <= many.peak_bytes - many.loaded_bytes <= 3 * activations


def test_checkpoint_takes_its_weights(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=12_000, hidden_size=512, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512,
        architectures=["BertForSequenceClassification"],
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    found = torch_memory(tmp_path, IDS | {"attention_mask": np.ones_like(IDS["input_ids"])}, threads=1)
    assert found is not None
    assert 0.9 * weights <= found.loaded_bytes <= 2 * weights + 16 * MIB
    assert found.loaded_bytes <= found.peak_bytes <= 4 * weights + 64 * MIB


def test_checkpoint_without_a_head_is_measured_too(tiny_bert: Path) -> None:
    found = torch_memory(tiny_bert, IDS, threads=1)
    assert found is not None
    assert 0 < found.peak_bytes < 200 * MIB


def test_process_for_onnx_imports_no_torch(tmp_path: Path) -> None:
    path = write_product(tmp_path / "model.onnx", width=8)
    code = (
        "import sys, pathlib, numpy; from kdcli.export import memory_process; "
        "memory_process.of_onnx(pathlib.Path(sys.argv[1]), {'input_ids': numpy.ones((1, 2), dtype='int64')}, 1); "
        "sys.exit(' '.join({'torch', 'transformers', 'scipy', 'onnx'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_file_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(write_product(tmp_path / "whole.onnx", width=64).read_bytes()[:3000])
    with pytest.raises(RunFailedError, match=r"model\.onnx could not be measured: .*INVALID_PROTOBUF"):
        session_memory(path, IDS, threads=1)


def test_missing_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"missing could not be measured: .*missing: is not a checkpoint"):
        torch_memory(tmp_path / "missing", IDS, threads=1)


def test_process_that_is_killed_says_that_memory_may_have_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nkill -{int(signal.SIGKILL)} $$\n", encoding="ascii")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(RunFailedError, match=r"ended by SIGKILL .*memory runs out"):
        session_memory(tmp_path / "model.onnx", IDS, threads=1)


def test_system_that_does_not_tell_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_process, "_STATUS", tmp_path / "missing")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert session_memory(tmp_path / "model.onnx", IDS, threads=1) is None
    assert memory.Memory(1, 2) == Memory(loaded_bytes=1, peak_bytes=2)


def test_other_systems_tell_the_most_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_process, "_STATUS", tmp_path / "missing")
    monkeypatch.setattr(memory_process, "_FORGET", tmp_path / "missing")
    assert memory_process.readable()
    calls: list[int] = []
    assert memory_process.peak_of(lambda: calls.append(1)) >= memory_process.resident() - MIB
    assert len(calls) == 3
