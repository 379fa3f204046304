"""Features that are trained as one: those of which there are too few counts to learn anything of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabdiff.nn.count_autoencoder import CountAutoencoder

__all__ = ["pool_features", "take_pooled"]


@torch.no_grad()
def pool_features(model: CountAutoencoder, rare: Tensor) -> tuple[CountAutoencoder, Tensor]:
    """Make a model in which certain features of each block are one, of their total rate and the dispersion of a sum.

    Parameters
    ----------
    model : CountAutoencoder
        Before training. It is left as it is.
    rare : bool Tensor of shape (n_features,)
        None of them among `input_features`.

    Returns
    -------
    small : CountAutoencoder
        See `take_pooled` for the way back.
    place : int64 Tensor of shape (n_features,)
        The feature of `small` that each feature is, or is part of.
    """
    device = rare.device
    place, sizes, start = torch.empty(len(rare), dtype=torch.int64, device=device), list[int](), 0
    for own, size in zip(place.split(model.blocks), model.blocks, strict=True):
        there = ~rare[start : start + size]
        n_common = int(there.sum())
        own[there] = torch.arange(n_common, device=device)
        own[~there] = n_common
        own += sum(sizes)
        sizes.append(n_common + int(n_common < size))
        start += size

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(len(values), sum(sizes)).index_add_(1, place, values)

    rate = model.class_log_rate.exp()
    tiny = torch.finfo(rate.dtype).tiny
    log_rate = summed(rate).clamp_min(tiny).log()
    log_theta = 2 * log_rate - summed(rate.square() * torch.exp(-model.start_log_theta)).clamp_min(tiny).log()
    of = torch.empty(sum(sizes), dtype=torch.int64, device=device)
    of[place] = torch.arange(len(rare), device=device)
    common = place.bincount() == 1  # these are what they were, to the last digit
    log_rate[:, common] = model.class_log_rate[:, of[common]]
    log_theta[:, common] = model.start_log_theta[:, of[common]]
    small = CountAutoencoder(
        log_rate,
        log_theta,
        model.embedding.levels,
        place[model.input_features],
        n_latent=model.n_latent,
        hidden_size=model.hidden_size,
        generator=torch.Generator().manual_seed(0),  # of weights that are replaced
        blocks=sizes,
    ).to(device, rate.dtype)
    for name, own_module in _shared_modules(model):
        small.get_submodule(name).load_state_dict(own_module.state_dict())
    for name, values in _feature_weights(model):
        small.get_parameter(name).copy_(values[of])
    small.loadings.requires_grad_(model.loadings.weight.requires_grad)
    return small, place


@torch.no_grad()
def take_pooled(model: CountAutoencoder, small: CountAutoencoder, place: Tensor) -> None:
    """Give a model the weights of one that `pool_features` made of it, after training.

    Features that are one there move together; their rates among each other and their dispersions stay what they were.
    """
    common = (place.bincount() == 1)[place]
    for name, own_module in _shared_modules(model):
        own_module.load_state_dict(small.get_submodule(name).state_dict())
    for name, values in _feature_weights(model):
        values.copy_(small.get_parameter(name)[place])
    model.class_shift.copy_(small.class_shift[:, place])
    model.theta_shift.copy_(small.theta_shift[place] * common)
    model.class_theta_shift.copy_(small.class_theta_shift[:, place] * common)


def _shared_modules(model: CountAutoencoder) -> list[tuple[str, nn.Module]]:
    return [("embedding", model.embedding), ("hidden", model.hidden)]


def _feature_weights(model: CountAutoencoder) -> list[tuple[str, Tensor]]:
    """Weights with a row for each feature, by name."""
    names = ["loadings.weight", "output.weight", "output.bias"]
    return [(name, model.get_parameter(name)) for name in names + ["effect.weight"] * (model.effect is not None)]
