"""``--profile`` and ``--cache-size`` as a user meets them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kdcli.cli import options
from kdcli.cli.app import app
from kdcli.cli.profile_view import Spent, profile_view
from kdcli.cli.rendering import show
from kdcli.engine.events import Note, PhaseDone
from kdcli.engine.profile import SECTIONS
from kdcli.errors import RequestError

DONE = PhaseDone("distill", 0.9, {"data": 1.0, "student": 5.0, "backward": 10.0, "dev": 3.0, "checkpoint": 1.0}, 320)


def text_of(width: int, done: PhaseDone = DONE) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, *profile_view(done, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_profile_has_seconds_shares_and_the_rate_without_dev_and_checkpoint() -> None:
    text = text_of(120)
    assert "distill: 20.0 s, 320 samples, 20 samples/s without dev and checkpoint" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("backward")]
    assert row[1:4] == ["10.00", "50.0%", "31.25"]
    assert SECTIONS["backward"] in text
    assert "teachers" not in text


@pytest.mark.parametrize("width", [40, 60])
def test_profile_fits_a_narrow_terminal(width: int) -> None:
    lines = text_of(width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.split() == ["backward", "10.00", "50.0%", "31.25"] for line in lines)


def test_profile_of_a_training_that_had_nothing_left_to_do() -> None:
    assert "distill: 0.0 s, 0 samples" in text_of(80, PhaseDone("distill", 0.9))


def test_every_training_is_remembered() -> None:
    spent = Spent()
    for event in (Note("something else"), DONE, DONE):
        spent(event)
    assert spent.phases == [DONE, DONE]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("12", 12), ("20GB", 20 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("2k", 2000), ("1T", 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert options.byte_size(text, "--cache-size") == size


@pytest.mark.parametrize("text", ["much", "-1GB", "3iB", "1,5GB", "GB", "1e9"])
def test_what_is_no_size_is_refused_before_anything_is_read(text: str) -> None:
    with pytest.raises(RequestError, match="is not a size"):
        options.byte_size(text, "--cache-size")
    done = CliRunner().invoke(app, ["distill", "--teachers", "bert", "--student", "4L", f"--cache-size={text}"])
    assert done.exit_code == 2
    assert "is not a size" in done.stderr
