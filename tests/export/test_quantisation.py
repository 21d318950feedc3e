"""8 bits where they are asked for and nowhere else, and answers that stay near."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from onnx import numpy_helper

from kdcli.export.graph import GraphSettings, write_graph
from kdcli.export.machine import has_vnni
from kdcli.export.quantisation import (
    Calibration,
    Feed,
    Settings,
    by_harm,
    products,
    quantise_dynamic,
    quantise_embeddings,
    quantise_static,
    rows_in_8_bits,
)
from tests.export.classifiers import LAYERS, classifier, tokens, told, with_an_outlier

VOCABULARY = 600  # large enough for its table to be worth 8 bits
LENGTHS = [9, 6, 3, 12]
METHODS: tuple[Calibration, ...] = ("minmax", "entropy", "percentile")
NARROW = Settings(reduce_range=True)  # right on any processor


def model() -> Any:
    return classifier("bert", vocab_size=VOCABULARY, initializer_range=0.05)


GIVEN = tokens(model(), LENGTHS, types=True)


def feeds(count: int = 6) -> list[Feed]:
    """Batches for calibration, all of one shape."""
    drawn = [tokens(model(), [12, 12, 8, 5], seed=seed, types=True) for seed in range(1, count + 1)]
    return [{name: tensor.numpy() for name, tensor in one.items()} for one in drawn]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that dynamic quantisation starts from."""
    path = tmp_path_factory.mktemp("packed") / "model.onnx"
    write_graph(model(), GIVEN, path, {"labels": "a,b,c"}, GraphSettings())
    return path


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that static quantisation starts from."""
    path = tmp_path_factory.mktemp("unpacked") / "model.onnx"
    write_graph(model(), GIVEN, path, {"labels": "a,b,c"}, GraphSettings(packed=False))
    return path


def nodes(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def weights(path: Path, least_rank: int = 2) -> dict[str, NDArray[Any]]:
    """Tables and matrices of a file."""
    found = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(path)).graph.initializer}
    return {name: value for name, value in found.items() if value.ndim >= least_rank and value.size > 1}


def nearness(first: Path, second: Path) -> float:
    """Largest difference of two files' logits, in units of how far the logits of texts lie apart."""
    ours, theirs = (told(path, GIVEN)[0] for path in (first, second))
    assert np.isfinite(theirs).all()
    return float(np.abs(ours - theirs).max() / np.ptp(ours, axis=0).max())


tables = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-1e4, 1e4, width=32).filter(lambda number: number == 0 or abs(number) > 1e-6),
)


@given(tables)
@settings(deadline=None)
def test_rows_in_8_bits_are_off_by_half_a_scale_at_the_most(table: NDArray[np.float32]) -> None:
    rows, scales = rows_in_8_bits(table)
    assert rows.dtype == np.int8
    assert scales.dtype == np.float32
    assert (rows.shape, scales.shape) == (table.shape, (len(table), 1))
    assert np.abs(rows.astype(int)).max() <= 127
    assert (np.abs(rows * scales.astype(np.float64) - table) <= 0.5001 * scales).all()
    assert (scales > 0).all()


def test_row_of_zeros_stays_one_and_keeps_others_as_they_are() -> None:
    table = np.array([[0, 0, 0], [127, -127, 1], [0, 1e-30, 0]], dtype=np.float32)
    rows, scales = rows_in_8_bits(table)
    assert rows.tolist() == [[0, 0, 0], [127, -127, 1], [0, 127, 0]]
    assert scales[0] == scales[1] == 1.0


