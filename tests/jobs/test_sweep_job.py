"""Sweeps: what is drawn, what is kept, and that an interruption at any moment changes nothing."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import Trial
from sqlalchemy import event
from sqlalchemy.engine import Engine

from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Event, Events, Note, PhaseStarted, StepDone
from kdcli.errors import GateError, InterruptedRunError, RequestError, RunFailedError
from kdcli.plan.request import TrainRequest
from kdcli.recipe.loading import load as load_recipe
from kdcli.recipe.yaml_document import Override
from kdcli.sweep import job
from kdcli.sweep.folder import SweepFolder
from kdcli.sweep.job import dry_sweep, sweep
from kdcli.sweep.results import SweepResult, TrialResult
from kdcli.sweep.space import Combination, grid_point, text
from kdcli.sweep.study import SweepStudy, opened_study
from kdcli.sweep.sweep_file import loads
from tests.jobs.conftest import QUICK

GRID = """\
sampler: grid
seeds: [0, 1]
parameters:
  training.learning_rate: [1e-3, 3e-3]
  stages.0.epochs: {from: 1, to: 3}
"""
TPE = """\
trials: 12
seeds: [0, 1]
prune: PRUNE
sampler_seed: 3
parameters:
  training.learning_rate: {from: 1e-5, to: 1e-2, log: true}
  stages.0.epochs: {from: 1, to: 9, step: 2}
  training.schedule: [linear, cosine]
"""
Make = Callable[..., tuple[SweepFolder, SweepResult]]


def values_of(request: TrainRequest) -> dict[str, Any]:
    """What a trial has put into the recipe, by the last part of its key."""
    return {str(one.path[-1]): one.value for one in request.overrides}


def smooth(request: TrainRequest) -> float:
    """A score with its summit within the ranges, a little different for each seed."""
    values = values_of(request)
    rate, epochs = math.log10(values["learning_rate"]), values.get("epochs", 3)
    return float(0.9 - 0.05 * (rate + 3) ** 2 - 0.01 * abs(epochs - 5) + 0.001 * request.seed)


class Runs:
    """Stands for the runs: notes what was asked for, and gives a score, or whatever else a test wants to happen."""

    def __init__(self, score: Callable[[TrainRequest], float] = smooth) -> None:
        self.score, self.asked = score, list[tuple[int, int, dict[str, Any]]]()

    def __call__(self, request: TrainRequest, events: Events, folder: Path, cache_limit: int) -> float:
        self.asked.append((int(folder.parent.name.removeprefix("trial-")), request.seed, values_of(request)))
        return self.score(request)

    def seeds(self, trial: int) -> list[int]:
        """The seeds that a trial was given."""
        return [seed for number, seed, _ in self.asked if number == trial]


def alone(bert: Path, data: Path) -> TrainRequest:
    """A student that needs no trained teachers, so that nothing is trained but what a test wants."""
    return TrainRequest(
        command="distill",
        teachers=f"bert={bert}",
        student="2L",
        data=DataRequest(data=str(data)),
        recipe="finetune",
        device="cpu",
    )


@pytest.fixture
def request_alone(tiny_bert: Path, tiny_data: Path) -> TrainRequest:
    return alone(tiny_bert, tiny_data)


@pytest.fixture(scope="module", autouse=True)
def _quick_database() -> Iterator[None]:
    """SQLite does not wait for the disk here; no test takes away the power."""

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is not drawn, which would take longest."""
    monkeypatch.setattr("kdcli.sweep.result_files.page", lambda result, title: "")


@pytest.fixture
def make(request_alone: TrainRequest, tmp_path: Path, no_page: None) -> Make:
    """Make a sweep out of a file's text, in a folder of its name."""

    def made(text: str, score: Any = None, name: str = "sweep", events: Events | None = None, resume: bool = False) -> Any:
        file = tmp_path / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        request = None if resume else request_alone
        return sweep(request, file, events or Events(), tmp_path / name, resume, score=score or Runs())

    return made


