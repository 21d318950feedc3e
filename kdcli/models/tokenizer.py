"""Tokenizers of model folders, held against the table of tokens of their model before a text is read with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdcli.errors import Problem, RequestError
from kdcli.models.configuration import CONFIG, offsets, read_configuration
from kdcli.models.json_file import blamed, brief, read_object, refused, written
from kdcli.models.segments import follow_model

_RULES = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_SMALL_FILES = (_SETTINGS, "special_tokens_map.json", "added_tokens.json")
_MOST_BYTES = 256 * 2**20


def checked_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model folder, which gives segment ids if the model takes them.

    Raises:
        RequestError: its files are broken, with file and key; it has no padding token; its tokens are not in the model's table.
    """
    settings = {name: read_object(folder / name) for name in _SMALL_FILES if (folder / name).is_file()}
    rules = folder / _RULES
    if rules.is_file() and rules.stat().st_size > _MOST_BYTES:
        raise RequestError(
            Problem(str(rules), "is too long", f"at most {_MOST_BYTES:,} bytes", f"{rules.stat().st_size:,} bytes")
        )
    try:
        tokenizer = _load(folder)
    except Exception as error:  # transformers and tokenizers raise errors of every kind
        raise _broken(folder, settings, error) from error
    _refuse_odd_settings(folder, settings.get(_SETTINGS, {}), tokenizer)
    config = read_configuration(folder).config if (folder / CONFIG).is_file() else None
    if tokenizer.is_fast:
        _refuse_unknown_tokens(folder, tokenizer, config)
        if config is not None:
            follow_model(tokenizer, config, folder)
    return tokenizer


def _load(folder: Path) -> Any:
    """Load, and use it once: some faults show when a text is read."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False, local_files_only=True)
    if tokenizer.is_fast:
        for pair in (None, ["a"]):
            tokenizer(["a"], pair, truncation=False, padding=False)
    return tokenizer


def _broken(folder: Path, settings: Mapping[str, dict[str, Any]], error: Exception) -> RequestError:
    """What is wrong with a tokenizer that cannot be loaded: the file and, where one key is to blame, the key."""
    said = brief(f"{type(error).__name__}: {error}")
    rules = folder / _RULES
    if rules.is_file():
        from tokenizers import Tokenizer

        try:
            Tokenizer.from_file(str(rules))
        except Exception as broken:  # its errors have no class of their own
            return RequestError(
                Problem(str(rules), "is not a tokenizer", "a file that save_pretrained wrote", brief(str(broken)))
            )
    for name, content in settings.items():

        def works(changed: dict[str, Any], name: str = name) -> None:
            with TemporaryDirectory(prefix="kdcli-") as copy:
                _copy(folder, Path(copy), {name: changed})
                _load(Path(copy))

        keys = blamed(content, works)
        if keys:
            found = f"{written(content, keys)} ({said})"
            return refused(folder / name, " or ".join(keys), "cannot be read as a tokenizer", "", found)
    remote = "auto_map" in settings.get(_SETTINGS, {})
    what = "has a tokenizer with code of its own, which is not run" if remote else "the tokenizer cannot be loaded"
    return RequestError(Problem(str(folder), what, "a tokenizer that transformers knows", said))


def _copy(folder: Path, copy: Path, changed: Mapping[str, dict[str, Any]]) -> None:
    """The folder's small files as links, but for those that are changed."""
    import json

    for entry in folder.iterdir():
        if entry.is_file() and entry.suffix in (".json", ".txt", ".model") and entry.name not in changed:
            os.symlink(entry.resolve(), copy / entry.name)
    for name, content in changed.items():
        (copy / name).write_text(json.dumps(content), encoding="utf-8")


def _refuse_odd_settings(folder: Path, written: Mapping[str, Any], tokenizer: Any) -> None:
    path = folder / _SETTINGS
    if tokenizer.pad_token_id is None:
        raise RequestError(
            Problem(
                str(folder), "the tokenizer has no padding token", "pad_token in its tokenizer_config.json",
                "none", 'the token that its model was trained with, such as "pad_token": "[PAD]"',
            )
        )  # fmt: skip
    for key, allowed in (("truncation_side", ("left", "right")), ("padding_side", ("left", "right"))):
        value = getattr(tokenizer, key)
        if not isinstance(value, str) or value not in allowed:
            raise refused(path, key, "is no side of a text", " or ".join(allowed), value)
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or longest != longest:
        raise refused(path, "model_max_length", "is not a number of tokens", "such as 512", written.get("model_max_length"))
    specials = tokenizer.num_special_tokens_to_add(pair=False) if tokenizer.is_fast else 0
    if longest <= specials:
        raise refused(path, "model_max_length", "leaves no room for a token of text", f"more than {specials}", longest)
    if not isinstance(tokenizer.split_special_tokens, bool):
        raise refused(path, "split_special_tokens", "is neither true nor false", "", tokenizer.split_special_tokens)
    kind = tokenizer.pad_token_type_id
    if type(kind) is not int or kind < 0:
        raise refused(path, "pad_token_type_id", "is no kind of segment", "0", kind)
    inputs = written.get("model_input_names", list(tokenizer.model_input_names))
    if not isinstance(inputs, list) or "input_ids" not in inputs or not all(isinstance(name, str) for name in inputs):
        raise refused(path, "model_input_names", "is not a list of names", '["input_ids", "attention_mask"]', inputs)


def _refuse_unknown_tokens(folder: Path, tokenizer: Any, config: Any) -> None:
    """Every token has a row in the table of embeddings, the special ones among them, where the model is known."""
    for pair in (False, True):
        encoding = tokenizer(["a"], ["a"] if pair else None, truncation=False, padding=False).encodings[0]
        if not {0, 1} - ({1} if not pair else set()) <= set(encoding.sequence_ids):
            raise RequestError(Problem(str(folder / _RULES), "makes no token of the text 'a'", "one token or more", "none"))
    if config is None:
        return
    ids = {token: row for token, row in tokenizer.get_vocab().items() if row >= config.vocab_size}
    used = {row for row in encoding.ids if row >= config.vocab_size}
    if ids or used:
        token = min(ids, key=lambda name: ids[name]) if ids else ""
        highest = max([*ids.values(), *used])
        raise RequestError(
            Problem(
                str(folder),
                f"its tokenizer has tokens that the model has no embedding for ({len(ids) or len(used)} of them"
                + (f", {token!r} is the first)" if token else ")"),
                f"token ids below {config.vocab_size}, the vocab_size of {folder / CONFIG}",
                f"ids up to {highest}",
                "the tokenizer that belongs to the model, or a model that was fine-tuned after resize_token_embeddings",
            )
        )
    if offsets(config) and config.pad_token_id != tokenizer.pad_token_id:
        raise refused(
            folder / CONFIG, "pad_token_id", "is not the padding token of the tokenizer, and positions are counted from it",
            f"{tokenizer.pad_token_id} ({tokenizer.pad_token})", config.pad_token_id,
        )  # fmt: skip
