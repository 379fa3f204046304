r"""Differential privacy: the budget of a fit, and the accountant that says what was spent.

A fit is :math:`(\varepsilon, \delta)`-differentially private if for any two tables of which one has a row more than the
other, and for any set S of models, :math:`P(M(D) \in S) \le e^\varepsilon P(M(D') \in S) + \delta` (Dwork and Roth,
2014, https://doi.org/10.1561/0400000042). Two things see the rows: counts of columns, to which Gaussian noise is added
(`tabdiff.codecs.tables.noised`), and training steps, each of which adds Gaussian noise to a sum of clipped gradients of
a Poisson sample of the rows (Abadi et al., 2016, https://arxiv.org/abs/1607.00133). Both are Gaussian mechanisms, so
one accountant of Rényi divergences (Mironov, 2017, https://arxiv.org/abs/1702.07476) composes them: that of Opacus.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.optimize import brentq
from sklearn.base import BaseEstimator

from tabdiff.utils.validation import is_number

__all__ = [
    "THRESHOLD_SHARE",
    "Mechanism",
    "PrivacyBudget",
    "accounted_delta",
    "counting_noise",
    "spent_epsilon",
    "training_noise",
]

# A Gaussian mechanism: noise multiplier, sampling rate, how often.
Mechanism = tuple[float, float, int]
# Of delta, the part for levels of columns that are found by their noised counts.
THRESHOLD_SHARE = 0.1
MAX_LOG_NOISE = 9.0
# Orders of the Rényi divergences, of which the best counts: low ones where little is asked, high ones where much is.
# Whole ones are quick, and between high ones nothing is gained.
ORDERS = [1.1, 1.25, 1.5, 1.75, 2.25, 2.5, *range(2, 33), 36, 40, 44, 48, 56, 64, 80, 96, 128, 192, 256, 512]


class PrivacyBudget(BaseEstimator):
    """What a differentially private fit may tell about any single row.

    It is given as ``TrainingOptions(privacy=PrivacyBudget(...))`` to a `DiffusionGenerator` that is fitted on a
    DataFrame in memory, and needs Opacus: ``pip install "tabdiff[privacy]"``. All that sees the rows is noised: counts
    of columns, from which marginals, levels, shares of missing values and of conditions come, and training steps. What
    was spent stands in ``privacy_`` of the generator and in its file. See `docs/how-to/privacy.md`.

    Parameters
    ----------
    epsilon : float
        Largest ε, positive. Below 1 is a strong promise, 10 a weak one.
    delta : float
        Largest δ, in (0, 1); it should be well below one in the number of rows.
    public : dict, optional
        By name of a column (or condition) what is known without looking at the rows: ``(low, high)`` or ``(low, high,
        step)`` of numbers, a list of the levels of others. Every column of numbers must be declared; values outside
        are clipped. Levels that are not declared are found by noised counts, and rare ones among them are not.
    max_grad_norm : float, default=1.0
        Norm to which the gradient of each row is clipped.
    counting_share : float, default=0.15
        The part of ε, in (0, 1), for which counts of columns would be had alone.

    See Also
    --------
    tabdiff.privacy_report : Attacks on what was drawn, which bound ε from below.

    Notes
    -----
    Tables are neighbours if one has one row more than the other. A person with several rows is protected less. Noise
    comes from an ordinary random generator, seeded by the system; with a ``random_state`` that others can guess, it can
    be taken off again: leave it None for what is to be published.

    Examples
    --------
    >>> from tabdiff import PrivacyBudget, TrainingOptions
    >>> budget = PrivacyBudget(epsilon=3, delta=1e-5, public={"age": (17, 90), "sex": ["F", "M"]})
    >>> TrainingOptions(privacy=budget).privacy.epsilon
    3
    """

    def __init__(
        self,
        epsilon: float = 3.0,
        delta: float = 1e-5,
        *,
        public: Mapping[Any, Any] | None = None,
        max_grad_norm: float = 1.0,
        counting_share: float = 0.15,
    ) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.public = public
        self.max_grad_norm = max_grad_norm
        self.counting_share = counting_share

    def check(self) -> None:
        """Raise an error that names the first part out of range, and what is allowed.

        Raises
        ------
        ValueError
            For a value out of range.
        ImportError
            If Opacus is not installed.
        """
        if not (is_number(self.epsilon) and self.epsilon > 0):
            raise ValueError(
                f"epsilon must be a positive number; got {self.epsilon!r}. Without a budget: privacy=None."
            )
        if not (is_number(self.delta) and 0 < self.delta < 1):
            raise ValueError(f"delta must be a number in (0, 1), such as 1e-5; got {self.delta!r}.")
        if not (is_number(self.max_grad_norm) and self.max_grad_norm > 0):
            raise ValueError(f"max_grad_norm must be a positive number; got {self.max_grad_norm!r}.")
        if not (is_number(self.counting_share) and 0 < self.counting_share < 1):
            raise ValueError(f"counting_share must be a number in (0, 1); got {self.counting_share!r}.")
        if self.public is not None and not isinstance(self.public, Mapping):
            raise ValueError(
                f"public must be a dict from names of columns to what is known of them; got {self.public!r:.80}. Such "
                'as public={"age": (17, 90), "sex": ["F", "M"]}.'
            )
        for name, known in (self.public or {}).items():
            _check_public(name, known)
        _accountant()


def _check_public(name: Any, known: Any) -> None:
    """Raise a ValueError unless what is declared of a column is a range or levels."""
    if isinstance(known, tuple):
        numbers = len(known) in (2, 3) and all(is_number(v) for v in known)
        if not numbers or not known[0] < known[1] or (len(known) == 3 and not 0 < known[2] <= known[1] - known[0]):
            raise ValueError(
                f"public[{name!r}] must be (low, high) with low < high, or (low, high, step) with a positive step, or "
                f"a list of levels; got {known!r:.80}."
            )
    elif not isinstance(known, list) or not known or len(set(map(repr, known))) != len(known):
        raise ValueError(
            f"public[{name!r}] must be a range, (low, high), or a list of different levels; got {known!r:.80}."
        )


def _accountant() -> Any:
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise ImportError(
            "TrainingOptions(privacy=...) needs Opacus, whose accountant says what is spent: pip install "
            '"tabdiff[privacy]".'
        ) from error
    return RDPAccountant()


def spent_epsilon(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """Return the ε that Gaussian mechanisms one after the other spend at a δ.

    Parameters
    ----------
    mechanisms : sequence of (float, float, int)
        Of each the standard deviation of its noise over the norm that one row can change, the probability with which
        a row takes part (1 for all rows), and how often it is used.
    delta : float
        In (0, 1).

    Examples
    --------
    >>> from tabdiff.training.privacy import spent_epsilon
    >>> once = spent_epsilon([(10.0, 1.0, 1)], 1e-5)
    >>> spent_epsilon([(10.0, 1.0, 2)], 1e-5) > once
    True
    """
    used = [(float(noise), float(rate), int(n)) for noise, rate, n in mechanisms if n]
    if not used:
        return 0.0
    accountant = _accountant()
    accountant.history = used
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")  # further orders would give little
        return float(accountant.get_epsilon(delta, alphas=ORDERS))


def counting_noise(budget: PrivacyBudget) -> float:
    """Return the noise multiplier of the counts."""
    wanted = float(budget.counting_share) * float(budget.epsilon)
    return _least_noise(lambda noise: [(noise, 1.0, 1)], wanted, accounted_delta(budget))


def training_noise(budget: PrivacyBudget, counting: float, sample_rate: float, steps: int) -> float:
    """Return the noise multiplier of so many training steps, beside counts of a noise multiplier `counting`."""
    return _least_noise(
        lambda noise: [(counting, 1.0, 1), (noise, sample_rate, steps)], float(budget.epsilon), accounted_delta(budget)
    )


def accounted_delta(budget: PrivacyBudget) -> float:
    """Return the δ at which mechanisms are accounted; the rest of it is for levels that are found."""
    return (1 - THRESHOLD_SHARE) * float(budget.delta)


def _least_noise(mechanisms: Any, epsilon: float, delta: float) -> float:
    """Return the smallest noise multiplier, to within half a percent, that spends no more than an ε."""

    def excess(log_noise: float) -> float:
        return math.log(max(spent_epsilon(mechanisms(math.exp(log_noise)), delta), 1e-12) / epsilon)

    low = high = 0.0
    while excess(high) > 0:
        low, high = high, high + 1.0
        if high > MAX_LOG_NOISE:
            raise ValueError(
                f"epsilon={epsilon:g} is too little for any noise at delta={delta:g}. Give a larger epsilon or delta, "
                "or fewer max_steps."
            )
    while low == high or excess(low) < 0:
        low -= 1.0
        if low < -MAX_LOG_NOISE:
            return math.exp(low)
    found = float(brentq(excess, low, high, xtol=1e-3))
    while excess(found) > 0:
        found += 1e-3
    return math.exp(found)
