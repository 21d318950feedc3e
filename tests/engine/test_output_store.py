"""Answers on disk: found as they were written or not at all, within a limit."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.task import Split
from kdcli.data.tokens import TokenView, tokenise
from kdcli.engine import output_store
from kdcli.engine.output_store import ENTRY_BYTES, KEPT_AS, Allowance, Layout, OutputStore, allowance, keys_of, rounded
from kdcli.models.output import KINDS, Output, Wanted
from kdcli.models.weight_loading import load_tokenizer

_LAYERS: list[list[int]] = [[0, 2], [1, 2], [1], [1], [2], [2]]
WANTED = Wanted(**{kind: frozenset(layers) for kind, layers in zip(KINDS, _LAYERS, strict=True)})
LAYOUT = Layout(3, 8, 2, WANTED)
LENGTHS = np.array([5, 9, 1, 7, 12, 2])
KEYS = [bytes([row, *range(100, 113), 0, 0]) for row in range(len(LENGTHS))]  # a key may begin and end with zeros
EVERY = list(range(len(LENGTHS)))
ENDLESS = 2**40
Said = dict[tuple[str, int], Tensor]


def said(row: int, layout: Layout = LAYOUT, lengths: NDArray[np.int64] = LENGTHS) -> Said:
    """One text's answer, rounded, without padding."""
    generator = torch.Generator().manual_seed(row)
    shapes: dict[tuple[str, int], tuple[int, ...]] = {("logits", 0): (layout.classes,)}
    shapes |= {(kind, layer): layout.shape(kind, int(lengths[row])) for kind, layer in layout.fields}
    return {place: rounded(place[0], torch.randn(shape, generator=generator)) for place, shape in shapes.items()}


def padded(
    rows: Sequence[int], filler: float | None = None, layout: Layout = LAYOUT, lengths: NDArray[np.int64] = LENGTHS
) -> Output:
    """Some texts' answers as one batch; without a filler as a store pads them, where nobody looks at padding."""
    longest = int(lengths[rows].max())
    tensors: dict[str, dict[int, Tensor]] = {kind: {} for kind in ("logits", *KINDS)}
    for kind, layer in said(rows[0], layout, lengths):
        shape = (layout.classes,) if kind == "logits" else layout.shape(kind, longest)
        own_filler = filler if filler is not None else -1e4 if kind == "attention" else 0.0
        whole = torch.full((len(rows), *shape), own_filler, dtype=KEPT_AS[kind])
        for place, row in enumerate(rows):
            own = said(row, layout, lengths)[kind, layer]
            whole[place][tuple(slice(side) for side in own.shape)] = own
        tensors[kind][layer] = whole
    return Output(tensors.pop("logits")[0], **tensors)


def same(found: Output | None, expected: Output) -> bool:
    """Whether two answers have the same types, shapes and bits."""

    def flat(output: Output) -> dict[tuple[str, int], Tensor]:
        insides = {(kind, layer): tensor for kind in KINDS for layer, tensor in getattr(output, kind).items()}
        return {("logits", 0): output.logits, **insides}

    if found is None:
        return False
    one, other = flat(found), flat(expected)
    return one.keys() == other.keys() and all(
        one[place].dtype == other[place].dtype
        and one[place].shape == other[place].shape
        and torch.equal(one[place].view(torch.int16), other[place].view(torch.int16))
        for place in one
    )


def store(folder: Path, room: int = ENDLESS, layout: Layout = LAYOUT) -> OutputStore:
    return OutputStore(folder, layout, Allowance(room), {"teacher": "bert"})


def write(into: OutputStore, rows: Sequence[int]) -> None:
    into.write([KEYS[row] for row in rows], LENGTHS[rows], padded(rows, 7.0))


def read(source: OutputStore, rows: Sequence[int]) -> Output | None:
    """The answers, and their files closed."""
    try:
        return source.read([KEYS[row] for row in rows], LENGTHS[rows])
    finally:
        source.close()


