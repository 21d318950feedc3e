"""One run, one folder: where everything of a run lies, and how a run is found again."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from pydantic import ValidationError

from kdcli.atomic_files import damage, write_text
from kdcli.errors import Problem, RequestError, RunFailedError
from kdcli.jobs.ownership import LOCK
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest

RUNS = Path("runs")
LATEST = "latest"
_HERE = "<run>/"
_LONGEST_PLAN = 2_000_000
_DEEPEST_PLAN = 100
_BEGINS = (
    yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken,
)  # fmt: skip
_ENDS = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
_SEAL = "# sha256 "
_PARTIAL = re.compile(r"\..+\.partial")
_LONGEST_NAME = 100
_BEGIN_AGAIN = "it was stopped before its plan was written: the same command without --resume begins it again"
_WHOLE_PLAN = "put back the plan.yaml that the run wrote, or start a new run"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(yaml.SafeDumper):
    """YAML without anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class RunFolder:
    """The places inside a run folder.

    Attributes:
        path: the folder.
        made: the folders that were made for it, the outermost first.
    """

    path: Path
    made: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def plan(self) -> Path:
        """The resolved request."""
        return self.path / "plan.yaml"

    @property
    def metrics(self) -> Path:
        """Every logged value, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def teachers(self) -> Path:
        """Co-finetuned teachers, and the shared head."""
        return self.path / "teachers"

    @property
    def student(self) -> Path:
        """The student as an ordinary checkpoint."""
        return self.path / "student"

    def assistant(self, name: str) -> Path:
        """An assistant as an ordinary checkpoint."""
        return self.path / "assistants" / name

    @property
    def out_of_fold(self) -> Path:
        """What copies of the teachers say of training samples that they were not trained on."""
        return self.path / "out-of-fold"

    @property
    def baseline(self) -> Path:
        """The same student, trained without teachers."""
        return self.path / "baseline"

    @property
    def starter(self) -> Path:
        """Data and untrained teachers of the starter task."""
        return self.path / "starter"

    @property
    def checkpoints(self) -> Path:
        """Resumable state, one folder per phase."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The scores at the end of the run, on the dev split."""
        return self.path / "evaluation.json"

    @property
    def export(self) -> Path:
        """The folder that goes to production."""
        return self.path / "export"

    @property
    def log(self) -> Path:
        """Where TensorBoard and other local trackers write."""
        return self.path / "tensorboard"

    def write_plan(self, plan: Plan) -> None:
        """Keep the plan as YAML; paths inside the run are kept without the run's own, so that the folder can be moved."""
        inside = f"{self.path.resolve()}{os.sep}"
        data = _with_texts(
            plan.model_dump(by_alias=True),
            lambda text: _HERE + text.removeprefix(inside) if text.startswith(inside) else text,
        )
        text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        write_text(self.plan, f"{text}{_SEAL}{_digest(text)}\n")

    def read_plan(self) -> Plan:
        """The plan of the run.

        Raises:
            RequestError: the folder is not a run, the plan is not a plan, or another version of kdcli wrote it.
        """
        if not self.plan.is_file():
            raise RequestError(
                Problem(
                    str(self.path),
                    "is not a run folder" if self.path.is_dir() else "there is no such run",
                    "a folder with plan.yaml, as kdcli distill makes it",
                    remedy=_BEGIN_AGAIN if (self.path / LOCK).exists() else "",
                )
            )
        inside = f"{self.path.resolve()}{os.sep}"
        data = _with_texts(
            _plain_yaml(self.plan), lambda text: inside + text.removeprefix(_HERE) if text.startswith(_HERE) else text
        )
        return _as_plan(data, self.plan)

    def refuse_damage(self) -> None:
        """Refuse to go on from files of this run that are not what it wrote.

        Raises:
            RequestError: the plan was changed.
            RunFailedError: a model, or the starter task, is damaged; the error says what to remove.
        """
        text, _, seal = self.plan.read_text(encoding="utf-8").rpartition(_SEAL)
        if seal != f"{_digest(text)}\n":
            raise RequestError(
                Problem(
                    str(self.plan),
                    "has changed since the run wrote it",
                    "the plan that the run was begun with",
                    remedy="start a new run; kdcli evaluate and kdcli export take the plan as it is",
                )
            )
        assistants = sorted(self.assistant("any").parent.glob("[!.]*"))
        for folder in (self.starter, self.teachers, *assistants, self.student, self.baseline):
            why = damage(folder) if folder.is_dir() else ""
            if why:
                raise RunFailedError(f"{folder / why}; remove {folder}, and --resume makes it again")

    def refuse_half(self, plan: Plan) -> None:
        """Refuse a run whose models are there in part.

        Raises:
            RequestError: with the file that is missing, and the way to make it again.
        """
        models = [self.student, self.baseline, *(self.assistant(hop.name) for hop in plan.hops[:-1])]
        if self.teachers.is_dir():
            models += [self.teachers / teacher.name for teacher in plan.to_cofinetune]
        for folder in (model for model in models if model.exists() or model.parent == self.teachers):
            for pattern in ("config.json", "model*.safetensors", "tokenizer.json"):
                if not any(folder.glob(pattern)):
                    whole = self.teachers if folder.parent == self.teachers else folder
                    again = f"kdcli {plan.request['command']} --resume --out {shlex.quote(str(self.path))}"
                    raise RequestError(
                        Problem(
                            str(folder / pattern.replace("*", "")),
                            "is missing: the model is there in part",
                            remedy=f"remove {whole}; {again} makes it again",
                        )
                    )

    def refuse_begun(self) -> None:
        """Refuse a folder that is not empty, but for what a start that was killed has left there.

        Raises:
            RequestError: there is anything else in it, or it is no folder.
        """
        if self.path.is_dir() and not self._others():
            return
        raise RequestError(
            Problem(
                f"--out {self.path}",
                "is there already",
                "a folder that is new or empty",
                remedy=f"--resume --out {shlex.quote(str(self.path))} to go on with it"
                if self.plan.is_file()
                else "another --out",
            )
        )

    def _others(self) -> list[str]:
        """What is in the folder that a killed start would not have left."""
        names = {entry.name for entry in self.path.iterdir()}
        left = {LOCK, self.starter.name} if LOCK in names and self.starter.is_dir() else {LOCK}
        return sorted(name for name in names - left if not _PARTIAL.fullmatch(name))

    def remove_start(self) -> None:
        """Remove what a start has made that did not get as far as its plan, and nothing else."""
        for folder in (self.starter, self.path / f".{self.starter.name}.partial"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.plan, self.path / f".{self.plan.name}.partial"):
            file.unlink(missing_ok=True)

    def point_latest_here(self) -> None:
        """Let ``latest``, beside the run, point to it; where there are no links, it stays as it is."""
        link = self.path.parent / LATEST
        partial = self.path.parent / f".{LATEST}.{uuid4().hex}.partial"
        if link.exists() and not link.is_symlink():
            return
        with suppress(OSError):
            os.symlink(self.path.resolve().name, partial)
            try:
                os.replace(partial, link)
            finally:
                partial.unlink(missing_ok=True)