def test_embeddings_in_8_bits_shrink_the_file_and_change_little(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(packed.read_bytes())
    quantise_embeddings(path)
    before, after = weights(packed), weights(path)
    table = next(value for value in before.values() if len(value) == VOCABULARY)
    small = next(value for value in after.values() if len(value) == VOCABULARY and value.dtype == np.int8)
    assert small.shape == table.shape
    saved = packed.stat().st_size - path.stat().st_size
    assert 0.9 * (3 * table.size - 4 * VOCABULARY) < saved + 1000 < 3 * table.size + 1000
    kept = {name for name, value in before.items() if len(value) != VOCABULARY}
    assert all((after[name] == before[name]).all() for name in kept)
    assert len(kept) == len(before) - 1
    assert 0 < nearness(packed, path) < 0.05


def test_table_that_two_lookups_share_is_stored_once(tmp_path: Path) -> None:
    helper, kind = onnx.helper, onnx.TensorProto
    table = np.random.default_rng(0).normal(size=(VOCABULARY, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "first"], ["one"], axis=0),
            helper.make_node("Gather", ["table", "second"], ["two"], axis=0),
            helper.make_node("Add", ["one", "two"], ["sum"]),
        ],
        "lookups",
        [helper.make_tensor_value_info(name, kind.INT64, ["n"]) for name in ("first", "second")],
        [helper.make_tensor_value_info("sum", kind.FLOAT, ["n", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    quantise_embeddings(path)
    assert sorted(weights(path)) == ["table_int8", "table_scale"]
    import torch

    asked = {"first": torch.tensor([0, 599, 7]), "second": torch.tensor([3, 3, 599])}
    found = told(path, asked)[0]
    expected = table[[0, 599, 7]] + table[[3, 3, 599]]
    np.testing.assert_allclose(found, expected, atol=2 * np.abs(table).max() / 127 / 2)


def test_small_tables_and_plain_numbers_stay_as_they_are(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcli.export.quantisation._TABLE_ROWS", VOCABULARY + 1)
    path = tmp_path / "model.onnx"
    path.write_bytes(packed.read_bytes())
    quantise_embeddings(path)
    assert nodes(path) == nodes(packed)
    assert told(path, GIVEN)[0].tolist() == told(packed, GIVEN)[0].tolist()


def test_products_are_those_with_weights_from_the_inputs_to_the_head(packed: Path, unpacked: Path) -> None:
    whole, single = products(packed), products(unpacked)
    assert len(whole) == 1 + 3 + 6 + 2  # a block whose queries, keys and values are one, one in which they are not, the head
    assert len(single) == 6 * LAYERS + 2
    for path, found in ((packed, whole), (unpacked, single)):
        graph = onnx.load(str(path)).graph
        kinds = {node.name: node.op_type for node in graph.node}
        assert [name for name in kinds if name in found] == found[:-2]
        assert {kinds[name] for name in found[:-2]} <= {"MatMul", "Attention"}
        assert [kinds[name.removesuffix("_MatMul")] for name in found[-2:]] == ["Gemm", "Gemm"]


@pytest.mark.parametrize("reduce_range", [True, False])
def test_dynamic_file_is_near_and_its_weights_are_in_range(reduce_range: bool, packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    quantise_dynamic(packed, path, Settings(reduce_range))
    counts = nodes(path)
    assert counts["QAttention"] == 1
    assert counts["MatMulInteger"] == len(products(packed)) - 1
    assert counts["MatMul"] == counts["Attention"] == 0
    assert counts["MultiHeadAttention"] == 1
    if reduce_range or has_vnni():
        assert nearness(packed, path) < 0.1
    small = [value for value in weights(path).values() if value.dtype == np.int8]
    assert len(small) == len(products(packed))
    largest = max(int(np.abs(value.astype(int)).max()) for value in small)
    assert 60 <= largest <= 64 if reduce_range else 120 <= largest <= 128
    assert {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}["labels"] == "a,b,c"


@pytest.mark.parametrize("method", METHODS)
def test_static_file_is_near_for_every_way_to_calibrate(method: Calibration, unpacked: Path, tmp_path: Path) -> None:
    path = tmp_path / "static.onnx"
    quantise_static(unpacked, path, Settings(reduce_range=True), feeds(), method)
    counts = nodes(path)
    assert counts["DequantizeLinear"] > counts["QuantizeLinear"] > 0
    assert counts["MatMul"] == len(products(unpacked)) - counts["Gemm"] == 6 * LAYERS
    small = [value for value in weights(path).values() if value.dtype == np.int8]
    assert len(small) == counts["MatMul"]
    assert max(int(np.abs(value.astype(int)).max()) for value in small) <= 64
    assert nearness(unpacked, path) < 0.35
    assert sorted(file.name for file in tmp_path.iterdir()) == ["static.onnx"]


def test_static_file_quantises_what_every_product_reads(unpacked: Path, tmp_path: Path) -> None:
    """Behind ONNX Runtime's own nodes too, whose results have no type that the quantiser could infer."""
    target = tmp_path / "static.onnx"
    quantise_static(unpacked, target, NARROW, feeds(2), "minmax")
    graph = onnx.load(str(target)).graph
    made_by = {output: node for node in graph.node for output in node.output}
    read = [made_by[node.input[0]] for node in graph.node if node.op_type == "MatMul"]
    assert len(read) == 6 * LAYERS
    assert {node.op_type for node in read} == {"DequantizeLinear"}
    assert {made_by[node.input[0]].op_type for node in read} == {"QuantizeLinear"}


def quantised_products(path: Path, source: Path) -> set[str]:
    """Products of ``source`` whose weight is no longer stored in fp32."""
    left = {name for name, value in weights(path).items() if value.dtype == np.float32}
    held = {node.name: node.input[1] for node in onnx.load(str(source)).graph.node if len(node.input) > 1}
    return {name for name in products(source) if held[name.removesuffix("_MatMul")] not in left}


Write = Callable[[Path, Path, Settings], None]
DYNAMIC: Write = quantise_dynamic


def static(source: Path, target: Path, chosen: Settings) -> None:
    quantise_static(source, target, chosen, feeds(2), "minmax")


@pytest.mark.parametrize(("kind", "write"), [("packed", DYNAMIC), ("unpacked", static)], ids=["dynamic", "static"])
def test_left_out_products_stay_and_chosen_ones_are_the_only_ones(
    kind: str, write: Write, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(kind)
    every = products(source) if write is DYNAMIC else products(source)[:-2]  # without the head
    for chosen in ((every[0],), (every[-1], every[2]), tuple(every)):
        write(source, tmp_path / "without.onnx", Settings(True, exclude=chosen))
        assert quantised_products(tmp_path / "without.onnx", source) == set(every) - set(chosen)
        write(source, tmp_path / "only.onnx", Settings(True, only=chosen))
        assert quantised_products(tmp_path / "only.onnx", source) == set(chosen)
        assert nearness(source, tmp_path / "only.onnx") < 0.35
    write(source, tmp_path / "without.onnx", Settings(True, exclude=tuple(every)))
    assert nearness(source, tmp_path / "without.onnx") < 1e-5


def test_quantiser_keeps_the_terminal_clean(
    packed: Path, unpacked: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    quantise_dynamic(packed, tmp_path / "dynamic.onnx", NARROW)
    for method in METHODS:
        quantise_static(unpacked, tmp_path / "static.onnx", NARROW, feeds(2), method)
    quantise_embeddings(tmp_path / "static.onnx")
    assert capfd.readouterr() == ("", "")


def test_node_that_does_the_most_harm_is_first(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    write_graph(with_an_outlier(model()), GIVEN, source, {}, GraphSettings())
    target = products(source)[2]
    reference = told(source, GIVEN)[0]
    seen: list[Path] = []

    def harm(path: Path) -> float:
        seen.append(path)
        return float(np.abs(told(path, GIVEN)[0] - reference).mean())

    found = by_harm(products(source), lambda node, path: quantise_dynamic(source, path, Settings(True, only=(node,))), harm)
    assert found[0] == target
    assert sorted(found) == sorted(products(source))
    assert not any(path.exists() for path in seen)


def test_file_that_gives_no_numbers_is_the_worst(tmp_path: Path) -> None:
    harms = {"a": 0.1, "b": float("inf"), "c": 0.2}

    def write(node: str, path: Path) -> None:
        path.write_text(node)

    found = by_harm(harms, write, lambda path: harms[path.read_text()])
    assert found == ["b", "c", "a"]
