"""The run folder: names, the latest run, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdcli.errors import RequestError
from kdcli.jobs.run_folder import find_run, new_run


def test_latest_points_to_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run = new_run(None, "sst2", "4L")
        run.point_latest_here()
        assert find_run(None).path == run.path
    assert len([path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]) == 2


def test_no_run_yet_is_said_with_the_first_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="kdcli distill --teachers bert,roberta --student 4L"):
        find_run(None)


def test_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run folder"):
        find_run(tmp_path).read_plan()


def test_out_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        new_run(tmp_path / "file" / "run", "sst2", "4L")
