"""Kept tokens are those that would be made anew, and keeping them never gets in the way."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from kdcli.data import token_cache, tokens
from kdcli.data.task import Split
from kdcli.data.token_cache import FORMAT, WORTH_KEEPING, key
from kdcli.data.tokens import TokenView, tokenise
from tests.data.test_tokens_row_by_row import assert_same
from tests.data.two_tokenizers import HARD_TEXTS, random_texts, split_of

LARGE = split_of(random_texts(WORTH_KEEPING, 5))
LARGE_PAIRS = split_of(LARGE.texts, random_texts(WORTH_KEEPING, 6))
SPLITS = {"single": LARGE, "pairs": LARGE_PAIRS}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; returns where the token files will lie."""
    monkeypatch.setenv("KDCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever a tokenizer really runs over a split."""
    runs: list[int] = []
    run = tokens._run

    def counted(split: Split, tokenizer: Any, max_length: int) -> Any:
        runs.append(len(split))
        return run(split, tokenizer, max_length)

    monkeypatch.setattr(tokens, "_run", counted)
    return runs


def not_kept(split: Split, tokenizer: Any, max_length: int = 16) -> TokenView:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCLI_CACHE", "off")
        return tokenise(split, tokenizer, max_length)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("name", ["wordpiece", "byte_level"])
def test_kept_tokens_are_those_made_anew(
    split: Split, name: str, cache: Path, made: list[int], request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    first, second = tokenise(split, tokenizer, 16), tokenise(split, tokenizer, 16)
    assert len(made) == len(names(cache)) == 1
    expected = not_kept(split, tokenizer)
    assert_same(first, expected)
    assert_same(second, expected)
    assert second.ids.base is not None  # a view of the mapped file
    with pytest.raises(ValueError, match="read-only"):
        second.ids[0] = 1


def test_tokens_of_empty_texts_are_kept_too(wordpiece: Any, cache: Path, made: list[int]) -> None:
    bare = copy.deepcopy(wordpiece)
    bare.backend_tokenizer.post_processor = _no_specials()
    split = split_of([""] * WORTH_KEEPING)
    first, second = tokenise(split, bare, 16), tokenise(split, bare, 16)
    assert len(made) == 1
    assert len(second.ids) == 0
    assert_same(second, first)


def _no_specials() -> Any:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])


def test_small_splits_are_not_kept(wordpiece: Any, cache: Path) -> None:
    tokenise(LARGE.select(range(WORTH_KEEPING - 1)), wordpiece, 16)
    assert not cache.exists()


@pytest.mark.parametrize("value", ["", "off", "OFF"])
def test_nothing_is_kept_where_keeping_is_off(
    value: str, wordpiece: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDCLI_CACHE", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tokenise(LARGE, wordpiece, 16)
    assert names(tmp_path) == []


CHANGES: dict[str, Callable[[Any], tuple[Split, Any, int]]] = {
    "one text": lambda tokenizer: (split_of([*LARGE.texts[:-1], "else"]), tokenizer, 16),
    "order": lambda tokenizer: (split_of(LARGE.texts[::-1]), tokenizer, 16),
    "pairs": lambda tokenizer: (LARGE_PAIRS, tokenizer, 16),
    "max_length": lambda tokenizer: (LARGE, tokenizer, 17),
    "side": lambda tokenizer: (LARGE, _changed(tokenizer, truncation_side="left"), 16),
    "inputs": lambda tokenizer: (LARGE, _changed(tokenizer, model_input_names=["input_ids"]), 16),
    "special tokens as text": lambda tokenizer: (LARGE, _changed(tokenizer, split_special_tokens=True), 16),
    "vocabulary": lambda tokenizer: (LARGE, _with_word(tokenizer), 16),
}


def _changed(tokenizer: Any, **attributes: Any) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def _with_word(tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["unheard-of"])
    return tokenizer


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_tokens_changes_the_key(change: str, wordpiece: Any, cache: Path, made: list[int]) -> None:
    tokenise(LARGE, wordpiece, 16)
    split, tokenizer, max_length = CHANGES[change](wordpiece)
    changed = tokenise(split, tokenizer, max_length)
    assert len(made) == len(names(cache)) == 2
    assert_same(changed, not_kept(split, tokenizer, max_length))


def test_what_does_not_change_the_tokens_leaves_the_key(wordpiece: Any, cache: Path, made: list[int]) -> None:
    first = tokenise(LARGE, wordpiece, 16)
    renamed = replace(LARGE, texts=tuple(LARGE.texts), source="elsewhere", fingerprint="other", targets=np.arange(len(LARGE)))
    padding = _changed(wordpiece, pad_token="[UNK]")
    assert_same(tokenise(renamed, wordpiece, 16), first)
    assert tokenise(LARGE, padding, 16).pad_id == padding.pad_token_id != first.pad_id
    assert len(made) == 1


def test_key_tells_where_one_text_ends_and_the_next_begins() -> None:
    splits = [
        split_of(["ab", "c"]), split_of(["a", "bc"]), split_of(["abc"]), split_of(["abc", ""]), split_of(["", "abc"]),
        split_of(["ab"], ["c"]), split_of(["a"], ["bc"]), split_of(["abc"], [""]),
    ]  # fmt: skip
    keys = [key(split, rules) for split in splits for rules in (["x", "16"], ["x1", "6"])]
    assert len(set(keys)) == len(keys)


def test_key_takes_text_that_is_no_valid_unicode() -> None:
    lone = [key(split_of([text]), []) for text in ("\ud83d", "\ude42", "\ud83d\ude42", "🙂", "?")]
    assert len(set(lone)) == len(lone)


def test_key_reads_long_splits_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "_BLOCK", 4)
    keys = {key(split_of(texts), []) for texts in (HARD_TEXTS, [*HARD_TEXTS[:-1], "b"], HARD_TEXTS[:-1])}
    assert len(keys) == 3


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "not Arrow": lambda content: b"what is this?" * 99,
    "cut at the end": lambda content: content[:-1],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "zeros in the middle": lambda content: content[:5000] + bytes(500) + content[5500:],
    "zeros at the end": lambda content: content[:-100] + bytes(100),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_broken_file_is_made_anew(damage: str, wordpiece: Any, cache: Path, made: list[int]) -> None:
    expected = not_kept(LARGE, wordpiece)
    tokenise(LARGE, wordpiece, 16)
    (place,) = cache.iterdir()
    whole = place.read_bytes()
    place.write_bytes(DAMAGES[damage](whole))
    assert_same(tokenise(LARGE, wordpiece, 16), expected)
    assert place.read_bytes() == whole
    assert_same(tokenise(LARGE, wordpiece, 16), expected)
    assert len(made) == 3  # not kept, kept, kept anew


