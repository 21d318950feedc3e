"""Each precision becomes a file that holds, or no file and a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from kdcli.errors import RequestError
from kdcli.export import variants as variants_module
from kdcli.export.file_names import FILES, precision_of
from kdcli.export.gate import Examiner, Texts
from kdcli.export.quantisation import products
from kdcli.export.variants import DEFAULT, Asked, Variant, Workshop, parse_precisions
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from tests.export.classifiers import Drawer, classifier, said, tokens, told, with_an_outlier

ASKED = Asked(reduce_range=True, calibration="minmax")
COUNT = 48
Make = Callable[..., tuple[Workshop, list[str]]]


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Drawer:
    return Drawer(tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def workshop(tmp_path: Path, drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a workshop whose texts have the labels that the model gives them."""

    def made(spoiled: bool = False, **changes: Any) -> tuple[Workshop, list[str]]:
        monkeypatch.setattr(variants_module, "write_graph", drawer.write_graph)
        model = classifier("bert")
        if spoiled:
            model = with_an_outlier(model)
        lengths = [3 + 7 * row % 13 for row in range(COUNT)]
        given = {name: tensor.numpy() for name, tensor in tokens(model, lengths).items()}
        rows = [{name: given[name][row, :length].tolist() for name in given} for row, length in enumerate(lengths)]
        texts = Texts(rows, dict.fromkeys(given, 0))
        model.classifier.bias.data -= torch.from_numpy(said(model, tokens(model, lengths)).mean(0))  # all classes occur
        reference = said(model, tokens(model, lengths))
        labels = reference.argmax(-1)
        examiner = Examiner(
            texts,
            reference,
            range(3),
            "accuracy",
            lambda classes, some: METRICS["accuracy"].score(classes, labels[some]),
            lambda *_: (0.0, 1.0),
        )
        feeds = [{name: value.numpy() for name, value in tokens(model, [9, 7, 9], seed=seed).items()} for seed in (1, 2, 3, 4)]
        notes: list[str] = []
        asked = replace(ASKED, **changes)
        return Workshop(model, tokens(model, [9, 6, 3]), feeds, {}, examiner, asked, tmp_path, notes.append), notes

    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fp32", ("fp32",)),
        ("int8,fp32", ("fp32", "int8")),
        (" int8-static , bf16,fp32,fp16,int8,fp32,", tuple(FILES)),
        ("fp16,fp16", ("fp16",)),
    ],
)
def test_precisions_are_read_once_each_in_their_own_order(text: str, expected: tuple[str, ...]) -> None:
    assert parse_precisions(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", "did you mean 'int8'?"),
        ("fp32,int8_static", "did you mean 'int8-static'?"),
        ("", "is empty"),
        (" , ", "is empty"),
        ("fp32,q4", "there is no precision q4"),
    ],
)
def test_unknown_precision_is_told_with_those_that_there_are(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_precisions(text)
    assert message in str(caught.value)
    assert "--precision" in str(caught.value)
    assert all(name in str(caught.value) for name in FILES)


def test_every_unknown_precision_is_told_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        parse_precisions("a,int8,b")
    assert len(caught.value.problems) == 2


def test_default_precisions_exist() -> None:
    assert set(DEFAULT) <= set(FILES)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-static"])
def test_variant_holds_and_is_the_only_file(precision: str, workshop: Make, tmp_path: Path) -> None:
    made = workshop(max_drop=10.0)[0].make(precision)
    assert made.broken is None
    assert made.excluded == ()
    assert names(tmp_path) == [FILES[precision]]
    assert made.bytes == (tmp_path / FILES[precision]).stat().st_size
    assert made.check is not None
    assert made.check.split.rows == COUNT
    assert len(made.check.shapes) == 9
    if precision == "fp32":
        assert made.check.split.max_difference < 1e-4


def test_int8_file_is_smaller_and_embeddings_in_int8_make_it_smaller_yet(
    workshop: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdcli.export.quantisation._TABLE_ROWS", 30)
    sizes = [
        workshop(embeddings=embeddings, max_drop=100.0)[0].make(precision).bytes
        for precision, embeddings in (("fp32", False), ("int8", False), ("int8", True))
    ]
    assert sizes == sorted(sizes, reverse=True)
    kinds = {one.data_type for one in onnx.load(str(tmp_path / FILES["int8"])).graph.initializer if one.name.endswith("_int8")}
    assert kinds == {onnx.TensorProto.INT8}


def test_bf16_is_not_kept_where_nothing_can_run_it(workshop: Make, tmp_path: Path) -> None:
    made = workshop()[0].make("bf16")
    assert made.broken is not None
    assert made.broken.startswith("ONNX Runtime cannot run bf16 on cpu here")
    assert "\n" not in made.broken
    assert made.check is None
    assert made.bytes > 0
    assert names(tmp_path) == []


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_product_that_costs_the_score_stays_in_fp32(precision: str, workshop: Make, tmp_path: Path) -> None:
    shop, notes = workshop(spoiled=True, max_drop=7.0)
    made = shop.make(precision)
    assert made.broken is None, made.broken
    assert 1 <= len(made.excluded) <= 4
    path = tmp_path / FILES[precision]
    left = [numpy_helper.to_array(one) for one in onnx.load(str(path)).graph.initializer if tuple(one.dims) == (32, 48)]
    assert [matrix.dtype for matrix in left if np.abs(matrix).max() > 200] == [np.float32]  # the one with the outlier
    assert made.excluded[0] in [node.name for node in onnx.load(str(path)).graph.node if node.op_type == "MatMul"]
    assert names(tmp_path) == [FILES[precision]]
    assert len(notes) == 1
    assert "looking for products" in notes[0]


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_variant_that_cannot_be_mended_is_deleted_with_all_that_was_made_for_it(
    precision: str, workshop: Make, tmp_path: Path
) -> None:
    shop, notes = workshop(max_drop=0.0)
    asked: list[int] = []

    def never(classes: Any, _: Any) -> float:
        asked.append(1)
        return 0.5 if len(asked) % 2 else 1.0  # the file, then the model

    shop.examiner = replace(shop.examiner, score=never)
    made = shop.make(precision)
    assert made.broken == f"it loses 50.00 points of accuracy on {COUNT} texts, where --max-drop allows 0"
    assert made.excluded == ()
    assert names(tmp_path) == []
    assert len(notes) == 1


def test_half_of_the_products_are_left_out_at_the_most(workshop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, _ = workshop(max_drop=0.0)
    tried: list[int] = []
    honest = Workshop._finished

    def broken(self: Workshop, precision: str, path: Path, nodes: Any, excluded: Any = ()) -> Variant:
        tried.append(len(excluded))
        return replace(honest(self, precision, path, nodes, excluded), broken="it is not good enough")

    monkeypatch.setattr(Workshop, "_finished", broken)
    made = shop.make("int8")
    assert made.broken == "it is not good enough"
    assert tried == [0, 1, 2, 4, 6]  # of 12


def test_helper_file_goes_when_quantising_fails(workshop: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(variants_module, "quantise_dynamic", fail)
    with pytest.raises(OSError, match="No space left"):
        workshop()[0].make("int8")
    assert names(tmp_path) == []


def test_making_variants_leaves_the_model_as_it_was(workshop: Make) -> None:
    shop, _ = workshop(max_drop=100.0)
    before = {name: value.clone() for name, value in shop.model.state_dict().items()}
    for precision in ("fp16", "bf16", "int8"):
        shop.make(precision)
    assert all(torch.equal(before[name], value) for name, value in shop.model.state_dict().items())
    assert shop.model.dtype == torch.float32


def test_products_of_the_packed_graph_are_those_that_may_be_left_out(workshop: Make, tmp_path: Path) -> None:
    shop, _ = workshop(max_drop=100.0)
    shop.make("fp32")
    found = products(tmp_path / FILES["fp32"])
    assert len(found) == 12
    given = tokens(shop.model, [5, 9])
    np.testing.assert_allclose(told(tmp_path / FILES["fp32"], given)[0], said(shop.model, given), atol=1e-4)


def test_a_file_is_called_by_its_precision_and_one_of_others_by_what_is_left_of_its_name() -> None:
    assert all(precision_of(Path("onnx") / name) == precision for precision, name in FILES.items())
    assert [precision_of(Path(name)) for name in ("model_quantized.onnx", "mine.onnx")] == ["quantized", "mine"]
