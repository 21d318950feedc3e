"""A split as models read it: tokenised once per tokenizer, aligned with the leading model's tokens where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.data.alignment import align
from kdcli.data.batching import Samples
from kdcli.data.task import Split
from kdcli.data.tokens import TokenView, tokenise
from kdcli.models.weight_loading import load_tokenizer


def tokenizers_of(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Model → tokenizer, each folder's loaded once."""
    loaded = {folder: load_tokenizer(folder) for folder in dict.fromkeys(folders.values())}
    return {name: loaded[folder] for name, folder in folders.items()}


def samples_of(
    split: Split,
    tokenizers: Mapping[str, Any],
    max_length: int,
    *,
    aligned: bool = False,
    out_of_fold: Mapping[str, NDArray[np.float32]] | None = None,
) -> Samples:
    """The samples as each model's own tokenizer sees them; models that see the same tokens share a view.

    Args:
        split: the samples.
        tokenizers: model → tokenizer; the first one leads.
        max_length: tokens per sample.
        aligned: align the tokens of the others with the leading model's.
        out_of_fold: teacher → outputs of copies that were trained without the sample.
    """
    by_tokenizer: dict[int, TokenView] = {}
    views: dict[str, TokenView] = {}
    for name, tokenizer in tokenizers.items():
        view = by_tokenizer.get(id(tokenizer)) or tokenise(split, tokenizer, max_length)
        same = next((other for other in views.values() if other.fingerprint == view.fingerprint), view)
        views[name] = by_tokenizer[id(tokenizer)] = same
    leading = next(iter(views))
    alignments = {name: align(views[leading], view) for name, view in views.items() if name != leading} if aligned else {}
    return Samples(split.targets, views, alignments, leading=leading, out_of_fold=out_of_fold)
