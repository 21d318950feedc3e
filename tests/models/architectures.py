"""Configurations of the encoder families, small enough to be built in a moment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
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

from kdcli.models.capture import blocks
from kdcli.models.output import Wanted

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
WITHOUT_SCORES = ("mpnet", "deberta-v2")
WITH_SCORES = tuple(name for name in NAMES if name not in WITHOUT_SCORES)
SHARED_BLOCK = "albert"
FUSED = "modernbert"

PROJECTED = ("queries", "keys", "values")
_SELF = ("attention.self.query", "attention.self.key", "attention.self.value")
_PROJECTIONS = dict.fromkeys(NAMES, _SELF) | {
    "albert": ("albert_layers.0.attention.query", "albert_layers.0.attention.key", "albert_layers.0.attention.value"),
    "distilbert": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "mpnet": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    "deberta-v2": ("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
    "modernbert": ("attn.Wqkv", "attn.Wqkv", "attn.Wqkv"),
}


def encoder(name: str, **changes: Any) -> Any:
    """A small encoder of that family with random weights, always the same ones; ``changes`` overrule its configuration."""
    config = CONFIGS[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return AutoModel.from_config(config).float().eval()


def attentive(name: str, **changes: Any) -> Any:
    """An encoder whose queries and keys are so large that its attention is far from even."""
    model = encoder(name, initializer_range=0.1, **changes)
    for block in blocks(model):
        for kind in ("queries", "keys"):
            projection_rows(name, kind, projection(name, kind, block).weight.data).mul_(3)
    return model


def eager_twin(model: Any) -> Any:
    """The same weights under the attention of transformers that returns its probabilities."""
    twin = AutoModel.from_config(copy.deepcopy(model.config), attn_implementation="eager")
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def checkpoint(name: str, folder: Path) -> Path:
    """The encoder of that family, saved as transformers saves it."""
    encoder(name).save_pretrained(folder)
    return folder


def projection(name: str, kind: str, block: nn.Module) -> Any:
    """The layer that computes a block's queries, keys or values; in ModernBERT it is the same for all three."""
    return block.get_submodule(_PROJECTIONS[name][PROJECTED.index(kind)])


def projection_rows(name: str, kind: str, weight: Tensor) -> Tensor:
    """The part of a projection's weight, or of its gradient, that belongs to one of the three."""
    return weight.chunk(3)[PROJECTED.index(kind)] if name == FUSED else weight


def inputs(seed: int = 0) -> dict[str, Tensor]:
    """Three rows of tokens of unlike length, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (3, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 6, 3])[:, None]).to(torch.int64)
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}


def real_rows(tensor: Tensor, given: dict[str, Tensor]) -> Tensor:
    """Rows [N, A, L] of [B, A, L, L] whose query is a real token."""
    return tensor.transpose(1, 2)[given["attention_mask"].bool()]


def every(kinds: Iterable[str], layers: Iterable[int]) -> Wanted:
    """The same layers of several kinds."""
    chosen = frozenset(layers)
    return Wanted(**dict.fromkeys(kinds, chosen))
