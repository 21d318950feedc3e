"""How often the intervals of an evaluation are wrong, in worlds whose truth is known.

    python benchmarks/coverage.py --worlds 400 --out coverage.md

Each world is a joint distribution of label, student's and teacher's prediction, of which the true scores are worked out
exactly. Samples are drawn from it, the intervals are computed as kdcli does, and it is counted how often the truth lies
below the lower end (a ``:bound`` gate that passes falsely, at the limit that is just not kept: 2.5 % at most is wanted) or
above the upper end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcli.evaluation.intervals import score_interval
from kdcli.evaluation.paired import PairedScores
from kdcli.evaluation.resampling import PairedSample
from kdcli.tasks.class_metrics import CLASS_METRICS, Classes
from kdcli.tasks.metric import Metric

PLAIN, KDCLI = "percentile bootstrap", "kdcli"


@dataclass(frozen=True)
class World:
    """How student and teacher answer.

    Attributes:
        name: what it is like.
        classes: how many there are.
        skewed: the rarest class has a ninth (of two) or a fifteenth (of more) of the samples of the most frequent one.
        teacher: its accuracy.
        lost: of what the teacher gets right, the share that the student gets wrong.
        gained: of what the teacher gets wrong, the share that the student gets right.
        rarest: only samples of the rarest class are lost.
    """

    name: str
    classes: int
    skewed: bool
    teacher: float
    lost: float
    gained: float
    rarest: bool = False

    def joint(self, metric: Metric) -> PairedSample:
        """Labels, both predictions, and how likely they are together."""
        ratio = 9 if self.classes == 2 else 15
        shares = np.geomspace(1, 1 / ratio if self.skewed else 1, self.classes)
        rows, weights = [], []
        for label, share in enumerate(shares / shares.sum()):
            lost = 0.0 if self.rarest and label < self.classes - 1 else self.lost
            wrong = [(label + step) % self.classes for step in (1, 2) if step < self.classes]
            rows.append((label, label, label))
            weights.append(share * self.teacher * (1 - lost))
            for other in wrong:
                rows += [(label, other, label), (label, label, other), (label, other, other)]
                mistaken = share * (1 - self.teacher) / len(wrong)
                weights += [share * self.teacher * lost / len(wrong), mistaken * self.gained, mistaken * (1 - self.gained)]
        labels, ours, theirs = np.array(rows).T
        return PairedSample(metric, labels, ours, theirs, np.array(weights), 0)


WORLDS = (
    World("2 classes, teacher always right, 2 % lost", 2, False, 1.0, 0.02, 0.0),
    World("2 classes, nearly alike", 2, False, 0.92, 0.02, 0.1),
    World("2 classes, unlike, equally good", 2, False, 0.85, 0.07, 0.4),
    World("2 classes, student worse", 2, False, 0.92, 0.1, 0.1),
    World("2 classes, student better", 2, False, 0.85, 0.02, 0.4),
    World("2 classes, skewed, nearly alike", 2, True, 0.93, 0.015, 0.1),
    World("2 classes, skewed, rare class lost", 2, True, 0.95, 0.2, 0.1, rarest=True),
    World("6 classes, nearly alike", 6, False, 0.9, 0.02, 0.1),
    World("6 classes, skewed, rarest class lost", 6, True, 0.95, 0.4, 0.0, rarest=True),
    World("6 classes, skewed, student worse", 6, True, 0.9, 0.1, 0.2),
    World("20 classes, skewed, nearly alike", 20, True, 0.9, 0.03, 0.1),
    World("20 classes, student worse", 20, False, 0.9, 0.1, 0.2),
    World("77 classes, nearly alike", 77, False, 0.92, 0.03, 0.1),
)


@dataclass
class Count:
    """How often an interval was wrong, and how wide it was."""

    below: int = 0
    above: int = 0
    width: float = 0.0

    def add(self, interval: tuple[float, float] | None, truth: float) -> None:
        """One world more; without an interval nothing is claimed."""
        low, high = interval or (-np.inf, np.inf)
        self.below += truth < low - 1e-12
        self.above += truth > high + 1e-12
        self.width += high - low

    def row(self, times: int) -> list[str]:
        """Percent below, above and held, and the mean width in points."""
        below, above = 100 * self.below / times, 100 * self.above / times
        width = 100 * self.width / times
        return [f"{below:.1f}", f"{above:.1f}", f"{100 - below - above:.1f}", f"{width:.1f}" if np.isfinite(width) else "–"]


def counted(world: World, metric: Metric, samples: int, times: int) -> dict[tuple[str, str], Count]:
    """(figure, method) → how often it was wrong, over so many draws."""
    joint = world.joint(metric)
    ours, theirs = joint.both()
    truth = {"difference": ours - theirs, "retention": ours / theirs, "score": ours}
    found = {(figure, method): Count() for figure in truth for method in (PLAIN, KDCLI)}
    for seed in range(times):
        generator = np.random.default_rng(seed)
        cells = generator.multinomial(samples, joint.counts / joint.counts.sum())
        answers = [np.repeat(values, cells) for values in (joint.ours, joint.theirs, joint.targets)]
        scores = PairedScores.of(metric, answers[0], answers[1], answers[2], seed=seed)
        intervals = {
            ("difference", KDCLI): scores.difference_interval(),
            ("retention", KDCLI): scores.share_interval(),
            ("score", KDCLI): score_interval(metric, answers[0], answers[2], seed),
            **plain(metric, answers, generator),
        }
        for key, interval in intervals.items():
            found[key].add(interval, truth[key[0]])
    return found


def plain(
    metric: Metric, answers: Sequence[Classes], generator: np.random.Generator
) -> dict[tuple[str, str], tuple[float, float]]:
    """What it is held against: quantiles of resamples of what was seen, and of nothing else."""
    one, other = PairedSample.of(metric, answers[0], answers[1], answers[2]).both_resampled(999, generator)
    shares = np.divide(one, other, out=np.ones_like(one), where=other > 0)
    return {("difference", PLAIN): ends(one - other), ("retention", PLAIN): ends(shares), ("score", PLAIN): ends(one)}


def ends(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Write the table, a line for each world, metric, number of samples, figure and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--samples", type=int, nargs="+", default=[50, 100, 200, 1000])
    parser.add_argument("--metrics", nargs="+", default=["accuracy", "macro-f1", "f1", "matthews"])
    parser.add_argument("--out", type=Path, default=Path("coverage.md"))
    asked = parser.parse_args()
    header = ["world", "n", "metric", "figure", "method", "truth below, %", "above, %", "held, %", "mean width, points"]
    with asked.out.open("w", encoding="utf-8") as file:
        file.write(f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n")
        for world in WORLDS:
            for samples in asked.samples:
                for metric in asked.metrics:
                    if (metric == "f1" and world.classes > 2) or samples < world.classes:
                        continue
                    for (figure, method), count in counted(world, CLASS_METRICS[metric], samples, asked.worlds).items():
                        row = [world.name, str(samples), metric, figure, method, *count.row(asked.worlds)]
                        file.write(f"| {' | '.join(row)} |\n")
                    file.flush()


if __name__ == "__main__":
    main()
