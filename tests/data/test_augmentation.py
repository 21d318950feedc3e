"""Texts made from texts: how many, which, and that nothing else of the task changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.data.augmentation import METHODS, augmented, with_augmentation
from kdcli.data.splits import AUGMENTED, DEV, TRAIN
from kdcli.data.task import Split, Task
from kdcli.tasks.classification import NO_CLASS, Classification

TEXTS = ["my card has not arrived yet", "how do I change my PIN", "top up by bank transfer failed", "refund not showing up"]
ALL = sorted(METHODS)


def task(pairs: bool = False) -> Task:
    """Four texts of two classes."""
    second = [text.upper() for text in TEXTS] if pairs else None
    train = Split(TEXTS, second, np.array([0, 1, 0, 1]), "train.csv", "f" * 16)
    dev = Split(TEXTS[:2], None if second is None else second[:2], np.array([0, 1]), "dev.csv", "e" * 16)
    return Task("mine", Classification(("a", "b"), ("a", "b")), "accuracy", {TRAIN: train, DEV: dev})


@pytest.mark.parametrize("method", ALL)
def test_every_method_makes_texts_of_the_words_that_are_there(method: str) -> None:
    made = augmented(TEXTS, 20, [method], 0.3, 0)
    words = {word for text in TEXTS for word in text.split()}
    assert len(made) > len(TEXTS)
    assert {word for text in made for word in str(text).split()} <= words
    assert not set(made) & set(TEXTS)
    assert len(set(made)) == len(made)


def test_what_each_method_does_to_a_text() -> None:
    for text in augmented(TEXTS, 30, ["drop"], 0.4, 1):
        rest = iter(next(each for each in TEXTS if set(str(text).split()) <= set(each.split())).split())
        assert all(word in rest for word in str(text).split()), f"{text!r} is out of order"
    lengths = {len(text.split()) for text in TEXTS}
    assert {len(str(text).split()) for text in augmented(TEXTS, 30, ["replace"], 0.4, 1)} <= lengths
    for text in augmented(TEXTS, 30, ["mix"], 0.4, 1):
        words = str(text).split()
        assert any(
            one.split()[:cut] == words[:cut] and other.split()[len(other.split()) - len(words) + cut :] == words[cut:]
            for one in TEXTS
            for other in TEXTS
            for cut in range(len(words) + 1)
        ), text


def test_the_same_seed_makes_the_same_texts_and_another_one_others() -> None:
    first, again, other = (augmented(TEXTS, 5, ALL, 0.2, seed) for seed in (3, 3, 4))
    assert first == again != other


def test_texts_without_blanks_are_changed_character_by_character() -> None:
    texts = ["我的卡还没到", "如何更改密码", "转账失败了"]
    made = augmented(texts, 10, ALL, 0.3, 0)
    assert len(made) > 5
    assert all(" " not in str(text) for text in made)
    assert {letter for text in made for letter in str(text)} <= {letter for text in texts for letter in text}


def test_both_sides_of_a_pair_are_changed_and_stay_on_their_side() -> None:
    made = with_augmentation(task(pairs=True), 4, ALL, 0.3, 0).splits[AUGMENTED]
    assert made.pairs is not None
    assert len(made.texts) == len(made.pairs) > 4
    capitals = {word.upper() for text in TEXTS for word in text.split()}
    assert {word for text in made.pairs for word in text.split()} <= capitals
    assert {word for text in made.texts for word in text.split()} <= {word for text in TEXTS for word in text.split()}


def test_the_student_is_taught_on_them_and_nobody_else_sees_them() -> None:
    before = task()
    after = with_augmentation(before, 3, ALL, 0.2, 0)
    count = len(after.splits[AUGMENTED])
    assert 0 < count <= 3 * len(TEXTS)
    assert after.train is before.train
    assert after.dev is before.dev
    assert after.unlabelled == count
    assert after.training_rows.targets is not None
    assert after.training_rows.targets.tolist() == [0, 1, 0, 1] + [NO_CLASS] * count
    assert list(after.training_rows.texts) == TEXTS + list(after.splits[AUGMENTED].texts)
    assert with_augmentation(before, 0, ALL, 0.2, 0) is before


def test_other_settings_are_another_split() -> None:
    marks = {
        with_augmentation(task(), copies, methods, share, seed).splits[AUGMENTED].fingerprint
        for copies, methods, share, seed in [
            (2, ALL, 0.2, 0),
            (3, ALL, 0.2, 0),
            (2, ["mix"], 0.2, 0),
            (2, ALL, 0.3, 0),
            (2, ALL, 0.2, 1),
        ]
    }
    assert len(marks) == 5


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_whatever_the_texts_are_none_is_empty_and_none_stands_twice(texts: list[str], seed: int) -> None:
    texts = [text for text in texts if text.strip()]
    if texts:
        made = augmented(texts, 3, ALL, 0.9, seed)
        assert all(str(text).strip() for text in made)
        assert len(set(made)) == len(made)
        assert not set(made) & set(texts)
