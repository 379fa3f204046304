r"""Refining what a trained model of a table draws: right marginals, and few rows that trees can tell from real ones.

First, each number's distribution among drawn rows is mapped to the standard normal one that the codec expects.

Second, a diffusion model leaves errors that trees find easily: a pair of levels that never goes together, two columns
of which one is nearly always zero. A gradient-boosted classifier that separates real rows from drawn ones estimates the
ratio of their densities,

.. math:: w(x) = \frac{p_\text{real}(x)}{p_\text{model}(x)} = \frac{D(x)}{1 - D(x)},

and keeping a drawn row with probability :math:`\min(1, w(x) / M)` draws from the model times that ratio:
discriminator rejection sampling (Azadi et al., 2019, https://arxiv.org/abs/1810.06758). The classifier stops at the
best loss on rows kept apart, so that it learns what real rows have in common and not which ones they are.

Where the model is seldom right, M cuts the ratio of the rows that are, and too few of them are kept. So a second
classifier of small trees compares the rows that are kept with the real ones, and its ratio decides once more.

Third, trees see single columns and pairs of them less sharply than a count does: what the shares of their cells still
differ by, weights by raking correct (`tabdiff.model.refinement.raking`), by a last rejection. And where many rows are
drawn at once, at the conditions of the training rows, they are chosen together (`tabdiff.model.refinement.balancing`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any, Self

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from tabdiff.diffusion import Schedule
from tabdiff.diffusion.generate import Runner
from tabdiff.model.refinement.balancing import MIN_BALANCED, balance
from tabdiff.model.refinement.density_ratio import DensityRatio, cutoff
from tabdiff.model.refinement.raking import Raking
from tabdiff.model.refinement.rejection import keep_rows
from tabdiff.model.refinement.starting_noise import StartingNoise

__all__ = [
    "PATIENT_STEPS",
    "REFINED_STEPS",
    "TRAINING_EVALUATIONS",
    "MarginalMap",
    "Refinement",
    "feature_levels",
    "fit_refinement",
    "frame_features",
    "refined_steps",
    "refinement_rows",
    "row_features",
    "wants_refinement",
]

# Steps of the sampler: what 50 would do better, the refinement does. Of a few thousand rows trees tell those of 16
# steps from real ones as often as those of 25, and those of 10 more often. Of 20,000 rows they tell those of 25 less
# often, which fits of many rows take that have the time.
REFINED_STEPS, PATIENT_STEPS = 16, 25
# Fewer rows than this say too little about a ratio of densities.
MIN_ROWS = 1000
MIN_DRAWN, MAX_DRAWN = 10_000, 300_000
# A row of a training step costs as much as so many evaluations, and drawing to learn from may take so much of that. It
# is counted in evaluations, not in seconds, so that the same seed gives the same model.
TRAINING_EVALUATIONS, WORK_SHARE = 3, 0.2
# Of fewer drawn rows trees learn next to nothing.
LEAST_DRAWN = 1000
# Noise of the draws is what the shares of cells lack: on Shoppers 3 unseen ones a row leave 1.3 times the trend error
# of a bootstrap, 7 leave 1.1.
DRAWN_PER_ROW = 12
# Half of them, and no more than this, are for the first trees, which learn enough from so many.
LEARNED_ROWS = 50_000

# For each classifier the leaves of its trees, and the share of the ratio's mass that M leaves uncut: more follows the
# ratio further, less keeps more rows and is cheaper. On Default of Credit Card Clients the first alone moves the shape
# error from 1.2 to 5.6 % while it brings C2ST from .32 to .49; with the second they are 1.7 % and .57.
STAGES = ((31, 0.95), (4, 0.999))
# Chances of both are multiplied by one factor, up to 1 each, which keeps more of the rows that both find rare. It is
# the largest that moves so much of the kept rows' mass, in total variation, but keeps so many rows at least. On
# Shoppers a row in three candidates stays in place of one in six (see docs/benchmarks).
MAX_SHIFT = 0.01
MIN_KEPT = 0.2
# What raking leaves uncut, whose weights are close to 1, and the rows that it keeps at least; None leaves it out.
RAKED: float | None = 0.99
RAKED_KEPT = 0.75
# Drawn rows that would be kept more seldom than this say nothing to raking.
LEAST_CHANCE = 1e-3
# Of the time that is left before each classifier, what growing its trees may take; the rest is for what uses them.
TREES_SHARE = 0.5
KNOTS = 256
CHUNK_ROWS = 65_536
# Of candidates that are likely to be enough, so many times as many: balancing chooses among those that would be kept.
SPARE = 1.15
JUDGED_ROWS = 4096


class MarginalMap:
    """Monotone map of each number that makes its distribution among drawn rows standard normal.

    Parameters
    ----------
    drawn : ndarray of shape (m, d)
        Numbers of drawn rows, NaN where missing.
    """

    def __init__(self, drawn: np.ndarray) -> None:
        levels = (np.arange(KNOTS) + 0.5) / KNOTS
        self.target = ndtri(levels)
        # A column that is always missing in the draws stays as it is.
        observed = [column[~np.isnan(column)] for column in drawn.T]
        knots = [np.quantile(x, levels) if len(x) else self.target for x in observed]
        self.knots = np.stack(knots) if knots else np.empty((0, KNOTS))

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Map numbers (n, d); beyond the outermost knots they are shifted, NaN stays."""
        out = np.array(numbers, dtype=np.float64)
        for j, knots in enumerate(self.knots):
            x = out[:, j]
            inside = np.interp(x, knots, self.target)
            low, high = x < knots[0], x > knots[-1]
            out[:, j] = np.where(
                low, x - knots[0] + self.target[0], np.where(high, x - knots[-1] + self.target[-1], inside)
            )
        return out

    def rows(self, rows: Tensor) -> Tensor:
        """Return encoded rows (n, d), of which the numbers stand first, with these mapped."""
        k = len(self.knots)
        return torch.cat([torch.from_numpy(self(rows[:, :k].numpy())).to(rows.dtype), rows[:, k:]], dim=1)


