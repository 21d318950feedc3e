"""Where kept files lie, that they appear whole, and that they go again."""

from __future__ import annotations

import os
from pathlib import Path
from time import time
from typing import BinaryIO

import pytest

from kdcli.caching import UNUSED_DAYS, cache_folder, cache_root, keep, mark_used, sweep

DAY = 24 * 60 * 60


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KDCLI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_cache_lies_in_the_home_folder(home: Path) -> None:
    assert cache_root() == home / ".cache" / "kdcli"
    assert cache_folder("tokens") == home / ".cache" / "kdcli" / "tokens"


@pytest.mark.parametrize(("value", "base"), [("/var/mine", "/var/mine/kdcli"), ("not/absolute", None), ("", None)])
def test_cache_lies_where_the_desktop_keeps_caches(
    home: Path, value: str, base: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_root() == (Path(base) if base else home / ".cache" / "kdcli")


def test_cache_lies_where_the_user_wants_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/mine")
    monkeypatch.setenv("KDCLI_CACHE", "~/kept")
    assert cache_root() == home / "kept"
    monkeypatch.chdir(home)
    monkeypatch.setenv("KDCLI_CACHE", "kept/here")
    assert cache_root() == home / "kept" / "here"


@pytest.mark.parametrize("value", ["", "off", "Off"])
def test_keeping_can_be_turned_off(home: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDCLI_CACHE", value)
    assert cache_folder("tokens") is None
    assert cache_root() == home / ".cache" / "kdcli"


def test_nothing_is_kept_for_a_user_without_a_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder("tokens") is None


def write(place: Path, text: bytes, days_unused: float = 0) -> Path:
    assert keep(place, lambda file: _write(file, text))
    os.utime(place, (time() - days_unused * DAY,) * 2)
    return place


def _write(file: BinaryIO, text: bytes) -> None:
    file.write(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_kept_file_replaces_the_old_one_and_is_for_its_user_alone(tmp_path: Path) -> None:
    place = tmp_path / "root" / "tokens" / "a"
    write(place, b"old")
    write(place, b"new")
    assert place.read_bytes() == b"new"
    assert names(place.parent) == ["a"]
    if os.name == "posix":
        assert place.parent.stat().st_mode & 0o077 == 0


def test_old_file_stays_when_writing_raises(tmp_path: Path) -> None:
    place = write(tmp_path / "a", b"old")

    def stopped(file: BinaryIO) -> None:
        file.write(b"ne")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        keep(place, stopped)
    assert place.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_file_that_cannot_be_kept_is_told_and_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not keep(tmp_path / "file" / "tokens" / "a", lambda file: _write(file, b"x"))
    mark_used(tmp_path / "file" / "tokens" / "a")
    sweep(tmp_path / "nowhere", spare=tmp_path / "a")
    assert names(tmp_path) == ["file"]


def test_sweep_removes_what_was_not_used_for_long(tmp_path: Path) -> None:
    for name, days in {"new": 0, "middle": UNUSED_DAYS - 1, "old": UNUSED_DAYS + 1, ".old.partial": UNUSED_DAYS + 1}.items():
        write(tmp_path / name, b"x", days)
    used = write(tmp_path / "used", b"x", UNUSED_DAYS + 1)
    mark_used(used)
    sweep(tmp_path, spare=tmp_path / "new")
    assert names(tmp_path) == ["middle", "new", "used"]


def test_sweep_removes_the_longest_unused_until_the_folder_is_small_enough(tmp_path: Path) -> None:
    for name, days in {"a": 4, "b": 1, "c": 3, "d": 2}.items():
        write(tmp_path / name, b"x" * 10, days)
    sweep(tmp_path, spare=tmp_path / "b", size_limit=25)
    assert names(tmp_path) == ["b", "d"]


def test_sweep_spares_the_file_that_was_just_written(tmp_path: Path) -> None:
    for name, days in {"large": 5, "small": 1}.items():
        write(tmp_path / name, b"x" * 10, days)
    sweep(tmp_path, spare=tmp_path / "large", size_limit=5)
    assert names(tmp_path) == ["large"]


def test_sweep_leaves_what_it_cannot_remove(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "inside", b"x", 99)
    os.utime(tmp_path / "folder", (0, 0))
    write(tmp_path / "old", b"x", 99)
    sweep(tmp_path, spare=tmp_path / "new")
    assert names(tmp_path) == ["folder"]
