"""How large a model is and what it shows of its insides, from its configuration alone.

BERT and RoBERTa are known by heart: to import what transformers has for them takes longer than all other work on a plan.
"""

from __future__ import annotations

from typing import Any

from kdcli.models.capture import serves
from kdcli.models.head import parameters_of
from kdcli.models.output import KINDS
from kdcli.models.weight_checks import BY_HEART, is_plain, skeleton


def internals(config: Any) -> frozenset[str]:
    """The kinds of insides that an architecture can show (see :func:`~kdcli.models.capture.serves`)."""
    return frozenset(KINDS) if config.model_type in BY_HEART else serves(config)


def parameter_count(config: Any, *, classifier: bool) -> int:
    """Parameters of an encoder (or of a classifier) of that configuration.

    Raises:
        Exception: of any type; the architecture cannot be built in that size.
    """
    return _sum(config, classifier) if is_plain(config) else _count(config, classifier)


def _sum(config: Any, classifier: bool) -> int:
    """Embeddings, blocks, a pooler or the first layer of a head, and what maps that to the classes."""
    width, inner = config.hidden_size, config.intermediate_size
    tokens = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    attention = 4 * (width + 1) * width
    feed_forward = (width + 1) * inner + (inner + 1) * width
    norm = 2 * width
    blocks = config.num_hidden_layers * (attention + norm + feed_forward + norm)
    return int(tokens * width + norm + blocks + (width + 1) * width + classifier * (width + 1) * config.num_labels)


def _count(config: Any, classifier: bool) -> int:
    """Build the model without memory for its weights, and count."""
    return parameters_of(skeleton(config, classifier=classifier))