class Refinement:
    """Marginal map, density ratios and raking of one trained model.

    Parameters
    ----------
    n_continuous : int
        Number of leading numbers of encoded rows.
    n_levels : list of int
        Number of levels of each column of features, 0 for numbers.
    device : torch.device or str, default="cpu"
        Where rows go down the trees; see `to`.
    """

    steps_ = REFINED_STEPS  # of models of earlier versions, which do not say

    def __init__(self, n_continuous: int, n_levels: list[int], device: torch.device | str = "cpu") -> None:
        self.ratios_: list[DensityRatio] = []
        self.to(device)
        self.n_continuous = n_continuous
        self.n_levels = n_levels
        self.raking_: Raking | None = None
        self.log_limit_ = 0.0
        self.log_boost_ = 0.0
        self.start_: StartingNoise | None = None

    def fit(
        self,
        real: np.ndarray,
        drawn: Tensor,
        features: Callable[[Tensor], np.ndarray],
        *,
        seed: int,
        weight: np.ndarray | None = None,
        deadline: float = math.inf,
        noise: Tensor | None = None,
    ) -> Self:
        """Learn from drawn rows how they differ from real ones.

        Parameters
        ----------
        real : ndarray of shape (n, k)
            Features of the training rows.
        drawn : Tensor of shape (m, d)
            Encoded rows, drawn at the conditions of the training rows.
        features : callable
            From encoded rows (m, d) to their features (m, k).
        seed : int
            Of the classifier.
        weight : ndarray of shape (n,), optional
            Weights of the training rows.
        deadline : float
            When it should be done, on the clock of `time.perf_counter`: trees that would take longer are fewer.
        noise : Tensor of shape (k, width), optional
            What the last of the drawn rows were walked to from; see `tabdiff.model.refinement.starting_noise`.
        """
        self.marginals_ = MarginalMap(drawn[:, : self.n_continuous].numpy())
        rows = features(self.map(drawn))
        rng = np.random.default_rng(seed)
        # The shares of cells want all the others.
        first = min(len(rows) // 2, LEARNED_ROWS)
        self.ratios_ = []
        # Rows that no classifier has learned from, and how likely the stages so far keep them.
        learned_from, unseen = rows[:first], rows[first:]
        log_chance = np.zeros(len(unseen))
        for leaves, captured in STAGES:
            ratio = DensityRatio(max_leaf_nodes=leaves, captured=captured)
            ratio.device = self.device
            seconds = TREES_SHARE * (deadline - time.perf_counter())
            ratio.fit(real, learned_from, self.n_levels, seed=seed, weight=weight, seconds=seconds)
            self.ratios_.append(ratio)
            log_chance += ratio.log_chance(unseen)
            learned_from = unseen[log_chance > np.log(rng.random(len(unseen)))]
        self.log_boost_ = _boost(log_chance) if len(log_chance) else 0.0
        log_chance = np.minimum(log_chance + self.log_boost_, 0.0)
        # Every row by its chance tells more than the rows that happened to be kept.
        chance = np.exp(log_chance)
        some = chance > LEAST_CHANCE
        if some.any() and RAKED is not None:
            self.raking_ = Raking().fit(real, unseen[some], self.n_levels, weight=weight, drawn_weight=chance[some])
            log_weight = self.raking_.log_weight(unseen)
            self.log_limit_ = math.log(cutoff(np.exp(log_weight[some]), RAKED, chance[some], RAKED_KEPT))
            log_chance += np.minimum(log_weight - self.log_limit_, 0.0)
        self.acceptance_ = float(max(np.exp(log_chance).mean(), 0.02))
        self.start_ = None
        if noise is not None:
            k = min(len(noise), len(unseen))
            self.start_ = StartingNoise.fit(noise[len(noise) - k :], np.exp(log_chance[len(unseen) - k :]))
        return self

    def share_kept(self, reject_noise: bool) -> float:
        """Return the share of the rows that are kept, of those that are walked to."""
        gain = self.start_.gain_ if reject_noise and self.start_ is not None else 1.0
        return min(self.acceptance_ * gain, 1.0)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "device": torch.device("cpu")}  # where a model is loaded there may be no other

    def to(self, device: torch.device | str) -> Self:
        """Have trees evaluated on a device; what was learned stays the same."""
        self.device = torch.device(device)
        for ratio in self.ratios_:
            ratio.device = self.device
        return self

    def _log_chance(self, features: np.ndarray) -> np.ndarray:
        """Return the log of the probability that each row is kept, from its features, shape (n,)."""
        chance = np.sum([ratio.log_chance(features) for ratio in self.ratios_], axis=0)
        chance = np.minimum(chance + self.log_boost_, 0.0)
        if self.raking_ is not None:
            chance += np.minimum(self.raking_.log_weight(features) - self.log_limit_, 0.0)
        return chance

    def map(self, rows: Tensor) -> Tensor:
        """Return encoded rows (n, d) with the numbers mapped to standard normal marginals."""
        return self.marginals_.rows(rows)

    def draw(
        self,
        n: int,
        draw_rows: Callable[..., Tensor],
        features: Callable[[Tensor, Tensor], np.ndarray],
        generator: torch.Generator,
        group: np.ndarray | None = None,
        balanced: bool = False,
        *,
        reject_noise: bool = True,
        run: Runner | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Draw rows until each of `n` places has one that is kept.

        Parameters
        ----------
        n : int
            Number of rows.
        draw_rows : callable
            From places (m,), which may repeat, to an encoded row for each, (m, d); where noise is rejected, from these
            and the noise (m, width) to start from.
        features : callable
            From encoded rows (m, d) and their places (m,) to features (m, k).
        generator : torch.Generator
            Decides which rows are kept.
        group : ndarray of shape (n,), optional
            Integers: places of one group, which have the same condition, take rows of each other. By default each place
            is a group.
        balanced : bool
            Whether the conditions are distributed as those of the training rows are, so that the shares of columns and
            pairs of columns should be those of the training rows too.
        reject_noise : bool, default=True
            Whether noise is rejected where that was learned: of the sampler that it was learned of.
        run : callable, optional
            From a function and tuples of arguments to what it returns for each, in order, from several processes.
        progress : callable, optional
            Called with the number of places that have got a row.

        Returns
        -------
        Tensor of shape (n, d)
        """

        def judge(rows: Tensor, at: Tensor) -> np.ndarray:
            """Return the log of the chance of each candidate, as many of them at a time as a cache holds."""
            pieces = (
                (self, features, r, p) for r, p in zip(rows.split(JUDGED_ROWS), at.split(JUDGED_ROWS), strict=True)
            )
            apart = run if len(rows) > JUDGED_ROWS else None
            return np.concatenate(list(apart(_judged, pieces) if apart else starmap(_judged, pieces)))

        def propose(at: Tensor) -> tuple[Tensor, np.ndarray]:
            """Return a candidate for each place, and the log of the chance with which its noise was kept."""
            if start is None:
                return self.map(draw_rows(at)), np.zeros(len(at))
            noise, log_chance = start.draw(len(at), generator)
            return self.map(draw_rows(at, noise)), log_chance

        group = np.arange(n) if group is None else group
        start = self.start_ if reject_noise else None
        copies = SPARE / self.share_kept(reject_noise)
        drawn = []
        for places in torch.arange(n).split(CHUNK_ROWS):
            kept = keep_rows(
                places,
                group[places.numpy()],
                propose,
                judge,
                generator,
                copies=copies,
                progress=progress,
            )
            if balanced and len(places) >= MIN_BALANCED and self.raking_ is not None and self.raking_.shares_:
                every, where = kept.candidates(places)
                codes = self.raking_.codes(features(every, where))
                size = np.bincount(kept.group)
                kept.take(balance(codes, self.raking_.shares_, len(self.n_levels), kept.scores, kept.groups, size))
            drawn.append(kept.rows)
        return torch.cat(drawn)

    # -------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "n_continuous": self.n_continuous,
            "n_levels": self.n_levels,
            "knots": self.marginals_.knots,
            "acceptance": self.acceptance_,
            "ratios": [ratio.state() for ratio in self.ratios_],
            "raking": None if self.raking_ is None else self.raking_.state(),
            "log_limit": self.log_limit_,
            "log_boost": self.log_boost_,
            "start": None if self.start_ is None else self.start_.state(),
            "steps": self.steps_,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        refinement = cls(int(state["n_continuous"]), [int(k) for k in state["n_levels"]])
        refinement.marginals_ = MarginalMap(np.empty((0, 0)))
        refinement.marginals_.knots = np.asarray(state["knots"])
        refinement.acceptance_ = float(state["acceptance"])
        refinement.ratios_ = [DensityRatio.from_state(ratio) for ratio in state["ratios"]]
        if state.get("raking") is not None:
            refinement.raking_ = Raking.from_state(state["raking"])
            refinement.log_limit_ = float(state["log_limit"])
        refinement.log_boost_ = float(state.get("log_boost", 0.0))
        if state.get("start") is not None:
            refinement.start_ = StartingNoise.from_state(state["start"])
        refinement.steps_ = int(state.get("steps", REFINED_STEPS))
        return refinement


def _judged(
    refinement: Refinement, features: Callable[[Tensor, Tensor], np.ndarray], rows: Tensor, places: Tensor
) -> np.ndarray:
    """Return the log of the chance of each candidate to be kept: a function that other processes find."""
    return refinement._log_chance(features(rows, places))


def _boost(log_chance: np.ndarray) -> float:
    """Return the log of the factor, at least 1, by which as many rows are kept as the shift allows, and enough."""
    low, high = 0.0, float(max(-log_chance.min(), 0.0))
    chance = np.exp(log_chance)
    wanted = chance / max(chance.sum(), 1e-300)
    for _ in range(40):
        middle = 0.5 * (low + high)
        kept = np.exp(np.minimum(log_chance + middle, 0.0))
        shift = 0.5 * np.abs(kept / kept.sum() - wanted).sum()
        low, high = (middle, high) if shift <= MAX_SHIFT or kept.mean() < MIN_KEPT else (low, middle)
    return low if low > 1e-6 else 0.0


def wants_refinement(refine: str | bool, codec: Any, n_rows: int, vectors: Sequence = ()) -> bool:
    """Return whether a model of a container is refined: tables and short sequences, by default from 1,000 rows on.

    By default not where the condition has vectors: trees do not see which way these point.
    """
    if refine == "auto":
        return not vectors and codec.refined_ == "by default" and n_rows >= MIN_ROWS
    if refine and codec.refined_ == "never":
        raise TypeError("refine=True needs a DataFrame, an array (n, d) or sequences; nothing else is refined.")
    return bool(refine)


def refined_steps(schedule: Schedule, wanted: int = REFINED_STEPS) -> int:
    """Return the steps in which rows to refine are drawn: as many as a schedule has times, if that is less."""
    return min(wanted, schedule.n_timesteps or wanted)


def refinement_rows(n_rows: int, trained: int | None = None, *, asked: bool = False, steps: int = REFINED_STEPS) -> int:
    """Return how many rows are drawn to learn from, where there is time; 0 where so short a training is not refined.

    Parameters
    ----------
    n_rows : int
        Training rows.
    trained : int, optional
        Rows that all training steps saw together: a short training is followed by a short refinement.
    asked : bool, default=False
        Whether it is refined however short that was.
    steps : int
        Of the sampler.
    """
    wanted = min(max(DRAWN_PER_ROW * n_rows, MIN_DRAWN), MAX_DRAWN)
    if trained is None:
        return wanted
    affordable = int(WORK_SHARE * TRAINING_EVALUATIONS * trained / steps)
    if affordable < LEAST_DRAWN:
        return LEAST_DRAWN if asked else 0
    return min(wanted, affordable)


def row_features(codec: Any, rows: Tensor, codes: Tensor | None) -> np.ndarray:
    """Return what trees see of encoded rows (n, d): the values that they stand for, and the condition.

    Within the step of a heavy value a number is random; it goes through the value itself, so that it is not.
    """
    frame = codec.decode(rows, codes, None)
    return frame_features(codec, frame, codes)


def feature_levels(codec: Any, levels: list[int]) -> list[int]:
    """Return the number of levels of each feature, 0 for numbers; `levels` are those of the condition."""
    return [0] * codec.n_continuous_ + codec.n_levels_ + levels


def frame_features(codec: Any, frame: Any, codes: Tensor | None) -> np.ndarray:
    """Return the same of a frame."""
    encoded = codec.encode(frame, codes, None)
    return (encoded if codes is None else torch.cat([encoded, codes.to(encoded.dtype)], dim=1)).numpy()


def fit_refinement(
    codec: Any,
    frame: Any,
    codes: Tensor | None,
    drawn: Tensor,
    condition: Tensor | None,
    levels: list[int],
    seed: int,
    weight: np.ndarray | None = None,
    deadline: float = math.inf,
    device: torch.device | str = "cpu",
    noise: Tensor | None = None,
    steps: int = REFINED_STEPS,
) -> Refinement:
    """Fit the refinement of a model.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    frame : DataFrame
        Training rows.
    codes : Tensor of shape (n, k), optional
        Their encoded condition.
    drawn : Tensor of shape (m, d)
        Encoded rows that the model drew.
    condition : Tensor of shape (m, k), optional
        Their encoded condition.
    levels : list of int
        Number of classes of each attribute of the condition, 0 for continuous ones.
    seed : int
    weight : ndarray of shape (n,), optional
        Weights of the training rows.
    deadline : float
        As in `Refinement.fit`.
    device : torch.device or str, default="cpu"
        Where rows go down the trees.
    noise : Tensor of shape (k, width), optional
        As in `Refinement.fit`.
    steps : int
        In which they were drawn, and will be.
    """
    real = frame_features(codec, frame, codes)
    refinement = Refinement(codec.n_continuous_, feature_levels(codec, levels), device)
    refinement.steps_ = steps
    return refinement.fit(
        real,
        drawn,
        lambda rows: row_features(codec, rows, condition),
        seed=seed,
        weight=weight,
        deadline=deadline,
        noise=noise,
    )
