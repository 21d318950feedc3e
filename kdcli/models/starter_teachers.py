"""The starter task's teachers: small models of the BERT and RoBERTa architectures, made on the spot.

Vocabularies (WordPiece, byte-level BPE) are trained on the task's own training texts; weights are random, so that everything
that these teachers know they learn when they are co-finetuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdcli.models.weight_loading import quiet_transformers

STARTER_TEACHERS = ("bert", "roberta")
_VOCABULARY = 4000
_MAX_LENGTH = 128
_SIZE: dict[str, Any] = {
    "num_hidden_layers": 6,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": _VOCABULARY,
}


def write_starter_teacher(name: str, texts: Sequence[str], folder: Path, **size: float) -> None:
    """Train the vocabulary and write a model with random weights, always the same ones.

    Args:
        name: ``bert`` or ``roberta``.
        texts: the training texts.
        folder: where the checkpoint goes.
        size: configuration values other than the starter task's.
    """
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    quiet_transformers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any
        if name == "bert":
            tokenizer = _wordpiece(texts)
            sizes = _SIZE | size | {"vocab_size": len(tokenizer)}
            model = BertModel(BertConfig(**sizes, max_position_embeddings=_MAX_LENGTH, pad_token_id=tokenizer.pad_token_id))
        else:
            tokenizer = _byte_level_bpe(texts)
            sizes = _SIZE | size | {"vocab_size": len(tokenizer)}
            special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
            model = RobertaModel(RobertaConfig(**sizes, **special, max_position_embeddings=_MAX_LENGTH + 2, type_vocab_size=1))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _wordpiece(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    # Pieces of one letter are numbered as the trainer meets them, which is in no order, and numbers decide between pieces that
    # are equally frequent. Known from the start, as if they were special, they make the vocabulary the same in every run.
    first = [*special, *(f"##{letter}" for letter in _letters_within_words(inner, texts))]
    inner.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=_VOCABULARY, special_tokens=first, show_progress=False)
    )
    vocabulary = inner.get_vocab()
    inner = _like(inner, models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.add_special_tokens(special)
    inner.post_processor = processors.BertProcessing(
        ("[SEP]", inner.token_to_id("[SEP]")), ("[CLS]", inner.token_to_id("[CLS]"))
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=_MAX_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _letters_within_words(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """Every letter that stands behind the first one of a word, in order."""
    words = (
        word for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    )
    return sorted({letter for word in words for letter in word[1:]})


def _like(tokenizer: Any, model: Any) -> Any:
    """A tokenizer with another model, and nothing added to it."""
    from tokenizers import Tokenizer

    other = Tokenizer(model)
    other.normalizer, other.pre_tokenizer, other.decoder = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder
    return other


def _byte_level_bpe(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=_VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        bos_token="<s>",
        eos_token="</s>",
        mask_token="<mask>",
        model_max_length=_MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )
