"""What a teacher says of samples, on disk: without padding, found by content, within a limit.

A folder per teacher, and in it one pair of files per process that wrote: the answers one behind the other, and an index. An
entry of the index is written when its answer is whole, and carries a check sum, so that a kill or a broken disk costs an
answer and never gives a wrong one. Answers are read, not mapped: pages of a mapped file would count as this process's memory.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.atomic_files import write_json
from kdcli.models.output import KINDS, Output, Wanted

VERSION = 1
KEPT_AS = {
    "logits": torch.float32,
    "hidden": torch.bfloat16,
    "queries": torch.bfloat16,
    "keys": torch.bfloat16,
    "values": torch.bfloat16,
    "attention": torch.float16,
    "scores": torch.float16,
}
_SQUARE = ("attention", "scores")
_LOWEST_LOG = -1e4
_NO_ATTENTION = np.array(_LOWEST_LOG, dtype=np.float16).view(np.int16)
_ENTRY = np.dtype([("key", "V16"), ("offset", "<i8"), ("size", "<i8"), ("check", "<u4"), ("unused", "<u4")])
_ABOUT, _DATA, _INDEX = "about.json", ".answers", ".index"
_SPARE_DISK = 2**30
_Place = tuple[Path, int, int, int | None]  # file, offset, size, check sum still to be held
ENTRY_BYTES = _ENTRY.itemsize


def rounded(kind: str, tensor: Tensor) -> Tensor:
    """A part of an answer as it is kept: logits in fp32, states in bf16, what is inside the attention in fp16."""
    if kind in _SQUARE:
        tensor = tensor.clamp(min=_LOWEST_LOG)
    return tensor.to(KEPT_AS[kind], copy=True)


@dataclass(frozen=True)
class Layout:
    """What an answer is made of, and how large it is for a text of L tokens.

    Attributes:
        classes: C.
        width, heads: D and A of the teacher.
        wanted: the insides that are kept.
    """

    classes: int
    width: int
    heads: int
    wanted: Wanted

    @property
    def fields(self) -> list[tuple[str, int]]:
        """Kind and layer of all insides, in the order in which they are kept."""
        return [(kind, layer) for kind in KINDS for layer in sorted(getattr(self.wanted, kind))]

    def shape(self, kind: str, length: int) -> tuple[int, ...]:
        """Of one inside of one text: hidden [L, D]; queries, keys, values [A, L, D/A]; attention, scores [A, L, L]."""
        if kind == "hidden":
            return length, self.width
        return self.heads, length, length if kind in _SQUARE else self.width // self.heads

    def sizes(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of the answers for texts of so many tokens."""
        square = sum(kind in _SQUARE for kind, _ in self.fields)
        plain = len(self.fields) - square
        sizes: NDArray[np.int64] = 4 * self.classes + 2 * lengths * (plain * self.width + square * self.heads * lengths)
        return sizes