def table(result: SweepResult) -> list[tuple[Any, ...]]:
    """The ranked table."""
    return [(one.rank, one.number, one.state, one.mean, one.deviation, one.scores, one.parameters) for one in result.trials]


def tried(result: SweepResult) -> list[Combination]:
    return [one.parameters for one in sorted(result.trials, key=lambda one: one.number)]


# what is drawn


def test_grid_takes_every_combination_once_and_ranks_them(make: Make) -> None:
    runs = Runs()
    folder, result = make(GRID.replace("{from: 1, to: 3}", "{from: 1, to: 5, step: 2}"), runs)
    assert [tuple(one.values()) for one in tried(result)] == [(r, e) for r in (1e-3, 3e-3) for e in (1, 3, 5)]
    assert len(runs.asked) == 12
    means = [one.mean or 0.0 for one in result.trials]
    assert means == sorted(means, reverse=True)
    assert [one.rank for one in result.trials] == [1, 2, 3, 4, 5, 6]
    assert result.trials[0].parameters == {"training.learning_rate": 1e-3, "stages.0.epochs": 5}
    assert result.trials[0].deviation == pytest.approx(0.001 / math.sqrt(2))
    assert json.loads(folder.document.read_text()) == result.model_dump(mode="json")
    assert len(folder.table.read_text().splitlines()) == 7


def drawn(text: str, score: Callable[[Combination], float] = lambda values: math.log(values["training.learning_rate"])) -> Any:
    """The values of all trials of a sweep that is kept in memory, each with a score for them."""
    loaded = loads(text, "sweep.yaml")
    with opened_study(loaded.sweep, loaded.parameters, "drawn", None, "") as study:
        found = []
        while (trial := study.ask()) is not None:
            found.append(study.values(trial))
            study.complete(trial, [score(found[-1])])
        return found


def test_share_of_a_grid_is_drawn_by_the_seed() -> None:
    text = GRID.replace("{from: 1, to: 3}", "[1, 2, 3, 4]") + "trials: 4\n"
    assert len(drawn(text)) == len({str(one) for one in drawn(text)}) == 4
    assert drawn(text) == drawn(text) != drawn(text + "sampler_seed: 1\n")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_same_seed_draws_the_same_trials(sampler: str) -> None:
    text = f"sampler: {sampler}\n" + TPE.replace("PRUNE", "false")
    first = drawn(text)
    assert first == drawn(text) != drawn(text.replace("sampler_seed: 3", "sampler_seed: 4"))
    assert len(first) == 12
    for values in first:
        assert 1e-5 <= values["training.learning_rate"] <= 1e-2
        assert values["stages.0.epochs"] in (1, 3, 5, 7, 9)
        assert isinstance(values["stages.0.epochs"], int)
        assert values["training.schedule"] in ("linear", "cosine")


def test_tpe_draws_by_the_scores_and_random_does_not() -> None:
    text = TPE.replace("PRUNE", "false").replace("trials: 12", "trials: 30")
    by_score = [drawn(text)[-1], drawn(text, lambda values: -values["training.learning_rate"])[-1]]
    assert by_score[0] != by_score[1]
    at_random = f"sampler: random\n{text}"
    assert drawn(at_random) == drawn(at_random, lambda values: 0.0)


def test_values_that_were_tried_before_are_not_trained_again(make: Make) -> None:
    runs = Runs()
    parameters = "parameters:\n  training.learning_rate: [1e-3, 3e-3]\n"
    _, result = make(f"sampler: random\ntrials: 6\nseeds: [0, 1]\n{parameters}", runs)
    assert len(runs.asked) == 4
    assert sum(one.same_as is not None for one in result.trials) == 4
    assert {one.state for one in result.trials} == {"complete"}


def test_choices_may_be_maps_lists_and_nothing() -> None:
    choices = "  student.init.layers: [first, [1, 2], {bert: {1: 2}}]\n  training.early_stopping: [null, 1, true]\n"
    found = drawn(f"sampler: grid\nparameters:\n{choices}", lambda values: 0.0)
    layers = [values["student.init.layers"] for values in found]
    assert layers == [one for one in ("first", [1, 2], {"bert": {1: 2}}) for _ in range(3)]
    assert [repr(values["training.early_stopping"]) for values in found] == ["None", "1", "True"] * 3


