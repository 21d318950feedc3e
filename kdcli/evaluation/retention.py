"""How much of another model's score a model keeps."""

from __future__ import annotations

import numpy as np

from kdcli.evaluation.document import Retention
from kdcli.evaluation.metrics import Classes, score
from kdcli.evaluation.power import LEVEL
from kdcli.evaluation.resampling import Pairs

_TIMES = 1999


def retention(metric: str, ours: Classes, theirs: Classes, labels: Classes, of: str, seed: int = 0) -> Retention | None:
    """Our score divided by theirs, with the 95 % interval of the paired percentile bootstrap over samples.

    Both are scored on the same resamples. Those on which the other model scores 0 or less have no share to keep and are left
    out; a model that does so often scores so near 0 that the interval is of little use, and wide.

    Args:
        metric: one of :data:`kdcli.data.task.METRICS`.
        ours: predicted classes [n].
        theirs: predicted classes of the other model [n].
        labels: gold classes [n].
        of: name of the other model.
        seed: of the resampling.

    Returns:
        None where their score is 0 or less, so that there is nothing to keep.

    Raises:
        RequestError: not as many predictions as labels, or none.
    """
    pairs = Pairs.of(ours, theirs, labels)
    whole = score(metric, theirs, labels)
    if whole <= 0:
        return None
    above, below = pairs.both_resampled(metric, _TIMES, np.random.default_rng(seed))
    value = score(metric, ours, labels) / whole
    shares = above[below > 0] / below[below > 0]
    low, high = np.quantile(shares, [LEVEL / 2, 1 - LEVEL / 2]) if len(shares) else (value, value)
    return Retention(of=of, value=value, low=float(low), high=float(high))
