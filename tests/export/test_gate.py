"""Texts are padded as the tokenizer pads them, and a file that says something else than the model is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoTokenizer

from kdcli.export.gate import BATCHES, TOLERANCE, Check, Examiner, ShapeCheck, SplitCheck, Texts, file_logits
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS

WORDS = [
    "great", "", "The plot was awful, and its actor hopeless!", "music " * 60, "a wonderful scene, Überraschung", "ending?",
]  # fmt: skip
PAIRS = [(text, other) for text, other in zip(WORDS, reversed(WORDS), strict=True)]
LIMIT = 40


@pytest.fixture(scope="module", params=["wordpiece", "byte-level BPE"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return AutoTokenizer.from_pretrained(
        request.getfixturevalue("tiny_bert" if request.param == "wordpiece" else "tiny_roberta")
    )


def rows_of_lengths(lengths: list[int]) -> Texts:
    """Texts of these lengths; the first token tells which text it is, from 100 on."""
    rows = [
        {"input_ids": [100 + row, *[7] * (length - 2), 3][:length], "attention_mask": [1] * length}
        for row, length in enumerate(lengths)
    ]
    return Texts(rows, {"input_ids": 0, "attention_mask": 0})


@pytest.mark.parametrize("samples", [WORDS, PAIRS], ids=["texts", "pairs"])
@pytest.mark.parametrize("rows", [[0], [1], [3, 0], [4, 2, 1, 5], list(range(6))], ids=str)
def test_batch_is_the_tokenizers_own(samples: list[Any], rows: list[int], tokenizer: Any) -> None:
    chosen = [samples[row] for row in rows]
    columns = [list(column) for column in zip(*chosen, strict=True)] if samples is PAIRS else [chosen]
    expected = tokenizer(*columns, truncation=True, max_length=LIMIT, padding=True, return_tensors="np")
    found = Texts.of(tokenizer, samples, LIMIT).batch(rows)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values.dtype == np.int64
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("length", [2, 9, LIMIT])
def test_batch_of_a_given_length_is_cut_or_padded_to_it(length: int, tokenizer: Any) -> None:
    texts = Texts.of(tokenizer, WORDS, LIMIT)
    found = texts.batch([0, 2, 3], length)
    assert {values.shape for values in found.values()} == {(3, length)}
    short = min(length, len(texts.rows[0]["input_ids"]))
    assert found["attention_mask"][0].tolist() == [1] * short + [0] * (length - short)
    assert (found["input_ids"][0, short:] == tokenizer.pad_token_id).all()


def test_shapes_are_batches_of_1_8_and_32_at_three_lengths_with_padding_among_them() -> None:
    lengths = [int(length) for length in np.random.default_rng(0).integers(3, 61, 200)] + [61]
    texts = rows_of_lengths(lengths)
    found = texts.shapes()
    shapes = [texts.batch(rows)["input_ids"].shape for rows in found]
    assert [batch for batch, _ in shapes] == list(BATCHES) * 3
    by_batch = [[length for one, length in shapes if one == batch] for batch in BATCHES]
    assert by_batch[0] == by_batch[1] == by_batch[2]
    assert by_batch[0] == sorted(set(by_batch[0]))
    assert by_batch[0][-1] == 61
    assert by_batch[0][0] <= np.quantile(lengths, 0.15)
    for rows in found:
        padded = (texts.batch(rows)["attention_mask"] == 0).any()
        assert padded == (len(rows) > 1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shapes_of_few_texts_repeat_them(count: int) -> None:
    texts = rows_of_lengths(list(range(3, 3 + count)))
    found = texts.shapes()
    assert [len(rows) for rows in found] == list(BATCHES) * 3
    assert {row for rows in found for row in rows} == set(range(count))


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (2, 16), (32, 33)])
def test_filled_batch_has_no_padding_and_begins_and_ends_as_texts_do(batch: int, length: int, tokenizer: Any) -> None:
    texts = Texts.of(tokenizer, [word for word in WORDS if word], LIMIT)
    found = texts.filled(batch, length)
    assert found.keys() == set(texts.padding)
    assert {(values.shape, values.dtype) for values in found.values()} == {((batch, length), np.dtype(np.int64))}
    assert (found["attention_mask"] == 1).all()
    assert (found["input_ids"][:, -1] == tokenizer.sep_token_id).all()
    inner = found["input_ids"][:, 1:-1]
    assert not np.isin(inner, [tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id]).any()
    if length > 1:
        assert (found["input_ids"][:, 0] == tokenizer.cls_token_id).all()


SHAPE = ShapeCheck(8, 20, 1e-5, 1.0)
SPLIT = SplitCheck(200, 1e-5, 1.0, "accuracy", 0.9, (0.85, 0.94), 0.0)


def test_file_that_says_the_same_holds() -> None:
    assert Check([SHAPE], SPLIT).broken(exact=True, max_drop=0.0) is None


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("where", ["shape", "split"])
@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_numbers_that_are_not_finite_break_any_file(exact: bool, where: str, number: float) -> None:
    shapes = [SHAPE, replace(SHAPE, max_difference=number) if where == "shape" else SHAPE, SHAPE]
    split = replace(SPLIT, max_difference=number) if where == "split" else SPLIT
    assert Check(shapes, split).broken(exact, 100.0) == "it answers with numbers that are not finite"


@pytest.mark.parametrize("spoiled", [{"max_difference": 2 * TOLERANCE}, {"agreement": 0.875}])
def test_other_logits_or_classes_break_a_file_that_must_be_exact_and_no_other(spoiled: dict[str, Any]) -> None:
    check = Check([SHAPE, replace(SHAPE, batch=32, length=7, **spoiled)], SPLIT)
    assert check.broken(exact=False, max_drop=0.5) is None
    found = check.broken(exact=True, max_drop=0.5)
    assert found is not None
    if "max_difference" in spoiled:
        assert found == "largest logit difference 2.00e-03 at batch 32, length 7, where 0.001 is allowed"


def test_other_logits_on_the_split_break_a_file_that_must_be_exact() -> None:
    check = Check([SHAPE], replace(SPLIT, max_difference=1.0))
    assert check.broken(exact=True, max_drop=0.5) is not None


@pytest.mark.parametrize(
    ("drop", "allowed", "holds"), [(0.5, 0.5, True), (0.51, 0.5, False), (-3.0, 0.0, True), (1e-3, 0.0, False)]
)
def test_file_may_lose_as_many_points_as_are_allowed(drop: float, allowed: float, holds: bool) -> None:
    found = Check([SHAPE], replace(SPLIT, drop=drop)).broken(exact=False, max_drop=allowed)
    assert (found is None) == holds


def test_lost_points_are_told_with_the_metric_and_without_labels_as_changed_classes() -> None:
    lost = Check([SHAPE], replace(SPLIT, drop=1.25)).broken(exact=False, max_drop=0.5)
    assert lost == "it loses 1.25 points of accuracy on 200 texts, where --max-drop allows 0.5"
    nameless = SplitCheck(64, 0.1, 0.95, None, None, None, 5.0)
    changed = Check([SHAPE], nameless).broken(exact=False, max_drop=0.5)
    assert changed is not None
    assert "change their class" in changed
    assert "64 texts" in changed


@dataclass(frozen=True)
class Declared:
    name: str


class Oracle:
    """A session that knows each text by its first token, and says what it was told to say of it."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.logits = logits
        self.asked: list[tuple[int, ...]] = []

    def get_inputs(self) -> list[Declared]:
        return [Declared("input_ids")]

    def run(self, names: list[str], inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        assert names == ["logits"]
        assert list(inputs) == ["input_ids"]
        self.asked.append(inputs["input_ids"].shape)
        return [self.logits[inputs["input_ids"][:, 0] - 100]]


COUNT = 50
TEXTS = rows_of_lengths([3 + 7 * row % 23 for row in range(COUNT)])
REFERENCE = np.random.default_rng(1).normal(size=(COUNT, 3)).astype(np.float32)
ORDER = [2, 0, 1]
LABELS = REFERENCE[:, ORDER].argmax(-1)


def examiner(labels: NDArray[np.int64] | None = LABELS) -> Examiner:
    if labels is None:
        return Examiner(TEXTS, REFERENCE, ORDER)
    return Examiner(
        TEXTS,
        REFERENCE,
        ORDER,
        "accuracy",
        lambda classes, rows: METRICS["accuracy"].score(classes, labels[rows]),
        lambda classes, rows: (0.1, 0.9),
    )


@pytest.mark.parametrize("batch", [1, 7, 32, 100])
def test_answers_are_in_the_order_of_the_texts(batch: int) -> None:
    oracle = Oracle(REFERENCE)
    found = file_logits(lambda inputs: oracle.run(["logits"], {"input_ids": inputs["input_ids"]})[0], TEXTS, batch)
    np.testing.assert_array_equal(found, REFERENCE)
    assert sum(rows for rows, _ in oracle.asked) == COUNT
    assert max(rows for rows, _ in oracle.asked) == min(batch, COUNT)


def test_file_that_says_what_the_model_says_passes_every_check() -> None:
    oracle = Oracle(REFERENCE)
    check = examiner().check(oracle)
    assert check.broken(exact=True, max_drop=0.0) is None
    assert [(row.max_difference, row.agreement) for row in check.shapes] == [(0.0, 1.0)] * 9
    assert [row.batch for row in check.shapes] == list(BATCHES) * 3
    assert check.split == SplitCheck(COUNT, 0.0, 1.0, "accuracy", 1.0, (0.1, 0.9), 0.0)


def test_score_is_taken_in_the_order_of_the_tasks_classes() -> None:
    wrong = np.roll(REFERENCE, 1, axis=1)  # every class is another one
    check = examiner().check(Oracle(wrong))
    assert check.split.score == 0.0
    assert check.split.drop == 100.0
    assert check.split.agreement == 0.0


def test_drop_counts_the_answers_that_become_wrong() -> None:
    logits = REFERENCE.copy()
    logits[:5] = np.roll(logits[:5], 1, axis=1)
    split = examiner().check(Oracle(logits)).split
    assert split.drop == pytest.approx(10.0)
    assert split.score == pytest.approx(0.9)
    assert split.max_difference == pytest.approx(np.abs(logits - REFERENCE).max())


def test_file_that_is_better_than_the_model_loses_less_than_nothing() -> None:
    labels = np.roll(REFERENCE, 1, axis=1)[:, ORDER].argmax(-1)
    split = examiner(labels).check(Oracle(np.roll(REFERENCE, 1, axis=1))).split
    assert split.drop == -100.0


def test_without_labels_changed_classes_are_what_is_lost() -> None:
    logits = REFERENCE.copy()
    logits[:2] = np.roll(logits[:2], 1, axis=1)
    check = examiner(None).check(Oracle(logits))
    assert check.split.score is None
    assert check.split.interval is None
    assert check.split.drop == pytest.approx(4.0)
    assert check.broken(exact=False, max_drop=3.9) is not None
    assert check.broken(exact=False, max_drop=4.0) is None


@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_one_number_that_is_not_finite_is_found(labels: NDArray[np.int64] | None, number: float) -> None:
    logits = REFERENCE.copy()
    logits[17, 1] = number
    one = examiner(labels)
    assert one.check(Oracle(logits)).broken(exact=False, max_drop=100.0) == "it answers with numbers that are not finite"
    assert one.harm(Oracle(logits)) == float("inf")


def test_harm_is_the_mean_change_of_a_logit() -> None:
    assert examiner().harm(Oracle(REFERENCE)) == 0.0
    assert examiner().harm(Oracle(REFERENCE + np.float32(0.25))) == pytest.approx(0.25)


def test_texts_of_a_checkpoint_that_takes_token_types_have_them(tiny_bert: Path) -> None:
    found = Texts.of(AutoTokenizer.from_pretrained(tiny_bert), PAIRS, LIMIT).batch([2, 4])
    assert set(found) == {"input_ids", "attention_mask", "token_type_ids"}
    assert (found["token_type_ids"] * (1 - found["attention_mask"]) == 0).all()
    assert (found["token_type_ids"].max(1) == 1).all()


def batched_differently(logits: NDArray[np.float32], batches: Callable[[int], bool]) -> Oracle:
    """A session that says other things than the model in batches of some sizes, and the model's elsewhere."""

    class Fickle(Oracle):
        def run(self, names: list[str], inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
            (found,) = super().run(names, inputs)
            return [logits[inputs["input_ids"][:, 0] - 100] if batches(len(found)) else found]

    return Fickle(REFERENCE)


@pytest.mark.parametrize("batches", [lambda batch: batch == 1, lambda batch: batch > 1], ids=["one by one", "batched"])
@pytest.mark.parametrize("exact", [True, False])
def test_file_is_scored_one_by_one_and_in_batches(batches: Callable[[int], bool], exact: bool) -> None:
    found = examiner().check(batched_differently(np.roll(REFERENCE, 1, axis=1), batches)).broken(exact, max_drop=0.5)
    assert found is not None
    if not exact:
        how = f"{COUNT} texts, one by one" if batches(1) else f"{COUNT} texts"
        assert found == f"it loses 100.00 points of accuracy on {how}, where --max-drop allows 0.5"


def test_agreement_in_the_batches_of_all_shapes_counts() -> None:
    check = examiner().check(Oracle(REFERENCE))
    assert check.batched == len({row for rows in TEXTS.shapes() for row in rows})
    assert check.batched_changed == 0
    some = replace(check, batched_changed=round(0.2 * check.batched))
    assert (some.broken(exact=False, max_drop=100.0) or "").startswith("it gives the model's class to 8")


@pytest.mark.parametrize("max_drop", [0.5, 100.0])
def test_file_that_gives_one_class_to_all_is_refused_though_it_loses_nothing(max_drop: float) -> None:
    reference = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (COUNT, 1))
    reference[:3] = [0.0, 1.0]
    labels = np.zeros(COUNT, dtype=np.int64)  # of which the model is not the better judge
    one = Examiner(
        TEXTS,
        reference,
        [0, 1],
        "accuracy",
        lambda classes, rows: METRICS["accuracy"].score(classes, labels[rows]),
        lambda *_: (0.0, 1.0),
    )
    constant = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (COUNT, 1))
    assert one.check(Oracle(reference)).broken(exact=False, max_drop=max_drop) is None
    found = one.check(Oracle(constant)).broken(exact=False, max_drop=max_drop)
    assert found == f"it gives the same class to all texts, where the model gives 2 on {COUNT} texts"


