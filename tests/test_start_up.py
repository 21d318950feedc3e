"""What a command imports before it answers, and how long that takes.

The lists of packages are what makes the commands quick: whoever imports one of them at the top of a module that a command
passes through makes the test of that command fail.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdcli.data import starter_data
from kdcli.recipe.catalogue import find, opening, shipped
from kdcli.recipe.loading import load

ROOT = Path(__file__).resolve().parents[1]
SLOW = {
    "accelerate", "datasets", "numpy", "onnxruntime", "pandas", "pyarrow", "pydantic", "scipy", "sklearn", "tokenizers",
    "torch", "transformers", "yaml",
}  # fmt: skip
QUICK_COMMANDS = (
    "--help",
    "--version",
    "distill --help",
    "cofinetune --help",
    "evaluate --help",
    "export --help",
    "recipe --help",
    "recipe list",
    "recipe list --json",
    "recipe schema",
)
NOT_IN_A_DRY_RUN = {
    "datasets",
    "kdcli.engine.loop",
    "kdcli.engine.stages",
    "kdcli.jobs.cofinetune",
    "kdcli.jobs.distill",
    "onnxruntime",
    "pandas",
    "scipy",
    "sklearn",
    "tensorboard",
    "transformers.modeling_utils",
    "transformers.models.bert.modeling_bert",
}

RUN = """
import json, sys
{before}
from kdcli.cli.start import main
sys.argv = ["kdcli", *sys.argv[1:]]
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
REFUSE_WEIGHTS = """
import safetensors.torch
from kdcli.models import weight_loading
def refuse(*given, **more):
    raise AssertionError("weights were loaded")
weight_loading._load = safetensors.torch.load_file = refuse
"""


def run(*words: str | Path, before: str = "") -> tuple[str, set[str]]:
    """What a command prints in a process of its own, and the modules that are there afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(before=before), *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture(scope="module")
def of_typer() -> set[str]:
    """What typer and rich import themselves."""
    code = "import json, sys, typer, rich; print(json.dumps(sorted(sys.modules)))"
    return set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout))


@pytest.mark.parametrize("command", QUICK_COMMANDS)
def test_quick_command_imports_nothing_slow(command: str, of_typer: set[str]) -> None:
    printed, modules = run(*command.split())
    assert printed
    assert (modules - of_typer) & SLOW == set()


@pytest.mark.parametrize("command", ["--help", "distill --help", "recipe list --json"])
def test_command_that_draws_nothing_leaves_the_console_out(command: str, of_typer: set[str]) -> None:
    _, modules = run(*command.split())
    assert "rich.console" not in modules - of_typer


def test_command_is_imported_when_it_is_asked_for() -> None:
    _, modules = run("recipe", "list")
    assert {name for name in modules if name.startswith("kdcli.")} == {
        "kdcli.cli",
        "kdcli.cli.commands",
        "kdcli.cli.app",
        "kdcli.cli.options",
        "kdcli.cli.recipe",
        "kdcli.cli.rendering",
        "kdcli.cli.session",
        "kdcli.cli.start",
        "kdcli.cli.printable",
        "kdcli.engine",
        "kdcli.engine.interruption",
        "kdcli.errors",
        "kdcli.atomic_files",
        "kdcli.sanitizing",
        "kdcli.recipe",
        "kdcli.recipe.catalogue",
    }


@pytest.mark.parametrize("name", sorted(shipped()))
def test_list_shows_what_the_whole_recipe_says(name: str) -> None:
    recipe, listed = load(find(name)).recipe, opening(find(name))
    assert (listed["name"], listed["summary"], listed.get("paper", "")) == (recipe.name, recipe.summary, recipe.paper)


def test_dry_run_loads_no_weights_and_knows_their_content(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> None:
    teachers = {"bert": tiny_bert, "roberta": tiny_roberta}
    printed, modules = run(
        "distill", "--teachers", ",".join(f"{name}={folder}" for name, folder in teachers.items()), "--student", "2L",
        "--data", tiny_data, "--device", "cpu", "--dry-run", "--json", before=REFUSE_WEIGHTS,
    )  # fmt: skip
    plan = json.loads(printed)
    assert modules & NOT_IN_A_DRY_RUN == set()
    assert {teacher["name"]: teacher["fingerprint"] for teacher in plan["teachers"]} == {
        name: sha256(folder / "model.safetensors") for name, folder in teachers.items()
    }
    assert {name: split["fingerprint"] for name, split in plan["task"]["splits"].items()} == {
        name: sha256(tiny_data / f"{name}.jsonl") for name in ("train", "dev", "test")
    }


def test_dry_run_of_cofinetuning_loads_no_weights(tiny_bert: Path, tiny_data: Path) -> None:
    _, modules = run(
        "cofinetune", "--teachers", f"bert={tiny_bert}", "--data", tiny_data, "--device", "cpu", "--dry-run",
        before=REFUSE_WEIGHTS,
    )  # fmt: skip
    assert modules & NOT_IN_A_DRY_RUN == set()


def test_recipe_check_imports_no_model_and_no_job(tiny_bert: Path, tiny_roberta: Path) -> None:
    teachers = f"bert={tiny_bert},roberta={tiny_roberta}"
    _, modules = run("recipe", "check", "minilm", "--teachers", teachers, "--student", "2L", before=REFUSE_WEIGHTS)
    assert modules & (NOT_IN_A_DRY_RUN | {"sklearn", "kdcli.jobs"}) == set()


def sha256(path: Path) -> str:
    """As plans hold it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


NESTED = '''
"""Module."""
if True:
    class First:
        """First."""
        async def method(self, values=lambda: [None for _ in ()]):
            """Method."""
            async with self:
                try:
                    def inner(): "inner"
                except* ValueError:
                    def handled(): "handled"
                else:
                    def otherwise(): "otherwise"
                finally:
                    def at_last(): "at last"
else:
    match 1:
        case 1:
            def matched(): "matched"
def second():
    """Second."""
    while False:
        class Deep: "deep"
    for _ in ():
        pass
    else:
        def behind(): "behind"
'''


def test_definitions_of_the_starter_task_come_in_the_order_of_a_whole_walk() -> None:
    for text in (NESTED, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "kdcli").rglob("*.py")))):
        tree = ast.parse(text)
        walked = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.stmt)]
        assert [node for node in starter_data._statements(tree) if isinstance(node, ast.Module | ast.stmt)] == walked


def test_files_of_the_starter_task_are_all_but_those_of_tests(tmp_path: Path) -> None:
    for name in ("b.py", "a/z.py", "a/tests/left_out.py", "a/b/c.py", "a/b/note.txt", "test/left_out.py", "a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert starter_data._files(tmp_path) == sorted(tmp_path / name for name in ("b.py", "a/z.py", "a/b/c.py", "a.py"))


@pytest.mark.parametrize("command", ["--help", "recipe list"])
def test_time_of_a_quick_command_is_near_that_of_importing_typer(command: str) -> None:
    """The one test of this file that looks at a clock: 1.5 to 2 times is usual, 3 times is refused, by the best of 7 rounds."""
    commands = {
        "typer": [sys.executable, "-c", "import typer, rich"],
        "kdcli": [sys.executable, "-m", "kdcli", *command.split()],
    }
    ratios = []
    for _ in range(7):
        seconds = {}
        for name, words in commands.items():
            begin = time.perf_counter()
            subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, timeout=120)
            seconds[name] = time.perf_counter() - begin
        ratios.append(seconds["kdcli"] / seconds["typer"])
        if ratios[-1] <= 3:
            return
    pytest.fail(f"it takes {min(ratios):.1f} times as long, at the best")
