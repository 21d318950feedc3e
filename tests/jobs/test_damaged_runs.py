"""A run that was damaged, moved, or begun elsewhere: refused with the file and a way on, or as good as before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Events, PhaseStarted
from kdcli.errors import RequestError, RunFailedError
from kdcli.jobs.distill import distill
from kdcli.jobs.evaluate import EvaluateRequest, evaluate
from kdcli.jobs.metric_logs import MetricsFile, read_metrics
from kdcli.jobs.request_checks import with_absolute_paths
from kdcli.jobs.run_folder import RunFolder
from kdcli.plan.request import TrainRequest

TinyRun = tuple[Path, object]


@pytest.fixture
def moved(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny run under another name, seen from another working directory."""
    shutil.copytree(tiny_run[0], tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "moved"


def test_a_moved_run_with_a_damaged_log_goes_on(moved: Path) -> None:
    with (moved / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\x00\x80\n[1]\n{"kind": "dev"}\n{"kind": "train", "phase": "dist')
    shutil.rmtree(moved / "student")
    run, _ = distill(None, Events(), Path("moved"), resume=True)
    assert (run.student / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["student/model.safetensors", "teachers/head.safetensors", "teachers/bert/config.json"])
def test_a_model_that_is_damaged_is_not_gone_on_from(name: str, moved: Path) -> None:
    content = bytearray((moved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (moved / name).write_bytes(content)
    with pytest.raises(RunFailedError, match=f"{name}.*checksum differs.*remove"):
        distill(None, Events(), moved, resume=True)


def test_a_plan_that_was_changed_is_not_gone_on_from(moved: Path) -> None:
    plan = moved / "plan.yaml"
    plan.write_text(plan.read_text(encoding="utf-8").replace("seed: 0", "seed: 1"), encoding="utf-8")
    with pytest.raises(RequestError, match=r"plan.yaml: has changed since the run wrote it"):
        distill(None, Events(), moved, resume=True)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_student_that_is_there_in_part_is_not_scored(name: str, moved: Path) -> None:
    (moved / "student" / name).unlink()
    with pytest.raises(RequestError, match=f"student/{name}.*missing"):
        evaluate(EvaluateRequest((str(moved),)), Events())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format: 9\nversions: {kdcli: '7.0'}\n", "(?s)format: was written by a newer version.*7.0"),
        ("format: 2\nrequest: 5\n", "request"),
        ("[" * 100_000, "levels"),
        ("a: &a [x]\nb: [*a, *a]\n", "aliases"),
        ("\x00", "control characters"),
        ("", "plan"),
        ("x: y\n" * 500_000, "bytes"),
    ],
)
def test_a_plan_that_is_none_is_refused_with_its_file(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=said) as refused:
        RunFolder(tmp_path).read_plan()
    assert str(tmp_path / "plan.yaml") in str(refused.value)


def test_a_log_keeps_what_can_be_read(tmp_path: Path) -> None:
    good = '{"kind": "train", "phase": "distill", "step": 1, "values": {"loss": 0.5}}'
    (tmp_path / "metrics.jsonl").write_bytes(f"\n{good}\n".encode() + b'\xff\x00\n{"kind": "train", "ph')
    MetricsFile(tmp_path / "metrics.jsonl")(PhaseStarted("distill", "distilling", 1, 2))
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == good + "\n"
    assert read_metrics(tmp_path / "missing.jsonl") == []


def test_paths_inside_a_run_move_with_it(tiny_run: TinyRun, tmp_path: Path) -> None:
    plan = RunFolder(tiny_run[0]).read_plan()
    one, two = tmp_path.resolve() / "one", tmp_path.resolve() / "two"
    one.mkdir()
    inside = plan.teachers[0].model_copy(update={"folder": str(one / "starter" / "bert")})
    RunFolder(one).write_plan(plan.model_copy(update={"teachers": [inside, *plan.teachers[1:]]}))
    one.rename(two)
    assert RunFolder(two).read_plan().teachers[0].folder == str(two / "starter" / "bert")


def test_relative_paths_are_made_absolute_and_names_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("m/ok", "m/2L", "bert"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "train.csv").touch()
    asked = TrainRequest(
        command="distill",
        teachers="m/ok, b=./m/2L,bert,org/model",
        student="m/2L",
        recipe="mine.yaml",
        data=DataRequest(data="train.csv", eval="hub"),
    )
    found = with_absolute_paths(asked)
    assert found.teachers == f"ok={tmp_path}/m/ok,b={tmp_path}/m/2L,bert,org/model"
    assert (found.student, found.recipe) == (f"{tmp_path}/m/2L", f"{tmp_path}/mine.yaml")
    assert (found.data.data, found.data.eval) == (str(tmp_path / "train.csv"), "hub")
    assert with_absolute_paths(found) == found