# pruning and failing


def test_loser_is_not_given_its_later_seeds(whole: Whole) -> None:
    folder, result, runs = whole
    pruned = [one for one in result.trials if one.state == "pruned"]
    assert pruned
    assert all(runs.seeds(one.number) == [0] and list(one.scores) == [0] for one in pruned)
    assert all(runs.seeds(one.number) == [0, 1] for one in result.trials if one.state == "complete" and one.same_as is None)
    assert min(one.number for one in pruned) >= 5
    assert all(one.rank is None for one in pruned)
    assert "pruned" in folder.page.read_text()


def test_no_trial_is_pruned_where_that_was_not_asked_for() -> None:
    loaded = loads(TPE.replace("PRUNE", "false"), "sweep.yaml")
    with opened_study(loaded.sweep, loaded.parameters, "drawn", None, "") as study:
        for number in range(12):
            trial = study.ask()
            assert trial is not None
            study.values(trial)
            assert not study.loses(trial, [1 - number / 10])
            study.complete(trial, [1 - number / 10])


def test_failing_trial_does_not_end_the_sweep(make: Make) -> None:
    def score(request: TrainRequest) -> float:
        if values_of(request)["epochs"] == 2:
            raise GateError("teacher bert is at chance")
        return smooth(request)

    told: list[Event] = []
    folder, result = make(GRID.replace("{from: 1, to: 3}", "[1, 2, 3]"), Runs(score), events=Events([told.append]))
    assert [one.state for one in result.trials] == ["complete"] * 4 + ["failed"] * 2
    assert {one.message for one in result.trials if one.state == "failed"} == {"teacher bert is at chance"}
    assert any(isinstance(event, Note) and event.warning and "at chance" in event.text for event in told)
    assert "teacher bert is at chance" in folder.table.read_text()


def test_three_failures_in_a_row_end_it_and_what_was_found_is_written(make: Make, tmp_path: Path) -> None:
    def score(request: TrainRequest) -> float:
        if values_of(request)["learning_rate"] == 3e-3:
            raise ValueError("too fast")
        return smooth(request)

    runs = Runs(score)
    with pytest.raises(RunFailedError, match=r"3 trials in a row failed(.|\n)*ValueError: too fast"):
        make(GRID.replace("{from: 1, to: 3}", "[1, 2, 3, 4]"), runs)
    assert len(runs.asked) == 4 * 2 + 3
    states = [one["state"] for one in json.loads((tmp_path / "sweep" / "sweep.json").read_text())["trials"]]
    assert states == ["complete"] * 4 + ["failed"] * 3


def test_disk_that_is_full_ends_the_sweep_and_loses_no_trial(make: Make) -> None:
    def full(request: TrainRequest) -> float:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        make(GRID.replace("{from: 1, to: 3}", "[1, 2]"), Runs(full))
    _, result = make(GRID.replace("{from: 1, to: 3}", "[1, 2]"), resume=True)
    assert [one.state for one in result.trials] == ["complete"] * 4


# going on


class _Stop(KeyboardInterrupt):
    """Stands for the end of the process at some moment."""


@pytest.fixture(scope="module")
def whole(tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepFolder, SweepResult, Runs]:
    """A sweep that nothing has interrupted, some of its trials pruned."""
    folder, runs = tmp_path_factory.mktemp("whole"), Runs()
    (folder / "sweep.yaml").write_text(TPE.replace("PRUNE", "true"))
    return *sweep(alone(tiny_bert, tiny_data), folder / "sweep.yaml", Events(), folder / "out", score=runs), runs


Whole = tuple[SweepFolder, SweepResult, Runs]


