"""The rooms of the house: who imports whom, who may print, and what the command line may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kdcli"
FROM_ROOF_TO_GROUND = (
    "api",
    "cli", "sweep", "jobs", "evaluation", "export", "engine", "plan", "losses", "models", "data", "tasks", "recipe", "errors",
    "atomic_files", "caching", "sanitizing",
)  # fmt: skip
FOR_ALL = {"errors", "atomic_files", "caching", "sanitizing"}
HEAVY = {"torch", "transformers", "numpy", "datasets", "pyarrow", "pandas", "sklearn", "accelerate", "onnxruntime"}
MODULES = sorted(PACKAGE.rglob("*.py"))
# Words of classification, and the only places outside of kdcli/tasks that say them in code, with what they mean there.
WORDS_OF_CLASSES = {
    "argmax": {"evaluation/similarity.py": "the best path through the layers"},
    "softmax": {"losses/weighting.py": "shares of teachers", "models/head.py": "attention pooling"},
    "log_softmax": {
        "losses/attention.py": "attention",
        "losses/relation_kl.py": "relations between tokens",
        "models/capture.py": "attention",
    },
    "num_labels": {
        "jobs/export.py": "names of the outputs in the file",
        "models/configuration.py": "what config.json says",
        "models/weight_checks.py": "shapes of a head",
        "plan/model_size.py": "size of a head",
    },
    "cross_entropy": {"losses/divergences.py": "a distance between distributions, whosever they are"},
    "nll_loss": {},
}


def _room(module: Path) -> str:
    """``cli`` for ``kdcli/cli/main.py``, ``errors`` for ``kdcli/errors.py``."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _label(module: Path) -> str:
    return module.relative_to(PACKAGE.parent).as_posix()


def _imports(module: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, inside functions and under TYPE_CHECKING too."""
    package = module.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _rooms_imported(module: Path) -> Iterator[tuple[int, str]]:
    for line, name in _imports(module):
        parts = name.split(".")
        if parts[0] == "kdcli" and len(parts) > 1 and not parts[1].startswith("__"):
            yield line, parts[1]


def test_every_module_lies_in_a_known_room() -> None:
    assert {_room(module) for module in MODULES} - {"__init__", "__main__"} == set(FROM_ROOF_TO_GROUND)


@pytest.mark.parametrize("module", MODULES, ids=_label)
def test_module_imports_only_from_its_own_room_and_rooms_below(module: Path) -> None:
    own = _room(module)
    below = {
        "__init__": set[str](),
        "__main__": {"cli"},
        **{room: set(FROM_ROOF_TO_GROUND[place:]) | FOR_ALL for place, room in enumerate(FROM_ROOF_TO_GROUND)},
        **{room: set[str]() for room in FOR_ALL},
    }
    assert [f"line {line}: {room}" for line, room in _rooms_imported(module) if room not in below[own]] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {module: _label(module).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for module in MODULES}
    imported = {
        name: {found for _, full in _imports(module) for found in (full, full.rpartition(".")[0]) if found in names.values()}
        for module, name in names.items()
    }

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            new = imported[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    circles = {name for name in imported if name in reached(name)}
    assert circles == set()


@pytest.mark.parametrize("module", [module for module in MODULES if _room(module) != "cli"], ids=_label)
def test_nothing_below_the_command_line_prints(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    printed = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    streams = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr")
    ]
    assert printed + streams == []


def _words(module: Path) -> set[str]:
    """Names in the code of a module, without its texts."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("word", WORDS_OF_CLASSES)
def test_nobody_outside_the_kinds_of_task_knows_that_a_task_has_classes(word: str) -> None:
    said = {module.relative_to(PACKAGE).as_posix() for module in MODULES if _room(module) != "tasks" and word in _words(module)}
    assert said == set(WORDS_OF_CLASSES[word])


def test_nobody_outside_the_kinds_of_task_asks_which_kind_it_is() -> None:
    """But for known tasks, which are of one, and the check of a recipe, which needs any."""
    named = {
        module.relative_to(PACKAGE).as_posix()
        for module in MODULES
        if _room(module) != "tasks" and {"Classification", "Regression"} & {name.split(".")[-1] for _, name in _imports(module)}
    }
    assert named == {"data/presets.py", "plan/resolve.py"}


@pytest.mark.parametrize("module", [module for module in MODULES if _room(module) == "recipe"], ids=_label)
def test_recipe_language_needs_no_heavy_package(module: Path) -> None:
    assert {name.split(".")[0] for _, name in _imports(module)} & HEAVY == set()


def test_help_loads_no_heavy_package() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "kdcli", "--help"],
        cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded = {
        line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert "kdcli" in loaded
    assert loaded & HEAVY == set()
    assert "distill" in done.stdout
