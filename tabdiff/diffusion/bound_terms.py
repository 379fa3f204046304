"""Where on the way from noise to data a variational bound looks at the error, and what the error costs there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tabdiff.diffusion.samplers.grids import Node, node_at
from tabdiff.diffusion.schedules.base import Schedule

__all__ = ["EVEN_SHARE", "LOG_SNR_ZERO", "Term", "chain", "integral", "log_snr_node", "repeated"]


# Where a zero-terminal-SNR schedule is taken to begin, in continuous time.
LOG_SNR_ZERO = -16.0


# Nodes lie where the error of standard normal rows costs most, with this share of the density besides, so that no
# stretch of the log-SNR is left out.
EVEN_SHARE = 0.15


@dataclass(frozen=True)
class Term:
    """A part of the way from noise to data: where the error is looked at, and what it costs.

    Attributes
    ----------
    node : Node
        The time of the error.
    weight, embedded_weight : float
        What the squared error of an entry costs, of a number and of an embedded category.
    """

    node: Node
    weight: float
    embedded_weight: float

    @property
    def mass(self) -> float:
        """What an error of ``1 / (1 + SNR)``, that of standard normal numbers, costs."""
        return self.weight / (1 + math.exp(2 * self.node.lam))


def integral(schedule: Schedule, low: float, high: float, steps: int) -> list[Term]:
    """Return the nodes of the integral over the log-SNR from `low` to `high`, by the midpoint rule along `_place`."""
    table = torch.linspace(low, high, 4097, dtype=torch.float64)
    place = _place(table)
    wanted = place[0] + (place[-1] - place[0]) * (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    right = torch.searchsorted(place, wanted).clamp(1, len(table) - 1)
    share = (wanted - place[right - 1]) / (place[right] - place[right - 1])
    terms = []
    for log_snr in torch.lerp(table[right - 1], table[right], share).tolist():
        rate = 1 / (1 + math.exp(-log_snr)) + EVEN_SHARE
        weight = 0.5 * math.exp(log_snr) * float(place[-1] - place[0]) / (steps * rate)
        terms.append(Term(log_snr_node(schedule, log_snr), weight, weight))
    return terms


def _place(log_snr: Tensor) -> Tensor:
    """Return how far along the way, by what standard normal rows cost, a log-SNR is."""
    return softplus(log_snr) + EVEN_SHARE * log_snr


def log_snr_node(schedule: Schedule, log_snr: float) -> Node:
    """Return the node of a log-SNR; rounding must not take it beyond the ends of the schedule."""
    return node_at(schedule, float(schedule.t_from_log_snr(log_snr).clamp(schedule.t_min, schedule.t_max)))


def chain(schedule: Schedule, log_snr_max: float, steps: int, variance: str) -> tuple[Node, float, list[Term]]:
    """Return the cleanest node of a chain within `log_snr_max`, what each number costs anyway, and terms of its sum.

    Of more terms than `steps` some are taken, evenly along the way. The error per mass is taken to be linear between
    them, so that each stands for its neighbours too.
    """
    assert schedule.n_timesteps is not None
    nodes = [node_at(schedule, k / schedule.n_timesteps) for k in range(1, schedule.n_timesteps + 1)]
    nodes = nodes[next((i for i, node in enumerate(nodes) if 2 * node.lam <= log_snr_max), len(nodes) - 1) :]
    terms, constant = [], 0.0
    for clean, noisy in pairwise(nodes):
        snr, now = math.exp(2 * clean.lam), math.exp(2 * noisy.lam)
        ratio = (1 + now) / (1 + snr) if variance == "large" else 1.0
        constant += 0.5 * (ratio - 1 - math.log(ratio))
        terms.append(Term(noisy, 0.5 * ratio * (snr - now), 0.5 * (snr - now)))
    if len(terms) <= steps:
        return nodes[0], constant, terms
    ends = _place(torch.tensor([2 * node.lam for node in nodes], dtype=torch.float64).clamp(min=LOG_SNR_ZERO))
    place = -(ends[1:] + ends[:-1]) / 2
    wanted = torch.linspace(float(place[0]), float(place[-1]), steps, dtype=torch.float64)
    taken = (place[:, None] - wanted).abs().argmin(0).unique()
    right = torch.searchsorted(place[taken], place).clamp(1, len(taken) - 1)
    left = taken[right - 1]
    share = (place - place[left]) / (place[taken[right]] - place[left])
    scaled = []
    for embedded in (False, True):
        weights = torch.tensor([t.embedded_weight if embedded else t.weight for t in terms], dtype=torch.float64)
        per_error = torch.tensor([1 + math.exp(2 * t.node.lam) for t in terms], dtype=torch.float64)
        sums = torch.zeros_like(weights)
        sums.index_add_(0, left, (1 - share) * weights / per_error)
        sums.index_add_(0, taken[right], share * weights / per_error)
        scaled.append((sums * per_error)[taken].tolist())
    return nodes[0], constant, [Term(terms[i].node, *w) for i, *w in zip(taken.tolist(), *scaled, strict=True)]


def repeated(terms: list[Term], steps: int) -> list[int]:
    """Return how often to look at each term: few ones as often as their mass deserves, twice at least."""
    total = sum(term.mass for term in terms)
    return [1 if 2 * len(terms) > steps else max(2, round(steps * term.mass / total)) for term in terms]
