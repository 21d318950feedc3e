"""Batches: every sample once, nothing but the seed and the epoch decides, and padding says nothing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.data.alignment import Alignment, align
from kdcli.data.batching import AlignedRuns, Batch, Samples, epoch_batches, sorted_batches
from kdcli.data.tokens import TokenView, tokenise
from tests.data.two_tokenizers import random_texts, split_of

quick = settings(deadline=None, database=None, max_examples=60)
lengths_of_samples = st.lists(st.integers(1, 40), min_size=1, max_size=300).map(np.array)


@pytest.fixture(scope="module")
def samples(wordpiece: Any, byte_level: Any) -> Samples:
    """Pairs of texts of unlike length, as a student and two teachers see them; one teacher has the student's tokens."""
    split = split_of(random_texts(50, 1), random_texts(50, 2))
    student, other = tokenise(split, wordpiece, 24), tokenise(split, byte_level, 24)
    alignments = {"bert": align(student, student), "roberta": align(student, other)}
    labels = np.arange(50, dtype=np.int64) % 3
    return Samples(labels, {"student": student, "bert": student, "roberta": other}, alignments, "student")


@quick
@given(lengths=lengths_of_samples, size=st.integers(1, 40), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_every_sample_comes_once_per_epoch(lengths: np.ndarray[Any, Any], size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sorted(len(batch) for batch in batches)[1:] == [size] * (len(batches) - 1)


@quick
@given(lengths=lengths_of_samples, size=st.integers(1, 40))
def test_inference_sees_every_sample_once_the_longest_first(lengths: np.ndarray[Any, Any], size: int) -> None:
    rows = np.concatenate(sorted_batches(lengths, size))
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[rows]) <= 0).all()
    assert all(len(batch) == size for batch in sorted_batches(lengths, size)[:-1])