def test_file_under_a_name_that_is_not_its_own_is_made_anew(wordpiece: Any, cache: Path, made: list[int]) -> None:
    tokenise(LARGE, wordpiece, 16)
    (place,) = cache.iterdir()
    tokenise(LARGE_PAIRS, wordpiece, 16)
    (other,) = set(cache.iterdir()) - {place}
    os.replace(other, place)
    assert_same(tokenise(LARGE, wordpiece, 16), not_kept(LARGE, wordpiece))


def test_file_of_another_format_is_made_anew(
    wordpiece: Any, cache: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "key", lambda split, rules: "same")
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "FORMAT", FORMAT + 1)
        tokenise(LARGE, wordpiece, 16)
    for _ in range(2):
        tokenise(LARGE, wordpiece, 16)
    assert names(cache) == ["same.arrow"]
    assert len(made) == 2


def test_folder_that_cannot_be_written_costs_only_the_time(
    wordpiece: Any, tmp_path: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KDCLI_CACHE", str(tmp_path / "file"))
    expected = not_kept(LARGE, wordpiece)
    assert_same(tokenise(LARGE, wordpiece, 16), expected)
    assert_same(tokenise(LARGE, wordpiece, 16), expected)
    assert len(made) == 3


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_nothing_half_written_stays(error: BaseException, wordpiece: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(file: BinaryIO, *arguments: Any) -> None:
        file.write(b"ARROW1")
        raise error

    monkeypatch.setattr(token_cache, "_write", stopping)
    if isinstance(error, OSError):
        assert_same(tokenise(LARGE, wordpiece, 16), not_kept(LARGE, wordpiece))
    else:
        with pytest.raises(KeyboardInterrupt):
            tokenise(LARGE, wordpiece, 16)
    assert names(cache) == []


def test_several_threads_may_keep_the_same_tokens(wordpiece: Any, cache: Path) -> None:
    expected = not_kept(LARGE, wordpiece)
    tokenizers = [copy.deepcopy(wordpiece) for _ in range(4)]
    with ThreadPoolExecutor(len(tokenizers)) as pool:
        views = list(pool.map(lambda tokenizer: tokenise(LARGE, tokenizer, 16), tokenizers))
    for view in views:
        assert_same(view, expected)
    assert len(names(cache)) == 1


def test_several_processes_may_keep_the_same_tokens(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom kdcli.data import token_cache\n"
        "from kdcli.data.task import Split\n"
        "split = Split(['a'] * 3000, None, None, '', '')\n"
        "arrays = {'bounds': np.arange(3001), 'ids': np.arange(3000, dtype=np.int32)}\n"
        "for _ in range(20):\n"
        "    for place in Path(sys.argv[1]).glob('tokens/*.arrow'):\n        place.unlink(missing_ok=True)\n"
        "    found = token_cache.kept_or_made(split, ['x'], lambda: arrays)\n"
        "    assert all((found[part] == arrays[part]).all() for part in arrays)\n"
    )
    environment = os.environ | {"KDCLI_CACHE": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert all(name.endswith(".arrow") for name in names(tmp_path / "tokens"))


def test_view_outlives_its_file(wordpiece: Any, cache: Path) -> None:
    tokenise(LARGE, wordpiece, 16)
    view = tokenise(LARGE, wordpiece, 16)
    for path in cache.iterdir():
        path.unlink()
    assert_same(view, not_kept(LARGE, wordpiece))


def test_use_renews_a_file_and_writing_removes_what_was_long_unused(wordpiece: Any, cache: Path) -> None:
    tokenise(LARGE, wordpiece, 16)
    tokenise(LARGE, wordpiece, 17)
    for path in cache.iterdir():
        os.utime(path, (0, 0))
    tokenise(LARGE, wordpiece, 16)
    assert len(names(cache)) == 2  # nothing is removed by reading
    tokenise(LARGE, wordpiece, 18)
    assert sorted(path.stat().st_mtime > 0 for path in cache.iterdir()) == [True, True]
