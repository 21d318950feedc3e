"""How much of another model's score a model keeps, and by how much it scores below it."""

from __future__ import annotations

from kdcli.evaluation.document import Drop, Retention
from kdcli.evaluation.paired import PairedScores, agreeing
from kdcli.evaluation.significance import p_value
from kdcli.tasks.metric import LEVEL, Metric, Values


def held_against(
    metric: Metric, ours: Values, theirs: Values, targets: Values, of: str, seed: int = 0
) -> tuple[Retention | None, Drop]:
    """Our score divided by theirs, and theirs minus ours, with 95 % intervals by one bootstrap of both.

    The two cannot contradict each other, nor the test of the two models: the interval of the share leaves out 100 %, and that
    of the drop 0, if and only if the difference is significant by itself (:func:`kdcli.evaluation.significance.p_value`).

    Args:
        metric: by which both are scored.
        ours: predictions [n, …].
        theirs: predictions of the other model [n, …].
        targets: what is right [n, …].
        of: name of the other model.
        seed: of the resampling.

    Returns:
        The share, None where their score is 0 or less, so that there is nothing to keep; and the drop.

    Raises:
        RequestError: not as many predictions as targets, or none.
    """
    scores = PairedScores.of(metric, ours, theirs, targets, LEVEL, seed)
    shown = p_value(metric, ours, theirs, targets, seed) <= LEVEL
    low, high = agreeing(scores.difference_interval(), scores.ours - scores.theirs, shown)
    drop = Drop(of=of, value=scores.theirs - scores.ours, low=-high, high=-low)
    if scores.theirs <= 0:
        return None, drop
    value, interval = scores.ours / scores.theirs, scores.share_interval()
    if interval is None:
        return Retention(of=of, value=value, low=None, high=None), drop
    low, high = agreeing(interval, value, shown, nothing=1.0)
    return Retention(of=of, value=value, low=low, high=high), drop


def retention(metric: Metric, ours: Values, theirs: Values, targets: Values, of: str, seed: int = 0) -> Retention | None:
    """The share alone of :func:`held_against`."""
    return held_against(metric, ours, theirs, targets, of, seed)[0]
