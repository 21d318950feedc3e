"""What is written appears as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdcli.atomic_files import damage, has_its_sum, replace_with_sum, whole_folder, write_json, write_text


class StoppedError(Exception):
    """Stands for whatever may go wrong while something is written."""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write_half(place: Path) -> None:
    with whole_folder(place) as partial:
        (partial / "new").touch()
        raise StoppedError


def test_folder_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "model"
    with whole_folder(place) as partial:
        (partial / "weights").write_text("new", encoding="utf-8")
        assert not place.exists()
        assert partial.parent == place.parent
    assert (place / "weights").read_text(encoding="utf-8") == "new"
    assert _names(place.parent) == ["model"]


def test_new_folder_takes_the_place_of_the_old_one_completely(tmp_path: Path) -> None:
    place = tmp_path / "model"
    for name in ("old", "new"):
        with whole_folder(place) as partial:
            (partial / name).touch()
    assert _names(place) == ["new"]
    assert _names(tmp_path) == ["model"]


def test_old_folder_stays_when_the_block_raises(tmp_path: Path) -> None:
    place = tmp_path / "model"
    place.mkdir()
    (place / "old").write_text("whole", encoding="utf-8")
    with pytest.raises(StoppedError):
        _write_half(place)
    assert (place / "old").read_text(encoding="utf-8") == "whole"
    assert _names(place) == ["old"]
    assert _names(tmp_path) == ["model"]


def test_remains_of_a_killed_writer_do_not_get_into_the_folder(tmp_path: Path) -> None:
    place = tmp_path / "model"
    for remains in (".model.partial", ".model.old"):
        (tmp_path / remains).mkdir()
        (tmp_path / remains / "stale").touch()
    with whole_folder(place) as partial:
        (partial / "new").touch()
    assert _names(place) == ["new"]
    assert _names(tmp_path) == ["model"]


def test_text_is_written_with_its_folders_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "notes.txt"
    write_text(path, "π\n")
    write_text(path, "ρ\n")
    assert path.read_bytes() == "ρ\n".encode()
    assert _names(path.parent) == ["notes.txt"]


def test_old_text_stays_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "whole")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half " * 10_000 + "\ud800")
    assert path.read_text(encoding="utf-8") == "whole"
    assert _names(tmp_path) == ["notes.txt"]


def test_json_is_readable_text_that_gives_the_value_back(tmp_path: Path) -> None:
    value = {"labels": ["négatif", "positif"], "score": 0.5, "missing": None}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "négatif" in text
    assert text.endswith("}\n")


def test_old_json_stays_when_the_value_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert path.read_text(encoding="utf-8") == "1\n"


def test_files_of_a_folder_are_as_readable_as_their_neighbours(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "model") as partial:
        (partial / "plain").touch()
        (partial / "weights").touch(mode=0o600)
    assert (tmp_path / "model" / "weights").stat().st_mode == (tmp_path / "model" / "plain").stat().st_mode


def test_damage_to_a_sealed_folder_is_named(tmp_path: Path) -> None:
    place = tmp_path / "model"
    with whole_folder(place, sealed=True) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "weights").write_bytes(b"weights")
    (place / "README.md").touch()
    assert damage(place) == ""
    (place / "deep" / "weights").write_bytes(b"weighty")
    assert "deep/weights" in damage(place)
    (place / "deep" / "weights").unlink()
    assert "deep/weights" in damage(place)
    (place / "SHA256SUMS").unlink()
    assert "SHA256SUMS" in damage(place)


def test_a_file_with_a_sum_beside_it_is_known_again(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        (tmp_path / "partial").write_bytes(content)
        replace_with_sum(tmp_path / "partial", tmp_path / "kept.npz")
        assert has_its_sum(tmp_path / "kept.npz")
    (tmp_path / "kept.npz").write_bytes(b"secone")
    assert not has_its_sum(tmp_path / "kept.npz")
    assert not has_its_sum(tmp_path / "missing.npz")
