"""How far a score may be from the one on all texts that there are."""

from __future__ import annotations

import numpy as np

from kdcli.evaluation.metrics import Classes, score

_RESAMPLES = 999
_LEVEL = 0.95


def score_interval(metric: str, predictions: Classes, labels: Classes, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a metric by the percentile bootstrap over samples, as fractions. Shapes: [n] each."""
    from scipy import stats

    if len(labels) < 2:  # the only resample is the sample itself
        only = score(metric, predictions, labels)
        return only, only
    if metric == "accuracy":  # the mean of what is right, and so much faster
        data: tuple[Classes, ...] = ((predictions == labels).astype(np.int64),)
        found = stats.bootstrap(
            data, np.mean, n_resamples=_RESAMPLES, confidence_level=_LEVEL, method="percentile", rng=seed, batch=100
        )
    else:
        found = stats.bootstrap(
            (predictions, labels),
            lambda ours, right: score(metric, ours, right),
            paired=True,
            vectorized=False,
            n_resamples=_RESAMPLES,
            confidence_level=_LEVEL,
            method="percentile",
            rng=seed,
        )
    low, high = found.confidence_interval
    return float(low), float(high)
