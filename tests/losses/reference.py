"""Every loss once more, in double precision and plain loops over samples, tokens and heads, from the papers' formulas.

Each function returns the value of every part (one per teacher, unless it says otherwise) in the order of the teachers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kdcli.models.student import STUDENT
from tests.losses.random_samples import CLASSES, Array, RandomSamples

Pairs = Mapping[str, Mapping[int, int]]
Matrices = Mapping[str, Array]
Weighting = str | Mapping[str, float]


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    shares: Array = powers / powers.sum()
    return shares


def divergence(name: str, p: Array, q: Array) -> float:
    """Of the student's probabilities q [C] from the teacher's p [C]."""
    classes: list[tuple[float, float]] = list(zip(p.tolist(), q.tolist(), strict=True))
    if name == "cross-entropy":
        return -sum(a * math.log(b) for a, b in classes)
    if name == "kl":
        return sum(a * math.log(a / b) for a, b in classes if a > 0)
    if name == "reverse-kl":
        return divergence("kl", q, p)
    if name == "js":
        middle = (p + q) / 2
        return (divergence("kl", p, middle) + divergence("kl", q, middle)) / 2
    assert name == "tv"
    return sum(abs(a - b) for a, b in classes) / 2


def reduced(values: Mapping[str, Sequence[float]], layers: str = "sum", teachers: str = "mean") -> Array:
    """Teacher → the value of each of its pairs of layers, as one number per teacher."""
    by_teacher = [sum(found) / (len(found) if layers == "mean" else 1) for found in values.values()]
    return np.array(by_teacher) / (len(by_teacher) if teachers == "mean" else 1)


# Labels


def hard_labels(samples: RandomSamples, models: Sequence[str]) -> Array:
    labelled = [row for row in range(len(samples)) if samples.labels[row] >= 0]
    return np.array(
        [np.mean([-math.log(softmax(samples.logits[name][row])[samples.labels[row]]) for row in labelled]) for name in models]
    )


def uncertainty(samples: RandomSamples, row: int) -> float:
    shares = softmax(samples.logits[STUDENT][row])
    return float(-sum(share * math.log(share) for share in shares) / math.log(CLASSES))


def answers(samples: RandomSamples, teachers: Sequence[str], row: int) -> dict[str, Array]:
    """Class probabilities by teacher; of the copy that has not seen the sample, where there is one."""
    return {name: softmax(samples.out_of_fold.get(name, samples.logits[name])[row]) for name in teachers}


def agreement(said: Mapping[str, Array], name: str) -> float:
    others = [shares for other, shares in said.items() if other != name]
    if not others:
        return 1.0
    middle = sum(others, start=np.zeros(CLASSES)) / len(others)
    return 1.0 - divergence("tv", said[name], middle)


def share_by_size(unsure: float, sizes: Mapping[str, int], name: str) -> float:
    """Of N: a sample stands between two neighbours in the order of size and is shared between them."""
    order = sorted(sizes, key=lambda other: sizes[other])
    if len(order) == 1:
        return 1.0
    place = (1.0 - unsure) * (len(order) - 1)
    lower = min(int(place), len(order) - 2)
    return len(order) * {lower: lower + 1 - place, lower + 1: place - lower}.get(order.index(name), 0.0)


def teacher_weights(
    samples: RandomSamples,
    teachers: Sequence[str],
    how: Weighting = "uniform",
    sizes: Mapping[str, int] | None = None,
    normalise: bool = False,
    scale: str = "none",
    min_uncertainty: float = 0.0,
) -> Array:
    """How much each teacher counts on each sample [N, n]."""
    found = np.zeros((len(teachers), len(samples)))
    for row in range(len(samples)):
        said, label, unsure = answers(samples, teachers, row), samples.labels[row], uncertainty(samples, row)
        for place, name in enumerate(teachers):
            if not isinstance(how, str):
                found[place, row] = how[name]
            elif how == "uniform":
                found[place, row] = 1.0
            elif how == "inverse-error":
                found[place, row] = 1.0 / (1.0 - math.log(said[name][label]))
            elif how == "softmax-error":
                found[place, row] = len(teachers) * said[name][label] / sum(shares[label] for shares in said.values())
            elif how == "confidence":
                found[place, row] = max(said[name])
            elif how == "agreement":
                found[place, row] = agreement(said, name)
            else:
                assert how == "uncertainty"
                assert sizes is not None
                found[place, row] = share_by_size(unsure, {other: sizes[other] for other in teachers}, name)
        if normalise:
            found[:, row] *= len(teachers) / sum(found[:, row])
        if scale == "correctness":
            found[:, row] /= 1.0 - math.log(sum(shares[label] for shares in said.values()) / len(said))
        if scale == "agreement":
            found[:, row] *= sum(agreement(said, name) for name in said) / len(said)
        if scale == "disagreement" and len(said) > 1:
            found[:, row] *= 1.0 - sum(agreement(said, name) for name in said) / len(said)
        if unsure < min_uncertainty:
            found[:, row] = 0.0
    return found


def soft_labels(
    samples: RandomSamples, teachers: Sequence[str], weights: Array, temperature: float = 1.0, kind: str = "cross-entropy"
) -> Array:
    """Mean over samples, by teacher; weights [N, n]."""
    values = np.zeros(len(teachers))
    for place, name in enumerate(teachers):
        for row in range(len(samples)):
            p, q = (softmax(samples.logits[model][row] / temperature) for model in (name, STUDENT))
            values[place] += weights[place, row] * divergence(kind, p, q) / len(samples)
    return values


def logits_mse(samples: RandomSamples, teachers: Sequence[str], factor: float) -> Array:
    return np.array(
        [
            np.mean(
                [
                    (samples.logits[STUDENT][row, c] - factor * samples.logits[name][row, c]) ** 2
                    for row in range(len(samples))
                    for c in range(CLASSES)
                ]
            )
            for name in teachers
        ]
    )


# Hidden states


def square(ours: Array, theirs: Array) -> float:
    return float(np.mean((ours - theirs) ** 2))


def square_of_directions(ours: Array, theirs: Array) -> float:
    return square(ours / math.sqrt(ours @ ours), theirs / math.sqrt(theirs @ theirs))


def one_minus_cosine(ours: Array, theirs: Array) -> float:
    return float(1.0 - ours @ theirs / math.sqrt((ours @ ours) * (theirs @ theirs)))


def one_vector(states: Array, how: str) -> Array:
    """States [L, D] as one vector [D]."""
    vector: Array = states[0] if how == "cls" else states.sum(0) / len(states)
    return vector


def hidden(
    samples: RandomSamples,
    pairs: Pairs,
    distance: Callable[[Array, Array], float],
    tokens: str = "all",
    projected: Callable[[str, int, int], tuple[str, Array] | None] = lambda *_: None,
    layers: str = "sum",
    teachers: str = "mean",
) -> Array:
    """Args:
    projected: for a teacher and a pair of layers, which side is projected and by which matrix.
    """
    values: dict[str, list[float]] = {}
    for name, rows in pairs.items():
        values[name] = []
        for student_layer, teacher_layer in rows.items():
            found = []
            for row in range(len(samples)):
                ours, theirs = samples.of("hidden", STUDENT, student_layer)[row], samples.of("hidden", name, teacher_layer)[row]
                if tokens == "all":
                    met = [(ours[place], theirs[list(run)].mean(0)) for place, run in samples.counterparts(name, row)]
                else:
                    met = [(one_vector(ours, tokens), one_vector(theirs, tokens))]
                for one, other in met:
                    side, matrix = projected(name, student_layer, teacher_layer) or ("", np.zeros(0))
                    if side == "student":
                        found.append(distance(matrix @ one, other))
                    elif side == "teacher":
                        found.append(distance(one, matrix @ other))
                    else:
                        found.append(distance(one, other))
            values[name].append(float(np.mean(found)))
    return reduced(values, layers, teachers)


def random_layers(
    samples: RandomSamples, chosen: Mapping[str, Sequence[int]], matrices: Matrices, concatenated: bool, name: str
) -> Array:
    """Squared distances of unit vectors; mean over samples and, one by one, over layers."""
    values = []
    for teacher, layers in chosen.items():
        found = []
        for row in range(len(samples)):
            ours = [one_vector(samples.of("hidden", STUDENT, place + 1)[row], "mean") for place in range(len(layers))]
            theirs = [one_vector(samples.of("hidden", teacher, layer)[row], "mean") for layer in layers]
            if concatenated:
                ours, theirs = [np.concatenate(ours)], [np.concatenate(theirs)]
            for place, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
                one = matrices[f"{name}/{teacher}/student/{place}"] @ one
                other = matrices[f"{name}/{teacher}/teacher/{place}"] @ other
                found.append(len(one) * square_of_directions(one, other))
        values.append(np.mean(found))
    return np.array(values)


# Attention


def pulled_attention(attention: Array, runs: Sequence[range]) -> Array:
    """One head's attention [L_T, L_T] between the M student tokens that have these runs [M, M].

    A query's attention is the mean over its run; what a teacher token is given is shared evenly by the student tokens that it
    overlaps; what goes to tokens that none overlaps is lost, and the rest is scaled to sum to 1.
    """
    moved, cells = np.zeros((len(runs), len(runs))), attention.tolist()
    sharers = [sum(place in run for run in runs) for place in range(len(cells))]
    for query, own in enumerate(runs):
        for key, run in enumerate(runs):
            moved[query, key] = sum(cells[here][there] / sharers[there] for here in own for there in run) / len(own)
        moved[query] /= moved[query].sum()
    return moved


def pulled_scores(scores: Array, runs: Sequence[range]) -> Array:
    """One head's scores [L_T, L_T] between the M student tokens that have these runs [M, M]: means over the pairs."""
    return np.array(
        [[sum(scores[here, there] for here in own for there in run) / (len(own) * len(run)) for run in runs] for own in runs]
    )