def test_file_that_loses_most_of_a_class_is_refused() -> None:
    classes = np.repeat([0, 1, 2], [40, 5, 5])
    reference = np.eye(3, dtype=np.float32)[classes]
    said = reference.copy()
    said[40:43] = [1.0, 0.0, 0.0]
    found = Examiner(TEXTS, reference, [0, 1, 2]).check(Oracle(said)).broken(exact=False, max_drop=100.0)
    assert found == f"it keeps 2 of the 5 texts that the model gives to one class on {COUNT} texts"


def test_model_at_chance_is_judged_by_agreement() -> None:
    logits = REFERENCE.copy()
    logits[:2] = np.roll(logits[:2], 1, axis=1)
    labels = logits[:, ORDER].argmax(-1)  # the file happens to be the better one
    one = replace(examiner(labels), by_agreement=True)
    found = one.check(Oracle(logits)).broken(exact=False, max_drop=0.5)
    assert found == f"4.00 % of the texts change their class on {COUNT} texts, where --max-drop allows 0.5"
    assert examiner(labels).check(Oracle(logits)).broken(exact=False, max_drop=0.5) is None


def test_class_of_an_exact_file_may_differ_only_where_the_model_is_undecided() -> None:
    tie = REFERENCE.copy()
    tie[3] = [1.0, 1.0 + 2e-6, 0.0]
    other = tie.copy()
    other[3] = [1.0 + 4e-6, 1.0, 0.0]
    check = Examiner(TEXTS, tie, ORDER).check(Oracle(other))
    assert check.ties == 1
    assert check.broken(exact=True, max_drop=2.0) is None
    decided = tie.copy()
    decided[3] = [1.0, 1.0 + 2e-4, 0.0]
    found = Examiner(TEXTS, decided, ORDER).check(Oracle(other)).broken(exact=True, max_drop=2.0)
    assert found is not None
    assert "1 of 50 texts change their class" in found


def test_probabilities_of_an_exact_file_are_the_models() -> None:
    near = REFERENCE + np.array([9e-4, 0.0, -9e-4], dtype=np.float32)
    found = Examiner(TEXTS, REFERENCE, ORDER).check(Oracle(near)).broken(exact=True, max_drop=0.0)
    assert found is not None
    assert "difference of a probability" in found
