"""What spares work changes no result: kept answers, trimmed embeddings, a cache that cannot be had."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kdcli.engine.events import Event, Events, Note, PhaseDone
from kdcli.jobs.distill import distill
from kdcli.jobs.run_folder import RunFolder
from kdcli.models.teachers import Teacher
from kdcli.plan.request import TrainRequest
from kdcli.recipe.yaml_document import Override


@pytest.fixture(scope="module")
def request_for_trained(request_for_tiny: TrainRequest, tiny_run: tuple[Path, list[Event]]) -> TrainRequest:
    """Two epochs from the teachers of a finished run, without the baseline."""
    more = (*request_for_tiny.overrides, Override.parse("stages.0.epochs=2"))
    return request_for_tiny.model_copy(update={"teachers": str(tiny_run[0]), "baseline": False, "overrides": more})


class Run:
    """A run with its events and the number of texts that teachers were asked about while the student was trained."""

    def __init__(self, request: TrainRequest, out: Path, **more: Any) -> None:
        self.events: list[Event] = []
        folder, _ = distill(request, Events([self.events.append]), out, **more)
        self.folder: RunFolder = folder

    @property
    def student(self) -> dict[str, Tensor]:
        return load_file(self.folder.student / "model.safetensors")

    @property
    def seconds(self) -> dict[str, float]:
        (done,) = [event for event in self.events if isinstance(event, PhaseDone)]
        return dict(done.seconds)

    def notes(self, about: str) -> list[Note]:
        return [event for event in self.events if isinstance(event, Note) and about in event.text]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_kept_answers_give_the_same_student_and_are_found_by_the_next_run(
    request_for_trained: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCLI_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []
    ask = Teacher.forward

    def listening(teacher: Teacher, *words: Any) -> Any:
        asked.append(teacher.name)
        return ask(teacher, *words)

    monkeypatch.setattr(Teacher, "forward", listening)
    without = Run(request_for_trained, tmp_path / "without", cache_limit=0)
    every_time = len(asked)
    assert not (tmp_path / "cache" / "answers").exists()
    assert without.notes("answers are kept") == []

    asked.clear()
    first = Run(request_for_trained, tmp_path / "first", cache_limit=10**9)
    once = len(asked)
    (note,) = first.notes("answers are kept")
    assert "bert and roberta" in note.text
    assert str(tmp_path / "cache") in note.text

    asked.clear()
    second = Run(request_for_trained, tmp_path / "second", cache_limit=10**9)
    on_dev = len(asked)
    steps, epochs = 10, 2
    assert every_time - on_dev == 2 * steps * epochs
    assert once - on_dev == 2 * steps
    assert "teachers" in first.seconds
    assert "teachers" not in second.seconds
    assert same(first.student, second.student)
    for name, tensor in without.student.items():  # asked anew beside other texts, a state may round to its neighbour in bf16
        assert torch.allclose(first.student[name], tensor, rtol=0.0, atol=1e-3), name


def test_a_limit_is_kept_to_and_said(
    request_for_trained: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCLI_CACHE", str(tmp_path / "cache"))
    limit = 20_000
    run = Run(request_for_trained, tmp_path / "run", cache_limit=limit)
    sizes = [path.stat().st_size for path in (tmp_path / "cache" / "answers").glob("*/*") if path.suffix != ".json"]
    assert 0.5 * limit < sum(sizes) <= limit
    (note,) = run.notes("of the answers are kept")
    assert "--cache-size" in note.text


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_cache_that_cannot_be_written_is_a_warning(
    request_for_trained: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("KDCLI_CACHE", str(blocked))
    run = Run(request_for_trained, tmp_path / "run", cache_limit=10**9)
    (note,) = run.notes("the teachers answer in every epoch")
    assert note.warning
    assert run.folder.student.is_dir()


def test_nothing_is_kept_where_that_is_turned_off(
    request_for_trained: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCLI_CACHE", "off")
    run = Run(request_for_trained, tmp_path / "run", cache_limit=10**9)
    assert run.notes("answers") == []


def test_the_student_has_its_whole_vocabulary(tiny_run: tuple[Path, list[Event]], tiny_bert: Path) -> None:
    whole = load_file(tiny_bert / "model.safetensors")
    (name,) = [name for name in whole if "word_embeddings" in name]
    trained = load_file(tiny_run[0] / "student" / "model.safetensors")
    assert trained[f"bert.{name.removeprefix('bert.')}"].shape == whole[name].shape


def test_every_log_entry_says_where_the_time_went(tiny_run: tuple[Path, list[Event]]) -> None:
    entries = [json.loads(line) for line in (tiny_run[0] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    phases = {entry["phase"] for entry in entries}
    assert phases == {"cofinetune", "distill", "baseline"}
    for phase in phases:
        own = [entry for entry in entries if entry["phase"] == phase]
        (done,) = [entry for entry in own if entry["kind"] == "done"]
        steps = [entry for entry in own if entry["kind"] == "train"]
        assert sum(entry["samples"] for entry in steps) == done["samples"] == 160 * 4
        assert all({"student", "backward", "optimiser"} <= entry["seconds"].keys() for entry in steps)
        for name in ("student", "backward", "optimiser"):
            assert done["seconds"][name] == pytest.approx(sum(entry["seconds"][name] for entry in steps), abs=0.01)
        assert ("teachers" in done["seconds"]) == (phase == "distill")
