"""What ``kdcli evaluate`` can be pointed at, what it is called, and which runs are seeds of one recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from kdcli.engine.events import Event
from kdcli.errors import RequestError
from kdcli.evaluation.comparison import unlike
from kdcli.jobs.evaluation_targets import Target, find_targets, recipe_names
from kdcli.jobs.model_outputs import outputs_of
from kdcli.jobs.run_folder import RunFolder
from kdcli.plan.plan import Plan

TinyRun = tuple[Path, list[Event]]


def run_like(run: Path, folder: Path, seed: int = 0, **request: object) -> Path:
    """The plan of a run in another folder, with another seed."""
    folder.mkdir(parents=True)
    plan = yaml.safe_load((run / "plan.yaml").read_text(encoding="utf-8"))
    plan["request"] |= {"seed": seed, **request}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    return folder


def named(targets: list[Target]) -> list[tuple[str, str]]:
    return [(target.name, target.kind) for target in targets]


def groups(targets: list[Target]) -> list[str]:
    plans: list[Plan] = [RunFolder(target.path).read_plan() for target in targets]
    return recipe_names(targets, plans)


def test_a_run_a_checkpoint_a_teacher_and_a_table_are_told_apart(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = tiny_run[0]
    (tmp_path / "theirs.csv").write_text("prediction\npositive\n")
    words = [str(run), str(run / "student"), str(run / "teachers" / "bert"), str(tmp_path / "theirs.csv")]
    assert named(find_targets(words)) == [
        ("tiny", "run"),
        ("student", "checkpoint"),
        ("bert", "teacher"),
        ("theirs", "predictions"),
    ]


def test_a_word_may_give_a_name(tiny_run: TinyRun) -> None:
    assert named(find_targets([f"best={tiny_run[0]}"])) == [("best", "run")]


def test_a_path_with_an_equals_sign_is_a_path(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = run_like(tiny_run[0], tmp_path / "lr=3e-4")
    assert named(find_targets([str(folder)])) == [("lr=3e-4", "run")]


def test_onnx_files_are_found_in_an_export_folder_and_named_by_precision(tmp_path: Path) -> None:
    export = tmp_path / "mine" / "export"
    (export / "onnx").mkdir(parents=True)
    for name in ("model.onnx", "model_int8.onnx"):
        (export / "onnx" / name).touch()
    assert named(find_targets([str(export)])) == [("mine fp32", "onnx"), ("mine int8", "onnx")]
    assert named(find_targets([str(export / "onnx" / "model_int8.onnx")])) == [("mine int8", "onnx")]


def test_a_folder_of_runs_is_opened_without_the_link_to_the_latest(tiny_run: TinyRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        run_like(tiny_run[0], tmp_path / "seeds" / f"run-{seed}", seed)
    (tmp_path / "seeds" / "latest").symlink_to("run-1")
    assert named(find_targets([str(tmp_path / "seeds")])) == [("run-0", "run"), ("run-1", "run")]


def test_the_same_model_is_taken_once(tiny_run: TinyRun) -> None:
    assert len(find_targets([str(tiny_run[0]), str(tiny_run[0] / "..") + "/tiny"])) == 1


def test_models_of_one_name_are_called_by_their_folder_too(tiny_run: TinyRun, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_like(tiny_run[0], tmp_path / name / "run")
    assert named(find_targets([str(tmp_path / name / "run") for name in ("a", "b")])) == [("a/run", "run"), ("b/run", "run")]


def test_every_word_that_stands_for_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").touch()
    with pytest.raises(RequestError, match=r"missing(.|\n)*nothing that can be evaluated(.|\n)*notes\.md"):
        find_targets([str(tmp_path / "missing"), str(tmp_path / "empty"), str(tmp_path / "notes.md")])


def test_runs_that_differ_in_their_seed_are_one_recipe_named_as_their_folder(tiny_run: TinyRun, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        run_like(tiny_run[0], tmp_path / "mt-bert" / f"s{seed}", seed)
    assert groups(find_targets([str(tmp_path / "mt-bert")])) == ["mt-bert"] * 3


def test_runs_of_several_recipes_in_one_folder_are_named_by_what_their_names_share(tiny_run: TinyRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        run_like(tiny_run[0], tmp_path / "all" / f"bf16-{seed}", seed)
        run_like(tiny_run[0], tmp_path / "all" / f"one_layer{seed}", seed, student="1L")
    assert groups(find_targets([str(tmp_path / "all")])) == ["bf16", "bf16", "one_layer", "one_layer"]


def test_runs_named_one_by_one_are_recognised_too(tiny_run: TinyRun, tmp_path: Path) -> None:
    runs = [run_like(tiny_run[0], tmp_path / f"sst2-4L-2026112{seed}-101010", seed) for seed in (0, 1)]
    other = run_like(tiny_run[0], tmp_path / "other", 0, teachers="bert=elsewhere")
    found = groups(find_targets([str(path) for path in [*runs, other]]))
    assert found == ["sst2-4L", "sst2-4L", "other"]


def test_another_recipe_value_is_another_recipe(tiny_run: TinyRun, tmp_path: Path) -> None:
    first = run_like(tiny_run[0], tmp_path / "x-0", 0)
    second = run_like(tiny_run[0], tmp_path / "x-1", 1)
    plan = yaml.safe_load((second / "plan.yaml").read_text())
    plan["recipe"]["training"]["weight_decay"] = 0.5
    (second / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert len(set(groups(find_targets([str(first), str(second)])))) == 2


def test_without_words_the_latest_run_is_meant(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="there is no run here yet"):
        find_targets([])
    run_like(tiny_run[0], tmp_path / "runs" / "first")
    (tmp_path / "runs" / "latest").symlink_to("first")
    assert named(find_targets([])) == [("first", "run")]
    shutil.rmtree(tmp_path / "runs")


def test_a_taken_name_gets_a_number() -> None:
    assert [unlike("a", known) for known in ([], ["a"], ["a", "a (2)"], ["a (2)"])] == ["a", "a (2)", "a (3)", "a"]


def test_a_folder_whose_weights_have_another_name_is_no_checkpoint_with_weights(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "old"))
    (folder / "model.safetensors").rename(folder / "model_old.safetensors")
    assert named(find_targets([str(folder)])) == [("old", "checkpoint")]
    with pytest.raises(RequestError, match="under the name that is loaded"):
        outputs_of(find_targets([str(folder)])[0])


def test_a_name_before_a_path_with_signs(tiny_run: TinyRun, tmp_path: Path) -> None:
    folder = run_like(tiny_run[0], tmp_path / "lr=3e-4,b=2")
    assert named(find_targets([f"mine={folder}"])) == [("mine", "run")]
    with pytest.raises(RequestError, match=r"elsewhere/lr=1: there is no such run"):
        find_targets(["elsewhere/lr=1"])


@pytest.mark.parametrize(("file", "said"), [("adapter_config.json", "adapter"), ("modules.json", "sentence-transformers")])
def test_folders_that_look_like_checkpoints_are_called_what_they_are(
    file: str, said: str, tiny_bert: Path, tmp_path: Path
) -> None:
    (tmp_path / file).write_text("{}")
    shutil.copytree(tiny_bert, tmp_path / "0_Transformer")
    with pytest.raises(RequestError, match=said):
        outputs_of(find_targets([str(tmp_path)])[0])
