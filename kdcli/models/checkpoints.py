"""Checkpoints by name, path or Hub id, and what can be known of them without loading a weight."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.models.configuration import SINGLE_LABEL, Configuration, longest_input, read_configuration
from kdcli.models.head_file import SHARED_HEAD, read_shared_head, shared_head_of
from kdcli.models.hub_checkpoints import snapshot
from kdcli.models.weight_checks import check_buildable, check_kind_of_task, check_weights
from kdcli.models.weights import has_weights, read_headers, weight_files, weights_fingerprint
from kdcli.tasks.kind import Kind
from kdcli.tasks.kinds import kind_of_head

ALIASES: Mapping[str, str] = {
    "bert": "google-bert/bert-base-uncased",
    "bert-large": "google-bert/bert-large-uncased",
    "roberta": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
    "distilbert": "distilbert/distilbert-base-uncased",
    "electra": "google/electra-base-discriminator",
    "mpnet": "microsoft/mpnet-base",
    "xlm-roberta": "FacebookAI/xlm-roberta-base",
    "modernbert": "answerdotai/ModernBERT-base",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Reference:
    """A model as the user named it: ``name=checkpoint``, a checkpoint, or a known name."""

    name: str
    checkpoint: str
    flag: str


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a checkpoint say about it.

    Attributes:
        folder: where its files are on this machine.
        model_type: the architecture, as ``config.json`` names it.
        layers, width, heads, vocabulary: depth, hidden width D, attention heads A, and token count.
        max_length: the longest input that its positions allow.
        head_labels: class names in the order of its outputs, or None where it has no trained head.
        shared_head: the folder of the shared head that it was co-finetuned with, or None.
        fingerprint: of the weights, 16 hex digits per file (the revision, for weights from the Hub).
        problem_type: what kind of task its head is for.
    """

    name: str
    reference: str
    folder: Path
    model_type: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    max_length: int
    head_labels: tuple[str, ...] | None
    shared_head: Path | None
    fingerprint: str
    config: Any = field(repr=False, compare=False)
    problem_type: str = SINGLE_LABEL

    @property
    def task_kind(self) -> Kind | None:
        """The task of its trained head, where that is of a kind that there is."""
        kind = kind_of_head(self.problem_type)
        return None if kind is None or self.head_labels is None else kind.of_outputs(self.head_labels)

    def check_head(self, remedy: str = "") -> None:
        """Refuse a trained head that is for no kind of task that there is.

        Raises:
            RequestError: with the key of its configuration.
        """
        kind = kind_of_head(self.problem_type)
        if self.head_labels is not None and (kind is None or len(self.head_labels) < kind.fewest_outputs):
            check_kind_of_task(read_configuration(self.folder), remedy)


def parse_references(text: str, flag: str) -> list[Reference]:
    """Read ``bert,roberta``, ``bert=./my-bert,./my-roberta`` or the folder of a co-finetuning run.

    Raises:
        RequestError: nothing is named, or one name stands for two models.
    """
    references: list[Reference] = []
    for part in _parts(text):
        name, equals, checkpoint = part.partition("=")
        if not equals or _is_there(part):
            references += _expanded(part, flag)
        elif not re.fullmatch(r"[\w-]+", name) or not checkpoint:
            expected = "bert=./my-bert" if checkpoint and not name.count("/") else "bert=./my-bert, or a folder that is there"
            raise RequestError(Problem(f"{flag} {text}", f"{part!r} is not name=checkpoint", expected))
        else:
            references.append(Reference(name, ALIASES.get(checkpoint, checkpoint), flag))
    if not references:
        raise RequestError(Problem(f"{flag} {text}", "names no model", f"{flag} bert,roberta"))
    names = [reference.name for reference in references]
    for name in names:
        if len(name) > _LONGEST_NAME:
            found = f"{len(name)} characters: {name[:20]}…"
            raise RequestError(Problem(f"{flag} {text[:200]}", "a name is too long", f"{_LONGEST_NAME} characters", found))
        alike = [other for other in names if _folded(other) == _folded(name)]  # where a disk does not tell A from a
        if len(alike) > 1:
            called = repr(name) if len(set(alike)) == 1 else " and ".join(map(repr, dict.fromkeys(alike)))
            raise RequestError(
                Problem(f"{flag} {text}", f"two models are called {called}", "name=checkpoint with different names")
            )
    return references


def _parts(text: str) -> list[str]:
    """The text between the commas; commas within the name of a folder that is there do not count."""
    words = text.split(",")
    parts: list[str] = []
    begin = 0
    while begin < len(words):
        ends = range(len(words), begin + 1, -1)
        end = next((end for end in ends if _is_folder(",".join(words[begin:end]).strip())), begin + 1)
        parts.append(",".join(words[begin:end]).strip())
        begin = end
    return [part for part in parts if part]


def _is_folder(text: str) -> bool:
    """Whether this is a folder that is there, perhaps with a name before it."""
    return _is_there(text) or ("=" in text and _is_there(text.partition("=")[2]))


