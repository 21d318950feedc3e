"""Segment ids, which tell the two texts of a pair apart: whether a model takes them, and what its tokenizer has to give.

The model decides, by its signature and by how many kinds of segments its table has. What a tokenizer says of itself
(``model_input_names``) differs between versions of transformers: ALBERT's does not name them, though ALBERT needs them.
"""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

from kdcli.errors import Problem, RequestError
from kdcli.models.weight_checks import BY_HEART

SEGMENTS = "token_type_ids"
_WITHOUT_A_TABLE = {"xlnet": 3, "funnel": 3}  # they compare segments instead of looking them up; [CLS] is the third


def segment_kinds(config: Any) -> int:
    """How many kinds of segments a model tells apart; 0 where its ``forward`` takes none of them, or there is but one."""
    kinds = int(_WITHOUT_A_TABLE.get(config.model_type, getattr(config, "type_vocab_size", None) or 0))
    kind: Any = type(config)
    return kinds if kinds > 1 and (config.model_type in BY_HEART or _takes_segments(kind)) else 0


@cache
def _takes_segments(kind: Any) -> bool:
    from transformers.models.auto import modeling_auto

    for mapping in (modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, modeling_auto.MODEL_MAPPING):
        if kind in mapping:
            model = mapping[kind]
            return SEGMENTS in inspect.signature((model[0] if isinstance(model, tuple) else model).forward).parameters
    return False


def follow_model(tokenizer: Any, config: Any, folder: Path) -> None:
    """Let a tokenizer give segment ids where its model takes them, and nowhere else; it keeps that when it is saved.

    Args:
        tokenizer: a fast one.
        config: of its model.
        folder: where both are from, for the message.

    Raises:
        RequestError: it gives more kinds of segments than the model has.
    """
    kinds, names = segment_kinds(config), list(tokenizer.model_input_names)
    most = max(max(tokenizer.backend_tokenizer.encode(*texts).type_ids, default=0) for texts in (("a",), ("a", "b")))
    if kinds and most >= kinds:
        raise RequestError(
            Problem(
                str(folder / "tokenizer.json"),
                "gives segments that the model does not have",
                f"0 to {kinds - 1} (type_vocab_size in config.json is {kinds})",
                f"segment {most}",
            )
        )
    if kinds and most and SEGMENTS not in names:
        names.append(SEGMENTS)
    elif not kinds and SEGMENTS in names:
        names.remove(SEGMENTS)
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names