def test_sweep_interrupted_amid_and_after_runs_ends_with_the_table_of_an_uninterrupted_one(whole: Whole, make: Make) -> None:
    text, asked, resume = TPE.replace("PRUNE", "true"), list[int](), False
    for runs_until_the_end, before in ((1, True), (1, False), (3, True), (6, False), (4, True)):
        left = [runs_until_the_end]

        def score(request: TrainRequest, left: list[int] = left, before: bool = before) -> float:
            left[0] -= 1
            if left[0] == 0:
                raise InterruptedRunError("stopped at step 3 of 9; --resume goes on") if before else _Stop
            return smooth(request)

        runs = Runs(score)
        with pytest.raises((InterruptedRunError, _Stop)):
            make(text, runs, resume=resume)
        asked.append(len(runs.asked) - 1)
        resume = True
    last = Runs()
    _, resumed = make(text, last, resume=True)
    assert table(resumed) == table(whole[1])
    assert sum(asked) + len(last.asked) == len(whole[2].asked)


def test_end_of_the_process_beside_any_write_to_the_storage_loses_nothing(
    whole: Whole, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, resume = TPE.replace("PRUNE", "true"), False
    writes = [
        (Trial, "set_user_attr"), (Trial, "suggest_float"), (Trial, "suggest_int"), (Trial, "suggest_categorical"),
        (Trial, "report"), (Trial, "should_prune"), (SweepStudy, "complete"), (SweepStudy, "pruned"),
    ]  # fmt: skip
    for place, (owner, method) in enumerate(writes * 2):
        original, ended = getattr(owner, method), list[str]()
        after = place >= len(writes)

        def ending(*given: Any, original: Any = original, ended: list[str] = ended, after: bool = after, **more: Any) -> Any:
            if after:
                original(*given, **more)
            ended.append("here")
            raise _Stop

        with monkeypatch.context() as patch:
            patch.setattr(owner, method, ending)
            with suppress(_Stop):
                make(text, resume=resume)
            assert ended
        resume = True
    _, resumed = make(text, resume=True)
    assert table(resumed) == table(whole[1])


def test_finished_sweep_goes_on_to_the_same_table_without_a_run(make: Make) -> None:
    text = GRID.replace("{from: 1, to: 3}", "[1, 2]")
    _, whole = make(text)
    runs = Runs()
    _, again = make(text, runs, resume=True)
    assert table(again) == table(whole)
    assert runs.asked == []


def test_other_file_other_flags_and_other_recipe_are_refused(make: Make, request_alone: TrainRequest, tmp_path: Path) -> None:
    text = GRID.replace("{from: 1, to: 3}", "[1, 2]")
    make(text)
    make(f"# a remark\n{text}", resume=True)
    with pytest.raises(RequestError, match=r"differs from the file(.|\n)*seeds"):
        make(text.replace("[0, 1]", "[0, 2]"), resume=True)
    (tmp_path / "sweep.yaml").write_text(text)
    other = request_alone.model_copy(update={"student": "1L"})
    with pytest.raises(RequestError, match=r"flags differ(.|\n)*student"):
        sweep(other, tmp_path / "sweep.yaml", Events(), tmp_path / "sweep", True, score=Runs())
    with pytest.raises(RequestError, match="there is no sweep here"):
        sweep(None, tmp_path / "sweep.yaml", Events(), tmp_path, True, score=Runs())
    with pytest.raises(RequestError, match="is there already"):
        sweep(request_alone, tmp_path / "sweep.yaml", Events(), tmp_path / "sweep", score=Runs())


@pytest.mark.usefixtures("no_page")
def test_recipe_that_has_changed_since_is_refused(request_alone: TrainRequest, tmp_path: Path) -> None:
    recipe, file = tmp_path / "mine.yaml", tmp_path / "sweep.yaml"
    body = "name: mine\nstages:\n  - name: one\n    epochs: 2\n    objective: [{loss: hard-labels}]\n"
    recipe.write_text(body)
    file.write_text(GRID.replace("{from: 1, to: 3}", "[1, 2]"))
    request = request_alone.model_copy(update={"recipe": str(recipe)})
    sweep(request, file, Events(), tmp_path / "out", score=Runs())
    recipe.write_text(body + "training: {batch_size: 8}\n")
    with pytest.raises(RequestError, match="the sweep is not in this storage"):
        sweep(None, file, Events(), tmp_path / "out", True, score=Runs())


# several processes


def test_processes_that_share_a_sweep_share_its_trials(make: Make) -> None:
    """The second one is at work while the first is within its second run."""
    text = TPE.replace("PRUNE", "false")
    other, nested = Runs(), list[SweepResult]()

    def score(request: TrainRequest) -> float:
        if len(first.asked) == 2:
            nested.append(make(text, other, resume=True)[1])
        return smooth(request)

    first = Runs(score)
    _, result = make(text, first)
    assert [one.state for one in nested[0].trials].count("running") == 1
    assert len(result.trials) == 12
    assert {one.state for one in result.trials} == {"complete"}
    pairs = [(number, seed) for number, seed, _ in (*first.asked, *other.asked)]
    assert len(set(pairs)) == len(pairs)
    assert {number for number, _, _ in first.asked} == {0}


@pytest.mark.usefixtures("no_page")
def test_machines_with_folders_of_their_own_share_one_storage(request_alone: TrainRequest, tmp_path: Path) -> None:
    storage = f"storage: sqlite:///{tmp_path / 'shared.db'}\n"
    file = tmp_path / "sweep.yaml"
    file.write_text(storage + GRID.replace("{from: 1, to: 3}", "[1, 2, 3]"))
    nested: list[SweepResult] = []

    def score(request: TrainRequest) -> float:
        if len(first.asked) == 4:
            nested.append(sweep(request_alone, file, Events(), tmp_path / "b", score=Runs())[1])
        return smooth(request)

    first = Runs(score)
    folder, result = sweep(request_alone, file, Events(), tmp_path / "a", score=first)
    assert {one.state for one in result.trials} == {"complete"}
    assert {one.number for one in result.trials if one.machine is None} == {0, 1}
    assert sorted(one.name for one in tmp_path.glob("b/trial-*")) == [f"trial-{n:04}" for n in range(2, 6)]
    assert not (folder.path / "sweep.db").exists()
    assert "shared.db" not in folder.file.read_text()


def test_process_of_a_launcher_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match="without a launcher"):
        make(GRID)


# teachers


@pytest.fixture(scope="module")
def taught(tiny_bert: Path, tiny_data: Path) -> TrainRequest:
    """One bare teacher, and settings that learn the tiny task."""
    return TrainRequest(
        command="distill",
        teachers=f"bert={tiny_bert}",
        student="2L",
        data=DataRequest(data=str(tiny_data)),
        overrides=(*QUICK, Override.parse("stages.0.epochs=1"), Override.parse("teachers.cofinetune.epochs=2")),
        device="cpu",
        allow_weak_teachers=True,
    )


TAUGHT = "sampler: grid\nseeds: [1]\nparameters:\n  training.learning_rate: [1e-4, 3e-3]\n"


@pytest.fixture(scope="module")
def real(taught: TrainRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepFolder, SweepResult, list[Event]]:
    """A sweep whose runs are real ones."""
    folder, told = tmp_path_factory.mktemp("real"), list[Event]()
    (folder / "sweep.yaml").write_text(TAUGHT)
    return *sweep(taught, folder / "sweep.yaml", Events([told.append]), folder / "out"), told


Real = tuple[SweepFolder, SweepResult, list[Event]]


def test_teachers_are_trained_once_and_each_run_is_an_ordinary_one(real: Real) -> None:
    folder, result, told = real
    phases = [event.phase for event in told if isinstance(event, PhaseStarted)]
    assert phases == ["cofinetune", "distill", "distill"]
    assert (folder.teachers / "teachers" / "head.json").is_file()
    for trial in result.trials:
        run = folder.run(trial.number, 1)
        plan = yaml.safe_load((run / "plan.yaml").read_text())
        assert plan["recipe"]["training"]["learning_rate"] == trial.parameters["training.learning_rate"]
        assert (plan["request"]["seed"], plan["baseline"]) == (1, False)
        assert [teacher["kind"] for teacher in plan["teachers"]] == ["cofinetuned"]
        student = json.loads((run / "evaluation.json").read_text())["models"][0]
        assert student["scores"]["accuracy"] == trial.scores[1]
        assert not (run / "report.html").exists()
    assert not list(folder.path.rglob("evaluation-test.json"))