def _is_there(folder: str) -> bool:
    try:
        return bool(folder) and Path(folder).is_dir()
    except (OSError, ValueError):  # longer than a name can be, or with characters that none has
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _expanded(part: str, flag: str) -> list[Reference]:
    """One reference, or all teachers of a run folder."""
    path = Path(part)
    for folder in (path / "teachers", path):
        if (folder / SHARED_HEAD).is_file():
            return [Reference(name, str(folder / name), flag) for name in read_shared_head(folder).teachers]
    name = re.sub(r"[^\w-]+", "-", path.name.lower()).strip("-") or "teacher"
    return [Reference(name, ALIASES.get(part, part), flag)]


def describe(reference: Reference, *, weights: bool = True) -> Checkpoint:
    """Look at a checkpoint's files without loading weights; a Hub id has its small files fetched.

    Args:
        reference: the model as the user named it.
        weights: there must be weights and a tokenizer that could be loaded; else ``config.json`` is enough.

    Raises:
        RequestError: unknown name, missing folder, no or unsafe weights, broken config, Hub out of reach.
    """
    path = Path(reference.checkpoint)
    if _is_there(reference.checkpoint):
        return _describe_folder(reference, path, config_alone=not weights)
    looks_like_id = _HUB_ID.fullmatch(reference.checkpoint) and not reference.checkpoint.startswith((".", "/", "~"))
    if looks_like_id and (not path.parent.is_dir() or reference.checkpoint in ALIASES.values()):
        return _describe_folder(reference, _fetch_small_files(reference), on_hub=True)
    raise _unknown(reference)


def _unknown(reference: Reference) -> RequestError:
    where = f"{reference.flag} {reference.checkpoint}"
    if "/" in reference.checkpoint or reference.checkpoint.startswith("."):
        return RequestError(Problem(where, "there is no such folder", remedy=f"relative paths begin at {Path.cwd()}"))
    return RequestError(
        Problem(
            where,
            "there is no such model",
            "a folder, a Hub id such as FacebookAI/roberta-base, or one of " + ", ".join(ALIASES),
            remedy=did_you_mean(reference.checkpoint, ALIASES),
        )
    )


def _describe_folder(reference: Reference, folder: Path, on_hub: bool = False, config_alone: bool = False) -> Checkpoint:
    where = f"{reference.flag} {reference.name}={reference.checkpoint}"
    found = read_configuration(folder, where)
    if config_alone or (on_hub and not has_weights(folder)):
        check_buildable(found)
        trained = any(name.endswith("ForSequenceClassification") for name in found.architectures)
    else:
        trained = check_weights(folder, found, read_headers(folder, where))
        _refuse_slow_tokenizer(folder, where)
    config = found.config
    shared = shared_head_of(folder)
    if shared is not None:
        _refuse_other_width(shared, folder, config.hidden_size)
    return Checkpoint(
        name=reference.name,
        reference=reference.checkpoint,
        folder=folder,
        model_type=config.model_type,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        max_length=_max_length(found),
        head_labels=found.labels if trained else None,
        shared_head=None if shared is None else folder.parent,
        fingerprint=folder.name[:16] if on_hub else weights_fingerprint(folder),
        config=config,
        problem_type=found.problem_type,
    )


def _refuse_other_width(shared: Path, folder: Path, width: int) -> None:
    said = read_shared_head(shared).widths[folder.resolve().name]
    if said != width:
        raise RequestError(
            Problem(
                f"{shared / SHARED_HEAD}  widths.{folder.resolve().name}",
                "is not the width of that teacher",
                f"{width}, as {folder / 'config.json'} says",
                str(said),
            )
        )


def _refuse_slow_tokenizer(folder: Path, where: str) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise RequestError(
            Problem(
                where,
                "has no fast tokenizer",
                f"tokenizer.json in {folder}",
                ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]),
                f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')",
            )
        )


def _max_length(found: Configuration) -> int:
    longest = longest_input(found.config)
    if longest < 1:
        raise RequestError(
            Problem(
                f"{found.path}  max_position_embeddings",
                "leaves no room for a token",
                f"more than {found.config.max_position_embeddings - longest}",
                str(found.config.max_position_embeddings),
            )
        )
    return longest


def _fetch_small_files(reference: Reference) -> Path:
    """Configuration and tokenizer from the Hub (or its cache); the weights follow in :func:`fetch_weights`."""
    return snapshot(reference.checkpoint, reference.flag, ["*.json", "*.txt", "*.model"], check_weights=True)


def fetch_weights(checkpoint: Checkpoint) -> Path:
    """The folder with the weights in it; downloads them where the checkpoint is a Hub id and they are not there.

    Raises:
        RequestError: the Hub cannot be reached.
    """
    if is_whole(checkpoint.folder):
        return checkpoint.folder
    return snapshot(checkpoint.reference, "--teachers", ["*.json", "*.txt", "*.model", "*.safetensors"])


def is_whole(folder: Path) -> bool:
    """Whether weights are there; of a snapshot of the Hub's cache with an index, all that it names."""
    if folder.resolve().parent.name != "snapshots":
        return has_weights(folder)
    try:
        return has_weights(folder) and bool(weight_files(folder))
    except RequestError:
        return False
