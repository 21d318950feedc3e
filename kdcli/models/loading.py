"""Loading of weights and tokenizers: safetensors only, no remote code, no chatter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from kdcli.errors import Problem, RequestError
from kdcli.models.checkpoints import Checkpoint
from kdcli.models.segments import follow_model

_LONGEST = 512


def quiet_transformers() -> None:
    """Keep transformers from writing bars and hints to the terminal, which belongs to kdcli."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a checkpoint folder."""
    from transformers import AutoConfig, AutoTokenizer

    quiet_transformers()
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False, local_files_only=True)
    if tokenizer.pad_token_id is None:
        raise RequestError(Problem(str(folder), "the tokenizer has no padding token"))
    if (folder / "config.json").is_file():
        follow_model(tokenizer, AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True), folder)
    return tokenizer


def text_limit(checkpoint: Checkpoint) -> int:
    """Tokens per text that a checkpoint takes: by its positions, by its tokenizer, and 512 at the most."""
    return min(checkpoint.max_length, int(load_tokenizer(checkpoint.folder).model_max_length), _LONGEST)


def load_encoder(folder: Path) -> nn.Module:
    """The bare encoder of a checkpoint folder, in fp32."""
    from transformers import AutoModel

    return _load(AutoModel, folder)[0]


def load_encoder_and_gaps(folder: Path) -> tuple[nn.Module, frozenset[str]]:
    """The bare encoder, and the names of its parameters that the checkpoint does not have (they are random)."""
    from transformers import AutoModel

    return _load(AutoModel, folder)


def load_classifier(folder: Path) -> nn.Module:
    """A checkpoint with its own classification head, in fp32.

    Raises:
        RequestError: parts of the model are not in the checkpoint, the head above all.
    """
    from transformers import AutoModelForSequenceClassification

    model, missing = _load(AutoModelForSequenceClassification, folder)
    if missing:
        raise RequestError(
            Problem(
                str(folder),
                "the checkpoint has no trained classification head",
                "weights for every part of the model",
                "missing: " + ", ".join(sorted(missing)[:4]),
                "fine-tune it first, or name it as a teacher: kdcli co-finetunes bare encoders",
            )
        )
    return model


def _load(factory: Any, folder: Path) -> tuple[nn.Module, frozenset[str]]:
    """A model and what its checkpoint lacks; the process's random numbers are left as they were."""
    quiet_transformers()
    try:
        with torch.random.fork_rng(devices=[]):
            model, report = factory.from_pretrained(
                folder,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise RequestError(
            Problem(str(folder), "the weights cannot be loaded", found=str(error).splitlines()[0][:200])
        ) from error
    return model, frozenset(report["missing_keys"])