def test_best_recipe_is_taken_and_makes_the_same_student(real: Real, taught: TrainRequest, tmp_path: Path) -> None:
    from kdcli.jobs.distill import distill

    folder, result, _ = real
    best = result.best_trial
    assert best is not None
    assert load_recipe(folder.best).recipe.training.learning_rate == best.parameters["training.learning_rate"]
    update = {"recipe": str(folder.best), "overrides": (), "teachers": str(folder.teachers), "seed": 1}
    _, evaluation = distill(taught.model_copy(update=update), Events(), tmp_path / "run")
    assert evaluation.model("student").scores["accuracy"] == best.scores[1]


def test_page_says_that_the_best_is_optimistic_and_needs_nothing_from_elsewhere(real: Real) -> None:
    folder, result, _ = real
    page = folder.page.read_text(encoding="utf-8")
    assert "optimistic" in page
    assert f"kdcli evaluate {folder.trial(result.best or 0)} --split test" in page
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


class _CtrlC:
    """Presses Ctrl-C at a step of the so-manyth training."""

    def __init__(self, training: int, step: int) -> None:
        self.training, self.step = training, step

    def __call__(self, event: Event) -> None:
        self.training -= isinstance(event, PhaseStarted)
        if self.training == 0 and isinstance(event, StepDone) and event.step == self.step:
            self.training = -1
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_amid_a_run_and_amid_the_teachers_changes_nothing(real: Real, taught: TrainRequest, tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(TAUGHT)
    with pytest.raises(InterruptedRunError, match=r"kdcli distill --sweep .* --resume --out .* goes on"):
        sweep(taught, file, Events([_CtrlC(1, 7)]), out)
    assert not list(out.glob("trial-*"))
    told: list[Event] = []
    with pytest.raises(InterruptedRunError):
        sweep(None, file, Events([told.append, _CtrlC(3, 4)]), out, True)
    assert next(event for event in told if isinstance(event, PhaseStarted)).step == 7
    told.clear()
    _, result = sweep(None, file, Events([told.append]), out, True)
    resumed = next(event for event in told if isinstance(event, PhaseStarted))
    assert (resumed.phase, resumed.step) == ("distill", 4)
    assert table(result) == table(real[1])


def test_parameter_of_the_teachers_has_each_trial_train_its_own(taught: TrainRequest, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("parameters:\n  teachers.cofinetune.epochs: [1, 2]\n")
    assert not dry_sweep(taught, file, Events()).checked.once
    file.write_text("parameters:\n  stages.0.epochs: [1, 2]\n")
    assert dry_sweep(taught, file, Events()).checked.once
    assert job.MOST_FAILURES == 3


# values


def test_grid_point_of_each_number_is_another_one() -> None:
    loaded = loads("sampler: grid\ntrials: 5\nparameters:\n  training.batch_size: [1, 2, 3]\n  layers: [first, last]\n", "x")
    points = {str(grid_point(loaded.sweep, loaded.parameters, number)) for number in range(6)}
    assert len(points) == 6


def test_trial_result_keeps_its_scores_by_seed() -> None:
    one = TrialResult(number=0, rank=1, state="complete", mean=0.5, deviation=None, scores={3: 0.5}, parameters={}, folder="f")
    assert TrialResult.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize("value", ["yes", "1e5", "", "a: b", "null", {"bert": {1: 2}}, [1, None, "x"], 1e-05, True])
def test_text_of_a_value_is_read_as_the_same_value(value: Any) -> None:
    assert Override.parse(f"key={text(value)}").value == value