def good(source: OutputStore, rows: Iterable[int] = EVERY) -> list[int]:
    """Texts whose answer is there; none of these may be another one than was written."""
    found = {row: read(source, [row]) for row in rows}
    assert all(answer is None or same(answer, padded([row])) for row, answer in found.items())
    return [row for row, answer in found.items() if answer is not None]


def size(row: int) -> int:
    """Bytes that a text's answer takes, with its entry in the index."""
    return sum(tensor.numel() * tensor.element_size() for tensor in said(row).values()) + ENTRY_BYTES


def disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".answers", ".index"))


def files(folder: Path) -> tuple[Path, Path]:
    """The only data file and its index."""
    (data,) = folder.glob("*.answers")
    return data, data.with_suffix(".index")


# Written and read


@pytest.mark.parametrize("rows", [EVERY, EVERY[::-1], [2], [4, 0], [3, 3, 5, 3], [2, 5]])
def test_answers_come_back_to_the_last_bit_in_any_order_padded_with_nothing(rows: list[int], tmp_path: Path) -> None:
    """They were written in other batches, whose padding is full of something else."""
    kept = store(tmp_path)
    for batch in ([1, 2, 0], [4], [5, 3]):
        write(kept, batch)
    assert same(read(kept, rows), padded(rows))


@pytest.mark.parametrize("kind", ["logits", *KINDS])
def test_each_kind_is_kept_alone_in_its_own_precision(kind: str, tmp_path: Path) -> None:
    layout = Layout(3, 8, 2, Wanted() if kind == "logits" else Wanted.of(kind, [1, 2]))
    kept = store(tmp_path, layout=layout)
    kept.write(KEYS, LENGTHS, padded(EVERY, 7.0, layout))
    found = kept.read(KEYS, LENGTHS)
    kept.close()
    assert found is not None
    assert same(found, padded(EVERY, None, layout))
    tensor = found.logits if kind == "logits" else getattr(found, kind)[2]
    expected = {"logits": torch.float32, "attention": torch.float16, "scores": torch.float16}
    assert tensor.dtype == expected.get(kind, torch.bfloat16)


def test_special_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    """And what masked scores and logarithms of nothing are in fp32 becomes a number that fp16 has."""
    layout = Layout(4, 2, 1, Wanted(hidden=frozenset([1]), attention=frozenset([1])))
    odd = torch.tensor([[[-0.0, 1e-40], [torch.inf, 3.0]]])
    attention = torch.tensor([[[[-torch.inf, 0.0], [-3.4e38, -1e-3]]]])
    output = Output(torch.tensor([[-0.0, 1e-45, torch.inf, 1.0]]), hidden={1: odd}, attention={1: attention}).mapped(rounded)
    assert output.attention[1].flatten().tolist() == [-1e4, 0.0, -1e4, pytest.approx(-1e-3, rel=1e-3)]
    kept = store(tmp_path, layout=layout)
    kept.write(KEYS[:1], np.array([2]), output)
    assert same(kept.read(KEYS[:1], np.array([2])), output)
    kept.close()


def test_rounding_makes_a_copy(tmp_path: Path) -> None:
    logits = torch.ones(1, 3)
    assert rounded("logits", logits).data_ptr() != logits.data_ptr()


def test_a_text_that_is_not_there_is_missed(tmp_path: Path) -> None:
    kept = store(tmp_path)
    write(kept, [0, 1])
    assert read(kept, [0, 1]) is not None
    assert read(kept, [0, 2]) is None
    assert (KEYS[0] in kept, KEYS[2] in kept, len(kept)) == (True, False, 2)


def test_a_text_of_another_length_under_the_same_key_is_missed(tmp_path: Path) -> None:
    """No hash is so good that the shape must be taken on trust."""
    kept = store(tmp_path)
    write(kept, [0])
    assert kept.read(KEYS[:1], LENGTHS[:1] + 1) is None
    kept.close()


