"""Batches that are made ready beside the training: those that the loop would have cut itself, and no more than it needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kdcli.data.batching import Batch, Samples, epoch_batches
from kdcli.engine.prefetch import Cut, Delivery, deliveries
from kdcli.errors import InterruptedRunError
from kdcli.models.output import Output, Wanted
from tests.engine.phases import BATCH_SIZE, Material, labels_alone, phase, stopping_at, train_samples, trainer

CPU = torch.device("cpu")
AHEAD = 3


@pytest.fixture(scope="module")
def samples(tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> Samples:
    return train_samples(Material(tiny_bert, tiny_roberta, tiny_data))


def steps(samples: Samples, size: int = BATCH_SIZE) -> list[NDArray[np.int64]]:
    return epoch_batches(samples.lengths, size, 0, 0)


@dataclass
class Known:
    """Teachers that know their answers; ``fetch`` can be made to wait, or to fail.

    Attributes:
        fetched: rows of each batch that was looked up.
        go: lets it go on.
        fails: at which batch it fails, from 0.
    """

    fetched: list[list[int]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    fails: int = -1

    def __call__(self, batch: Batch, needs: Mapping[str, Wanted]) -> dict[str, Output]:
        return {}

    def fetch(self, batch: Batch) -> None:
        assert self.go.wait(5)
        if len(self.fetched) == self.fails:
            raise OSError("the disk is gone")
        self.fetched.append(batch.numbers.tolist())
        batch.outputs["bert"] = Output(batch.rows.float())

    def refresh(self) -> None:
        """There is nobody else."""


def ready(**more: int) -> Known:
    known = Known(**more)  # type: ignore[arg-type]
    known.go.set()
    return known


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kdcli-batches")]


def settled(known: Known, count: int) -> bool:
    """Whether so many batches are made soon, and none more after that."""
    deadline = time.monotonic() + 5
    while len(known.fetched) < count and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.03)
    return len(known.fetched) == count


def same(one: Batch, other: Batch) -> bool:
    views = all(torch.equal(tensor, other.views[name][key]) for name, view in one.views.items() for key, tensor in view.items())
    assert one.targets is not None
    assert other.targets is not None
    return (
        views
        and one.views.keys() == other.views.keys()
        and one.numbers.tolist() == other.numbers.tolist() == one.rows.tolist() == other.rows.tolist()
        and torch.equal(one.targets, other.targets)
    )


# What is delivered


CUTS = [
    Cut(0, 1, 1, 1),
    Cut(0, 1, 3, 1),
    Cut(1, 2, 2, 1),
    Cut(1, 3, 2, 3),
    Cut(0, 2, 2, 0),
    Cut(1, 2, 1, 0),
    Cut(0, 1, 1, 1, tokens=40),
    Cut(1, 2, 2, 1, tokens=1),
]


@pytest.mark.parametrize("size", [8, 9, 47])
@pytest.mark.parametrize("cut", CUTS)
def test_batches_are_those_that_the_loop_would_cut_in_the_same_order(cut: Cut, size: int, samples: Samples) -> None:
    """Also for a process that gets nothing of a batch: it gets a stand-in that does not count."""
    expected = []
    for rows in steps(samples, size):
        shares = cut.shares(rows, samples.lengths[rows])
        batches = [samples.batch(share) for share in shares] or [samples.batch(rows[:1])]
        expected.append(Delivery(batches, bool(shares), len(rows)))
    found = list(deliveries(steps(samples, size), samples, None, cut, CPU))
    assert [(len(one.micro_batches), one.counts, one.samples) for one in found] == [
        (len(one.micro_batches), one.counts, one.samples) for one in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert all(same(one, other) for one, other in zip(ours.micro_batches, theirs.micro_batches, strict=True))
    assert threads() == []


ROWS = np.random.default_rng(0).permutation(100)
TOKENS = np.random.default_rng(1).integers(3, 60, len(ROWS))


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("group", [0, 1, 3])
@pytest.mark.parametrize("count", [1, 2, 8, 13])
def test_the_shares_of_all_processes_make_the_batch(processes: int, accumulation: int, group: int, count: int) -> None:
    """Every sample once; groups are not parted; parts are as alike as can be; nobody gets more of them than is asked for."""
    rows = ROWS[:count]
    by_process = [Cut(process, processes, accumulation, group).shares(rows, TOKENS[:count]) for process in range(processes)]
    assert sorted(np.concatenate([share for shares in by_process for share in shares]).tolist()) == sorted(rows.tolist())
    assert all(len(share) for shares in by_process for share in shares)
    assert max(map(len, by_process)) <= accumulation
    assert max(map(len, by_process)) - min(map(len, by_process)) <= 1
    size = group or count
    groups = [set(rows[begin : begin + size].tolist()) for begin in range(0, count, size)]
    for share in chain(*by_process):
        assert all(members <= set(share.tolist()) or not members & set(share.tolist()) for members in groups)
    pieces = [-(-len(share) // size) for share in chain(*by_process)]
    assert max(pieces) - min(pieces) <= 1


@pytest.mark.parametrize("tokens", [1, 60, 200, 10_000])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 2), (3, 1)])
def test_a_bound_on_tokens_cuts_the_shares_further(processes: int, accumulation: int, tokens: int) -> None:
    """No padded part has more, unless it is one text; the samples of a process and their order stay."""
    rows, lengths = ROWS[:13], TOKENS[:13]
    longest = int(lengths.max())
    for process in range(processes):
        bound = Cut(process, processes, accumulation, 1, tokens).shares(rows, lengths)
        free = Cut(process, processes, accumulation, 1).shares(rows, lengths)
        assert np.concatenate(bound).tolist() == np.concatenate(free).tolist()
        assert all(len(share) == 1 or len(share) * longest <= tokens for share in bound)
        assert len(bound) <= sum(-(-len(share) // max(1, tokens // longest)) for share in free)


@pytest.mark.parametrize("group", [0, 3])
def test_samples_that_stay_together_are_not_parted_for_a_bound_on_tokens(group: int) -> None:
    bound, free = (Cut(0, 1, 2, group, tokens).shares(ROWS[:13], TOKENS[:13]) for tokens in (1, 0))
    assert [share.tolist() for share in bound] == [share.tolist() for share in free]


def test_kept_answers_are_in_the_batches(samples: Samples) -> None:
    known = ready()
    found = list(deliveries(steps(samples), samples, known, Cut(0, 1, 2, 1), CPU))
    for delivery in found:
        for batch in delivery.micro_batches:
            answer = batch.outputs["bert"]
            assert isinstance(answer, Output)
            assert answer.logits.tolist() == batch.rows.tolist()
    assert known.fetched == [batch.numbers.tolist() for delivery in found for batch in delivery.micro_batches]


def test_teachers_that_keep_nothing_are_not_looked_up(samples: Samples) -> None:
    (first, *_) = deliveries(steps(samples), samples, lambda batch, needs: {}, Cut(0, 1, 1, 1), CPU)
    assert first.micro_batches[0].outputs == {}


def test_a_training_of_no_steps_gets_no_batches(samples: Samples) -> None:
    assert list(deliveries([], samples, None, Cut(0, 1, 1, 1), CPU)) == []


# How far ahead


def test_batches_are_made_while_the_one_before_is_used_and_never_more_than_three(samples: Samples) -> None:
    known, asked = ready(), []

    def coming() -> Iterator[NDArray[np.int64]]:
        for row, rows in enumerate(steps(samples)):
            asked.append(row)
            yield rows

    given = deliveries(coming(), samples, known, Cut(0, 1, 1, 1), CPU)
    assert (known.fetched, asked) == ([], [])
    for used, _ in enumerate(given, start=1):
        made = min(used - 1 + AHEAD, 6)
        assert settled(known, made)
        assert len(asked) == made
    assert used == 6


def test_a_batch_does_not_wait_for_those_behind_it(samples: Samples) -> None:
    """It is there as soon as it is made, while the next one hangs."""
    known = Known()
    allowed = threading.Semaphore(1)
    known.go.wait = lambda timeout=None: allowed.acquire(timeout=5)  # type: ignore[method-assign]
    given = deliveries(steps(samples), samples, known, Cut(0, 1, 1, 1), CPU)
    first = next(given)
    assert first.micro_batches[0].numbers.tolist() == known.fetched[0]
    assert len(known.fetched) == 1
    for _ in range(6):
        allowed.release()
    assert len(list(given)) == 5


# Errors and ends


@pytest.mark.parametrize("fails", [0, 2, 5])
def test_an_error_beside_the_training_is_raised_in_it(fails: int, samples: Samples) -> None:
    """At the batch that could not be made, after all those before it."""
    given = deliveries(steps(samples), samples, ready(fails=fails), Cut(0, 1, 1, 1), CPU)
    for _ in range(fails):
        next(given)
    with pytest.raises(OSError, match="the disk is gone"):
        next(given)
    assert threads() == []


def test_a_sample_that_is_not_there_is_an_error_in_the_training(samples: Samples) -> None:
    with pytest.raises(IndexError):
        list(deliveries([np.array([0, 1]), np.array([9999])], samples, None, Cut(0, 1, 1, 1), CPU))
    assert threads() == []


def test_an_error_while_the_steps_are_laid_out_is_raised_at_once(samples: Samples) -> None:
    def coming() -> Iterator[NDArray[np.int64]]:
        yield np.array([0])
        raise KeyError("epoch")

    with pytest.raises(KeyError):
        next(deliveries(coming(), samples, None, Cut(0, 1, 1, 1), CPU))
    assert threads() == []


@pytest.mark.parametrize("used", [1, 3, 6])
def test_closing_early_ends_the_thread_and_drops_what_was_not_begun(used: int, samples: Samples) -> None:
    known = ready()
    given = deliveries(steps(samples), samples, known, Cut(0, 1, 1, 1), CPU)
    for _ in range(used):
        next(given)
    assert threads() == ["kdcli-batches_0"]
    given.close()
    assert threads() == []
    made = len(known.fetched)
    assert made <= min(used - 1 + AHEAD, 6)
    time.sleep(0.02)
    assert len(known.fetched) == made


def test_closing_while_a_batch_is_made_waits_for_that_one_alone(samples: Samples) -> None:
    known = Known()
    given = deliveries(steps(samples), samples, known, Cut(0, 1, 1, 1), CPU)
    known.go.set()
    next(given)
    assert settled(known, AHEAD)
    known.go.clear()
    next(given)
    threading.Timer(0.05, known.go.set).start()
    given.close()
    assert threads() == []
    assert len(known.fetched) <= AHEAD + 1


def test_a_generator_that_was_never_begun_has_no_thread(samples: Samples) -> None:
    deliveries(steps(samples), samples, None, Cut(0, 1, 1, 1), CPU).close()
    assert threads() == []


def test_a_training_leaves_no_thread(material: Material, tmp_path: Path) -> None:
    seen: list[Sequence[str]] = []
    made = phase(material, (2, 3), terms=labels_alone, teachers=False)
    made.stages[1].terms[0].register_forward_pre_hook(lambda *_: seen.append(threads()))
    trainer(tmp_path).run(made)
    assert seen[0] == ["kdcli-batches_0"]
    assert threads() == []


def test_a_training_that_is_stopped_leaves_no_thread_either(material: Material, tmp_path: Path) -> None:
    """Not even while its error is looked at: the files of kept answers are closed by then."""
    with pytest.raises(InterruptedRunError) as stopped:
        trainer(tmp_path, stopping_at(2)).run(phase(material, (6,), terms=labels_alone, teachers=False))
    assert stopped.value.__traceback__ is not None
    assert threads() == []