def between_matched(attention: Array, places: Sequence[int], whole: bool) -> Array:
    """One head's attention [L, L] between those tokens [M, M], as distributions over them."""
    part = attention[np.ix_(places, places)]
    return part if whole else part / part.sum(-1, keepdims=True)


def rows_kl(wanted: Array, ours: Array) -> list[float]:
    return [divergence("kl", p, q) for p, q in zip(wanted, ours, strict=True)]


def head_pairs(ours: Array, theirs: Array, heads: str | Mapping[int, int]) -> list[tuple[Array, Array]]:
    """The matrices [L, L] of each side that are compared, from all heads [A, L, L]."""
    if heads == "mean":
        return [(ours.mean(0), theirs.mean(0))]
    if heads == "match":
        return list(zip(ours, theirs, strict=True))
    assert not isinstance(heads, str)
    return [(ours[mine - 1], theirs[its - 1]) for mine, its in heads.items()]


def attention_kl(
    samples: RandomSamples,
    pairs: Pairs,
    heads: Mapping[str, str | Mapping[int, int]],
    layers: str = "sum",
    teachers: str = "mean",
) -> Array:
    def of_sample(name: str, student_layer: int, teacher_layer: int, row: int) -> list[list[float]]:
        ours = np.exp(samples.of("attention", STUDENT, student_layer)[row])
        theirs = np.exp(samples.of("attention", name, teacher_layer)[row])
        return [matched_kl(samples, name, row, mine, its) for mine, its in head_pairs(ours, theirs, heads[name])]

    return over_tokens_and_heads(samples, pairs, of_sample, layers, teachers)