def new_run(out: Path | None, task: str, what: str) -> RunFolder:
    """Make a run folder: ``--out``, or ``runs/<task>-<what>-<time>``, which no other process can be given as well.

    Raises:
        RequestError: ``--out`` is there already and not empty, or cannot be written.
    """
    if out is not None:
        where = f"--out {out}"
        refuse_unwritable(out, where)
        try:
            return RunFolder(out, (*_made_above(out), *_made(out)))
        except FileExistsError:
            run = RunFolder(out)
            run.refuse_begun()
            return run
        except OSError as error:
            raise _unwritable(where, error.strerror or str(error)) from error
    refuse_unwritable(RUNS, "runs")
    begin = re.sub(r"[^\w.-]+", "-", f"{task}-{what}")[:_LONGEST_NAME]
    stem = f"{begin}-{datetime.now():%Y%m%d-%H%M%S}"
    number, path = 1, RUNS / stem
    try:
        above = _made_above(path)
        while True:
            try:
                return RunFolder(path, (*above, *_made(path)))
            except FileExistsError:
                number += 1
                path = RUNS / f"{stem}-{number}"
    except OSError as error:
        raise _unwritable("runs", str(error.filename)) from error


def _made_above(path: Path) -> tuple[Path, ...]:
    """Make the folders above a path; those that were not there."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return tuple(reversed(missing))


def _made(path: Path) -> tuple[Path, ...]:
    """Make one folder; FileExistsError where anybody else has made it."""
    path.mkdir()
    return (path,)


def _plain_yaml(path: Path) -> Any:
    """What a plan file holds, as dicts, lists and scalars; bounded in time and memory.

    Raises:
        RequestError: it cannot be read, is far too long, or is not YAML as kdcli writes it.
    """
    try:
        if path.stat().st_size > _LONGEST_PLAN:
            raise ValueError(f"{path.stat().st_size:,} bytes, and no plan has more than {_LONGEST_PLAN:,}")
        text = path.read_text(encoding="utf-8")
        _refuse_bombs(text)
        return yaml.load(text, Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise RequestError(
            Problem(f"{path}{line}", "cannot be read as a plan", "plan.yaml as the run wrote it", what, _WHOLE_PLAN)
        ) from error


def _refuse_bombs(text: str) -> None:
    """Refuse aliases, which can stand for more than fits into memory, and depth, which ends libyaml's stack."""
    depth = 0
    for token in yaml.scan(text, Loader=_Loader):
        depth += isinstance(token, _BEGINS) - isinstance(token, _ENDS)
        if isinstance(token, yaml.AliasToken):
            raise ValueError("aliases, which no plan has")
        if depth > _DEEPEST_PLAN:
            raise ValueError(f"more than {_DEEPEST_PLAN} levels, which no plan has")


