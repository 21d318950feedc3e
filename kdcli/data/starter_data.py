"""The starter task: labelled text that every install already has.

The first paragraphs of docstrings in Python's standard library and in kdcli's own dependencies; the label is the library that
a paragraph comes from, and the libraries' names are masked. It is a real, small, noisy classification task that needs no
network and no download, made so that the first command can be tried anywhere. Its rows depend on the installed versions, so
its scores are for comparison inside a run, not across machines.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import itertools
import json
import os
import re
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kdcli.atomic_files import write_text
from kdcli.data.splits import DEV, TEST, TRAIN
from kdcli.errors import RunFailedError

NAME = "starter"
LIBRARIES: dict[str, tuple[str, ...]] = {
    "stdlib": ("python", "cpython"),
    "scipy": (),
    "sklearn": ("scikit-learn", "scikit"),
    "pandas": ("pd", "dataframe"),
    "torch": ("pytorch", "aten"),
    "transformers": ("huggingface", "hugging face"),
    "sympy": (),
    "networkx": ("nx",),
}
ROWS = {TRAIN: 400, DEV: 120, TEST: 120}
_SHORTEST, _LONGEST, _MOST_PER_FILE = 40, 160, 20
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
_LEFT_OUT = {"tests", "test", "testing", "_vendor", "site-packages", "idlelib", "lib2to3", "externals", "vendored"}


def write_starter_data(folder: Path) -> None:
    """Write ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl``.

    Raises:
        RunFailedError: an installed library has too few docstrings (its sources are not there, say).
    """
    with _collector_at_rest():
        _write_rows(folder)


def _write_rows(folder: Path) -> None:
    generator = np.random.default_rng(0)
    wanted = sum(ROWS.values())
    rows: dict[str, list[str]] = {split: [] for split in ROWS}
    seen: set[str] = set()
    for library in LIBRARIES:
        texts = []
        for text in _paragraphs(library, generator):
            if text not in seen:
                seen.add(text)
                texts.append(text)
            if len(texts) == wanted:
                break
        if len(texts) < wanted:
            raise RunFailedError(
                f"the starter task needs {wanted} docstrings of {library}, and found {len(texts)}; give --task or --data"
            )
        begin = 0
        for split, count in ROWS.items():
            part = texts[begin : begin + count]
            rows[split] += [json.dumps({"text": text, "label": library}, ensure_ascii=False) for text in part]
            begin += count
    for split, lines in rows.items():
        order = generator.permutation(len(lines))
        write_text(folder / f"{split}.jsonl", "".join(lines[row] + "\n" for row in order))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Syntax trees have no cycles, and to look for some in them takes as long as to make them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def sample_texts(count: int) -> list[str]:
    """Some real text for a model that comes without data: docstrings of the standard library, always the same ones."""
    return list(itertools.islice(_paragraphs("stdlib", np.random.default_rng(0)), count))


def _paragraphs(library: str, generator: np.random.Generator) -> Iterator[str]:
    """The first paragraphs of a library's docstrings, files in a random but repeatable order."""
    files = _files(_root(library))
    for place in generator.permutation(len(files)):
        found = (text for text in map(_tidy, _docstrings(files[place])) if text)
        yield from itertools.islice(found, _MOST_PER_FILE)


def _files(root: Path) -> list[Path]:
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _LEFT_OUT]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found)


def _root(library: str) -> Path:
    if library == "stdlib":
        return Path(sysconfig.get_paths()["stdlib"])
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise RunFailedError(f"the starter task needs the package {library}; give --task or --data")
    return Path(next(iter(spec.submodule_search_locations)))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8", errors="ignore"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """What :func:`ast.walk` gives, in its order, without the expressions, in which no docstring can be."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        for block in _BLOCKS:
            waiting += getattr(node, block, ())
        yield node


_NAMES = re.compile(
    r"\b(" + "|".join(re.escape(word) for name, others in LIBRARIES.items() for word in (name, *others)) + r")\w*",
    re.IGNORECASE,
)


def _tidy(docstring: str) -> str:
    """The first paragraph in one line, names masked, cut at a word; empty where it is too short."""
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    text = _NAMES.sub("it", re.sub(r"\s+", " ", paragraph))
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rsplit(" ", 1)[0]
    return text if len(text) >= _SHORTEST and text.isascii() else ""
