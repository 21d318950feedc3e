"""The folder of a sweep: where its trials, its results and what it was begun with lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep

from pydantic import ValidationError

from kdcli.atomic_files import write_json, write_text
from kdcli.engine.events import Events, Note
from kdcli.errors import Problem, RequestError, RunTakenError
from kdcli.jobs.ownership import owned
from kdcli.jobs.run_folder import new_run
from kdcli.plan.request import TrainRequest
from kdcli.recipe.yaml_document import parse, written
from kdcli.sweep.sweep_file import LoadedSweep

_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class SweepFolder:
    """The places inside a sweep's folder.

    Attributes:
        path: the folder.
        made: the folders that were made for it, the outermost first.
    """

    path: Path
    made: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def file(self) -> Path:
        """What the sweep's file said when it was begun, without the storage."""
        return self.path / "sweep.yaml"

    @property
    def request(self) -> Path:
        """What was asked for beside the file."""
        return self.path / "request.json"

    @property
    def teachers(self) -> Path:
        """The run in which bare teachers were co-finetuned, once for all trials."""
        return self.path / "teachers-run"

    @property
    def best(self) -> Path:
        """The recipe with the best trial's values."""
        return self.path / "best.yaml"

    @property
    def document(self) -> Path:
        """The results as JSON."""
        return self.path / "sweep.json"

    @property
    def table(self) -> Path:
        """The results as CSV."""
        return self.path / "sweep.csv"

    @property
    def page(self) -> Path:
        """The results as a page."""
        return self.path / "sweep.html"

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.path / f"trial-{number:04}"

    def run(self, number: int, seed: int) -> Path:
        """The run folder of a trial's seed."""
        return self.trial(number) / f"seed-{seed}"


def begun(out: Path | None, task: str, loaded: LoadedSweep, request: TrainRequest) -> SweepFolder:
    """A new folder, with what the sweep is begun with.

    Raises:
        RequestError: ``out`` is there already and not empty, or cannot be written.
    """
    run = new_run(out, task, "sweep")
    run.refuse_begun()
    folder = SweepFolder(run.path, run.made)
    write_text(folder.file, written(loaded.content))
    write_json(folder.request, request.as_data())
    return folder


def removed(folder: SweepFolder) -> None:
    """Take away what was made for a sweep that could not begin."""
    for file in (folder.file, folder.request):
        file.unlink(missing_ok=True)
    for made in reversed(folder.made):
        with suppress(OSError):  # somebody else has put something there
            made.rmdir()


def found(out: Path | None, loaded: LoadedSweep, request: TrainRequest | None) -> tuple[SweepFolder, TrainRequest]:
    """The folder of a sweep that goes on, and what it was begun with.

    Raises:
        RequestError: there is no sweep in ``out``, or the file or the flags differ from those that it was begun with.
    """
    if out is None:
        raise RequestError(Problem("--resume", "needs the sweep's folder", remedy="--resume --out DIR --sweep FILE"))
    folder = SweepFolder(out)
    if not folder.file.is_file() or not folder.request.is_file():
        raise RequestError(
            Problem(f"--out {out}", "there is no sweep here", "a folder with sweep.yaml, as kdcli distill --sweep makes it")
        )
    before = parse(folder.file.read_text(encoding="utf-8"), str(folder.file)).data
    changed = [key for key in {**before, **loaded.content} if before.get(key) != loaded.content.get(key)]
    if changed:
        raise RequestError(
            Problem(
                f"--sweep {loaded.document.origin}",
                "differs from the file that the sweep was begun with",
                f"the same as {folder.file}",
                "another " + ", ".join(changed),
                "the same file; or a new sweep, without --resume and with another --out",
            )
        )
    return folder, _same_request(folder, request)


def _same_request(folder: SweepFolder, request: TrainRequest | None) -> TrainRequest:
    try:
        original = TrainRequest.model_validate_json(folder.request.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RequestError(Problem(str(folder.request), "is not what the sweep wrote", remedy="begin a new sweep")) from error
    if request is None or request == original:
        return original
    raise RequestError(
        Problem(
            "--resume",
            "the flags differ from those that the sweep was begun with",
            "the same flags, or none besides --resume, --out and --sweep",
            request.changes_from(original),
        )
    )


@contextmanager
def owned_in_turn(path: Path, events: Events) -> Iterator[None]:
    """Be the only process at work in a folder, after those before have ended."""
    with ExitStack() as owning:
        said = False
        while True:
            with suppress(RunTakenError):
                owning.enter_context(owned(path))
                break
            if not said:
                events.emit(Note(f"waiting for another process at work in {path}"))
            said = True
            sleep(_BETWEEN_LOOKS)
        yield
