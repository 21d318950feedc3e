"""The starter task's teachers: the same ones in every run."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from kdcli.models.starter_teachers import write_starter_teacher


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_starter_teacher_is_the_same_whenever_it_is_made(name: str, texts: list[str], tmp_path: Path) -> None:
    made = []
    for number in range(4):
        folder = tmp_path / str(number)
        write_starter_teacher(name, texts, folder, num_hidden_layers=1, hidden_size=16, intermediate_size=16)
        weights = load_file(folder / "model.safetensors")
        made.append(
            ((folder / "tokenizer.json").read_text(encoding="utf-8"), {key: value.tobytes() for key, value in weights.items()})
        )
    assert all(one == made[0] for one in made)


def test_only_the_special_tokens_of_bert_are_special(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    assert set(tokenizer.all_special_tokens) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert tokenizer.tokenize("The story was delightful") == ["the", "story", "was", "delightful"]
    assert tokenizer.decode(tokenizer("The story")["input_ids"], skip_special_tokens=True) == "the story"
