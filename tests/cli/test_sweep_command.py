"""``kdcli distill --sweep`` as a user types it: what is refused before anything is trained, what is printed, what is left."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

from kdcli.cli.app import app
from kdcli.errors import InterruptedRunError
from kdcli.recipe.catalogue import SWEEP_SCHEMA, schema_file
from kdcli.sweep.results import SweepResult
from kdcli.sweep.schema_file import schema_text

SWEEP = """\
sampler: grid
seeds: [0, 1]
parameters:
  training.learning_rate: [1e-3, 3e-3]
  stages.0.objective.1.temperature: {from: 1, to: 2, step: 1}
"""


def kdcli(*words: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "100"})


@pytest.fixture
def words(tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | Path]:
    """A command whose sweep is in ``sweep.yaml`` of the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return ["distill", "--teachers", f"bert={tiny_bert}", "--student", "2L", "--data", tiny_data, "--sweep", "sweep.yaml"]


@pytest.fixture(scope="module")
def done(tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A small sweep whose runs are real ones, of a recipe that needs no trained teachers."""
    folder = tmp_path_factory.mktemp("sweeps")
    text = "sampler: grid\nparameters:\n  training.learning_rate: [1e-5, 5e-3]\n"
    (folder / "sweep.yaml").write_text(text)
    teachers: list[str | Path] = [
        "--teachers",
        f"bert={tiny_bert}",
        "--student",
        "2L",
        "--data",
        tiny_data,
        "--recipe",
        "finetune",
    ]
    given = ["--epochs", "8", "--batch-size", "16", "--precision", "fp32", "--device", "cpu", "--json"]
    return folder, kdcli("distill", *teachers, "--sweep", folder / "sweep.yaml", "--out", folder / "out", *given)


WRONG = {
    "unknown key of the file": ("trails: 3\n" + SWEEP, "sweep.yaml:1  trails: unknown key 'trails'", "did you mean 'trials'?"),
    "unknown key of the recipe": (
        SWEEP.replace("training.learning_rate", "training.learnin_rate"), "sweep.yaml:4  training.learnin_rate",
        "did you mean 'learning_rate'?",
    ),
    "key of no stage": (SWEEP.replace("stages.0", "stages.4"), "sweep.yaml:5", "there is no 4 in stages"),
    "value at one end": (
        SWEEP.replace("from: 1", "from: 0"), "sweep.yaml:5  stages.0.objective.1.temperature", "has a wrong value",
    ),
    "one choice of several": (
        SWEEP.replace("[1e-3, 3e-3]", "[1e-3, fast]"), "sweep.yaml:4  training.learning_rate", "found     'fast'",
    ),
    "layer that the teacher has not": (
        SWEEP + "  layers: [uniform, {bert: {1: 9, 2: 4}}, last]\n", "sweep.yaml:6  layers.bert", "layer 9 does not exist",
    ),
    "range the wrong way round": (SWEEP.replace("to: 2", "to: 0"), "sweep.yaml:5", "from must be below to"),
    "range without a step in a grid": (SWEEP.replace(", step: 1", ""), "sweep.yaml:5", "a grid needs a step"),
    "step that misses the end": (SWEEP.replace("step: 1", "step: 3"), "sweep.yaml:5", "to must be reached in whole steps"),
    "logarithm of nothing": (SWEEP.replace("1, to: 2, step: 1", "0, to: 2, log: true"), "sweep.yaml:5", "above 0"),
    "neither range nor list": (SWEEP.replace("[1e-3, 3e-3]", "3e-3"), "sweep.yaml:4", "a range {from: …, to: …} or list"),
    "choice twice": (SWEEP.replace("[1e-3, 3e-3]", "[1, 1.0]"), "sweep.yaml:4", "a choice stands twice"),
    "no choice": (SWEEP.replace("[1e-3, 3e-3]", "[]"), "sweep.yaml:4", "one entry at least"),
    "seeds twice": (SWEEP.replace("[0, 1]", "[1, 1]"), "sweep.yaml:2  seeds", "seeds must differ"),
    "sampler": (SWEEP.replace("grid", "gird"), "sweep.yaml:1  sampler", "did you mean 'grid'?"),
    "two keys for one value": (SWEEP + "  stages.*.objective.1.temperature: [1]\n", "sweep.yaml:6", "sets what"),
    "size beside --student": (SWEEP + "  student.size: [1L, 2L]\n", "sweep.yaml:6  student.size", "no effect beside --student"),
    "no parameters": ("trials: 3\n", "sweep.yaml", "the key 'parameters' is missing"),
    "a recipe": ("name: mine\nstages: []\n", "sweep.yaml", "is not a sweep"),
    "storage": ("storage: 'nosuch://user:secret@host/db'\n" + SWEEP, "sweep.yaml:1  storage", "the storage cannot be opened"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_is_refused_with_its_line_and_leaves_nothing(name: str, words: list[str | Path], tmp_path: Path) -> None:
    text, *said = WRONG[name]
    (tmp_path / "sweep.yaml").write_text(text)
    refused = kdcli(*words, "--out", "out")
    assert refused.exit_code == 2, refused.output
    for one in said:
        assert one in refused.stderr
    assert "Traceback" not in refused.output
    assert "secret" not in refused.output
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_storage_that_cannot_be_opened_leaves_a_folder_that_was_there(words: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(WRONG["storage"][0])
    (tmp_path / "out").mkdir()
    assert kdcli(*words, "--out", "out").exit_code == 2
    assert list((tmp_path / "out").iterdir()) == []
    assert kdcli(*words, "--out", "deep/er/out").exit_code == 2
    assert not (tmp_path / "deep").exists()


def test_all_mistakes_are_said_at_once(words: list[str | Path], tmp_path: Path) -> None:
    text = SWEEP.replace("from: 1", "from: 0").replace("training.learning_rate", "training.learnin_rate")
    (tmp_path / "sweep.yaml").write_text(text + "  stages.7.epochs: [1]\n")
    refused = kdcli(*words)
    assert refused.stderr.count("error  ") == 3
    assert all(f"sweep.yaml:{line}" in refused.stderr for line in (4, 5, 6))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sweep", "nowhere.yaml"], "there is no such file"),
        (["--min-score", "0.5"], "does not go with --sweep"),
        (["--profile"], "does not go with --sweep"),
        (["--resume"], "--resume --out DIR --sweep FILE"),
        (["--resume", "--out", "nowhere"], "there is no sweep here"),
    ],
)
def test_flags_that_do_not_go_with_a_sweep(flags: list[str], said: str, words: list[str | Path]) -> None:
    refused = kdcli(*words, *flags)
    assert refused.exit_code == 2, refused.output
    assert said in refused.stderr


def test_without_optuna_the_command_that_installs_it_is_named(words: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    for more in ([], ["--dry-run"]):
        refused = kdcli(*words, *more)
        assert refused.exit_code == 2
        assert "needs Optuna" in refused.stderr
        assert "pip install 'kdcli[sweep]'" in refused.stderr


def test_dry_run_shows_parameters_runs_and_the_first_plan_and_writes_nothing(words: list[str | Path], tmp_path: Path) -> None:
    shown = kdcli(*words, "--dry-run")
    assert shown.exit_code == 0, shown.output
    for part in ("training.learning_rate", "1 to 2, step 1", "sampler grid", "at most 4 trials", "8 runs", "2 ◀───  4"):
        assert part in shown.stdout
    assert "co-finetuned once" in shown.stdout
    document = json.loads(kdcli(*words, "--dry-run", "--json").stdout)
    assert (document["trials"], document["runs"], document["teachers_once"]) == (4, 8, True)
    assert document["plan"]["recipe"]["training"]["learning_rate"] == document["first"]["training.learning_rate"] == 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_json_is_one_document_and_progress_is_on_stderr(done: tuple[Path, Result]) -> None:
    folder, result = done
    assert result.exit_code == 0, result.output
    document = SweepResult.model_validate_json(result.stdout)
    assert json.loads(result.stdout) == json.loads((folder / "out" / "sweep.json").read_text())
    assert [trial.rank for trial in document.trials] == [1, 2]
    assert document.best == 1
    assert "trial 1, seed 0: dev accuracy" in result.stderr
    assert "best trial so far 0 with" in result.stderr
    assert "optuna" not in result.stderr.lower()
    with (folder / "out" / "sweep.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["1", "0"]


def test_best_recipe_and_test_command_can_be_typed(
    done: tuple[Path, Result], tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = done
    monkeypatch.chdir(folder)
    teachers: list[str | Path] = ["--teachers", f"bert={tiny_bert}", "--student", "2L", "--data", tiny_data]
    plan = kdcli("distill", "--recipe", "out/best.yaml", *teachers, "--dry-run", "--json")
    assert plan.exit_code == 0, plan.output
    assert json.loads(plan.stdout)["recipe"]["training"]["learning_rate"] == 5e-3
    command = json.loads(result.stdout)["test_command"]
    assert command.endswith("trial-0001 --split test")
    scored = kdcli(*command.split()[1:], "--json", "--no-report")
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["split"] == "test"


def test_sweep_that_is_done_shows_its_table_again(done: tuple[Path, Result]) -> None:
    folder, _ = done
    again = kdcli("distill", "--resume", "--out", folder / "out", "--sweep", folder / "sweep.yaml")
    assert again.exit_code == 0, again.output
    rows = [line.split() for line in again.stdout.splitlines()]
    assert rows[1][:3] == ["rank", "trial", "mean"]
    assert [row[:2] for row in rows[2:4]] == [["1", "1"], ["2", "0"]]
    assert "optimistic" in again.stdout
    assert "--split test" in again.stdout


def test_interruption_exits_with_130_and_names_the_command_that_goes_on(
    words: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any) -> None:
        raise InterruptedRunError("stopped at step 3 of 9 (distilling the student); the state is saved, --resume goes on")

    monkeypatch.setattr("kdcli.sweep.job.distill", stopped)
    ended = kdcli(*words, "--out", "out", "--allow-weak-teachers", "--teacher-epochs", "0.1")
    assert ended.exit_code == 130, ended.output
    assert "kdcli distill --sweep sweep.yaml --resume --out out goes on" in ended.stderr


def test_schema_for_editors_is_that_of_the_code_and_takes_what_kdcli_takes() -> None:
    shipped = schema_file(SWEEP_SCHEMA).read_text(encoding="utf-8")
    assert shipped == schema_text()
    assert json.loads(kdcli("recipe", "schema", "--sweep").stdout) == json.loads(shipped)
    check = jsonschema.Draft202012Validator(json.loads(shipped))
    check.validate(yaml.safe_load(SWEEP.replace("1e-3", "0.001").replace("3e-3", "0.003")))
    for name in ("unknown key of the file", "neither range nor list", "sampler", "no parameters"):
        assert not check.is_valid(yaml.safe_load(WRONG[name][0].replace("e-3", ""))), name
