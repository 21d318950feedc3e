"""One run, one folder, one process that writes into it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from kdcli.engine.events import Events
from kdcli.errors import RequestError
from kdcli.jobs.distill import distill
from kdcli.jobs.evaluate import EvaluateRequest, evaluate
from kdcli.jobs.export import ExportRequest, export
from kdcli.jobs.ownership import LOCK, owned
from kdcli.jobs.run_folder import new_run
from kdcli.plan.request import TrainRequest

_OWNS_UNTIL_KILLED = """
import sys, time
from pathlib import Path
from kdcli.jobs.ownership import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_owner_and_dies_with_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _OWNS_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"owned\n"
        with pytest.raises(RequestError, match=f"another process.*\n.*\n.*process {other.pid} on "), owned(tmp_path):
            pass
        other.kill()
        other.wait()
    assert (tmp_path / LOCK).is_file()
    with owned(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be written to"), owned(tmp_path / "nowhere"):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text", encoding="utf-8")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(RequestError), owned(tmp_path):
        pass
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "text"


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len({new_run(None, "train", "2L").path for _ in range(5)}) == 5


def test_a_run_that_is_at_work_is_refused_to_all_who_would_write_into_it(
    tiny_run: tuple[Path, object], request_for_tiny: TrainRequest
) -> None:
    run, _ = tiny_run
    with ExitStack() as stack:
        stack.enter_context(owned(run))
        for work in (
            lambda: distill(None, Events(), run, resume=True),
            lambda: evaluate(EvaluateRequest((str(run),)), Events()),
            lambda: export(ExportRequest(run, benchmark="off"), Events()),
        ):
            with pytest.raises(RequestError, match=f"another process is at work.*\n.*\n.*process {os.getpid()} "):
                work()
    with pytest.raises(RequestError, match="is there already"):
        distill(request_for_tiny, Events(), run)


def test_a_folder_of_a_killed_start_is_taken_and_what_the_user_put_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".starter.partial").mkdir()
    (tmp_path / ".plan.yaml.partial").touch()
    (tmp_path / LOCK).touch()
    (tmp_path / "starter").mkdir()
    assert new_run(tmp_path, "starter", "2L").path == tmp_path
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RequestError, match="is there already"):
        new_run(tmp_path, "starter", "2L")


def test_a_start_that_fails_removes_what_it_made_and_nothing_else(tmp_path: Path, request_for_tiny: TrainRequest) -> None:
    wrong = request_for_tiny.model_copy(update={"student": "400L"})
    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "mine", tmp_path / "new" / "deep" / "run"):
        with pytest.raises(RequestError):
            distill(wrong, Events(), out)
    wrong = request_for_tiny.model_copy(update={"data": request_for_tiny.data.__class__(data=str(tmp_path / "no.csv"))})
    for out in (tmp_path / "mine", tmp_path / "new" / "deep" / "run"):
        with pytest.raises(RequestError):
            distill(wrong, Events(), out)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
