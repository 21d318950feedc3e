"""Checkpoints by name, path or Hub id, and what can be known of them without loading a weight."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcli.data.readers import fingerprint
from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.models.hub import snapshot

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
SHARED_HEAD = "head.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HEAD_PREFIXES = ("classifier.", "pre_classifier.", "score.", "head.")
_LONGEST_NAME = 64
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "tf_model.h5", "flax_model.msgpack")


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
        fingerprint: of the weights, 16 hex digits (the revision, for weights that are still on the Hub).
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


def parse_references(text: str, flag: str) -> list[Reference]:
    """Read ``bert,roberta``, ``bert=./my-bert,./my-roberta`` or the folder of a co-finetuning run.

    Raises:
        RequestError: nothing is named, or one name stands for two models.
    """
    references: list[Reference] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, equals, checkpoint = part.partition("=")
        if not equals:
            references += _expanded(part, flag)
        elif not re.fullmatch(r"[\w-]+", name) or not checkpoint:
            raise RequestError(Problem(f"{flag} {text}", f"{part!r} is not name=checkpoint", "bert=./my-bert"))
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


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _expanded(part: str, flag: str) -> list[Reference]:
    """One reference, or all teachers of a run folder."""
    path = Path(part)
    for folder in (path / "teachers", path):
        if (folder / SHARED_HEAD).is_file():
            names = json.loads((folder / SHARED_HEAD).read_text(encoding="utf-8"))["teachers"]
            return [Reference(name, str(folder / name), flag) for name in names]
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
    if path.is_dir():
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
    config = _config(folder, where)
    unseen = on_hub or config_alone
    tensors = [] if unseen else _tensor_names(folder, where)
    if not unseen and not (folder / "tokenizer.json").is_file():
        raise RequestError(
            Problem(
                where,
                "has no fast tokenizer",
                f"tokenizer.json in {folder}",
                ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]),
                f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')",
            )
        )
    text_config = config.get_text_config()
    shared = folder.parent if (folder.parent / SHARED_HEAD).is_file() else None
    if shared is not None:
        known = json.loads((shared / SHARED_HEAD).read_text(encoding="utf-8"))["teachers"]
        shared = shared if folder.name in known else None
    return Checkpoint(
        name=reference.name,
        reference=reference.checkpoint,
        folder=folder,
        model_type=config.model_type,
        layers=text_config.num_hidden_layers,
        width=text_config.hidden_size,
        heads=text_config.num_attention_heads,
        vocabulary=text_config.vocab_size,
        max_length=_max_length(text_config),
        head_labels=_head_labels(config, tensors, unseen),
        shared_head=shared,
        fingerprint=folder.name[:16] if on_hub else _weights_fingerprint(folder),
        config=config,
    )


def _config(folder: Path, where: str) -> Any:
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise RequestError(
            Problem(
                where,
                "is not a checkpoint",
                "config.json in the folder",
                ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]) or "an empty folder",
            )
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise RequestError(
            Problem(
                str(folder / "config.json"),
                "cannot be read as a model configuration",
                "an encoder that transformers knows (remote code is not run)",
                str(error).splitlines()[0][:200],
            )
        ) from error
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config.get_text_config(), "num_attention_heads"):
        raise RequestError(Problem(where, f"{config.model_type} is not a transformer encoder"))
    return config


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def _tensor_names(folder: Path, where: str) -> list[str]:
    from safetensors import SafetensorError, safe_open

    files = _weight_files(folder)
    if not files:
        pickles = sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)})
        if pickles:
            raise RequestError(
                Problem(
                    where,
                    "has pickled weights only, which can run code when they are loaded",
                    "model.safetensors",
                    ", ".join(pickles),
                    _conversion(folder),
                )
            )
        raise RequestError(
            Problem(
                where,
                "the folder has no weights",
                "model.safetensors",
                ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]),
            )
        )
    names: list[str] = []
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                names += tensors.keys()
        except SafetensorError as error:
            raise RequestError(
                Problem(str(file), "is broken", "a whole safetensors file", str(error), "copy or download it again")
            ) from error
    return names


def _conversion(folder: Path) -> str:
    return (
        'if you trust where it is from, convert it once: python -c "from transformers import AutoModel as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )


def _head_labels(config: Any, tensors: list[str], on_hub: bool) -> tuple[str, ...] | None:
    architectures = config.architectures or []
    is_classifier = any(name.endswith("ForSequenceClassification") for name in architectures)
    has_tensors = on_hub or any(name.startswith(_HEAD_PREFIXES) for name in tensors)
    if not (is_classifier and has_tensors):
        return None
    return tuple(config.id2label[row] for row in range(config.num_labels))


def _max_length(config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None) or 512
    padded = (getattr(config, "position_embedding_offset", None) or config.pad_token_id or 0) if _offsets(config) else -1
    return int(positions - padded - 1)


def _offsets(config: Any) -> bool:
    """Whether positions begin behind the padding index, as in RoBERTa and its relatives."""
    return config.model_type in (
        "roberta",
        "xlm-roberta",
        "camembert",
        "mpnet",
        "longformer",
        "xlm-roberta-xl",
        "data2vec-text",
    )


def _weights_fingerprint(folder: Path) -> str:
    return "+".join(fingerprint(file) for file in _weight_files(folder))


def _fetch_small_files(reference: Reference) -> Path:
    """Configuration and tokenizer from the Hub (or its cache); the weights follow in :func:`fetch_weights`."""
    return snapshot(reference.checkpoint, reference.flag, ["*.json", "*.txt", "*.model"], check_weights=True)


def fetch_weights(checkpoint: Checkpoint) -> Path:
    """The folder with the weights in it; downloads them where the checkpoint is a Hub id and they are not there.

    Raises:
        RequestError: the Hub cannot be reached.
    """
    if _weight_files(checkpoint.folder):
        return checkpoint.folder
    return snapshot(checkpoint.reference, "--teachers", ["*.json", "*.txt", "*.model", "*.safetensors"])