def matched_kl(samples: RandomSamples, name: str, row: int, ours: Array, theirs: Array) -> list[float]:
    """KL of each matched query token of one sample and head."""
    met = samples.counterparts(name, row)
    if not met:
        return []
    wanted = pulled_attention(theirs, [run for _, run in met])
    return rows_kl(wanted, between_matched(ours, [place for place, _ in met], whole=name == "bert"))


def over_tokens_and_heads(
    samples: RandomSamples,
    pairs: Pairs,
    of_sample: Callable[[str, int, int, int], list[list[float]]],
    layers: str = "sum",
    teachers: str = "mean",
) -> Array:
    """Mean over all tokens of all samples and over heads; ``of_sample`` gives a sample's [heads, tokens]."""
    values = {
        name: [
            float(
                np.mean(
                    [
                        value
                        for row in range(len(samples))
                        for head in of_sample(name, student_layer, teacher_layer, row)
                        for value in head
                    ]
                )
            )
            for student_layer, teacher_layer in rows.items()
        ]
        for name, rows in pairs.items()
    }
    return reduced(values, layers, teachers)


def attention_mse(
    samples: RandomSamples,
    pairs: Pairs,
    heads: Mapping[str, str | Mapping[int, int]],
    layers: str = "sum",
    teachers: str = "mean",
) -> Array:
    def of_sample(name: str, student_layer: int, teacher_layer: int, row: int) -> list[list[float]]:
        ours = samples.of("scores", STUDENT, student_layer)[row]
        theirs = samples.of("scores", name, teacher_layer)[row]
        met = samples.counterparts(name, row)
        places, runs = [place for place, _ in met], [run for _, run in met]
        found = []
        for mine, its in head_pairs(ours, theirs, heads[name]):
            pulled = pulled_scores(its, runs)
            cells = itertools.product(enumerate(places), repeat=2)
            found.append([float(mine[here, there] - pulled[i, j]) ** 2 for (i, here), (j, there) in cells])
        return found

    return over_tokens_and_heads(samples, pairs, of_sample, layers, teachers)


