"""The picture of the latencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcli.export.latency import Latency
from kdcli.export.plot import draw

MACHINE = {"processor": "Some Processor", "threads": 2, "torch": "2.13.0", "onnxruntime": "1.31.1"}


def latency(model: str, engine: str, p50: float, batch: int = 1, length: int = 16) -> Latency:
    interval = (p50 * 0.97, p50 * 1.04)
    return Latency(model, engine, batch, length, p50, p50 * 1.1, p50 * 1.3, interval, batch * 1e3 / p50, None, 50)


def pixels(path: Path) -> Any:
    """Height, width and colours of a PNG."""
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return imread(path)[..., :3]


def blue_pixels(image: Any) -> int:
    """How many have the colour of the first model."""
    return int(np.sum(np.all(np.abs(image - np.array([0, 0x72, 0xB2]) / 255) < 0.02, axis=-1)))


def test_picture_has_its_size_and_is_not_blank(tmp_path: Path) -> None:
    draw([latency("bert", "torch", 9.0), latency("student", "onnxruntime int8", 0.5)], MACHINE, tmp_path / "one.png")
    image = pixels(tmp_path / "one.png")
    assert image.shape[:2] == pytest.approx(((2 * 0.3 + 0.9 + 1.0) * 120, 1.4 * 5.2 * 120), abs=1)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert 0.5 < np.mean(image == 1.0) < 0.99


def test_bars_are_as_long_as_the_medians_say(tmp_path: Path) -> None:
    draw([latency("bert", "torch", 10.0), latency("student", "torch", 10.0)], MACHINE, tmp_path / "equal.png")
    draw([latency("bert", "torch", 5.0), latency("student", "torch", 10.0)], MACHINE, tmp_path / "half.png")
    whole, half = (blue_pixels(pixels(tmp_path / name)) for name in ("equal.png", "half.png"))
    assert half / whole == pytest.approx(0.5, abs=0.05)


def test_nine_shapes_stand_in_three_rows(tmp_path: Path) -> None:
    rows = [
        latency(model, "torch", time * batch * length / 16, batch, length)
        for model, time in (("bert", 9.0), ("student", 3.0))
        for batch in (1, 8, 32)
        for length in (16, 64, 128)
    ]
    draw(rows, MACHINE, tmp_path / "grid.png")
    image = pixels(tmp_path / "grid.png")
    assert image.shape[:2] == pytest.approx(((3 * (2 * 0.3 + 0.9) + 1.0) * 120, 3 * 5.2 * 120), abs=1)
    height, width = image.shape[0] // 3, image.shape[1] // 3
    for row in range(3):
        for column in range(3):
            assert blue_pixels(image[row * height : (row + 1) * height, column * width : (column + 1) * width]) > 500


def test_panels_without_a_shape_are_left_empty(tmp_path: Path) -> None:
    rows = [latency("bert", "torch", 9.0, batch) for batch in (1, 2, 4, 8)]
    draw(rows, MACHINE, tmp_path / "four.png")
    image = pixels(tmp_path / "four.png")
    lower = image[image.shape[0] // 2 + 20 : -70]
    assert blue_pixels(lower[:, : image.shape[1] // 3]) > 500
    assert np.all(lower[:, image.shape[1] // 3 + 40 :] == 1.0)


@pytest.mark.parametrize("name", [r"$\broken{ $", "a" * 200, "学生模型", "two\nlines", "", "_under"])
def test_any_name_can_be_drawn(name: str, tmp_path: Path) -> None:
    draw([latency(name, "torch", 9.0), latency("student", name, 0.5)], {"processor": name, "threads": 1}, tmp_path / "any.png")
    assert blue_pixels(pixels(tmp_path / "any.png")) > 500


def test_times_of_any_size_can_be_drawn(tmp_path: Path) -> None:
    rows = [latency("tiny", "torch", 0.0004), latency("huge", "torch", 123_456.0), latency("same", "torch", 123_456.0)]
    draw(rows, MACHINE, tmp_path / "sizes.png")
    assert pixels(tmp_path / "sizes.png").size