class Allowance:
    """Bytes that may still be written, by all stores of a run together."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> bool:
        """Use so many bytes, if there are as many."""
        if size > self.left:
            return False
        self.left -= size
        return True


class OutputStore:
    """One teacher's answers.

    Args:
        folder: made if it is not there; belongs to this teacher and layout alone.
        layout: of the answers.
        allowance: bytes that may be written.
        about: what a person who finds the folder should know.
    """

    def __init__(self, folder: Path, layout: Layout, allowance: Allowance, about: Mapping[str, Any]) -> None:
        self.folder, self.layout, self.allowance = folder, layout, allowance
        self._refused = False
        self._places: dict[bytes, _Place] = {}
        self._copies: dict[bytes, list[_Place]] = {}  # where an answer is once more, if the first place turns out to be broken
        self._read_to: dict[Path, int] = {}
        self._files: dict[Path, Any] = {}
        self._own: Path | None = None
        self._end = 0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process was quicker to write the same
            write_json(folder / _ABOUT, {"version": VERSION, **about, "layout": _plain(layout)})
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    @property
    def takes(self) -> bool:
        """Whether there is room for more."""
        return self.allowance.left > 0 and not self._refused

    def refresh(self) -> None:
        """Learn what other processes have written since."""
        for index in sorted(self.folder.glob(f"*{_INDEX}")):
            data = index.with_suffix(_DATA)
            if data == self._own:
                continue
            begin = self._read_to.get(data, 0)
            try:
                with index.open("rb") as file:
                    file.seek(begin)
                    raw = file.read()
                room = data.stat().st_size  # after the index: what that names is there by now
            except OSError:  # removed by a run that needed the room
                continue
            whole = len(raw) - len(raw) % _ENTRY.itemsize
            for entry in np.frombuffer(raw[:whole], dtype=_ENTRY):
                offset, size = int(entry["offset"]), int(entry["size"])
                if offset >= 0 and size > 0 and offset + size <= room:
                    self._learn(entry["key"].tobytes(), (data, offset, size, int(entry["check"])))
            self._read_to[data] = begin + whole

    def read(self, keys: Sequence[bytes], lengths: NDArray[np.int64]) -> Output | None:
        """The answers to some texts as one batch, padded with zeros (the attention's logarithms with that of nothing).

        None if one of them is not there.

        Args:
            keys: of the texts.
            lengths: their tokens [B].
        """
        layout, longest = self.layout, int(lengths.max())
        records = []
        for key, length in zip(keys, lengths, strict=True):
            record = self._record(key, int(layout.sizes(np.array([length]))[0]))
            if record is None:
                return None
            records.append(record)
        logits = torch.empty(len(keys), layout.classes)
        internals: dict[str, dict[int, Tensor]] = {kind: {} for kind in KINDS}
        padded = []
        for kind, layer in layout.fields:  # numpy's zeros, not torch's, which would set the cores to work beside the training
            target = np.zeros((len(keys), *layout.shape(kind, longest)), dtype=np.int16)
            if kind == "attention":  # logarithms: nobody looks at padding
                target[:] = _NO_ATTENTION
            internals[kind][layer] = torch.from_numpy(target).view(KEPT_AS[kind])
            padded.append((kind, target))
        for row, (record, length) in enumerate(zip(records, lengths.tolist(), strict=True)):
            logits[row] = torch.from_numpy(np.frombuffer(record, dtype=np.float32, count=layout.classes).copy())
            at = 4 * layout.classes
            for kind, target in padded:
                shape = layout.shape(kind, length)
                part = np.frombuffer(record, dtype=np.int16, count=int(np.prod(shape)), offset=at).reshape(shape)
                target[row][tuple(slice(side) for side in shape)] = part
                at += part.nbytes
        return Output(logits, **internals)

    def write(self, keys: Sequence[bytes], lengths: NDArray[np.int64], output: Output) -> None:
        """Keep the answers that are not there yet, as far as the allowance and the disk allow.

        Args:
            keys: of the texts.
            lengths: their tokens [B].
            output: the answers, padded, as :func:`rounded` makes them, on the CPU.
        """
        logits = output.logits.numpy()
        internals = [(kind, getattr(output, kind)[layer].view(torch.int16).numpy()) for kind, layer in self.layout.fields]
        records: dict[bytes, bytes] = {}
        for row, (key, length) in enumerate(zip(keys, lengths.tolist(), strict=True)):
            if key in self._places or key in records:
                continue
            parts = [logits[row].tobytes()]
            for kind, values in internals:
                shape = self.layout.shape(kind, length)
                parts.append(values[row][tuple(slice(side) for side in shape)].tobytes())
            record = b"".join(parts)
            if not self.allowance.take(len(record) + _ENTRY.itemsize):
                self._refused = True
                break
            records[key] = record
        if records:
            try:
                self._append(records)
            except OSError:  # the disk is full, or the folder was taken away: what is there stays good
                self._refused = True

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def _learn(self, key: bytes, place: _Place) -> None:
        if key in self._places:
            self._copies.setdefault(key, []).append(place)
        else:
            self._places[key] = place

    def _record(self, key: bytes, size: int) -> bytes | None:
        while (place := self._places.get(key)) is not None:
            data, offset, stored, check = place
            try:
                record = self._read(data, offset, stored) if stored == size else b""
            except OSError:
                record = b""
            if len(record) == size and (check is None or zlib.crc32(record) == check):
                if check is not None:
                    self._places[key] = (data, offset, stored, None)
                return record
            self._forget(key, place)
        return None

    def _forget(self, key: bytes, place: _Place) -> None:
        with self._lock:
            if self._places.get(key) != place:  # the other thread was quicker
                return
            copies = self._copies.get(key)
            if copies:
                self._places[key] = copies.pop()
            else:
                del self._places[key]

    def _read(self, path: Path, offset: int, size: int) -> bytes:
        with self._lock:
            if path not in self._files:
                self._files[path] = path.open("rb", buffering=0)
            file = self._files[path]
            file.seek(offset)
            found: bytes = file.read(size)
            return found

    def _append(self, records: Mapping[bytes, bytes]) -> None:
        if self._own is None or self._own.stat().st_size < self._end:  # somebody has cut it off
            self._own, self._end = self.folder / f"{uuid.uuid4().hex[:16]}{_DATA}", 0
            self._own.touch()
        entries = np.zeros(len(records), dtype=_ENTRY)
        end = self._end
        for row, (key, record) in enumerate(records.items()):
            entries[row] = (np.void(key), end, len(record), zlib.crc32(record), 0)
            end += len(record)
        with self._own.open("r+b") as file:
            file.seek(self._end)
            file.writelines(records.values())
        with self._own.with_suffix(_INDEX).open("ab") as file:
            file.write(entries.tobytes())
        for entry, key in zip(entries, records, strict=True):
            self._places[key] = (self._own, int(entry["offset"]), int(entry["size"]), None)
        self._end = end


def allowance(root: Path, limit: int, needed: int, keep: Iterable[Path]) -> Allowance:
    """Bytes that a run may write below ``root``; the teachers that were not used for longest make room.

    Args:
        root: the folder of all stores.
        limit: bytes that all of them may have together.
        needed: bytes that the run would like to write.
        keep: the run's own folders, which stay.
    """
    kept = set(keep)
    sizes = {folder: _size(folder) for folder in root.iterdir() if folder.is_dir()} if root.is_dir() else {}
    used = sum(sizes.values())
    for folder in sorted(sizes.keys() - kept, key=_last_use):
        if used + needed <= limit:
            break
        shutil.rmtree(folder, ignore_errors=True)
        used -= sizes[folder]
    free = shutil.disk_usage(next(parent for parent in (root, *root.parents) if parent.exists())).free
    return Allowance(max(0, min(limit - used, free - _SPARE_DISK)))


def keys_of(ids: NDArray[np.int32], types: NDArray[np.int8] | None, bounds: NDArray[np.int64]) -> list[bytes]:
    """For each text of a split, what tells it from all others: a hash of the tokens and segments that the teacher is given."""
    from hashlib import blake2b

    keys = []
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        digest = blake2b(ids[begin:end].tobytes(), digest_size=16)
        if types is not None:
            digest.update(types[begin:end].tobytes())
        keys.append(digest.digest())
    return keys


def _plain(layout: Layout) -> dict[str, Any]:
    plain = asdict(layout)
    plain["wanted"] = {kind: sorted(layers) for kind, layers in plain["wanted"].items() if layers}
    return plain


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    except FileNotFoundError:  # another run has removed it meanwhile
        return 0


def _last_use(folder: Path) -> float:
    about = folder / _ABOUT
    return about.stat().st_mtime if about.is_file() else 0.0
