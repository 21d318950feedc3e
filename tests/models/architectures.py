"""Configurations of the encoder families, small enough to be built in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

VOCABULARY = 60
WIDTH = 32
LAYERS = 4
_SIZE = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": LAYERS}
_COMMON = {**_SIZE, "vocab_size": VOCABULARY, "max_position_embeddings": 40}
_ROBERTA = {**_COMMON, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}

CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertConfig(**_COMMON),
    "roberta": lambda: RobertaConfig(**_ROBERTA),
    "xlm-roberta": lambda: XLMRobertaConfig(**_ROBERTA),
    "camembert": lambda: CamembertConfig(**_ROBERTA),
    "electra": lambda: ElectraConfig(**_COMMON, embedding_size=WIDTH),
    "electra-narrow-embeddings": lambda: ElectraConfig(**_COMMON, embedding_size=16),
    "albert": lambda: AlbertConfig(**_COMMON, embedding_size=16, num_hidden_groups=1, pad_token_id=0),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=40, dim=WIDTH, n_heads=4, hidden_dim=48, n_layers=LAYERS
    ),
    "mpnet": lambda: MPNetConfig(**_ROBERTA),
    "deberta-v2": lambda: DebertaV2Config(
        **_COMMON,
        relative_attention=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    ),
    "modernbert": lambda: ModernBertConfig(
        **_COMMON, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3, local_attention=8
    ),
}
NAMES = tuple(CONFIGS)


def encoder(name: str) -> Any:
    """A small encoder of that family with random weights, always the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return AutoModel.from_config(CONFIGS[name]()).float().eval()


def checkpoint(name: str, folder: Path) -> Path:
    """The encoder of that family, saved as transformers saves it."""
    encoder(name).save_pretrained(folder)
    return folder


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    """Three rows of tokens of unlike length, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (3, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 6, 3])[:, None]).to(torch.int64)
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}
