"""A student's layers beside those of its teachers, on real tiny models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcli.data.alignment import Alignment, align
from kdcli.data.batching import Batch, Samples
from kdcli.data.task import Split
from kdcli.data.tokens import tokenise
from kdcli.evaluation import layer_similarity
from kdcli.evaluation.document import LayerComparison, TeacherSimilarity
from kdcli.evaluation.layer_similarity import compare_layers
from kdcli.losses.attention_kl import AttentionKlTerm
from kdcli.models.output import Output
from kdcli.models.student import STUDENT, Size, StudentLearner, build_student, student_config
from kdcli.models.teachers import Teacher
from kdcli.models.weight_loading import load_tokenizer
from tests.conftest import sentences

CPU = torch.device("cpu")
TEXTS = [text for text, _ in sentences(24, 3)] + ["Great!", "The camera work was dreadful, tedious and hopeless. " * 3]
LABELS = ("negative", "positive")


@dataclass
class Scene:
    """A student, its teachers, and texts."""

    student: StudentLearner
    teachers: list[Teacher]
    samples: Samples

    def look(self, maps: Mapping[str, Mapping[int, int]] | None = None, **more: Any) -> LayerComparison:
        return compare_layers(self.student, self.teachers, self.samples, CPU, maps or {}, "dev", **more)

    def one(self, name: str, maps: Mapping[str, Mapping[int, int]] | None = None, **more: Any) -> TeacherSimilarity:
        return next(entry for entry in self.look(maps, **more).teachers if entry.teacher == name)

    def whole(self) -> tuple[Batch, dict[str, Output]]:
        """All texts in one batch, and what the models show of themselves."""
        batch = self.samples.batch(range(len(self.samples)))
        with torch.inference_mode():
            outputs = {STUDENT: self.student.output(batch.views[STUDENT], layer_similarity._Side(self.student.model).wanted)}
            for teacher in self.teachers:
                wanted = layer_similarity._Side(teacher.model).wanted
                outputs[teacher.name] = teacher(batch.views[teacher.name], wanted)
        return batch, outputs


Models = Mapping[str, Path]
Make = Callable[..., Scene]


@pytest.fixture(scope="module")
def models(tiny_bert: Path, tiny_roberta: Path) -> Models:
    return {"bert": tiny_bert, "roberta": tiny_roberta}


@pytest.fixture(scope="module")
def make(models: Models) -> Make:
    return lambda *arguments, **more: scene(models, *arguments, **more)


def scene(
    models: Models,
    size: str = "3L",
    *,
    of: str = "bert",
    heads: int | None = None,
    copied: Sequence[int] = (1, 2, 3),
    teachers: Sequence[str] = ("bert", "roberta"),
    texts: Sequence[str] = TEXTS,
) -> Scene:
    """A student cut from one of the tiny models, or made at random where nothing is copied."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    layers = int(size.removesuffix("L"))
    source = AutoConfig.from_pretrained(models[of])
    config = student_config(source, Size(layers, None, heads), list(copied), LABELS)
    built = build_student(config, models[of] if copied else None, list(copied), seed=5)
    asked = []
    for name in teachers:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            asked.append(Teacher(name, AutoModelForSequenceClassification.from_pretrained(models[name]), [0, 1]))
    for model in (built.model, *asked):
        _sharpen(model)
    split = Split(list(texts), None, None, "here", "")
    views = {name: tokenise(split, load_tokenizer(models[name]), 32) for name in teachers}
    views[STUDENT] = tokenise(split, load_tokenizer(models[of]), 32)
    alignments = {name: align(views[STUDENT], views[name]) for name in teachers}
    return Scene(StudentLearner(built.model), asked, Samples(None, views, alignments, leading=STUDENT))


