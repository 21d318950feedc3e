"""Small classifiers of every family, with weights that tell texts apart, and their files in ONNX Runtime."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from kdcli.export import graph
from tests.models.architectures import CONFIGS, VOCABULARY

OWN_ATTENTION = ("mpnet", "deberta-v2")  # of which transformers has one implementation
LAYERS, CLASSES = 2, 3
LONGEST = 36  # tokens that every family has positions for
Arrays = dict[str, NDArray[np.int64]]


def classifier(name: str, attention: str = "sdpa", layers: int = LAYERS, **changes: Any) -> Any:
    """A classifier of that family, always the same one, none of whose weights and biases are 0 or 1."""
    config = CONFIGS[name]()
    for key, value in ({"num_hidden_layers": layers, "num_labels": CLASSES, "initializer_range": 0.15} | changes).items():
        setattr(config, key, value)
    implementation = {} if name in OWN_ATTENTION else {"attn_implementation": attention}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any = AutoModelForSequenceClassification.from_config(config, **implementation)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.float().eval()


def with_an_outlier(model: Any) -> Any:
    """Change a BERT so that its first product in a feed-forward layer loses its meaning in 8 bits, and in fp32 does not.

    One input of the layer is always 0, and has the weights beside which all others are small.
    """
    layer = model.bert.encoder.layer[0]
    for parameter in layer.attention.output.LayerNorm.parameters():
        parameter.data[0] = 0.0
    layer.intermediate.dense.weight.data[:, 0] = 300.0
    return model


class Drawer:
    """Graphs that were written already: equal models are exported once, which is the slow part of many tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[Any, dict[str, int]] = {}
        self.places: dict[Any, Path] = {}

    def write_graph(self, model: Any, example: Any, path: Path, about: Any, settings: Any) -> dict[str, int]:
        """Takes the place of the function of that name; ``about`` is that of the first model."""
        weights = sum(float(value.detach().double().abs().sum()) for value in model.parameters())
        key = (model.dtype, weights, tuple(example), settings)
        if key not in self.places:
            place = self.folder / f"{len(self.places)}.onnx"
            self.counts[key] = graph.write_graph(model, example, place, about, settings)
            self.places[key] = place
        shutil.copy(self.places[key], path)
        return self.counts[key]


def tokens(model: Any, lengths: list[int], width: int | None = None, seed: int = 0, types: bool = False) -> dict[str, Tensor]:
    """Rows of tokens of these lengths, padded on the right to the longest or to ``width``."""
    generator = torch.Generator().manual_seed(seed)
    wide = width or max(lengths)
    mask = (torch.arange(wide) < torch.tensor(lengths)[:, None]).to(torch.int64)
    ids = torch.randint(5, VOCABULARY, (len(lengths), wide), generator=generator)
    given = {"input_ids": torch.where(mask.bool(), ids, int(model.config.pad_token_id or 0)), "attention_mask": mask}
    second = (torch.arange(wide) >= wide // 2).to(torch.int64).expand(len(lengths), wide)
    return given | ({"token_type_ids": second * mask} if types else {})


def said(model: Any, given: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """Logits [B, C] of torch."""
    with torch.no_grad():
        logits: NDArray[np.float32] = model(**given).logits.float().numpy()
    return logits


def opened(path: Path) -> Any:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def told(path: Path, given: Mapping[str, Tensor]) -> list[NDArray[np.float32]]:
    """All outputs of a file."""
    session = opened(path)
    fed = {declared.name: given[declared.name].numpy() for declared in session.get_inputs()}
    found: list[NDArray[np.float32]] = session.run(None, fed)
    return found
