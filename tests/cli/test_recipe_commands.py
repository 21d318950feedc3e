"""``kdcli recipe``: list, show, check and schema, as a user types them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from transformers import BertConfig, RobertaConfig
from typer.testing import CliRunner, Result

from kdcli.cli.app import app
from kdcli.recipe.catalogue import DEFAULT_RECIPE, schema_file, shipped
from kdcli.recipe.yaml_document import parse

MINE = """\
name: mine
layers: LAYERS
stages:
  - name: one
    epochs: 2
    objective:
      - {loss: hidden-mse}
      - {loss: soft-labels, weight: 0.5}
"""
ARROW = re.compile(r"^\s*(\d+) ◀─── +(\d+)\s*$")


def kdcli(*words: str | Path, columns: int = 80) -> Result:
    """Run a command in this process, on so many columns."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": str(columns)})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``config.json`` of a BERT of 4 layers, and nothing else."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    size = {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 90}
    BertConfig(**size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``config.json`` of a RoBERTa of 6 layers, and nothing else."""
    folder = tmp_path_factory.mktemp("models") / "roberta"
    size = {"num_hidden_layers": 6, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 90}
    RobertaConfig(**size, pad_token_id=1).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the commands are typed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def flat(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


def whole(text: str) -> str:
    """The text without any space, as a narrow column breaks words as well."""
    return "".join(text.split())


# list


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_list_has_a_row_for_every_recipe_within_the_columns_of_the_terminal(columns: int) -> None:
    done = kdcli("recipe", "list", columns=columns)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert all(len(line) <= columns for line in lines)
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == list(shipped())
    assert lines[0].split("  ")[0] == "recipe"


def test_list_says_what_each_does_at_every_width() -> None:
    for columns in (60, 120):
        rows = [line for line in kdcli("recipe", "list", columns=columns).stdout.splitlines() if line.strip()]
        begins = rows[0].index("what it does")
        ends = rows[0].index("from") if "from" in rows[0] else None
        told = whole("".join(row[begins:ends] for row in rows[1:]))
        for name, path in shipped().items():
            summary = parse(path.read_text(encoding="utf-8"), name).data["summary"]
            assert whole(summary) in told
        assert told.count("(default)") == 1
        assert whole(parse(shipped()[DEFAULT_RECIPE].read_text(encoding="utf-8"), "").data["summary"]) + "(default)" in told


def test_list_says_where_each_is_from_where_there_is_room() -> None:
    wide, narrow = (kdcli("recipe", "list", columns=columns).stdout for columns in (120, 60))
    assert "arXiv" in wide
    assert "Findings of ACL" in wide
    assert "from" in wide.splitlines()[0].split()
    assert narrow.splitlines()[0].split() == ["recipe", "what", "it", "does"]


def test_list_as_json_is_one_document() -> None:
    done = kdcli("recipe", "list", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(shipped())
    assert [row["name"] for row in rows if row["default"]] == [DEFAULT_RECIPE]
    for row in rows:
        data = parse(shipped()[row["name"]].read_text(encoding="utf-8"), row["name"]).data
        assert row == {
            "name": data["name"],
            "summary": data["summary"],
            "paper": data.get("paper", ""),
            "default": row["name"] == DEFAULT_RECIPE,
        }


# show


@pytest.mark.parametrize("name", sorted(shipped()))
def test_show_prints_the_file_as_it_is(name: str) -> None:
    done = kdcli("recipe", "show", name, columns=40)
    assert done.exit_code == 0, done.output
    assert done.stdout == shipped()[name].read_text(encoding="utf-8")
    assert done.stderr == ""


def test_show_highlights_on_a_terminal_and_changes_no_word() -> None:
    done = CliRunner().invoke(app, ["recipe", "show", "mt-bert"], env={"FORCE_COLOR": "1", "COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "\x1b[" in done.stdout
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    text = shipped()["mt-bert"].read_text(encoding="utf-8")
    assert [line.rstrip() for line in plain.rstrip().splitlines()] == text.splitlines()


def test_what_is_shown_is_a_recipe_of_ones_own(folder: Path) -> None:
    (folder / "mine.yaml").write_text(kdcli("recipe", "show", "internal-stacked").stdout, encoding="utf-8")
    assert kdcli("recipe", "check", "mine.yaml").exit_code == 0
    assert kdcli("recipe", "show", "mine.yaml").stdout == kdcli("recipe", "show", "internal-stacked").stdout


@pytest.mark.parametrize("command", ["show", "check"])
def test_recipe_that_does_not_exist_is_refused_with_the_nearest_and_as_it_was_typed(command: str) -> None:
    done = kdcli("recipe", command, "mtbert")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "there is no such recipe" in done.stderr
    assert "did you mean 'mt-bert'?" in done.stderr
    assert done.stderr.startswith(f"error  recipe {command} mtbert: ")


@pytest.mark.parametrize("command", ["show", "check"])
def test_file_that_does_not_exist_is_refused_as_a_file(command: str) -> None:
    done = kdcli("recipe", command, "nowhere/mine.yaml")
    assert done.exit_code == 2
    assert "there is no such file" in done.stderr
    assert done.stderr.startswith(f"error  recipe {command} nowhere/mine.yaml: ")


@pytest.mark.parametrize("command", ["show", "check"])
def test_file_that_is_no_text_is_refused(command: str, folder: Path) -> None:
    (folder / "mine.yaml").write_bytes(b"name: \xff\xfe\n")
    done = kdcli("recipe", command, "mine.yaml")
    assert done.exit_code == 2
    assert done.stderr.startswith("error  ")
    assert "mine.yaml" in done.stderr


# check


def write(folder: Path, text: str = MINE, layers: str = "uniform", name: str = "mine.yaml") -> str:
    """A recipe of the user's in the folder; its name."""
    (folder / name).write_text(text.replace("LAYERS", layers), encoding="utf-8")
    return name


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_recipe_is_right_in_itself(name: str) -> None:
    done = kdcli("recipe", "check", name)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{name}: the recipe is right in itself")
    assert done.stderr == ""


def test_right_recipe_is_told_in_one_line_that_names_it(folder: Path) -> None:
    for name in ("mine.yaml", "mine[red]s.yaml", "a-recipe-whose-name-is-as-long-as-the-names-of-files-now-and-then-are.yaml"):
        done = kdcli("recipe", "check", write(folder, name=name))
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[0].startswith(f"{name}: the recipe is right in itself")
        assert len(done.stdout.splitlines()) == 1


def test_wrong_recipe_is_told_with_every_mistake(folder: Path) -> None:
    name = write(folder, MINE + "training: {batch_size: 0, warmup: 2}\nlayer: top\n", layers="unifrom")
    done = kdcli("recipe", "check", name)
    assert done.exit_code == 2
    assert done.stdout == ""
    for place in (
        "mine.yaml:2  layers:",
        "mine.yaml:9  training.batch_size:",
        "mine.yaml:9  training.warmup:",
        "mine.yaml:10  layer:",
    ):
        assert f"error  {place}" in done.stderr
    assert done.stderr.count("error  ") == 4
    assert "Traceback" not in done.stderr


def test_flags_override_and_are_told_where_they_are_wrong(folder: Path) -> None:
    name = write(folder)
    assert kdcli("recipe", "check", name, "--set", "stages.0.epochs=3").exit_code == 0
    done = kdcli("recipe", "check", name, "--set", "stages.0.epochs=0", "--set", "stages.0.objective.0.weight=x")
    assert done.exit_code == 2
    assert "error  --set stages.0.epochs=0  stages.0.epochs: has a wrong value" in done.stderr
    assert "error  --set stages.0.objective.0.weight=x  stages.0.objective.0.weight: has a wrong value" in done.stderr


def test_mistakes_against_models_are_all_told(folder: Path, bert: Path, roberta: Path) -> None:
    text = MINE + "  - {name: two, freeze: [9], objective: [{loss: attention-kl, heads: {brt: mean}}]}\n"
    name = write(folder, text, layers="{bert: {1: 9}}")
    done = kdcli("recipe", "check", name, "--teachers", f"bert={bert},roberta={roberta}", "--student", "2L")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "error  mine.yaml:2  layers.bert: teacher layer 9 does not exist" in done.stderr
    assert "error  mine.yaml:9  stages.1.objective.0.heads.brt: there is no teacher 'brt'" in done.stderr
    assert "error  mine.yaml:9  stages.1.freeze: student layer 9 does not exist" in done.stderr
    assert "  try       did you mean 'bert'?" in done.stderr
    assert done.stderr.count("error  ") == 3


def test_student_without_teachers_is_refused(folder: Path) -> None:
    done = kdcli("recipe", "check", write(folder), "--student", "2L")
    assert done.exit_code == 2
    assert "error  --student: needs --teachers as well" in done.stderr


def test_teachers_without_a_student_are_refused_unless_the_recipe_has_a_size(folder: Path, bert: Path) -> None:
    done = kdcli("recipe", "check", write(folder), "--teachers", f"bert={bert}")
    assert done.exit_code == 2
    assert "error  --student: is missing" in done.stderr
    sized = kdcli("recipe", "check", write(folder, MINE + "student: {size: 3L}\n"), "--teachers", f"bert={bert}")
    assert sized.exit_code == 0, sized.output
    assert kdcli("recipe", "check", "born-again", "--teachers", f"bert={bert}").exit_code == 0


@pytest.mark.parametrize("teachers", ["brt", "bert=./nowhere", "bert=one,bert=two", ""])
def test_teachers_that_are_not_there_are_refused(teachers: str, folder: Path) -> None:
    done = kdcli("recipe", "check", write(folder), "--teachers", teachers, "--student", "2L")
    assert done.exit_code == 2
    assert done.stderr.startswith("error  --teachers")
    assert "Traceback" not in done.output


def test_right_recipe_is_drawn_with_its_maps_and_stages(bert: Path, roberta: Path) -> None:
    teachers = f"bert={bert},roberta={roberta}"
    rate = ("--set", "training.learning_rate=5e-5")
    done = kdcli("recipe", "check", "internal-stacked", "--teachers", teachers, "--student", "2L", *rate, columns=120)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert done.stdout.startswith("internal-stacked: right for these models\n")
    text = flat(done.stdout)
    assert "Layer map of attention-kl, hidden-cosine (0 is the embeddings)" in text
    assert re.search(r"student +bert +student +roberta", done.stdout)
    assert re.search(r"2 ◀─── +4 +2 ◀─── +6", done.stdout)
    assert "internal-1, 1 epoch, learning rate 5e-05" in text
    assert "attention-kl × 1 (student layer 1)" in text
    assert "hidden-cosine × 1 (student layers 1–2; projected: student (roberta), per layer)" in text
    assert "or until hidden-cosine is below 0.02" in text
    assert "moves: embeddings, layer 1" in text
    assert "classification, 4 epochs, learning rate 5e-05" in text
    assert "moves: embeddings, layers 1–2, head" in text


def test_chain_is_drawn_hop_by_hop(bert: Path, roberta: Path) -> None:
    done = kdcli(
        "recipe", "check", "teacher-assistant", "--teachers", f"bert={bert},roberta={roberta}", "--student", "2L",
        "--set", "stages.0.objective.2={loss: hidden-mse}", columns=100,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    text = flat(done.stdout)
    assert "assistant-1 (3 layers), taught by bert, roberta" in text
    assert "student (2 layers), taught by assistant-1" in text
    assert "Layer map of hidden-mse, assistant-1 (0 is the embeddings)" in text
    assert "Layer map of hidden-mse (0 is the embeddings)" in text


@pytest.mark.parametrize("name", sorted(shipped()))
def test_drawing_keeps_within_a_narrow_terminal(name: str, bert: Path, roberta: Path) -> None:
    teachers = f"bert={bert},roberta={roberta}"
    done = kdcli("recipe", "check", name, "--teachers", teachers, "--student", "2L", columns=60)
    assert done.exit_code == 0, done.output
    assert all(len(line) <= 60 for line in done.stdout.splitlines())
    assert "Stages" in done.stdout


def arrows(text: str) -> dict[int, int]:
    """The pairs that a picture of one teacher connects."""
    found = [match for line in text.splitlines() if (match := ARROW.match(line))]
    return {int(match[1]): int(match[2]) for match in found}


@pytest.mark.parametrize(
    ("student", "layers", "pairs"),
    [
        ("2L", "uniform", {1: 2, 2: 4}),
        ("4L", "uniform", {1: 1, 2: 2, 3: 3, 4: 4}),
        ("3L", "last", {1: 2, 2: 3, 3: 4}),
        ("3L", "skip", {1: 1, 2: 3}),
        ("3L", "top", {3: 4}),
        ("3L", "middle", {1: 2}),
        ("3L", "embeddings", {0: 0}),
        ("3L", "{bert: {1: 4}}", {1: 4}),
        ("3L", "{bert: {3: 1}}", {3: 1}),
        ("3L", "{bert: {0: 0, 2: 3}}", {0: 0, 2: 3}),
        ("3L", "{bert: {0: 2, 3: 4}}", {0: 2, 3: 4}),
        ("3L", "{bert: {1: 4, 2: 4, 3: 4}}", {1: 4, 2: 4, 3: 4}),
        ("3L", "{bert: {1: 4, 2: 1}}", {1: 4, 2: 1}),
        ("3L", "{bert: {1: 0, 3: 4}}", {1: 0, 3: 4}),
    ],
)
def test_arrows_stand_between_the_layers_that_are_matched_and_between_no_others(
    student: str, layers: str, pairs: Mapping[int, int], folder: Path, bert: Path
) -> None:
    done = kdcli("recipe", "check", write(folder, layers=layers), "--teachers", f"bert={bert}", "--student", student)
    assert done.exit_code == 0, done.output
    assert arrows(done.stdout) == pairs
    picture = done.stdout.partition("Layer map")[2].partition("Stages")[0]
    drawn = [int(word) for word in re.findall(r"\b\d+\b", picture.partition(")")[2])]
    assert {layer for layer in range(1, int(student[0]) + 1) if drawn.count(layer) == 0} == set()


def test_different_maps_have_a_picture_each(folder: Path, bert: Path) -> None:
    text = MINE + "      - {loss: hidden-cosine, layers: top}\n      - {loss: attention-kl}\n"
    done = kdcli("recipe", "check", write(folder, text), "--teachers", f"bert={bert}", "--student", "2L")
    titles = [line for line in done.stdout.splitlines() if line.startswith("Layer map")]
    assert titles == [
        "Layer map of hidden-mse, attention-kl (0 is the embeddings)",
        "Layer map of hidden-cosine (0 is the embeddings)",
    ]


def test_terms_of_one_loss_with_maps_of_their_own_have_a_picture_each(folder: Path, bert: Path) -> None:
    text = MINE + "      - {loss: hidden-mse, layers: {bert: {1: 4}}}\n"
    done = kdcli("recipe", "check", write(folder, text), "--teachers", f"bert={bert}", "--student", "2L")
    assert done.exit_code == 0, done.output
    pictures = done.stdout.partition("Stages")[0].split("Layer map of ")[1:]
    assert [arrows(picture) for picture in pictures] == [{1: 2, 2: 4}, {1: 4}]


def test_names_with_brackets_are_drawn_as_they_are(folder: Path, bert: Path) -> None:
    text = MINE.replace("name: one", 'name: "one [bold]"')
    name = write(folder, text, name="mine[red].yaml")
    done = kdcli("recipe", "check", name, "--teachers", f"bert={bert}", "--student", "2L")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("mine[red].yaml: right for these models")
    assert "one [bold], 2 epochs" in done.stdout


def test_nothing_is_written(folder: Path, bert: Path) -> None:
    name = write(folder)
    kdcli("recipe", "check", name, "--teachers", f"bert={bert}", "--student", "2L")
    kdcli("recipe", "list")
    kdcli("recipe", "schema")
    assert [entry.name for entry in folder.iterdir()] == [name]
    assert [entry.name for entry in bert.iterdir()] == ["config.json"]


# schema and help


def test_schema_is_the_shipped_json_schema() -> None:
    done = kdcli("recipe", "schema", columns=40)
    assert done.exit_code == 0, done.output
    assert done.stdout == schema_file().read_text(encoding="utf-8")
    assert json.loads(done.stdout)["title"] == "kdcli recipe"


@pytest.mark.parametrize("command", ["list", "show", "check", "schema"])
def test_help_ends_with_two_examples_that_can_be_typed(command: str) -> None:
    done = kdcli("recipe", command, "--help", columns=200)
    assert done.exit_code == 0
    _, _, examples = done.stdout.partition("Examples:")
    assert len(re.findall(rf"^ +kdcli recipe {command}\b", examples, re.MULTILINE)) >= 2


def test_help_of_all_of_them_has_examples_and_names_each_command() -> None:
    for words in (["recipe", "--help"], ["recipe"]):
        shown = kdcli(*words, columns=120).output
        for command in ("list", "show", "check", "schema"):
            assert re.search(rf"^ +{command} +\w", shown, re.MULTILINE)
        assert len(re.findall(r"^ +kdcli recipe \w+", shown, re.MULTILINE)) >= 2
    assert "recipe" in kdcli("--help").stdout
