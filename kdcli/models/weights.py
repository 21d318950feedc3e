"""Which files hold a checkpoint's weights, and what their headers say: names, shapes and types of tensors.

What is loaded is ``model.safetensors``, or else the shards that ``model.safetensors.index.json`` names, and nothing besides.
Shards lie in the checkpoint's folder; the links of the Hub's cache, from ``snapshots/`` to ``blobs/``, count as lying there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdcli.data.readers import fingerprint
from kdcli.errors import Problem, RequestError
from kdcli.models.json_file import brief, read_object, refused, shown

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_INDEX_BYTES = 64 * 2**20
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "tf_model.h5", "flax_model.msgpack")
_ADAPTER = "adapter_config.json"
_ONE_SAVE = "index and files of one save"
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class Header:
    """What a file says of one tensor.

    Attributes:
        shape: its dimensions.
        kind: its type, as safetensors writes it (``F32``, ``BF16``, …).
        file: where it lies.
    """

    shape: tuple[int, ...]
    kind: str
    file: Path

    @property
    def is_float(self) -> bool:
        """Whether its numbers are those of a weight, not of a quantised one or of an index."""
        return self.kind in _FLOATS


def has_weights(folder: Path) -> bool:
    """Whether there is a file that weights would be loaded from."""
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def weight_files(folder: Path, where: str = "") -> list[Path]:
    """The files that a checkpoint's weights are loaded from, in order; ``where`` names in messages who asked for them.

    Raises:
        RequestError: there are none, they are pickles, or the index names what may not be loaded or is not there.
    """
    if has_weights(folder) and (folder / _ADAPTER).is_file():
        raise RequestError(
            Problem(where or str(folder), "has an adapter (PEFT) beside its weights, which would be left out", "a merged model",
                    _ADAPTER, "merge it into its model first, or take its files away")
        )  # fmt: skip
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return sorted({folder / name for name in _shards(folder).values()})
    raise _no_weights(folder, where or str(folder))


def weight_bytes(folder: Path) -> int:
    """How many bytes the weights of a checkpoint take on disk; 0 where there are none."""
    return sum(file.stat().st_size for file in weight_files(folder)) if has_weights(folder) else 0


def weights_fingerprint(folder: Path) -> str:
    """Of the files that are loaded, 16 hex digits each."""
    return "+".join(fingerprint(file) for file in weight_files(folder)) if has_weights(folder) else ""


def read_headers(folder: Path, where: str = "") -> dict[str, Header]:
    """Tensor name → what its file says of it, without reading a weight.

    Raises:
        RequestError: as :func:`weight_files`; a file is broken; shards hold a tensor twice, or differ from the index.
    """
    found: dict[str, Header] = {}
    for file in weight_files(folder, where):
        for name, header in _headers(file).items():
            if name in found:
                raise RequestError(
                    Problem(str(file), f"holds the tensor {brief(name)}, which {found[name].file.name} holds too", "each once")
                )
            found[name] = header
    if not (folder / SINGLE).is_file():
        _refuse_other_index(folder, found)
    if not found:
        raise RequestError(Problem(str(folder / SINGLE), "holds no tensor", "the weights of a model"))
    return found


def _headers(file: Path) -> dict[str, Header]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            return {name: Header(tuple(one.get_shape()), one.get_dtype(), file) for name, one in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise RequestError(
            Problem(str(file), "is broken", "a whole safetensors file", brief(str(error)), "copy or download it again")
        ) from error


def _shards(folder: Path) -> dict[str, str]:
    """Tensor → file name, as the index says; every file is one of the folder's own."""
    index = folder / INDEX
    places = read_object(index, _INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise refused(index, "weight_map", "does not say where the tensors are", '{"tensor": "file.safetensors", …}', places)
    for name in dict.fromkeys(value if isinstance(value, str) else shown(value) for value in places.values()):
        _check_shard(folder, index, name)
    return places


def _check_shard(folder: Path, index: Path, name: str) -> None:
    expected = "safetensors files in the same folder"
    if not name.endswith(".safetensors"):
        raise refused(index, "weight_map", "names a file that is not a safetensors file", expected, brief(name))
    path, home = Path(name), folder.resolve()
    allowed = [home] + ([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])
    try:
        inside = any((folder / path).resolve().is_relative_to(place) for place in allowed)
        plain = not path.is_absolute() and ".." not in path.parts and "\0" not in name
        there = inside and plain and (folder / path).is_file()
    except (OSError, ValueError, RuntimeError) as error:  # loops of links, names that no file can have
        raise refused(index, "weight_map", "names a file that cannot be there", expected, brief(name)) from error
    if not (inside and plain):
        raise refused(index, "weight_map", "names a file that lies outside of the folder", expected, brief(name))
    if not there:
        raise refused(index, "weight_map", "names a file that is not there", brief(name), "", "copy or download it again")


def _refuse_other_index(folder: Path, found: Mapping[str, Header]) -> None:
    """Index and shards say the same of every tensor."""
    index = folder / INDEX
    places = _shards(folder)
    wrong = [name for name, file in places.items() if name not in found or found[name].file != folder / file]
    if wrong:
        raise refused(
            index, "weight_map", f"{len(wrong)} of its tensors are not in the files that it names", _ONE_SAVE,
            _few(wrong),
        )  # fmt: skip
    more = [name for name in found if name not in places]
    if more:
        raise refused(
            index,
            "weight_map",
            f"leaves out {len(more)} of the tensors in its files",
            _ONE_SAVE,
            _few(more),
        )


def _few(names: list[str], most: int = 3) -> str:
    return ", ".join(brief(name, 80) for name in names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def _no_weights(folder: Path, where: str) -> RequestError:
    entries = sorted(entry.name for entry in folder.iterdir())
    pickles = sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)})
    others = [name for name in entries if name.endswith(".safetensors")]
    if "adapter_model.safetensors" in others or _ADAPTER in entries:
        return RequestError(
            Problem(
                where, "has an adapter (PEFT) and no weights of a model", SINGLE, ", ".join(entries[:12]),
                "merge it into its model first: PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(…)",
            )
        )  # fmt: skip
    if others:
        expected = f"{SINGLE}, or {INDEX} that names its shards"
        return RequestError(Problem(where, "has no weights under the name that is loaded", expected, ", ".join(others[:12])))
    if pickles:
        return RequestError(
            Problem(
                where, "has pickled weights only, which can run code when they are loaded", SINGLE, ", ".join(pickles[:12]),
                _conversion(folder),
            )
        )  # fmt: skip
    return RequestError(Problem(where, "the folder has no weights", SINGLE, ", ".join(entries[:12])))