def relation(states: Array, heads: int | None) -> list[Array]:
    """softmax(XXᵀ/√d) per relation head [L, L], from the attention's heads [A, L, D/A]."""
    if heads is None:
        parts = list(states)
    else:
        whole = np.concatenate(list(states), axis=-1)  # [L, D]
        width = whole.shape[-1] // heads
        parts = [whole[:, head * width : (head + 1) * width] for head in range(heads)]
    return [np.array([softmax(row) for row in part @ part.T / math.sqrt(part.shape[-1])]) for part in parts]


def relation_kl(
    samples: RandomSamples,
    pairs: Pairs,
    relations: Sequence[str],
    relation_heads: Mapping[str, int | None],
    layers: str = "sum",
    teachers: str = "mean",
) -> Array:
    """Sum over the relations."""
    total = np.zeros(len(pairs))
    for kind in relations:

        def of_sample(name: str, student_layer: int, teacher_layer: int, row: int, kind: str = kind) -> list[list[float]]:
            ours = relation(samples.of(kind, STUDENT, student_layer)[row], relation_heads[name])
            theirs = relation(samples.of(kind, name, teacher_layer)[row], relation_heads[name])
            return [matched_kl(samples, name, row, mine, its) for mine, its in zip(ours, theirs, strict=True)]

        total += over_tokens_and_heads(samples, pairs, of_sample, layers, teachers)
    return total


# Relations between samples


def huber(one: float, other: float) -> float:
    distance = abs(one - other)
    return distance**2 / 2 if distance <= 1 else distance - 0.5


def angle(at: Array, one: Array, other: Array) -> float:
    return float((one - at) @ (other - at) / math.sqrt(((one - at) @ (one - at)) * ((other - at) @ (other - at))))


def relational(
    samples: RandomSamples,
    pairs: Pairs,
    states: str = "mean",
    weights: tuple[float, float] = (1.0, 2.0),
    group: int | None = None,
    layers: str = "sum",
    teachers: str = "mean",
) -> Array:
    """Two parts per teacher: distances and angles."""
    size = group or len(samples)
    groups = [range(begin, min(begin + size, len(samples))) for begin in range(0, len(samples), size)]
    distances: dict[str, list[float]] = {name: [] for name in pairs}
    angles: dict[str, list[float]] = {name: [] for name in pairs}
    for name, rows in pairs.items():
        for layer_pair in rows.items():
            sides = []
            for model, layer in zip((STUDENT, name), layer_pair, strict=True):
                if states == "logits":
                    sides.append(list(samples.logits[model]))
                else:
                    sides.append([one_vector(found, states) for found in samples.of("hidden", model, layer)])
            by_pair: list[float] = []
            by_triplet: list[float] = []
            for members in groups:
                couples = list(itertools.permutations(members, 2))
                lengths = [[math.sqrt(((side[i] - side[j]) ** 2).sum()) for i, j in couples] for side in sides]
                ours, theirs = ([length / float(np.mean(found)) for length in found] for found in lengths)
                by_pair += [huber(mine, its) for mine, its in zip(ours, theirs, strict=True)]
                for i, j, k in itertools.permutations(members, 3):
                    mine, its = (angle(side[j], side[i], side[k]) for side in sides)
                    by_triplet.append(huber(mine, its))
            distances[name].append(float(np.mean(by_pair)) if by_pair else 0.0)
            angles[name].append(float(np.mean(by_triplet)) if by_triplet else 0.0)
    found = [weight * reduced(values, layers, teachers) for weight, values in zip(weights, (distances, angles), strict=True)]
    return np.stack(found, axis=1).reshape(-1)
