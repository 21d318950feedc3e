"""Values that nobody means, for every option of every command: one message and exit code 2, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner, Result

from kdcli.cli.app import app

COMMANDS = ("distill", "cofinetune", "evaluate", "export")
WORDS = ["nan", "inf", "-inf", "1e3e3", "", "one"]
NUMBERS = ["-1", "0", "1e300", "1e-300", "2.5", "1" + "0" * 30, "9" * 3000, "9" * 5000]
UNUSABLE = ["", " ", "a\nb", "a\tb", "a\x1b[31mb", "a\x7fb", "\udcff", "x" * 5000]
UNUSUAL = ["a/" + "x" * 300, "/", "~", "\u202e"]


def options(command: str, *kinds: type) -> list[str]:
    """The options whose values are of these types, or None."""
    root: Any = typer.main.get_command(app)
    hints = get_type_hints(getattr(import_module(f"kdcli.cli.{command}"), command))
    found = [one for one in root.commands[command].params if one.opts[0].startswith("--") and one.name in hints]
    return [one.opts[0] for one in found if {hints[one.name], *get_args(hints[one.name])} & set(kinds)]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def base(command: str, bert: Path, data: Path) -> list[str | Path]:
    """What makes a command quick and right, so that the value under test is all that can be wrong."""
    found: dict[str, list[str | Path]] = {
        "distill": ["distill", "--teachers", f"bert={bert}", "--student", "2L", "--data", data, "--dry-run", "-q"],
        "cofinetune": ["cofinetune", "--teachers", f"bert={bert}", "--data", data, "--dry-run", "-q"],
        "evaluate": ["evaluate", "no-such-model", "--data", data / "dev.jsonl", "-q"],
        "export": ["export", "no-such-model", "-q"],
    }
    return found[command]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder to work in, which has to be empty in the end."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def assert_told(done: Result, *, refused: bool) -> None:
    assert done.exit_code == 2 or (done.exit_code == 0 and not refused), done.output
    for word in ("Traceback", "foresaw", "\x1b[31m"):
        assert word not in done.output
    assert len(done.output) < 20_000


NUMERIC = [(command, option) for command in COMMANDS for option in options(command, int, float)]
TEXTUAL = [(command, option) for command in COMMANDS for option in options(command, str, Path, list[str])]


def test_every_command_has_options_of_both_kinds() -> None:
    assert {command for command, _ in TEXTUAL} == set(COMMANDS)
    assert {option for _, option in NUMERIC} >= {"--seed", "--batch-size", "--learning-rate", "--max-length", "--max-drop"}


@pytest.mark.parametrize(("command", "option"), NUMERIC)
def test_extreme_numbers(command: str, option: str, tiny_bert: Path, tiny_data: Path) -> None:
    for value in WORDS:
        assert_told(run(*base(command, tiny_bert, tiny_data), option, value), refused=True)
    for value in NUMBERS:
        assert_told(run(*base(command, tiny_bert, tiny_data), option, value), refused=False)


@pytest.mark.parametrize(("command", "option"), TEXTUAL)
def test_extreme_texts(command: str, option: str, tiny_bert: Path, tiny_data: Path) -> None:
    for value in UNUSABLE:
        may_be_empty = not value.strip() and option == "--text-pair-column"
        assert_told(run(*base(command, tiny_bert, tiny_data), option, value), refused=not may_be_empty)
    for value in UNUSUAL:
        assert_told(run(*base(command, tiny_bert, tiny_data), option, value), refused=False)


@pytest.mark.parametrize("option", ["--min-score", "--min-retention", "--max-drop", "--max-ece", "--cache-size"])
def test_extreme_limits(option: str, tiny_bert: Path, tiny_data: Path) -> None:
    for value in ["nan", "inf", "-inf", "1e999", "", "0.5:", ":bound", "0.5:bound:bound", "%", "9" * 500 + "TB"]:
        assert_told(run(*base("distill", tiny_bert, tiny_data), option, value), refused=True)


@pytest.mark.parametrize("value", ["", "ms@b1s64", "0ms@b1s64", "5ms@b0s64", "5ms@b1s", "nanms@b1s1", "5ms@b1s" + "9" * 4999])
def test_extreme_latencies(value: str) -> None:
    assert_told(run(*base("export", Path(), Path()), "--max-latency", value), refused=True)


@pytest.mark.parametrize(
    "value", ["0L", "-1L", "1000000L", "4L-0H", "4L-1000000000H", "4L-32H-0A", "4L-32H-1000000000A", "9" * 100 + "L"]
)
def test_extreme_students(value: str, tiny_bert: Path, tiny_data: Path) -> None:
    assert_told(run(*base("distill", tiny_bert, tiny_data), "--student", value), refused=True)


def test_a_seed_as_large_as_a_date_is_fine(tiny_bert: Path, tiny_data: Path) -> None:
    assert run(*base("distill", tiny_bert, tiny_data), "--seed", "20261231").exit_code == 0