def _as_plan(data: Any, path: Path) -> Plan:
    written = data.get("format") if isinstance(data, dict) else None
    ours = Plan.model_fields["format"].default
    if isinstance(written, int) and written != ours:
        age = "a newer" if written > ours else "an older"
        raise RequestError(
            Problem(
                f"{path}  format",
                f"was written by {age} version of kdcli",
                str(ours),
                str(written),
                f"use the version that wrote it: {data.get('versions', {}).get('kdcli', 'unknown')}"
                if isinstance(data.get("versions"), dict)
                else "",
            )
        )
    try:
        plan = Plan.model_validate(data)
        TrainRequest.model_validate(plan.request)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        begin = "request." if error.title == TrainRequest.__name__ else ""
        key = begin + ".".join(str(part) for part in first["loc"])
        raise RequestError(
            Problem(f"{path}  {key}".rstrip(), "is not as a plan has it", first["msg"], remedy=_WHOLE_PLAN)
        ) from error
    except RecursionError as error:
        raise RequestError(Problem(str(path), "is nested too deeply for a plan", remedy=_WHOLE_PLAN)) from error
    return plan


def _with_texts(data: Any, change: Callable[[str], str]) -> Any:
    """Plain data with every text in it changed."""
    if isinstance(data, dict):
        return {key: _with_texts(value, change) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_with_texts(value, change) for value in data]
    return change(data) if isinstance(data, str) else data


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_unwritable(path: Path, where: str) -> None:
    """Refuse a place that cannot be written to.

    Raises:
        RequestError: the nearest folder that is there is none, or forbids it.
    """
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise _unwritable(where, str(existing))


def _unwritable(where: str, what: str) -> RequestError:
    return RequestError(Problem(where, f"{what} cannot be written to", "a folder that you may write to", remedy="--out DIR"))


def find_run(path: Path | None) -> RunFolder:
    """The run in ``path``, or the latest one.

    Raises:
        RequestError: there is none.
    """
    if path is not None:
        return RunFolder(path.resolve() if path.is_symlink() else path)
    latest = RUNS / LATEST
    if not latest.exists():
        raise RequestError(
            Problem(
                str(latest),
                "there is no run here yet",
                remedy="kdcli distill --teachers bert,roberta --student 4L, or name a run or a checkpoint folder",
            )
        )
    return RunFolder(latest.parent / latest.resolve().name)
