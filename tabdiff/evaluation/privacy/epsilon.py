"""A lower bound on epsilon of differential privacy that an attack shows."""

from __future__ import annotations

import numpy as np

from tabdiff.evaluation.intervals import clopper_pearson

__all__ = ["epsilon_lower_bound"]


def epsilon_lower_bound(
    members: np.ndarray,
    others: np.ndarray,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> float:
    r"""Bound epsilon from below by the scores of an attack.

    A mechanism that is :math:`(\varepsilon, \delta)`-private allows no attack a true-positive rate above
    :math:`e^\varepsilon` times its false-positive rate plus :math:`\delta`, nor the same of the rates of the negatives.
    A threshold is chosen on one half of the scores; on the other both rates are replaced by the ends of their
    Clopper-Pearson intervals, so that the bound holds with the confidence. Jagielski, Ullman and Oprea, *Auditing
    Differentially Private Machine Learning*, NeurIPS 2020.

    Parameters
    ----------
    members, others : ndarray of shape (n,) and (m,)
        Scores, higher for a likelier member.
    delta : float, default=0.0
    confidence : float, default=0.95
        Of the bound: both intervals together miss with the rest.
    random_state : int, optional
        Of the halves.

    Returns
    -------
    epsilon : float
        At least 0, in nats; 0 where the attack shows nothing.

    Notes
    -----
    Rows of one training run are taken for independent tries, which they are only nearly: what the bound says is what an
    attacker was seen to achieve, and no proof about the mechanism in the worst case, which may be far above it.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> epsilon_lower_bound(rng.normal(size=2000), rng.normal(size=2000))
    0.0
    >>> 1 < epsilon_lower_bound(rng.normal(2, 1, 2000), rng.normal(size=2000)) < 5
    True
    """
    rng = np.random.default_rng(random_state)
    chosen, tested = [], []
    for scores in (members, others):
        order = rng.permutation(len(scores))
        chosen.append(np.asarray(scores)[order[: len(order) // 2]])
        tested.append(np.asarray(scores)[order[len(order) // 2 :]])
    if min(map(len, chosen)) == 0:
        return 0.0
    thresholds = np.unique(np.quantile(np.concatenate(chosen), np.linspace(0, 1, 400)))
    bounds = _bounds(chosen[0], chosen[1], thresholds, delta, confidence)
    best, sign = np.unravel_index(int(np.argmax(bounds)), bounds.shape)
    found = _bounds(tested[0], tested[1], thresholds[[best]], delta, confidence)[0, sign]
    return max(float(found), 0.0)


def _bounds(
    members: np.ndarray, others: np.ndarray, thresholds: np.ndarray, delta: float, confidence: float
) -> np.ndarray:
    """Bounds (n_thresholds, 2) from the rates of the positives and of the negatives."""
    counts = [len(s) - np.searchsorted(np.sort(s), thresholds, side="left") for s in (members, others)]
    sizes = len(members), len(others)
    # One end of each is used, so that each of the two misses with half of what the confidence leaves.
    low_tpr = clopper_pearson(counts[0], np.full(len(thresholds), sizes[0]), confidence)[0]
    high_fpr = clopper_pearson(counts[1], np.full(len(thresholds), sizes[1]), confidence)[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        of_positives = np.log(np.maximum(low_tpr - delta, 0) / np.maximum(high_fpr, 1e-300))
        of_negatives = np.log(np.maximum(1 - high_fpr - delta, 0) / np.maximum(1 - low_tpr, 1e-300))
    return np.nan_to_num(np.stack([of_positives, of_negatives], axis=1), neginf=-1e9)
