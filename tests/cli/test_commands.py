"""The commands as a user types them: results on stdout, the rest on stderr, exit codes, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kdcli import __version__
from kdcli.cli.app import app
from tests.conftest import sentences

QUICK = [
    "--epochs",
    "3",
    "--teacher-epochs",
    "3",
    "--batch-size",
    "16",
    "--learning-rate",
    "3e-3",
    "--precision",
    "fp32",
    "--device",
    "cpu",
    "--set",
    "teachers.cofinetune.learning_rate=3e-3",
    "--set",
    "student.init.weights=finetuned",
]


def kdcli(*words: str | Path) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def finished(
    tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """A folder in which ``kdcli distill`` was typed."""
    folder = tmp_path_factory.mktemp("user")
    before = Path.cwd()
    os.chdir(folder)
    try:
        teachers = f"bert={tiny_bert},roberta={tiny_roberta}"
        done = kdcli("distill", "--teachers", teachers, "--student", "2L", "--data", tiny_data, *QUICK)
    finally:
        os.chdir(before)
    return folder, done


def test_distill_prints_the_table_on_stdout_and_progress_on_stderr(finished: tuple[Path, Result]) -> None:
    folder, done = finished
    assert done.exit_code == 0, done.output
    assert "teacher roberta" in done.stdout
    assert "majority class" in done.stdout
    assert "co-finetuning bert and roberta" in done.stderr
    assert "epoch 3: dev accuracy" in done.stderr
    assert "\x1b[" not in done.stderr
    assert (folder / "runs" / "latest" / "student" / "config.json").is_file()


def test_evaluate_and_export_without_further_words_take_the_latest_run(
    finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished[0])
    scored = kdcli("evaluate", "--json")
    assert scored.exit_code == 0, scored.output
    document = json.loads(scored.stdout)
    assert document["split"] == "test"
    assert {model["role"] for model in document["models"]} == {"student", "teacher", "ensemble", "majority"}
    assert (finished[0] / "runs" / "latest" / "report.html").is_file()
    exported = kdcli("export", "--onnx", "--json")
    assert exported.exit_code == 0, exported.output
    assert Path(json.loads(exported.stdout)["folder"]).is_dir()
    assert (finished[0] / "runs" / "latest" / "export" / "onnx" / "model.onnx").is_file()


def test_gates_exit_with_1_and_a_sentence(finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished[0])
    broken = kdcli("evaluate", "--no-report", "--min-score", "1.01", "--min-retention", "200%", "--junit", "gates.xml")
    assert broken.exit_code == 1
    assert "--min-score 1.01" in broken.stderr
    assert "--min-retention 200%" in broken.stderr
    assert 'failures="2"' in (finished[0] / "gates.xml").read_text()
    assert kdcli("evaluate", "--no-report", "--min-score", "0.1:bound").exit_code == 0
    assert kdcli("evaluate", "--min-score", "high").exit_code == 2


def test_the_schema_of_the_document_is_printed() -> None:
    done = kdcli("evaluate", "--json-schema")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["title"] == "Evaluation"


def test_quiet_says_nothing_but_the_result(finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished[0])
    done = kdcli("evaluate", "--quiet", "--no-report")
    assert done.stderr == ""
    assert "student" in done.stdout


def test_cofinetune_then_distill_with_its_folder(
    tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = [word for word in QUICK if not word.startswith("student.")]
    quick = [
        word for place, word in enumerate(quick) if not (word == "--teacher-epochs" or quick[place - 1] == "--teacher-epochs")
    ]
    quick = [word for place, word in enumerate(quick) if place < len(quick) - 1 or word != "--set"]
    teachers = f"bert={tiny_bert},{tiny_roberta}"
    done = kdcli("cofinetune", "--teachers", teachers, "--data", tiny_data, "--out", "teachers", *quick)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "teachers" / "teachers" / "head.json").is_file()
    after = kdcli("distill", "--teachers", "teachers", "--student", "2L", "--data", tiny_data, "--json", *QUICK)
    assert after.exit_code == 0, after.output
    assert {model["name"] for model in json.loads(after.stdout)["models"] if model["role"] == "teacher"} == {"bert", "roberta"}


def test_dry_run_draws_the_plan_and_writes_nothing(
    tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    teachers = f"bert={tiny_bert},roberta={tiny_roberta}"
    done = kdcli("distill", "--teachers", teachers, "--student", "2L", "--data", tiny_data, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "2 ◀───  6" in done.stdout
    assert "no head yet" in done.stdout
    assert "projected: student (bert), student" in " ".join(done.stdout.replace("│", " ").split())
    assert all(len(line) <= 60 for line in done.stdout.splitlines())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["distill", "cofinetune"])
def test_the_plan_says_what_it_derived_and_the_effort_changes_it(
    command: str, tiny_bert: Path, tiny_roberta: Path, tiny_data: Path
) -> None:
    student = ["--student", "2L"] if command == "distill" else []
    teachers = f"bert={tiny_bert},roberta={tiny_roberta}"
    words = [command, "--teachers", teachers, *student, "--data", str(tiny_data), "--dry-run"]
    epochs = []
    for effort in ("quick", "normal", "thorough"):
        plan = json.loads(kdcli(*words, "--json", "--effort", effort).stdout)
        derived = {each["key"]: each["value"] for each in plan["derived"]}
        assert derived["teachers.cofinetune.epochs"] == plan["cofinetune"][0]["epochs"]
        epochs.append([stage["epochs"] for hop in plan["hops"] for stage in hop["stages"]] + [plan["cofinetune"][0]["epochs"]])
    assert epochs[0] < epochs[1] < epochs[2]
    drawn = kdcli(*words, "--effort", "quick").stdout
    assert "Derived, since the recipe leaves them open" in " ".join(drawn.split())
    assert "quick effort" in drawn
    refused = kdcli(*words, "--effort", "lazy")
    assert refused.exit_code == 2
    assert "thorough" in refused.stderr


def _bad_requests(bert: Path, roberta: Path, data: Path, folder: Path) -> dict[str, tuple[list[str], str]]:
    (folder / "no-weights").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / "no-weights" / name).write_bytes((bert / name).read_bytes())
    (folder / "pickled").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / "pickled" / name).write_bytes((bert / name).read_bytes())
    (folder / "pickled" / "pytorch_model.bin").touch()
    (folder / "empty.csv").touch()
    (folder / "one.csv").write_text("text,label\na,x\nb,x\n")
    (folder / "two.csv").write_text("text,label\n" + "a,x\nb,y\n" * 20)
    (folder / "other.csv").write_text("text,label\na,x\nb,z\n")
    (folder / "typo.yaml").write_text("name: mine\nstages:\n  - name: s\n    objectve: []\n")
    good = ["--teachers", f"bert={bert}", "--student", "2L", "--data", str(data)]
    return {
        "unknown teacher": (["--teachers", "brt", *good[2:]], "did you mean 'bert'?"),
        "missing folder": (["--teachers", "bert=./nowhere", *good[2:]], "there is no such folder"),
        "no weights": (["--teachers", "bert=no-weights", *good[2:]], "the folder has no weights"),
        "pickled weights": (["--teachers", "bert=pickled", *good[2:]], "convert it once"),
        "wrong column": ([*good, "--text-column", "txt"], "--text-column text"),
        "unknown label": ([*good[:4], "--data", "two.csv", "--eval", "other.csv"], "other.csv:3: unknown label 'z'"),
        "empty file": ([*good[:4], "--data", "empty.csv"], "the file is empty"),
        "one class only": ([*good[:4], "--data", "one.csv"], "all 2 rows have the same label"),
        "deeper student": ([*good[:2], "--student", "9L", *good[4:]], "deeper than the teacher"),
        "deeper student with a map": (
            [*good[:2], "--student", "9L", *good[4:], "--set", "student.init.from=scratch"], "at least as deep as the student",
        ),
        "typo in the recipe": ([*good, "--recipe", "typo.yaml"], "typo.yaml:4  stages.0.objectve"),
        "unknown recipe": ([*good, "--recipe", "mt-brt"], "did you mean 'mt-bert'?"),
        "Hub name offline": (["--teachers", "bert", *good[2:]], "hf download google-bert/bert-base-uncased"),
        "Hub data offline": ([*good[:4], "--task", "sst2"], "--data DIR"),
        "unknown task": ([*good, "--task", "sst3"], "did you mean 'sst2'?"),
        "unknown metric": ([*good, "--metric", "acc"], "there is no such metric"),
        "unknown tracker": ([*good, "--track", "wand"], "there is no such tracker"),
        "no student": (good[:2], "--student: is missing"),
        "broken override": ([*good, "--set", "stages.0.epochs"], "is not of the form key=value"),
        "no GPU": ([*good, "--device", "cuda"], "no CUDA device"),
        "electra in the starter task": (["--teachers", "electra", "--student", "2L"], "the starter task has no such teacher"),
    }  # fmt: skip


NAMES = [
    "unknown teacher", "missing folder", "no weights", "pickled weights", "wrong column", "unknown label", "empty file",
    "one class only", "deeper student", "deeper student with a map", "typo in the recipe", "unknown recipe",
    "Hub name offline", "Hub data offline", "unknown task", "unknown metric", "unknown tracker", "no student",
    "broken override", "no GPU", "electra in the starter task",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_wrong_input_gets_one_clear_message_and_leaves_nothing(
    name: str, tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = _bad_requests(tiny_bert, tiny_roberta, tiny_data, tmp_path)
    assert list(cases) == NAMES
    before = sorted(tmp_path.rglob("*"))
    words, message = cases[name]
    done = kdcli("distill", *words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stderr.count("error  ") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_version_and_help_of_every_command() -> None:
    assert kdcli("--version").stdout.strip() == f"kdcli {__version__}"
    for command in ("distill", "cofinetune", "evaluate", "export"):
        done = kdcli(command, "--help")
        assert done.exit_code == 0
        assert done.stdout.count(f"kdcli {command}") >= 2


def test_ctrl_c_exits_with_130_and_resume_finishes(tiny_bert: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in sentences(400, 3)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "kdcli", "distill"]
    flags = ["--teachers", f"bert={tiny_bert},roberta={tiny_roberta}", "--student", "2L", "--data", "train.jsonl"]
    flags += [*QUICK, "--teacher-epochs", "6", "--out", "run"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen([*command, *flags], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if (tmp_path / "run" / "metrics.jsonl").is_file():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said
    again = subprocess.run(
        [*command, "--resume", "--out", "run", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["models"][0]["role"] == "student"


def test_starter_task_works_offline_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    brief = ["--epochs", "0.1", "--teacher-epochs", "0.1", "--allow-weak-teachers", "--no-baseline"]
    done = kdcli("distill", "--teachers", "bert,roberta", "--student", "4L", *brief)
    assert done.exit_code == 0, done.output
    assert "starter task" in done.stderr.splitlines()[0]
    assert "a small roberta made for the starter task, not the pre-trained model" in done.stderr
    assert (tmp_path / "runs" / "latest" / "starter" / "data" / "train.jsonl").is_file()
    scored = kdcli("evaluate", "--json")
    assert json.loads(scored.stdout)["rows"] == 960
    exported = kdcli("export", "--onnx", "--no-benchmark")
    assert exported.exit_code == 0, exported.output


def test_two_processes_speak_with_one_voice(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    teachers = f"bert={tiny_bert},roberta={tiny_roberta}"
    words = ["-m", "kdcli", "distill", "--teachers", teachers, "--student", "2L", "--data", str(tiny_data), *QUICK, "--json"]
    done = subprocess.run([*launch, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["role"] == "student"
    assert done.stderr.count("distilling the student") == 1
    assert done.stderr.count("2 processes share each batch of 16") == 1
    assert "\nprocesses: 2\n" in (tmp_path / "runs" / "latest" / "plan.yaml").read_text(encoding="utf-8")
    assert len([path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]) == 1


def test_output_into_a_closed_pipe_ends_quietly(finished: tuple[Path, Result]) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        f"{sys.executable} -m kdcli evaluate --json | head -c 1", shell=True, cwd=finished[0], env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