def _sharpen(model: torch.nn.Module) -> None:
    """Let untrained models look at some tokens more than at others."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("query.weight"):
                parameter.mul_(50.0)


def shape(table: list[list[float]] | None) -> tuple[int, int]:
    assert table is not None
    (columns,) = {len(row) for row in table}
    return len(table), columns


@pytest.fixture(scope="module")
def copied(make: Make) -> Scene:
    """A student that is the first three layers of the teacher bert; the teacher roberta has other tokens and another width."""
    return make()


@pytest.fixture(scope="module")
def fewer_heads(make: Make) -> Scene:
    """A student with half the heads of its teachers, from random weights."""
    return make(heads=2, copied=())


def assert_close(one: LayerComparison, other: LayerComparison) -> None:
    """The same up to rounding."""
    for ours, theirs in zip(one.teachers, other.teachers, strict=True):
        assert (ours.teacher, ours.suggested, ours.heads) == (theirs.teacher, theirs.suggested, theirs.heads)
        for field in ("cka", "cls_cosine", "attention_kl", "head_kl"):
            mine, its = getattr(ours, field), getattr(theirs, field)
            assert (mine is None) == (its is None)
            if mine is not None:
                np.testing.assert_allclose(mine, its, atol=1e-5)


# What is where


def test_tables_have_a_row_for_each_student_layer_and_a_column_for_each_teacher_layer(copied: Scene) -> None:
    found = copied.look(student_name="mine")
    assert (found.student, found.split, found.rows) == ("mine", "dev", len(TEXTS))
    assert [entry.teacher for entry in found.teachers] == ["bert", "roberta"]
    for entry, layers in zip(found.teachers, (4, 6), strict=True):
        assert shape(entry.cka) == (4, layers + 1)
        assert shape(entry.attention_kl) == (3, layers)
        assert shape(entry.head_kl) == (3, 4)


def test_student_that_is_a_copy_of_its_teachers_layers_is_found_in_them(copied: Scene) -> None:
    found = copied.one("bert")
    for table in (found.cka, found.cls_cosine):
        assert table is not None
        assert [table[layer][layer] for layer in range(4)] == pytest.approx([1.0] * 4, abs=1e-5)
    assert found.suggested == {1: 1, 2: 2, 3: 3}
    assert found.suggested_cka == pytest.approx(1.0, abs=1e-5)
    assert found.attention_kl is not None
    assert found.head_kl is not None
    assert [found.attention_kl[layer][layer] for layer in range(3)] == pytest.approx([0.0] * 3, abs=1e-6)
    assert np.abs(found.head_kl).max() < 1e-6


def test_student_that_is_a_copy_of_a_teacher_with_other_tokens_is_found_in_it(make: Make) -> None:
    found = make(of="roberta").one("roberta")
    assert found.suggested == {1: 1, 2: 2, 3: 3}
    assert found.cls_cosine is not None


def test_states_are_compared_token_by_token_as_the_alignment_says(copied: Scene) -> None:
    """By hand: the mean of the teacher's states over each run, and CKA as three sums."""
    batch, outputs = copied.whole()
    runs, mask = batch.runs["roberta"], batch.views[STUDENT]["attention_mask"] > 0
    ours, theirs = [], []
    for row, place in mask.nonzero().tolist():
        first, last = int(runs.first[row, place]), int(runs.last[row, place])
        if last > first:
            ours.append(outputs[STUDENT].hidden[2][row, place].double().numpy())
            theirs.append(outputs["roberta"].hidden[4][row, first:last].double().mean(0).numpy())
    n, one = len(ours), np.ones(len(ours))
    k, m = (np.array(states) @ np.array(states).T * (1 - np.eye(n)) for states in (ours, theirs))

    def hsic(a: Any, b: Any) -> float:
        return float(
            np.sum(a * b) + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ a @ b @ one)
        )

    found = copied.look()
    assert found.tokens == n
    assert found.teachers[1].cka[2][4] == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), abs=1e-5)


def test_cosine_is_the_mean_over_texts_of_the_first_tokens(copied: Scene) -> None:
    _, outputs = copied.whole()
    found = copied.one("bert").cls_cosine
    assert found is not None
    for ours, theirs in ((0, 0), (1, 3), (3, 2)):
        first = (outputs[STUDENT].hidden[ours][:, 0], outputs["bert"].hidden[theirs][:, 0])
        assert found[ours][theirs] == pytest.approx(float(torch.cosine_similarity(*first).mean()), abs=1e-6)


def test_unequal_widths_have_no_cosine(copied: Scene) -> None:
    assert copied.one("roberta").cls_cosine is None
    assert copied.one("bert").cls_cosine is not None


# Attention


@pytest.mark.parametrize("teacher", ["bert", "roberta"])
@pytest.mark.parametrize("which", ["copied", "fewer_heads"])
def test_attention_divergence_is_that_of_the_loss_for_every_pair(
    which: str, teacher: str, request: pytest.FixtureRequest
) -> None:
    made: Scene = request.getfixturevalue(which)
    found = made.one(teacher)
    batch, outputs = made.whole()
    assert found.attention_kl is not None
    assert found.heads == ("match" if which == "copied" else "mean")
    for ours, row in enumerate(found.attention_kl, 1):
        for theirs, value in enumerate(row, 1):
            term = AttentionKlTerm({teacher: {ours: theirs}}, {teacher: found.heads})
            wanted = float((term(batch, outputs) / term.count(batch)).sum())
            assert value == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_heads_average_to_the_value_of_their_layer_along_the_map(copied: Scene) -> None:
    found = copied.one("roberta", {"roberta": {1: 2, 2: 4, 3: 6}})
    assert found.head_kl is not None
    assert found.attention_kl is not None
    means = [found.attention_kl[0][1], found.attention_kl[1][3], found.attention_kl[2][5]]
    assert np.mean(found.head_kl, axis=1) == pytest.approx(means)
    assert np.std(found.head_kl, axis=1).min() > 0


