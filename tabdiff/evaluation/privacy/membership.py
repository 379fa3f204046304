r"""Membership inference: can somebody who sees the synthetic rows tell training rows from others.

Each attack gives a row a score, higher for a likelier member. It sees synthetic rows, reference rows of the same
population that are no members, and the row; it is judged on training rows and on as many unseen rows.

- *distance*: how near is the nearest synthetic row (Chen et al., *GAN-Leaks*, CCS 2020);
- *density ratio*: how dense are synthetic rows about the row, over reference rows (van Breugel et al., *Membership
  Inference Attacks against Synthetic Data through Overfitting Detection*, AISTATS 2023), by distances to the k-th
  neighbours, and for k = 1 over the row's own distance to reference rows;
- *classifier*: how surely does boosting, fitted on synthetic against reference rows, take the row for a synthetic one;
- *losses*: how small are the model's own losses of the row at fixed times and noises (white box; Carlini et al.,
  *Extracting Training Data from Diffusion Models*, 2023), by the mean of their logarithms, and by a regression that
  was fitted on other members and non-members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tabdiff.evaluation.classifiers import auc_variance, feature_frames
from tabdiff.evaluation.distances import gower_blocks
from tabdiff.evaluation.frames import encode
from tabdiff.evaluation.intervals import Z, clopper_pearson

__all__ = ["Attack", "Candidates", "loss_attacks", "membership_attacks", "tpr_at_fpr"]

NEIGHBOURS = 3
# Of the classifier attack: most rows of either side.
MAX_FITTED = 20_000


@dataclass(frozen=True)
class Candidates:
    """Who is to be told: members and as many others, and what else the attacker knows.

    Attributes
    ----------
    members, others, reference : DataFrame
        Training rows, unseen rows, and unseen rows that the attacker has.
    member_rows : ndarray
        Positions of the members in the training frame.
    """

    members: pd.DataFrame
    others: pd.DataFrame
    reference: pd.DataFrame
    member_rows: np.ndarray


@dataclass(frozen=True)
class Attack:
    """What an attack says of members and others, and how well it tells them.

    Attributes
    ----------
    name : str
    members, others : ndarray of shape (n,) and (m,)
        Scores, higher for a likelier member.

    Examples
    --------
    >>> import numpy as np
    >>> attack = Attack("none", np.arange(1000.0), np.arange(1000.0))
    >>> round(attack.auc, 6), attack.tpr(0.01)
    (0.5, 0.01)
    """

    name: str
    members: np.ndarray
    others: np.ndarray

    @property
    def auc(self) -> float:
        """Area under the ROC curve; ½ tells nothing."""
        y, score = self._labelled()
        return float(roc_auc_score(y, score))

    def auc_interval(self, z: float = Z) -> tuple[float, float]:
        """Interval of the area, by DeLong et al. (1988)."""
        half = z * float(np.sqrt(auc_variance(*self._labelled())))
        return max(self.auc - half, 0.0), min(self.auc + half, 1.0)

    def tpr(self, fpr: float) -> float:
        """Share of members found where the share of others taken for members is at most `fpr`."""
        return tpr_at_fpr(self.members, self.others, fpr)

    def tpr_interval(self, fpr: float, rng: np.random.Generator, n: int = 200) -> tuple[float, float]:
        """95 % interval of `tpr` by the percentiles of resamples, at least as wide as that of the members alone."""
        values = [
            tpr_at_fpr(rng.choice(self.members, len(self.members)), rng.choice(self.others, len(self.others)), fpr)
            for _ in range(n)
        ]
        low, high = np.quantile(values, [0.025, 0.975])
        own = clopper_pearson(round(self.tpr(fpr) * len(self.members)), len(self.members))
        return min(float(low), own[0]), max(float(high), own[1])

    def _labelled(self) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat([1, 0], [len(self.members), len(self.others)]), np.concatenate([self.members, self.others])


def tpr_at_fpr(members: np.ndarray, others: np.ndarray, fpr: float) -> float:
    """Share of members above the threshold that at most a share `fpr` of the others is above.

    Ties at the threshold are broken at random, in the mean: a score that all share finds `fpr` of the members.
    """
    allowed = int(np.floor(fpr * len(others) + 1e-9))
    ordered = np.sort(others)[::-1]
    if allowed >= len(ordered):
        return 1.0
    threshold = ordered[allowed]
    above, at = int((others > threshold).sum()), int((others == threshold).sum())
    found, tied = float((members > threshold).mean()), float((members == threshold).mean())
    return found + tied * (allowed - above) / max(at, 1)


def _neighbour_distances(reference: Any, queries: Any, points: Any, k: int) -> np.ndarray:
    """Gower distances (n, k) to the k nearest points, in order."""
    k = min(k, len(points))
    blocks = gower_blocks(reference, queries, points)
    return np.concatenate([np.sort(np.partition(block, k - 1, axis=1)[:, :k], axis=1) for block in blocks])


def membership_attacks(
    synthetic: pd.DataFrame, candidates: Candidates, *, random_state: int | None = 0
) -> list[Attack]:
    """Run the attacks that see synthetic rows alone.

    Parameters
    ----------
    synthetic : DataFrame
    candidates : Candidates
        Frames with the same columns.
    random_state : int, optional

    Returns
    -------
    attacks : list of Attack
        "distance", "density ratio", "relative distance" and "classifier".
    """
    members, others = candidates.members, candidates.others
    both = pd.concat([members, others], ignore_index=True)
    encoded = encode(both, synthetic, candidates.reference)
    queries, points, known = encoded
    to_synthetic = _neighbour_distances(queries, queries, points, NEIGHBOURS)
    to_reference = _neighbour_distances(queries, queries, known, NEIGHBOURS)
    # A distance that all rows of a table of few levels share would divide by nothing.
    small = 1e-3 * max(float(np.median(to_reference[:, 0])), 1e-9)
    scores = {
        "distance": -to_synthetic[:, 0],
        "relative distance": np.log(to_reference[:, 0] + small) - np.log(to_synthetic[:, 0] + small),
        "density ratio": np.log(to_reference[:, -1] + small) - np.log(to_synthetic[:, -1] + small),
        "classifier": _classifier_scores(encoded, random_state),
    }
    n = len(members)
    return [Attack(name, score[:n], score[n:]) for name, score in scores.items()]


def _classifier_scores(encoded: list[Any], random_state: int | None) -> np.ndarray:
    candidates, synthetic, reference = encoded
    rng = np.random.default_rng(random_state)
    n = min(len(synthetic), len(reference), MAX_FITTED)
    parts = [t.take(np.sort(rng.choice(len(t), n, replace=False))) for t in (synthetic, reference)]
    X_candidates, *X = feature_frames(candidates, *parts)
    model = HistGradientBoostingClassifier(
        categorical_features="from_dtype", max_iter=60, random_state=int(rng.integers(2**31))
    )
    model.fit(pd.concat(X), np.repeat([1, 0], n))
    scores: np.ndarray = model.decision_function(X_candidates)
    return scores


def loss_attacks(
    losses: Callable[[pd.DataFrame], np.ndarray], candidates: Candidates, *, random_state: int | None = 0
) -> list[Attack]:
    """Run the attacks that see the model's losses.

    Parameters
    ----------
    losses : callable
        Takes rows (n, d) and returns losses (n, k), one for each time and noise, the same for every row.
    candidates : Candidates
    random_state : int, optional

    Returns
    -------
    attacks : list of Attack
        "loss" and "losses, learned".
    """
    values = [np.asarray(losses(frame), dtype="float64") for frame in (candidates.members, candidates.others)]
    n, k = len(values[0]), values[0].shape[1]
    # Logarithms, for losses of small noises are smaller by orders of magnitude.
    both = np.log(np.maximum(np.concatenate(values), 0) + 1e-6)
    # Rows are known best by what little noise leaves of them, if not by the least, which leaves nothing to tell.
    mean = -both[:, min(1, k - 1) : max(k // 2, 1) + 1].mean(axis=1)
    y = np.repeat([1, 0], [n, len(both) - n])
    learned = np.zeros(len(both))
    for train, test in StratifiedKFold(5, shuffle=True, random_state=random_state).split(both, y):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(both[train], y[train])
        learned[test] = model.decision_function(both[test])
    return [Attack("loss", mean[:n], mean[n:]), Attack("losses, learned", learned[:n], learned[n:])]
