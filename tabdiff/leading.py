"""Autoguidance of tables: numbers are led away from what a small, briefly trained network makes of them.

What is left of a network's error on numbers after minutes of training is that it is too careful: given everything else
in a row, the numbers that it draws are spread too widely. A smaller network is more so, in the same places, and away
from it lies what more training would have found (Karras et al., 2024, https://arxiv.org/abs/2406.02507). Categories are
not led: their shares would move.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tabdiff.building import ModelSpec, build_denoiser
from tabdiff.diffusion import AutoGuidance, Denoiser, DenoiserLike
from tabdiff.diffusion.mixed import MixedDenoiser
from tabdiff.training import train

if TYPE_CHECKING:
    from tabdiff.generator import DiffusionGenerator

__all__ = ["TIME_SHARE", "build_weak", "lead", "train_weak"]

WEAK_SIZE, WEAK_BLOCKS = 128, 2
# Of the steps of the network itself a quarter, and no more than these, which take a twentieth of its time.
WEAK_STEPS = 1250
TIME_SHARE = 0.05


def build_weak(spec: ModelSpec, seed: int = 0) -> Denoiser:
    """Build the small network beside that of a specification."""
    small = dataclasses.replace(spec, hidden_size=WEAK_SIZE, n_blocks=WEAK_BLOCKS)
    return build_denoiser(small, small.network, seed)


def train_weak(
    spec: ModelSpec, denoiser: Denoiser, n_steps: int, seed: int, *rows: Any, max_time: float | None, **settings: Any
) -> Denoiser:
    """Train the small network on the embeddings of levels of the one that was trained.

    Parameters
    ----------
    spec : ModelSpec
    denoiser : Denoiser
        The one that was trained, for `n_steps`.
    seed : int
        Of the weights.
    rows, settings
        As for `tabdiff.training.train`.
    max_time : float, optional
        Seconds that the whole fit may take.
    """
    weak = build_weak(spec, seed).to(next(denoiser.parameters()).device)
    if isinstance(weak, MixedDenoiser) and isinstance(denoiser, MixedDenoiser):
        # Both see the same noisy rows, in which levels stand by their embeddings.
        weak.levels.data.copy_(denoiser.levels.data)
        weak.levels.requires_grad_(False)
    limit = None if max_time is None else TIME_SHARE * max_time
    steps = max(1, min(WEAK_STEPS, n_steps // 4))
    trained = train(weak, *rows, max_steps=steps, max_time=limit, **settings).denoiser
    return trained.requires_grad_(False)


def lead(gen: DiffusionGenerator) -> DenoiserLike:
    """Return what samples: the denoiser of a fitted generator, led away from the small one if there is one."""
    if gen.weak_ is None:
        return gen.denoiser_
    return AutoGuidance(gen.denoiser_, gen.weak_, gen._spec.autoguidance, n_guided=gen._spec.n_continuous)
