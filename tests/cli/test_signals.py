"""A signal ends a command within seconds, with exit code 130 and one line, whatever it is doing and whoever swallows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from kdcli.cli.app import app
from kdcli.export.variants import Variant, Workshop
from kdcli.jobs import evaluate as evaluate_job
from kdcli.jobs import export as export_job
from kdcli.jobs import request_checks

ROOT = Path(__file__).resolve().parents[2]
IN_A_COMMAND = """
import hashlib, os, subprocess, sys, time, traceback
from pathlib import Path
from kdcli.cli import start
from kdcli.atomic_files import whole_folder
from kdcli.recipe import catalogue

def work(path):
    {work}

catalogue.opening = work
sys.argv = ["kdcli", "recipe", "list", "--json"]
start.main()
"""
BEGIN = 'print("begun", file=sys.stderr, flush=True)'
SWALLOW = """    try:
            time.sleep(60)
        except BaseException:
            traceback.print_exc()"""
WORK = {
    "python": f"{BEGIN}; time.sleep(60)",
    "swallowed, then another error": f"""{BEGIN}
    try:
        time.sleep(60)
    except BaseException:
        traceback.print_exc()
        raise ValueError("made of the interruption")""",
    "swallowed, then a result": f"""{BEGIN}
    try:
        time.sleep(60)
    except BaseException:
        traceback.print_exc()
    return {{"summary": "a recipe"}}""",
    "swallowed for ever": f"""{BEGIN}
    while True:
    {SWALLOW}""",
    "in C, where no handler can run": f'{BEGIN}; hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)',
    "in a folder that is half written": f"""
    with whole_folder(Path("folder")) as partial:
        (partial / "file").touch()
        {BEGIN}
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)""",
    "a process of its own": f'{BEGIN}; subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])',
}


@contextmanager
def started(code: str, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if name != "KDCLI_DEBUG"} | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(line: str, process: subprocess.Popen[str]) -> None:
    """Read standard error until there is this line."""
    assert process.stderr is not None
    assert any(found.startswith(line) for found in process.stderr), "the command has ended before"


def ended(process: subprocess.Popen[str], signals: list[int]) -> tuple[int, list[str], float]:
    """Exit code, what was said from now on, and the seconds it took."""
    begin = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2 if len(signals) > 1 else 0)
    _, said = process.communicate(timeout=60)
    return process.returncode, said.splitlines(), time.monotonic() - begin


@pytest.mark.parametrize("name", WORK)
def test_signal_ends_a_command_whatever_it_is_doing(name: str, tmp_path: Path) -> None:
    number = signal.SIGTERM if "C," in name or "half" in name else signal.SIGINT
    with started(IN_A_COMMAND.format(work=WORK[name]), tmp_path) as process:
        wait_for("begun", process)
        code, said, seconds = ended(process, [number])
    by = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert (code, said) == (130, [f"stopped  interrupted by {by}"])
    assert seconds < 20  # 3 on a quiet machine
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_second_signal_ends_a_command_at_once(tmp_path: Path) -> None:
    with started(IN_A_COMMAND.format(work=WORK["swallowed for ever"]), tmp_path) as process:
        wait_for("begun", process)
        code, said, _ = ended(process, [signal.SIGINT, signal.SIGINT])
    assert (code, said) == (130, ["stopped  interrupted by Ctrl-C"])


def test_closed_terminal_ends_a_command_unless_it_was_started_to_outlive_it(tmp_path: Path) -> None:
    with started(IN_A_COMMAND.format(work=WORK["python"]), tmp_path) as process:
        wait_for("begun", process)
        assert ended(process, [signal.SIGHUP])[:2] == (130, ["stopped  interrupted by SIGHUP"])
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    short = f"{BEGIN}; time.sleep(0.5); os._exit(0)"
    with started(ignoring + IN_A_COMMAND.format(work=short), tmp_path) as process:
        wait_for("begun", process)
        assert ended(process, [signal.SIGHUP])[0] == 0


@pytest.mark.parametrize("passed_on", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_that_a_launcher_passes_on_counts_once(passed_on: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    work = f"""
    from kdcli.engine.interruption import stop_on_signal
    with stop_on_signal(lambda: print("stopping", file=sys.stderr, flush=True)) as request:
        {BEGIN}
        while not request.asked:
            time.sleep(0.01)
        time.sleep(0.5)
        print("the state is saved", file=sys.stderr, flush=True)
        os._exit(0)"""
    with started(IN_A_COMMAND.format(work=work.strip()), tmp_path) as process:
        wait_for("begun", process)
        code, said, _ = ended(process, [signal.SIGINT, passed_on])
    assert (code, said) == (0, ["stopping", "the state is saved"])


@pytest.mark.parametrize("words", [["recipe", "list"], ["recipe", "schema"]], ids=" ".join)
def test_output_that_nobody_reads_is_exit_code_3_and_never_that_of_a_gate(words: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "kdcli", *words],
        cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (3, "")


def test_closed_standard_output_is_no_error() -> None:
    command = f"exec {sys.executable} -m kdcli recipe list >&-"
    done = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def checkpoint(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "mine"
    names: dict[str, Any] = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_hidden_layers=1, **names)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


def test_sigterm_while_export_is_at_work_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    code = "from kdcli.cli.start import main; main()"
    with started(code, tmp_path, "export", str(checkpoint), "--out", "export", "--no-benchmark") as process:
        wait_for("writing and checking fp32", process)
        exit_code, said, _ = ended(process, [signal.SIGTERM])
    assert (exit_code, said) == (130, ["stopped  interrupted by SIGTERM"])
    assert not list(tmp_path.iterdir())


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "phase", ["load_classifier", "load_scored", "file_logits", "write_predict", "open_session", "write_json"]
)
def test_interrupted_export_says_so_in_one_line_and_leaves_nothing(
    phase: str, checkpoint: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_job, phase, interrupt)
    monkeypatch.setattr(Workshop, "make", lambda self, precision: Variant(precision, self.folder, 0, None, None))
    words = ["export", str(checkpoint), "--data", str(tiny_data / "dev.jsonl"), "--out", str(tmp_path / "export")]
    done = CliRunner().invoke(app, [*words, *(["--no-benchmark"] if phase == "write_json" else [])])
    assert done.exit_code == 130, done.output
    assert done.stderr.splitlines()[-1] == "stopped  interrupted by Ctrl-C"
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("phase", ["find_targets", "load_scored", "compare", "write_comparison"])
def test_interrupted_evaluation_says_so_in_one_line(
    phase: str, checkpoint: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_job, phase, interrupt)
    words = ["evaluate", str(checkpoint), "--data", str(tiny_data / "dev.jsonl"), "--out", str(tmp_path / "compared")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 130, done.output
    assert [line for line in done.stderr.splitlines() if "resume" in line] == []
    assert done.stderr.splitlines()[-1] == "stopped  interrupted by Ctrl-C"


def test_distillation_that_has_not_begun_does_not_speak_of_resuming(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(request_checks, "load_task", interrupt)
    words = [
        "distill",
        "--teachers",
        str(tiny_bert),
        "--student",
        "1L",
        "--data",
        str(tiny_data),
        "--out",
        str(tmp_path / "run"),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 130, done.output
    assert done.stderr.splitlines()[-1] == "stopped  interrupted by Ctrl-C before the run had begun"
    assert not list(tmp_path.iterdir())


def test_distillation_that_has_begun_says_how_it_goes_on(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdcli.jobs import distill

    monkeypatch.setattr(distill, "train_teachers", interrupt)
    words = ["distill", "--teachers", str(tiny_bert), "--student", "1L", "--data", str(tiny_data), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "a run")])
    assert done.exit_code == 130, done.output
    goes_on = f"kdcli distill --resume --out '{tmp_path / 'a run'}' goes on"
    assert done.stderr.splitlines()[-1] == f"stopped  interrupted by Ctrl-C; {goes_on}"