def test_each_text_is_written_once(tmp_path: Path) -> None:
    kept = store(tmp_path)
    for batch in ([0, 1, 0, 0], [1, 0, 3], [3]):
        write(kept, batch)
    assert disk(tmp_path) == ENDLESS - kept.allowance.left == sum(size(row) for row in (0, 1, 3))
    assert good(kept) == [0, 1, 3]
    write(again := store(tmp_path), [1, 0])
    assert disk(tmp_path) == sum(size(row) for row in (0, 1, 3))
    assert good(again) == [0, 1, 3]


# Several at one folder


def test_another_store_over_the_same_folder_has_the_same_answers(tmp_path: Path) -> None:
    write(first := store(tmp_path), [0, 1, 2])
    second = store(tmp_path)
    assert good(second) == [0, 1, 2]
    write(second, [2, 3])
    third = store(tmp_path)
    assert len(list(tmp_path.glob("*.answers"))) == 2
    assert good(third) == [0, 1, 2, 3]
    assert same(read(third, [3, 0, 1]), padded([3, 0, 1]))
    assert good(first) == [0, 1, 2]


def test_refreshing_shows_what_others_have_written_since(tmp_path: Path) -> None:
    """Again and again, also from a store that began later, and without forgetting what is its own."""
    first, second = store(tmp_path), store(tmp_path)
    write(first, [0])
    write(second, [1])
    assert (good(first), good(second)) == ([0], [1])
    first.refresh()
    assert good(first) == [0, 1]
    write(second, [2])
    write(third := store(tmp_path), [3])
    assert good(third) == [0, 1, 2, 3]
    first.refresh()
    first.refresh()
    assert (good(first), len(first)) == ([0, 1, 2, 3], 4)


def test_an_entry_that_is_being_written_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    write(store(tmp_path / "from"), [0, 1])
    data, index = files(tmp_path / "from")
    there = tmp_path / "to"
    late = store(there)
    (there / data.name).write_bytes(data.read_bytes())
    for end, expected in ((0, []), (ENTRY_BYTES - 1, []), (ENTRY_BYTES + 9, [0]), (2 * ENTRY_BYTES, [0, 1])):
        (there / index.name).write_bytes(index.read_bytes()[:end])
        late.refresh()
        assert good(late) == expected


def test_what_is_written_while_another_store_is_looking_is_seen_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store(tmp_path)
    write(writer, [0])
    late = store(tmp_path)
    plain, left = Path.stat, [1]

    def stat(path: Path, **more: Any) -> os.stat_result:
        found = plain(path, **more)
        if path.suffix == ".answers" and left:
            write(writer, [left.pop()])
        return found

    monkeypatch.setattr(Path, "stat", stat)
    late.refresh()
    monkeypatch.undo()
    late.refresh()
    assert (good(late), left) == ([0, 1], [])


def test_the_folder_says_what_it_is(tmp_path: Path) -> None:
    store(tmp_path)
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["teacher"] == "bert"
    assert about["version"] == output_store.VERSION
    layers = {kind: sorted(getattr(WANTED, kind)) for kind in KINDS}
    assert about["layout"] == {"classes": 3, "width": 8, "heads": 2, "wanted": layers}


# How large


def test_the_disk_holds_what_the_layout_says_and_an_entry_for_each_text(tmp_path: Path) -> None:
    kept = store(tmp_path)
    for batch in ([0, 1, 2], [3, 4], [5]):
        write(kept, batch)
    by_hand = [size(row) for row in EVERY]
    assert (LAYOUT.sizes(LENGTHS) + ENTRY_BYTES).tolist() == by_hand
    assert disk(tmp_path) == sum(by_hand)


def test_texts_of_usual_length_take_a_tenth_more_than_their_bare_states_at_most(tmp_path: Path) -> None:
    """Two layers of a small teacher, texts of 10 to 60 tokens."""
    lengths = np.random.default_rng(0).integers(10, 61, 50)
    layout = Layout(2, 32, 4, Wanted.of("hidden", [2, 4]))
    keys = [row.to_bytes(16, "little") for row in range(len(lengths))]
    kept = store(tmp_path, layout=layout)
    kept.write(keys, lengths, padded(range(len(lengths)), 0.0, layout, lengths))
    assert disk(tmp_path) <= 1.1 * 2 * 32 * 2 * int(lengths.sum())


