"""Which columns of a table are the text, the second text and the label: the user's own, else those with usual names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from kdcli.data.presets import PRESETS
from kdcli.data.table import Columns
from kdcli.errors import Problem, RequestError, did_you_mean

NO_PAIR = "none"
_TEXT_NAMES = ("text", "sentence", "title", "question", "content", "review", "utterance", "query", "sentence1")
_LABEL_NAMES = ("label", "labels", "category", "intent", "class", "target", "topic", "gold_label")
# A first name that says of itself that a second text belongs to it, and what the second one is then called.
_TWINS = {
    "text": ("text_pair", "text pair", "textpair", "pair"),
    "sentence": ("sentence_pair", "sentence pair"),
    "premise": ("hypothesis",),
    "claim": ("evidence",),
}
_TWIN_STEM = (
    r"text|sentence|sent|question|string|utterance|title|statement|phrase|premise|paragraph|passage|document|doc|content|"
    r"tweet|comment|answer|response|input|sequence|seq|claim|description|query|s|q|t"
)
_TWIN_ENDS = {"1": "2", "a": "b", "first": "second", "left": "right", "one": "two"}
_TWIN = re.compile(rf"(?P<stem>{_TWIN_STEM})(?P<gap>[_ -]?)(?P<end>{'|'.join(_TWIN_ENDS)})")
# Texts that are often used alone: the second one is taken where the user named neither.
_COMPANIONS = {
    "question": ("sentence", "passage", "context", "answer", "paragraph", "document", "text"),
    "query": ("passage", "document", "answer", "context", "title", "text"),
    "title": ("content", "abstract", "description", "body", "text"),
    "headline": ("body", "content", "text", "description"),
    "subject": ("body",),
    "claim": ("context",),
    "text": ("context", "hypothesis"),
    "sentence": ("context",),
    "context": ("response",),
}
_INDEX_NAMES = (
    "index", "idx", "id", "row", "row_id", "rowid", "row_index", "guid", "uid", "uuid", "sample_id", "example_id", "text_id",
    "pairid", "pair_id", "key", "", "unnamed: 0",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What the columns of a table stand for.

    Attributes:
        text: the column with the (first) text.
        pair: the column with the second text, or None for single texts.
        label: the column with the class, or None where the table has none.
        given: those of ``text``, ``pair`` and ``label`` that the user (or the preset) named; the others were guessed.
        left_out: columns that are not used.
    """

    text: str
    pair: str | None
    label: str | None
    given: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One sentence: each column that is used, how it was found, and those that are not used."""
        used = [("text", "text", self.text), ("second text", "pair", self.pair), ("label", "label", self.label)]
        parts = [
            f"{what} {name!r}" + (" (given)" if key in self.given else " (guessed)")
            for what, key, name in used
            if name is not None
        ]
        if self.pair is not None and "pair" not in self.given:
            parts[1] = parts[1].replace("(guessed)", f"(guessed; --text-pair-column {NO_PAIR} for single texts)")
        shown = ", ".join(repr(name) for name in self.left_out[:12])
        more = f", … ({len(self.left_out)} in all)" if len(self.left_out) > 12 else ""
        return ", ".join(parts) + (f"; left out: {shown}{more}" if self.left_out else "")

    @property
    def is_plain(self) -> bool:
        """Whether nothing needs to be said: single texts and labels, and no column is left out."""
        return not self.left_out and (self.pair is None or "pair" in self.given)


def choose(columns: Columns, text: str | None, pair: str | None, label: str | None, *, needs_label: bool = True) -> Choice:
    """The columns of a table, as named by the user where named, else by their usual names.

    Args:
        columns: the table.
        text: what the user named as the text.
        pair: what the user named as the second text; ``none`` for single texts.
        label: what the user named as the class.
        needs_label: refuse a table in which no column can be taken as the label.

    Raises:
        RequestError: a named column is not there, or none can be guessed; with the columns that are there.
    """
    names = list(columns.cells)
    single = pair is not None and pair.lower() in (NO_PAIR, "") and pair not in names
    flags = {
        "--text-column": text,
        "--text-pair-column": None if single else pair,
        "--label-column": label,
    }
    for flag, name in flags.items():
        if name is not None and name not in names:
            raise _no_such_column(columns, flag, name)
    free = [name for name in names if name not in (pair, label)]
    found_text, found_pair = text, None if single else pair
    if text is None and pair is None:
        found_text, found_pair = _guessed_texts(free)
    elif text is None:
        found_text = (_guessed_texts(free)[0] if single else None) or _guess(free, _TEXT_NAMES)
    elif pair is None:
        found_pair = _second_of(text, free, companions=False)
    found_label = label or _guess([name for name in names if name not in (found_text, found_pair)], _LABEL_NAMES)
    if found_text is None:
        raise _no_guess(columns, "text")
    if found_label is None and needs_label:
        raise _no_guess(columns, "label")
    _refuse_one_column_twice(columns, found_text, found_pair, found_label)
    given = tuple(key for key, value in (("text", text), ("pair", pair), ("label", label)) if value is not None)
    return _choice(names, found_text, found_pair, found_label, given)


def like(columns: Columns, first: Choice, where: str) -> Choice:
    """The columns of a further split, which are those of the first table, whatever else could be guessed.

    The label may be missing: whether that is wrong is for the caller to say.

    Args:
        columns: the further table.
        first: the columns of the training file.
        where: the training file, for messages.

    Raises:
        RequestError: a text column is not there.
    """
    found = {}
    for key, name in (("text", first.text), ("pair", first.pair), ("label", first.label)):
        there = None if name is None else _same_name(name, list(columns.cells))
        if there is None and name is not None and key != "label":
            raise RequestError(
                Problem(
                    columns.source,
                    f"there is no column {name!r}, which is the {'text' if key == 'text' else 'second text'} in {where}",
                    "the same columns in all files",
                    ", ".join(columns.cells),
                )
            )
        found[key] = there
    assert found["text"] is not None
    return _choice(list(columns.cells), found["text"], found["pair"], found["label"], first.given)


def fixed(columns: Columns, text: str, pair: str | None, label: str, *, needs_label: bool = True) -> Choice:
    """The columns of a file whose layout is known.

    Raises:
        RequestError: one of them is not there.
    """
    names = list(columns.cells)
    there = label if label in names or needs_label else None
    for flag, name in (("--text-column", text), ("--text-pair-column", pair), ("--label-column", there)):
        if name is not None and name not in names:
            raise _no_such_column(columns, flag, name)
    return _choice(names, text, pair, there, ("text", "pair", "label"))


def index_columns(columns: Columns) -> list[str]:
    """The columns that say by their name which row is meant, the likeliest first."""
    lowered = {name.strip().lower(): name for name in reversed(columns.cells)}
    return [lowered[name] for name in _INDEX_NAMES if name in lowered]


def _choice(names: Sequence[str], text: str, pair: str | None, label: str | None, given: tuple[str, ...]) -> Choice:
    left_out = tuple(name for name in names if name not in (text, pair, label))
    return Choice(text, pair, label, given, left_out)


def _same_name(name: str, names: Sequence[str]) -> str | None:
    """That column, or the only one whose name differs in case and outer blanks alone."""
    if name in names:
        return name
    alike = [other for other in names if other.strip().lower() == name.strip().lower()]
    return alike[0] if len(alike) == 1 else None


def _guess(names: Sequence[str], known: Sequence[str]) -> str | None:
    lowered = {name.strip().lower(): name for name in reversed(names)}
    return next((lowered[name] for name in known if name in lowered), None)


def _guessed_texts(names: Sequence[str]) -> tuple[str | None, str | None]:
    """The text and the second text: a pair with usual names where there is one, else a single text."""
    firsts = [name for name in names if _second_of(name, names, companions=False) is not None]
    if firsts:
        first = min(firsts, key=lambda name: name.strip().lower() != "text")
        return first, _second_of(first, names, companions=False)
    for first in _COMPANIONS:
        there = _guess(names, (first,))
        if there is not None and (second := _second_of(there, names, companions=True)) is not None:
            return there, second
    return _guess(names, _TEXT_NAMES), None


def _second_of(first: str, names: Sequence[str], *, companions: bool) -> str | None:
    """The column with the text that belongs to ``first``, if there is one."""
    plain = first.strip().lower()
    candidates = list(_TWINS.get(plain, ()))
    twin = _TWIN.fullmatch(plain)
    if twin is not None:
        candidates.append(twin["stem"] + twin["gap"] + _TWIN_ENDS[twin["end"]])
    if companions:
        candidates += _COMPANIONS.get(plain, ())
    return _guess([name for name in names if name != first], candidates)


def _no_such_column(columns: Columns, flag: str, name: str) -> RequestError:
    hint = did_you_mean(name, columns.cells)
    nearest = hint.removeprefix("did you mean '").removesuffix("'?") if hint else next(iter(columns.cells))
    return RequestError(
        Problem(
            columns.source,
            f"there is no column {name!r}",
            f"one of {', '.join(columns.cells)}",
            remedy=f"{flag} {shlex.quote(nearest)}",
        )
    )


def _no_guess(columns: Columns, missing: str) -> RequestError:
    folders = {part.lower().replace("-", "").replace("_", "") for part in re.split(r"[\\/]", columns.source)}
    known = [name for name in PRESETS if name in folders]
    return RequestError(
        Problem(
            columns.source,
            f"no column could be taken as the {missing}",
            f"a column called {missing}, or --{missing}-column NAME",
            ", ".join(columns.cells),
            f"--task {known[0]}" if known else columns.hint,
        )
    )


def _refuse_one_column_twice(columns: Columns, text: str, pair: str | None, label: str | None) -> None:
    uses = (("text", text), ("second text", pair), ("label", label))
    seen: dict[str, str] = {}
    for what, name in uses:
        if name is not None and name in seen:
            raise RequestError(
                Problem(columns.source, f"column {name!r} cannot be the {seen[name]} and the {what}", "two different columns")
            )
        if name is not None:
            seen[name] = what
