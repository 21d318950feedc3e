"""One run, one folder: where everything of a run lies, and how a run is found again."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from kdcli.errors import Problem, RequestError
from kdcli.files import write_text
from kdcli.plan.plan import Plan

RUNS = Path("runs")
LATEST = "latest"


@dataclass(frozen=True)
class RunFolder:
    """The places inside a run folder."""

    path: Path

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
        """Keep the plan as YAML."""
        text = yaml.safe_dump(plan.model_dump(by_alias=True), sort_keys=False, allow_unicode=True, width=120)
        write_text(self.plan, text)

    def read_plan(self) -> Plan:
        """The plan of the run.

        Raises:
            RequestError: the folder is not a run, or another version of kdcli wrote it.
        """
        if not self.plan.is_file():
            raise RequestError(
                Problem(
                    str(self.path),
                    "is not a run folder" if self.path.is_dir() else "there is no such run",
                    "a folder with plan.yaml, as kdcli distill makes it",
                )
            )
        try:
            return Plan.model_validate(yaml.safe_load(self.plan.read_text(encoding="utf-8")))
        except (ValueError, yaml.YAMLError) as error:
            raise RequestError(
                Problem(str(self.plan), "cannot be read as a plan of this version", found=str(error).splitlines()[0])
            ) from error

    def point_latest_here(self) -> None:
        """Let ``latest``, beside the run, point to it."""
        link = self.path.parent / LATEST
        partial = self.path.parent / f".{LATEST}.partial"
        partial.unlink(missing_ok=True)
        if link.exists() and not link.is_symlink():
            return
        os.symlink(self.path.name, partial)
        os.replace(partial, link)


def new_run(out: Path | None, task: str, what: str) -> RunFolder:
    """A run folder that does not exist yet: ``--out``, or ``runs/<task>-<what>-<time>``.

    Raises:
        RequestError: ``--out`` is there already and not empty, or cannot be written.
    """
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RequestError(
                Problem(
                    f"--out {out}",
                    "is there already",
                    "a folder that is new or empty",
                    remedy=f"--resume --out {shlex.quote(str(out))} to go on with it"
                    if (out / "plan.yaml").is_file()
                    else "another --out",
                )
            )
        refuse_unwritable(out, f"--out {out}")
        return RunFolder(out)
    refuse_unwritable(RUNS, "runs")
    stem = re.sub(r"[^\w.-]+", "-", f"{task}-{what}-{datetime.now():%Y%m%d-%H%M%S}")
    path, number = RUNS / stem, 2
    while path.exists():
        path, number = RUNS / f"{stem}-{number}", number + 1
    return RunFolder(path)


def refuse_unwritable(path: Path, where: str) -> None:
    """Refuse a place that cannot be written to.

    Raises:
        RequestError: the nearest folder that is there is none, or forbids it.
    """
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RequestError(
            Problem(where, f"{existing} cannot be written to", "a folder that you may write to", remedy="--out DIR")
        )


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
