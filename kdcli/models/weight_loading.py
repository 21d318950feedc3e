"""Loading of weights: safetensors only, no remote code, no chatter, and nothing random where a checkpoint has a gap."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdcli.errors import Problem, RequestError
from kdcli.models.checkpoints import Checkpoint
from kdcli.models.configuration import Configuration, longest_input, read_configuration
from kdcli.models.configuration import quiet_transformers as quiet_transformers
from kdcli.models.json_file import brief
from kdcli.models.padding import give_each_length_by_itself, leans_on_padding
from kdcli.models.tokenizer import checked_tokenizer
from kdcli.models.weight_checks import Fit, check_buildable, check_encoder, check_kind_of_task, few, is_plain, place
from kdcli.models.weights import read_headers

_LONGEST = 512


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a checkpoint folder.

    Raises:
        RequestError: its files are broken, or it makes tokens that the model's table does not have.
    """
    quiet_transformers()
    return checked_tokenizer(folder)


def text_limit(checkpoint: Checkpoint) -> int:
    """Tokens per text that a checkpoint takes: by its positions, by its tokenizer, and 512 at the most."""
    return min(checkpoint.max_length, int(load_tokenizer(checkpoint.folder).model_max_length), _LONGEST)


def load_encoder(folder: Path) -> nn.Module:
    """The bare encoder of a checkpoint folder, in fp32.

    Raises:
        RequestError: parts of the encoder are not in the checkpoint, or have other shapes than its configuration says.
    """
    return load_encoder_and_gaps(folder)[0]


def load_encoder_and_gaps(folder: Path) -> tuple[nn.Module, frozenset[str]]:
    """The bare encoder, and the names of its parameters that no pre-training had, such as a pooler (they are random).

    Raises:
        RequestError: as :func:`load_encoder`.
    """
    model, found, fit, tensors = _load(folder, classifier=False)
    check_encoder(folder, found, fit, model, tensors)
    return model, frozenset(fit.missing)


def load_classifier(folder: Path) -> nn.Module:
    """A checkpoint with its own classification head, in fp32.

    Raises:
        RequestError: parts of the model are not in the checkpoint, the head above all; the head is for another kind of task.
    """
    model, found, fit, tensors = _load(folder, classifier=True)
    base = f"{model.base_model_prefix}."
    encoder = tuple(name for name in fit.missing if name.startswith(base))
    check_encoder(folder, found, Fit(encoder, {}, fit.unused, fit.expected), model, tensors)
    if fit.missing or fit.mismatched:
        wrong = [f"missing: {few(fit.missing)}"] if fit.missing else []
        wrong += [f"{name}: {list(there)}, not {list(wanted)}" for name, (there, wanted) in fit.mismatched.items()][:4]
        raise RequestError(
            Problem(
                str(folder),
                "the checkpoint has no trained classification head",
                "weights for every part of the model",
                "; ".join(wrong),
                "fine-tune it first, or name it as a teacher: kdcli co-finetunes bare encoders",
            )
        )
    check_kind_of_task(found)
    classifier: nn.Module = model
    return classifier


def _load(folder: Path, *, classifier: bool) -> tuple[Any, Configuration, Fit, Mapping[str, Any]]:
    """A model, its configuration, and how its checkpoint fits; the process's random numbers are left as they were."""
    from safetensors import safe_open

    quiet_transformers()
    found = read_configuration(folder)
    headers = read_headers(folder)
    check_buildable(found)
    with ExitStack() as opened:
        files = {file: opened.enter_context(safe_open(file, "pt")) for file in {header.file for header in headers.values()}}
        slices = {name: files[header.file].get_slice(name) for name, header in headers.items()}
        opened.enter_context(torch.random.fork_rng(devices=[]))
        try:
            model, fit = place(found.config, slices, classifier=classifier)
            if not is_plain(found.config) and leans_on_padding(model, longest_input(found.config)):
                give_each_length_by_itself(model)  # some faults of a configuration show in that run alone
        except RequestError:
            raise
        except Exception as error:  # transformers raises errors of every kind
            said = brief(f"{type(error).__name__}: {error}")
            raise RequestError(Problem(str(folder), "the weights cannot be loaded", found=said)) from error
    return model, found, fit, slices
