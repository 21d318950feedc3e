"""Exactly the files that are named are loaded, and none that lies elsewhere or is no safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from kdcli.errors import RequestError
from kdcli.models.checkpoints import Reference, describe
from kdcli.models.weight_loading import load_encoder
from kdcli.models.weights import INDEX, weight_bytes, weight_files, weights_fingerprint
from tests.models.mutations import broken, mutated, outcome


@pytest.fixture
def sharded(tiny_bert: Path, tmp_path: Path) -> Path:
    """The tiny BERT in several files."""
    folder = tmp_path / "sharded"
    load_encoder(tiny_bert).save_pretrained(folder, max_shard_size="60KB")  # type: ignore[operator]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, folder)
    return folder


def index_of(folder: Path, **places: object) -> None:
    """Write the index with other places of tensors; None takes one out."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {name: place for name, place in (index["weight_map"] | places).items() if place is not None}
    (folder / INDEX).write_text(json.dumps(index))


def describe_folder(folder: Path) -> str:
    return describe(Reference("mine", str(folder), "--teachers")).fingerprint


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def test_shards_are_loaded_and_all_of_them_are_in_the_fingerprint(sharded: Path, tiny_bert: Path) -> None:
    files = weight_files(sharded)
    assert len(files) > 1
    assert describe_folder(sharded) == "+".join(sha256(file) for file in files)
    assert weight_bytes(sharded) == sum(file.stat().st_size for file in files)
    one, other = load_encoder(sharded).state_dict(), load_encoder(tiny_bert).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_files_that_are_not_loaded_do_not_count(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    (folder / "model_old.safetensors").write_bytes(b"something else")
    (folder / INDEX).write_text("not looked at: there is a whole file")
    assert describe_folder(folder) == weights_fingerprint(tiny_bert) == sha256(tiny_bert / "model.safetensors")
    assert weight_bytes(folder) == (tiny_bert / "model.safetensors").stat().st_size
    load_encoder(folder)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("weights.bin", "not a safetensors file"),
        ("../elsewhere.safetensors", "outside of the folder"),
        ("sub/../../elsewhere.safetensors", "outside of the folder"),
        ("{above}/elsewhere.safetensors", "outside of the folder"),
        ("link.safetensors", "outside of the folder"),
        ("gone.safetensors", "not there"),
        ("loop.safetensors", "cannot be there"),
        ("nul\0.safetensors", "cannot be there"),
        (5, "not a safetensors file"),
        (None, "leaves out 1"),
    ],
)
def test_an_index_that_names_anything_else_is_refused(place: object, said: str, sharded: Path) -> None:
    shutil.copy(weight_files(sharded)[0], sharded.parent / "elsewhere.safetensors")
    os.symlink("../elsewhere.safetensors", sharded / "link.safetensors")
    os.symlink("loop.safetensors", sharded / "loop.safetensors")
    if isinstance(place, str):
        place = place.replace("{above}", str(sharded.parent))
    index_of(sharded, **{"embeddings.LayerNorm.bias": place})
    for work in (describe_folder, load_encoder):
        with pytest.raises(RequestError, match=rf"index\.json  weight_map: .*{said}"):
            work(sharded)


def test_tensors_that_no_shard_holds_and_tensors_that_two_hold_are_refused(sharded: Path) -> None:
    files = weight_files(sharded)
    index_of(sharded, ghost=files[0].name)
    with pytest.raises(RequestError, match="1 of its tensors are not in the files"):
        describe_folder(sharded)
    shutil.copy(files[0], files[1])
    with pytest.raises(RequestError, match="holds too"):
        describe_folder(sharded)


def test_a_changed_index_is_loaded_or_refused(sharded: Path) -> None:
    whole = (sharded / INDEX).read_bytes()
    ends = {}
    for name, content in [*mutated(json.loads(whole)), *broken(whole).items()]:
        (sharded / INDEX).write_bytes(content)
        ends[name] = outcome(lambda: describe_folder(sharded), RequestError)
    assert set(ends.values()) == {"done", "refused"}
    assert {name for name, end in ends.items() if end == "done" and not name.startswith("metadata")} == set()


def test_the_links_of_the_hubs_cache_count_as_files_of_the_folder(sharded: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--some--one" / "blobs", tmp_path / "models--some--one" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for entry in sharded.iterdir():
        shutil.copy(entry, blobs / sha256(entry))
        (snapshot / entry.name).symlink_to(Path("../../blobs") / sha256(entry))
    assert describe_folder(snapshot) == describe_folder(sharded)
    load_encoder(snapshot)


def test_weights_under_another_name_are_not_taken(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(RequestError, match=r"under the name that is loaded(.|\n)*00001-of-00002"):
        describe_folder(folder)


def test_the_command_that_converts_pickles_keeps_every_tensor(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "a model's folder"))
    state = load_encoder(folder).state_dict()
    state["classifier.weight"] = torch.ones(2, 32)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(RequestError) as caught:
        describe_folder(folder)
    exec(shlex.split(caught.value.problems[0].remedy.partition("once: ")[2])[2], {})
    from safetensors.torch import load_file

    assert load_file(folder / "model.safetensors").keys() == state.keys()
