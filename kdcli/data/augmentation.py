"""Further texts made from the training texts, for the teachers to answer: a student of few rows sees more of what they know.

The texts need not be good English, and have no gold label: what counts is what the teachers say of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

from kdcli.data.splits import AUGMENTED
from kdcli.data.task import Split, Task

Units = list[str]
_FEWEST_WORDS = 2


def with_augmentation(task: Task, copies: int, methods: Sequence[str], share: float, seed: int) -> Task:
    """The task with texts made from its training texts, as a split of their own without labels.

    Args:
        task: the task.
        copies: texts made from each training text; 0 leaves the task as it is.
        methods: names of :data:`METHODS`, one of which is drawn for each text.
        share: of words that are replaced or left out.
        seed: of what is drawn.
    """
    if not copies:
        return task
    train = task.train
    made = augmented(train.samples, copies, methods, share, seed)
    firsts = [sample if isinstance(sample, str) else sample[0] for sample in made]
    seconds = None if train.pairs is None else [sample[1] for sample in made]
    about = f"{train.fingerprint}|{copies}|{','.join(methods)}|{share}|{seed}"
    split = Split(firsts, seconds, None, "texts made from the training texts", sha256(about.encode()).hexdigest()[:16])
    return replace(task, splits=dict(task.splits) | {AUGMENTED: split}) if made else task


def augmented(
    samples: Sequence[str] | Sequence[tuple[str, str]], copies: int, methods: Sequence[str], share: float, seed: int
) -> list[str] | list[tuple[str, str]]:
    """Samples made from samples: at most ``copies`` of each, all different from each other and from those that are given.

    Each side of a pair is changed by itself, by the same method and with the same side of another pair.
    """
    generator = random.Random(seed)
    sides = [[sample] if isinstance(sample, str) else list(sample) for sample in samples]
    units = [[_units(text) for text in sample] for sample in sides]
    pools = [[unit for sample in units for unit in sample[side]] for side in range(len(sides[0]))]
    seen = {tuple(sample) for sample in sides}
    made = []
    for _ in range(copies):
        for sample in units:
            change = METHODS[generator.choice(list(methods))]
            other = units[generator.randrange(len(units))]
            parts = tuple(
                _text(change(own, other[side], pools[side], share, generator), own) for side, own in enumerate(sample)
            )
            if parts not in seen:
                seen.add(parts)
                made.append(parts)
    return [part[0] for part in made] if isinstance(samples[0], str) else made  # type: ignore[return-value]


def _units(text: str) -> Units:
    """Words; characters where the text is not written in words."""
    words = text.split()
    return words if len(words) >= _FEWEST_WORDS else list(text.strip())


def _text(units: Units, like: Units) -> str:
    """The units as they were written in the text that they are made from; that text again where nothing is left."""
    chosen = units if "".join(units).strip() else like
    return ("" if all(len(unit) == 1 for unit in like) else " ").join(chosen)


def _mixed(own: Units, other: Units, pool: Units, share: float, generator: random.Random) -> Units:
    """The beginning of one text and the end of another."""
    return own[: generator.randint(0, len(own))] + other[generator.randint(0, len(other)) :]


def _joined(own: Units, other: Units, pool: Units, share: float, generator: random.Random) -> Units:
    """Half of one text and half of another, from anywhere in them."""
    return _half(own, generator) + _half(other, generator)


def _half(units: Units, generator: random.Random) -> Units:
    length = (len(units) + 1) // 2
    begin = generator.randint(0, len(units) - length)
    return units[begin : begin + length]


def _replaced(own: Units, other: Units, pool: Units, share: float, generator: random.Random) -> Units:
    """The text with some of its words replaced by words of the training texts, frequent ones more often."""
    return [generator.choice(pool) if generator.random() < share else unit for unit in own]


def _thinned(own: Units, other: Units, pool: Units, share: float, generator: random.Random) -> Units:
    """The text without some of its words."""
    return [unit for unit in own if generator.random() >= share]


METHODS: dict[str, Callable[[Units, Units, Units, float, random.Random], Units]] = {
    "mix": _mixed,
    "join": _joined,
    "replace": _replaced,
    "drop": _thinned,
}