# Damage: never a wrong answer


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(place: int, bits: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def written_again(folder: Path) -> None:
    """Missing answers can be written a second time; every store finds them from then on."""
    before = store(folder)
    missing = sorted(set(EVERY) - set(good(before)))
    write(before, EVERY)
    assert good(before) == EVERY
    assert same(read(before, EVERY), padded(EVERY))
    after = store(folder)
    assert good(after) == EVERY
    extra = disk(folder)
    write(after, missing)
    assert disk(folder) == extra


BEGINS = [0, *np.cumsum([size(row) - ENTRY_BYTES for row in EVERY]).tolist()]


@pytest.mark.parametrize(("cut", "left"), [(BEGINS[-1] - 1, 5), (BEGINS[3], 3), (BEGINS[3] + 1, 3), (1, 0), (0, 0)])
def test_a_data_file_that_was_cut_off_has_the_answers_before_the_cut(cut: int, left: int, tmp_path: Path) -> None:
    write(store(tmp_path), EVERY)
    damaged(files(tmp_path)[0], lambda content: content[:cut])
    assert good(store(tmp_path)) == EVERY[:left]
    written_again(tmp_path)


@pytest.mark.parametrize(("entries", "more"), [(6, -1), (4, 17), (4, 0), (0, 39), (0, 0)])
def test_an_index_that_was_cut_off_has_its_whole_entries(entries: int, more: int, tmp_path: Path) -> None:
    write(store(tmp_path), EVERY)
    damaged(files(tmp_path)[1], lambda content: content[: entries * ENTRY_BYTES + more])
    assert good(store(tmp_path)) == EVERY[: (entries * ENTRY_BYTES + more) // ENTRY_BYTES]
    written_again(tmp_path)


def test_a_data_file_that_was_cut_off_under_an_open_store_loses_what_was_cut(tmp_path: Path) -> None:
    write(kept := store(tmp_path), EVERY)
    late = store(tmp_path)
    damaged(files(tmp_path)[0], lambda content: content[: BEGINS[2] + 5])
    assert (good(kept), good(late)) == ([0, 1], [0, 1])


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
@pytest.mark.parametrize("place", [BEGINS[0], BEGINS[2] + 3, BEGINS[5] + 40, BEGINS[6] - 1])
def test_a_flipped_byte_costs_the_answer_that_it_is_in(place: int, bits: int, tmp_path: Path) -> None:
    write(store(tmp_path), EVERY)
    damaged(files(tmp_path)[0], flipped(place, bits))
    hit = next(row for row, (begin, end) in enumerate(pairwise(BEGINS)) if begin <= place < end)
    assert good(store(tmp_path)) == [row for row in EVERY if row != hit]
    written_again(tmp_path)


@pytest.mark.parametrize("place", [0, 7, 15, 16, 17, 19, 23, 24, 25, 31, 32, 35])
def test_a_flipped_byte_in_the_index_costs_the_answer_whose_entry_it_is(place: int, tmp_path: Path) -> None:
    """The last four bytes of an entry say nothing."""
    write(store(tmp_path), EVERY)
    damaged(files(tmp_path)[1], flipped(3 * ENTRY_BYTES + place, 0x81 if place % 2 else 0x02))
    assert good(store(tmp_path)) == [0, 1, 2, 4, 5]
    written_again(tmp_path)


def shifted(content: bytes) -> bytes:
    """As if a byte in front had been lost."""
    return content[1:]


def exchanged(content: bytes) -> bytes:
    """The keys of the second and the fourth entry change places."""
    one, other = slice(ENTRY_BYTES, ENTRY_BYTES + 16), slice(3 * ENTRY_BYTES, 3 * ENTRY_BYTES + 16)
    changed = bytearray(content)
    changed[one], changed[other] = content[other], content[one]
    return bytes(changed)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda content: np.random.default_rng(0).bytes(len(content)), []),
        (lambda content: bytes(len(content)), []),
        (lambda content: b"\xff" * len(content), []),
        (lambda content: b"{}", []),
        (shifted, []),
        (exchanged, [0, 2, 4, 5]),
    ],
    ids=["random", "zeros", "ones", "text", "shifted", "exchanged"],
)
def test_a_garbage_index_gives_no_answers(change: Callable[[bytes], bytes], left: list[int], tmp_path: Path) -> None:
    write(store(tmp_path), EVERY)
    damaged(files(tmp_path)[1], change)
    assert good(store(tmp_path)) == left
    written_again(tmp_path)


