"""The tokens of a split, kept in Arrow files so that the next run maps them into memory instead of making them again.

A file holds one column ``tokens`` with a list for each sample; a token is its id, segment, place and region (see
:class:`~kdcli.data.tokens.TokenView`). In memory that is one flat array per part of a token and one of bounds, which are
read without copying. A file's name is a hash of everything that its tokens depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kdcli.caching import cache_folder, keep, mark_used, sweep
from kdcli.data.task import Split

FORMAT = 1
WORTH_KEEPING = 2000
"""Rows below which making the tokens is as fast as looking for them."""

Arrays = dict[str, NDArray[Any]]
"""``bounds`` [n + 1], int64, and the flat parts of the tokens by name."""

_PARTS = {"ids": np.int32, "type_ids": np.int8, "starts": np.int32, "ends": np.int32, "regions": np.int8}
_BLOCK = 65536


def kept_or_made(split: Split, rules: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
    """The tokens of a split, from the cache where it has them, else made, and kept if the split is large enough.

    Args:
        split: the texts.
        rules: what else the tokens depend on.
        make: makes the tokens.
    """
    folder = cache_folder("tokens")
    if folder is None or len(split) < WORTH_KEEPING:
        return make()
    name = key(split, rules)
    place = folder / f"{name}.arrow"
    found = _read(place, name, len(split))
    if found is not None:
        mark_used(place)
        return found
    made = make()
    if keep(place, lambda file: _write(file, name, made)):
        sweep(folder, spare=place)
    return made


def key(split: Split, rules: Sequence[str]) -> str:
    """A hash of the format, the rules and every text of a split; 32 hex digits."""
    digest = blake2b(digest_size=16)
    for texts in ([str(FORMAT), *rules], split.texts, split.pairs):
        if texts is None:
            continue
        digest.update(len(texts).to_bytes(8, "little"))
        for begin in range(0, len(texts), _BLOCK):
            block = texts[begin : begin + _BLOCK]
            digest.update(np.fromiter(map(len, block), dtype="<i8", count=len(block)).tobytes())
            digest.update("".join(block).encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()


def _write(file: BinaryIO, name: str, arrays: Arrays) -> None:
    import pyarrow

    parts = [part for part in _PARTS if part in arrays]
    tokens = pyarrow.StructArray.from_arrays([pyarrow.array(arrays[part]) for part in parts], names=parts)
    samples = pyarrow.LargeListArray.from_arrays(pyarrow.array(arrays["bounds"]), tokens)
    about = {"key": name, "format": str(FORMAT), "checksum": str(_checksum(arrays))}
    schema = pyarrow.schema([("tokens", samples.type)], metadata=about)
    with pyarrow.ipc.new_file(file, schema) as writer:
        writer.write_batch(pyarrow.record_batch([samples], schema=schema))


def _read(place: Path, name: str, rows: int) -> Arrays | None:
    """The arrays of a file, mapped into memory and not writable; None where there is no such file or it is not whole."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(place)) as file:  # the arrays hold the mapping beyond the block
            reader = pyarrow.ipc.open_file(file)
            about = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
            if (about.get("key"), about.get("format")) != (name, str(FORMAT)):
                return None
            batch = reader.get_batch(0)
            batch.validate()  # else a damaged file may speak of more bytes than it has
            samples = batch.column("tokens")
        arrays = {"bounds": samples.offsets.to_numpy()}
        for part in samples.type.value_type:
            arrays[part.name] = samples.values.field(part.name).to_numpy()
    except (OSError, ValueError, KeyError, AttributeError, pyarrow.ArrowException):
        return None
    whole = len(arrays["bounds"]) == rows + 1 and about.get("checksum") == str(_checksum(arrays))
    return arrays if whole else None


def _checksum(arrays: Arrays) -> int:
    """Of names, types and contents."""
    value = 0
    for part in ("bounds", *(part for part in _PARTS if part in arrays)):
        value = crc32(f"{part} {arrays[part].dtype.str} {arrays[part].shape}".encode(), value)
        value = crc32(arrays[part].data, value)
    return value
