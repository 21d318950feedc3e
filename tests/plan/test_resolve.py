"""A request held against real checkpoints: every resolved number, and every mistake, all of them at once."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console, Group

from kdcli.cli.plan_view import plan_view
from kdcli.data.task import Task
from kdcli.errors import RequestError
from kdcli.evaluation.report.number_format import parameters_text
from kdcli.models.checkpoints import parse_references
from kdcli.models.head import SharedHead
from kdcli.models.teachers import Teacher
from kdcli.models.weight_loading import load_encoder, load_tokenizer
from kdcli.plan import resolve
from kdcli.plan.hardware import resolve_device, resolve_precision
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import make_plan
from kdcli.plan.settings import load_recipe, on_this_machine
from kdcli.recipe.yaml_document import Override
from tests.plan.desk import Desk, labels_of, maps_of

RECIPE = """\
name: mine
layers: uniform
stages:
  - name: first
    epochs: 2
    objective:
      - {loss: hidden-mse}
  - name: second
    epochs: 0.5
    objective:
      - {loss: hard-labels}
      - {loss: soft-labels}
training: {batch_size: 32, max_length: 64, precision: fp32}
"""


@pytest.fixture
def bert_copy(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT that a test may break."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


# What a plan says.


def test_plan_describes_the_teachers_as_their_files_do(desk: Desk) -> None:
    bert, roberta = desk.plan(RECIPE).teachers
    assert (bert.name, bert.model_type, bert.layers, bert.width, bert.heads) == ("bert", "bert", 4, 32, 4)
    assert (roberta.name, roberta.model_type, roberta.layers, roberta.width, roberta.heads) == ("roberta", "roberta", 6, 48, 4)
    assert (bert.kind, roberta.kind) == ("cofinetune", "cofinetune")
    assert (bert.same_tokens, roberta.same_tokens) == (True, False)
    assert bert.order is None


def test_parameters_are_those_of_the_teachers_as_they_will_give_outputs(
    desk: Desk, tiny_bert: Path, tiny_roberta: Path
) -> None:
    plan = desk.plan(RECIPE)
    head = SharedHead({"bert": 32, "roberta": 48}, len(plan.task.labels), plan.recipe.teachers.cofinetune.pooling)
    for name, folder in (("bert", tiny_bert), ("roberta", tiny_roberta)):
        assert plan.teacher(name).parameters == Teacher(name, load_encoder(folder), [0, 1], head).parameter_count


def test_student_is_cut_from_the_first_teacher(desk: Desk, tiny_bert: Path) -> None:
    student = desk.plan(RECIPE).student_or_fail
    assert (student.source, student.layers, student.width, student.heads) == ("bert", 2, 32, 4)
    assert student.copied_layers == [1, 2]
    assert student.source_folder == student.tokenizer_folder == str(tiny_bert.resolve())
    assert student.layer_parameters == 12 * 2 * 32**2


@pytest.mark.parametrize(
    ("flags", "student", "source", "copied"),
    [
        (["student.init.layers=first"], "3L", "bert", [1, 2, 3]),
        (["student.init.layers=last"], "3L", "bert", [2, 3, 4]),
        (["student.init.layers=uniform"], "2L", "bert", [2, 4]),
        (["student.init.layers=[1, 4]"], "2L", "bert", [1, 4]),
        (["student.init.layers=[4, 1]"], "2L", "bert", [4, 1]),
        (["student.init.from=roberta", "student.init.layers=uniform"], "4L", "roberta", [2, 3, 5, 6]),
        (["student.init.from=scratch"], "2L", "scratch", []),
        ([], "2L-16H", "scratch", []),
        ([], "2L-32H-8A", "scratch", []),
        ([], "2L-32H-4A", "bert", [1, 2]),
    ],
)
def test_copied_layers_are_what_the_recipe_says(
    desk: Desk, flags: list[str], student: str, source: str, copied: list[int]
) -> None:
    plan = desk.plan(RECIPE, *flags, student=student).student_or_fail
    assert (plan.source, plan.copied_layers) == (source, copied)
    assert (plan.source_folder is None) == (not copied)


def test_student_may_be_a_checkpoint(desk: Desk, tiny_roberta: Path) -> None:
    student = desk.plan(RECIPE, student=str(tiny_roberta), teachers=f"roberta={tiny_roberta}").student_or_fail
    assert (student.source, student.layers, student.copied_layers) == ("checkpoint", 6, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("layers", "maps"),
    [
        ("uniform", {"bert": {1: 2, 2: 4}, "roberta": {1: 3, 2: 6}}),
        ("first", {"bert": {1: 1, 2: 2}, "roberta": {1: 1, 2: 2}}),
        ("last", {"bert": {1: 3, 2: 4}, "roberta": {1: 5, 2: 6}}),
        ("{bert: {2: 4, 0: 0}, roberta: last}", {"bert": {0: 0, 2: 4}, "roberta": {1: 5, 2: 6}}),
        ("{bert: first}", {"bert": {1: 1, 2: 2}, "roberta": {1: 3, 2: 6}}),
    ],
)
def test_layer_maps_are_resolved_for_every_teacher(desk: Desk, layers: str, maps: dict[str, dict[int, int]]) -> None:
    (hop,) = desk.plan(RECIPE.replace("layers: uniform", f"layers: {layers}")).hops
    assert [maps_of(stage) for stage in hop.stages] == [{"hidden-mse": maps}, {"hard-labels": {}, "soft-labels": {}}]


def test_recipe_without_losses_on_layers_has_no_layer_maps(desk: Desk) -> None:
    stages = desk.plan(RECIPE.replace("hidden-mse", "soft-labels")).stages
    assert not any(term.layers for stage in stages for term in stage.terms)


def test_stages_have_their_steps_and_rates(desk: Desk) -> None:
    plan = desk.plan(
        RECIPE, "teachers.cofinetune.epochs=3", "training.learning_rate=1e-4", "training.projection_learning_rate=2e-3"
    )
    # 160 rows in batches of 32 are 5 steps an epoch
    assert [(stage.phase, stage.name, stage.steps) for stage in plan.stages] == [
        ("cofinetune", "cofinetune", 15),
        ("distill", "first", 10),
        ("distill", "second", 3),
    ]
    assert plan.stages[1].learning_rates == {"body": 1e-4, "head": 1e-3, "projection": 2e-3}
    assert labels_of(plan.stages) == [
        ("cofinetune", ["hard-labels"]),
        ("first", ["hidden-mse"]),
        ("second", ["hard-labels", "soft-labels"]),
    ]
    assert plan.cofinetune == plan.stages[:1]
    assert plan.hops[0].stages == plan.stages[1:]


def test_stages_rise_and_fall_as_the_training_says_unless_they_say_otherwise(desk: Desk) -> None:
    flags = ["training.warmup=0.2", "training.schedule=cosine", "stages.1.warmup=0", "stages.1.schedule=constant"]
    flags.append("training.learning_rate=4e-5")
    plan = desk.plan(RECIPE, *flags, "stages.1.learning_rate=7e-4", "stages.1.freeze=[embeddings, 2]")
    cofinetune, first, second = plan.stages
    assert [(stage.warmup, stage.schedule) for stage in plan.stages] == [(0.2, "cosine"), (0.2, "cosine"), (0.0, "constant")]
    assert (first.learning_rates["body"], second.learning_rates["body"]) == (4e-5, 7e-4)
    assert second.learning_rates["projection"] == 7e-4
    assert (cofinetune.freeze, first.freeze, second.freeze) == ([], [], ["embeddings", 2])
    assert (first.moves, second.moves) == (["embeddings", 1, 2], [1, "head"])


def test_rule_for_moving_on_is_kept_with_its_stage(desk: Desk) -> None:
    _, first, second = desk.plan(RECIPE, "stages.0.until={loss: hidden-mse, below: 0.5}").stages
    assert first.until is not None
    assert (first.until.loss, first.until.below, first.until.window) == ("hidden-mse", 0.5, 0.1)
    assert second.until is None


@pytest.mark.parametrize(
    ("batch", "epochs", "steps"), [(32, 1, 5), (33, 1, 5), (31, 1, 6), (160, 1, 1), (1000, 1, 1), (32, 0.01, 1), (7, 2, 46)]
)
def test_steps_of_a_stage_are_its_epochs_rounded_up(desk: Desk, batch: int, epochs: float, steps: int) -> None:
    plan = desk.plan(RECIPE, f"training.batch_size={batch}", f"stages.0.epochs={epochs}")
    assert plan.hops[0].stages[0].steps == steps


def test_teacher_with_a_head_is_not_cofinetuned_and_its_classes_are_matched_by_name(desk: Desk, classifier: Path) -> None:
    plan = desk.plan(RECIPE, teachers=f"bert={classifier}")
    teacher = plan.teacher("bert")
    assert (teacher.kind, teacher.order) == ("finetuned", [1, 0])
    assert plan.to_cofinetune == []
    assert [stage.phase for stage in plan.stages] == ["distill", "distill"]


def test_heads_are_dropped_where_the_recipe_says_so(desk: Desk, classifier: Path) -> None:
    plan = desk.plan(RECIPE, "teachers.cofinetune.which=all", teachers=f"bert={classifier}")
    assert plan.teacher("bert").kind == "cofinetune"
    assert plan.stages[0].phase == "cofinetune"


def test_recipe_may_name_the_classes_of_a_head(desk: Desk, classifier: Path) -> None:
    plan = desk.plan(RECIPE, "teachers.labels.bert=[negative, positive]", teachers=f"bert={classifier}")
    assert plan.teacher("bert").order == [0, 1]


def test_baseline_recipe_does_not_cofinetune_what_it_only_borrows(desk: Desk) -> None:
    plan = desk.plan("name: b\nstages: [{name: one, objective: [{loss: hard-labels}]}]\n")
    assert [stage.phase for stage in plan.stages] == ["distill"]


def test_cofinetuning_alone_needs_no_student(desk: Desk) -> None:
    plan = desk.plan(RECIPE, student=None, command="cofinetune")
    assert plan.student is None
    assert plan.hops == []
    assert [stage.phase for stage in plan.stages] == ["cofinetune"]
    assert not plan.baseline


def test_plan_survives_being_written_and_read(desk: Desk) -> None:
    plan = desk.plan(RECIPE)
    assert Plan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_estimate_is_positive_and_grows_with_the_epochs(desk: Desk, task: Task, tiny_bert: Path) -> None:
    def estimated(epochs: int) -> Plan:
        request = TrainRequest(
            command="distill", teachers=f"bert={tiny_bert}", student="2L", recipe="mt-bert", device="cpu",
            overrides=(Override.parse(f"stages.*.epochs={epochs}"), Override.parse("training.precision=fp32")),
        )  # fmt: skip
        return make_plan(
            on_this_machine(request, load_recipe(request)),
            task,
            parse_references(request.teachers, "--teachers"),
            starter=False,
        )

    short, long = estimated(1).estimate, estimated(1000).estimate
    assert short is not None
    assert long is not None
    assert 0 < short.seconds < long.seconds
    assert short.memory_bytes > 0
    assert 8 < short.tokens_per_sample < 30


# What a plan refuses.


@pytest.mark.parametrize(("student", "deepest"), [("5L", 4), ("12L", 4)])
def test_student_deeper_than_the_teacher_it_is_cut_from_is_refused(desk: Desk, student: str, deepest: int) -> None:
    problem = desk.refused(RECIPE, student=student)[0]
    assert problem.where == f"--student {student}"
    assert "deeper than the teacher" in problem.what
    assert problem.expected == f"at most {deepest} layers"
    assert problem.remedy.startswith("--student 2L")


def test_student_deeper_than_another_teacher_is_refused_at_the_layer_map(
    desk: Desk, tiny_bert: Path, tiny_roberta: Path
) -> None:
    (problem,) = desk.refused(RECIPE, student="6L", teachers=f"roberta={tiny_roberta},bert={tiny_bert}")
    assert problem.where == f"{desk.line(2)}  layers"
    assert "at least as deep" in problem.what
    assert "bert" in problem.expected


@pytest.mark.parametrize("student", ["4X", "four", "L4", "4L-", "4L-312"])
def test_student_that_is_neither_size_nor_checkpoint_is_refused(desk: Desk, student: str) -> None:
    (problem,) = desk.refused(RECIPE, student=student)
    assert problem.where == f"--student {student}"
    assert problem.what == "is neither a size nor a checkpoint"
    assert "4L-312H-12A" in problem.expected


@pytest.mark.parametrize("student", ["0L", "2L-0H", "2L-32H-5A", "2L-33H-4A"])
def test_size_that_cannot_be_built_is_refused(desk: Desk, student: str) -> None:
    assert desk.refused(RECIPE, student=student)[0].where == f"--student {student}"


@pytest.mark.parametrize("rows", ["[1]", "[1, 2, 3]", "[1, 5]"])
def test_list_of_layers_that_does_not_fit_the_student_is_refused_at_its_line(desk: Desk, rows: str) -> None:
    (problem,) = desk.refused(RECIPE + f"student: {{init: {{layers: {rows}}}}}\n")
    assert problem.where == f"{desk.line(14)}  student.init.layers"
    assert problem.found == rows


@pytest.mark.parametrize(
    ("extra", "where"),
    [
        ("layers: {brt: uniform}\n", "layers.brt"),
        ("teachers: {labels: {brt: [a, b]}}\n", "teachers.labels.brt"),
        ("student: {init: {from: brt}}\n", "student.init.from"),
    ],
)
def test_teacher_that_only_the_recipe_knows_is_refused_at_its_line(desk: Desk, extra: str, where: str) -> None:
    (problem,) = desk.refused(RECIPE.replace("layers: uniform\n", "summary: none\n") + extra)
    assert problem.where == f"{desk.line(14)}  {where}"
    assert problem.what == "there is no teacher 'brt'"
    assert problem.expected == "one of bert, roberta"
    assert problem.remedy == "did you mean 'bert'?"


def test_map_to_a_missing_layer_is_refused_at_its_line(desk: Desk) -> None:
    (problem,) = desk.refused(RECIPE.replace("layers: uniform", "layers:\n  bert: uniform\n  roberta: {2: 14}"))
    assert problem.where == f"{desk.line(4)}  layers.roberta"
    assert problem.what == "teacher layer 14 does not exist"
    assert problem.expected.startswith("0..6 ")
    assert "{1: 3, 2: 6}" in problem.remedy


def test_map_from_a_missing_student_layer_is_refused_at_the_flag(desk: Desk) -> None:
    flag = "layers={bert: {3: 4}}"
    (problem,) = desk.refused(RECIPE, flag)
    assert problem.where == f"--set {flag}  layers.bert"
    assert problem.what == "student layer 3 does not exist"


def test_unlike_widths_without_a_projection_are_refused_at_its_line(desk: Desk) -> None:
    (problem,) = desk.refused(RECIPE.replace("hidden-mse}", "hidden-mse,\n         projection: null}"))
    assert problem.where == f"{desk.line(8)}  stages.0.objective.0.projection"
    assert problem.expected == "32 on both sides"
    assert problem.found == "roberta 48"
    assert problem.remedy == "projection: auto"


def test_like_widths_need_no_projection(desk: Desk, tiny_bert: Path) -> None:
    desk.plan(RECIPE.replace("hidden-mse}", "hidden-mse, projection: null}"), teachers=f"bert={tiny_bert}")


def test_max_length_beyond_the_positions_is_refused_for_each_model(desk: Desk) -> None:
    found = desk.refused(RECIPE.replace("max_length: 64", "max_length: 129"))
    assert {problem.where for problem in found} == {f"{desk.line(13)}  training.max_length"}
    assert [problem.what for problem in found] == [
        f"is longer than {name} can take" for name in ("bert", "roberta", "the student")
    ]
    assert {(problem.expected, problem.found) for problem in found} == {("at most 128", "129")}


def test_longest_length_that_the_positions_allow_is_taken(desk: Desk) -> None:
    assert desk.plan(RECIPE, "training.max_length=128").recipe.training.max_length == 128


def test_classes_that_do_not_match_are_refused_with_both_lists(desk: Desk, classifier: Path, bert_copy: Path) -> None:
    shutil.copytree(classifier, bert_copy, dirs_exist_ok=True)
    config = json.loads((bert_copy / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "ham", "1": "spam"}, "label2id": {"ham": 0, "spam": 1}}
    (bert_copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (problem,) = desk.refused(RECIPE, teachers=f"mine={bert_copy}")
    assert problem.where == f"--teachers mine={bert_copy}"
    assert (problem.expected, problem.found) == ("negative, positive", "ham, spam")
    assert "teachers.labels.mine" in problem.remedy


def test_folder_without_weights_is_refused(desk: Desk, bert_copy: Path) -> None:
    (bert_copy / "model.safetensors").unlink()
    (problem,) = desk.refused(RECIPE, teachers=f"bert={bert_copy}")
    assert problem.where == f"--teachers bert={bert_copy}"
    assert problem.what == "the folder has no weights"
    assert "config.json" in problem.found


def test_pickled_weights_are_refused_with_the_command_that_converts_them(desk: Desk, bert_copy: Path) -> None:
    (bert_copy / "model.safetensors").unlink()
    (bert_copy / "pytorch_model.bin").touch()
    (problem,) = desk.refused(RECIPE, teachers=f"bert={bert_copy}")
    assert "pickled weights only" in problem.what
    assert problem.found == "pytorch_model.bin"
    assert "save_file" in problem.remedy
    assert "if you trust" in problem.remedy


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"half"])
def test_broken_weights_are_refused_with_their_file(desk: Desk, bert_copy: Path, content: bytes) -> None:
    weights = bert_copy / "model.safetensors"
    weights.write_bytes(content)
    (problem,) = desk.refused(RECIPE, teachers=f"bert={bert_copy}")
    assert problem.where == str(weights)
    assert problem.what == "is broken"


def test_weights_that_were_cut_off_are_refused_with_their_file(desk: Desk, bert_copy: Path) -> None:
    weights = bert_copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert desk.refused(RECIPE, teachers=f"bert={bert_copy}")[0].where == str(weights)


def test_folder_that_is_no_checkpoint_is_refused(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (problem,) = desk.refused(RECIPE, teachers=f"bert={tmp_path / 'empty'}")
    assert problem.what == "is not a checkpoint"
    assert problem.found == "an empty folder"


def test_folder_without_a_fast_tokenizer_is_refused(desk: Desk, bert_copy: Path) -> None:
    (bert_copy / "tokenizer.json").unlink()
    (problem,) = desk.refused(RECIPE, teachers=f"bert={bert_copy}")
    assert problem.what == "has no fast tokenizer"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model_type": "no-such-model"}', "{}", '{"model_type": "t5"}', '{"model_type": "resnet"}']
)
def test_config_of_no_encoder_is_refused(desk: Desk, bert_copy: Path, content: str) -> None:
    (bert_copy / "config.json").write_text(content, encoding="utf-8")
    (problem,) = desk.refused(RECIPE, teachers=f"bert={bert_copy}")
    assert str(bert_copy) in problem.where


def test_folder_that_does_not_exist_is_refused(desk: Desk, tmp_path: Path) -> None:
    (problem,) = desk.refused(RECIPE, teachers=f"bert={tmp_path / 'none'}")
    assert problem.where == f"--teachers {tmp_path / 'none'}"
    assert problem.what == "there is no such folder"


def test_unknown_alias_is_refused_with_the_nearest(desk: Desk) -> None:
    (problem,) = desk.refused(RECIPE, teachers="robrta")
    assert problem.where == "--teachers robrta"
    assert problem.what == "there is no such model"
    assert problem.remedy == "did you mean 'roberta'?"


def test_all_broken_teachers_are_reported_at_once(desk: Desk, tmp_path: Path) -> None:
    found = desk.refused(RECIPE, teachers=f"robrta,mine={tmp_path / 'none'}")
    assert [problem.what for problem in found] == ["there is no such model", "there is no such folder"]


def test_mistakes_of_every_kind_are_reported_at_once(desk: Desk, classifier: Path, tiny_roberta: Path) -> None:
    recipe = (
        RECIPE.replace("layers: uniform", "layers: {bert: {2: 9}, robert: last}")
        .replace("hidden-mse}", "hidden-mse, projection: null}")
        .replace("max_length: 64", "max_length: 999")
    )
    found = desk.refused(recipe, "teachers.labels.bert=[ham, spam]", teachers=f"bert={classifier},roberta={tiny_roberta}")
    assert {problem.what.split(" can ")[0] for problem in found} == {
        "the classes of its head are not the classes of the task",
        "there is no teacher 'robert'",
        "is longer than bert",
        "is longer than roberta",
        "is longer than the student",
        "teacher layer 9 does not exist",
        "the widths differ, so a projection is needed",
    }


def test_student_mistake_comes_together_with_those_of_the_recipe(desk: Desk) -> None:
    found = desk.refused(RECIPE.replace("max_length: 64", "max_length: 999"), student="4X")
    assert {problem.where for problem in found} == {"--student 4X", f"{desk.line(13)}  training.max_length"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_fp16_without_a_gpu_is_refused_where_it_was_asked_for(desk: Desk) -> None:
    (at_flag,) = desk.refused(RECIPE, "training.precision=fp16")
    assert at_flag.where == "--set training.precision=fp16"
    (at_line,) = desk.refused(RECIPE.replace("precision: fp32", "precision: fp16"))
    assert at_line.where == f"{desk.line(13)}  training.precision"
    assert {(problem.what, problem.remedy) for problem in (at_flag, at_line)} == {("fp16 needs a GPU", "--precision auto")}


def test_device_and_precision_are_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_precision("fp32", cpu) == "fp32"
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("auto", cpu) in ("fp32", "bf16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError, match="no CUDA device is available"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")


def test_each_tokenizer_is_loaded_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    def load_and_note(folder: Path) -> Any:
        loaded.append(folder.resolve())
        return load_tokenizer(folder)

    monkeypatch.setattr(resolve, "load_tokenizer", load_and_note)
    request = TrainRequest(command="distill", teachers=desk.both, student="2L", device="cpu")
    plan = make_plan(
        on_this_machine(request, load_recipe(request)), desk.task, parse_references(desk.both, "--teachers"), starter=False
    )
    assert [teacher.same_tokens for teacher in plan.teachers] == [True, False]
    assert plan.estimate is not None
    assert sorted(loaded) == sorted(folder.resolve() for folder in desk.models)


@pytest.mark.parametrize(
    ("settings", "ours", "theirs"),
    [
        ((), "layers 2, 4 of co-finetuned bert", "layers 2, 4 of pre-trained bert"),
        (("student.init.weights=pretrained",), "layers 2, 4 of pre-trained bert", "layers 2, 4 of pre-trained bert"),
        (("student.init.from=scratch",), "random weights", "random weights"),
    ],
)
def test_a_plan_says_what_student_and_baseline_begin_with(
    settings: tuple[str, ...], ours: str, theirs: str, desk: Desk
) -> None:
    plan = desk.plan_of("kdcli", *settings, baseline=True)
    assert plan.alone is not None
    assert plan.first_weights(plan.student_or_fail) == ours
    assert plan.first_weights(plan.alone, "pretrained") == theirs
    assert [theirs in note for note in plan.notes_on_baseline] == ([True] if ours != theirs else [])


def test_a_teacher_that_was_given_fine_tuned_is_not_called_pretrained(desk: Desk, classifier: Path) -> None:
    plan = desk.plan_of("mt-bert", teachers=f"mine={classifier}", baseline=True)
    assert plan.alone is not None
    for student in (plan.student_or_fail, plan.alone):
        assert plan.first_weights(student, "pretrained") == "layers 1–2 and the head of fine-tuned mine"
    assert any("mine was given fine-tuned and has no other weights" in note for note in plan.notes)
    assert plan.baseline_name == "without teachers, from fine-tuned mine"
    assert desk.plan_of("mt-bert", baseline=True).baseline_name == "without teachers"
    (note,) = plan.notes_on_baseline
    assert (
        note
        == "the student without teachers began with layers 1–2 and the head of fine-tuned mine too, which know the task already"
    )


def test_a_recipe_without_teachers_does_not_speak_of_them(desk: Desk) -> None:
    plan = desk.plan_of("finetune")
    assert not plan.cofinetune
    assert not [note for note in plan.notes if "co-finetuned" in note]
    assert any("asks no teacher" in note for note in plan.notes)
    assert not plan.distills


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_every_figure_of_the_models_is_shown_at_any_width(width: int, desk: Desk) -> None:
    plan = desk.plan(RECIPE)
    out = StringIO()
    Console(file=out, width=width).print(Group(*plan_view(plan, width)))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).replace("\n", " ").split()
    models: list[Any] = [*plan.teachers, plan.student_or_fail]
    for model in models:
        figures = (model.layers, model.width, model.heads, model.vocabulary, parameters_text(model.parameters))
        assert {str(figure) for figure in figures} <= set(words)


def test_a_students_own_head_is_kept_where_its_classes_are_the_tasks(desk: Desk, classifier: Path) -> None:
    student = desk.plan_of("kdcli", student=str(classifier)).student_or_fail
    assert student.own_classes == ["POSITIVE", "NEGATIVE"]
    assert student.head_order == [1, 0]


def test_a_students_head_over_other_classes_is_not_kept_and_that_is_said(desk: Desk, classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "good", "1": "bad"}, "label2id": {"good": 0, "bad": 1}}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    plan = desk.plan_of("kdcli", student=str(tmp_path / "other"))
    assert plan.student_or_fail.head_order is None
    assert any("has a head for other classes (good, bad)" in note for note in plan.notes)
    assert plan.first_weights(plan.student_or_fail) == "a checkpoint of its own, with a fresh head"


def test_a_bare_student_gets_a_fresh_head_without_further_words(desk: Desk, tiny_bert: Path) -> None:
    plan = desk.plan_of("kdcli", student=str(tiny_bert))
    assert (plan.student_or_fail.own_classes, plan.student_or_fail.head_order) == (None, None)
    assert not [note for note in plan.notes if "head for other classes" in note]
