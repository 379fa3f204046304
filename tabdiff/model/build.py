"""From a configuration to a denoiser: the network, its embeddings, and its seeded start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from tabdiff.codecs import make_codec
from tabdiff.diffusion import Denoiser
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.model.config import ModelConfig
from tabdiff.model.defaults import LATENT_TOKENS, MAX_TOKENS
from tabdiff.nn import (
    ColumnTokens,
    ConditionEmbedding,
    DiT,
    ImageCondition,
    PatchTokens,
    ResidualMLP,
    SequenceTokens,
    UNet,
    VectorColumns,
)
from tabdiff.utils.seeding import borrowed_rng

__all__ = ["build_denoiser", "make_network", "new_codec"]

# Entries of the embedded condition.
CONDITION_SIZE = 64


def make_network(spec: ModelConfig, n_outputs: int, condition_size: int, n_given: int) -> nn.Module:
    """Build the network of a specification, its weights drawn from torch's generator.

    Parameters
    ----------
    spec : ModelConfig
    n_outputs : int
        Width of its output.
    condition_size : int
        Width of the embedded condition, 0 for none.
    n_given : int
        Number of columns that it is told are given, 0 for a network that is told nothing.
    """
    shared: dict[str, Any] = {
        "n_blocks": spec.n_blocks,
        "dropout": spec.dropout,
        "conditioning": spec.conditioning,
        "time_embedding": spec.time_embedding,
        "n_timesteps": spec.schedule.n_timesteps,
    }
    if spec.network == "unet":
        settings = {name: shared[name] for name in ("dropout", "conditioning", "time_embedding", "n_timesteps")}
        return UNet(condition_size=condition_size, n_per_value=spec.n_per_number, **settings, **(spec.unet or {}))
    if spec.network != "dit":
        return ResidualMLP(
            spec.width,
            n_outputs,
            condition_size,
            hidden_size=spec.hidden_size,
            given_size=spec.width + 2 * n_given if n_given else 0,
            n_exact=spec.n_continuous,
            n_waved=spec.n_continuous if spec.n_frequencies else 0,
            n_frequencies=spec.n_frequencies,
            **shared,
            **spec.options,
        )
    return DiT(_make_tokens(spec, n_given), condition_size, **shared, **spec.options)


def _make_tokens(spec: ModelConfig, n_given: int) -> ColumnTokens | PatchTokens | SequenceTokens:
    layout = spec.layout
    if layout["kind"] == "sequence":
        levels = len(spec.frequencies[0])
        return SequenceTokens(
            len(spec.frequencies),
            levels,
            spec.hidden_size,
            embedding_size=spec.embedding_size,
            stride=-(-len(spec.frequencies) // MAX_TOKENS),
        )
    if layout["kind"] == "patches":
        return PatchTokens(layout["shape"], spec.hidden_size, patch=layout["patch"], n_per_value=spec.n_per_number)
    return ColumnTokens(
        spec.n_continuous,
        [len(f) for f in spec.frequencies],
        spec.hidden_size,
        embedding_size=spec.embedding_size,
        given=n_given > 0,
        max_tokens=LATENT_TOKENS if layout["kind"] == "latent" else MAX_TOKENS,
        n_per_number=spec.n_per_number,
    )


def build_denoiser(spec: ModelConfig, denoiser: str | Callable[[int, int, int], nn.Module], seed: int) -> Denoiser:
    """Build a denoiser with freshly drawn weights, the same for the same seed.

    Parameters
    ----------
    spec : ModelConfig
        Sizes, schedule and target.
    denoiser : str or callable
        A callable builds the network; otherwise the specification names it.
    seed : int
        Of the weights.

    Raises
    ------
    TypeError
        If a callable returns something other than an nn.Module.
    """
    attributes = spec.attribute_levels
    condition_size = CONDITION_SIZE if attributes else 0
    n_outputs = spec.n_per_number * spec.n_continuous + sum(len(f) for f in spec.frequencies)
    n_given = spec.n_continuous + len(spec.frequencies) if spec.missing_levels is not None else 0
    with borrowed_rng(seed):
        if callable(denoiser):
            network = denoiser(spec.width, n_outputs, condition_size)
            if not isinstance(network, nn.Module):
                raise TypeError(f"the callable denoiser must return an nn.Module; got {type(network).__name__}.")
        else:
            network = make_network(spec, n_outputs, condition_size, n_given)
        embedding: nn.Module | None = None
        if condition_size:
            # A U-Net takes the pooled vector but for attention.
            attends = {"dit": ("concatenation", "cross_attention"), "unet": ("cross_attention",)}
            tokens = spec.conditioning in attends.get(spec.network, ())
            embedding = ConditionEmbedding(
                attributes, condition_size, vectors=[VectorColumns(*v) for v in spec.vectors], tokens=tokens
            )
        if spec.beside is not None:
            c, h, w = spec.beside
            embedding = ImageCondition((c, h, w), embedding)  # type: ignore[arg-type]
        bounds = None if spec.bounds is None else torch.from_numpy(np.array(spec.bounds))
        if not spec.frequencies:
            # What other targets' networks see is not scaled in the published settings, and c_in would.
            preconditioned = "edm" in (spec.target, spec.loss.weighting)
            plain = Denoiser(
                network,
                spec.schedule,
                spec.target,
                embedding,
                loss=spec.loss,
                sigma_data=spec.data_std if preconditioned else 1.0,
                bounds=bounds,
                n_given=n_given,
                learned_variance=spec.variance == "learned",
            )
            plain.keeps_maps = isinstance(network, UNet)
            return plain
        frequencies = [torch.from_numpy(np.asarray(f, dtype=np.float64)) for f in spec.frequencies]
        return MixedDenoiser(
            network,
            spec.schedule,
            frequencies,
            spec.n_continuous,
            spec.target,
            embedding,
            embedding_size=spec.embedding_size,
            loss=spec.loss,
            bounds=bounds,
            missing_levels=spec.missing_levels,
            shared=spec.layout["kind"] == "sequence",
        )


def new_codec(options: Any, features: Any) -> Any:
    """Return the unfitted codec for data (n, ...) that the parameters of `DiffusionGenerator` ask for."""
    return make_codec(
        features,
        options.codec,
        categorical_features=options.categorical_features,
        constraints=options.constraints,
        layer=options.layer,
    )