def test_what_is_written_after_the_own_file_was_cut_off_hides_nothing_wrong(tmp_path: Path) -> None:
    """Behind the cut a hole of zeros would stand for the answers that are lost."""
    write(kept := store(tmp_path), EVERY[:4])
    damaged(files(tmp_path)[0], lambda content: content[: BEGINS[1]])
    write(kept, [4])
    assert good(kept) == [0, 4]
    assert kept.takes
    write(kept, EVERY)
    assert good(kept) == good(store(tmp_path)) == EVERY
    kept.refresh()
    assert good(kept) == EVERY


@pytest.mark.parametrize("lost", [0, 1])
def test_a_file_without_its_partner_is_passed_over(lost: int, tmp_path: Path) -> None:
    write(store(tmp_path), EVERY)
    files(tmp_path)[lost].unlink()
    assert good(store(tmp_path)) == []
    write(again := store(tmp_path), EVERY)
    assert (good(again), good(store(tmp_path))) == (EVERY, EVERY)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")], ids=["broken-first", "broken-last"])
def test_a_broken_answer_does_not_hide_a_good_one_in_another_file(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be asked and written again in every run."""
    given = iter(names)
    monkeypatch.setattr(uuid, "uuid4", lambda: SimpleNamespace(hex=next(given) * 32))
    write(store(tmp_path), EVERY)
    damaged(files(tmp_path)[0], flipped(BEGINS[2], 0xFF))
    write(store(tmp_path), [0])
    again = store(tmp_path)
    assert good(again) == [0, 1, 3, 4, 5]
    write(again, [2])
    assert good(store(tmp_path)) == EVERY
    late = store(tmp_path)
    late.refresh()
    assert same(read(late, EVERY), padded(EVERY))


# What does not fit


@pytest.mark.parametrize("left", range(len(EVERY) + 1))
def test_what_does_not_fit_is_not_written(left: int, tmp_path: Path) -> None:
    """The room is a byte less than one more answer would take."""
    room = sum(size(row) for row in EVERY[:left]) + (size(left) - 1 if left < len(EVERY) else 0)
    kept = store(tmp_path, room)
    assert kept.takes == (room > 0)
    write(kept, EVERY)
    assert good(kept) == good(store(tmp_path)) == EVERY[:left]
    assert not kept.takes
    assert disk(tmp_path) <= room


def test_a_store_takes_more_as_long_as_there_is_room(tmp_path: Path) -> None:
    kept = store(tmp_path, size(0) + size(1))
    for row, takes in ((0, True), (1, False)):
        write(kept, [row])
        assert kept.takes == takes
    other = store(tmp_path, size(2) + size(5) - 1)
    write(other, [2, 5])
    assert not other.takes
    assert other.allowance.left > 0


def test_an_allowance_is_shared_by_all_stores_of_a_run(tmp_path: Path) -> None:
    room = Allowance(size(0) + size(1) + size(2))
    one, other = (OutputStore(tmp_path / name, LAYOUT, room, {}) for name in ("one", "other"))
    write(one, [0, 1])
    write(other, [2, 3])
    write(one, [3])
    assert (good(one), good(other)) == ([0, 1], [2])
    assert not one.takes
    assert not other.takes
    assert disk(one.folder) + disk(other.folder) == size(0) + size(1) + size(2)
    assert room.left == 0


def test_a_store_without_any_room_still_reads(tmp_path: Path) -> None:
    write(store(tmp_path), EVERY)
    kept = store(tmp_path, 0)
    assert not kept.takes
    assert good(kept) == EVERY


@pytest.mark.parametrize("failing", [".answers", ".index"])
def test_a_full_disk_leaves_what_was_written_before_good(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the data, or of an entry in the index, is on the disk when it is full."""
    write(kept := store(tmp_path), [0, 1, 2])
    plain = Path.open

    class Full:
        def __init__(self, path: Path, mode: str) -> None:
            self.file: Any = plain(path, mode)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def seek(self, place: int) -> None:
            self.file.seek(place)

        def write(self, content: bytes) -> None:
            self.file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        def writelines(self, contents: Iterable[bytes]) -> None:
            self.write(b"".join(contents))

    def full(path: Path, mode: str = "r", **more: Any) -> Any:
        return Full(path, mode) if path.suffix == failing and mode in ("r+b", "ab") else plain(path, mode, **more)

    monkeypatch.setattr(Path, "open", full)
    write(kept, [3, 4])
    assert not kept.takes
    monkeypatch.undo()
    assert good(kept) == [0, 1, 2]
    fresh = store(tmp_path)
    assert good(fresh)[:3] == [0, 1, 2]
    write(fresh, EVERY)
    assert good(fresh) == EVERY
    assert good(store(tmp_path)) == EVERY
    kept.refresh()
    assert good(kept)[:3] == [0, 1, 2]


def test_a_folder_that_is_taken_away_makes_answers_missing_and_no_error(tmp_path: Path) -> None:
    write(kept := store(tmp_path / "store"), [0, 1])
    assert good(kept) == [0, 1]
    shutil.rmtree(kept.folder)
    assert good(kept) == []
    assert kept.takes
    write(kept, [2])
    assert not kept.takes
    kept.refresh()
    assert good(kept) == []


def test_two_stores_may_begin_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one has its note about the folder in place while the first is writing its own."""
    plain, left = os.replace, [1]

    def replace(source: Path, target: Path) -> None:
        if left:
            left.pop()
            store(tmp_path)
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    kept = store(tmp_path)
    assert not left
    write(kept, EVERY)
    assert good(kept) == EVERY


# The allowance


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Four stores of 1000, 2000, 3000 and 4000 bytes, the first one used longest ago."""
    for age, name in enumerate(["first", "second", "third", "fourth"]):
        folder = tmp_path / "answers" / name
        folder.mkdir(parents=True)
        (folder / "about.json").write_bytes(b"{}")
        (folder / "x.index").write_bytes(bytes(98))
        (folder / "x.answers").write_bytes(bytes(1000 * (age + 1) - 100))
        os.utime(folder / "about.json", (1e9 + age, 1e9 + age))
        os.utime(folder / "x.answers", (2e9 - age, 2e9 - age))
    return tmp_path / "answers"


def names(root: Path) -> list[str]:
    return [name for name in ("first", "second", "third", "fourth") if (root / name).is_dir()]


@pytest.mark.parametrize(
    ("limit", "needed", "keep", "stay", "left"),
    [
        (12_000, 1_000, [], "first second third fourth", 2_000),
        (12_000, 2_000, [], "first second third fourth", 2_000),
        (12_000, 2_001, [], "second third fourth", 3_000),
        (12_000, 3_000, [], "second third fourth", 3_000),
        (12_000, 3_001, [], "third fourth", 5_000),
        (12_000, 12_000, [], "", 12_000),
        (12_000, 50_000, [], "", 12_000),
        (10_000, 0, [], "first second third fourth", 0),
        (9_999, 0, [], "second third fourth", 999),
        (500, 100, [], "", 500),
        (12_000, 2_001, ["first"], "first third fourth", 4_000),
        (12_000, 2_001, ["first", "fourth"], "first third fourth", 4_000),
        (12_000, 9_000, ["first", "fourth"], "first fourth", 7_000),
        (4_000, 9_000, ["first", "fourth"], "first fourth", 0),
        (12_000, 3_000, ["elsewhere"], "second third fourth", 3_000),
    ],
)
def test_the_teachers_that_were_not_used_for_longest_make_room(
    limit: int, needed: int, keep: list[str], stay: str, left: int, cache: Path
) -> None:
    """No more of them than have to; never the run's own."""
    assert allowance(cache, limit, needed, [cache / name for name in keep]).left == left
    assert names(cache) == stay.split()


def test_a_store_that_is_opened_counts_as_used(cache: Path) -> None:
    store(cache / "first")
    allowance(cache, 9_000, 0, [])
    assert names(cache) == ["first", "third", "fourth"]


def test_a_folder_that_does_not_say_when_it_was_used_goes_first(cache: Path) -> None:
    (cache / "third" / "about.json").unlink()
    assert allowance(cache, 10_000, 2_000, []).left == 3_000
    assert names(cache) == ["first", "second", "fourth"]


def test_files_beside_the_stores_stay(cache: Path) -> None:
    (cache / "read-me").write_bytes(bytes(500))
    assert allowance(cache, 200, 100, []).left == 200
    assert (names(cache), (cache / "read-me").is_file()) == ([], True)


@pytest.mark.parametrize(("free", "left"), [(2**30 + 700, 700), (2**30 + 5_000, 2_000), (2**30, 0), (10, 0)])
def test_a_gibibyte_of_the_disk_stays_free(free: int, left: int, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(total=2**40, used=2**40 - free, free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert allowance(cache, 12_000, 1_500, []).left == left
    assert names(cache) == ["first", "second", "third", "fourth"]
    assert allowance(cache / "not" / "there", 2_000, 1_500, []).left == left
    assert asked == [cache, cache]


def test_a_store_that_another_process_removes_meanwhile_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, seen = os.scandir, count()

    def scandir(path: Any) -> Any:
        if isinstance(path, Path) and path.parent == cache and next(seen) == 0:
            shutil.rmtree(path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert allowance(cache, 20_000, 100, []).left >= 11_000
    assert len(names(cache)) == 3


# Keys


TEXTS = ["A great film!", "An awful plot.", "A great film!", "The scene was charming.", ""]


def seen(folder: Path, texts: Sequence[str], pairs: Sequence[str] | None = None, longest: int = 24) -> TokenView:
    return tokenise(Split(list(texts), None if pairs is None else list(pairs), None, "", ""), load_tokenizer(folder), longest)


def keys(view: TokenView) -> list[bytes]:
    return keys_of(view.ids, view.type_ids, view.bounds)


def test_a_key_tells_texts_apart_and_not_where_they_stand(tiny_bert: Path) -> None:
    found = keys(seen(tiny_bert, TEXTS))
    assert found[0] == found[2]
    assert len(set(found)) == 4
    assert {len(key) for key in found} == {16}
    order = [3, 4, 1, 0, 2]
    assert keys(seen(tiny_bert, [TEXTS[row] for row in order])) == [found[row] for row in order]


def test_a_key_tells_the_two_texts_of_a_pair_apart(tiny_bert: Path) -> None:
    """The same tokens, of which others are in the second segment."""
    view = seen(tiny_bert, ["great film", "great film"], ["film", "film"])
    assert view.type_ids is not None
    assert len(set(keys(view))) == 1
    moved = view.type_ids.copy()
    moved[view.bounds[1] + 3] = 1 - moved[view.bounds[1] + 3]
    one, other = keys_of(view.ids, moved, view.bounds)
    assert one != other
    assert one == keys(view)[0]
    without = keys_of(view.ids, None, view.bounds)
    assert without[0] == without[1] != one


def test_other_tokens_make_other_keys(tiny_bert: Path, tiny_roberta: Path) -> None:
    """Of another tokenizer, and where a text is truncated; not where it is short enough."""
    texts = [TEXTS[1], "The film was wonderful, and its story was wonderful!"]
    long, short = keys(seen(tiny_bert, texts)), keys(seen(tiny_bert, texts, longest=8))
    assert long[0] == short[0]
    assert long[1] != short[1]
    assert not set(long) & set(keys(seen(tiny_roberta, texts)))