def _conversion(folder: Path) -> str:
    """A command that writes all tensors of pickles as safetensors, under their names, running no code of theirs."""
    files = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if not files:
        return "save it once more from the library that it was trained with: model.save_pretrained(folder)"
    code = (
        f"import torch; from safetensors.torch import save_file; d = {_quoted(folder.resolve())}; "
        f"t = {{k: v.clone().contiguous() for f in {_quoted(files)} for k, v in "
        'torch.load(d + "/" + f, map_location="cpu", weights_only=True).items()}; '
        f'save_file(t, d + "/{SINGLE}", {{"format": "pt"}})'
    )
    return f"if you trust where it is from, convert it once: python -c {shlex.quote(code)}"


def renaming(folder: Path, prefix: str) -> str:
    """A command that takes ``prefix`` from the names of a checkpoint's tensors and leaves everything else as it is."""
    files = [file.name for file in weight_files(folder)]
    code = (
        f"from safetensors.torch import load, save_file; from pathlib import Path; d = Path({_quoted(folder.resolve())}); "
        f"t = {{k.removeprefix({_quoted(prefix)}): v.clone() for f in {_quoted(files)} "
        "for k, v in load((d / f).read_bytes()).items()}; "
        f'save_file(t, d / "{SINGLE}", {{"format": "pt"}})'
    )
    return f"python -c {shlex.quote(code)}"


def _quoted(value: object) -> str:
    """Python code of a text or a list of texts, in double quotes, which a shell's single quotes leave as they are."""
    return json.dumps(value if isinstance(value, list) else str(value))
