"""What ``kdcli evaluate`` was pointed at: runs, folders of runs, checkpoints, ONNX files, predictions."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Literal

from kdcli.data.readers import SUFFIXES
from kdcli.errors import Problem, RequestError
from kdcli.evaluation.comparison import unlike
from kdcli.export.file_names import precision_of
from kdcli.jobs.run_folder import find_run
from kdcli.models.head_file import shared_head_of
from kdcli.models.weights import has_weights
from kdcli.plan.plan import Plan

TargetKind = Literal["run", "checkpoint", "teacher", "onnx", "predictions"]
_ONNX = ".onnx"
_LONGEST_NAME = 100
_LIKE_A_CHECKPOINT = ("config.json", "adapter_config.json", "modules.json")  # the last two are refused for what they are


@dataclass(frozen=True)
class Target:
    """One thing to evaluate.

    Attributes:
        name: what it is called in tables; no two have the same.
        path: where it is.
        kind: a run; a checkpoint with a head of its own; a teacher under a shared head; an ONNX file; a table of predictions.
        folder: the folder of runs that it was found in, if it was.
    """

    name: str
    path: Path
    kind: TargetKind
    folder: Path | None = None


def find_targets(words: Sequence[str]) -> list[Target]:
    """Every run and model that was named, folders of runs opened; without words the latest run.

    A word is a path, or ``name=path``.

    Raises:
        RequestError: with every word that stands for nothing that can be evaluated.
    """
    if not words:
        run = find_run(None)
        return [Target(run.path.name, run.path, "run")]
    found: list[Target] = []
    problems: list[Problem] = []
    for word in words:
        try:
            name, path = _named(word)
            opened = list(_opened(path))
        except RequestError as error:
            problems += error.problems
            continue
        if name is not None and len(opened) > 1:
            opened = [replace(target, name=f"{name} {target.name}") for target in opened]
        elif name is not None:
            opened = [replace(opened[0], name=name)]
        found += opened
    if problems:
        raise RequestError(problems)
    once = {target.path.resolve(): target for target in reversed(found)}
    return _with_unique_names([target for target in found if once[target.path.resolve()] is target])


def _named(word: str) -> tuple[str | None, Path]:
    name, equals, path = word.partition("=")
    if not equals or not path or _is_there(word) or not (_is_there(path) or "/" not in name):
        return None, Path(word)
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise RequestError(
            Problem(
                word[:_LONGEST_NAME],
                "the name before the = cannot be shown in a table",
                f"1 to {_LONGEST_NAME} printable characters",
                f"{len(name)} characters" if len(name) > _LONGEST_NAME else repr(name),
            )
        )
    return name, Path(path)


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # longer than a name can be, or with characters that none has
        return False


def _opened(path: Path) -> Iterator[Target]:
    name = path.resolve().name
    if path.is_file():
        yield Target(*_file(path))
    elif (path / "plan.yaml").is_file():
        yield Target(name, find_run(path).path, "run")
    elif not path.is_dir():
        raise RequestError(
            Problem(str(path), "there is no such run, checkpoint or file", remedy=f"relative paths begin at {Path.cwd()}")
        )
    elif (path / "config.json").is_file() and has_weights(path):
        yield Target(name, path, "checkpoint" if shared_head_of(path) is None else "teacher")
    elif files := sorted((path / "onnx").glob(f"*{_ONNX}")):
        yield from (Target(*_file(file)) for file in files)
    elif runs := _runs_in(path):
        yield from (Target(run.name, run, "run", path.resolve()) for run in runs)
    elif any((path / file).is_file() for file in _LIKE_A_CHECKPOINT):
        yield Target(name, path, "checkpoint")
    else:
        shown = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "an empty folder"
        raise RequestError(
            Problem(
                str(path),
                "is nothing that can be evaluated",
                "a run (plan.yaml), a folder of runs, a checkpoint (config.json and model.safetensors), an ONNX file with its "
                "tokenizer, or a table of predictions",
                shown,
            )
        )


def _file(path: Path) -> tuple[str, Path, TargetKind]:
    if path.suffix == _ONNX:
        above = path.resolve().parent
        above = above.parent if above.name == "onnx" else above
        above = above.parent if above.name == "export" else above
        return f"{above.name} {precision_of(path)}", path, "onnx"
    if path.suffix.lower() in SUFFIXES:
        return path.stem, path, "predictions"
    kinds = f"{_ONNX}, or a table of predictions ({', '.join(SUFFIXES)})"
    raise RequestError(Problem(str(path), "is of a kind that cannot be evaluated", kinds))


def _runs_in(folder: Path) -> list[Path]:
    """The finished or begun runs in a folder, without the link to the latest."""
    return sorted(path for path in folder.iterdir() if not path.is_symlink() and (path / "plan.yaml").is_file())


def _with_unique_names(targets: Sequence[Target]) -> list[Target]:
    """Names that several targets have get the folder above put before them, then a number behind them."""
    counts = Counter(target.name for target in targets)
    named = [
        replace(target, name=f"{target.path.resolve().parent.name}/{target.name}") if counts[target.name] > 1 else target
        for target in targets
    ]
    unique: list[Target] = []
    for target in named:
        unique.append(replace(target, name=unlike(target.name, {other.name for other in unique})))
    return unique


def recipe_names(targets: Sequence[Target], plans: Sequence[Plan]) -> list[str]:
    """For each run the name of what it shares with the runs that differ from it in the seed alone.

    All runs of one folder are called as the folder is; else what their names begin with, or the recipe.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, plan in enumerate(plans):
        groups[_but_for_the_seed(plan)].append(place)
    in_folder: Counter[Path | None] = Counter(target.folder for target in targets if target.folder is not None)
    names: list[str] = [""] * len(targets)
    for places in groups.values():
        name = unlike(_group_name([targets[place] for place in places], in_folder, plans[places[0]]), names)
        for place in places:
            names[place] = name
    return names


def _group_name(members: Sequence[Target], in_folder: Counter[Path | None], plan: Plan) -> str:
    if len(members) == 1:
        return members[0].name
    folders = {target.folder for target in members}
    folder = folders.pop() if len(folders) == 1 else None
    if folder is not None and in_folder[folder] == len(members):
        return folder.name
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*(target.name for target in members), strict=False))
    common = re.sub(r"[\W_]*\d*$", "", "".join(letters[0] for letters in alike))
    return common or f"{plan.recipe.name} {plan.student.reference if plan.student else ''}".strip()


def _but_for_the_seed(plan: Plan) -> str:
    """All that decides about a run's result, but its seed; as text that two such runs share."""
    request = {key: value for key, value in plan.request.items() if key not in ("seed", "device", "track")}
    teachers = [] if plan.task.starter else [teacher.fingerprint for teacher in plan.given_teachers]
    return json.dumps([request, plan.recipe.model_dump(mode="json", by_alias=True), plan.precision, teachers], sort_keys=True)
