r"""Singling out, linking and inferring: what an attacker gains from synthetic rows over chance.

The three risks of the European opinion on anonymisation (Article 29 Working Party, 05/2014), measured after Giomi et
al., *A Unified Framework for Quantifying Privacy Risk in Synthetic Data*, PoPETs 2023: an attack is run on training
rows and, as a control, on as many unseen rows. What works on unseen rows too is knowledge of the population and no
leak; the risk is the rest, :math:`(r_\text{train} - r_\text{control}) / (1 - r_\text{control})`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.frames import Encoded, check_frames, encode
from tabdiff.evaluation.intervals import clopper_pearson
from tabdiff.evaluation.privacy.search import neighbours

__all__ = ["Risk", "attribute_inference", "linkability", "singling_out"]

# A number is guessed right within this share of its range (between the 1st and the 99th percentile).
TOLERANCE = 0.05


@dataclass(frozen=True)
class Risk:
    """How often an attack succeeded on training rows and on unseen rows.

    Attributes
    ----------
    name : str
    train, control : tuple of int
        Successes and tries.
    """

    name: str
    train: tuple[int, int]
    control: tuple[int, int]

    @property
    def rates(self) -> tuple[float, float]:
        """Share of successes on training rows, and on unseen rows."""
        return self.train[0] / max(self.train[1], 1), self.control[0] / max(self.control[1], 1)

    @property
    def risk(self) -> float:
        """What is gained over unseen rows, as a share of what could be gained; may be below 0 by chance."""
        train, control = self.rates
        return (train - control) / (1 - control) if control < 1 else 0.0

    @property
    def z(self) -> float:
        """How many standard errors the two rates lie apart."""
        (a, n), (b, m) = self.train, self.control
        pooled = (a + b) / max(n + m, 1)
        error = float(np.sqrt(pooled * (1 - pooled) * (1 / max(n, 1) + 1 / max(m, 1))))
        return (self.rates[0] - self.rates[1]) / error if error > 0 else 0.0

    def interval(self) -> tuple[float, float]:
        """95 % interval of the risk, from those of the two rates; square roots of sums of squares."""
        train, control = self.rates
        if control >= 1:
            return 0.0, 0.0
        ends = [clopper_pearson(*pair) for pair in (self.train, self.control)]
        down = np.hypot(train - ends[0][0], ends[1][1] - control)
        up = np.hypot(ends[0][1] - train, control - ends[1][0])
        gap = train - control
        return float((gap - down) / (1 - control)), float((gap + up) / (1 - control))

    def row(self) -> dict[str, Any]:
        """Return a row of a table: percentages."""
        low, high = self.interval()
        train, control = self.rates
        found = {"attack": self.name, "training rows %": 100 * train, "unseen rows %": 100 * control}
        return found | {"risk %": 100 * self.risk, "low": 100 * low, "high": 100 * high}


def _coarse(encoded: list[Encoded], bins: int = 20) -> list[np.ndarray]:
    """Codes (n, d) of values as a query would name them: levels, and numbers in bins of equally many rows."""
    first = encoded[0]
    out = []
    for e in encoded:
        columns = []
        for j, column in enumerate(first.numeric.T):
            observed = column[~np.isnan(column)]
            edges = (
                np.unique(np.quantile(observed, np.linspace(0, 1, bins + 1)[1:-1])) if len(observed) else np.empty(0)
            )
            values = e.numeric[:, j]
            columns.append(np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right")))
        columns += list(e.codes.T)
        out.append(np.stack(columns, axis=1).astype(np.int64))
    return out


def singling_out(
    synthetic: pd.DataFrame,
    train: pd.DataFrame,
    control: pd.DataFrame,
    *,
    n_attacks: int = 500,
    n_columns: int = 4,
    random_state: int | None = 0,
) -> Risk:
    """Say things that are true of one synthetic row; how often are they true of exactly one training row.

    A guess takes a synthetic row and up to four of its values, numbers in twentieths, and is made where no other
    synthetic row has these. It succeeds where exactly one row has them.

    Parameters
    ----------
    synthetic, train, control : DataFrame
        `train` and `control` are subsampled to the same size, for in a larger table fewer rows are alone.
    n_attacks : int, default=500
    n_columns : int, default=4
        Values of a guess.
    random_state : int, optional

    Returns
    -------
    risk : Risk
    """
    rng = np.random.default_rng(random_state)
    encoded = encode(*check_frames(real=train, synthetic=synthetic, control=control))
    codes = _coarse(encoded)
    n = min(len(codes[0]), len(codes[2]))
    targets = [codes[k][rng.permutation(len(codes[k]))[:n]] for k in (0, 2)]
    d = codes[0].shape[1]
    size = min(n_columns, d)
    hits, tries = [0, 0], 0
    for _ in range(20 * n_attacks):
        if tries == n_attacks:
            break
        row = codes[1][rng.integers(len(codes[1]))]
        columns = rng.choice(d, size, replace=False)
        if (codes[1][:, columns] == row[columns]).all(axis=1).sum() != 1:
            continue
        tries += 1
        for k, rows in enumerate(targets):
            hits[k] += int((rows[:, columns] == row[columns]).all(axis=1).sum() == 1)
    return Risk("singling out", (hits[0], tries), (hits[1], tries))


def linkability(
    synthetic: pd.DataFrame,
    train: pd.DataFrame,
    control: pd.DataFrame,
    *,
    n_attacks: int = 1_000,
    n_neighbours: int = 1,
    random_state: int | None = 0,
) -> Risk:
    """Join two halves of a row's columns: are both halves nearest to the same synthetic row.

    Parameters
    ----------
    synthetic, train, control : DataFrame
    n_attacks : int, default=1000
        Most rows of either that are tried.
    n_neighbours : int, default=1
        How many nearest synthetic rows each half looks at.
    random_state : int, optional
        Of the rows and of how the columns are halved.

    Returns
    -------
    risk : Risk
        Without tries for a single column.
    """
    rng = np.random.default_rng(random_state)
    train, synthetic, control = check_frames(real=train, synthetic=synthetic, control=control)
    if train.shape[1] < 2:
        return Risk("linkability", (0, 0), (0, 0))
    order = rng.permutation(train.shape[1])
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    n = min(len(train), len(control), n_attacks)
    hits = []
    for frame in (train, control):
        rows = frame.iloc[np.sort(rng.permutation(len(frame))[:n])]
        found = []
        for half in halves:
            encoded = encode(train.iloc[:, half], rows.iloc[:, half], synthetic.iloc[:, half])
            found.append(neighbours(encoded[0], encoded[1], encoded[2], n_neighbours))
        hits.append(int((found[0][:, :, None] == found[1][:, None, :]).any(axis=(1, 2)).sum()))
    return Risk("linkability", (hits[0], n), (hits[1], n))


def attribute_inference(
    synthetic: pd.DataFrame,
    train: pd.DataFrame,
    control: pd.DataFrame,
    secret: Any,
    *,
    n_attacks: int = 1_000,
    random_state: int | None = 0,
) -> Risk:
    """Guess one value of a row from all others, by the nearest synthetic row.

    A category is guessed right where it is equal, a number within a twentieth of its range.

    Parameters
    ----------
    synthetic, train, control : DataFrame
    secret : column name
    n_attacks : int, default=1000
        Most rows of either that are tried.
    random_state : int, optional

    Returns
    -------
    risk : Risk
    """
    rng = np.random.default_rng(random_state)
    train, synthetic, control = check_frames(real=train, synthetic=synthetic, control=control)
    if secret not in train.columns:
        raise ValueError(f"secret must be a column; got {secret!r}. There are {list(train.columns)}.")
    if train.shape[1] < 2:
        return Risk(f"inference of {secret}", (0, 0), (0, 0))
    n = min(len(train), len(control), n_attacks)
    values = encode(train[[secret]], synthetic[[secret]], control[[secret]])
    span = np.nan
    if values[0].numeric.shape[1]:
        observed = values[0].numeric[~np.isnan(values[0].numeric)]
        span = float(np.ptp(np.quantile(observed, [0.01, 0.99]))) if len(observed) else 0.0
    known = [c for c in train.columns if c != secret]
    hits = []
    for frame, own in ((train, values[0]), (control, values[2])):
        rows = np.sort(rng.permutation(len(frame))[:n])
        encoded = encode(train[known], frame[known].iloc[rows], synthetic[known])
        near = neighbours(encoded[0], encoded[1], encoded[2])[:, 0]
        if own.numeric.shape[1]:
            gap = np.abs(own.numeric[rows, 0] - values[1].numeric[near, 0])
            right = gap <= TOLERANCE * span
        else:
            right = own.codes[rows, 0] == values[1].codes[near, 0]
        hits.append(int(right.sum()))
    return Risk(f"inference of {secret}", (hits[0], n), (hits[1], n))