def test_heads_follow_the_suggested_map_where_the_recipe_says_nothing_of_a_layer(copied: Scene) -> None:
    suggested = copied.one("roberta")
    assert (suggested.map, suggested.map_cka) == ({}, None)
    other = next(layer for layer in range(1, 7) if layer != suggested.suggested[2])
    found = copied.one("roberta", {"roberta": {0: 0, 2: other, 3: 0}})
    assert found.head_kl is not None
    assert suggested.head_kl is not None
    assert (found.head_kl[0], found.head_kl[2]) == (suggested.head_kl[0], suggested.head_kl[2])
    assert found.head_kl[1] != suggested.head_kl[1]
    assert found.map == {0: 0, 2: other, 3: 0}
    assert found.map_cka == pytest.approx(np.mean([found.cka[0][0], found.cka[2][other], found.cka[3][0]]))


def test_unlike_numbers_of_heads_are_held_against_the_mean_of_the_teachers(fewer_heads: Scene) -> None:
    found = fewer_heads.one("bert", {"bert": {1: 1, 2: 2, 3: 4}})
    batch, outputs = fewer_heads.whole()
    assert shape(found.head_kl) == (3, 2)
    mask = batch.views[STUDENT]["attention_mask"] > 0
    ours, theirs = outputs[STUDENT].attention[3][:, 1].double(), outputs["bert"].attention[4].double().exp().mean(1)
    rows = (torch.special.xlogy(theirs, theirs) - theirs * ours.clamp(min=np.log(1e-9))).sum(-1)
    assert found.head_kl is not None
    assert found.head_kl[2][1] == pytest.approx(float(rows[mask].mean()), rel=1e-4)


# Whatever else must hold


def test_same_models_and_texts_give_the_same_numbers(copied: Scene) -> None:
    assert copied.look() == copied.look()


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_does_not_matter(size: int, copied: Scene, fewer_heads: Scene) -> None:
    for made in (copied, fewer_heads):
        assert_close(made.look(), made.look(batch_size=size))


def test_long_texts_are_asked_in_smaller_batches(copied: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copied.look()
    sizes: list[int] = []
    cut = copied.samples.batch

    def counted(rows: Any) -> Batch:
        sizes.append(len(rows))
        return cut(rows)

    monkeypatch.setattr(layer_similarity, "_MOST_CELLS", 2 * 32**2)
    monkeypatch.setattr(copied.samples, "batch", counted)
    assert_close(copied.look(), before)
    assert sizes[0] == 2
    assert sum(sizes) == len(TEXTS)


def test_at_most_so_many_tokens_are_drawn_and_always_the_same(copied: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = copied.look()
    monkeypatch.setattr(layer_similarity, "MOST_TOKENS", 100)
    found = copied.look()
    assert whole.tokens > found.tokens == 100
    assert found == copied.look()
    assert_close(found, copied.look(batch_size=3))
    assert np.abs(np.array(found.teachers[1].cka) - np.array(whole.teachers[1].cka)).max() < 0.2


def test_tokens_without_a_counterpart_are_left_out(make: Make) -> None:
    made = make(teachers=("bert",))
    before = made.look().tokens
    alignment = made.samples.alignments["bert"]
    first, last = alignment.first.copy(), alignment.last.copy()
    first[5:9] = last[5:9] = 0
    made.samples.alignments = {"bert": Alignment(first, last, identity=False)}
    assert made.look().tokens == before - 4


def test_student_may_be_deeper_than_its_teacher(make: Make) -> None:
    found = make("6L", of="roberta", copied=(1, 2, 3, 4, 5, 6), teachers=("bert",)).one("bert")
    chosen = [found.suggested[layer] for layer in range(1, 7)]
    assert chosen == sorted(chosen)
    assert shape(found.attention_kl) == (6, 4)


def test_model_that_shows_nothing_is_left_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make()
    monkeypatch.setattr(made.teachers[0].model.config, "model_type", "xlnet")
    found = made.look()
    assert [entry.teacher for entry in found.teachers] == ["roberta"]
    assert_close(found, make(teachers=("roberta",)).look())
    monkeypatch.setattr(made.student.model.config, "model_type", "xlnet")
    assert made.look().teachers == []


def test_model_that_shows_its_states_alone_has_no_attention(models: Models, make: Make) -> None:
    from transformers import ConvBertConfig, ConvBertForSequenceClassification

    made = make(teachers=("bert",))
    vocabulary = len(load_tokenizer(models["bert"]))
    torch.manual_seed(0)
    config = ConvBertConfig(
        vocab_size=vocabulary, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, num_labels=2, max_position_embeddings=64,
    )  # fmt: skip
    made.teachers = [Teacher("bert", ConvBertForSequenceClassification(config), [0, 1])]
    found = made.one("bert")
    assert (found.attention_kl, found.head_kl) == (None, None)
    assert shape(found.cka) == (4, 3)


def test_no_teachers_give_an_empty_document(make: Make) -> None:
    assert make(teachers=()).look().teachers == []