def _flat(batches: list[Any]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    first = _flat(epoch_batches(lengths, 16, 7, 3))
    np.random.seed(1)
    torch.manual_seed(1)
    torch.rand(3)
    assert _flat(epoch_batches(lengths, 16, 7, 3)) == first
    others = [_flat(epoch_batches(lengths, 16, seed, epoch)) for seed, epoch in ((7, 2), (8, 3), (3, 7))]
    assert first not in others
    assert len({str(other) for other in others}) == 3


def test_windows_pad_less_than_random_order_and_still_mix_the_lengths() -> None:
    lengths = np.random.default_rng(0).integers(3, 100, 4000)
    batches = epoch_batches(lengths, 16, 0, 0)
    order = np.random.default_rng(0).permutation(4000)
    at_random = [order[row : row + 16] for row in range(0, 4000, 16)]

    def padding(parts: list[Any]) -> int:
        return int(sum((lengths[part].max() - lengths[part]).sum() for part in parts))

    assert padding(batches) < 0.15 * padding(at_random)
    longest = np.array([lengths[batch].max() for batch in batches])
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3


def ragged(view: TokenView, row: int, flat: Any) -> list[int]:
    found: list[int] = flat[view.bounds[row] : view.bounds[row + 1]].tolist()
    return found


ROWS = [3, 49, 0, 17]


def test_batch_holds_the_ragged_rows_padded_to_the_longest_of_them(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    for name, view in samples.views.items():
        inputs = batch.views[name]
        width = max(view.lengths[row] for row in ROWS)
        assert {tensor.shape for tensor in inputs.values()} == {(len(ROWS), width)}
        assert {tensor.dtype for tensor in inputs.values()} == {torch.int64}
        for place, row in enumerate(ROWS):
            ids = ragged(view, row, view.ids)
            left = int(width) - len(ids)
            assert inputs["input_ids"][place].tolist() == ids + [view.pad_id] * left
            assert inputs["attention_mask"][place].tolist() == [1] * len(ids) + [0] * left
            if view.type_ids is not None:
                assert inputs["token_type_ids"][place].tolist() == ragged(view, row, view.type_ids) + [0] * left


def test_padding_goes_only_to_the_longest_of_the_batch(samples: Samples) -> None:
    shortest = np.argsort(samples.lengths, kind="stable")[:4]
    batch = samples.batch(shortest)
    assert batch.views["student"]["input_ids"].shape[1] == samples.lengths[shortest].max() < samples.lengths.max()
    assert batch.views["student"]["attention_mask"].sum() == samples.lengths[shortest].sum()


def test_batch_names_its_samples_and_their_labels(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    assert len(batch) == 4
    assert batch.rows.tolist() == ROWS
    assert batch.targets is not None
    assert batch.targets.tolist() == [row % 3 for row in ROWS]
    assert batch.targets.dtype == torch.int64


def test_samples_without_labels_give_batches_without_labels(samples: Samples) -> None:
    assert Samples(None, samples.views, {}, "student").batch([1, 2]).targets is None


def test_models_that_share_their_tokens_share_the_tensors(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    assert batch.views["student"] is batch.views["bert"]
    assert batch.views["student"] is not batch.views["roberta"]


def test_one_row_is_a_batch_without_padding(samples: Samples) -> None:
    batch = samples.batch([5])
    assert batch.views["student"]["attention_mask"].all()


def test_batch_stays_where_it_is_on_the_cpu(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    assert batch.to(torch.device("cpu")) is batch


def test_batch_moves_as_a_whole_to_a_device(samples: Samples) -> None:
    moved: Batch = samples.batch(ROWS).to(torch.device("meta"))
    tensors = [moved.rows, moved.targets, *(tensor for view in moved.views.values() for tensor in view.values())]
    tensors += [tensor for runs in moved.runs.values() for tensor in (runs.first, runs.last)]
    assert {tensor.device.type for tensor in tensors if tensor is not None} == {"meta"}


def test_runs_are_those_of_the_samples_and_empty_in_the_padding(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    lead = samples.views["student"]
    for name, alignment in samples.alignments.items():
        runs = batch.runs[name]
        assert runs.identity is alignment.identity
        for place, row in enumerate(ROWS):
            own = int(lead.lengths[row])
            assert runs.first[place, :own].tolist() == ragged(lead, row, alignment.first)
            assert runs.last[place, :own].tolist() == ragged(lead, row, alignment.last)
            assert not runs.matched()[place, own:].any()
        matched = batch.views["student"]["attention_mask"].bool() & runs.matched()
        assert torch.equal(matched, runs.matched())


def test_pulled_states_are_the_mean_over_each_run(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    runs = batch.runs["roberta"]
    states = torch.randn(len(ROWS), batch.views["roberta"]["input_ids"].shape[1], 5, generator=torch.Generator().manual_seed(0))
    pulled = runs.pull(states)
    assert pulled.shape == (len(ROWS), batch.views["student"]["input_ids"].shape[1], 5)
    expected = np.zeros(pulled.shape)
    for sample in range(pulled.shape[0]):
        for token in range(pulled.shape[1]):
            first, last = int(runs.first[sample, token]), int(runs.last[sample, token])
            if last > first:
                expected[sample, token] = states[sample, first:last].double().numpy().mean(axis=0)
    np.testing.assert_allclose(pulled.numpy(), expected, rtol=1e-5, atol=1e-6)


@quick
@given(data=st.data(), width=st.integers(1, 6), there=st.integers(1, 7), own=st.integers(1, 5))
def test_any_runs_pull_the_mean_over_each(data: st.DataObject, width: int, there: int, own: int) -> None:
    ends = data.draw(st.lists(st.tuples(st.integers(0, there), st.integers(0, there)), min_size=own, max_size=own))
    first, last = (torch.tensor([[pick(pair) for pair in ends]]) for pick in (min, max))
    states = torch.arange(there * width, dtype=torch.float64).reshape(1, there, width) ** 2
    pulled = AlignedRuns(first, last, identity=False).pull(states)
    for token, (begin, end) in enumerate(map(sorted, ends)):
        mean = states[0, begin:end].mean(0) if end > begin else torch.zeros(width, dtype=torch.float64)
        torch.testing.assert_close(pulled[0, token], mean)


def test_identity_pulls_the_states_themselves(samples: Samples) -> None:
    states = torch.randn(4, samples.batch(ROWS).views["bert"]["input_ids"].shape[1], 3)
    assert samples.batch(ROWS).runs["bert"].pull(states) is states


def attention_pulled_by_hand(attention: Any, runs: list[range]) -> Any:
    """One head's [L_T, L_T] between student tokens [L_S, L_S], token by token."""
    moved = np.zeros((len(runs), len(runs)))
    for query, own in enumerate(runs):
        for here in own:
            for key, run in enumerate(runs):
                for there in run:
                    sharers = sum(there in other for other in runs)
                    moved[query, key] += attention[here, there] / len(own) / sharers
        if moved[query].sum() > 0:
            moved[query] /= moved[query].sum()
    return moved


def runs_of(runs: AlignedRuns, sample: int) -> list[range]:
    return [range(*ends) for ends in zip(runs.first[sample].tolist(), runs.last[sample].tolist(), strict=True)]


def random_attention(mask: torch.Tensor, heads: int, seed: int = 0) -> torch.Tensor:
    """Probabilities [B, A, L, L] as models have them: exactly 0 at padding."""
    samples, tokens = mask.shape
    scores = 2 * torch.randn(samples, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min).softmax(-1)


def test_pulled_attention_equals_token_by_token(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    runs = batch.runs["roberta"]
    attention = random_attention(batch.views["roberta"]["attention_mask"], 2)
    pulled = runs.pull_attention(attention)
    assert pulled.shape == (len(ROWS), 2, *[batch.views["student"]["input_ids"].shape[1]] * 2)
    for sample, head in itertools.product(range(len(ROWS)), range(2)):
        expected = attention_pulled_by_hand(attention[sample, head].double().numpy(), runs_of(runs, sample))
        np.testing.assert_allclose(pulled[sample, head].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_rows_of_pulled_attention_are_distributions_over_tokens_that_have_a_counterpart(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    runs = batch.runs["roberta"]
    pulled = runs.pull_attention(random_attention(batch.views["roberta"]["attention_mask"], 3))
    matched = runs.matched()
    assert not matched.all()
    torch.testing.assert_close(pulled.sum(-1), matched[:, None, :].expand(-1, 3, -1).float())
    assert (pulled >= 0).all()
    assert (pulled.masked_select(~matched[:, None, None, :]) == 0).all()


def test_pulled_scores_equal_token_by_token(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    runs, width = batch.runs["roberta"], batch.views["roberta"]["input_ids"].shape[1]
    scores = torch.randn(len(ROWS), 2, width, width, generator=torch.Generator().manual_seed(1))
    pulled = runs.pull_scores(scores)
    for sample, head in itertools.product(range(len(ROWS)), range(2)):
        mine = scores[sample, head].double().numpy()
        expected = [
            [
                np.mean([mine[here, there] for here in own for there in run]) if own and run else 0.0
                for run in runs_of(runs, sample)
            ]
            for own in runs_of(runs, sample)
        ]
        np.testing.assert_allclose(pulled[sample, head].numpy(), expected, rtol=1e-5, atol=1e-6)


@quick
@given(data=st.data(), there=st.integers(1, 6), own=st.integers(1, 5))
def test_any_runs_pull_attention_and_scores_as_loops_do(data: st.DataObject, there: int, own: int) -> None:
    ends = data.draw(st.lists(st.tuples(st.integers(0, there), st.integers(0, there)), min_size=own, max_size=own))
    first, last = (torch.tensor([[pick(pair) for pair in ends]]) for pick in (min, max))
    runs = AlignedRuns(first, last, identity=False)
    scores = (torch.arange(there * there, dtype=torch.float64).reshape(1, 1, there, there) * 0.7).sin()
    attention = scores.softmax(-1)
    lists = runs_of(runs, 0)
    np.testing.assert_allclose(
        runs.pull_attention(attention)[0, 0].numpy(), attention_pulled_by_hand(attention[0, 0].numpy(), lists), atol=1e-12
    )
    expected = [
        [float(scores[0, 0, list(one)][:, list(other)].mean()) if one and other else 0.0 for other in lists] for one in lists
    ]
    np.testing.assert_allclose(runs.pull_scores(scores)[0, 0].numpy(), expected, atol=1e-12)


def test_attention_to_tokens_without_a_counterpart_is_lost_and_the_rest_scaled() -> None:
    runs = AlignedRuns(torch.tensor([[0, 2]]), torch.tensor([[1, 3]]), identity=False)
    attention = torch.tensor([[0.3, 0.5, 0.2], [0.1, 0.8, 0.1], [0.0, 1.0, 0.0]])[None, None]
    expected = torch.tensor([[0.6, 0.4], [0.0, 0.0]])  # the second one looked only at what is lost
    torch.testing.assert_close(runs.pull_attention(attention)[0, 0], expected)


def test_a_token_s_attention_is_shared_evenly_by_the_tokens_that_overlap_it() -> None:
    runs = AlignedRuns(torch.tensor([[0, 1, 1, 1]]), torch.tensor([[1, 2, 2, 2]]), identity=False)
    attention = torch.tensor([[0.4, 0.6], [0.1, 0.9]])[None, None]
    expected = torch.tensor([[0.4, 0.2, 0.2, 0.2]] + [[0.1, 0.3, 0.3, 0.3]] * 3)
    torch.testing.assert_close(runs.pull_attention(attention)[0, 0], expected)


def test_runs_of_one_token_each_pull_what_identity_pulls(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    runs = batch.runs["bert"]
    spelled_out = AlignedRuns(runs.first, runs.last, identity=False)
    mask = batch.views["bert"]["attention_mask"]
    attention = random_attention(mask, 2)
    real = (mask[:, None, :, None] * mask[:, None, None, :]).bool().expand_as(attention)
    for pull, seen in ((spelled_out.pull_attention, attention), (spelled_out.pull_scores, attention.log())):
        torch.testing.assert_close(pull(seen.clamp(min=-50.0))[real], seen.clamp(min=-50.0)[real])


def test_identity_pulls_attention_and_scores_themselves(samples: Samples) -> None:
    runs = samples.batch(ROWS).runs["bert"]
    attention = random_attention(samples.batch(ROWS).views["bert"]["attention_mask"], 2)
    assert runs.pull_attention(attention) is attention
    assert runs.pull_scores(attention) is attention


def test_attention_and_scores_of_padding_never_reach_a_student_token(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    runs, mask = batch.runs["roberta"], batch.views["roberta"]["attention_mask"]
    padding = (mask == 0)[:, None, :, None].expand(-1, 2, -1, mask.shape[1])
    attention = random_attention(mask, 2)
    wild = attention.masked_fill(padding, 1e6)
    torch.testing.assert_close(runs.pull_attention(wild), runs.pull_attention(attention))
    wild = wild.masked_fill(padding.transpose(-1, -2), -1e6)
    clean = attention.masked_fill(padding | padding.transpose(-1, -2), 0.0)
    torch.testing.assert_close(runs.pull_scores(wild), runs.pull_scores(clean))


def test_states_of_padding_never_reach_a_student_token(samples: Samples) -> None:
    batch = samples.batch(ROWS)
    mask = batch.views["roberta"]["attention_mask"][..., None]
    states = torch.ones(*mask.shape[:2], 2).masked_fill(mask == 0, float("nan"))
    clean = torch.nan_to_num(states, nan=1e9)
    matched = batch.runs["roberta"].matched()
    assert torch.equal(batch.runs["roberta"].pull(clean)[matched], torch.ones(int(matched.sum()), 2))


def test_length_of_samples_is_that_of_the_leading_view(samples: Samples) -> None:
    assert len(samples) == 50
    np.testing.assert_array_equal(samples.lengths, samples.views["student"].lengths)
    other = Samples(None, samples.views, dict[str, Alignment](), "roberta")
    np.testing.assert_array_equal(other.lengths, samples.views["roberta"].lengths)
